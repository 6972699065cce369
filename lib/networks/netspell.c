/* SPDX-License-Identifier: MIT */
/* Writes networks as diffusers and PEFT do: factors of LoRA without tucker core, magnitudes of
 * PEFT's shape, and ranks and alphas as settings.  What a dialect can't hold is refused before
 * anything is written. */
#include "networks/netwrite.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "io/file.h"
#include "networks/peft.h"

enum { DOWN = 0, UP = 1 }; /* LoRA's leaves */

/* --- what a dialect can hold --- */

static bool has_kind(const slr_spelling *s, const char *name)
{
    for (const char *const *k = s->kinds; k && *k; k++)
        if (!strcmp(*k, name))
            return true;
    return !s->kinds;
}

static int refuse(const slr_spelling *s, const slr_module *mod, const char *why)
{
    return slr_fail(SDLORA_ENOTSUP, __func__, "%s as %s: %s", mod->target.name, s->name, why);
}

/* PEFT scales the bias together with the outputs. */
static int check_ia3(const slr_spelling *s, const slr_module *mod)
{
    if (!mod->marked && mod->target.bias)
        return refuse(s, mod, "the layer has a bias, which PEFT's (IA)^3 would scale as well");
    return mod->scale == 1.0 ? SDLORA_OK : refuse(s, mod, "PEFT's (IA)^3 has no scale");
}

/* PEFT has the bias of LoRA's second factor, which it scales as all that the factor gives. */
static int check_bias(const slr_spelling *s, const slr_module *mod)
{
    bool lora = !strcmp(mod->kind->name, "lora");
    if (!strcmp(slr_spelling_leaf(s, mod->target.part, "diff_b"), "diff_b"))
        return refuse(s, mod, "there is no change of a bias in this dialect");
    if (!lora || slr_module_has(mod, SLR_LEAF_DORA))
        return refuse(s, mod, "only LoRA without magnitudes (DoRA) changes a bias there");
    return mod->scale != 0 ? SDLORA_OK : refuse(s, mod, "its scale is 0, and its bias is not");
}

static int check_module(const slr_writing *w, const slr_module *mod)
{
    const slr_spelling *s = w->spelling;
    const slr_network_slot *dora =
        slr_module_slot(mod, &w->network->slot[mod->slot], SLR_LEAF_DORA);
    if (!has_kind(s, mod->kind->name))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s is a module of the kind '%s', which the dialect '%s' can't hold",
                        mod->target.name, mod->kind->name, s->name);
    if (mod->kind == &slr_kind_ia3)
        SLR_TRY(check_ia3(s, mod));
    if (slr_module_has(mod, SLR_LEAF_DIFF_B))
        SLR_TRY(check_bias(s, mod));
    if (slr_module_has(mod, SLR_LEAF_SPARSE))
        return refuse(s, mod, "there are no sparse residuals in this dialect");
    if (dora && strcmp(mod->kind->name, "lora") != 0)
        return refuse(s, mod, "only LoRA has magnitudes (DoRA) there");
    if (dora && !strcmp(slr_spelling_leaf(s, mod->target.part, "dora_scale"), "dora_scale"))
        return refuse(s, mod, "there are no magnitudes (DoRA) in this dialect");
    if (dora && dora->dim[0] != mod->target.out)
        return refuse(s, mod, "its magnitudes (DoRA) are of inputs, and PEFT has those of outputs");
    return SDLORA_OK;
}

/* A raw adapter belongs to one model, and PEFT finds it by its name. */
static int check_adapter(const slr_writing *w, const char *path)
{
    const slr_network *n = w->network;
    if (strcmp(slr_path_base(path), "adapter_model.safetensors") != 0)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s: a PEFT adapter is a folder: save it as .../adapter_model.safetensors",
                        path);
    for (size_t i = 1; i < n->n_modules; i++)
        if (n->module[i].target.part != n->module[0].target.part)
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "%s: a PEFT adapter holds one model, and this network adapts the %s "
                            "and the %s: the dialect 'diffusers' holds both",
                            path, slr_part_name(n->module[0].target.part),
                            slr_part_name(n->module[i].target.part));
    return SDLORA_OK;
}

/* --- tensors --- */

/* up and down as two factors, so that a tucker core and a scalar are in them; the scale only where
 * nothing else would tell it.  There all ranks are made the same with zeros, since diffusers takes
 * the rank of one module for the alpha of all. */
static int add_lora(slr_writing *w, const slr_module *mod)
{
    const slr_network *n = w->network;
    const slr_target *t = &mod->target;
    int64_t r = w->spelling->folds ? slr_peft_widest(n, t->part) : mod->rank;
    int64_t wide = slr_target_fan_in(t);
    size_t count = (size_t)(r * wide + t->out * r);
    float *down = slr_calloc(w->m, count, sizeof *down), *up = down + r * wide;
    slr_module plain = *mod;
    if (!down)
        return SDLORA_ENOMEM;
    if (!w->spelling->folds)
        plain.scale = 1.0;
    mod->kind->factors(&plain, &n->slot[mod->slot], n->params, mod->rank, down, up, r);
    int rank = t->conv ? 4 : 2;
    int rc = slr_writing_add(w, mod, slr_spelling_leaf(w->spelling, t->part, mod->kind->leaf[DOWN]),
                             rank, (int64_t[]){r, t->in, t->kh, t->kw}, down);
    if (rc >= 0)
        rc = slr_writing_add(w, mod, slr_spelling_leaf(w->spelling, t->part, mod->kind->leaf[UP]),
                             rank, (int64_t[]){t->out, r, 1, 1}, up);
    slr_free(w->m, down);
    return rc;
}

