/* SPDX-License-Identifier: MIT */
/* Pictures: PNG, JPEG and WebP files to and from 8-bit RGB, with size limits before allocation, and
 * the texts that lie in them.  No
 * colour management: the pixels are those of Pillow's convert("RGB").  The format is told by
 * content, never by suffix.  JPEG files with mere warnings (stray bytes between markers) are read
 * as Pillow reads them; files that end early are refused, as Pillow does. */
#ifndef SLR_IO_IMAGE_H
#define SLR_IO_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

#define SLR_IMAGE_MAX_PIXELS                                                                       \
    UINT64_C(100000000) /* width * height, unless a caller says otherwise */
#define SLR_IMAGE_MAX_SIDE 65535

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
int slr_image_info_parse(const void *bytes, size_t n, const char *label, slr_image_info *out);
/* alpha: keep a fourth channel if the file has one; else it is dropped (RGB as stored, like
 * Pillow).  The orientation is not applied. */
int slr_image_read(slr_mem *m, const char *path, bool alpha, slr_pixels *out);
int slr_image_decode(slr_mem *m, const void *bytes, size_t n, const char *label, bool alpha,
                     slr_pixels *out);
/* max_pixels 0: SLR_IMAGE_MAX_PIXELS. */
int slr_image_decode_limit(slr_mem *m, const void *bytes, size_t n, const char *label, bool alpha,
                           uint64_t max_pixels, slr_pixels *out);
/* EXIF orientation to upright pixels. */
int slr_image_orient(slr_mem *m, slr_pixels *p, int orientation);

/* --- texts --- */

typedef struct slr_image_text {
    char *keyword, *text; /* UTF-8 */
} slr_image_text;

typedef struct slr_image_texts {
    slr_mem *m;
    slr_image_text *at;
    size_t n, cap;
} slr_image_texts;

/* All texts of a file: a PNG's chunks by their keywords, a JPEG's comment as "comment", the EXIF
 * user comment of either and of WebP as "UserComment".  A later one of a keyword replaces an
 * earlier one.  A broken text is left out, but for a PNG's `parameters`: EFORMAT.  *out is set in
 * any case; free it. */
int slr_image_texts_parse(slr_image_texts *out, slr_mem *m, const void *bytes, size_t n,
                          const char *label);
int slr_image_texts_read(slr_image_texts *out, slr_mem *m, const char *path);
void slr_image_texts_free(slr_image_texts *t);
/* Borrowed; NULL when there is none. */
const char *slr_image_texts_get(const slr_image_texts *t, const char *keyword);
/* Takes `text` over, also when it fails; text NULL: ENOMEM. */
int slr_image_texts_set(slr_image_texts *t, const char *keyword, char *text);
int slr_image_texts_copy(slr_image_texts *out, slr_mem *m, const slr_image_texts *from);

/* --- writing --- */

typedef struct slr_image_save {
    const char *text; /* Nullable: PNG's `parameters`, or the EXIF user comment; UTF-8 */
    const slr_image_texts *others; /* Nullable: further texts; PNG alone has room for them */
    int quality;                   /* of JPEG and WebP, 1 to 100; 0: 80 */
    bool lossless;                 /* WebP */
} slr_image_save;

/* format: "png", "jpeg", "webp".  Equal input gives equal bytes.  EINVAL when the text is too long
 * for a JPEG (64 KiB), or a side is for a WebP (16383). */
int slr_image_encode(slr_mem *m, const slr_pixels *p, const char *format, const slr_image_save *how,
                     void **bytes, size_t *n);
/* The format goes by the ending: .png, .jpg, .jpeg, .webp.  Atomic. */
int slr_image_write(slr_mem *m, const char *path, const slr_pixels *p, const slr_image_save *how);
/* text (Nullable): the `parameters` chunk: tEXt when Latin-1, iTXt otherwise.  Atomic. */
int slr_png_write(slr_mem *m, const char *path, const slr_pixels *p, const char *text);
int slr_png_encode(slr_mem *m, const slr_pixels *p, const char *text, void **bytes, size_t *n);
/* The `parameters` text of a PNG file; ENOTFOUND when it has none. Caller frees. */
int slr_png_text(slr_mem *m, const char *path, char **text);
/* The same for any keyword ("Comment", "prompt", ...), from bytes.  UTF-8; a later chunk wins. */
int slr_png_text_find(slr_mem *m, const void *bytes, size_t n, const char *label,
                      const char *keyword, char **text);

#endif
