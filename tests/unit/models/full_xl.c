/* SPDX-License-Identifier: MIT */
/* Stable Diffusion 2.1 and SDXL at full size against diffusers and transformers, on weights that
 * both sides make (tests/golden/make_full_xl.py): text states, pooled state, the UNet for latents
 * of 16x24. SDXL's UNet takes 16 GB, so it is run by hand: SDLORA_FULL_XL=1 in the environment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "drawn.h"
#include "backend/registry.h"
#include "base/cpu.h"
#include "graph/exec.h"
#include "models/text.h"
#include "models/unet.h"

/* f32 on both sides, sums in another order.  Measured 4.6e-6 (SDXL's UNet), 2.8e-6 (SD 2.1's) and
 * 1.5e-6 (text). */
#define TOL    1e-5
#define GOLDEN TEST_ROOT "/golden/full_xl.safetensors"
#define NEED   ((int64_t)9 << 30) /* bytes of memory that the machine should have */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static slr_devices *devices;
static golden want;

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static int setup(void **state)
{
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    want = golden_open(GOLDEN);
    return slr_devices_open(&devices, &config);
}

static int teardown(void **state)
{
    slr_devices_unref(devices);
    golden_close(&want);
    return 0;
}

static slr_graph *new_graph(void)
{
    slr_graph *g;
    ok(slr_graph_new(&g, NULL, (slr_policy){.storage = SDLORA_F32}));
    return g;
}

static slr_plan *plan(slr_graph *g)
{
    slr_plan *p;
    ok(slr_graph_status(g));
    ok(slr_plan_new(&p, g, devices));
    slr_graph_free(g);
    return p;
}

static float *memory(slr_plan *p, const char *name)
{
    slr_val v;
    ok(slr_plan_find(p, name, &v));
    return slr_plan_data(p, v);
}

static void check_digest(const char *name, const float *x, size_t n)
{
    double e = drawn_digest_error(&want, name, x, n);
    print_message("%-28s relative %.3g (tolerance %.3g)\n", name, e, TOL);
    assert_true(e <= TOL);
}

static void check_text(const char *arch, const slr_checkpoint *c, const slr_text_shape *s, int e)
{
    char name[64];
    slr_tensor t;
    slr_val pooled, end = SLR_NONE;
    const char *part = s->part[e] == SLR_PART_TE ? "te" : "te2";
    int32_t *ids = golden_i32(&want, "ids", &t);
    slr_graph *g = new_graph();
    slr_nn nn = {.g = g, .w = slr_checkpoint_part(c, s->part[e]), .part = s->part[e]};
    slr_val in = slr_input(g, "ids", SDLORA_I32, 2, t.dim);
    if (s->pooled)
        end = slr_input(g, "end", SDLORA_F32, 3, (const int64_t[]){1, 1, 77});
    slr_output(g, slr_text_build(&nn, slr_checkpoint_family(c), s, e, in, 1, end, &pooled), "y");
    if (pooled != SLR_NONE)
        slr_output(g, pooled, "pooled");
    slr_plan *p = plan(g);
    memcpy(memory(p, "ids"), ids, slr_tensor_bytes(&t));
    if (pooled != SLR_NONE)
        slr_text_ends(ids, 1, memory(p, "end"));
    ok(slr_plan_run(p, NULL));
    snprintf(name, sizeof name, "%s.%s.states.digest", arch, part);
    check_digest(name, memory(p, "y"), (size_t)(77 * s->clip[e].width));
    if (pooled != SLR_NONE) {
        snprintf(name, sizeof name, "%s.%s.pooled", arch, part);
        float *x = golden_f32(&want, name, NULL);
        assert_true(golden_close_to(name, memory(p, "pooled"), x, (size_t)s->pooled, TOL));
        slr_free(NULL, x);
    }
    slr_plan_free(p);
    slr_free(NULL, ids);
}

static void check_unet(const char *arch, const slr_checkpoint *c, const slr_text_shape *s)
{
    enum { H = 16, W = 24 };
    static const float SIZES[] = {1024, 768, 0, 48, 1216, 832};
    char name[64];
    slr_graph *g = new_graph();
    slr_nn nn = {.g = g, .w = slr_checkpoint_part(c, SLR_PART_UNET), .part = SLR_PART_UNET};
    const int64_t xd[4] = {1, H, W, 4}, td[1] = {1}, cd[3] = {1, 77, s->width},
                  vd[2] = {1, s->vector};
    slr_val x = slr_input(g, "x", SDLORA_F32, 4, xd), t = slr_input(g, "t", SDLORA_F32, 1, td),
            ctx = slr_input(g, "ctx", SDLORA_F32, 3, cd), v = SLR_NONE;
    if (s->vector)
        v = slr_input(g, "vector", SDLORA_F32, 2, vd);
    slr_output(g, slr_unet_build_vector(&nn, slr_checkpoint_family(c), x, t, ctx, v), "y");
    slr_plan *p = plan(g);
    draw_nhwc("x", memory(p, "x"), 1, 4, (int64_t)H * W);
    draw("ctx", 1.0, 0, memory(p, "ctx"), (size_t)(77 * s->width));
    *memory(p, "t") = 601.5F;
    if (s->vector) {
        draw("pooled", 1.0, 0, memory(p, "vector"), (size_t)s->pooled);
        slr_text_sizes(SIZES, s->n_sizes, memory(p, "vector") + s->pooled);
    }
    ok(slr_plan_run(p, NULL));
    snprintf(name, sizeof name, "%s.eps", arch);
    float *expected = golden_nhwc(&want, name, NULL);
    assert_true(golden_close_to(name, memory(p, "y"), expected, (size_t)H * W * 4, TOL));
    slr_free(NULL, expected);
    slr_plan_free(p);
}

static void check_arch(const char *arch)
{
    const slr_checkpoint_config config = {.predict = -1};
    slr_checkpoint *c;
    slr_text_shape s;
    ok(slr_checkpoint_synthetic(&c, arch, SDLORA_F16, 0, &config));
    ok(slr_text_read(&s, c));
    for (int e = 0; e < s.n; e++)
        check_text(arch, c, &s, e);
    check_unet(arch, c, &s);
    slr_checkpoint_unref(c);
}

static void sd21(void **state)
{
    if (SANITIZED || (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) < NEED)
        skip();
    check_arch("sd21");
}

static void sdxl(void **state)
{
    if (!getenv("SDLORA_FULL_XL"))
        skip();
    check_arch("sdxl");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sd21), cmocka_unit_test(sdxl)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
