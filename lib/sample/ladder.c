/* SPDX-License-Identifier: MIT */
/* Noise levels in torch's arithmetic.  Knows the order in which torch rounds, and SLEEF's powf
 * (Shibata and Petrogalli, "SLEEF: A portable vectorized library", 2020), which torch calls: its
 * constants are below.  torch's exp, log and tan are Intel's and differ from processor to
 * processor; rounded doubles stand for them.  Refuses to know schedules. */
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

/* ln 2 as two floats, and as it is taken off again. */
static const double LN2 = (double)0.69314718246459960938f + (double)-1.904654323148236017e-09f;
static const double LN2_HIGH = 0.693145751953125f, LN2_LOW = 1.428606765330187045e-06f;

/* ln x in more than f32, from m in [0.75, 1.5). */
static double log_wide(float x)
{
    int e;
    double m = frexp((double)x, &e); /* in [0.5, 1) */
    if (m < 0.75) {
        m *= 2;
        e--;
    }
    double q = (m - 1) / (m + 1), q2 = q * q;
    float t = 0.240320354700088500976562f;
    t = fmaf(t, (float)q2, 0.285112679004669189453125f);
    t = fmaf(t, (float)q2, 0.400007992982864379882812f);
    double third = (double)0.66666662693023681640625f + (double)3.69183861259614332084311e-09f;
    return LN2 * e + 2 * q + q2 * q * (q2 * (double)t + third);
}

float slr_f32_pow(float x, float y)
{
    double v = log_wide(x) * (double)y;
    float n = rintf((float)v * 1.442695040888963407f);
    double s = v - n * LN2_HIGH - n * LN2_LOW;
    if (x <= 0 || fabs(v) > 80) /* nothing of a schedule */
        return (float)pow((double)x, (double)y);
    float t = 0.00136324646882712841033936f;
    t = fmaf(t, (float)s, 0.00836596917361021041870117f);
    t = fmaf(t, (float)s, 0.0416710823774337768554688f);
    t = fmaf(t, (float)s, 0.166665524244308471679688f);
    t = fmaf(t, (float)s, 0.499999850988388061523438f);
    return (float)ldexp(1 + (s + s * s * (double)t), (int)n);
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
        out[i] = slr_f32_pow((float)a + ramp * (float)(b - a), (float)rho);
    }
}
