/* SPDX-License-Identifier: MIT */
/* Stable Diffusion 1.5 at full size against diffusers, transformers and sd-scripts'
 * networks/lora.py (tests/golden/full.safetensors): text encoder, UNet, autoencoder, and one
 * training step with all gradients.  The weights are synthetic and made twice, here and by
 * tests/golden/synthetic.py, which checksums prove to be equal; inputs are made from their names on
 * both sides.
 *
 * Takes 6.5 GB.  Skipped under sanitizers, which make it take minutes, and where memory is
 * less. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <zlib.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "golden_test.h"
#include "graph/exec.h"
#include "models/checkpoint.h"
#include "models/clip.h"
#include "models/unet.h"
#include "models/vae.h"
#include "train/noise.h"
#include "train/step.h"

#define GOLDEN TEST_ROOT "/golden/full.safetensors"

/* f32 on both sides, sums of up to 23040 products in another order.  Measured with each instruction
 * set, at most: 3.2e-6 (UNet), 2.1e-6 (autoencoder), 1.1e-6 (text), 1.8e-5 and 9e-6 (worst gradient
 * of UNet and text encoder).  An epsilon of 1e-5 for 1e-6, or the other way, shows as 1.2e-5 in
 * UNet and autoencoder and as 1.7e-4 in the text encoder.  What is asked for at full size is 1e-4,
 * and 1e-3 for gradients. */
#define TOL_OUT 8e-6
/* torch's autocast is at 0.0162 of its own f32 on these weights, a UNet all in bf16 at 0.0169, and
 * rounding the file's f16 weights alone costs 0.0098.  Seen: 0.0149, gradients 0.017. */
#define TOL_BF16 0.0162
#define TOL_GRAD 1e-4 /* each tensor by itself */

#define UP       0.1 /* deviation of the network's ups; its downs have 1 / sqrt(fan-in) */
#define SIGNS    16
#define NEED     ((int64_t)9 << 30) /* bytes of memory that the machine should have */
#define SKIPPED  77                 /* meson's code */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static slr_devices *devices, *fast; /* fast: with the oneDNN backend, if that was built */
static slr_policy policy;           /* of the graphs that are made now */
static slr_checkpoint *base;
static golden g;

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    const slr_checkpoint_config model = {.predict = -1};
    const slr_devices_config all = {.cpu_features = slr_cpu_features(), .plugin_path = ONEDNN_DIR};
    ok(slr_devices_open(&devices, &config));
    ok(slr_devices_open(&fast, &all));
    ok(slr_checkpoint_synthetic(&base, "sd15", SDLORA_F16, 0, &model));
    g = golden_open(GOLDEN);
    return g.file ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&g);
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    slr_devices_unref(fast);
    return 0;
}

static void *allocated(size_t n, size_t size)
{
    void *p = slr_calloc(NULL, n, size);
    assert_non_null(p);
    return p;
}

/* ---- numbers from names, and what is kept of a large tensor (synthetic.py: words, draws, digest)
 */

static uint64_t word(const char *name, size_t i)
{
    uint64_t key = (uint64_t)crc32(0, (const Bytef *)name, (uInt)strlen(name)) << 32;
    uint64_t x = key + i * UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

/* Uniform, of mean 0. */
static void draw(const char *name, double deviation, float *to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double u = (double)(word(name, i) >> 40) + 0.5;
        to[i] = (float)((u / (1 << 23) - 1.0) * (deviation * sqrt(3.0)));
    }
}

static float *drawn(const char *name, size_t n)
{
    float *x = allocated(n, sizeof *x);
    draw(name, 1.0, x, n);
    return x;
}

/* An image or latents, which the oracle draws as [1,C,H,W], as [1,H,W,C]. */
static float *drawn_nhwc(const char *name, int64_t n, int64_t c, int64_t h, int64_t w)
{
    float *x = drawn(name, (size_t)(n * c * h * w));
    float *y = allocated((size_t)(n * c * h * w), sizeof *y);
    slr_nchw_to_nhwc(y, x, n, c, h, w);
    slr_free(NULL, x);
    return y;
}

