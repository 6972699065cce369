/* SPDX-License-Identifier: MIT */
/* Samplers and schedules as rows of two tables, under AUTOMATIC1111's names and with its
 * arithmetic.  Knows flat arrays and callbacks; refuses to know models and pictures. */
#ifndef SLR_SAMPLE_SOLVER_H
#define SLR_SAMPLE_SOLVER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/mem.h"
#include "models/schedule.h"

/* --- samplers --- */

enum { SLR_SOLVER_WORK = 12 }; /* scratch arrays that a sampler may ask for */

/* What a solver is given.  denoise: D(x, sigma) for k-diffusion samplers (slr_sampler_wrap() says
 * how D follows from a model's prediction); eps(x, t) for timestep samplers, t being whole but for
 * UniPC.
 */
typedef struct slr_sampling {
    slr_mem *m;           /* for what a solver needs beside x */
    size_t n;             /* floats in x */
    float *x;             /* in: initial noise or latents; out: result */
    const double *sigmas; /* k-diffusion: n_sigmas, of slr_sigmas() or a tail of them */
    int n_sigmas;
    const int *timesteps; /* timestep samplers: ascending, of slr_timesteps() or a head of them */
    int n_timesteps;
    int steps; /* as the caller asked for them: DPM fast makes them its evaluations */
    bool part; /* a part of the schedule only (img2img): DPM fast, DPM adaptive and UniPC care */
    const slr_schedule *schedule;
    double eta, s_churn, s_tmin, s_tmax, s_noise; /* of an s_tmax of 0 or less: no bound */
    const char *unipc_variant, *unipc_skip;       /* NULL: "bh1", "time_uniform" */
    int unipc_order;                              /* 0: 3; never more than there are steps */
    bool unipc_no_lower;                          /* the last steps keep their order */
    const float
        *uncond; /* after denoise(): eps without the prompt (DDIM CFG++); NULL: as with it */
    void *user;
    int (*denoise)(void *user, const float *x, double sigma_or_t, float *out); /* <0 ends the run */
    int (*noise)(void *user, float *out);                           /* next N(0,1) of the picture */
    int (*between)(void *user, double from, double to, float *out); /* Brownian, of unit variance */
    /* After each step, with the picture as it is thought to become; total 0: not known (DPM
     * adaptive).  <0 ends the run with that error, >0 with that picture in x. */
    int (*step)(void *user, int index, int total, const float *denoised);
    float *work[SLR_SOLVER_WORK]; /* slr_sampler_run() fills these */
} slr_sampling;

typedef struct slr_sampler_row {
    const char *name;           /* "DPM++ 2M" */
    const char *const *aliases; /* NULL-terminated: "k_dpmpp_2m" */
    const char *scheduler;      /* what "Automatic" means; NULL: timestep sampler */
    bool timesteps; /* a timestep sampler: noise is not scaled, masks are laid before the model */
    bool eta;       /* reads it; unless given it is 1, or 0 for timestep samplers */
    bool ensd;      /* infotext tells of ENSD, unless eta is 0 */
    bool churn;     /* reads s_churn, s_tmin, s_tmax */
    bool s_noise;   /* reads it; others have 1 */
    bool brownian;  /* calls between() */
    bool second;    /* two evaluations a step: prompts count them */
    bool discard;   /* one more sigma is asked for and the last but one is dropped */
    bool own;       /* makes its own sigmas from the ends of the schedule, or its own times */
    bool cfgpp;     /* reads uncond; guidance is divided by 12.5 */
    bool lcm; /* has levels and a wrapper of its own; slr_sigmas() and slr_sampler_wrap() know */
    int work; /* scratch arrays */
    int (*run)(slr_sampling *s);
} slr_sampler_row;

const slr_sampler_row *slr_samplers(size_t *n);
const slr_sampler_row *slr_sampler_find(const char *name); /* case-insensitive, aliases too; NULL */

/* Runs with scratch of its own.  1: step() ended it. */
int slr_sampler_run(const slr_sampler_row *row, slr_sampling *s);

/* D(x, sigma) = skip x + out f(in x, t), f being the model's prediction: eps, or v. */
typedef struct slr_wrap_factors {
    double t, in, skip, out;
} slr_wrap_factors;
slr_wrap_factors slr_sampler_wrap(const slr_sampler_row *row, const slr_schedule *schedule, bool v,
                                  double sigma);

/* --- schedules --- */

/* How sigmas are wanted.  Zeros are defaults. */
typedef struct slr_sigma_config {
    int steps;
    double sigma_min, sigma_max, rho; /* 0: the model's; the schedule's own */
    double beta_alpha, beta_beta;     /* 0: 0.6 */
    bool xl;                          /* Align Your Steps has a table of SDXL's */
    bool discard;                     /* drop the last but one whatever the sampler */
    bool old_karras;                  /* sigmas from 10 to 0.1 unless given */
} slr_sigma_config;

typedef struct slr_ladder slr_ladder; /* ladder.h */
typedef int (*slr_scheduler_fn)(const slr_ladder *l, const slr_sigma_config *c, float *out,
                                int cap);
typedef struct slr_scheduler_row {
    const char *name;        /* "Karras": as in infotext */
    const char *key;         /* "karras": as the API of AUTOMATIC1111 has it */
    double rho;              /* 0: takes none */
    slr_scheduler_fn sigmas; /* c has its defaults filled in; returns how many, or an error */
} slr_scheduler_row;

const slr_scheduler_row *slr_schedulers(size_t *n);            /* without "Automatic" */
const slr_scheduler_row *slr_scheduler_find(const char *name); /* name or key; NULL */

/* "Automatic" (or NULL) and names of both, old ("DPM++ 2M Karras", "k_lms_ka") and new.  *schedule
 * is NULL for timestep samplers; *automatic tells whether the caller left it open. Errors: ENOTSUP
 * names what there is not. */
int slr_sampler_choose(const char *sampler, const char *scheduler, const slr_sampler_row **row,
                       const slr_scheduler_row **schedule, bool *automatic);

/* Sigmas as a k-diffusion sampler takes them, with the trailing 0 where the schedule has one;
 * values are f32.  schedule NULL: the sampler's own.  *count <= SLR_MAX_SIGMAS = cap of out. */
enum { SLR_MAX_STEPS = 10000, SLR_MAX_SIGMAS = SLR_MAX_STEPS + 2 };
int slr_sigmas(const slr_sampler_row *row, const slr_scheduler_row *schedule,
               const slr_schedule *model, const slr_sigma_config *c, double *out, int *count);
/* Timesteps of a timestep sampler, ascending, out holding SLR_TIMESTEPS. */
int slr_timesteps(const slr_sampler_row *row, int steps, bool discard, int *out, int *count);

#endif
