/* SPDX-License-Identifier: MIT */
/* LoRA and LoCon: D = up down.  Linear and 1x1 layers are two thin products; a k x k convolution is
 * a k x k convolution down to the rank and a 1x1 up, or with a tucker core 1x1 down, k x k among
 * the ranks, 1x1 up. */
#include "networks/kind.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

enum { DOWN = 0, UP = 1, MID = 2 };

static bool spatial(const slr_target *t)
{
    return t->kh * t->kw > 1;
}

/* down [r,in(,kh,kw)], up [out,r(,1,1)]: 4-D exactly when the layer's weight is. */
static void add_factors(const slr_target *t, int64_t r, bool tucker, slr_form *form)
{
    bool kernel = spatial(t) && !tucker;
    int rank = t->conv ? 4 : 2;
    slr_form_add(form, DOWN, rank, (int64_t[]){r, t->in, kernel ? t->kh : 1, kernel ? t->kw : 1});
    slr_form_add(form, UP, rank, (int64_t[]){t->out, r, 1, 1});
    if (tucker)
        slr_form_add(form, MID, 4, (int64_t[]){r, r, t->kh, t->kw});
}

static int make(const slr_settings *set, const slr_target *t, slr_form *form)
{
    add_factors(t, set->dim, set->tucker && spatial(t), form);
    return SDLORA_OK;
}

static int read(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    char down[96], up[96], mid[96];
    bool tucker = form->have >> MID & 1u;
    int64_t r = leaf[DOWN].rank > 0 ? leaf[DOWN].dim[0] : 0;
    bool good = (form->have & 3u) == 3u && r >= 1 && slr_fits(&leaf[UP], t->out, r, 1, 1) &&
                slr_fits(&leaf[DOWN], r, t->in, tucker ? 1 : t->kh, tucker ? 1 : t->kw) &&
                (!tucker || (spatial(t) && slr_fits(&leaf[MID], r, r, t->kh, t->kw)));
    if (!good)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: %s has down %s and up %s%s%s, but the layer takes %lld inputs to %lld "
                        "outputs with "
                        "a %lldx%lld kernel",
                        label, t->name, slr_shape_text(leaf[DOWN].dim, leaf[DOWN].rank, down),
                        slr_shape_text(leaf[UP].dim, leaf[UP].rank, up), tucker ? " and mid " : "",
                        tucker ? slr_shape_text(leaf[MID].dim, leaf[MID].rank, mid) : "",
                        (long long)t->in, (long long)t->out, (long long)t->kh, (long long)t->kw);
    form->rank = r;
    add_factors(t, r, tucker, form);
    return SDLORA_OK;
}

/* up is zero, and so is the whole; with a scalar that starts at zero, up is not. */
static void init(const slr_module *mod, const slr_network_slot *slots, float *params, slr_rng *rng)
{
    const slr_network_slot *down = slr_module_slot(mod, slots, DOWN),
                           *up = slr_module_slot(mod, slots, UP),
                           *mid = slr_module_slot(mod, slots, MID);
    double std = sqrt(2.0 / (double)(mod->target.in + mod->rank)); /* LoRA-FA's, of kohya */
    if (mod->set->frozen_down)
        slr_init_normal(params + down->offset, down->count, std, rng);
    else
        slr_init_kaiming(params + down->offset, down->count, (int64_t)down->count / mod->rank, rng);
    if (slr_module_has(mod, SLR_LEAF_SCALAR))
        slr_init_kaiming(params + up->offset, up->count, mod->rank, rng);
    if (mid)
        slr_init_kaiming(params + mid->offset, mid->count, (int64_t)mid->count / mod->rank, rng);
}

static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    (void)w;
    slr_graph *g = a->g;
    slr_val down = a->param[MID] == SLR_NONE ? slr_matrix(g, a->param[DOWN])
                                             : slr_tucker_rows(g, a->param[MID], a->param[DOWN]);
    slr_val up = slr_matrix(g, a->param[UP]);
    int64_t rank = slr_module_dyn(mod, a->dyn);
    if (rank < mod->rank) {
        down = slr_slice(g, down, 0, 0, rank);
        up = slr_slice(g, up, 1, 0, rank);
    }
    return slr_delta_shape(a, slr_matmul(g, up, down, SLR_NONE, SLR_NONE, false, false, 1.0));
}

/* kohya: rank_dropout draws one mask per sample and rank channel. */
static slr_val drop_ranks(const slr_apply *a, slr_val d, double p)
{
    slr_shape s = slr_shape_of(a->g, d);
    int64_t dim[SLR_MAX_RANK];
    for (int i = 0; i < s.rank; i++)
        dim[i] = i == 0 || i == s.rank - 1 ? s.dim[i] : 1;
    return slr_mul(a->g, d, slr_drop_mask(a, s.rank, dim, p, 1));
}

/* LyCORIS, in bypass_mode: one mask for the batch, not made up for unless rank_dropout_scale. */
static slr_val drop_ranks_alike(const slr_apply *a, const slr_settings *set, slr_val d)
{
    slr_shape s = slr_shape_of(a->g, d);
    int64_t dim[SLR_MAX_RANK];
    for (int i = 0; i < s.rank; i++)
        dim[i] = i == s.rank - 1 ? s.dim[i] : 1;
    slr_val keep = slr_drop_mask(a, s.rank, dim, set->rank_dropout, 1);
    if (!set->rank_dropout_scale)
        keep = slr_affine(a->g, keep, 1.0 - set->rank_dropout, 0.0);
    return slr_mul(a->g, d, keep);
}

