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
rc=0
meson test -C "$build" --no-rebuild --print-errorlogs >"$log" 2>&1 || rc=$?
sed '/^$/d' "$log" | grep -v '^ *[0-9]*/[0-9]* .* OK ' | grep -v '^Full log'
count() { sed -n "s/^$1: *\([0-9]*\).*/\1/p" "$log" | tail -n 1; }
passed=$(count Ok) failed=$(count Fail) timeout=$(count Timeout) skipped=$(count Skipped) odd=$(count 'Unexpected Pass')
failed=$((${failed:-0} + ${timeout:-0} + ${odd:-0}))
[ "$rc" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
[ "${passed:-0}" -gt 0 ] || failed=$((failed + 1))
if [ "${skipped:-0}" -gt 0 ]; then
    echo "${passed:-0} passed, $failed failed, $skipped skipped"
else
    echo "${passed:-0} passed, $failed failed"
fi
[ "$failed" -eq 0 ]
