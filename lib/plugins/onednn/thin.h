/* SPDX-License-Identifier: MIT */
/* Sums over rows of a thin factor by a wide one, as gradients of a network's factors are: C[r,n] =
 * alpha * sum of thin[t,r] wide[t,n].  Knows bf16 rows and AVX-512; refuses to know how work is
 * cut. */
#ifndef DN_THIN_H
#define DN_THIN_H

#include "common.h"

enum { DN_THIN_MOST = 32 /* of r: above, turning the wide factor costs little beside the sums */ };

typedef struct dn_thin {
    const uint16_t *thin, *wide; /* [rows,r] and [rows,n], rows thin_ld and wide_ld apart */
    int64_t thin_ld, wide_ld, rows, r, n;
    float alpha;
    bool turned; /* C is written as [n,r] */
    float *c;    /* rows c_ld apart */
    int64_t c_ld;
} dn_thin;

int64_t dn_thin_bytes(int64_t r, int64_t n); /* scratch, aligned to 64 */

/* Runs on the calling thread; the processor must have AVX512_BF16. */
void dn_thin_run(const dn_thin *t, void *scratch);

#endif
