#!/bin/sh
#SBATCH --job-name=embed
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=4:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
# Runs one task of the array, which computes one of N shards: shard.sh N DIR [FLAG]... INPUT...
#
# A minute before the end of its time, or when the task is preempted, embed gets SIGTERM and ends with exit code 75. The
# script then queues the task again, and embed continues. If embed was killed, for example for lack of memory, the
# script queues the task again, too, unless the task was already queued again three times, for any reason.
n=$1 dir=$2
shift 2
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${EMBED:-embed}" --no-progress --shard auto --shards "$n" -o "$dir/$SLURM_ARRAY_TASK_ID" "$@"
code=$?
if [ "$code" -eq 75 ] || { [ "$code" -gt 128 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; }; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
