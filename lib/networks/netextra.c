/* SPDX-License-Identifier: MIT */
/* What a module may hold beside its algorithm: a change of the bias, and a sparse residual, which
 * is three tensors that agree.  Refuses to know kinds and keys. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "networks/netread.h"

bool slr_group_has(const slr_group *g, const char *leaf)
{
    for (size_t i = 0; i < g->n; i++)
        if (!strcmp(g->at[i].leaf, leaf))
            return true;
    return false;
}

/* LyCORIS writes one where nothing is left over; with values it is broken. */
void slr_group_drop_empty(slr_group *g)
{
    static const char *const leaves[] = {"bias_indices", "bias_values", SLR_RESIDUAL_SIZE};
    bool empty = false, full = false;
    size_t n = 0;
    for (size_t i = 0; i < g->n; i++) {
        const slr_tensor *t = &g->at[i].tensor;
        empty = empty || (!strcmp(g->at[i].leaf, leaves[0]) && t->rank == 2 && t->dim[0] == 2 &&
                          t->dim[1] == 0);
        full = full || (!strcmp(g->at[i].leaf, leaves[1]) && slr_tensor_count(t) > 0);
    }
    for (size_t i = 0; empty && !full && i < g->n; i++) {
        bool gone = false;
        for (int k = 0; k < 3; k++)
            gone = gone || !strcmp(g->at[i].leaf, leaves[k]);
        if (!gone)
            g->at[n++] = g->at[i];
    }
    g->n = empty && !full ? n : g->n;
}

/* Whole numbers of any type that files have; slr_residual_fill() takes them as they are. */
int slr_group_places(slr_reading *r, slr_group *g, size_t i)
{
    const slr_target *t = g->target;
    const slr_tensor *x = &g->at[i].tensor;
    int64_t most[2] = {t->out, slr_target_fan_in(t)}, n = x->rank == 2 ? x->dim[1] : 0;
    if (x->rank != 2 || x->dim[0] != 2 || n < 1 || !slr_dtype(x->dtype) || t->norm)
        return slr_form_refuse(r->label, t, g->at[i].leaf, x, "[2,values] of a matrix");
    float *values = slr_alloc(r->m, (size_t)(2 * n) * sizeof *values);
    if (!values)
        return SDLORA_ENOMEM;
    g->at[i].values = values;
    slr_dtype(x->dtype)->to_f32(values, x->data, (size_t)(2 * n));
    for (int64_t k = 0; k < 2 * n; k++)
        if (!(values[k] >= 0 && values[k] < (float)most[k / n] && values[k] == floorf(values[k])))
            return slr_fail(SDLORA_EFORMAT, __func__,
                            "%s: %s has %g for a place, outside of the weight's [%lld,%lld]",
                            r->label, g->at[i].key, (double)values[k], (long long)most[0],
                            (long long)most[1]);
    return SDLORA_OK;
}

/* The size says once more what the layer's weight is. */
int slr_group_size(const slr_reading *r, const slr_group *g, size_t i)
{
    const slr_tensor *x = &g->at[i].tensor;
    float have[2] = {0};
    if (x->rank != 1 || x->dim[0] != 2 || !slr_dtype(x->dtype))
        return slr_form_refuse(r->label, g->target, g->at[i].leaf, x, "[2]");
    slr_dtype(x->dtype)->to_f32(have, x->data, 2);
    if (have[0] != (float)g->target->out || have[1] != (float)slr_target_fan_in(g->target))
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: %s says [%g,%g], and the weight as a matrix is [%lld,%lld]", r->label,
                        g->at[i].key, (double)have[0], (double)have[1], (long long)g->target->out,
                        (long long)slr_target_fan_in(g->target));
    return SDLORA_OK;
}

/* The residual is three tensors or none.  As many values as places: check_counts(). */
static int read_residual(const slr_reading *r, const slr_group *g, const slr_tensor *tensor,
                         slr_form *form)
{
    static const int leaves[] = {SLR_LEAF_SPARSE, SLR_LEAF_PLACES};
    bool any = slr_group_has(g, SLR_RESIDUAL_SIZE);
    for (int i = 0; i < 2; i++)
        any = any || form->have >> leaves[i] & 1u;
    for (int i = 0; any && i < 2; i++)
        if (!(form->have >> leaves[i] & 1u))
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s.%s is missing", r->label,
                            g->target->name, slr_kind_leaf(g->kind, leaves[i]));
    if (!any)
        return SDLORA_OK;
    int64_t dim[2] = {2, tensor[SLR_LEAF_PLACES].dim[1]};
    slr_form_add(form, SLR_LEAF_PLACES, 2, dim);
    slr_form_add(form, SLR_LEAF_SPARSE, 1, dim + 1);
    return SDLORA_OK;
}

static int read_diff_b(const slr_reading *r, const slr_target *t, const slr_tensor *have,
                       slr_form *form)
{
    if (slr_tensor_count(have) != t->out)
        return slr_form_refuse(r->label, t, "diff_b", have, "one number for each output");
    slr_form_add(form, SLR_LEAF_DIFF_B, 1, &t->out);
    return SDLORA_OK;
}

int slr_group_scale(slr_reading *r, slr_group *g, const slr_form *form)
{
    size_t i = 0;
    while (i < g->n && g->at[i].take != SLR_TAKE_SCALED)
        i++;
    if (i == g->n)
        return SDLORA_OK;
    if (g->kind != &slr_kind_lora)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s stands without a LoRA's factors",
                        r->label, g->at[i].key);
    size_t count = (size_t)g->target->out;
    float *values = slr_alloc(r->m, count * sizeof *values);
    if (!values)
        return SDLORA_ENOMEM;
    g->at[i].values = values;
    SLR_TRY(slr_tensor_to_f32(&g->at[i].tensor, values));
    for (size_t k = 0; k < count; k++)
        values[k] *= (float)form->scale;
    return SDLORA_OK;
}

int slr_group_extras(const slr_reading *r, const slr_group *g, const slr_tensor *tensor,
                     slr_form *form)
{
    if (form->have >> SLR_LEAF_DIFF_B & 1u)
        SLR_TRY(read_diff_b(r, g->target, &tensor[SLR_LEAF_DIFF_B], form));
    return read_residual(r, g, tensor, form);
}
