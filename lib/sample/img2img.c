/* SPDX-License-Identifier: MIT */
/* What a pass starts from besides noise.  Knows how AUTOMATIC1111 makes latents, their mask and the
 * channels of inpainting models of a picture; refuses to know where pictures come from and how
 * sampling blends. */
#include "sample/img2img.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "sample/compose.h"
#include "sample/latents.h"

/* Bytes to [-1,1]. */
static void to_floats(const slr_pixels *rgb, float *out)
{
    size_t n = (size_t)rgb->width * (size_t)rgb->height * 3;
    for (size_t i = 0; i < n; i++)
        out[i] = (float)rgb->data[i] / 255.0f * 2.0f - 1.0f;
}

int slr_encode_picture(const slr_encoder *e, const slr_pixels *rgb, float **latents, int64_t *h,
                       int64_t *w)
{
    slr_pixels cut;
    *latents = NULL;
    *h = rgb->height >> e->factor;
    *w = rgb->width >> e->factor;
    if (*h < 1 || *w < 1)
        return slr_fail(SDLORA_EINVAL, __func__, "a picture of %dx%d is too small to start from",
                        rgb->width, rgb->height);
    int64_t height = *h << e->factor, width = *w << e->factor;
    SLR_TRY(slr_picture_crop(&cut, e->m, rgb, 0, 0, (int32_t)width, (int32_t)height));
    float *image = slr_latent_new(e->m, height, width, 3);
    *latents = slr_latent_new(e->m, *h, *w, e->c);
    int rc = image && *latents ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0) {
        to_floats(&cut, image);
        rc = slr_vae_encode(e->vae, image, 1, height, width, NULL, *latents, e->cancel);
    }
    slr_free(e->m, cut.data);
    slr_free(e->m, image);
    if (rc < 0) {
        slr_free(e->m, *latents);
        *latents = NULL;
    }
    return rc;
}

/* --- channels of inpainting models --- */

int slr_inpaint_extra(const slr_encoder *e, const float *image, int64_t image_h, int64_t image_w,
                      const slr_pixels *mask, bool sharp, double weight, float *extra)
{
    int64_t h = image_h >> e->factor, w = image_w >> e->factor, stride = 1 + e->c;
    float *dark = slr_latent_new(e->m, image_h, image_w, 3),
          *latents = slr_latent_new(e->m, h, w, e->c);
    int rc = dark && latents ? SDLORA_OK : SDLORA_ENOMEM;
    slr_require(!mask || (mask->height == image_h && mask->width == image_w));
    for (int64_t i = 0; rc >= 0 && i < image_h * image_w; i++) {
        float at = mask ? (float)mask->data[i] / 255.0f : 1.0f;
        at = sharp ? rintf(at) : at;
        for (int64_t k = i * 3; k < i * 3 + 3; k++)
            dark[k] = image[k] + (float)weight * (image[k] * (1.0f - at) - image[k]);
    }
    if (rc >= 0)
        rc = slr_vae_encode(e->vae, dark, 1, image_h, image_w, NULL, latents, e->cancel);
    for (int64_t i = 0; rc >= 0 && i < h * w; i++) {
        /* The pixel that torch's "nearest" takes: the first of each block. */
        int64_t y = (i / w) << e->factor, x = (i % w) << e->factor;
        float at = mask ? (float)mask->data[y * image_w + x] / 255.0f : 1.0f;
        extra[i * stride] = sharp ? rintf(at) : at;
        memcpy(extra + i * stride + 1, latents + i * e->c, (size_t)e->c * sizeof *extra);
    }
    slr_free(e->m, dark);
    slr_free(e->m, latents);
    return rc;
}

int slr_edit_extra(const slr_encoder *e, const float *image, int64_t image_h, int64_t image_w,
                   float *extra)
{
    int64_t n = (image_h >> e->factor) * (image_w >> e->factor) * e->c;
    SLR_TRY(slr_vae_encode(e->vae, image, 1, image_h, image_w, NULL, extra, e->cancel));
    for (int64_t i = 0; i < n; i++)
        extra[i] = (float)(extra[i] / e->scale);
    return SDLORA_OK;
}