/* [out] of a linear layer, [1,out,1,1] of a convolution. */
static int add_magnitudes(slr_writing *w, const slr_module *mod, const slr_network_slot *s)
{
    const slr_target *t = &mod->target;
    const char *leaf = slr_spelling_leaf(w->spelling, t->part, "dora_scale");
    const float *src = w->network->params + s->offset;
    return t->conv ? slr_writing_add(w, mod, leaf, 4, (int64_t[]){1, t->out, 1, 1}, src)
                   : slr_writing_add(w, mod, leaf, 1, &t->out, src);
}

static int add_bias(slr_writing *w, const slr_module *mod, const slr_network_slot *s)
{
    float scale = w->spelling->folds ? 1.0f : (float)mod->scale;
    float *bias = slr_alloc(w->m, s->count * sizeof *bias);
    if (!bias)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < s->count; i++)
        bias[i] = w->network->params[s->offset + i] / scale;
    int rc = slr_writing_add(w, mod, slr_spelling_leaf(w->spelling, mod->target.part, "diff_b"), 1,
                             s->dim, bias);
    slr_free(w->m, bias);
    return rc;
}

/* 1 + the weight: [out,1] or [1,in], of a convolution [1,n,1,1]. */
static int add_ia3(slr_writing *w, const slr_module *mod, const slr_network_slot *s)
{
    const slr_target *t = &mod->target;
    int64_t n = (int64_t)s->count;
    float *factor = slr_alloc(w->m, s->count * sizeof *factor);
    if (!factor)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < s->count; i++)
        factor[i] = 1.0f + w->network->params[s->offset + i];
    bool row = t->conv || mod->marked;
    int rc = slr_writing_add(w, mod, slr_spelling_leaf(w->spelling, t->part, "weight"),
                             t->conv ? 4 : 2, (int64_t[]){row ? 1 : n, row ? n : 1, 1, 1}, factor);
    slr_free(w->m, factor);
    return rc;
}

static int add_module(slr_writing *w, const slr_module *mod)
{
    const slr_network *n = w->network;
    const slr_network_slot *slots = &n->slot[mod->slot];
    const slr_network_slot *dora = slr_module_slot(mod, slots, SLR_LEAF_DORA),
                           *bias = slr_module_slot(mod, slots, SLR_LEAF_DIFF_B);
    bool lora = !strcmp(mod->kind->name, "lora");
    if (lora)
        SLR_TRY(add_lora(w, mod));
    if (bias)
        SLR_TRY(add_bias(w, mod, bias));
    for (int i = 0; !lora && i < SLR_KIND_OWN; i++) {
        const slr_network_slot *s = slr_module_slot(mod, slots, i);
        if (s)
            SLR_TRY(mod->kind == &slr_kind_ia3 ? add_ia3(w, mod, s) : slr_writing_slot(w, s));
    }
    return dora ? add_magnitudes(w, mod, dora) : SDLORA_OK;
}

/* --- settings --- */

static const int parts[] = {SLR_PART_UNET, SLR_PART_TE, SLR_PART_TE2};

static bool adapts(const slr_network *n, int part)
{
    for (size_t i = 0; i < n->n_modules; i++)
        if (n->module[i].target.part == part)
            return true;
    return false;
}

/* diffusers keeps the settings of all parts in one object, each name behind its part. */
static int describe_all(const slr_writing *w, slr_buf *b)
{
    bool any = false;
    slr_buf_puts(b, "{");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!adapts(w->network, parts[i]))
            continue;
        slr_buf_puts(b, any ? ",\n" : "\n");
        SLR_TRY(slr_peft_describe(b, w->network, parts[i], w->spelling->prefix[parts[i]],
                                  w->spelling->folds));
        any = true;
    }
    slr_buf_puts(b, "\n}");
    return slr_buf_ok(b);
}

static int write_config(const slr_writing *w, slr_buf *b, const char *path)
{
    slr_buf name;
    slr_buf_puts(b, "{\n");
    SLR_TRY(slr_peft_describe(b, w->network, w->network->module[0].target.part, "", false));
    slr_buf_puts(b, "\n}\n");
    slr_buf_init(&name, w->m);
    slr_buf_add(&name, path, (size_t)(slr_path_base(path) - path));
    slr_buf_puts(&name, SLR_PEFT_CONFIG);
    int rc = slr_buf_ok(b);
    if (rc >= 0)
        rc = slr_buf_ok(&name);
    if (rc >= 0)
        rc = slr_file_write(w->m, name.data, b->data, b->len);
    slr_buf_free(&name);
    return rc;
}

static int put_settings(const slr_writing *w, const char *path, slr_meta *meta)
{
    slr_buf b;
    int rc = SDLORA_OK;
    slr_buf_init(&b, w->m);
    if (w->spelling->dialect == SLR_DIALECT_PEFT)
        rc = write_config(w, &b, path);
    else if (w->spelling->dialect == SLR_DIALECT_DIFFUSERS)
        rc = describe_all(w, &b);
    if (rc >= 0 && w->spelling->dialect == SLR_DIALECT_DIFFUSERS)
        rc = slr_meta_set(meta, SLR_PEFT_METADATA, b.data);
    if (rc >= 0)
        rc = slr_meta_set(meta, "format", "pt"); /* without it diffusers refuses to load */
    slr_buf_free(&b);
    return rc;
}

int slr_spell_collect(slr_writing *w, const char *path, slr_meta *meta)
{
    const slr_network *n = w->network;
    for (size_t i = 0; i < n->n_modules; i++)
        SLR_TRY(check_module(w, &n->module[i]));
    if (w->spelling->dialect == SLR_DIALECT_PEFT)
        SLR_TRY(check_adapter(w, path));
    for (size_t i = 0; i < n->n_modules; i++)
        SLR_TRY(add_module(w, &n->module[i]));
    return put_settings(w, path, meta);
}
