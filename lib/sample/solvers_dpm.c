/* SPDX-License-Identifier: MIT */
/* DPM-Solver in its first form (Lu et al., 2022): "fast" splits a number of evaluations into steps
 * of third order, "adaptive" chooses its steps by the difference of two orders.  Both walk in t =
 * -log sigma between the ends of the schedule and know no sigmas between; both stop at sigma_min
 * and leave that much noise. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "sample/ladder.h"
#include "sample/solvers.h"

/* A step in the making: eps at its start is known; eps at a first and a second point between may
 * be. */
typedef struct dpm_step {
    slr_sampling *s;
    float *eps, *first, *second, *u; /* u: scratch */
    float t, next;
} dpm_step;

static float sigma_of(float t)
{
    return slr_f32_exp(-t);
}

/* e^h - 1, and e^h - 1 over h less 1, of which most is lost in f32. */
static float growth(float h)
{
    return (float)expm1((double)h);
}

static float bending(float h)
{
    return growth(h) / h - 1.0f;
}

/* eps = (x - D) / sigma, in place of D. */
static int predict(slr_sampling *s, const float *x, float t, float *eps)
{
    float sigma = sigma_of(t);
    SLR_TRY(s->denoise(s->user, x, sigma, eps));
    SLR_MIX(s, eps, {1.0 / sigma, x}, {-1.0 / sigma, eps});
    return SDLORA_OK;
}

/* eps at the fraction r of the step. */
static int predict_first(const dpm_step *d, double r)
{
    float h = (float)r * (d->next - d->t), at = d->t + h;
    SLR_MIX(d->s, d->u, {1, d->s->x}, {-sigma_of(at) * growth(h), d->eps});
    return predict(d->s, d->u, at, d->first);
}

/* The same for r2, with what is known at r1. */
static int predict_second(const dpm_step *d, double r1, double r2)
{
    float h = (float)r2 * (d->next - d->t), at = d->t + h;
    float grow = sigma_of(at) * growth(h), bend = sigma_of(at) * (float)(r2 / r1) * bending(h);
    SLR_MIX(d->s, d->u, {1, d->s->x}, {(double)bend - grow, d->eps}, {-bend, d->first});
    return predict(d->s, d->u, at, d->second);
}

static void finish_1(const dpm_step *d, float *out)
{
    SLR_MIX(d->s, out, {1, d->s->x}, {-sigma_of(d->next) * growth(d->next - d->t), d->eps});
}

/* r: where `first` is. */
static void finish_2(const dpm_step *d, double r, float *out)
{
    float sigma = sigma_of(d->next), grow = growth(d->next - d->t),
          bend = sigma / (float)(2 * r) * grow;
    SLR_MIX(d->s, out, {1, d->s->x}, {(double)bend - sigma * grow, d->eps}, {-bend, d->first});
}

/* r2: where `second` is. */
static void finish_3(const dpm_step *d, double r2, float *out)
{
    float h = d->next - d->t, sigma = sigma_of(d->next), bend = sigma / (float)r2 * bending(h);
    SLR_MIX(d->s, out, {1, d->s->x}, {(double)bend - sigma * growth(h), d->eps},
            {-bend, d->second});
}

/* The ends of the way are the model's, whatever the schedule; with a part of it they are the
 * part's. */
static int ends(const slr_sampling *s, float *t_start, float *t_end)
{
    double hi = s->part ? s->sigmas[0] : s->schedule->sigma[SLR_TIMESTEPS - 1],
           lo = s->part ? s->sigmas[s->n_sigmas > 1 ? s->n_sigmas - 2 : 0] : s->schedule->sigma[0];
    if (!(lo > 0 && hi > lo))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "there is no way from sigma %g to %g: more steps, or a greater strength",
                        hi, lo);
    *t_start = -slr_f32_log((float)hi);
    *t_end = -slr_f32_log((float)lo);
    return SDLORA_OK;
}

/* Where a step towards `to` really ends, and the noise that then leads to `to`. */
static float split(const slr_sampling *s, float from, float to, float t_end, double *up)
{
    double down;
    *up = 0;
    if (s->eta == 0)
        return to;
    slr_solver_ancestral(sigma_of(from), sigma_of(to), s->eta, &down, up);
    float next = fminf(t_end, -slr_f32_log((float)down));
    float a = sigma_of(to), b = sigma_of(next);
    *up = a > b ? sqrtf(a * a - b * b) : 0;
    return next;
}

/* x - sigma eps, into out. */
static void estimate(const dpm_step *d, float *out)
{
    SLR_MIX(d->s, out, {1, d->s->x}, {-sigma_of(d->t), d->eps});
}

/* --- fast --- */

