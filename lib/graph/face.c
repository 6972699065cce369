/* SPDX-License-Identifier: MIT */
/* The convenience faces of graph.h: each gathers its arguments and calls slr_op.  Broadcasting is
 * eased here: the smaller operand gets leading axes of length 1. */
#include "graph/graph.h"

#include "graph/node.h"

slr_val slr_matmul(slr_graph *g, slr_val a, slr_val b, slr_val bias, slr_val add, bool ta, bool tb,
                   double alpha)
{
    slr_val in[4] = {a, b, bias, add};
    int64_t ints[2] = {ta, tb};
    return slr_op(g, SDLORA_OP_MATMUL, 4, in, 2, ints, 1, &alpha, NULL);
}

slr_val slr_linear(slr_graph *g, slr_val x, slr_val w, slr_val bias, slr_val add)
{
    slr_shape s = slr_shape_of(g, w);
    if (s.rank == 4 && s.dim[2] * s.dim[3] == 1) /* a 1x1 convolution: [N,K,1,1] -> [N,K] */
        w = slr_reshape(g, w, 2, s.dim);
    return slr_matmul(g, x, w, bias, add, false, true, 1.0);
}

slr_val slr_bmm(slr_graph *g, slr_val a, slr_val b, bool ta, bool tb, double alpha)
{
    slr_val in[2] = {a, b};
    int64_t ints[2] = {ta, tb};
    return slr_op(g, SDLORA_OP_BMM, 2, in, 2, ints, 1, &alpha, NULL);
}

slr_val slr_inverse(slr_graph *g, slr_val x)
{
    return slr_op(g, SDLORA_OP_INVERSE, 1, &x, 0, NULL, 0, NULL, NULL);
}

slr_val slr_conv2d(slr_graph *g, slr_val x, slr_val w, slr_val bias, slr_val add, slr_conv c,
                   double alpha)
{
    slr_val in[4] = {x, w, bias, add};
    int64_t ints[7] = {c.stride, c.stride, c.pad_top, c.pad_left, c.pad_bottom, c.pad_right, 1};
    return slr_op(g, SDLORA_OP_CONV2D, 4, in, 7, ints, 1, &alpha, NULL);
}

slr_val slr_group_norm(slr_graph *g, slr_val x, slr_val gamma, slr_val beta, int groups, int act,
                       double eps)
{
    slr_val in[3] = {x, gamma, beta};
    int64_t ints[2] = {groups, act};
    return slr_op(g, SDLORA_OP_GROUP_NORM, 3, in, 2, ints, 1, &eps, NULL);
}

slr_val slr_layer_norm(slr_graph *g, slr_val x, slr_val gamma, slr_val beta, double eps)
{
    slr_val in[3] = {x, gamma, beta};
    return slr_op(g, SDLORA_OP_LAYER_NORM, 3, in, 0, NULL, 1, &eps, NULL);
}

slr_val slr_attention(slr_graph *g, slr_val q, slr_val k, slr_val v, int heads, bool causal,
                      double scale)
{
    slr_val in[3] = {q, k, v};
    int64_t ints[2] = {heads, causal};
    return slr_op(g, SDLORA_OP_ATTENTION, 3, in, 2, ints, 1, &scale, NULL);
}

/* v with leading axes of length 1 up to `rank`. */
static slr_val lift(slr_graph *g, slr_val v, int rank)
{
    slr_shape s = slr_shape_of(g, v);
    int64_t dim[SLR_MAX_RANK];
    if (v == SLR_NONE || s.rank >= rank)
        return v;
    for (int i = 0; i < rank; i++)
        dim[i] = i < rank - s.rank ? 1 : s.dim[i - (rank - s.rank)];
    return slr_reshape(g, v, rank, dim);
}

static slr_val binary(slr_graph *g, uint32_t op, slr_val a, slr_val b)
{
    int ra = slr_shape_of(g, a).rank, rb = slr_shape_of(g, b).rank;
    slr_val in[2] = {lift(g, a, rb), lift(g, b, ra)};
    return slr_op(g, op, 2, in, 0, NULL, 0, NULL, NULL);
}

/* ADD and MUL do not care which operand repeats. */
static slr_val commutative(slr_graph *g, uint32_t op, slr_val a, slr_val b)
{
    slr_shape sa = slr_shape_of(g, a), sb = slr_shape_of(g, b);
    bool swap = slr_count(&sa) < slr_count(&sb);
    return swap ? binary(g, op, b, a) : binary(g, op, a, b);
}

slr_val slr_add(slr_graph *g, slr_val a, slr_val b)
{
    return commutative(g, SDLORA_OP_ADD, a, b);
}

slr_val slr_sub(slr_graph *g, slr_val a, slr_val b)
{
    return binary(g, SDLORA_OP_SUB, a, b);
}

