#!/usr/bin/env bash
# Runs the scripts and scenarios that need a real PostgreSQL, once for every
# major version that is installed, or only for the one that LOCKKEEPER_PG_BIN
# names.
set -euo pipefail

bins=("${LOCKKEEPER_PG_BIN:-}")
if [ -z "${bins[0]}" ]; then
	bins=()
	for dir in /usr/lib/postgresql/*/bin; do
		[ -x "$dir/initdb" ] && bins+=("$dir")
	done
fi
[ ${#bins[@]} -gt 0 ] || bins=("") # let internal/pgtest look in PATH

for bin in "${bins[@]}"; do
	echo "== PostgreSQL binaries: ${bin:-from PATH}"
	LOCKKEEPER_PG_BIN=$bin go test -count=1 ./cmd/... ./admin/... ./proxy/... ./internal/pgtest/...
done
