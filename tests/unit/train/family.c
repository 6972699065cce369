/* SPDX-License-Identifier: MIT */
/* LoRA on small models of SD 2, SDXL, inpainting models and the refiner against sd-scripts'
 * networks/lora.py under torch (tests/golden/family_lora.safetensors, kinds_lora.safetensors):
 * output, loss and gradients of one step with two text encoders, pooled state and sizes, with
 * chunks, with v prediction and with masks; then 20 AdamW steps.  Models, networks and inputs are
 * made from their names, here and by tests/golden/make_family_lora.py. */
#include "golden_step.h"
#include "drawn.h"
#include "base/str.h"
#include "io/json.h"
#include "unit/data/data_test.h"

enum { N = 2, H = 8, W = 16, EACH = H * W * 4, STEPS = 20 };

#define UP 0.1 /* deviation of the network's ups; its downs have 1 / sqrt(fan-in) */

/* f32 on both sides, sums in another order.  Measured: 1.6e-6 (output), 1.9e-5 (worst gradient),
 * 1.9e-6 (a loss of 20), 7.3e-6 (parameters); asked for are 1e-3 and 1e-2. */
#define TOL_EPS  8e-6
#define TOL_GRAD 1e-4
#define TOL_LOSS 2e-5
#define TOL_LAST 1e-4 /* Adam divides by roots of tiny moments, so single values drift */

static slr_devices *devices;
static golden families, kinds, embeddings;
static golden *g; /* of the case at hand */
static json_t *models;

/* What make_family_lora.py calls a case. */
typedef struct family_case {
    golden *file;
    const char *name, *model;
    bool inpaint;
    int chunks, predict;
    const char *const *noise; /* train options */
    double lr[SLR_PART_COUNT];
} family_case;

#define RATES                                                                                      \
    {                                                                                              \
        [SLR_PART_UNET] = 1e-3, [SLR_PART_TE] = 5e-4, [SLR_PART_TE2] = 2e-4                        \
    }

static const char *const v_options[] = {"v_parameterization", "true", "min_snr_gamma", "5", NULL};
static const char *const ztsnr_options[] = {
    "v_parameterization", "true", "min_snr_gamma", "5", "zero_terminal_snr", "true", NULL};
static const family_case cases[] = {
    {&families, "sdxl", "sdxl", false, 1, SLR_PREDICT_EPS, NULL, RATES},
    {&families, "sdxl_long", "sdxl", false, 2, SLR_PREDICT_EPS, ztsnr_options, {0}},
    {&families, "sd2", "sd2", false, 1, SLR_PREDICT_V, v_options, RATES},
    {&kinds, "sd1-inpaint", "sd1", true, 1, SLR_PREDICT_EPS, NULL, RATES},
    {&kinds, "sdxl-inpaint", "sdxl", true, 1, SLR_PREDICT_EPS, NULL, RATES},
    {&kinds, "refiner", "refiner", false, 1, SLR_PREDICT_EPS, NULL, RATES},
};

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_json_read(&models, NULL, TEST_ROOT "/golden/families.json", 1 << 24));
    families = golden_open(TEST_ROOT "/golden/family_lora.safetensors");
    kinds = golden_open(TEST_ROOT "/golden/kinds_lora.safetensors");
    embeddings = golden_open(TEST_ROOT "/golden/family_embedding.safetensors");
    return families.file && kinds.file && embeddings.file ? scratch_make(NULL) : -1;
}

static int teardown(void **state)
{
    (void)state;
    golden_close(&families);
    golden_close(&kinds);
    golden_close(&embeddings);
    json_decref(models);
    slr_devices_unref(devices);
    return scratch_remove(NULL);
}

/* --- models: make_families.py's, as diffusers folders --- */

static slr_tensor model_tensor(const char *source, const json_t *dim, bool inpaint)
{
    slr_tensor t = {.dtype = SDLORA_F32, .rank = (int)json_array_size(dim)};
    for (int i = 0; i < t.rank; i++)
        t.dim[i] = json_integer_value(json_array_get(dim, (size_t)i));
    if (inpaint && !strcmp(source, "unet/conv_in.weight"))
        t.dim[1] = 9;
    size_t n = (size_t)slr_tensor_count(&t);
    float *x = slr_calloc(NULL, n, sizeof *x);
    bool one = t.rank == 1, gain = one && slr_ends(source, ".weight");
    bool table = strstr(source, "text_model") && strstr(source, "_embedding.");
    draw(source,
         one     ? gain ? 0.05 : 0.02
         : table ? 0.1
                 : 1 / sqrt((double)(n / (size_t)t.dim[0])),
         gain ? 1 : 0, x, n);
    t.data = x;
    return t;
}

