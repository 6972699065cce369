/* SPDX-License-Identifier: MIT */
/* The loops of group and layer norm for one instruction set and storage type: see norm.h.  Sums are
 * f32 here and short; norm.c adds them up in double. */
#include "backend/cpu/norm.h"

#include "backend/cpu/act.h"

ALWAYS float scalar_sqrt(float x)
{
    return __builtin_sqrtf(x);
}

/* --- group norm, statistics: COLS registers of channels at a time, down all rows, so that their
 * sums stay in registers.  The order of a channel's sum is that of the rows whatever COLS is. */

enum { COLS = VN == 16 ? 8 : 4 };

/* n <= VN is below VN in the last, partial register only; then cols is 1. */
ALWAYS void stats_cols(const int cols, int64_t n, int64_t rows, int64_t c, const elem *x,
                       const elem *pivot, float *s, float *q)
{
    vf k[COLS], vs[COLS], vq[COLS];
#pragma GCC unroll 8
    for (int j = 0; j < cols; j++) {
        k[j] = n < VN ? ld_n(pivot, n) : ld(pivot + j * VN);
        vs[j] = vq[j] = vset(0.0f);
    }
    for (int64_t r = 0; r < rows; r++, x += c)
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++) {
            vf d = (n < VN ? ld_n(x, n) : ld(x + j * VN)) - k[j];
            vs[j] += d;
            vq[j] += d * d;
        }
#pragma GCC unroll 8
    for (int j = 0; j < cols; j++) {
        if (n < VN) {
            vstore_n(s, vs[j], n);
            vstore_n(q, vq[j], n);
        } else {
            vstore(s + j * VN, vs[j]);
            vstore(q + j * VN, vq[j]);
        }
    }
}

static void stats(int64_t rows, int64_t c, const void *from, const void *first, float *s, float *q)
{
    const elem *x = from, *pivot = first;
    int64_t i = 0;
    for (; i + COLS * VN <= c; i += COLS * VN)
        stats_cols(COLS, VN, rows, c, x + i, pivot + i, s + i, q + i);
    for (; i + VN <= c; i += VN)
        stats_cols(1, VN, rows, c, x + i, pivot + i, s + i, q + i);
    if (i < c)
        stats_cols(1, c - i, rows, c, x + i, pivot + i, s + i, q + i);
}

/* --- group norm, the other loops: made once per activation */

typedef struct chan_at {
    vf mean, rstd, g, b, shift;
} chan_at;

ALWAYS chan_at chan_of(vf mean, vf rstd, vf g, vf b)
{
    return (chan_at){mean, rstd, g, b, -mean * rstd};
}

ALWAYS chan_at chan_ld(const slr_cpu_chan *ch, int64_t i)
{
    return chan_of(vload(ch->mean + i), vload(ch->rstd + i), vload(ch->g + i), vload(ch->b + i));
}

ALWAYS chan_at chan_ld_n(const slr_cpu_chan *ch, int64_t i, int64_t n)
{
    return chan_of(vload_n(ch->mean + i, n), vload_n(ch->rstd + i, n), vload_n(ch->g + i, n),
                   vload_n(ch->b + i, n));
}

/* x in units of its group.  bf16 has fewer digits than the sum below loses, and it is one step. */
ALWAYS vf unit(vf x, chan_at a)
{
#if SLR_BF16
    return x * a.rstd + a.shift;
#else
    return (x - a.mean) * a.rstd;
#endif
}

/* Four rows at a time, so that the channels' numbers are loaded once per four. */
ALWAYS void apply(int64_t rows, int64_t c, elem *y, const elem *x, const slr_cpu_chan *ch,
                  vf (*act)(vf))
{
    for (int64_t r = 0; r < rows; r += 4) {
        int64_t end = rows - r < 4 ? rows : r + 4, i = 0;
        for (; i + VN <= c; i += VN) {
            chan_at a = chan_ld(ch, i);
            for (int64_t p = r * c + i; p < end * c; p += c)
                st(y + p, act(unit(ld(x + p), a) * a.g + a.b));
        }
        if (i < c) {
            chan_at a = chan_ld_n(ch, i, c - i);
            for (int64_t p = r * c + i; p < end * c; p += c) {
                vf v = unit(ld_n(x + p, c - i), a) * a.g + a.b;
                st_n(y + p, act(v), c - i);
            }
        }
    }
}

