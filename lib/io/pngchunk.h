/* SPDX-License-Identifier: MIT */
/* The chunk stream of a PNG file, walked without libpng. */
#ifndef SLR_IO_PNGCHUNK_H
#define SLR_IO_PNGCHUNK_H

#include "io/codec.h"

typedef struct slr_png_chunk {
    char name[5];
    uint32_t size;
    uint64_t at; /* of the payload; its CRC follows it */
} slr_png_chunk;

/* The chunk at *at, which moves on to the next one.  DONE at IEND or the end of the file.  The CRC
 * is not looked at. */
int slr_png_next(slr_source *s, uint64_t *at, slr_png_chunk *out);

#endif
