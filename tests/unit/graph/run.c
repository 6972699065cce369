/* SPDX-License-Identifier: MIT */
/* Plans that run, on the reference plugin.  Random graphs with gradients give what the interpreter
 * gives, which has no plan: no buffer is ever overwritten too early.  Then memory (bind, share, two
 * plans), kernels (shared, declined, failing), cancel, profile, and what a run costs by itself. */
#include "graph_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

typedef struct fixture {
    slr_devices *devices;
    refplugin_knobs *knobs;
    pool consts;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->devices = ref_devices(NULL);
    f->knobs = knobs();
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    slr_devices_unref(f->devices);
    free(f);
    return 0;
}

/* After each test: the plugin does as it should, and no constant is left. */
static int reset(void **state)
{
    fixture *f = *state;
    *f->knobs = (refplugin_knobs){0};
    pool_free(&f->consts);
    return 0;
}

static slr_graph *graph(void)
{
    slr_graph *g;
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    return g;
}

static slr_plan *plan_of(fixture *f, const slr_graph *g)
{
    slr_plan *p = NULL;
    assert_ok(slr_graph_status(g));
    assert_ok(slr_plan_new(&p, g, f->devices));
    return p;
}

static slr_val silu(slr_graph *g, slr_val x)
{
    return slr_act(g, x, SDLORA_ACT_SILU);
}

/* --- random graphs.  All values are [2,4,16]; each step makes one more from some before. */

enum { N_STEPS = 60 };

typedef struct maker {
    slr_graph *g;
    pool *consts;
    slr_val vals[N_STEPS + 8];
    int n, n_names;
} maker;

static slr_val pick(maker *m)
{
    /* Mostly recent ones, so that lifetimes differ. */
    int back = random_to(random_to(3) ? 4 : m->n);
    return m->vals[m->n - 1 - (back < m->n ? back : m->n - 1)];
}

static slr_val weight(maker *m, int64_t out, int64_t in)
{
    char name[16];
    snprintf(name, sizeof name, "c%d", m->n_names++);
    return slr_affine(m->g, random_const(m->g, m->consts, name, DIMS(out, in)), 0.3, 0.0);
}

static slr_val make_add(maker *m)
{
    return slr_affine(m->g, slr_add(m->g, pick(m), pick(m)), 0.6, 0.1);
}
static slr_val make_mul(maker *m)
{
    return slr_act(m->g, slr_mul(m->g, pick(m), pick(m)), SDLORA_ACT_TANH);
}
static slr_val make_sub(maker *m)
{
    return slr_affine(m->g, slr_sub(m->g, pick(m), pick(m)), 0.5, 0.0);
}
static slr_val make_act(maker *m)
{
    return slr_act(m->g, pick(m), 1 + random_to(3));
}
static slr_val make_norm(maker *m)
{
    return slr_layer_norm(m->g, pick(m), SLR_NONE, SLR_NONE, 1e-2);
}
static slr_val make_linear(maker *m)
{
    slr_val add = random_to(2) ? pick(m) : SLR_NONE;
    return slr_linear(m->g, pick(m), weight(m, 16, 16), SLR_NONE, add);
}
static slr_val make_attention(maker *m)
{
    slr_val qkv = slr_linear(m->g, pick(m), weight(m, 48, 16), SLR_NONE, SLR_NONE), s[3];
    for (int i = 0; i < 3; i++)
        s[i] = slr_slice(m->g, qkv, 2, 16 * i, 16);
    return slr_attention(m->g, s[0], s[1], random_to(2) ? s[2] : pick(m), 2, random_to(2), 0.4);
}
static slr_val make_geglu(maker *m)
{
    return slr_geglu(m->g, slr_linear(m->g, pick(m), weight(m, 32, 16), SLR_NONE, SLR_NONE));
}
static slr_val make_rows(maker *m)
{
    slr_val x = pick(m), a = slr_slice(m->g, x, 0, 1, 1), b = slr_slice(m->g, x, 0, 0, 1);
    return slr_concat(m->g, (slr_val[]){a, b}, 2, 0);
}
static slr_val make_columns(maker *m)
{
    slr_val x = pick(m);
    slr_val a = slr_slice(m->g, x, 2, 6, 10), b = slr_slice(m->g, pick(m), 2, 0, 6);
    return slr_concat(m->g, (slr_val[]){a, b}, 2, 2);
}
static slr_val make_permuted(maker *m)
{
    slr_val x = slr_permute(m->g, pick(m), (int64_t[]){1, 0, 2}); /* [4,2,16] */
    return slr_reshape(m->g, silu(m->g, slr_reshape(m->g, x, DIMS(8, 16))), DIMS(2, 4, 16));
}
static slr_val make_repeated(maker *m)
{
    slr_val mean = slr_affine(m->g, slr_sum_to(m->g, pick(m), DIMS(2, 1, 16)), 0.25, 0.0);
    return slr_sub(m->g, pick(m), mean);
}

