/* SPDX-License-Identifier: MIT */
/* What a network is: modules, their tensors as slots of one flat block, options, references.  Knows
 * the table of kinds; refuses to know files (netfile.c) and graphs (hook.c, stack.c). */
#include "networks/network.h"

#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "graph/exec.h"
#include "networks/kind.h"

#define SLOT_ALIGN 16 /* floats: every slot starts on 64 bytes */

int slr_network_new(slr_network **out, slr_mem *m, const slr_checkpoint *base)
{
    *out = NULL;
    slr_network *n = slr_calloc(m, 1, sizeof *n);
    if (!n)
        return SDLORA_ENOMEM;
    slr_refs_init(&n->refs);
    n->m = slr_mem_ref(m);
    n->family = slr_checkpoint_family(base);
    n->name = "";

    int rc = slr_arena_new(&n->texts, m);
    if (rc >= 0)
        rc = slr_map_new(&n->by_path, m);
    if (rc >= 0)
        rc = slr_map_new(&n->args, m);
    if (rc >= 0)
        rc = slr_meta_new(&n->meta, m);
    if (rc < 0) {
        slr_network_unref(n);
        return rc;
    }
    *out = n;
    return SDLORA_OK;
}

slr_network *slr_network_ref(slr_network *n)
{
    if (n)
        slr_refs_get(&n->refs);
    return n;
}

void slr_network_unref(slr_network *n)
{
    if (!n || !slr_refs_put(&n->refs))
        return;
    slr_mem *m = n->m;
    for (size_t i = 0; i < n->n_bundle; i++)
        slr_network_unref(n->bundle[i]);
    slr_free(m, n->bundle);
    slr_plan_free(n->norms);
    slr_options_unref(n->opts);
    slr_meta_free(n->meta);
    slr_map_free(n->args);
    slr_map_free(n->by_path);
    slr_free(m, n->arg_value);
    slr_free(m, n->skipped);
    slr_free(m, n->module);
    slr_free(m, n->form);
    slr_free(m, n->slot);
    slr_free(m, n->params);
    slr_arena_free(n->texts);
    slr_free(m, n);
    slr_mem_unref(m);
}

bool slr_layer_key(char key[SLR_LAYER_KEY], int part, const char *path)
{
    size_t n = strlen(path);
    if (n + 3 > SLR_LAYER_KEY)
        return false;
    key[0] = (char)('0' + part);
    key[1] = ':';
    memcpy(key + 2, path, n + 1);
    return true;
}

const slr_module *slr_network_find(const slr_network *n, int part, const char *path)
{
    char key[SLR_LAYER_KEY];
    int64_t i;
    return slr_layer_key(key, part, path) && slr_map_get(n->by_path, key, &i) ? &n->module[i]
                                                                              : NULL;
}

static const slr_settings no_settings = {.factor = -1, .data_init = true, .lr_weight = 1.0};

int slr_network_add(slr_network *n, const slr_kind *kind, const slr_target *target,
                    const slr_form *form, const slr_settings *set)
{
    if (slr_network_find(n, target->part, target->path))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s is adapted twice", target->name);
    SLR_TRY(slr_grow(n->m, &n->module, &n->module_cap, n->n_modules + 1, sizeof *n->module));
    SLR_TRY(slr_grow(n->m, &n->form, &n->form_cap, n->n_modules + 1, sizeof *n->form));

    slr_module *mod = &n->module[n->n_modules];
    *mod = (slr_module){.target = *target,
                        .kind = kind,
                        .set = set ? set : &no_settings,
                        .rank = form->rank,
                        .alpha = form->alpha,
                        .scale = form->scale,
                        .marked = form->marked,
                        .begins = form->begins};
    n->form[n->n_modules] = *form;
    mod->target.name = slr_arena_strdup(n->texts, target->name);
    mod->target.path = slr_arena_strdup(n->texts, target->path);
    if (!mod->target.name || !mod->target.path)
        return SDLORA_ENOMEM;

    char key[SLR_LAYER_KEY];
    if (!slr_layer_key(key, target->part, target->path))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s is too long a name", target->name);
    SLR_TRY(slr_map_set(n->by_path, key, (int64_t)n->n_modules));
    n->n_modules++;
    return SDLORA_OK;
}

int slr_network_skip(slr_network *n, const char *key)
{
    SLR_TRY(slr_grow(n->m, &n->skipped, &n->skipped_cap, n->n_skipped + 1, sizeof *n->skipped));
    n->skipped[n->n_skipped] = slr_arena_strdup(n->texts, key);
    return n->skipped[n->n_skipped++] ? SDLORA_OK : SDLORA_ENOMEM;
}

static int slot_key(slr_network *n, const slr_module *mod, int leaf, const char **out)
{
    slr_buf b;
    slr_buf_init(&b, n->m);
    slr_buf_printf(&b, "%s.%s", mod->target.name, slr_kind_leaf(mod->kind, leaf));
    int rc = slr_buf_ok(&b);
    if (rc >= 0) {
        *out = slr_arena_strdup(n->texts, b.data);
        rc = *out ? SDLORA_OK : SDLORA_ENOMEM;
    }
    slr_buf_free(&b);
    return rc;
}

/* Of the rate of its part. */
static double rate_of(const slr_module *mod, int leaf)
{
    const slr_settings *set = mod->set;
    bool plus = set->lr_plus > 0 && mod->kind->plus >> leaf & 1u;
    if (set->frozen_down && !(mod->kind->plus >> leaf & 1u))
        return 0;
    if (mod->kind->begun >> leaf & 1u)
        return 0;
    return set->lr_weight * (plus ? set->lr_plus : 1.0);
}

