#!/bin/sh
#SBATCH --job-name=embed
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=4:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
# One task of the array: shard.sh N DIR [FLAG]... INPUT...
# A minute before the end of its time, or when it is preempted, embed gets SIGTERM and ends with 75: the task is queued
# again and continues.
n=$1 dir=$2
shift 2
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${EMBED:-embed}" --no-progress --shard auto --shards "$n" -o "$dir/$SLURM_ARRAY_TASK_ID" "$@"
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
