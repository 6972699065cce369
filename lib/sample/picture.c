/* SPDX-License-Identifier: MIT */
/* One picture: its passes, then pixels.  Refuses to know prompts and samplers. */
#include "sample/generator_impl.h"

#include <string.h>

#include "base/status.h"

/* [-1,1] to bytes: clamp((x + 1) / 2) * 255, truncated. */
static void to_bytes(const float *image, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = (image[i] + 1.0f) / 2.0f;
        v = v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v;
        out[i] = (uint8_t)(v * 255.0f);
    }
}

static int decode(slr_run *s, const float *x, int64_t h, int64_t w, slr_pixels *out)
{
    slr_mem *m = s->g->m;
    int64_t height = h << s->factor, width = w << s->factor;
    size_t bytes = (size_t)(height * width) * 3;
    SLR_TRY(slr_run_tell(s, SLR_RUN_DECODE));
    float *image = slr_alloc(m, bytes * sizeof *image);
    *out = (slr_pixels){(int)width, (int)height, 3, slr_alloc(m, bytes)};
    int rc = image && out->data ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_vae_decode(s->g->decoder, x, 1, h, w, image, s->r->cancel);
    if (rc >= 0)
        to_bytes(image, out->data, bytes);
    slr_free(m, image);
    return rc;
}

/* From noise to latents. */
static int first_pass(slr_run *s, int64_t h, int64_t w, float *x)
{
    slr_pass p = {.set = &s->set, .h = h, .w = w, .x = x};
    size_t floats = (size_t)(h * w * slr_denoiser_shape(s->g->model->denoiser)->out_channels);
    if (s->r->latents_in)
        p.noise_in = s->r->latents_in + (size_t)s->k * floats;
    SLR_TRY(slr_run_noise(s, h, w, &p.noise));
    int rc = slr_run_pass(s, &s->words, &p);
    slr_noise_free(p.noise);
    return rc;
}

int slr_run_picture(slr_run *s, slr_picture *out)
{
    int64_t h = s->set.height >> s->factor, w = s->set.width >> s->factor,
            c = slr_denoiser_shape(s->g->model->denoiser)->out_channels;
    out->latents = slr_calloc(s->g->m, (size_t)(h * w * c), sizeof *out->latents);
    if (!out->latents)
        return SDLORA_ENOMEM;
    SLR_TRY(first_pass(s, h, w, out->latents));
    return decode(s, out->latents, h, w, &out->pixels);
}
