/* SPDX-License-Identifier: MIT */
/* Gradients.  Each case builds y from parameters; the gradient graph of sum(y * c), c being random
 * and frozen, is run in f64 and compared with central differences of the forward graph in random
 * directions.  Then the shape of gradient graphs: what is not needed is not built, sums ride on
 * products, and what has no rule is an error that names it. */
#include "graph_test.h"

#define MAX_WRT 6

typedef struct fixture {
    slr_devices *devices;
    pool consts;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->devices = ref_devices(NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    slr_devices_unref(f->devices);
    pool_free(&f->consts);
    free(f);
    return 0;
}

/* --- the comparison */

static double sum_of(const interp *ip, slr_val v)
{
    double sum = 0;
    for (int64_t i = 0; i < count_of(ip->g, v); i++)
        sum += ip->val[v][i];
    return sum;
}

/* sum(root) after moving wrt by step * direction. */
static double moved(interp *ip, slr_val root, slr_val wrt, const double *direction, double step)
{
    int64_t n = count_of(ip->g, wrt);
    double *old = malloc((size_t)n * sizeof *old);
    memcpy(old, ip->val[wrt], (size_t)n * sizeof *old);
    for (int64_t i = 0; i < n; i++)
        ip->val[wrt][i] += step * direction[i];
    interp_run(ip);
    double sum = sum_of(ip, root);
    memcpy(ip->val[wrt], old, (size_t)n * sizeof *old);
    free(old);
    return sum;
}

/* Central differences with h = 1e-5 leave h^2 f''' of truncation, about 1e-9, and 1e-16 / h of
 * rounding, about 1e-10, on sums of some hundred terms of size 1. */
static void compare(interp *ip, slr_val root, slr_val wrt, slr_val grad, const char *name)
{
    const double h = 1e-5, tolerance = 1e-6;
    int64_t n = count_of(ip->g, wrt);
    double *direction = malloc((size_t)n * sizeof *direction);
    for (int k = 0; k < 3; k++) {
        double got = 0;
        for (int64_t i = 0; i < n; i++)
            direction[i] = random_real();
        interp_run(ip);
        for (int64_t i = 0; i < n; i++)
            got += ip->val[grad][i] * direction[i];
        double want =
            (moved(ip, root, wrt, direction, h) - moved(ip, root, wrt, direction, -h)) / (2 * h);
        if (!(fabs(got - want) <= tolerance * (1 + fabs(want))))
            fail_msg("%s, by parameter %d: gradient %.9g, differences %.9g", name, (int)wrt, got,
                     want);
    }
    free(direction);
}

static void check_graph(fixture *f, slr_graph *g, slr_val y, const slr_val *wrt, int n,
                        const char *name)
{
    slr_val grads[MAX_WRT];
    slr_shape s = slr_shape_of(g, y);
    slr_val c = random_const(g, &f->consts, "probe", s.rank, s.dim);
    slr_val root = slr_mul(g, y, c);
    if (slr_graph_grad(g, root, wrt, (size_t)n, grads) < 0)
        fail_msg("%s: %s", name, sdlora_last_error()->message);
    interp ip = interp_new(g, f->devices);
    for (int i = 0; i < n; i++) {
        assert_true(grads[i] != SLR_NONE);
        slr_shape a = slr_shape_of(g, wrt[i]), b = slr_shape_of(g, grads[i]);
        assert_memory_equal(&a, &b, sizeof a);
        compare(&ip, root, wrt[i], grads[i], name);
    }
    interp_free(&ip);
}

/* --- one operation at a time */

typedef struct one_case {
    const char *name;
    slr_val (*build)(slr_graph *g, const slr_val *p, const int64_t *k);
    int64_t k[8]; /* what the builder varies */
    int rank[MAX_WRT];
    int64_t dim[MAX_WRT][4];
} one_case;

static slr_val matmul(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_matmul(g, p[0], p[1], p[2], p[3], k[0], k[1], 0.7);
}
static slr_val bmm(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_bmm(g, p[0], p[1], k[0], k[1], 1.3);
}
static slr_val conv(slr_graph *g, const slr_val *p, const int64_t *k)
{
    double alpha = 0.6;
    return slr_op(g, SDLORA_OP_CONV2D, 4, p, 7, k, 1, &alpha, NULL);
}
static slr_val group_norm(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_group_norm(g, p[0], SLR_NONE, SLR_NONE, (int)k[0], (int)k[1], 1e-3);
}
static slr_val layer_norm(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_layer_norm(g, p[0], SLR_NONE, SLR_NONE, 1e-3);
}
static slr_val group_affine(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_group_norm(g, p[0], p[1], p[2], (int)k[0], (int)k[1], 1e-3);
}
static slr_val layer_affine(slr_graph *g, const slr_val *p, const int64_t *k)
{
    (void)k;
    return slr_layer_norm(g, p[0], p[1], p[2], 1e-3);
}
/* of 3 + x, which is far from singular */
static slr_val inverse(slr_graph *g, const slr_val *p, const int64_t *k)
{
    slr_val one[3];
    (void)k;
    for (int r = 0; r < 3; r++) {
        slr_val row[3];
        for (int i = 0; i < 3; i++)
            row[i] = slr_fill(g, DIMS(2, 1, 1), i == r ? 3.0 : 0.0);
        one[r] = slr_concat(g, row, 3, 2);
    }
    return slr_inverse(g, slr_add(g, p[0], slr_concat(g, one, 3, 1)));
}
static slr_val attention(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_attention(g, p[0], p[1], p[2], (int)k[0], k[1], 0.8);
}
static slr_val add(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_add(g, p[0], p[1]);
}
static slr_val sub(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_sub(g, p[0], p[1]);
}
static slr_val mul(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_mul(g, p[0], p[1]);
}
static slr_val square(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_mul(g, p[0], p[0]);
}
/* of a square, which is above zero */
static slr_val power(slr_graph *g, const slr_val *p, const int64_t *k)
{
    (void)k;
    return slr_pow(g, slr_affine(g, slr_mul(g, p[0], p[0]), 1.0, 0.5), -0.7);
}

static slr_val affine(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_affine(g, p[0], -2.5, 0.3);
}
static slr_val act(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_act(g, p[0], (int)k[0]);
}
static slr_val geglu(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_geglu(g, p[0]);
}
static slr_val dropout(slr_graph *g, const slr_val *p, const int64_t *k)
{
    slr_val seed = slr_input(g, "seed", SDLORA_I32, DIMS(2));
    return slr_dropout(g, p[0], seed, 0.4, 7, k[0]);
}
static slr_val reshape(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_mul(g, slr_reshape(g, p[0], 2, k), slr_reshape(g, p[0], 2, k));
}
static slr_val slice(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_slice(g, p[0], (int)k[0], k[1], k[2]);
}
static slr_val concat(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_concat(g, p, 3, (int)k[0]);
}
static slr_val permute(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_permute(g, p[0], k);
}
static slr_val upsample(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_upsample2(g, p[0]);
}
static slr_val sum_to(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_sum_to(g, p[0], 3, k);
}
static slr_val embed(slr_graph *g, const slr_val *p, const int64_t *k)
{
    return slr_embed(g, slr_input(g, "ids", SDLORA_I32, DIMS(2, 5)), p[0]);
}
static slr_val loss(slr_graph *g, const slr_val *p, const int64_t *k)
{
    slr_val weight = slr_input(g, "weight", SDLORA_F32, DIMS(2));
    slr_val delta = slr_input(g, "delta", SDLORA_F32, DIMS(2));
    return slr_loss(g, p[0], p[1], weight, delta, (int)k[0]);
}
static slr_val sumsq(slr_graph *g, const slr_val *p, const int64_t *k)
{
    double none = 0;
    (void)none;
    return slr_op(g, SDLORA_OP_SUMSQ, 1, p, 0, NULL, 0, NULL, NULL);
}

static const one_case cases[] = {
    {"MATMUL", matmul, {0, 0}, {2, 2, 1, 2}, {{3, 4}, {4, 5}, {5}, {3, 5}}},
    {"MATMUL of rows", matmul, {0, 0}, {3, 2, 1, 3}, {{2, 3, 4}, {4, 5}, {5}, {2, 3, 5}}},
    {"MATMUL, b stored transposed",
     matmul,
     {0, 1},
     {3, 2, 1, 3},
     {{2, 3, 4}, {5, 4}, {5}, {2, 3, 5}}},
    {"MATMUL, a stored transposed", matmul, {1, 0}, {3, 2, 1, 2}, {{2, 2, 3}, {4, 5}, {5}, {3, 5}}},
    {"MATMUL, both stored transposed", matmul, {1, 1}, {2, 2, 1, 2}, {{4, 3}, {5, 4}, {5}, {3, 5}}},
    {"MATMUL, add of other axes", matmul, {0, 1}, {3, 2, 0, 2}, {{2, 3, 4}, {5, 4}, {0}, {6, 5}}},
    {"BMM", bmm, {0, 0}, {3, 3}, {{2, 3, 4}, {2, 4, 5}}},
    {"BMM, b stored transposed", bmm, {0, 1}, {3, 3}, {{2, 3, 4}, {2, 5, 4}}},
    {"BMM, a stored transposed", bmm, {1, 0}, {3, 3}, {{2, 4, 3}, {2, 4, 5}}},
    {"BMM, both stored transposed", bmm, {1, 1}, {3, 3}, {{2, 4, 3}, {2, 5, 4}}},
    {"INVERSE", inverse, {0}, {3}, {{2, 3, 3}}},
    {"CONV2D",
     conv,
     {1, 1, 1, 1, 1, 1, 1},
     {4, 4, 1, 4},
     {{2, 4, 5, 3}, {4, 3, 3, 3}, {4}, {2, 4, 5, 4}}},
    {"CONV2D, stride 2, padding below and right",
     conv,
     {2, 2, 0, 0, 1, 1, 1},
     {4, 4, 1, 4},
     {{1, 4, 6, 2}, {3, 2, 3, 3}, {3}, {1, 2, 3, 3}}},
    {"CONV2D, groups and uneven strides",
     conv,
     {1, 2, 2, 1, 0, 1, 2},
     {4, 4},
     {{1, 5, 4, 4}, {6, 2, 3, 2}}},
    {"GROUP_NORM", group_norm, {2, SDLORA_ACT_NONE}, {4}, {{2, 3, 2, 6}}},
    {"GROUP_NORM with SiLU", group_norm, {3, SDLORA_ACT_SILU}, {3}, {{2, 5, 6}}},
    {"LAYER_NORM", layer_norm, {0}, {3}, {{2, 3, 7}}},
    {"GROUP_NORM by gain and shift",
     group_affine,
     {2, SDLORA_ACT_NONE},
     {4, 1, 1},
     {{2, 3, 2, 6}, {6}, {6}}},
    {"GROUP_NORM with SiLU by gain and shift",
     group_affine,
     {3, SDLORA_ACT_SILU},
     {3, 1, 1},
     {{2, 5, 6}, {6}, {6}}},
    {"GROUP_NORM by shift alone",
     group_affine,
     {3, SDLORA_ACT_SILU},
     {3, 0, 1},
     {{2, 5, 6}, {0}, {6}}},
    {"LAYER_NORM by gain and shift", layer_affine, {0}, {3, 1, 1}, {{2, 3, 7}, {7}, {7}}},
    {"LAYER_NORM by gain alone", layer_affine, {0}, {3, 1, 0}, {{2, 3, 7}, {7}, {0}}},
    {"ATTENTION", attention, {2, 0}, {3, 3, 3}, {{2, 3, 4}, {2, 5, 4}, {2, 5, 4}}},
    {"ATTENTION, causal", attention, {1, 1}, {3, 3, 3}, {{2, 4, 3}, {2, 4, 3}, {2, 4, 3}}},
    {"ADD", add, {0}, {2, 2}, {{3, 4}, {3, 4}}},
    {"ADD, b repeats", add, {0}, {3, 3}, {{2, 3, 4}, {2, 1, 4}}},
    {"ADD of a vector", add, {0}, {3, 1}, {{2, 3, 4}, {4}}},
    {"SUB, b repeats", sub, {0}, {3, 3}, {{2, 3, 4}, {1, 3, 1}}},
    {"MUL", mul, {0}, {2, 2}, {{3, 4}, {3, 4}}},
    {"MUL, b repeats", mul, {0}, {3, 3}, {{2, 3, 4}, {2, 1, 1}}},
    {"MUL, the smaller first", mul, {0}, {1, 3}, {{4}, {2, 3, 4}}},
    {"MUL by itself", square, {0}, {2}, {{3, 4}}},
    {"AFFINE", affine, {0}, {2}, {{3, 4}}},
    {"POW", power, {0}, {2}, {{3, 4}}},
    {"ACT, SiLU", act, {SDLORA_ACT_SILU}, {2}, {{3, 4}}},
    {"ACT, GELU", act, {SDLORA_ACT_GELU}, {2}, {{3, 4}}},
    {"ACT, quick GELU", act, {SDLORA_ACT_QUICK_GELU}, {2}, {{3, 4}}},
    {"ACT, ReLU", act, {SDLORA_ACT_RELU}, {2}, {{3, 4}}},
    {"ACT, tanh", act, {SDLORA_ACT_TANH}, {2}, {{3, 4}}},
    {"GEGLU", geglu, {0}, {3}, {{2, 3, 8}}},
    {"DROPOUT", dropout, {1}, {2}, {{5, 8}}},
    {"DROPOUT of groups", dropout, {8}, {2}, {{5, 8}}},
    {"RESHAPE", reshape, {6, 4}, {3}, {{2, 3, 4}}},
    {"SLICE of the first axis", slice, {0, 1, 2}, {3}, {{4, 3, 2}}},
    {"SLICE of the last axis", slice, {2, 1, 3}, {3}, {{2, 3, 5}}},
    {"CONCAT of the last axis", concat, {2}, {3, 3, 3}, {{2, 3, 1}, {2, 3, 4}, {2, 3, 2}}},
    {"CONCAT of the first axis", concat, {0}, {2, 2, 2}, {{1, 3}, {4, 3}, {2, 3}}},
    {"PERMUTE", permute, {3, 1, 0, 2}, {4}, {{2, 3, 4, 5}}},
    {"UPSAMPLE2", upsample, {0}, {4}, {{2, 2, 3, 4}}},
    {"SUM_TO", sum_to, {2, 1, 1}, {3}, {{2, 3, 4}}},
    {"EMBED", embed, {0}, {2}, {{4, 3}}},
    {"LOSS, L2", loss, {SDLORA_LOSS_L2}, {3, 3}, {{2, 3, 4}, {2, 3, 4}}},
    {"LOSS, L1", loss, {SDLORA_LOSS_L1}, {3, 3}, {{2, 3, 4}, {2, 3, 4}}},
    {"LOSS, Huber", loss, {SDLORA_LOSS_HUBER}, {3, 3}, {{2, 3, 4}, {2, 3, 4}}},
    {"LOSS, smooth L1", loss, {SDLORA_LOSS_SMOOTH_L1}, {3, 3}, {{2, 3, 4}, {2, 3, 4}}},
    {"SUMSQ", sumsq, {0}, {2}, {{3, 4}}},
};

static void every_operation(void **state)
{
    fixture *f = *state;
    bool seen[128] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const one_case *c = &cases[i];
        slr_graph *g;
        slr_val p[MAX_WRT], wrt[MAX_WRT];
        int n = 0;
        assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
        for (int k = 0; k < MAX_WRT; k++) {
            char name[8];
            snprintf(name, sizeof name, "p%d", k);
            p[k] = c->rank[k] ? slr_param(g, name, c->rank[k], c->dim[k]) : SLR_NONE;
            if (p[k] != SLR_NONE)
                wrt[n++] = p[k];
        }
        slr_val y = c->build(g, p, c->k);
        if (y == SLR_NONE)
            fail_msg("%s: %s", c->name, sdlora_last_error()->message);
        for (size_t k = 0; k < g->n_nodes; k++)
            seen[g->nodes[k].row->op] = true;
        check_graph(f, g, y, wrt, n, c->name);
        slr_graph_free(g);
        pool_free(&f->consts);
    }
    seen[SDLORA_OP_CAST] = true; /* see casts */
    const slr_op_row *row;
    for (size_t i = 0; (row = slr_op_at(i)) != NULL; i++)
        if (row->grad && !seen[row->op])
            fail_msg("%s has a backward rule that no case covers", row->name);
}

