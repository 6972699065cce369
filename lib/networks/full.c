/* SPDX-License-Identifier: MIT */
/* The change itself, of the weight and, where the layer has one, of the bias: under the names of
 * full weights (those of norms are read too, which some trainers write), and under LyCORIS' names
 * for the gain and shift of norms, train_norm.  A file may have the bias alone.  ComfyUI's
 * set_weight is the new weight instead of the change. */
#include "networks/kind.h"

#include <math.h>

#include "base/status.h"

enum { WEIGHT = 0, BIAS = 1 };

static void add(const slr_target *t, bool weight, bool bias, slr_form *form)
{
    int64_t dim[4] = {t->out, t->in, t->kh, t->kw};
    if (weight)
        slr_form_add(form, WEIGHT, t->norm ? 1 : t->conv ? 4 : 2, dim);
    if (bias)
        slr_form_add(form, BIAS, 1, dim);
    form->rank = 0;
    form->alpha = NAN;
    form->scale = 1;
}

static int make(const slr_settings *set, const slr_target *t, slr_form *form)
{
    (void)set;
    add(t, true, t->bias, form);
    return SDLORA_OK;
}

static int read(const slr_kind *kind, const slr_target *t, const slr_tensor *leaf,
                const char *label, slr_form *form)
{
    const slr_tensor *w = &leaf[WEIGHT], *b = &leaf[BIAS];
    bool weight = form->have >> WEIGHT & 1u, bias = kind->bias && form->have >> kind->bias & 1u;
    bool fits =
        t->norm ? w->rank == 1 && w->dim[0] == t->out : slr_fits(w, t->out, t->in, t->kh, t->kw);
    if (weight && !fits)
        return slr_form_refuse(label, t, kind->leaf[WEIGHT], w, "the shape of the weight");
    if (bias && (b->rank != 1 || b->dim[0] != t->out))
        return slr_form_refuse(label, t, kind->leaf[BIAS], b, "one number for each output");
    add(t, weight, bias, form);
    return SDLORA_OK;
}

static int read_full(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    return read(&slr_kind_full, t, leaf, label, form);
}

static int read_norm(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    return read(&slr_kind_norm, t, leaf, label, form);
}

static int read_set(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    return read(&slr_kind_set, t, leaf, label, form);
}

static bool takes_all(const slr_target *t)
{
    (void)t;
    return true;
}

static bool takes_norms(const slr_target *t)
{
    return t->norm;
}

static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    slr_shape s = slr_shape_of(a->g, w);
    (void)mod;
    return a->param[WEIGHT] == SLR_NONE ? slr_fill(a->g, s.rank, s.dim, 0.0)
                                        : slr_reshape(a->g, a->param[WEIGHT], s.rank, s.dim);
}

static slr_val delta_set(const slr_apply *a, const slr_module *mod, slr_val w)
{
    return slr_sub(a->g, delta(a, mod, w), w);
}

const slr_kind slr_kind_full = {
    .name = "full",
    .leaf = {[WEIGHT] = "diff", [BIAS] = "diff_b"},
    .proof = 1u << WEIGHT,
    .no_alpha = true,
    .takes = takes_all,
    .make = make,
    .read = read_full,
    .delta = delta,
    .bias = BIAS,
};

const slr_kind slr_kind_norm = {
    .name = "norm",
    .leaf = {[WEIGHT] = "w_norm", [BIAS] = "b_norm"},
    .proof = 1u << WEIGHT | 1u << BIAS,
    .no_alpha = true,
    .takes = takes_norms,
    .make = make,
    .read = read_norm,
    .delta = delta,
    .bias = BIAS,
};

const slr_kind slr_kind_set = {
    .name = "set",
    .leaf = {[WEIGHT] = "set_weight"},
    .proof = 1u << WEIGHT,
    .needs = 1u << WEIGHT,
    .no_alpha = true,
    .takes = takes_all,
    .read = read_set,
    .delta = delta_set,
};