static slr_val (*const makers[])(maker *) = {
    make_add,       make_mul,   make_sub,  make_act,     make_norm,     make_linear,
    make_attention, make_geglu, make_rows, make_columns, make_permuted, make_repeated,
};

/* Outputs: some values, reshapes of values, an input, and the gradients of everything trainable. */
static slr_graph *random_graph(uint32_t storage, pool *consts, slr_val *outs, int *n_outs)
{
    maker m = {.consts = consts};
    assert_ok(slr_graph_new(&m.g, NULL, (slr_policy){.storage = storage}));
    slr_val wrt[4], grads[4];
    for (int i = 0; i < 6; i++) {
        char name[8];
        snprintf(name, sizeof name, "x%d", i);
        m.vals[m.n] = i < 2 ? slr_input(m.g, name, SDLORA_F32, DIMS(2, 4, 16))
                            : slr_param(m.g, name, DIMS(2, 4, 16));
        if (i >= 2)
            wrt[i - 2] = m.vals[m.n];
        m.vals[m.n] = slr_cast(m.g, m.vals[m.n], storage);
        m.n++;
    }
    while (m.n < N_STEPS + 6) {
        m.vals[m.n] = makers[random_to(sizeof makers / sizeof *makers)](&m);
        m.n++;
    }
    slr_val last = m.vals[m.n - 1];
    slr_val root = slr_op(m.g, SDLORA_OP_SUMSQ, 1, &last, 0, NULL, 0, NULL, NULL);
    assert_ok(slr_graph_status(m.g));
    assert_ok(slr_graph_grad(m.g, root, wrt, 4, grads));
    *n_outs = 0;
    outs[(*n_outs)++] = root;
    for (int i = 0; i < 4; i++)
        if (grads[i] != SLR_NONE)
            outs[(*n_outs)++] = grads[i];
    for (int i = 0; i < 6; i++) {
        slr_val v = pick(&m);
        outs[(*n_outs)++] = random_to(2) ? slr_reshape(m.g, v, DIMS(8, 16)) : v;
    }
    outs[(*n_outs)++] = m.vals[0];
    for (int i = 0; i < *n_outs; i++) {
        char name[16];
        snprintf(name, sizeof name, "out%d", i);
        slr_output(m.g, outs[i], name);
    }
    return m.g;
}

static void fill_leaves(slr_plan *p, const interp *ip)
{
    for (size_t v = 0; v < ip->n; v++) {
        int from = ip->g->vals[v].from;
        if (ip->g->vals[v].node >= 0 || from == SLR_FROM_CONST)
            continue;
        float *data = slr_plan_data(p, (slr_val)v);
        assert_non_null(data);
        for (int64_t i = 0; i < count_of(ip->g, (slr_val)v); i++)
            data[i] = (float)ip->val[v][i];
    }
}

/* f32 rounds at every node, by 6e-8 of sums that are some ten times the result; a hundred nodes
 * deep, and through norms that divide, 2e-4 is reached now and then.  An overwritten buffer gives
 * other numbers altogether. */
static void compare_outputs(slr_plan *p, const interp *ip, int n_outs, int round)
{
    for (int i = 0; i < n_outs; i++) {
        char name[16];
        slr_val v;
        double most = 0, worst = 0;
        snprintf(name, sizeof name, "out%d", i);
        assert_ok(slr_plan_find(p, name, &v));
        const float *got = slr_plan_data(p, v);
        for (int64_t e = 0; e < count_of(ip->g, v); e++) {
            double d = fabs((double)got[e] - ip->val[v][e]);
            most = fmax(most, fabs(ip->val[v][e]));
            worst = d <= worst ? worst : d;
        }
        if (!(worst <= 2e-3 * (1e-3 + most)))
            fail_msg("graph %d, output %d: off by %g of %g", round, i, worst, most);
    }
}