static void write_part(const json_t *sources, bool inpaint, const char *folder, const char *file)
{
    slr_st_entry e[1024];
    size_t n = 0, head = strlen(folder);
    char path[256];
    const char *key;
    json_t *dim;
    json_object_foreach((json_t *)(uintptr_t)sources, key, dim)
    {
        if (strncmp(key, folder, head) != 0 || key[head] != '/')
            continue;
        assert_true(n < sizeof e / sizeof *e);
        e[n++] = (slr_st_entry){key + head + 1, model_tensor(key, dim, inpaint)};
    }
    if (!n)
        return;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    in_scratch(path); /* makes the folder */
    ok(slr_safetensors_write(NULL, in_scratch(path), e, n, NULL, 0));
    while (n--)
        slr_free(NULL, (void *)(uintptr_t)e[n].t.data);
}

static slr_checkpoint *open_model(const family_case *c)
{
    const json_t *sources = json_object_get(json_object_get(models, c->model), "sources");
    const slr_checkpoint_config config = {.predict = c->predict};
    slr_checkpoint *base;
    assert_int_equal(scratch_remove(NULL) + scratch_make(NULL), 0);
    write_part(sources, c->inpaint, "unet", "diffusion_pytorch_model.safetensors");
    write_part(sources, c->inpaint, "text_encoder", "model.safetensors");
    write_part(sources, c->inpaint, "text_encoder_2", "model.safetensors");
    g = c->file;
    ok(slr_checkpoint_open(&base, scratch_dir, &config));
    return base;
}

/* --- networks --- */

/* sd-scripts names layers as diffusers does, here; files of SDXL have LDM's names. */
static const char *key_of(char key[320], const slr_network *net, const slr_network_slot *s)
{
    static const char *const one[] = {"lora_unet_", "lora_te_", "lora_te_", ""};
    static const char *const two[] = {"lora_unet_", "lora_te1_", "lora_te2_", ""};
    const slr_target *t = slr_network_target(net, s->module);
    bool pair = slr_network_family(net)->n_text > 1;
    snprintf(key, 320, "%s%s%s", (pair ? two : one)[s->part], t->path, strchr(s->key, '.'));
    for (char *p = key; p < key + strlen(key) - strlen(strchr(s->key, '.')); p++)
        *p = *p == '.' ? '_' : *p;
    return key;
}

static slr_network *make_network(const slr_checkpoint *base)
{
    slr_network *net;
    char key[320];
    ok(make_rc(&net, base, (const char *const[]){"network_dim", "2", "network_alpha", "1", NULL},
               1));
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *s = slr_network_slot_at(net, i);
        double down = sqrt((double)s->dim[0] / (double)s->count);
        draw(key_of(key, net, s), strstr(s->key, "lora_up") ? UP : down, 0,
             slr_network_params(net) + s->offset, s->count);
    }
    slr_network_touch(net);
    return net;
}

static slr_step_config config_of(const family_case *c, slr_checkpoint *base, slr_network *net)
{
    return (slr_step_config){.mem = slr_checkpoint_mem(base),
                             .base = base,
                             .network = net,
                             .devices = devices,
                             .n = N,
                             .h = H,
                             .w = W,
                             .n_chunks = c->chunks,
                             .clip_skip = 1,
                             .loss_type = SDLORA_LOSS_L2,
                             .part_mask =
                                 1u << SLR_PART_UNET | 1u << SLR_PART_TE | 1u << SLR_PART_TE2};
}

/* --- inputs --- */

static float *drawn_sample(const char *prefix, const char *what)
{
    char name[80];
    float *x = slr_alloc(NULL, N * EACH * sizeof *x);
    snprintf(name, sizeof name, "%s.%s", prefix, what);
    draw_nhwc(name, x, N, 4, H * W);
    return x;
}

static void fill_text(const family_case *c, slr_step *s)
{
    static const float sizes[N][SLR_SAMPLE_SIZES] = {{1024, 768, 0, 48, 1216, 832},
                                                     {333, 1500, 7, 0, 640, 1024}};
    static const float scores[N] = {6, 2.5F};
    const slr_step_io *io = slr_step_io_of(s);
    size_t rows = (size_t)(N * c->chunks);
    for (int e = 0; e < io->shape.n; e++) {
        char name[80];
        snprintf(name, sizeof name, "%s.ids%d", c->name, e);
        int32_t *ids = golden_i32(g, name, NULL);
        memcpy(io->text.ids[e], ids, rows * 77 * sizeof *ids);
        slr_free(NULL, ids);
    }
    if (io->text.end)
        slr_text_ends(io->text.ids[0], rows, io->text.end);
    for (int64_t i = 0; i < N; i++)
        slr_step_fill_sizes(s, sizes[i], scores[i], i);
}

