/* SPDX-License-Identifier: MIT */
/* Elementwise loops for one instruction set and storage type: see ew.h.  Knows registers and
 * polynomials; refuses to know shapes and threads. */
#include "backend/cpu/ew.h"

#include "backend/cpu/act.h"

/* --- two operands */

ALWAYS vf op_add(vf a, vf b)
{
    return a + b;
}

ALWAYS vf op_sub(vf a, vf b)
{
    return a - b;
}

ALWAYS vf op_mul(vf a, vf b)
{
    return a * b;
}

ALWAYS void map2s(int64_t n, elem *y, const elem *a, float b, vf (*f)(vf, vf))
{
    int64_t i = 0;
    for (; i + VN <= n; i += VN)
        st(y + i, f(ld(a + i), vset(b)));
    if (i < n)
        st_n(y + i, f(ld_n(a + i, n - i), vset(b)), n - i);
}

ALWAYS void map2f(int64_t n, elem *y, const elem *a, const float *b, vf (*f)(vf, vf))
{
    int64_t i = 0;
    for (; i + VN <= n; i += VN)
        st(y + i, f(ld(a + i), vload(b + i)));
    if (i < n)
        st_n(y + i, f(ld_n(a + i, n - i), vload_n(b + i, n - i)), n - i);
}

