#!/bin/sh
# SPDX-License-Identifier: MIT
# symbols.sh LIBRARY MAP OUT: the names that the shared library exports are those of the version
# script, each with its version.
set -eu
nm -D --defined-only "$1" | awk '$2 != "A" { print $3 }' | LC_ALL=C sort > "$3.got"
awk '/^SDLORA_[0-9.]+ \{/ { node = $1 } /^ +sdlora_[a-z0-9_]+;/ { sub(/;/, "", $1); print $1 "@@" node }' "$2" |
    LC_ALL=C sort > "$3.want"
test -s "$3.want"
diff "$3.want" "$3.got"
