/* SPDX-License-Identifier: MIT */
/* One picture: its passes, then pixels.  Knows what stands between two passes;
 * refuses to know prompts and samplers. */
#include <string.h>

#include "base/status.h"
#include "sample/latents.h"
#include "sample/modes.h"

/* [-1,1] to bytes: clamp((x + 1) / 2) * 255, truncated. */
static void to_bytes(const float *image, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = (image[i] + 1.0f) / 2.0f;
        v = v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v;
        out[i] = (uint8_t)(v * 255.0f);
    }
}

static int64_t channels(const slr_run *s)
{
    return slr_denoiser_shape(s->g->model[SLR_ROLE_BASE]->denoiser)->out_channels;
}

/* The checkpoint that made the latents at hand, whose VAE decodes them. */
static slr_model *maker(const slr_run *s)
{
    const slr_pass *p = &s->last;
    return p->became.refined ? p->refiner : p->model;
}

static int decode(slr_run *s, const float *x, int64_t h, int64_t w, slr_pixels *out)
{
    slr_mem *m = s->g->m;
    slr_vae_runner *vae;
    int64_t height = h << s->factor, width = w << s->factor;
    size_t bytes = (size_t)(height * width) * 3;
    SLR_TRY(slr_run_tell(s, SLR_RUN_DECODE));
    SLR_TRY(slr_run_coder(s, maker(s), &vae));
    float *image = slr_latent_new(s->g->m, height, width, 3);
    *out = (slr_pixels){(int)width, (int)height, 3, slr_alloc(m, bytes)};
    int rc = image && out->data ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_vae_decode(vae, x, 1, h, w, image, s->r->cancel);
    if (rc >= 0)
        to_bytes(image, out->data, bytes);
    slr_free(m, image);
    return rc;
}

/* --- passes --- */

static int run_pass(slr_run *s, const slr_wording *words, slr_pass *p)
{
    SLR_TRY(slr_run_noise(s, p->h, p->w, &p->noise));
    int rc = slr_run_pass(s, words, p);
    slr_noise_free(p->noise);
    p->noise = NULL;
    return rc;
}

/* From noise to latents. */
static int from_noise(slr_run *s, int64_t h, int64_t w, float *x)
{
    slr_pass p = {.set = &s->set, .h = h, .w = w, .x = x, .extra = s->modes->plain};
    p.n_extra = slr_model_extra(slr_run_model(s, 0));
    p.merge = slr_settings_merge(&s->set, false, false);
    if (s->r->latents_in)
        p.noise_in = s->r->latents_in + (size_t)s->k * (size_t)(h * w * channels(s));
    return run_pass(s, &s->words, &p);
}

/* The numbers that masked content starts from: the seed's, without variation.
 */
static int content_noise(slr_run *s, const slr_start *start, float *out)
{
    slr_noise_config c = {.source = s->set.rng,
                          .seed = (uint64_t)s->seed,
                          .c = start->c,
                          .h = start->h,
                          .w = start->w};
    slr_noise *noise;
    SLR_TRY(slr_noise_new(&noise, s->g->m, &c));
    int rc = slr_noise_first(noise, out);
    slr_noise_free(noise);
    return rc;
}

/* From the run's picture to latents. */
static int from_picture(slr_run *s, float *x)
{
    const slr_start *start = &s->modes->start;
    float *init = slr_latent_new(s->g->m, start->h, start->w, start->c), *noise = NULL;
    int rc = init ? SDLORA_OK : SDLORA_ENOMEM;
    slr_pass p = {.set = &s->set,
                  .h = start->h,
                  .w = start->w,
                  .x = x,
                  .init = init,
                  .strength = s->set.denoising_strength,
                  .noise_scale = s->set.noise_multiplier,
                  .repaint = start->repaint,
                  .extra = start->extra,
                  .n_extra = start->n_extra,
                  .merge = slr_settings_merge(&s->set, true, false),
                  .edit = slr_checkpoint_edit(slr_run_model(s, 0)->base)};
    if (rc >= 0 && start->content == SLR_CONTENT_NOISE && start->repaint) {
        noise = slr_latent_new(s->g->m, start->h, start->w, start->c);
        rc = noise ? content_noise(s, start, noise) : SDLORA_ENOMEM;
    }
    if (rc >= 0) {
        slr_start_picture(start, noise, init);
        rc = run_pass(s, &s->words, &p);
    }
    slr_free(s->g->m, init);
    slr_free(s->g->m, noise);
    return rc;
}