/* Mask and latents of the masked picture, as the oracle draws them. */
static void fill_extra(const char *prefix, slr_step *s)
{
    enum { PIXELS = H * W, MORE = 1 + 4 };
    char name[80];
    float mask[N * PIXELS], extra[PIXELS * MORE], *masked = drawn_sample(prefix, "masked");
    snprintf(name, sizeof name, "%s.mask", prefix);
    draw(name, 1, 0, mask, N * PIXELS);
    for (int64_t i = 0; i < N; i++) {
        for (int k = 0; k < PIXELS; k++) {
            extra[k * MORE] = mask[i * PIXELS + k] > 0;
            memcpy(extra + k * MORE + 1, masked + i * EACH + k * 4, 4 * sizeof *extra);
        }
        slr_step_fill_extra(s, extra, i);
    }
    slr_free(NULL, masked);
}

/* Step `k` of 20, or the one whose gradients are kept: prefix says which. */
static void fill(const family_case *c, slr_step *s, const char *prefix, size_t k)
{
    char name[80];
    const slr_step_io *io = slr_step_io_of(s);
    float *latents = drawn_sample(prefix, "latents"), *noise = drawn_sample(prefix, "noise");
    float weight[N] = {1, 1};
    sdlora_options *o;
    slr_noise rule;
    ok(slr_options_new(&o, NULL, "train"));
    for (const char *const *p = c->noise; p && *p; p += 2)
        ok(slr_options_set_text(o, p[0], p[1]));
    ok(slr_noise_init(&rule, (slr_opt){o, "train"}, c->predict));
    snprintf(name, sizeof name, "%s.t", c->name);
    int32_t *t = golden_i32(g, name, NULL);
    for (int i = 0; i < N; i++) {
        int at = t[k * N + (size_t)i];
        slr_noise_fixed(&rule, latents + i * EACH, noise + i * EACH, EACH, at, io->x + i * EACH,
                        io->target + i * EACH);
        io->t[i] = (float)at;
        io->weight[i] = weight[i] * (float)slr_noise_weight(&rule, at);
    }
    fill_text(c, s);
    if (c->inpaint)
        fill_extra(prefix, s);
    slr_options_unref(o);
    slr_free(NULL, latents);
    slr_free(NULL, noise);
    slr_free(NULL, t);
}

/* --- one step --- */

static void check_gradients(const family_case *c, const slr_network *net, const float *grad)
{
    size_t whole = 0, norms = 0;
    double worst = 0, worst_norm = 0;
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *s = slr_network_slot_at(net, i);
        char key[320], name[400];
        slr_tensor t;
        double norm = 0;
        key_of(key, net, s);
        for (size_t k = 0; k < s->count; k++)
            norm += (double)grad[s->offset + k] * grad[s->offset + k];
        snprintf(name, sizeof name, "%s.norm.%s", c->name, key);
        if (!slr_safetensors_find(g->file, name, &t)) {
            assert_true(norm == 0); /* a layer that no state is taken from */
            continue;
        }
        float *want = golden_f32(g, name, NULL);
        worst_norm = fmax(worst_norm, fabs(sqrt(norm) - want[0]) / want[0]);
        slr_free(NULL, want);
        norms++;
        snprintf(name, sizeof name, "%s.grad.%s", c->name, key);
        if (!slr_safetensors_find(g->file, name, &t))
            continue;
        want = golden_f32(g, name, NULL);
        golden_error e = golden_compare(grad + s->offset, want, s->count);
        if (e.l2 > TOL_GRAD)
            print_message("%s: %g\n", name, e.l2);
        worst = fmax(worst, e.l2);
        slr_free(NULL, want);
        whole++;
    }
    print_message("%s: %zu norms within %.3g, %zu gradients within %.3g\n", c->name, norms,
                  worst_norm, whole, worst);
    assert_true(norms > 100 && whole > 30);
    assert_true(worst <= TOL_GRAD && worst_norm <= TOL_GRAD);
}

