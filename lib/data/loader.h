/* SPDX-License-Identifier: MIT */
/* Batches of latents and captions in an order fixed by the seed.  Pictures are decoded on a thread
 * of their own while others are encoded. */
#ifndef SLR_DATA_LOADER_H
#define SLR_DATA_LOADER_H

#include "data/dataset.h"

/* Encodes n images [n,h,w,3] f32 in [-1,1] into latents [n,h/8,w/8,4] (scaled).  Called on the
 * caller's thread. */
typedef int (*slr_encode_fn)(void *user, const float *image, int64_t n, int64_t h, int64_t w,
                             float *latents);
/* Told of progress while the cache is filled; non-zero cancels. */
typedef int (*slr_cache_progress_fn)(void *user, int64_t done, int64_t total);

typedef struct slr_loader_config {
    slr_mem *mem;
    slr_log log;
    slr_encode_fn encode;
    void *encode_user;
    const char *encoder_id; /* names the VAE: part of the cache key */
    int factor;             /* pixels per latent, 8 */
    int channels;           /* of a latent, 4 */
    slr_cache_progress_fn progress;
    void *progress_user;
    const slr_cancel_flag *cancel;
    uint64_t seed;
    int threads;
    int64_t max_steps; /* of the whole run; 0: not known, then token_warmup_step must be >= 1 */
    /* For an inpainting model: batches have masks.  A picture's own, or drawn: `masks` of a picture
     * beforehand, by mask_seed, but no more than the epochs use; 0, or with random_crop: one for
     * each use, by seed. */
    bool inpaint;
    int64_t masks;
    uint64_t mask_seed;
    int64_t max_epochs; /* of the whole run; 0: not known */
} slr_loader_config;

typedef struct slr_batch {
    int64_t n, w, h;             /* n samples of w x h pixels */
    int64_t lw, lh, channels;    /* latents: w / factor, h / factor, 4 */
    const float *latents;        /* [n,h/8,w/8,4] */
    const float *extra;          /* [n,h/8,w/8,1+4]: the mask (1: to be painted) and the latents of
                                  * the masked picture; NULL without inpainting */
    const char *const *captions; /* n, processed (shuffled, dropped ...) */
    const float *loss_weight;    /* n: prior_loss_weight for reg images, else 1 */
    const float *sizes;          /* [n,SLR_SAMPLE_SIZES] */
    const size_t *items;         /* n indices into the dataset */
    int64_t epoch, index;        /* 0-based epoch; index of the batch in it */
} slr_batch;

typedef struct slr_loader slr_loader;
/* Fills the latent cache (memory; and disk with cache_latents_to_disk) before it returns; with
 * random_crop there is no cache and slr_loader_get() encodes.  Holds a reference to d; what config
 * points at must stay, its texts need not.  ENAN names a picture that the encoder gave up on,
 * EINVAL a mask that does not fit its picture. */
int slr_loader_new(slr_loader **out, slr_dataset *d, const slr_loader_config *config);
void slr_loader_free(slr_loader *l);
/* Whether slr_loader_get() needs the encoder. */
bool slr_loader_encodes(const slr_loader *l);
/* The batch number `index` of `epoch`: any order of calls gives the same bytes.  Lifetime: until
 * the next call.  step: optimiser steps done so far (token warm-up). */
int slr_loader_get(slr_loader *l, int64_t epoch, int64_t index, int64_t step,
                   const slr_batch **out);

/* What a set's pictures take before and while they are trained on. */
typedef struct slr_loader_needs {
    uint64_t latent_bytes;  /* kept in memory */
    uint64_t cache_bytes;   /* of cache files that will be written */
    int64_t cache_files;    /* how many */
    int64_t pictures;       /* to be encoded before the first step */
    int64_t epoch_pictures; /* encoded anew in each epoch: random crops, fresh masks */
    double seconds;         /* that encoding the former takes, by those that were tried */
    double epoch_seconds;   /* the latter */
    double start;           /* that the first one takes more: the encoder's plan is made */
    int64_t captions;       /* different ones; meaningless when they change */
    bool captions_change;   /* drawn anew at each use */
} slr_loader_needs;
/* Looks at what slr_loader_new() would do for the same arguments, and encodes a few pictures to
 * time it; the biggest one first.  Writes nothing. */
int slr_loader_look(slr_dataset *d, const slr_loader_config *config, slr_loader_needs *out);

#endif
