/* SPDX-License-Identifier: MIT */
/* The reference of the operations that move, repeat, gather and add up elements. */
#include "backend/cpu/ref.h"

#include <math.h>
#include <string.h>

static void clear(const slr_ref_call *c)
{
    memset(c->out[0], 0, (size_t)slr_ref_count(&c->op->out[0]) * sizeof(double));
}

static void reshape(const slr_ref_call *c)
{
    memcpy(c->out[0], c->in[0], (size_t)slr_ref_count(&c->op->out[0]) * sizeof(double));
}

/* Index in `to` of element i of `from` when the two differ along `axis` only, and element 0 of
 * `from` stands at position `start` of that axis. */
static int64_t shifted(const sdlora_tdesc *from, const sdlora_tdesc *to, int64_t axis,
                       int64_t start, int64_t i)
{
    int64_t inner = 1;
    for (uint32_t x = (uint32_t)axis + 1; x < from->rank; x++)
        inner *= from->dim[x];
    int64_t n = from->dim[axis], at = i / inner % n;
    return (i / inner / n * to->dim[axis] + at + start) * inner + i % inner;
}

static void slice(const slr_ref_call *c)
{
    const int64_t *a = c->op->ints;
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++)
        c->out[0][i] = c->in[0][shifted(&c->op->out[0], &c->op->in[0], a[0], a[1], i)];
}

static void slice_bx(const slr_ref_call *c)
{
    const int64_t *a = c->op->ints;
    clear(c);
    for (int64_t i = 0; i < slr_ref_count(&c->op->in[0]); i++)
        c->out[0][shifted(&c->op->in[0], &c->op->out[0], a[0], a[1], i)] = c->in[0][i];
}

static void concat(const slr_ref_call *c)
{
    int64_t axis = c->op->ints[0], start = 0;
    for (uint32_t x = 0; x < c->op->n_in; x++) {
        const sdlora_tdesc *t = &c->op->in[x];
        for (int64_t i = 0; i < slr_ref_count(t); i++)
            c->out[0][shifted(t, &c->op->out[0], axis, start, i)] = c->in[x][i];
        start += t->dim[axis];
    }
}

/* y's axis k is x's axis order[k] */
static void permute(const slr_ref_call *c)
{
    const sdlora_tdesc *x = &c->op->in[0], *y = &c->op->out[0];
    for (int64_t i = 0; i < slr_ref_count(y); i++) {
        int64_t at[SDLORA_MAX_RANK] = {0}, rest = i, from = 0;
        for (uint32_t k = y->rank; k-- > 0; rest /= y->dim[k])
            at[c->op->ints[k]] = rest % y->dim[k];
        for (uint32_t k = 0; k < x->rank; k++)
            from = from * x->dim[k] + at[k];
        c->out[0][i] = c->in[0][from];
    }
}

/* To `bits` of mantissa (the leading one counts), ties to even, with gradual underflow below
 * 2^low; values that round beyond `top` become infinite. */
static double round_to(double v, int bits, int low, double top)
{
    if (v == 0 || !isfinite(v))
        return v;
    int e = ilogb(v);
    double unit = ldexp(1, (e < low ? low : e) - bits + 1), r = nearbyint(v / unit) * unit;
    return fabs(r) > top ? copysign(INFINITY, v) : r;
}

static void cast(const slr_ref_call *c)
{
    uint32_t type = c->op->out[0].dtype;
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++) {
        double v = c->in[0][i];
        c->out[0][i] = type == SDLORA_F32    ? (float)v
                       : type == SDLORA_F16  ? round_to(v, 11, -14, 65504)
                       : type == SDLORA_BF16 ? round_to(v, 8, -126, ldexp(255, 120))
                       : type == SDLORA_F64  ? v
                                             : trunc(v);
    }
}

static void fill(const slr_ref_call *c)
{
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++)
        c->out[0][i] = c->op->reals[0];
}

/* Index in [N,H,W,C] of the source of element i of [N,2H,2W,C]. */
static int64_t half_index(const sdlora_tdesc *big, int64_t i)
{
    int64_t h = big->dim[1], w = big->dim[2], ch = big->dim[3];
    int64_t x = i / ch % w, y = i / ch / w % h, n = i / ch / w / h;
    return ((n * (h / 2) + y / 2) * (w / 2) + x / 2) * ch + i % ch;
}

static void upsample2(const slr_ref_call *c)
{
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++)
        c->out[0][i] = c->in[0][half_index(&c->op->out[0], i)];
}

static void upsample2_bx(const slr_ref_call *c)
{
    clear(c);
    for (int64_t i = 0; i < slr_ref_count(&c->op->in[0]); i++)
        c->out[0][half_index(&c->op->in[0], i)] += c->in[0][i];
}

