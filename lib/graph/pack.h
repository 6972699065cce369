/* SPDX-License-Identifier: MIT */
/* Places blocks of memory that live for a stretch of time into one arena.  Knows sizes and times;
 * refuses to know what the blocks hold. */
#ifndef SLR_GRAPH_PACK_H
#define SLR_GRAPH_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

#define SLR_BLOCK_ALIGN 64

typedef struct slr_block {
    uint64_t bytes;      /* a multiple of SLR_BLOCK_ALIGN */
    int32_t first, last; /* alive from first to last, both included */
    uint64_t offset;     /* out */
} slr_block;

/* Fills the offsets; *total is the arena's size, *bound what no placement can go below: the most
 * bytes alive at one time. */
int slr_pack(slr_block *blocks, size_t n, slr_mem *m, uint64_t *total, uint64_t *bound);

#endif
