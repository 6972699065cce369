/* SPDX-License-Identifier: MIT */
/* Small models of every family under LDM's names and as diffusers folders, made of numbers that
 * tests/golden/make_families.py draws too: what they are taken for, text states, pooled states and
 * UNets against diffusers and transformers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "base/str.h"
#include "drawn.h"
#include "graph/exec.h"
#include "io/file.h"
#include "io/json.h"
#include "models/clip.h"
#include "models/detect.h"
#include "models/text.h"
#include "models/unet.h"

/* f32 on both sides, sums in another order.  Measured 3e-6 (UNet) and 8e-7 (text); the pooled state
 * of a wrong place or an untransposed projection is off by about 1. */
#define TOL_UNET 6e-6
#define TOL_TEXT 4e-6
#define GOLDEN   TEST_ROOT "/golden/"

static slr_devices *devices;
static golden want;
static json_t *models;
static char temp[64];

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static int setup(void **state)
{
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    snprintf(temp, sizeof temp, "/tmp/slr-families-XXXXXX");
    want = golden_open(GOLDEN "families.safetensors");
    return !mkdtemp(temp) || slr_devices_open(&devices, &config) < 0 ||
           slr_json_read(&models, NULL, GOLDEN "families.json", 1 << 24) < 0;
}

static void remove_all(const char *path)
{
    slr_list l = {0};
    if (slr_dir_exists(path) && slr_dir_list(&l, NULL, path) == SDLORA_OK)
        for (size_t i = 0; i < l.n; i++) {
            char inner[512];
            snprintf(inner, sizeof inner, "%s/%s", path, l.item[i]);
            remove_all(inner);
        }
    slr_list_free(&l);
    remove(path);
}

static int teardown(void **state)
{
    slr_devices_unref(devices);
    golden_close(&want);
    json_decref(models);
    remove_all(temp);
    return 0;
}

static void *allocated(size_t n, size_t size)
{
    void *p = slr_calloc(NULL, n, size);
    assert_non_null(p);
    return p;
}

/* A source tensor; its shape is the JSON's but for what a variant changes. */
static float *source(const char *name, const slr_tensor *t)
{
    size_t n = (size_t)slr_tensor_count(t);
    float *x = allocated(n, sizeof *x);
    bool one = t->rank == 1, table = strstr(name, "text_model") && strstr(name, "_embedding.");
    double deviation = one     ? slr_ends(name, ".weight") ? 0.05 : 0.02
                       : table ? 0.1
                               : 1 / sqrt((double)(n / (size_t)t->dim[0]));
    draw(name, deviation, one && slr_ends(name, ".weight") ? 1 : 0, x, n);
    return x;
}

/* ---- files ---- */

typedef struct file {
    slr_st_entry *e;
    size_t n;
    const json_t *sources;
    bool inpaint;
} file;

static slr_tensor shape_of(const file *f, const char *name)
{
    slr_tensor t = {.dtype = SDLORA_F32};
    const json_t *dim = json_object_get(f->sources, name);
    if (!dim)
        fail_msg("families.json has no %s", name);
    t.rank = (int)json_array_size(dim);
    for (int i = 0; i < t.rank; i++)
        t.dim[i] = json_integer_value(json_array_get(dim, (size_t)i));
    if (f->inpaint && strcmp(name, "unet/conv_in.weight") == 0)
        t.dim[1] = 9;
    return t;
}

static void add(file *f, const char *name, slr_tensor t, float *data)
{
    t.data = data;
    f->e[f->n++] = (slr_st_entry){.name = name, .t = t};
}

/* LDM's name for a source, for several below each other, or for one that is turned. */
static void add_ldm(file *f, const char *name, const json_t *spec)
{
    const char *from = json_string_value(spec);
    if (from && strncmp(from, "T:", 2) != 0) {
        slr_tensor t = shape_of(f, from);
        add(f, name, t, source(from, &t));
        return;
    }
    if (from) {
        slr_tensor t = shape_of(f, from + 2), turned = t;
        float *x = source(from + 2, &t), *y = allocated((size_t)slr_tensor_count(&t), sizeof *y);
        turned.dim[0] = t.dim[1];
        turned.dim[1] = t.dim[0];
        for (int64_t i = 0; i < t.dim[0]; i++)
            for (int64_t j = 0; j < t.dim[1]; j++)
                y[j * t.dim[0] + i] = x[i * t.dim[1] + j];
        slr_free(NULL, x);
        add(f, name, turned, y);
        return;
    }
    size_t parts = json_array_size(spec), at = 0;
    slr_tensor t = shape_of(f, json_string_value(json_array_get(spec, 0))), all = t;
    size_t each = (size_t)slr_tensor_count(&t);
    float *y = allocated(parts * each, sizeof *y);
    all.dim[0] *= (int64_t)parts;
    for (size_t i = 0; i < parts; i++, at += each) {
        float *x = source(json_string_value(json_array_get(spec, i)), &t);
        memcpy(y + at, x, each * sizeof *x);
        slr_free(NULL, x);
    }
    add(f, name, all, y);
}

