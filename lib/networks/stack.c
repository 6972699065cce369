/* SPDX-License-Identifier: MIT */
/* Applying networks live: all modules of a layer become one pair of factors, ranks concatenated and
 * strengths folded into `up`, so any number of LoRAs costs one thin pass and a change of strength
 * rewrites only the `up` factors.  A layer with a module that is not two factors gets new weights
 * (merge.c).  Hypernetworks have params of their own, bound where they lie.  Refuses to know
 * prompts and files. */
#include "networks/kind.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "graph/exec.h"
#include "models/keymap.h"
#include "networks/hypernet.h"

/* One adapted layer. */
typedef struct stack_layer {
    const slr_target *target; /* borrowed from the first network that has it */
    int64_t rank;             /* summed */
    bool rebuilt;             /* has weights of its own instead of factors */
    bool biased;              /* a network changes its bias */
    float *down, *up, *bias;  /* [rank, in*kh*kw], [out, rank], [out]; in the block */
    const char *down_name, *up_name, *bias_name;
} stack_layer;

struct slr_stack {
    slr_mem *m;
    slr_devices *devices;
    slr_checkpoint *base;
    slr_weights *own[SLR_PART_COUNT]; /* NULL: the base's serve */
    slr_arena *texts;
    slr_stack_item *item;
    uint64_t *version; /* of each item's parameters when they were copied */
    size_t n_items;
    stack_layer *layer;
    size_t n_layers, layer_cap;
    slr_map *by_path; /* "<part>:<path>" */
    slr_unet_map map; /* of the base, once block weights ask for it */
    bool mapped;
    float *block;
    float *strength; /* [n_items][STRENGTH_FLOATS]: of hypernetworks, whose graphs read it */
};

enum { STRENGTH_FLOATS = 16 };

/* "stack.2.hypernet.768.k.0.weight": two networks may hold the same keys. */
static void hyper_name(char name[SLR_LAYER_KEY], size_t item, const char *what)
{
    snprintf(name, SLR_LAYER_KEY, "stack.%zu.%s", item, what);
}

static const char *factor_name(slr_stack *s, const char *key, const char *which)
{
    slr_buf b;
    slr_buf_init(&b, s->m);
    slr_buf_printf(&b, "stack.%s.%s", key, which);
    const char *name = slr_buf_ok(&b) == SDLORA_OK ? slr_arena_strdup(s->texts, b.data) : NULL;
    slr_buf_free(&b);
    return name;
}

/* How many ranks of a module take part. */
static int64_t rank_of(const slr_stack_item *item, const slr_module *mod)
{
    return slr_module_dyn(mod, item->dyn);
}

static int add_module(slr_stack *s, const slr_stack_item *item, const slr_module *mod)
{
    char key[SLR_LAYER_KEY];
    int64_t at;
    if (!slr_layer_key(key, mod->target.part, mod->target.path))
        return slr_fail(SDLORA_EINVAL, __func__, "%s is too long a name", mod->target.name);
    if (!slr_map_get(s->by_path, key, &at)) {
        at = (int64_t)s->n_layers;
        SLR_TRY(slr_grow(s->m, &s->layer, &s->layer_cap, s->n_layers + 1, sizeof *s->layer));
        SLR_TRY(slr_map_set(s->by_path, key, at));
        s->layer[s->n_layers++] = (stack_layer){.target = &mod->target,
                                                .down_name = factor_name(s, key, "down"),
                                                .up_name = factor_name(s, key, "up"),
                                                .bias_name = factor_name(s, key, "bias")};
        if (!s->layer[at].down_name || !s->layer[at].up_name || !s->layer[at].bias_name)
            return SDLORA_ENOMEM;
    }
    s->layer[at].rank += rank_of(item, mod);
    if (!slr_module_thin(mod))
        s->layer[at].rebuilt = true;
    if (slr_module_has(mod, slr_kind_bias(mod->kind)))
        s->layer[at].biased = true;
    return SDLORA_OK;
}

