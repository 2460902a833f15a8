#!/usr/bin/env bash
# Installs the proxies that lockkeeper is measured against, or says which are
# missing.
set -euo pipefail

missing=()
for tool in pgbouncer haproxy; do
	command -v "$tool" >/dev/null || [ -x "/usr/sbin/$tool" ] || missing+=("$tool")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	apt-get install -q -y --no-install-recommends "${missing[@]}"
	exit
fi
echo "peers: not installed: ${missing[*]} (as root on Debian: apt-get install ${missing[*]})" >&2
exit 1
