/* SPDX-License-Identifier: MIT */
/* Merging networks into weights: each adapted tensor becomes a small graph of what its modules do
 * to it, one after the other, in f32, and is rounded once to the base's type.  The base's tensors
 * are never written, so dropping the result removes the networks exactly. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/thread.h"
#include "base/str.h"
#include "graph/exec.h"
#include "networks/embedding.h"
#include "networks/hypernet.h"
#include "networks/kind.h"

typedef struct merging {
    slr_mem *m;
    slr_devices *devices;
    slr_weights *base, *out;
    const slr_stack_item *items;
    size_t n;
    int part;
    bool wide; /* results stay f32 */
} merging;

double slr_item_strength(const slr_stack_item *item, int part)
{
    return part == SLR_PART_UNET ? item->unet : item->te;
}

double slr_item_strength_at(const slr_stack_item *item, int part, const char *path)
{
    double strength = slr_item_strength(item, part);
    return item->blocks.n ? strength * slr_blocks_weight(&item->blocks, part, path) : strength;
}

bool slr_item_same_strength(const slr_stack_item *a, const slr_stack_item *b)
{
    bool same = a->te == b->te && a->unet == b->unet && a->blocks.n == b->blocks.n;
    for (size_t i = 0; same && i < a->blocks.n; i++)
        same = a->blocks.weight[i] == b->blocks.weight[i];
    return same;
}

/* A network that was opened against another checkpoint must not be taken for one that fits. */
static int check_fit(const slr_network *n, const slr_target *want, int leaf, const char *name,
                     const slr_tensor *t)
{
    int64_t count =
        want->norm || leaf == SLR_LEAF_BIAS ? want->out : want->out * slr_target_fan_in(want);
    if (t->rank < 1 || t->dim[0] != want->out || slr_tensor_count(t) != count)
        return slr_fail(SDLORA_EINVAL, __func__, "%s: %s does not fit %s of this checkpoint",
                        n->path ? n->path : n->name, want->name, name);
    return SDLORA_OK;
}

/* "3.lora_unet_...lora_down.weight": two networks may hold the same keys. */
static const char *name_of(char name[SLR_LAYER_KEY + 64], size_t item, const slr_network_slot *s)
{
    snprintf(name, SLR_LAYER_KEY + 64, "%zu.%s", item, s->key);
    return name;
}

static slr_val param(slr_graph *g, size_t item, const slr_module *mod, const slr_network_slot *s)
{
    char name[SLR_LAYER_KEY + 64];
    name_of(name, item, s);
    return s->leaf == SLR_LEAF_PLACES   ? SLR_NONE
           : s->leaf == SLR_LEAF_SPARSE ? slr_residual_input(g, name, &mod->target)
                                        : slr_param(g, name, s->rank, s->dim);
}

static slr_val apply(const merging *w, slr_graph *g, size_t item, const slr_module *mod, int leaf,
                     slr_val v)
{
    const slr_network *n = w->items[item].network;
    const slr_target *t = &mod->target;
    const slr_layer layer = {.part = t->part,
                             .path = t->path,
                             .conv = t->conv,
                             .norm = t->norm,
                             .out = t->out,
                             .in = t->in,
                             .kh = t->kh,
                             .kw = t->kw};
    slr_apply a = {.g = g,
                   .network = n,
                   .layer = &layer,
                   .seed = SLR_NONE,
                   .dyn = w->items[item].dyn,
                   .strength = slr_item_strength_at(&w->items[item], w->part, t->path)};
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        a.param[i] = s ? param(g, item, mod, s) : SLR_NONE;
    }
    return slr_rebuild_param(&a, mod, leaf, v);
}

static int bind(const merging *w, slr_plan *p, size_t item, const slr_module *mod)
{
    const slr_network *n = w->items[item].network;
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        char name[SLR_LAYER_KEY + 64];
        slr_val v;
        if (!s || i == SLR_LEAF_SPARSE || i == SLR_LEAF_PLACES)
            continue;
        if (slr_plan_find(p, name_of(name, item, s), &v) < 0)
            slr_clear(); /* the formula at hand does not read it */
        else
            SLR_TRY(slr_plan_bind(p, v, n->params + s->offset));
    }
    return SDLORA_OK;
}

