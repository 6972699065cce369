/* SPDX-License-Identifier: MIT */
/* The builder: names, what is not built because it would do nothing, the first error that stays,
 * dumps, counted work, and running out of memory at any call.  Shape rules are in shapes.c. */
#include "graph_test.h"

#include "failing.h"

/* --- names and errors */

static slr_graph *graph(void)
{
    slr_graph *g;
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    return g;
}

static void names_nest(void **state)
{
    (void)state;
    slr_graph *g = graph();
    slr_graph_push(g, "down_blocks.0");
    slr_graph_push(g, "conv");
    slr_val w = slr_input(g, "weight", SDLORA_F32, DIMS(2, 2));
    slr_val key = slr_param(g, "lora.down", DIMS(2, 2)); /* the key of a parameter does not nest */
    slr_graph_pop(g);
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(1, 2));
    slr_graph_pop(g);
    slr_graph_pop(g); /* one too many does nothing */
    slr_val y = slr_input(g, "y", SDLORA_F32, DIMS(1, 2));
    assert_int_equal(slr_graph_find(g, "down_blocks.0.conv.weight"), w);
    assert_int_equal(slr_graph_find(g, "down_blocks.0.x"), x);
    assert_int_equal(slr_graph_find(g, "y"), y);
    assert_int_equal(slr_graph_find(g, "lora.down"), key);
    assert_int_equal(slr_graph_find(g, "z"), SLR_NONE);
    slr_input(g, "y", SDLORA_F32, DIMS(1, 2));
    assert_int_equal(slr_graph_status(g), SDLORA_EINVAL);
    assert_message("two leaves called y");
    slr_graph_free(g);
}

static void first_error_stays(void **state)
{
    (void)state;
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(2, 3));
    slr_add(g, x, slr_input(g, "y", SDLORA_F32, DIMS(2, 2)));
    slr_clear();
    assert_int_equal(slr_act(g, x, SDLORA_ACT_SILU), SLR_NONE);
    assert_int_equal(slr_input(g, "z", SDLORA_F32, DIMS(1)), SLR_NONE);
    slr_output(g, x, "x");
    slr_graph_push(g, "p");
    assert_int_equal(slr_graph_error(g, SDLORA_EIO), SLR_NONE);
    assert_int_equal(slr_graph_status(g), SDLORA_EINVAL);
    assert_string_equal(sdlora_last_error()->message, ""); /* nobody spoke again */
    slr_val grad;
    assert_int_equal(slr_graph_grad(g, x, &x, 1, &grad), SDLORA_EINVAL);
    assert_int_equal(grad, SLR_NONE);
    slr_graph_free(g);
}

static void bad_leaves(void **state)
{
    (void)state;
    slr_graph *g = graph();
    slr_input(g, "x", SDLORA_F32, DIMS(2, 0));
    assert_message("x cannot be [2,0]");
    slr_graph_free(g);
    g = graph();
    slr_input(g, "x", 77, DIMS(2));
    assert_message("x has the unknown type 77");
    slr_graph_free(g);
    g = graph();
    slr_input(g, "x", SDLORA_F32, DIMS(1, 1, 1, 1, 1, 1, 1));
    assert_message("x has 7 axes; 6 are the most");
    slr_graph_free(g);
    g = graph();
    slr_const(g, "w", &(slr_tensor){.dtype = SDLORA_F32, .rank = 1, .dim = {3}});
    assert_message("the constant w has no contents");
    slr_graph_free(g);
    g = graph();
    slr_output(g, SLR_NONE, "y");
    assert_message("the output y has no value");
    slr_graph_free(g);
    g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(2));
    slr_output(g, slr_act(g, x, SDLORA_ACT_SILU), "y");
    slr_output(g, slr_act(g, x, SDLORA_ACT_GELU), "y");
    assert_message("the graph has two outputs called y");
    slr_graph_free(g);
    g = graph();
    slr_output(g, slr_input(g, "x", SDLORA_F32, DIMS(2)), "x");
    assert_message("the output x is called like a leaf");
    slr_graph_free(g);
    assert_int_equal(slr_graph_new(&g, NULL, (slr_policy){.storage = SDLORA_I8}), SDLORA_ENOTSUP);
    assert_null(g);
}

static void constants_are_shared(void **state)
{
    (void)state;
    float w[2] = {1, 2};
    slr_tensor t = {.dtype = SDLORA_F32, .rank = 1, .dim = {2}, .data = w, .id = 901};
    slr_graph *g = graph();
    slr_val a = slr_const(g, "w", &t);
    assert_int_equal(slr_const(g, "w", &t), a);
    t.id = 902;
    assert_int_equal(slr_const(g, "w", &t), SLR_NONE);
    assert_int_equal(slr_graph_status(g), SDLORA_EINVAL);
    slr_graph_free(g);
}

/* --- what is not built */