int slr_plain_extra(const slr_encoder *e, int64_t h, int64_t w, float *extra)
{
    float *grey = slr_latent_new(e->m, h << e->factor, w << e->factor, 3);
    if (!grey)
        return SDLORA_ENOMEM;
    int rc = slr_inpaint_extra(e, grey, h << e->factor, w << e->factor, NULL, true, 1, extra);
    slr_free(e->m, grey);
    return rc;
}

/* --- a start --- */

/* s->init from the canvas, at the size of the pass. */
static int make_init(slr_start *s, const slr_encoder *e, const slr_canvas *canvas)
{
    int64_t h, w;
    float *latents;
    SLR_TRY(slr_encode_picture(e, &canvas->image, &latents, &h, &w));
    if (h == s->h && w == s->w) {
        s->init = latents;
        return SDLORA_OK;
    }
    s->init = slr_latent_new(s->m, s->h, s->w, s->c);
    int rc = s->init ? slr_latent_resize(slr_latent_find("Latent"), s->m, latents, h, w, s->c, s->h,
                                         s->w, s->init)
                     : SDLORA_ENOMEM;
    slr_free(s->m, latents);
    return rc;
}

static int make_extra(slr_start *s, const slr_encoder *e, const slr_canvas *canvas,
                      const slr_start_config *config)
{
    const slr_pixels *p = &canvas->image, *mask = canvas->mask.data ? &canvas->mask : NULL;
    bool edit = config->extra == SLR_EXTRA_EDIT;
    s->n_extra = edit ? s->c : 1 + s->c;
    s->extra = slr_latent_new(s->m, s->h, s->w, s->n_extra);
    float *image = slr_latent_new(s->m, p->height, p->width, 3);
    int rc = s->extra && image ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0 && (p->height != s->h << e->factor || p->width != s->w << e->factor))
        rc = slr_fail(SDLORA_ENOTSUP, __func__,
                      "latent upscaling of a picture for a model that is told the picture: resize "
                      "it otherwise");
    if (rc >= 0)
        to_floats(p, image);
    if (rc >= 0 && edit)
        rc = slr_edit_extra(e, image, p->height, p->width, s->extra);
    else if (rc >= 0)
        rc = slr_inpaint_extra(e, image, p->height, p->width, mask, config->sharp,
                               config->mask_weight, s->extra);
    slr_free(s->m, image);
    return rc;
}

int slr_start_new(slr_start *out, const slr_encoder *e, const slr_canvas *canvas,
                  const slr_start_config *config)
{
    *out = (slr_start){
        .m = e->m, .h = config->h, .w = config->w, .c = e->c, .content = config->content};
    SLR_TRY(make_init(out, e, canvas));
    if (canvas->mask.data) {
        out->repaint = slr_latent_new(e->m, out->h, out->w, 1);
        if (!out->repaint)
            return SDLORA_ENOMEM;
        SLR_TRY(slr_mask_latent(&canvas->mask, e->m, out->h, out->w, config->sharp, out->repaint));
    }
    return config->extra ? make_extra(out, e, canvas, config) : SDLORA_OK;
}

void slr_start_free(slr_start *s)
{
    slr_free(s->m, s->init);
    slr_free(s->m, s->repaint);
    slr_free(s->m, s->extra);
    *s = (slr_start){0};
}

void slr_start_picture(const slr_start *s, const float *noise, float *init)
{
    bool emptied = s->repaint && s->content >= SLR_CONTENT_NOISE;
    int64_t n = s->h * s->w;
    memcpy(init, s->init, (size_t)(n * s->c) * sizeof *init);
    for (int64_t i = 0; emptied && i < n; i++)
        for (int64_t k = 0; k < s->c; k++) {
            float fresh = s->content == SLR_CONTENT_NOISE ? noise[k * n + i] : 0.0f;
            init[i * s->c + k] =
                init[i * s->c + k] * (1.0f - s->repaint[i]) + fresh * s->repaint[i];
        }
}
