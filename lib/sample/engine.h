/* SPDX-License-Identifier: MIT */
/* A model as it stands now, with networks applied, and its planned graphs by shape: what text
 * states and predictions are computed with.  Refuses to know what graphs hold.  One thread at a
 * time. */
#ifndef SLR_SAMPLE_ENGINE_H
#define SLR_SAMPLE_ENGINE_H

#include "base/thread.h"
#include "graph/exec.h"
#include "models/nn.h"
#include "networks/network.h"

typedef struct slr_engine slr_engine;

int slr_engine_new(slr_engine **out, slr_mem *m, slr_checkpoint *base, slr_devices *devices);
void slr_engine_free(slr_engine *e); /* NULL: nothing */
/* Gives back graphs and networks; graphs are made again when they are asked for. */
void slr_engine_rest(slr_engine *e);

/* Another precision than f32 from now on. */
void slr_engine_set_policy(slr_engine *e, slr_policy policy);
/* Networks to apply from now on; the same networks at other strengths keep all graphs. */
int slr_engine_set_networks(slr_engine *e, const slr_stack_item *items, size_t n,
                            const slr_cancel_flag *cancel);
/* Rises whenever results may differ from those before: what was kept of them is stale. */
uint64_t slr_engine_version(const slr_engine *e);

slr_checkpoint *slr_engine_base(const slr_engine *e);           /* borrowed */
slr_weights *slr_engine_weights(const slr_engine *e, int part); /* borrowed; NULL: no such part */
slr_adapter slr_engine_adapter(const slr_engine *e);            /* zeros without networks */

/* What a graph is made for.  Kinds are the parts whose weights it reads; the rest is up to who
 * builds. */
enum {
    SLR_ENGINE_UNET = SLR_PART_UNET,
    SLR_ENGINE_TEXT = SLR_PART_TE,
    SLR_ENGINE_TEXT2 = SLR_PART_TE2,
    SLR_ENGINE_KINDS = 3
};
typedef struct slr_engine_key {
    int kind;
    int64_t a, b, c, d;
} slr_engine_key;
typedef void (*slr_engine_build_fn)(void *user, slr_graph *g, const slr_engine_key *key);
/* The plan for a key; of a few that are kept the one not used for longest makes room.  All work in
 * one memory: results are to be copied before the next is asked for.  Lifetime: until then.
 * cancel Nullable: ends the packing of weights. */
int slr_engine_plan(slr_engine *e, const slr_engine_key *key, slr_engine_build_fn build, void *user,
                    const slr_cancel_flag *cancel, slr_plan **out);
/* An input or output by name. */
void *slr_engine_memory(slr_plan *p, const char *name);

#endif
