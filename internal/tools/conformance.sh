#!/usr/bin/env bash
# Runs suites that lockkeeper's authors did not write, directly against a
# PostgreSQL server and through lockkeeper, and writes docs/compatibility.md:
# PostgreSQL's own regression and isolation tests, and the tests of jackc/pgx.
# Sources are fetched when it runs; none are kept. Needs root on a Debian-like
# machine, for it installs PostgreSQL's development files.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
chmod 755 "$work"
major=15
bin=/usr/lib/postgresql/$major/bin
pgxs=/usr/lib/postgresql/$major/lib/pgxs/src/test
out=$root/docs/compatibility.md
server_port=28591 guard_port=28592 admin_port=28593
guard=

say() { echo "conformance: $*" >&2; }
as_postgres() { runuser -u postgres -- "$@"; }

cleanup() {
	[ -n "$guard" ] && kill "$guard" 2>/dev/null || true
	[ -d "$work/data" ] && as_postgres $bin/pg_ctl -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap cleanup EXIT

# The package index of sources is this script's own: the machine's stays as it is.
fetch_source() {
	mkdir -p "$work/apt/lists/partial" "$work/apt/sources" "$work/src"
	local f
	for f in /etc/apt/sources.list.d/*.sources; do
		[ -e "$f" ] && sed 's/^Types:.*/Types: deb deb-src/' "$f" >"$work/apt/sources/$(basename "$f")"
	done
	[ -e /etc/apt/sources.list ] && sed -n 's/^deb /deb-src /p; /^deb /p' /etc/apt/sources.list >"$work/apt/sources/all.list"
	local opts=(-q -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$work/apt/sources" -o "Dir::State::Lists=$work/apt/lists" -o APT::Sandbox::User=root)
	apt-get "${opts[@]}" update >"$work/apt.log" 2>&1
	local version
	for version in $(apt-cache "${opts[@]}" showsrc postgresql-$major 2>/dev/null | awk '/^Version/{print $2}' | sort -ruV); do
		if (cd "$work/src" && apt-get "${opts[@]}" source --download-only "postgresql-$major=$version" >>"$work/apt.log" 2>&1); then
			break
		fi
		say "the source of $version cannot be had, trying an older one"
	done
	tar -xf "$work"/src/postgresql-${major}_*.orig.tar.* -C "$work/src"
	suite=$(echo "$work"/src/postgresql-$major.*/src/test)
	source_version=$(basename "$(dirname "$(dirname "$suite")")")
}

install_tools() {
	if [ ! -x "$pgxs/regress/pg_regress" ] || [ ! -x $bin/psql ] || ! command -v dpkg-source >/dev/null; then
		apt-get update -q >/dev/null
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
			postgresql-$major postgresql-server-dev-$major dpkg-dev gcc libc6-dev >"$work/install.log" 2>&1 || {
			tail -5 "$work/install.log" >&2
			exit 1
		}
	fi
}

start_server() {
	chown -R postgres "$work"
	as_postgres $bin/initdb -D "$work/data" -A trust >/dev/null
	as_postgres $bin/pg_ctl -w -D "$work/data" -l "$work/server.log" \
		-o "-p $server_port -k $work -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200 -c max_prepared_transactions=2" start >/dev/null
}

# start_guard POLICY starts lockkeeper with a policy, given as YAML on one line.
start_guard() {
	mkdir -p "$work/state"
	cat >"$work/lockkeeper.yaml" <<YAML
listen: {tcp: ["127.0.0.1:$guard_port"]}
server:
  "*": {host: 127.0.0.1, port: $server_port, sslmode: disable}
admin: {listen: "127.0.0.1:$admin_port", state: $work/state}
policy: $1
YAML
	"$work/lockkeeper" serve -c "$work/lockkeeper.yaml" 2>"$work/guard.log" &
	guard=$!
	local i
	for i in $(seq 100); do
		$bin/psql -h 127.0.0.1 -p $guard_port -U postgres -qAtc 'select 1' postgres >/dev/null 2>&1 && return
		sleep 0.1
	done
	cat "$work/guard.log" >&2
	exit 1
}

stop_guard() {
	kill "$guard" && wait "$guard" 2>/dev/null || true
	guard=
}

# suite NAME PROGRAM SCHEDULE PORT RESULTS runs one of PostgreSQL's suites.
run_suite() {
	local name=$1 program=$2 schedule=$3 port=$4 results=$5
	as_postgres mkdir -p "$results"
	(cd "$suite/$name" && as_postgres "$program" --inputdir=. --outputdir="$results" --dlpath=. --bindir=$bin \
		--host=127.0.0.1 --port="$port" --user=postgres --max-connections=8 --schedule="./$schedule" >"$results/log" 2>&1) || true
}

count() { grep -cE "^(test )? *[a-z_0-9.-]+ +\.\.\. $1" "$2/log" || true; }

differences() {
	local f n=0 names=
	for f in "$1"/results/*.out; do
		if ! cmp -s "$f" "$2/results/$(basename "$f")"; then
			n=$((n + 1)) names+=" $(basename "$f" .out)"
		fi
	done
	echo "$n${names:+:$names}"
}

row() { echo "| $1 | $2 | $3 | $4 | $5 | $6 |" >>"$work/table"; }

postgres_suites() { # LABEL of the policy in force
	local name program schedule
	for name in regress isolation; do
		program=$pgxs/$name/pg_regress schedule=parallel_schedule
		[ $name = isolation ] && program=$pgxs/$name/pg_isolation_regress schedule=isolation_schedule
		if [ ! -d "$work/direct-$name" ]; then
			say "$name, directly"
			run_suite $name $program $schedule $server_port "$work/direct-$name"
		fi
		say "$name, through lockkeeper, $1"
		run_suite $name $program $schedule $guard_port "$work/$2-$name"
		row "PostgreSQL's $name tests ($source_version)" "$server_version" "$1" \
			"$(count ok "$work/direct-$name") / $(count FAILED "$work/direct-$name")" \
			"$(count ok "$work/$2-$name") / $(count FAILED "$work/$2-$name")" \
			"$(differences "$work/direct-$name" "$work/$2-$name")"
	done
}

pgx_suite() { # LABEL of the policy in force
	local dir version port kind
	dir=$(cd "$root" && go list -m -f '{{.Dir}}' github.com/jackc/pgx/v5)
	version=$(cd "$root" && go list -m -f '{{.Version}}' github.com/jackc/pgx/v5)
	[ -d "$work/pgx" ] || { cp -r "$dir" "$work/pgx" && chmod -R u+w "$work/pgx"; }
	$bin/psql -qX -h 127.0.0.1 -p $server_port -U postgres -c 'create database pgx_test' postgres >/dev/null
	$bin/psql -qX -h 127.0.0.1 -p $server_port -U postgres -f "$work/pgx/testsetup/postgresql_setup.sql" pgx_test >/dev/null 2>&1
	for kind in direct through; do
		port=$server_port
		[ $kind = through ] && port=$guard_port
		say "pgx, $kind"
		local base="host=127.0.0.1 port=$port dbname=pgx_test sslmode=disable"
		(cd "$work/pgx" && PGX_TEST_DATABASE="$base user=postgres" \
			PGX_TEST_TCP_CONN_STRING="$base user=pgx_md5 password=secret" \
			PGX_TEST_MD5_PASSWORD_CONN_STRING="$base user=pgx_md5 password=secret" \
			PGX_TEST_SCRAM_PASSWORD_CONN_STRING="$base user=pgx_scram password=secret" \
			go test -p 1 -count=1 -v . ./pgconn/... ./pgtype/... ./pgxpool/... ./stdlib/... >"$work/pgx-$kind.log" 2>&1) || true
		# Some test names hold a folder's random name.
		sed -nE 's/^ *--- (PASS|FAIL|SKIP): ([^ ]*).*/\1 \2/p' "$work/pgx-$kind.log" | sed -E 's#/[^ ]*[0-9]{6,}[^ ]*##' | sort >"$work/pgx-$kind.results"
	done
	tests() { grep -c "^$1" "$work/pgx-$2.results" || true; }
	row "jackc/pgx $version" "$server_version" "$1" "$(tests PASS direct) / $(tests FAIL direct)" "$(tests PASS through) / $(tests FAIL through)" \
		"$(diff "$work/pgx-direct.results" "$work/pgx-through.results" | grep -c '^[<>]' || true)"
}

write_page() {
	sed -n '/<!-- versions:begin -->/,/<!-- versions:end -->/p' "$out" >"$work/versions" # versions.sh wrote it
	{
		cat <<'TEXT'
# Compatibility

`make conformance` writes this page. It runs suites that lockkeeper's authors did not write, directly against a server and through
lockkeeper, and compares what came out: for PostgreSQL's suites every line that psql and isolationtester printed, for a
driver's suite the result of every test. A test that fails directly, too, says something about the suite and the machine, and
nothing about lockkeeper.

| suite | server | policy | direct: passed / failed | through lockkeeper: passed / failed | tests whose output differs |
|---|---|---|---|---|---|
TEXT
		cat "$work/table"
		cat <<'TEXT'

"Allows all" is `{profile: postgres, unknown: allow, rules: []}`; "default" is the policy that comes with profile `postgres`.

What faults do, from lost packets to a full disk: [faults](compatibility/faults.md). What idle sessions cost: [idle](compatibility/idle.md).
TEXT
		cat "$work/versions"
	} >"$out"
	cat "$out"
}

install_tools
fetch_source
gcc -O1 -fPIC -shared -I"$($bin/pg_config --includedir-server)" -o "$suite/regress/regress.so" "$suite/regress/regress.c"
(cd "$root" && go build -trimpath -o "$work/lockkeeper" ./cmd/lockkeeper)
start_server
server_version=$($bin/postgres --version | awk '{print $3}')
start_guard '{profile: postgres, unknown: allow, rules: []}'
postgres_suites "allows all" all
pgx_suite "allows all"
stop_guard
start_guard '{profile: postgres}'
postgres_suites "default" default
stop_guard
write_page
