#!/usr/bin/env bash
# Tests and measures the CUDA backend on the first GPU, from the folder that
# bundle.sh made. The machine needs a driver; the peers take Python with PyTorch
# and, for ESM-2, transformers.
#
#     run.sh tests                 program, conformance, parity, sanitizer: about five minutes
#     run.sh bench                 ceiling, forward, peers, endtoend, report: a quarter of an hour
#
# or a part of them:
#
#     run.sh program               embed devices; one GPU and the same one twice write the same bytes
#     run.sh conformance           the conformance suite; 20 bit-equal repeats
#     run.sh parity [TYPE...]      the goldens: bf16, fp16, fp32
#     run.sh sanitizer             memcheck and racecheck over small shapes
#     run.sh ceiling               the machine's bf16 product
#     run.sh forward [MODEL...]    tokens/s and time by operation
#     run.sh peers [MODEL...]      PyTorch over the same records
#     run.sh ops                   every operation by itself
#     run.sh endtoend              tokens/s of the program from FASTA to file
#     run.sh report                joins what forward, peers and ceiling have left in OUT
#
# All parts run, whatever became of those before; the exit status is 1 if one
# failed. A missing GPU, golden, tokenizer or input is a failure, and so is a
# test that was skipped. forward, ceiling and peers add to OUT/*.jsonl; bench
# begins them anew. With little time, run them in that order. The environment:
#
#     OUT=./out                folder of the logs and results
#     RESULTS=$OUT             folder of the report
#     DATE=YYYY-MM-DD          of the report; today
#     TOKENS="16384 65536"     tokens of our batches; the fastest counts
#     TOTAL=262144             tokens of the records of one pass, at most
#     BUDGETS=16384,32768,65536  tokens of the peers' batches, padding included
#     PEER_FLAGS=              more flags of peers.py, for example "--modes compile --compile blocks"
#     LIMIT=SECONDS            of each step, instead of its own limit
#     PYTHON=python3           with PyTorch
set -uo pipefail
if [ $# -eq 0 ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2
    exit 64
fi
mkdir -p "${OUT:=$(dirname "$0")/out}" "${RESULTS:=$OUT}"
OUT=$(realpath "$OUT") RESULTS=$(realpath "$RESULTS")
cd "$(dirname "$0")" || exit 1
export EMBED_REQUIRE_GPU=1 EMBED_SHARED=$PWD/shared PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
all="dnabert-s esm2-650m esm2-3b esm2-150m esm2-8m esm2-35m"
total=${TOTAL:-262144}
failed=0

fail() {
    failed=1
    echo "FAILED: $*"
}

# step LOG SECONDS COMMAND...: adds to OUT/LOG.log and shows its end.
step() {
    local log=$OUT/$1.log limit=${LIMIT:-$2} status=0 before
    shift 2
    echo "== $*"
    echo "== $*" >> "$log"
    before=$(wc -c < "$log")
    timeout -k 10 "$limit" "$@" >> "$log" 2>&1 || status=$?
    tail -c +$((before + 1)) "$log" | tail -n "${TAIL:-12}" 
    case $status in
    0) ;;
    124 | 137) fail "it took more than $limit s" ;;
    *) fail "exit status $status" ;;
    esac
    return $status
}

# checked LOG SECONDS COMMAND...: a step of Go tests, none of which may be
# skipped and some of which must run.
checked() {
    local log=$OUT/$1.log skipped
    rm -f "$log"
    step "$@"
    skipped=$(grep -c -e '--- SKIP' "$log")
    [ "$skipped" = 0 ] || { fail "$skipped tests were skipped"; grep -A 1 -e '--- SKIP' "$log" | head -n 20; }
    grep -q -e '--- ' "$log" || fail "no test ran"
}

need() {
    local file
    for file in "$@"; do
        [ -s "$file" ] || fail "$file is missing"
    done
}

conformance() {
    need cuda.test
    checked conformance 240 ./cuda.test -test.v -test.run '^TestGPU'
}

