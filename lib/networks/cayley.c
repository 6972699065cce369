/* SPDX-License-Identifier: MIT */
/* Cayley's map in graph operations, and what else rotations share: see cayley.h. */
#include "networks/cayley.h"

#include <math.h>

#include "base/status.h"

/* Ones in a column before a square of zeros, read as rows of n: each row's one stands a place
 * further right than the last one's. */
slr_val slr_eye(slr_graph *g, int64_t n)
{
    slr_val part[2] = {slr_fill(g, 2, (int64_t[]){n, 1}, 1.0),
                       slr_fill(g, 2, (int64_t[]){n, n}, 0.0)};
    slr_val v = slr_reshape(g, slr_concat(g, part, 2, 1), 1, (int64_t[]){n * (n + 1)});
    return slr_reshape(g, slr_slice(g, v, 0, 0, n * n), 2, (int64_t[]){n, n});
}

/* q * bound / max(|q|, bound), where max(a, b) = b + relu(a - b).  1e-16 keeps the root's slope
 * finite at q = 0, where training starts. */
static slr_val within(slr_graph *g, slr_val q, double bound)
{
    int64_t one[3] = {1, 1, 1};
    slr_val sum = slr_sum_to(g, slr_mul(g, q, q), 3, one);
    slr_val norm = slr_pow(g, slr_affine(g, sum, 1.0, 1e-16), 0.5);
    slr_val above = slr_act(g, slr_affine(g, norm, 1.0, -bound), SDLORA_ACT_RELU);
    slr_val least = slr_affine(g, above, 1.0, bound);
    return slr_mul(g, q, slr_affine(g, slr_pow(g, least, -1.0), bound, 0.0));
}

slr_val slr_cayley(slr_graph *g, slr_val raw, double bound)
{
    int64_t n = slr_dim(g, raw, 2);
    slr_val q = slr_sub(g, raw, slr_permute(g, raw, (int64_t[]){0, 2, 1}));
    if (bound > 0)
        q = within(g, q, bound);
    slr_val one = slr_reshape(g, slr_eye(g, n), 3, (int64_t[]){1, n, n});
    slr_val left = slr_inverse(g, slr_add(g, slr_affine(g, q, -1.0, 0.0), one));
    return slr_bmm(g, q, left, false, false, 2.0); /* (1 + Q) - (1 - Q) = 2 Q */
}

double slr_oft_bound(const slr_module *mod)
{
    return mod->alpha > 0 ? mod->alpha * (double)mod->target.out : 0;
}

slr_val slr_oft_rescale(const slr_apply *a, slr_val d, slr_val w)
{
    slr_graph *g = a->g;
    slr_val r = a->param[SLR_OFT_RESCALE];
    if (r == SLR_NONE)
        return d;
    int64_t dim[SLR_MAX_RANK] = {slr_dim(g, d, 0), 1, 1, 1, 1, 1};
    r = slr_reshape(g, r, slr_shape_of(g, d).rank, dim);
    return slr_add(g, slr_mul(g, d, r), slr_mul(g, w, slr_affine(g, r, 1.0, -1.0)));
}

void slr_oft_numbers(slr_form *form, double constraint)
{
    form->rank = 0;
    form->scale = 1;
    form->alpha = constraint;
}

void slr_oft_add_rescale(const slr_target *t, slr_form *form)
{
    slr_form_add(form, SLR_OFT_RESCALE, t->conv ? 4 : 2, (int64_t[]){t->out, 1, 1, 1});
}

int slr_oft_read_rescale(const slr_target *t, const slr_tensor *leaf, const char *label,
                         slr_form *form)
{
    const slr_tensor *have = &leaf[SLR_OFT_RESCALE];
    if (!(form->have >> SLR_OFT_RESCALE & 1u))
        return SDLORA_OK;
    if (have->rank < 1 || have->dim[0] != t->out || slr_tensor_count(have) != t->out)
        return slr_form_refuse(label, t, "rescale", have, "one number for each output");
    slr_oft_add_rescale(t, form);
    return SDLORA_OK;
}

void slr_oft_init(const slr_module *mod, const slr_network_slot *slots, float *params, slr_rng *rng)
{
    const slr_network_slot *gain = slr_module_slot(mod, slots, SLR_OFT_RESCALE);
    (void)rng;
    for (size_t i = 0; gain && i < gain->count; i++)
        params[gain->offset + i] = 1.0f;
}
