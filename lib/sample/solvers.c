/* SPDX-License-Identifier: MIT */
/* The table of samplers, their names in every spelling, and what their files share.  Refuses to
 * know a formula of any of them. */
#include "sample/solvers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "sample/ladder.h"

/* --- what samplers are made of --- */

void slr_mix(float *out, size_t n, const slr_term *terms, int count)
{
    for (size_t k = 0; k < n; k++) {
        double sum = 0;
        for (int i = 0; i < count; i++)
            sum += terms[i].c * (double)terms[i].v[k];
        out[k] = (float)sum;
    }
}

int slr_solver_step(slr_sampling *s, int index, int total, const float *denoised)
{
    int rc = s->step ? s->step(s->user, index, total, denoised) : SDLORA_OK;
    if (rc > 0 && denoised != s->x)
        memcpy(s->x, denoised, s->n * sizeof *s->x);
    return rc > 0 ? 1 : rc;
}

int slr_solver_noise(slr_sampling *s, float *scratch, double deviation)
{
    SLR_TRY(s->noise(s->user, scratch));
    if (deviation != 0)
        SLR_MIX(s, s->x, {1, s->x}, {deviation, scratch});
    return SDLORA_OK;
}

/* In f32 as the original: where a step is long, `down` is what is left of two numbers that nearly
 * cancel. */
void slr_solver_ancestral(double from, double to, double eta, double *down, double *up)
{
    float f = (float)from, t = (float)to, part = 0;
    if (eta != 0)
        part = fminf(t, (float)eta * sqrtf(t * t * (f * f - t * t) / (f * f)));
    *up = part;
    *down = eta != 0 ? sqrtf(t * t - part * part) : to;
}

int slr_solver_churn(slr_sampling *s, int i, float *scratch, double *sigma)
{
    double from = s->sigmas[i], gamma = 0;
    if (s->s_tmin <= from && (s->s_tmax <= 0 || from <= s->s_tmax))
        gamma = fmin(s->s_churn / (s->n_sigmas - 1), sqrt(2.0) - 1);
    *sigma = from * (gamma + 1);
    return slr_solver_noise(s, scratch,
                            gamma > 0 ? s->s_noise * sqrt(*sigma * *sigma - from * from) : 0);
}

/* --- the table --- */

