/* SPDX-License-Identifier: MIT */
/* Knows AUTOMATIC1111's order of draws: which generator is fresh, which goes on, and that a
 * variation turns along the height of the latents. */
#include "sample/noise.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"
#include "sample/brownian.h"

typedef union generator {
    slr_torch_rng cpu;
    slr_nv_rng nv;
} generator;

struct slr_noise {
    slr_mem *m;
    slr_noise_config c;
    size_t n; /* numbers of a draw */
    generator g;
    slr_brownian *path; /* NULL: none yet */
};

static void seed(generator *g, int source, uint64_t value)
{
    if (source == SLR_NOISE_NV)
        slr_nv_seed(&g->nv, value);
    else
        slr_torch_seed(&g->cpu, value);
}

static void draw(generator *g, int source, float *out, size_t n)
{
    if (source == SLR_NOISE_NV)
        slr_nv_randn(&g->nv, out, n);
    else
        slr_torch_randn(&g->cpu, out, n);
}

/* The first draw of a generator of its own. */
static void draw_fresh(int source, uint64_t value, float *out, size_t n)
{
    generator g;
    seed(&g, source, value);
    draw(&g, source, out, n);
}

static void normals_cpu(uint32_t value, float *out, size_t n)
{
    draw_fresh(SLR_NOISE_CPU, value, out, n);
}

static void normals_nv(uint32_t value, float *out, size_t n)
{
    draw_fresh(SLR_NOISE_NV, value, out, n);
}

int slr_noise_new(slr_noise **out, slr_mem *m, const slr_noise_config *config)
{
    size_t n = 0, bytes;
    *out = NULL;
    slr_require(config->source == SLR_NOISE_CPU || config->source == SLR_NOISE_NV);
    slr_require(config->c > 0 && config->h > 0 && config->w > 0);
    if (!slr_mul_ok((size_t)config->c, (size_t)config->h, &n) ||
        !slr_mul_ok(n, (size_t)config->w, &n) || !slr_mul_ok(n, sizeof(float), &bytes))
        return slr_fail(SDLORA_EINVAL, __func__, "noise of %lld x %lld x %lld is too large",
                        (long long)config->c, (long long)config->h, (long long)config->w);
    slr_noise *s = slr_calloc(m, 1, sizeof *s);
    if (!s)
        return SDLORA_ENOMEM;
    s->m = m;
    s->c = *config;
    s->n = n;
    seed(&s->g, config->source, config->seed);
    *out = s;
    return SDLORA_OK;
}

void slr_noise_free(slr_noise *n)
{
    if (!n)
        return;
    slr_brownian_free(n->path);
    slr_free(n->m, n);
}

/* --- the first noise --- */

/* Cosine of the angle between two columns of h numbers, `stride` apart. */
static double cosine(const float *a, const float *b, int64_t h, int64_t stride)
{
    double aa = 0, bb = 0, ab = 0;
    for (int64_t y = 0; y < h; y++) {
        double p = a[y * stride], q = b[y * stride];
        aa += p * p;
        bb += q * q;
        ab += p * q;
    }
    return fmin(fmax(ab / sqrt(aa * bb), -1), 1);
}

/* a becomes a turned towards b: each column of the height by itself, as the original has it, and on
 * the straight line (with the ends swapped, as the original has it) where they nearly agree. */
static void turn(float *a, const float *b, double strength, int64_t c, int64_t h, int64_t w)
{
    double mean = 0;
    for (int64_t k = 0; k < c; k++)
        for (int64_t x = 0; x < w; x++)
            mean += cosine(a + k * h * w + x, b + k * h * w + x, h, w);
    bool line = mean / (double)(c * w) > 0.9995;
    for (int64_t k = 0; k < c; k++)
        for (int64_t x = 0; x < w; x++) {
            float *p = a + k * h * w + x;
            const float *q = b + k * h * w + x;
            double angle = acos(cosine(p, q, h, w)), sine = sin(angle);
            double keep = line ? strength : sin((1 - strength) * angle) / sine,
                   take = line ? 1 - strength : sin(strength * angle) / sine;
            for (int64_t y = 0; y < h; y++)
                p[y * w] = (float)(keep * p[y * w] + take * q[y * w]);
        }
}

