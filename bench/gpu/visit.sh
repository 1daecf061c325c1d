#!/usr/bin/env bash
# One call on a machine with a GPU, from the folder that bundle.sh made; Go is not needed there.
#
#     visit.sh 1         correctness: devices, every kernel, cuBLAS, parity, a first measurement, the program
#     visit.sh 2         speed: forward passes with a profile, the GPU's peak rates, variants, PyTorch
#     visit.sh 3         other sizes, FASTA to file, rows, the cost of batch invariance, packed PyTorch
#     visit.sh limits    the steps of each call, their limits in seconds and the sums
#     visit.sh steps 1   the names of the steps of a call
#
# Every step has a time limit, in the table below. A step may also use time that earlier steps have saved, up to its
# second limit, so that it never takes time from later steps. A step that would end after DEADLINE is stopped or
# skipped. A failed step does not stop later ones. A failed test runs once more, each part in a separate process with
# blocking launches and a core dump, so that the failed launch can be named; this uses saved time only. A tool that is
# not installed is reported in the summary and is not a failure.
#
# At the end OUT contains summary.txt, which is also printed; bench.jsonl, one measurement per line, after a line with
# GPU, driver, commit and script; results.md, a table of the measurements; and logs.tgz. The exit status is 0 if no step
# failed, reached its limit or was skipped. The environment:
#
#     OUT=./out          folder of the results
#     DEADLINE=270       total time in seconds; 420 for call 2, 540 for call 3
#     STEPS=REGEX        only the steps whose whole name matches
#     PYTHON=python3     Python with PyTorch, for the peers
#     EMBED_CUBLAS=      libcublasLt to use instead of PyTorch's; "none": the program's own products
#     REHEARSAL=1        the same steps on a software GPU: three small models, 512 tokens, PyTorch on the CPU
#     LIMIT=SECONDS      limit for all steps instead of their own; 600 in a rehearsal
set -uo pipefail
export LC_ALL=C # EPOCHREALTIME then has a decimal point, not a comma
t0=${EPOCHREALTIME/./}
here=$(cd "$(dirname "$0")" && pwd)

# Columns: call, step, limit, limit with saved time. Rows are in the order of execution.
table='
1 machine               5  10
1 devices              10  25
1 own-gelu              5  40
1 own-bf16             28  70
1 own-fp16              8  40
1 own-embed             8  30
1 own-linear           14  40
1 own-rotary            6  30
1 own-attention        16  45
1 own-starts            4  20
1 cublas-bf16          10  40
1 cublas-fp16           4  30
1 cublas-linear        10  40
1 parity-bf16          40  80
1 forward-dnabert      12  40
1 forward-650m         14  40
1 forward-3b           26  60
1 parity-fp32          18  60
1 parity-fp16          18  60
1 program              14  40
1 memcheck              0  60
2 machine               5  10
2 devices              10  25
2 forward-dnabert      12  40
2 forward-dnabert-2x    8  30
2 forward-650m         13  40
2 forward-650m-2x      13  40
2 forward-3b           22  60
2 ceiling              24  60
2 own-650m             15  40
2 tile29-dnabert        8  30
2 tile201-dnabert       8  30
2 ncu                  20  60
2 records               4  10
2 peers-dnabert        75 150
2 peers-650m           77 150
2 peers-3b            100 160
3 machine               5  10
3 devices              10  25
3 forward-8m           15  40
3 forward-35m           6  30
3 forward-150m          8  30
3 rows                 25  60
3 free-dnabert          8  30
3 free-650m            10  40
3 file-dnabert         25  60
3 file-650m            30  60
3 records               5  10
3 baseline-dnabert     45  90
3 baseline-650m        45  90
3 packed-650m          55 120
3 packed-dnabert       50 120
3 peers-8m             60  90
3 peers-35m            60  90
3 peers-150m           70 100
'
# steps CALL prints the rows of a call in the table.
steps() { awk -v call="$1" '$1 == call' <<< "$table"; }

