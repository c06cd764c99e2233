#!/usr/bin/env bash
# Two hosts with 8 GPUs each, one process per GPU; start it on the first of them.
# WORKDIR must be a directory that both see.
export JAX_COORDINATOR_ADDRESS="$(hostname -i | cut -d' ' -f1):1234" # For Open MPI 5; 4 tells it itself.
mpirun -n 16 --host "$(hostname):8,${OTHER:?the other host}:8" -x JAX_COORDINATOR_ADDRESS \
  python3 -m effnetv2_jax.main --config=configs/imagenet_s.py --workdir="${WORKDIR:?}"