/* Once the plan has memory. */
static void fill_residual(const merging *w, slr_plan *p, size_t item, const slr_module *mod)
{
    const slr_network *n = w->items[item].network;
    const slr_network_slot *slots = &n->slot[mod->slot],
                           *s = slr_module_slot(mod, slots, SLR_LEAF_SPARSE);
    char name[SLR_LAYER_KEY + 64];
    slr_val v;
    if (s && slr_plan_find(p, name_of(name, item, s), &v) >= 0)
        slr_residual_fill(mod, slots, n->params, slr_plan_data(p, v));
    else if (s)
        slr_clear(); /* a bias */
}

static const slr_module *module_of(const merging *w, size_t item, const char *path)
{
    return slr_network_find(w->items[item].network, w->part, path);
}

/* [K,C,1,1] is a matrix to a graph, as it is to the layers of a model. */
static int graph_shape(const slr_target *t, int leaf, int64_t dim[4])
{
    dim[0] = t->out;
    dim[1] = t->in;
    dim[2] = t->kh;
    dim[3] = t->kw;
    return leaf == SLR_LEAF_BIAS || t->norm ? 1 : t->kh * t->kw > 1 ? 4 : 2;
}

static int build(const merging *w, slr_graph *g, const char *path, const slr_target *t, int leaf,
                 bool present)
{
    int64_t dim[4];
    int rank = graph_shape(t, leaf, dim);
    slr_val in = present ? slr_input(g, "w", SDLORA_F32, rank, dim) : SLR_NONE, v = in;
    for (size_t i = 0; i < w->n; i++) {
        const slr_module *mod = module_of(w, i, path);
        if (mod && slr_item_strength_at(&w->items[i], w->part, path) != 0)
            v = apply(w, g, i, mod, leaf, v);
    }
    if (slr_graph_status(g) < 0 || v == SLR_NONE || v == in)
        return slr_graph_status(g);
    slr_output(g, v, "out");
    SLR_TRY(slr_graph_status(g));
    return 1;
}

/* Puts what the plan computes into the result, in the type of t, or f32 where the base has none. */
static int put(const merging *w, slr_plan *p, const char *name, const slr_tensor *t)
{
    slr_val v;
    slr_storage *storage;
    const slr_dtype_row *type = slr_dtype(t->dtype);
    size_t count = (size_t)slr_tensor_count(t);
    SLR_TRY(slr_plan_find(p, "out", &v));
    SLR_TRY(slr_storage_new(&storage, w->m, count * type->size));
    type->from_f32(slr_storage_data(storage), slr_plan_data(p, v), count);
    slr_tensor merged = *t;
    merged.data = slr_storage_data(storage);
    merged.storage = storage;
    merged.id = slr_tensor_next_id();
    int rc = slr_weights_put(w->out, name, &merged);
    slr_storage_unref(storage);
    return rc;
}

static int run(const merging *w, slr_graph *g, const char *path, const char *name,
               const slr_tensor *base, const slr_tensor *t)
{
    slr_plan *p;
    slr_val v;
    SLR_TRY(slr_plan_new(&p, g, w->devices));
    int rc = SDLORA_OK;
    for (size_t i = 0; rc >= 0 && i < w->n; i++) {
        const slr_module *mod = module_of(w, i, path);
        if (mod)
            rc = bind(w, p, i, mod);
    }
    if (rc >= 0)
        rc = slr_plan_back(p);
    for (size_t i = 0; rc >= 0 && i < w->n; i++)
        if (module_of(w, i, path))
            fill_residual(w, p, i, module_of(w, i, path));
    if (rc >= 0 && base)
        rc = slr_plan_find(p, "w", &v);
    if (rc >= 0 && base)
        rc = slr_tensor_to_f32(base, slr_plan_data(p, v));
    if (rc >= 0)
        rc = slr_plan_run(p, NULL);
    if (rc >= 0)
        rc = put(w, p, name, t);
    slr_plan_free(p);
    return rc;
}

