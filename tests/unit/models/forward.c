/* SPDX-License-Identifier: MIT */
/* Text encoder, UNet and autoencoder against diffusers and transformers, on tinysd
 * (tests/golden/tinysd.safetensors) and on a model of other depths (tests/golden/layouts). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "golden_test.h"
#include "graph/exec.h"
#include "models/checkpoint.h"
#include "models/clip.h"
#include "models/unet.h"
#include "models/vae.h"

/* f32 on both sides, sums in another order.  Measured 1e-6 (UNet), 3e-6 (autoencoder) and 1.1e-5
 * (text, whose last layers have large single features); a wrong epsilon anywhere shows as 1e-5 or
 * more in the UNet, 3e-4 in the autoencoder and 1e-3 in the text encoder. */
#define TOL_UNET 4e-6
#define TOL_VAE  1e-5
#define TOL_TEXT 4e-5

#define GOLDEN   TEST_ROOT "/golden/"
#define TINYSD   TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define LAYOUTS  GOLDEN "layouts/"

static slr_devices *devices;

static int setup(void **state)
{
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    return slr_devices_open(&devices, &config);
}

static int teardown(void **state)
{
    slr_devices_unref(devices);
    return 0;
}

typedef struct model {
    slr_checkpoint *c;
    golden g;
} model;

static model open_model(const char *path, const char *golden_path)
{
    const slr_checkpoint_config config = {.predict = -1};
    model m = {.g = golden_open(golden_path)};
    if (slr_checkpoint_open(&m.c, path, &config) < 0)
        fail_msg("%s", sdlora_last_error()->message);
    return m;
}

static void close_model(model *m)
{
    slr_checkpoint_unref(m->c);
    golden_close(&m->g);
}

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

/* Plans, fills inputs by name, runs, compares "y". */
typedef struct feed {
    const char *name;
    const void *data;
    size_t bytes;
} feed;

static void run(const char *what, slr_graph *g, slr_val y, const feed *in, size_t n_in,
                const float *want, double tol)
{
    slr_plan *p;
    slr_val v;
    slr_output(g, y, "y");
    ok(slr_graph_status(g));
    ok(slr_plan_new(&p, g, devices));
    slr_graph_free(g);
    for (size_t i = 0; i < n_in; i++) {
        ok(slr_plan_find(p, in[i].name, &v));
        memcpy(slr_plan_data(p, v), in[i].data, in[i].bytes);
    }
    ok(slr_plan_run(p, NULL));
    ok(slr_plan_find(p, "y", &v));
    slr_shape s = slr_plan_shape(p, v);
    size_t n = 1;
    for (int i = 0; i < s.rank; i++)
        n *= (size_t)s.dim[i];
    assert_true(golden_close_to(what, slr_plan_data(p, v), want, n, tol));
    slr_plan_free(p);
}

static slr_graph *new_graph(void)
{
    slr_graph *g;
    ok(slr_graph_new(&g, NULL, (slr_policy){.storage = SDLORA_F32}));
    return g;
}

static void check_text(const model *m, const char *name, int skip)
{
    slr_tensor t;
    int32_t *ids = golden_i32(&m->g, "ids", &t);
    float *want = golden_f32(&m->g, name, NULL);
    slr_graph *g = new_graph();
    slr_nn nn = {.g = g, .w = slr_checkpoint_part(m->c, SLR_PART_TE), .part = SLR_PART_TE};
    slr_val y = slr_clip_build(&nn, slr_checkpoint_family(m->c),
                               slr_input(g, "ids", SDLORA_I32, 2, t.dim), skip);
    const feed in[] = {{"ids", ids, slr_tensor_bytes(&t)}};
    run(name, g, y, in, 1, want, TOL_TEXT);
    slr_free(NULL, ids);
    slr_free(NULL, want);
}

static float *get(const model *m, const char *prefix, const char *name, bool image, slr_tensor *t)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    return image ? golden_nhwc(&m->g, full, t) : golden_f32(&m->g, full, t);
}

static void check_unet(const model *m, const char *prefix)
{
    slr_tensor xs, ts, cs;
    float *x = get(m, prefix, "x", true, &xs), *t = get(m, prefix, "t", false, &ts);
    float *c = get(m, prefix, "ctx", false, &cs), *want = get(m, prefix, "eps", true, NULL);
    slr_graph *g = new_graph();
    slr_nn nn = {.g = g, .w = slr_checkpoint_part(m->c, SLR_PART_UNET), .part = SLR_PART_UNET};
    slr_val y = slr_unet_build(
        &nn, slr_checkpoint_family(m->c), slr_input(g, "x", SDLORA_F32, 4, xs.dim),
        slr_input(g, "t", SDLORA_F32, 1, ts.dim), slr_input(g, "ctx", SDLORA_F32, 3, cs.dim));
    const feed in[] = {{"x", x, (size_t)slr_tensor_count(&xs) * 4},
                       {"t", t, (size_t)slr_tensor_count(&ts) * 4},
                       {"ctx", c, (size_t)slr_tensor_count(&cs) * 4}};
    run(prefix, g, y, in, 3, want, TOL_UNET);
    slr_free(NULL, x);
    slr_free(NULL, t);
    slr_free(NULL, c);
    slr_free(NULL, want);
}

