/* SPDX-License-Identifier: MIT */
/* What fuzz targets share: an end that sanitizers and libFuzzer notice, and a memory budget, so
 * that an input that asks for too much is told so. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

#define FUZZ_BUDGET ((uint64_t)256 << 20)

#define FUZZ_CHECK(cond)                                                                           \
    do {                                                                                           \
        if (!(cond))                                                                               \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline slr_mem *fuzz_mem(void)
{
    slr_mem *m = NULL;
    FUZZ_CHECK(slr_mem_new(&m, NULL, FUZZ_BUDGET) == 0);
    return m;
}

/* Everything must have come back. */
static inline void fuzz_mem_done(slr_mem *m)
{
    FUZZ_CHECK(slr_mem_used(m) == 0);
    slr_mem_unref(m);
}

/* Reads every byte, so that a range that is not there is noticed. */
static inline unsigned fuzz_touch(const void *p, size_t n)
{
    const volatile unsigned char *b = p;
    unsigned sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += b[i];
    return sum;
}

#endif
