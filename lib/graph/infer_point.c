/* SPDX-License-Identifier: MIT */
/* Shape rules of the operations that do not mix channels (elementwise, shape and memory, loss,
 * optimiser), and the attributes with which some of them do nothing. */
#include "graph/infer.h"

#include "base/status.h"

/* --- elementwise */

/* Each axis of b is that of a, or 1. */
int slr_infer_binary(slr_infer *c)
{
    const slr_shape *a = slr_infer_in(c, 0), *b = slr_infer_in(c, 1);
    bool fits = a->rank == b->rank;
    for (int i = 0; fits && i < a->rank; i++)
        fits = b->dim[i] == a->dim[i] || b->dim[i] == 1;
    if (!fits)
        return slr_infer_misfit(c, 0, 1);
    slr_infer_out(c, 0, slr_infer_keep(c, 0), a->rank, a->dim);
    return SDLORA_OK;
}

int slr_infer_unary(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    slr_infer_out(c, 0, slr_infer_keep(c, 0), x->rank, x->dim);
    return SDLORA_OK;
}

int slr_infer_pow(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    if (x->dtype != SDLORA_F32)
        return slr_infer_bad(c, 0, "must be f32");
    slr_infer_out(c, 0, SDLORA_F32, x->rank, x->dim);
    return SDLORA_OK;
}

static int check_act(const slr_infer *c)
{
    if (c->ints[0] < SDLORA_ACT_NONE || c->ints[0] > SDLORA_ACT_SOFTSHRINK)
        return slr_infer_bad(c, -1, "has the unknown activation %lld", (long long)c->ints[0]);
    return SDLORA_OK;
}

int slr_infer_act(slr_infer *c)
{
    SLR_TRY(check_act(c));
    return slr_infer_unary(c);
}

int slr_infer_act_bx(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 1);
    SLR_TRY(check_act(c));
    if (!slr_same_dims(slr_infer_in(c, 0), x))
        return slr_infer_misfit(c, 0, 1);
    slr_infer_out(c, 0, slr_infer_keep(c, 1), x->rank, x->dim);
    return SDLORA_OK;
}

int slr_infer_geglu(slr_infer *c)
{
    slr_shape y = *slr_infer_in(c, 0);
    if (y.rank < 1 || slr_last(&y) % 2)
        return slr_infer_bad(c, 0, "must have an even last axis");
    y.dim[y.rank - 1] /= 2;
    slr_infer_out(c, 0, slr_infer_keep(c, 0), y.rank, y.dim);
    return SDLORA_OK;
}

int slr_infer_geglu_bx(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 1);
    slr_shape twice = *slr_infer_in(c, 0);
    if (twice.rank < 1)
        return slr_infer_bad(c, 0, "must have an axis");
    twice.dim[twice.rank - 1] *= 2;
    if (!slr_same_dims(&twice, x))
        return slr_infer_misfit(c, 0, 1);
    slr_infer_out(c, 0, slr_infer_keep(c, 1), x->rank, x->dim);
    return SDLORA_OK;
}

int slr_infer_dropout(slr_infer *c)
{
    if (!(c->reals[0] >= 0 && c->reals[0] < 1))
        return slr_infer_bad(c, -1, "has p = %g, which is not in [0,1)", c->reals[0]);
    if (c->ints[1] < 1)
        return slr_infer_bad(c, -1, "has groups of %lld elements", (long long)c->ints[1]);
    SLR_TRY(slr_infer_vector(c, 1, 2, 0));
    return slr_infer_unary(c);
}

slr_val slr_same_affine(const slr_infer *c)
{
    return c->reals[0] == 1.0 && c->reals[1] == 0.0 ? c->in[0] : SLR_NONE;
}

slr_val slr_same_act(const slr_infer *c)
{
    return c->ints[0] == SDLORA_ACT_NONE ? c->in[0] : SLR_NONE;
}

slr_val slr_same_dropout(const slr_infer *c)
{
    return c->reals[0] == 0.0 ? c->in[0] : SLR_NONE;
}

/* --- shape and memory */

/* A shape given by the ints. */
static int ints_shape(const slr_infer *c, slr_shape *out)
{
    if (c->n_int > SLR_MAX_RANK)
        return slr_infer_bad(c, -1, "would give %d axes", c->n_int);
    *out = (slr_shape){.rank = c->n_int};
    for (int i = 0; i < c->n_int; i++)
        out->dim[i] = c->ints[i];
    return SDLORA_OK;
}

int slr_infer_reshape(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    slr_shape y;
    char text[96];
    SLR_TRY(ints_shape(c, &y));
    int64_t n = 1;
    bool fits = true;
    for (int i = 0; i < y.rank; i++)
        fits = fits && y.dim[i] > 0 && !__builtin_mul_overflow(n, y.dim[i], &n);
    if (!fits || n != slr_count(x))
        return slr_infer_bad(c, 0, "does not fit %s", slr_shape_text(y.dim, y.rank, text));
    slr_infer_out(c, 0, x->dtype, y.rank, y.dim);
    return SDLORA_OK;
}

