/* SPDX-License-Identifier: MIT */
/* The adaptable layers of a checkpoint under kohya's names, and kohya's rule of which of them a new
 * network trains.  The table is made from the model builders' own list of layers; names are looked
 * up, never parsed, since '_' is also inside module names.  SDXL's UNet has LDM's names with kohya.
 */
#ifndef SLR_NETWORKS_TARGET_H
#define SLR_NETWORKS_TARGET_H

#include "networks/network.h"

typedef struct slr_targets slr_targets;

int slr_targets_new(slr_targets **out, slr_mem *m, const slr_checkpoint *base);
void slr_targets_free(slr_targets *t);
size_t slr_targets_count(const slr_targets *t);
/* Text encoders first, then the UNet; in each part in execution order. */
const slr_target *slr_targets_at(const slr_targets *t, size_t i);

/* A module path with '_' for '.' in any naming that is known: diffusers', LDM's, OpenCLIP's.  NULL:
 * none. */
const slr_target *slr_targets_spelled(const slr_targets *t, int part, const char *path);

/* What kohya does with a layer. */
enum {
    SLR_TARGET_NEVER = 0,
    SLR_TARGET_LINEAR = 1, /* network_dim, always */
    SLR_TARGET_CONV_LINEAR =
        2,              /* network_dim, only with conv_dim (linear and 1x1 outside attentions) */
    SLR_TARGET_CONV = 3 /* conv_dim */
};
int slr_target_rule(const slr_target *t);

#endif
