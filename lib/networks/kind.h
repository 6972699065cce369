/* SPDX-License-Identifier: MIT */
/* Inside the room: one row per network algorithm, and what a network is made of.  A new algorithm
 * is one file with one row here; what all of them share (DoRA, scalar, dropout of rows and modules,
 * strength) is done once, in rebuild.c. */
#ifndef SLR_NETWORKS_KIND_H
#define SLR_NETWORKS_KIND_H

#include "base/map.h"
#include "base/thread.h"
#include "networks/netfile.h"
#include "networks/network.h"
#include "networks/settings.h"
#include "networks/target.h"

/* Tensors of a module ("leaves") by index: a kind's own come first, the common ones stand at fixed
 * places behind them. */
enum {
    SLR_KIND_OWN = 10,    /* most leaves that a kind has of its own */
    SLR_LEAF_DORA = 10,   /* "dora_scale": [out,1(,1,1)] or [1,in(,1,1)] */
    SLR_LEAF_SCALAR = 11, /* a factor that is trained and folded into another leaf when saved */
    SLR_LEAF_DIFF_B = 12, /* "diff_b": [out], a change of the bias beside that of the weight */
    SLR_LEAF_SPARSE = 13, /* "bias_values": [n], added to D at n places; residual.c */
    SLR_LEAF_PLACES = 14, /* "bias_indices": [2,n], rows and columns, whole numbers */
    SLR_KIND_LEAVES = 15
};

typedef struct slr_kind slr_kind;

/* The tensors that a module has, their shapes, and its numbers: what a kind tells of a new module,
 * and of one that a file holds. */
typedef struct slr_form {
    uint32_t have; /* bit i: leaf i */
    struct {
        int rank;
        int64_t dim[SLR_MAX_RANK];
    } leaf[SLR_KIND_LEAVES];
    int64_t rank; /* 0: the kind knows none */
    double alpha; /* as files say it; NAN: not written */
    double scale; /* delta() is multiplied by it */
    bool marked;  /* the kind's marker tensor says true */
    bool begins;  /* leaves of kind.begun are in no file: the frozen weight has them */
} slr_form;

typedef struct slr_module {
    slr_target target; /* texts live in the network's arena */
    const slr_kind *kind;
    const slr_settings *set; /* of a new module; those of an opened one are the defaults */
    int64_t rank;
    double alpha, scale;
    bool marked, begins;
    size_t slot;                /* index of its first slot */
    int8_t at[SLR_KIND_LEAVES]; /* leaf i is slot + at[i]; -1: it has none */
} slr_module;

/* What a graph gives a module. */
typedef struct slr_apply {
    slr_graph *g;
    const slr_network *network;
    const slr_layer *layer;         /* target's shape, and geometry where there is a forward pass */
    slr_val param[SLR_KIND_LEAVES]; /* f32 graph params by leaf; SLR_NONE: absent.  The values of a
                                     * residual are an input of the weight's shape */
    int64_t dyn;                    /* use this many ranks at most; 0: all */
    slr_val seed;                   /* SLR_NONE: no dropout */
    int64_t stream;                 /* dropout streams stream ... stream + 3 are this module's */
    double strength;                /* W' = W + strength * delta */
    const slr_val *live;            /* f32, what each rank weighs: DyLoRA's [rank], T-LoRA's
                                     * [samples,rank]; NULL: 1 */
} slr_apply;

struct slr_kind {
    const char *name;                   /* LyCORIS' algo */
    const char *leaf[SLR_KIND_OWN];     /* "lora_down.weight": key is name + "." + leaf */
    uint32_t proof;                     /* bit i: leaf i is this kind's alone */
    uint32_t needs;                     /* bit i: no module without leaf i */
    bool (*mine)(const slr_tensor *t);  /* Nullable: tells kinds with one proof apart */
    uint32_t plus;                      /* LoRA+ raises the rate of these */
    uint32_t scalar_into;               /* bit i: leaf i takes the scalar when it is saved */
    const char *marker;                 /* Nullable: a number that is or is not 0, form.marked */
    bool marker_if_set;                 /* it stands in files only where it is true */
    bool no_alpha;                      /* files have none */
    bool (*takes)(const slr_target *t); /* NULL: every layer with a matrix */

    /* A new module by its settings. ENOTSUP/EINVAL with a sentence. */
    int (*make)(const slr_settings *set, const slr_target *t, slr_form *form);
    /* A module from a file: t[i] per leaf of `form->have`, form->alpha and form->marked are set as
     * the file says; fills the rest.  EFORMAT when the tensors do not fit the target. */
    int (*read)(const slr_target *target, const slr_tensor *t, const char *label, slr_form *form);
    /* Initial values of a new module: a no-op as a whole. */
    void (*init)(const slr_module *mod, const slr_network_slot *slots, float *params, slr_rng *rng);
    uint32_t begun; /* bit i: leaf i is what the module begins with, and is not trained */
    /* Fills those of a weight [out,in*kh*kw], before init(); on any thread. */
    int (*begin)(const slr_module *mod, const slr_network_slot *slots, float *params, slr_mem *m,
                 const float *w);

