#!/usr/bin/env bash
# Trains on a spot TPU slice, and on a new one whenever it is taken away.
# REPOSITORY=URL WORKDIR=gs://BUCKET/RUN ZONE=us-west4-a experiments/launch/tpu_slice.sh
set -u
: "${REPOSITORY:?its URL}" "${WORKDIR:?such as gs://BUCKET/RUN}" "${ZONE:?such as us-west4-a}"
NAME="${NAME:-effnetv2}" TYPE="${TYPE:-v5litepod-16}" VERSION="${VERSION:-v2-alpha-tpuv5-lite}"

state() {
  gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" --format='value(state.state)'
}

on_every_host() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

while true; do
  gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
    --accelerator-type="$TYPE" --runtime-version="$VERSION" --spot
  until [ "$(state)" = ACTIVE ]; do sleep 60; done
  on_every_host "git clone --depth 1 $REPOSITORY code &&
    pip install -q -e 'code[tpu,gcs]'"
  on_every_host "cd code &&
    python3 -m effnetv2_jax.main --config=configs/imagenet_s.py --workdir=$WORKDIR"
  status=$?
  sleep 120 # Until the loss of a slice shows in its state.
  [ "$(state)" != ACTIVE ] || exit "$status" # The run has ended by itself.
  gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet
done
