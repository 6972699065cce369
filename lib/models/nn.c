/* SPDX-License-Identifier: MIT */
/* Layers by weight name.  Knows how files shape weights and where the adapter hook goes; checks
 * every shape here, so that a wrong file is a sentence with names and not a crash below.  Refuses
 * to know architectures and what adapters do. */
#include "models/nn.h"

#include <stdio.h>

#include "base/status.h"

const char *slr_part_name(int part)
{
    static const char *const NAMES[SLR_PART_COUNT] = {
        [SLR_PART_UNET] = "UNet",
        [SLR_PART_TE] = "text encoder",
        [SLR_PART_TE2] = "second text encoder",
        [SLR_PART_VAE] = "autoencoder",
    };
    return part >= 0 && part < SLR_PART_COUNT ? NAMES[part] : "part";
}

const char *slr_nn_path(char buf[192], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, 192, fmt, ap);
    va_end(ap);
    return buf;
}

bool slr_nn_has(const slr_weights *w, const char *path)
{
    char name[192];
    return slr_weights_find(w, slr_nn_path(name, "%s.weight", path)) != NULL;
}

static slr_val wrong_shape(slr_nn *nn, const char *name, const slr_tensor *t, const char *wanted)
{
    char shape[96];
    slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is %s, wanted %s", slr_weights_label(nn->w), name,
             slr_shape_text(t->dim, t->rank, shape), wanted);
    return slr_graph_error(nn->g, SDLORA_EFORMAT);
}

/* NULL: absent, which is recorded as the graph's error unless it may be. */
static const slr_tensor *tensor_of(slr_nn *nn, const char *name, bool optional)
{
    const slr_tensor *t = NULL;
    if (slr_graph_status(nn->g) < 0)
        return NULL;
    if (optional)
        return slr_weights_find(nn->w, name);
    int rc = slr_weights_get(nn->w, name, &t);
    if (rc < 0)
        slr_graph_error(nn->g, rc);
    return t;
}

slr_val slr_nn_weight(slr_nn *nn, const char *name)
{
    const slr_tensor *t = tensor_of(nn, name, false);
    return t ? slr_const(nn->g, name, t) : SLR_NONE;
}

/* "<path>.<leaf>" as a vector of n elements. */
static slr_val vector(slr_nn *nn, const char *path, const char *leaf, int64_t n, bool optional)
{
    char name[192], wanted[96];
    const slr_tensor *t = tensor_of(nn, slr_nn_path(name, "%s.%s", path, leaf), optional);
    if (!t)
        return SLR_NONE;
    if (t->rank != 1 || t->dim[0] != n)
        return wrong_shape(nn, name, t, slr_shape_text(&n, 1, wanted));
    return slr_const(nn->g, name, t);
}

static bool has_bias(const slr_nn *nn, const char *path)
{
    char name[192];
    return slr_weights_find(nn->w, slr_nn_path(name, "%s.bias", path)) != NULL;
}

static slr_val hook_param(slr_nn *nn, const slr_layer *layer, int leaf, slr_val v)
{
    return nn->adapter && nn->adapter->param
               ? nn->adapter->param(nn->adapter->user, nn->g, layer, leaf, v)
               : v;
}

static slr_val bias_of(slr_nn *nn, const slr_layer *layer)
{
    return hook_param(nn, layer, SLR_LEAF_BIAS, vector(nn, layer->path, "bias", layer->out, true));
}

static slr_val hook_output(slr_nn *nn, const slr_layer *layer, slr_val x, slr_val y)
{
    return nn->adapter && nn->adapter->output
               ? nn->adapter->output(nn->adapter->user, nn->g, layer, x, y)
               : y;
}

/* A layer whose kernel is 1x1: over the last axis of x, whatever the weight's rank. */
static slr_val linear(slr_nn *nn, const slr_layer *layer, const char *name, slr_val x, slr_val add)
{
    slr_graph *g = nn->g;
    slr_tensor flat = *layer->weight;
    flat.rank = 2; /* [K,C,1,1] -> [K,C] */
    slr_val w = hook_param(nn, layer, SLR_LEAF_WEIGHT, slr_const(g, name, &flat));
    slr_val bias = bias_of(nn, layer);
    slr_graph_push(g, layer->path);
    slr_val y = slr_linear(g, x, w, bias, add);
    slr_graph_pop(g);
    return hook_output(nn, layer, x, y);
}

static slr_val layer_of(slr_nn *nn, const char *path, slr_val x, slr_val add, bool conv, slr_conv c)
{
    slr_graph *g = nn->g;
    char name[192], wanted[96];
    const slr_tensor *t = tensor_of(nn, slr_nn_path(name, "%s.weight", path), false);
    if (!t)
        return SLR_NONE;
    bool square = t->rank == 4, dot = t->rank == 2 || (square && t->dim[2] == 1 && t->dim[3] == 1);
    slr_layer layer = {
        .part = nn->part,
        .path = path,
        .conv = square,
        .out = t->dim[0],
        .in = t->dim[1],
        .kh = square ? t->dim[2] : 1,
        .kw = square ? t->dim[3] : 1,
        .geometry = c,
        .bias = has_bias(nn, path),
        .weight = t,
    };
    if (!(dot || (conv && square)) || t->dim[1] != slr_dim(g, x, -1)) {
        snprintf(wanted, sizeof wanted, conv ? "[%lld,%lld,3,3]" : "[%lld,%lld]",
                 (long long)t->dim[0], (long long)slr_dim(g, x, -1));
        return wrong_shape(nn, name, t, wanted);
    }
    if (dot && c.stride == 1 && !(c.pad_top | c.pad_left | c.pad_bottom | c.pad_right))
        return linear(nn, &layer, name, x, add);
    if (!square)
        return wrong_shape(nn, name, t, "a convolution's four axes");
    slr_val w = hook_param(nn, &layer, SLR_LEAF_WEIGHT, slr_const(g, name, t));
    slr_val bias = bias_of(nn, &layer);
    slr_graph_push(g, path);
    slr_val y = slr_conv2d(g, x, w, bias, add, c, 1.0);
    slr_graph_pop(g);
    return hook_output(nn, &layer, x, y);
}

