/* SPDX-License-Identifier: MIT */
/* LoKr: D is the Kronecker product of a small matrix w1 [l,u] and a block w2 [k,v,kh,kw], where l k
 * = out and u v = in; either may be a product of two thin factors, and w2 may have a tucker core.
 * Shapes of files decide when reading, LyCORIS' rule when making. */
#include "networks/kind.h"

#include <math.h>

#include "base/status.h"

enum { W1 = 0, W1A = 1, W1B = 2, W2 = 3, W2A = 4, W2B = 5, T2 = 6 };

/* The sizes of both factors. */
typedef struct split {
    int64_t l, k, u, v;
} split;

/* dim = m n with m <= n, m as near to `factor` from below as LyCORIS goes (-1: to the root). */
static void factorize(int64_t dim, int64_t factor, int64_t *m, int64_t *n)
{
    *m = 1;
    *n = dim;
    if (factor > 0 && dim % factor == 0) {
        *m = factor < dim / factor ? factor : dim / factor;
        *n = dim / *m;
        return;
    }
    int64_t limit = factor < 0 ? dim : factor;
    while (*m < *n) {
        int64_t next = *m + 1;
        while (dim % next)
            next++;
        if (next + dim / next > dim + 1 || next > limit)
            break;
        *m = next;
        *n = dim / next;
    }
    if (*m > *n) {
        *n = *m;
        *m = dim / *n;
    }
}

static void add_first(const split *s, int64_t r, slr_form *form)
{
    if (r > 0) {
        slr_form_add(form, W1A, 2, (int64_t[]){s->l, r});
        slr_form_add(form, W1B, 2, (int64_t[]){r, s->u});
    } else {
        slr_form_add(form, W1, 2, (int64_t[]){s->l, s->u});
    }
}

static void add_second(const slr_target *t, const split *s, int64_t r, bool tucker, slr_form *form)
{
    if (r <= 0) {
        slr_form_add(form, W2, t->conv ? 4 : 2, (int64_t[]){s->k, s->v, t->kh, t->kw});
    } else if (tucker) {
        slr_form_add(form, T2, 4, (int64_t[]){r, r, t->kh, t->kw});
        slr_form_add(form, W2A, 2, (int64_t[]){r, s->k});
        slr_form_add(form, W2B, 2, (int64_t[]){r, s->v});
    } else {
        slr_form_add(form, W2A, 2, (int64_t[]){s->k, r});
        slr_form_add(form, W2B, 2, (int64_t[]){r, s->v * t->kh * t->kw});
    }
}

static int make(const slr_settings *set, const slr_target *t, slr_form *form)
{
    split s;
    int64_t r = set->dim;
    factorize(t->in, set->factor, &s.u, &s.v);
    factorize(t->out, set->factor, &s.l, &s.k);
    if (set->unbalanced) {
        int64_t k = s.l;
        s.l = s.k;
        s.k = k;
    }
    bool thin1 = set->decompose_both && 2 * r < (s.l > s.u ? s.l : s.u) && !set->full_matrix;
    bool thin2 = 2 * r < (s.k > s.v ? s.k : s.v) && !set->full_matrix;
    add_first(&s, thin1 ? r : 0, form);
    add_second(t, &s, thin2 ? r : 0, set->tucker && t->kh * t->kw > 1, form);
    if (!thin1 && !thin2) { /* no rank to divide by: the scale is 1, and files say alpha = dim */
        form->alpha = (double)r;
        form->scale = 1.0;
        form->rank = 0;
    }
    return SDLORA_OK;
}

/* --- reading --- */

static bool has(const slr_form *form, int leaf)
{
    return form->have >> leaf & 1u;
}

