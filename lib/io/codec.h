/* SPDX-License-Identifier: MIT */
/* What the picture formats share inside the room: the size check that comes before every
 * allocation, and the row that each format fills in. */
#ifndef SLR_IO_CODEC_H
#define SLR_IO_CODEC_H

#include "io/image.h"
#include "io/source.h"

typedef struct slr_decode_job {
    slr_mem *m;
    const uint8_t *bytes;
    size_t n;
    const char *label;
    bool alpha;
    uint64_t max_pixels;
} slr_decode_job;

typedef struct slr_codec {
    const char *name;
    bool (*is)(const uint8_t *first, size_t n); /* the first 16 bytes, or fewer */
    /* Fills width, height, alpha and orientation. */
    int (*info)(slr_source *s, slr_image_info *out);
    int (*decode)(const slr_decode_job *job, slr_pixels *out);
} slr_codec;

extern const slr_codec slr_codec_png, slr_codec_jpeg, slr_codec_webp;

/* EFORMAT unless 1 <= w, h <= SLR_IMAGE_MAX_SIDE and w * h <= max_pixels. */
int slr_image_check(const char *label, uint64_t w, uint64_t h, uint64_t max_pixels);
/* Checks, then allocates out->data. */
int slr_pixels_new(const slr_decode_job *job, uint64_t w, uint64_t h, int channels,
                   slr_pixels *out);

/* Orientation 1..8 of a TIFF structure ("II*\0..." or "MM\0*..."); 1 when it says nothing usable.
 */
int slr_exif_orientation(const uint8_t *tiff, size_t n);
/* Takes it from [at, at + n) of a source; a leading "Exif\0\0" is stepped over. */
int slr_exif_from(slr_source *s, uint64_t at, uint64_t n);

#endif