static int fast_step(dpm_step *d, int order)
{
    slr_sampling *s = d->s;
    if (order == 1) {
        finish_1(d, s->x);
        return SDLORA_OK;
    }
    SLR_TRY(predict_first(d, order == 2 ? 1.0 / 2 : 1.0 / 3));
    if (order == 2) {
        finish_2(d, 1.0 / 2, s->x);
        return SDLORA_OK;
    }
    SLR_TRY(predict_second(d, 1.0 / 3, 2.0 / 3));
    finish_3(d, 2.0 / 3, s->x);
    return SDLORA_OK;
}

int slr_solve_dpm_fast(slr_sampling *s)
{
    float t_start, t_end;
    int n = s->part ? s->n_sigmas - 1 : s->steps, count = n / 3 + 1;
    float *scratch = s->work[4];
    SLR_TRY(ends(s, &t_start, &t_end));
    for (int i = 0; i < count; i++) {
        /* threes; the rest is a step of 1 or 2, and where there is no rest a 2 and a 1 make one */
        int order = i < count - 2 || (i == count - 2 && n % 3) ? 3
                    : i == count - 2                           ? 2
                    : n % 3                                    ? n % 3
                                                               : 1;
        double up;
        dpm_step d = {s, s->work[0], s->work[1], s->work[2], s->work[3], 0, 0};
        float to = slr_f32_line(t_start, t_end, i + 1, count + 1);
        d.t = slr_f32_line(t_start, t_end, i, count + 1);
        d.next = split(s, d.t, to, t_end, &up);
        SLR_TRY(predict(s, s->x, d.t, d.eps));
        estimate(&d, scratch);
        int rc = slr_solver_step(s, i, count, scratch);
        if (rc)
            return rc;
        SLR_TRY(fast_step(&d, order));
        SLR_TRY(slr_solver_noise(s, scratch, up * s->s_noise));
    }
    return SDLORA_OK;
}

/* --- adaptive --- */

/* Its constants, as k-diffusion calls it: third order, whose error is taken for that of order 1.5
 * when there is noise. */
static const double RTOL = 0.05, ATOL = 0.0078, H_INIT = 0.05, SAFETY = 0.81;

/* Root of the mean square of the difference, in units of what is tolerated. */
static double difference(const float *low, const float *high, const float *before, size_t n)
{
    double sum = 0;
    for (size_t k = 0; k < n; k++) {
        double unit = fmax(ATOL, RTOL * fmax(fabs((double)low[k]), fabs((double)before[k])));
        double e = ((double)low[k] - high[k]) / unit;
        sum += e * e;
    }
    return sqrt(sum / (double)n);
}

/* One trial of a step; *factor says how the next should be longer, or this one shorter. */
static int trial(dpm_step *d, float *low, float *high, const float *before, double *factor)
{
    SLR_TRY(predict_first(d, 1.0 / 3));
    finish_2(d, 1.0 / 3, low);
    SLR_TRY(predict_second(d, 1.0 / 3, 2.0 / 3));
    finish_3(d, 2.0 / 3, high);
    double error = difference(low, high, before, d->s->n), power = d->s->eta != 0 ? 1.5 : 3;
    if (!isfinite(error))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "the model's prediction is not finite, so no step is short enough");
    *factor = 1 + atan(pow(1 / (error + 1e-8), 1 / power) - 1);
    return SDLORA_OK;
}

int slr_solve_dpm_adaptive(slr_sampling *s)
{
    enum { TRIALS = 10000 };
    dpm_step d = {s, s->work[0], s->work[1], s->work[2], s->work[3], 0, 0};
    float *low = s->work[4], *high = s->work[5], *before = s->work[6], *scratch = s->work[7];
    float t, t_end;
    double h = H_INIT;
    SLR_TRY(ends(s, &t, &t_end));
    memcpy(before, s->x, s->n * sizeof *before);
    for (int i = 0; t < t_end - 1e-5f; i++) {
        double up, factor = 0;
        float to = fminf(t_end, t + (float)h);
        d.t = t;
        d.next = split(s, t, to, t_end, &up);
        if (i == TRIALS)
            return slr_fail(SDLORA_EINVAL, __func__, "%d steps did not reach sigma %g", i,
                            sigma_of(t_end));
        SLR_TRY(predict(s, s->x, t, d.eps));
        estimate(&d, scratch);
        SLR_TRY(trial(&d, low, high, before, &factor));
        h *= factor;
        if (factor >= SAFETY) {
            memcpy(before, low, s->n * sizeof *low);
            memcpy(s->x, high, s->n * sizeof *high);
            t = to;
        }
        int rc = slr_solver_step(s, i, 0, scratch);
        if (rc)
            return rc;
        if (factor >= SAFETY)
            SLR_TRY(slr_solver_noise(s, scratch, up * s->s_noise));
    }
    return SDLORA_OK;
}
