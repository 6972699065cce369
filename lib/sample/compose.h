/* SPDX-License-Identifier: MIT */
/* Pictures cut, pasted and laid over one another, with Pillow's roundings.  Channels: 1 grey, 3
 * RGB, 4 RGBA.  Refuses to know why. */
#ifndef SLR_SAMPLE_COMPOSE_H
#define SLR_SAMPLE_COMPOSE_H

#include "io/image.h"

/* A picture of zeros; p->data is the caller's (slr_free). */
int slr_picture_zero(slr_pixels *p, slr_mem *m, int32_t w, int32_t h, int32_t channels);
int slr_picture_copy(slr_pixels *out, slr_mem *m, const slr_pixels *p);
/* [y, y + h) x [x, x + w); what lies outside is zero. */
int slr_picture_crop(slr_pixels *out, slr_mem *m, const slr_pixels *p, int32_t x, int32_t y,
                     int32_t w, int32_t h);
/* Copies src to (x, y) of dst and drops what lies outside.  RGB on RGBA is opaque; else the
 * channels are equal. */
void slr_picture_paste(slr_pixels *dst, const slr_pixels *src, int32_t x, int32_t y);
/* RGBA on RGBA from the upper left corner: dst becomes src over dst. */
void slr_picture_over(slr_pixels *dst, const slr_pixels *src);
/* RGBA of rgb where mask [h,w] of the same size is black; premultiplied: colours times opacity. */
int slr_picture_unmasked(slr_pixels *out, slr_mem *m, const slr_pixels *rgb,
                         const slr_pixels *mask);
/* Premultiplied RGBA to the usual one. */
void slr_picture_straight(slr_pixels *p);
/* RGB or RGBA over one colour: RGB. */
int slr_picture_flatten(slr_pixels *out, slr_mem *m, const slr_pixels *p, const uint8_t colour[3]);
/* The first three channels, or one three times. */
int slr_picture_rgb(slr_pixels *out, slr_mem *m, const slr_pixels *p);

#endif