static size_t round16(size_t floats)
{
    return (floats + 15) / 16 * 16;
}

static size_t down_floats(const stack_layer *l)
{
    return round16((size_t)(l->rank * slr_target_fan_in(l->target)));
}

static size_t up_floats(const stack_layer *l)
{
    return round16((size_t)(l->target->out * l->rank));
}

static size_t bias_floats(const stack_layer *l)
{
    return l->biased ? round16((size_t)l->target->out) : 0;
}

/* Places every layer's factors in one block. */
static int lay_out(slr_stack *s)
{
    size_t total = 0;
    for (size_t i = 0; i < s->n_layers; i++)
        if (!s->layer[i].rebuilt)
            total +=
                down_floats(&s->layer[i]) + up_floats(&s->layer[i]) + bias_floats(&s->layer[i]);
    s->block = slr_calloc(s->m, total ? total : 1, sizeof(float));
    if (!s->block)
        return SDLORA_ENOMEM;
    float *at = s->block;
    for (size_t i = 0; i < s->n_layers; i++) {
        stack_layer *l = &s->layer[i];
        if (l->rebuilt)
            continue;
        l->down = at;
        at += down_floats(l);
        l->up = at;
        at += up_floats(l);
        l->bias = at;
        at += bias_floats(l);
    }
    return SDLORA_OK;
}

static stack_layer *find_layer(const slr_stack *s, int part, const char *path)
{
    char key[SLR_LAYER_KEY];
    int64_t at;
    return slr_layer_key(key, part, path) && slr_map_get(s->by_path, key, &at) ? &s->layer[at]
                                                                               : NULL;
}

/* Writes one module's rows of `down` and columns of `up` at rank offset `at`; adds to the bias. */
static void write_module(const slr_stack_item *item, const slr_module *mod, const stack_layer *l,
                         int64_t at)
{
    const slr_network *n = item->network;
    int64_t rank = rank_of(item, mod), rows = l->target->out;
    float *up = l->up + at,
          strength = (float)slr_item_strength_at(item, mod->target.part, mod->target.path);
    mod->kind->factors(mod, &n->slot[mod->slot], n->params, rank,
                       l->down + at * slr_target_fan_in(l->target), up, l->rank);
    for (int64_t o = 0; o < rows; o++)
        for (int64_t p = 0; p < rank; p++)
            up[o * l->rank + p] *= strength;
    const slr_network_slot *bias =
        slr_module_slot(mod, &n->slot[mod->slot], slr_kind_bias(mod->kind));
    for (int64_t o = 0; bias && o < rows; o++)
        l->bias[o] += strength * n->params[bias->offset + (size_t)o];
}

static int write_factors(slr_stack *s)
{
    int64_t *at = slr_calloc(s->m, s->n_layers ? s->n_layers : 1, sizeof *at);
    if (!at)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < s->n_layers; i++)
        if (s->layer[i].biased && !s->layer[i].rebuilt)
            memset(s->layer[i].bias, 0, bias_floats(&s->layer[i]) * sizeof(float));
    for (size_t i = 0; i < s->n_items; i++) {
        const slr_network *n = s->item[i].network;
        s->version[i] = n->version;
        s->strength[i * STRENGTH_FLOATS] = (float)s->item[i].unet;
        for (size_t k = 0; k < n->n_modules && !slr_network_is_hyper(n); k++) {
            const slr_module *mod = &n->module[k];
            stack_layer *l = find_layer(s, mod->target.part, mod->target.path);
            if (l->rebuilt)
                continue;
            write_module(&s->item[i], mod, l, at[l - s->layer]);
            at[l - s->layer] += rank_of(&s->item[i], mod);
        }
    }
    slr_free(s->m, at);
    return SDLORA_OK;
}