case ${1:-} in
1 | 2 | 3) part=$1 ;;
steps) steps "${2:?which call}" | awk '{ print $2 }'; exit ;;
limits)
    awk 'NF { sum[$1] += $3; printf "%s %-20s %4d s, with saved time %d s\n", $1, $2, $3, $4 }
        END { for (c = 1; c <= 3; c++) printf "call %d: %d s\n", c, sum[c] }' <<< "$table"
    exit
    ;;
*)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2
    exit 64
    ;;
esac

mkdir -p "${OUT:=./out}" || exit 1
OUT=$(cd "$OUT" && pwd)
cd "$here" || exit 1
logs=$(mktemp -d) scratch=$(mktemp -d) summary=$OUT/summary.txt
bench=$OUT/bench.jsonl
: > "$summary"
failed=0
python=${PYTHON:-python3}
case $part in 1) deadline=270 ;; 2) deadline=420 ;; 3) deadline=540 ;; esac
if [ -n "${REHEARSAL:-}" ]; then
    dna=dnabert-s-2l middle=esm2-8m large=esm2-tiny
    tokens=512 double=256 total=512 few=512 benchtime=1x parity=()
    peer=(--device cpu --budgets 512 --seconds 0 --baseline-tokens 128)
    deadline=20000 LIMIT=${LIMIT:-600}
    pieces=4 proteins=3 rows=esm2-tiny longest=64 program=esm2-tiny
    goldens='esm2-tiny|esm2-8m|dnabert-s-2l' long=(-test.short)
else
    dna=dnabert-s middle=esm2-650m large=esm2-3b
    tokens=32768 double=65536 total=262144 few=131072 benchtime=5x parity=(-parity.full)
    peer=(--budgets 32768,65536 --compile blocks) # a whole model takes a minute or two to compile
    pieces=186000 proteins=12000 rows='dnabert-s|esm2-650m' longest=$tokens program=esm2-8m
    goldens='esm2-tiny|esm2-hd128|esm2-8m|esm2-35m|esm2-150m|esm2-650m|dnabert-s-2l|dnabert-s|esm2-3b' long=()
fi
deadline=$((10 * ${DEADLINE:-$deadline}))
export EMBED_REQUIRE_GPU=1 EMBED_SHARED=$here/shared PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1
export CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-/tmp/embed-cuda-cache} CUDA_CACHE_MAXSIZE=1073741824
small_core=skip_global_memory,skip_shared_memory,skip_local_memory,skip_constbank_memory
ulimit -c 0 # a step that hangs is ended by SIGQUIT, which should print stacks but not dump the host's memory
commit=$(cat COMMIT 2> /dev/null || echo unknown)

# now prints the time since the start in tenths of a second; seconds formats such a time.
now() { local t=${EPOCHREALTIME/./}; echo $(((t - t0) / 100000)); }
seconds() { printf '%d.%d' $(($1 / 10)) $(($1 % 10)); }

# say STATE STEP TEXT adds a line to the summary. fail does the same and marks the call as failed.
say() { printf '%-8s %-18s %s\n' "$@" | tee -a "$summary"; }
fail() { failed=1; say "$@"; }
finish() {
    trap - EXIT INT TERM
    [ -z "${clocks:-}" ] || kill "$clocks" 2> /dev/null
    if [ -s "$bench" ] && command -v "$python" > /dev/null; then
        "$python" table.py "$bench" > "$OUT/results.md" 2>> "$summary" || fail FAILED table "$bench"
    fi
    cp "$summary" "$logs/"
    tar -C "$logs" -czf "$OUT/logs.tgz" . 2> /dev/null
    rm -rf "$logs" "$scratch"
    echo "== summary of call $part, $(seconds "$(now)") s, commit $commit"
    cat "$summary"
    exit $failed
}
trap finish EXIT
trap 'fail CUT "call $part" "by a signal"; exit' INT TERM

# chosen STEP tests whether the step is one of those that STEPS selects.
chosen() { [[ $1 =~ ^(${STEPS:-.*})$ ]]; }

