/* SPDX-License-Identifier: MIT */
/* Training: puts a network's slots into model graphs as params.  The one place where a layer meets
 * its module while gradients flow; refuses to know the algorithms (kind rows do) and the loop. */
#include "networks/embedding.h"
#include "networks/hypernet.h"
#include "networks/kind.h"
#include "networks/words.h"

/* Of dropout: see slr_apply. */
#define STREAMS_PER_MODULE 4

/* The module of a layer and what it gets; NULL: the layer is not adapted. */
static const slr_module *apply_of(slr_train_hook *hook, slr_graph *g, const slr_layer *layer,
                                  slr_apply *a)
{
    const slr_network *n = hook->network;
    const slr_module *mod = slr_network_find(n, layer->part, layer->path);
    if (!mod)
        return NULL;
    *a = (slr_apply){.g = g,
                     .network = n,
                     .layer = layer,
                     .seed = hook->seed,
                     .stream = (int64_t)(mod - n->module) * STREAMS_PER_MODULE,
                     .strength = 1.0};
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        slr_val *v = mod->at[i] < 0 ? NULL : &hook->vals[mod->slot + (size_t)mod->at[i]];
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        if (v && *v == SLR_NONE)
            *v = slr_param(g, s->key, s->rank, s->dim);
        a->param[i] = v ? *v : SLR_NONE;
    }
    if (hook->ranks != SLR_NONE && slr_module_unit(mod)) {
        hook->live = slr_slice(g, hook->ranks, 0, slr_module_ranks_at(n, mod), mod->rank);
        a->live = &hook->live;
    }
    if (hook->masks != SLR_NONE && slr_module_masked(mod)) {
        hook->live = slr_slice(g, hook->masks, 1, 0, mod->rank);
        a->live = &hook->live;
    }
    return mod;
}

/* LyCORIS' bypass_mode, where it is not the same: dropout of what the change alone gives. */
static bool bypassed(const slr_apply *a, const slr_module *mod)
{
    return mod->set->bypass && mod->set->dropout > 0 && a->seed != SLR_NONE && !mod->target.norm &&
           !slr_rebuild_by_output(mod) && !slr_module_has(mod, SLR_LEAF_DORA);
}

static slr_val param(void *user, slr_graph *g, const slr_layer *layer, int leaf, slr_val v)
{
    slr_train_hook *hook = user;
    slr_apply a;
    const slr_module *mod = apply_of(hook, g, layer, &a);
    if (!mod || (leaf == SLR_LEAF_WEIGHT && slr_rebuild_by_output(mod)))
        return v;
    if (leaf != SLR_LEAF_WEIGHT || !bypassed(&a, mod))
        return slr_rebuild_param(&a, mod, leaf, v);
    bool f32 = slr_shape_of(g, v).dtype == SDLORA_F32;
    hook->delta = slr_rebuild_delta(&a, mod, f32 ? v : slr_cast(g, v, SDLORA_F32));
    return v;
}

static slr_val output(void *user, slr_graph *g, const slr_layer *layer, slr_val x, slr_val y)
{
    slr_train_hook *hook = user;
    slr_apply a;
    const slr_module *mod = apply_of(hook, g, layer, &a);
    if (mod && slr_rebuild_by_output(mod))
        return mod->kind->output(&a, mod, x, y);
    if (!mod || !bypassed(&a, mod))
        return y;
    slr_val d = layer->kh * layer->kw > 1
                    ? slr_conv2d(g, x, hook->delta, SLR_NONE, SLR_NONE, layer->geometry, 1.0)
                    : slr_linear(g, x, slr_matrix(g, hook->delta), SLR_NONE, SLR_NONE);
    return slr_add(g, y, slr_dropout(g, d, a.seed, mod->set->dropout, a.stream, 1));
}

/* An embedding's rows where the input "splice" says which. */
static slr_val tokens(void *user, slr_graph *g, int part, slr_val ids, slr_val x)
{
    slr_train_hook *hook = user;
    const slr_network *n = hook->network;
    const slr_module *mod = slr_network_find(n, part, SLR_EMBEDDING_PATH);
    if (!mod || slr_graph_status(g) < 0)
        return x;
    const slr_network_slot *s = &n->slot[mod->slot];
    slr_val *rows = &hook->vals[mod->slot];
    slr_shape shape = slr_shape_of(g, ids);
    slr_val splice = slr_input(g, "splice", SDLORA_I32, shape.rank, shape.dim);
    *rows = slr_param(g, s->key, s->rank, s->dim);
    return slr_words_put(g, x, slr_embed(g, splice, *rows));
}

/* What keys and values are made of passes through a hypernetwork's MLP. */
static slr_val hyper_leaf(void *user, slr_graph *g, size_t slot)
{
    slr_train_hook *hook = user;
    const slr_network_slot *s = &hook->network->slot[slot];
    if (hook->vals[slot] == SLR_NONE)
        hook->vals[slot] = slr_param(g, s->key, s->rank, s->dim);
    return hook->vals[slot];
}

static slr_val context(void *user, slr_graph *g, const char *path, bool value, slr_val x)
{
    slr_train_hook *hook = user;
    (void)path;
    const slr_hyper_use use = {.g = g,
                               .network = hook->network,
                               .leaf = hyper_leaf,
                               .user = hook,
                               .seed = hook->seed,
                               .call = hook->calls++,
                               .strength = SLR_NONE};
    return slr_hyper_context(&use, value, x);
}

void slr_train_hook_init(slr_train_hook *hook, slr_network *n, slr_val seed, slr_val *vals)
{
    for (size_t i = 0; i < n->n_slots; i++)
        vals[i] = SLR_NONE;
    *hook = (slr_train_hook){
        .network = n, .seed = seed, .vals = vals, .ranks = SLR_NONE, .masks = SLR_NONE};
    hook->adapter = (slr_adapter){.user = hook, .param = param, .output = output, .tokens = tokens};
    if (slr_network_is_hyper(n))
        hook->adapter.context = context;
}
