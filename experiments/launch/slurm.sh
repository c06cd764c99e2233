#!/usr/bin/env bash
# sbatch experiments/launch/slurm.sh
#SBATCH --job-name=effnetv2
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@180
#SBATCH --open-mode=append

# One process per GPU. SIGTERM reaches them, and not this script, three minutes before the end of
# the time, and when the job is preempted.
srun --kill-on-bad-exit=1 \
  python3 -m effnetv2_jax.main --config=configs/imagenet_s.py --workdir="$HOME/runs/imagenet_s"
status=$?
if [ "$status" -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