/* --- between the passes of hires fix --- */

/* Latents [h,w] of the first pass as the second one starts from them, and what
 * the second model is told besides; the enlarged ones, before they are cut. */
typedef struct enlarged {
    slr_model *model; /* of the second pass */
    slr_encoder encoder;
    int64_t h, w, n_extra;
    float *x;     /* [h,w,c] */
    float *extra; /* [h,w,n_extra]; NULL: the model takes none */
} enlarged;

static void enlarged_free(const slr_run *s, enlarged *e)
{
    slr_free(s->g->m, e->x);
    slr_free(s->g->m, e->extra);
}

/* extra of a picture [H,W,3], all of which changes. */
static int picture_extra(slr_run *s, const float *image, enlarged *e)
{
    int64_t h = e->h << s->factor, w = e->w << s->factor;
    if (slr_checkpoint_edit(e->model->base))
        return slr_edit_extra(&e->encoder, image, h, w, e->extra);
    return slr_inpaint_extra(&e->encoder, image, h, w, NULL, true, s->set.mask_weight, e->extra);
}

static int latent_extra(slr_run *s, enlarged *e)
{
    bool whole = s->set.mask_weight >= 1;
    if (slr_checkpoint_edit(e->model->base))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s edits pictures: as a second pass it wants one, which hr_upscaler "
                        "Lanczos or a network makes",
                        slr_checkpoint_path(e->model->base));
    if (whole)
        return slr_plain_extra(&e->encoder, e->h, e->w, e->extra);
    float *image = slr_latent_new(s->g->m, e->h << s->factor, e->w << s->factor, 3);
    int rc = image ? slr_vae_decode(e->encoder.vae, e->x, 1, e->h, e->w, image, s->r->cancel)
                   : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = picture_extra(s, image, e);
    slr_free(s->g->m, image);
    return rc;
}

static int enlarge_latents(slr_run *s, const float *x, int64_t h, int64_t w, enlarged *e)
{
    const slr_modes *m = s->modes;
    int64_t c = channels(s);
    e->h = m->size.up_h >> s->factor;
    e->w = m->size.up_w >> s->factor;
    e->x = slr_latent_new(s->g->m, e->h, e->w, c);
    if (!e->x)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_latent_resize(m->latent, s->g->m, x, h, w, c, e->h, e->w, e->x));
    return e->extra ? latent_extra(s, e) : SDLORA_OK;
}

/* The bytes as 0..1 are what AUTOMATIC1111 gives inpainting and editing models
 * here, which want -1..1. */
static int bytes_extra(slr_run *s, const slr_pixels *p, enlarged *e)
{
    int64_t h = e->h << s->factor, w = e->w << s->factor;
    float *image = slr_latent_new(s->g->m, h, w, 3);
    if (!image)
        return SDLORA_ENOMEM;
    for (int64_t y = 0; y < h; y++)
        for (int64_t i = 0; i < w * 3; i++)
            image[y * w * 3 + i] = (float)p->data[y * p->width * 3 + i] / 255.0f;
    int rc = picture_extra(s, image, e);
    slr_free(s->g->m, image);
    return rc;
}

static int enlarge_picture(slr_run *s, const float *x, int64_t h, int64_t w, enlarged *e)
{
    const slr_modes *m = s->modes;
    slr_pixels small = {0}, large = {0};
    int rc = decode(s, x, h, w, &small);
    if (rc >= 0)
        rc = slr_upscaler_run(s->g->upscaler, &small, m->size.up_w, m->size.up_h, s->r->cancel,
                              &large);
    if (rc >= 0)
        rc = slr_encode_picture(&e->encoder, &large, &e->x, &e->h, &e->w);
    if (rc >= 0 && e->extra)
        rc = bytes_extra(s, &large, e);
    slr_free(s->g->m, small.data);
    slr_free(s->g->m, large.data);
    return rc;
}