/* --- together */

/* x + up(down(x)) under a linear layer, its frozen weight shared by the gradient. */
static slr_val adapted(slr_graph *g, pool *c, slr_val x, const char *name, int64_t out,
                       const slr_val *down, const slr_val *up, slr_val add)
{
    slr_graph_push(g, name);
    slr_val w = random_const(g, c, "weight", DIMS(out, slr_dim(g, x, -1)));
    slr_val b = random_const(g, c, "bias", DIMS(out));
    slr_val y = slr_linear(g, x, w, b, add);
    if (down) {
        slr_val d = slr_matmul(g, x, *down, SLR_NONE, SLR_NONE, false, true, 1.0);
        y = slr_matmul(g, d, *up, SLR_NONE, y, false, true, 0.5);
    }
    slr_graph_pop(g);
    return y;
}

static slr_val norm(slr_graph *g, pool *c, slr_val x, const char *name, int groups)
{
    slr_graph_push(g, name);
    slr_val w = random_const(g, c, "weight", DIMS(slr_dim(g, x, -1)));
    slr_val b = random_const(g, c, "bias", DIMS(slr_dim(g, x, -1)));
    slr_val y = groups ? slr_group_norm(g, x, w, b, groups, SDLORA_ACT_SILU, 1e-5)
                       : slr_layer_norm(g, x, w, b, 1e-5);
    slr_graph_pop(g);
    return y;
}

