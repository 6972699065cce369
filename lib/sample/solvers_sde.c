/* SPDX-License-Identifier: MIT */
/* Samplers that add noise after each step: ancestral ones take it from the picture's generator, SDE
 * ones from a Brownian path, so that their noise depends on sigmas and not on the number of steps.
 * And LCM, which jumps to the picture and starts again from less noise. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "sample/ladder.h"
#include "sample/solvers.h"

/* --- ancestral --- */

int slr_solve_euler_a(slr_sampling *s)
{
    float *denoised = s->work[0], *scratch = s->work[1];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        double from = s->sigmas[i], to = s->sigmas[i + 1], down, up;
        SLR_TRY(s->denoise(s->user, s->x, from, denoised));
        int rc = slr_solver_step(s, i, last, denoised);
        if (rc)
            return rc;
        slr_solver_ancestral(from, to, s->eta, &down, &up);
        SLR_MIX(s, s->x, {down / from, s->x}, {1 - down / from, denoised});
        if (to > 0)
            SLR_TRY(slr_solver_noise(s, scratch, s->s_noise * up));
    }
    return SDLORA_OK;
}

int slr_solve_dpm2_a(slr_sampling *s)
{
    float *denoised = s->work[0], *scratch = s->work[1], *middle = s->work[2];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        double from = s->sigmas[i], down, up;
        SLR_TRY(s->denoise(s->user, s->x, from, denoised));
        int rc = slr_solver_step(s, i, last, denoised);
        if (rc)
            return rc;
        slr_solver_ancestral(from, s->sigmas[i + 1], s->eta, &down, &up);
        if (down == 0) {
            SLR_MIX(s, s->x, {1, denoised});
            continue;
        }
        double half = sqrt(from * down), w = half / from, dt = down - from;
        SLR_MIX(s, middle, {w, s->x}, {1 - w, denoised});
        SLR_TRY(s->denoise(s->user, middle, half, scratch));
        SLR_MIX(s, s->x, {1, s->x}, {dt / half, middle}, {-dt / half, scratch});
        SLR_TRY(slr_solver_noise(s, scratch, s->s_noise * up));
    }
    return SDLORA_OK;
}

int slr_solve_dpmpp_2s_a(slr_sampling *s)
{
    float *denoised = s->work[0], *scratch = s->work[1], *middle = s->work[2];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        double from = s->sigmas[i], to = s->sigmas[i + 1], down, up;
        SLR_TRY(s->denoise(s->user, s->x, from, denoised));
        int rc = slr_solver_step(s, i, last, denoised);
        if (rc)
            return rc;
        slr_solver_ancestral(from, to, s->eta, &down, &up);
        if (down == 0) {
            SLR_MIX(s, s->x, {1, denoised});
        } else { /* half way in log sigma, then the whole way with the D from there */
            double half = sqrt(from * down);
            SLR_MIX(s, middle, {half / from, s->x}, {1 - half / from, denoised});
            SLR_TRY(s->denoise(s->user, middle, half, scratch));
            SLR_MIX(s, s->x, {down / from, s->x}, {1 - down / from, scratch});
        }
        if (to > 0)
            SLR_TRY(slr_solver_noise(s, scratch, s->s_noise * up));
    }
    return SDLORA_OK;
}

int slr_solve_lcm(slr_sampling *s)
{
    float *scratch = s->work[0];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        SLR_TRY(s->denoise(s->user, s->x, s->sigmas[i], scratch));
        memcpy(s->x, scratch, s->n * sizeof *s->x);
        int rc = slr_solver_step(s, i, last, s->x);
        if (rc)
            return rc;
        if (s->sigmas[i + 1] > 0)
            SLR_TRY(slr_solver_noise(s, scratch, s->sigmas[i + 1]));
    }
    return SDLORA_OK;
}

/* --- Brownian --- */

/* x += Brownian noise of that deviation, from scratch. */
static int add_between(slr_sampling *s, double from, double to, double deviation, float *x,
                       float *scratch)
{
    if (deviation == 0)
        return SDLORA_OK;
    SLR_TRY(s->between(s->user, from, to, scratch));
    SLR_MIX(s, x, {1, x}, {deviation * s->s_noise, scratch});
    return SDLORA_OK;
}

/* One step of DPM++ SDE from the sigma of t down to `to` = exp(-its t), with this D, into out. */
static int sde_part(slr_sampling *s, double from, double to, const float *denoised, float *out,
                    float *scratch)
{
    double down, up;
    slr_solver_ancestral(from, to, s->eta, &down, &up);
    SLR_MIX(s, out, {down / from, s->x}, {1 - down / from, denoised});
    return add_between(s, from, to, up, out, scratch);
}