static void random_graphs(void **state)
{
    fixture *f = *state;
    uint64_t aliased = 0;
    for (int round = 0; round < 40; round++) {
        slr_val outs[16];
        int n_outs;
        slr_plan_stats stats;
        seed_now = 1000 + (uint64_t)round;
        slr_graph *g = random_graph(SDLORA_F32, &f->consts, outs, &n_outs);
        slr_plan *p = plan_of(f, g);
        for (int again = 0; again < 2; again++) {
            interp ip = interp_new(g, f->devices);
            interp_run(&ip);
            fill_leaves(p, &ip);
            assert_ok(slr_plan_run(p, NULL));
            compare_outputs(p, &ip, n_outs, round);
            interp_free(&ip);
        }
        slr_plan_get_stats(p, &stats);
        aliased += stats.n_aliased;
        slr_plan_free(p);
        slr_graph_free(g);
        pool_free(&f->consts);
    }
    assert_true(aliased > 400); /* the graphs are such that there is something to get wrong */
}

/* Makes every value an output: then each has memory of its own and nothing is reused. */
static void keep_everything(slr_graph *g)
{
    size_t n = g->n_vals;
    for (size_t v = 0; v < n; v++) {
        char name[16];
        snprintf(name, sizeof name, "kept%d", (int)v);
        if (g->vals[v].node >= 0)
            slr_output(g, (slr_val)v, name);
    }
}

/* Runs the random graph of this seed and copies its outputs, one after the other, to *out. */
static size_t run_seeded(fixture *f, uint64_t seed, uint32_t storage, bool keep, char *out)
{
    slr_val outs[16];
    int n_outs;
    size_t at = 0;
    seed_now = seed;
    slr_graph *g = random_graph(storage, &f->consts, outs, &n_outs);
    interp ip = interp_new(g, f->devices); /* for the leaves only */
    if (keep)
        keep_everything(g);
    slr_plan *p = plan_of(f, g);
    slr_plan_stats stats;
    slr_plan_get_stats(p, &stats);
    assert_true(keep ? stats.arena_bytes == 0 : stats.arena_bytes > 0);
    fill_leaves(p, &ip);
    assert_ok(slr_plan_run(p, NULL));
    for (int i = 0; i < n_outs; i++) {
        char name[16];
        slr_val v;
        snprintf(name, sizeof name, "out%d", i);
        assert_ok(slr_plan_find(p, name, &v));
        slr_shape s = slr_plan_shape(p, v);
        size_t bytes = (size_t)slr_count(&s) * slr_dtype_size(s.dtype);
        memcpy(out + at, slr_plan_data(p, v), bytes);
        at += bytes;
    }
    slr_plan_free(p);
    interp_free(&ip);
    slr_graph_free(g);
    pool_free(&f->consts);
    return at;
}

static void reuse_changes_no_bit(void **state)
{
    fixture *f = *state;
    static char reused[1 << 16], kept[1 << 16];
    for (int round = 0; round < 40; round++) {
        uint32_t storage = round % 2 ? SDLORA_BF16 : SDLORA_F32;
        uint64_t seed = 5000 + (uint64_t)round;
        size_t n = run_seeded(f, seed, storage, false, reused);
        assert_int_equal(run_seeded(f, seed, storage, true, kept), n);
        assert_memory_equal(reused, kept, n);
    }
}

/* --- memory */

static void graph_may_go_first(void **state)
{
    fixture *f = *state;
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(4));
    slr_output(g, slr_affine(g, x, 2, 1), "y");
    slr_plan *p = plan_of(f, g);
    slr_graph_free(g);
    slr_val v, y;
    assert_ok(slr_plan_find(p, "x", &v));
    assert_ok(slr_plan_find(p, "y", &y));
    assert_int_equal(slr_plan_find(p, "z", &y), SDLORA_ENOTFOUND);
    assert_message("no leaf or output called z");
    assert_ok(slr_plan_find(p, "y", &y));
    slr_shape s = slr_plan_shape(p, y);
    assert_true(s.rank == 1 && s.dim[0] == 4 && s.dtype == SDLORA_F32);
    float *data = slr_plan_data(p, v);
    for (int i = 0; i < 4; i++)
        data[i] = (float)i;
    for (int run = 0; run < 2; run++) { /* inputs keep their contents */
        assert_ok(slr_plan_run(p, NULL));
        for (int i = 0; i < 4; i++)
            assert_true(((float *)slr_plan_data(p, y))[i] == (float)(2 * i + 1));
    }
    slr_plan_free(p);
}

