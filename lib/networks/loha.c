/* SPDX-License-Identifier: MIT */
/* LoHa: D = (w1_a w1_b) .* (w2_a w2_b), each factor of low rank, or through a tucker core.  Knows
 * its shapes in files of LyCORIS, PEFT and OneTrainer. */
#include "networks/kind.h"

#include "base/status.h"

enum { W1A = 0, W1B = 1, W2A = 2, W2B = 3, T1 = 4, T2 = 5 };

/* Plain: a [out,r], b [r,in*kh*kw].  With a core t [r,r,kh,kw]: a [r,out], b [r,in]. */
static void add_half(const slr_target *t, int64_t r, bool tucker, int half, slr_form *form)
{
    int a = half ? W2A : W1A, b = half ? W2B : W1B;
    if (tucker) {
        slr_form_add(form, a, 2, (int64_t[]){r, t->out});
        slr_form_add(form, b, 2, (int64_t[]){r, t->in});
        slr_form_add(form, half ? T2 : T1, 4, (int64_t[]){r, r, t->kh, t->kw});
    } else {
        slr_form_add(form, a, 2, (int64_t[]){t->out, r});
        slr_form_add(form, b, 2, (int64_t[]){r, slr_target_fan_in(t)});
    }
}

static int make(const slr_settings *set, const slr_target *t, slr_form *form)
{
    bool tucker = set->tucker && t->kh * t->kw > 1;
    for (int half = 0; half < 2; half++)
        add_half(t, set->dim, tucker, half, form);
    return SDLORA_OK;
}

/* One half's tensors against the layer; *r is its rank. */
static int check_half(const slr_target *t, const slr_tensor *leaf, bool tucker, int half,
                      const char *label, int64_t *r)
{
    int at_a = half ? W2A : W1A, at_b = half ? W2B : W1B, at_t = half ? T2 : T1;
    const slr_tensor *a = &leaf[at_a], *b = &leaf[at_b];
    const char *const *name = slr_kind_loha.leaf;
    *r = b->rank > 0 ? b->dim[0] : 0;
    if (*r < 1 || !slr_fits(b, *r, t->in, tucker ? 1 : t->kh, tucker ? 1 : t->kw))
        return slr_form_refuse(label, t, name[at_b], b, tucker ? "[r,in]" : "[r,in*kh*kw]");
    if (!(tucker ? slr_fits(a, *r, t->out, 1, 1) : slr_fits(a, t->out, *r, 1, 1)))
        return slr_form_refuse(label, t, name[at_a], a, tucker ? "[r,out]" : "[out,r]");
    if (tucker && !slr_fits(&leaf[at_t], *r, *r, t->kh, t->kw))
        return slr_form_refuse(label, t, name[at_t], &leaf[at_t], "[r,r,kh,kw]");
    return SDLORA_OK;
}

static int read(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    bool tucker = form->have >> T1 & 1u;
    if (tucker != (bool)(form->have >> T2 & 1u))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s.%s is missing", label, t->name,
                        slr_kind_loha.leaf[tucker ? T2 : T1]);
    for (int half = 1; half >= 0; half--) { /* the first half's rank is the module's */
        SLR_TRY(check_half(t, leaf, tucker, half, label, &form->rank));
        add_half(t, form->rank, tucker, half, form);
    }
    return SDLORA_OK;
}

/* As LyCORIS: one a is zero, unless a scalar is. */
static void init(const slr_module *mod, const slr_network_slot *slots, float *params, slr_rng *rng)
{
    static const struct {
        int leaf;
        double std;
    } rows[] = {{T1, 0.1}, {T2, 0.1}, {W1B, 1.0}, {W1A, 0.1}, {W2B, 1.0}, {W2A, 0.1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const slr_network_slot *s = slr_module_slot(mod, slots, rows[i].leaf);
        bool zero = rows[i].leaf == W2A && !slr_module_has(mod, SLR_LEAF_SCALAR);
        if (s && !zero)
            slr_init_normal(params + s->offset, s->count, rows[i].std, rng);
    }
}

/* [out, in*kh*kw] */
static slr_val half(const slr_apply *a, slr_val wa, slr_val wb, slr_val core)
{
    slr_graph *g = a->g;
    bool tucker = core != SLR_NONE;
    slr_val b = tucker ? slr_tucker_rows(g, core, wb) : slr_matrix(g, wb);
    return slr_matmul(g, slr_matrix(g, wa), b, SLR_NONE, SLR_NONE, tucker, false, 1.0);
}

static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    (void)mod, (void)w;
    const slr_val *p = a->param;
    slr_val first = half(a, p[W1A], p[W1B], p[T1]);
    return slr_delta_shape(a, slr_mul(a->g, first, half(a, p[W2A], p[W2B], p[T2])));
}

const slr_kind slr_kind_loha = {
    .name = "loha",
    .leaf = {[W1A] = "hada_w1_a",
             [W1B] = "hada_w1_b",
             [W2A] = "hada_w2_a",
             [W2B] = "hada_w2_b",
             [T1] = "hada_t1",
             [T2] = "hada_t2"},
    .proof = 1u << W1A | 1u << W1B | 1u << W2A | 1u << W2B,
    .needs = 1u << W1A | 1u << W1B | 1u << W2A | 1u << W2B,
    .scalar_into = 1u << W1A,
    .make = make,
    .read = read,
    .init = init,
    .delta = delta,
};
