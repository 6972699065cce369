/* SPDX-License-Identifier: MIT */
/* The denoising UNet as a graph; its shape is read off the weights. */
#ifndef SLR_MODELS_UNET_H
#define SLR_MODELS_UNET_H

#include "models/family.h"
#include "models/nn.h"

#define SLR_UNET_LEVELS 8
typedef struct slr_unet_shape {
    int n_levels;
    int64_t channels[SLR_UNET_LEVELS]; /* output channels of each level */
    int resnets[SLR_UNET_LEVELS];      /* per down level; up levels have one more */
    int depth[SLR_UNET_LEVELS];        /* transformer blocks of the first attention; 0: none */
    int mid_depth;
    int64_t in_channels, out_channels;
    int64_t context;  /* width of text states; 0: no attention anywhere */
    int64_t time_dim; /* width of the time embedding, 4 x channels[0] */
    int64_t vector;   /* width of SDXL's extra vector (2816); 0: takes none */
    int64_t heads[SLR_UNET_LEVELS];
} slr_unet_shape;
int slr_unet_read(slr_unet_shape *out, const slr_family *family, const slr_weights *unet);

/* x [N,h,w,in], t [N] f32 (may be fractional), context [N,T,context] -> prediction [N,h,w,4].
 * h and w may be any; multiples of 2^(n_levels-1) lose nothing on the way down and up. */
slr_val slr_unet_build(slr_nn *nn, const slr_family *family, slr_val x, slr_val t, slr_val context);
/* The same for models with a vector input [N,vector] (SLR_NONE: ENOTSUP if the model wants one). */
slr_val slr_unet_build_vector(slr_nn *nn, const slr_family *family, slr_val x, slr_val t,
                              slr_val context, slr_val vector);
int slr_unet_layers(const slr_family *family, const slr_weights *unet, slr_layer_fn fn, void *user);

#endif
