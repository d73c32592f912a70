#!/bin/sh
# Installs what building (or, with "test", testing; with "move", the demo of a move) needs on Debian 12; does nothing
# when all is there.
set -eu
packages="gcc libc6-dev make pkg-config protobuf-c-compiler protobuf-compiler libprotobuf-c-dev liburing-dev
libc-ares-dev libidn2-dev libyaml-dev libjansson-dev libsqlite3-dev libmicrohttpd-dev libcurl4-openssl-dev libnanomsg-dev
libssl-dev libcap-dev procps"
if [ "${1:-build}" = test ]; then
    packages="$packages clang libclang-rt-14-dev libcmocka-dev python3 python3-pytest python3-dnspython
    python3-aiosmtpd iproute2 openssl e2fsprogs xfsprogs mount groff-base git spin"
fi
[ "${1:-build}" != move ] || packages="$packages python3 iproute2 openssl"
missing=
for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "deps: this is no Debian; what is needed goes there by these names:$missing" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "deps: some packages are missing; as root run:" >&2
    echo "    apt-get update && apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
echo "deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Another apt may be at work on a machine that has just started.
if ! apt-get update -qq -o DPkg::Lock::Timeout=120 >"$log" 2>&1; then
    echo "deps: apt-get update complains; going on with the lists that are there:" >&2
    tail -n 5 "$log" >&2
fi
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 $missing >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    echo "deps: the packages could not be installed:$missing" >&2
    exit 1
}