#define NAMES(...)                                                                                 \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static const slr_sampler_row rows[] = {
    {.name = "DPM++ 2M",
     .aliases = NAMES("k_dpmpp_2m", "dpmpp_2m", "dpmsolver++"),
     .scheduler = "Karras",
     .work = 2,
     .run = slr_solve_dpmpp_2m},
    {.name = "DPM++ SDE",
     .aliases = NAMES("k_dpmpp_sde"),
     .scheduler = "Karras",
     .eta = true,
     .s_noise = true,
     .brownian = true,
     .second = true,
     .work = 3,
     .run = slr_solve_dpmpp_sde},
    {.name = "DPM++ 2M SDE",
     .aliases = NAMES("k_dpmpp_2m_sde"),
     .scheduler = "Exponential",
     .eta = true,
     .s_noise = true,
     .brownian = true,
     .work = 3,
     .run = slr_solve_dpmpp_2m_sde},
    {.name = "DPM++ 2M SDE Heun",
     .aliases = NAMES("k_dpmpp_2m_sde_heun"),
     .scheduler = "Exponential",
     .eta = true,
     .s_noise = true,
     .brownian = true,
     .work = 3,
     .run = slr_solve_dpmpp_2m_sde_heun},
    {.name = "DPM++ 2S a",
     .aliases = NAMES("k_dpmpp_2s_a"),
     .scheduler = "Karras",
     .eta = true,
     .ensd = true,
     .s_noise = true,
     .second = true,
     .work = 3,
     .run = slr_solve_dpmpp_2s_a},
    {.name = "DPM++ 3M SDE",
     .aliases = NAMES("k_dpmpp_3m_sde"),
     .scheduler = "Exponential",
     .eta = true,
     .s_noise = true,
     .brownian = true,
     .discard = true,
     .work = 4,
     .run = slr_solve_dpmpp_3m_sde},
    {.name = "Euler a",
     .aliases = NAMES("k_euler_a", "k_euler_ancestral", "euler_a"),
     .scheduler = "Uniform",
     .eta = true,
     .ensd = true,
     .work = 2,
     .run = slr_solve_euler_a},
    {.name = "Euler",
     .aliases = NAMES("k_euler"),
     .scheduler = "Uniform",
     .churn = true,
     .s_noise = true,
     .work = 2,
     .run = slr_solve_euler},
    {.name = "LMS",
     .aliases = NAMES("k_lms"),
     .scheduler = "Uniform",
     .work = 5,
     .run = slr_solve_lms},
    {.name = "Heun",
     .aliases = NAMES("k_heun"),
     .scheduler = "Uniform",
     .churn = true,
     .s_noise = true,
     .second = true,
     .work = 4,
     .run = slr_solve_heun},
    {.name = "DPM2",
     .aliases = NAMES("k_dpm_2", "dpm_2"),
     .scheduler = "Karras",
     .churn = true,
     .s_noise = true,
     .second = true,
     .discard = true,
     .work = 3,
     .run = slr_solve_dpm2},
    {.name = "DPM2 a",
     .aliases = NAMES("k_dpm_2_a", "dpm_2_a"),
     .scheduler = "Karras",
     .eta = true,
     .ensd = true,
     .s_noise = true,
     .second = true,
     .discard = true,
     .work = 3,
     .run = slr_solve_dpm2_a},
    {.name = "DPM fast",
     .aliases = NAMES("k_dpm_fast"),
     .scheduler = "Uniform",
     .eta = true,
     .ensd = true,
     .s_noise = true,
     .own = true,
     .work = 5,
     .run = slr_solve_dpm_fast},
    {.name = "DPM adaptive",
     .aliases = NAMES("k_dpm_ad"),
     .scheduler = "Uniform",
     .eta = true,
     .ensd = true,
     .own = true,
     .work = 8,
     .run = slr_solve_dpm_adaptive},
    {.name = "Restart",
     .aliases = NAMES("restart"),
     .scheduler = "Karras",
     .second = true,
     .work = 4,
     .run = slr_solve_restart},
    {.name = "DDIM",
     .aliases = NAMES("ddim"),
     .timesteps = true,
     .eta = true,
     .work = 3,
     .run = slr_solve_ddim},
    {.name = "DDIM CFG++",
     .aliases = NAMES("ddim_cfgpp"),
     .timesteps = true,
     .eta = true,
     .cfgpp = true,
     .work = 3,
     .run = slr_solve_ddim_cfgpp},
    {.name = "PLMS",
     .aliases = NAMES("plms", "pndm"),
     .timesteps = true,
     .work = 6,
     .run = slr_solve_plms},
    {.name = "UniPC",
     .aliases = NAMES("unipc"),
     .timesteps = true,
     .own = true,
     .work = SLR_SOLVER_WORK,
     .run = slr_solve_unipc},
    {.name = "LCM",
     .aliases = NAMES("k_lcm"),
     .scheduler = "Uniform",
     .lcm = true,
     .work = 1,
     .run = slr_solve_lcm},
};

const slr_sampler_row *slr_samplers(size_t *n)
{
    *n = sizeof rows / sizeof *rows;
    return rows;
}

/* --- names --- */

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

/* The sampler's name before `end`, if `name` is that and `end`. */
static const slr_sampler_row *before(const char *name, const char *end)
{
    char rest[64];
    size_t n = strlen(name), tail = strlen(end);
    if (n <= tail || n - tail >= sizeof rest || strcasecmp(name + n - tail, end) != 0)
        return NULL;
    memcpy(rest, name, n - tail);
    rest[n - tail] = '\0';
    return slr_sampler_find(rest);
}

