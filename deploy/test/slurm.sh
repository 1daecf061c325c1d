#!/usr/bin/env bash
# Runs the scripts of deploy/slurm under Slurm, with interruptions, and compares their outputs with those of one run
# without Slurm.
#
# It installs Debian's slurm-wlm and munge if they are missing. It starts munge and a cluster of one node with two fake
# GPUs, all as root and with files in a temporary folder. At the end it stops them and removes the folder. Needs root,
# Debian or Ubuntu, and Go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/test/common.sh
[ "$(id -u)" = 0 ] || fail "needs root: it installs packages and starts slurmctld and slurmd"
if ! { command -v slurmctld && command -v slurmd && command -v munged; } > /dev/null; then
    say "installing slurm-wlm and munge"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install --no-install-recommends slurm-wlm munge; } > /dev/null
fi

folder=$(mktemp -d)
chmod 711 "$folder" # munged requires this mode for the folder of its socket
out=$folder/out
shards=8
export SLURM_CONF=$folder/slurm.conf

# ours prints the ids of the cluster's processes, among them munged and embed. They have the path of the cluster's
# configuration file in their environment.
ours() { grep -lsz "^SLURM_CONF=$SLURM_CONF\$" /proc/[0-9]*/environ | cut -d / -f 3 | grep -vx $$ || true; }

stop() {
    code=$?
    trap '' EXIT INT TERM
    if [ $code != 0 ] && [ -d "$folder" ]; then
        tail -n 8 "$folder"/*.log "$out.shards"/*.log >&2 || true
        [ ! -e "$SLURM_CONF" ] || timeout 10 squeue >&2 || true
    fi
    kill -KILL $(jobs -p) $(ours) 2> /dev/null || true
    rm -rf "$folder"
    exit $code
}
trap stop EXIT
trap 'exit 130' INT TERM

# start_cluster starts munged, slurmctld and slurmd, and waits until the node is idle.
start_cluster() {
    local host ports
    host=$(hostname -s)
    touch "$folder/gpu0" "$folder/gpu1"
    mkdir "$folder/state" "$folder/spool"
    dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
    chmod 600 "$folder/munge.key"
    munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munge.pid" \
        --log-file="$folder/munge.log" --seed-file="$folder/munge.seed"
    cat > "$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$((20000 + $$ % 10000))
SlurmdPort=$((30000 + $$ % 10000))
AuthInfo=socket=$folder/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=20
KillWait=10
NodeName=$host NodeAddr=127.0.0.1 CPUs=16 RealMemory=65536 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
END
    echo "NodeName=$host Name=gpu File=$folder/gpu[0-1]" > "$folder/gres.conf"
    slurmctld
    slurmd
    await 60 "the node is idle" sh -c 'sinfo -h -o %T | grep -qx idle'
}

# crash kills slurmd, slurmstepd and the processes of all jobs, as if the node lost its power. It kills slurmd and
# slurmstepd first, so that they cannot report the end of a job to slurmctld.
crash() {
    local name p left=
    for name in slurmd slurmstepd; do
        while left=$(running "$name") && [ -n "$left" ]; do
            kill -KILL $left || true
        done
    done
    for p in $(ours); do
        if tr '\0' '\n' < "/proc/$p/environ" | grep -q '^SLURM_JOB_ID='; then kill -KILL "$p" || true; fi
    done
} 2> /dev/null

# running NAME prints the ids of the cluster's processes whose program's name begins with NAME. It leaves out zombies,
# which have no program.
running() {
    for p in $(ours); do
        case $(readlink "/proc/$p/exe") in /*/"$1"*) echo "$p" ;; esac
    done
}

# restarted N succeeds if Slurm has queued task N again at least once.
restarted() { scontrol show job "${array}_$1" | grep -q 'Restarts=[1-9]'; }

# state STATE succeeds if the state of the node, such as down, begins with STATE.
state() { sinfo -h -o %T | grep -q "^$1"; }

say "building embed"
go build -o "$folder/embed" ./cmd/embed
make_inputs
flags=(--gpus none --dnabert-model synthetic:dnabert-s-2l --esm-model synthetic:esm2-8m)
say "one run"
"$folder/embed" --no-progress "${flags[@]}" -o "$folder/one" "$folder/in" > "$folder/one.log" 2>&1
say "starting Slurm $(slurmctld -V | cut -d ' ' -f 2)"
start_cluster

say "deploy/slurm/submit.sh $shards"
shard_folders=$out.shards
hold 1 2 3 4 8 &
EMBED=$folder/embed deploy/slurm/submit.sh $shards "$out/" "${flags[@]}" "$folder/in" > "$folder/submit.log"
merge=$(grep -o '[0-9]*$' "$folder/submit.log")
array=$(squeue -h -n embed -o %F | head -n 1)

await_held 1
kill -KILL "$pid"
await 60 "Slurm queues task 1 again" restarted 1
say "task 1: embed was killed, Slurm has queued it again"

await_held 2
scontrol requeue "${array}_2"
await 60 "Slurm queues task 2 again" restarted 2
say "task 2: scontrol requeue, Slurm has queued it again"

await_held 3
scontrol update JobId="${array}_3" TimeLimit=1
await 120 "Slurm warns task 3 of the end of its time and queues it again" restarted 3
scontrol update JobId="${array}_3" TimeLimit=60
say "task 3: SIGTERM before the end of its time, Slurm has queued it again"

await_held 4
crash
await 120 "Slurm takes the node for lost" state down
slurmd
await 60 "Slurm queues task 4 again" restarted 4
say "task 4: the node was lost and is back, Slurm has queued it again"

await_held 8
kill -KILL "$(cat "$folder/slurmd.pid")"
slurmd
await 60 "slurmd answers" scontrol show slurmd
kill -CONT "$pid"
say "task 8: slurmd alone was killed and is back"

await 600 "the jobs end" sh -c '[ -z "$(squeue -h)" ]'
scontrol show job "$merge" | grep -q JobState=COMPLETED || fail "the merge job: $(scontrol show job "$merge" | grep -o 'JobState=.*')"
if restarted 8; then fail "task 8 was queued again: it did not survive the loss of slurmd alone"; fi
for i in 1 2 3 4; do
    grep -q 'complete already' "$out.shards/$i.log" || fail "task $i did not continue, it began anew"
done
grep -q 'interrupted; the same command continues' "$out.shards/3.log" || fail "task 3 did not end by SIGTERM"
say "all tasks and the merge job have ended"
compare "$folder/one" "$out"
say "passed"