ALWAYS void bx_sums_at(vf dy, vf x, chan_at a, vf (*slope)(vf), vf *s, vf *q)
{
    vf u = unit(x, a), dz = dy * slope(u * a.g + a.b);
    *s += dz;
    *q += dz * u;
}

ALWAYS void bx_sums(int64_t rows, int64_t c, const elem *dy, const elem *x, const slr_cpu_chan *ch,
                    float *s, float *q, vf (*slope)(vf))
{
    memset(s, 0, (size_t)c * sizeof *s);
    memset(q, 0, (size_t)c * sizeof *q);
    for (int64_t r = 0; r < rows; r += 4) {
        int64_t end = rows - r < 4 ? rows : r + 4, i = 0;
        for (; i + VN <= c; i += VN) {
            chan_at a = chan_ld(ch, i);
            vf vs = vload(s + i), vq = vload(q + i);
            for (int64_t p = r; p < end; p++)
                bx_sums_at(ld(dy + p * c + i), ld(x + p * c + i), a, slope, &vs, &vq);
            vstore(s + i, vs);
            vstore(q + i, vq);
        }
        if (i < c) {
            int64_t n = c - i;
            chan_at a = chan_ld_n(ch, i, n);
            vf vs = vload_n(s + i, n), vq = vload_n(q + i, n);
            for (int64_t p = r; p < end; p++)
                bx_sums_at(ld_n(dy + p * c + i, n), ld_n(x + p * c + i, n), a, slope, &vs, &vq);
            vstore_n(s + i, vs, n);
            vstore_n(q + i, vq, n);
        }
    }
}

ALWAYS vf bx_at(vf dy, vf x, chan_at a, vf m1, vf m2, vf (*slope)(vf))
{
    vf u = unit(x, a), dz = dy * slope(u * a.g + a.b);
    return a.rstd * (dz * a.g - m1 - u * m2);
}

/* `more` is a constant: whether there is something to add. */
ALWAYS void bx_apply(int64_t rows, int64_t c, elem *dx, const elem *dy, const elem *x,
                     const elem *add, const bool more, const slr_cpu_chan *ch, vf (*slope)(vf))
{
    for (int64_t r = 0; r < rows; r += 4) {
        int64_t end = rows - r < 4 ? rows : r + 4, i = 0;
        for (; i + VN <= c; i += VN) {
            chan_at a = chan_ld(ch, i);
            vf m1 = vload(ch->m1 + i), m2 = vload(ch->m2 + i);
            for (int64_t p = r * c + i; p < end * c; p += c) {
                vf d = bx_at(ld(dy + p), ld(x + p), a, m1, m2, slope);
                st(dx + p, more ? d + ld(add + p) : d);
            }
        }
        if (i < c) {
            int64_t n = c - i;
            chan_at a = chan_ld_n(ch, i, n);
            vf m1 = vload_n(ch->m1 + i, n), m2 = vload_n(ch->m2 + i, n);
            for (int64_t p = r * c + i; p < end * c; p += c) {
                vf d = bx_at(ld_n(dy + p, n), ld_n(x + p, n), a, m1, m2, slope);
                st_n(dx + p, more ? d + ld_n(add + p, n) : d, n);
            }
        }
    }
}