static int merge_tensor(const merging *w, const char *path, const slr_module *first, int leaf)
{
    char name[SLR_LAYER_KEY];
    slr_nn_path(name, leaf == SLR_LEAF_WEIGHT ? "%s.weight" : "%s.bias", path);
    const slr_target *want = &first->target;
    const slr_tensor *base = slr_weights_find(w->base, name);
    slr_tensor like = {.dtype = SDLORA_F32, .rank = 1, .dim = {want->out}};
    if (leaf == SLR_LEAF_WEIGHT && !base)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no %s", slr_weights_label(w->base), name);
    for (size_t i = 0; i < w->n && base; i++) {
        const slr_module *mod = module_of(w, i, path);
        if (mod)
            SLR_TRY(check_fit(w->items[i].network, &mod->target, leaf, name, base));
    }
    if (base)
        like = *base;
    if (w->wide)
        like.dtype = SDLORA_F32;
    slr_graph *g;
    SLR_TRY(slr_graph_new(&g, w->m, (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT}));
    int rc = build(w, g, path, want, leaf, base != NULL);
    if (rc > 0)
        rc = run(w, g, path, name, base, &like);
    slr_graph_free(g);
    return rc;
}

/* Whether an earlier network has brought the layer's turn already. */
static bool seen(const merging *w, size_t item, const char *path)
{
    for (size_t i = 0; i < item; i++)
        if (module_of(w, i, path))
            return true;
    return false;
}

static int merge_modules(const merging *w, bool (*which)(void *user, int part, const char *path),
                         void *user)
{
    for (size_t i = 0; i < w->n; i++) {
        const slr_network *n = w->items[i].network;
        for (size_t k = 0; k < n->n_modules; k++) {
            const slr_module *mod = &n->module[k];
            const char *path = mod->target.path;
            if (mod->target.part != w->part || seen(w, i, path) ||
                (which && !which(user, w->part, path)))
                continue;
            if (slr_canceled())
                return slr_fail(SDLORA_ECANCELED, __func__, "canceled");
            SLR_TRY(merge_tensor(w, path, mod, SLR_LEAF_WEIGHT));
            SLR_TRY(merge_tensor(w, path, mod, SLR_LEAF_BIAS));
        }
    }
    return SDLORA_OK;
}

int slr_merge_layers(slr_weights **out, slr_mem *m, slr_devices *devices, slr_weights *base,
                     int part, const slr_stack_item *items, size_t n,
                     bool (*which)(void *user, int part, const char *path), void *user)
{
    *out = NULL;
    merging w = {.m = m, .devices = devices, .base = base, .items = items, .n = n, .part = part};
    int rc = slr_weights_new(&w.out, m, slr_weights_label(base));
    for (size_t i = 0; rc >= 0 && i < slr_weights_count(base); i++) {
        const slr_tensor *t;
        const char *name = slr_weights_at(base, i, &t);
        rc = slr_weights_put(w.out, name, t);
    }
    if (rc >= 0)
        rc = merge_modules(&w, which, user);
    if (rc < 0) {
        slr_weights_unref(w.out);
        return rc;
    }
    *out = w.out;
    return SDLORA_OK;
}

int slr_merge_leaf(slr_weights **out, slr_mem *m, slr_devices *devices, slr_weights *base, int part,
                   const slr_stack_item *items, size_t n, const char *path, int leaf)
{
    *out = NULL;
    merging w = {.m = m,
                 .devices = devices,
                 .base = base,
                 .items = items,
                 .n = n,
                 .part = part,
                 .wide = true};
    const slr_module *first = NULL;
    for (size_t i = 0; i < n && !first; i++)
        first = module_of(&w, i, path);
    int rc = slr_weights_new(&w.out, m, slr_weights_label(base));
    if (rc >= 0 && first)
        rc = merge_tensor(&w, path, first, leaf);
    if (rc < 0) {
        slr_weights_unref(w.out);
        return rc;
    }
    *out = w.out;
    return SDLORA_OK;
}

int slr_merge_part(slr_weights **out, slr_mem *m, slr_devices *devices, slr_weights *base, int part,
                   const slr_stack_item *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (slr_network_is_embedding(items[i].network))
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "%s is an embedding, which no weights can hold",
                            items[i].network->name);
        else if (slr_network_is_hyper(items[i].network))
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "%s is a hypernetwork, which no weights can hold",
                            items[i].network->name);
    return slr_merge_layers(out, m, devices, base, part, items, n, NULL, NULL);
}