/* The relative error of x by the digest `name` of it: of its norm, of its products with vectors of
 * +-1, whose differences are |x - wanted| large on the average, and of the elements kept. */
static double digest_error(const char *name, const float *x, size_t n)
{
    slr_tensor t;
    float *want = golden_f32(&g, name, &t);
    size_t picked = (size_t)slr_tensor_count(&t) - 1 - SIGNS;
    double norm = 0, product[SIGNS] = {0}, off = 0, elements = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t signs = word("signs", i);
        norm += (double)x[i] * x[i];
        for (int j = 0; j < SIGNS; j++)
            product[j] += signs >> j & 1 ? -(double)x[i] : (double)x[i];
    }
    for (int j = 0; j < SIGNS; j++)
        off += (product[j] - want[1 + j]) * (product[j] - want[1 + j]) / SIGNS;
    for (size_t k = 0; k < picked; k++) {
        double d = (double)x[k * n / picked] - want[1 + SIGNS + k];
        elements += d * d / (double)picked * (double)n;
    }
    double size = want[0], worst = fabs(sqrt(norm) - size);
    worst = fmax(worst, fmax(sqrt(off), sqrt(elements)));
    slr_free(NULL, want);
    return isfinite(norm) ? worst / size : INFINITY; /* a NaN must not pass for small */
}

static void check_digest(const char *name, const float *x, size_t n)
{
    double e = digest_error(name, x, n);
    print_message("%-24s relative %.3g (tolerance %.3g)\n", name, e, TOL_OUT);
    assert_true(e <= TOL_OUT);
}

static void check_image(const char *name, const float *x)
{
    slr_tensor t;
    float *want = golden_nhwc(&g, name, &t);
    assert_true(golden_close_to(name, x, want, (size_t)slr_tensor_count(&t), TOL_OUT));
    slr_free(NULL, want);
}

/* ---- weights ---- */

static int32_t checksum(const char *name, const slr_tensor *t)
{
    uLong c = crc32(0, (const Bytef *)name, (uInt)strlen(name));
    for (int i = 0; i < t->rank; i++)
        for (int byte = 0; byte < 64; byte += 8) { /* the oracle's are little-endian */
            const Bytef b = (Bytef)(t->dim[i] >> byte);
            c = crc32(c, &b, 1);
        }
    return (int32_t)(uint32_t)crc32_z(c, t->data, slr_tensor_bytes(t));
}

static void same_weights(void **state)
{
    (void)state;
    static const struct {
        int part;
        const char *name;
    } PARTS[] = {{SLR_PART_UNET, "crc.unet"}, {SLR_PART_VAE, "crc.vae"}, {SLR_PART_TE, "crc.te"}};
    for (size_t p = 0; p < sizeof PARTS / sizeof *PARTS; p++) {
        const slr_weights *w = slr_checkpoint_part(base, PARTS[p].part);
        slr_tensor t;
        int32_t *want = golden_i32(&g, PARTS[p].name, &t);
        assert_int_equal(slr_weights_count(w), slr_tensor_count(&t));
        for (size_t i = 0; i < slr_weights_count(w); i++) {
            const slr_tensor *x;
            const char *name = slr_weights_at(w, i, &x);
            if (checksum(name, x) != want[i])
                fail_msg("%s: %s is not what synthetic.py made", slr_weights_label(w), name);
        }
        slr_free(NULL, want);
    }
}

/* ---- forward ---- */

typedef struct feed {
    const char *name;
    const void *data;
    size_t bytes;
} feed;

/* Plans, fills inputs by name, runs; the caller frees what y is. */
static float *run(slr_graph *graph, slr_val y, const feed *in, size_t n_in, size_t *n)
{
    slr_plan *p;
    slr_val v;
    slr_output(graph, y, "y");
    ok(slr_graph_status(graph));
    ok(slr_plan_new(&p, graph, policy.storage == SDLORA_BF16 ? fast : devices));
    slr_graph_free(graph);
    for (size_t i = 0; i < n_in; i++) {
        ok(slr_plan_find(p, in[i].name, &v));
        memcpy(slr_plan_data(p, v), in[i].data, in[i].bytes);
    }
    ok(slr_plan_run(p, NULL));
    ok(slr_plan_find(p, "y", &v));
    slr_shape s = slr_plan_shape(p, v);
    *n = 1;
    for (int i = 0; i < s.rank; i++)
        *n *= (size_t)s.dim[i];
    float *out = allocated(*n, sizeof *out);
    memcpy(out, slr_plan_data(p, v), *n * sizeof *out);
    slr_plan_free(p);
    return out;
}

