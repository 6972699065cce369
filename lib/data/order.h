/* SPDX-License-Identifier: MIT */
/* Which samples make up which batch of an epoch. */
#ifndef SLR_DATA_ORDER_H
#define SLR_DATA_ORDER_H

#include "data/dataset.h"

/* One use of a picture in an epoch: draw counts its repeats from 0. */
typedef struct slr_entry {
    uint32_t item, draw;
} slr_entry;

typedef struct slr_order {
    slr_mem *m;
    const slr_dataset *d;
    uint64_t seed;
    int64_t epoch;    /* that is laid out now; -1: none */
    slr_entry *entry; /* bucket after bucket */
    int64_t *start;   /* [buckets + 1] into entry */
    int64_t *batch;   /* [n_batches] first entry of each */
    int64_t n_batches;
} slr_order;

int slr_order_new(slr_order *o, slr_mem *m, const slr_dataset *d, uint64_t seed);
void slr_order_free(slr_order *o);
/* The n entries of one bucket that make up a batch; lays out the epoch when it is another one. */
int slr_order_batch(slr_order *o, int64_t epoch, int64_t index, const slr_entry **entry,
                    int64_t *n);

#endif
