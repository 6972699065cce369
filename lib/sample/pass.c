/* SPDX-License-Identifier: MIT */
/* Noise in, latents out: joins steps, solver, guidance and random numbers, and lays masks where
 * AUTOMATIC1111 lays them.  Refuses to know pictures and prompts' grammar. */
#include "sample/pass.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "models/vae.h"
#include "sample/guide.h"
#include "sample/steps.h"

typedef struct passing {
    slr_pass *p;
    slr_mem *m;
    slr_model *model; /* the refiner's, once it has taken over */
    slr_guide guide;  /* of that model */
    slr_steps steps;
    int64_t c, floats;
    int evaluation, evaluations;
    float *chw, *input, *blended, *uncond;
} passing;

/* --- masks --- */

/* out = x where the picture changes, init elsewhere. */
static void blend(const passing *s, const float *x, float *out)
{
    const float *mask = s->p->repaint, *init = s->p->init;
    for (int64_t i = 0; i < s->floats; i++) {
        float n = mask[i / s->c];
        out[i] = x[i] * n + init[i] * (1.0f - n);
    }
}

/* --- refiner --- */

static int nearest_timestep(const slr_schedule *table, double sigma)
{
    int best = 0;
    for (int t = 1; t < SLR_TIMESTEPS; t++)
        if (fabs(table->sigma[t] - sigma) < fabs(table->sigma[best] - sigma))
            best = t;
    return best;
}

/* Hands over for good once enough noise is gone; level is a sigma or a timestep. */
static int refine(passing *s, double level)
{
    const slr_settings *set = s->p->set;
    slr_guide guide;
    if (!s->p->refiner || s->model == s->p->refiner)
        return SDLORA_OK;
    double done = (double)s->evaluation / s->evaluations;
    if (!set->refiner_by_steps) {
        int t =
            s->steps.sampler->timesteps ? (int)level : nearest_timestep(&s->model->schedule, level);
        done = (SLR_TIMESTEPS - 1 - t) / (double)SLR_TIMESTEPS;
    }
    if (done < set->refiner_at)
        return SDLORA_OK;
    SLR_TRY(slr_guide_new(&guide, s->m, s->p, s->p->refiner));
    slr_guide_free(&s->guide);
    s->guide = guide;
    s->model = s->p->refiner;
    s->p->became.refined = true;
    return SDLORA_OK;
}

/* --- callbacks of the solvers --- */

/* A guided prediction, eps or v. */
static int predict(passing *s, const float *x, double t, double level, float *out)
{
    slr_guidance g;
    double factor = s->steps.sampler->cfgpp ? 1 / 12.5 : 1;
    slr_guide_at(&s->guide, s->evaluation, s->evaluations, level, factor, &g);
    SLR_TRY(slr_denoiser_predict(s->model->denoiser, &g, x, t, out,
                                 s->steps.sampler->cfgpp ? s->uncond : NULL, s->p->cancel));
    s->evaluation++;
    return SDLORA_OK;
}

/* k-diffusion: D(x, sigma). */
static int denoise(void *user, const float *x, double sigma, float *out)
{
    passing *s = user;
    SLR_TRY(refine(s, sigma));
    slr_wrap_factors f =
        slr_sampler_wrap(s->steps.sampler, &s->model->schedule, slr_model_v(s->model), sigma);
    float in = (float)f.in, skip = (float)f.skip, by = (float)f.out;
    if (s->p->set->quantize)
        f.t = round(f.t);
    for (int64_t i = 0; i < s->floats; i++)
        s->input[i] = x[i] * in;
    SLR_TRY(predict(s, s->input, f.t, sigma, out));
    for (int64_t i = 0; i < s->floats; i++)
        out[i] = skip * x[i] + by * out[i];
    if (s->p->repaint)
        blend(s, out, out);
    return SDLORA_OK;
}

