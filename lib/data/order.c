/* SPDX-License-Identifier: MIT */
/* The order of an epoch: repeats laid out per bucket, shuffled, cut into slices, slices shuffled.
 * A function of (seed, epoch) alone: unlike the programs that shuffle what the epoch before left,
 * any epoch can be asked for first.  Refuses to know pictures. */
#include "data/order.h"

#include "base/rng.h"
#include "base/status.h"

int slr_order_new(slr_order *o, slr_mem *m, const slr_dataset *d, uint64_t seed)
{
    size_t n = slr_dataset_buckets(d), total = 0;
    *o = (slr_order){
        .m = m, .d = d, .seed = seed, .epoch = -1, .n_batches = slr_dataset_batches_per_epoch(d)};
    o->start = slr_calloc(m, n + 1, sizeof *o->start);
    o->batch = slr_calloc(m, (size_t)o->n_batches, sizeof *o->batch);
    if (!o->start || !o->batch)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        total += (size_t)slr_dataset_bucket(d, i)->count;
        o->start[i + 1] = (int64_t)total;
    }
    o->entry = slr_calloc(m, total, sizeof *o->entry);
    return o->entry ? SDLORA_OK : SDLORA_ENOMEM;
}

void slr_order_free(slr_order *o)
{
    slr_free(o->m, o->entry);
    slr_free(o->m, o->start);
    slr_free(o->m, o->batch);
    *o = (slr_order){0};
}

/* Every picture as often as it is repeated, into its bucket's stretch of entries. */
static void lay_out(slr_order *o, int64_t *at)
{
    size_t n = slr_dataset_buckets(o->d);
    for (size_t i = 0; i < n; i++)
        at[i] = o->start[i];
    for (size_t i = 0; i < slr_dataset_items(o->d); i++) {
        const slr_item *item = slr_dataset_item(o->d, i);
        for (int64_t k = 0; k < item->repeats; k++)
            o->entry[at[item->bucket]++] = (slr_entry){(uint32_t)i, (uint32_t)k};
    }
}

static int shuffle(slr_order *o, int64_t epoch)
{
    size_t n = slr_dataset_buckets(o->d), k = 0;
    int64_t batch = slr_dataset_batch_size(o->d);
    int64_t *at = slr_calloc(o->m, n, sizeof *at);
    slr_rng rng;
    if (!at)
        return SDLORA_ENOMEM;
    lay_out(o, at);
    slr_free(o->m, at);
    /* 32 bits of the epoch fit the address; more than that is for completeness */
    slr_rng_init(&rng, o->seed ^ ((uint64_t)epoch >> 32), SLR_STREAM_ORDER, (uint32_t)epoch);
    for (size_t i = 0; i < n; i++) {
        int64_t from = o->start[i], to = o->start[i + 1];
        slr_rng_shuffle(&rng, o->entry + from, (size_t)(to - from), sizeof *o->entry);
        for (int64_t b = from; b < to; b += batch)
            o->batch[k++] = b;
    }
    slr_rng_shuffle(&rng, o->batch, k, sizeof *o->batch);
    o->epoch = epoch;
    return SDLORA_OK;
}

int slr_order_batch(slr_order *o, int64_t epoch, int64_t index, const slr_entry **entry, int64_t *n)
{
    if (epoch < 0 || index < 0 || index >= o->n_batches)
        return slr_fail(SDLORA_EINVAL, __func__, "no batch %lld in epoch %lld of %lld batches",
                        (long long)index, (long long)epoch, (long long)o->n_batches);
    if (epoch != o->epoch)
        SLR_TRY(shuffle(o, epoch));
    int64_t from = o->batch[index];
    size_t bucket = slr_dataset_item(o->d, o->entry[from].item)->bucket;
    int64_t left = o->start[bucket + 1] - from, batch = slr_dataset_batch_size(o->d);
    *entry = o->entry + from;
    *n = left < batch ? left : batch;
    return SDLORA_OK;
}
