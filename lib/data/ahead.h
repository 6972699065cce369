/* SPDX-License-Identifier: MIT */
/* Decodes pictures on a thread of its own while the caller works on those before. */
#ifndef SLR_DATA_AHEAD_H
#define SLR_DATA_AHEAD_H

#include "data/augment.h"

typedef struct slr_ahead slr_ahead;
/* items: [n] indices into the dataset; rule, d and items are borrowed. */
int slr_ahead_new(slr_ahead **out, slr_mem *m, const slr_picture_rule *rule, const slr_dataset *d,
                  const size_t *items, size_t n);
/* The pictures in the order of items (caller frees out->data); a failure ends it. */
int slr_ahead_next(slr_ahead *a, slr_pixels *out);
void slr_ahead_free(slr_ahead *a);

#endif
