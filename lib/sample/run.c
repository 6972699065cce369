/* SPDX-License-Identifier: MIT */
/* One call of the generator: checks the request, draws seeds, and makes picture after picture.
 * Refuses to know what a picture is made of (picture.c). */
#include "sample/generator_impl.h"

#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/str.h"
#include "sample/modes.h"
#include "sample/steps.h"

/* Random ones are drawn in the range that users know. */
static void draw_seeds(slr_settings *set)
{
    slr_rng rng;
    slr_rng_init(&rng, slr_clock_seed(), SLR_STREAM_EVAL, 0);
    if (set->seed < 0)
        set->seed = (int64_t)slr_rng_below(&rng, 4294967294u);
    if (set->subseed < 0)
        set->subseed = (int64_t)slr_rng_below(&rng, 4294967294u);
}

/* --- what pictures need of a run --- */

static int tell(slr_run *s, slr_run_progress *p)
{
    p->picture = s->k;
    p->n_pictures = s->set.count;
    p->pass = s->pass;
    p->n_passes = s->n_passes;
    if (!s->r->progress || !s->r->progress(s->r->progress_user, p))
        return SDLORA_OK;
    return slr_fail(SDLORA_ECANCELED, __func__, "cancelled by the progress callback");
}

int slr_run_tell(slr_run *s, int phase)
{
    slr_run_progress p = {.phase = phase, .done = s->done, .total = s->done + s->later};
    return tell(s, &p);
}

static int after_step(void *user, int step, int steps, const float *x0)
{
    slr_run *s = user;
    slr_run_progress p = {.phase = SLR_RUN_SAMPLE,
                          .step = step,
                          .steps = steps > step ? steps : step,
                          .x0 = x0,
                          .h = s->last.h,
                          .w = s->last.w,
                          .c = slr_denoiser_shape(s->last.model->denoiser)->out_channels,
                          .family = slr_checkpoint_family(s->last.model->base)};
    p.done = s->done + p.step;
    p.total = s->done + p.steps + s->later;
    return tell(s, &p) < 0;
}

int slr_run_noise(const slr_run *s, int64_t h, int64_t w, slr_noise **out)
{
    const slr_settings *set = &s->set;
    const slr_unet_shape *shape = slr_denoiser_shape(s->g->model[SLR_ROLE_BASE]->denoiser);
    slr_noise_config c = {.source = set->rng,
                          .seed = (uint64_t)s->seed,
                          .subseed = (uint64_t)s->subseed,
                          .strength = set->subseed_strength,
                          .c = shape->out_channels,
                          .h = h,
                          .w = w,
                          .ensd = set->ensd};
    if (set->seed_from_w > 0 && set->seed_from_h > 0) {
        c.from_h = set->seed_from_h >> s->factor;
        c.from_w = set->seed_from_w >> s->factor;
    }
    return slr_noise_new(out, s->g->m, &c);
}

slr_model *slr_run_model(const slr_run *s, int pass)
{
    slr_model *const *model = s->g->model;
    return pass && model[SLR_ROLE_SECOND] ? model[SLR_ROLE_SECOND] : model[SLR_ROLE_BASE];
}

int slr_run_coder(const slr_run *s, slr_model *model, slr_vae_runner **out)
{
    return slr_model_coder(model->vae ? model : s->g->model[SLR_ROLE_BASE], out);
}

/* One file taken for two kinds of prediction is two models. */
static bool is_same_model(const slr_model *a, const slr_model *b)
{
    return a == b || (slr_checkpoint_same(a->base, b->base) && slr_model_v(a) == slr_model_v(b));
}

static bool refines(const slr_run *s)
{
    const slr_model *refiner = s->g->model[SLR_ROLE_REFINER];
    if (!refiner || is_same_model(refiner, slr_run_model(s, s->pass)))
        return false;
    return s->n_passes == 1 || s->set.hr_refine == SLR_HR_REFINE_BOTH ||
           (s->set.hr_refine == SLR_HR_REFINE_FIRST) == (s->pass == 0);
}

static void add_became(slr_became *all, const slr_became *one)
{
    all->padded |= one->padded;
    all->padded_v0 |= one->padded_v0;
    all->refined |= one->refined;
    all->skipped |= one->skipped;
    all->skipped_early |= one->skipped_early;
}

