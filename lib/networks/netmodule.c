/* SPDX-License-Identifier: MIT */
/* Makes a module of the tensors that a file has for one layer: finds its kind by the first that
 * proves itself, checks every tensor against the layer, and settles the scale, which files tell in
 * four ways.  Refuses to know keys (dialect.c). */
#include "networks/netread.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "models/weights.h"

#define MAX_RANK 32768 /* far above any file in the wild; keeps products small */

static bool is_real(uint32_t dtype)
{
    static const uint32_t types[] = {SDLORA_F32, SDLORA_F16,     SDLORA_BF16,
                                     SDLORA_F64, SDLORA_F8_E4M3, SDLORA_F8_E5M2};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i] == dtype)
            return true;
    return false;
}

/* The leaf's number in a kind; -1: it has no such. */
static int leaf_index(const slr_kind *kind, const char *leaf)
{
    int i = slr_kind_find(kind, leaf);
    return i == SLR_LEAF_SCALAR ? -1 : i; /* which files have folded */
}

static bool proves(const slr_kind *kind, const slr_group *g)
{
    for (size_t i = 0; i < g->n; i++) {
        int leaf = leaf_index(kind, g->at[i].leaf);
        if (leaf >= 0 && leaf < SLR_KIND_OWN && kind->proof >> leaf & 1u &&
            (!kind->mine || kind->mine(&g->at[i].tensor)))
            return true;
        if (g->at[i].take == SLR_TAKE_FACTOR && kind->marker && leaf >= 0)
            return true; /* PEFT's (IA)^3, which shows by its shape what others mark */
    }
    return false;
}

/* kohya's OFT has the tensors of LyCORIS', and only its keys tell them apart.  A change of the bias
 * beside nothing else is a whole module's. */
static const slr_kind *kind_of(const slr_group *g)
{
    const slr_kind *kind;
    for (size_t i = 0; (kind = slr_kind_at(i)); i++)
        if (proves(kind, g))
            return kind == &slr_kind_diag_oft && slr_starts(g->at[0].key, "oft_unet_")
                       ? &slr_kind_oft
                       : kind;
    return slr_group_has(g, slr_kind_full.leaf[slr_kind_full.bias]) ? &slr_kind_full : NULL;
}

/* --- tensors as kinds want them --- */

/* A bool, or a number in whatever type the file was saved. */
static int read_marker(const slr_reading *r, const slr_group *g, size_t i, bool *marked)
{
    const slr_tensor *t = &g->at[i].tensor;
    float value = 0;
    bool byte = !is_real(t->dtype) && slr_dtype_size(t->dtype) == 1;
    if (slr_tensor_count(t) != 1 || !slr_dtype_size(t->dtype))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not a single bool", r->label,
                        g->at[i].key);
    if (byte)
        value = *(const uint8_t *)t->data;
    else
        SLR_TRY(slr_tensor_to_f32(t, &value));
    if (!isfinite(value))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not finite", r->label, g->at[i].key);
    *marked = value != 0;
    return SDLORA_OK;
}

/* [1,out,1,1] -> [out]: one axis holds it all. */
static void flatten(slr_tensor *t)
{
    int64_t count = slr_tensor_count(t);
    for (int d = 0; d < t->rank; d++)
        if (t->dim[d] == count) {
            t->rank = 1;
            t->dim[0] = count;
            return;
        }
}

/* PEFT multiplies by the tensor, everybody else by 1 + it; and where it scales outputs it scales
 * the layer's bias too. */
static int take_factor(slr_reading *r, slr_group *g, size_t i, slr_form *form)
{
    const slr_target *t = g->target;
    slr_tensor *x = &g->at[i].tensor;
    char name[SLR_LAYER_KEY];
    flatten(x);
    form->marked = t->in != t->out ? x->dim[0] == t->in : slr_peft_feedforward(r->peft, t);
    slr_nn_path(name, "%s.bias", t->path);
    slr_weights *w = slr_checkpoint_part(r->base, t->part);
    if (!form->marked && w && slr_weights_find(w, name))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s: %s scales outputs of a layer that has a bias, which no module here "
                        "can do",
                        r->label, g->at[i].key);
    size_t count = (size_t)slr_tensor_count(x);
    float *values = slr_alloc(r->m, (count ? count : 1) * sizeof *values);
    if (!values)
        return SDLORA_ENOMEM;
    g->at[i].values = values;
    SLR_TRY(slr_tensor_to_f32(x, values));
    for (size_t k = 0; k < count; k++)
        values[k] -= 1.0f;
    x->rank = t->conv ? 4 : 2;
    memcpy(x->dim,
           (int64_t[]){form->marked ? 1 : (int64_t)count, form->marked ? (int64_t)count : 1, 1, 1},
           sizeof(int64_t[4]));
    return SDLORA_OK;
}

