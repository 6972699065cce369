/* SPDX-License-Identifier: MIT */
/* Runs of a generator as the golden scripts make_img2img.py and make_variants.py describe them. */
#ifndef RUNS_TEST_H
#define RUNS_TEST_H

#include <unistd.h>

#include "golden_test.h"
#include "io/json.h"
#include "models/checkpoint.h"
#include "sample/compose.h"
#include "sample/generator.h"

#define TINYSD      TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define TOL_LATENTS 3e-5 /* up to sixteen evaluations amplify rounding; measured up to 5e-6 */
#define TOL_PIXEL   1    /* truncation may fall the other way */

static inline void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

/* --- the file's cases --- */

static inline json_t *meta(const golden *g, const char *key)
{
    json_t *root;
    const char *text = slr_safetensors_meta(g->file, key);
    assert_non_null(text);
    ok(slr_json_parse(&root, text, strlen(text), key));
    return root;
}

static inline double number(const json_t *c, const char *key, double none)
{
    const json_t *v = json_object_get(c, key);
    return !v ? none : json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
}

static inline const char *word(const json_t *c, const char *key, const char *none)
{
    const json_t *v = json_object_get(c, key);
    return v ? json_string_value(v) : none;
}

/* Borrowed. */
static inline bool stored(const golden *g, const char *name, slr_pixels *p)
{
    slr_tensor t;
    if (!slr_safetensors_find(g->file, name, &t))
        return false;
    *p = (slr_pixels){(int32_t)t.dim[1], (int32_t)t.dim[0], t.rank == 3 ? (int32_t)t.dim[2] : 1,
                      (uint8_t *)(uintptr_t)t.data};
    return true;
}

/* A source picture; grey ones as RGB, since that is what a file gives. */
static inline void source(const golden *g, const char *name, slr_pixels *out)
{
    char key[64];
    slr_pixels p;
    snprintf(key, sizeof key, "src.%s", name);
    assert_true(stored(g, key, &p));
    ok(p.channels == 1 ? slr_picture_rgb(out, NULL, &p) : slr_picture_copy(out, NULL, &p));
}

/* Reads a case of img2img; free init->data and mask->data. */
static inline void read_start(const golden *g, slr_request *r, const json_t *c, slr_pixels *init,
                              slr_pixels *mask)
{
    *mask = (slr_pixels){0};
    source(g, word(c, "init", NULL), init);
    if (word(c, "mask", NULL))
        source(g, word(c, "mask", NULL), mask);
    r->init = init;
    r->mask = mask->data ? mask : NULL;
    r->set.denoising_strength = number(c, "strength", 0.75);
    r->set.resize_mode = (int)number(c, "mode", 0);
    r->set.fix_steps = number(c, "fix", 0) != 0;
    r->set.noise_multiplier = number(c, "multiplier", 1);
    r->set.extra_noise = number(c, "extra", 0);
    r->set.color_correction = number(c, "correct", 0) != 0;
    r->set.mask_blur = (int)number(c, "blur", 4);
    r->set.mask_round = number(c, "round", 1) != 0;
    r->set.mask_invert = number(c, "invert", 0) != 0;
    r->set.mask_weight = number(c, "weight", 1);
    r->set.image_cfg = number(c, "image_cfg", 1.5);
    r->set.fill = (int)number(c, "content", 1);
    r->set.full_res = number(c, "full", 0) != 0;
    r->set.full_res_padding = (int)number(c, "padding", 0);
}

static inline void read_hires(slr_request *r, const json_t *c)
{
    r->set.hr_upscaler = word(c, "upscaler", NULL);
    r->set.hr = r->set.hr_upscaler != NULL;
    r->set.denoising_strength = number(c, "strength", 0.7);
    r->set.hr_scale = number(c, "scale", 2);
    r->set.hr_steps = (int)number(c, "steps", 0);
    r->set.hr_width = (int)number(c, "x", 0);
    r->set.hr_height = (int)number(c, "y", 0);
    r->set.hr_sampler = word(c, "hr_sampler", NULL);
    r->set.mask_weight = number(c, "weight", 1);
}