slr_val slr_mul(slr_graph *g, slr_val a, slr_val b)
{
    return commutative(g, SDLORA_OP_MUL, a, b);
}

slr_val slr_pow(slr_graph *g, slr_val x, double p)
{
    return slr_op(g, SDLORA_OP_POW, 1, &x, 0, NULL, 1, &p, NULL);
}

slr_val slr_affine(slr_graph *g, slr_val x, double scale, double shift)
{
    double reals[2] = {scale, shift};
    return slr_op(g, SDLORA_OP_AFFINE, 1, &x, 0, NULL, 2, reals, NULL);
}

slr_val slr_act(slr_graph *g, slr_val x, int kind)
{
    int64_t ints[1] = {kind};
    return slr_op(g, SDLORA_OP_ACT, 1, &x, 1, ints, 0, NULL, NULL);
}

slr_val slr_geglu(slr_graph *g, slr_val x)
{
    return slr_op(g, SDLORA_OP_GEGLU, 1, &x, 0, NULL, 0, NULL, NULL);
}

slr_val slr_dropout(slr_graph *g, slr_val x, slr_val seed, double p, int64_t stream, int64_t group)
{
    slr_val in[2] = {x, seed};
    int64_t ints[2] = {stream, group};
    return slr_op(g, SDLORA_OP_DROPOUT, 2, in, 2, ints, 1, &p, NULL);
}

slr_val slr_reshape(slr_graph *g, slr_val x, int rank, const int64_t *dim)
{
    return slr_op(g, SDLORA_OP_RESHAPE, 1, &x, rank, dim, 0, NULL, NULL);
}

slr_val slr_slice(slr_graph *g, slr_val x, int axis, int64_t start, int64_t length)
{
    int64_t ints[3] = {axis < 0 ? axis + slr_shape_of(g, x).rank : axis, start, length};
    return slr_op(g, SDLORA_OP_SLICE, 1, &x, 3, ints, 0, NULL, NULL);
}

slr_val slr_concat(slr_graph *g, const slr_val *x, int n, int axis)
{
    int64_t ints[1] = {axis < 0 && n > 0 ? axis + slr_shape_of(g, x[0]).rank : axis};
    return slr_op(g, SDLORA_OP_CONCAT, n, x, 1, ints, 0, NULL, NULL);
}

slr_val slr_permute(slr_graph *g, slr_val x, const int64_t *order)
{
    return slr_op(g, SDLORA_OP_PERMUTE, 1, &x, slr_shape_of(g, x).rank, order, 0, NULL, NULL);
}

slr_val slr_cast(slr_graph *g, slr_val x, uint32_t dtype)
{
    int64_t ints[1] = {dtype};
    return slr_op(g, SDLORA_OP_CAST, 1, &x, 1, ints, 0, NULL, NULL);
}

slr_val slr_fill(slr_graph *g, int rank, const int64_t *dim, double value)
{
    return slr_op(g, SDLORA_OP_FILL, 0, NULL, rank, dim, 1, &value, NULL);
}

slr_val slr_upsample2(slr_graph *g, slr_val x)
{
    return slr_op(g, SDLORA_OP_UPSAMPLE2, 1, &x, 0, NULL, 0, NULL, NULL);
}

slr_val slr_sum_to(slr_graph *g, slr_val x, int rank, const int64_t *dim)
{
    return slr_op(g, SDLORA_OP_SUM_TO, 1, &x, rank, dim, 0, NULL, NULL);
}

slr_val slr_embed(slr_graph *g, slr_val ids, slr_val table)
{
    slr_val in[2] = {ids, table};
    return slr_op(g, SDLORA_OP_EMBED, 2, in, 0, NULL, 0, NULL, NULL);
}

slr_val slr_embed_bw(slr_graph *g, slr_val ids, slr_val dy, int64_t rows)
{
    slr_val in[2] = {ids, dy};
    return slr_op(g, SDLORA_OP_EMBED_BW, 2, in, 1, &rows, 0, NULL, NULL);
}

slr_val slr_match(slr_graph *g, slr_val scores, int64_t h, int64_t w, int64_t r)
{
    const int64_t ints[3] = {h, w, r};
    return slr_op(g, SDLORA_OP_MATCH, 1, &scores, 3, ints, 0, NULL, NULL);
}

slr_val slr_time_embed(slr_graph *g, slr_val t, int64_t c)
{
    return slr_op(g, SDLORA_OP_TIME_EMBED, 1, &t, 1, &c, 0, NULL, NULL);
}

slr_val slr_loss(slr_graph *g, slr_val pred, slr_val target, slr_val weight, slr_val delta,
                 int kind)
{
    slr_val in[4] = {pred, target, weight, delta};
    int64_t ints[1] = {kind};
    return slr_op(g, SDLORA_OP_LOSS, 4, in, 1, ints, 0, NULL, NULL);
}