/* Every module must fit its layer before anything is built. */
static int check_item(slr_checkpoint *base, const slr_network *n)
{
    char name[SLR_LAYER_KEY];
    for (size_t k = 0; k < n->n_modules && !slr_network_is_hyper(n); k++) {
        const slr_target *t = &n->module[k].target;
        slr_weights *part = slr_checkpoint_part(base, t->part);
        const slr_tensor *w =
            part ? slr_weights_find(part, slr_nn_path(name, "%s.weight", t->path)) : NULL;
        const int64_t want[4] = {t->out, t->in, t->kh, t->kw};
        bool fits = w != NULL;
        for (int i = 0; fits && i < 4; i++)
            fits = (i < w->rank ? w->dim[i] : 1) == want[i];
        if (!fits)
            return slr_fail(SDLORA_EINVAL, __func__, "%s: %s does not fit this checkpoint",
                            n->path ? n->path : n->name, t->name);
    }
    return SDLORA_OK;
}

static bool is_rebuilt(void *user, int part, const char *path)
{
    const stack_layer *l = find_layer(user, part, path);
    return l && l->rebuilt;
}

/* New weights for the parts that have layers to rebuild. */
static int rebuild(slr_stack *s)
{
    bool wanted[SLR_PART_COUNT] = {false};
    for (size_t i = 0; i < s->n_layers; i++)
        if (s->layer[i].rebuilt)
            wanted[s->layer[i].target->part] = true;
    for (int part = 0; part < SLR_PART_COUNT; part++)
        if (wanted[part])
            SLR_TRY(slr_merge_layers(&s->own[part], s->m, s->devices,
                                     slr_checkpoint_part(s->base, part), part, s->item, s->n_items,
                                     is_rebuilt, s));
    return SDLORA_OK;
}

static int take_blocks(slr_stack *s, size_t item, const slr_blocks *blocks)
{
    slr_weights *unet = slr_checkpoint_part(s->base, SLR_PART_UNET);
    if (blocks->n && !s->mapped && unet) {
        SLR_TRY(slr_unet_map_read(&s->map, unet));
        s->mapped = true;
    }
    s->item[item].blocks = *blocks;
    s->item[item].blocks.map = s->mapped ? &s->map : NULL;
    return SDLORA_OK;
}

static int fill(slr_stack *s, const slr_stack_item *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        SLR_TRY(check_item(s->base, items[i].network));
    s->item = slr_calloc(s->m, n ? n : 1, sizeof *s->item);
    s->version = slr_calloc(s->m, n ? n : 1, sizeof *s->version);
    s->strength = slr_calloc(s->m, n ? n : 1, STRENGTH_FLOATS * sizeof *s->strength);
    if (!s->item || !s->version || !s->strength)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        s->item[i] = items[i];
        slr_network_ref(items[i].network);
        s->n_items = i + 1;
        SLR_TRY(take_blocks(s, i, &items[i].blocks));
        for (size_t k = 0; k < items[i].network->n_modules; k++)
            if (!slr_network_is_hyper(items[i].network))
                SLR_TRY(add_module(s, &items[i], &items[i].network->module[k]));
    }
    SLR_TRY(lay_out(s));
    SLR_TRY(rebuild(s));
    return write_factors(s);
}

int slr_stack_new(slr_stack **out, slr_mem *m, slr_devices *devices, slr_checkpoint *base,
                  const slr_stack_item *items, size_t n)
{
    *out = NULL;
    slr_stack *s = slr_calloc(m, 1, sizeof *s);
    if (!s)
        return SDLORA_ENOMEM;
    s->m = m;
    s->devices = slr_devices_ref(devices);
    s->base = slr_checkpoint_ref(base);
    int rc = slr_arena_new(&s->texts, m);
    if (rc >= 0)
        rc = slr_map_new(&s->by_path, m);
    if (rc >= 0)
        rc = fill(s, items, n);
    if (rc < 0) {
        slr_stack_free(s);
        return rc;
    }
    *out = s;
    return SDLORA_OK;
}