slr_val slr_nn_linear(slr_nn *nn, const char *path, slr_val x, slr_val add)
{
    return layer_of(nn, path, x, add, false, (slr_conv){.stride = 1});
}

slr_val slr_nn_conv(slr_nn *nn, const char *path, slr_val x, slr_val add, slr_conv c)
{
    return layer_of(nn, path, x, add, true, c);
}

static slr_val last(slr_nn *nn, const char *path, slr_val x, bool conv, slr_conv c)
{
    uint32_t was = slr_graph_storage(nn->g, SDLORA_F32);
    slr_val y = layer_of(nn, path, x, SLR_NONE, conv, c);
    slr_graph_storage(nn->g, was);
    return y;
}

slr_val slr_nn_last_linear(slr_nn *nn, const char *path, slr_val x)
{
    return last(nn, path, x, false, (slr_conv){.stride = 1});
}

slr_val slr_nn_last_conv(slr_nn *nn, const char *path, slr_val x, slr_conv c)
{
    return last(nn, path, x, true, c);
}

slr_val slr_nn_store(slr_nn *nn, slr_val x)
{
    return slr_cast(nn->g, x, slr_graph_stored(nn->g));
}

/* gamma and beta of n channels; gamma is SLR_NONE after an error. */
static slr_val norm_params(slr_nn *nn, const char *path, int64_t n, slr_val *beta)
{
    char name[192], wanted[96];
    *beta = SLR_NONE;
    const slr_tensor *t = tensor_of(nn, slr_nn_path(name, "%s.weight", path), false);
    if (!t)
        return SLR_NONE;
    if (t->rank != 1 || t->dim[0] != n)
        return wrong_shape(nn, name, t, slr_shape_text(&n, 1, wanted));
    slr_layer layer = {.part = nn->part,
                       .path = path,
                       .norm = true,
                       .bias = has_bias(nn, path),
                       .out = n,
                       .in = 1,
                       .kh = 1,
                       .kw = 1,
                       .weight = t};
    slr_val gamma = hook_param(nn, &layer, SLR_LEAF_WEIGHT, slr_const(nn->g, name, t));
    *beta = bias_of(nn, &layer);
    return gamma;
}

slr_val slr_nn_group_norm(slr_nn *nn, const char *path, slr_val x, int groups, int act, double eps)
{
    slr_val beta, gamma = norm_params(nn, path, slr_dim(nn->g, x, -1), &beta);
    slr_graph_push(nn->g, path);
    slr_val y = slr_group_norm(nn->g, x, gamma, beta, groups, act, eps);
    slr_graph_pop(nn->g);
    return y;
}

slr_val slr_nn_layer_norm(slr_nn *nn, const char *path, slr_val x, double eps)
{
    slr_val beta, gamma = norm_params(nn, path, slr_dim(nn->g, x, -1), &beta);
    slr_graph_push(nn->g, path);
    slr_val y = slr_layer_norm(nn->g, x, gamma, beta, eps);
    slr_graph_pop(nn->g);
    return y;
}

slr_val slr_nn_tokens(slr_nn *nn, slr_val ids, slr_val x)
{
    return nn->adapter && nn->adapter->tokens
               ? nn->adapter->tokens(nn->adapter->user, nn->g, nn->part, ids, x)
               : x;
}

slr_val slr_nn_context(slr_nn *nn, const char *path, bool value, slr_val x)
{
    return nn->adapter && nn->adapter->context
               ? nn->adapter->context(nn->adapter->user, nn->g, path, value, x)
               : x;
}

/* ---- the list of layers ---- */

typedef struct walk {
    slr_layer_fn fn;
    void *user;
} walk;

static slr_val visit(void *user, slr_graph *g, const slr_layer *layer, int leaf, slr_val v)
{
    walk *w = user;
    if (leaf != SLR_LEAF_WEIGHT || slr_graph_status(g) < 0)
        return v;
    int rc = w->fn(w->user, layer);
    return rc < 0 ? slr_graph_error(g, rc) : v;
}

int slr_nn_layers(const slr_weights *w, int part, slr_nn_build_fn build, const void *arg,
                  slr_layer_fn fn, void *user)
{
    walk to = {fn, user};
    slr_adapter adapter = {.user = &to, .param = visit};
    slr_graph *g;
    SLR_TRY(slr_graph_new(&g, slr_weights_mem(w), (slr_policy){.storage = SDLORA_F32}));
    slr_nn nn = {.g = g, .w = w, .part = part, .adapter = &adapter};
    build(&nn, arg);
    int rc = slr_graph_status(g);
    slr_graph_free(g);
    return rc;
}
