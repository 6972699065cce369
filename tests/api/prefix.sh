#!/bin/sh
# SPDX-License-Identifier: MIT
# prefix.sh ARCHIVE: a static library shares its names with the whole program, so all of them begin
# with sdlora_ or slr_.
set -eu
names=$(nm -g --defined-only "$1" 2>/dev/null | awk 'NF == 3 && $2 ~ /[ABCDGRSTVW]/ { print $3 }')
test -n "$names"
bad=$(printf '%s\n' "$names" | grep -vE '^(__odr_asan\.)?(sdlora|slr)_' || true)
if [ -n "$bad" ]; then
    printf 'names without our prefix:\n%s\n' "$bad"
    exit 1
fi
