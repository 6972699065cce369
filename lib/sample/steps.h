/* SPDX-License-Identifier: MIT */
/* What a pass goes through: sampler and schedule by name, and its sigmas or timesteps, whole or cut
 * as passes over a picture cut them.  Refuses to know models and latents. */
#ifndef SLR_SAMPLE_STEPS_H
#define SLR_SAMPLE_STEPS_H

#include "sample/settings.h"
#include "sample/solver.h"

typedef struct slr_steps {
    slr_mem *m;
    const slr_sampler_row *sampler;
    const slr_scheduler_row *scheduler; /* NULL: the sampler's own */
    bool automatic;                     /* "Automatic" was asked for */
    double *all;                        /* k-diffusion: the whole schedule */
    int n_all;
    const double *sigmas; /* in all: from where this pass starts */
    int n_sigmas;
    int *timesteps; /* timestep samplers: ascending */
    int n_timesteps;
    int start; /* timestep of the noise over the latents; 0: noise alone */
    int n;     /* steps of this pass, as asked for */
    int told;  /* steps that the sampler will tell of, as far as is known */
} slr_steps;

/* strength below 0: from noise alone.  exact: set->steps are made whatever the strength.  xl: the
 * model is SDXL.  Errors: ENOTSUP for names that are not in the tables. */
int slr_steps_new(slr_steps *out, slr_mem *m, const slr_settings *set, const slr_schedule *table,
                  bool xl, double strength, bool exact);
void slr_steps_free(slr_steps *s);

/* Evaluations that prompts count for so many steps. */
int slr_steps_evaluations(const slr_sampler_row *sampler, int steps);

#endif
