/* SPDX-License-Identifier: MIT */
/* LyCORIS' train_norm: the change of a group or layer norm's gain and shift (training.md §2.8). */
#include "networks/kind.h"

#include <math.h>

#include "base/status.h"

enum { W_NORM = 0, B_NORM = 1 };

static void add(const slr_target *t, bool shift, slr_form *form)
{
    slr_form_add(form, W_NORM, 1, &t->out);
    if (shift)
        slr_form_add(form, B_NORM, 1, &t->out);
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
    for (int i = 0; i < 2; i++)
        if (form->have >> i & 1u && (leaf[i].rank != 1 || leaf[i].dim[0] != t->out))
            return slr_form_refuse(label, t, slr_kind_norm.leaf[i], &leaf[i],
                                   "one number for each channel");
    add(t, form->have >> B_NORM & 1u, form);
    return SDLORA_OK;
}

static bool takes(const slr_target *t)
{
    return t->norm;
}

static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    (void)mod, (void)w;
    return a->param[W_NORM];
}

static slr_val bias(const slr_apply *a, const slr_module *mod)
{
    (void)mod;
    return a->param[B_NORM];
}

const slr_kind slr_kind_norm = {
    .name = "norm",
    .leaf = {[W_NORM] = "w_norm", [B_NORM] = "b_norm"},
    .proof = 1u << W_NORM,
    .needs = 1u << W_NORM,
    .no_alpha = true,
    .takes = takes,
    .make = make,
    .read = read,
    .delta = delta,
    .bias = bias,
};