/* A transformer block on [1,H*W,C] seen as a convolution's output, with LoRA on q and out. */
static slr_val block(slr_graph *g, pool *c, slr_val x, const slr_val *p)
{
    slr_val h = norm(g, c, x, "norm1", 0);
    slr_val q = adapted(g, c, h, "to_q", 8, &p[0], &p[1], SLR_NONE);
    slr_val k = adapted(g, c, h, "to_k", 8, NULL, NULL, SLR_NONE);
    slr_val v = adapted(g, c, h, "to_v", 8, NULL, NULL, SLR_NONE);
    slr_val o = slr_attention(g, q, k, v, 2, false, 0.5);
    x = adapted(g, c, o, "to_out", 8, &p[2], &p[3], x);
    h = norm(g, c, x, "norm3", 0);
    h = slr_geglu(g, adapted(g, c, h, "ff1", 16, NULL, NULL, SLR_NONE));
    return adapted(g, c, h, "ff2", 8, NULL, NULL, x);
}

static slr_val tiny_unet(slr_graph *g, pool *c, const slr_val *p)
{
    slr_conv same = {1, 1, 1, 1, 1}, half = {2, 1, 1, 1, 1};
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(1, 4, 4, 3));
    slr_val w1 = random_const(g, c, "conv_in.weight", DIMS(8, 3, 3, 3));
    slr_val h = slr_conv2d(g, x, w1, SLR_NONE, SLR_NONE, same, 1.0);
    slr_val skip = h;
    h = slr_reshape(g, block(g, c, slr_reshape(g, h, DIMS(1, 16, 8)), p), DIMS(1, 4, 4, 8));
    slr_val w2 = random_const(g, c, "down.weight", DIMS(8, 8, 3, 3));
    h = slr_conv2d(g, h, w2, SLR_NONE, SLR_NONE, half, 1.0);
    h = slr_conv2d(g, norm(g, c, h, "norm", 4), p[4], SLR_NONE, h, same, 1.0);
    h = slr_concat(g, (slr_val[]){slr_upsample2(g, h), skip}, 2, -1);
    slr_val w3 = random_const(g, c, "conv_out.weight", DIMS(3, 16, 3, 3));
    h = slr_conv2d(g, norm(g, c, h, "norm_out", 4), w3, SLR_NONE, SLR_NONE, same, 1.0);
    slr_val target = slr_input(g, "target", SDLORA_F32, DIMS(1, 4, 4, 3));
    slr_val weight = slr_input(g, "weight", SDLORA_F32, DIMS(1));
    return slr_loss(g, h, target, weight, SLR_NONE, SDLORA_LOSS_L2);
}

