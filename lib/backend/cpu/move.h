/* SPDX-License-Identifier: MIT */
/* Copies of rows of bytes, for the operations that only move data. */
#ifndef SLR_BACKEND_CPU_MOVE_H
#define SLR_BACKEND_CPU_MOVE_H

#include "backend/cpu/cpu.h"

/* Rows of `bytes` each, `pitch` apart on either side; src NULL: zeros. */
typedef struct slr_cpu_rows_copy {
    int64_t rows, bytes, src_pitch, dst_pitch;
    const unsigned char *src;
    unsigned char *dst;
} slr_cpu_rows_copy;

void slr_cpu_copy_rows(const slr_cpu_env *env, const slr_cpu_rows_copy *copy);

/* Bytes per piece of a parallel copy. */
enum { SLR_CPU_COPY_GRAIN = 1 << 17 };

#endif
