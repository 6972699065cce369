/* SPDX-License-Identifier: MIT */
/* Shape rules of the operations that mix channels: products, convolutions, norms, attention.  The
 * results of products and convolutions are stored as the policy has it; a gradient that needs
 * another type asks for it (slr_op_typed). */
#include "graph/infer.h"

#include "base/status.h"

/* a[M,K] (all axes but the last are folded into rows), b[K,N]; ints: ta tb */
int slr_infer_matmul(slr_infer *c)
{
    const slr_shape *a = slr_infer_in(c, 0), *b = slr_infer_in(c, 1), *add = slr_infer_in(c, 3);
    bool ta = c->ints[0], tb = c->ints[1];
    if (a->rank < 1)
        return slr_infer_bad(c, 0, "must have an axis");
    SLR_TRY(slr_infer_rank(c, 1, 2));
    int64_t cols = slr_last(a), rows = slr_count(a) / cols;
    int64_t m = ta ? cols : rows, k = ta ? rows : cols, n = b->dim[tb ? 0 : 1];
    if (b->dim[tb ? 1 : 0] != k)
        return slr_infer_misfit(c, 0, 1);
    SLR_TRY(slr_infer_vector(c, 2, n, 1));
    if (add->dtype && (slr_last(add) != n || slr_count(add) / n != m))
        return slr_infer_misfit(c, 3, 0);
    slr_shape y = {.rank = 2, .dim = {m, n}};
    if (!ta) {
        y = *a;
        y.dim[y.rank - 1] = n;
    }
    slr_infer_out(c, 0, c->g->policy.storage, y.rank, y.dim);
    return SDLORA_OK;
}

/* a[B,M,K] b[B,K,N]; ints: ta tb */
int slr_infer_bmm(slr_infer *c)
{
    const slr_shape *a = slr_infer_in(c, 0), *b = slr_infer_in(c, 1);
    bool ta = c->ints[0], tb = c->ints[1];
    SLR_TRY(slr_infer_rank(c, 0, 3));
    SLR_TRY(slr_infer_rank(c, 1, 3));
    if (a->dim[0] != b->dim[0] || a->dim[ta ? 1 : 2] != b->dim[tb ? 2 : 1])
        return slr_infer_misfit(c, 0, 1);
    int64_t dim[3] = {a->dim[0], a->dim[ta ? 2 : 1], b->dim[tb ? 1 : 2]};
    slr_infer_out(c, 0, c->g->policy.storage, 3, dim);
    return SDLORA_OK;
}

/* x[B,N,N] f32 */
int slr_infer_inverse(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    SLR_TRY(slr_infer_rank(c, 0, 3));
    if (x->dim[1] != x->dim[2])
        return slr_infer_bad(c, 0, "must hold square matrices");
    if (x->dtype != SDLORA_F32)
        return slr_infer_bad(c, 0, "must be f32");
    slr_infer_out(c, 0, SDLORA_F32, 3, x->dim);
    return SDLORA_OK;
}

/* The ints that all three directions share. */
typedef struct conv_ints {
    int64_t stride_h, stride_w, top, left, bottom, right, groups;
} conv_ints;

/* 0 when the kernel does not fit into the padded image. */
static int64_t conv_length(int64_t in, int64_t pad, int64_t kernel, int64_t stride)
{
    return in + pad < kernel ? 0 : (in + pad - kernel) / stride + 1;
}

static int conv_read(const slr_infer *c, conv_ints *v)
{
    const int64_t *p = c->ints;
    *v = (conv_ints){p[0], p[1], p[2], p[3], p[4], p[5], p[6]};
    if (v->stride_h < 1 || v->stride_w < 1 || v->groups < 1)
        return slr_infer_bad(c, -1, "has strides %lld, %lld and %lld groups", (long long)p[0],
                             (long long)p[1], (long long)p[6]);
    for (int i = 2; i < 6; i++)
        if (p[i] < 0 || p[i] > 1 << 20)
            return slr_infer_bad(c, -1, "has a padding of %lld", (long long)p[i]);
    for (int i = 7; i < c->n_int; i++)
        if (p[i] < 1 || p[i] > INT32_MAX)
            return slr_infer_bad(c, -1, "has a length of %lld", (long long)p[i]);
    return SDLORA_OK;
}

/* y[N,H',W',K] of x[N,H,W,C] with a kernel [K,.,R,S]. */
static slr_shape conv_result(const conv_ints *v, const int64_t *x, int64_t k, int64_t r, int64_t s)
{
    return (slr_shape){.rank = 4,
                       .dim = {x[0], conv_length(x[1], v->top + v->bottom, r, v->stride_h),
                               conv_length(x[2], v->left + v->right, s, v->stride_w), k}};
}

