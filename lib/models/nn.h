/* SPDX-License-Identifier: MIT */
/* Layers over the graph: linear, convolution, norms by weight name, with an adapter hook on every
 * one of them.  Whoever adapts (networks) fills the hook; models never hear of LoRA. */
#ifndef SLR_MODELS_NN_H
#define SLR_MODELS_NN_H

#include "graph/graph.h"
#include "models/weights.h"

enum { SLR_PART_UNET = 0, SLR_PART_TE = 1, SLR_PART_TE2 = 2, SLR_PART_VAE = 3, SLR_PART_COUNT = 4 };
const char *slr_part_name(int part); /* "UNet", "text encoder", ... for messages */

/* What an adapter is told about the layer at hand.  Pointers live only during the call. */
typedef struct slr_layer {
    int part;                 /* SLR_PART_* */
    const char *path;         /* canonical module path: "down_blocks.0.attentions.0.proj_in" */
    bool conv;                /* the file's weight is 4-D, be it 1x1; else 2-D */
    bool bias;                /* it has one */
    bool norm;                /* a group or layer norm: the weight is 1-D, out = channels, in = 1 */
    int64_t out, in, kh, kw;  /* kh = kw = 1 for linear */
    slr_conv geometry;        /* of a convolution */
    const slr_tensor *weight; /* frozen, shaped as the file has it */
} slr_layer;

enum { SLR_LEAF_WEIGHT = 0, SLR_LEAF_BIAS = 1 };

/* Any of them may be NULL.  They add nodes to nn->g.  When kh = kw = 1 a layer runs as a linear
 * one: x is [..., in], y is [..., out] and w is [out, in] whatever the file's rank. */
typedef struct slr_adapter {
    void *user;
    /* Replaces the weight or the bias before use.  Returns v itself to keep it; a bias may be
     * SLR_NONE (absent). */
    slr_val (*param)(void *user, slr_graph *g, const slr_layer *layer, int leaf, slr_val v);
    /* Called with the layer's input and output (a residual may be in y already); returns the output
     * to use (y + delta(x)). */
    slr_val (*output)(void *user, slr_graph *g, const slr_layer *layer, slr_val x, slr_val y);
    /* Token embeddings x [N,T,C] of ids [N,T] before positions are added: returns what to use. */
    slr_val (*tokens)(void *user, slr_graph *g, int part, slr_val ids, slr_val x);
    /* What an attention layer of the UNet takes its keys (value = false) or values from, [N,T,C].
     */
    slr_val (*context)(void *user, slr_graph *g, const char *path, bool value, slr_val x);
    /* Token merging: self-attention over merge_from tokens works on `merge` fewer; 0: on all. */
    int64_t merge, merge_from;
} slr_adapter;

typedef struct slr_nn {
    slr_graph *g;
    const slr_weights *w;
    int part;
    const slr_adapter *adapter; /* Nullable */
} slr_nn;

/* `path` is the full canonical module path; ".weight"/".bias" are appended.  A missing bias is
 * absent; a missing weight is the graph's error.  `add` (SLR_NONE: absent) has the output's shape.
 */
slr_val slr_nn_linear(slr_nn *nn, const char *path, slr_val x, slr_val add);
/* x [N,H,W,C].  A 1x1 convolution of stride 1 runs as a linear layer. */
slr_val slr_nn_conv(slr_nn *nn, const char *path, slr_val x, slr_val add, slr_conv c);
/* The same for a model's last layers: the result is f32 whatever the graph stores. */
slr_val slr_nn_last_linear(slr_nn *nn, const char *path, slr_val x);
slr_val slr_nn_last_conv(slr_nn *nn, const char *path, slr_val x, slr_conv c);
/* x as the graph stores activations: for an input that many layers read. */
slr_val slr_nn_store(slr_nn *nn, slr_val x);
/* act: SDLORA_ACT_* applied to the result. */
slr_val slr_nn_group_norm(slr_nn *nn, const char *path, slr_val x, int groups, int act, double eps);
slr_val slr_nn_layer_norm(slr_nn *nn, const char *path, slr_val x, double eps);
/* A frozen tensor by its full name; a missing one is the graph's error. */
slr_val slr_nn_weight(slr_nn *nn, const char *name);
/* Whether the set holds `path`.weight. */
bool slr_nn_has(const slr_weights *w, const char *path);
/* Text by format into buf, cut at its size; returns buf.  For building paths. */
const char *slr_nn_path(char buf[192], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The adapter's say on token embeddings and on what keys and values are made of. */
slr_val slr_nn_tokens(slr_nn *nn, slr_val ids, slr_val x);
slr_val slr_nn_context(slr_nn *nn, const char *path, bool value, slr_val x);

/* Receives every linear, convolution and norm that a forward graph of a part visits, in execution
 * order.
 * A negative result ends the walk and becomes its result. */
typedef int (*slr_layer_fn)(void *user, const slr_layer *layer);

/* Runs `build` on a graph that is thrown away, with a hook that hands each layer to fn: so that the
 * list of adaptable layers and the forward pass cannot disagree. */
typedef void (*slr_nn_build_fn)(slr_nn *nn, const void *arg);
int slr_nn_layers(const slr_weights *w, int part, slr_nn_build_fn build, const void *arg,
                  slr_layer_fn fn, void *user);

#endif
