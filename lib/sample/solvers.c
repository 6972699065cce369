/* SPDX-License-Identifier: MIT */
/* Samplers, one row each (inference.md §4.3-4.5).  They see flat arrays and callbacks; refuse to
 * know models. */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "sample/solver.h"

/* After the evaluation of a step. */
static int report(slr_sampling *s, int index, int total, const float *denoised)
{
    return s->step ? s->step(s->user, index, total, denoised) : SDLORA_OK;
}

/* --- k-diffusion --- */

static int euler(slr_sampling *s)
{
    float *denoised = s->work[0], *noise = s->work[1];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        double sigma = s->sigmas[i], gamma = 0;
        if (s->s_tmin <= sigma && sigma <= s->s_tmax)
            gamma = fmin(s->s_churn / last, sqrt(2.0) - 1);
        SLR_TRY(s->noise(s->user, noise)); /* drawn at every step, as the original does */
        double hat = sigma * (gamma + 1);
        if (gamma > 0) {
            float up = (float)(s->s_noise * sqrt(hat * hat - sigma * sigma));
            for (size_t k = 0; k < s->n; k++)
                s->x[k] += noise[k] * up;
        }
        SLR_TRY(s->denoise(s->user, s->x, hat, denoised));
        SLR_TRY(report(s, i, last, denoised));
        float dt = (float)(s->sigmas[i + 1] - hat), at = (float)hat;
        for (size_t k = 0; k < s->n; k++)
            s->x[k] += (s->x[k] - denoised[k]) / at * dt;
    }
    return SDLORA_OK;
}

/* How much of a step from `from` to `to` is deterministic (down) and how much is new noise (up). */
static void ancestral(double from, double to, double eta, double *down, double *up)
{
    *up = eta != 0 ? fmin(to, eta * sqrt(to * to * (from * from - to * to) / (from * from))) : 0;
    *down = sqrt(to * to - *up * *up);
}

static int euler_a(slr_sampling *s)
{
    float *denoised = s->work[0], *noise = s->work[1];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        double down, up;
        SLR_TRY(s->denoise(s->user, s->x, s->sigmas[i], denoised));
        SLR_TRY(report(s, i, last, denoised));
        ancestral(s->sigmas[i], s->sigmas[i + 1], s->eta, &down, &up);
        float dt = (float)(down - s->sigmas[i]), at = (float)s->sigmas[i];
        for (size_t k = 0; k < s->n; k++)
            s->x[k] += (s->x[k] - denoised[k]) / at * dt;
        if (s->sigmas[i + 1] <= 0)
            continue;
        SLR_TRY(s->noise(s->user, noise));
        for (size_t k = 0; k < s->n; k++)
            s->x[k] += noise[k] * (float)(s->s_noise * up);
    }
    return SDLORA_OK;
}

static int dpmpp_2m(slr_sampling *s)
{
    float *denoised = s->work[0], *old = s->work[1];
    int last = s->n_sigmas - 1;
    for (int i = 0; i < last; i++) {
        SLR_TRY(s->denoise(s->user, s->x, s->sigmas[i], denoised));
        SLR_TRY(report(s, i, last, denoised));
        double t = -log(s->sigmas[i]), next = -log(s->sigmas[i + 1]), h = next - t;
        double now = 1, before = 0; /* weights of this and the previous estimate */
        if (i > 0 && s->sigmas[i + 1] > 0) {
            double r = (t + log(s->sigmas[i - 1])) / h;
            now = 1 + 1 / (2 * r);
            before = -1 / (2 * r);
        }
        float keep = (float)(s->sigmas[i + 1] / s->sigmas[i]), move = (float)-expm1(-h);
        for (size_t k = 0; k < s->n; k++) {
            double d = now * denoised[k] + (i > 0 ? before * old[k] : 0);
            s->x[k] = keep * s->x[k] + move * (float)d;
        }
        float *swap = old;
        old = denoised;
        denoised = swap;
    }
    return SDLORA_OK;
}

/* --- timestep samplers --- */

static int ddim(slr_sampling *s)
{
    float *eps = s->work[0], *x0 = s->work[1], *noise = s->work[2];
    int last = s->n_timesteps - 1;
    for (int i = 0; i < last; i++) {
        int index = last - i; /* index 0 is never evaluated */
        double a = s->schedule->alpha_bar[s->timesteps[index]];
        double prev = s->schedule->alpha_bar[s->timesteps[index - 1]];
        double sigma = s->eta * sqrt((1 - prev) / (1 - a) * (1 - a / prev));
        SLR_TRY(s->denoise(s->user, s->x, s->timesteps[index], eps));
        float root = (float)sqrt(a), rest = (float)sqrt(1 - a),
              direction = (float)sqrt(1 - prev - sigma * sigma);
        for (size_t k = 0; k < s->n; k++)
            x0[k] = (s->x[k] - rest * eps[k]) / root;
        SLR_TRY(report(s, i, last, x0));
        SLR_TRY(s->noise(s->user, noise));
        for (size_t k = 0; k < s->n; k++)
            s->x[k] = (float)sqrt(prev) * x0[k] + direction * eps[k] + (float)sigma * noise[k];
    }
    return SDLORA_OK;
}

static const char *const alias_euler_a[] = {"k_euler_a", "k_euler_ancestral", "euler_a", NULL};
static const char *const alias_euler[] = {"k_euler", NULL};
static const char *const alias_dpmpp_2m[] = {"k_dpmpp_2m", "dpmpp_2m", "dpmsolver++", NULL};
static const char *const alias_ddim[] = {"ddim", NULL};

static const slr_sampler_row rows[] = {
    {.name = "DPM++ 2M", .aliases = alias_dpmpp_2m, .scheduler = "Karras", .run = dpmpp_2m},
    {.name = "Euler a",
     .aliases = alias_euler_a,
     .scheduler = "Uniform",
     .eta = true,
     .run = euler_a},
    {.name = "Euler", .aliases = alias_euler, .scheduler = "Uniform", .run = euler},
    {.name = "DDIM", .aliases = alias_ddim, .timesteps = true, .eta = true, .run = ddim},
};

const slr_sampler_row *slr_samplers(size_t *n)
{
    *n = sizeof rows / sizeof *rows;
    return rows;
}

const slr_sampler_row *slr_sampler_find(const char *name)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!strcasecmp(rows[i].name, name))
            return &rows[i];
        for (const char *const *alias = rows[i].aliases; *alias; alias++)
            if (!strcasecmp(*alias, name))
                return &rows[i];
    }
    return NULL;
}