parity() {
    need bench.test shared/goldens/synthetic/{proteins.faa,dna.fna,esm2_t33_650M.safetensors,dnabert_s.safetensors} shared/tokenizer/dnabert2_tokenizer.json
    local dtype
    [ $# -gt 0 ] || set -- bf16 fp16 fp32
    for dtype in "$@"; do
        TAIL=40 checked "parity-$dtype" 150 ./bench.test -test.v -test.run '^TestParity$' -parity.full -bench.device cuda -bench.dtype "$dtype"
    done
}

find_sanitizer() {
    command -v compute-sanitizer && return
    local packages found
    packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2> /dev/null)
    for found in /usr/local/cuda*/bin/compute-sanitizer /usr/local/cuda*/compute-sanitizer/compute-sanitizer \
        "${packages:-/nonexistent}"/nvidia/*/bin/compute-sanitizer "${packages:-/nonexistent}"/nvidia/*/compute-sanitizer/compute-sanitizer; do
        [ -x "$found" ] && echo "$found" && return
    done
    return 1
}

sanitizer() {
    need cuda.test
    local tool check status log
    if ! tool=$(find_sanitizer); then
        echo "compute-sanitizer was not run: it is not installed here"
        return
    fi
    local names='^TestGPU(OperandTypes)?$/^own_products$/^(embed|norm|rotary.*|attention.*|alibi.*|activate.*|gate.*|pool|linear.*)$/^(16|24|64|100|128|320|1280|limit_1|17x33|64x64|residual)$'
    for check in memcheck racecheck; do
        log=$OUT/$check.log
        echo "== compute-sanitizer, $check"
        status=0
        timeout -k 10 "${LIMIT:-120}" "$tool" --tool "$check" --error-exitcode 99 ./cuda.test -test.v -test.run "$names" > "$log" 2>&1 || status=$?
        tail -n 6 "$log"
        if grep -q -i -e 'device not supported' -e 'unable to.*inject' -e 'no attachable process' "$log"; then
            echo "compute-sanitizer was not run: it does not work on this machine"
            return
        fi
        case $status in
        0) grep -q 'SUMMARY' "$log" || fail "$check has not said what it found" ;;
        99) fail "$check found errors" ;;
        124 | 137) fail "$check took more than ${LIMIT:-120} s" ;;
        *) fail "$check: exit status $status" ;;
        esac
        grep -q -e '--- PASS' "$log" || fail "$check: no test ran"
    done
}

ceiling() {
    step peers 120 "$python" peers/peers.py --ceiling --out "$OUT/peers.jsonl"
}

inputs() {
    need bench.test shared/seq/{uniprot_500.faa.gz,MG1655-K12.fasta.gz} shared/tokenizer/dnabert2_tokenizer.json
}

