/* SPDX-License-Identifier: MIT */
/* Plans that run, on the reference plugin: memory (bind, share, two plans), kernels (shared,
 * declined, failing), cancel, profile, what a run costs by itself, and running out of memory. */
#include "plan_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "failing.h"

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

static int plan_and_run(const slr_graph *g, slr_devices *d, failing *f, int64_t *second)
{
    slr_plan *p;
    SLR_TRY(slr_plan_new(&p, g, d));
    int rc = slr_plan_run(p, NULL);
    *second = f->left;
    if (rc >= 0)
        rc = slr_plan_run(p, NULL);
    *second -= f->left; /* allocations of the second run */
    slr_plan_free(p);
    return rc;
}

static void out_of_memory(void **state)
{
    (void)state;
    failing f = {.left = -1};
    slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
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
    int64_t held = f.held, calls_in_second_run = 0;
    int rc = SDLORA_ENOMEM;
    for (int64_t n = 0; rc < 0; n++) {
        f.left = n;
        rc = plan_and_run(g, d, &f, &calls_in_second_run);
        if (rc < 0 && rc != SDLORA_ENOMEM)
            fail_msg("allocation %d: %d, %s", (int)n, rc, sdlora_last_error()->message);
        assert_int_equal(f.held, held);
        assert_true(n < 10000);
    }
    assert_int_equal(calls_in_second_run, 0);
    slr_graph_free(g);
    slr_devices_unref(d);
    slr_mem_unref(m);
    assert_int_equal(f.held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
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