static int check_axis(const slr_infer *c, int64_t axis)
{
    if (axis < 0 || axis >= slr_infer_in(c, 0)->rank)
        return slr_infer_bad(c, 0, "has no axis %lld", (long long)axis);
    return SDLORA_OK;
}

/* ints: axis start length */
int slr_infer_slice(slr_infer *c)
{
    slr_shape y = *slr_infer_in(c, 0);
    int64_t axis = c->ints[0], start = c->ints[1], length = c->ints[2];
    SLR_TRY(check_axis(c, axis));
    if (start < 0 || length < 1 || start > y.dim[axis] || length > y.dim[axis] - start)
        return slr_infer_bad(c, 0, "has no %lld elements from %lld on axis %lld", (long long)length,
                             (long long)start, (long long)axis);
    y.dim[axis] = length;
    slr_infer_out(c, 0, y.dtype, y.rank, y.dim);
    return SDLORA_OK;
}

/* ints: axis start full */
int slr_infer_slice_bx(slr_infer *c)
{
    slr_shape y = *slr_infer_in(c, 0);
    int64_t axis = c->ints[0], start = c->ints[1], full = c->ints[2];
    SLR_TRY(check_axis(c, axis));
    if (start < 0 || start > full || y.dim[axis] > full - start)
        return slr_infer_bad(c, 0, "does not fit at %lld of %lld on axis %lld", (long long)start,
                             (long long)full, (long long)axis);
    y.dim[axis] = full;
    slr_infer_out(c, 0, y.dtype, y.rank, y.dim);
    return SDLORA_OK;
}

int slr_infer_concat(slr_infer *c)
{
    slr_shape y = *slr_infer_in(c, 0);
    int64_t axis = c->ints[0], full = 0;
    SLR_TRY(check_axis(c, axis));
    for (int i = 0; i < c->n_in; i++) {
        slr_shape x = *slr_infer_in(c, i);
        bool fits = x.rank == y.rank && x.dtype == y.dtype;
        int64_t length = fits ? x.dim[axis] : 0;
        x.dim[axis] = y.dim[axis];
        if (!fits || !slr_same_dims(&x, &y) || __builtin_add_overflow(full, length, &full))
            return slr_infer_misfit(c, i, 0);
    }
    y.dim[axis] = full;
    slr_infer_out(c, 0, y.dtype, y.rank, y.dim);
    return SDLORA_OK;
}

int slr_infer_permute(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    slr_shape y = *x;
    unsigned seen = 0;
    for (int i = 0; i < c->n_int; i++) {
        if (c->n_int != x->rank || c->ints[i] < 0 || c->ints[i] >= x->rank)
            return slr_infer_bad(c, 0, "is not ordered by the axes given");
        seen |= 1u << c->ints[i];
        y.dim[i] = x->dim[c->ints[i]];
    }
    if (c->n_int != x->rank || seen != (1u << x->rank) - 1)
        return slr_infer_bad(c, 0, "is not ordered by the axes given");
    slr_infer_out(c, 0, y.dtype, y.rank, y.dim);
    return SDLORA_OK;
}

slr_val slr_same_permute(const slr_infer *c)
{
    for (int i = 0; i < c->n_int; i++)
        if (c->ints[i] != i)
            return SLR_NONE;
    return c->in[0];
}

int slr_infer_cast(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    if (c->ints[0] < 0 || c->ints[0] > UINT32_MAX || !slr_dtype((uint32_t)c->ints[0]))
        return slr_infer_bad(c, 0, "cannot become type %lld", (long long)c->ints[0]);
    slr_infer_out(c, 0, (uint32_t)c->ints[0], x->rank, x->dim);
    return SDLORA_OK;
}

int slr_infer_fill(slr_infer *c)
{
    slr_shape y;
    SLR_TRY(ints_shape(c, &y));
    slr_infer_out(c, 0, c->g->policy.storage, y.rank, y.dim);
    return SDLORA_OK;
}

int slr_infer_upsample2(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    SLR_TRY(slr_infer_rank(c, 0, 4));
    int64_t y[4] = {x->dim[0], 2 * x->dim[1], 2 * x->dim[2], x->dim[3]};
    slr_infer_out(c, 0, slr_infer_keep(c, 0), 4, y);
    return SDLORA_OK;
}

int slr_infer_upsample2_bx(slr_infer *c)
{
    const slr_shape *dy = slr_infer_in(c, 0);
    SLR_TRY(slr_infer_rank(c, 0, 4));
    if (dy->dim[1] % 2 || dy->dim[2] % 2)
        return slr_infer_bad(c, 0, "must have an even height and width");
    int64_t dx[4] = {dy->dim[0], dy->dim[1] / 2, dy->dim[2] / 2, dy->dim[3]};
    slr_infer_out(c, 0, slr_infer_keep(c, 0), 4, dx);
    return SDLORA_OK;
}

int slr_infer_sum_to(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    slr_shape y;
    char text[96];
    SLR_TRY(ints_shape(c, &y));
    bool fits = y.rank == x->rank;
    for (int i = 0; fits && i < y.rank; i++)
        fits = y.dim[i] == x->dim[i] || y.dim[i] == 1;
    if (!fits)
        return slr_infer_bad(c, 0, "cannot be summed to %s", slr_shape_text(y.dim, y.rank, text));
    slr_infer_out(c, 0, slr_infer_keep(c, 0), y.rank, y.dim);
    return SDLORA_OK;
}