/* Two algorithms on one layer: which of them is meant, nobody can say. */
static int check_other(const slr_reading *r, const slr_group *g, size_t i)
{
    const char *other = slr_leaf_algorithm(g->at[i].leaf);
    if (!other || r->skip)
        return SDLORA_OK;
    return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is a tensor of '%s' in a module of '%s'",
                    r->label, g->at[i].key, other, g->kind->name);
}

/* The module's tensors by leaf number; all of them must be the kind's. */
static int sort_leaves(slr_reading *r, slr_group *g, slr_form *form,
                       slr_tensor tensor[SLR_KIND_LEAVES])
{
    const slr_kind *kind = g->kind;
    for (size_t i = 0; i < g->n; i++) {
        const char *name = g->at[i].leaf;
        int leaf = leaf_index(kind, name);
        if (kind->marker && !strcmp(name, kind->marker)) {
            SLR_TRY(read_marker(r, g, i, &form->marked));
        } else if (!strcmp(name, SLR_RESIDUAL_SIZE)) {
            SLR_TRY(slr_group_size(r, g, i));
        } else if (leaf == SLR_LEAF_PLACES) {
            SLR_TRY(slr_group_places(r, g, i));
            form->have |= 1u << leaf;
            tensor[leaf] = g->at[i].tensor;
        } else if (leaf < 0) {
            SLR_TRY(slr_reading_known(r, g->at[i].key, name));
            SLR_TRY(check_other(r, g, i));
            SLR_TRY(slr_reading_strange(r, g->at[i].key));
        } else if (!is_real(g->at[i].tensor.dtype)) {
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not of a floating-point type",
                            r->label, g->at[i].key);
        } else {
            if (g->at[i].take == SLR_TAKE_FACTOR)
                SLR_TRY(take_factor(r, g, i, form));
            if (g->at[i].take == SLR_TAKE_ROWS)
                flatten(&g->at[i].tensor);
            form->have |= 1u << leaf;
            tensor[leaf] = g->at[i].tensor;
            if (!r->network->stored && leaf < SLR_KIND_OWN)
                r->network->stored = tensor[leaf].dtype;
        }
    }
    return SDLORA_OK;
}

/* [out,1(,1,1)], [out] (PEFT) or [1,in(,1,1)]. */
static int read_dora(const slr_reading *r, const slr_target *t, const slr_tensor *have,
                     slr_form *form)
{
    int64_t count = slr_tensor_count(have);
    bool rows = have->rank >= 1 && have->dim[0] == t->out && count == t->out;
    bool columns = have->rank >= 2 && have->dim[0] == 1 && have->dim[1] == t->in && count == t->in;
    if ((!rows && !columns) || t->norm)
        return slr_form_refuse(r->label, t, "dora_scale", have,
                               "one number for each output or input");
    slr_form_add(form, SLR_LEAF_DORA, t->conv ? 4 : 2,
                 (int64_t[]){rows ? t->out : 1, rows ? 1 : t->in, 1, 1});
    return SDLORA_OK;
}

/* What was read must be as large as what was promised. */
static int check_counts(const slr_reading *r, const slr_group *g, const slr_form *form,
                        const slr_tensor *tensor)
{
    if (form->rank > MAX_RANK)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has rank %lld, more than %d", r->label,
                        g->target->name, (long long)form->rank, MAX_RANK);
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        char wanted[96];
        slr_tensor shape = {.rank = form->leaf[i].rank};
        if (!(form->have >> i & 1u) || (form->begins && g->kind->begun >> i & 1u))
            continue;
        memcpy(shape.dim, form->leaf[i].dim, sizeof shape.dim);
        if (slr_tensor_count(&shape) < 1 ||
            slr_tensor_count(&shape) != slr_tensor_count(&tensor[i]))
            return slr_form_refuse(r->label, g->target, slr_kind_leaf(g->kind, i), &tensor[i],
                                   slr_shape_text(shape.dim, shape.rank, wanted));
    }
    return SDLORA_OK;
}

/* PEFT's (IA)^3 shows by its shape what others mark. */
static bool lacks_marker(const slr_group *g)
{
    bool have = !g->kind->marker || g->kind->marker_if_set;
    for (size_t k = 0; !have && k < g->n; k++)
        have = g->at[k].take == SLR_TAKE_FACTOR || !strcmp(g->at[k].leaf, g->kind->marker);
    return !have;
}

static int missing(const slr_reading *r, const slr_group *g)
{
    if (lacks_marker(g))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s.%s is missing", r->label, g->target->name,
                        g->kind->marker);
    for (int i = 0; i < SLR_KIND_OWN; i++) {
        bool have = false;
        for (size_t k = 0; k < g->n; k++)
            have = have || leaf_index(g->kind, g->at[k].leaf) == i;
        if (g->kind->needs >> i & 1u && !have)
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s.%s is missing", r->label,
                            g->target->name, g->kind->leaf[i]);
    }
    return SDLORA_OK;
}

