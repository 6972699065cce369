/* SPDX-License-Identifier: MIT */
/* torch's CPU generator and torch.randn, to the bit.
 *
 * Knows MT19937 (Matsumoto and Nishimura, 1998) and torch's two ways to a normal number: fewer than
 * 16 numbers go one by one in double precision; 16 and more go by blocks in f32 with vector
 * approximations of ln, sin and cos (Cephes polynomials, every product that feeds a sum fused).
 * Refuses to use libm for the second way: a correctly rounded ln would differ from torch's in one
 * number of a hundred. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

enum { WORDS = 624, MIDDLE = 397, BLOCK = 16 };

void slr_torch_seed(slr_torch_rng *r, uint64_t seed)
{
    r->state[0] = (uint32_t)seed; /* torch takes the low half */
    for (uint32_t i = 1; i < WORDS; i++)
        r->state[i] = 1812433253u * (r->state[i - 1] ^ r->state[i - 1] >> 30) + i;
    r->at = WORDS;
    r->has_next = 0;
    r->next = 0;
}

static void refill(slr_torch_rng *r)
{
    uint32_t *s = r->state;

    for (int i = 0; i < WORDS; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % WORDS] & 0x7FFFFFFFu);

        s[i] = s[(i + MIDDLE) % WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908B0DFu : 0);
    }
    r->at = 0;
}

uint32_t slr_torch_u32(slr_torch_rng *r)
{
    uint32_t y;

    if (r->at < 0 || r->at >= WORDS)
        refill(r);
    y = r->state[r->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9D2C5680u;
    y ^= y << 15 & 0xEFC60000u;
    return y ^ y >> 18;
}

static double uniform53(slr_torch_rng *r)
{
    uint64_t high = slr_torch_u32(r);
    uint64_t word = high << 32 | slr_torch_u32(r);

    return (double)(word & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

static float uniform24(slr_torch_rng *r)
{
    return (float)(slr_torch_u32(r) & 0xFFFFFF) * 0x1p-24f;
}

/* One normal; its twin waits for the next call, also across calls of slr_torch_randn. */
static float one_normal(slr_torch_rng *r)
{
    double u, v, radius, angle;

    if (r->has_next) {
        r->has_next = 0;
        return (float)r->next;
    }
    u = uniform53(r);
    v = uniform53(r);
    radius = sqrt(-2 * log1p(-v));
    angle = 2 * 3.14159265358979323846 * u;
    r->next = radius * sin(angle);
    r->has_next = 1;
    return (float)(radius * cos(angle));
}

static uint32_t bits_of(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

/* Highest power first. */
static float polynomial(const float *c, int n, float x)
{
    float y = c[0];

    for (int i = 1; i < n; i++)
        y = fmaf(y, x, c[i]);
    return y;
}

/* ln x for x in (0,1], x = m 2^e with m in [sqrt 1/2, sqrt 2): Cephes logf. */
static float ln_cephes(float x)
{
    static const float c[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                              -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                              2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    const float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    uint32_t u = bits_of(x);
    float e = (float)((int)(u >> 23) - 126), m = float_of((u & 0x007FFFFF) | 0x3F000000);
    float z, y;

    if (m < 0.70710678f) {
        e -= 1;
        m = (m - 1) + m; /* 2m - 1 */
    } else
        m -= 1;
    z = m * m;
    y = polynomial(c, 9, m) * m;
    y = fmaf(y, z, e * ln2_low);
    y = fmaf(z, -0.5f, y);
    return fmaf(e, ln2_high, m + y);
}

/* sin and cos of x in [0, 2 pi): Cephes sinf and cosf, pi/4 taken off in three parts. */
static void sincos_cephes(float x, float *sine, float *cosine)
{
    static const float cos_c[] = {2.443315711809948e-5f, -1.388731625493765e-3f,
                                  4.166664568298827e-2f};
    static const float sin_c[] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};
    int octant = ((int)(x * 1.27323954473516f) + 1) & ~1; /* of the circle, rounded to even */
    float y = (float)octant, z, s, c;

    x = fmaf(y, -0.78515625f, x);
    x = fmaf(y, -2.4187564849853515625e-4f, x);
    x = fmaf(y, -3.77489497744594108e-8f, x);
    z = x * x;
    c = polynomial(cos_c, 3, z) * z;
    c = fmaf(c, z, -0.5f * z) + 1;
    s = fmaf(polynomial(sin_c, 3, z) * z, x, x);
    *sine = octant & 2 ? c : s;
    *cosine = octant & 2 ? s : c;
    if (octant & 4)
        *sine = -*sine;
    if ((octant + 2) & 4)
        *cosine = -*cosine;
}

/* 16 uniforms to 16 normals: number j pairs with number j + 8. */
static void normal_block(float *d)
{
    for (int j = 0; j < BLOCK / 2; j++) {
        float radius = sqrtf(-2 * ln_cephes(1 - d[j])), s, c;

        sincos_cephes(6.283185307179586f * d[j + BLOCK / 2], &s, &c);
        d[j] = fmaf(radius, c, 0); /* torch adds the mean, which makes -0 into 0 */
        d[j + BLOCK / 2] = fmaf(radius, s, 0);
    }
}

void slr_torch_randn(slr_torch_rng *r, float *out, size_t n)
{
    if (n < BLOCK) {
        for (size_t i = 0; i < n; i++)
            out[i] = one_normal(r);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = uniform24(r);
    for (size_t i = 0; i + BLOCK <= n; i += BLOCK)
        normal_block(out + i);
    if (n % BLOCK) { /* the last 16 are drawn afresh, over some that were done */
        float *tail = out + n - BLOCK;

        for (int i = 0; i < BLOCK; i++)
            tail[i] = uniform24(r);
        normal_block(tail);
    }
}
