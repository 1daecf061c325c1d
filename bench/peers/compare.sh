#!/usr/bin/env bash
# Compares embed on the CPU with ONNX Runtime and PyTorch, on the same records.
#
#     compare.sh MODEL INPUT [THREADS]
#
# MODEL is synthetic:NAME[@SEED] or a checkpoint's folder (config.json, model.safetensors); INPUT is FASTA or FASTQ, of
# proteins for ESM-2, of DNA for DNABERT-S. Environment variables:
#
#     RECORDS=200     number of records, or pieces of DNA, from the start of the input (0: all)
#     EVERY=1         keep every n-th padded batch, so that a short run has as little padding as a long one
#     DTYPES="fp32 bf16 int8"  types of the operands: embed and PyTorch in fp32 and bf16, ONNX Runtime in fp32 and int8
#     PIECE=500       length of the pieces into which DNA is cut
#     TOKENS=4096     tokens in a batch, including padding
#     ROUNDS=3        timed rounds; the runners alternate, so that other load on the machine affects all of them
#     TOKENIZER=FILE  tokenizer.json for DNABERT-S, instead of the checkpoint's
#     ONNX=FILE       an exported model; otherwise export.py writes one with PyTorch
#     PYTHON, NODE    the interpreters
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 64
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
model=$1 input=$(realpath "$2") threads=${3:-$(nproc)}
records=${RECORDS:-200} tokens=${TOKENS:-4096} rounds=${ROUNDS:-3}
dtypes=" ${DTYPES:-fp32 bf16 int8} "
for dtype in $dtypes; do
    case $dtype in fp32 | bf16 | int8) ;; *) echo "DTYPES: $dtype is neither fp32, bf16 nor int8" >&2; exit 64 ;; esac
done
python=${PYTHON:-python3} node=${NODE:-node}
tokenizer=${TOKENIZER:+$(realpath "$TOKENIZER")}
[ -d "$model" ] && model=$(realpath "$model")
work=$here/exports/$(basename "$model" | tr -c 'A-Za-z0-9._\n-' _)
mkdir -p "$work"
rm -f "$work"/*.json "$work"/*.f32 "$work"/*.in "$work"/*.out "$work"/*.log
cd "$here"

note() { echo "$*" >&2; }

go build -o "$work/ours" ./ours
kind=$("$work/ours" tokens -model "$model" -input "$input" -out "$work/tokens.txt" -records "$records" \
    -every "${EVERY:-1}" -tokens "$tokens" -piece "${PIECE:-500}" -tokenizer "$tokenizer")

# OpenBLAS before 0.3.22 does not use AVX-512 on processors that it does not know. With the core type set, PyTorch is twice
# as fast there. An empty OPENBLAS_CORETYPE leaves the choice to OpenBLAS.
if [ -z "${OPENBLAS_CORETYPE+set}" ] && grep -qw avx512vl /proc/cpuinfo 2>/dev/null; then
    export OPENBLAS_CORETYPE=SkylakeX
fi

have_torch=
if "$python" -c 'import torch, numpy' 2>/dev/null; then have_torch=1; fi
onnx=${ONNX:-$work/model.onnx}
if [ ! -f "$onnx" ] && [ -n "$have_torch" ]; then
    "$python" export.py "$model" "$onnx"
fi

running=() absent=()
declare -A to from pid

# start NAME COMMAND... runs the command with its input and its output as pipes, and waits until it has warmed up.
start() {
    local name=$1 line
    shift
    mkfifo "$work/$name.in" "$work/$name.out"
    (
        # Close the pipes of other runners, which would otherwise never see the end of their input.
        for fd in ${to[@]+"${to[@]}"} ${from[@]+"${from[@]}"}; do exec {fd}>&-; done
        exec "$@"
    ) <"$work/$name.in" >"$work/$name.out" 2>"$work/$name.log" &
    pid[$name]=$!
    exec {to[$name]}>"$work/$name.in" {from[$name]}<"$work/$name.out"
    if read -r line <&"${from[$name]}" && [ "$line" = ready ]; then
        running+=("$name")
    else
        note "$name failed:"
        tail -5 "$work/$name.log" >&2
        absent+=("$name: failed")
    fi
}

# embed TYPE, onnxruntime TYPE MODEL and pytorch TYPE start one runner each.
embed() {
    start "embed-$1" "$work/ours" run -dtype "$1" -model "$model" -input "$work/tokens.txt" -threads "$threads" \
        -tokens "$tokens" -out "$work/embed-$1.f32" -step
}
onnxruntime() {
    start "onnxruntime-$1" "$node" onnx.mjs --dtype "$1" --onnx "$2" --kind "$kind" --input "$work/tokens.txt" \
        --threads "$threads" --tokens "$tokens" --out "$work/onnxruntime-$1.f32" --step
}
pytorch() {
    start "pytorch-$1" "$python" torch_cpu.py --dtype "$1" --model "$model" --input "$work/tokens.txt" \
        --threads "$threads" --tokens "$tokens" --out "$work/pytorch-$1.f32" --step
}
wanted() { [[ $dtypes == *" $1 "* ]]; }

embed fp32 # the results of the other runners are compared with these
if wanted bf16; then embed bf16; fi
if [ ! -d node_modules/onnxruntime-node ]; then
    absent+=("ONNX Runtime: ONNXRUNTIME_NODE_INSTALL=skip npm ci, in $(basename "$here"), installs it")
elif [ ! -f "$onnx" ]; then
    absent+=("ONNX Runtime: no exported model, and no PyTorch to export one")
else
    if wanted fp32; then onnxruntime fp32 "$onnx"; fi
    if wanted int8; then
        bits=7 # on processors without VNNI, sums of 8-bit products saturate
        if grep -qwE 'avx512_vnni|avx_vnni' /proc/cpuinfo 2>/dev/null; then bits=8; fi
        int8=${onnx%.onnx}.int8-$bits.onnx
        if [ ! -f "$int8" ] && ! "$python" int8.py "$onnx" "$int8" --bits $bits; then
            absent+=("ONNX Runtime in int8: $python cannot import onnx")
        else
            onnxruntime int8 "$int8"
        fi
    fi
fi
if [ -z "$have_torch" ]; then
    absent+=("PyTorch: $python cannot import torch and numpy")
else
    for dtype in fp32 bf16; do
        if wanted $dtype; then pytorch $dtype; fi
    done
fi

# used NAME prints the processor time of a runner so far, in hundredths of a second, where the system shows it.
used() {
    local stat=/proc/${pid[$1]}/stat
    if [ -r "$stat" ]; then awk '{ sub(/.*\) /, ""); print $12 + $13 }' "$stat"; else echo 0; fi
}

for ((round = 1; round <= rounds; round++)); do
    for name in "${running[@]}"; do
        sleep 0.5 # until the threads of the previous runner have stopped spinning
        before=$(used "$name")
        echo >&"${to[$name]}"
        read -r line <&"${from[$name]}" || { note "$name ended in round $round:"; tail -5 "$work/$name.log" >&2; exit 1; }
        note "round $round  $name  ${line#round } s, processor time $((10 * ($(used "$name") - before))) ms"
    done
done

results=()
for name in "${running[@]}"; do
    exec {to[$name]}>&-
    cat <&"${from[$name]}" >"$work/$name.json"
    results+=("$work/$name.json")
done
wait

echo "CPU: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores; $(date +%F)"
status=0
"$work/ours" table "${results[@]}" || status=$?
for peer in ${absent[@]+"${absent[@]}"}; do echo "absent: $peer"; done
exit $status
