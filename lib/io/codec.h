/* SPDX-License-Identifier: MIT */
/* What the picture formats share inside the room: the size check that comes before every
 * allocation, and the row that each format fills in. */
#ifndef SLR_IO_CODEC_H
#define SLR_IO_CODEC_H

#include "base/str.h"
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

typedef struct slr_encode_job {
    slr_mem *m;
    const slr_pixels *p;
    const slr_image_save *how; /* the text is UTF-8, the quality 1 to 100 */
} slr_encode_job;

typedef struct slr_codec {
    const char *name;
    const char *ends[3]; /* of file names, without case; NULL after the last */
    bool (*is)(const uint8_t *first, size_t n); /* the first 16 bytes, or fewer */
    /* Fills width, height, alpha and orientation. */
    int (*info)(slr_source *s, slr_image_info *out);
    int (*decode)(const slr_decode_job *job, slr_pixels *out);
    int (*texts)(slr_source *s, slr_image_texts *out);
    int (*encode)(const slr_encode_job *job, slr_buf *out);
} slr_codec;

/* The row for a file that begins so: ENOTSUP or EFORMAT with a sentence when there is none. */
int slr_codec_find(const slr_codec **out, const uint8_t *first, size_t n, const char *label);
extern const slr_codec *const slr_codecs[];
extern const size_t slr_codecs_count;

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
/* Appends what of the bytes is UTF-8, without NULs: texts whose encoding nobody says. */
void slr_image_text_keep(slr_buf *out, const uint8_t *bytes, size_t n);
/* Where the user comment, with its eight bytes of encoding, lies in a TIFF structure. */
bool slr_exif_comment(const uint8_t *tiff, size_t n, size_t *at, size_t *len);
/* Appends what a user comment says. */
void slr_exif_comment_text(slr_buf *out, const uint8_t *comment, size_t n);
/* Adds it from [at, at + n) of a source as "UserComment", if there is one; a broken or oversized
 * block has none. */
int slr_exif_texts(slr_source *s, uint64_t at, uint64_t n, slr_image_texts *out);
/* Appends a TIFF structure whose user comment is the text, as UTF-16 in big-endian order. */
int slr_exif_make(slr_buf *out, const char *text);

/* libpng's side of slr_codec_png. */
int slr_png_encode_job(const slr_encode_job *job, slr_buf *out);
int slr_png_texts(slr_source *s, slr_image_texts *out);

#endif
