/* SPDX-License-Identifier: MIT */
/* Hypernetworks: for each width of what attention layers of the UNet take keys and values from, two
 * MLPs, x -> x + strength * MLP(x).  One is a network whose modules are the linear layers of the
 * MLPs, so that trainer, optimiser and state files need not know of it; it enters graphs by
 * slr_adapter.context. */
#ifndef SLR_NETWORKS_HYPERNET_H
#define SLR_NETWORKS_HYPERNET_H

#include "networks/netfile.h"
#include "networks/network.h"

bool slr_network_is_hyper(const slr_network *n);

/* "768.0.linear..." -> 768; 0: the name is not that of a weight in a hypernetwork's file. */
int64_t slr_hyper_key_width(const char *name);
/* A file; SDLORA_DONE when it is something else, EFORMAT or ENOTSUP names what is wrong. */
int slr_hyper_open(slr_network **out, slr_mem *m, const slr_checkpoint *base, const char *path);

/* Whether the "network" options ask for a new one: network_module hypernetwork. */
bool slr_hyper_wanted(slr_opt o);
/* By network_args, whose keys are those of AUTOMATIC1111's files. */
int slr_hyper_make(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                   uint64_t seed);
/* As AUTOMATIC1111 writes .pt files.  meta gives step and checkpoint. */
int slr_hyper_save(const slr_network *n, const char *path, uint32_t save_dtype,
                   const slr_meta *meta);
/* How big that file is, within a few percent. */
uint64_t slr_hyper_size(const slr_network *n, uint32_t save_dtype);
/* A new network by the options with the structure and the values of `from`. */
int slr_hyper_make_like(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                        const slr_network *from);

/* Where a graph's values come from. */
typedef struct slr_hyper_use {
    slr_graph *g;
    const slr_network *network;
    slr_val (*leaf)(void *user, slr_graph *g, size_t slot); /* a slot as a param of the graph */
    void *user;
    slr_val seed;     /* SLR_NONE: no dropout */
    int64_t call;     /* counts the attention layers' looks: each drops anew */
    slr_val strength; /* f32 [1,1,1]; SLR_NONE: 1 */
} slr_hyper_use;
/* What to_k (value: to_v) reads instead of x [N,T,C]: x itself where there is no MLP for C. */
slr_val slr_hyper_context(const slr_hyper_use *u, bool value, slr_val x);

/* --- inside the room --- */

enum {
    SLR_HYPER_LAYERS = 16, /* linear layers of an MLP */
    SLR_HYPER_WIDTHS = 16,
    SLR_HYPER_WIDEST = 1 << 17 /* inputs or outputs of a layer */
};

/* Names of files, with their defaults where a file has none. */
typedef struct slr_hyper {
    int layers;
    double structure[SLR_HYPER_LAYERS + 1]; /* widths as multiples of the context's */
    double dropout[SLR_HYPER_LAYERS + 1];   /* [i + 1]: behind layer i */
    const char *activation;                 /* NULL: none */
    int act;                                /* SDLORA_ACT_* */
    bool is_layer_norm, activate_output, use_dropout, last_layer_dropout;
    const char *weight_initialization;
    int64_t width[SLR_HYPER_WIDTHS];
    int widths;
    int64_t step;
    const char *sd_checkpoint, *sd_checkpoint_name; /* Nullable */
} slr_hyper;

/* Leaves of a module, which is one linear layer and the layer norm behind it. */
enum { SLR_HYPER_WEIGHT = 0, SLR_HYPER_BIAS, SLR_HYPER_NORM_WEIGHT, SLR_HYPER_NORM_BIAS };

/* Fills what follows from the rest, and checks all: EFORMAT or ENOTSUP, `label` in front. */
int slr_hyper_check(slr_hyper *h, const char *label);
/* Dropout as AUTOMATIC1111 derives it of use_dropout and last_layer_dropout. */
void slr_hyper_derive_dropout(slr_hyper *h);
/* outputs of layer i - 1, inputs of layer i */
int64_t slr_hyper_width(const slr_hyper *h, int64_t width, int i);
/* A network without values; h is copied into it. */
int slr_hyper_new(slr_network **out, slr_mem *m, const slr_checkpoint *base, const slr_hyper *h,
                  const char *label);
/* The module of a width's MLP (value: for values) and its layer i. */
size_t slr_hyper_module(const slr_hyper *h, int width, bool value, int i);
/* "768.1.linear.2.weight": a leaf's name in files, where a norm counts as a module of its own. */
void slr_hyper_key(const slr_hyper *h, int width, bool value, int i, int leaf, char key[96]);

#endif
