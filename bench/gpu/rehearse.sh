#!/usr/bin/env bash
# Rehearses a visit on the software GPU: visit.sh as it is, then with a kernel that fails, with one that hangs, without
# cuBLAS, without a driver, without tools and with too little time. Each summary must report the fault, and only a step
# that is made to hang may reach its time limit. Takes about a quarter of an hour on two cores.
#
#     rehearse.sh            all rehearsals; make rehearse also builds the required files
#     rehearse.sh limits     checks that the limits add up to at most 270, 420 and 540 seconds in calls 1, 2 and 3
#     rehearse.sh NAME...    plain, kernel, hang, nocublas, nodriver, notools or deadline
#
# The environment:
#
#     SOFTGPU=build/softgpu  folder with libcuda.so.1 and libcublasLt.so.13
#     OUT=build/rehearsal    folder of the results
#     PYTHON=                Python with PyTorch, if it is neither python3 nor /usr/bin/python3
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

# limits checks that the limits of the steps add up to at most 270, 420 and 540 seconds in calls 1, 2 and 3.
limits() {
    bash bench/gpu/visit.sh limits | awk '
        /^call/ { sub(":", "", $2); sum[$2] = $3 }
        END {
            printf "the limits add up to %d s in call 1, %d s in call 2 and %d s in call 3\n", sum[1], sum[2], sum[3]
            exit !(sum[1] > 0 && sum[1] <= 270 && sum[2] > 0 && sum[2] <= 420 && sum[3] > 0 && sum[3] <= 540)
        }'
}
if [ "${1:-}" = limits ]; then
    limits
    exit
fi

softgpu=$(realpath "${SOFTGPU:-build/softgpu}")
mkdir -p "${OUT:=build/rehearsal}"
OUT=$(realpath "$OUT")
for python in "${PYTHON:-}" python3 /usr/bin/python3; do
    [ -n "$python" ] && "$python" -c 'import torch' 2> /dev/null && break
done
failed=0
if [ ! -e "$softgpu/libcuda.so.1" ] || [ ! -x build/gpu/visit.sh ]; then
    echo "rehearse.sh: $softgpu and build/gpu are needed: make softgpu gpu-bundle" >&2
    exit 1
fi

# wrong TEXT reports an error in the current summary.
wrong() {
    failed=1
    echo "WRONG: $*"
    [ "${shown:-}" = "$scenario" ] || sed 's/^/    /' <<< "$summary"
    shown=$scenario
}

# visit NAME CALL VARIABLES... makes a call with these variables. Its summary is $summary, its results are in $out.
visit() {
    scenario="$1, call $2"
    out=$OUT/$1-$2
    rm -rf "$out"
    mkdir -p "$out"
    local start=$SECONDS
    env LD_LIBRARY_PATH="$softgpu" CUDA_CACHE_PATH="$out/cache" REHEARSAL=1 PYTHON="$python" OUT="$out" "${@:3}" \
        build/gpu/visit.sh "$2" > "$out/printed.log" 2>&1
    status=$?
    took=$((SECONDS - start))
    summary=$(cat "$out/summary.txt")
    printf '== %s: %d s, exit status %d\n' "$scenario" $took $status
    # the output must end with the summary
    [ "$(tail -n "$(wc -l < "$out/summary.txt")" "$out/printed.log")" = "$summary" ] ||
        wrong "$scenario: the summary is not printed last"
    [ -s "$out/logs.tgz" ] || wrong "$scenario: there is no archive of the logs"
}

# expect STATE STEP [PATTERN] checks that the summary has a line with this state, this step and a text that matches
# PATTERN.
expect() {
    grep -q -E "^$1 +$2( .*${3:-}|\$)" <<< "$summary" || wrong "$scenario: the summary has no '$1 $2 ${3:-}'"
}

# logged STEP PATTERN checks that the step's log in the archive contains the pattern.
logged() {
    tar -xzOf "$out/logs.tgz" "./$1.log" | grep -E "$2" > /dev/null || wrong "$scenario: the log of $1 has no $2"
}

# clean checks that every step is ok or needs a tool that this machine does not have.
clean() {
    local bad
    bad=$(grep -v -E '^(ok|absent) ' <<< "$summary")
    [ -z "$bad" ] || wrong "$scenario: not every step is ok"
    [ $status = 0 ] || wrong "$scenario: exit status $status"
}

