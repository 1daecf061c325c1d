#!/usr/bin/env bash
# Runs every fuzz target of the module for some time each: internal/tools/fuzz.sh [TIME]. The inputs that it has found
# before are in Go's build cache, where go test -fuzz has them, too. Without TIME it is two seconds, too short for
# coverage to guide the inputs, and the tests are not compiled again to measure it.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(go env GOCACHE)/fuzz
if [ $# = 0 ]; then coverage=(); else coverage=(-fuzz Fuzz); fi
for folder in $(git grep -lE '^func Fuzz' -- '*_test.go' | xargs -n 1 dirname | sort -u); do
	package=$(go list "./$folder")
	go test -c "${coverage[@]}" -o "$work/test" "./$folder"
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' "$folder"/*_test.go); do
		printf '%s %s\n' "$folder" "$target"
		(cd "$folder" && exec "$work/test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "${1:-2s}" \
			-test.fuzzcachedir "$cache/$package") >"$work/said" 2>&1 && continue
		# Go reports the end of the time as a failure if an execution is under way; no input is at fault then.
		if grep -q 'context deadline exceeded' "$work/said" && ! grep -q 'Failing input' "$work/said"; then continue; fi
		cat "$work/said"
		exit 1
	done
done
