/* SPDX-License-Identifier: MIT */
/* The autoencoder as two graphs, and helpers that run them on images. */
#ifndef SLR_MODELS_VAE_H
#define SLR_MODELS_VAE_H

#include "backend/registry.h"
#include "base/thread.h"
#include "models/family.h"
#include "models/nn.h"

/* image [N,H,W,3] in [-1,1] -> moments [N,H/8,W/8,8] (mean, logvar clamped to [-30,20] by the
 * caller). */
slr_val slr_vae_encode_build(slr_nn *nn, slr_val image);
/* latents already divided by the scale [N,h,w,4] -> image [N,8h,8w,3], unclamped. */
slr_val slr_vae_decode_build(slr_nn *nn, slr_val latents);
/* log2 of the size ratio, 3 for all Stable Diffusion VAEs; read off the weights. */
int slr_vae_factor(const slr_weights *vae, int *factor);

/* A runner keeps planned graphs per size (a few) and applies the scale factor.  One thread at a
 * time. */
typedef struct slr_vae_runner slr_vae_runner;
int slr_vae_runner_new(slr_vae_runner **out, slr_weights *vae, const slr_family *family,
                       slr_devices *devices);
void slr_vae_runner_free(slr_vae_runner *r);
/* Another precision than f32 from now on.  A result that is not finite then is computed again in
 * f32, and so is everything after it. */
void slr_vae_runner_set_policy(slr_vae_runner *r, slr_policy policy);
/* From now on pictures larger than a tile are worked on in tiles of that many latents a side, a
 * multiple of 4; 0: whole, as at first.  Less memory; the result differs, since norms and attention
 * see a tile only.  A picture within one tile gives the same bytes as without. */
enum { SLR_VAE_TILE_LIMIT = 8192 };
int slr_vae_runner_set_tiling(slr_vae_runner *r, int64_t tile);
/* The side that diffusers takes: of the pictures that the family was trained on. */
int64_t slr_vae_runner_tile(const slr_vae_runner *r);
/* image: [n,h,w,3] f32 in [-1,1]; latents out: [n,h/8,w/8,4], the distribution's mean times the
 * scale; noise (Nullable, same shape): adds std*noise before scaling. */
int slr_vae_encode(slr_vae_runner *r, const float *image, int64_t n, int64_t h, int64_t w,
                   const float *noise, float *latents, const slr_cancel_flag *cancel);
/* latents [n,h,w,4] (scaled) -> image [n,8h,8w,3] f32 in [-1,1], unclamped.  ENAN when not finite.
 */
int slr_vae_decode(slr_vae_runner *r, const float *latents, int64_t n, int64_t h, int64_t w,
                   float *image, const slr_cancel_flag *cancel);

#endif
