/* SPDX-License-Identifier: MIT */
/* Noise levels in the order in which torch rounds.  Its exp, log, pow and tan depend on the
 * processor and on the length of the array in their last bit (Intel's functions, SLEEF's, the C
 * library's); rounded doubles stand for them, which is what most of them give most of the time.
 * Refuses to know schedules. */
#include "sample/ladder.h"

#include <math.h>

enum { LCM_LEVELS = 50 };

float slr_f32_exp(float x)
{
    return (float)exp((double)x);
}

float slr_f32_log(float x)
{
    return (float)log((double)x);
}

float slr_f32_pow(float x, double y)
{
    return (float)pow((double)x, y);
}

float slr_f32_line(float a, float b, int i, int n)
{
    if (n < 2)
        return a;
    float step = (b - a) / (float)(n - 1);
    return i < n / 2 ? fmaf(step, (float)i, a) : fmaf(-step, (float)(n - 1 - i), b);
}

/* Levels `first`, `first` + `skip`, ... of the model's table. */
static void fill(slr_ladder *l, const slr_schedule *s, int first, int skip)
{
    l->first = first;
    l->skip = skip;
    l->n = 0;
    for (int i = first; i < SLR_TIMESTEPS; i += skip, l->n++) {
        float a = s->alpha_bar[i];
        l->sigma[l->n] = sqrtf((1.0f - a) / a);
        l->log_sigma[l->n] = slr_f32_log(l->sigma[l->n]);
    }
}

void slr_ladder_init(slr_ladder *l, const slr_schedule *s)
{
    fill(l, s, 0, 1);
}

void slr_ladder_init_lcm(slr_ladder *l, const slr_schedule *s)
{
    int skip = SLR_TIMESTEPS / LCM_LEVELS;
    fill(l, s, skip - 1, skip);
}

static int nearest(const slr_ladder *l, float x)
{
    int best = 0;
    for (int i = 1; i < l->n; i++)
        if (fabsf(x - l->log_sigma[i]) < fabsf(x - l->log_sigma[best]))
            best = i;
    return best;
}

float slr_ladder_t(const slr_ladder *l, float sigma)
{
    float x = slr_f32_log(sigma);
    if (l->skip > 1)
        return (float)(nearest(l, x) * l->skip + l->first);
    int low = 0, high = l->n - 1; /* low: the last level <= x, at most n - 2 */
    while (high - low > 1) {
        int mid = low + (high - low) / 2;
        if (l->log_sigma[mid] <= x)
            low = mid;
        else
            high = mid;
    }
    float w = (l->log_sigma[low] - x) / (l->log_sigma[low] - l->log_sigma[low + 1]);
    w = fminf(fmaxf(w, 0.0f), 1.0f);
    return (1.0f - w) * (float)low + w * (float)(low + 1);
}

float slr_ladder_sigma(const slr_ladder *l, float t)
{
    float at = (t - (float)l->first) / (float)l->skip;
    at = fminf(fmaxf(at, 0.0f), (float)(l->n - 1));
    int low = (int)at, high = (int)ceilf(at);
    float w = at - (float)low;
    return slr_f32_exp((1.0f - w) * l->log_sigma[low] + w * l->log_sigma[high]);
}

void slr_ladder_karras(float *out, int n, double lo, double hi, double rho)
{
    double a = pow(hi, 1 / rho), b = pow(lo, 1 / rho);
    for (int i = 0; i < n; i++) {
        float ramp = slr_f32_line(0, 1, i, n);
        out[i] = slr_f32_pow((float)a + ramp * (float)(b - a), rho);
    }
}
