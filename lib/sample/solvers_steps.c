/* SPDX-License-Identifier: MIT */
/* Samplers over whole timesteps, whose x keeps the variance of the training data: DDIM, its CFG++
 * form, and PLMS.  All stop at the first timestep of their grid and leave its noise. */
#include <math.h>

#include "base/status.h"
#include "sample/solvers.h"

/* Levels of one step of the grid, from index `index` to the one below. */
typedef struct levels {
    double a, prev; /* alpha bar */
} levels;

static levels levels_at(const slr_sampling *s, int index)
{
    return (levels){s->schedule->alpha_bar[s->timesteps[index]],
                    s->schedule->alpha_bar[s->timesteps[index > 0 ? index - 1 : 0]]};
}

/* x0 = (x - sqrt(1 - a) eps) / sqrt(a) */
static void picture(slr_sampling *s, levels l, const float *eps, float *x0)
{
    SLR_MIX(s, x0, {1 / sqrt(l.a), s->x}, {-sqrt(1 - l.a) / sqrt(l.a), eps});
}

static int ddim(slr_sampling *s, bool cfgpp)
{
    float *eps = s->work[0], *x0 = s->work[1], *scratch = s->work[2];
    int last = s->n_timesteps - 1;
    for (int i = 0; i < last; i++) {
        int index = last - i; /* index 0 is never evaluated */
        levels l = levels_at(s, index);
        double sigma = s->eta * sqrt((1 - l.prev) / (1 - l.a) * (1 - l.a / l.prev));
        SLR_TRY(s->denoise(s->user, s->x, s->timesteps[index], eps));
        picture(s, l, eps, x0);
        int rc = slr_solver_step(s, i, last, x0);
        if (rc)
            return rc;
        const float *way = cfgpp && s->uncond ? s->uncond : eps;
        double back = 1 - l.prev - sigma * sigma;
        SLR_MIX(s, s->x, {sqrt(l.prev), x0}, {back > 0 ? sqrt(back) : 0, way});
        SLR_TRY(slr_solver_noise(s, scratch, sigma));
    }
    return SDLORA_OK;
}

int slr_solve_ddim(slr_sampling *s)
{
    return ddim(s, false);
}

int slr_solve_ddim_cfgpp(slr_sampling *s)
{
    return ddim(s, true);
}

/* x of the level below, into out (which may be x). */
static void step_down(slr_sampling *s, levels l, const float *eps, float *out)
{
    double w = sqrt(l.prev / l.a);
    SLR_MIX(s, out, {w, s->x}, {sqrt(1 - l.prev) - w * sqrt(1 - l.a), eps});
}

enum { PLMS_KEPT = 4 };

/* Adams-Bashforth over what is known of eps, newest first: now = mixture.  The first step takes the
 * mean with a look ahead, see below. */
static void plms_mix(slr_sampling *s, float *const e[PLMS_KEPT], int known, float *out)
{
    static const double weight[PLMS_KEPT][PLMS_KEPT] = {
        {1, 0, 0, 0},
        {3.0 / 2, -1.0 / 2, 0, 0},
        {23.0 / 12, -16.0 / 12, 5.0 / 12, 0},
        {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24},
    };
    slr_term terms[PLMS_KEPT];
    for (int k = 0; k < known; k++)
        terms[k] = (slr_term){weight[known - 1][k], e[k]};
    slr_mix(out, s->n, terms, known);
}

int slr_solve_plms(slr_sampling *s)
{
    float *now = s->work[4], *x0 = s->work[5];
    int last = s->n_timesteps - 1;
    for (int i = 0; i < last; i++) {
        int index = last - i;
        levels l = levels_at(s, index);
        float *e[PLMS_KEPT]; /* newest first */
        for (int k = 0; k < PLMS_KEPT; k++)
            e[k] = s->work[(i + PLMS_KEPT - k) % PLMS_KEPT];
        SLR_TRY(s->denoise(s->user, s->x, s->timesteps[index], e[0]));
        if (i == 0) { /* twice: where this eps leads to, the model is asked again */
            step_down(s, l, e[0], x0);
            SLR_TRY(s->denoise(s->user, x0, s->timesteps[index - 1], now));
            SLR_MIX(s, now, {0.5, e[0]}, {0.5, now});
        } else
            plms_mix(s, e, i < PLMS_KEPT ? i + 1 : PLMS_KEPT, now);
        picture(s, l, now, x0);
        step_down(s, l, now, s->x);
        int rc = slr_solver_step(s, i, last, x0);
        if (rc)
            return rc;
    }
    return SDLORA_OK;
}
