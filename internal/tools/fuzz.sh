#!/usr/bin/env bash
# Runs every fuzz target of the module for TIME, such as 30s: internal/tools/fuzz.sh [TIME]. Inputs that a run finds are
# kept in Go's build cache, in the folder that go test -fuzz also uses. Without TIME each target runs for one second.
# One second is too short for coverage to guide the choice of inputs, so the tests are then compiled without coverage
# counters.
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
		(cd "$folder" && exec "$work/test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "${1:-1s}" \
			-test.fuzzcachedir "$cache/$package") >"$work/said" 2>&1 || {
			# If the time ends while a target runs, Go reports the failure "context deadline exceeded", although no
			# input has failed.
			if ! grep -q 'context deadline exceeded' "$work/said" || grep -q 'Failing input' "$work/said"; then
				cat "$work/said"
				exit 1
			fi
		}
		printf '%s %s, %s\n' "$folder" "$target" "$(grep -o 'execs: [0-9]*' "$work/said" | tail -n 1)"
	done
done