/* scaled: the decoded latents were mean * scale (tinysd's goldens) or the mean itself. */
static void check_vae(const model *m, slr_weights *vae, const char *prefix)
{
    const slr_family *family = slr_family_by_id(SLR_FAMILY_SD1);
    slr_vae_runner *r;
    slr_tensor is, ms;
    float *image = get(m, prefix, "image", true, &is), *mean = get(m, prefix, "mean", true, &ms);
    float *logvar = get(m, prefix, "logvar", true, NULL),
          *decoded = get(m, prefix, "decoded", true, NULL);
    size_t n = (size_t)slr_tensor_count(&ms), pixels = (size_t)slr_tensor_count(&is);
    float *latents = slr_calloc(NULL, n, sizeof *latents),
          *noise = slr_calloc(NULL, n, sizeof *noise);
    float *out = slr_calloc(NULL, pixels, sizeof *out);
    ok(slr_vae_runner_new(&r, vae, family, devices));
    for (size_t i = 0; i < n; i++)
        noise[i] = (float)(i % 5) - 2;
    for (int noisy = 0; noisy < 2; noisy++) {
        ok(slr_vae_encode(r, image, is.dim[0], is.dim[1], is.dim[2], noisy ? noise : NULL, latents,
                          NULL));
        for (size_t i = 0; i < n; i++) {
            latents[i] /= (float)family->vae_scale;
            if (noisy)
                latents[i] = (latents[i] - mean[i]) / noise[i];
        }
        if (noisy) { /* where noise was not zero, what is left is the standard deviation */
            for (size_t i = 0; i < n; i++) {
                logvar[i] = expf(0.5f * logvar[i]) * (noise[i] != 0);
                latents[i] = noise[i] != 0 ? latents[i] : 0;
            }
            /* a difference of close numbers: std is about 1e-2 of the mean */
            assert_true(golden_close_to("vae std", latents, logvar, n, 30 * TOL_VAE));
        } else {
            assert_true(golden_close_to("vae mean", latents, mean, n, TOL_VAE));
        }
    }
    for (size_t i = 0; i < n; i++)
        latents[i] = mean[i] * (float)family->vae_scale;
    for (int again = 0; again < 2; again++) { /* the second run uses the kept plan */
        ok(slr_vae_decode(r, latents, ms.dim[0], ms.dim[1], ms.dim[2], out, NULL));
        assert_true(golden_close_to("vae decoded", out, decoded, pixels, TOL_VAE));
    }
    latents[1] = NAN;
    assert_int_equal(slr_vae_decode(r, latents, 1, ms.dim[1], ms.dim[2], out, NULL), SDLORA_ENAN);
    assert_int_equal(slr_vae_encode(r, image, 1, is.dim[1] - 1, is.dim[2], NULL, latents, NULL),
                     SDLORA_EINVAL);
    slr_vae_runner_free(r);
    float *all[] = {image, mean, logvar, decoded, latents, noise, out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        slr_free(NULL, all[i]);
}

static void tinysd(void **state)
{
    model m = open_model(TINYSD, GOLDEN "tinysd.safetensors");
    assert_int_equal(slr_checkpoint_family(m.c)->id, SLR_FAMILY_SD1);
    assert_string_equal(slr_checkpoint_layout(m.c), "ldm");
    check_text(&m, "text.skip1", 1);
    check_text(&m, "text.skip2", 2);
    check_unet(&m, "unet");
    check_unet(&m, "unet_ns");
    check_vae(&m, slr_checkpoint_part(m.c, SLR_PART_VAE), "vae");
    check_vae(&m, slr_checkpoint_part(m.c, SLR_PART_VAE), "vae_ns");
    close_model(&m);
}

/* Two levels, one of them without attention; one block a level; both namings of the same weights.
 */
static void other_depths(void **state)
{
    static const char *const PATHS[] = {LAYOUTS "ldm.safetensors", LAYOUTS "diffusers"};
    for (int i = 0; i < 2; i++) {
        model m = open_model(PATHS[i], LAYOUTS "layouts.safetensors");
        assert_string_equal(slr_checkpoint_layout(m.c), i ? "diffusers" : "ldm");
        check_text(&m, "text.skip1", 1);
        check_unet(&m, "unet");
        check_vae(&m, slr_checkpoint_part(m.c, SLR_PART_VAE), "vae");
        close_model(&m);
    }
}

static void vae_files(void **state)
{
    static const char *const PATHS[] = {LAYOUTS "vae.safetensors", LAYOUTS "lightning.vae.pt",
                                        LAYOUTS "diffusers/vae", LAYOUTS "diffusers",
                                        LAYOUTS "ldm.safetensors"};
    const slr_checkpoint_config config = {.predict = -1};
    model m = {.g = golden_open(LAYOUTS "layouts.safetensors")};
    for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++) {
        slr_weights *vae;
        ok(slr_vae_weights_open(&vae, PATHS[i], &config));
        assert_int_equal(slr_weights_count(vae), 120);
        check_vae(&m, vae, "vae");
        slr_weights_unref(vae);
    }
    golden_close(&m.g);
}

/* Chunks of 75 tokens joined by kohya's rule. */
static void joined_chunks(void **state)
{
    const int64_t dim[3] = {4, 77, 2};
    float in[4 * 77 * 2], want[2 * 152 * 2];
    size_t n = 0;
    for (int i = 0; i < 4 * 77 * 2; i++)
        in[i] = (float)i;
    for (int b = 0; b < 2; b++)
        for (int i = 0; i < 154; i++)
            if (i != 76 && i != 77)
                for (int c = 0; c < 2; c++)
                    want[n++] = in[(b * 154 + i) * 2 + c];
    slr_graph *g = new_graph();
    const feed feeds[] = {{"x", in, sizeof in}};
    run("joined chunks", g, slr_clip_join(g, slr_input(g, "x", SDLORA_F32, 3, dim), 2), feeds, 1,
        want, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tinysd),
        cmocka_unit_test(other_depths),
        cmocka_unit_test(vae_files),
        cmocka_unit_test(joined_chunks),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