/* A tensor `scale` overrides the alpha, and so do PEFT's settings; both become an alpha where the
 * kind has a rank, so that the network is saved as it was read. */
static int settle_scale(const slr_reading *r, const slr_group *g, slr_form *form)
{
    const slr_kind *kind = g->kind;
    double told = g->scale;
    if (isnan(told) && isnan(g->alpha) && g->peft && !kind->no_alpha)
        SLR_TRY(slr_peft_scale(r->peft, g->target, form->rank, &told));
    if (!isnan(told)) {
        form->scale = told;
        if (form->rank > 0)
            form->alpha = told * (double)form->rank;
        return SDLORA_OK;
    }
    if (isnan(form->alpha) && form->rank > 0 && !kind->no_alpha)
        form->alpha = (double)form->rank;
    if (isnan(form->scale))
        form->scale = slr_form_scale(form);
    return SDLORA_OK;
}

/* A module is whole, and fits its layer. */
static int check_group(slr_reading *r, slr_group *g, slr_form *form,
                       slr_tensor tensor[SLR_KIND_LEAVES])
{
    const slr_kind *kind = g->kind;
    *form = (slr_form){.alpha = g->alpha, .scale = NAN};
    SLR_TRY(sort_leaves(r, g, form, tensor));
    SLR_TRY(slr_reading_check(r)); /* a mistyped key explains a missing one */
    SLR_TRY(missing(r, g));
    if (kind->takes ? !kind->takes(g->target) : g->target->norm)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is not a layer that %s can adapt",
                        r->label, g->target->name, kind->name);
    SLR_TRY(kind->read(g->target, tensor, r->label, form));
    if (form->have >> SLR_LEAF_DORA & 1u)
        SLR_TRY(read_dora(r, g->target, &tensor[SLR_LEAF_DORA], form));
    SLR_TRY(slr_group_extras(r, g, tensor, form));
    SLR_TRY(settle_scale(r, g, form));
    SLR_TRY(check_counts(r, g, form, tensor));
    return slr_group_scale(r, g, form);
}

/* Kinds name modules as kohya does: a file of another dialect is quoted, too. */
static int quote(const slr_group *g, int rc)
{
    const char *key = g->n ? g->at[0].key : g->alpha_key;
    size_t n = strlen(g->target->name);
    slr_error_copy e;
    if (rc >= 0 || rc == SDLORA_ENOMEM || !key || !strncmp(key, g->target->name, n))
        return rc;
    slr_error_take(&e);
    return strstr(e.text, key) || !strstr(e.text, g->target->name)
               ? rc
               : slr_fail(e.code, e.where, "%s (%s in the file)", e.text, key);
}

static int leave_out(slr_reading *r, const slr_group *g)
{
    for (size_t i = 0; i < g->n; i++) {
        SLR_TRY(slr_reading_known(r, g->at[i].key, g->at[i].leaf));
        SLR_TRY(slr_reading_strange(r, g->at[i].key));
    }
    if (g->n || (!g->alpha_key && !g->scale_key))
        return SDLORA_OK;
    if (r->skip)
        return slr_reading_strange(r, g->alpha_key ? g->alpha_key : g->scale_key);
    return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has an alpha and no weights", r->label,
                    g->target->name);
}

int slr_group_add(slr_reading *r, slr_group *g)
{
    slr_form form;
    slr_tensor tensor[SLR_KIND_LEAVES] = {0};
    slr_group_drop_empty(g);
    g->kind = kind_of(g);
    if (!g->kind)
        return leave_out(r, g);
    SLR_TRY(quote(g, check_group(r, g, &form, tensor)));
    return slr_network_add(r->network, g->kind, g->target, &form, NULL);
}

int slr_group_copy(slr_reading *r, const slr_group *g)
{
    slr_network *n = r->network;
    const slr_module *mod = g->kind ? slr_network_find(n, g->target->part, g->target->path) : NULL;
    for (size_t i = 0; mod && i < g->n; i++) {
        int leaf = leaf_index(mod->kind, g->at[i].leaf);
        if (leaf < 0)
            continue;
        const slr_network_slot *slot = slr_module_slot(mod, &n->slot[mod->slot], leaf);
        if (g->at[i].values)
            memcpy(n->params + slot->offset, g->at[i].values, slot->count * sizeof(float));
        else
            SLR_TRY(slr_tensor_to_f32(&g->at[i].tensor, n->params + slot->offset));
    }
    return SDLORA_OK;
}