# budget STEP sets, in tenths of a second: wanted, the step's own limit; most, its limit with saved time; left, the time
# until the deadline minus the limits of later steps.
budget() {
    local step least greatest found=
    left=$((deadline - $(now)))
    while read -r _ step least greatest; do
        if [ "$step" = "$1" ]; then
            found=1 wanted=$((10 * ${LIMIT:-$least})) most=$((10 * ${LIMIT:-$greatest}))
        elif [ -n "$found" ] && chosen "$step"; then
            left=$((left - 10 * ${LIMIT:-$least}))
        fi
    done <<< "$(steps "$part")"
    [ -n "$found" ] || { echo "visit.sh: the table has no step $1 in call $part" >&2; exit 70; }
}

# watched LOG TENTHS COMMAND... returns the command's status, or 124 after a timeout. At the timeout it sends SIGQUIT,
# at which a Go program prints all stacks, and two seconds later SIGKILL.
watched() {
    local log=$1 limit=$2 status=0 start
    start=$(now)
    : > "$log"
    timeout -s QUIT -k 2 "$(seconds "$limit")" "${@:3}" >> "$log" 2>&1 < /dev/null || status=$?
    [ $status = 137 ] && [ $(($(now) - start)) -ge "$limit" ] && status=124
    return $status
}

# trouble LOG LINES prints the first lines of a log with an error, and the last lines, at most LINES each.
trouble() {
    local telling='CUDA_|CUBLAS_|--- FAIL|errs by|relative L2 error|^panic|SIG[A-Z]|fatal|[Ee]rror|no such|not found|not defined'
    grep -n -m "$2" -E "$telling" "$1" | cut -c1-300
    tail -n "$2" "$1" | cut -c1-300
}

# stuck LOG prints the running test of a Go program that was ended, and the current call of its device thread.
stuck() {
    grep -n '^=== RUN' "$1" | tail -n 1
    sed -n '/^goroutine .*syscall/,/^$/p' "$1" | grep '^seqembed' | head -n 5 | cut -c1-200
}

# step NAME COMMAND... runs a step within its limit and returns its status. SHOW=n prints the last n lines of its log.
step() {
    local name=$1 status=0 wanted most left limit least start took cut=
    shift
    chosen "$name" || return 97
    budget "$name"
    start=$(now)
    limit=$((left > wanted ? left : wanted))
    limit=$((limit < most ? limit : most))
    limit=$((limit < deadline - start ? limit : deadline - start))
    # a step is not started if less than 5 s are left for it, or less than its own limit if that is below 5 s
    least=$((wanted > 0 && wanted < 50 ? wanted : 50))
    if [ $limit -lt $least ]; then
        fail SKIPPED "$name" "$(seconds $((limit > 0 ? limit : 0))) s were left for it"
        return 99
    fi
    watched "$logs/$name.log" $limit "$@" || status=$?
    if [ $status = 0 ]; then # a run with skipped tests or without tests has not passed
        grep -q -e '--- SKIP' "$logs/$name.log" && status=98
        grep -q -e 'no tests to run' "$logs/$name.log" && status=96
    fi
    took="$(seconds $(($(now) - start))) s"
    [ $limit -lt $wanted ] && cut=", cut by the deadline; its limit is $(seconds $wanted) s"
    case $status in
    0) say ok "$name" "$took" ;;
    124) fail TIMEOUT "$name" "after $took$cut" ;;
    98) fail FAILED "$name" "$took, a test was skipped" ;;
    96) fail FAILED "$name" "$took, there is no such test" ;;
    *) fail FAILED "$name" "$took, exit status $status" ;;
    esac
    if [ $status = 124 ] && grep -q '^SIGQUIT' "$logs/$name.log"; then
        stuck "$logs/$name.log"
    elif [ $status != 0 ]; then
        trouble "$logs/$name.log" "${TAIL:-6}"
    elif [ -n "${SHOW:-}" ]; then
        tail -n "$SHOW" "$logs/$name.log" | cut -c1-200
    fi
    return $status
}

# absent STEP WHY reports a step whose tool is missing.
absent() { chosen "$1" && say absent "$1" "$2"; }

# passed NAME PARTS tests whether, according to the log of step NAME, the tests of PARTS passed and none of them failed.
passed() {
    grep -q -E -e "--- PASS: [^ ]*/($2) " "$logs/$1.log" && ! grep -q -E -e "--- FAIL: [^ ]*/($2) " "$logs/$1.log"
}

