/* SPDX-License-Identifier: MIT */
/* mixed_precision to policy, and what a graph of that policy stores. */
#include "graph/policy.h"

#include <sdlora/types.h>

#include "base/cpu.h"
#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static slr_devices *cpu_only(void)
{
    slr_devices *d;
    slr_devices_config config = {
        .threads = 1, .cpu_features = slr_cpu_features(), .backend = "cpu"};
    assert_int_equal(slr_devices_open(&d, &config), SDLORA_OK);
    return d;
}

static void test_words(void **state)
{
    (void)state;
    slr_devices *d = cpu_only();
    slr_policy p;
    assert_int_equal(slr_policy_read(&p, NULL, d), SDLORA_OK);
    assert_int_equal(p.storage, SDLORA_F32);
    assert_int_equal(slr_policy_read(&p, "no", d), SDLORA_OK);
    assert_int_equal(p.storage, SDLORA_F32);
    assert_string_equal(slr_policy_name(p), "no");
    assert_int_equal(slr_policy_read(&p, "bf16", d), SDLORA_OK);
    assert_int_equal(p.storage, SDLORA_BF16);
    assert_string_equal(slr_policy_name(p), "bf16");
    assert_int_equal(slr_policy_read(&p, "fp16", d), SDLORA_ENOTSUP);
    slr_devices_unref(d);
}

/* The storage in force decides about products; casting to what is there already adds no node. */
static void test_storage(void **state)
{
    (void)state;
    slr_graph *g;
    assert_int_equal(slr_graph_new(&g, NULL, (slr_policy){SDLORA_BF16, SDLORA_MATH_STRICT}), 0);
    const int64_t a[2] = {4, 8}, b[2] = {6, 8};
    slr_val x = slr_input(g, "x", SDLORA_F32, 2, a), w = slr_param(g, "w", 2, b);
    slr_val y = slr_linear(g, x, w, SLR_NONE, SLR_NONE);
    assert_int_equal(slr_shape_of(g, y).dtype, SDLORA_BF16);
    assert_int_equal(slr_graph_storage(g, SDLORA_F32), SDLORA_BF16);
    slr_val z = slr_linear(g, x, w, SLR_NONE, SLR_NONE);
    assert_int_equal(slr_shape_of(g, z).dtype, SDLORA_F32);
    assert_int_equal(slr_cast(g, z, SDLORA_F32), z);
    assert_int_equal(slr_graph_storage(g, SDLORA_BF16), SDLORA_F32);
    assert_int_equal(slr_graph_stored(g), SDLORA_BF16);
    assert_int_equal(slr_graph_status(g), SDLORA_OK);
    slr_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_words),
                                       cmocka_unit_test(test_storage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
