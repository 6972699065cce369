#!/bin/sh
# SPDX-License-Identifier: MIT
# The library's ABI against the promise: abidiff.sh LIBRARY BASELINE HEADERS.  Any change, additions too, is told; who means it
# makes the baseline anew: abidiff.sh --write LIBRARY BASELINE HEADERS.
set -eu
if [ "$1" = --write ]; then
    abidw --drop-private-types --exported-interfaces-only --headers-dir "$4" --no-corpus-path --no-comp-dir-path \
        --type-id-style hash --out-file "$3" "$2"
    sed -i "s#path='[^']*/\\(lib\\|include\\)/#path='\\1/#" "$3" # nothing of the machine that made it
    exit
fi
abidiff --headers-dir1 "$3" --headers-dir2 "$3" --no-show-locs "$2" "$1"
