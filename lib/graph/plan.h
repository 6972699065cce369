/* SPDX-License-Identifier: MIT */
/* Where every value of a graph lies and which nodes run: made once, from the graph alone. */
#ifndef SLR_GRAPH_PLAN_H
#define SLR_GRAPH_PLAN_H

#include "graph/node.h"

/* A stretch of memory that one value after the other may use. */
typedef struct slr_buffer {
    uint64_t bytes;
    int32_t first, last; /* nodes that write it first and read it last */
    bool keep;           /* a leaf's or an output's: has memory of its own between runs */
    uint64_t offset;     /* in the arena, unless kept */
} slr_buffer;

typedef struct slr_place {
    int32_t buffer;   /* -1: a constant, or nobody needs it */
    slr_val constant; /* whose contents these are; SLR_NONE */
    uint64_t offset;  /* bytes into the buffer */
    int64_t pitch;    /* elements from row to row when they are not dense; else 0 */
} slr_place;

typedef struct slr_layout {
    slr_place *place; /* by value */
    slr_buffer *buffers;
    int32_t *runs; /* nodes that become kernels, in order */
    size_t n_buffers, n_runs, n_aliased;
    uint64_t arena_bytes, bound_bytes; /* bound: what no placement of these buffers can go below */
} slr_layout;

/* strided: values may be column slices of others where readers honour the stride. */
int slr_layout_make(slr_layout *out, const slr_graph *g, slr_mem *m, bool strided);
void slr_layout_free(slr_layout *l, slr_mem *m);

#endif
