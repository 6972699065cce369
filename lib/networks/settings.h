/* SPDX-License-Identifier: MIT */
/* What a new module is made by: network_dim and its kin and network_args, read once and checked.
 * Names are LyCORIS' and kohya's. */
#ifndef SLR_NETWORKS_SETTINGS_H
#define SLR_NETWORKS_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct slr_settings {
    int64_t dim;  /* network_dim or conv_dim, as the layer wants */
    double alpha; /* never 0: absent means dim */
    bool tucker, scalar, rs_lora, bypass;
    bool dora, wd_on_output;
    bool rank_dropout_scale;
    double dropout, rank_dropout, module_dropout;
    int64_t factor; /* LoKr; -1: as even as can be */
    bool decompose_both, full_matrix, unbalanced;
    double constraint; /* OFT, BOFT */
    bool rescaled;
    bool train_on_input;  /* (IA)^3: columns are scaled, not rows */
    bool lycoris;         /* dropout of a LoRA where LyCORIS has it, not kohya */
    bool frozen_down;     /* LoRA-FA: only `up` is trained */
    int64_t block_size;   /* of LyCORIS' DyLoRA; others leave it alone */
    int64_t unit;         /* DyLoRA: ranks that are trained together; 0: all, always */
    bool unit_root;       /* kohya's DyLoRA: r of R ranks weigh sqrt(R / r), not R / r */
    const char *sig_type; /* T-LoRA: which singular vectors; NULL: the first */
    bool data_init;       /* T-LoRA: of the frozen weight, not of one that is drawn */
    int64_t min_rank;     /* T-LoRA: ranks at the noisiest timestep; 0: no mask, but for */
    double rank_power;    /* T-LoRA: the exponent of the mask; 0: none was given */
    double lr_weight;     /* of the block, on the part's rate */
    double lr_plus;       /* LoRA+: on the rate of the kind's `plus` leaves; 0: none was given */
} slr_settings;

#endif
