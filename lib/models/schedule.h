/* SPDX-License-Identifier: MIT */
/* The noise schedule of a family: 1000 steps of scaled-linear betas (training.md §5.1, inference.md
 * §4.1). */
#ifndef SLR_MODELS_SCHEDULE_H
#define SLR_MODELS_SCHEDULE_H

#define SLR_TIMESTEPS 1000

typedef struct slr_schedule {
    float alpha_bar[SLR_TIMESTEPS]; /* alphas_cumprod, computed in f64 and rounded */
    float sigma[SLR_TIMESTEPS];     /* sqrt((1-a)/a) */
    float log_sigma[SLR_TIMESTEPS];
} slr_schedule;
void slr_schedule_init(slr_schedule *s);
/* Fractional timestep of a sigma (linear in log sigma) and back. */
double slr_schedule_t(const slr_schedule *s, double sigma);
double slr_schedule_sigma(const slr_schedule *s, double t);

#endif
