/* SPDX-License-Identifier: MIT */
/* Layers over the graph: linear, convolution, norms by weight name, with an adapter hook on every
 * linear and convolution.  Whoever adapts (networks) fills the hook; models never hear of LoRA. */
#ifndef SLR_MODELS_NN_H
#define SLR_MODELS_NN_H

#include "graph/graph.h"
#include "models/weights.h"

enum { SLR_PART_UNET = 0, SLR_PART_TE = 1, SLR_PART_TE2 = 2, SLR_PART_VAE = 3, SLR_PART_COUNT = 4 };

/* What an adapter is told about the layer at hand. */
typedef struct slr_layer {
    int part;                 /* SLR_PART_* */
    const char *path;         /* canonical module path: "down_blocks.0.attentions.0.proj_in" */
    bool conv;                /* the weight in use is 4-D; else 2-D */
    int64_t out, in, kh, kw;  /* kh = kw = 1 for linear */
    slr_conv geometry;        /* of a convolution */
    const slr_tensor *weight; /* frozen */
} slr_layer;

/* Both may be NULL.  They add nodes to nn->g. */
typedef struct slr_adapter {
    void *user;
    /* Replaces the weight value before use (multiplicative kinds).  Returns w itself to keep it. */
    slr_val (*weight)(void *user, slr_graph *g, const slr_layer *layer, slr_val w);
    /* Called with the layer's input and output; returns the output to use (y + delta(x)). */
    slr_val (*output)(void *user, slr_graph *g, const slr_layer *layer, slr_val x, slr_val y);
} slr_adapter;

typedef struct slr_nn {
    slr_graph *g;
    const slr_weights *w;
    int part;
    const slr_adapter *adapter; /* Nullable */
} slr_nn;

/* `path` is the full canonical module path; ".weight"/".bias" are appended.  A missing bias is
 * absent. A 1x1 convolution is run as a linear layer over [..., C] whatever the weight's rank
 * ([K,C,1,1] or [K,C]). */
slr_val slr_nn_linear(slr_nn *nn, const char *path, slr_val x, slr_val add);
slr_val slr_nn_conv(slr_nn *nn, const char *path, slr_val x, slr_val add, slr_conv c);
slr_val slr_nn_group_norm(slr_nn *nn, const char *path, slr_val x, int groups, int act, double eps);
slr_val slr_nn_layer_norm(slr_nn *nn, const char *path, slr_val x, double eps);
/* "%s.%s" joined into buf; returns buf. For building paths. */
const char *slr_nn_path(char buf[192], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Calls fn for every linear and convolution that a forward graph of the part would visit, in
 * execution order, without building kernels: the one list of adaptable layers. */
typedef int (*slr_layer_fn)(void *user, const slr_layer *layer);

#endif
