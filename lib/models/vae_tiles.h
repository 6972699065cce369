/* SPDX-License-Identifier: MIT */
/* Inside the room: a picture worked on tile by tile. */
#ifndef SLR_MODELS_VAE_TILES_H
#define SLR_MODELS_VAE_TILES_H

#include "base/mem.h"

/* One tile x [h,w,c_in] to *y [h * up / down, w * up / down, c_out], which need only last until the
 * next call. */
typedef int (*slr_tile_fn)(void *user, int64_t h, int64_t w, const float *x, const float **y);

typedef struct slr_tiles {
    slr_mem *m;
    int64_t h, w, c_in, c_out; /* input [h,w,c_in]; h and w multiples of `down` */
    int64_t tile;              /* side of a tile of the input, a multiple of 4 * down */
    int64_t up, down;          /* output side = input side * up / down */
    slr_tile_fn fn;
    void *user;
} slr_tiles;

/* Cuts x, has each tile worked on, and blends them to y [h * up / down, w * up / down, c_out].
 * Tiles start at every 3/4 of their side and end with the picture. */
int slr_tiles_run(const slr_tiles *t, const float *x, float *y);

#endif
