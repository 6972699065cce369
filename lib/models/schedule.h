/* SPDX-License-Identifier: MIT */
/* The noise schedule of a family: 1000 steps of scaled-linear betas. */
#ifndef SLR_MODELS_SCHEDULE_H
#define SLR_MODELS_SCHEDULE_H

#define SLR_TIMESTEPS 1000

typedef struct slr_schedule {
    float alpha_bar[SLR_TIMESTEPS]; /* alphas_cumprod, computed in f64 and rounded */
    float sigma[SLR_TIMESTEPS];     /* sqrt((1-a)/a) */
    float log_sigma[SLR_TIMESTEPS];
} slr_schedule;
void slr_schedule_init(slr_schedule *s);
/* Rescales the table to end without signal ("zero terminal SNR"): square roots of alpha_bar are
 * moved and stretched so that the first stays and the last is zero; the last becomes `last`, since
 * samplers need a finite sigma (A1111: SLR_ZTSNR_LAST) and trainers do not (0: its sigma is
 * infinite). */
#define SLR_ZTSNR_LAST 4.8973451890853435e-08
void slr_schedule_rescale(slr_schedule *s, double last);
/* Fractional timestep of a sigma (linear in log sigma) and back. */
double slr_schedule_t(const slr_schedule *s, double sigma);
double slr_schedule_sigma(const slr_schedule *s, double t);

#endif
