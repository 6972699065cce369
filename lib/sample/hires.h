/* SPDX-License-Identifier: MIT */
/* The sizes of hires fix: what a first pass is enlarged to, and what of it the second pass keeps.
 */
#ifndef SLR_SAMPLE_HIRES_H
#define SLR_SAMPLE_HIRES_H

#include <stdint.h>

typedef struct slr_hires_size {
    int32_t up_w, up_h; /* pixels that the first picture is enlarged to */
    int64_t w, h;       /* latents of the second pass: all of that, or its middle */
} slr_hires_size;

/* width, height: of the first pass.  resize_x and resize_y, 0 where not given, count before scale;
 * one of them keeps the shape, both cut.  factor: log2 of pixels by latents.  EINVAL when a side
 * gets too large or too small. */
int slr_hires_fit(slr_hires_size *out, int32_t width, int32_t height, double scale,
                  int32_t resize_x, int32_t resize_y, int factor);

#endif
