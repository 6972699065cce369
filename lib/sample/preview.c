/* SPDX-License-Identifier: MIT */
/* Previews by the linear map that fits an autoencoder best (AUTOMATIC1111's "Approx cheap"): 12
 * products a pixel.  Knows two tables, one per autoencoder, which latents of all families of it
 * share. */
#include "sample/preview.h"

#include <math.h>

#include "base/status.h"

enum { LATENTS = 4, COLOURS = 3 };

typedef struct table {
    double vae_scale;
    float rgb[LATENTS][COLOURS]; /* what a latent adds to each colour in [-1,1] */
} table;

static const table tables[] = {
    {0.18215,
     {{0.298f, 0.207f, 0.208f},
      {0.187f, 0.286f, 0.173f},
      {-0.158f, 0.189f, 0.264f},
      {-0.184f, -0.271f, -0.473f}}},
    {0.13025,
     {{0.3448f, 0.4168f, 0.4395f},
      {-0.1953f, -0.0290f, 0.0250f},
      {0.1074f, 0.0886f, -0.0163f},
      {-0.3730f, -0.2499f, -0.2088f}}},
};

/* The table of the nearest scale. */
static const table *table_of(double vae_scale)
{
    return fabs(vae_scale - tables[1].vae_scale) < fabs(vae_scale - tables[0].vae_scale)
               ? &tables[1]
               : &tables[0];
}

/* [-1,1] to a byte, cut and not rounded; what is not a number is black. */
static uint8_t to_byte(float v)
{
    v = v * 0.5f + 0.5f;
    return v > 0.0f ? (uint8_t)(255.0f * (v < 1.0f ? v : 1.0f)) : 0;
}

int slr_preview_make(slr_pixels *out, slr_mem *m, const float *latents, int64_t h, int64_t w,
                     int64_t channels, double vae_scale)
{
    const table *t = table_of(vae_scale);

    *out = (slr_pixels){.channels = COLOURS};
    if (channels != LATENTS || h < 1 || w < 1 || h > SLR_IMAGE_MAX_SIDE || w > SLR_IMAGE_MAX_SIDE)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "there are no previews of latents [%lld,%lld,%lld]", (long long)h,
                        (long long)w, (long long)channels);
    out->data = slr_alloc(m, (size_t)(h * w) * COLOURS);
    if (!out->data)
        return SDLORA_ENOMEM;
    out->height = (int32_t)h;
    out->width = (int32_t)w;
    for (int64_t i = 0; i < h * w; i++)
        for (int c = 0; c < COLOURS; c++) {
            float v = 0;

            for (int k = 0; k < LATENTS; k++)
                v += latents[i * LATENTS + k] * t->rgb[k][c];
            out->data[i * COLOURS + c] = to_byte(v);
        }
    return SDLORA_OK;
}