int slr_infer_conv2d(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0), *w = slr_infer_in(c, 1), *add = slr_infer_in(c, 3);
    conv_ints v;
    SLR_TRY(conv_read(c, &v));
    SLR_TRY(slr_infer_rank(c, 0, 4));
    SLR_TRY(slr_infer_rank(c, 1, 4));
    if (x->dim[3] % v.groups || x->dim[3] / v.groups != w->dim[1] || w->dim[0] % v.groups)
        return slr_infer_misfit(c, 0, 1);
    slr_shape y = conv_result(&v, x->dim, w->dim[0], w->dim[2], w->dim[3]);
    if (y.dim[1] < 1 || y.dim[2] < 1)
        return slr_infer_misfit(c, 0, 1);
    SLR_TRY(slr_infer_vector(c, 2, w->dim[0], 1));
    if (add->dtype && !slr_same_dims(add, &y))
        return slr_infer_misfit(c, 3, 0);
    slr_infer_out(c, 0, c->g->policy.storage, 4, y.dim);
    return SDLORA_OK;
}

/* dy[N,H',W',K] w[K,C/g,R,S] -> dx[N,H,W,C]; ints 7, 8: H W */
int slr_infer_conv2d_bx(slr_infer *c)
{
    const slr_shape *dy = slr_infer_in(c, 0), *w = slr_infer_in(c, 1);
    conv_ints v;
    SLR_TRY(conv_read(c, &v));
    SLR_TRY(slr_infer_rank(c, 0, 4));
    SLR_TRY(slr_infer_rank(c, 1, 4));
    if (w->dim[0] % v.groups)
        return slr_infer_misfit(c, 0, 1);
    int64_t dx[4] = {dy->dim[0], c->ints[7], c->ints[8], w->dim[1] * v.groups};
    slr_shape y = conv_result(&v, dx, w->dim[0], w->dim[2], w->dim[3]);
    if (!slr_same_dims(dy, &y))
        return slr_infer_misfit(c, 0, 1);
    slr_infer_out(c, 0, c->g->policy.storage, 4, dx);
    return SDLORA_OK;
}

/* dy[N,H',W',K] x[N,H,W,C] -> dw[K,C/g,R,S]; ints 7, 8: R S */
int slr_infer_conv2d_bw(slr_infer *c)
{
    const slr_shape *dy = slr_infer_in(c, 0), *x = slr_infer_in(c, 1);
    conv_ints v;
    SLR_TRY(conv_read(c, &v));
    SLR_TRY(slr_infer_rank(c, 0, 4));
    SLR_TRY(slr_infer_rank(c, 1, 4));
    slr_shape y = conv_result(&v, x->dim, dy->dim[3], c->ints[7], c->ints[8]);
    if (!slr_same_dims(dy, &y) || x->dim[3] % v.groups || dy->dim[3] % v.groups)
        return slr_infer_misfit(c, 0, 1);
    int64_t dw[4] = {dy->dim[3], x->dim[3] / v.groups, c->ints[7], c->ints[8]};
    slr_infer_out(c, 0, SDLORA_F32, 4, dw);
    return SDLORA_OK;
}

/* x[N,...,C] in input i, with g and b behind it, into `groups` of channels. */
static int group_norm_read(const slr_infer *c, int i, slr_shape *stats)
{
    const slr_shape *x = slr_infer_in(c, i);
    int64_t groups = c->ints[0], channels = slr_last(x);
    if (x->rank < 2)
        return slr_infer_bad(c, i, "must have 2 axes or more");
    if (groups < 1 || channels % groups)
        return slr_infer_bad(c, i, "cannot be split into %lld groups", (long long)groups);
    if (c->ints[1] < SDLORA_ACT_NONE || c->ints[1] > SDLORA_ACT_TANH)
        return slr_infer_bad(c, -1, "has the unknown activation %lld", (long long)c->ints[1]);
    SLR_TRY(slr_infer_vector(c, i + 1, channels, i));
    SLR_TRY(slr_infer_vector(c, i + 2, channels, i));
    *stats = (slr_shape){.rank = 2, .dim = {x->dim[0], groups}};
    return SDLORA_OK;
}

int slr_infer_group_norm(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    slr_shape stats;
    SLR_TRY(group_norm_read(c, 0, &stats));
    slr_infer_out(c, 0, slr_infer_keep(c, 0), x->rank, x->dim);
    slr_infer_out(c, 1, SDLORA_F32, stats.rank, stats.dim);
    slr_infer_out(c, 2, SDLORA_F32, stats.rank, stats.dim);
    return SDLORA_OK;
}

/* Inputs i and j must have the same shape. */
static int same_dims(const slr_infer *c, int i, int j)
{
    return slr_same_dims(slr_infer_in(c, i), slr_infer_in(c, j)) ? SDLORA_OK
                                                                 : slr_infer_misfit(c, i, j);
}

/* What both gradients of a group norm check: dy x g? b? mean rstd */
static int group_norm_back(const slr_infer *c)
{
    slr_shape stats;
    SLR_TRY(group_norm_read(c, 1, &stats));
    SLR_TRY(same_dims(c, 0, 1));
    if (!slr_same_dims(slr_infer_in(c, 4), &stats))
        return slr_infer_misfit(c, 4, 1);
    return same_dims(c, 5, 4);
}

