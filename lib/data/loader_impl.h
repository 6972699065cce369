/* SPDX-License-Identifier: MIT */
/* Inside a loader: what it holds, and the parts of loader*.c that call each other. */
#ifndef SLR_DATA_LOADER_IMPL_H
#define SLR_DATA_LOADER_IMPL_H

#include "base/rng.h"
#include "data/augment.h"
#include "data/cache.h"
#include "data/caption.h"
#include "data/loader.h"
#include "data/order.h"

struct slr_loader {
    slr_mem *m;
    slr_dataset *d;
    slr_loader_config c;
    char *encoder_id;
    slr_picture_rule picture;
    slr_caption_rule caption;
    bool flip, random_crop, disk;
    float prior_weight;
    float **latents; /* [items] of [1 or 2, lh, lw, channels]; NULL with random_crop */
    /* [items] of [1 or 2, masks, lh, lw, 1 + channels]; NULL without inpainting; [i] is NULL where
     * each use has a mask of its own */
    float **extra;
    slr_order order;
    slr_batch batch;
    slr_arena *texts;      /* captions of the batch */
    const char **captions; /* [batch size], as the next three */
    float *weight;
    float *sizes;          /* [batch size,SLR_SAMPLE_SIZES] */
    size_t *items, *fresh; /* fresh: those whose masks are not kept */
    float *data;           /* latents of the batch */
    float *extra_data;     /* the same beside them: [n, lh, lw, 1 + channels] */
    float *pixels;         /* [n,h,w,3] */
    uint8_t *mask;         /* [h,w] of one sample */
    float *dark;           /* latents of its masked picture */
    size_t data_cap, extra_cap, pixels_cap, mask_cap, dark_cap;
    int64_t n_bad; /* cache files that were not usable */
    char *first_bad;
    bool cannot_write;
};

/* loader.c */
/* A loader without latents. */
int slr_loader_make(slr_loader **out, slr_dataset *d, const slr_loader_config *config);
/* The chances of one use of a picture, by what they decide. */
void slr_loader_stream(const slr_loader *l, uint32_t use, int64_t epoch, const slr_entry *e,
                       slr_rng *rng);
/* The first draw of a sample's stream: whether it is mirrored. */
bool slr_loader_flip(const slr_loader *l, int64_t epoch, const slr_entry *e, slr_rng *rng);
/* What one use shows of the resized picture. */
typedef struct slr_window {
    int32_t left, top;
    bool flip;
} slr_window;
slr_window slr_loader_window(const slr_loader *l, int64_t epoch, const slr_entry *e);

/* loader_cache.c */
/* Floats of a picture's latents, of one orientation. */
size_t slr_loader_latent_size(const slr_loader *l, const slr_item *item);
int slr_loader_variants(const slr_loader *l); /* orientations that are encoded beforehand */
int slr_loader_stopped(const slr_loader *l);
int slr_loader_check_finite(const slr_loader *l, const slr_item *item, const float *x, size_t n);
/* What the numbers of a cache file depend on. */
slr_cache_key slr_loader_key(const slr_loader *l, const slr_item *item);
int slr_loader_to_disk(slr_loader *l, const slr_item *item, const slr_cache_key *key,
                       const float *values);
/* Fills what is on disk; *lacks says what of it is not.  extra: Nullable where there are no masks
 * beforehand. */
enum { SLR_LACKS_LATENTS = 1, SLR_LACKS_EXTRA = 2 };
int slr_loader_load(slr_loader *l, const slr_item *item, float *latents, float *extra,
                    unsigned *lacks);
/* Encodes a picture in all orientations. */
int slr_loader_encode(slr_loader *l, const slr_item *item, const slr_pixels *p, float *latents);
/* Everything that is encoded before the first step. */
int slr_loader_fill(slr_loader *l);

/* loader_masks.c: the masks of a picture that are drawn and encoded beforehand; 0: none, each use
 * has one of its own. */
int64_t slr_loader_masks(const slr_loader *l, const slr_item *item);
size_t slr_loader_extra_size(const slr_loader *l, const slr_item *item); /* floats of one */
slr_cache_key slr_loader_extra_key(const slr_loader *l, const slr_item *item);
/* The masks of all pictures that bring their own are there and fit. */
int slr_loader_check_masks(const slr_loader *l);
int slr_loader_encode_masked(slr_loader *l, const slr_item *item, const slr_pixels *p,
                             float *extra);
/* Mask and masked latents of the batch's samples; pixels of all of them: l->pixels with
 * random_crop. */
int slr_loader_fill_extra(slr_loader *l, const slr_entry *e);

#endif