static void unet_params(slr_graph *g, slr_val p[5])
{
    p[0] = slr_param(g, "q.down", DIMS(2, 8));
    p[1] = slr_param(g, "q.up", DIMS(8, 2));
    p[2] = slr_param(g, "out.down", DIMS(2, 8));
    p[3] = slr_param(g, "out.up", DIMS(8, 2));
    p[4] = slr_param(g, "conv.full", DIMS(8, 8, 3, 3));
}

static void composite(void **state)
{
    fixture *f = *state;
    slr_graph *g;
    slr_val p[5];
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    unet_params(g, p);
    check_graph(f, g, tiny_unet(g, &f->consts, p), p, 5, "a tiny UNet with LoRA");
    slr_graph_free(g);
    pool_free(&f->consts);
}

/* --- what gradient graphs look like */

static int count_op(const slr_graph *g, size_t from, uint32_t op)
{
    int n = 0;
    for (size_t i = from; i < g->n_nodes; i++)
        n += g->nodes[i].row->op == op;
    return n;
}

static void only_what_is_needed(void **state)
{
    fixture *f = *state;
    slr_graph *g;
    slr_val p[5], grads[2];
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    unet_params(g, p);
    slr_val root = tiny_unet(g, &f->consts, p);
    slr_val apart = slr_param(g, "apart", DIMS(2));
    size_t forward = g->n_nodes;
    /* Only out.up: it stands behind the attention, which therefore has no gradient. */
    assert_ok(slr_graph_grad(g, root, (slr_val[]){p[3], apart}, 2, grads));
    assert_true(grads[0] != SLR_NONE);
    assert_true(grads[1] == SLR_NONE); /* root does not depend on it */
    assert_int_equal(count_op(g, forward, SDLORA_OP_ATTENTION_B), 0);
    assert_int_equal(count_op(g, forward, SDLORA_OP_CONV2D_BW), 0);
    assert_int_equal(count_op(g, forward, SDLORA_OP_CONV2D_BX), 3); /* all but conv_in */
    for (size_t i = forward; i < g->n_nodes; i++)
        assert_true(slr_starts(g->nodes[i].name, "grad:"));
    slr_graph_free(g);
    pool_free(&f->consts);
}