static void write_file(file *f, const char *path, const slr_st_pair *meta, size_t n_meta)
{
    ok(slr_safetensors_write(NULL, path, f->e, f->n, meta, n_meta));
    for (size_t i = 0; i < f->n; i++)
        slr_free(NULL, (void *)f->e[i].t.data);
    slr_free(NULL, f->e);
}

static file new_file(const json_t *model, bool inpaint)
{
    file f = {.sources = json_object_get(model, "sources"), .inpaint = inpaint};
    f.e = allocated(json_object_size(json_object_get(model, "ldm")) + 8, sizeof *f.e);
    return f;
}

/* A model of a golden's name: "sdxl", "sdxl-inpaint". */
static const json_t *model_of(const char *name, bool *inpaint)
{
    char base[32];
    snprintf(base, sizeof base, "%s", name);
    char *dash = strchr(base, '-');
    *inpaint = dash != NULL;
    if (dash)
        *dash = '\0';
    return json_object_get(models, base);
}

static void write_ldm(const char *name, const char *path, const slr_st_pair *meta, size_t n_meta)
{
    bool inpaint;
    const char *key;
    json_t *spec;
    const json_t *model = model_of(name, &inpaint);
    file f = new_file(model, inpaint);
    json_object_foreach(json_object_get(model, "ldm"), key, spec) add_ldm(&f, key, spec);
    write_file(&f, path, meta, n_meta);
}

static void write_folder(const char *name, const char *path, const char *scheduler)
{
    static const char *const PARTS[][2] = {{"unet", "diffusion_pytorch_model"},
                                           {"text_encoder", "model"},
                                           {"text_encoder_2", "model"}};
    bool inpaint;
    const json_t *model = model_of(name, &inpaint);
    char full[256];
    ok(slr_dir_make(path));
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++) {
        const char *key;
        json_t *dim;
        size_t head = strlen(PARTS[i][0]);
        file f = new_file(model, inpaint);
        json_object_foreach(json_object_get(model, "sources"), key, dim)
        {
            if (strncmp(key, PARTS[i][0], head) != 0 || key[head] != '/')
                continue;
            slr_tensor t = shape_of(&f, key);
            add(&f, key + head + 1, t, source(key, &t));
        }
        snprintf(full, sizeof full, "%s/%s", path, PARTS[i][0]);
        if (f.n)
            ok(slr_dir_make(full));
        snprintf(full, sizeof full, "%s/%s/%s.safetensors", path, PARTS[i][0], PARTS[i][1]);
        if (f.n)
            write_file(&f, full, NULL, 0);
        else
            slr_free(NULL, f.e);
    }
    if (!scheduler)
        return;
    snprintf(full, sizeof full, "%s/scheduler", path);
    ok(slr_dir_make(full));
    snprintf(full, sizeof full, "%s/scheduler/scheduler_config.json", path);
    ok(slr_file_write(NULL, full, scheduler, strlen(scheduler)));
}

static slr_checkpoint *opened(const char *path)
{
    const slr_checkpoint_config config = {.predict = -1};
    slr_checkpoint *c;
    ok(slr_checkpoint_open(&c, path, &config));
    return c;
}

/* ---- running ---- */

typedef struct job {
    slr_graph *g;
    slr_nn nn;
    slr_plan *p;
} job;

static job new_job(const slr_weights *w, int part)
{
    job j = {0};
    ok(slr_graph_new(&j.g, NULL, (slr_policy){.storage = SDLORA_F32}));
    j.nn = (slr_nn){.g = j.g, .w = w, .part = part};
    return j;
}

static void plan(job *j)
{
    ok(slr_graph_status(j->g));
    ok(slr_plan_new(&j->p, j->g, devices));
    slr_graph_free(j->g);
}

