/* SPDX-License-Identifier: MIT */
/* The table of cases: odd sizes, axes of length 1, absent and frozen inputs, repeated operands and
 * shared memory where a contract allows it; and, marked `big`, the shapes of SD1.5 at 512x512. */
#include "check.h"

#include <stddef.h>

/* Why these: storage is f32, so one rounding is 6e-8 of a value.
 * ROUNDED  one or two operations, one of whose operands may have been rounded to f32 before.
 * FUNCTION polynomials of act.h: up to 4e-7 each, two of them in a slope, and cancellation in
 *          1 - s; --curves holds each function to its own bound.
 * SUMMED   runs of at most 4096 f32 additions, mean error sqrt(4096)/2 roundings of a partial sum,
 *          normalised by a standard deviation near 1.
 * PRODUCT  f32 sums of up to 3000 products in blocks, in whatever order BLAS likes; the floor is
 * what two sums of unit size leave where they cancel. */
const check_room check_tolerance[N_CLASSES] = {
    [EXACT] = {0, 0},     [ROUNDED] = {1.5e-7, 0},  [FUNCTION] = {1e-6, 0},
    [SUMMED] = {2e-6, 0}, [PRODUCT] = {4e-6, 2e-7},
};

/* --- floating-point operations, 2 per multiply-add */

static double count(const sdlora_tdesc *t)
{
    double n = 1;
    for (uint32_t i = 0; i < t->rank; i++)
        n *= (double)t->dim[i];
    return n;
}

static double flops_matmul(const sdlora_opdesc *op)
{
    const sdlora_tdesc *y = &op->out[0];
    return 2 * count(&op->in[0]) * (double)y->dim[y->rank - 1];
}

static double flops_bmm(const sdlora_opdesc *op)
{
    return 2 * count(&op->in[0]) * (double)op->out[0].dim[2];
}

static double flops_conv(const sdlora_opdesc *op)
{
    return 2 * count(&op->out[0]) * count(&op->in[1]) / (double)op->in[1].dim[0];
}

static double flops_conv_bx(const sdlora_opdesc *op)
{
    return 2 * count(&op->in[0]) * count(&op->in[1]) / (double)op->in[1].dim[0];
}

static double flops_conv_bw(const sdlora_opdesc *op)
{
    return 2 * count(&op->in[0]) * count(&op->out[0]) / (double)op->out[0].dim[0];
}

static double flops_attention(const sdlora_opdesc *op)
{
    return 4 * count(&op->in[0]) * (double)op->in[1].dim[1];
}

static double flops_attention_b(const sdlora_opdesc *op)
{
    return 10 * count(&op->in[1]) * (double)op->in[2].dim[1];
}

#define OP(name) SDLORA_OP_##name, #name

static const check_op ops[] = {
    {OP(MATMUL), PRODUCT, 2, 1, "", flops_matmul},
    {OP(BMM), PRODUCT, 2, 1, "", flops_bmm},
    {OP(CONV2D), PRODUCT, 7, 1, "", flops_conv},
    {OP(CONV2D_BX), PRODUCT, 9, 1, "", flops_conv_bx},
    {OP(CONV2D_BW), PRODUCT, 9, 1, "", flops_conv_bw},
    {OP(GROUP_NORM), SUMMED, 2, 1, "m", NULL},
    {OP(GROUP_NORM_BX), SUMMED, 2, 1, "nmnnff", NULL},
    {OP(LAYER_NORM), SUMMED, 0, 1, "m", NULL},
    {OP(LAYER_NORM_BX), SUMMED, 0, 1, "nmnff", NULL},
    {OP(ATTENTION), PRODUCT, 2, 1, "", flops_attention},
    {OP(ATTENTION_B), PRODUCT, 2, 1, "nnnnff", flops_attention_b},
    {OP(ADD), ROUNDED, 0, 0, "", NULL},
    {OP(SUB), ROUNDED, 0, 0, "", NULL},
    {OP(MUL), ROUNDED, 0, 0, "", NULL},
    {OP(AFFINE), ROUNDED, 0, 2, "", NULL},
    {OP(ACT), FUNCTION, 1, 0, "w", NULL},
    {OP(ACT_BX), FUNCTION, 1, 0, "nw", NULL},
    {OP(GEGLU), FUNCTION, 0, 0, "w", NULL},
    {OP(GEGLU_BX), FUNCTION, 0, 0, "nw", NULL},
    {OP(DROPOUT), ROUNDED, 2, 1, "ns", NULL},
    {OP(SLICE), EXACT, 3, 0, "", NULL},
    {OP(SLICE_BX), EXACT, 3, 0, "", NULL},
    {OP(CONCAT), EXACT, 1, 0, "", NULL},
    {OP(PERMUTE), EXACT, -1, 0, "", NULL},
    {OP(CAST), EXACT, 0, 0, "", NULL},
    {OP(FILL), EXACT, 0, 1, "", NULL},
    {OP(UPSAMPLE2), EXACT, 0, 0, "", NULL},
    {OP(UPSAMPLE2_BX), ROUNDED, 0, 0, "", NULL},
    {OP(SUM_TO), SUMMED, 0, 0, "", NULL},
    {OP(EMBED), EXACT, 0, 0, "i", NULL},
    {OP(EMBED_BW), ROUNDED, 0, 0, "i", NULL},
    {OP(TIME_EMBED), ROUNDED, 0, 0, "t", NULL},
    {OP(LOSS), SUMMED, 1, 0, "nnpp", NULL},
    {OP(LOSS_BX), FUNCTION, 1, 0, "pnnpp", NULL},
    {OP(SUMSQ), SUMMED, 0, 0, "", NULL},
    {OP(ADAMW), FUNCTION, 0, 0, "nnnph", NULL},
};

