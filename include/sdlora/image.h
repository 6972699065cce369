/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/image.h
 * Decoded pictures: 8-bit RGB, rows from the top, no padding.
 *
 * An image never changes after it is made and may be shared.
 * Return, out and text rules: see sdlora/context.h.
 */
#ifndef SDLORA_IMAGE_H
#define SDLORA_IMAGE_H

#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

/**
 * Reads a PNG, JPEG or WebP file as RGB, as stored: a camera's orientation mark is not applied. Its
 * texts come along: the generation parameters, and what else stands in a PNG.
 */
SDLORA_API int sdlora_image_open(sdlora_image **out, sdlora_context *ctx, const char *path);
/** Copies `height` rows of width * 3 bytes. */
SDLORA_API int sdlora_image_new(sdlora_image **out, sdlora_context *ctx, int32_t width,
                                int32_t height, const uint8_t *rgb);
SDLORA_API sdlora_image *sdlora_image_ref(sdlora_image *img);
SDLORA_API void sdlora_image_unref(sdlora_image *img);

SDLORA_API int32_t sdlora_image_width(const sdlora_image *img);
SDLORA_API int32_t sdlora_image_height(const sdlora_image *img);
/** height * width * 3 bytes.  Lifetime: borrowed from the image. */
SDLORA_API const uint8_t *sdlora_image_data(const sdlora_image *img);
/**
 * The generation parameters in AUTOMATIC1111's words, or "".  They are read from the `parameters`
 * of a PNG and from the EXIF comment of a PNG, JPEG or WebP; what NovelAI writes is translated.
 * sdlora_options_from_infotext() makes options of them.
 */
SDLORA_API const char *sdlora_image_text(const sdlora_image *img);
/** Keyword of the i-th further text of the file that the image was read from ("workflow"), or NULL
 * past the last; and its text, or NULL when there is none.  Lifetime: borrowed from the image. */
SDLORA_API const char *sdlora_image_keyword(const sdlora_image *img, size_t i);
SDLORA_API const char *sdlora_image_keyword_text(const sdlora_image *img, const char *keyword);
/** The same picture with other generation parameters; NULL or "" for none.  It keeps its further
 * texts. */
SDLORA_API int sdlora_image_with_text(sdlora_image **out, const sdlora_image *img,
                                      const char *text);
/**
 * Only the generation parameters of a picture file, without decoding it, or what a text file holds;
 * to be given back with sdlora_text_free().
 * Errors: SDLORA_ENOTFOUND when a picture has none.
 */
SDLORA_API int sdlora_image_read_text(sdlora_context *ctx, const char *path, char **text);

enum {
    SDLORA_QUALITY_DEFAULT = 0,   /**< 80, which is AUTOMATIC1111's */
    SDLORA_QUALITY_LOSSLESS = 101 /**< of WebP; JPEG has 100 */
};

/** Writes a PNG, JPEG or WebP file, by the ending of the path, with the parameters text, whole or
 * not at all.  Same as sdlora_image_save_as() with SDLORA_QUALITY_DEFAULT. */
SDLORA_API int sdlora_image_save(const sdlora_image *img, const char *path);
/**
 * @param quality  of JPEG and WebP: 1 to 100, or SDLORA_QUALITY_*.
 * Errors: SDLORA_EINVAL for another ending, and when the text does not fit: a JPEG has room for
 * 64 KiB.  A PNG also keeps the image's further texts.
 */
SDLORA_API int sdlora_image_save_as(const sdlora_image *img, const char *path, int32_t quality);

/**
 * A labelled sheet: rows x columns pictures of one size with a caption above each column and left
 * of each row (ASCII).  Pictures narrower than 128 pixels are enlarged by the smallest whole factor
 * that makes them at least that wide, each pixel a square.  Labels are broken into lines; what does
 * not fit above a column or beside a row even so is left out.  @param cells  rows * columns images,
 * row by row; labels Nullable.
 */
SDLORA_API int sdlora_image_sheet(sdlora_image **out, sdlora_context *ctx,
                                  sdlora_image *const *cells, size_t rows, size_t columns,
                                  const char *const *row_labels, const char *const *column_labels);

SDLORA_END_DECLS
#endif /* SDLORA_IMAGE_H */
