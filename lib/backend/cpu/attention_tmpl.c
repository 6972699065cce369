/* SPDX-License-Identifier: MIT */
/* Tiles of attention, once per instruction set: scores, softmax and the products around it, all
 * inside the first levels of cache.  Forward keeps a running maximum and sum (Milakov, Gimelshein
 * 2018; Dao et al. 2022); backward makes the probabilities again from lse.  Refuses to know tensors
 * and threads. */
#include "backend/cpu/attention.h"

#include <math.h>

#include "backend/cpu/isa.h"

#define ALWAYS static inline __attribute__((always_inline))

enum {
    QUERIES = SLR_ATTN_QUERIES,
    KEYS = SLR_ATTN_KEYS,
    ROWS = VN == 16 ? 8 : 4, /* of a block of registers: ROWS x 3 sums, 3 columns, 1 factor */
    COLS = 3
};

_Static_assert(QUERIES % ROWS == 0 && KEYS % (COLS * VN) == 0, "tiles are whole blocks");

/* A matrix that is read one element at a time. */
typedef struct grid {
    const float *p;
    int64_t row, col; /* elements from row to row, from column to column */
} grid;

/* c[ROWS, nv registers] = (add ? c : 0) + a[ROWS, k] b[k, nv registers]; nv is a constant. */
ALWAYS void block(const int nv, int64_t k, grid a, const float *b, int64_t ldb, float *c,
                  int64_t ldc, bool add)
{
    vf s[ROWS][COLS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++)
            s[i][j] = add ? vload(c + i * ldc + j * VN) : vset(0.0f);
    for (int64_t l = 0; l < k; l++) {
        vf v[COLS];
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++)
            v[j] = vload(b + l * ldb + j * VN);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            const float x = a.p[i * a.row + l * a.col];
#pragma GCC unroll 3
            for (int j = 0; j < nv; j++)
                s[i][j] += x * v[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++)
            vstore(c + i * ldc + j * VN, s[i][j]);
}

/* c[m, n] (+)= a[m, k] b[k, n]: m in whole blocks of rows, n in whole registers. */
static void product(int64_t m, int64_t n, int64_t k, grid a, const float *b, int64_t ldb, float *c,
                    int64_t ldc, bool add)
{
    const int64_t nv = n / VN;
    for (int64_t j = 0; j < nv;) {
        /* 4 is 2 + 2 rather than 3 + 1 */
        const int64_t left = nv - j, take = left == 4 ? 2 : left < COLS ? left : COLS;
        for (int64_t i = 0; i < m; i += ROWS) {
            const grid ai = {a.p + i * a.row, a.row, a.col};
            float *cij = c + i * ldc + j * VN;
            if (take == 3)
                block(3, k, ai, b + j * VN, ldb, cij, ldc, add);
            else if (take == 2)
                block(2, k, ai, b + j * VN, ldb, cij, ldc, add);
            else
                block(1, k, ai, b + j * VN, ldb, cij, ldc, add);
        }
        j += take;
    }
}

/* 2^x for x <= 0, relative error 2e-7; below -126 it stays at 2^-126.  A NaN stays one. */
ALWAYS vf exp2_neg(vf x)
{
    x = vmax(vset(-126.0f), x);
    vf t = x + 12582912.0f; /* 1.5 * 2^23: the nearest integer stands in the low bits */
    vf r = x - (t - 12582912.0f);
    vf p = vset(1.535336188e-4f);
    p = p * r + 1.339887440e-3f;
    p = p * r + 9.618437358e-3f;
    p = p * r + 5.550332471e-2f;
    p = p * r + 2.402264791e-1f;
    p = p * r + 6.931472029e-1f;
    p = p * r + 1.0f;
    return (vf)((vi)p + ((vi)t << 23));
}

/* How many of the keys from k0 on query q sees: 0 .. KEYS. */
ALWAYS int64_t keys_seen(const slr_attn_head *h, int64_t q, int64_t k0)
{
    int64_t end = h->causal && q + 1 < h->tk ? q + 1 : h->tk;
    return end - k0 < 0 ? 0 : end - k0 < KEYS ? end - k0 : KEYS;
}

/* --- forward --- */

/* One row of scores becomes 2^(s - max); the row's maximum and sums so far move along. */
ALWAYS void softmax_row(float *s, int64_t seen, int64_t width, float *max, float *sums, float *o,
                        int64_t dp)
{
    for (int64_t j = seen; j < width; j++)
        s[j] = -INFINITY;
    vf m = vload(s);
    for (int64_t j = VN; j < width; j += VN)
        m = vmax(m, vload(s + j));
    const float top = vhmax(m);
    vf sum = vload(sums);
    if (*max == -INFINITY) {
        *max = top; /* nothing was summed before */
    } else if (top > *max) {
        const vf shrink = exp2_neg(vset(*max - top));
        for (int64_t j = 0; j < dp; j += VN)
            vstore(o + j, vload(o + j) * shrink);
        sum = sum * shrink;
        *max = top;
    }
    const vf base = vset(*max);
    for (int64_t j = 0; j < width; j += VN) {
        vf p = exp2_neg(vload(s + j) - base);
        vstore(s + j, p);
        sum = sum + p;
    }
    vstore(sums, sum);
    for (int64_t j = seen; j < width; j++)
        s[j] = 0.0f; /* adds 2^-126 to the sum above: nothing in f32 beside the maximum's 1 */
}

