/* SPDX-License-Identifier: MIT */
/* Which shapes a training run uses, and which of them a picture gets. */
#ifndef SLR_DATA_BUCKET_H
#define SLR_DATA_BUCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

typedef struct slr_shape {
    int32_t w, h; /* pixels */
} slr_shape;

typedef struct slr_bucket_rule {
    slr_shape resolution;
    int32_t min, max, step; /* of a side, pixels */
    bool enable, no_upscale;
} slr_bucket_rule;

/* Rounds min down and max up to multiples of step.  EINVAL when the limits leave the resolution
 * out. */
int slr_bucket_check(slr_bucket_rule *rule);

/* The shapes to choose from, ascending; without buckets the resolution alone.  Takes the rule as it
 * is.  Caller frees *out.  With no_upscale there is no table: *n is 0. */
int slr_bucket_table(slr_mem *m, const slr_bucket_rule *rule, slr_shape **out, size_t *n);

typedef struct slr_fit {
    slr_shape bucket;  /* a side is 0 when the picture is shorter than one step (no_upscale) */
    slr_shape resized; /* covers the bucket; what sticks out is cropped */
    double ar_error;   /* aspect of the bucket minus aspect of the picture */
} slr_fit;

/* EINVAL when no bucket can be computed for so narrow a picture. */
int slr_bucket_fit(const slr_bucket_rule *rule, const slr_shape *table, size_t n, slr_shape image,
                   slr_fit *out);

#endif
