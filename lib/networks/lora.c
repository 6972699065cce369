/* SPDX-License-Identifier: MIT */
/* LoRA and LoCon: W' = W + s up down, s = strength * alpha / rank (training.md §2.1).  Linear and
 * 1x1 layers are two thin products; a k x k convolution is a k x k convolution down to the rank and
 * a 1x1 up. */
#include "networks/kind.h"

#include <math.h>

#include "base/status.h"

enum { DOWN = 0, UP = 1 };

/* down [r,in(,kh,kw)], up [out,r(,1,1)]: 4-D exactly when the layer's weight is. */
static void shapes(const slr_module *mod, slr_network_slot *slots)
{
    const slr_target *t = &mod->target;
    slots[DOWN] = (slr_network_slot){.rank = 2, .dim = {mod->rank, t->in}};
    slots[UP] = (slr_network_slot){.rank = 2, .dim = {t->out, mod->rank}};
    if (!t->conv)
        return;
    slots[DOWN].rank = slots[UP].rank = 4;
    slots[DOWN].dim[2] = t->kh;
    slots[DOWN].dim[3] = t->kw;
    slots[UP].dim[2] = slots[UP].dim[3] = 1;
}

/* True for [a,b], and for [a,b,kh,kw]; a 1x1 may be written either way. */
static bool fits(const slr_tensor *t, int64_t a, int64_t b, int64_t kh, int64_t kw)
{
    if (t->rank < 2 || t->dim[0] != a || t->dim[1] != b)
        return false;
    if (t->rank == 2)
        return kh == 1 && kw == 1;
    return t->rank == 4 && t->dim[2] == kh && t->dim[3] == kw;
}

static int rank_of(const slr_target *target, const slr_tensor *t, const char *label, int64_t *rank)
{
    char down[96], up[96];
    int64_t r = t[DOWN].rank > 0 ? t[DOWN].dim[0] : 0;
    if (r < 1 || !fits(&t[DOWN], r, target->in, target->kh, target->kw) ||
        !fits(&t[UP], target->out, r, 1, 1))
        return slr_fail(
            SDLORA_EFORMAT, __func__,
            "%s: %s has down %s and up %s, but the layer takes %lld inputs to %lld outputs with a "
            "%lldx%lld kernel",
            label, target->name, slr_shape_text(t[DOWN].dim, t[DOWN].rank, down),
            slr_shape_text(t[UP].dim, t[UP].rank, up), (long long)target->in,
            (long long)target->out, (long long)target->kh, (long long)target->kw);
    *rank = r;
    return SDLORA_OK;
}

/* down: kaiming-uniform with a = sqrt 5, which is U(-1/sqrt(fan_in), 1/sqrt(fan_in)); up: zeros. */
static void init(const slr_module *mod, const slr_network_slot *slots, float *params, slr_rng *rng)
{
    const slr_target *t = &mod->target;
    double bound = 1.0 / sqrt((double)(t->in * t->kh * t->kw));
    float *down = params + slots[DOWN].offset;
    for (size_t i = 0; i < slots[DOWN].count; i++)
        down[i] = (float)((2.0 * slr_rng_real(rng) - 1.0) * bound);
    float *up = params + slots[UP].offset;
    for (size_t i = 0; i < slots[UP].count; i++)
        up[i] = 0.0f;
}

static slr_val matrix(slr_graph *g, slr_val v)
{
    int64_t dim[2] = {slr_dim(g, v, 0), slr_dim(g, v, 1)};
    return slr_reshape(g, v, 2, dim);
}

/* Ones of the given shape with Bernoulli zeros; the kept are 1/(1-p). */
static slr_val mask(const slr_apply *a, int rank, const int64_t *dim, double p, int64_t stream)
{
    slr_val ones = slr_fill(a->g, rank, dim, 1.0);
    return slr_dropout(a->g, ones, a->seed, p, stream, 1);
}

/* kohya: rank_dropout draws one mask per sample and rank channel. */
static slr_val drop_ranks(const slr_apply *a, slr_val d, double p)
{
    slr_shape s = slr_shape_of(a->g, d);
    int64_t dim[SLR_MAX_RANK];
    for (int i = 0; i < s.rank; i++)
        dim[i] = i == 0 || i == s.rank - 1 ? s.dim[i] : 1;
    return slr_mul(a->g, d, mask(a, s.rank, dim, p, a->stream + 1));
}

/* kohya: module_dropout skips the whole module for this pass and does not rescale the others. */
static slr_val drop_module(const slr_apply *a, slr_val d, double p)
{
    slr_shape s = slr_shape_of(a->g, d);
    int64_t dim[SLR_MAX_RANK];
    for (int i = 0; i < s.rank; i++)
        dim[i] = 1;
    slr_val keep = slr_affine(a->g, mask(a, s.rank, dim, p, a->stream + 2), 1.0 - p, 0.0);
    return slr_mul(a->g, d, keep);
}

static slr_val dropouts(const slr_apply *a, slr_val d)
{
    if (a->seed == SLR_NONE)
        return d;
    double p = slr_network_arg(a->network, "network_dropout", 0);
    if (p > 0)
        d = slr_dropout(a->g, d, a->seed, p, a->stream, 1);
    p = slr_network_arg(a->network, "rank_dropout", 0);
    if (p > 0)
        d = drop_ranks(a, d, p);
    p = slr_network_arg(a->network, "module_dropout", 0);
    if (p > 0)
        d = drop_module(a, d, p);
    return d;
}

static slr_val output(const slr_apply *a, const slr_module *mod, slr_val x, slr_val y)
{
    slr_graph *g = a->g;
    bool spatial = mod->target.kh * mod->target.kw > 1;
    slr_val d = spatial
                    ? slr_conv2d(g, x, a->param[DOWN], SLR_NONE, SLR_NONE, a->layer->geometry, 1.0)
                    : slr_linear(g, x, matrix(g, a->param[DOWN]), SLR_NONE, SLR_NONE);
    d = dropouts(a, d);
    return slr_matmul(g, d, matrix(g, a->param[UP]), SLR_NONE, y, false, true,
                      slr_module_scale(mod));
}

/* Row by row: w[o] += s sum_p up[o,p] down[p]; one row of w and the rank rows of down stay in
 * cache. */
static void merge(const slr_module *mod, const slr_network_slot *slots, const float *params,
                  double strength, int64_t row_lo, int64_t row_hi, float *w)
{
    int64_t width = mod->target.in * mod->target.kh * mod->target.kw;
    const float *down = params + slots[DOWN].offset, *up = params + slots[UP].offset;
    double scale = strength * slr_module_scale(mod);
    for (int64_t o = row_lo; o < row_hi; o++) {
        float *row = w + o * width;
        for (int64_t p = 0; p < mod->rank; p++) {
            float f = (float)(scale * up[o * mod->rank + p]);
            const float *d = down + p * width;
            for (int64_t i = 0; i < width; i++)
                row[i] += f * d[i];
        }
    }
}

const slr_kind slr_kind_lora = {
    .name = "lora",
    .n_slots = 2,
    .leaf = {[DOWN] = "lora_down.weight", [UP] = "lora_up.weight"},
    .shapes = shapes,
    .rank = rank_of,
    .init = init,
    .output = output,
    .merge = merge,
};