static void forward(const slr_attn_head *h, int64_t q0, const float *q, int64_t ldq, float *o,
                    int64_t ldo, float *lse, float *scratch)
{
    float *qs = scratch, *s = qs + QUERIES * h->dp, *sum = s + QUERIES * KEYS;
    float *acc = sum + QUERIES * VN, max[QUERIES];
    const int64_t rows = h->tq - q0 < QUERIES ? h->tq - q0 : QUERIES;
    const int64_t m = slr_attn_up(rows, ROWS), d = h->d, dp = h->dp;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < d; j++)
            qs[i * d + j] = i < rows ? q[i * ldq + j] * (h->scale * SLR_LOG2E) : 0.0f;
        max[i] = -INFINITY;
    }
    memset(sum, 0, (size_t)(m * VN) * sizeof *sum);
    memset(acc, 0, (size_t)(m * dp) * sizeof *acc);
    for (int64_t k0 = 0; k0 < h->tk && keys_seen(h, q0 + rows - 1, k0); k0 += KEYS) {
        const int64_t keys = keys_seen(h, q0 + rows - 1, k0), width = slr_attn_up(keys, VN);
        product(m, width, d, (grid){qs, d, 1}, h->kt + k0 * d, KEYS, s, KEYS, false);
        for (int64_t i = 0; i < rows; i++)
            softmax_row(s + i * KEYS, keys_seen(h, q0 + i, k0), width, &max[i], sum + i * VN,
                        acc + i * dp, dp);
        product(m, dp, keys, (grid){s, KEYS, 1}, h->vrow + k0 * dp, dp, acc, dp, true);
    }
    for (int64_t i = 0; i < rows; i++) {
        const float total = vsum(vload(sum + i * VN)), inv = 1.0f / total;
        for (int64_t j = 0; j < d; j++)
            o[i * ldo + j] = acc[i * dp + j] * inv;
        lse[i] = (max[i] + log2f(total)) * SLR_LN2;
    }
}

/* --- backward --- */

/* Rows of scores and of do v^T become P and dS = P (dP - sum(do o)). */
static void probabilities(const slr_attn_head *h, int64_t q0, int64_t rows, int64_t k0,
                          int64_t width, float *s, float *dp)
{
    for (int64_t i = 0; i < rows; i++) {
        float *si = s + i * KEYS, *di = dp + i * KEYS;
        const vf lse = vset(h->lse2[q0 + i]), delta = vset(h->delta[q0 + i]);
        for (int64_t j = 0; j < width; j += VN) {
            /* lse bounds the scores of real keys; padding may lie above it, but ends in no result
             */
            vf p = exp2_neg(vmin(vset(0.0f), vload(si + j) - lse));
            vstore(si + j, p);
            vstore(di + j, p * (vload(di + j) - delta));
        }
        for (int64_t j = h->causal ? keys_seen(h, q0 + i, k0) : width; j < width; j++)
            si[j] = di[j] = 0.0f;
    }
}

static void backward(const slr_attn_head *h, int64_t k0, float *dq, float *dk, float *dv,
                     int64_t ldk, float *scratch)
{
    float *s = scratch, *ds = s + QUERIES * KEYS;
    float *dks = ds + QUERIES * KEYS, *dvs = dks + KEYS * h->dp;
    const int64_t d = h->d, dp = h->dp, keys = h->tk - k0 < KEYS ? h->tk - k0 : KEYS;
    const int64_t width = slr_attn_up(keys, VN), mk = slr_attn_up(keys, ROWS);
    const float *kt = h->kt + k0 * d, *vt = h->vt + k0 * d, *krow = h->krow + k0 * dp;
    memset(dks, 0, (size_t)(mk * dp) * sizeof *dks);
    memset(dvs, 0, (size_t)(mk * dp) * sizeof *dvs);
    /* queries before the first key see none of this tile */
    for (int64_t q0 = h->causal ? k0 / QUERIES * QUERIES : 0; q0 < h->tq; q0 += QUERIES) {
        const int64_t rows = h->tq - q0 < QUERIES ? h->tq - q0 : QUERIES;
        const int64_t m = slr_attn_up(rows, ROWS);
        const float *qrow = h->qrow + q0 * dp, *dorow = h->dorow + q0 * dp;
        product(m, width, d, (grid){qrow, dp, 1}, kt, KEYS, s, KEYS, false);
        product(m, width, d, (grid){dorow, dp, 1}, vt, KEYS, ds, KEYS, false);
        probabilities(h, q0, m, k0, width, s, ds);
        product(mk, dp, rows, (grid){s, 1, KEYS}, dorow, dp, dvs, dp, true);
        product(mk, dp, rows, (grid){ds, 1, KEYS}, qrow, dp, dks, dp, true);
        product(m, dp, keys, (grid){ds, KEYS, 1}, krow, dp, dq + q0 * dp, dp, true);
    }
    for (int64_t i = 0; i < keys; i++)
        for (int64_t j = 0; j < d; j++) {
            dk[i * ldk + j] = dks[i * dp + j] * SLR_LN2; /* q carried scale * log2 e */
            dv[i * ldk + j] = dvs[i * dp + j];
        }
}

extern const slr_attn_fn SLR_ISA_SYM(slr_cpu_attention);
const slr_attn_fn SLR_ISA_SYM(slr_cpu_attention) = {
    .lanes = VN, .forward = forward, .backward = backward};