static void *memory(job *j, const char *name)
{
    slr_val v;
    ok(slr_plan_find(j->p, name, &v));
    return slr_plan_data(j->p, v);
}

static void check(job *j, const char *out, const char *name, double tol)
{
    slr_tensor t;
    slr_val v;
    bool image = slr_ends(name, ".eps");
    float *expected = image ? golden_nhwc(&want, name, &t) : golden_f32(&want, name, &t);
    ok(slr_plan_find(j->p, out, &v));
    slr_shape s = slr_plan_shape(j->p, v);
    size_t n = 1;
    for (int i = 0; i < s.rank; i++)
        n *= (size_t)s.dim[i];
    assert_int_equal(n, slr_tensor_count(&t));
    assert_true(golden_close_to(name, memory(j, out), expected, n, tol));
    slr_free(NULL, expected);
}

static void check_unet(const char *name, const slr_checkpoint *c, int64_t h, int64_t w)
{
    const slr_family *family = slr_checkpoint_family(c);
    const slr_weights *unet = slr_checkpoint_part(c, SLR_PART_UNET);
    slr_unet_shape s;
    char golden_name[64];
    ok(slr_unet_read(&s, family, unet));
    job j = new_job(unet, SLR_PART_UNET);
    const int64_t xd[4] = {2, h, w, s.in_channels}, td[1] = {2}, cd[3] = {2, 77, s.context},
                  vd[2] = {2, s.vector};
    slr_val x = slr_input(j.g, "x", SDLORA_F32, 4, xd), t = slr_input(j.g, "t", SDLORA_F32, 1, td),
            ctx = slr_input(j.g, "ctx", SDLORA_F32, 3, cd), v = SLR_NONE;
    if (s.vector)
        v = slr_input(j.g, "vector", SDLORA_F32, 2, vd);
    slr_output(j.g, slr_unet_build_vector(&j.nn, family, x, t, ctx, v), "y");
    plan(&j);
    draw_nhwc("x", memory(&j, "x"), 2, s.in_channels, h * w);
    draw("ctx", 1.0, 0, memory(&j, "ctx"), (size_t)(2 * 77 * s.context));
    memcpy(memory(&j, "t"), (const float[]){981.0F, 250.375F}, 2 * sizeof(float));
    if (s.vector) {
        slr_tensor sizes;
        enum { POOLED = 96 };
        float pooled[2 * POOLED], *to = memory(&j, "vector");
        snprintf(golden_name, sizeof golden_name, "%s.sizes", name);
        float *numbers = golden_f32(&want, golden_name, &sizes);
        draw("pooled", 1.0, 0, pooled, 2 * POOLED);
        assert_int_equal(sizes.dim[1], family->n_sizes);
        for (int i = 0; i < 2; i++) {
            memcpy(to + i * s.vector, pooled + (ptrdiff_t)i * POOLED, POOLED * sizeof(float));
            slr_text_sizes(numbers + i * sizes.dim[1], (int)sizes.dim[1],
                           to + i * s.vector + POOLED);
        }
        slr_free(NULL, numbers);
    }
    ok(slr_plan_run(j.p, NULL));
    snprintf(golden_name, sizeof golden_name, "%s.eps", name);
    check(&j, "y", golden_name, TOL_UNET);
    slr_plan_free(j.p);
}

/* States of encoder e by a clip skip: the golden's `which` (hidden or normed states from behind).
 */