static void binding(void **state)
{
    fixture *f = *state;
    _Alignas(64) float in[32], out[16], other[16];
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(2, 16));
    slr_val row = slr_slice(g, x, 0, 1, 1); /* an alias into the leaf */
    slr_val y = slr_affine(g, row, 3, 0);
    slr_output(g, y, "y");
    slr_plan *p = plan_of(f, g);
    for (int i = 0; i < 32; i++)
        in[i] = (float)i;
    assert_ok(slr_plan_bind(p, x, in));
    assert_ok(slr_plan_bind(p, y, out));
    assert_ok(slr_plan_run(p, NULL));
    assert_true(out[0] == 48 && out[15] == 93);
    assert_ptr_equal(slr_plan_data(p, y), out);
    in[16] = 1;
    assert_ok(slr_plan_bind(p, y, other)); /* and elsewhere, after a run */
    assert_ok(slr_plan_run(p, NULL));
    assert_true(other[0] == 3 && out[0] == 48);
    assert_int_equal(slr_plan_bind(p, y, (char *)out + 4), SDLORA_EINVAL);
    assert_message("aligned to 64 bytes");
    assert_int_equal(slr_plan_bind(p, row, out), SDLORA_EINVAL);
    assert_message("only inputs, parameters and outputs");
    assert_null(slr_plan_data(p, row));
    slr_plan_free(p);
    slr_graph_free(g);
}

static void adamw_in_place(void **state)
{
    fixture *f = *state;
    slr_graph *g = graph();
    slr_val in[5], outs[3];
    static const char *const names[] = {"p", "grad", "m", "v", "hyper"};
    for (int i = 0; i < 5; i++)
        in[i] = slr_input(g, names[i], SDLORA_F32, DIMS(i == 4 ? 8 : 16));
    slr_op(g, SDLORA_OP_ADAMW, 5, in, 0, NULL, 0, NULL, outs);
    slr_output(g, outs[0], "after");
    slr_plan *p = plan_of(f, g);
    float hyper[8] = {0.1f, 0.9f, 0.99f, 1e-8f, 0, 0.1f, 0.01f, 1};
    float *param = slr_plan_data(p, in[0]), *grad = slr_plan_data(p, in[1]);
    memcpy(slr_plan_data(p, in[4]), hyper, sizeof hyper);
    for (int i = 0; i < 16; i++) {
        param[i] = 1;
        grad[i] = 2;
    }
    assert_ptr_equal(slr_plan_data(p, outs[0]), param);
    assert_ok(slr_plan_run(p, NULL));
    assert_true(fabs((double)param[3] - 0.9) < 1e-6); /* the first step is lr, whatever the size */
    slr_plan_free(p);
    slr_graph_free(g);
}

/* x -> silu^n; the intermediate values make an arena. */
static slr_graph *chain(int n, int64_t width)
{
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(1, width)), y = x;
    for (int i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "node%d", i);
        slr_graph_push(g, name);
        y = slr_sub(g, slr_affine(g, x, 1.5, 0), silu(g, y));
        slr_graph_pop(g);
    }
    slr_output(g, y, "y");
    return g;
}

static float run_once(slr_plan *p, float x)
{
    slr_val in, out;
    assert_ok(slr_plan_find(p, "x", &in));
    assert_ok(slr_plan_find(p, "y", &out));
    ((float *)slr_plan_data(p, in))[0] = x;
    assert_ok(slr_plan_run(p, NULL));
    return ((float *)slr_plan_data(p, out))[0];
}

static void plans_share(void **state)
{
    fixture *f = *state;
    slr_mem *m;
    slr_graph *g[2];
    slr_plan *p[2], *alone[2];
    assert_ok(slr_mem_new(&m, NULL, 0));
    for (int i = 0; i < 2; i++) {
        g[i] = chain(3, i ? 50000 : 100);
        alone[i] = plan_of(f, g[i]);
        p[i] = plan_of(f, g[i]);
    }
    float want[2] = {run_once(alone[0], 0.7f), run_once(alone[1], 0.7f)};
    assert_true(run_once(p[0], 0.7f) == want[0]); /* takes its own workspace first */
    assert_ok(slr_plan_share(p[1], p[0]));
    assert_ok(slr_plan_share(p[1], p[0])); /* again: nothing happens */
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 2; i++) /* the second makes it grow under the first */
            assert_true(run_once(p[i], 0.7f) == want[i]);
    slr_plan_free(p[0]); /* in any order */
    assert_true(run_once(p[1], 0.7f) == want[1]);
    slr_plan_free(p[1]);
    for (int i = 0; i < 2; i++) {
        slr_plan_free(alone[i]);
        slr_graph_free(g[i]);
    }
    slr_mem_unref(m);
}