static slr_nn new_nn(int part)
{
    slr_nn nn = {.w = slr_checkpoint_part(base, part), .part = part};
    ok(slr_graph_new(&nn.g, NULL, policy));
    return nn;
}

static void text_states(void **state)
{
    (void)state;
    slr_tensor t;
    int32_t *ids = golden_i32(&g, "ids", &t);
    for (int skip = 1; skip <= 2; skip++) {
        slr_nn nn = new_nn(SLR_PART_TE);
        slr_val y = slr_clip_build(&nn, slr_checkpoint_family(base),
                                   slr_input(nn.g, "ids", SDLORA_I32, 2, t.dim), skip);
        const feed in[] = {{"ids", ids, slr_tensor_bytes(&t)}};
        size_t n;
        float *got = run(nn.g, y, in, 1, &n);
        for (int64_t i = 0; i < t.dim[0]; i++) {
            char name[64];
            size_t each = n / (size_t)t.dim[0];
            snprintf(name, sizeof name, "text.%d.skip%d.digest", (int)i, skip);
            check_digest(name, got + (size_t)i * each, each);
        }
        slr_free(NULL, got);
    }
    slr_free(NULL, ids);
}

/* The caller frees it. */
static float *unet_output(const char *prefix, int64_t h, int64_t w, int64_t tokens, float t)
{
    char name[64];
    size_t n;
    const int64_t x_dim[4] = {1, h, w, 4}, t_dim[1] = {1}, ctx_dim[3] = {1, tokens, 768};
    snprintf(name, sizeof name, "%s.x", prefix);
    float *x = drawn_nhwc(name, 1, 4, h, w);
    snprintf(name, sizeof name, "%s.ctx", prefix);
    float *ctx = drawn(name, (size_t)tokens * 768);
    slr_nn nn = new_nn(SLR_PART_UNET);
    slr_val y = slr_unet_build(
        &nn, slr_checkpoint_family(base), slr_input(nn.g, "x", SDLORA_F32, 4, x_dim),
        slr_input(nn.g, "t", SDLORA_F32, 1, t_dim), slr_input(nn.g, "ctx", SDLORA_F32, 3, ctx_dim));
    const feed in[] = {{"x", x, (size_t)(h * w * 4) * sizeof *x},
                       {"t", &t, sizeof t},
                       {"ctx", ctx, (size_t)tokens * 768 * sizeof *ctx}};
    float *got = run(nn.g, y, in, 3, &n);
    slr_free(NULL, x);
    slr_free(NULL, ctx);
    return got;
}

static void unet_outputs(void **state)
{
    (void)state;
    float *y = unet_output("unet", 64, 64, 77, 981.0f); /* 512x512 */
    check_image("unet.eps", y);
    slr_free(NULL, y);
    y = unet_output("unet_ns", 40, 24, 152, 250.375f); /* 192x320, two chunks of text */
    check_image("unet_ns.eps", y);
    slr_free(NULL, y);
}

/* |a - b| / |b| */
static double distance(const float *a, const float *b, size_t n)
{
    double d = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(d / size);
}

static void unet_in_bf16(void **state)
{
    (void)state;
    slr_tensor t;
    float *want = golden_nhwc(&g, "unet.eps", &t);
    policy = (slr_policy){SDLORA_BF16, SDLORA_MATH_STRICT};
    float *y = unet_output("unet", 64, 64, 77, 981.0f);
    policy = (slr_policy){0};
    double e = distance(y, want, (size_t)slr_tensor_count(&t));
    print_message("bf16 on %s: relative %.3g\n", slr_devices_backend(fast, 0)->name, e);
    assert_true(e <= TOL_BF16);
    slr_free(NULL, want);
    slr_free(NULL, y);
}

