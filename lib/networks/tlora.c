/* SPDX-License-Identifier: MIT */
/* T-LoRA (arXiv 2507.05964) as LyCORIS has it: D = P diag(l) Q - P0 diag(l0) Q0, where the latter
 * are singular vectors and values that the former begin as, so that a new module does nothing.
 * While it is trained, a sample may use the fewer ranks the noisier it is.  Files hold P, Q and l;
 * readers find the rest again in the frozen weight if it was its first singular vectors that they
 * began with, and else it stands beside them under the names of LyCORIS' buffers.  Linear and 1x1
 * layers: LyCORIS fails on larger kernels. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "networks/kind.h"
#include "tensor/linalg.h"

enum { Q = 0, P = 1, LAMBDA = 2, Q0 = 3, P0 = 4, LAMBDA0 = 5 };

#define BEGUN    (1u << Q0 | 1u << P0 | 1u << LAMBDA0)

#define NO_VALUE 1e-6f /* LyCORIS: of ranks for which there is no singular value */

static bool takes(const slr_target *t)
{
    return !t->norm && t->kh * t->kw == 1;
}

static void add(const slr_target *t, int64_t r, slr_form *form)
{
    int rank = t->conv ? 4 : 2;
    for (int i = 0; i <= Q0; i += Q0) {
        slr_form_add(form, i + Q, rank, (int64_t[]){r, t->in, 1, 1});
        slr_form_add(form, i + P, rank, (int64_t[]){t->out, r, 1, 1});
        slr_form_add(form, i + LAMBDA, 2, (int64_t[]){1, r});
    }
}

/* Which singular vectors a module begins with: the first of `count` values for `r` ranks. */
static int64_t principal(int64_t count, int64_t r)
{
    (void)count, (void)r;
    return 0;
}

static int64_t middle(int64_t count, int64_t r)
{
    return (count - r) / 2;
}

static int64_t last(int64_t count, int64_t r)
{
    return count - r;
}

static const struct {
    const char *name;
    int64_t (*first)(int64_t count, int64_t r);
} types[] = {{"principal", principal}, {"middle", middle}, {"last", last}};
enum { N_TYPES = sizeof types / sizeof *types };

/* N_TYPES: there is none of that name. */
static size_t type_of(const slr_settings *set)
{
    size_t i = 0;
    while (set->sig_type && i < N_TYPES && strcmp(set->sig_type, types[i].name) != 0)
        i++;
    return i;
}

static int make(const slr_settings *set, const slr_target *t, slr_form *form)
{
    if (type_of(set) == N_TYPES)
        return slr_fail(SDLORA_EINVAL, __func__, "sig_type=%s is not principal, middle or last",
                        set->sig_type);
    add(t, set->dim, form);
    form->alpha = set->alpha; /* LyCORIS' T-LoRA has no rs_lora */
    form->scale = slr_form_scale(form);
    form->begins = set->data_init && type_of(set) == 0;
    return SDLORA_OK;
}

static int read(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    int64_t r = leaf[Q].rank > 0 ? leaf[Q].dim[0] : 0;
    uint32_t told = form->have & BEGUN;
    if (told && told != BEGUN)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: %s has only some of base_q, base_p and base_lambda", label, t->name);
    for (int i = 0; i <= (told ? Q0 : 0); i += Q0) {
        if (r < 1 || !slr_fits(&leaf[i + Q], r, t->in, 1, 1))
            return slr_form_refuse(label, t, slr_kind_tlora.leaf[i + Q], &leaf[i + Q],
                                   "ranks by inputs");
        if (!slr_fits(&leaf[i + P], t->out, r, 1, 1))
            return slr_form_refuse(label, t, slr_kind_tlora.leaf[i + P], &leaf[i + P],
                                   "outputs by ranks");
        if (slr_tensor_count(&leaf[i + LAMBDA]) != r)
            return slr_form_refuse(label, t, slr_kind_tlora.leaf[i + LAMBDA], &leaf[i + LAMBDA],
                                   "one number for each rank");
    }
    form->rank = r;
    form->begins = !told;
    add(t, r, form);
    return SDLORA_OK;
}

/* Rank i is singular value first + i of `count`; ranks behind them are zeros. */
static void take_values(const slr_module *mod, const slr_network_slot *slots, float *params,
                        const double *s, int64_t count, int64_t first, const float *up,
                        const float *down)
{
    const slr_target *t = &mod->target;
    int64_t r = mod->rank, taken = r < count ? r : count, all = first + taken;
    float *q = params + slr_module_slot(mod, slots, Q0)->offset,
          *p = params + slr_module_slot(mod, slots, P0)->offset,
          *lambda = params + slr_module_slot(mod, slots, LAMBDA0)->offset;
    memset(q, 0, (size_t)(r * t->in) * sizeof *q);
    for (int64_t i = 0; i < r; i++) {
        int64_t at = first + i;
        bool real = i < taken;
        lambda[i] = real ? (float)s[at] : NO_VALUE;
        if (real)
            memcpy(q + i * t->in, down + at * t->in, (size_t)t->in * sizeof *q);
        for (int64_t o = 0; o < t->out; o++)
            p[o * r + i] = real && s[at] > 0 ? (float)(up[o * all + at] / s[at]) : 0;
    }
}

