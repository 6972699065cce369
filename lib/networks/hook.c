/* SPDX-License-Identifier: MIT */
/* Training: puts a network's slots into model graphs as params.  The one place where a layer meets
 * its module while gradients flow; refuses to know the algorithms (kind rows do) and the loop. */
#include "networks/kind.h"

/* Three dropout streams a module: see slr_apply. */
#define STREAMS_PER_MODULE 4

static slr_val output(void *user, slr_graph *g, const slr_layer *layer, slr_val x, slr_val y)
{
    slr_train_hook *hook = user;
    const slr_network *n = hook->network;
    const slr_module *mod = slr_network_find(n, layer->part, layer->path);
    if (!mod)
        return y;

    slr_val *vals = &hook->vals[mod->slot];
    for (int i = 0; i < mod->kind->n_slots; i++)
        if (vals[i] == SLR_NONE) {
            const slr_network_slot *s = &n->slot[mod->slot + (size_t)i];
            vals[i] = slr_param(g, s->key, s->rank, s->dim);
        }
    slr_apply apply = {.g = g,
                       .network = n,
                       .layer = layer,
                       .param = vals,
                       .seed = hook->seed,
                       .stream = (int64_t)(mod - n->module) * STREAMS_PER_MODULE};
    return mod->kind->output(&apply, mod, x, y);
}

void slr_train_hook_init(slr_train_hook *hook, slr_network *n, slr_val seed, slr_val *vals)
{
    for (size_t i = 0; i < n->n_slots; i++)
        vals[i] = SLR_NONE;
    *hook = (slr_train_hook){.network = n, .seed = seed, .vals = vals};
    hook->adapter = (slr_adapter){.user = hook, .output = output};
}
