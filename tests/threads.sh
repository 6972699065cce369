#!/bin/sh
# SPDX-License-Identifier: MIT
# threads.sh [test ...]: builds with clang's thread sanitizer and runs what works on several threads; `all`: every
# unit test.  Regions are LLVM's OpenMP, whose tool archer tells the sanitizer of their barriers.  GCC's runtime
# tells nothing, so that it would report every region.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD_DIR:-build/threads}
sh tools/packages.sh threads
[ -f "$build/build.ninja" ] || CC=clang CXX=clang++ meson setup "$build" -Db_sanitize=thread -Db_lundef=false \
    -Dpython=disabled -Dlua=disabled -Doptimization=1 >/dev/null

# what OpenBLAS and oneDNN, which are not instrumented, do by themselves is not looked at
TSAN_OPTIONS=${TSAN_OPTIONS:-ignore_noninstrumented_modules=1:second_deadlock_stack=1:suppressions=$PWD/tests/suppressions/tsan.supp}
OMP_TOOL_LIBRARIES=$(clang -print-file-name=libarcher.so)
OMP_NUM_THREADS=2
OMP_WAIT_POLICY=passive
export TSAN_OPTIONS OMP_TOOL_LIBRARIES OMP_NUM_THREADS OMP_WAIT_POLICY

[ $# -gt 0 ] || set -- base-thread base-status backend-attention backend-conv backend-devices backend-gemm data-loader \
    graph-run train-loop train-resume train-trainer api-samples api-together api-watch
[ "$1" != all ] || set -- --suite unit
exec meson test -C "$build" --print-errorlogs --timeout-multiplier 10 "$@"