/* Which tensors are there: w1 whole or as a pair, and so w2. */
static int check_parts(const slr_target *t, const char *label, const slr_form *form)
{
    static const int parts[2][3] = {{W1, W1A, W1B}, {W2, W2A, W2B}};
    const char *const *name = slr_kind_lokr.leaf;
    for (int i = 0; i < 2; i++) {
        const int *p = parts[i];
        if (has(form, p[0]) && (has(form, p[1]) || has(form, p[2])))
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has both %s and its factors", label,
                            t->name, name[p[0]]);
        if (!has(form, p[0]) && has(form, p[1]) != has(form, p[2]))
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s.%s is missing", label, t->name,
                            name[has(form, p[1]) ? p[2] : p[1]]);
        if (!has(form, p[0]) && !has(form, p[1]))
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s.%s is missing", label, t->name,
                            name[p[0]]);
    }
    if (has(form, T2) && has(form, W2))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has both lokr_w2 and lokr_t2", label,
                        t->name);
    return SDLORA_OK;
}

static int64_t dim(const slr_tensor *t, int axis)
{
    return t->rank > axis ? t->dim[axis] : 0;
}

/* l and u come from w1; k and v are what the layer leaves. */
static int check_first(const slr_target *t, const slr_tensor *leaf, const char *label,
                       const slr_form *form, split *s, int64_t *r)
{
    const char *const *name = slr_kind_lokr.leaf;
    bool thin = has(form, W1A);
    const slr_tensor *top = &leaf[thin ? W1A : W1], *side = &leaf[thin ? W1B : W1];
    *r = thin ? dim(side, 0) : 0;
    s->l = dim(top, 0);
    s->u = dim(side, 1);
    if (s->l < 1 || t->out % s->l || !slr_fits(top, s->l, thin ? *r : s->u, 1, 1))
        return slr_form_refuse(label, t, name[thin ? W1A : W1], top,
                               "a matrix whose sizes divide the layer's");
    if (s->u < 1 || t->in % s->u || (thin && (*r < 1 || !slr_fits(side, *r, s->u, 1, 1))))
        return slr_form_refuse(label, t, name[thin ? W1B : W1], side,
                               "a matrix whose sizes divide the layer's");
    s->k = t->out / s->l;
    s->v = t->in / s->u;
    return SDLORA_OK;
}

static int check_second(const slr_target *t, const slr_tensor *leaf, const char *label,
                        const slr_form *form, const split *s, int64_t *r)
{
    const char *const *name = slr_kind_lokr.leaf;
    const slr_tensor *a = &leaf[W2A], *b = &leaf[W2B];
    bool tucker = has(form, T2);
    *r = 0;
    if (has(form, W2)) {
        if (!slr_fits(&leaf[W2], s->k, s->v, t->kh, t->kw))
            return slr_form_refuse(label, t, name[W2], &leaf[W2], "[out/l,in/u,kh,kw]");
        return SDLORA_OK;
    }
    *r = dim(b, 0);
    if (*r < 1 || !slr_fits(b, *r, s->v, tucker ? 1 : t->kh, tucker ? 1 : t->kw))
        return slr_form_refuse(label, t, name[W2B], b, tucker ? "[r,in/u]" : "[r,in/u*kh*kw]");
    if (!(tucker ? slr_fits(a, *r, s->k, 1, 1) : slr_fits(a, s->k, *r, 1, 1)))
        return slr_form_refuse(label, t, name[W2A], a, tucker ? "[r,out/l]" : "[out/l,r]");
    if (tucker && !slr_fits(&leaf[T2], *r, *r, t->kh, t->kw))
        return slr_form_refuse(label, t, name[T2], &leaf[T2], "[r,r,kh,kw]");
    return SDLORA_OK;
}

/* The rank that alpha is divided by: w2's, else w1's; without either the scale is 1. */
static int read(const slr_target *t, const slr_tensor *leaf, const char *label, slr_form *form)
{
    split s;
    int64_t r1, r2;
    bool tucker = has(form, T2);
    SLR_TRY(check_parts(t, label, form));
    SLR_TRY(check_first(t, leaf, label, form, &s, &r1));
    SLR_TRY(check_second(t, leaf, label, form, &s, &r2));
    form->rank = r2 ? r2 : r1;
    add_first(&s, r1, form);
    add_second(t, &s, r2, tucker, form);
    return SDLORA_OK;
}

