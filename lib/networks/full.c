/* SPDX-License-Identifier: MIT */
/* Full weights: the change itself, of the weight and, where the layer has one, of the bias
 * (training.md §2.7).  Reads those of norms too, which some trainers write. */
#include "networks/kind.h"

#include <math.h>

#include "base/status.h"

enum { DIFF = 0, DIFF_B = 1 };

static void add(const slr_target *t, bool bias, slr_form *form)
{
    int64_t dim[4] = {t->out, t->in, t->kh, t->kw};
    slr_form_add(form, DIFF, t->norm ? 1 : t->conv ? 4 : 2, dim);
    if (bias)
        slr_form_add(form, DIFF_B, 1, dim);
    form->rank = 0;
    form->alpha = NAN;
    form->scale = 1;
}

static int make(const slr_settings *set, const slr_target *t, slr_form *form)
{
    (void)set;
    add(t, t->bias, form);
    return SDLORA_OK;
}

static int read(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    const slr_tensor *w = &leaf[DIFF], *b = &leaf[DIFF_B];
    bool bias = form->have >> DIFF_B & 1u;
    bool fits =
        t->norm ? w->rank == 1 && w->dim[0] == t->out : slr_fits(w, t->out, t->in, t->kh, t->kw);
    if (!fits)
        return slr_form_refuse(label, t, "diff", w, "the shape of the weight");
    if (bias && (b->rank != 1 || b->dim[0] != t->out))
        return slr_form_refuse(label, t, "diff_b", b, "one number for each output");
    add(t, bias, form);
    return SDLORA_OK;
}

static bool takes(const slr_target *t)
{
    (void)t;
    return true;
}

static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    slr_shape s = slr_shape_of(a->g, w);
    (void)mod;
    return slr_reshape(a->g, a->param[DIFF], s.rank, s.dim);
}

static slr_val bias(const slr_apply *a, const slr_module *mod)
{
    (void)mod;
    return a->param[DIFF_B];
}

const slr_kind slr_kind_full = {
    .name = "full",
    .leaf = {[DIFF] = "diff", [DIFF_B] = "diff_b"},
    .proof = 1u << DIFF,
    .needs = 1u << DIFF,
    .no_alpha = true,
    .takes = takes,
    .make = make,
    .read = read,
    .delta = delta,
    .bias = bias,
};
