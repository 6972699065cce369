/* SPDX-License-Identifier: MIT */
/* How checkpoint.c and synthetic.c put a checkpoint together. */
#ifndef SLR_MODELS_CHECKPOINT_PART_H
#define SLR_MODELS_CHECKPOINT_PART_H

#include "models/checkpoint.h"
#include "models/detect.h"

/* An empty handle; layout is a literal. */
int slr_checkpoint_make(slr_checkpoint **out, slr_mem *m, const char *path,
                        const slr_family *family, const slr_traits *traits, const char *layout);
const slr_traits *slr_checkpoint_traits(const slr_checkpoint *c);
/* Takes a reference; before the handle is shared. */
void slr_checkpoint_set_part(slr_checkpoint *c, int part, slr_weights *w);

#endif