static void gradients(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const family_case *c = &cases[i];
        char name[80];
        slr_step *s;
        slr_checkpoint *base = open_model(c);
        slr_network *net = make_network(base);
        slr_step_config config = config_of(c, base, net);
        ok(slr_step_new(&s, &config));
        fill(c, s, c->name, 0);
        ok(slr_step_run(s, NULL));
        const slr_step_io *io = slr_step_io_of(s);
        snprintf(name, sizeof name, "%s.eps", c->name);
        float *want = golden_nhwc(g, name, NULL);
        assert_true(golden_close_to(name, io->pred, want, N * EACH, TOL_EPS));
        slr_free(NULL, want);
        snprintf(name, sizeof name, "%s.loss", c->name);
        want = golden_f32(g, name, NULL);
        assert_true(fabs(golden_loss(s) - want[0]) <= 1e-5 * want[0]);
        slr_free(NULL, want);
        check_gradients(c, net, io->grad);
        slr_step_free(s);
        slr_network_unref(net);
        slr_checkpoint_unref(base);
    }
}

/* --- 20 steps --- */

static void check_last(const family_case *c, slr_network *net)
{
    size_t n = 0;
    double worst = 0;
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *s = slr_network_slot_at(net, i);
        char key[320], name[400];
        slr_tensor t;
        snprintf(name, sizeof name, "%s.final.%s", c->name, key_of(key, net, s));
        if (!slr_safetensors_find(g->file, name, &t))
            continue;
        float *want = golden_f32(g, name, NULL);
        worst = fmax(worst, golden_compare(slr_network_params(net) + s->offset, want, s->count).l2);
        slr_free(NULL, want);
        n++;
    }
    print_message("%s: %zu parameters after %d steps within %.3g\n", c->name, n, STEPS, worst);
    assert_true(n > 8);
    assert_true(worst <= TOL_LAST);
}

static void train(const family_case *c)
{
    char name[80];
    slr_step *s;
    slr_optim *optim;
    slr_checkpoint *base = open_model(c);
    slr_network *net = make_network(base);
    slr_step_config config = config_of(c, base, net);
    bool live[2048] = {false};
    double worst = 0;
    assert_true(slr_network_slots(net) <= sizeof live);
    ok(slr_step_live(&config, live));
    ok(slr_step_new(&s, &config));
    ok(slr_optim_new(&optim, slr_checkpoint_mem(base), net, devices, (slr_opt){NULL, "train"},
                     config.part_mask, live));
    snprintf(name, sizeof name, "%s.steps.loss", c->name);
    float *losses = golden_f32(g, name, NULL);
    for (int k = 0; k < STEPS; k++) {
        double norm;
        snprintf(name, sizeof name, "%s.%d", c->name, k);
        fill(c, s, name, (size_t)k);
        ok(slr_step_run(s, NULL));
        worst = fmax(worst, fabs(golden_loss(s) - losses[k]) / losses[k]);
        memcpy(slr_optim_grad(optim), slr_step_io_of(s)->grad,
               slr_network_param_count(net) * sizeof(float));
        ok(slr_optim_norm(optim, &norm));
        ok(slr_optim_apply(optim, k + 1, c->lr, fmin(1.0, 1.0 / (norm + 1e-6))));
    }
    print_message("%s: losses of %d steps within %.3g\n", c->name, STEPS, worst);
    assert_true(worst <= TOL_LOSS);
    check_last(c, net);
    slr_free(NULL, losses);
    slr_optim_free(optim);
    slr_step_free(s);
    slr_network_unref(net);
    slr_checkpoint_unref(base);
}

static void twenty_steps(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (cases[i].lr[SLR_PART_UNET] > 0)
            train(&cases[i]);
}

/* --- textual inversion: rows in every encoder (tests/golden/family_embedding.safetensors) --- */

enum { VOCAB = 256, VECTORS = 2 };

static const family_case inversions[] = {
    {&embeddings,
     "ti",
     "sdxl",
     false,
     1,
     SLR_PREDICT_EPS,
     NULL,
     {[SLR_PART_TE] = 5e-3, [SLR_PART_TE2] = 5e-3}},
    {&embeddings, "ti2", "sd2", false, 1, SLR_PREDICT_V, v_options, {[SLR_PART_TE] = 5e-3}},
};

/* The oracle's ids of new rows are those behind the vocabulary. */
static void splice(const slr_step_io *io)
{
    for (int e = 0; e < io->shape.n; e++)
        for (int i = 0; i < N * 77; i++) {
            int32_t *id = &io->text.ids[e][i];
            io->text.put[e][i] = *id >= VOCAB;
            io->text.splice[e][i] = *id >= VOCAB ? *id - VOCAB : 0;
            *id = *id >= VOCAB ? 0 : *id;
        }
    if (io->text.end)
        slr_text_ends(io->text.ids[0], N, io->text.end);
}

