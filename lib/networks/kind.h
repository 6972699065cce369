/* SPDX-License-Identifier: MIT */
/* Inside the room: one row per network algorithm, and what a network is made of.  A new algorithm
 * is one file with one row here. */
#ifndef SLR_NETWORKS_KIND_H
#define SLR_NETWORKS_KIND_H

#include "base/map.h"
#include "base/thread.h"
#include "networks/netfile.h"
#include "networks/network.h"
#include "networks/target.h"

#define SLR_KIND_SLOTS 4 /* most tensors that a module of any kind has */

typedef struct slr_kind slr_kind;

typedef struct slr_module {
    slr_target target; /* texts live in the network's arena */
    const slr_kind *kind;
    int64_t rank;
    double alpha;
    size_t slot; /* index of its first slot */
} slr_module;

/* What a training graph gives a module. */
typedef struct slr_apply {
    slr_graph *g;
    const slr_network *network;
    const slr_layer *layer;
    const slr_val *param; /* the module's slots as graph params */
    slr_val seed;         /* SLR_NONE: no dropout */
    int64_t stream;       /* dropout streams stream, stream + 1 ... are this module's */
} slr_apply;

struct slr_kind {
    const char *name;
    int n_slots;
    const char *leaf[SLR_KIND_SLOTS]; /* "lora_down.weight": key is name + "." + leaf */
    /* Shapes of all slots for a module whose target and rank are set. */
    void (*shapes)(const slr_module *mod, slr_network_slot *slots);
    /* The rank that file tensors say; EFORMAT when they do not fit the target.  t[i] per leaf. */
    int (*rank)(const slr_target *target, const slr_tensor *t, const char *label, int64_t *rank);
    /* Initial values of a new module: a no-op as a whole. */
    void (*init)(const slr_module *mod, const slr_network_slot *slots, float *params, slr_rng *rng);
    /* y + delta(x), differentiable by the params. */
    slr_val (*output)(const slr_apply *a, const slr_module *mod, slr_val x, slr_val y);
    /* w += strength * delta; w is [out, in*kh*kw] f32. */
    void (*merge)(const slr_module *mod, const slr_network_slot *slots, const float *params,
                  double strength, int64_t row_lo, int64_t row_hi, float *w);
};

const slr_kind *slr_kind_by_leaf(const char *leaf, int *slot); /* NULL: no kind has such a tensor */
extern const slr_kind slr_kind_lora;

struct slr_network {
    slr_refs refs;
    slr_mem *m;
    slr_arena *texts;
    const slr_family *family;
    sdlora_options *opts; /* Nullable */
    slr_map *args;        /* network_args: key -> index into arg_value */
    const char **arg_value;
    size_t arg_cap;
    const char *name, *path;
    slr_meta *meta;

    slr_module *module;
    size_t n_modules, module_cap;
    slr_map *by_path; /* "<part>:<path>" -> module */
    slr_network_slot *slot;
    size_t n_slots, slot_cap;
    float *params;
    size_t n_params;
    uint64_t version; /* of params */
    size_t part_first[SLR_PART_COUNT], part_last[SLR_PART_COUNT];
};

/* Building blocks of make and open, in this order: new, add ..., layout. */
int slr_network_new(slr_network **out, slr_mem *m, const slr_checkpoint *base);
int slr_network_add(slr_network *n, const slr_kind *kind, const slr_target *target, int64_t rank,
                    double alpha);
int slr_network_layout(slr_network *n); /* slots and the flat block (zeros) */
/* "0:down_blocks.0...": one layer of one part.  Takes no memory, so that a layer cannot lose its
 * adapter to a failed allocation.  False: longer than any path that a model builder makes. */
enum { SLR_LAYER_KEY = 256 };
bool slr_layer_key(char key[SLR_LAYER_KEY], int part, const char *path);
const slr_module *slr_network_find(const slr_network *n, int part,
                                   const char *path); /* NULL: none */
double slr_module_scale(const slr_module *mod);       /* alpha / rank */

#endif