static void v_to_eps(const passing *s, const float *x, double t, float *v)
{
    float a = s->model->schedule.alpha_bar[(int)t];
    float of_v = sqrtf(a), of_x = sqrtf(1.0f - a);
    for (int64_t i = 0; i < s->floats; i++)
        v[i] = of_v * v[i] + of_x * x[i];
}

/* Timestep samplers: eps(x, t). */
static int predict_eps(void *user, const float *x, double t, float *out)
{
    passing *s = user;
    if (s->p->repaint) {
        blend(s, x, s->blended);
        x = s->blended;
    }
    SLR_TRY(refine(s, t));
    SLR_TRY(predict(s, x, t, t, out));
    if (slr_model_v(s->model)) {
        v_to_eps(s, x, t, out);
        if (s->steps.sampler->cfgpp)
            v_to_eps(s, x, t, s->uncond);
    }
    return SDLORA_OK;
}

static int next_noise(void *user, float *out)
{
    passing *s = user;
    SLR_TRY(slr_noise_next(s->p->noise, s->chw));
    slr_nchw_to_nhwc(out, s->chw, 1, s->c, s->p->h, s->p->w);
    return SDLORA_OK;
}

static int noise_between(void *user, double from, double to, float *out)
{
    passing *s = user;
    SLR_TRY(slr_noise_between(s->p->noise, from, to, s->chw));
    slr_nchw_to_nhwc(out, s->chw, 1, s->c, s->p->h, s->p->w);
    return SDLORA_OK;
}

static int after_step(void *user, int index, int total, const float *denoised)
{
    passing *s = user;
    const slr_pass *p = s->p;
    if (p->step && p->step(p->user, index + 1, total > 0 ? total : s->steps.told, denoised))
        return slr_fail(SDLORA_ECANCELED, __func__, "cancelled by the progress callback");
    return SDLORA_OK;
}

/* --- start and end --- */

static int first_noise(passing *s, float *out)
{
    slr_pass *p = s->p;
    SLR_TRY(slr_noise_first(p->noise, s->chw));
    slr_nchw_to_nhwc(out, p->noise_in ? p->noise_in : s->chw, 1, s->c, p->h, p->w);
    return SDLORA_OK;
}

/* Noise as strong as the schedule begins. */
static int start_from_noise(passing *s)
{
    float by = 1;
    SLR_TRY(first_noise(s, s->p->x));
    if (!s->steps.sampler->timesteps) {
        float sigma = (float)s->steps.sigmas[0];
        by = s->p->set->sgm_noise ? sqrtf(1.0f + sigma * sigma) : sigma;
    }
    for (int64_t i = 0; i < s->floats; i++)
        s->p->x[i] *= by;
    return SDLORA_OK;
}

/* Latents with noise over them. */
static int start_from_latents(passing *s)
{
    slr_pass *p = s->p;
    float scale = (float)p->noise_scale, extra = (float)p->set->extra_noise, keep = 1, by;
    SLR_TRY(first_noise(s, p->x));
    if (s->steps.sampler->timesteps) {
        float a = s->model->schedule.alpha_bar[s->steps.start];
        keep = sqrtf(a);
        by = sqrtf(1.0f - a);
    } else {
        by = (float)s->steps.sigmas[0];
    }
    for (int64_t i = 0; i < s->floats; i++) {
        float noise = p->x[i] * scale;
        p->x[i] = p->init[i] * keep + noise * by;
        if (extra > 0)
            p->x[i] += noise * extra * keep;
    }
    return SDLORA_OK;
}

/* The lowest and the highest sigma of the whole schedule are the ends of the Brownian path. */
static int grow_tree(passing *s)
{
    double lo = INFINITY, hi = 0;
    if (!s->steps.sampler->brownian)
        return SDLORA_OK;
    for (int i = 0; i < s->steps.n_all; i++) {
        double sigma = s->steps.all[i];
        hi = fmax(hi, sigma);
        lo = sigma > 0 ? fmin(lo, sigma) : lo;
    }
    return slr_noise_tree(s->p->noise, lo, hi);
}