forward() {
    inputs
    local model tokens
    [ $# -gt 0 ] || set -- $all
    for model in "$@"; do
        for tokens in ${TOKENS:-16384 65536}; do
            TAIL=25 step forward 150 ./bench.test -test.run '^$' -test.bench "Forward/^$model\$" -bench.total $total \
                -bench.device cuda -bench.dtype bf16 -bench.tokens "$tokens" -bench.profile -bench.json "$OUT/forward.jsonl"
        done
    done
}

peers() {
    inputs
    local records model check
    [ $# -gt 0 ] || set -- $all
    records=$(mktemp -d)
    for model in "$@"; do
        step peers 60 ./bench.test -test.run '^$' -test.bench "Forward/^$model\$" -bench.tokens 1 -bench.total $total -bench.records "$records"
        check=
        case $model in dnabert-s | esm2-8m) check=--check ;; esac
        TAIL=30 step peers 240 "$python" peers/peers.py --model "$model" --records "$records/$model.tokens" --out "$OUT/peers.jsonl" \
            --budgets "${BUDGETS:-16384,32768,65536}" $check ${PEER_FLAGS:-}
    done
    rm -rf "$records"
}

# program runs the program as its users do.
program() {
    need embed shared/seq/{uniprot_500.faa.gz,MG1655-K12.fasta.gz}
    local scratch output gpus
    scratch=$(mktemp -d)
    step program 30 ./embed devices
    pieces 1 | head -n 4000 > "$scratch/dna.fna"
    cp shared/seq/uniprot_500.faa.gz "$scratch/"
    for gpus in 0 0,0; do
        step program 120 ./embed --no-progress --gpus $gpus --dnabert-model synthetic:dnabert-s-2l --esm-model synthetic:esm2-8m \
            -o "$scratch/out-$gpus" "$scratch/dna.fna" "$scratch/uniprot_500.faa.gz"
    done
    for output in dna.dnabert-s-2l.parquet uniprot_500.esm2-8m.parquet; do
        cmp "$scratch/out-0/$output" "$scratch/out-0,0/$output" || fail "$output is not the same from --gpus 0 and --gpus 0,0"
    done
    rm -rf "$scratch"
}

# pieces TIMES: E. coli as records of 500 nt, that many times over.
pieces() {
    gzip -dc shared/seq/MG1655-K12.fasta.gz | grep -v '^>' | tr -d '\n' | fold -w 500 |
        awk -v times="$1" '{ piece[NR] = $0 } END { for (t = 1; t <= times; t++) for (i = 1; i <= NR; i++) print ">" t "_" i "\n" piece[i] }'
}

# endtoend reads what a pass took, without the loading of the weights, from the
# manifest.
endtoend() {
    need embed shared/seq/{uniprot_20000.faa.gz,MG1655-K12.fasta.gz}
    local scratch model input
    scratch=$(mktemp -d)
    pieces 20 > "$scratch/pieces.fna"
    cp shared/seq/uniprot_20000.faa.gz "$scratch/"
    for model in dnabert-s esm2-650m; do
        case $model in
        dnabert-s) input=$scratch/pieces.fna ;;
        *) input=$scratch/uniprot_20000.faa.gz ;;
        esac
        step endtoend 240 ./embed --no-progress --gpus 0 --dnabert-model synthetic:dnabert-s --dnabert-tokenizer shared/tokenizer/dnabert2_tokenizer.json \
            --esm-model synthetic:$model -o "$scratch/$model" "$input"
        step endtoend 30 "$python" -c '
import datetime, json, sys
for e in json.load(open(sys.argv[1]))["entries"]:
    at = lambda s: datetime.datetime.fromisoformat(s[:19]).timestamp() + float("0" + s[19:].rstrip("Z"))
    seconds = at(e["finished"]) - at(e["started"])
    print("%s: %d tokens in %.2f s, %.0f tokens/s from FASTA to file" % (e["model"], e["tokens"], seconds, e["tokens"] / seconds))
' "$scratch/$model/manifest.json"
    done
    rm -rf "$scratch"
}

ops() {
    need bench.test
    TAIL=40 step ops 240 ./bench.test -test.run '^$' -test.bench Op/ -bench.device cuda -bench.dtype bf16
}

report() {
    need "$OUT"/{forward,peers}.jsonl
    echo "== report"
    ./report -date "${DATE:-$(date -u +%F)}" -dir "$RESULTS" "$OUT"/*.jsonl || fail "exit status $?"
}

part=$1
shift
case $part in
tests)
    nvidia-smi || true
    program
    conformance
    parity
    sanitizer
    ;;
bench)
    rm -f "$OUT"/{forward,peers}.{jsonl,log}
    nvidia-smi || true
    ceiling
    forward "$@"
    peers "$@"
    endtoend
    report
    ;;
program | conformance | parity | sanitizer | ceiling | forward | peers | ops | endtoend | report) $part "$@" ;;
*)
    echo "run.sh: there is no part $part" >&2
    exit 64
    ;;
esac
exit $failed
