/* SPDX-License-Identifier: MIT */
/* Fitting a picture into a frame of another size, as AUTOMATIC1111's resize modes do. */
#ifndef SLR_SAMPLE_FIT_H
#define SLR_SAMPLE_FIT_H

#include "io/image.h"

enum {
    SLR_FIT_STRETCH = 0, /* "Just resize" */
    SLR_FIT_CROP = 1,    /* "Crop and resize": covers the frame, centred */
    SLR_FIT_FILL = 2,    /* "Resize and fill": all of it, the borders from its edges */
    SLR_FIT_LATENT = 3   /* "Just resize (latent upscale)": not here, pictures are filled */
};

/* Enlarges a picture at least to the size that is asked for (Nullable: Lanczos).  out->data is the
 * caller's. */
typedef int (*slr_enlarge_fn)(void *user, const slr_pixels *p, int32_t w, int32_t h,
                              slr_pixels *out);
typedef struct slr_enlarge {
    slr_enlarge_fn fn;
    void *user;
} slr_enlarge;

/* p, of any number of channels, to w x h.  by (Nullable) is asked when a side of an RGB picture
 * grows. */
int slr_fit(slr_pixels *out, slr_mem *m, const slr_pixels *p, int mode, int32_t w, int32_t h,
            const slr_enlarge *by);

#endif
