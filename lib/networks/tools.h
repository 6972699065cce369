/* SPDX-License-Identifier: MIT */
/* Networks made of networks and of checkpoints: the tools of sd-scripts and LyCORIS, by their own
 * rules and with their own metadata.  Options are those of the kinds "resize", "merge" and
 * "extract". */
#ifndef SLR_NETWORKS_TOOLS_H
#define SLR_NETWORKS_TOOLS_H

#include "models/keymap.h"
#include "models/modelfile.h"
#include "networks/tool.h"

/* Fewer ranks for every module.  ENOTSUP for modules with DoRA. */
int slr_network_resize(slr_network **out, const slr_tool *t, const slr_network *n, slr_opt o);

/* Many networks as one.  items[i].dyn is not looked at. */
int slr_network_combine(slr_network **out, const slr_tool *t, const slr_stack_item *items, size_t n,
                        slr_opt o);

/* What training changed between two checkpoints of one shape; t->base is the one that it began
 * from. */
int slr_network_extract(slr_network **out, const slr_tool *t, const slr_checkpoint *tuned,
                        slr_opt o);

/* t->base's file once more with networks in it, at `path`: piece by piece, atomic, sums in f32.
 * ENOTSUP when the base is not one file.  vae: Nullable, takes the place of the file's own. */
int slr_merge_file(const slr_tool *t, const slr_stack_item *items, size_t n, slr_weights *vae,
                   const char *path, slr_opt o);

/* A checkpoint without values that has the layers a network file was made for, found by trying the
 * known architectures; EFORMAT when the file fits none. */
int slr_checkpoint_for_network(slr_checkpoint **out, const char *path,
                               const slr_checkpoint_config *config);

#endif