/* dg[C] db[C] of x in input 1 */
static void vectors_out(slr_infer *c)
{
    int64_t channels = slr_last(slr_infer_in(c, 1));
    slr_infer_out(c, 0, SDLORA_F32, 1, &channels);
    slr_infer_out(c, 1, SDLORA_F32, 1, &channels);
}

int slr_infer_group_norm_bx(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 1);
    SLR_TRY(group_norm_back(c));
    if (slr_infer_has(c, 6))
        SLR_TRY(same_dims(c, 6, 1));
    slr_infer_out(c, 0, slr_infer_keep(c, 1), x->rank, x->dim);
    return SDLORA_OK;
}

int slr_infer_group_norm_bw(slr_infer *c)
{
    SLR_TRY(group_norm_back(c));
    vectors_out(c);
    return SDLORA_OK;
}

int slr_infer_layer_norm(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    if (x->rank < 1)
        return slr_infer_bad(c, 0, "must have an axis");
    SLR_TRY(slr_infer_vector(c, 1, slr_last(x), 0));
    SLR_TRY(slr_infer_vector(c, 2, slr_last(x), 0));
    int64_t rows = slr_count(x) / slr_last(x);
    slr_infer_out(c, 0, slr_infer_keep(c, 0), x->rank, x->dim);
    slr_infer_out(c, 1, SDLORA_F32, 1, &rows);
    slr_infer_out(c, 2, SDLORA_F32, 1, &rows);
    return SDLORA_OK;
}

int slr_infer_layer_norm_bx(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 1);
    if (x->rank < 1)
        return slr_infer_bad(c, 1, "must have an axis");
    int64_t rows = slr_count(x) / slr_last(x);
    SLR_TRY(same_dims(c, 0, 1));
    SLR_TRY(slr_infer_vector(c, 2, slr_last(x), 1));
    SLR_TRY(slr_infer_vector(c, 3, rows, 1));
    SLR_TRY(slr_infer_vector(c, 4, rows, 1));
    if (slr_infer_has(c, 5))
        SLR_TRY(same_dims(c, 5, 1));
    slr_infer_out(c, 0, slr_infer_keep(c, 1), x->rank, x->dim);
    return SDLORA_OK;
}

int slr_infer_layer_norm_bw(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 1);
    if (x->rank < 1)
        return slr_infer_bad(c, 1, "must have an axis");
    int64_t rows = slr_count(x) / slr_last(x);
    SLR_TRY(same_dims(c, 0, 1));
    SLR_TRY(slr_infer_vector(c, 2, rows, 1));
    SLR_TRY(slr_infer_vector(c, 3, rows, 1));
    vectors_out(c);
    return SDLORA_OK;
}

/* q[N,Tq,h*d] in input i, k and v [N,Tk,h*d] behind it; ints: heads causal */
static int attention_read(const slr_infer *c, int i)
{
    const slr_shape *q = slr_infer_in(c, i), *k = slr_infer_in(c, i + 1);
    for (int j = i; j < i + 3; j++)
        SLR_TRY(slr_infer_rank(c, j, 3));
    if (c->ints[0] < 1 || q->dim[2] % c->ints[0])
        return slr_infer_bad(c, i, "cannot be split into %lld heads", (long long)c->ints[0]);
    if (q->dim[0] != k->dim[0] || q->dim[2] != k->dim[2])
        return slr_infer_misfit(c, i, i + 1);
    return same_dims(c, i + 2, i + 1);
}

int slr_infer_attention(slr_infer *c)
{
    const slr_shape *q = slr_infer_in(c, 0);
    SLR_TRY(attention_read(c, 0));
    int64_t lse[3] = {q->dim[0], c->ints[0], q->dim[1]};
    slr_infer_out(c, 0, slr_infer_keep(c, 0), 3, q->dim);
    slr_infer_out(c, 1, SDLORA_F32, 3, lse);
    return SDLORA_OK;
}

int slr_infer_attention_b(slr_infer *c)
{
    const slr_shape *q = slr_infer_in(c, 1);
    SLR_TRY(attention_read(c, 1));
    SLR_TRY(same_dims(c, 0, 1));
    SLR_TRY(same_dims(c, 4, 1));
    slr_shape lse = {.rank = 3, .dim = {q->dim[0], c->ints[0], q->dim[1]}};
    if (!slr_same_dims(slr_infer_in(c, 5), &lse))
        return slr_infer_misfit(c, 5, 1);
    for (int o = 0; o < 3; o++) {
        const slr_shape *x = slr_infer_in(c, 1 + o);
        slr_infer_out(c, o, slr_infer_keep(c, 1 + o), 3, x->dim);
    }
    return SDLORA_OK;
}
