#!/bin/sh
# Installs the Debian packages named as arguments, and does nothing when they are there already.
set -eu

installed() {
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "error: this machine has no apt-get; install these by hand: $*" >&2
	exit 1
fi

missing=""
for package in "$@"; do
	installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "error: Debian packages are missing and only root can install them: run apt-get install$missing as root" >&2
	exit 1
fi

echo "installing Debian packages:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# Wait for another apt-get instead of failing: several make targets may want packages at once.
apt="apt-get -q -o DPkg::Lock::Timeout=180 -o APT::Update::Lock::Timeout=180"
install() {
	# shellcheck disable=SC2086 # both are lists of words
	$apt install -y --no-install-recommends $missing >"$log" 2>&1
}

# Package lists are absent on a fresh machine and may be stale on an old one.
install || { $apt update >"$log" 2>&1 && install; } || {
	tail -n 15 "$log" >&2
	echo "error: apt-get could not install$missing; its last lines are above" >&2
	exit 1
}
