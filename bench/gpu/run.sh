#!/usr/bin/env bash
# Runs the tests, then the benchmarks of the CUDA backend on the first GPU,
# from the folder that bundle.sh made. A missing GPU or golden is a failure.
# Every step runs, whatever became of the one before; the exit status says
# whether all passed. The logs go to $OUT, or beside this file.
set -uo pipefail
cd "$(dirname "$0")"
out=${OUT:-.}
export EMBED_REQUIRE_GPU=1 EMBED_SHARED=$PWD/shared
failed=0
step() {
    local name=$1
    shift
    echo "== $name"
    "$@" > "$out/$name.log" 2>&1 || { failed=1; echo "FAILED"; }
    tail -n 25 "$out/$name.log"
}
nvidia-smi || true
step conformance ./cuda.test -test.v -test.run '^TestGPU'
for dtype in fp32 fp16 bf16; do
    step "parity-$dtype" ./bench.test -test.v -test.run '^TestParity$' -parity.full -bench.device cuda -bench.dtype $dtype
done
step forward-bf16 ./bench.test -test.run '^$' -test.bench Forward -test.benchtime 3s -bench.device cuda -bench.dtype bf16 -bench.tokens 16384
step ops-bf16 ./bench.test -test.run '^$' -test.bench Op/ -bench.device cuda -bench.dtype bf16
exit $failed
