/* SPDX-License-Identifier: MIT */
/* Latents at another size, as torch's interpolate() does it (align_corners off). */
#ifndef SLR_SAMPLE_LATENTS_H
#define SLR_SAMPLE_LATENTS_H

#include "base/mem.h"

/* AUTOMATIC1111's names: "Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (bicubic
 * antialiased)", "Latent (nearest)", "Latent (nearest-exact)". */
typedef struct slr_latent_row {
    const char *name;
    int taps; /* of a filter: 1 nearest, 2 linear, 4 cubic */
    int kind; /* inside the file */
} slr_latent_row;

const slr_latent_row *slr_latent_upscalers(size_t *n);
const slr_latent_row *slr_latent_find(const char *name); /* case-insensitive; NULL: no such name */

/* Zeros [h,w,c], for latents and for pictures; NULL: no memory. */
float *slr_latent_new(slr_mem *m, int64_t h, int64_t w, int64_t c);
/* x [h,w,c] -> out [to_h,to_w,c] */
int slr_latent_resize(const slr_latent_row *row, slr_mem *m, const float *x, int64_t h, int64_t w,
                      int64_t c, int64_t to_h, int64_t to_w, float *out);
/* Cuts [h,w,c] down to [to_h,to_w,c], as much at either side; an odd rest goes below and right. */
void slr_latent_crop(const float *x, int64_t h, int64_t w, int64_t c, int64_t to_h, int64_t to_w,
                     float *out);

#endif
