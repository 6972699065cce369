/* SPDX-License-Identifier: MIT */
/* What this processor can do, as bits read once from cpuid (never by model name). */
#ifndef SLR_BASE_CPU_H
#define SLR_BASE_CPU_H

#include <stdint.h>

enum {
    SLR_CPU_AVX2 = 1 << 0,   /* AVX2 + FMA + F16C */
    SLR_CPU_AVX512 = 1 << 1, /* F, BW, DQ, VL */
    SLR_CPU_AVX512_BF16 = 1 << 2,
    SLR_CPU_AMX_BF16 = 1 << 3
};

uint64_t slr_cpu_features(void);
uint64_t
slr_cpu_mask(const char *name); /* "generic","avx2","avx512","amx","auto" -> bits allowed */

#endif
