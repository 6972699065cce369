/* SPDX-License-Identifier: MIT */
/* A model on disk: opens LDM .safetensors, torch .ckpt/.pt and diffusers folders, tells the family,
 * and gives each part's weights under canonical names.  Immutable after open; atomically
 * refcounted. */
#ifndef SLR_MODELS_CHECKPOINT_H
#define SLR_MODELS_CHECKPOINT_H

#include "base/log.h"
#include "models/family.h"
#include "models/nn.h"
#include "models/weights.h"

typedef struct slr_checkpoint slr_checkpoint;

typedef struct slr_checkpoint_config {
    slr_mem *mem;
    slr_log log;
    bool use_ema; /* take EMA weights where the file has them */
    int predict;  /* SLR_PREDICT_*, or -1: detect */
    int ztsnr;    /* zero terminal signal-to-noise: 1 yes, -1 no, 0: detect */
    /* of the run that slr_checkpoint_predict() may need */
    int threads;      /* 0: all cores */
    uint64_t cpu_off; /* CPU features that are not used */
} slr_checkpoint_config;

int slr_checkpoint_open(slr_checkpoint **out, const char *path,
                        const slr_checkpoint_config *config);
/* Random weights of a named architecture ("sd15", "sd21", "sdxl", and small ones of each family:
 * "tiny", "tiny-sd2", "tiny-sdxl", "tiny-refiner", "tiny-inpaint", "tiny-edit"), made by a
 * counter-based generator: for benchmarks and full-size tests without a file.  dtype: SDLORA_F16 or
 * SDLORA_F32. */
int slr_checkpoint_synthetic(slr_checkpoint **out, const char *arch, uint32_t dtype, uint64_t seed,
                             const slr_checkpoint_config *config);
/* The same filled with zeros that take no memory: for lists of layers and estimates of size. */
int slr_checkpoint_shapes(slr_checkpoint **out, const char *arch,
                          const slr_checkpoint_config *config);
slr_checkpoint *slr_checkpoint_ref(slr_checkpoint *c);
void slr_checkpoint_unref(slr_checkpoint *c);

slr_mem *slr_checkpoint_mem(const slr_checkpoint *c); /* borrowed */
const char *slr_checkpoint_path(const slr_checkpoint *c);
/* Whether both are one file or folder, however it was called and opened. */
bool slr_checkpoint_same(const slr_checkpoint *a, const slr_checkpoint *b);
/* Whether its weights are those of a file or folder; not merged, not synthetic. */
bool slr_checkpoint_on_disk(const slr_checkpoint *c);
const slr_family *slr_checkpoint_family(const slr_checkpoint *c);
/* SLR_PREDICT_*.  A model of SD 2 that says nothing of it is asked by a run of its UNet when this
 * is called first; should that fail, a warning and the family's default. */
int slr_checkpoint_predict(const slr_checkpoint *c);
/* What tells it: "metadata", "a run of its UNet"; NULL: nothing before slr_checkpoint_predict() is
 * called. */
const char *slr_checkpoint_predict_source(const slr_checkpoint *c);
/* Whether its noise schedule is to be rescaled to end without signal (slr_schedule_rescale()). */
bool slr_checkpoint_ztsnr(const slr_checkpoint *c);
/* Whether the UNet takes latents, a mask (1: to be painted) and the latents of the masked picture
 * side by side: [N,h,w,9]. */
bool slr_checkpoint_inpaint(const slr_checkpoint *c);
/* Whether it edits pictures: the UNet takes latents and, side by side, those of the picture, not
 * scaled: [N,h,w,8]. */
bool slr_checkpoint_edit(const slr_checkpoint *c);
/* NULL when the file has no such part. Borrowed. */
slr_weights *slr_checkpoint_part(const slr_checkpoint *c, int part);
/* The safetensors __metadata__ (or NULL), borrowed. */
const char *slr_checkpoint_metadata(const slr_checkpoint *c, const char *key);
/* All tensors of the file under its own names, of which the parts are views; NULL or empty: it is
 * not one file.  Borrowed. */
const struct slr_bag *slr_checkpoint_bag(const slr_checkpoint *c);
/* "ldm", "diffusers" (a folder), "diffusers file", "part" (no UNet in it) or "synthetic". */
const char *slr_checkpoint_layout(const slr_checkpoint *c);

/* A VAE by itself: *.vae.pt, *.vae.safetensors, diffusers VAE, or a whole checkpoint's. */
int slr_vae_weights_open(slr_weights **out, const char *path, const slr_checkpoint_config *config);

#endif