/* --- kernels */

static void equal_nodes_share_kernels(void **state)
{
    fixture *f = *state;
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(2, 4)), y = x;
    slr_val w = random_const(g, &f->consts, "w", DIMS(4, 4));
    slr_val v = random_const(g, &f->consts, "v", DIMS(4, 4));
    for (int i = 0; i < 5; i++)
        y = slr_linear(g, silu(g, y), i < 4 ? w : v, SLR_NONE, SLR_NONE);
    slr_output(g, slr_affine(g, slr_affine(g, y, 2, 0), 3, 0), "y");
    f->knobs->prepares = 0;
    slr_plan *p = plan_of(f, g);
    /* silu; the product with w and with v; the two scales */
    assert_int_equal(f->knobs->prepares, 5);
    slr_plan_stats stats;
    slr_plan_get_stats(p, &stats);
    assert_int_equal(stats.n_kernels, 12);
    assert_true(stats.flops == 5 * 2.0 * 2 * 4 * 4);
    assert_int_equal(stats.scratch_bytes, 256);
    slr_plan_free(p);
    slr_graph_free(g);
}

static void missing_kernels(void **state)
{
    fixture *f = *state;
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F64, DIMS(4, 4));
    slr_graph_push(g, "te.norm");
    slr_output(g, slr_layer_norm(g, x, SLR_NONE, SLR_NONE, 1e-5), "y");
    /* The built-in CPU backend is asked after the plugin; it has no norms in f64. */
    f->knobs->decline_op = SDLORA_OP_LAYER_NORM;
    slr_plan *p;
    assert_int_equal(slr_plan_new(&p, g, f->devices), SDLORA_ENOTSUP);
    assert_null(p);
    assert_message("te.norm: LAYER_NORM");
    assert_message("told to decline");
    slr_graph_free(g);
}

/* When nobody reads column slices in place they are made dense, with the same result.  (In f64,
 * which the built-in CPU backend, asked after the plugin, does not attend to.) */
static void strides_are_optional(void **state)
{
    fixture *f = *state;
    slr_plan_stats stats[2];
    float got[2];
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F64, DIMS(1, 3, 48)), s[3], y;
    for (int i = 0; i < 3; i++)
        s[i] = slr_slice(g, x, 2, 16 * i, 16);
    slr_output(g, slr_attention(g, s[0], s[1], s[2], 1, false, 1.0), "y");
    for (int dense = 0; dense < 2; dense++) {
        f->knobs->dense_only = dense;
        slr_plan *p = plan_of(f, g);
        slr_plan_get_stats(p, &stats[dense]);
        double *data = slr_plan_data(p, x);
        for (int i = 0; i < 144; i++)
            data[i] = (i % 7) - 3;
        assert_ok(slr_plan_find(p, "y", &y));
        assert_ok(slr_plan_run(p, NULL));
        got[dense] = ((float *)slr_plan_data(p, y))[20];
        slr_plan_free(p);
    }
    assert_int_equal(stats[0].n_aliased, 3);
    assert_int_equal(stats[1].n_aliased, 0);
    assert_true(got[0] == got[1]);
    slr_graph_free(g);
}

static void failures_name_the_node(void **state)
{
    fixture *f = *state;
    slr_graph *g = chain(3, 4);
    slr_plan *p = plan_of(f, g);
    f->knobs->fail_op = SDLORA_OP_SUB;
    assert_int_equal(slr_plan_run(p, NULL), SDLORA_EBACKEND);
    assert_message("node0: SUB: told to fail");
    slr_clear();
    f->knobs->fail_silently = true;
    assert_int_equal(slr_plan_run(p, NULL), SDLORA_EBACKEND);
    assert_message("node0: SUB: ref failed and gave no reason");
    f->knobs->fail_op = 0;
    assert_ok(slr_plan_run(p, NULL)); /* the plan is as good as before */
    slr_plan_free(p);
    slr_graph_free(g);
}