/* As LyCORIS: all random but w2 or its b, which are zero unless a scalar is. */
static void init(const slr_module *mod, const slr_network_slot *slots, float *params, slr_rng *rng)
{
    bool scalar = slr_module_has(mod, SLR_LEAF_SCALAR);
    for (int i = W1; i <= T2; i++) {
        const slr_network_slot *s = slr_module_slot(mod, slots, i);
        if (s && (scalar || (i != W2 && i != W2B)))
            slr_init_kaiming(params + s->offset, s->count, (int64_t)s->count / s->dim[0], rng);
    }
}

/* --- formula --- */

static slr_val product(slr_graph *g, slr_val a, slr_val b, bool ta)
{
    return slr_matmul(g, slr_matrix(g, a), b, SLR_NONE, SLR_NONE, ta, false, 1.0);
}

/* [l,u] */
static slr_val first(const slr_apply *a)
{
    const slr_val *p = a->param;
    return p[W1] != SLR_NONE ? slr_matrix(a->g, p[W1])
                             : product(a->g, p[W1A], slr_matrix(a->g, p[W1B]), false);
}

/* [k, v*kh*kw] */
static slr_val second(const slr_apply *a)
{
    slr_graph *g = a->g;
    const slr_val *p = a->param;
    if (p[W2] != SLR_NONE)
        return slr_matrix(g, p[W2]);
    if (p[T2] != SLR_NONE)
        return product(g, p[W2A], slr_tucker_rows(g, p[T2], p[W2B]), true);
    return product(g, p[W2A], slr_matrix(g, p[W2B]), false);
}

/* D[i k + p, j v + q, tap] = w1[i,j] w2[p,q,tap]: all products, then the axes in order. */
static slr_val delta(const slr_apply *a, const slr_module *mod, slr_val w)
{
    (void)mod, (void)w;
    slr_graph *g = a->g;
    slr_val w1 = first(a), w2 = second(a);
    int64_t l = slr_dim(g, w1, 0), u = slr_dim(g, w1, 1), k = slr_dim(g, w2, 0),
            width = slr_dim(g, w2, 1);
    slr_val d = slr_matmul(g, slr_reshape(g, w1, 2, (int64_t[]){l * u, 1}),
                           slr_reshape(g, w2, 2, (int64_t[]){1, k * width}), SLR_NONE, SLR_NONE,
                           false, false, 1.0);
    d = slr_reshape(g, d, 4, (int64_t[]){l, u, k, width});
    d = slr_permute(g, d, (int64_t[]){0, 2, 1, 3});
    return slr_delta_shape(a, slr_reshape(g, d, 2, (int64_t[]){l * k, u * width}));
}

/* --- D x without D: both factors on the channels of x, seen as [u,v] --- */

/* The first half of w2 on each group of v channels: x [N,...,in] -> [rows,u,q], where q is w2's
 * rank (k: it is whole). */
