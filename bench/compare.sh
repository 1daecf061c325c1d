#!/usr/bin/env bash
# Compares the throughput of this tree with that of another commit: bench/compare.sh [BASE] [PATTERN] [RUNS].
#
# BASE is the commit (default: the last tag), PATTERN selects the benchmarks (default: Forward/esm2-8m), and RUNS is the
# number of runs of each tree (default: 6). Runs of the two trees alternate, so that other load on the machine affects
# both. benchstat prints the differences with their spread.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${1:-$(git describe --tags --abbrev=0 2>/dev/null)} || { echo "no tag found: name a commit: bench/compare.sh COMMIT, or make compare BASE=COMMIT" >&2; exit 1; }
pattern=${2:-Forward/esm2-8m}
runs=${3:-6}

work=$(mktemp -d)
trap 'git worktree remove --force "$work/base" 2>/dev/null; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$work/base" "$base"
(cd "$work/base" && go test -c -o "$work/old.test" ./bench)
go test -c -o "$work/new.test" ./bench
for _ in $(seq "$runs"); do
	for which in old new; do
		(cd bench && "$work/$which.test" -test.run '^$' -test.bench "$pattern" -test.benchtime 1x) >>"$work/$which.txt"
	done
done
go tool -modfile=internal/tools/go.mod benchstat "$work/old.txt" "$work/new.txt"
