/* SPDX-License-Identifier: MIT */
/* A frozen value with a module's change, as graph operations: W' = W + strength * delta, where
 * delta is scale * (scalar * D + residual), or what DoRA makes of it.  The one place where
 * strength, scalar, DoRA and the dropout of rows and modules are known, for training, merging and
 * applying alike. */
#include <float.h>

#include "networks/kind.h"

slr_val slr_drop_mask(const slr_apply *a, int rank, const int64_t *dim, double p, int which)
{
    slr_val ones = slr_fill(a->g, rank, dim, 1.0);
    return slr_dropout(a->g, ones, a->seed, p, a->stream + which, 1);
}

static slr_val f32(slr_graph *g, slr_val v)
{
    return slr_shape_of(g, v).dtype == SDLORA_F32 ? v : slr_cast(g, v, SDLORA_F32);
}

/* LyCORIS: a Bernoulli for each row of D, not made up for unless rank_dropout_scale (which LyCORIS
 * takes from the drawn mean, and we from its expectation). */
slr_val slr_drop_rows(const slr_apply *a, const slr_module *mod, slr_val d, int axis)
{
    double p = mod->set->rank_dropout;
    if (a->seed == SLR_NONE || !(p > 0) || mod->kind->no_rows)
        return d;
    slr_shape s = slr_shape_of(a->g, d);
    int64_t dim[SLR_MAX_RANK];
    for (int i = 0; i < s.rank; i++)
        dim[i] = i == axis ? s.dim[i] : 1;
    slr_val keep = slr_drop_mask(a, s.rank, dim, p, 1);
    if (!mod->set->rank_dropout_scale)
        keep = slr_affine(a->g, keep, 1.0 - p, 0.0);
    return slr_mul(a->g, d, keep);
}

slr_val slr_drop_module(const slr_apply *a, const slr_module *mod, slr_val d)
{
    double p = mod->set->module_dropout;
    if (a->seed == SLR_NONE || !(p > 0))
        return d;
    int64_t one[SLR_MAX_RANK] = {1, 1, 1, 1, 1, 1};
    slr_val keep = slr_drop_mask(a, slr_shape_of(a->g, d).rank, one, p, 2);
    return slr_mul(a->g, d, slr_affine(a->g, keep, 1.0 - p, 0.0));
}

/* v * m / |v|, the norm taken over all axes but the one that m has: rows [out,1..] or columns
 * [1,in..] (LyCORIS adds the smallest step above 1 to the norm). */
static slr_val decompose(const slr_apply *a, slr_val v, slr_val m)
{
    slr_graph *g = a->g;
    slr_shape s = slr_shape_of(g, v), ms = slr_shape_of(g, m);
    int64_t dim[SLR_MAX_RANK];
    for (int i = 0; i < s.rank; i++)
        dim[i] = ms.dim[0] == s.dim[0] ? (i == 0 ? s.dim[0] : 1) : (i == 1 ? s.dim[1] : 1);
    slr_val sum = slr_sum_to(g, slr_mul(g, v, v), s.rank, dim);
    slr_val norm = slr_affine(g, slr_pow(g, sum, 0.5), 1.0, FLT_EPSILON);
    slr_val ratio = slr_mul(g, slr_reshape(g, m, s.rank, dim), slr_pow(g, norm, -1.0));
    return slr_mul(g, v, ratio);
}

static slr_val scaled(const slr_apply *a, const slr_module *mod, slr_val w)
{
    slr_graph *g = a->g;
    slr_val d = mod->kind->delta(a, mod, w);
    slr_val scalar = a->param[SLR_LEAF_SCALAR];
    if (scalar != SLR_NONE) {
        int64_t one[SLR_MAX_RANK] = {1, 1, 1, 1, 1, 1};
        d = slr_mul(g, d, slr_reshape(g, scalar, slr_shape_of(g, d).rank, one));
    }
    if (a->param[SLR_LEAF_SPARSE] != SLR_NONE)
        d = slr_add(g, d, a->param[SLR_LEAF_SPARSE]);
    return mod->scale == 1.0 ? d : slr_affine(g, d, mod->scale, 0.0);
}

slr_val slr_rebuild_delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    slr_graph *g = a->g;
    slr_val d = slr_drop_rows(a, mod, scaled(a, mod, w), 0);
    if (a->param[SLR_LEAF_DORA] != SLR_NONE)
        d = slr_sub(g, decompose(a, slr_add(g, w, d), a->param[SLR_LEAF_DORA]), w);
    return slr_drop_module(a, mod, d);
}

static slr_val weight(const slr_apply *a, const slr_module *mod, slr_val v)
{
    slr_graph *g = a->g;
    slr_val w = f32(g, v), d = slr_rebuild_delta(a, mod, w);
    if (a->strength != 1.0)
        d = slr_affine(g, d, a->strength, 0.0);
    return slr_add(g, w, d);
}

static slr_val bias(const slr_apply *a, const slr_module *mod, slr_val v)
{
    slr_graph *g = a->g;
    slr_val d = a->param[slr_kind_bias(mod->kind)];
    if (d == SLR_NONE)
        return v;
    d = slr_drop_module(a, mod, d);
    if (a->strength != 1.0)
        d = slr_affine(g, d, a->strength, 0.0);
    return v == SLR_NONE ? d : slr_add(g, f32(g, v), d);
}

slr_val slr_rebuild_param(const slr_apply *a, const slr_module *mod, int leaf, slr_val v)
{
    /* What becomes of weights is summed in f32 whatever activations are stored in. */
    uint32_t stored = slr_graph_storage(a->g, SDLORA_F32);
    slr_val y = leaf == SLR_LEAF_WEIGHT ? weight(a, mod, v) : bias(a, mod, v);
    slr_graph_storage(a->g, stored);
    return y;
}

bool slr_rebuild_by_output(const slr_module *mod)
{
    const slr_settings *set = mod->set;
    bool rows =
        set->lycoris && set->rank_dropout > 0 && !set->bypass && !set->unit && !mod->kind->no_rows;
    bool values = set->lycoris && set->dropout > 0 && set->bypass && !mod->kind->drops;
    return mod->kind->output && !slr_module_has(mod, SLR_LEAF_DORA) && !rows && !values;
}
