#!/usr/bin/env bash
# Collects in build/gpu, and packs into build/gpu.tgz, all files that visit.sh needs to test and measure the CUDA backend
# on a machine with a GPU and without Go. SHARED is the folder with the goldens, the DNA tokenizer and sequences.
set -euo pipefail
cd "$(dirname "$0")/../.."
shared=${SHARED:-../shared}
to=build/gpu
rm -rf $to $to.tgz
mkdir -p $to/peers $to/shared/{goldens,tokenizer,seq}
export CGO_ENABLED=0
go test -c -trimpath -ldflags '-s -w' -o $to/cuda.test ./kernels/cuda
go test -c -trimpath -ldflags '-s -w' -o $to/bench.test ./bench
go build -trimpath -ldflags '-s -w' -o $to/embed ./cmd/embed
cp -r "$shared/goldens/synthetic" $to/shared/goldens/
cp "$shared/tokenizer/dnabert2_tokenizer.json" $to/shared/tokenizer/
cp "$shared"/seq/{uniprot_500.faa.gz,uniprot_20000.faa.gz,MG1655-K12.fasta.gz} $to/shared/seq/
cp bench/gpu/{peers.py,renderings.py} bench/peers/models.py $to/peers/
cp bench/gpu/{visit.sh,table.py} $to/
commit=$(git rev-parse HEAD 2> /dev/null || echo unknown)
[ -z "$(git status --porcelain 2> /dev/null)" ] || commit=$commit-dirty
echo "$commit" > $to/COMMIT
chmod -R u+w $to
tar -C build --owner=0 --group=0 -czf $to.tgz gpu
du -sh $to $to.tgz
