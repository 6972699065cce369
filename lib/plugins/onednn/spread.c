/* SPDX-License-Identifier: MIT */
/* Hands pieces of one launch to threads.  Refuses to know what a piece does. */
#include <stdatomic.h>

#include "common.h"

enum { MAX_RANGES = 64, LINE = 64 };

/* Pieces that one slot begins with; others come when theirs are done. */
typedef struct spread_range {
    _Atomic int64_t next;
    int64_t end;
    char far[LINE - 2 * sizeof(int64_t)]; /* neighbours do not wait for each other's cache line */
} spread_range;

typedef struct spread_job {
    spread_range *ranges;
    int64_t n_ranges;
    void (*body)(void *arg, int64_t piece, int slot);
    void *arg;
    const sdlora_dev *dev;
} spread_job;

static void spread_range_of(const spread_job *job, int64_t range, int64_t slot)
{
    spread_range *r = &job->ranges[range % job->n_ranges];
    for (;;) {
        const int64_t piece = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (piece >= r->end || dn_canceled(job->dev))
            return;
        job->body(job->arg, piece, (int)slot);
    }
}

static void spread_slots(void *arg, int64_t lo, int64_t hi)
{
    const spread_job *job = arg;
    for (int64_t slot = lo; slot < hi; slot++)
        for (int64_t i = 0; i < job->n_ranges; i++)
            spread_range_of(job, slot + i, slot);
}

/* Each slot begins with neighbouring pieces, the same ones whenever there are as many: what it
 * reads is then mostly what it wrote, and two threads seldom write to one cache line.  Who is done
 * takes what is left of the others', so that a busy core does not hold up the rest. */
void dn_spread(const sdlora_dev *dev, int64_t n, void (*body)(void *arg, int64_t piece, int slot),
               void *arg)
{
    const int64_t slots = n < dev->slots ? n : dev->slots;
    spread_range ranges[MAX_RANGES];
    spread_job job = {.ranges = ranges,
                      .n_ranges = slots < MAX_RANGES ? slots : MAX_RANGES,
                      .body = body,
                      .arg = arg,
                      .dev = dev};
    for (int64_t i = 0; i < job.n_ranges; i++) {
        atomic_init(&ranges[i].next, i * n / job.n_ranges);
        ranges[i].end = (i + 1) * n / job.n_ranges;
    }
    dn_parallel(dev, slots, 1, spread_slots, &job);
}