/* Three products of one value: its gradient is one chain of products through their add inputs. */
static void sums_ride_on_products(void **state)
{
    fixture *f = *state;
    slr_graph *g;
    slr_val grad;
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    slr_val x = slr_param(g, "x", DIMS(2, 3, 4)), y = SLR_NONE;
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof name, "w%d", i);
        slr_val w = random_const(g, &f->consts, name, DIMS(5, 4));
        y = slr_linear(g, x, w, SLR_NONE, y);
    }
    size_t forward = g->n_nodes;
    assert_ok(slr_graph_grad(g, y, &x, 1, &grad));
    assert_int_equal(count_op(g, forward, SDLORA_OP_ADD), 0);
    assert_int_equal(count_op(g, forward, SDLORA_OP_MATMUL), 3);
    slr_graph_free(g);
    pool_free(&f->consts);
}

/* A residual around each norm: the norm's gradient takes in what came past it. */
static void sums_ride_on_norms(void **state)
{
    fixture *f = *state;
    slr_graph *g;
    slr_val grad;
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    slr_val x = slr_param(g, "x", DIMS(2, 6, 8)), y = x;
    for (int i = 0; i < 2; i++) {
        slr_val w = random_const(g, &f->consts, i ? "w1" : "w0", DIMS(8, 8));
        slr_val h = i ? slr_group_norm(g, y, SLR_NONE, SLR_NONE, 4, SDLORA_ACT_SILU, 1e-3)
                      : slr_layer_norm(g, y, SLR_NONE, SLR_NONE, 1e-3);
        y = slr_linear(g, h, w, SLR_NONE, y);
    }
    size_t forward = g->n_nodes;
    assert_ok(slr_graph_grad(g, y, &x, 1, &grad));
    assert_int_equal(count_op(g, forward, SDLORA_OP_ADD), 0);
    for (size_t i = forward; i < g->n_nodes; i++) {
        const slr_node *n = &g->nodes[i];
        bool norm = n->row->op == SDLORA_OP_GROUP_NORM_BX || n->row->op == SDLORA_OP_LAYER_NORM_BX;
        if (norm)
            assert_true(n->in[n->n_in - 1] != SLR_NONE);
    }
    slr_graph_free(g);

    /* the same values as differences have */
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    x = slr_param(g, "x", DIMS(2, 6, 8));
    slr_val h = slr_layer_norm(g, x, SLR_NONE, SLR_NONE, 1e-3);
    y = slr_mul(g, slr_act(g, h, SDLORA_ACT_TANH), x);
    h = slr_group_norm(g, y, SLR_NONE, SLR_NONE, 4, SDLORA_ACT_SILU, 1e-3);
    y = slr_mul(g, slr_act(g, h, SDLORA_ACT_TANH), y);
    check_graph(f, g, y, &x, 1, "norms with something past them");
    slr_graph_free(g);
    pool_free(&f->consts);
}