# tests NAME PREFIX PARTS COMMAND... runs a step of Go tests. PARTS is an alternation for the last part of their names.
# If the step fails, each alternative that has not passed runs again separately, in saved time only. After a hang the
# log has the name of the test and the stacks.
tests() {
    local name=$1 prefix=$2 parts=$3 status=0 one why log n=0 wanted most left limit list
    shift 3
    step "$name" "$@" -test.v -test.run "$prefix^($parts)\$" || status=$?
    case $status in 0 | 96 | 97 | 98 | 99 | 124) return $status ;; esac
    IFS='|' read -r -a list <<< "$parts"
    for one in "${list[@]}"; do
        passed "$name" "$one" && continue
        budget "$name"
        limit=$((10 * ${LIMIT:-20})) n=$((n + 1)) log=$logs/$name.again.$((n)).log status=0
        limit=$((left < limit ? left : limit))
        if [ $limit -lt 50 ]; then
            say again "$name" "$one: no time was saved for it"
            continue
        fi
        CUDA_LAUNCH_BLOCKING=1 CUDA_ENABLE_COREDUMP_ON_EXCEPTION=1 CUDA_COREDUMP_FILE=$scratch/core \
            CUDA_COREDUMP_GENERATION_FLAGS=$small_core \
            watched "$log" $limit "$@" -test.v -test.run "$prefix^($one)\$" || status=$?
        case $status in
        0) say again "$name" "$one: passes by itself" ;;
        124) say again "$name" "$one: was ended after $(seconds $limit) s" ;;
        *)
            why=$(grep -m 1 -E 'CUDA_ERROR|CUBLAS_STATUS|errs by|relative L2 error|^panic|^fatal' "$log" | sed 's/^ *//' | cut -c1-160)
            say again "$name" "$one: ${why:-fails}"
            trouble "$log" 4
            ;;
        esac
        if [ -s "$scratch/core" ] && command -v cuda-gdb > /dev/null; then
            timeout -k 2 15 cuda-gdb -batch -ex "target cudacore $scratch/core" -ex 'info cuda kernels' -ex 'x/4i $pc' \
                > "$logs/$name.again.$n.gdb" 2>&1 < /dev/null
            tail -n 8 "$logs/$name.again.$n.gdb"
        fi
        rm -f "$scratch/core"
    done
    return 1
}

# shell FUNCTION ARGUMENTS... runs a function of this script as a command, so that a time limit ends all its processes.
shell() {
    local f=$1
    shift
    command=(bash -c "set -euo pipefail; $(declare -f "$f"); $f \"\$@\"" "$f" "$@")
}

# -- the steps

bf16=(-bench.device cuda -bench.dtype bf16)

facts() { # arguments: PYTHON
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader ||
        echo "no nvidia-smi"
    nvidia-smi | head -n 12 || true
    uname -r && nproc && free -g | head -n 2
    echo "python $(command -v "$1" || echo none), VIRTUAL_ENV=${VIRTUAL_ENV:-}"
    echo "EMBED_CUBLAS=${EMBED_CUBLAS:-}, LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}"
    ldconfig -p | grep -E 'libcuda\.so|cublasLt|ptxjit' || true
    ls -d /usr/local/cuda* /usr/local/nvidia/lib64 2> /dev/null || true
}

# devices fails if the first device cannot be used. It prints missing files first, because the end of the log is shown.
devices() {
    local found
    found=$(./embed devices --verbose)
    grep 'not there' <<< "$found" || true
    grep -v 'not there' <<< "$found"
    grep '^device 0' <<< "$found" | grep -v 'cannot be used' > /dev/null
}

# quoted TEXT prints a JSON string.
quoted() { printf '"%s"' "$(printf %s "$1" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')"; }

# provenance appends to bench.jsonl a line with the GPU, driver, commit, script and date of the measurements after it.
provenance() {
    local card driver
    card=$(sed -n 's/^device 0: \([^,]*\),.*/\1/p' "$logs/devices.log" | head -n 1)
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2> /dev/null | head -n 1)
    [ -n "$driver" ] || driver=$(sed -n 's/^driver: //p' "$logs/devices.log" | head -n 1)
    printf '{"kind":"machine","card":%s,"driver":%s,"commit":%s,"script":"visit.sh %d","date":"%s"}\n' \
        "$(quoted "$card")" "$(quoted "$driver")" "$(quoted "$commit")" "$part" "$(date -u +%FT%TZ)" >> "$bench"
}