static void check_text(const char *name, const slr_checkpoint *c, int e, int skip,
                       const char *which)
{
    const slr_family *family = slr_checkpoint_family(c);
    slr_text_shape s;
    slr_tensor t;
    slr_val pooled;
    char golden_name[64];
    ok(slr_text_read(&s, c));
    const char *folder = s.part[e] == SLR_PART_TE ? "text_encoder" : "text_encoder_2";
    int32_t *ids = golden_i32(&want, "ids", &t);
    job j = new_job(slr_checkpoint_part(c, s.part[e]), s.part[e]);
    slr_val in = slr_input(j.g, "ids", SDLORA_I32, 2, t.dim), end = SLR_NONE;
    if (s.pooled)
        end = slr_input(j.g, "end", SDLORA_F32, 3, (const int64_t[]){2, 1, 77});
    slr_output(j.g, slr_text_build(&j.nn, family, &s, e, in, skip, end, &pooled), "y");
    assert_int_equal(pooled != SLR_NONE, s.part[e] == SLR_PART_TE2);
    if (pooled != SLR_NONE)
        slr_output(j.g, pooled, "pooled");
    plan(&j);
    memcpy(memory(&j, "ids"), ids, slr_tensor_bytes(&t));
    if (pooled != SLR_NONE)
        slr_text_ends(ids, 2, memory(&j, "end"));
    ok(slr_plan_run(j.p, NULL));
    snprintf(golden_name, sizeof golden_name, "%s.%s.%s", name, folder, which);
    check(&j, "y", golden_name, TOL_TEXT);
    if (pooled != SLR_NONE) {
        snprintf(golden_name, sizeof golden_name, "%s.%s.pooled", name, folder);
        check(&j, "pooled", golden_name, TOL_TEXT);
    }
    slr_plan_free(j.p);
    slr_free(NULL, ids);
}

/* ---- tests ---- */

static const struct row {
    const char *name;
    int family, n_text;
    int64_t width, vector;
    struct {
        int encoder, skip;
        const char *which;
    } text[6];
} ROWS[] = {
    {"sd1", SLR_FAMILY_SD1, 1, 64, 0, {{0, 1, "normed1"}, {0, 2, "normed2"}, {0, -2, "normed2"}}},
    {"sd1-inpaint", SLR_FAMILY_SD1, 1, 64, 0, {{0}}},
    {"sd2", SLR_FAMILY_SD2, 1, 128, 0, {{0, 1, "normed1"}, {0, 2, "normed1"}, {0, -2, "normed2"}}},
    {"sd2-inpaint", SLR_FAMILY_SD2, 1, 128, 0, {{0}}},
    {"sdxl",
     SLR_FAMILY_SDXL,
     2,
     192,
     96 + 6 * 256,
     {{0, 1, "hidden2"},
      {0, 2, "hidden2"},
      {0, -1, "hidden1"},
      {0, -3, "hidden3"},
      {1, 1, "hidden2"},
      {1, -1, "hidden2"}}},
    {"sdxl-inpaint", SLR_FAMILY_SDXL, 2, 192, 96 + 6 * 256, {{0}}},
    {"pruned", SLR_FAMILY_SDXL, 2, 192, 96 + 6 * 256, {{0}}},
    {"refiner", SLR_FAMILY_REFINER, 1, 128, 96 + 5 * 256, {{0, 1, "hidden2"}}},
};

static void check_model(const struct row *r, const char *path)
{
    slr_checkpoint *c = opened(path);
    slr_text_shape s;
    assert_int_equal(slr_checkpoint_family(c)->id, r->family);
    assert_int_equal(slr_checkpoint_inpaint(c), strstr(r->name, "inpaint") != NULL);
    assert_false(slr_checkpoint_ztsnr(c));
    ok(slr_text_read(&s, c));
    assert_int_equal(s.n, r->n_text);
    assert_int_equal(s.width, r->width);
    assert_int_equal(s.vector, r->vector);
    assert_int_equal(s.at[s.n - 1], s.width - s.clip[s.n - 1].width);
    check_unet(r->name, c, 8, 16);
    if (strcmp(r->name, "sd1") == 0) /* sides that do not halve evenly */
        check_unet("sd1.odd", c, 9, 14);
    if (strcmp(r->name, "sdxl") == 0)
        check_unet("sdxl.odd", c, 9, 14);
    for (size_t i = 0; i < 6 && r->text[i].which; i++)
        check_text(r->name, c, r->text[i].encoder, r->text[i].skip, r->text[i].which);
    slr_checkpoint_unref(c);
}

static void all_families(void **state)
{
    static const char SCHEDULER[] = "{\"prediction_type\": \"epsilon\"}";
    char path[128];
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        snprintf(path, sizeof path, "%s/model.safetensors", temp);
        write_ldm(ROWS[i].name, path, NULL, 0);
        check_model(&ROWS[i], path);
        unlink(path);
        snprintf(path, sizeof path, "%s/folder", temp);
        write_folder(ROWS[i].name, path, SCHEDULER);
        check_model(&ROWS[i], path);
        remove_all(path);
    }
}

