/* SPDX-License-Identifier: MIT */
/* Which family a model is of, told by structure and markers, never by the width of its context. */
#ifndef SLR_MODELS_DETECT_H
#define SLR_MODELS_DETECT_H

#include "models/family.h"
#include "models/parts.h"

/* EFORMAT when nothing of it is a Stable Diffusion model; ENOTSUP names the variant that is
 * recognised but not handled. */
int slr_detect_family(const slr_family **out, const slr_parts *parts, const slr_bag *bag,
                      const char *label);
/* SLR_PREDICT_* by marker tensors, metadata, the folder's scheduler and a .yaml beside the file;
 * the family's default else. */
int slr_detect_predict(int *out, slr_mem *m, const slr_family *family, const slr_bag *bag,
                       const char *path);

#endif
