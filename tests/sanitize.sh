#!/bin/sh
# SPDX-License-Identifier: MIT
# sanitize.sh [quick]: builds with the address and the undefined-behaviour sanitizer and runs the tests.
# All suites but the bindings, which would need a Python and a Lua that load the sanitizer first, and
# style; `quick` builds and runs the rooms that read what others wrote, and the fuzz targets.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD_DIR:-build/asan}
[ -f "$build/build.ninja" ] || meson setup "$build" -Db_sanitize=address,undefined -Db_lundef=false \
    -Dpython=disabled -Dlua=disabled -Doptimization=1 >/dev/null

# detect_stack_use_after_return is not for GCC 12: its frames are less aligned than AVX-512 variables want
ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1}
UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
OMP_WAIT_POLICY=passive
export ASAN_OPTIONS UBSAN_OPTIONS OMP_WAIT_POLICY

if [ "${1:-}" = quick ]; then
    list=$(meson test -C "$build" --list 2>/dev/null |
        sed -nE 's/.* ((base|io|tensor|models|networks|data)-[a-z0-9_]+|fuzz-[a-z]+)$/\1/p')
    # shellcheck disable=SC2086
    ninja --quiet -C "$build" $(printf 'tests/unit-%s\n' $list | sed 's,unit-fuzz-,fuzz/replay-,')
    # shellcheck disable=SC2086
    exec meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 4 $list
fi
ninja --quiet -C "$build"
exec meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 10 \
    --suite unit --suite api --suite checkop --suite plugin --suite fuzz
