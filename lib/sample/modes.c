/* SPDX-License-Identifier: MIT */
/* What a run needs for passes that start from pictures and for second passes,
 * checked and made before the first picture.  Refuses to know how passes run
 * (picture.c). */
#include "sample/modes.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "sample/steps.h"

/* "#rgb" or "#rrggbb". */
static int colour_of(const char *text, uint8_t out[3])
{
    unsigned v[3];
    int used = 0;
    size_t n = strlen(text);
    if ((n == 7 && sscanf(text, "#%2x%2x%2x%n", &v[0], &v[1], &v[2], &used) == 3 && used == 7) ||
        (n == 4 && sscanf(text, "#%1x%1x%1x%n", &v[0], &v[1], &v[2], &used) == 3 && used == 4)) {
        for (int i = 0; i < 3; i++)
            out[i] = (uint8_t)(n == 4 ? v[i] * 17 : v[i]);
        return SDLORA_OK;
    }
    return slr_fail(SDLORA_EINVAL, __func__,
                    "img2img_background_color '%s' is not written as #rrggbb", text);
}

int slr_modes_encoder(const slr_run *s, slr_model *model, slr_encoder *out)
{
    *out = (slr_encoder){.m = s->g->m,
                         .factor = s->factor,
                         .c = slr_denoiser_shape(model->denoiser)->out_channels,
                         .scale = slr_checkpoint_family(model->base)->vae_scale,
                         .cancel = s->r->cancel};
    return slr_run_coder(s, model, &out->vae);
}

/* What a model is told beside the latents. */
static int extra_of(const slr_model *model)
{
    if (slr_checkpoint_edit(model->base))
        return SLR_EXTRA_EDIT;
    return slr_model_extra(model) > 0 ? SLR_EXTRA_INPAINT : SLR_EXTRA_NONE;
}

static int begin_picture(slr_run *s, slr_modes *m)
{
    const slr_settings *set = &s->set;
    slr_canvas_config c = {.width = set->width,
                           .height = set->height,
                           .resize_mode = set->resize_mode,
                           .blur_x = set->mask_blur,
                           .blur_y = set->mask_blur,
                           .sharp = set->mask_round,
                           .invert = set->mask_invert,
                           .content = set->fill,
                           .only_masked = set->full_res,
                           .padding = set->full_res_padding,
                           .correct = set->color_correction};
    slr_start_config start = {.h = set->height >> s->factor,
                              .w = set->width >> s->factor,
                              .content = set->fill,
                              .sharp = set->mask_round,
                              .extra = extra_of(slr_run_model(s, 0)),
                              .mask_weight = set->mask_weight};
    slr_encoder e;
    SLR_TRY(slr_modes_encoder(s, slr_run_model(s, 0), &e));
    SLR_TRY(colour_of(set->background ? set->background : "#ffffff", c.background));
    m->from_picture = true;
    SLR_TRY(slr_canvas_open(&m->canvas, s->g->m, &c, s->r->init, s->r->mask));
    if (m->canvas.blank)
        slr_logf(&s->g->log, SLR_LOG_WARN, "the mask is black: the whole picture is drawn anew");
    SLR_TRY(slr_run_tell(s, SLR_RUN_PREPARE));
    return slr_start_new(&m->start, &e, &m->canvas, &start);
}

/* Keeps the network of the last run, if it has the same file. */
static int wake_upscaler(slr_run *s, const char *name)
{
    slr_generator *g = s->g;
    const char *path = s->r->upscaler_path;
    if (g->upscaler && !strcmp(g->upscaler_name, path ? path : name))
        return SDLORA_OK;
    slr_upscaler_free(g->upscaler);
    slr_free(g->m, g->upscaler_name);
    g->upscaler = NULL;
    g->upscaler_name = slr_strdup(g->m, path ? path : name);
    if (!g->upscaler_name)
        return SDLORA_ENOMEM;
    return slr_upscaler_new(&g->upscaler, g->m, g->devices, name, path);
}

static int begin_hires(slr_run *s, slr_modes *m, int evaluations)
{
    const slr_settings *set = &s->set;
    const char *name = slr_settings_either(set->hr_upscaler, "Latent");
    slr_steps second = {0};
    m->hires = true;
    m->set = *set;
    m->set.sampler = slr_settings_either(set->hr_sampler, set->sampler);
    m->set.scheduler = slr_settings_either(set->hr_scheduler, set->scheduler);
    m->set.steps = set->hr_steps ? set->hr_steps : set->steps;
    SLR_TRY(slr_hires_fit(&m->size, set->width, set->height, set->hr_scale, set->hr_width,
                          set->hr_height, s->factor));
    m->latent = slr_latent_find(name);
    if (!m->latent)
        SLR_TRY(wake_upscaler(s, name));
    SLR_TRY(slr_sampler_choose(slr_settings_either(m->set.sampler, "Euler a"), m->set.scheduler,
                               &second.sampler, &second.scheduler, &second.automatic));
    return slr_wording_new(&m->words, s, slr_settings_either(set->hr_prompt, set->prompt),
                           slr_settings_either(set->hr_negative, set->negative), evaluations,
                           slr_steps_evaluations(second.sampler, m->set.steps));
}

static int begin_plain(slr_run *s, slr_modes *m)
{
    slr_encoder e;
    SLR_TRY(slr_modes_encoder(s, slr_run_model(s, 0), &e));
    int64_t h = s->set.height >> s->factor, w = s->set.width >> s->factor;
    m->plain = slr_calloc(s->g->m, (size_t)(h * w), (size_t)(1 + e.c) * sizeof *m->plain);
    return m->plain ? slr_plain_extra(&e, h, w, m->plain) : SDLORA_ENOMEM;
}

int slr_modes_begin(slr_run *s, int evaluations)
{
    slr_modes *m = slr_calloc(s->g->m, 1, sizeof *m);
    if (!m)
        return SDLORA_ENOMEM;
    s->modes = m;
    m->canvas.m = m->start.m = m->words.known.m = s->g->m;
    if (s->r->mask && !s->r->init)
        return slr_fail(SDLORA_EINVAL, __func__, "there is a mask and no picture that it is for");
    if (s->r->init && s->set.hr)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "enable_hr is for pictures from noise: give a larger width and height "
                        "instead");
    if (s->r->init)
        return begin_picture(s, m);
    int extra = extra_of(slr_run_model(s, 0));
    if (extra == SLR_EXTRA_EDIT)
        return slr_fail(SDLORA_EINVAL, __func__, "%s edits pictures: give one to start from",
                        slr_checkpoint_path(slr_run_model(s, 0)->base));
    if (extra == SLR_EXTRA_INPAINT)
        SLR_TRY(begin_plain(s, m));
    return s->set.hr ? begin_hires(s, m, evaluations) : SDLORA_OK;
}

void slr_modes_end(slr_run *s)
{
    slr_modes *m = s->modes;
    if (!m)
        return;
    slr_canvas_free(&m->canvas);
    slr_start_free(&m->start);
    if (m->hires)
        slr_wording_free(&m->words, s->g->m);
    slr_free(s->g->m, m->plain);
    slr_free(s->g->m, m);
    s->modes = NULL;
}