static int begin(const slr_module *mod, const slr_network_slot *slots, float *params, slr_mem *m,
                 const float *w)
{
    const slr_target *t = &mod->target;
    slr_svd *svd;
    int64_t n, r = mod->rank;
    SLR_TRY(slr_svd_dense(&svd, m, w, t->out, t->in));
    const double *s = slr_svd_values(svd, &n);
    int64_t first = r < n ? types[type_of(mod->set)].first(n, r) : 0, all = first + (r < n ? r : n);
    float *up = slr_alloc(m, (size_t)(t->out * all) * sizeof *up),
          *down = slr_alloc(m, (size_t)(all * t->in) * sizeof *down);
    int rc = up && down ? slr_svd_factors(svd, all, up, down) : SDLORA_ENOMEM;
    if (rc >= 0)
        take_values(mod, slots, params, s, n, first, up, down);
    slr_free(m, up);
    slr_free(m, down);
    slr_svd_free(svd);
    return rc;
}

/* What it begins as is there already. */
static void init(const slr_module *mod, const slr_network_slot *slots, float *params, slr_rng *rng)
{
    (void)rng;
    for (int i = 0; i < Q0; i++) {
        const slr_network_slot *to = slr_module_slot(mod, slots, i);
        memcpy(params + to->offset, params + slr_module_slot(mod, slots, i + Q0)->offset,
               to->count * sizeof *params);
    }
}

/* D = up down with down = [Q; Q - Q0] and up = [P l - P0 l0, P0 l0]: each half is small while
 * little has been learnt, where the plain difference of two products would be lost in their
 * rounding. */
static void both(const slr_apply *a, slr_val *down, slr_val *up)
{
    slr_graph *g = a->g;
    uint32_t stored = slr_graph_storage(g, SDLORA_F32);
    slr_val q = slr_matrix(g, a->param[Q]), q0 = slr_matrix(g, a->param[Q0]);
    slr_val p = slr_mul(g, slr_matrix(g, a->param[P]), a->param[LAMBDA]),
            p0 = slr_mul(g, slr_matrix(g, a->param[P0]), a->param[LAMBDA0]);
    *down = slr_concat(g, (slr_val[]){q, slr_sub(g, q, q0)}, 2, 0);
    *up = slr_concat(g, (slr_val[]){slr_sub(g, p, p0), p0}, 2, 1);
    slr_graph_storage(g, stored);
}

static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    slr_val down, up;
    (void)mod, (void)w;
    both(a, &down, &up);
    return slr_delta_shape(a, slr_matmul(a->g, up, down, SLR_NONE, SLR_NONE, false, false, 1.0));
}

/* live: [n,rank] -> [n,1 ...,2 rank], as d has its axes. */
static slr_val masked(const slr_apply *a, slr_val d)
{
    slr_shape s = slr_shape_of(a->g, d);
    int64_t dim[SLR_MAX_RANK];
    for (int i = 0; i < s.rank; i++)
        dim[i] = i == 0 || i == s.rank - 1 ? s.dim[i] : 1;
    slr_val twice = slr_concat(a->g, (slr_val[]){*a->live, *a->live}, 2, 1);
    return slr_mul(a->g, d, slr_reshape(a->g, twice, s.rank, dim));
}

static slr_val output(const slr_apply *a, const slr_module *mod, slr_val x, slr_val y)
{
    slr_graph *g = a->g;
    const slr_settings *set = mod->set;
    slr_val down, up;
    both(a, &down, &up);
    slr_val d = slr_linear(g, x, down, SLR_NONE, SLR_NONE);
    if (a->live)
        d = masked(a, d);
    d = slr_drop_module(a, mod, d);
    if (!set->bypass || !(set->dropout > 0) || a->seed == SLR_NONE)
        return slr_matmul(g, d, up, SLR_NONE, y, false, true, mod->scale * a->strength);
    d = slr_matmul(g, d, up, SLR_NONE, SLR_NONE, false, true, mod->scale * a->strength);
    return slr_add(g, y, slr_dropout(g, d, a->seed, set->dropout, a->stream, 1));
}

const slr_kind slr_kind_tlora = {
    .name = "tlora",
    .leaf = {[Q] = "q_layer.weight",
             [P] = "p_layer.weight",
             [LAMBDA] = "lambda_layer",
             [Q0] = "base_q",
             [P0] = "base_p",
             [LAMBDA0] = "base_lambda"},
    .proof = 1u << LAMBDA,
    .needs = 1u << Q | 1u << P | 1u << LAMBDA,
    .begun = BEGUN,
    .takes = takes,
    .make = make,
    .read = read,
    .begin = begin,
    .init = init,
    .delta = delta,
    .output = output,
    .drops = true,
    .no_rows = true,
};

/* --- the mask --- */

bool slr_module_masked(const slr_module *mod)
{
    return mod->kind == &slr_kind_tlora && mod->target.part == SLR_PART_UNET &&
           (mod->set->min_rank > 0 || mod->set->rank_power > 0);
}

size_t slr_network_mask_width(const slr_network *n)
{
    int64_t width = 0;
    for (size_t i = 0; i < n->n_modules; i++)
        if (slr_module_masked(&n->module[i]) && n->module[i].rank > width)
            width = n->module[i].rank;
    return (size_t)width;
}

void slr_network_timestep_mask(const slr_network *n, double t, double of, float *mask)
{
    int64_t width = (int64_t)slr_network_mask_width(n);
    size_t i = 0;
    while (i < n->n_modules && !slr_module_masked(&n->module[i]))
        i++;
    if (i == n->n_modules)
        return;
    const slr_settings *set = n->module[i].set;
    int64_t least = set->min_rank > 0 ? set->min_rank : 1;
    double power = set->rank_power > 0 ? set->rank_power : 1.0;
    int64_t r = (int64_t)(pow((of - t) / of, power) * (double)(width - least)) + least;
    for (int64_t k = 0; k < width; k++)
        mask[k] = k < r ? 1.0f : 0.0f;
}