/* Of values by rank.  LyCORIS has the dropout behind `up`, and only in bypass_mode. */
static slr_val dropouts(const slr_apply *a, const slr_module *mod, slr_val d)
{
    const slr_settings *set = mod->set;
    if (a->seed == SLR_NONE)
        return d;
    if (set->dropout > 0 && !set->lycoris)
        d = slr_dropout(a->g, d, a->seed, set->dropout, a->stream, 1);
    if (set->rank_dropout > 0)
        d = set->lycoris ? drop_ranks_alike(a, set, d) : drop_ranks(a, d, set->rank_dropout);
    return slr_drop_module(a, mod, d);
}

/* DyLoRA: the ranks of this pass. */
static slr_val live_ranks(const slr_apply *a, slr_val d)
{
    slr_shape s = slr_shape_of(a->g, d);
    int64_t dim[SLR_MAX_RANK];
    for (int i = 0; i < s.rank; i++)
        dim[i] = i == s.rank - 1 ? s.dim[i] : 1;
    return a->live ? slr_mul(a->g, d, slr_reshape(a->g, *a->live, s.rank, dim)) : d;
}

static slr_val output(const slr_apply *a, const slr_module *mod, slr_val x, slr_val y)
{
    slr_graph *g = a->g;
    slr_val up = slr_matrix(g, a->param[UP]), mid = a->param[MID],
            scalar = a->param[SLR_LEAF_SCALAR];
    slr_val kernel = mid == SLR_NONE ? a->param[DOWN] : mid, d = x;
    if (mid != SLR_NONE)
        d = slr_linear(g, d, slr_matrix(g, a->param[DOWN]), SLR_NONE, SLR_NONE);
    d = spatial(&mod->target)
            ? slr_conv2d(g, d, kernel, SLR_NONE, SLR_NONE, a->layer->geometry, 1.0)
            : slr_linear(g, d, slr_matrix(g, kernel), SLR_NONE, SLR_NONE);
    d = dropouts(a, mod, live_ranks(a, d));
    if (scalar != SLR_NONE)
        up = slr_mul(g, up, slr_reshape(g, scalar, 2, (int64_t[]){1, 1}));
    if (mod->set->lycoris && mod->set->bypass && mod->set->dropout > 0 && a->seed != SLR_NONE) {
        d = slr_matmul(g, d, up, SLR_NONE, SLR_NONE, false, true, mod->scale * a->strength);
        return slr_add(g, y, slr_dropout(g, d, a->seed, mod->set->dropout, a->stream, 1));
    }
    return slr_matmul(g, d, up, SLR_NONE, y, false, true, mod->scale * a->strength);
}

/* One row of a kernel that a tucker core spreads: down[p,i,tap] = sum_q mid[p,q,tap] first[q,i]. */
static void tucker_row(const slr_module *mod, const float *mid, const float *first, float *row)
{
    int64_t taps = mod->target.kh * mod->target.kw, in = mod->target.in;
    memset(row, 0, (size_t)(in * taps) * sizeof *row);
    for (int64_t q = 0; q < mod->rank; q++)
        for (int64_t i = 0; i < in; i++)
            for (int64_t k = 0; k < taps; k++)
                row[i * taps + k] += mid[q * taps + k] * first[q * in + i];
}

static void factors(const slr_module *mod, const slr_network_slot *slots, const float *params,
                    int64_t rank, float *down, float *up, int64_t up_stride)
{
    const slr_network_slot *mid = slr_module_slot(mod, slots, MID),
                           *scalar = slr_module_slot(mod, slots, SLR_LEAF_SCALAR);
    const float *first = params + slr_module_slot(mod, slots, DOWN)->offset,
                *second = params + slr_module_slot(mod, slots, UP)->offset;
    int64_t width = slr_target_fan_in(&mod->target), taps = mod->target.kh * mod->target.kw;
    float scale = (float)(mod->scale * (scalar ? (double)params[scalar->offset] : 1.0));
    for (int64_t p = 0; mid && p < rank; p++)
        tucker_row(mod, params + mid->offset + p * mod->rank * taps, first, down + p * width);
    if (!mid)
        memcpy(down, first, (size_t)(rank * width) * sizeof *down);
    for (int64_t o = 0; o < mod->target.out; o++)
        for (int64_t p = 0; p < rank; p++)
            up[o * up_stride + p] = scale * second[o * mod->rank + p];
}

const slr_kind slr_kind_lora = {
    .name = "lora",
    .leaf = {[DOWN] = "lora_down.weight", [UP] = "lora_up.weight", [MID] = "lora_mid.weight"},
    .proof = 1u << DOWN | 1u << UP,
    .needs = 1u << DOWN | 1u << UP,
    .plus = 1u << UP,
    .scalar_into = 1u << UP,
    .whole = 1u << MID,
    .make = make,
    .read = read,
    .init = init,
    .delta = delta,
    .output = output,
    .drops = true,
    .factors = factors,
};