    /* D [out,in] (or [out,in,kh,kw]; [C] of a norm), f32, differentiable, without scale; w is the
     * frozen weight in f32 and of the same shape.  NULL: output() alone serves (not in files). */
    slr_val (*delta)(const slr_apply *a, const slr_module *mod, slr_val w);
    int bias;       /* the kind's own leaf that is a change of the bias; 0: SLR_LEAF_DIFF_B */
    uint32_t whole; /* bit i: with leaf i a module knows no rank limit (dyn) */
    /* y + scale * D(x) without building D, where that is cheaper; or NULL. */
    slr_val (*output)(const slr_apply *a, const slr_module *mod, slr_val x, slr_val y);
    bool drops;   /* output() does the dropout of LyCORIS' bypass_mode */
    bool no_rows; /* rank_dropout is unheard, as in LyCORIS */
    /* Two factors whose product is scale * D: down [rank, in*kh*kw], up [out, rank], of at most
     * `rank` (the module's, or fewer: dyn).  NULL: D has none, or they are not cheap. */
    void (*factors)(const slr_module *mod, const slr_network_slot *slots, const float *params,
                    int64_t rank, float *down, float *up, int64_t up_stride);
};

const slr_kind *slr_kind_at(size_t i);            /* NULL: no more */
const slr_kind *slr_kind_named(const char *algo); /* NULL: unknown */
/* "lora_down.weight" for any of a kind's leaves, the common ones included; NULL: it has no such. */
const char *slr_kind_leaf(const slr_kind *kind, int leaf);
/* The leaf of that name; -1: none. */
int slr_kind_find(const slr_kind *kind, const char *leaf);
extern const slr_kind slr_kind_lora, slr_kind_loha, slr_kind_lokr, slr_kind_ia3, slr_kind_full,
    slr_kind_norm, slr_kind_set, slr_kind_glora, slr_kind_diag_oft, slr_kind_oft, slr_kind_oft_old,
    slr_kind_oft_inputs, slr_kind_boft, slr_kind_tlora;
extern const slr_kind slr_kind_embedding; /* not among them: it adapts no layer */

/* --- shared by kinds --- */

int64_t slr_target_fan_in(const slr_target *t); /* in * kh * kw */
/* What kohya and LyCORIS do with a file's alpha: absent is rank, rank 0 is scale 1. */
double slr_form_scale(const slr_form *form);
/* Adds a leaf. */
void slr_form_add(slr_form *form, int leaf, int rank, const int64_t *dim);
/* EFORMAT, with the leaf's name and shape: "file: module.leaf is [..], wanted [..]". */
int slr_form_refuse(const char *label, const slr_target *t, const char *leaf,
                    const slr_tensor *have, const char *wanted);
/* U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which is torch's kaiming_uniform_ with a = sqrt 5. */
void slr_init_kaiming(float *p, size_t n, int64_t fan_in, slr_rng *rng);
void slr_init_normal(float *p, size_t n, double std, slr_rng *rng);
const slr_network_slot *slr_module_slot(const slr_module *mod, const slr_network_slot *slots,
                                        int leaf); /* slots: from the module's first; NULL: none */
bool slr_module_has(const slr_module *mod, int leaf);
/* The leaf that changes the layer's bias, where a module has it. */
int slr_kind_bias(const slr_kind *kind);
/* What AUTOMATIC1111 makes of a rank limit: that of two factors is cut, all else taken whole. */
int64_t slr_module_dyn(const slr_module *mod, int64_t dyn);
/* Whether D is two thin factors and nothing beside: no magnitudes, no residual. */
bool slr_module_thin(const slr_module *mod);
/* " with DoRA", " with a sparse residual" or "": why a module of two factors is none. */
const char *slr_module_beside(const slr_module *mod);
/* Ones of the given shape with Bernoulli zeros; the kept are 1/(1-p).  which: 0 to 3. */
slr_val slr_drop_mask(const slr_apply *a, int rank, const int64_t *dim, double p, int which);
/* rank_dropout of all kinds but LoRA: rows of D, which are channels of its output; `axis` is where
 * d has them. */
slr_val slr_drop_rows(const slr_apply *a, const slr_module *mod, slr_val d, int axis);
/* module_dropout: the whole module is left out of this pass, and the others are not made larger. */
slr_val slr_drop_module(const slr_apply *a, const slr_module *mod, slr_val d);
/* Whether t is [a,b,kh,kw]; or [a,b*kh*kw], which is the same in memory. */
bool slr_fits(const slr_tensor *t, int64_t a, int64_t b, int64_t kh, int64_t kw);
/* [a, all the rest] */
slr_val slr_matrix(slr_graph *g, slr_val v);
/* A tucker core's first half: core [p,q,kh,kw], side [q,i] -> [p, i*kh*kw], in the order of a
 * convolution's weight. */
slr_val slr_tucker_rows(slr_graph *g, slr_val core, slr_val side);
/* v with the shape of w: [out,in*kh*kw] -> [out,in,kh,kw] where the layer has a kernel. */
slr_val slr_delta_shape(const slr_apply *a, slr_val v);

