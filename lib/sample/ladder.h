/* SPDX-License-Identifier: MIT */
/* Noise levels as k-diffusion keeps them: f32 tables and f32 arithmetic.
 * SDE samplers look their noise up by sigmas rounded to six decimals, where the last bit of an f32
 * is another noise; so the last bit matters here and nowhere else. */
#ifndef SLR_SAMPLE_LADDER_H
#define SLR_SAMPLE_LADDER_H

#include "models/schedule.h"

struct slr_ladder {
    int n;           /* levels */
    int first, skip; /* level i belongs to timestep first + i * skip */
    float sigma[SLR_TIMESTEPS], log_sigma[SLR_TIMESTEPS]; /* ascending */
};
typedef struct slr_ladder slr_ladder;

void slr_ladder_init(slr_ladder *l, const slr_schedule *s);
/* Every 20th level, as LCM's students were taught. */
void slr_ladder_init_lcm(slr_ladder *l, const slr_schedule *s);
/* Timestep of a sigma: between two levels, and with LCM the nearest. */
float slr_ladder_t(const slr_ladder *l, float sigma);
float slr_ladder_sigma(const slr_ladder *l, float t);

/* Right to the last bit; and torch's i-th of n values from a to b. */
float slr_f32_exp(float x);
float slr_f32_log(float x);
float slr_f32_pow(float x, double y);
float slr_f32_line(float a, float b, int i, int n);

/* The schedule of Karras et al., without a 0 behind it: n values. */
void slr_ladder_karras(float *out, int n, double lo, double hi, double rho);

#endif
