#!/usr/bin/env bash
# Installs the proxies that lockkeeper is measured against, and what counts
# system calls, or says which are missing.
set -euo pipefail
. "$(dirname "$0")/apt.sh"

missing=()
for tool in pgbouncer haproxy strace; do
	command -v "$tool" >/dev/null || [ -x "/usr/sbin/$tool" ] || missing+=("$tool")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if can_install; then
	install "${missing[@]}"
	exit
fi
echo "peers: not installed: ${missing[*]} (as root on Debian: apt-get install ${missing[*]})" >&2
exit 1