static void sum_to(const slr_ref_call *c)
{
    const sdlora_tdesc *x = &c->op->in[0], *y = &c->op->out[0];
    clear(c);
    for (int64_t i = 0; i < slr_ref_count(x); i++) {
        int64_t at = 0, step = 1, rest = i;
        for (uint32_t k = x->rank; k-- > 0; rest /= x->dim[k]) {
            at += y->dim[k] == 1 ? 0 : rest % x->dim[k] * step;
            step *= y->dim[k];
        }
        c->out[0][at] += c->in[0][i];
    }
}

static void embed(const slr_ref_call *c)
{
    int64_t n = slr_ref_last(&c->op->in[1]);
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++)
        c->out[0][i] = c->in[1][(int64_t)c->in[0][i / n] * n + i % n];
}

static void embed_bw(const slr_ref_call *c)
{
    int64_t n = slr_ref_last(&c->op->out[0]);
    clear(c);
    for (int64_t i = 0; i < slr_ref_count(&c->op->in[1]); i++)
        c->out[0][(int64_t)c->in[0][i / n] * n + i % n] += c->in[1][i];
}

/* The frequencies and angles are rounded to f32, as the frameworks that made the checkpoints do: at
 * t = 999 an angle's last bit is 6e-5, so a more exact one would not be the one that was trained.
 */
static void time_embed(const slr_ref_call *c)
{
    int64_t ch = c->op->out[0].dim[1], half = ch / 2;
    for (int64_t i = 0; i < slr_ref_count(&c->op->out[0]); i++) {
        int64_t k = i % ch;
        float exponent = (float)-log(10000) * (float)(k % half) / (float)half;
        float angle = (float)c->in[0][i / ch] * (float)exp(exponent);
        c->out[0][i] = k < half ? cos(angle) : k < 2 * half ? sin(angle) : 0;
    }
}

/* The target that token i is, or -1. */
static int64_t target_of(const int64_t *ints, int64_t i)
{
    int64_t y = i / ints[1], x = i % ints[1], rows = ints[0] / 2, columns = ints[1] / 2;
    return y % 2 || x % 2 || y / 2 >= rows || x / 2 >= columns ? -1 : y / 2 * columns + x / 2;
}

static int64_t best_of(const double *scores, int64_t n)
{
    int64_t at = 0;
    for (int64_t d = 1; d < n; d++)
        if (scores[d] > scores[at])
            at = d;
    return at;
}

/* How many sources of a sample go before source i. */
static int64_t rank_of(const slr_ref_call *c, const double *scores, int64_t i)
{
    int64_t tokens = c->op->in[0].dim[1], d = c->op->in[0].dim[2], before = 0;
    double own = scores[i * d + best_of(scores + i * d, d)];
    for (int64_t k = 0; k < tokens; k++) {
        double other = scores[k * d + best_of(scores + k * d, d)];
        before += target_of(c->op->ints, k) < 0 && (other > own || (other == own && k < i));
    }
    return before;
}

static void match(const slr_ref_call *c)
{
    int64_t tokens = c->op->in[0].dim[1], d = c->op->in[0].dim[2], r = c->op->ints[2];
    for (int64_t n = 0; n < c->op->in[0].dim[0]; n++) {
        const double *scores = c->in[0] + n * tokens * d;
        int64_t row = n * (tokens - r), first = row + tokens - d - r;
        for (int64_t i = 0; i < tokens; i++) {
            int64_t target = target_of(c->op->ints, i), best = best_of(scores + i * d, d);
            c->out[0][n * tokens + i] = target >= 0                    ? (double)(first + target)
                                        : rank_of(c, scores, i) < r ? (double)(first + best)
                                                                    : (double)row++;
        }
    }
}

const slr_ref_row slr_ref_move[] = {
    {SDLORA_OP_RESHAPE, reshape},
    {SDLORA_OP_SLICE, slice},
    {SDLORA_OP_SLICE_BX, slice_bx},
    {SDLORA_OP_CONCAT, concat},
    {SDLORA_OP_PERMUTE, permute},
    {SDLORA_OP_CAST, cast},
    {SDLORA_OP_FILL, fill},
    {SDLORA_OP_UPSAMPLE2, upsample2},
    {SDLORA_OP_UPSAMPLE2_BX, upsample2_bx},
    {SDLORA_OP_SUM_TO, sum_to},
    {SDLORA_OP_EMBED, embed},
    {SDLORA_OP_EMBED_BW, embed_bw},
    {SDLORA_OP_TIME_EMBED, time_embed},
    {SDLORA_OP_MATCH, match},
    {0},
};
