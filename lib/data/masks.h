/* SPDX-License-Identifier: MIT */
/* Masks of training samples for inpainting models: [h,w] bytes, 1 where the model is to paint. */
#ifndef SLR_DATA_MASKS_H
#define SLR_DATA_MASKS_H

#include "base/rng.h"
#include "data/augment.h"

/* A filled rectangle or ellipse, each half of the time: sides from 1 pixel to the picture's, wholly
 * inside it. */
void slr_masks_draw(slr_rng *rng, int32_t w, int32_t h, uint8_t *mask);

/* EINVAL when the mask of a picture cannot be read or has another size. */
int slr_masks_check(const slr_picture_rule *r, const slr_item *item);
/* The picture's own mask as large as the resized picture: brightness of one half and more is 1.
 * [resized_h,resized_w] in out->data; caller frees. */
int slr_masks_read(const slr_picture_rule *r, slr_mem *m, const slr_item *item, slr_pixels *out);
/* The window of w x h pixels at (left, top) of it, perhaps mirrored. */
void slr_masks_window(const slr_pixels *own, int32_t left, int32_t top, int32_t w, int32_t h,
                      bool flip, uint8_t *mask);

/* What is masked of a picture [h,w,3] in [-1,1] becomes grey. */
void slr_masks_cover(const uint8_t *mask, int64_t pixels, float *image);
/* Beside each other, as the UNet takes them: the mask at the latents' size, of which a latent gets
 * the first pixel of its block, and the latents [h/factor,w/factor,c] of the masked picture. */
void slr_masks_join(const uint8_t *mask, int64_t w, int64_t h, int factor, const float *latents,
                    int64_t c, float *extra);

#endif
