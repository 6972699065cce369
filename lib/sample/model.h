/* SPDX-License-Identifier: MIT */
/* One checkpoint ready to sample with: its graphs, its texts, its schedule, its VAE.  A refiner is
 * another one, and so is what makes second passes.  One thread at a time. */
#ifndef SLR_SAMPLE_MODEL_H
#define SLR_SAMPLE_MODEL_H

#include "models/schedule.h"
#include "models/vae.h"
#include "sample/conds.h"
#include "sample/denoiser.h"
#include "sample/settings.h"

typedef struct slr_model {
    slr_mem *m;
    int refs;
    slr_checkpoint *base;
    slr_devices *devices;
    slr_engine *engine;
    slr_conds *conds;
    slr_denoiser *denoiser;
    slr_schedule schedule; /* as the settings of the run want it */
    slr_weights *vae;      /* NULL: there is none */
    char *vae_path;        /* NULL: the checkpoint's own */
    slr_vae_runner *coder; /* NULL: resting */
    slr_policy vae_policy; /* as the run wants it */
    bool vae_tiling;
    char hash[11], vae_hash[11]; /* for the parameters text; "": not known yet */
} slr_model;

int slr_model_new(slr_model **out, slr_mem *m, slr_checkpoint *base, slr_devices *devices,
                  slr_bpe *bpe);
slr_model *slr_model_ref(slr_model *s);
void slr_model_unref(slr_model *s); /* NULL: nothing */
/* Gives back graphs, states, networks and the VAE's memory; they are made again when they are asked
 * for. */
void slr_model_rest(slr_model *s);
/* Precision and noise schedule of the next run. */
void slr_model_set(slr_model *s, const slr_settings *set, slr_policy policy);
/* The same of its VAE; tiling: large pictures are worked on in tiles. */
void slr_model_set_coder(slr_model *s, slr_policy policy, bool tiling);
/* Another VAE from now on; NULL: the checkpoint's own.  path names it in the parameters text. */
int slr_model_set_vae(slr_model *s, slr_weights *vae, const char *path);
/* What encodes and decodes with its VAE, which it has; borrowed. */
int slr_model_coder(slr_model *s, slr_vae_runner **out);
/* Whether it predicts v. */
bool slr_model_v(const slr_model *s);
/* Channels beyond the latents': 5 of inpainting models, 4 of editing models, 0 of others. */
int64_t slr_model_extra(const slr_model *s);

#endif
