#!/bin/sh
# SPDX-License-Identifier: MIT
# header.sh INCLUDE HEADER OUT CC...: a public header compiles alone, as C99, C11 and C++11, without a
# warning.
set -eu
dir=$1 header=$2 out=$3
shift 3
printf '#include <sdlora/%s>\nint main(void)\n{\n    return 0;\n}\n' "$header" > "$out.c"
cp "$out.c" "$out.cpp"
for std in c99 c11; do
    "$@" -std=$std -Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror -I"$dir" -fsyntax-only "$out.c"
done
if command -v c++ > /dev/null; then
    c++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -I"$dir" -fsyntax-only "$out.cpp"
fi
