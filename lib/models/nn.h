/* SPDX-License-Identifier: MIT */
/* Layers over the graph: linear, convolution, norms by weight name, with an adapter hook on every
 * linear and convolution.  Whoever adapts (networks) fills the hook; models never hear of LoRA. */
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
    int64_t out, in, kh, kw;  /* kh = kw = 1 for linear */
    slr_conv geometry;        /* of a convolution */
    const slr_tensor *weight; /* frozen, shaped as the file has it */
} slr_layer;

/* Both may be NULL.  They add nodes to nn->g.  When kh = kw = 1 the layer runs as a linear one: x
 * is
 * [..., in], y is [..., out] and w is [out, in] whatever the file's rank. */
typedef struct slr_adapter {
    void *user;
    /* Replaces the weight value before use (multiplicative kinds).  Returns w itself to keep it. */
    slr_val (*weight)(void *user, slr_graph *g, const slr_layer *layer, slr_val w);
    /* Called with the layer's input and output (a residual may be in y already); returns the output
     * to use (y + delta(x)). */
    slr_val (*output)(void *user, slr_graph *g, const slr_layer *layer, slr_val x, slr_val y);
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

/* Receives every linear and convolution that a forward graph of a part visits, in execution order.
 * A negative result ends the walk and becomes its result. */
typedef int (*slr_layer_fn)(void *user, const slr_layer *layer);

/* Runs `build` on a graph that is thrown away, with a hook that hands each layer to fn: so that the
 * list of adaptable layers and the forward pass cannot disagree. */
typedef void (*slr_nn_build_fn)(slr_nn *nn, const void *arg);
int slr_nn_layers(const slr_weights *w, int part, slr_nn_build_fn build, const void *arg,
                  slr_layer_fn fn, void *user);

#endif
