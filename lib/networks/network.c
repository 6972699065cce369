/* SPDX-License-Identifier: MIT */
/* What a network is: modules, their tensors as slots of one flat block, options, references.  Knows
 * the table of kinds; refuses to know files (netfile.c) and graphs (hook.c, stack.c). */
#include "networks/network.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "networks/kind.h"

#define SLOT_ALIGN 16 /* floats: every slot starts on 64 bytes */

static const slr_kind *const kinds[] = {&slr_kind_lora};

const slr_kind *slr_kind_by_leaf(const char *leaf, int *slot)
{
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int i = 0; i < kinds[k]->n_slots; i++)
            if (!strcmp(kinds[k]->leaf[i], leaf)) {
                *slot = i;
                return kinds[k];
            }
    return NULL;
}

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
    slr_options_unref(n->opts);
    slr_meta_free(n->meta);
    slr_map_free(n->args);
    slr_map_free(n->by_path);
    slr_free(m, n->arg_value);
    slr_free(m, n->module);
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

int slr_network_add(slr_network *n, const slr_kind *kind, const slr_target *target, int64_t rank,
                    double alpha)
{
    if (slr_network_find(n, target->part, target->path))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s is adapted twice", target->name);
    SLR_TRY(slr_grow(n->m, &n->module, &n->module_cap, n->n_modules + 1, sizeof *n->module));

    slr_module *mod = &n->module[n->n_modules];
    *mod = (slr_module){.target = *target, .kind = kind, .rank = rank, .alpha = alpha};
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

static int slot_key(slr_network *n, const slr_module *mod, int i, const char **out)
{
    slr_buf b;
    slr_buf_init(&b, n->m);
    slr_buf_printf(&b, "%s.%s", mod->target.name, mod->kind->leaf[i]);
    int rc = slr_buf_ok(&b);
    if (rc >= 0) {
        *out = slr_arena_strdup(n->texts, b.data);
        rc = *out ? SDLORA_OK : SDLORA_ENOMEM;
    }
    slr_buf_free(&b);
    return rc;
}

static int layout_module(slr_network *n, size_t index, size_t *at)
{
    slr_module *mod = &n->module[index];
    int count = mod->kind->n_slots;
    SLR_TRY(slr_grow(n->m, &n->slot, &n->slot_cap, n->n_slots + (size_t)count, sizeof *n->slot));

    slr_network_slot *slots = &n->slot[n->n_slots];
    memset(slots, 0, (size_t)count * sizeof *slots);
    mod->kind->shapes(mod, slots);
    mod->slot = n->n_slots;
    for (int i = 0; i < count; i++) {
        slots[i].part = mod->target.part;
        slots[i].module = index;
        slots[i].offset = *at;
        slots[i].count = 1;
        for (int d = 0; d < slots[i].rank; d++)
            if (!slr_mul_ok(slots[i].count, (size_t)slots[i].dim[d], &slots[i].count))
                return slr_fail(SDLORA_EFORMAT, __func__, "%s is too large", mod->target.name);
        SLR_TRY(slot_key(n, mod, i, &slots[i].key));
        *at += (slots[i].count + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
    }
    n->n_slots += (size_t)count;
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
    n->n_params = at;
    n->params = slr_calloc(n->m, at ? at : 1, sizeof(float));
    return n->params ? SDLORA_OK : SDLORA_ENOMEM;
}

double slr_module_scale(const slr_module *mod)
{
    return mod->alpha / (double)mod->rank;
}

/* --- making a new one --- */

/* "key=value" items of network_args. */
static int read_args(slr_network *n, const char *list)
{
    slr_str rest = slr_str_of(list), key, value;
    size_t count = 0;
    int more;
    while ((more = slr_pair_next(&rest, "network_args", &key, &value)) > 0) {
        char *text = slr_arena_alloc(n->texts, key.n + value.n + 2, 1); /* both, each with a NUL */
        if (!text)
            return SDLORA_ENOMEM;
        memcpy(text, key.p, key.n);
        memcpy(text + key.n + 1, value.p, value.n);
        SLR_TRY(slr_grow(n->m, &n->arg_value, &n->arg_cap, count + 1, sizeof *n->arg_value));
        n->arg_value[count] = text + key.n + 1;
        SLR_TRY(slr_map_set(n->args, text, (int64_t)count++));
    }
    return more;
}

/* What network_args may hold, and the option that means the same.  kohya calls network_dropout
 * "dropout" there. */
static const struct {
    const char *key, *option;
} known_args[] = {{"conv_dim", "conv_dim"},
                  {"conv_alpha", "conv_alpha"},
                  {"dropout", "network_dropout"},
                  {"rank_dropout", "rank_dropout"},
                  {"module_dropout", "module_dropout"}};

/* The same limits as the option has. */
static int check_range(const char *key, const char *option, double value)
{
    const slr_option_row *row = slr_option_find("network", option);
    bool whole = row->type != SLR_OPT_INT || value == floor(value);
    if (!(value >= row->min && value <= row->max && whole))
        return slr_fail(SDLORA_EINVAL, __func__, "network_args: %s=%g is not %s from %g to %g", key,
                        value, row->type == SLR_OPT_INT ? "a whole number" : "a number", row->min,
                        row->max);
    return SDLORA_OK;
}

static int check_args(const slr_network *n)
{
    for (size_t i = 0; i < slr_map_count(n->args); i++) {
        int64_t at;
        double value;
        const char *key = slr_map_at(n->args, i, &at);
        size_t k = 0;
        while (k < sizeof known_args / sizeof *known_args && strcmp(known_args[k].key, key))
            k++;
        if (k == sizeof known_args / sizeof *known_args)
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "network_args: '%s' is not supported by networks.lora here", key);
        if (!slr_parse_real(n->arg_value[at], &value))
            return slr_fail(SDLORA_EINVAL, __func__, "network_args: %s=%s is not a number", key,
                            n->arg_value[at]);
        SLR_TRY(check_range(key, known_args[k].option, value));
    }
    return SDLORA_OK;
}

double slr_network_arg(const slr_network *n, const char *key, double otherwise)
{
    int64_t at;
    double value;
    for (size_t k = 0; k < sizeof known_args / sizeof *known_args; k++)
        if (!strcmp(known_args[k].option, key) && slr_map_get(n->args, known_args[k].key, &at) &&
            slr_parse_real(n->arg_value[at], &value))
            return value;
    if (slr_option_find("network", key) && slr_opt_has(slr_network_options(n), key))
        return slr_opt_real(slr_network_options(n), key);
    return otherwise;
}

/* kohya: alpha absent or 0 means rank. */
static double alpha_or_rank(double alpha, int64_t rank)
{
    return alpha > 0 ? alpha : (double)rank;
}

static int add_targets(slr_network *n, const slr_targets *targets)
{
    slr_opt o = slr_network_options(n);
    int64_t dim = slr_opt_has(o, "network_dim") ? slr_opt_int(o, "network_dim") : 4;
    int64_t conv_dim = (int64_t)slr_network_arg(n, "conv_dim", 0);
    double alpha = alpha_or_rank(slr_opt_real(o, "network_alpha"), dim);
    double conv_alpha = alpha_or_rank(slr_network_arg(n, "conv_alpha", 1), conv_dim);
    bool no_te = slr_opt_bool(o, "network_train_unet_only");
    bool no_unet = slr_opt_bool(o, "network_train_text_encoder_only");

    for (size_t i = 0; i < slr_targets_count(targets); i++) {
        const slr_target *t = slr_targets_at(targets, i);
        int rule = slr_target_rule(t);
        bool skip = (t->part == SLR_PART_UNET ? no_unet : no_te) || rule == SLR_TARGET_NEVER ||
                    (rule != SLR_TARGET_LINEAR && conv_dim <= 0);
        if (skip)
            continue;
        bool conv = rule == SLR_TARGET_CONV;
        SLR_TRY(slr_network_add(n, &slr_kind_lora, t, conv ? conv_dim : dim,
                                conv ? conv_alpha : alpha));
    }
    if (!n->n_modules)
        return slr_fail(SDLORA_EINVAL, __func__, "the options leave no module to train");
    return SDLORA_OK;
}

static int check_options(slr_opt o)
{
    const char *module = slr_opt_text(o, "network_module");
    if (module && strcmp(module, "networks.lora"))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "network_module %s is not supported yet: use networks.lora", module);
    if (slr_opt_bool(o, "network_train_unet_only") &&
        slr_opt_bool(o, "network_train_text_encoder_only"))
        return slr_fail(
            SDLORA_EINVAL, __func__,
            "network_train_unet_only and network_train_text_encoder_only leave nothing to train");
    return SDLORA_OK;
}

