/* SPDX-License-Identifier: MIT */
/* The table of network algorithms and what their files share: names of leaves, forms, initial
 * values.  Refuses to know any single algorithm. */
#include "networks/kind.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

/* In the order in which AUTOMATIC1111 tries them on a module. */
static const slr_kind *const kinds[] = {
    &slr_kind_lora,       &slr_kind_loha,  &slr_kind_ia3,      &slr_kind_lokr,  &slr_kind_full,
    &slr_kind_norm,       &slr_kind_glora, &slr_kind_diag_oft, &slr_kind_boft,  &slr_kind_oft_old,
    &slr_kind_oft_inputs, &slr_kind_oft,   &slr_kind_set,      &slr_kind_tlora,
};

const slr_kind *slr_kind_at(size_t i)
{
    return i < sizeof kinds / sizeof *kinds ? kinds[i] : NULL;
}

const slr_kind *slr_kind_named(const char *algo)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i]->name, algo))
            return kinds[i];
    return NULL;
}

const char *slr_kind_leaf(const slr_kind *kind, int leaf)
{
    static const char *const common[SLR_KIND_LEAVES] = {[SLR_LEAF_DORA] = "dora_scale",
                                                        [SLR_LEAF_SCALAR] = "scalar",
                                                        [SLR_LEAF_DIFF_B] = "diff_b",
                                                        [SLR_LEAF_SPARSE] = "bias_values",
                                                        [SLR_LEAF_PLACES] = "bias_indices"};
    if (leaf == SLR_LEAF_DIFF_B && kind->bias)
        return NULL;
    return leaf < SLR_KIND_OWN ? kind->leaf[leaf] : common[leaf];
}

int slr_kind_find(const slr_kind *kind, const char *leaf)
{
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        const char *name = slr_kind_leaf(kind, i);
        if (name && !strcmp(name, leaf))
            return i;
    }
    return -1;
}

int slr_kind_bias(const slr_kind *kind)
{
    return kind->bias ? kind->bias : SLR_LEAF_DIFF_B;
}

/* --- forms --- */

int64_t slr_target_fan_in(const slr_target *t)
{
    return t->in * t->kh * t->kw;
}

double slr_form_scale(const slr_form *form)
{
    return form->rank > 0 && !isnan(form->alpha) ? form->alpha / (double)form->rank : 1.0;
}

void slr_form_add(slr_form *form, int leaf, int rank, const int64_t *dim)
{
    form->have |= 1u << leaf;
    form->leaf[leaf].rank = rank;
    memcpy(form->leaf[leaf].dim, dim, (size_t)rank * sizeof *dim);
}

int slr_form_refuse(const char *label, const slr_target *t, const char *leaf,
                    const slr_tensor *have, const char *wanted)
{
    char shape[96];
    return slr_fail(
        SDLORA_EFORMAT, __func__,
        "%s: %s.%s is %s, wanted %s: the layer takes %lld inputs to %lld outputs with a "
        "%lldx%lld kernel",
        label, t->name, leaf, slr_shape_text(have->dim, have->rank, shape), wanted,
        (long long)t->in, (long long)t->out, (long long)t->kh, (long long)t->kw);
}

void slr_module_form(const slr_network *n, const slr_module *mod, slr_form *form)
{
    *form = (slr_form){.rank = mod->rank,
                       .alpha = mod->alpha,
                       .scale = mod->scale,
                       .marked = mod->marked,
                       .begins = mod->begins};
    for (int i = 0; i < SLR_KIND_LEAVES; i++)
        if (mod->at[i] >= 0) {
            const slr_network_slot *s = &n->slot[mod->slot + (size_t)mod->at[i]];
            slr_form_add(form, i, s->rank, s->dim);
        }
}

/* --- modules --- */

bool slr_module_has(const slr_module *mod, int leaf)
{
    return mod->at[leaf] >= 0;
}

/* A scalar is folded into others. */
bool slr_module_filed(const slr_module *mod, int leaf)
{
    return leaf != SLR_LEAF_SCALAR && !(mod->begins && mod->kind->begun >> leaf & 1u);
}

const slr_network_slot *slr_module_slot(const slr_module *mod, const slr_network_slot *slots,
                                        int leaf)
{
    return mod->at[leaf] < 0 ? NULL : &slots[mod->at[leaf]];
}

int64_t slr_module_dyn(const slr_module *mod, int64_t dyn)
{
    bool cut = mod->kind->factors && dyn > 0 && dyn < mod->rank;
    for (int i = 0; cut && i < SLR_KIND_OWN; i++)
        cut = !(mod->kind->whole >> i & 1u) || !slr_module_has(mod, i);
    return cut ? dyn : mod->rank;
}

bool slr_module_thin(const slr_module *mod)
{
    return mod->kind->factors && mod->rank > 0 && !slr_module_has(mod, SLR_LEAF_DORA) &&
           !slr_module_has(mod, SLR_LEAF_SPARSE);
}

const char *slr_module_beside(const slr_module *mod)
{
    return slr_module_has(mod, SLR_LEAF_DORA)     ? " with DoRA"
           : slr_module_has(mod, SLR_LEAF_SPARSE) ? " with a sparse residual"
                                                  : "";
}

/* --- initial values --- */

void slr_init_kaiming(float *p, size_t n, int64_t fan_in, slr_rng *rng)
{
    double bound = 1.0 / sqrt((double)fan_in);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)((2.0 * slr_rng_real(rng) - 1.0) * bound);
}

void slr_init_normal(float *p, size_t n, double std, slr_rng *rng)
{
    slr_rng_normal(rng, p, n);
    for (size_t i = 0; i < n; i++)
        p[i] *= (float)std;
}

/* --- values --- */

bool slr_fits(const slr_tensor *t, int64_t a, int64_t b, int64_t kh, int64_t kw)
{
    if (t->rank < 2 || t->dim[0] != a)
        return false;
    if (t->rank == 2)
        return t->dim[1] == b * kh * kw;
    return t->rank == 4 && t->dim[1] == b && t->dim[2] == kh && t->dim[3] == kw;
}

slr_val slr_matrix(slr_graph *g, slr_val v)
{
    int64_t dim[2] = {slr_dim(g, v, 0), 1};
    slr_shape s = slr_shape_of(g, v);
    for (int i = 1; i < s.rank; i++)
        dim[1] *= s.dim[i];
    return slr_reshape(g, v, 2, dim);
}

slr_val slr_tucker_rows(slr_graph *g, slr_val core, slr_val side)
{
    int64_t p = slr_dim(g, core, 0), q = slr_dim(g, core, 1), in = slr_dim(g, side, 1),
            taps = slr_dim(g, core, 2) * slr_dim(g, core, 3);
    slr_val m = slr_reshape(g, core, 3, (int64_t[]){p, q, taps});
    m = slr_reshape(g, slr_permute(g, m, (int64_t[]){0, 2, 1}), 2, (int64_t[]){p * taps, q});
    slr_val d = slr_matmul(g, m, slr_matrix(g, side), SLR_NONE, SLR_NONE, false, false, 1.0);
    d = slr_permute(g, slr_reshape(g, d, 3, (int64_t[]){p, taps, in}), (int64_t[]){0, 2, 1});
    return slr_reshape(g, d, 2, (int64_t[]){p, in * taps});
}

slr_val slr_delta_shape(const slr_apply *a, slr_val v)
{
    const slr_layer *l = a->layer;
    int64_t dim[4] = {l->out, l->in, l->kh, l->kw};
    return slr_reshape(a->g, v, l->norm ? 1 : l->kh * l->kw > 1 ? 4 : 2, dim);
}
