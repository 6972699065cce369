/* SPDX-License-Identifier: MIT */
/* Products as kernels, for MATMUL and for convolutions of one tap. */
#ifndef DN_MATMUL_H
#define DN_MATMUL_H

#include "common.h"

/* c[m,n] = alpha op(a) op(b) + bias + add; inputs of the descriptor are a, b, bias?, add? in this
 * order, whatever their rank.  Types are read off the descriptor. */
typedef struct dn_product {
    int64_t m, n, k;
    bool ta, tb;
    float alpha;
} dn_product;

/* Is the core faster?  It calls no library, and a b that changes it lays out while it multiplies,
 * where oneDNN does so before: with few rows to share that, or much to lay out, this takes as long
 * as the product. */
bool dn_product_small(const dn_product *p, uint32_t type, bool frozen);

int dn_product_prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                       const sdlora_opdesc *op, const dn_product *p);

#endif