forward() { # arguments: STEP MODEL TOKENS FLAGS...
    SHOW=18 step "$1" ./bench.test -test.run '^$' -test.bench "^BenchmarkForward\$/^$2\$" -test.benchtime $benchtime \
        "${bf16[@]}" -bench.tokens "$3" -bench.total $total -bench.profile - -bench.json "$bench" "${@:4}"
}

conform() { # arguments: STEP PRODUCTS TYPE PARTS FLAGS...; it runs cases of the conformance suite
    tests "$1" "^TestGPU\$/^$2\$/^$3\$/" "$4" ./cuda.test "${@:5}"
}

parity() { # arguments: TYPE MODELS
    TAIL=24 SHOW=11 tests "parity-$1" '^TestParity$/' "$2" \
        ./bench.test "${parity[@]}" -bench.device cuda -bench.dtype "$1"
}

# dna N and proteins N write FASTA: N pieces of 500 nt of E. coli, repeated if necessary, and N proteins of UniProt.
dna() {
    gzip -dc shared/seq/MG1655-K12.fasta.gz | grep -v '^>' | tr -d '\n' | fold -w 500 |
        awk -v n="$1" '{ piece[NR] = $0 } END { for (i = 0; i < n; i++) print ">" i "\n" piece[i % NR + 1] }'
}
proteins() { gzip -dc shared/seq/uniprot_20000.faa.gz | awk -v n="$1" '/^>/ { i++ } i <= n'; }

# program checks that the program writes the same bytes with one GPU as with the same GPU used twice.
program() { # arguments: FOLDER DNABERT ESM TOKENIZER
    for gpus in 0 0,0; do
        ./embed --no-progress --gpus $gpus --dnabert-model "synthetic:$2" --dnabert-tokenizer "$4" \
            --esm-model "synthetic:$3" -o "$1/out-$gpus" "$1/dna.fna" "$1/proteins.faa"
    done
    for output in "dna.$2.parquet" "proteins.$3.parquet"; do
        cmp "$1/out-0/$output" "$1/out-0,0/$output"
    done
}

# file measures FASTA to file, from the time at which the weights are loaded.
file() { # arguments: FOLDER DNABERT ESM TOKENIZER INPUT BENCH
    local model=$2 log=$1/log
    [ "${5##*.}" = faa ] && model=$3
    rm -rf "$1/out"
    ./embed --no-progress --gpus 0 --dnabert-model "synthetic:$2" --dnabert-tokenizer "$4" \
        --esm-model "synthetic:$3" -o "$1/out" "$5" 2>&1 | tee "$log"
    awk -v model="$model" '
        function duration(s,  total, unit, n) { # 1m2.5s, 950ms
            total = 0
            while (match(s, /^[0-9.]+(ms|h|m|s|µs)/)) {
                unit = substr(s, 1, RLENGTH); n = unit + 0; sub(/^[0-9.]+/, "", unit); s = substr(s, RLENGTH + 1)
                total += n * (unit == "h" ? 3600 : unit == "m" ? 60 : unit == "ms" ? 0.001 : unit == "s" ? 1 : 0.000001)
            }
            return total
        }
        /weights are loaded/ { for (i = 1; i <= NF; i++) if ($i ~ /^took=/) loading = duration(substr($i, 6)) }
        / records, .* tokens in / {
            records = $1; tokens = $3; took = $6
            gsub(/[^0-9]/, "", records); gsub(/[^0-9]/, "", tokens); sub(/:$/, "", took)
        }
        END {
            if (tokens == "") { print "embed has not said how long it took"; exit 1 }
            printf "{\"kind\":\"file\",\"model\":\"%s\",\"records\":%d,\"tokens\":%d,", model, records, tokens
            printf "\"seconds\":%.3f,\"loading\":%.3f}\n", duration(took), loading
        }' "$log" | tee -a "$6"
}