/* What tells a prediction, in every form of file. */
static void predictions(void **state)
{
    static const struct {
        const char *model;
        slr_st_pair meta;
        const char *scheduler; /* non-NULL: a folder */
        int predict;
        bool ztsnr;
        const char *source;
    } CASES[] = {
        {"sdxl", {"modelspec.predict_key", "v"}, NULL, SLR_PREDICT_V, false, "metadata"},
        {"sdxl", {"ss_v_parameterization", "True"}, NULL, SLR_PREDICT_V, false, "metadata"},
        {"sdxl", {NULL, NULL}, NULL, SLR_PREDICT_EPS, false, "its family"},
        {"sd2",
         {"modelspec.architecture", "stable-diffusion-v2-768-v"},
         NULL,
         SLR_PREDICT_V,
         false,
         "metadata"},
        {"sd2",
         {"modelspec.architecture", "stable-diffusion-v2-512"},
         NULL,
         SLR_PREDICT_EPS,
         false,
         "metadata"},
        {"sd2-inpaint", {NULL, NULL}, NULL, SLR_PREDICT_EPS, false, "its family"},
        {"sdxl",
         {NULL, NULL},
         "{\"prediction_type\": \"v_prediction\", \"rescale_betas_zero_snr\": true}",
         SLR_PREDICT_V,
         true,
         "the folder's scheduler"},
        {"sd2",
         {NULL, NULL},
         "{\"prediction_type\": \"v_prediction\"}",
         SLR_PREDICT_V,
         false,
         "the folder's scheduler"},
        {"sd2", {NULL, NULL}, "{}", SLR_PREDICT_EPS, false, "a run of its UNet"},
    };
    char path[128];
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        snprintf(path, sizeof path, "%s/model.safetensors", temp);
        if (CASES[i].scheduler)
            write_folder(CASES[i].model, path, CASES[i].scheduler);
        else
            write_ldm(CASES[i].model, path, &CASES[i].meta, CASES[i].meta.key != NULL);
        slr_checkpoint *c = opened(path);
        assert_int_equal(slr_checkpoint_predict(c), CASES[i].predict);
        assert_int_equal(slr_checkpoint_ztsnr(c), CASES[i].ztsnr);
        assert_string_equal(slr_checkpoint_predict_source(c), CASES[i].source);
        slr_checkpoint_unref(c);
        remove_all(path);
    }
}

/* What the caller says beats a folder that names one which is not known. */
static void a_prediction_of_the_caller(void **state)
{
    char path[128];
    slr_checkpoint *c;
    slr_checkpoint_config config = {.predict = -1};
    snprintf(path, sizeof path, "%s/folder", temp);
    write_folder("sdxl", path, "{\"prediction_type\": \"sample\"}");
    assert_int_equal(slr_checkpoint_open(&c, path, &config), SDLORA_ENOTSUP);
    config.predict = SLR_PREDICT_V;
    ok(slr_checkpoint_open(&c, path, &config));
    assert_int_equal(slr_checkpoint_predict(c), SLR_PREDICT_V);
    assert_string_equal(slr_checkpoint_predict_source(c), "the caller");
    slr_checkpoint_unref(c);
    remove_all(path);
}

/* A UNet that gives minus three whatever it is asked predicts v, one that gives zero noise. */
static void probe(void **state)
{
    static float bias[4];
    slr_checkpoint *c;
    const slr_checkpoint_config config = {.predict = -1};
    ok(slr_checkpoint_synthetic(&c, "tiny-sd2", SDLORA_F32, 0, &config));
    slr_weights *w = slr_checkpoint_part(c, SLR_PART_UNET), *changed;
    const slr_probe_limits limits = {.threads = 1, .cpu_off = ~(uint64_t)0};
    for (int v = 0; v < 2; v++) {
        slr_tensor t = {.dtype = SDLORA_F32, .rank = 1, .dim = {4}, .data = bias};
        int predict = -1;
        for (int i = 0; i < 4; i++)
            bias[i] = v ? -3 : 0;
        ok(slr_weights_new(&changed, NULL, "changed"));
        for (size_t i = 0; i < slr_weights_count(w); i++) {
            const slr_tensor *is;
            const char *name = slr_weights_at(w, i, &is);
            ok(slr_weights_put(changed, name, strcmp(name, "conv_out.bias") ? is : &t));
        }
        ok(slr_probe_predict(&predict, NULL, slr_checkpoint_family(c), changed,
                             v ? &limits : &(slr_probe_limits){0}));
        assert_int_equal(predict, v ? SLR_PREDICT_V : SLR_PREDICT_EPS);
        slr_weights_unref(changed);
    }
    slr_checkpoint_unref(c);
}