/* The middle of [h,w,c], in the memory of the whole. */
static int crop(const slr_run *s, float **x, const enlarged *e, int64_t c)
{
    const slr_hires_size *size = &s->modes->size;
    if (!*x || (size->h == e->h && size->w == e->w))
        return SDLORA_OK;
    float *cut = slr_latent_new(s->g->m, size->h, size->w, c);
    if (!cut)
        return SDLORA_ENOMEM;
    slr_latent_crop(*x, e->h, e->w, c, size->h, size->w, cut);
    slr_free(s->g->m, *x);
    *x = cut;
    return SDLORA_OK;
}

/* The model of the second pass, its VAE, and room for what it is told. */
static int begin_second(slr_run *s, enlarged *e)
{
    const slr_hires_size *size = &s->modes->size;
    e->model = slr_run_model(s, 1);
    e->n_extra = slr_model_extra(e->model);
    SLR_TRY(slr_modes_encoder(s, e->model, &e->encoder));
    if (e->n_extra <= 0)
        return SDLORA_OK;
    e->extra =
        slr_latent_new(s->g->m, size->up_h >> s->factor, size->up_w >> s->factor, e->n_extra);
    return e->extra ? SDLORA_OK : SDLORA_ENOMEM;
}

static int second_pass(slr_run *s, const float *first, int64_t h, int64_t w, float *x)
{
    const slr_modes *m = s->modes;
    enlarged e = {0};
    s->pass = 1;
    int rc = begin_second(s, &e);
    if (rc >= 0)
        rc = m->latent ? enlarge_latents(s, first, h, w, &e) : enlarge_picture(s, first, h, w, &e);
    if (rc >= 0)
        rc = crop(s, &e.x, &e, channels(s));
    if (rc >= 0)
        rc = crop(s, &e.extra, &e, e.n_extra);
    slr_pass p = {.set = &m->set,
                  .h = m->size.h,
                  .w = m->size.w,
                  .width = m->size.up_w,
                  .height = m->size.up_h,
                  .x = x,
                  .init = e.x,
                  .strength = s->set.denoising_strength,
                  .noise_scale = 1,
                  .exact_steps = true,
                  .extra = e.extra,
                  .n_extra = e.n_extra,
                  .merge = slr_settings_merge(&s->set, false, true)};
    if (rc >= 0)
        rc = run_pass(s, &m->words, &p);
    enlarged_free(s, &e);
    return rc;
}

/* --- a picture --- */

/* Latents of the picture, [*h,*w,c], into out. */
static int draw(slr_run *s, float **out, int64_t *h, int64_t *w)
{
    slr_modes *m = s->modes;
    *h = s->set.height >> s->factor;
    *w = s->set.width >> s->factor;
    float *x = slr_latent_new(s->g->m, *h, *w, channels(s));
    *out = x;
    if (!x)
        return SDLORA_ENOMEM;
    if (m->from_picture)
        return from_picture(s, x);
    if (!m->hires)
        return from_noise(s, *h, *w, x);
    s->n_passes = 2;
    s->later = m->set.steps;
    SLR_TRY(from_noise(s, *h, *w, x));
    s->done = s->set.steps;
    s->later = 0;
    float *large = slr_latent_new(s->g->m, m->size.h, m->size.w, channels(s));
    int rc = large ? second_pass(s, x, *h, *w, large) : SDLORA_ENOMEM;
    slr_free(s->g->m, x);
    *out = large;
    *h = m->size.h;
    *w = m->size.w;
    return rc;
}

int slr_run_picture(slr_run *s, slr_picture *out)
{
    out->c = channels(s);
    SLR_TRY(draw(s, &out->latents, &out->h, &out->w));
    SLR_TRY(decode(s, out->latents, out->h, out->w, &out->pixels));
    return s->modes->from_picture ? slr_canvas_finish(&s->modes->canvas, &out->pixels) : SDLORA_OK;
}
