#!/usr/bin/env bash
# Two hosts, one process each with all its GPUs: experiments/launch/by_hand.sh 0 on the first,
# experiments/launch/by_hand.sh 1 on the other.
# FIRST is the first host's address, WORKDIR a directory that both see.
export JAX_COORDINATOR_ADDRESS="${FIRST:?such as 10.0.0.1}:1234"
export JAX_NUM_PROCESSES=2
export JAX_PROCESS_ID="${1:?0 or 1}"
while true; do
  python3 -m effnetv2_jax.main --config=configs/imagenet_s.py --workdir="${WORKDIR:?}"
  status=$?
  [ "$status" -eq 143 ] || exit "$status"
done