void slr_stack_free(slr_stack *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_items; i++)
        slr_network_unref(s->item[i].network);
    for (int part = 0; part < SLR_PART_COUNT; part++)
        slr_weights_unref(s->own[part]);
    slr_devices_unref(s->devices);
    slr_checkpoint_unref(s->base);
    slr_free(s->m, s->item);
    slr_free(s->m, s->version);
    slr_free(s->m, s->strength);
    slr_free(s->m, s->layer);
    slr_free(s->m, s->block);
    slr_map_free(s->by_path);
    slr_arena_free(s->texts);
    slr_free(s->m, s);
}

slr_weights *slr_stack_weights(slr_stack *s, int part)
{
    return s->own[part] ? s->own[part] : slr_checkpoint_part(s->base, part);
}

bool slr_stack_live(const slr_stack *s)
{
    for (int part = 0; part < SLR_PART_COUNT; part++)
        if (s->own[part])
            return false;
    return true;
}

bool slr_stack_rebuilds_most(const slr_stack *s, int part)
{
    const slr_weights *own = s->own[part], *base = slr_checkpoint_part(s->base, part);
    int64_t all = 0, rebuilt = 0;
    for (size_t i = 0; own && i < slr_weights_count(own); i++) {
        const slr_tensor *t;
        const slr_tensor *before = slr_weights_find(base, slr_weights_at(own, i, &t));
        const int64_t count = slr_tensor_count(t);
        all += count;
        rebuilt += !before || before->id != t->id ? count : 0;
    }
    return 2 * rebuilt > all;
}

static bool has_hyper(const slr_stack *s)
{
    for (size_t i = 0; i < s->n_items; i++)
        if (slr_network_is_hyper(s->item[i].network))
            return true;
    return false;
}

int slr_stack_set(slr_stack *s, const slr_stack_item *items, size_t n)
{
    if (!slr_stack_live(s))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "the stack holds weights of its own, which a strength cannot change");
    if (n != s->n_items)
        return slr_fail(SDLORA_EINVAL, __func__, "the stack holds %zu networks, not %zu",
                        s->n_items, n);
    for (size_t i = 0; i < n; i++)
        if (items[i].network != s->item[i].network || items[i].dyn != s->item[i].dyn)
            return slr_fail(SDLORA_EINVAL, __func__, "network %zu of the stack is another one", i);
    for (size_t i = 0; i < n; i++) {
        s->item[i].te = items[i].te;
        s->item[i].unet = items[i].unet;
        SLR_TRY(take_blocks(s, i, &items[i].blocks));
    }
    return write_factors(s);
}

bool slr_stack_alike(const slr_stack *a, const slr_stack *b)
{
    if (!slr_stack_live(a) || !slr_stack_live(b) || has_hyper(a) || has_hyper(b) ||
        a->n_layers != b->n_layers)
        return false;
    for (size_t i = 0; i < a->n_layers; i++) {
        const stack_layer *l = &a->layer[i], *m = find_layer(b, l->target->part, l->target->path);
        if (!m || m->rank != l->rank || m->biased != l->biased)
            return false;
    }
    return true;
}

bool slr_stack_stale(const slr_stack *s)
{
    for (size_t i = 0; i < s->n_items; i++)
        if (s->item[i].network->version != s->version[i])
            return true;
    return false;
}

static slr_val output(void *user, slr_graph *g, const slr_layer *layer, slr_val x, slr_val y)
{
    const slr_stack *s = user;
    const stack_layer *l = find_layer(s, layer->part, layer->path);
    if (!l || l->rebuilt)
        return y;
    const slr_target *t = l->target;
    bool spatial = t->kh * t->kw > 1;
    int64_t down_dim[4] = {l->rank, t->in, t->kh, t->kw}, up_dim[2] = {t->out, l->rank};
    slr_val down = slr_param(g, l->down_name, spatial ? 4 : 2, down_dim);
    slr_val up = slr_param(g, l->up_name, 2, up_dim);
    slr_val bias = l->biased ? slr_param(g, l->bias_name, 1, &t->out) : SLR_NONE;
    slr_val d = spatial ? slr_conv2d(g, x, down, SLR_NONE, SLR_NONE, layer->geometry, 1.0)
                        : slr_linear(g, x, down, SLR_NONE, SLR_NONE);
    return slr_matmul(g, d, up, bias, y, false, true, 1.0);
}