# records FOLDER (TOTAL MODELS)... writes the token ids for the peers. MODELS is an alternation.
records() {
    local folder=$1
    shift
    while [ $# -gt 0 ]; do
        ./bench.test -test.v -test.run "^TestRecords\$/^($2)\$" -bench.records "$folder" -bench.tokens 1 \
            -bench.total "$1"
        shift 2
    done
}

torch() { "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' 2> /dev/null; }

# peer STEP MODEL MODES FLAGS... measures PyTorch with a model, or reports that PyTorch is absent.
peer() {
    if [ -n "$no_torch" ]; then
        absent "$1" "$no_torch"
    else
        SHOW=8 step "$1" "$python" peers/peers.py --model "$2" --records "$scratch/$2.tokens" --out "$bench" \
            --modes "$3" "${peer[@]}" "${@:4}"
    fi
}

# tool NAME prints the path of a tool of the CUDA toolkit, or nothing.
tool() { command -v "$1" || find /usr/local/cuda*/ -name "$1" -type f -perm -u+x 2> /dev/null | sed -n 1p; }

# -- the call

tokenizer=shared/tokenizer/dnabert2_tokenizer.json
if [ -z "${REHEARSAL:-}" ]; then
    libraries=/usr/local/nvidia/lib64
    [ -d $libraries ] && export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    # use PyTorch's cuBLAS, so that both engines use the same library
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2> /dev/null)
    for folder in "$site"/nvidia/cu13/lib "$site"/nvidia/cublas/lib /usr/local/cuda/lib64; do
        library=$folder/libcublasLt.so.13
        [ -z "${EMBED_CUBLAS:-}" ] && [ -e "$library" ] && export EMBED_CUBLAS=$library
    done
    # read PyTorch's files into the page cache while the GPU is busy
    (timeout 120 "$python" -c 'import torch, transformers' > /dev/null 2>&1 &)
fi

shell facts "$python"
TAIL=20 SHOW=24 step machine "${command[@]}"
shell devices
if ! TAIL=12 SHOW=8 step devices "${command[@]}" && chosen devices; then
    # No device can be used. Check whether PyTorch can use one.
    timeout -k 2 60 "$python" -c 'import torch
print("PyTorch", torch.__version__, torch.cuda.is_available(), torch.cuda.get_device_name())' 2>&1 | tail -n 1
    fail STOPPED "call $part" "there is no device that can be used"
    exit
fi
[ -e "$logs/devices.log" ] && provenance
# record the clocks: GPUs of one model differ, and under a power limit the clock changes from one minute to the next
if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=timestamp,clocks.sm,power.draw,temperature.gpu,clocks_event_reasons.active --format=csv \
        -lms 250 > "$logs/clocks.csv" 2> /dev/null < /dev/null &
    clocks=$!
fi

case $part in
1)
    # the program's own kernels run first, so that errors in cuBLAS cannot affect them
    tests own-gelu '' 'TestGPUGELU|TestGPURotationInAttention' ./cuda.test -test.short
    all='embed|norm|pool.*|linear.*|rotary.*|attention.*|alibi.*|program|mistakes|weights|starts|allocations'
    conform own-bf16 own_products bf16 "$all" "${long[@]}"
    conform own-fp16 own_products fp16 "$all" -test.short # its kernels have the same source as those of own-bf16
    conform own-embed own_products fp32 'embed|norm|pool.*'
    conform own-linear own_products fp32 'linear.*'
    conform own-rotary own_products fp32 'rotary.*' -test.short # short, because own-attention runs the long sequences
    conform own-attention own_products fp32 'attention.*|alibi.*'
    conform own-starts own_products fp32 'program|mistakes|weights|starts' -test.short
    conform cublas-bf16 cuBLAS bf16 'linear.*|program|allocations' "${long[@]}"
    conform cublas-fp16 cuBLAS fp16 'linear.*|program' -test.short
    conform cublas-linear cuBLAS fp32 'linear.*'
    parity bf16 "$goldens"
    # a first measurement, in case there is no second call
    forward forward-dnabert $dna $tokens
    forward forward-650m $middle $tokens
    forward forward-3b $large $tokens -bench.total $few
    parity fp32 "${goldens%|esm2-3b}" # without esm2-3b, which takes long to load
    parity fp16 "${goldens%|esm2-3b}"
    dna $((pieces < 2000 ? pieces : 2000)) > "$scratch/dna.fna"
    proteins $((proteins < 500 ? proteins : 500)) > "$scratch/proteins.faa"
    shell program "$scratch" dnabert-s-2l $program $tokenizer
    step program "${command[@]}"
    sanitizer=$(tool compute-sanitizer)
    if [ -n "${REHEARSAL:-}" ]; then
        absent memcheck "compute-sanitizer needs a GPU"
    elif [ -n "$sanitizer" ]; then
        step memcheck "$sanitizer" --tool memcheck --error-exitcode 99 \
            ./cuda.test -test.v -test.short -test.run '^TestGPU$/^own_products$/^bf16$/^(embed|norm|rotary.*|attention.*|alibi.*)$'
    else
        absent memcheck "compute-sanitizer is not here"
    fi
    ;;