static void rows_of_ids(void **state)
{
    int32_t ids[2 * 77];
    float end[2 * 77];
    const slr_family *xl = slr_family_by_id(SLR_FAMILY_SDXL);
    for (int i = 0; i < 2 * 77; i++)
        ids[i] = 49407;
    ids[0] = ids[77] = 49406;
    ids[1] = 320;
    for (int i = 1; i < 76; i++)
        ids[77 + i] = 400 + i;
    slr_text_ends(ids, 2, end);
    for (int i = 0; i < 77; i++)
        assert_true(end[i] == (i == 2) && end[77 + i] == (i == 76));
    slr_text_pad(xl, SLR_PART_TE, ids, 2);
    assert_int_equal(ids[3], 49407);
    slr_text_pad(xl, SLR_PART_TE2, ids, 2);
    assert_int_equal(ids[2], 49407);
    for (int i = 3; i < 77; i++)
        assert_int_equal(ids[i], 0);
    assert_int_equal(ids[77 + 75], 475);
    assert_int_equal(ids[77 + 76], 49407);
}

/* Of clip skips, only where one would help. */
static void too_few_layers(void **state)
{
    static const struct {
        const char *model;
        int clip_skip;
        const char *says;
    } CASES[] = {
        {"tiny-sdxl", 1, "takes the states of the layer 1 before the last"},
        {"tiny-sdxl", -2, "clip_skip is -2; text has 1 layers, so -1 to -1 will do"},
        {"tiny", 2, "clip_skip is 2; text has 1 layers, so 1 to 1 will do"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const slr_checkpoint_config config = {.predict = -1};
        const int64_t dim[2] = {1, 77};
        slr_checkpoint *c;
        slr_weights *one;
        ok(slr_checkpoint_synthetic(&c, CASES[i].model, SDLORA_F32, 0, &config));
        const slr_weights *w = slr_checkpoint_part(c, SLR_PART_TE);
        ok(slr_weights_new(&one, NULL, "text"));
        for (size_t k = 0; k < slr_weights_count(w); k++) {
            const slr_tensor *t;
            const char *name = slr_weights_at(w, k, &t);
            if (!strstr(name, ".layers.") || strstr(name, ".layers.0."))
                ok(slr_weights_put(one, name, t));
        }
        job j = new_job(one, SLR_PART_TE);
        slr_clip_build(&j.nn, slr_checkpoint_family(c), slr_input(j.g, "ids", SDLORA_I32, 2, dim),
                       CASES[i].clip_skip);
        assert_int_equal(slr_graph_status(j.g), SDLORA_EINVAL);
        if (!strstr(sdlora_last_error()->message, CASES[i].says))
            fail_msg("%s", sdlora_last_error()->message);
        slr_graph_free(j.g);
        slr_weights_unref(one);
        slr_checkpoint_unref(c);
    }
}

static void broken(void **state)
{
    static const struct {
        const char *drop; /* a piece of names that are left out */
        const char *words;
        int code;
    } CASES[] = {
        {"embedders.0.", "has no text encoder", SDLORA_ENOTFOUND},
        {"text_projection", "text_projection", SDLORA_ENOTFOUND},
    };
    char path[128];
    bool inpaint;
    const json_t *model = model_of("sdxl", &inpaint);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const char *key;
        json_t *spec;
        slr_text_shape s;
        file f = new_file(model, false);
        json_object_foreach(json_object_get(model, "ldm"), key, spec)
        {
            if (!strstr(key, CASES[i].drop))
                add_ldm(&f, key, spec);
        }
        snprintf(path, sizeof path, "%s/broken.safetensors", temp);
        write_file(&f, path, NULL, 0);
        slr_checkpoint *c = opened(path);
        assert_int_equal(slr_text_read(&s, c), CASES[i].code);
        if (!strstr(sdlora_last_error()->message, CASES[i].words))
            fail_msg("%s", sdlora_last_error()->message);
        slr_checkpoint_unref(c);
        unlink(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_families),
        cmocka_unit_test(predictions),
        cmocka_unit_test(a_prediction_of_the_caller),
        cmocka_unit_test(too_few_layers),
        cmocka_unit_test(probe),
        cmocka_unit_test(rows_of_ids),
        cmocka_unit_test(broken),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