/* --- hypernetworks --- */

/* Layers of one width share their MLP's params. */
static slr_val shared_param(slr_graph *g, const char *name, int rank, const int64_t *dim)
{
    slr_val v = slr_graph_status(g) < 0 ? SLR_NONE : slr_graph_find(g, name);
    return v != SLR_NONE ? v : slr_param(g, name, rank, dim);
}

typedef struct hyper_item {
    const slr_network *network;
    size_t index;
} hyper_item;

static slr_val hyper_leaf(void *user, slr_graph *g, size_t slot)
{
    const hyper_item *it = user;
    const slr_network_slot *have = &it->network->slot[slot];
    char name[SLR_LAYER_KEY];
    hyper_name(name, it->index, have->key);
    return shared_param(g, name, have->rank, have->dim);
}

/* One hypernetwork after the other, in the order of the stack. */
static slr_val context(void *user, slr_graph *g, const char *path, bool value, slr_val x)
{
    const slr_stack *s = user;
    (void)path;
    for (size_t i = 0; i < s->n_items; i++) {
        hyper_item it = {s->item[i].network, i};
        char name[SLR_LAYER_KEY];
        if (!slr_network_is_hyper(it.network))
            continue;
        hyper_name(name, i, "strength");
        const slr_hyper_use use = {
            .g = g,
            .network = it.network,
            .leaf = hyper_leaf,
            .user = &it,
            .seed = SLR_NONE,
            .strength = shared_param(g, name, 3, (int64_t[]){1, 1, 1}),
        };
        x = slr_hyper_context(&use, value, x);
    }
    return x;
}

/* Binds a param if the plan has it: graphs of other parts do not. */
static int bind_if_there(slr_plan *p, const char *name, float *values)
{
    slr_val v;
    if (slr_plan_find(p, name, &v) < 0) {
        slr_clear();
        return SDLORA_OK;
    }
    return slr_plan_bind(p, v, values);
}

static int bind_hyper(slr_stack *s, size_t item, slr_plan *p)
{
    const slr_network *n = s->item[item].network;
    char name[SLR_LAYER_KEY];
    for (size_t i = 0; i < n->n_slots; i++) {
        hyper_name(name, item, n->slot[i].key);
        SLR_TRY(bind_if_there(p, name, n->params + n->slot[i].offset));
    }
    hyper_name(name, item, "strength");
    return bind_if_there(p, name, s->strength + item * STRENGTH_FLOATS);
}

slr_adapter slr_stack_adapter(slr_stack *s)
{
    return (slr_adapter){.user = s, .output = output, .context = has_hyper(s) ? context : NULL};
}

int slr_stack_bind(slr_stack *s, slr_plan *p)
{
    for (size_t i = 0; i < s->n_items; i++)
        if (slr_network_is_hyper(s->item[i].network))
            SLR_TRY(bind_hyper(s, i, p));
    for (size_t i = 0; i < s->n_layers; i++) {
        slr_val v;
        if (s->layer[i].rebuilt)
            continue;
        if (slr_plan_find(p, s->layer[i].down_name, &v) < 0) {
            slr_clear();
            continue; /* a layer of another part's graph */
        }
        SLR_TRY(slr_plan_bind(p, v, s->layer[i].down));
        SLR_TRY(slr_plan_find(p, s->layer[i].up_name, &v));
        SLR_TRY(slr_plan_bind(p, v, s->layer[i].up));
        if (s->layer[i].biased) {
            SLR_TRY(slr_plan_find(p, s->layer[i].bias_name, &v));
            SLR_TRY(slr_plan_bind(p, v, s->layer[i].bias));
        }
    }
    return SDLORA_OK;
}
