/* SPDX-License-Identifier: MIT */
/* The noise schedule's tables and the map between noise level and timestep.  Refuses to know
 * solvers and losses. */
#include "models/schedule.h"

#include <math.h>

/* Scaled-linear betas: the square roots are spaced evenly. */
static const double BETA_FIRST = 0.00085, BETA_LAST = 0.012;

void slr_schedule_init(slr_schedule *s)
{
    double product = 1.0, a = sqrt(BETA_FIRST), b = sqrt(BETA_LAST);
    for (int i = 0; i < SLR_TIMESTEPS; i++) {
        double root = a + (b - a) * i / (SLR_TIMESTEPS - 1);
        product *= 1.0 - root * root;
        s->alpha_bar[i] = (float)product;
        /* from the rounded value, as every implementation that stores alphas_cumprod in f32 does */
        double rounded = s->alpha_bar[i];
        s->sigma[i] = (float)sqrt((1.0 - rounded) / rounded);
        s->log_sigma[i] = logf(s->sigma[i]);
    }
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
