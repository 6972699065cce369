/* SPDX-License-Identifier: MIT */
/* What the picture formats share inside the room: bytes that come from a file or from memory, the
 * size check that comes before every allocation, and the row that each format fills in. */
#ifndef SLR_IO_CODEC_H
#define SLR_IO_CODEC_H

#include "io/image.h"

/* Bytes by position, for readers that only need a few of them. */
typedef struct slr_source {
    const uint8_t *bytes; /* NULL: read from fd */
    int fd;
    uint64_t size;
    const char *label;
    uint64_t at; /* window of fd: bytes [at, at + held) */
    size_t held;
    uint8_t window[4096];
} slr_source;

void slr_source_memory(slr_source *s, const void *bytes, size_t n, const char *label);
/* Copies [at, at + n) into `to`; EFORMAT when the source ends before that. */
int slr_source_get(slr_source *s, uint64_t at, void *to, size_t n);

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

static inline uint32_t slr_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t slr_be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t slr_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

#endif
