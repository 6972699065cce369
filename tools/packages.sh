#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the Debian packages of a task when one is missing: sh tools/packages.sh build|test|threads
# Runs apt-get as root, or through sudo; does nothing when all are there.
set -eu
build='gcc g++ meson ninja-build pkg-config python3 libopenblas-openmp-dev libpng-dev libturbojpeg0-dev libwebp-dev
       zlib1g-dev libjansson-dev libutf8proc-dev libssl-dev libtomlplusplus-dev libdnnl-dev liblua5.4-dev lua5.4'
test='libcmocka-dev python3-numpy python3-pil abigail-tools binutils valgrind'
threads='clang libomp-dev'
case ${1:-build} in
build) want=$build ;;
test) want="$build $test" ;;
threads) want="$build libcmocka-dev $threads" ;;
*) echo "usage: $0 build|test|threads" >&2; exit 2 ;;
esac

missing=
for p in $want; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

echo "installing:$missing"
as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "these packages are missing and there is no sudo:$missing" >&2; exit 1; }
    as_root=sudo
fi
$as_root apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
