#!/bin/sh
# SPDX-License-Identifier: MIT
# no_abort.sh LIBRARY: the shared library calls nothing that ends the process, writes to the standard
# streams or starts programs.
set -eu
used=$(nm -D --undefined-only "$1" | awk '{ sub(/@.*/, "", $2); print $2 }')
test -n "$used"
bad=$(printf '%s\n' "$used" | grep -xE \
    '_?_?(abort|exit|_exit|_Exit|quick_exit|printf(_chk)?|vprintf(_chk)?|puts|putchar|fprintf(_chk)?|perror|system|popen|execv.*|fork|stdout|stderr|getenv|setenv|setlocale|signal|sigaction|rand|srand|strtok|sprintf(_chk)?|strcpy(_chk)?|strcat(_chk)?|gets)' ||
    true)
if [ -n "$bad" ]; then
    printf 'the library uses:\n%s\n' "$bad"
    exit 1
fi
