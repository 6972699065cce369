/* SPDX-License-Identifier: MIT */
/* Names of tensors and modules: LDM (CompVis) and OpenCLIP spellings to and from the canonical
 * ones, which are those of diffusers and Hugging Face.  Tables and a little arithmetic over block
 * numbers; knows no files and no tensors.
 *
 * Names carry no part prefix.  Functions take a module path or a tensor name alike: whatever
 * follows the last known piece is kept.  out holds SLR_NAME bytes; false: the name is not one of
 * that spelling (out is then undefined). */
#ifndef SLR_MODELS_KEYMAP_H
#define SLR_MODELS_KEYMAP_H

#include <stdbool.h>

#include "models/weights.h"

#define SLR_NAME       192
#define SLR_MAP_LEVELS 8

/* How a UNet's numbered LDM blocks fall into levels. */
typedef struct slr_unet_map {
    int n_down, n_up;
    int down[SLR_MAP_LEVELS];     /* residual blocks per down level */
    int up[SLR_MAP_LEVELS];       /* residual blocks per up level, in order of execution */
    bool up_attn[SLR_MAP_LEVELS]; /* an attention stands before the up-sampler */
} slr_unet_map;

/* From canonical weights. */
int slr_unet_map_read(slr_unet_map *out, const slr_weights *unet);

/* From LDM names: show every name of the UNet, then finish.  Levels that a partial file does not
 * show are taken to mirror the others. */
#define SLR_MAP_BLOCKS 128
typedef struct slr_unet_scan {
    int n_in, n_out; /* one more than the largest block number seen */
    bool in_down[SLR_MAP_BLOCKS], out_up[SLR_MAP_BLOCKS], out_attn[SLR_MAP_BLOCKS];
} slr_unet_scan;
void slr_unet_scan_name(slr_unet_scan *s, const char *ldm);
int slr_unet_scan_finish(const slr_unet_scan *s, slr_unet_map *out, const char *label);

bool slr_unet_from_ldm(const slr_unet_map *map, const char *ldm, char out[SLR_NAME]);
bool slr_unet_to_ldm(const slr_unet_map *map, const char *name, char out[SLR_NAME]);

/* levels: of the autoencoder; LDM numbers up levels backwards. */
void slr_vae_scan_name(int *levels, const char *ldm); /* raises *levels to what the name shows */
bool slr_vae_from_ldm(int levels, const char *ldm, char out[SLR_NAME]);
bool slr_vae_to_ldm(int levels, const char *name, char out[SLR_NAME]);
/* Old diffusers spellings of the autoencoder's attention ("query") to the canonical ones. */
bool slr_vae_from_old(const char *old, char out[SLR_NAME]);

/* OpenCLIP text names; attn.in_proj_* has no single counterpart (q, k, v are its thirds): false. */
bool slr_clip_from_open(const char *open, char out[SLR_NAME]);
bool slr_clip_to_open(const char *name, char out[SLR_NAME]);
/* Names without "text_model." (NovelAI's leak and its descendants). */
bool slr_clip_from_nai(const char *nai, char out[SLR_NAME]);

#endif