static slr_val inner(const slr_apply *a, slr_val x, int64_t u, int64_t *rows)
{
    slr_graph *g = a->g;
    const slr_val *p = a->param;
    const slr_layer *layer = a->layer;
    slr_shape s = slr_shape_of(g, x);
    int64_t v = layer->in / u, n = s.dim[0];
    bool tucker = p[T2] != SLR_NONE;
    slr_val kernel = tucker ? p[T2] : p[W2] != SLR_NONE ? p[W2] : p[W2B];
    *rows = 1;
    for (int i = 0; i + 1 < s.rank; i++)
        *rows *= s.dim[i];
    slr_val t = slr_reshape(g, x, 2, (int64_t[]){*rows * u, v});
    if (tucker)
        t = slr_linear(g, t, slr_matrix(g, p[W2B]), SLR_NONE, SLR_NONE);
    if (layer->kh * layer->kw == 1) {
        t = slr_linear(g, t, slr_matrix(g, kernel), SLR_NONE, SLR_NONE);
        return slr_reshape(g, t, 3, (int64_t[]){*rows, u, slr_dim(g, t, 1)});
    }

    int64_t c = slr_dim(g, t, 1), q = slr_dim(g, kernel, 0);
    t = slr_reshape(g, t, 4, (int64_t[]){n, *rows / n, u, c});
    t = slr_permute(g, t, (int64_t[]){0, 2, 1, 3});
    t = slr_reshape(g, t, 4, (int64_t[]){n * u, s.dim[1], s.dim[2], c});
    kernel = slr_reshape(g, kernel, 4, (int64_t[]){q, c, layer->kh, layer->kw});
    t = slr_conv2d(g, t, kernel, SLR_NONE, SLR_NONE, layer->geometry, 1.0);
    int64_t places = slr_dim(g, t, 1) * slr_dim(g, t, 2);
    t = slr_reshape(g, t, 4, (int64_t[]){n, u, places, q});
    t = slr_permute(g, t, (int64_t[]){0, 2, 1, 3});
    *rows = n * places;
    return slr_reshape(g, t, 3, (int64_t[]){*rows, u, q});
}

/* w1 among the groups: [rows,u,q] -> [rows*l,q] */
static slr_val across(const slr_apply *a, slr_val t, slr_val w1)
{
    slr_graph *g = a->g;
    int64_t rows = slr_dim(g, t, 0), q = slr_dim(g, t, 2), l = slr_dim(g, w1, 0);
    t = slr_linear(g, slr_permute(g, t, (int64_t[]){0, 2, 1}), w1, SLR_NONE, SLR_NONE);
    t = slr_permute(g, t, (int64_t[]){0, 2, 1});
    return slr_reshape(g, t, 2, (int64_t[]){rows * l, q});
}

static slr_val output(const slr_apply *a, const slr_module *mod, slr_val x, slr_val y)
{
    slr_graph *g = a->g;
    const slr_val *p = a->param;
    uint32_t stored = slr_graph_storage(g, SDLORA_F32);
    slr_val w1 = first(a);
    if (p[SLR_LEAF_SCALAR] != SLR_NONE)
        w1 = slr_mul(g, w1, slr_reshape(g, p[SLR_LEAF_SCALAR], 2, (int64_t[]){1, 1}));
    slr_graph_storage(g, stored);

    int64_t l = slr_dim(g, w1, 0), k = a->layer->out / l, rows;
    slr_val t = inner(a, x, slr_dim(g, w1, 1), &rows);
    t = across(a, t, w1);
    if (p[W2A] != SLR_NONE)
        t = slr_matmul(g, t, p[W2A], SLR_NONE, SLR_NONE, false, p[T2] == SLR_NONE, 1.0);
    slr_shape s = slr_shape_of(g, y);
    t = slr_reshape(g, t, 2, (int64_t[]){rows, l * k});
    t = slr_drop_module(a, mod, slr_drop_rows(a, mod, t, 1));
    t = slr_affine(g, t, mod->scale * a->strength, 0.0);
    return slr_add(g, y, slr_reshape(g, t, s.rank, s.dim));
}

const slr_kind slr_kind_lokr = {
    .name = "lokr",
    .leaf = {[W1] = "lokr_w1",
             [W1A] = "lokr_w1_a",
             [W1B] = "lokr_w1_b",
             [W2] = "lokr_w2",
             [W2A] = "lokr_w2_a",
             [W2B] = "lokr_w2_b",
             [T2] = "lokr_t2"},
    .proof = (1u << (T2 + 1)) - 1,
    .scalar_into = 1u << W1 | 1u << W1A,
    .make = make,
    .read = read,
    .init = init,
    .delta = delta,
    .output = output,
};