/* Where a run of `from` numbers lies in one of `to`, both centred: how many fit, and where they
 * begin in each. */
typedef struct overlap {
    int64_t n, in, out;
} overlap;

static overlap centred(int64_t from, int64_t to)
{
    int64_t d = to - from, half = d >= 0 ? d / 2 : -((1 - d) / 2); /* downwards */
    return (overlap){d >= 0 ? from : from + 2 * half, half < 0 ? -half : 0, half > 0 ? half : 0};
}

static void paste(const float *small, int64_t sh, int64_t sw, float *big, const slr_noise_config *c)
{
    overlap y = centred(sh, c->h), x = centred(sw, c->w);
    for (int64_t k = 0; k < c->c; k++)
        for (int64_t i = 0; i < y.n; i++)
            memcpy(big + (k * c->h + y.out + i) * c->w + x.out,
                   small + (k * sh + y.in + i) * sw + x.in, (size_t)x.n * sizeof *big);
}

/* The seed's noise with its variation, of height h and width w. */
static int vary(slr_noise *s, generator *g, int64_t h, int64_t w, float *out)
{
    const slr_noise_config *c = &s->c;
    size_t n = (size_t)(c->c * h * w);
    draw(g, c->source, out, n);
    if (c->strength == 0)
        return SDLORA_OK;
    float *other = slr_calloc(s->m, n, sizeof *other);
    if (!other)
        return SDLORA_ENOMEM;
    draw_fresh(c->source, c->subseed, other, n);
    turn(out, other, c->strength, c->c, h, w);
    slr_free(s->m, other);
    return SDLORA_OK;
}

/* Noise of another size, in the middle of the seed's own. */
static int resized(slr_noise *s, float *out)
{
    const slr_noise_config *c = &s->c;
    size_t n;
    generator fresh;
    if (!slr_mul_ok((size_t)c->from_h, (size_t)c->from_w, &n) || !slr_mul_ok(n, (size_t)c->c, &n))
        return slr_fail(SDLORA_EINVAL, __func__, "noise of %lld x %lld latents is too large",
                        (long long)c->from_w, (long long)c->from_h);
    float *small = slr_calloc(s->m, n, sizeof *small);
    if (!small)
        return SDLORA_ENOMEM;
    seed(&fresh, c->source, c->seed);
    int rc = vary(s, &fresh, c->from_h, c->from_w, small);
    draw(&s->g, c->source, out, s->n);
    if (rc >= 0)
        paste(small, c->from_h, c->from_w, out, c);
    slr_free(s->m, small);
    return rc;
}

int slr_noise_first(slr_noise *n, float *out)
{
    const slr_noise_config *c = &n->c;
    bool other = c->from_h > 0 && c->from_w > 0 && (c->from_h != c->h || c->from_w != c->w);
    SLR_TRY(other ? resized(n, out) : vary(n, &n->g, c->h, c->w, out));
    if (c->ensd != 0)
        seed(&n->g, c->source, c->seed + (uint64_t)c->ensd);
    return SDLORA_OK;
}

int slr_noise_next(slr_noise *n, float *out)
{
    draw(&n->g, n->c.source, out, n->n);
    return SDLORA_OK;
}

/* --- Brownian --- */

int slr_noise_tree(slr_noise *n, double lo, double hi)
{
    slr_brownian_free(n->path);
    n->path = NULL;
    const slr_brownian_config config = {
        .entropy = n->c.seed,
        .lo = lo,
        .hi = hi,
        .n = n->n,
        .normals = n->c.source == SLR_NOISE_NV ? normals_nv : normals_cpu,
    };
    return slr_brownian_new(&n->path, n->m, &config);
}

int slr_noise_between(slr_noise *n, double from, double to, float *out)
{
    bool down = from > to;
    slr_require(n->path);
    SLR_TRY(slr_brownian_gain(n->path, down ? to : from, down ? from : to, out));
    /* The samplers go down, and the original turns the sign with the direction. */
    float unit = sqrtf(fabsf((float)to - (float)from)), sign = down ? -1.0f : 1.0f;
    for (size_t k = 0; k < n->n; k++)
        out[k] = unit > 0 ? sign * out[k] / unit : 0;
    return SDLORA_OK;
}