int slr_infer_embed(slr_infer *c)
{
    slr_shape y = *slr_infer_in(c, 0);
    SLR_TRY(slr_infer_rank(c, 1, 2));
    if (y.rank >= SLR_MAX_RANK)
        return slr_infer_misfit(c, 0, 1);
    y.dim[y.rank] = slr_infer_in(c, 1)->dim[1];
    slr_infer_out(c, 0, c->g->policy.storage, y.rank + 1, y.dim);
    return SDLORA_OK;
}

/* ints: V */
int slr_infer_embed_bw(slr_infer *c)
{
    const slr_shape *ids = slr_infer_in(c, 0);
    slr_shape dy = *slr_infer_in(c, 1);
    int64_t dim[2] = {c->ints[0], slr_last(&dy)};
    dy.rank--;
    if (dy.rank < 0 || !slr_same_dims(ids, &dy))
        return slr_infer_misfit(c, 0, 1);
    slr_infer_out(c, 0, SDLORA_F32, 2, dim);
    return SDLORA_OK;
}

/* ints: C */
int slr_infer_time_embed(slr_infer *c)
{
    SLR_TRY(slr_infer_rank(c, 0, 1));
    if (c->ints[0] < 2 || c->ints[0] % 2)
        return slr_infer_bad(c, -1, "needs an even width, not %lld", (long long)c->ints[0]);
    int64_t dim[2] = {slr_infer_in(c, 0)->dim[0], c->ints[0]};
    slr_infer_out(c, 0, c->g->policy.storage, 2, dim);
    return SDLORA_OK;
}

/* ints: h, w, r */
int slr_infer_match(slr_infer *c)
{
    const slr_shape *x = slr_infer_in(c, 0);
    int64_t h = c->ints[0], w = c->ints[1], r = c->ints[2];
    SLR_TRY(slr_infer_rank(c, 0, 3));
    if (h < 2 || w < 2 || x->dim[1] != h * w || x->dim[2] != (h / 2) * (w / 2) || r < 1 ||
        r > x->dim[1] - x->dim[2])
        return slr_infer_bad(c, 0, "does not score %lld x %lld tokens of which %lld go",
                             (long long)h, (long long)w, (long long)r);
    slr_infer_out(c, 0, SDLORA_I32, 2, x->dim);
    return SDLORA_OK;
}

/* --- loss and optimiser */

/* pred in input i, then target, weight[N] and delta[N]?; ints: kind */
static int loss_read(const slr_infer *c, int i)
{
    const slr_shape *pred = slr_infer_in(c, i);
    if (c->ints[0] < SDLORA_LOSS_L2 || c->ints[0] > SDLORA_LOSS_SMOOTH_L1)
        return slr_infer_bad(c, -1, "has the unknown kind %lld", (long long)c->ints[0]);
    if (c->ints[0] >= SDLORA_LOSS_HUBER && !slr_infer_has(c, i + 3))
        return slr_infer_bad(c, -1, "of kind %lld needs its delta", (long long)c->ints[0]);
    if (pred->rank < 1)
        return slr_infer_bad(c, i, "must have an axis");
    if (!slr_same_dims(slr_infer_in(c, i + 1), pred))
        return slr_infer_misfit(c, i, i + 1);
    SLR_TRY(slr_infer_vector(c, i + 2, pred->dim[0], i));
    return slr_infer_vector(c, i + 3, pred->dim[0], i);
}

int slr_infer_loss(slr_infer *c)
{
    SLR_TRY(loss_read(c, 0));
    slr_infer_out(c, 0, SDLORA_F32, 1, slr_infer_in(c, 0)->dim);
    return SDLORA_OK;
}

int slr_infer_loss_bx(slr_infer *c)
{
    const slr_shape *pred = slr_infer_in(c, 1);
    SLR_TRY(loss_read(c, 1));
    SLR_TRY(slr_infer_vector(c, 0, pred->dim[0], 1));
    slr_infer_out(c, 0, slr_infer_keep(c, 1), pred->rank, pred->dim);
    return SDLORA_OK;
}

int slr_infer_sumsq(slr_infer *c)
{
    int64_t one = 1;
    slr_infer_out(c, 0, SDLORA_F32, 1, &one);
    return SDLORA_OK;
}

int slr_infer_adamw(slr_infer *c)
{
    const slr_shape *p = slr_infer_in(c, 0);
    for (int i = 1; i < 4; i++)
        if (!slr_same_dims(slr_infer_in(c, i), p))
            return slr_infer_misfit(c, i, 0);
    SLR_TRY(slr_infer_vector(c, 4, 8, 0));
    for (int o = 0; o < 3; o++) {
        int i = c->row->over[o] - 1;
        slr_infer_out(c, o, slr_infer_in(c, i)->dtype, p->rank, p->dim);
    }
    return SDLORA_OK;
}