static int layout_slot(slr_network *n, size_t index, int leaf, size_t *at)
{
    slr_module *mod = &n->module[index];
    const slr_form *form = &n->form[index];
    slr_network_slot *s = &n->slot[n->n_slots];
    *s = (slr_network_slot){.part = mod->target.part,
                            .module = index,
                            .leaf = leaf,
                            .rank = form->leaf[leaf].rank,
                            .offset = *at,
                            .count = 1,
                            .lr_scale = rate_of(mod, leaf)};
    for (int d = 0; d < s->rank; d++) {
        s->dim[d] = form->leaf[leaf].dim[d];
        if (s->dim[d] < 1 || !slr_mul_ok(s->count, (size_t)s->dim[d], &s->count))
            return slr_fail(SDLORA_EFORMAT, __func__, "%s is too large", mod->target.name);
    }
    SLR_TRY(slot_key(n, mod, leaf, &s->key));
    *at += (s->count + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
    mod->at[leaf] = (int8_t)(n->n_slots++ - mod->slot);
    return SDLORA_OK;
}

static int layout_module(slr_network *n, size_t index, size_t *at)
{
    slr_module *mod = &n->module[index];
    SLR_TRY(slr_grow(n->m, &n->slot, &n->slot_cap, n->n_slots + SLR_KIND_LEAVES, sizeof *n->slot));
    mod->slot = n->n_slots;
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        mod->at[i] = -1;
        if (n->form[index].have >> i & 1u)
            SLR_TRY(layout_slot(n, index, i, at));
    }
    return SDLORA_OK;
}

/* Text encoder modules come first in the block, then the UNet's. */
static const int part_order[] = {SLR_PART_TE, SLR_PART_TE2, SLR_PART_UNET};

int slr_network_layout(slr_network *n)
{
    size_t at = 0;
    for (size_t p = 0; p < sizeof part_order / sizeof *part_order; p++) {
        n->part_first[part_order[p]] = at;
        for (size_t i = 0; i < n->n_modules; i++)
            if (n->module[i].target.part == part_order[p])
                SLR_TRY(layout_module(n, i, &at));
        n->part_last[part_order[p]] = at;
    }
    slr_free(n->m, n->form);
    n->form = NULL;
    n->form_cap = 0;
    n->n_params = at;
    n->params = slr_calloc(n->m, at ? at : 1, sizeof(float));
    return n->params ? SDLORA_OK : SDLORA_ENOMEM;
}

/* --- getters --- */

size_t slr_network_modules(const slr_network *n)
{
    return n->n_modules;
}

const slr_target *slr_network_target(const slr_network *n, size_t i)
{
    return &n->module[i].target;
}

int64_t slr_network_rank(const slr_network *n, size_t i)
{
    return n->module[i].rank;
}

double slr_network_alpha(const slr_network *n, size_t i)
{
    return n->module[i].alpha;
}

const char *slr_network_name(const slr_network *n)
{
    return n->name;
}

const char *slr_network_path(const slr_network *n)
{
    return n->path;
}

void slr_network_touch(slr_network *n)
{
    n->version++;
}

uint64_t slr_network_version(const slr_network *n)
{
    return n->version;
}

slr_opt slr_network_options(const slr_network *n)
{
    return (slr_opt){n->opts, "network"};
}

const slr_family *slr_network_family(const slr_network *n)
{
    return n->family;
}

const slr_meta *slr_network_meta(const slr_network *n)
{
    return n->meta;
}

uint32_t slr_network_stored(const slr_network *n)
{
    return n->stored == SDLORA_F16 || n->stored == SDLORA_BF16 ? n->stored : SDLORA_F32;
}

size_t slr_network_skipped(const slr_network *n)
{
    return n->n_skipped;
}

const char *slr_network_skipped_at(const slr_network *n, size_t i)
{
    return i < n->n_skipped ? n->skipped[i] : NULL;
}

bool slr_network_has_dropout(const slr_network *n)
{
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_settings *set = n->module[i].set;
        if (set->dropout > 0 || set->rank_dropout > 0 || set->module_dropout > 0 || set->unit)
            return true;
    }
    return false;
}

size_t slr_network_slots(const slr_network *n)
{
    return n->n_slots;
}

const slr_network_slot *slr_network_slot_at(const slr_network *n, size_t i)
{
    return &n->slot[i];
}

float *slr_network_params(slr_network *n)
{
    return n->params;
}

size_t slr_network_param_count(const slr_network *n)
{
    return n->n_params;
}

void slr_network_part_range(const slr_network *n, int part, size_t *first, size_t *last)
{
    *first = n->part_first[part];
    *last = n->part_last[part];
}

uint64_t slr_network_digest(const slr_network *n, int part, uint64_t seed)
{
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_module *mod = &n->module[i];
        const double numbers[] = {mod->scale, (double)mod->rank, mod->marked};
        if (mod->target.part != part)
            continue;
        seed = slr_hash64(mod->target.name, strlen(mod->target.name), seed);
        seed = slr_hash64(mod->kind->name, strlen(mod->kind->name), seed);
        seed = slr_hash64(numbers, sizeof numbers, seed);
    }
    return slr_hash64(n->params + n->part_first[part],
                      (n->part_last[part] - n->part_first[part]) * sizeof(float), seed);
}
