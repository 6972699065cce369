/* SPDX-License-Identifier: MIT */
/* A rough look at latents without the autoencoder: one pixel per latent. */
#ifndef SLR_SAMPLE_PREVIEW_H
#define SLR_SAMPLE_PREVIEW_H

#include "io/image.h"

/* latents: [h,w,4], scaled; vae_scale tells which autoencoder they are of.  out->data is allocated.
 * ENOTSUP for another number of channels. */
int slr_preview_make(slr_pixels *out, slr_mem *m, const float *latents, int64_t h, int64_t w,
                     int64_t channels, double vae_scale);

#endif