/* Two parameters of one sum have equal gradients, and yet each is a value of its own. */
static void gradients_are_distinct(void **state)
{
    slr_graph *g;
    slr_val grads[3];
    (void)state;
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    slr_val a = slr_param(g, "a", DIMS(3)), b = slr_param(g, "b", DIMS(3));
    slr_val y = slr_add(g, a, b);
    assert_ok(slr_graph_grad(g, y, (slr_val[]){a, b, y}, 3, grads));
    assert_true(grads[0] != grads[1] && grads[1] != grads[2] && grads[0] != grads[2]);
    slr_graph_free(g);
}

/* A gradient is stored as its value is, whatever the activations are stored in. */
static void casts(void **state)
{
    fixture *f = *state;
    slr_graph *g;
    slr_val grads[3];
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){.storage = SDLORA_BF16}));
    slr_val x = slr_input(g, "x", SDLORA_BF16, DIMS(3, 4));
    slr_val w = slr_param(g, "w", DIMS(5, 4)), b = slr_param(g, "b", DIMS(5));
    slr_val k = slr_param(g, "k", DIMS(1, 5));
    slr_val y = slr_linear(g, x, w, b, SLR_NONE);
    assert_int_equal(slr_shape_of(g, y).dtype, SDLORA_BF16);
    y = slr_cast(g, slr_mul(g, y, k), SDLORA_F32);
    slr_val all[3] = {w, b, k};
    assert_ok(slr_graph_grad(g, y, all, 3, grads));
    for (int i = 0; i < 3; i++)
        assert_int_equal(slr_shape_of(g, grads[i]).dtype, SDLORA_F32);
    assert_int_equal(count_op(g, 0, SDLORA_OP_CAST), 2); /* forward; and back to bf16 */
    interp ip = interp_new(g, f->devices);
    for (int i = 0; i < 3; i++)
        compare(&ip, y, all[i], grads[i], "a product in bf16");
    interp_free(&ip);
    slr_graph_free(g);
}

