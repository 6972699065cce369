/* SPDX-License-Identifier: MIT */
/* A new network by the options: which layers, of what kind and form, with what initial values.
 * Refuses to know formulas (kind rows) and files. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "networks/args.h"
#include "networks/hypernet.h"
#include "networks/embedding.h"

static const slr_settings *keep_settings(slr_network *n, const slr_settings *set)
{
    slr_settings *kept = slr_arena_alloc(n->texts, 1, sizeof *kept);
    if (kept)
        *kept = *set;
    return kept;
}

/* LyCORIS and kohya: rs_lora divides by the root of the rank, and writes an alpha that makes naive
 * readers do the same. */
static void scale_by(const slr_settings *set, slr_form *form)
{
    form->rank = set->dim;
    form->alpha = set->alpha;
    if (set->rs_lora)
        form->alpha *= sqrt((double)set->dim);
    form->scale = slr_form_scale(form);
}

/* LyCORIS leaves weight_decompose and use_scalar unheard where an algorithm has no use for them. */
static bool decomposes(const slr_kind *kind)
{
    static const char *const names[] = {"lora", "loha", "lokr"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(kind->name, names[i]))
            return true;
    return false;
}

/* The norm of W stands in dora_scale at first: rows, or columns as LyCORIS before 3.2. */
static void add_common(const slr_kind *kind, const slr_settings *set, const slr_target *t,
                       slr_form *form)
{
    int rank = t->conv ? 4 : 2;
    int64_t dim[4] = {set->wd_on_output ? t->out : 1, set->wd_on_output ? 1 : t->in, 1, 1};
    if (set->dora && decomposes(kind))
        slr_form_add(form, SLR_LEAF_DORA, rank, dim);
    if (set->scalar && kind->scalar_into)
        slr_form_add(form, SLR_LEAF_SCALAR, 1, (int64_t[]){1});
}

static int add_module(slr_network *n, const slr_kind *kind, const slr_target *t,
                      const slr_settings *set)
{
    slr_form form = {0};
    if (kind->takes ? !kind->takes(t) : t->norm)
        return SDLORA_OK;
    scale_by(set, &form);
    SLR_TRY(kind->make(set, t, &form));
    add_common(kind, set, t, &form);
    return slr_network_add(n, kind, t, &form, set);
}

static bool part_off(slr_opt o, int part)
{
    return slr_opt_bool(o, part == SLR_PART_UNET ? "network_train_text_encoder_only"
                                                 : "network_train_unet_only");
}

static int add_targets(slr_network *n, const slr_targets *targets, const slr_arguments *a)
{
    for (size_t i = 0; i < slr_targets_count(targets); i++) {
        const slr_target *t = slr_targets_at(targets, i);
        const slr_kind *kind;
        slr_settings set;
        int rc = slr_arguments_layer(a, t, &kind, &set);
        if (rc < 0)
            return rc;
        if (!rc || part_off(slr_network_options(n), t->part))
            continue;
        const slr_settings *kept = keep_settings(n, &set);
        SLR_TRY(kept ? add_module(n, kind, t, kept) : SDLORA_ENOMEM);
    }
    if (!n->n_modules)
        return slr_fail(SDLORA_EINVAL, __func__, "the options leave no module to train");
    return SDLORA_OK;
}

/* A scalar starts at zero, so that the whole does. */
static int init_params(slr_network *n, const slr_checkpoint *base, uint64_t seed)
{
    SLR_TRY(slr_network_begin(n, base, seed));
    /* no file has a merged model's weights: what is taken of them goes into the network's */
    for (size_t i = 0; i < n->n_modules && !slr_checkpoint_on_disk(base); i++)
        n->module[i].begins = false;
    for (size_t i = 0; i < n->n_modules; i++) {
        slr_rng rng;
        slr_rng_init(&rng, seed, SLR_STREAM_INIT, (uint32_t)i);
        const slr_module *mod = &n->module[i];
        if (mod->kind->init)
            mod->kind->init(mod, &n->slot[mod->slot], n->params, &rng);
        SLR_TRY(slr_network_norms(n, mod, base));
    }
    return SDLORA_OK;
}

static int check_options(slr_opt o)
{
    if (slr_opt_bool(o, "network_train_unet_only") &&
        slr_opt_bool(o, "network_train_text_encoder_only"))
        return slr_fail(
            SDLORA_EINVAL, __func__,
            "network_train_unet_only and network_train_text_encoder_only leave nothing to train");
    return SDLORA_OK;
}

int slr_network_make(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                     uint64_t seed)
{
    *out = NULL;
    if (slr_embedding_wanted((slr_opt){opts, "network"}))
        return slr_embedding_make(out, base, opts, seed);
    if (slr_hyper_wanted((slr_opt){opts, "network"}))
        return slr_hyper_make(out, base, opts, seed);
    SLR_TRY(check_options((slr_opt){opts, "network"}));

    slr_network *n = NULL;
    slr_targets *targets = NULL;
    slr_arguments args;
    slr_mem *m = slr_checkpoint_mem(base);
    int rc = slr_network_new(&n, m, base);
    if (rc >= 0 && opts)
        rc = slr_options_copy(&n->opts, opts);
    if (rc >= 0)
        rc = slr_arguments_read(&args, n);
    if (rc >= 0)
        rc = slr_targets_new(&targets, m, base);
    if (rc >= 0)
        rc = add_targets(n, targets, &args);
    if (rc >= 0)
        rc = slr_network_layout(n);
    if (rc >= 0)
        rc = init_params(n, base, seed);
    slr_targets_free(targets);
    if (rc < 0) {
        slr_network_unref(n);
        return rc;
    }
    *out = n;
    return SDLORA_OK;
}