/* --- residual.c: what LyCORIS' extraction keeps beside a decomposition --- */

#define SLR_RESIDUAL_SIZE "bias_size" /* in files: [2], the weight as a matrix */
/* An input of the weight's shape for what slr_residual_fill() gives. */
slr_val slr_residual_input(slr_graph *g, const char *name, const slr_target *t);
/* Zeros, and the values where they belong. */
void slr_residual_fill(const slr_module *mod, const slr_network_slot *slots, const float *params,
                       float *dense);

/* --- rebuild.c: what every kind shares --- */

/* The change alone, of a weight in f32 and without strength: scale * scalar * D, through DoRA. */
slr_val slr_rebuild_delta(const slr_apply *a, const slr_module *mod, slr_val w);
/* The frozen value with the module's change: W + strength * (scale * scalar * D, through DoRA). */
slr_val slr_rebuild_param(const slr_apply *a, const slr_module *mod, int leaf, slr_val v);
/* Whether a module of a training graph is better served by its kind's output(). */
bool slr_rebuild_by_output(const slr_module *mod);

/* --- merge.c --- */

/* The same for the layers that `which` picks (NULL: all that are adapted). */
int slr_merge_layers(slr_weights **out, slr_mem *m, slr_devices *devices, slr_weights *base,
                     int part, const slr_stack_item *items, size_t n,
                     bool (*which)(void *user, int part, const char *path), void *user);
/* One tensor of a layer, SLR_LEAF_WEIGHT or SLR_LEAF_BIAS, with the networks in it, in f32: *out
 * holds it alone, or nothing when no network changes it. */
int slr_merge_leaf(slr_weights **out, slr_mem *m, slr_devices *devices, slr_weights *base, int part,
                   const slr_stack_item *items, size_t n, const char *path, int leaf);
double slr_item_strength(const slr_stack_item *item, int part);
/* The same for a layer, with the weight of its block. */
double slr_item_strength_at(const slr_stack_item *item, int part, const char *path);

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
    slr_network **bundle; /* embeddings that came in the file */
    size_t n_bundle, bundle_cap;
    const char **skipped; /* keys of the file that nothing was made of */
    size_t n_skipped, skipped_cap;
    uint32_t stored; /* type of the file's first weight; 0: none */

    struct slr_hyper *hyper; /* NULL: not a hypernetwork */

    slr_module *module;
    size_t n_modules, module_cap;
    slr_form *form; /* of each module until the layout is made */
    size_t form_cap;
    struct slr_plan *norms; /* NULL: not needed so far; maxnorm.c */
    slr_map *by_path;       /* "<part>:<path>" -> module */
    slr_network_slot *slot;
    size_t n_slots, slot_cap;
    float *params;
    size_t n_params;
    uint64_t version; /* of params */
    size_t part_first[SLR_PART_COUNT], part_last[SLR_PART_COUNT];
};

/* Building blocks of make and open, in this order: new, add ..., layout. */
int slr_network_new(slr_network **out, slr_mem *m, const slr_checkpoint *base);
/* set: Nullable. */
int slr_network_add(slr_network *n, const slr_kind *kind, const slr_target *target,
                    const slr_form *form, const slr_settings *set);
int slr_network_skip(slr_network *n, const char *key); /* notes a key that was left out */
/* Where the module's part is among the ranks that are drawn. */
int64_t slr_module_ranks_at(const slr_network *n, const slr_module *mod);
/* Ranks that DyLoRA trains together; 0: the module is no DyLoRA. */
int64_t slr_module_unit(const slr_module *mod);
int slr_network_layout(slr_network *n); /* slots and the flat block (zeros) */
/* begin.c: what modules of kinds that begin() begin with: all of a new network, and those of an
 * opened one whose file leaves it to the frozen weight.  Nothing where the base has shapes alone.
 */
int slr_network_begin(slr_network *n, const slr_checkpoint *base, uint64_t seed);
int slr_network_begin_again(slr_network *n, const slr_checkpoint *base);
/* The same of dora_scale: norms of the frozen weight. */
int slr_network_norms(const slr_network *n, const slr_module *mod, const slr_checkpoint *base);
/* Whether T-LoRA's mask is for the module, tlora.c. */
bool slr_module_masked(const slr_module *mod);
/* Whether the leaf is in the files that hold the module. */
bool slr_module_filed(const slr_module *mod, int leaf);
/* The form of a module that stands in a network. */
void slr_module_form(const slr_network *n, const slr_module *mod, slr_form *form);
/* "0:down_blocks.0...": one layer of one part.  Takes no memory, so that a layer cannot lose its
 * adapter to a failed allocation.  False: longer than any path that a model builder makes. */
enum { SLR_LAYER_KEY = 256 };
bool slr_layer_key(char key[SLR_LAYER_KEY], int part, const char *path);
const slr_module *slr_network_find(const slr_network *n, int part,
                                   const char *path); /* NULL: none */

#endif
