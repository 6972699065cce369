/* SPDX-License-Identifier: MIT */
/* Plans a graph for a set of devices (liveness, reuse, in-place, kernels) and runs it many times.
 * A run allocates nothing and looks nothing up.  Refuses to know what the graph computes. */
#ifndef SLR_GRAPH_EXEC_H
#define SLR_GRAPH_EXEC_H

#include "backend/registry.h"
#include "base/thread.h"
#include "graph/graph.h"

typedef struct slr_plan slr_plan;

/* The plan keeps what it needs of the graph: g may be freed afterwards.  Kernels are prepared here,
 * so a missing kernel is an error now and never in a run. */
int slr_plan_new(slr_plan **out, const slr_graph *g, slr_devices *devices);
/* The same; cancel (Nullable) is read between kernels, since packing a model's weights takes
 * seconds: ECANCELED.  *out then is what was begun: it cannot run, but as long as it is not freed
 * it keeps what has been packed, which the next plan finds. */
int slr_plan_new_until(slr_plan **out, const slr_graph *g, slr_devices *devices,
                       const slr_cancel_flag *cancel);
void slr_plan_free(slr_plan *p);

/* Finds a leaf or output by its full name. ENOTFOUND when there is none. */
int slr_plan_find(const slr_plan *p, const char *name, slr_val *out);
/* Memory of an input, param or output.  Unbound ones lie in the plan's own arena, valid until the
 * plan is freed; inputs keep their contents between runs. */
void *slr_plan_data(slr_plan *p, slr_val v);
/* Takes the memory of all that is not bound, as the first run would: slr_plan_data() cannot give
 * NULL afterwards for want of it. */
int slr_plan_back(slr_plan *p);
/* Puts an input, param or output into the caller's memory (64-byte aligned, dense) from now on. */
int slr_plan_bind(slr_plan *p, slr_val v, void *data);
/* Lets p use the workspace of `with` from now on, so that many plans cost the memory of the
 * biggest. Plans that share must not run at the same time.  Kept memory (slr_plan_data) is not
 * shared. */
int slr_plan_share(slr_plan *p, slr_plan *with);
slr_shape slr_plan_shape(const slr_plan *p, slr_val v);

/* Runs all nodes.  cancel (may be NULL) is read between kernels and between their pieces:
 * ECANCELED, and all that the run would have written is undefined.  The first run takes the memory;
 * later ones allocate nothing. */
int slr_plan_run(slr_plan *p, const slr_cancel_flag *cancel);

typedef struct slr_plan_stats {
    uint64_t arena_bytes, scratch_bytes, n_kernels, n_aliased;
    double flops;
} slr_plan_stats;
void slr_plan_get_stats(const slr_plan *p, slr_plan_stats *out);

/* Profile of the runs since the last call with on=true: one row per kernel, in order, per run
 * figures for flops and bytes.  Returns the number of rows there are. */
typedef struct slr_plan_profile_row {
    uint32_t op;
    char what[96]; /* name of the node */
    uint64_t calls;
    double seconds, flops, bytes;
    const char *backend;
} slr_plan_profile_row;
void slr_plan_profile(slr_plan *p, bool on);
size_t slr_plan_profile_rows(const slr_plan *p, slr_plan_profile_row *rows, size_t cap);

#endif
