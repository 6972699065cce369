/* SPDX-License-Identifier: MIT */
/* Large backward products through oneDNN turn the pack of the forward product in each launch: the
 * same bytes as from a pack of their own, in less memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "base/rng.h"
#include "base/status.h"
#include "graph/exec.h"
#include "graph/policy.h"

enum { ROWS = 1024, IN = 1024, OUT = 1088, FEW = 64 }; /* from 1024 rows on, by matmul.c */

static slr_mem *mem;
static slr_devices *devices;
static slr_policy policy;
static uint16_t *weights;

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static int setup(void **state)
{
    (void)state;
    slr_rng rng;
    ok(slr_mem_new(&mem, NULL, 0));
    const slr_devices_config config = {
        .mem = mem, .cpu_features = slr_cpu_features(), .plugin_path = ONEDNN_DIR};
    ok(slr_devices_open(&devices, &config));
    ok(slr_policy_read(&policy, "auto", devices));
    float *x = slr_alloc(NULL, sizeof *x * IN * OUT);
    weights = slr_alloc(NULL, sizeof *weights * IN * OUT);
    slr_rng_init(&rng, 1, SLR_STREAM_EVAL, 0);
    slr_rng_normal(&rng, x, IN * OUT);
    slr_dtype(SDLORA_F16)->from_f32(weights, x, IN * OUT);
    slr_free(NULL, x);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    slr_free(NULL, weights);
    slr_devices_unref(devices);
    slr_mem_unref(mem);
    return 0;
}

static void fill(slr_plan *p, const char *name, uint32_t stream)
{
    slr_rng rng;
    slr_val v;
    ok(slr_plan_find(p, name, &v));
    slr_shape s = slr_plan_shape(p, v);
    slr_rng_init(&rng, 2, SLR_STREAM_EVAL, stream);
    slr_rng_normal(&rng, slr_plan_data(p, v), (size_t)(s.dim[0] * s.dim[1]));
}

/* y = x w^T, and the gradient of sum(y * factor) by x. */
static slr_plan *planned(const slr_tensor *w, int64_t rows)
{
    const int64_t in[2] = {rows, IN}, out[2] = {rows, OUT};
    slr_graph *g;
    slr_plan *p;
    slr_val grad;
    ok(slr_graph_new(&g, mem, policy));
    slr_val x = slr_param(g, "x", 2, in);
    slr_val y =
        slr_linear(g, slr_cast(g, x, policy.storage), slr_const(g, "w", w), SLR_NONE, SLR_NONE);
    slr_val root =
        slr_mul(g, slr_cast(g, y, SDLORA_F32), slr_input(g, "factor", SDLORA_F32, 2, out));
    slr_output(g, root, "root");
    ok(slr_graph_grad(g, root, &x, 1, &grad));
    slr_output(g, grad, "grad");
    ok(slr_plan_new(&p, g, devices));
    ok(slr_plan_back(p));
    slr_graph_free(g);
    fill(p, "x", 0);
    fill(p, "factor", 1);
    return p;
}

static float *gradient(slr_plan *p)
{
    float *copy = slr_alloc(NULL, sizeof *copy * ROWS * IN);
    slr_val v;
    ok(slr_plan_find(p, "grad", &v));
    ok(slr_plan_run(p, NULL));
    return memcpy(copy, slr_plan_data(p, v), sizeof *copy * ROWS * IN);
}

static void turned_weights_are_the_same_weights(void **state)
{
    (void)state;
    if (policy.storage != SDLORA_BF16)
        skip(); /* no plugin, or a processor without bf16 */
    const slr_tensor w = {.dtype = SDLORA_F16,
                          .rank = 2,
                          .dim = {OUT, IN},
                          .data = weights,
                          .id = slr_tensor_next_id()};
    uint64_t before = slr_mem_used(mem);
    slr_plan *p = planned(&w, ROWS);
    uint64_t alone = slr_mem_used(mem) - before;
    float *turned = gradient(p);
    slr_plan_free(p);

    /* products of few rows hold packs of both sides, which others then take */
    slr_plan *few = planned(&w, FEW);
    uint64_t held = slr_mem_used(mem);
    p = planned(&w, ROWS);
    uint64_t beside = slr_mem_used(mem) - held;
    float *own = gradient(p);
    assert_memory_equal(turned, own, sizeof *own * ROWS * IN);
    assert_true(own[0] != own[1]);
    /* beside packs of both sides it makes none, alone one and not two; what it turns lies in the
     * memory that kernels share, where others need as much */
    const uint64_t pack = UINT64_C(2) * IN * OUT;
    assert_true(alone >= beside + pack && alone < beside + pack + pack / 2);
    slr_plan_free(p);
    slr_plan_free(few);
    slr_free(NULL, turned);
    slr_free(NULL, own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(turned_weights_are_the_same_weights)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