static void cancel(void **state)
{
    fixture *f = *state;
    slr_graph *g = chain(10, 4);
    slr_plan *p = plan_of(f, g);
    slr_cancel_flag flag = 0;
    assert_ok(slr_plan_run(p, &flag));
    f->knobs->launches = 0;
    f->knobs->cancel = &flag;
    f->knobs->cancel_at = 7; /* set while the seventh kernel runs: the eighth does not */
    assert_int_equal(slr_plan_run(p, &flag), SDLORA_ECANCELED);
    assert_int_equal(f->knobs->launches, 7);
    slr_plan_free(p);
    slr_graph_free(g);
}

static void *cancel_soon(void *flag)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    atomic_store((slr_cancel_flag *)flag, 1);
    return NULL;
}

/* A graph of one kernel of half a second or more: nothing but its own pieces can see the flag. */
static void cancel_inside_a_kernel(void **state)
{
    enum { SIDE = 4096 };
    for (int threads = 1; threads <= 2; threads++) {
        slr_devices *cpu;
        slr_devices_config config = {.threads = threads, .backend = "cpu"};
        slr_cancel_flag flag = 0;
        pthread_t t;
        slr_plan *p;
        assert_ok(slr_devices_open(&cpu, &config));
        slr_graph *g = graph();
        slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(SIDE, SIDE));
        slr_output(g, slr_matmul(g, x, x, SLR_NONE, SLR_NONE, false, false, 1.0), "y");
        assert_ok(slr_plan_new(&p, g, cpu));
        assert_int_equal(pthread_create(&t, NULL, cancel_soon, &flag), 0);
        assert_int_equal(slr_plan_run(p, &flag), SDLORA_ECANCELED);
        pthread_join(t, NULL);
        slr_plan_free(p);
        slr_graph_free(g);
        slr_devices_unref(cpu);
    }
}

static void planning_ends_on_cancel(void **state)
{
    fixture *f = *state;
    slr_graph *g = chain(10, 4);
    slr_plan *p;
    slr_cancel_flag flag = 1;
    uint64_t before = f->knobs->prepares;
    assert_int_equal(slr_plan_new_until(&p, g, f->devices, &flag), SDLORA_ECANCELED);
    assert_non_null(p); /* holds what was made so far */
    slr_plan_free(p);
    assert_int_equal(f->knobs->prepares, before);
    flag = 0;
    assert_ok(slr_plan_new_until(&p, g, f->devices, &flag));
    assert_ok(slr_plan_run(p, &flag));
    slr_plan_free(p);
    slr_graph_free(g);
}

static void profile(void **state)
{
    fixture *f = *state;
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(4, 8));
    slr_graph_push(g, "a.very.long.name.that.goes.on.and.on.and.on.and.on.and.on.and.on.and.on.and."
                      "on.until.its.end.proj");
    slr_val y =
        slr_linear(g, silu(g, x), random_const(g, &f->consts, "w", DIMS(8, 8)), SLR_NONE, SLR_NONE);
    slr_graph_pop(g);
    slr_output(g, y, "y");
    slr_plan *p = plan_of(f, g);
    slr_plan_profile_row rows[2] = {{0}};
    assert_ok(slr_plan_run(p, NULL));
    slr_plan_profile(p, true);
    assert_ok(slr_plan_run(p, NULL));
    assert_ok(slr_plan_run(p, NULL));
    slr_plan_profile(p, false);
    assert_ok(slr_plan_run(p, NULL));
    assert_int_equal(slr_plan_profile_rows(p, NULL, 0), 2);
    assert_int_equal(slr_plan_profile_rows(p, rows, 2), 2);
    assert_int_equal(rows[0].op, SDLORA_OP_ACT);
    assert_int_equal(rows[1].op, SDLORA_OP_MATMUL);
    assert_int_equal(rows[1].calls, 2);
    assert_true(rows[1].seconds > 0 && rows[1].flops == 2.0 * 4 * 8 * 8);
    assert_true(rows[1].bytes == 4 * (32 + 64 + 32));
    assert_string_equal(rows[1].backend, "ref");
    assert_true(slr_ends(rows[1].what, ".until.its.end.proj"));
    slr_plan_free(p);
    slr_graph_free(g);
}