/* kohya's OFT is read as LyCORIS': one formula, two rules for new modules. */
static bool same_formula(const slr_kind *a, const slr_kind *b)
{
    return a == b || (a->delta && a->delta == b->delta);
}

static const slr_network_slot *same_slot(const slr_network *from, const slr_network *n, size_t i)
{
    const slr_network_slot *a = &n->slot[i];
    const slr_module *to = &n->module[a->module];
    const slr_module *mod = slr_network_find(from, a->part, to->target.path);
    return mod && same_formula(mod->kind, to->kind)
               ? slr_module_slot(mod, &from->slot[mod->slot], a->leaf)
               : NULL;
}

int slr_network_load_into(slr_network *n, const slr_network *from)
{
    if (n->n_slots != from->n_slots)
        return slr_fail(
            SDLORA_EINVAL, __func__,
            "%s has %zu tensors, the network to train has %zu: same rank and modules are needed",
            from->path ? from->path : "the network", from->n_slots, n->n_slots);
    for (size_t i = 0; i < n->n_slots; i++) {
        const slr_network_slot *a = &n->slot[i], *b = same_slot(from, n, i);
        if (!b || b->count != a->count)
            return slr_fail(SDLORA_EINVAL, __func__,
                            "%s has no %s of the size that is trained here",
                            from->path ? from->path : "the network", a->key);
        memcpy(n->params + a->offset, from->params + b->offset, a->count * sizeof(float));
        n->module[a->module].begins &= from->module[b->module].begins;
    }
    return SDLORA_OK;
}

/* --- made like another one (dim_from_weights) --- */

static void drop_modules(slr_network *n)
{
    slr_free(n->m, n->params);
    slr_map_clear(n->by_path);
    n->params = NULL;
    n->n_params = n->n_modules = n->n_slots = 0;
}

static void copy_values(slr_network *n, const slr_network *from)
{
    for (size_t i = 0; i < n->n_slots; i++) {
        const slr_network_slot *a = &n->slot[i], *b = same_slot(from, n, i);
        memcpy(n->params + a->offset, from->params + b->offset, a->count * sizeof(float));
    }
    slr_network_touch(n);
}

/* Modules of the parts that the options train, with what the options say of training them. */
static int copy_modules(slr_network *n, const slr_network *from, const slr_arguments *a)
{
    for (size_t i = 0; i < from->n_modules; i++) {
        const slr_module *mod = &from->module[i];
        slr_settings set = a->set;
        slr_form form;
        if (part_off(slr_network_options(n), mod->target.part))
            continue;
        if (slr_module_has(mod, SLR_LEAF_SPARSE))
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "%s: %s has a sparse residual, which is not trained",
                            from->path ? from->path : "the network", mod->target.name);
        slr_arguments_rates(a, &mod->target, &set);
        slr_module_form(from, mod, &form);
        set.dim = form.rank;
        set.unit = set.unit && form.rank % set.unit ? 1 : set.unit;
        const slr_settings *kept = keep_settings(n, &set);
        SLR_TRY(kept ? slr_network_add(n, mod->kind, &mod->target, &form, kept) : SDLORA_ENOMEM);
    }
    if (!n->n_modules)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s has no module of the part that is to be trained",
                        from->path ? from->path : "the network");
    return slr_network_layout(n);
}

int slr_network_make_like(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                          const slr_network *from)
{
    slr_network *n;
    if (slr_hyper_wanted((slr_opt){opts, "network"}))
        return slr_hyper_make_like(out, base, opts, from);
    *out = NULL;
    if (slr_network_is_hyper(from))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s is a hypernetwork, and the options ask for another network",
                        from->path ? from->path : "the network");
    SLR_TRY(slr_network_make(&n, base, opts, 0)); /* reads and checks the options */
    *out = NULL;
    if (slr_network_is_embedding(n) != slr_network_is_embedding(from)) {
        slr_network_unref(n);
        return slr_fail(SDLORA_EINVAL, __func__, "%s is %s embedding, and the options ask for %s",
                        from->path ? from->path : "the network",
                        slr_network_is_embedding(from) ? "an" : "no",
                        slr_network_is_embedding(from) ? "another network" : "one");
    }
    slr_arguments args = {.set = *n->module[0].set};
    int rc = n->module[0].kind == &slr_kind_embedding ? SDLORA_OK : slr_arguments_read(&args, n);
    drop_modules(n);
    if (rc >= 0)
        rc = copy_modules(n, from, &args);
    if (rc < 0) {
        slr_network_unref(n);
        return rc;
    }
    copy_values(n, from);
    *out = n;
    return SDLORA_OK;
}