#define BINARY(name)                                                                               \
    static void binary_##name(int64_t n, void *y, const void *a, const void *b)                    \
    {                                                                                              \
        map2(n, y, a, b, op_##name);                                                               \
    }                                                                                              \
    static void mixed_##name(int64_t n, void *y, const void *a, const float *b)                    \
    {                                                                                              \
        map2f(n, y, a, b, op_##name);                                                              \
    }                                                                                              \
    static void scalar_##name(int64_t n, void *y, const void *a, float b)                          \
    {                                                                                              \
        map2s(n, y, a, b, op_##name);                                                              \
    }
BINARY(add)
BINARY(sub)
BINARY(mul)

static void affine(int64_t n, void *to, const void *from, float scale, float shift)
{
    elem *y = to;
    const elem *x = from;
    int64_t i = 0;
    for (; i + VN <= n; i += VN)
        st(y + i, ld(x + i) * scale + shift);
    if (i < n)
        st_n(y + i, ld_n(x + i, n - i) * scale + shift, n - i);
}

/* --- activations */

#define ACT(kind, name)                                                                            \
    static void run_##name(int64_t n, void *y, const void *x)                                      \
    {                                                                                              \
        map1(n, y, x, act_##name);                                                                 \
    }                                                                                              \
    ALWAYS vf bx_##name(vf dy, vf x)                                                               \
    {                                                                                              \
        return dy * slope_##name(x);                                                               \
    }                                                                                              \
    static void run_bx_##name(int64_t n, void *dx, const void *dy, const void *x)                  \
    {                                                                                              \
        map2(n, dx, dy, x, bx_##name);                                                             \
    }
SLR_ACTS(ACT)
SLR_MORE_ACTS(ACT)

ALWAYS vf op_geglu(vf x, vf gate)
{
    return x * act_gelu(gate);
}

static void geglu(int64_t n, void *y, const void *x, const void *gate)
{
    map2(n, y, x, gate, op_geglu);
}

ALWAYS void geglu_slope(vf dy, vf x, vf gate, vf *dx, vf *dgate)
{
    vf cdf, bell;
    normal(gate, &cdf, &bell);
    *dx = dy * gate * cdf;
    *dgate = dy * x * (cdf + gate * bell * INV_SQRT_2PI);
}

ALWAYS void geglu_slopes(int64_t n, elem *dx, elem *dgate, const elem *dy, const elem *x,
                         const elem *gate)
{
    int64_t i = 0;
    vf a, b;
    for (; i + VN <= n; i += VN) {
        geglu_slope(ld(dy + i), ld(x + i), ld(gate + i), &a, &b);
        st(dx + i, a);
        st(dgate + i, b);
    }
    if (i < n) {
        geglu_slope(ld_n(dy + i, n - i), ld_n(x + i, n - i), ld_n(gate + i, n - i), &a, &b);
        st_n(dx + i, a, n - i);
        st_n(dgate + i, b, n - i);
    }
}

static void geglu_bx(int64_t n, void *dx, void *dgate, const void *dy, const void *x,
                     const void *gate)
{
    geglu_slopes(n, dx, dgate, dy, x, gate);
}

/* --- dropout */

enum { LANES = 16 }; /* counters drawn at once */

/* Philox4x32-10 (Salmon et al. 2011) of counters at .. at + LANES - 1. */
static void philox(uint64_t at, uint64_t stream, const uint32_t key[2], uint32_t out[4 * LANES])
{
    for (int l = 0; l < LANES; l++) {
        uint32_t c0 = (uint32_t)(at + (uint64_t)l), c1 = (uint32_t)((at + (uint64_t)l) >> 32);
        uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32), k0 = key[0], k1 = key[1];
        for (int round = 0; round < 10; round++) {
            uint64_t a = (uint64_t)c0 * 0xD2511F53u, b = (uint64_t)c2 * 0xCD9E8D57u;
            c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
            c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
            c1 = (uint32_t)b;
            c3 = (uint32_t)a;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        out[4 * l] = c0;
        out[4 * l + 1] = c1;
        out[4 * l + 2] = c2;
        out[4 * l + 3] = c3;
    }
}

static void dropout(uint64_t lo, int64_t n, void *to, const void *from, const uint32_t key[2],
                    uint64_t stream, uint64_t threshold, float scale)
{
    elem *y = to;
    const elem *x = from;
    for (int64_t i = 0; i < n; i += 4 * LANES) {
        uint32_t word[4 * LANES];
        int32_t keep[4 * LANES]; /* all bits, or none */
        int64_t m = n - i < 4 * LANES ? n - i : 4 * LANES, j = 0;
        philox(lo + (uint64_t)i / 4, stream, key, word);
        for (int w = 0; w < 4 * LANES; w++)
            keep[w] = -(int32_t)(word[w] >= threshold);
        for (; j < m; j += VN) {
            vi mask;
            memcpy(&mask, keep + j, sizeof mask);
            if (j + VN <= m)
                st(y + i + j, (vf)((vi)(ld(x + i + j) * scale) & mask));
            else
                st_n(y + i + j, (vf)((vi)(ld_n(x + i + j, m - j) * scale) & mask), m - j);
        }
    }
}

/* --- rows of pixels, the optimiser */

ALWAYS void sum4(int64_t n, elem *y, const elem *a, const elem *b, const elem *c, const elem *d)
{
    int64_t i = 0;
    for (; i + VN <= n; i += VN)
        st(y + i, ld(a + i) + ld(b + i) + (ld(c + i) + ld(d + i)));
    for (; i < n; i++)
        put(y + i, get(a + i) + get(b + i) + (get(c + i) + get(d + i)));
}

static void add4(int64_t n, void *y, const void *a, const void *b, const void *c, const void *d)
{
    sum4(n, y, a, b, c, d);
}

#if !SLR_BF16

/* Decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2). */
static void adamw(int64_t n, float *restrict p, const float *restrict g, float *restrict m,
                  float *restrict v, const float *hyper)
{
    float beta1 = hyper[1], beta2 = hyper[2], eps = hyper[3], scale = hyper[7];
    float keep = 1.0f - hyper[0] * hyper[4], step = hyper[0] / hyper[5];
    float rest1 = 1.0f - beta1, rest2 = 1.0f - beta2, root = 1.0f / __builtin_sqrtf(hyper[6]);
    for (int64_t i = 0; i < n; i++) {
        float d = g[i] * scale;
        m[i] = beta1 * m[i] + rest1 * d;
        v[i] = beta2 * v[i] + rest2 * (d * d);
        p[i] = keep * p[i] - step * m[i] / (__builtin_sqrtf(v[i]) * root + eps);
    }
}
#endif

#define ACT_ROW(kind, name)    [kind] = run_##name,
#define ACT_BX_ROW(kind, name) [kind] = run_bx_##name,

const slr_cpu_ew_fns SLR_ISA_SYM(slr_cpu_ew) = {
    .binary = {[SLR_CPU_ADD] = binary_add, [SLR_CPU_SUB] = binary_sub, [SLR_CPU_MUL] = binary_mul},
    .mixed = {[SLR_CPU_ADD] = mixed_add, [SLR_CPU_SUB] = mixed_sub, [SLR_CPU_MUL] = mixed_mul},
    .scalar = {[SLR_CPU_ADD] = scalar_add, [SLR_CPU_SUB] = scalar_sub, [SLR_CPU_MUL] = scalar_mul},
    .affine = affine,
    .act = {SLR_ACTS(ACT_ROW) SLR_MORE_ACTS(ACT_ROW)},
    .act_bx = {SLR_ACTS(ACT_BX_ROW) SLR_MORE_ACTS(ACT_BX_ROW)},
    .geglu = geglu,
    .geglu_bx = geglu_bx,
    .dropout = dropout,
    .add4 = add4,
#if !SLR_BF16
    .adamw = adamw,
#endif
};