static int solve(passing *s)
{
    const slr_settings *set = s->p->set;
    bool ts = s->steps.sampler->timesteps;
    slr_sampling job = {
        .m = s->m,
        .n = (size_t)s->floats,
        .x = s->p->x,
        .sigmas = s->steps.sigmas,
        .n_sigmas = s->steps.n_sigmas,
        .timesteps = s->steps.timesteps,
        .n_timesteps = s->steps.n_timesteps,
        .steps = s->p->init && !ts ? s->steps.n_sigmas - 1 : s->steps.n,
        .part = s->p->init != NULL,
        .schedule = &s->p->model->schedule,
        .eta = set->eta >= 0 ? set->eta
               : ts          ? 0.0
                             : 1.0,
        .s_churn = set->s_churn,
        .s_tmin = set->s_tmin,
        .s_tmax = set->s_tmax,
        .s_noise = set->s_noise,
        .unipc_variant = set->unipc_variant,
        .unipc_skip = set->unipc_skip,
        .unipc_order = set->unipc_order,
        .unipc_no_lower = !set->unipc_lower_final,
        .uncond = s->uncond,
        .user = s,
        .denoise = ts ? predict_eps : denoise,
        .noise = next_noise,
        .between = noise_between,
        .step = after_step,
    };
    return slr_sampler_run(s->steps.sampler, &job);
}

static int allocate(passing *s)
{
    float **blocks[] = {&s->chw, &s->input, &s->blended, &s->uncond};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (!(*blocks[i] = slr_calloc(s->m, (size_t)s->floats, sizeof(float))))
            return SDLORA_ENOMEM;
    return SDLORA_OK;
}

/* Whether the pass has what its models take beside the latents. */
static int check(const passing *s, const slr_model *model)
{
    int64_t more = model ? slr_model_extra(model) : 0, given = s->p->extra ? s->p->n_extra : 0;
    if (more && more != given)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s takes %lld channels beside the latents, and this way of drawing gives "
                        "%lld",
                        slr_checkpoint_path(model->base), (long long)more, (long long)given);
    return SDLORA_OK;
}

static int sample(passing *s)
{
    slr_pass *p = s->p;
    const slr_checkpoint *base = p->model->base;
    SLR_TRY(check(s, p->model));
    SLR_TRY(check(s, p->refiner));
    SLR_TRY(allocate(s));
    SLR_TRY(slr_steps_new(&s->steps, s->m, p->set, &p->model->schedule,
                          slr_checkpoint_family(base)->id == SLR_FAMILY_SDXL,
                          p->init ? p->strength : -1, p->exact_steps));
    s->evaluations = slr_steps_evaluations(s->steps.sampler, s->steps.n);
    SLR_TRY(slr_guide_new(&s->guide, s->m, p, p->model));
    SLR_TRY(p->init ? start_from_latents(s) : start_from_noise(s));
    SLR_TRY(grow_tree(s));
    SLR_TRY(solve(s));
    if (p->repaint)
        blend(s, p->x, p->x);
    return SDLORA_OK;
}

int slr_pass_run(slr_pass *p, slr_mem *m)
{
    passing s = {.p = p, .m = m, .model = p->model};
    s.c = slr_denoiser_shape(p->model->denoiser)->out_channels;
    s.floats = p->h * p->w * s.c;
    int rc;
    if (p->init && p->exact_steps && p->strength <= 0) { /* nothing is to change */
        memcpy(p->x, p->init, (size_t)s.floats * sizeof *p->x);
        return SDLORA_OK;
    }
    rc = sample(&s);
    slr_guide_free(&s.guide);
    slr_steps_free(&s.steps);
    slr_free(m, s.chw);
    slr_free(m, s.input);
    slr_free(m, s.blended);
    slr_free(m, s.uncond);
    return rc;
}
