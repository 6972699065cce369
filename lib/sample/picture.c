/* SPDX-License-Identifier: MIT */
/* One picture: its passes, then pixels.  Knows what stands between two passes;
 * refuses to know prompts and samplers. */
#include <string.h>

#include "base/status.h"
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

static float *floats(const slr_run *s, int64_t h, int64_t w, int64_t c)
{
    return slr_calloc(s->g->m, (size_t)(h * w), (size_t)c * sizeof(float));
}

static int64_t channels(const slr_run *s)
{
    return slr_denoiser_shape(s->g->model->denoiser)->out_channels;
}

static slr_encoder encoder_of(const slr_run *s)
{
    return (slr_encoder){s->g->m, s->g->decoder, s->factor, channels(s), s->r->cancel};
}

static int decode(slr_run *s, const float *x, int64_t h, int64_t w, slr_pixels *out)
{
    slr_mem *m = s->g->m;
    int64_t height = h << s->factor, width = w << s->factor;
    size_t bytes = (size_t)(height * width) * 3;
    SLR_TRY(slr_run_tell(s, SLR_RUN_DECODE));
    float *image = floats(s, height, width, 3);
    *out = (slr_pixels){(int)width, (int)height, 3, slr_alloc(m, bytes)};
    int rc = image && out->data ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_vae_decode(s->g->decoder, x, 1, h, w, image, s->r->cancel);
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
    float *init = floats(s, start->h, start->w, start->c), *noise = NULL;
    int rc = init ? SDLORA_OK : SDLORA_ENOMEM;
    slr_pass p = {.set = &s->set,
                  .h = start->h,
                  .w = start->w,
                  .x = x,
                  .init = init,
                  .strength = s->set.denoising_strength,
                  .noise_scale = s->set.noise_multiplier,
                  .repaint = start->repaint,
                  .extra = start->extra};
    if (rc >= 0 && start->content == SLR_CONTENT_NOISE && start->repaint) {
        noise = floats(s, start->h, start->w, start->c);
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
 * inpainting models are told; the enlarged ones, before they are cut. */
typedef struct enlarged {
    int64_t h, w;
    float *x;     /* [h,w,c] */
    float *extra; /* [h,w,1+c]; NULL: the model takes none */
} enlarged;

static void enlarged_free(const slr_run *s, enlarged *e)
{
    slr_free(s->g->m, e->x);
    slr_free(s->g->m, e->extra);
}

/* extra of a picture [H,W,3], all of which changes. */
static int picture_extra(slr_run *s, const float *image, enlarged *e)
{
    slr_encoder enc = encoder_of(s);
    return slr_inpaint_extra(&enc, image, e->h << s->factor, e->w << s->factor, NULL, true,
                             s->set.mask_weight, e->extra);
}

static int latent_extra(slr_run *s, enlarged *e)
{
    slr_encoder enc = encoder_of(s);
    if (s->set.mask_weight >= 1)
        return slr_plain_extra(&enc, e->h, e->w, e->extra);
    float *image = floats(s, e->h << s->factor, e->w << s->factor, 3);
    int rc = image ? slr_vae_decode(s->g->decoder, e->x, 1, e->h, e->w, image, s->r->cancel)
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
    e->x = floats(s, e->h, e->w, c);
    if (!e->x)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_latent_resize(m->latent, s->g->m, x, h, w, c, e->h, e->w, e->x));
    return e->extra ? latent_extra(s, e) : SDLORA_OK;
}

/* The bytes as 0..1 are what AUTOMATIC1111 gives inpainting models here, which
 * want -1..1. */
static int bytes_extra(slr_run *s, const slr_pixels *p, enlarged *e)
{
    int64_t h = e->h << s->factor, w = e->w << s->factor;
    float *image = floats(s, h, w, 3);
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
    slr_encoder enc = encoder_of(s);
    slr_pixels small = {0}, large = {0};
    int rc = decode(s, x, h, w, &small);
    if (rc >= 0)
        rc = slr_upscaler_run(s->g->upscaler, &small, m->size.up_w, m->size.up_h, s->r->cancel,
                              &large);
    if (rc >= 0)
        rc = slr_encode_picture(&enc, &large, &e->x, &e->h, &e->w);
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
    float *cut = floats(s, size->h, size->w, c);
    if (!cut)
        return SDLORA_ENOMEM;
    slr_latent_crop(*x, e->h, e->w, c, size->h, size->w, cut);
    slr_free(s->g->m, *x);
    *x = cut;
    return SDLORA_OK;
}

static int second_pass(slr_run *s, const float *first, int64_t h, int64_t w, float *x)
{
    const slr_modes *m = s->modes;
    enlarged e = {0};
    int rc = SDLORA_OK;
    s->pass = 1;
    if (slr_model_extra(s->g->model) > 0) {
        e.extra = floats(s, m->size.up_h >> s->factor, m->size.up_w >> s->factor, channels(s) + 1);
        rc = e.extra ? SDLORA_OK : SDLORA_ENOMEM;
    }
    if (rc >= 0)
        rc = m->latent ? enlarge_latents(s, first, h, w, &e) : enlarge_picture(s, first, h, w, &e);
    if (rc >= 0)
        rc = crop(s, &e.x, &e, channels(s));
    if (rc >= 0)
        rc = crop(s, &e.extra, &e, channels(s) + 1);
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
                  .extra = e.extra};
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
    float *x = floats(s, *h, *w, channels(s));
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
    float *large = floats(s, m->size.h, m->size.w, channels(s));
    int rc = large ? second_pass(s, x, *h, *w, large) : SDLORA_ENOMEM;
    slr_free(s->g->m, x);
    *out = large;
    *h = m->size.h;
    *w = m->size.w;
    return rc;
}

int slr_run_picture(slr_run *s, slr_picture *out)
{
    int64_t h, w;
    SLR_TRY(draw(s, &out->latents, &h, &w));
    SLR_TRY(decode(s, out->latents, h, w, &out->pixels));
    return s->modes->from_picture ? slr_canvas_finish(&s->modes->canvas, &out->pixels) : SDLORA_OK;
}
