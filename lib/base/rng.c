/* SPDX-License-Identifier: MIT */
/* Philox4x32-10 and what is drawn from it.
 *
 * Knows that a number is a function of its address alone: key = seed, counter = (position, stream,
 * item).  Refuses to use libm for normals: its last bits differ between machines, and a seed is a
 * promise.  The arithmetic below is plain IEEE double without contraction.
 * (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.) */
#include "base/rng.h"

#include <math.h>
#include <string.h>

__extension__ typedef unsigned __int128 u128;

void slr_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;

        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void slr_rng_init(slr_rng *r, uint64_t seed, uint32_t stream, uint32_t item)
{
    *r = (slr_rng){.seed = seed, .stream = stream, .item = item};
}

uint32_t slr_rng_u32(slr_rng *r)
{
    if (!r->left) {
        const uint32_t counter[4] = {(uint32_t)r->position, (uint32_t)(r->position >> 32),
                                     r->stream, r->item};
        const uint32_t key[2] = {(uint32_t)r->seed, (uint32_t)(r->seed >> 32)};

        slr_philox(counter, key, r->cache);
        r->position++;
        r->left = 4;
    }
    return r->cache[4 - r->left--];
}

static uint64_t next64(slr_rng *r)
{
    uint64_t low = slr_rng_u32(r);

    return (uint64_t)slr_rng_u32(r) << 32 | low;
}

uint64_t slr_rng_below(slr_rng *r, uint64_t n)
{
    /* The high half of a 64x64 product; draws in the short last stretch are thrown away (Lemire,
     * "Fast random integer generation in an interval", 2019). */
    uint64_t unfair = n ? (0 - n) % n : 0;

    for (;;) {
        u128 p = (u128)next64(r) * n;

        if ((uint64_t)p >= unfair)
            return (uint64_t)(p >> 64);
    }
}

double slr_rng_real(slr_rng *r)
{
    return (double)(next64(r) >> 11) * 0x1p-53;
}

/* ln x for x in (0,1]: 2 atanh((m-1)/(m+1)) + e ln 2, m in [sqrt 1/2, sqrt 2).  |s| < 0.172, so
 * that 13 terms leave less than 1e-21. */
static double ln(double x)
{
    int e;
    double m = frexp(x, &e), s, s2, sum = 0;

    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    s = (m - 1) / (m + 1);
    s2 = s * s;
    for (int k = 25; k >= 1; k -= 2)
        sum = sum * s2 + 1.0 / k;
    return 2 * s * sum + e * 0.69314718055994531;
}

/* sin and cos of 2 pi u for u in [0,1), by eighths of a turn: Taylor series for |x| <= pi/4, where
 * terms up to x^19 leave less than 1e-20. */
static void sincos_turn(double u, double *sine, double *cosine)
{
    double quarter = floor(u * 4 + 0.5);
    double x = (u - quarter * 0.25) * 6.2831853071795865, x2 = x * x;
    double s = 1, c = 1;

    for (int k = 18; k >= 2; k -= 2) {
        s = 1 - s * x2 / (k * (k + 1));
        c = 1 - c * x2 / (k * (k - 1));
    }
    s *= x;
    switch ((int)quarter & 3) {
    case 0:
        *sine = s, *cosine = c;
        break;
    case 1:
        *sine = c, *cosine = -s;
        break;
    case 2:
        *sine = -s, *cosine = -c;
        break;
    default:
        *sine = -c, *cosine = s;
        break;
    }
}

/* Box-Muller: two normals of two words; an odd last one drops its twin. */
void slr_rng_normal(slr_rng *r, float *out, size_t n)
{
    for (size_t i = 0; i < n; i += 2) {
        double u = ((double)slr_rng_u32(r) + 0.5) * 0x1p-32; /* never 0 */
        double v = (double)slr_rng_u32(r) * 0x1p-32;
        double radius = sqrt(-2 * ln(u)), s, c;

        sincos_turn(v, &s, &c);
        out[i] = (float)(radius * c);
        if (i + 1 < n)
            out[i + 1] = (float)(radius * s);
    }
}

void slr_nv_seed(slr_nv_rng *r, uint64_t seed)
{
    *r = (slr_nv_rng){.seed = seed};
}

/* The original multiplies by constants of f32 in doubles, and drops the other branch. */
void slr_nv_randn(slr_nv_rng *r, float *out, size_t n)
{
    const double unit = 0x1p-32, turn = (float)(2.3283064e-10 * 6.2831855);
    const uint32_t key[2] = {(uint32_t)r->seed, (uint32_t)(r->seed >> 32)};

    for (size_t i = 0; i < n; i++) {
        const uint32_t counter[4] = {r->draw, 0, (uint32_t)i, 0};
        uint32_t word[4];
        double u, v, sine, cosine;

        slr_philox(counter, key, word);
        u = word[0] * unit + unit / 2;
        v = (word[1] * turn + turn / 2) / 6.2831853071795865;
        sincos_turn(v < 1 ? v : 0, &sine, &cosine);
        out[i] = (float)(sqrt(-2 * ln(u)) * sine);
    }
    r->draw++;
}

static void swap_bytes(char *a, char *b, size_t n)
{
    char spare[64];

    while (n) {
        size_t part = n < sizeof spare ? n : sizeof spare;

        memcpy(spare, a, part);
        memcpy(a, b, part);
        memcpy(b, spare, part);
        a += part;
        b += part;
        n -= part;
    }
}

void slr_rng_shuffle(slr_rng *r, void *base, size_t n, size_t size)
{
    char *p = base;

    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)slr_rng_below(r, i);

        if (j != i - 1)
            swap_bytes(p + j * size, p + (i - 1) * size, size);
    }
}