/* --- what has no rule */

static slr_val by_weight(slr_graph *g)
{
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(2, 3));
    return slr_loss(g, x, slr_input(g, "t", SDLORA_F32, DIMS(2, 3)),
                    slr_param(g, "weight", DIMS(2)), SLR_NONE, SDLORA_LOSS_L2);
}
static slr_val by_time(slr_graph *g)
{
    return slr_time_embed(g, slr_param(g, "t", DIMS(2)), 8);
}
static slr_val by_statistics(slr_graph *g)
{
    slr_val outs[3], in[1] = {slr_param(g, "x", DIMS(2, 4))};
    double eps = 1e-5;
    slr_op(g, SDLORA_OP_LAYER_NORM, 1, in, 0, NULL, 1, &eps, outs);
    return outs[1];
}

static void missing_rules(void **state)
{
    static const struct {
        slr_val (*build)(slr_graph *g);
        const char *text;
    } list[] = {
        {by_weight, "mid.norm: LOSS has no gradient by its weight [2] (parameter weight [2])"},
        {by_time, "mid.norm: TIME_EMBED has no backward rule, wanted for value [2,8]"},
        {by_statistics, "mid.norm: LAYER_NORM has no gradient through its result number 2, [2]"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        slr_graph *g;
        slr_val grad = 0;
        assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
        slr_graph_push(g, "mid");
        slr_graph_push(g, "norm");
        slr_val y = list[i].build(g);
        assert_ok(slr_graph_status(g));
        slr_val p = SLR_NONE;
        for (size_t v = 0; v < g->n_vals; v++)
            if (g->vals[v].from == SLR_FROM_PARAM)
                p = (slr_val)v;
        assert_int_equal(slr_graph_grad(g, y, &p, 1, &grad), SDLORA_ENOTSUP);
        assert_message(list[i].text);
        assert_true(grad == SLR_NONE);
        assert_int_equal(slr_graph_status(g), SDLORA_ENOTSUP);
        slr_graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation),
        cmocka_unit_test(composite),
        cmocka_unit_test(only_what_is_needed),
        cmocka_unit_test(sums_ride_on_products),
        cmocka_unit_test(sums_ride_on_norms),
        cmocka_unit_test(gradients_are_distinct),
        cmocka_unit_test(casts),
        cmocka_unit_test(missing_rules),
    };
    seed_now = 42;
    return cmocka_run_group_tests(tests, setup, teardown);
}
