/* SPDX-License-Identifier: MIT */
/* Pictures: PNG, JPEG and WebP files to and from 8-bit RGB, with size limits before allocation.  No
 * colour management, as Pillow's convert("RGB"). */
#ifndef SLR_IO_IMAGE_H
#define SLR_IO_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"

typedef struct slr_pixels {
    int32_t width, height, channels; /* 3 or 4 */
    uint8_t *data; /* [height,width,channels]; slr_free with the mem it was made with */
} slr_pixels;

typedef struct slr_image_info {
    int32_t width, height; /* as stored */
    int orientation;       /* EXIF 1..8; 1 when absent */
    bool alpha;
    const char *format; /* "png", "jpeg", "webp" */
} slr_image_info;

/* Reads the header only. */
int slr_image_info_read(const char *path, slr_image_info *out);
/* alpha: keep a fourth channel if the file has one; else it is dropped (RGB as stored, like
 * Pillow). */
int slr_image_read(slr_mem *m, const char *path, bool alpha, slr_pixels *out);
int slr_image_decode(slr_mem *m, const void *bytes, size_t n, const char *label, bool alpha,
                     slr_pixels *out);
/* EXIF orientation to upright pixels. */
int slr_image_orient(slr_mem *m, slr_pixels *p, int orientation);
/* text (Nullable): the `parameters` chunk: tEXt when Latin-1, iTXt otherwise.  Atomic. */
int slr_png_write(slr_mem *m, const char *path, const slr_pixels *p, const char *text);
int slr_png_encode(slr_mem *m, const slr_pixels *p, const char *text, void **bytes, size_t *n);
/* The `parameters` text of a PNG file; ENOTFOUND when it has none. Caller frees. */
int slr_png_text(slr_mem *m, const char *path, char **text);

#endif
