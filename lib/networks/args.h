/* SPDX-License-Identifier: MIT */
/* network_module, network_args and the options that mean the same, read once and checked: what
 * becomes of each layer. */
#ifndef SLR_NETWORKS_ARGS_H
#define SLR_NETWORKS_ARGS_H

#include "networks/blockdims.h"
#include "networks/kind.h"
#include "networks/preset.h"

typedef struct slr_arguments {
    const char *module; /* network_module */
    int bit;            /* of its row */
    int family;
    const slr_kind *kind; /* of algo */
    slr_settings set;     /* of linear layers and 1x1 convolutions */
    int64_t conv_dim;     /* 0: larger kernels are left alone */
    double conv_alpha;
    bool train_norm, all_linear, conv;
    slr_preset preset;
    slr_block_plan blocks;
    double plus, plus_part[SLR_PART_COUNT]; /* LoRA+; 0: none */

    /* texts of network_args */
    const char *algo, *preset_name;
    slr_block_texts block;
    double threshold;
    int64_t unit;
} slr_arguments;

/* Of n's options and args.  EINVAL/ENOTSUP names the key. */
int slr_arguments_read(slr_arguments *out, slr_network *n);
/* A new module of a layer: 1 and its kind and settings, 0: the layer is left alone, or an error. */
int slr_arguments_layer(const slr_arguments *a, const slr_target *t, const slr_kind **kind,
                        slr_settings *set);
/* What does not make the module but trains it: the rates of its part and block. */
void slr_arguments_rates(const slr_arguments *a, const slr_target *t, slr_settings *set);

#endif
