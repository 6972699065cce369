/* SPDX-License-Identifier: MIT */
/* Tiles between storage and f32 scratch, for kernels that compute from f32 only: rows of `cols`
 * elements, `ld` elements apart on either side.  Refuses to know what is computed. */
#ifndef SLR_BACKEND_CPU_CONVERT_H
#define SLR_BACKEND_CPU_CONVERT_H

#include "backend/cpu/cpu.h"
#include "tensor/dtype.h"

static inline void slr_cpu_widen(float *dst, int64_t ld_dst, const slr_dtype_row *type,
                                 const void *src, int64_t ld_src, int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < rows; i++)
        type->to_f32(dst + i * ld_dst, slr_cpu_at(src, i * ld_src, (int64_t)type->size),
                     (size_t)cols);
}

static inline void slr_cpu_narrow(const slr_dtype_row *type, void *dst, int64_t ld_dst,
                                  const float *src, int64_t ld_src, int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < rows; i++)
        type->from_f32(slr_cpu_at(dst, i * ld_dst, (int64_t)type->size), src + i * ld_src,
                       (size_t)cols);
}

/* Floats in whole cache lines, so that the blocks of scratch are aligned. */
static inline int64_t slr_cpu_lines(int64_t floats)
{
    return (floats + 15) / 16 * 16;
}

#endif
