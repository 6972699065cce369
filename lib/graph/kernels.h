/* SPDX-License-Identifier: MIT */
/* The kernels of one plan: descriptors made from nodes, equal ones prepared once.  Kernels are
 * stateless, so nodes may share them. */
#ifndef SLR_GRAPH_KERNELS_H
#define SLR_GRAPH_KERNELS_H

#include "backend/registry.h"
#include "base/str.h"
#include "graph/plan.h"

typedef struct slr_kernel {
    sdlora_kernel *kernel;
    const sdlora_backend *backend;
    sdlora_queue *queue;
    uint64_t scratch;
    size_t key, key_bytes; /* what tells it from others, in `keys` */
    uint64_t hash;
} slr_kernel;

typedef struct slr_kernels {
    slr_mem *m;
    slr_devices *devices; /* borrowed */
    slr_kernel *items;
    uint32_t *slots; /* hash table: index into items + 1; 0: free */
    size_t n, cap, n_slots;
    slr_buf keys;
    sdlora_tdesc *tdesc; /* room for the descriptor at hand: inputs, then outputs */
    sdlora_const *consts;
    size_t cap_tdesc, cap_consts;
    bool pitched; /* the last node asked for had an input that is not dense */
} slr_kernels;

void slr_kernels_init(slr_kernels *ks, slr_mem *m, slr_devices *devices);
void slr_kernels_free(slr_kernels *ks);
/* The kernel of node k; its index goes to *out.  Failures name the node. */
int slr_kernels_get(slr_kernels *ks, const slr_graph *g, const slr_layout *l, int32_t k,
                    uint32_t *out);

#endif
