/* SPDX-License-Identifier: MIT */
/* Dynamic storage allocation with known lifetimes is NP-hard; two greedy placements are tried and
 * the smaller arena is kept.
 *
 *   by time: blocks in the order of their birth.  The sum of what is alive is the bound.
 *   by size: big blocks first, so that small ones fill the gaps.
 *
 * Both put a block into the tightest gap between the placed blocks that are alive with it.  By time
 * meets the bound exactly for the stack-like lifetimes of a forward and backward pass (measured on
 * training steps of SD 1.5); then the other is not tried. */
#include "graph/pack.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static int by_birth(const void *a, const void *b)
{
    const slr_block *x = *(slr_block *const *)a, *y = *(slr_block *const *)b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int by_size(const void *a, const void *b)
{
    const slr_block *x = *(slr_block *const *)a, *y = *(slr_block *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* The tightest gap for b between the placed blocks (sorted by offset) that are alive with it. */
static uint64_t find_gap(const slr_block *b, slr_block *const *placed, size_t n)
{
    uint64_t end = 0, best = 0, best_gap = UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        const slr_block *p = placed[i];
        if (p->last < b->first || p->first > b->last)
            continue;
        if (p->offset >= end + b->bytes && p->offset - end < best_gap) {
            best = end;
            best_gap = p->offset - end;
        }
        if (p->offset + p->bytes > end)
            end = p->offset + p->bytes;
    }
    return best_gap == UINT64_MAX ? end : best;
}

/* Takes out what died before `now`; order is kept. */
static size_t bury(slr_block **placed, size_t n, int32_t now)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (placed[i]->last >= now)
            placed[kept++] = placed[i];
    return kept;
}

/* Places the n blocks of `order` one by one; returns the arena's size.  `placed` has room for n. */
static uint64_t place(slr_block *const *order, slr_block **placed, size_t n, bool in_time)
{
    uint64_t total = 0;
    size_t n_placed = 0;
    for (size_t i = 0; i < n; i++) {
        slr_block *b = order[i];
        if (in_time)
            n_placed = bury(placed, n_placed, b->first);
        b->offset = find_gap(b, placed, n_placed);
        if (b->offset + b->bytes > total)
            total = b->offset + b->bytes;
        size_t at = n_placed;
        while (at > 0 && placed[at - 1]->offset > b->offset)
            at--;
        memmove(&placed[at + 1], &placed[at], (n_placed - at) * sizeof *placed);
        placed[at] = b;
        n_placed++;
    }
    return total;
}

/* The most bytes alive at one time; `order` is by birth, `alive` has room for n. */
static uint64_t lower_bound(slr_block *const *order, slr_block **alive, size_t n)
{
    uint64_t sum = 0, most = 0;
    size_t n_alive = 0;
    for (size_t i = 0; i < n; i++) {
        size_t kept = 0;
        for (size_t k = 0; k < n_alive; k++) {
            if (alive[k]->last >= order[i]->first)
                alive[kept++] = alive[k];
            else
                sum -= alive[k]->bytes;
        }
        alive[kept++] = order[i];
        n_alive = kept;
        sum += order[i]->bytes;
        most = sum > most ? sum : most;
    }
    return most;
}

int slr_pack(slr_block *blocks, size_t n, slr_mem *m, uint64_t *total, uint64_t *bound)
{
    *total = *bound = 0;
    if (n == 0)
        return SDLORA_OK;
    slr_block **order = slr_calloc(m, n, sizeof *order);
    slr_block **placed = slr_calloc(m, n, sizeof *placed);
    uint64_t *kept = slr_calloc(m, n, sizeof *kept);
    int rc = order && placed && kept ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc < 0)
        goto done;
    for (size_t i = 0; i < n; i++)
        order[i] = &blocks[i];
    qsort(order, n, sizeof *order, by_birth);
    *bound = lower_bound(order, placed, n);
    *total = place(order, placed, n, true);
    if (*total > *bound) {
        for (size_t i = 0; i < n; i++)
            kept[i] = blocks[i].offset;
        qsort(order, n, sizeof *order, by_size);
        uint64_t other = place(order, placed, n, false);
        for (size_t i = 0; i < n && other >= *total; i++)
            blocks[i].offset = kept[i];
        *total = other < *total ? other : *total;
    }
done:
    slr_free(m, order);
    slr_free(m, placed);
    slr_free(m, kept);
    return rc;
}