#define GROUP(kind, name)                                                                          \
    static void apply_##name(int64_t rows, int64_t c, void *y, const void *x,                      \
                             const slr_cpu_chan *ch)                                               \
    {                                                                                              \
        apply(rows, c, y, x, ch, act_##name);                                                      \
    }                                                                                              \
    static void bx_sums_##name(int64_t rows, int64_t c, const void *dy, const void *x,             \
                               const slr_cpu_chan *ch, float *s, float *q)                         \
    {                                                                                              \
        bx_sums(rows, c, dy, x, ch, s, q, slope_##name);                                           \
    }                                                                                              \
    static void bx_apply_##name(int64_t rows, int64_t c, void *dx, const void *dy, const void *x,  \
                                const void *add, const slr_cpu_chan *ch)                           \
    {                                                                                              \
        if (add)                                                                                   \
            bx_apply(rows, c, dx, dy, x, add, true, ch, slope_##name);                             \
        else                                                                                       \
            bx_apply(rows, c, dx, dy, x, NULL, false, ch, slope_##name);                           \
    }
SLR_ACTS(GROUP)

/* --- layer norm: a row fits the cache, so the mean comes first and the variance after it */

static void layer(int64_t c, void *to, const void *from, const float *g, const float *b, float eps,
                  float *mean, float *rstd)
{
    elem *y = to;
    const elem *x = from;
    vf s = {0}, q = {0}, one = vset(1.0f), zero = {0};
    int64_t i = 0;
    for (; i + VN <= c; i += VN)
        s += ld(x + i);
    if (i < c)
        s += ld_n(x + i, c - i);
    float m = vsum(s) / (float)c;
    for (i = 0; i + VN <= c; i += VN) {
        vf d = ld(x + i) - m;
        q += d * d;
    }
    for (float t; i < c; i++) {
        t = get(x + i) - m;
        q[i % VN] += t * t;
    }
    float r = 1.0f / scalar_sqrt(vsum(q) / (float)c + eps);
    for (i = 0; i + VN <= c; i += VN)
        st(y + i, (ld(x + i) - m) * r * (g ? vload(g + i) : one) + (b ? vload(b + i) : zero));
    for (; i < c; i++)
        put(y + i, (get(x + i) - m) * r * (g ? g[i] : 1.0f) + (b ? b[i] : 0.0f));
    *mean = m;
    *rstd = r;
}

static void layer_bx(int64_t c, void *to, const void *up, const void *from, const void *more,
                     const float *g, float mean, float rstd)
{
    elem *dx = to;
    const elem *dy = up, *x = from, *add = more;
    vf s = {0}, q = {0}, one = vset(1.0f);
    int64_t i = 0;
    for (; i + VN <= c; i += VN) {
        vf du = ld(dy + i) * (g ? vload(g + i) : one);
        s += du;
        q += du * ((ld(x + i) - mean) * rstd);
    }
    for (; i < c; i++) {
        float du = get(dy + i) * (g ? g[i] : 1.0f);
        s[i % VN] += du;
        q[i % VN] += du * ((get(x + i) - mean) * rstd);
    }
    float m1 = vsum(s) / (float)c, m2 = vsum(q) / (float)c;
    for (i = 0; i + VN <= c; i += VN) {
        vf du = ld(dy + i) * (g ? vload(g + i) : one), u = (ld(x + i) - mean) * rstd;
        vf d = rstd * (du - m1 - u * m2);
        st(dx + i, add ? d + ld(add + i) : d);
    }
    for (; i < c; i++) {
        float du = get(dy + i) * (g ? g[i] : 1.0f), u = (get(x + i) - mean) * rstd;
        float d = rstd * (du - m1 - u * m2);
        put(dx + i, add ? d + get(add + i) : d);
    }
}

/* A register of channels down all rows: n is VN, or less in the last, partial one. */
ALWAYS void layer_bw_cols(int64_t n, int64_t rows, int64_t c, const elem *dy, const elem *x,
                          const float *mean, const float *rstd, float *s, float *q)
{
    vf vs = {0}, vq = {0};
    for (int64_t r = 0; r < rows; r++, dy += c, x += c) {
        vf d = n < VN ? ld_n(dy, n) : ld(dy);
        vs += d;
        vq += d * (((n < VN ? ld_n(x, n) : ld(x)) - mean[r]) * rstd[r]);
    }
    if (n < VN) {
        vstore_n(s, vs, n);
        vstore_n(q, vq, n);
    } else {
        vstore(s, vs);
        vstore(q, vq);
    }
}

static void layer_bw(int64_t rows, int64_t c, const void *up, const void *from, const float *mean,
                     const float *rstd, float *s, float *q)
{
    const elem *dy = up, *x = from;
    int64_t i = 0;
    for (; i + VN <= c; i += VN)
        layer_bw_cols(VN, rows, c, dy + i, x + i, mean, rstd, s + i, q + i);
    if (i < c)
        layer_bw_cols(c - i, rows, c, dy + i, x + i, mean, rstd, s + i, q + i);
}

#define APPLY_ROW(kind, name)    [kind] = apply_##name,
#define BX_SUMS_ROW(kind, name)  [kind] = bx_sums_##name,
#define BX_APPLY_ROW(kind, name) [kind] = bx_apply_##name,

const slr_cpu_norm_fns SLR_ISA_SYM(slr_cpu_norm) = {
    .stats = stats,
    .apply = {SLR_ACTS(APPLY_ROW)},
    .bx_sums = {SLR_ACTS(BX_SUMS_ROW)},
    .bx_apply = {SLR_ACTS(BX_APPLY_ROW)},
    .layer = layer,
    .layer_bx = layer_bx,
    .layer_bw = layer_bw,
};