/* --- cost */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void runs_cost_little(void **state)
{
    fixture *f = *state;
    slr_cancel_flag flag = 0;
    slr_graph *g = chain(2000, 4);
    slr_plan *p = plan_of(f, g);
    slr_plan_stats stats;
    slr_plan_get_stats(p, &stats);
    assert_int_equal(stats.n_kernels, 6000);
    f->knobs->idle = true;
    assert_ok(slr_plan_run(p, &flag));
    double best = 1;
    for (int i = 0; i < 20; i++) {
        double start = seconds();
        assert_ok(slr_plan_run(p, &flag));
        best = fmin(best, (seconds() - start) / 6000);
    }
    print_message("%.1f ns for a node beside its kernel\n", best * 1e9);
    assert_true(best < 0.5e-6);
    slr_plan_free(p);
    slr_graph_free(g);
}

/* --- out of memory */

typedef struct failing {
    long calls, fail_at, live;
} failing;

static void *get(void *user, size_t bytes)
{
    failing *f = user;
    if (++f->calls == f->fail_at)
        return NULL;
    f->live++;
    return malloc(bytes);
}

static void *get_more(void *user, void *ptr, size_t bytes)
{
    failing *f = user;
    if (++f->calls == f->fail_at)
        return NULL;
    f->live += !ptr;
    return realloc(ptr, bytes);
}

static void give(void *user, void *ptr)
{
    failing *f = user;
    f->live -= ptr != NULL;
    free(ptr);
}

static int plan_and_run(const slr_graph *g, slr_devices *d, failing *f, long *after_first)
{
    slr_plan *p;
    SLR_TRY(slr_plan_new(&p, g, d));
    int rc = slr_plan_run(p, NULL);
    *after_first = f->calls;
    if (rc >= 0)
        rc = slr_plan_run(p, NULL);
    *after_first = f->calls - *after_first;
    slr_plan_free(p);
    return rc;
}

static void out_of_memory(void **state)
{
    (void)state;
    failing f = {0};
    slr_mem_hooks hooks = {get, get_more, give, &f};
    slr_mem *m;
    slr_graph *g;
    assert_ok(slr_mem_new(&m, &hooks, 0));
    slr_devices *d = ref_devices(NULL); /* its own memory is not what is tested here */
    assert_ok(slr_graph_new(&g, m, (slr_policy){0}));
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(1, 4)), y = x;
    for (int i = 0; i < 20; i++)
        y = slr_sub(g, slr_affine(g, x, 1.0 + i, 0), silu(g, y));
    slr_output(g, y, "y");
    assert_ok(slr_graph_status(g));
    long held = f.live, calls_in_second_run = 0;
    int rc = SDLORA_ENOMEM;
    for (long n = 1; rc < 0; n++) {
        f.calls = 0;
        f.fail_at = n;
        rc = plan_and_run(g, d, &f, &calls_in_second_run);
        if (rc < 0 && rc != SDLORA_ENOMEM)
            fail_msg("allocation %ld: %d, %s", n, rc, sdlora_last_error()->message);
        assert_int_equal(f.live, held);
        assert_true(n < 10000);
    }
    assert_int_equal(calls_in_second_run, 0);
    slr_graph_free(g);
    slr_devices_unref(d);
    slr_mem_unref(m);
    assert_int_equal(f.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(random_graphs, reset),
        cmocka_unit_test_teardown(reuse_changes_no_bit, reset),
        cmocka_unit_test_teardown(graph_may_go_first, reset),
        cmocka_unit_test_teardown(binding, reset),
        cmocka_unit_test_teardown(adamw_in_place, reset),
        cmocka_unit_test_teardown(plans_share, reset),
        cmocka_unit_test_teardown(equal_nodes_share_kernels, reset),
        cmocka_unit_test_teardown(missing_kernels, reset),
        cmocka_unit_test_teardown(strides_are_optional, reset),
        cmocka_unit_test_teardown(failures_name_the_node, reset),
        cmocka_unit_test_teardown(cancel, reset),
        cmocka_unit_test_teardown(cancel_inside_a_kernel, reset),
        cmocka_unit_test_teardown(planning_ends_on_cancel, reset),
        cmocka_unit_test_teardown(profile, reset),
        cmocka_unit_test_teardown(runs_cost_little, reset),
        cmocka_unit_test_teardown(out_of_memory, reset),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
