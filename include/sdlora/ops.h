/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/ops.h
 * Pinned numbers of data types, arithmetic permissions and operations, with the
 * contract of each operation.  Plugins see this and backend.h, nothing else.
 *
 * Conventions: tensors are dense and row-major unless a contract says that
 * strides are honoured; images are [N,H,W,C]; tokens are [N,T,C].  A `?` after
 * an input means that it may be absent (its descriptor's dtype is 0).  Sums,
 * statistics and losses are f32 whatever the storage type.  `_BX` is the
 * gradient by the activations, `_BW` by the weights.
 */
#ifndef SDLORA_OPS_H
#define SDLORA_OPS_H

/** Storage types.  0 in a descriptor: absent. */
enum {
    SDLORA_F32  = 1,
    SDLORA_F16  = 2,
    SDLORA_BF16 = 3,
    SDLORA_F64  = 4,
    SDLORA_I32  = 10,
    SDLORA_I64  = 11,
    SDLORA_U8   = 12,
    SDLORA_I8   = 13,
    SDLORA_I16  = 14,
    SDLORA_BOOL = 15,
    SDLORA_F8_E4M3 = 20,
    SDLORA_F8_E5M2 = 21
};

/** Arithmetic that a backend may use inside one operation; sums are always f32. */
enum {
    SDLORA_MATH_STRICT = 0, /**< what the tensors' own type says (default) */
    SDLORA_MATH_TF32   = 1, /**< f32 operands may be rounded to 10 mantissa bits */
    SDLORA_MATH_BF16   = 2  /**< f32 operands may be rounded to bfloat16 */
};

/** The `kind` of ACT, each what torch's module of that name computes with its defaults.  Other
 * operations fuse those up to TANH only. */
enum {
    SDLORA_ACT_NONE       = 0,
    SDLORA_ACT_SILU       = 1, /**< x / (1 + e^-x) */
    SDLORA_ACT_GELU       = 2, /**< exact: x/2 (1 + erf(x/sqrt 2)) */
    SDLORA_ACT_QUICK_GELU = 3, /**< x / (1 + e^(-1.702 x)) */
    SDLORA_ACT_RELU       = 4,
    SDLORA_ACT_TANH       = 5,
    SDLORA_ACT_SIGMOID    = 6,  /**< 1 / (1 + e^-x) */
    SDLORA_ACT_LEAKY_RELU = 7,  /**< 0.01 x below 0 */
    SDLORA_ACT_ELU        = 8,  /**< e^x - 1 below 0 */
    SDLORA_ACT_SELU       = 9,  /**< 1.0507 (x above 0, 1.6733 (e^x - 1) below) */
    SDLORA_ACT_SOFTPLUS   = 10, /**< ln(1 + e^x) */
    SDLORA_ACT_LOG_SIGMOID = 11, /**< -ln(1 + e^-x) */
    SDLORA_ACT_MISH       = 12, /**< x tanh(ln(1 + e^x)) */
    SDLORA_ACT_HARDSWISH  = 13, /**< x min(max(x + 3, 0), 6) / 6 */
    SDLORA_ACT_HARDSIGMOID = 14, /**< min(max(x + 3, 0), 6) / 6 */
    SDLORA_ACT_HARDTANH   = 15, /**< x between -1 and 1 */
    SDLORA_ACT_RELU6      = 16, /**< x between 0 and 6 */
    SDLORA_ACT_SOFTSIGN   = 17, /**< x / (1 + |x|) */
    SDLORA_ACT_TANHSHRINK = 18, /**< x - tanh x */
    SDLORA_ACT_HARDSHRINK = 19, /**< x where |x| > 0.5, else 0 */
    SDLORA_ACT_SOFTSHRINK = 20  /**< x moved by 0.5 towards 0 */
};

/** Losses of SDLORA_OP_LOSS (training.md names are kohya's loss_type). */
enum {
    SDLORA_LOSS_L2        = 0, /**< d^2 */
    SDLORA_LOSS_L1        = 1, /**< |d| */
    SDLORA_LOSS_HUBER     = 2, /**< 2 delta (sqrt(d^2 + delta^2) - delta) */
    SDLORA_LOSS_SMOOTH_L1 = 3  /**< 2 (sqrt(d^2 + delta^2) - delta) */
};

/**
 * Operations.  Gaps of ten between families; a number is never reused.
 *
 * Linear algebra
 *   MATMUL     a[M,K] b[K,N] bias[N]? add[M,N]? -> c[M,N]
 *              ints: ta, tb (operand is stored transposed: a[K,M], b[N,K]); reals: alpha
 *              c = alpha op(a) op(b) + bias + add.  `a`, `add` and `c` may have rank > 2: every
 *              axis but the last is folded into rows (when ta: a is rank 2 after folding the
 *              same way).  c may share memory with add.
 *   BMM        a[B,M,K] b[B,K,N] -> c[B,M,N]; ints: ta, tb; reals: alpha
 *   INVERSE    x[B,N,N] f32 -> y[B,N,N] f32: the inverse of each matrix; NaN where there is none
 * Convolution (weights as files have them: [K, C/groups, R, S])
 *   CONV2D     x[N,H,W,C] w[K,C/g,R,S] bias[K]? add[N,H',W',K]? -> y[N,H',W',K]
 *              ints: stride_h stride_w pad_top pad_left pad_bottom pad_right groups
 *              reals: alpha (on the product, not on bias and add).  y may share memory with add.
 *   CONV2D_BX  dy w -> dx[N,H,W,C]; ints: those of CONV2D, then H, W; reals: alpha
 *   CONV2D_BW  dy x -> dw[K,C/g,R,S]; ints: those of CONV2D, then R, S; reals: alpha
 * Normalisation
 *   GROUP_NORM    x[N,...,C] g[C]? b[C]? -> y, mean[N,G] f32, rstd[N,G] f32
 *                 ints: groups, act (SDLORA_ACT_* applied after the affine); reals: eps
 *   GROUP_NORM_BX dy x g? b? mean rstd add[N,...,C]? -> dx + add; ints and reals as above.
 *                 dx may share memory with add.
 *   GROUP_NORM_BW dy x g? b? mean rstd -> dg[C] f32, db[C] f32; ints as above
 *   LAYER_NORM    x[...,C] g[C]? b[C]? -> y, mean[rows] f32, rstd[rows] f32; reals: eps
 *   LAYER_NORM_BX dy x g? mean rstd add[...,C]? -> dx + add; dx may share memory with add.
 *   LAYER_NORM_BW dy x mean rstd -> dg[C] f32, db[C] f32
 * Attention
 *   ATTENTION     q[N,Tq,h*d] k[N,Tk,h*d] v[N,Tk,h*d] -> o[N,Tq,h*d], lse[N,h,Tq] f32
 *                 ints: heads, causal; reals: scale.  The stride of axis 1 is honoured in q, k, v
 *                 (they may be column slices of one tensor).  lse = log sum exp(scale q.k)
 *   ATTENTION_B   do q k v o lse -> dq dk dv (dense); ints, reals as above
 * Elementwise (same shape; b may repeat: each of its axes is that of a or 1)
 *   ADD, SUB, MUL a b -> y
 *   AFFINE        x -> y = scale x + shift; reals: scale, shift
 *   ACT           x -> y; ints: kind
 *   ACT_BX        dy x -> dx; ints: kind
 *   GEGLU         x[...,2C] -> y[...,C] = x[:C] gelu(x[C:])
 *   GEGLU_BX      dy x -> dx[...,2C]
 *   DROPOUT       x seed[2] i32 -> y; reals: p; ints: stream.  Element i is kept when Philox4x32-10
 *                 of counter (i/4, stream), key seed, word i%4 as u in [0,1) is >= p; kept ones are
 *                 divided by 1-p.  Its own gradient: the same operation on dy.
 *                 ints[1] = group: elements i/group share one draw (rank and module dropout).
 *   POW           x f32 -> y = x^p, x >= 0 where p is not whole; reals: p
 * Shape and memory
 *   RESHAPE    x -> y: same elements, other axes; never a kernel: the planner aliases
 *   SLICE      x -> y; ints: axis, start, length
 *   SLICE_BX   dy -> dx: zeros outside; ints: axis, start, full length
 *   CONCAT     x0 x1 ... -> y; ints: axis (any number of inputs >= 1)
 *   PERMUTE    x -> y; ints: order of axes
 *   CAST       x -> y (other dtype)
 *   FILL       -> y; reals: value
 *   UPSAMPLE2  x[N,H,W,C] -> y[N,2H,2W,C] nearest
 *   UPSAMPLE2_BX dy -> dx: sums of 2x2
 *   SUM_TO     x -> y: sums the axes that are 1 in y (same rank)
 *   EMBED      ids[...] i32, table[V,C] -> y[...,C]
 *   EMBED_BW   ids, dy -> dtable[V,C]
 *   TIME_EMBED t[N] f32 -> y[N,C] = [cos(t f_i), sin(t f_i)], f_i = exp(-ln(10000) i/(C/2))
 *   MATCH      scores[N,T,D] f32 -> ids[N,T] i32: which row of N(T-r) each token becomes part of when
 *              r tokens of each sample are merged into others.  ints: h, w, r.  Of the T = h w tokens
 *              the first of each 2x2 is a target, D = (h/2)(w/2) of them in order; a last odd row or
 *              column has none.  The others are sources: the r whose highest score is highest (of
 *              equal ones the earlier) go to the first target that has it.  Rows of a sample: the
 *              sources that stay, in order, then the targets.
 * Loss and optimiser
 *   LOSS       pred target weight[N] delta[N]? -> loss[N] f32: weight * mean over the sample of the
 *              elementwise loss; ints: SDLORA_LOSS_*
 *   LOSS_BX    dloss[N] pred target weight delta? -> dpred
 *   SUMSQ      x -> y[1] f32: sum of squares in a fixed order
 *   ADAMW      p g m v hyper[8] f32 -> p m v (in place: outputs share memory with inputs 0, 2, 3)
 *              hyper: lr, beta1, beta2, eps, weight_decay, 1-beta1^t, 1-beta2^t, grad scale
 */
enum {
    SDLORA_OP_MATMUL        = 10,
    SDLORA_OP_BMM           = 11,
    SDLORA_OP_INVERSE       = 12,
    SDLORA_OP_CONV2D        = 20,
    SDLORA_OP_CONV2D_BX     = 21,
    SDLORA_OP_CONV2D_BW     = 22,
    SDLORA_OP_GROUP_NORM    = 30,
    SDLORA_OP_GROUP_NORM_BX = 31,
    SDLORA_OP_LAYER_NORM    = 32,
    SDLORA_OP_LAYER_NORM_BX = 33,
    SDLORA_OP_GROUP_NORM_BW = 34,
    SDLORA_OP_LAYER_NORM_BW = 35,
    SDLORA_OP_ATTENTION     = 40,
    SDLORA_OP_ATTENTION_B   = 41,
    SDLORA_OP_ADD           = 50,
    SDLORA_OP_SUB           = 51,
    SDLORA_OP_MUL           = 52,
    SDLORA_OP_AFFINE        = 53,
    SDLORA_OP_ACT           = 54,
    SDLORA_OP_ACT_BX        = 55,
    SDLORA_OP_GEGLU         = 56,
    SDLORA_OP_GEGLU_BX      = 57,
    SDLORA_OP_DROPOUT       = 58,
    SDLORA_OP_POW           = 59,
    SDLORA_OP_RESHAPE       = 70,
    SDLORA_OP_SLICE         = 71,
    SDLORA_OP_SLICE_BX      = 72,
    SDLORA_OP_CONCAT        = 73,
    SDLORA_OP_PERMUTE       = 74,
    SDLORA_OP_CAST          = 75,
    SDLORA_OP_FILL          = 76,
    SDLORA_OP_UPSAMPLE2     = 77,
    SDLORA_OP_UPSAMPLE2_BX  = 78,
    SDLORA_OP_SUM_TO        = 79,
    SDLORA_OP_EMBED         = 80,
    SDLORA_OP_EMBED_BW      = 81,
    SDLORA_OP_TIME_EMBED    = 82,
    SDLORA_OP_MATCH         = 83,
    SDLORA_OP_LOSS          = 90,
    SDLORA_OP_LOSS_BX       = 91,
    SDLORA_OP_SUMSQ         = 92,
    SDLORA_OP_ADAMW         = 100
};

#endif /* SDLORA_OPS_H */
