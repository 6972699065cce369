/* SPDX-License-Identifier: MIT */
/* GLoRA: D = b1 b2 + W a1 a2, a low-rank change and a low-rank mixing of inputs, which in a
 * convolution is the same at every tap.  Old files have 1 and 2 the other way round: D = b2 b1 + W
 * a2 a1. */
#include "networks/kind.h"

#include "base/status.h"

enum { A1 = 0, A2 = 1, B1 = 2, B2 = 3 };

/* The leaves by what they do: W's inputs go down, up again; B down, up. */
typedef struct roles {
    int a_down, a_up, b_down, b_up; /* [in,r], [r,in], [r,in(,kh,kw)], [out,r] */
} roles;

static roles roles_of(bool old)
{
    return old ? (roles){A2, A1, B1, B2} : (roles){A1, A2, B2, B1};
}

static void add(const slr_target *t, int64_t r, bool old, slr_form *form)
{
    roles p = roles_of(old);
    int rank = t->conv ? 4 : 2;
    slr_form_add(form, p.a_down, rank, (int64_t[]){t->in, r, 1, 1});
    slr_form_add(form, p.a_up, rank, (int64_t[]){r, t->in, 1, 1});
    slr_form_add(form, p.b_down, rank, (int64_t[]){r, t->in, t->kh, t->kw});
    slr_form_add(form, p.b_up, rank, (int64_t[]){t->out, r, 1, 1});
    form->marked = old;
}

static int make(const slr_settings *set, const slr_target *t, slr_form *form)
{
    add(t, set->dim, false, form);
    return SDLORA_OK;
}

static bool fits(const slr_target *t, const slr_tensor *leaf, int64_t r, bool old)
{
    roles p = roles_of(old);
    return r >= 1 && slr_fits(&leaf[p.a_down], t->in, r, 1, 1) &&
           slr_fits(&leaf[p.a_up], r, t->in, 1, 1) &&
           slr_fits(&leaf[p.b_down], r, t->in, t->kh, t->kw) &&
           slr_fits(&leaf[p.b_up], t->out, r, 1, 1);
}

/* A square layer of rank `in` fits both ways, and is taken for a new one. */
static int read(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    char a1[96], a2[96], b1[96], b2[96];
    const slr_tensor *first = &leaf[A1];
    int64_t rows = first->rank > 1 ? first->dim[0] : 0,
            columns = first->rank > 1 ? first->dim[1] : 0;
    bool now = fits(t, leaf, columns, false), old = !now && fits(t, leaf, rows, true);
    if (!now && !old)
        return slr_fail(
            SDLORA_EFORMAT, __func__,
            "%s: %s has a1 %s, a2 %s, b1 %s and b2 %s, but the layer takes %lld inputs to %lld "
            "outputs with a %lldx%lld kernel",
            label, t->name, slr_shape_text(leaf[A1].dim, leaf[A1].rank, a1),
            slr_shape_text(leaf[A2].dim, leaf[A2].rank, a2),
            slr_shape_text(leaf[B1].dim, leaf[B1].rank, b1),
            slr_shape_text(leaf[B2].dim, leaf[B2].rank, b2), (long long)t->in, (long long)t->out,
            (long long)t->kh, (long long)t->kw);
    form->rank = old ? rows : columns;
    add(t, form->rank, old, form);
    return SDLORA_OK;
}

static void start(const slr_module *mod, const slr_network_slot *slots, float *params, slr_rng *rng,
                  int leaf)
{
    const slr_network_slot *slot = slr_module_slot(mod, slots, leaf);
    slr_init_kaiming(params + slot->offset, slot->count, (int64_t)slot->count / slot->dim[0], rng);
}

/* a2 and b2 are zero, and so is the whole; with a scalar that starts at zero, they are not. */
static void init(const slr_module *mod, const slr_network_slot *slots, float *params, slr_rng *rng)
{
    start(mod, slots, params, rng, A1);
    start(mod, slots, params, rng, B1);
    if (slr_module_has(mod, SLR_LEAF_SCALAR)) {
        start(mod, slots, params, rng, A2);
        start(mod, slots, params, rng, B2);
    }
}

static slr_val times(slr_graph *g, slr_val a, slr_val b)
{
    return slr_matmul(g, a, b, SLR_NONE, SLR_NONE, false, false, 1.0);
}

/* W a_down a_up over the axis of inputs. */
static slr_val mix(const slr_apply *a, const slr_module *mod, roles p, slr_val w)
{
    slr_graph *g = a->g;
    slr_val down = slr_matrix(g, a->param[p.a_down]), up = slr_matrix(g, a->param[p.a_up]);
    int64_t out = mod->target.out, in = mod->target.in, taps = mod->target.kh * mod->target.kw;
    int64_t order[3] = {0, 2, 1};
    if (taps == 1)
        return times(g, times(g, w, down), up);
    slr_val rows = slr_permute(g, slr_reshape(g, w, 3, (int64_t[]){out, in, taps}), order);
    slr_val d = times(g, times(g, slr_reshape(g, rows, 2, (int64_t[]){out * taps, in}), down), up);
    d = slr_permute(g, slr_reshape(g, d, 3, (int64_t[]){out, taps, in}), order);
    return slr_reshape(g, d, 2, (int64_t[]){out, in * taps});
}

static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    slr_graph *g = a->g;
    roles p = roles_of(mod->marked);
    slr_val b_up = slr_matrix(g, a->param[p.b_up]), b_down = slr_matrix(g, a->param[p.b_down]);
    slr_val d = slr_matmul(g, b_up, b_down, SLR_NONE, mix(a, mod, p, w), false, false, 1.0);
    return slr_delta_shape(a, d);
}

const slr_kind slr_kind_glora = {
    .name = "glora",
    .leaf = {[A1] = "a1.weight", [A2] = "a2.weight", [B1] = "b1.weight", [B2] = "b2.weight"},
    .proof = 1u << A1,
    .needs = 1u << A1 | 1u << A2 | 1u << B1 | 1u << B2,
    .scalar_into = 1u << A2 | 1u << B2,
    .make = make,
    .read = read,
    .init = init,
    .delta = delta,
};
