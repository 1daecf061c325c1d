#!/usr/bin/env bash
# Gathers in build/gpu what a machine with a GPU and without Go needs to run
# the tests and benchmarks of the CUDA backend: bench/gpu/run.sh runs them
# there. SHARED names the folder with the goldens and the DNA tokenizer.
set -euo pipefail
cd "$(dirname "$0")/../.."
shared=${SHARED:-../shared}
to=build/gpu
rm -rf $to
mkdir -p $to/src $to/shared/goldens $to/shared/tokenizer
CGO_ENABLED=0 go test -c -o $to/cuda.test ./kernels/cuda
CGO_ENABLED=0 go test -c -o $to/bench.test ./bench
cp kernels/cuda/src/README.md $to/src/
cp -r kernels/cuda/testdata $to/
cp -r "$shared/goldens/synthetic" $to/shared/goldens/
cp "$shared/tokenizer/dnabert2_tokenizer.json" $to/shared/tokenizer/
cp bench/gpu/run.sh $to/
chmod -R u+w $to
du -sh $to
