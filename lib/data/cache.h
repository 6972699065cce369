/* SPDX-License-Identifier: MIT */
/* Latents of one picture in a file beside it. */
#ifndef SLR_DATA_CACHE_H
#define SLR_DATA_CACHE_H

#include "data/dataset.h"

/* All that a latent depends on, apart from the picture itself. */
typedef struct slr_cache_key {
    const char *encoder_id;
    int64_t h, w, c;   /* of the latent */
    int64_t variants;  /* 1, or 2: as it is and mirrored */
    uint64_t settings; /* a hash of how the picture is read and resized */
} slr_cache_key;

/* Fills latents [variants,h,w,c].  OK, or DONE when there is no file, or EFORMAT when there is one
 * that is damaged or was made from another picture.  ENOMEM stays ENOMEM. */
int slr_cache_load(slr_mem *m, const slr_item *item, const slr_cache_key *key, float *latents);
/* Appears whole or not at all. */
int slr_cache_save(slr_mem *m, const slr_item *item, const slr_cache_key *key,
                   const float *latents);

#endif
