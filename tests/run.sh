#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs what is missing, builds, and runs every test.  The last line is "N passed, N failed".
set -eu
cd "$(dirname "$0")/.."
sh tools/packages.sh test

build=${BUILD_DIR:-build/tests}
# Debian's python3 has the numpy that the binding's tests use; another python3 on PATH may not.
PATH=/usr/bin:$PATH
export PATH
[ -f "$build/build.ninja" ] || meson setup "$build" -Dwarning_level=3 -Dwerror=true
ninja -C "$build"

log=$build/run.log
: >"$log"
rc=0
# All tests; then what reads files with the address and undefined-behaviour sanitizers, and a few under valgrind.
meson test -C "$build" --no-rebuild --print-errorlogs >>"$log" 2>&1 || rc=$?
BUILD_DIR=$build-asan sh tests/sanitize.sh quick >>"$log" 2>&1 || rc=$?
meson test -C "$build" --no-rebuild --print-errorlogs --setup valgrind base-map base-mem base-thread io-file io-json \
    io-pickle io-safetensors io-torchfile io-zip >>"$log" 2>&1 || rc=$?
sed '/^$/d' "$log" | grep -v '^ *[0-9]*/[0-9]* .* OK ' | grep -vE '^Full log|^\[[0-9]+/[0-9]+\] (Comp|Link)'
count() { sed -n "s/^$1: *\([0-9]*\).*/\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'; }
passed=$(count Ok) failed=$(count Fail) timeout=$(count Timeout) skipped=$(count Skipped) odd=$(count 'Unexpected Pass')
failed=$((failed + timeout + odd))
[ "$rc" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
[ "$passed" -gt 0 ] || failed=$((failed + 1))
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ]
