/* SPDX-License-Identifier: MIT */
/* From the bytes of a picture file to what a VAE takes. */
#ifndef SLR_DATA_AUGMENT_H
#define SLR_DATA_AUGMENT_H

#include "data/dataset.h"
#include "io/image.h"

typedef struct slr_background {
    bool drop; /* alpha is ignored: the colours as stored */
    uint8_t rgb[3];
} slr_background;
/* "white", "black", "gray", "#rrggbb", "none". */
int slr_background_parse(const char *text, slr_background *out);

typedef struct slr_picture_rule {
    slr_background background;
    bool apply_exif;
    int filter; /* SLR_RESIZE_* */
    uint64_t max_pixels;
} slr_picture_rule;
int slr_picture_rule_new(slr_picture_rule *r, slr_opt o);

/* Decodes, turns upright, flattens and resizes: [resized_h,resized_w,3].  EFORMAT when the file is
 * no longer the one that the dataset saw. */
int slr_picture_read(const slr_picture_rule *r, slr_mem *m, const slr_item *item, slr_pixels *out);

/* The window of w x h pixels at (left, top), perhaps mirrored, as [h,w,3] in [-1,1]. */
void slr_picture_floats(const slr_pixels *p, int32_t left, int32_t top, int32_t w, int32_t h,
                        bool flip, float *out);

#endif