2)
    forward forward-dnabert $dna $tokens
    forward forward-dnabert-2x $dna $double
    forward forward-650m $middle $tokens
    forward forward-650m-2x $middle $double
    forward forward-3b $large $tokens -bench.total $few
    no_torch=$(torch || echo "$python has no PyTorch")
    if [ -n "$no_torch" ]; then
        absent ceiling "$no_torch"
    else
        SHOW=6 step ceiling "$python" peers/peers.py --ceiling --out "$bench" "${peer[@]}"
    fi
    EMBED_CUBLAS=none forward own-650m $middle $tokens
    forward tile29-dnabert $dna $tokens -bench.tile 29
    forward tile201-dnabert $dna $tokens -bench.tile 201
    ncu=$(tool ncu)
    if [ -n "$ncu" ]; then
        percent=avg.pct_of_peak_sustained_elapsed
        SHOW=30 step ncu "$ncu" --clock-control none --launch-skip 20 --launch-count 32 --csv --page raw \
            --metrics gpu__time_duration.sum,sm__throughput.$percent,dram__throughput.$percent \
            ./bench.test -test.run '^$' -test.bench "^BenchmarkForward\$/^$middle\$" -test.benchtime 1x "${bf16[@]}" \
            -bench.tokens $tokens -bench.total $tokens
    else
        absent ncu "Nsight Compute is not here"
    fi
    shell records "$scratch" $total "$dna|$middle" $few $large
    step records "${command[@]}"
    peer peers-dnabert $dna eager,compile
    peer peers-650m $middle eager,compile
    peer peers-3b $large eager,packed
    ;;
3)
    forward forward-8m esm2-8m $tokens
    if [ -z "${REHEARSAL:-}" ]; then
        forward forward-35m esm2-35m $tokens
        forward forward-150m esm2-150m $tokens
    fi
    step rows ./bench.test -test.v -test.run "^TestRows\$/^($rows)\$" "${bf16[@]}" -bench.tokens $longest
    forward free-dnabert $dna $tokens -bench.free-algorithm
    forward free-650m $middle $tokens -bench.free-algorithm
    dna $pieces > "$scratch/dna.fna"
    proteins $proteins > "$scratch/proteins.faa"
    shell file "$scratch" $dna $middle $tokenizer "$scratch/dna.fna" "$bench"
    SHOW=4 step file-dnabert "${command[@]}"
    shell file "$scratch" $dna $middle $tokenizer "$scratch/proteins.faa" "$bench"
    SHOW=4 step file-650m "${command[@]}"
    no_torch=$(torch || echo "$python has no PyTorch")
    shell records "$scratch" $total "$dna|$middle|esm2-8m|esm2-35m|esm2-150m"
    step records "${command[@]}"
    peer baseline-dnabert $dna baseline
    peer baseline-650m $middle baseline
    peer packed-650m $middle packed
    peer packed-dnabert $dna packed --check
    peer peers-8m esm2-8m eager,compile,packed --check
    if [ -z "${REHEARSAL:-}" ]; then
        peer peers-35m esm2-35m eager,compile,packed
        peer peers-150m esm2-150m eager,compile,packed
    fi
    ;;
esac