static void init_params(slr_network *n, uint64_t seed)
{
    for (size_t i = 0; i < n->n_modules; i++) {
        slr_rng rng;
        slr_rng_init(&rng, seed, SLR_STREAM_INIT, (uint32_t)i);
        const slr_module *mod = &n->module[i];
        mod->kind->init(mod, &n->slot[mod->slot], n->params, &rng);
    }
}

int slr_network_make(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                     uint64_t seed)
{
    *out = NULL;
    SLR_TRY(check_options((slr_opt){opts, "network"}));

    slr_network *n = NULL;
    slr_targets *targets = NULL;
    slr_mem *m = slr_checkpoint_mem(base);
    int rc = slr_network_new(&n, m, base);
    if (rc >= 0 && opts)
        rc = slr_options_copy(&n->opts, opts);
    if (rc >= 0)
        rc = read_args(n, slr_opt_text(slr_network_options(n), "network_args"));
    if (rc >= 0)
        rc = check_args(n);
    if (rc >= 0)
        rc = slr_targets_new(&targets, m, base);
    if (rc >= 0)
        rc = add_targets(n, targets);
    if (rc >= 0)
        rc = slr_network_layout(n);
    slr_targets_free(targets);
    if (rc < 0) {
        slr_network_unref(n);
        return rc;
    }
    init_params(n, seed);
    *out = n;
    return SDLORA_OK;
}

int slr_network_load_into(slr_network *n, const slr_network *from)
{
    if (n->n_slots != from->n_slots)
        return slr_fail(
            SDLORA_EINVAL, __func__,
            "%s has %zu tensors, the network to train has %zu: same rank and modules are needed",
            from->path ? from->path : "the network", from->n_slots, n->n_slots);
    for (size_t i = 0; i < n->n_slots; i++) {
        const slr_network_slot *a = &n->slot[i];
        const slr_module *mod = slr_network_find(from, a->part, n->module[a->module].target.path);
        size_t leaf = i - n->module[a->module].slot;
        const slr_network_slot *b = mod ? &from->slot[mod->slot + leaf] : NULL;
        if (!b || b->count != a->count)
            return slr_fail(SDLORA_EINVAL, __func__,
                            "%s has no %s of the size that is trained here",
                            from->path ? from->path : "the network", a->key);
        memcpy(n->params + a->offset, from->params + b->offset, a->count * sizeof(float));
    }
    return SDLORA_OK;
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

bool slr_network_has_dropout(const slr_network *n)
{
    return slr_network_arg(n, "network_dropout", 0) > 0 ||
           slr_network_arg(n, "rank_dropout", 0) > 0 || slr_network_arg(n, "module_dropout", 0) > 0;
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
