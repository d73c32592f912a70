#!/bin/sh
# Installs what building and testing needs on Debian 12; does nothing when all is there.
set -eu
packages="gcc make pkg-config protobuf-c-compiler protobuf-compiler libprotobuf-c-dev liburing-dev
libc-ares-dev libyaml-dev libjansson-dev libpcre2-dev libsqlite3-dev libmicrohttpd-dev
libcurl4-openssl-dev libcap-dev libcmocka-dev iproute2 procps"
if [ "${1:-build}" = test ]; then
    packages="$packages clang libclang-rt-14-dev python3-pytest python3-dnspython python3-aiosmtpd python3-protobuf
    e2fsprogs mount man-db"
fi
missing=
for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "this needs the Debian packages:$missing" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "some packages are missing; as root run:" >&2
    echo "    apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
