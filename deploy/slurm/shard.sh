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
# again and continues. So is a task whose embed was killed, for lack of memory for instance, if it has been queued again
# less than three times.
n=$1 dir=$2
shift 2
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${EMBED:-embed}" --no-progress --shard auto --shards "$n" -o "$dir/$SLURM_ARRAY_TASK_ID" "$@"
code=$?
if [ "$code" -eq 75 ] || { [ "$code" -gt 128 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; }; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
