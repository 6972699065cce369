/* SPDX-License-Identifier: MIT */
/* (IA)^3: a gain for each output, or for each input where "on_input" says so: D = W * weight.
 * Linear layers have a vector, convolutions [1,n,1,1]. */
#include "networks/kind.h"

#include <math.h>

#include "base/status.h"

enum { WEIGHT = 0 };

static void add(const slr_target *t, slr_form *form)
{
    int64_t n = form->marked ? t->in : t->out;
    if (t->conv)
        slr_form_add(form, WEIGHT, 4, (int64_t[]){1, n, 1, 1});
    else
        slr_form_add(form, WEIGHT, 1, &n);
    form->rank = 0;
    form->alpha = NAN;
    form->scale = 1;
}

static int make(const slr_settings *set, const slr_target *t, slr_form *form)
{
    form->marked = set->train_on_input;
    add(t, form);
    return SDLORA_OK;
}

static int read(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    const slr_tensor *have = &leaf[WEIGHT];
    int64_t n = form->marked ? t->in : t->out, longest = 0;
    for (int i = 0; i < have->rank; i++)
        longest = have->dim[i] > longest ? have->dim[i] : longest;
    if (longest != n || slr_tensor_count(have) != n)
        return slr_form_refuse(label, t, "weight", have,
                               form->marked ? "one number for each input (on_input)"
                                            : "one number for each output");
    add(t, form);
    return SDLORA_OK;
}

static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    int64_t dim[SLR_MAX_RANK] = {1, 1, 1, 1, 1, 1};
    int axis = mod->marked ? 1 : 0;
    dim[axis] = slr_dim(a->g, w, axis);
    slr_val gain = slr_reshape(a->g, a->param[WEIGHT], slr_shape_of(a->g, w).rank, dim);
    return slr_mul(a->g, w, gain);
}

const slr_kind slr_kind_ia3 = {
    .name = "ia3",
    .leaf = {[WEIGHT] = "weight"},
    .proof = 1u << WEIGHT,
    .needs = 1u << WEIGHT,
    .marker = "on_input",
    .no_alpha = true,
    .make = make,
    .read = read,
    .delta = delta,
};
