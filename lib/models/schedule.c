/* SPDX-License-Identifier: MIT */
/* The noise schedule's tables and the map between noise level and timestep.  Refuses to know
 * solvers and losses. */
#include "models/schedule.h"

#include <math.h>

/* Scaled-linear betas: the square roots are spaced evenly. */
static const double BETA_FIRST = 0.00085, BETA_LAST = 0.012;

/* From the rounded alpha_bar and in f32, as k-diffusion does: samplers whose noise hangs on the
 * last bit of a sigma want the same one. */
static void fill_sigmas(slr_schedule *s)
{
    for (int i = 0; i < SLR_TIMESTEPS; i++) {
        float a = s->alpha_bar[i];
        s->sigma[i] = sqrtf((1.0F - a) / a);
        s->log_sigma[i] = (float)log((double)s->sigma[i]);
    }
}

void slr_schedule_init(slr_schedule *s)
{
    double product = 1.0, a = sqrt(BETA_FIRST), b = sqrt(BETA_LAST);
    for (int i = 0; i < SLR_TIMESTEPS; i++) {
        double root = a + (b - a) * i / (SLR_TIMESTEPS - 1);
        product *= 1.0 - root * root;
        s->alpha_bar[i] = (float)product;
    }
    fill_sigmas(s);
}

void slr_schedule_rescale(slr_schedule *s, double last)
{
    /* in f32 as A1111 computes it: near the end roots differ by little, and rounding shows */
    float first = sqrtf(s->alpha_bar[0]), end = sqrtf(s->alpha_bar[SLR_TIMESTEPS - 1]);
    float stretch = first / (first - end);
    for (int i = 0; i < SLR_TIMESTEPS; i++) {
        float root = (sqrtf(s->alpha_bar[i]) - end) * stretch;
        s->alpha_bar[i] = root * root;
    }
    s->alpha_bar[SLR_TIMESTEPS - 1] = (float)last;
    fill_sigmas(s);
}

double slr_schedule_t(const slr_schedule *s, double sigma)
{
    double x = log(sigma);
    int low = 0, high = SLR_TIMESTEPS - 1; /* the last entry <= x, at most n - 2 */
    while (high - low > 1) {
        int mid = low + (high - low) / 2;
        if (s->log_sigma[mid] <= x)
            low = mid;
        else
            high = mid;
    }
    double w = (x - s->log_sigma[low]) / ((double)s->log_sigma[low + 1] - s->log_sigma[low]);
    return low + fmin(fmax(w, 0.0), 1.0);
}

double slr_schedule_sigma(const slr_schedule *s, double t)
{
    t = fmin(fmax(t, 0.0), SLR_TIMESTEPS - 1.0);
    int low = (int)t, high = low + 1 < SLR_TIMESTEPS ? low + 1 : low;
    double w = t - low;
    return exp((1.0 - w) * s->log_sigma[low] + w * s->log_sigma[high]);
}
