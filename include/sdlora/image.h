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

/** Reads a PNG, JPEG or WebP file as RGB, as stored: a camera's orientation mark is not applied. */
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
/** The generation parameters (AUTOMATIC1111's `parameters` text), or "". */
SDLORA_API const char *sdlora_image_text(const sdlora_image *img);

/** Writes a PNG with the parameters text, whole or not at all. */
SDLORA_API int sdlora_image_save(const sdlora_image *img, const char *path);

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
