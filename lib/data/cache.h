/* SPDX-License-Identifier: MIT */
/* Latents of one picture, those of what masks leave of it, or the states of its caption, in a file
 * beside it. */
#ifndef SLR_DATA_CACHE_H
#define SLR_DATA_CACHE_H

#include "data/dataset.h"

/* All that the numbers depend on, apart from what item->content_hash tells. */
typedef struct slr_cache_key {
    /* "latents", "inpaint" or "text": part of the file's name, and the tensor's */
    const char *what;
    const char *encoder_id;
    int64_t h, w, c;   /* of the latent */
    int64_t variants;  /* 1, or 2: as it is and mirrored; of "inpaint" so often each mask */
    uint64_t settings; /* a hash of how the picture is read and resized */
} slr_cache_key;

/* Fills latents [variants,h,w,c].  OK, or DONE when there is no file, or EFORMAT when there is one
 * that is damaged or was made from another picture.  ENOMEM stays ENOMEM. */
int slr_cache_load(slr_mem *m, const slr_item *item, const slr_cache_key *key, float *latents);
/* Appears whole or not at all. */
int slr_cache_save(slr_mem *m, const slr_item *item, const slr_cache_key *key,
                   const float *latents);

#endif
