/* SPDX-License-Identifier: MIT */
/* Which layers a new network adapts, and by which algorithm where not all are alike: presets, which
 * name classes of modules as sd-scripts' models have them, and paths. */
#ifndef SLR_NETWORKS_PRESET_H
#define SLR_NETWORKS_PRESET_H

#include "networks/target.h"

/* What module_algo_map and name_algo_map say of a class, or of paths. */
typedef struct slr_override {
    const char *match;        /* NULL: the end of the list */
    const char *algo;         /* Nullable */
    const char *const *pairs; /* key, value, ..., NULL; Nullable */
} slr_override;

/* Lists end with NULL; a list that is NULL is empty. */
typedef struct slr_preset {
    const char *name;
    bool no_conv;   /* kernels larger than 1x1 are left alone */
    bool wildcards; /* names match as file names do, not as regular expressions */
    const char *const *unet_class, *const *unet_name, *const *te_class, *const *te_name;
    const char *const *exclude;
    const slr_override *class_algo, *name_algo;
} slr_preset;

/* kohya's own rules. */
extern const slr_preset slr_preset_lora, slr_preset_locon;
/* networks.oft: [all linear layers][convolutions too] */
extern const slr_preset slr_preset_oft[2][2];

/* A built-in preset of LyCORIS, or else a TOML file. Texts of a file live in the arena. */
int slr_preset_open(slr_preset *out, slr_mem *m, slr_arena *texts, const char *name);

/* What is to become of a layer. */
typedef struct slr_choice {
    const slr_override *over; /* Nullable */
    const char *algo;         /* NULL: the network's */
} slr_choice;
/* False: it is left alone. */
bool slr_preset_takes(const slr_preset *p, const slr_target *t, slr_choice *out);

#endif
