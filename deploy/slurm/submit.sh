#!/bin/sh
# Embeds inputs with an array of N tasks, one for each shard, and joins the shards to the outputs of one run in OUT:
#
#   deploy/slurm/submit.sh N OUT [FLAG]... INPUT...
#
# The flags must not include --out, --shard or --shards, which shard.sh sets. docs/cluster.md describes the scripts.
set -eu
if [ $# -lt 3 ]; then
    echo "usage: $0 N OUT [FLAG]... INPUT..." >&2
    exit 64
fi
n=$1 out=${2%/}
shift 2
here=$(dirname "$0")
mkdir -p "$out.shards"
array=$(sbatch --parsable --array="1-$n" --output="$out.shards/%a.log" "$here/shard.sh" "$n" "$out.shards" "$@")
sbatch --dependency="afterok:${array%%;*}" --kill-on-invalid-dep=yes --output="$out.shards/merge.log" "$here/merge.sh" "$out" "$out.shards"