int slr_run_pass(slr_run *s, const slr_wording *words, slr_pass *p)
{
    p->model = slr_run_model(s, s->pass);
    p->refiner = refines(s) ? s->g->model[SLR_ROLE_REFINER] : NULL;
    p->positive = &words->positive;
    p->negative = &words->uncond;
    p->step = after_step;
    p->user = s;
    p->cancel = s->r->cancel;
    s->last = *p;
    SLR_TRY(slr_run_tell(s, SLR_RUN_PREPARE));
    SLR_TRY(slr_wording_apply(words, s, p));
    SLR_TRY(slr_pass_run(p, s->g->m));
    s->last = *p;
    add_became(&s->became, &p->became);
    return SDLORA_OK;
}

/* --- the run --- */

int slr_run_read_styles(slr_run *s)
{
    return slr_styles_read_all(&s->styles, s->g->m, s->set.styles_file ? s->set.styles_file : "");
}

static bool is_at_work(const slr_run *s, int role)
{
    return s->g->model[role] && (role != SLR_ROLE_SECOND || s->set.hr);
}

/* All that works on this run, and that their VAEs make latents of one size. */
static int begin_models(slr_run *s)
{
    slr_model *const *model = s->g->model;
    SLR_TRY(slr_vae_factor(model[SLR_ROLE_BASE]->vae, &s->factor));
    for (int role = 0; role < SLR_ROLES; role++) {
        int factor = s->factor;
        if (!is_at_work(s, role))
            continue;
        slr_model_set(model[role], &s->set, s->r->policy);
        slr_model_set_coder(model[role], s->r->vae_policy, s->r->vae_tiling);
        if (model[role]->vae)
            SLR_TRY(slr_vae_factor(model[role]->vae, &factor));
        if (factor != s->factor)
            return slr_fail(SDLORA_EINVAL, __func__,
                            "a latent is %d pixels wide to the VAE of %s, and %d to that of %s",
                            1 << factor, slr_checkpoint_path(model[role]->base), 1 << s->factor,
                            slr_checkpoint_path(model[SLR_ROLE_BASE]->base));
    }
    return SDLORA_OK;
}

static int begin(slr_run *s)
{
    slr_steps first = {0};
    const slr_settings *set = &s->set;
    SLR_TRY(slr_settings_check(set));
    SLR_TRY(slr_sampler_choose(set->sampler ? set->sampler : "Euler a", set->scheduler,
                               &first.sampler, &first.scheduler, &first.automatic));
    SLR_TRY(begin_models(s));
    if (set->styles && *set->styles)
        SLR_TRY(slr_run_read_styles(s));
    int evaluations = slr_steps_evaluations(first.sampler, set->steps);
    SLR_TRY(slr_wording_new(&s->words, s, set->prompt, set->negative, evaluations, 0));
    return slr_modes_begin(s, evaluations);
}

static int make_picture(slr_run *s, int k, slr_picture *out)
{
    s->k = k;
    s->seed = s->set.seed + (s->set.subseed_strength > 0 ? 0 : k);
    s->subseed = s->set.subseed + k;
    s->pass = s->done = s->later = 0;
    s->became = (slr_became){0};
    s->n_passes = 1;
    SLR_TRY(slr_run_picture(s, out));
    out->seed = s->seed;
    return slr_record(s, &out->infotext);
}

int slr_generator_run(slr_generator *g, const slr_request *r, slr_picture *pictures)
{
    slr_run s = {.g = g, .r = r, .set = r->set, .words = {.known = {.m = g->m}}};
    int count = r->set.count > 0 ? r->set.count : 0;
    memset(pictures, 0, (size_t)count * sizeof *pictures);
    draw_seeds(&s.set);
    int rc = begin(&s);
    for (int k = 0; rc >= 0 && k < count; k++)
        rc = make_picture(&s, k, &pictures[k]);
    if (rc < 0)
        for (int k = 0; k < count; k++)
            slr_picture_free(g->m, &pictures[k]);
    slr_modes_end(&s);
    slr_wording_free(&s.words, g->m);
    slr_styles_free(&s.styles);
    return rc;
}
