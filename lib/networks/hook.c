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
    return mod;
}

static slr_val param(void *user, slr_graph *g, const slr_layer *layer, int leaf, slr_val v)
{
    slr_apply a;
    const slr_module *mod = apply_of(user, g, layer, &a);
    return !mod || slr_rebuild_by_output(mod) ? v : slr_rebuild_param(&a, mod, leaf, v);
}

static slr_val output(void *user, slr_graph *g, const slr_layer *layer, slr_val x, slr_val y)
{
    slr_apply a;
    const slr_module *mod = apply_of(user, g, layer, &a);
    return mod && slr_rebuild_by_output(mod) ? mod->kind->output(&a, mod, x, y) : y;
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
    *hook = (slr_train_hook){.network = n, .seed = seed, .vals = vals};
    hook->adapter = (slr_adapter){.user = hook, .param = param, .output = output, .tokens = tokens};
    if (slr_network_is_hyper(n))
        hook->adapter.context = context;
}
