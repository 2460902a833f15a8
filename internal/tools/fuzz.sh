#!/usr/bin/env bash
# Runs every fuzz target in turn, each for the given time (go's -fuzztime).
# A crasher is left under the package's testdata/fuzz: commit it with its fix.
set -euo pipefail
fuzztime=${1:-30s}

grep -rlE '^func Fuzz[A-Za-z0-9_]*\(' --include='*_test.go' . | sort | while read -r file; do
	sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file" | while read -r target; do
		echo "== $(dirname "$file") $target"
		go test -run='^$' -fuzz="^$target\$" -fuzztime="$fuzztime" "$(dirname "$file")" </dev/null
	done
done
