/* SPDX-License-Identifier: MIT */
/* Colours of one picture given to another. */
#ifndef SLR_SAMPLE_COLOUR_H
#define SLR_SAMPLE_COLOUR_H

#include "io/image.h"

/* AUTOMATIC1111's "color correction": the histograms of p in Lab become those of `like`, and its
 * brightness stays.  Both RGB, of any sizes. */
int slr_colour_match(slr_pixels *p, slr_mem *m, const slr_pixels *like);

#endif
