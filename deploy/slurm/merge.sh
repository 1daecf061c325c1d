#!/bin/sh
#SBATCH --job-name=embed-merge
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=4:00:00
# Joins the shards in the subfolders of DIR to the outputs in OUT: merge.sh OUT DIR
out=$1 dir=$2
exec "${EMBED:-embed}" merge -o "$out" "$dir"/*/
