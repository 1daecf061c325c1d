#!/usr/bin/env bash
# Runs every fuzz target of the module for some time each: internal/tools/fuzz.sh [TIME].
set -euo pipefail
cd "$(dirname "$0")/../.."
said=$(mktemp)
trap 'rm -f "$said"' EXIT
for file in $(git grep -lE '^func Fuzz' -- '*_test.go'); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' "$file"); do
		printf '%s %s\n' "$(dirname "$file")" "$target"
		go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "${1:-2s}" >"$said" 2>&1 && continue
		# Go reports the end of the time as a failure if an execution is under way; no input is at fault then.
		if grep -q 'context deadline exceeded' "$said" && ! grep -q 'Failing input' "$said"; then continue; fi
		cat "$said"
		exit 1
	done
done
