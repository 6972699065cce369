/* SPDX-License-Identifier: MIT */
/* Masks of inpainting: grey pictures [h,w], white where the picture changes. */
#ifndef SLR_SAMPLE_MASK_H
#define SLR_SAMPLE_MASK_H

#include <stdbool.h>

#include "io/image.h"

/* A picture as a mask: its transparency when there is any, else its brightness.  sharp: opacity
 * above 128 counts as whole. */
int slr_mask_of(slr_pixels *out, slr_mem *m, const slr_pixels *p, bool sharp);
void slr_mask_invert(slr_pixels *mask);
/* What is laid over the result of a whole picture: twice the mask, so that blurred edges change. */
void slr_mask_double(slr_pixels *mask);

typedef struct slr_box {
    int32_t x, y, w, h;
} slr_box;
/* The smallest box around what is not black, with padding, inside the mask; false: all is black. */
bool slr_mask_box(const slr_pixels *mask, int32_t padding, slr_box *out);
/* Widens a box to the shape of w x h, inside the mask where that is possible. */
void slr_box_shape(slr_box *b, int32_t w, int32_t h, int32_t image_w, int32_t image_h);

/* [h,w] at the size of latents, 0..1; sharp: 0 or 1. */
int slr_mask_latent(const slr_pixels *mask, slr_mem *m, int64_t h, int64_t w, bool sharp,
                    float *out);

/* Fills what the mask covers with the colours around it: blurs of the rest, from wide to narrow,
 * over one another.  rgb and mask have one size. */
int slr_mask_fill(slr_pixels *rgb, slr_mem *m, const slr_pixels *mask);

#endif