static inline slr_request request_of(const json_t *c)
{
    slr_request r = {0};
    slr_settings_read(&r.set, (slr_opt){NULL, "generate"});
    r.set.prompt = "red apple, fruit";
    r.set.negative = "food";
    r.set.sampler = word(c, "sampler", "Euler a");
    r.set.steps = 8;
    r.set.cfg = 7;
    r.set.width = (int)number(c, "width", 64);
    r.set.height = (int)number(c, "height", 64);
    r.set.count = 1;
    r.set.merge = number(c, "merge", 0);
    r.set.merge_second = number(c, "merge_hr", 0);
    r.set.seed = 1;
    return r;
}

static inline int worst(const slr_pixels *got, const slr_pixels *want)
{
    int d = 0;
    assert_int_equal(got->width, want->width);
    assert_int_equal(got->height, want->height);
    for (size_t i = 0; i < (size_t)want->width * (size_t)want->height * 3; i++)
        if (abs(got->data[i] - want->data[i]) > d)
            d = abs(got->data[i] - want->data[i]);
    return d;
}

static inline void check(const golden *g, const char *kind, const char *name,
                         const slr_picture *got)
{
    char key[96];
    slr_tensor t;
    slr_pixels want;
    snprintf(key, sizeof key, "%s.%s.latents", kind, name);
    float *latents = golden_nhwc(g, key, &t);
    assert_int_equal(got->h * got->w * got->c, slr_tensor_count(&t));
    golden_error e = golden_compare(got->latents, latents, (size_t)slr_tensor_count(&t));
    slr_free(NULL, latents);
    snprintf(key, sizeof key, "%s.%s.image", kind, name);
    int d = stored(g, key, &want) ? worst(&got->pixels, &want) : 0;
    print_message("%-24s latents %.2g, worst pixel %d\n", name, e.l2, d);
    assert_true(e.l2 <= TOL_LATENTS);
    assert_true(d <= TOL_PIXEL);
}

/* --- models --- */

/* tinysd with more channels into its first convolution, as the golden script makes them. */
static inline void write_wider(const char *path, int64_t more)
{
    const int64_t row = (4 + more) * 9;
    const char *first = "model.diffusion_model.input_blocks.0.0.weight";
    slr_safetensors *f;
    ok(slr_safetensors_open(&f, NULL, TINYSD, true));
    size_t n = slr_safetensors_count(f);
    slr_st_entry *e = slr_calloc(NULL, n, sizeof *e);
    float *wide = NULL;
    for (size_t i = 0; i < n; i++) {
        e[i].name = slr_safetensors_at(f, i, &e[i].t);
        if (strcmp(e[i].name, first) != 0)
            continue;
        int64_t out = e[i].t.dim[0];
        float *old = slr_alloc(NULL, (size_t)slr_tensor_count(&e[i].t) * sizeof *old);
        wide = slr_alloc(NULL, (size_t)(out * row) * sizeof *wide);
        ok(slr_tensor_to_f32(&e[i].t, old));
        for (int64_t k = 0; k < out; k++) {
            memcpy(wide + k * row, old + k * 36, 36 * sizeof *wide);
            for (int64_t j = 0; j < more * 9; j++)
                wide[k * row + 36 + j] =
                    (float)((double)((7919 * (k * more * 9 + j)) % 2003 - 1001) / 20020);
        }
        slr_free(NULL, old);
        const int64_t dim[4] = {out, 4 + more, 3, 3};
        e[i].t = (slr_tensor){.dtype = SDLORA_F32, .rank = 4, .data = wide};
        memcpy(e[i].t.dim, dim, sizeof dim);
    }
    assert_non_null(wide);
    ok(slr_safetensors_write(NULL, path, e, n, NULL, 0));
    slr_free(NULL, wide);
    slr_free(NULL, e);
    slr_safetensors_close(f);
}

#endif
