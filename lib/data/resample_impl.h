/* SPDX-License-Identifier: MIT */
/* Inside the room: the other family of resampling behind slr_resize(). */
#ifndef SLR_DATA_RESAMPLE_IMPL_H
#define SLR_DATA_RESAMPLE_IMPL_H

#include "data/resample.h"

/* dst->data stands, sized dst->height x dst->width x src->channels. */
int slr_resize_area(slr_mem *m, const slr_pixels *src, slr_pixels *dst);

#endif
