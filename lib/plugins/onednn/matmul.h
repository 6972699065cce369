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

int dn_product_prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                       const sdlora_opdesc *op, const dn_product *p);

/* What the operands of a product or convolution say about arithmetic: factors are rounded to bf16
 * when one of them or the result is bf16. */
int dn_choose_type(uint32_t *type, const sdlora_dev *dev, const sdlora_opdesc *op);

/* A frozen bias as f32 times `scale` (to be freed by dn_free), or NULL when it is not frozen. */
int dn_bias_get(float **out, sdlora_dev *dev, const sdlora_opdesc *op, uint32_t i, float scale);

/* A plain model of a machine, by which cuts are compared (it must not depend on the real one, since
 * cuts decide bytes): so many operations in so many pieces, and elements of two bytes that are read
 * so many times. */
double dn_plan_seconds(double flops, int64_t pieces, double elements, int64_t times);

#endif