int slr_solve_dpmpp_sde(slr_sampling *s)
{
    float *denoised = s->work[0], *scratch = s->work[1], *middle = s->work[2];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        SLR_TRY(s->denoise(s->user, s->x, s->sigmas[i], denoised));
        int rc = slr_solver_step(s, i, last, denoised);
        if (rc)
            return rc;
        if (s->sigmas[i + 1] == 0) {
            SLR_MIX(s, s->x, {1, denoised});
            continue;
        }
        /* Sigmas go through log and exp in f32, and that changes the noise. */
        float t = -slr_f32_log((float)s->sigmas[i]), next = -slr_f32_log((float)s->sigmas[i + 1]);
        float h = next - t, half = t + h * 0.5f;
        double from = slr_f32_exp(-t), mid = slr_f32_exp(-half), to = slr_f32_exp(-next);
        SLR_TRY(sde_part(s, from, mid, denoised, middle, scratch));
        SLR_TRY(s->denoise(s->user, middle, mid, denoised));
        SLR_TRY(sde_part(s, from, to, denoised, s->x, scratch));
    }
    return SDLORA_OK;
}

static int dpmpp_2m_sde(slr_sampling *s, bool heun)
{
    float *scratch = s->work[2];
    double h_last = 0;
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        float *denoised = s->work[i % 2], *old = s->work[(i + 1) % 2];
        double from = s->sigmas[i], to = s->sigmas[i + 1];
        SLR_TRY(s->denoise(s->user, s->x, from, denoised));
        int rc = slr_solver_step(s, i, last, denoised);
        if (rc)
            return rc;
        if (to == 0) {
            SLR_MIX(s, s->x, {1, denoised});
            continue;
        }
        double h = log(from / to), decay = s->eta * h;
        double move = -expm1(-h - decay), keep = to / from * exp(-decay);
        if (i > 0) {
            double r = h_last / h, slope = (heun ? move / (-h - decay) + 1 : 0.5 * move) / r;
            SLR_MIX(s, s->x, {keep, s->x}, {move + slope, denoised}, {-slope, old});
        } else
            SLR_MIX(s, s->x, {keep, s->x}, {move, denoised});
        if (s->eta != 0)
            SLR_TRY(add_between(s, from, to, to * sqrt(-expm1(-2 * decay)), s->x, scratch));
        h_last = h;
    }
    return SDLORA_OK;
}

int slr_solve_dpmpp_2m_sde(slr_sampling *s)
{
    return dpmpp_2m_sde(s, false);
}

int slr_solve_dpmpp_2m_sde_heun(slr_sampling *s)
{
    return dpmpp_2m_sde(s, true);
}

/* The step of DPM++ 3M SDE, h long and `he` with eta, from the last three D (d[0] the newest;
 * `known` of them) and the lengths h1, h2 of the steps before. */
static void step_3m(slr_sampling *s, float *const d[3], int known, double h, double he, double h1,
                    double h2)
{
    double keep = exp(-he), move = -expm1(-he);
    double phi2 = expm1(-he) / he + 1, phi3 = phi2 / he - 0.5;
    if (known == 1) {
        SLR_MIX(s, s->x, {keep, s->x}, {move, d[0]});
        return;
    }
    double r0 = h1 / h;
    if (known == 2) {
        SLR_MIX(s, s->x, {keep, s->x}, {move + phi2 / r0, d[0]}, {-phi2 / r0, d[1]});
        return;
    }
    /* First and second differences: a = (d0 - d1) / r0, b = (d1 - d2) / r1. */
    double r1 = h2 / h, a = phi2 * (1 + r0 / (r0 + r1)) - phi3 / (r0 + r1),
           b = -phi2 * r0 / (r0 + r1) + phi3 / (r0 + r1);
    SLR_MIX(s, s->x, {keep, s->x}, {move + a / r0, d[0]}, {-a / r0 + b / r1, d[1]},
            {-b / r1, d[2]});
}

int slr_solve_dpmpp_3m_sde(slr_sampling *s)
{
    float *scratch = s->work[3];
    double h1 = 0, h2 = 0;
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        float *const d[3] = {s->work[i % 3], s->work[(i + 2) % 3], s->work[(i + 1) % 3]};
        double from = s->sigmas[i], to = s->sigmas[i + 1];
        SLR_TRY(s->denoise(s->user, s->x, from, d[0]));
        int rc = slr_solver_step(s, i, last, d[0]);
        if (rc)
            return rc;
        if (to == 0) {
            SLR_MIX(s, s->x, {1, d[0]});
            continue;
        }
        double h = log(from / to);
        step_3m(s, d, i < 2 ? i + 1 : 3, h, h * (s->eta + 1), h1, h2);
        if (s->eta != 0)
            SLR_TRY(add_between(s, from, to, to * sqrt(-expm1(-2 * h * s->eta)), s->x, scratch));
        h2 = h1;
        h1 = h;
    }
    return SDLORA_OK;
}
