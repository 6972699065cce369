/* SPDX-License-Identifier: MIT */
/* Samplers that follow the ordinary differential equation dx/dsigma = (x - D) / sigma, some after
 * raising the noise a little ("churn"), and Restart, which goes back up now and then.  Refuses to
 * know random numbers but for the callback. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "sample/ladder.h"
#include "sample/solvers.h"

/* x of Euler's step from sigma to `to`, into out. */
static void euler_to(slr_sampling *s, double sigma, double to, const float *denoised, float *out)
{
    double w = to / sigma;
    SLR_MIX(s, out, {w, s->x}, {1 - w, denoised});
}

int slr_solve_euler(slr_sampling *s)
{
    float *denoised = s->work[0], *scratch = s->work[1];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        double sigma;
        SLR_TRY(slr_solver_churn(s, i, scratch, &sigma));
        SLR_TRY(s->denoise(s->user, s->x, sigma, denoised));
        int rc = slr_solver_step(s, i, last, denoised);
        if (rc)
            return rc;
        euler_to(s, sigma, s->sigmas[i + 1], denoised, s->x);
    }
    return SDLORA_OK;
}

/* The second half of Heun's step from sigma to `to` > 0, D at its start being known: the mean of
 * the slopes at both ends. */
static int heun_finish(slr_sampling *s, double sigma, double to, const float *denoised)
{
    float *ahead = s->work[2], *second = s->work[3];
    double dt = to - sigma;
    euler_to(s, sigma, to, denoised, ahead);
    SLR_TRY(s->denoise(s->user, ahead, to, second));
    SLR_MIX(s, s->x, {1 + dt / (2 * sigma), s->x}, {-dt / (2 * sigma), denoised},
            {dt / (2 * to), ahead}, {-dt / (2 * to), second});
    return SDLORA_OK;
}

int slr_solve_heun(slr_sampling *s)
{
    float *denoised = s->work[0], *scratch = s->work[1];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        double sigma, to = s->sigmas[i + 1];
        SLR_TRY(slr_solver_churn(s, i, scratch, &sigma));
        SLR_TRY(s->denoise(s->user, s->x, sigma, denoised));
        int rc = slr_solver_step(s, i, last, denoised);
        if (rc)
            return rc;
        if (to == 0)
            euler_to(s, sigma, to, denoised, s->x);
        else
            SLR_TRY(heun_finish(s, sigma, to, denoised));
    }
    return SDLORA_OK;
}

int slr_solve_dpm2(slr_sampling *s)
{
    float *denoised = s->work[0], *scratch = s->work[1], *middle = s->work[2];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        double sigma, to = s->sigmas[i + 1];
        SLR_TRY(slr_solver_churn(s, i, scratch, &sigma));
        SLR_TRY(s->denoise(s->user, s->x, sigma, denoised));
        int rc = slr_solver_step(s, i, last, denoised);
        if (rc)
            return rc;
        if (to == 0) {
            euler_to(s, sigma, to, denoised, s->x);
            continue;
        }
        double half = sqrt(sigma * to), dt = to - sigma;
        euler_to(s, sigma, half, denoised, middle);
        SLR_TRY(s->denoise(s->user, middle, half, scratch));
        SLR_MIX(s, s->x, {1, s->x}, {dt / half, middle}, {-dt / half, scratch});
    }
    return SDLORA_OK;
}

/* --- linear multistep --- */

enum { LMS_ORDER = 4 };

/* Integral from sigma i to i + 1 of the polynomial that is 1 at sigma i - j and 0 at the other of
 * the last `order` ones.  Two points of Gauss are exact to the third power. */
static double lms_weight(const double *sigma, int i, int j, int order)
{
    double middle = (sigma[i] + sigma[i + 1]) / 2, half = (sigma[i + 1] - sigma[i]) / 2, sum = 0;
    for (int side = -1; side <= 1; side += 2) {
        double at = middle + side * half / sqrt(3.0), product = 1;
        for (int k = 0; k < order; k++)
            if (k != j)
                product *= (at - sigma[i - k]) / (sigma[i - j] - sigma[i - k]);
        sum += product;
    }
    return half * sum;
}

