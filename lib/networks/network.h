/* SPDX-License-Identifier: MIT */
/* A network: a set of modules, each adapting one layer of a frozen model.  Knows kinds (rows in
 * network.c, one file each), strengths, and how to hook into model graphs; refuses to know training
 * loops and prompts. */
#ifndef SLR_NETWORKS_NETWORK_H
#define SLR_NETWORKS_NETWORK_H

#include "backend/registry.h"
#include "base/log.h"
#include "base/options.h"
#include "base/rng.h"
#include "models/checkpoint.h"
#include "models/nn.h"

typedef struct slr_network slr_network;

/* A layer that can be adapted, and its names.  See target.h for the table of a checkpoint. */
typedef struct slr_target {
    int part;         /* SLR_PART_* */
    const char *name; /* kohya's: "lora_unet_down_blocks_0_attentions_0_proj_in" */
    const char *path; /* canonical module path */
    bool conv;        /* the weight is 4-D */
    bool norm;        /* the weight is 1-D: out channels */
    bool bias;        /* the layer has one */
    int64_t out, in, kh, kw;
} slr_target;

/* A new network for training: targets by kohya's rules and the "network" options (network_dim,
 * network_alpha, conv_dim, conv_alpha, network_train_unet_only, ...), initialised by seed. */
int slr_network_make(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                     uint64_t seed);
/* A file: every module is checked against the base first, and nothing is made unless all of it
 * fits. */
int slr_network_open(slr_network **out, slr_mem *m, const slr_checkpoint *base, const char *path);
/* The same with a say on tensors that belong to no layer of this base, or to no kind: refused, or
 * skipped as long as something is left.  What is there and broken is refused either way. */
typedef struct slr_open_config {
    bool skip;
    const slr_log *log; /* Nullable: told what was skipped */
} slr_open_config;
int slr_network_open_with(slr_network **out, slr_mem *m, const slr_checkpoint *base,
                          const char *path, const slr_open_config *config);
/* Type of the first weight in the file: F32, F16 or BF16; F32 for a network made here. */
uint32_t slr_network_stored(const slr_network *n);
/* Keys of the file that were skipped, in its order; NULL past the last. */
size_t slr_network_skipped(const slr_network *n);
const char *slr_network_skipped_at(const slr_network *n, size_t i);
/* The same, initial values of an equally shaped network (network_weights): EINVAL when ranks or
 * modules differ. */
int slr_network_load_into(slr_network *n, const slr_network *from);
/* A new network by the options, dropout and parts included, whose modules, ranks, alphas and values
 * are those of `from` (dim_from_weights): modules of parts that the options do not train are left
 * out, and so are its name, path and metadata.  EINVAL when nothing is left. */
int slr_network_make_like(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                          const slr_network *from);
slr_network *slr_network_ref(slr_network *n);
void slr_network_unref(slr_network *n);

size_t slr_network_modules(const slr_network *n);
const slr_target *slr_network_target(const slr_network *n, size_t i);
int64_t slr_network_rank(const slr_network *n, size_t i);
double slr_network_alpha(const slr_network *n, size_t i);
const char *slr_network_name(const slr_network *n); /* file stem, or output_name */
const char *slr_network_path(const slr_network *n); /* NULL when made here */
/* The "network" options it was made with; defaults when it came from a file.  Borrowed. */
slr_opt slr_network_options(const slr_network *n);
/* conv_dim, conv_alpha, network_dropout ... wherever they were given: in network_args, which wins,
 * or as an option of its own. */
double slr_network_arg(const slr_network *n, const char *key, double otherwise);
const slr_family *slr_network_family(const slr_network *n);
bool slr_network_has_dropout(const slr_network *n); /* drawn ranks are dropout too */
/* Raised by whoever writes to the parameters, so that copies can tell that they are old. */
void slr_network_touch(slr_network *n);
uint64_t slr_network_version(const slr_network *n);

/* --- trainable parameters: one flat f32 block, text encoder modules first, then UNet --- */
typedef struct slr_network_slot {
    const char *key; /* "lora_unet_....lora_down.weight" */
    int part;
    size_t module;
    int leaf; /* of its module: see kind.h */
    int rank;
    int64_t dim[SLR_MAX_RANK];
    size_t offset,
        count;       /* in floats within the block; offsets are multiples of 16 (gaps are zero) */
    double lr_scale; /* on the rate of its part; 0: it stays as it is */
} slr_network_slot;
size_t slr_network_slots(const slr_network *n);
const slr_network_slot *slr_network_slot_at(const slr_network *n, size_t i);
float *slr_network_params(slr_network *n);            /* the block; 64-byte aligned */
size_t slr_network_param_count(const slr_network *n); /* floats in the block, gaps included */
/* [first, last) floats of the block that belong to a part. */
void slr_network_part_range(const slr_network *n, int part, size_t *first, size_t *last);
/* A number that tells what the network does to a part: its modules, their scales and parameters. */
uint64_t slr_network_digest(const slr_network *n, int part, uint64_t seed);

/* kohya's scale_weight_norms: n = max(|scale D|, max / 2), and where n > max the module is made
 * smaller by max / n, its factors each by their share (two factors: the root).  As in LyCORIS it is
 * the blocks' norm for OFT and BOFT, and other kinds than LoRA, LoHa and LoKr are left alone. */
int slr_network_scale_norms(slr_network *n, slr_devices *devices, double max);

/* --- DyLoRA: ranks that are drawn for each pass --- */