/* The worst difference of the rows from `<case>.<what><encoder>`. */
static double rows_error(const family_case *c, const slr_network *n, const float *block,
                         const char *what, size_t step)
{
    double worst = 0;
    for (size_t i = 0; i < slr_network_slots(n); i++) {
        const slr_network_slot *s = slr_network_slot_at(n, i);
        char name[80];
        snprintf(name, sizeof name, "%s.%s%zu", c->name, what, i);
        float *want = golden_f32(g, name, NULL);
        worst = fmax(worst, golden_compare(block + s->offset, want + step * s->count, s->count).l2);
        slr_free(NULL, want);
    }
    return worst;
}

/* Written and read again it is the same pair, under AUTOMATIC1111's names. */
static void pair_survives(slr_checkpoint *base, const slr_network *n)
{
    static const char *const names[] = {"clip_l", "clip_g"};
    const char *const ends[] = {"ti.safetensors", "ti.pt"};
    for (int i = 0; i < 2; i++) {
        slr_network *again;
        slr_tensor t;
        ok(slr_netfile_save(n, in_scratch(ends[i]), SDLORA_F32, NULL));
        ok(slr_network_open(&again, NULL, base, in_scratch(ends[i])));
        assert_int_equal(slr_network_slots(again), 2);
        assert_int_equal(slr_network_param_count(again), slr_network_param_count(n));
        assert_memory_equal(slr_network_params(again), slr_network_params((slr_network *)n),
                            slr_network_param_count(n) * sizeof(float));
        slr_network_unref(again);
        golden file = {0};
        if (!i)
            file = golden_open(in_scratch(ends[i]));
        for (int e = 0; !i && e < 2; e++) {
            assert_true(slr_safetensors_find(file.file, names[e], &t));
            assert_int_equal(t.dim[0], VECTORS);
        }
        golden_close(&file);
    }
}

static void invert(const family_case *c)
{
    char name[80];
    slr_network *net;
    slr_step *s;
    slr_optim *optim;
    slr_checkpoint *base = open_model(c);
    ok(make_rc(&net, base,
               (const char *const[]){"token_string", "newword", "num_vectors_per_token", "2", NULL},
               1));
    slr_step_config config = config_of(c, base, net);
    config.part_mask &= ~(1u << SLR_PART_UNET);
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *slot = slr_network_slot_at(net, i);
        snprintf(name, sizeof name, "%s.rows%zu", c->name, i);
        draw(name, 0.1, 0, slr_network_params(net) + slot->offset, slot->count);
    }
    ok(slr_step_new(&s, &config));
    ok(slr_optim_new(&optim, slr_checkpoint_mem(base), net, devices, (slr_opt){NULL, "train"},
                     config.part_mask, NULL));
    const slr_step_io *io = slr_step_io_of(s);
    snprintf(name, sizeof name, "%s.loss", c->name);
    float *losses = golden_f32(g, name, NULL);
    double worst = 0, rows = 0, grad = 0;
    for (int k = 0; k < STEPS; k++) {
        double norm;
        snprintf(name, sizeof name, "%s.%d", c->name, k);
        fill(c, s, name, (size_t)k);
        splice(io);
        ok(slr_step_run(s, NULL));
        worst = fmax(worst, fabs(golden_loss(s) - losses[k]) / losses[k]);
        grad = k ? grad : rows_error(c, net, io->grad, "grad", 0);
        memcpy(slr_optim_grad(optim), io->grad, slr_network_param_count(net) * sizeof(float));
        ok(slr_optim_norm(optim, &norm));
        ok(slr_optim_apply(optim, k + 1, c->lr, 1.0));
        rows = fmax(rows, rows_error(c, net, slr_network_params(net), "rows", (size_t)k));
    }
    print_message("%s: losses within %.3g, first gradients %.3g, rows %.3g\n", c->name, worst, grad,
                  rows);
    assert_true(worst <= TOL_LOSS && grad <= TOL_GRAD && rows <= TOL_LAST);
    if (slr_network_slots(net) == 2)
        pair_survives(base, net);
    slr_free(NULL, losses);
    slr_optim_free(optim);
    slr_step_free(s);
    slr_network_unref(net);
    slr_checkpoint_unref(base);
}

static void textual_inversion(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof inversions / sizeof *inversions; i++)
        invert(&inversions[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients), cmocka_unit_test(twenty_steps),
                                       cmocka_unit_test(textual_inversion)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
