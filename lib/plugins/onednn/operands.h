/* SPDX-License-Identifier: MIT */
/* What products and convolutions have in common before anything is made: what their operands say
 * about arithmetic, and by what work is cut. */
#ifndef DN_OPERANDS_H
#define DN_OPERANDS_H

#include "common.h"

enum { IN_A = 0, IN_B = 1, IN_BIAS = 2, IN_ADD = 3 }; /* inputs; of a convolution x and filters */

/* Floating-point operations that a piece should have: 40 us of one core without AMX. */
#define DN_PIECE_FLOPS 8e6
/* Below this many the core has the result in f32 before oneDNN has begun. */
#define DN_SMALL_F32 5e5

/* What the operands of a product or convolution say about arithmetic: factors are rounded to bf16
 * when one of them or the result is bf16. */
int dn_choose_type(uint32_t *type, const sdlora_dev *dev, const sdlora_opdesc *op);

/* A frozen bias as f32 times `scale` (to be freed by dn_free), or NULL when it is not frozen. */
int dn_bias_get(float **out, sdlora_dev *dev, const sdlora_opdesc *op, uint32_t i, float scale);

/* Pieces that so many operations should be cut into, by which threads are given work. */
int64_t dn_wished_pieces(double flops);

/* A plain model of a machine, by which cuts are compared (it must not depend on the real one, since
 * cuts decide bytes): so many operations in so many pieces, and elements of two bytes that are read
 * so many times. */
double dn_plan_seconds(double flops, int64_t pieces, double elements, int64_t times);

/* Room in scratch: gives the offset of the next part and moves on by whole cache lines. */
static inline uint64_t dn_reserve(uint64_t *at, int64_t bytes)
{
    const uint64_t here = *at;
    *at += (uint64_t)dn_round_up(bytes, 64);
    return here;
}

#endif
