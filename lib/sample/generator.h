/* SPDX-License-Identifier: MIT */
/* Prompts to pictures.  Keeps text states by string and graphs by shape, so that the next picture
 * pays only for its steps.  One thread at a time. */
#ifndef SLR_SAMPLE_GENERATOR_H
#define SLR_SAMPLE_GENERATOR_H

#include "base/log.h"
#include "base/thread.h"
#include "io/image.h"
#include "models/bpe.h"
#include "networks/network.h"
#include "sample/settings.h"
#include "sample/solver.h"

typedef struct slr_generator slr_generator;

/* vae Nullable: the checkpoint's own; vae_path names it in the parameters text.  bpe Nullable: made
 * here. */
int slr_generator_new(slr_generator **out, slr_mem *m, slr_log log, slr_checkpoint *base,
                      slr_weights *vae, const char *vae_path, slr_devices *devices, slr_bpe *bpe);
void slr_generator_free(slr_generator *g);
/* Gives back graphs, states, networks and the autoencoder's memory until the next run; what was
 * read of files, as their hashes, stays. */
void slr_generator_rest(slr_generator *g);

/* Finds the network of a <lora:name> or <hypernet:name> tag, kind being "lora" or "hypernet":
 * returns a reference in *out, or ENOTFOUND. */
typedef int (*slr_find_network_fn)(void *user, const char *kind, const char *name,
                                   slr_network **out);
/* That error, where there is nowhere to look. */
int slr_generator_no_dirs(const char *kind, const char *name);
void slr_generator_set_finder(slr_generator *g, slr_find_network_fn fn, void *user);

/* An embedding whose name prompts may use from now on, besides those among a request's networks and
 * in the files of those.  Takes a reference. */
int slr_generator_add_embedding(slr_generator *g, slr_network *embedding);
/* Those; borrowed until the next is added. */
slr_network *const *slr_generator_embeddings(const slr_generator *g, size_t *n);

/* What a generator's checkpoints are for. */
enum {
    SLR_ROLE_BASE = 0,
    SLR_ROLE_REFINER, /* finishes pictures (refiner_switch_at) */
    SLR_ROLE_SECOND,  /* makes the second pass of hires fix */
    SLR_ROLES
};
/* The checkpoint of a role but the first, with its own VAE; NULL: none.  Of one checkpoint in two
 * roles there is one model. */
int slr_generator_set_model(slr_generator *g, int role, slr_checkpoint *ckpt);
/* Another VAE for a role's checkpoint from now on; NULL: its own, or, when it has none, that of the
 * first.  path names it in the parameters text. */
int slr_generator_set_vae(slr_generator *g, int role, slr_weights *vae, const char *path);
/* The VAE that a role's checkpoint has, and the path that it was set with (NULL: its own); NULL:
 * none.  Borrowed. */
slr_weights *slr_generator_vae(const slr_generator *g, int role, const char **path);

/* Gives the sha256 of a file, which it may know; without one files are read.  Its errors are those
 * of slr_hash_file(). */
typedef int (*slr_hash_fn)(void *user, const char *path, char hex[65]);
void slr_generator_set_hasher(slr_generator *g, slr_hash_fn fn, void *user);

/* Where a run is. */
enum { SLR_RUN_PREPARE = 0, SLR_RUN_SAMPLE, SLR_RUN_DECODE };
typedef struct slr_run_progress {
    int phase;               /* SLR_RUN_* */
    int picture, n_pictures; /* counted from 0 */
    int pass, n_passes;
    int step, steps; /* of the pass, done; before the first step 0, 0 */
    int done, total; /* steps of the picture, over its passes; total is an estimate */
    const float *x0; /* [h,w,c], scaled: what the picture is thought to become; or NULL */
    int64_t h, w, c;
    const slr_family *family; /* whose latents x0 are */
} slr_run_progress;
typedef int (*slr_run_progress_fn)(void *user, const slr_run_progress *p); /* non-zero cancels */

typedef struct slr_request {
    slr_settings set;
    const slr_pixels *init;         /* Nullable: picture to start from, RGB or RGBA, upright */
    const slr_pixels *mask;         /* Nullable: of init, white where it changes */
    const char *upscaler_path;      /* network that set.hr_upscaler names; NULL: it needs none */
    slr_policy policy, vae_policy;  /* zeros: f32 */
    bool vae_tiling;                /* large pictures are decoded in tiles */
    const slr_stack_item *networks; /* besides those of the prompt's tags */
    size_t n_networks;
    const float *latents_in; /* Nullable: initial noise instead of the seed's, [count,4,h,w] NCHW
                                (tests) */
    slr_run_progress_fn progress; /* Nullable; called for each phase and after each step */
    void *progress_user;
    const slr_cancel_flag *cancel;
} slr_request;

typedef struct slr_picture {
    slr_pixels pixels;
    char *infotext; /* A1111's parameters text */
    int64_t seed;
    float *latents;  /* [h,w,c], final, scaled */
    int64_t h, w, c; /* of those */
} slr_picture;

/* What a run of it would be refused for, as far as it can be told without a model at work:
 * settings, styles and networks that there are not. */
int slr_generator_check(slr_generator *g, const slr_request *r);
/* pictures: array of set.count, filled; free each with slr_picture_free. */
int slr_generator_run(slr_generator *g, const slr_request *r, slr_picture *pictures);
void slr_picture_free(slr_mem *m, slr_picture *p);

#endif