int slr_solve_lms(slr_sampling *s)
{
    float *denoised = s->work[0], **slope = &s->work[1]; /* slope[i % LMS_ORDER] */
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        int order = i + 1 < LMS_ORDER ? i + 1 : LMS_ORDER;
        slr_term terms[LMS_ORDER + 1] = {{1, s->x}};
        SLR_TRY(s->denoise(s->user, s->x, s->sigmas[i], denoised));
        SLR_MIX(s, slope[i % LMS_ORDER], {1 / s->sigmas[i], s->x}, {-1 / s->sigmas[i], denoised});
        int rc = slr_solver_step(s, i, last, denoised);
        if (rc)
            return rc;
        for (int j = 0; j < order; j++)
            terms[j + 1] =
                (slr_term){lms_weight(s->sigmas, i, j, order), slope[(i - j) % LMS_ORDER]};
        slr_mix(s->x, s->n, terms, order + 1);
    }
    return SDLORA_OK;
}

/* --- DPM-Solver++(2M) --- */

int slr_solve_dpmpp_2m(slr_sampling *s)
{
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        float *denoised = s->work[i % 2], *old = s->work[(i + 1) % 2];
        double from = s->sigmas[i], to = s->sigmas[i + 1];
        SLR_TRY(s->denoise(s->user, s->x, from, denoised));
        int rc = slr_solver_step(s, i, last, denoised);
        if (rc)
            return rc;
        double keep = to / from, now = 1 - keep, before = 0;
        if (i > 0 && to > 0) {
            double r = log(s->sigmas[i - 1] / from) / log(from / to);
            before = -now / (2 * r);
            now -= before;
        }
        if (i > 0)
            SLR_MIX(s, s->x, {keep, s->x}, {now, denoised}, {before, old});
        else
            SLR_MIX(s, s->x, {keep, s->x}, {now, denoised});
    }
    return SDLORA_OK;
}

/* --- Restart (Xu et al., 2023) --- */

static int nearest(const float *sigma, int n, double to)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (fabs(sigma[i] - to) < fabs(sigma[best] - to))
            best = i;
    return best;
}

/* Steps as pairs (from, to); returns their number, which is that of the given sigmas less one. With
 * 20 steps and more some of them go again over the way from sigma 2 down to 0.1.  sigma, way: as
 * many floats as there are sigmas; pair: twice as many. */
static int restart_plan(const slr_sampling *s, float *sigma, float *way, float *pair)
{
    int steps = s->n_sigmas - 1, again = 0, times = 0, n = s->n_sigmas, count = 0;
    for (int i = 0; i < n; i++)
        sigma[i] = (float)s->sigmas[i];
    if (steps >= 20) {
        again = steps >= 36 ? steps / 4 : 9;
        times = steps >= 36 ? 2 : 1;
        n = steps - again * times + 1;
        slr_ladder_karras(sigma, n - 1, s->sigmas[steps - 1], s->sigmas[0], 7);
        sigma[n - 1] = 0;
    }
    int low = nearest(sigma, n, 0.1), high = nearest(sigma, n, 2);
    if (times)
        slr_ladder_karras(way, again + 1, sigma[low], sigma[high], 7);
    for (int i = 0; i + 1 < n; i++) {
        pair[2 * count] = sigma[i];
        pair[2 * count++ + 1] = sigma[i + 1];
        for (int k = 0; k < times && i + 1 == low && high < low; k++)
            for (int j = 0; j < again; j++) {
                pair[2 * count] = way[j];
                pair[2 * count++ + 1] = way[j + 1];
            }
    }
    return count;
}

static int restart_run(slr_sampling *s, const float *pair, int count)
{
    float *denoised = s->work[0], *scratch = s->work[1];
    for (int i = 0; i < count; i++) {
        double from = pair[2 * i], to = pair[2 * i + 1], was = i ? pair[2 * i - 1] : from;
        if (was < from)
            SLR_TRY(slr_solver_noise(s, scratch, s->s_noise * sqrt(from * from - was * was)));
        SLR_TRY(s->denoise(s->user, s->x, from, denoised));
        int rc = slr_solver_step(s, i, count, denoised);
        if (rc)
            return rc;
        if (to == 0)
            euler_to(s, from, to, denoised, s->x);
        else
            SLR_TRY(heun_finish(s, from, to, denoised));
    }
    return SDLORA_OK;
}

int slr_solve_restart(slr_sampling *s)
{
    size_t n = (size_t)s->n_sigmas;
    float *room = slr_calloc(s->m, 4 * n, sizeof *room), *pair = room + 2 * n;
    if (!room)
        return SDLORA_ENOMEM;
    int rc = restart_run(s, pair, restart_plan(s, room, room + n, pair));
    slr_free(s->m, room);
    return rc;
}