const check_op *check_op_of(uint32_t op)
{
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (ops[i].op == op)
            return &ops[i];
    return NULL;
}

#undef OP
#define OP(name) .op = SDLORA_OP_##name

enum {
    NONE = SDLORA_ACT_NONE,
    SILU = SDLORA_ACT_SILU,
    GELU = SDLORA_ACT_GELU,
    QUICK = SDLORA_ACT_QUICK_GELU,
    RELU = SDLORA_ACT_RELU,
    TANH = SDLORA_ACT_TANH
};

const check_case check_cases[] = {
    /* ints: ta tb; reals: alpha */
    {OP(MATMUL), "1x1 1x1 - -", "1x1", {0, 0}, {1}},
    {OP(MATMUL), "5x7 7x9 9 5x9", "5x9", {0, 0}, {0.5}},
    {OP(MATMUL), "13x33 17x33 17 -", "13x17", {0, 1}, {1}},
    {OP(MATMUL), "33x13 33x17 - 13x17", "13x17", {1, 0}, {2}, {4}},
    {OP(MATMUL), "3x5 7x3 - -", "5x7", {1, 1}, {-1}},
    {OP(MATMUL), "2x3x19 11x19! 11! 2x3x11", "2x3x11", {0, 1}, {1}, {4}},
    {OP(MATMUL), "65x130 70x130:f16! 70:f16! -", "65x70", {0, 1}, {1}},
    {OP(MATMUL), "2x7x19 2x7x5 - -", "19x5", {1, 0}, {1}},
    {OP(MATMUL), "1x300 300x1 1 1x1", "1x1", {0, 0}, {1}},
    {OP(MATMUL), "4096x320 320x320! 320! 4096x320", "4096x320", {0, 1}, {1}, .big = true},
    {OP(MATMUL), "4096x320 2560x320! 2560! -", "4096x2560", {0, 1}, {1}, .big = true},
    {OP(MATMUL), "4096x320 16x320 - -", "4096x16", {0, 1}, {1}, .big = true},
    {OP(BMM), "1x1x1 1x1x1", "1x1x1", {0, 0}, {1}},
    {OP(BMM), "3x5x7 3x7x9", "3x5x9", {0, 0}, {1}},
    {OP(BMM), "3x5x7 3x9x7", "3x5x9", {0, 1}, {0.25}},
    {OP(BMM), "2x7x5 2x7x9", "2x5x9", {1, 0}, {1}},
    {OP(BMM), "2x7x5 2x9x7", "2x5x9", {1, 1}, {1}},

    /* ints: stride_h stride_w pad_top pad_left pad_bottom pad_right groups; reals: alpha */
    {OP(CONV2D), "1x1x1x1 1x1x1x1 - -", "1x1x1x1", {1, 1, 0, 0, 0, 0, 1}, {1}},
    {OP(CONV2D), "2x5x6x4 7x4x3x3 7 -", "2x5x6x7", {1, 1, 1, 1, 1, 1, 1}, {1}},
    {OP(CONV2D), "1x9x7x5 6x5x3x3 6 1x5x4x6", "1x5x4x6", {2, 2, 1, 1, 1, 1, 1}, {0.5}, {4}},
    {OP(CONV2D), "1x8x8x3 4x3x3x3! 4! -", "1x4x4x4", {2, 2, 0, 0, 1, 1, 1}, {1}},
    {OP(CONV2D), "2x4x5x32 48x32x1x1:f16! 48:f16! -", "2x4x5x48", {1, 1, 0, 0, 0, 0, 1}, {1}},
    {OP(CONV2D), "2x6x5x6 4x3x3x3 4 -", "2x6x5x4", {1, 1, 1, 1, 1, 1, 2}, {1}},
    {OP(CONV2D), "1x3x11x4 5x4x5x2 - 1x3x10x5", "1x3x10x5", {1, 1, 2, 0, 2, 0, 1}, {1}},
    {OP(CONV2D), "1x7x9x64 32x64x3x3! 32! -", "1x7x9x32", {1, 1, 1, 1, 1, 1, 1}, {1}},
    {OP(CONV2D),
     "1x64x64x320 320x320x3x3! 320! -",
     "1x64x64x320",
     {1, 1, 1, 1, 1, 1, 1},
     {1},
     .big = true},
    {OP(CONV2D),
     "1x16x16x1280 1280x1280x3x3! 1280! -",
     "1x16x16x1280",
     {1, 1, 1, 1, 1, 1, 1},
     {1},
     .big = true},
    {OP(CONV2D_BX), "1x1x1x1 1x1x1x1", "1x1x1x1", {1, 1, 0, 0, 0, 0, 1, 1, 1}, {1}},
    {OP(CONV2D_BX), "2x5x6x7 7x4x3x3", "2x5x6x4", {1, 1, 1, 1, 1, 1, 1, 5, 6}, {1}},
    {OP(CONV2D_BX), "1x5x4x6 6x5x3x3!", "1x9x7x5", {2, 2, 1, 1, 1, 1, 1, 9, 7}, {0.5}},
    {OP(CONV2D_BX), "1x4x4x4 4x3x3x3:f16!", "1x8x8x3", {2, 2, 0, 0, 1, 1, 1, 8, 8}, {1}},
    {OP(CONV2D_BX), "2x4x5x48 48x32x1x1!", "2x4x5x32", {1, 1, 0, 0, 0, 0, 1, 4, 5}, {1}},
    {OP(CONV2D_BX), "2x6x5x4 4x3x3x3", "2x6x5x6", {1, 1, 1, 1, 1, 1, 2, 6, 5}, {1}},
    {OP(CONV2D_BX), "1x3x10x5 5x4x5x2", "1x3x11x4", {1, 1, 2, 0, 2, 0, 1, 3, 11}, {1}},
    {OP(CONV2D_BX),
     "1x64x64x320 320x320x3x3!",
     "1x64x64x320",
     {1, 1, 1, 1, 1, 1, 1, 64, 64},
     {1},
     .big = true},
    {OP(CONV2D_BW), "1x1x1x1 1x1x1x1", "1x1x1x1", {1, 1, 0, 0, 0, 0, 1, 1, 1}, {1}},
    {OP(CONV2D_BW), "2x5x6x7 2x5x6x4", "7x4x3x3", {1, 1, 1, 1, 1, 1, 1, 3, 3}, {1}},
    {OP(CONV2D_BW), "1x5x4x6 1x9x7x5", "6x5x3x3", {2, 2, 1, 1, 1, 1, 1, 3, 3}, {0.5}},
    {OP(CONV2D_BW), "2x4x5x48 2x4x5x32", "48x32x1x1", {1, 1, 0, 0, 0, 0, 1, 1, 1}, {1}},
    {OP(CONV2D_BW), "2x6x5x4 2x6x5x6", "4x3x3x3", {1, 1, 1, 1, 1, 1, 2, 3, 3}, {1}},
    {OP(CONV2D_BW),
     "1x64x64x16 1x64x64x320",
     "16x320x3x3",
     {1, 1, 1, 1, 1, 1, 1, 3, 3},
     {1},
     .big = true},

    /* ints: groups act; reals: eps */
    {OP(GROUP_NORM), "1x1x1x4 4 4", "1x1x1x4 1x2 1x2", {2, NONE}, {1e-5}},
    {OP(GROUP_NORM), "2x3x5x6 6 6", "2x3x5x6 2x3 2x3", {3, SILU}, {1e-6}, {1}},
    {OP(GROUP_NORM), "2x7x9x32 32:f16! 32:f16!", "2x7x9x32 2x8 2x8", {8, NONE}, {1e-5}},
    {OP(GROUP_NORM), "1x8x8x40 - -", "1x8x8x40 1x1 1x1", {1, GELU}, {1e-5}},
    {OP(GROUP_NORM), "3x5x17 17 -", "3x5x17 3x17 3x17", {17, RELU}, {1e-5}},
    {OP(GROUP_NORM), "1x33x31x64 64! 64!", "1x33x31x64 1x32 1x32", {32, SILU}, {1e-5}},
    {OP(GROUP_NORM), "2x520x20 20 20", "2x520x20 2x4 2x4", {4, QUICK}, {1e-5}},
    {OP(GROUP_NORM), "1x6x50 50 50", "1x6x50 1x5 1x5", {5, TANH}, {1e-5}},
    {OP(GROUP_NORM),
     "1x64x64x320 320! 320!",
     "1x64x64x320 1x32 1x32",
     {32, SILU},
     {1e-5},
     .big = true},
    {OP(GROUP_NORM),
     "1x8x8x1280 1280! 1280!",
     "1x8x8x1280 1x32 1x32",
     {32, SILU},
     {1e-5},
     .big = true},
    {OP(GROUP_NORM),
     "1x512x512x128 128! 128!",
     "1x512x512x128 1x32 1x32",
     {32, SILU},
     {1e-6},
     .big = true},
    {OP(GROUP_NORM), "1x6x50", "1x6x50 1x5 1x5", {5, SILU}, {1e-5}},
    {OP(GROUP_NORM), "1x6x50 50 50", "1x6x50 1x4 1x4", {4, NONE}, {1e-5}, .refuse = SDLORA_EINVAL},
    {OP(GROUP_NORM), "1x6x50 49 50", "1x6x50 1x5 1x5", {5, NONE}, {1e-5}, .refuse = SDLORA_EINVAL},
    {OP(GROUP_NORM), "1x6x50 50 50", "1x6x50 1x5 1x5", {5, 9}, {1e-5}, .refuse = SDLORA_ENOTSUP},
    {OP(GROUP_NORM_BX), "1x2x1x4 1x2x1x4 4 4 1x2 1x2", "1x2x1x4", {2, NONE}, {1e-5}},
    {OP(GROUP_NORM_BX), "2x3x5x6 2x3x5x6 6 6 2x3 2x3", "2x3x5x6", {3, SILU}, {1e-6}, {1}},
    {OP(GROUP_NORM_BX),
     "2x7x9x32 2x7x9x32 32:f16! 32:f16! 2x8 2x8",
     "2x7x9x32",
     {8, NONE},
     {1e-5},
     {2}},
    {OP(GROUP_NORM_BX), "1x8x8x40 1x8x8x40 - - 1x1 1x1", "1x8x8x40", {1, GELU}, {1e-5}},
    {OP(GROUP_NORM_BX), "3x5x17 3x5x17 17 - 3x17 3x17", "3x5x17", {17, QUICK}, {1e-5}},
    {OP(GROUP_NORM_BX), "2x520x20 2x520x20 20 20 2x4 2x4", "2x520x20", {4, SILU}, {1e-5}},
    {OP(GROUP_NORM_BX), "1x6x50 1x6x50 50 50 1x5 1x5", "1x6x50", {5, TANH}, {1e-5}},
    {OP(GROUP_NORM_BX),
     "1x64x64x320 1x64x64x320 320! 320! 1x32 1x32",
     "1x64x64x320",
     {32, SILU},
     {1e-5},
     .big = true},
    {OP(LAYER_NORM), "1x2 2 2", "1x2 1 1", .reals = {1e-5}},
    {OP(LAYER_NORM), "3x5x33 33 33", "3x5x33 3x5 3x5", .reals = {1e-5}, .alias = {1}},
    {OP(LAYER_NORM), "77x48 48:f16! 48:f16!", "77x48 77 77", .reals = {1e-5}},
    {OP(LAYER_NORM), "300x130 - -", "300x130 300 300", .reals = {1e-5}},
    {OP(LAYER_NORM), "4096x320 320! 320!", "4096x320 4096 4096", .reals = {1e-5}, .big = true},
    {OP(LAYER_NORM), "7x33", "7x33 7 7", .reals = {1e-5}},
    {OP(LAYER_NORM), "3x33 33 33", "3x33 33 3", .reals = {1e-5}, .refuse = SDLORA_EINVAL},
    {OP(LAYER_NORM_BX), "2x3 2x3 3 2 2", "2x3", .reals = {1e-5}},
    {OP(LAYER_NORM_BX), "3x5x33 3x5x33 33 3x5 3x5", "3x5x33", .reals = {1e-5}, .alias = {1}},
    {OP(LAYER_NORM_BX), "77x48 77x48 48:f16! 77 77", "77x48", .reals = {1e-5}},
    {OP(LAYER_NORM_BX), "300x130 300x130 - 300 300", "300x130", .reals = {1e-5}},
    {OP(LAYER_NORM_BX), "4096x320 4096x320 320! 4096 4096", "4096x320", .reals = {1e-5},
     .big = true},

    /* ints: heads causal; reals: scale */
    {OP(ATTENTION), "1x1x4 1x1x4 1x1x4", "1x1x4 1x1x1", {1, 0}, {0.5}},
    {OP(ATTENTION), "2x9x24 2x9x24 2x9x24", "2x9x24 2x3x9", {3, 0}, {0.35}},
    {OP(ATTENTION), "2x19x24 2x77x24 2x77x24", "2x19x24 2x2x19", {2, 0}, {0.29}},
    {OP(ATTENTION), "1x77x32 1x77x32 1x77x32", "1x77x32 1x4x77", {4, 1}, {0.35}},
    {OP(ATTENTION), "2x70x40/120 2x70x40/120 2x70x40/120", "2x70x40 2x1x70", {1, 0}, {0.16}},
    {OP(ATTENTION), "1x150x80 1x140x80 1x140x80", "1x150x80 1x2x150", {2, 0}, {0.16}},
    {OP(ATTENTION),
     "1x4096x320 1x4096x320 1x4096x320",
     "1x4096x320 1x8x4096",
     {8, 0},
     {0.158},
     .big = true},
    {OP(ATTENTION),
     "1x4096x320 1x77x320 1x77x320",
     "1x4096x320 1x8x4096",
     {8, 0},
     {0.158},
     .big = true},
    {OP(ATTENTION_B), "1x1x4 1x1x4 1x1x4 1x1x4 1x1x4 1x1x1", "1x1x4 1x1x4 1x1x4", {1, 0}, {0.5}},
    {OP(ATTENTION_B),
     "2x9x24 2x9x24 2x9x24 2x9x24 2x9x24 2x3x9",
     "2x9x24 2x9x24 2x9x24",
     {3, 0},
     {0.35}},
    {OP(ATTENTION_B),
     "2x19x24 2x19x24 2x77x24 2x77x24 2x19x24 2x2x19",
     "2x19x24 2x77x24 2x77x24",
     {2, 0},
     {0.29}},
    {OP(ATTENTION_B),
     "1x77x32 1x77x32 1x77x32 1x77x32 1x77x32 1x4x77",
     "1x77x32 1x77x32 1x77x32",
     {4, 1},
     {0.35}},
    {OP(ATTENTION_B),
     "2x70x40 2x70x40/120 2x70x40/120 2x70x40/120 2x70x40 2x1x70",
     "2x70x40 2x70x40 2x70x40",
     {1, 0},
     {0.16}},
    {OP(ATTENTION_B),
     "1x150x80 1x150x80 1x140x80 1x140x80 1x150x80 1x2x150",
     "1x150x80 1x140x80 1x140x80",
     {2, 0},
     {0.16}},
    {OP(ATTENTION_B),
     "1x4096x320 1x4096x320 1x4096x320 1x4096x320 1x4096x320 1x8x4096",
     "1x4096x320 1x4096x320 1x4096x320",
     {8, 0},
     {0.158},
     .big = true},

    {OP(ADD), "1 1", "1", .alias = {1}},
    {OP(ADD), "3x5x7 3x5x7", "3x5x7", .alias = {2}},
    {OP(ADD), "3x5x7 1x1x7", "3x5x7", .alias = {1}},
    {OP(ADD), "2x4x6x10 2x1x1x10", "2x4x6x10"},
    {OP(ADD), "4x3x5 4x1x1", "4x3x5"},
    {OP(ADD), "2x77x48 1x77x48:f16!", "2x77x48"},
    {OP(ADD), "170x200 170x200", "170x200", .alias = {1}},
    {OP(ADD), "4096x320 4096x320", "4096x320", .big = true},
    {OP(ADD), "1x64x64x320 1x1x1x320", "1x64x64x320", .big = true},
    {OP(ADD), "64x320 64x320", "64x320", .big = true},
    {OP(ADD), "3x5x7 3x4x7", "3x5x7", .refuse = SDLORA_EINVAL},
    {OP(ADD), "3x5x7:f16 3x5x7", "3x5x7", .refuse = SDLORA_ENOTSUP},
    {OP(SUB), "3x5x7 3x5x7", "3x5x7"},
    {OP(SUB), "3x5x7 3x1x7", "3x5x7"},
    {OP(SUB), "2x3x2x5x2x3 1x3x1x5x1x3", "2x3x2x5x2x3"},
    {OP(MUL), "3x5x7 3x5x7", "3x5x7", .alias = {1}},
    {OP(MUL), "3x5x7 1x5x1", "3x5x7"},
    {OP(MUL), "5x40000 1x1", "5x40000"},
    {OP(AFFINE), "1", "1", .reals = {2, 1}},
    {OP(AFFINE), "7x2501", "7x2501", .reals = {-0.3, 0.7}, .alias = {1}},
    {OP(ACT), "37", "37", {NONE}},
    {OP(ACT), "3x13", "3x13", {SILU}, .alias = {1}},
    {OP(ACT), "19000", "19000", {GELU}},
    {OP(ACT), "1003", "1003", {QUICK}},
    {OP(ACT), "1003", "1003", {RELU}},
    {OP(ACT), "1003", "1003", {TANH}},
    {OP(ACT), "4096x320", "4096x320", {SILU}, .big = true},
    {OP(ACT), "4096x320", "4096x320", {GELU}, .big = true},
    {OP(ACT), "37", "37", {17}, .refuse = SDLORA_ENOTSUP},
    {OP(ACT), "37", "36", {SILU}, .refuse = SDLORA_EINVAL},
    {OP(ACT_BX), "37 37", "37", {NONE}},
    {OP(ACT_BX), "1003 1003", "1003", {SILU}, .alias = {1}},
    {OP(ACT_BX), "19000 19000", "19000", {GELU}, .alias = {2}},
    {OP(ACT_BX), "1003 1003", "1003", {QUICK}},
    {OP(ACT_BX), "1003 1003", "1003", {RELU}},
    {OP(ACT_BX), "1003 1003", "1003", {TANH}},
    {OP(ACT_BX), "4096x320 4096x320", "4096x320", {SILU}, .big = true},
    {OP(GEGLU), "1x2", "1x1"},
    {OP(GEGLU), "2x9x34", "2x9x17"},
    {OP(GEGLU), "90x512", "90x256"},
    {OP(GEGLU), "4096x2560", "4096x1280", .big = true},
    {OP(GEGLU), "4x5", "4x2", .refuse = SDLORA_EINVAL},
    {OP(GEGLU_BX), "1x1 1x2", "1x2"},
    {OP(GEGLU_BX), "2x9x17 2x9x34", "2x9x34"},
    {OP(GEGLU_BX), "90x256 90x512", "90x512"},
    {OP(GEGLU_BX), "4096x1280 4096x2560", "4096x2560", .big = true},
    /* ints: stream group; reals: p */
    {OP(DROPOUT), "1 2:i32", "1", {0, 1}, {0.5}},
    {OP(DROPOUT), "7x91 2:i32", "7x91", {3, 1}, {0.1}, {1}},
    {OP(DROPOUT), "5x7001 2:i32", "5x7001", {INT64_C(0x123456789), 0}, {0.7}},
    {OP(DROPOUT), "6x11 2:i32", "6x11", {1, 11}, {0.5}},
    {OP(DROPOUT), "40x600 2:i32", "40x600", {1, 4800}, {0.5}},
    {OP(DROPOUT), "100 2:i32", "100", {1, 1}, {0}},
    {OP(DROPOUT), "100 2:i32", "100", {1, 1}, {1}},
    {OP(DROPOUT), "4096x320 2:i32", "4096x320", {1, 1}, {0.1}, .big = true},

    /* ints: axis start length */
    {OP(SLICE), "7", "3", {0, 2, 3}},
    {OP(SLICE), "3x5x7", "3x5x1", {2, 6, 1}},
    {OP(SLICE), "3x5x7", "3x2x7", {1, 3, 2}},
    {OP(SLICE), "4x5x6:f16", "2x5x6:f16", {0, 1, 2}},
    {OP(SLICE), "2x77x1200", "2x77x400", {2, 400, 400}},
    {OP(SLICE), "4096x960", "4096x320", {1, 320, 320}, .big = true},
    {OP(SLICE), "9x33:f16!", "9x11:f16", {1, 22, 11}},
    {OP(SLICE), "3x5x7", "3x2x7", {1, 4, 2}, .refuse = SDLORA_EINVAL},
    {OP(SLICE), "3x5x7", "3x2x7", {5, 0, 2}, .refuse = SDLORA_EINVAL},
    {OP(SLICE_BX), "3", "7", {0, 2, 7}},
    {OP(SLICE_BX), "3x5x1", "3x5x7", {2, 6, 7}},
    {OP(SLICE_BX), "3x2x7", "3x5x7", {1, 0, 5}},
    {OP(SLICE_BX), "2x77x400", "2x77x1200", {2, 400, 1200}},
    {OP(CONCAT), "3x5", "3x5", {1}},
    {OP(CONCAT), "3x5 3x1 3x9", "3x15", {1}},
    {OP(CONCAT), "2x3x4 5x3x4:f32! 1x3x4", "8x3x4", {0}},
    {OP(CONCAT), "2x9x7x30 2x9x7x12", "2x9x7x42", {3}},
    {OP(CONCAT), "1x64x64x320 1x64x64x320", "1x64x64x640", {3}, .big = true},
    {OP(CONCAT), "3x5:bf16! 3x2:bf16!", "3x7:bf16", {1}},
    {OP(CONCAT), "3x5 3x1", "3x7", {1}, .refuse = SDLORA_EINVAL},
    /* ints: order */
    {OP(PERMUTE), "5", "5", {0}},
    {OP(PERMUTE), "1x1", "1x1", {1, 0}},
    {OP(PERMUTE), "5x7", "7x5", {1, 0}},
    {OP(PERMUTE), "2x3x37x41", "2x37x41x3", {0, 2, 3, 1}},
    {OP(PERMUTE), "2x37x41x3", "2x3x37x41", {0, 3, 1, 2}},
    {OP(PERMUTE), "2x9x4x16", "2x4x9x16", {0, 2, 1, 3}},
    {OP(PERMUTE), "2x3x4x5x6x7", "7x2x6x3x5x4", {5, 0, 4, 1, 3, 2}},
    {OP(PERMUTE), "3x70x65:f16", "65x70x3:f16", {2, 1, 0}},
    {OP(PERMUTE), "4x5x6", "4x5x6", {0, 1, 2}},
    {OP(PERMUTE), "40x50:f16!", "50x40:f16", {1, 0}},
    {OP(PERMUTE), "4x4", "4x4", {1, 1}, .refuse = SDLORA_EINVAL},
    {OP(PERMUTE), "1x4096x8x40", "1x8x4096x40", {0, 2, 1, 3}, .big = true},
    {OP(PERMUTE), "1x320x64x64", "1x64x64x320", {0, 2, 3, 1}, .big = true},
    {OP(CAST), "3x1001", "3x1001:f16"},
    {OP(CAST), "3x1001", "3x1001:bf16"},
    {OP(CAST), "20001:f16", "20001"},
    {OP(CAST), "1001:bf16", "1001"},
    {OP(CAST), "1001:f16!", "1001"},
    {OP(CAST), "77", "77"},
    {OP(CAST), "4096x320:f16", "4096x320", .big = true},
    {OP(FILL), "", "1", .reals = {0}},
    {OP(FILL), "", "7x3001", .reals = {0.25}},
    {OP(FILL), "", "999:f16", .reals = {-1.5}},
    {OP(UPSAMPLE2), "1x1x1x1", "1x2x2x1"},
    {OP(UPSAMPLE2), "2x3x5x7", "2x6x10x7"},
    {OP(UPSAMPLE2), "1x32x32x640", "1x64x64x640", .big = true},
    {OP(UPSAMPLE2_BX), "1x2x2x1", "1x1x1x1"},
    {OP(UPSAMPLE2_BX), "2x6x10x7", "2x3x5x7"},
    {OP(UPSAMPLE2_BX), "1x12x10x80", "1x6x5x80"},
    {OP(UPSAMPLE2_BX), "1x64x64x640", "1x32x32x640", .big = true},
    {OP(SUM_TO), "1", "1"},
    {OP(SUM_TO), "5x7", "5x7"},
    {OP(SUM_TO), "5x7", "1x7"},
    {OP(SUM_TO), "5x7", "5x1"},
    {OP(SUM_TO), "9x11x13", "1x1x1"},
    {OP(SUM_TO), "3x700x33", "3x1x33"},
    {OP(SUM_TO), "2x3x4x5x6x7", "2x1x4x1x6x1"},
    {OP(SUM_TO), "2x3x4x5x6x7", "1x3x1x5x1x7"},
    {OP(SUM_TO), "3x20000", "3x1"},
    {OP(SUM_TO), "3x9000", "1x9000"},
    {OP(SUM_TO), "1x64x64x320", "1x1x1x320", .big = true},
    {OP(SUM_TO), "4096x320", "4096x1", .big = true},
    {OP(EMBED), "1:i32 1x1", "1x1"},
    {OP(EMBED), "2x7:i32 19x33", "2x7x33"},
    {OP(EMBED), "2x77:i32 100x48:f16!", "2x77x48"},
    {OP(EMBED), "77:i32 100x48:f32!", "77x48"},
    {OP(EMBED), "7:i32 10x8", "7x8", .refuse = SDLORA_EINVAL},
    {OP(EMBED_BW), "7:i32 7x8", "10x8", .refuse = SDLORA_EINVAL},
    {OP(EMBED_BW), "1:i32 1x1", "1x1"},
    {OP(EMBED_BW), "2x7:i32 2x7x33", "19x33"},
    {OP(EMBED_BW), "2x77:i32 2x77x130", "40x130"},
    {OP(TIME_EMBED), "1", "1x2"},
    {OP(TIME_EMBED), "5", "5x320"},
    {OP(TIME_EMBED), "3", "3x33"},

    /* ints: kind */
    {OP(LOSS), "1x1 1x1 1 -", "1", {SDLORA_LOSS_L2}},
    {OP(LOSS), "3x5x7 3x5x7 3 -", "3", {SDLORA_LOSS_L2}},
    {OP(LOSS), "2x9001 2x9001 2 -", "2", {SDLORA_LOSS_L1}},
    {OP(LOSS), "3x64x64x4 3x64x64x4 3 3", "3", {SDLORA_LOSS_HUBER}},
    {OP(LOSS), "3x77 3x77 3 3", "3", {SDLORA_LOSS_SMOOTH_L1}},
    {OP(LOSS), "3x77 3x77 3 -", "3", {SDLORA_LOSS_HUBER}, .refuse = SDLORA_EINVAL},
    {OP(LOSS), "3x77 3x77 2 -", "3", {SDLORA_LOSS_L2}, .refuse = SDLORA_EINVAL},
    {OP(LOSS), "3x77 3x77 3", "3", {SDLORA_LOSS_L2}},
    {OP(LOSS_BX), "3 3x5x7 3x5x7 3 -", "3x5x7", {SDLORA_LOSS_L2}},
    {OP(LOSS_BX), "2 2x9001 2x9001 2 -", "2x9001", {SDLORA_LOSS_L1}, .alias = {2}},
    {OP(LOSS_BX), "3 3x77 3x77 3 3", "3x77", {SDLORA_LOSS_HUBER}},
    {OP(LOSS_BX), "3 3x77 3x77 3 3", "3x77", {SDLORA_LOSS_SMOOTH_L1}},
    {OP(SUMSQ), "1", "1"},
    {OP(SUMSQ), "3x33", "1"},
    {OP(SUMSQ), "50001", "1"},
    {OP(SUMSQ), "4000000", "1", .big = true},
    {OP(ADAMW), "1 1 1 1 8", "1 1 1", .alias = {1, 3, 4}},
    {OP(ADAMW), "20003 20003 20003 20003 8", "20003 20003 20003", .alias = {1, 3, 4}},
    {OP(ADAMW), "77 77 77 77 8", "77 77 77"},
    {OP(ADAMW), "4000000 4000000 4000000 4000000 8", "4000000 4000000 4000000", .alias = {1, 3, 4},
     .big = true},
    {0},
};
