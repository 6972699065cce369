/* SPDX-License-Identifier: MIT */
/* Asks the tables for sigmas or timesteps and cuts them as passes over a picture do.  Refuses to
 * know formulas: those are the tables'. */
#include "sample/steps.h"

#include <math.h>

#include "base/status.h"

int slr_steps_evaluations(const slr_sampler_row *sampler, int steps)
{
    return sampler->second ? 2 * steps : steps;
}

/* How many steps the schedule has, and at which of them, counted from its end, this pass starts. */
static void cut(const slr_settings *set, double strength, bool exact, int *steps, int *end)
{
    double part = fmin(strength, 0.999);
    if (exact || set->fix_steps) {
        double whole = part > 0 ? set->steps / part : 0;
        *steps = whole <= SLR_MAX_STEPS ? (int)whole : SLR_MAX_STEPS + 1;
        *end = set->steps - 1;
    } else {
        *steps = set->steps;
        *end = (int)(part * set->steps);
    }
}

static int make_sigmas(slr_steps *s, const slr_settings *set, const slr_schedule *table, bool xl,
                       int steps, int first)
{
    slr_sigma_config c = {.steps = steps,
                          .sigma_min = set->sigma_min,
                          .sigma_max = set->sigma_max,
                          .rho = set->rho,
                          .beta_alpha = set->beta_alpha,
                          .beta_beta = set->beta_beta,
                          .xl = xl,
                          .discard = set->discard,
                          .old_karras = set->old_karras};
    s->all = slr_calloc(s->m, SLR_MAX_SIGMAS, sizeof *s->all);
    if (!s->all)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_sigmas(s->sampler, s->scheduler, table, &c, s->all, &s->n_all));
    if (first > s->n_all - 2) /* a schedule that is shorter than it was asked to be */
        first = s->n_all - 2;
    s->sigmas = s->all + (first > 0 ? first : 0);
    s->n_sigmas = s->n_all - (first > 0 ? first : 0);
    s->told = s->n_sigmas - 1;
    return SDLORA_OK;
}

static int make_timesteps(slr_steps *s, const slr_settings *set, int steps, int end)
{
    s->timesteps = slr_calloc(s->m, SLR_TIMESTEPS, sizeof *s->timesteps);
    if (!s->timesteps)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_timesteps(s->sampler, steps, set->discard, s->timesteps, &s->n_timesteps));
    if (end >= 0) {
        s->n_timesteps = end < s->n_timesteps ? end : s->n_timesteps - 1;
        s->start = s->timesteps[s->n_timesteps];
    }
    s->told = s->sampler->own ? s->n_timesteps : s->n_timesteps - 1;
    return SDLORA_OK;
}

int slr_steps_new(slr_steps *out, slr_mem *m, const slr_settings *set, const slr_schedule *table,
                  bool xl, double strength, bool exact)
{
    int steps = set->steps, end = -1, rc;
    *out = (slr_steps){.m = m};
    SLR_TRY(slr_sampler_choose(set->sampler ? set->sampler : "Euler a", set->scheduler,
                               &out->sampler, &out->scheduler, &out->automatic));
    if (strength >= 0)
        cut(set, strength, exact, &steps, &end);
    if (set->steps < 1 || steps < 1 || steps > SLR_MAX_STEPS)
        return slr_fail(SDLORA_EINVAL, __func__, "steps %d are not between 1 and %d", steps,
                        SLR_MAX_STEPS);
    out->n = end < 0 ? steps : end + 1;
    if (out->sampler->timesteps)
        rc = make_timesteps(out, set, steps, end);
    else
        rc = make_sigmas(out, set, table, xl, steps, end < 0 ? 0 : steps - end - 1);
    if (rc < 0)
        slr_steps_free(out);
    return rc;
}

void slr_steps_free(slr_steps *s)
{
    slr_free(s->m, s->all);
    slr_free(s->m, s->timesteps);
    s->all = NULL;
    s->timesteps = NULL;
}
