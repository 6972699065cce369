/* SPDX-License-Identifier: MIT */
/* What (word:1.3) does to text states. */
#ifndef SLR_SAMPLE_WEIGH_H
#define SLR_SAMPLE_WEIGH_H

#include <stddef.h>
#include <stdint.h>

/* The states of one chunk of one text, and the weights of its tokens. */
typedef struct slr_weighed {
    float *states;        /* 77 rows */
    const float *weights; /* [77] */
    int64_t count;        /* how often this text stands in the batch */
} slr_weighed;

/* Weights the chunk of all texts of a batch in place.  emphasis: SLR_EMPHASIS_* of prompt.h; mode
 * Original brings the mean over the batch back to what it was.  A row has `width` columns, and the
 * next one begins `stride` behind it. */
void slr_weigh(int emphasis, const slr_weighed *list, size_t n, int64_t width, int64_t stride);

#endif