static void vae_encodes(void **state)
{
    (void)state;
    const int64_t h = 256, w = 192, dim[4] = {1, h, w, 3};
    size_t n, pixels = (size_t)(h * w * 3);
    float *image = drawn_nhwc("vae.image", 1, 3, h, w);
    for (size_t i = 0; i < pixels; i++)
        image[i] /= (float)sqrt(3.0); /* -1 to 1 */
    slr_nn nn = new_nn(SLR_PART_VAE);
    slr_val y = slr_vae_encode_build(&nn, slr_input(nn.g, "x", SDLORA_F32, 4, dim));
    const feed in[] = {{"x", image, pixels * sizeof *image}};
    float *moments = run(nn.g, y, in, 1, &n);
    float *half = allocated(n / 2, sizeof *half);
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < n / 2; i++)
            half[i] = moments[i / 4 * 8 + (size_t)k * 4 + i % 4];
        check_image(k ? "vae.logvar" : "vae.mean", half);
    }
    slr_free(NULL, half);
    slr_free(NULL, moments);
    slr_free(NULL, image);
}

static void vae_decodes(void **state)
{
    (void)state;
    const int64_t h = 32, w = 24, dim[4] = {1, h, w, 4};
    size_t n;
    float *latents = drawn_nhwc("vae.latents", 1, 4, h, w);
    slr_nn nn = new_nn(SLR_PART_VAE);
    slr_val y = slr_vae_decode_build(&nn, slr_input(nn.g, "x", SDLORA_F32, 4, dim));
    const feed in[] = {{"x", latents, (size_t)(h * w * 4) * sizeof *latents}};
    float *got = run(nn.g, y, in, 1, &n);
    float *nchw = allocated(n, sizeof *nchw);
    slr_nhwc_to_nchw(nchw, got, 1, 3, 8 * h, 8 * w);
    check_digest("vae.decoded.digest", nchw, n);
    slr_free(NULL, nchw);
    slr_free(NULL, got);
    slr_free(NULL, latents);
}

/* ---- training ---- */

static slr_network *make_network(void)
{
    sdlora_options *o;
    slr_network *net;
    ok(slr_options_new(&o, NULL, "network"));
    ok(slr_options_set_text(o, "network_dim", "4"));
    ok(slr_options_set_text(o, "network_alpha", "2"));
    ok(slr_network_make(&net, base, o, 1));
    slr_options_unref(o);
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *s = slr_network_slot_at(net, i);
        double down = sqrt((double)s->dim[0] / (double)s->count);
        draw(s->key, strstr(s->key, "lora_up") ? UP : down, slr_network_params(net) + s->offset,
             s->count);
    }
    slr_network_touch(net);
    return net;
}

/* Two samples of 32x24 with prompts 1 and 0. */
static void fill(slr_step *s)
{
    enum { N = 2, H = 32, W = 24, EACH = H * W * 4 };
    static const int T[N] = {601, 37};
    const slr_step_io *io = slr_step_io_of(s);
    float *latents = drawn_nhwc("step.latents", N, 4, H, W);
    float *noise = drawn_nhwc("step.noise", N, 4, H, W);
    int32_t *ids = golden_i32(&g, "ids", NULL);
    slr_noise rule;
    ok(slr_noise_init(&rule, (slr_opt){NULL, "train"}, SLR_PREDICT_EPS));
    for (int i = 0; i < N; i++) {
        slr_noise_fixed(&rule, latents + i * EACH, noise + i * EACH, EACH, T[i], io->x + i * EACH,
                        io->target + i * EACH);
        io->t[i] = (float)T[i];
        io->weight[i] = 1.0f;
        memcpy(io->text.ids[0] + (size_t)i * 77, ids + (size_t)(N - 1 - i) * 77, 77 * sizeof *ids);
    }
    slr_free(NULL, latents);
    slr_free(NULL, noise);
    slr_free(NULL, ids);
}

