/* SPDX-License-Identifier: MIT */
/* A Brownian path over an interval of sigmas, the same however it is asked for: torchsde's tree,
 * which halves intervals until the asked points are ends.  Knows a source of normals by seed;
 * refuses to know pictures. */
#ifndef SLR_SAMPLE_BROWNIAN_H
#define SLR_SAMPLE_BROWNIAN_H

#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

typedef struct slr_brownian slr_brownian;

typedef struct slr_brownian_config {
    uint64_t entropy; /* the picture's seed */
    double lo, hi;    /* 0 < lo <= hi; points are kept in millionths */
    size_t n;         /* paths side by side */
    void (*normals)(uint32_t seed, float *out, size_t n);
} slr_brownian_config;

int slr_brownian_new(slr_brownian **out, slr_mem *m, const slr_brownian_config *config);
void slr_brownian_free(slr_brownian *b); /* NULL: nothing */
/* What the path gains from a to b; points outside are moved to the ends. */
int slr_brownian_gain(slr_brownian *b, double from, double to, float *out);

#endif