/* Of all modules that have such, together; 0: there is none.  Arrays below hold as many. */
size_t slr_network_ranks(const slr_network *n);
/* What each rank weighs in the pass over a batch whose first sample has this number; 0: it is left
 * out.  The last that are not are trained. */
void slr_network_draw_ranks(const slr_network *n, uint64_t seed, uint64_t sample, float *weight);
/* Clears the gradients (a block like the parameters) of all ranks but those; sets theirs in
 * `touched`. */
void slr_network_mask_ranks(const slr_network *n, const float *weight, float *grad,
                            uint8_t *touched);
/* Copies what belongs to ranks that were not touched, between blocks like the parameters. */
void slr_network_keep_ranks(const slr_network *n, const uint8_t *touched, const float *from,
                            float *to);

/* --- T-LoRA: fewer ranks of UNet modules for noisier samples --- */

/* Numbers of a row of the mask; 0: the network has none. */
size_t slr_network_mask_width(const slr_network *n);
/* Ones for the ranks of a sample at timestep t of so many, zeros for the rest: of R ranks
 * ((of - t) / of)^tlora_alpha of those above tlora_min_rank.  A module of fewer ranks takes the
 * beginning of the row. */
void slr_network_timestep_mask(const slr_network *n, double t, double of, float *mask);

/* --- hooks into graphs --- */
/* Training: the slots of every layer that is built become graph params named by their keys.  Fill
 * the struct, hand `adapter` to the model builders, and read vals afterwards: SLR_NONE where a
 * slot's layer was not built. */
typedef struct slr_train_hook {
    slr_network *network;
    slr_val seed;  /* i32[2], feeds dropout; SLR_NONE: no dropout (validation) */
    slr_val *vals; /* one per slot; the caller's array */
    slr_val delta; /* of the layer that is being built, in bypass_mode with dropout */
    slr_val ranks; /* what slr_network_draw_ranks() gives, f32; like the next, the caller may
                    * set it after slr_train_hook_init() */
    slr_val masks; /* [samples,width]: rows that slr_network_timestep_mask() gives, f32 */
    slr_val live;  /* a module's part of either */
    int64_t calls; /* of the context hook so far */
    slr_adapter adapter;
} slr_train_hook;
void slr_train_hook_init(slr_train_hook *hook, slr_network *n, slr_val seed, slr_val *vals);

/* Applying: any number of networks at once, each with its strengths.  Where all networks of a layer
 * are two factors (LoRA), a stack combines them (ranks concatenated, strength and alpha/rank folded
 * into `up`), so that the layer pays one thin pass.  Other layers get new weights, to which the
 * networks were applied one after the other, as in AUTOMATIC1111. */
typedef struct slr_stack slr_stack;

/* Block weights: 12, 17, 20 or 26 numbers for as many blocks of a model. */
struct slr_unet_map;
typedef struct slr_blocks {
    size_t n; /* 0: every layer counts once */
    double weight[26];
    const struct slr_unet_map *map; /* of SDXL's numbers */
} slr_blocks;
int slr_blocks_parse(slr_blocks *out, const char *text);
double slr_blocks_weight(const slr_blocks *b, int part, const char *path);

typedef struct slr_stack_item {
    slr_network *network;
    double te, unet;   /* strengths */
    int64_t dyn;       /* use this many ranks at most; 0: all */
    slr_blocks blocks; /* what strengths are multiplied by; the stack knows the map */
} slr_stack_item;
/* Whether two items differ in their network and ranks at most. */
bool slr_item_same_strength(const slr_stack_item *a, const slr_stack_item *b);
/* Checks every item against base first: EINVAL/EFORMAT names file and key, and nothing is applied.
 * Takes references. */
int slr_stack_new(slr_stack **out, slr_mem *m, slr_devices *devices, slr_checkpoint *base,
                  const slr_stack_item *items, size_t n);
void slr_stack_free(slr_stack *s);
/* The weights to build a part's graph with: the base's, but for layers that were made anew. */
slr_weights *slr_stack_weights(slr_stack *s, int part);
/* Live: factors become graph params, bound with slr_stack_bind after planning. */
slr_adapter slr_stack_adapter(slr_stack *s);
/* Whether other strengths can be set in graphs that stand: no layer has weights of its own. */
bool slr_stack_live(const slr_stack *s);
/* Whether most of a part's weights are the stack's own: packed, they serve nobody else. */
bool slr_stack_rebuilds_most(const slr_stack *s, int part);
/* Other strengths for the same networks, without a new graph; EINVAL unless live. */
int slr_stack_set(slr_stack *s, const slr_stack_item *items, size_t n);
/* Whether graphs made with one serve the other, once slr_stack_bind() has been called for them: the
 * same layers with the same ranks, as different epochs of one network have them. */
bool slr_stack_alike(const slr_stack *a, const slr_stack *b);
/* Whether a network was written to since its factors were copied: slr_stack_set copies them again.
 */
bool slr_stack_stale(const slr_stack *s);
/* Binds every stack param in a plan of a graph built with the hook. */
struct slr_plan;
int slr_stack_bind(slr_stack *s, struct slr_plan *p);

/* Merged: new weights = W with every network applied in turn, summed in f32, rounded once to the
 * base's dtype; removal is dropping the result (the base is untouched).  *out holds replaced
 * tensors over the base's; the same bytes whatever the number of threads. */
int slr_merge_part(slr_weights **out, slr_mem *m, slr_devices *devices, slr_weights *base, int part,
                   const slr_stack_item *items, size_t n);

#endif
