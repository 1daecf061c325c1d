#!/usr/bin/env bash
# Runs deploy/snakemake, with interruptions, and compares its outputs with those of one run without Snakemake.
#
# It installs Debian's snakemake if there is none, for which it must be root. All other files are in a temporary folder,
# which is removed at the end. Needs Go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
. deploy/test/common.sh
if ! command -v snakemake > /dev/null; then
    say "installing snakemake"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install --no-install-recommends snakemake; } > /dev/null
fi

folder=$(mktemp -d)
shard_folders=out.shards # below the temporary folder, where Snakemake runs

# ours prints the ids of the test's processes. They have the path of the test's folder in their environment.
ours() { grep -lsz "^TEST_FOLDER=$folder\$" /proc/[0-9]*/environ | cut -d / -f 3 || true; }

stop() {
    code=$?
    trap '' EXIT INT TERM
    [ $code = 0 ] || tail -n 8 "$folder"/*.log "$folder/$shard_folders"/*.log >&2 || true
    kill -KILL $(jobs -p) $(ours) 2> /dev/null || true
    rm -rf "$folder"
    exit $code
}
trap stop EXIT
trap 'exit 130' INT TERM

say "building embed"
go build -o "$folder/embed" ./cmd/embed
make_inputs
flags="--gpus none --dnabert-model synthetic:dnabert-s-2l --esm-model synthetic:esm2-8m"
say "one run"
"$folder/embed" --no-progress $flags -o "$folder/one" "$folder/in" > "$folder/one.log" 2>&1

# engine runs Snakemake with three shards at a time. Since hold stops three shards, the third of them can start while
# the other two are stopped.
engine() {
    exec snakemake "$@" --snakefile "$root/deploy/snakemake/Snakefile" --cores 3 --set-threads shard=1 \
        --config embed="$folder/embed" inputs="[in]" out=out/ shards=8 flags="$flags" >> snakemake.log 2>&1
}

# retries COUNT succeeds if Snakemake has retried jobs at least COUNT times.
retries() { [ "$(grep -c 'Trying to restart job' snakemake.log)" -ge "$1" ]; }

cd "$folder"
export XDG_CACHE_HOME=$folder/cache TEST_FOLDER=$folder
say "Snakemake $(snakemake --version)"
hold 1 2 3 &
engine &

await_held 1
kill -KILL "$pid"
await 60 "Snakemake retries shard 1" retries 1
say "shard 1: embed was killed, Snakemake has retried it"

await_held 2
kill -TERM "$pid"
kill -CONT "$pid"
await 60 "embed ends by SIGTERM" grep -qs interrupted "$shard_folders/2.log"
await 60 "Snakemake retries shard 2" retries 2
say "shard 2: SIGTERM, Snakemake has retried it"

await_held 3
kill -KILL $(ours) 2> /dev/null || true
wait || true
say "shard 3: embed, Snakemake and all other processes were killed"
(engine --unlock)
(engine --rerun-incomplete) || fail "Snakemake has failed"
say "Snakemake, started again, has ended"

for i in 1 2 3; do
    grep -q 'complete already' "$shard_folders/$i.log" || fail "shard $i did not continue, it began anew"
done
compare one out
(engine --dry-run)
tail -n 20 snakemake.log | grep -q 'Nothing to be done' || fail "Snakemake would run again"
say "passed"
