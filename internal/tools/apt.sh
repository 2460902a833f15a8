# Sourced by the scripts that install packages of Debian.

can_install() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }

# made are files that are there while packages are installed.
made=()
trap 'rm -f "${made[@]}"' EXIT

# install gets packages; no service of theirs is started.
install() {
	echo "installing $*"
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		made+=(/usr/sbin/policy-rc.d)
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod +x /usr/sbin/policy-rc.d
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
}