static double cosine(const float *a, const float *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

static void check_gradients(const slr_network *net, const float *grad)
{
    double worst[SLR_PART_COUNT] = {0};
    size_t over = 0, n_golden = 0;
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *s = slr_network_slot_at(net, i);
        char name[320];
        snprintf(name, sizeof name, "grad.%s", s->key);
        double e = digest_error(name, grad + s->offset, s->count);
        worst[s->part] = fmax(worst[s->part], e);
        if (e > TOL_GRAD) {
            print_message("%s: %g\n", s->key, e);
            over++;
        }
    }
    for (size_t i = 0; i < slr_safetensors_count(g.file); i++)
        n_golden += !strncmp(slr_safetensors_at(g.file, i, &(slr_tensor){0}), "grad.", 5);
    print_message("%zu gradients, worst relative error: UNet %.3g, text encoder %.3g "
                  "(tolerance %.3g)\n",
                  slr_network_slots(net), worst[SLR_PART_UNET], worst[SLR_PART_TE], TOL_GRAD);
    assert_int_equal(slr_network_slots(net), n_golden); /* none that only one side has */
    assert_int_equal(over, 0);
}

static slr_step *run_step(slr_network *net, slr_devices *on, slr_policy in)
{
    slr_step *s;
    const slr_step_config config = {.mem = slr_checkpoint_mem(base),
                                    .base = base,
                                    .network = net,
                                    .devices = on,
                                    .policy = in,
                                    .n = 2,
                                    .h = 32,
                                    .w = 24,
                                    .n_chunks = 1,
                                    .clip_skip = 1,
                                    .loss_type = SDLORA_LOSS_L2,
                                    .part_mask = 1u << SLR_PART_UNET | 1u << SLR_PART_TE};
    ok(slr_step_new(&s, &config));
    fill(s);
    ok(slr_step_run(s, NULL));
    return s;
}

/* What bf16 may cost: relative distance of the prediction, of the whole gradient, and the angle
 * between the gradients.  Single modules are off by up to a tenth where their gradient is small. */
static void check_bf16(slr_network *net, slr_step *f32)
{
    const slr_step_io *want = slr_step_io_of(f32);
    slr_step *s = run_step(net, fast, (slr_policy){SDLORA_BF16, SDLORA_MATH_STRICT});
    const slr_step_io *got = slr_step_io_of(s);
    size_t n_pred = (size_t)(2 * 32 * 24 * got->channels), n = slr_network_param_count(net);
    double pred = distance(got->pred, want->pred, n_pred), worst = 0;
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *slot = slr_network_slot_at(net, i);
        worst =
            fmax(worst, distance(got->grad + slot->offset, want->grad + slot->offset, slot->count));
    }
    double whole = distance(got->grad, want->grad, n), angle = cosine(got->grad, want->grad, n);
    print_message(
        "bf16 on %s: prediction %.3g, gradients %.3g in all, %.3g at worst, cosine %.6f\n",
        slr_devices_backend(fast, 0)->name, pred, whole, worst, angle);
    assert_true(pred <= 2e-2); /* through the text encoder too; seen: 0.0185 */
    assert_true(whole <= 2e-2);
    assert_true(angle >= 0.999);
    assert_true(worst > 0);
    slr_step_free(s);
}

static void training_step(void **state)
{
    (void)state;
    slr_network *net = make_network();
    slr_step *s = run_step(net, devices, (slr_policy){0});
    const slr_step_io *io = slr_step_io_of(s);
    check_image("step.eps", io->pred);
    float *want = golden_f32(&g, "step.loss", NULL);
    double loss = (io->loss[0] + io->loss[1]) / 2;
    print_message("loss %.7f, wanted %.7f\n", loss, want[0]);
    assert_true(fabs(loss - want[0]) <= 1e-5 * want[0]); /* errors of the output average out */
    slr_free(NULL, want);
    check_gradients(net, io->grad);
    check_bf16(net, s);
    slr_step_free(s);
    slr_network_unref(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_weights),  cmocka_unit_test(text_states),
        cmocka_unit_test(vae_encodes),   cmocka_unit_test(vae_decodes),
        cmocka_unit_test(unet_outputs),  cmocka_unit_test(unet_in_bf16),
        cmocka_unit_test(training_step),
    };
    if (SANITIZED || (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) < NEED) {
        print_message("skipped: a sanitizer is at work, or there is too little memory\n");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