# complete CALL checks that every step of the call has a line, except for models that take too long for a rehearsal.
complete() {
    local step
    for step in $(bash build/gpu/visit.sh steps "$1"); do
        case $step in
        *-35m | *-150m) ;;
        *) grep -q -E "^[^ ]+ +$step " <<< "$summary" || wrong "$scenario: $step is missing" ;;
        esac
    done
}

plain() {
    local call
    for call in 1 2 3; do
        visit plain $call
        clean
        complete $call
        grep -q 'of 989' "$out/results.md" || wrong "$scenario: the table is empty"
        head -n 1 "$out/bench.jsonl" | grep -q '"card":"..*"driver":"..*"commit":"..*"script":"visit.sh' ||
            wrong "$scenario: the results do not say where they come from"
    done
}

# a kernel fails: the other steps still run, and the summary names the launch
kernel() {
    visit kernel 1 SOFTGPU_FAULT=kernel:layernorm STEPS='machine|devices|own-gelu|own-embed|own-rotary|own-starts'
    expect FAILED own-embed
    expect again own-embed 'embed: passes by itself'
    expect again own-embed 'norm: .*layernorm_.*ILLEGAL_ADDRESS'
    expect ok own-gelu
    expect ok own-rotary
    expect FAILED own-starts
    expect again own-starts 'starts: .*layernorm_.*ILLEGAL_ADDRESS'
    [ $status = 1 ] || wrong "$scenario: exit status $status"
}

# a kernel hangs: its step reaches its limit, its log has the test and the stacks, and the other steps still run
hang() {
    visit hang 1 SOFTGPU_FAULT=hang:pool LIMIT=60 STEPS='machine|devices|own-embed|own-rotary'
    expect TIMEOUT own-embed
    logged own-embed '=== RUN +TestGPU/own_products/fp32/pool'
    logged own-embed '^goroutine '
    expect ok own-rotary
    [ $status = 1 ] || wrong "$scenario: exit status $status"
}

nocublas() {
    local file
    rm -rf "$OUT/driver-only"
    mkdir -p "$OUT/driver-only"
    for file in "$softgpu"/*; do
        case $file in */libcublas*) ;; *) ln -s "$file" "$OUT/driver-only/" ;; esac
    done
    visit nocublas 1 LD_LIBRARY_PATH="$OUT/driver-only" \
        STEPS='machine|devices|own-rotary|cublas-bf16|cublas-linear|forward-3b'
    expect ok own-rotary
    expect FAILED cublas-bf16 'a test was skipped'
    expect FAILED cublas-linear 'a test was skipped'
    expect ok forward-3b
}

nodriver() {
    visit nodriver 1 LD_LIBRARY_PATH=
    expect FAILED devices
    expect STOPPED 'call 1' 'no device'
    [ "$(wc -l <<< "$summary")" = 3 ] || wrong "$scenario: something else ran"
    [ $status = 1 ] || wrong "$scenario: exit status $status"
}

notools() {
    visit notools 2 PYTHON=/nonexistent/python STEPS='machine|devices|forward-3b|ceiling|records|peers-3b'
    clean
    expect ok forward-3b
    expect absent ceiling
    expect absent peers-3b
}

# too little time: the running step is stopped, later steps are skipped, and the call ends by the deadline; a step whose
# limit is below 5 s still runs
deadline() {
    visit short 2 LIMIT=4 STEPS=machine
    expect ok machine
    visit deadline 1 DEADLINE=30
    expect ok devices
    expect SKIPPED program
    [ $took -le 40 ] || wrong "$scenario: it took $took s"
    [ $status = 1 ] || wrong "$scenario: exit status $status"
}

limits || failed=1
[ $# -gt 0 ] || set -- plain kernel hang nocublas nodriver notools deadline
for name in "$@"; do
    case $name in
    plain | kernel | hang | nocublas | nodriver | notools | deadline) $name ;;
    *)
        echo "rehearse.sh: there is no $name" >&2
        exit 64
        ;;
    esac
    # only a step that hangs may reach its limit, and only the deadline may shorten a limit
    case $name in
    hang) ;;
    deadline)
        ! grep '^TIMEOUT' <<< "$summary" | grep -v -q 'cut by the deadline' || wrong "$name: a step ended by its limit"
        ;;
    *) ! grep -q '^TIMEOUT' "$OUT/$name"-*/summary.txt || wrong "$name: a step ended by its limit" ;;
    esac
done
[ $failed = 0 ] && echo "the rehearsal went as it should" || echo "the rehearsal went WRONG"
exit $failed
