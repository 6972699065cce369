/* SPDX-License-Identifier: MIT */
/* Samplers and schedules as rows of two tables (names and formulas of inference.md §4). */
#ifndef SLR_SAMPLE_SOLVER_H
#define SLR_SAMPLE_SOLVER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/mem.h"
#include "models/schedule.h"

/* Sigmas for n steps with the trailing 0; *count receives how many. out holds cap values. */
typedef int (*slr_scheduler_fn)(const slr_schedule *s, int steps, double sigma_min,
                                double sigma_max, double *out, int cap, int *count);
typedef struct slr_scheduler_row {
    const char *name; /* "Karras": as in infotext */
    slr_scheduler_fn sigmas;
} slr_scheduler_row;

/* What a solver is given.  denoise: D(x, sigma) for k-diffusion samplers; eps(x, t) for timestep
 * samplers. */
typedef struct slr_sampling {
    size_t n;             /* floats in x (all images) */
    float *x;             /* in: initial noise or latents; out: result */
    float *work[4];       /* scratch of n floats each */
    const double *sigmas; /* k-diffusion: n_sigmas incl. trailing 0 */
    int n_sigmas;
    const int *timesteps; /* timestep samplers: ascending */
    int n_timesteps;
    const slr_schedule *schedule;
    double eta, s_churn, s_tmin, s_tmax, s_noise;
    void *user;
    int (*denoise)(void *user, const float *x, double sigma_or_t, float *out); /* <0 ends the run */
    int (*noise)(void *user, float *out); /* next N(0,1) of every image */
    int (*step)(void *user, int index, int total,
                const float *denoised); /* after each; <0 or >0 ends */
} slr_sampling;

typedef struct slr_sampler_row {
    const char *name;           /* "DPM++ 2M" */
    const char *const *aliases; /* NULL-terminated: "k_dpmpp_2m" */
    const char *scheduler;      /* default schedule's name; NULL: timestep sampler */
    bool timesteps, eta;        /* eta: the sampler reads it */
    int (*run)(slr_sampling *s);
} slr_sampler_row;

const slr_sampler_row *slr_samplers(size_t *n);
const slr_scheduler_row *slr_schedulers(size_t *n);
const slr_sampler_row *slr_sampler_find(const char *name); /* case-insensitive, aliases too; NULL */
const slr_scheduler_row *slr_scheduler_find(const char *name); /* NULL */

#endif
