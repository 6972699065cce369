/* SPDX-License-Identifier: MIT */
/* kohya's ranks, alphas and learning rates by block of the UNet. */
#ifndef SLR_NETWORKS_BLOCKDIMS_H
#define SLR_NETWORKS_BLOCKDIMS_H

#include "networks/target.h"

enum { SLR_BLOCKS_MAX = 25 };

/* Lists as network_args have them; each is Nullable. */
typedef struct slr_block_texts {
    const char *dims, *alphas, *conv_dims, *conv_alphas;
    const char *down, *mid, *up; /* ..._lr_weight */
} slr_block_texts;

typedef struct slr_block_plan {
    int n;     /* 25, or 23 of SDXL; 0: all blocks are alike */
    bool conv; /* convolutions with larger kernels are adapted */
    int64_t dim[SLR_BLOCKS_MAX], conv_dim[SLR_BLOCKS_MAX]; /* 0: the block is left alone */
    double alpha[SLR_BLOCKS_MAX], conv_alpha[SLR_BLOCKS_MAX];
    double lr[SLR_BLOCKS_MAX];
} slr_block_plan;

/* What holds where the lists say nothing; conv_dim < 0: none. */
typedef struct slr_block_defaults {
    int64_t dim, conv_dim;
    double alpha, conv_alpha, threshold; /* rates up to the threshold are 0 */
} slr_block_defaults;

int slr_block_plan_read(slr_block_plan *out, const slr_block_texts *texts,
                        const slr_block_defaults *d, int family);
/* The block of a layer; -1: none. */
int slr_block_of(const slr_target *t, int family);

#endif
