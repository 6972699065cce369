/* SPDX-License-Identifier: MIT */
/* Resizing 8-bit pictures, with the bytes of the programs that users trained with before. */
#ifndef SLR_DATA_RESAMPLE_H
#define SLR_DATA_RESAMPLE_H

#include "io/image.h"

enum {
    SLR_RESIZE_AUTO = 0,    /* area when no side grows, else Lanczos */
    SLR_RESIZE_AREA = 1,    /* as OpenCV's INTER_AREA */
    SLR_RESIZE_NEAREST = 2, /* as OpenCV's INTER_NEAREST */
    SLR_RESIZE_LANCZOS = 3, /* the rest as Pillow's, which widens filters when it shrinks */
    SLR_RESIZE_BICUBIC = 4,
    SLR_RESIZE_BILINEAR = 5,
    SLR_RESIZE_BOX = 6
};

/* By the names of option resize_interpolation; NULL or "" is AUTO.  -1: no such filter. */
int slr_resize_filter(const char *name);

/* src to [h,w,src->channels] in out->data (slr_free). */
int slr_resize(slr_mem *m, const slr_pixels *src, int32_t w, int32_t h, int filter,
               slr_pixels *out);

#endif
