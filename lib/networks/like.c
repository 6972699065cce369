/* SPDX-License-Identifier: MIT */
/* A network by the options that takes modules, ranks, alphas and values of another one
 * (dim_from_weights).  Knows which parts the options train; refuses to know files: names and
 * metadata of the other network stay there. */
#include <string.h>

#include "base/status.h"
#include "networks/kind.h"

static void drop_modules(slr_network *n)
{
    slr_free(n->m, n->params);
    slr_map_clear(n->by_path);
    n->params = NULL;
    n->n_params = n->n_modules = n->n_slots = 0;
}

static void copy_values(slr_network *n, const slr_network *from)
{
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_module *to = &n->module[i];
        const slr_module *mod = slr_network_find(from, to->target.part, to->target.path);
        for (int k = 0; k < to->kind->n_slots; k++) {
            const slr_network_slot *a = &n->slot[to->slot + (size_t)k];
            const slr_network_slot *b = &from->slot[mod->slot + (size_t)k];
            memcpy(n->params + a->offset, from->params + b->offset, a->count * sizeof(float));
        }
    }
    slr_network_touch(n);
}

int slr_network_make_like(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                          const slr_network *from)
{
    slr_network *n;
    SLR_TRY(slr_network_make(&n, base, opts, 0)); /* reads and checks the options */
    *out = NULL;
    drop_modules(n);

    slr_opt o = slr_network_options(n);
    bool no_te = slr_opt_bool(o, "network_train_unet_only");
    bool no_unet = slr_opt_bool(o, "network_train_text_encoder_only");
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < from->n_modules; i++) {
        const slr_module *mod = &from->module[i];
        if (!(mod->target.part == SLR_PART_UNET ? no_unet : no_te))
            rc = slr_network_add(n, mod->kind, &mod->target, mod->rank, mod->alpha);
    }
    if (rc >= 0 && !n->n_modules)
        rc = slr_fail(SDLORA_EINVAL, __func__, "%s has no module of the part that is to be trained",
                      from->path ? from->path : "the network");
    if (rc >= 0)
        rc = slr_network_layout(n);
    if (rc < 0) {
        slr_network_unref(n);
        return rc;
    }
    copy_values(n, from);
    *out = n;
    return SDLORA_OK;
}