/* Before version 1.9 a sampler and a schedule were one name. */
static const slr_sampler_row *split(const char *name, const slr_scheduler_row **schedule)
{
    size_t n;
    const slr_scheduler_row *at = slr_schedulers(&n);
    const slr_sampler_row *row = before(name, "_ka");
    if (row)
        *schedule = slr_scheduler_find("Karras");
    for (size_t i = 0; i < n && !row; i++) {
        char end[2][40];
        snprintf(end[0], sizeof end[0], " %s", at[i].name);
        snprintf(end[1], sizeof end[1], " %s", at[i].key);
        for (int k = 0; k < 2 && !row; k++)
            if ((row = before(name, end[k])))
                *schedule = &at[i];
    }
    return row ? row : before(name, " Automatic");
}

int slr_sampler_choose(const char *sampler, const char *scheduler, const slr_sampler_row **row,
                       const slr_scheduler_row **schedule, bool *automatic)
{
    const slr_scheduler_row *said = NULL;
    if (scheduler && scheduler[0] && strcasecmp(scheduler, "Automatic") != 0) {
        said = slr_scheduler_find(scheduler);
        if (!said)
            return slr_fail(SDLORA_ENOTSUP, __func__, "there is no schedule '%s' here", scheduler);
    }
    *row = slr_sampler_find(sampler);
    if (!*row)
        *row = split(sampler, &said); /* what stands in the name counts */
    if (!*row)
        return slr_fail(SDLORA_ENOTSUP, __func__, "there is no sampler '%s' here", sampler);
    *automatic = !said;
    *schedule = (*row)->timesteps ? NULL : said ? said : slr_scheduler_find((*row)->scheduler);
    return SDLORA_OK;
}

/* --- running one --- */

int slr_sampler_run(const slr_sampler_row *row, slr_sampling *s)
{
    size_t bytes;
    slr_require(row->work <= SLR_SOLVER_WORK && s->n > 0);
    if (!slr_mul_ok(s->n, sizeof(float), &bytes))
        return slr_nomem(__func__, s->n);
    int rc = SDLORA_OK;
    if (!row->s_noise)
        s->s_noise = 1;
    memset(s->work, 0, sizeof s->work);
    for (int i = 0; rc >= 0 && i < row->work; i++)
        if (!(s->work[i] = slr_alloc(s->m, bytes)))
            rc = SDLORA_ENOMEM;
    if (rc >= 0)
        rc = row->run(s);
    for (int i = 0; i < row->work; i++)
        slr_free(s->m, s->work[i]);
    memset(s->work, 0, sizeof s->work);
    return rc;
}

/* A model that has learned to jump to the picture keeps some of x: boundary conditions of "Latent
 * Consistency Models", with timesteps scaled by 10. */
static void lcm_boundary(double t, double *skip, double *out)
{
    const double deviation = 0.5, at = 10 * t;
    *skip = deviation * deviation / (at * at + deviation * deviation);
    *out = at / sqrt(at * at + deviation * deviation);
}

slr_wrap_factors slr_sampler_wrap(const slr_sampler_row *row, const slr_schedule *schedule, bool v,
                                  double sigma)
{
    double root = sqrt(sigma * sigma + 1), skip, out;
    slr_wrap_factors f = {.in = 1 / root, .skip = 1, .out = -sigma};
    slr_ladder l;
    if (v) {
        f.skip = 1 / (root * root);
        f.out = -sigma / root;
    }
    if (row->lcm) {
        slr_ladder_init_lcm(&l, schedule);
        f.t = slr_ladder_t(&l, (float)sigma);
        lcm_boundary(f.t, &skip, &out);
        f.skip = out * f.skip + skip;
        f.out *= out;
    } else
        f.t = slr_schedule_t(schedule, sigma);
    return f;
}