static void nothing_is_built_for_nothing(void **state)
{
    (void)state;
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(2, 3, 4));
    slr_val seed = slr_input(g, "seed", SDLORA_I32, DIMS(2));
    assert_int_equal(slr_reshape(g, x, DIMS(2, 3, 4)), x);
    assert_int_equal(slr_slice(g, x, 1, 0, 3), x);
    assert_int_equal(slr_affine(g, x, 1.0, 0.0), x);
    assert_int_equal(slr_act(g, x, SDLORA_ACT_NONE), x);
    assert_int_equal(slr_dropout(g, x, seed, 0.0, 1, 1), x);
    assert_int_equal(slr_cast(g, x, SDLORA_F32), x);
    assert_int_equal(slr_permute(g, x, (int64_t[]){0, 1, 2}), x);
    assert_int_equal(slr_sum_to(g, x, DIMS(2, 3, 4)), x);
    assert_int_equal(slr_concat(g, &x, 1, 2), x);
    assert_int_equal(g->n_nodes, 0);
    slr_val flat = slr_reshape(g, x, DIMS(24));
    slr_val other = slr_reshape(g, flat, DIMS(4, 6));
    assert_int_equal(g->nodes[g->vals[other].node].in[0], x);
    assert_int_equal(slr_reshape(g, other, DIMS(2, 3, 4)), x); /* and back */
    assert_int_equal(g->n_nodes, 2);
    assert_int_not_equal(slr_permute(g, slr_reshape(g, x, DIMS(24, 1)), (int64_t[]){1, 0}), x);
    slr_graph_free(g);
}

static void operands_are_lifted(void **state)
{
    (void)state;
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(2, 3, 4));
    slr_val v = slr_input(g, "v", SDLORA_F32, DIMS(4));
    slr_shape want = slr_shape_of(g, x), got;
    slr_val y[3] = {slr_add(g, v, x), slr_mul(g, x, v), slr_sub(g, x, v)};
    for (int i = 0; i < 3; i++) {
        got = slr_shape_of(g, y[i]);
        assert_memory_equal(&want, &got, sizeof want);
    }
    assert_int_equal(slr_dim(g, x, -1), 4);
    assert_int_equal(slr_dim(g, x, 3), 0);
    slr_shape none = slr_shape_of(g, SLR_NONE);
    assert_int_equal(none.dtype, 0);
    slr_graph_free(g);
}

/* --- looking */

static void dump_and_flops(void **state)
{
    (void)state;
    slr_graph *g = graph();
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(2, 8, 8, 3));
    slr_val w = slr_param(g, "w", DIMS(5, 3, 3, 3));
    slr_graph_push(g, "conv");
    slr_val y = slr_conv2d(g, x, w, SLR_NONE, SLR_NONE, (slr_conv){2, 1, 1, 1, 1}, 0.5);
    slr_graph_pop(g);
    slr_output(g, y, "y");
    char *text = slr_graph_dump(g);
    assert_string_equal(text, "%0 f32[2,8,8,3] = input x\n"
                              "%1 f32[5,3,3,3] = param w\n"
                              "%2 f32[2,4,4,5] = CONV2D %0 %1 - - {2,2,1,1,1,1,1} 0.5  # conv\n"
                              "output y = %2\n");
    slr_free(NULL, text);
    double conv = 2.0 * 2 * 4 * 4 * 5 * 27;
    assert_true(slr_graph_flops(g) == conv);
    slr_val d[2];
    assert_ok(slr_graph_grad(g, y, (slr_val[]){x, w}, 2, d));
    assert_true(slr_graph_flops(g) == 3 * conv); /* all directions cost the same */
    slr_val q = slr_reshape(g, x, DIMS(2, 64, 3));
    slr_attention(g, q, q, q, 1, false, 1.0);
    double attention = 4.0 * 2 * 64 * 64 * 3;
    slr_val a = slr_reshape(g, x, DIMS(128, 3)), b = slr_input(g, "b", SDLORA_F32, DIMS(7, 3));
    slr_linear(g, a, b, SLR_NONE, SLR_NONE);
    slr_bmm(g, q, q, false, true, 1.0);
    double products = 2.0 * 128 * 7 * 3 + 2.0 * 2 * 64 * 64 * 3;
    assert_true(slr_graph_flops(g) == 3 * conv + attention + products);
    slr_graph_free(g);
}

/* --- memory */

static int build_much(slr_mem *m)
{
    slr_graph *g;
    slr_val grads[2];
    SLR_TRY(slr_graph_new(&g, m, (slr_policy){0}));
    slr_val x = slr_input(g, "x", SDLORA_F32, DIMS(4, 4)), y = x;
    slr_val w = slr_param(g, "w", DIMS(4, 4)), b = slr_param(g, "b", DIMS(4));
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, "layer%d", i);
        slr_graph_push(g, name);
        y = slr_act(g, slr_linear(g, y, w, b, y), SDLORA_ACT_SILU);
        slr_output(g, y, "y");
        slr_graph_pop(g);
    }
    int rc = slr_graph_grad(g, y, (slr_val[]){w, b}, 2, grads);
    char *text = rc < 0 ? NULL : slr_graph_dump(g);
    if (rc >= 0 && !text)
        rc = SDLORA_ENOMEM;
    slr_free(m, text);
    slr_graph_free(g);
    return rc;
}

static void out_of_memory(void **state)
{
    (void)state;
    failing f = {.left = -1};
    slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
    slr_mem *m;
    assert_ok(slr_mem_new(&m, &hooks, 0));
    int64_t held = f.held;
    int rc = SDLORA_ENOMEM;
    for (int64_t n = 0; rc < 0; n++) {
        f.left = n;
        rc = build_much(m);
        assert_true(rc == SDLORA_OK || rc == SDLORA_ENOMEM);
        assert_int_equal(f.held, held);
        assert_true(n < 10000);
    }
    slr_mem_unref(m);
    assert_int_equal(f.held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_nest),
        cmocka_unit_test(first_error_stays),
        cmocka_unit_test(bad_leaves),
        cmocka_unit_test(constants_are_shared),
        cmocka_unit_test(nothing_is_built_for_nothing),
        cmocka_unit_test(operands_are_lifted),
        cmocka_unit_test(dump_and_flops),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
