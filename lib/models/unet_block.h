/* SPDX-License-Identifier: MIT */
/* The blocks that UNets are made of, each found by its module path. */
#ifndef SLR_MODELS_UNET_BLOCK_H
#define SLR_MODELS_UNET_BLOCK_H

#include "models/family.h"
#include "models/nn.h"

#define SLR_NORM_GROUPS 32 /* of every group norm in Stable Diffusion */

/* Residual block.  x [N,h,w,C]; emb [N,time_dim] after SiLU, SLR_NONE: the autoencoder's, which has
 * no time.  eps differs: 1e-5 in UNets, 1e-6 in autoencoders. */
slr_val slr_block_resnet(slr_nn *nn, const char *path, slr_val x, slr_val emb, double eps);
/* Spatial transformer: as many blocks as the weights have.  context [N,T,X]. */
slr_val slr_block_transformer(slr_nn *nn, const char *path, const slr_family *family, slr_val x,
                              slr_val context);
/* Transformer blocks below an attention's path; 0 when there is no such attention. */
int slr_block_depth(const slr_weights *w, const char *path);
/* Heads of an attention that is `channels` wide. */
int64_t slr_block_heads(const slr_family *family, int64_t channels);

#endif
