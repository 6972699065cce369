/* SPDX-License-Identifier: MIT */
/* Grids: values, labels and prompts against AUTOMATIC1111's script (tests/golden/grid.json), cells
 * drawn on tinysd with their own options, sheets with the axes in their parameters, and cancelling.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include <sdlora/sdlora.h>

#include "api/grid_axes.h"
#include "base/status.h"
#include "base/str.h"
#include "io/json.h"

#define GOLDEN TEST_ROOT "/golden/grid.json"
#define MODEL  TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"

enum { LIMIT = 1 << 20 };

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static json_t *golden(const char *key, json_t **root)
{
    ok(slr_json_read(root, NULL, GOLDEN, LIMIT));
    json_t *list = json_object_get(*root, key);
    assert_true(json_array_size(list) > 0);
    return list;
}

static const char *text_at(json_t *row, size_t i)
{
    return json_string_value(json_array_get(row, i));
}

/* --- values --- */

static int type_of(const char *name)
{
    return !strcmp(name, "int")     ? SLR_GRID_INT
           : !strcmp(name, "float") ? SLR_GRID_REAL
           : !strcmp(name, "order") ? SLR_GRID_ORDER
                                    : SLR_GRID_TEXT;
}

static void check_order(const slr_grid_values *v, size_t k, json_t *want)
{
    size_t order[8];

    slr_grid_order(k, v->n_parts, order);
    for (size_t i = 0; i < json_array_size(want); i++)
        assert_string_equal(v->part[order[i]], text_at(want, i));
}

static void check_values(json_t *row)
{
    int type = type_of(text_at(row, 0));
    const char *text = text_at(row, 1);
    json_t *want = json_array_get(row, 2);
    slr_grid_values v;
    int rc = slr_grid_values_read(&v, NULL, type, text, false);

    if (json_is_null(want)) { /* the script takes the sign of an exponent for a range's dash */
        assert_int_equal(rc, strcmp(text, "1e-3") ? SDLORA_EINVAL : SDLORA_OK);
        if (rc >= 0)
            slr_grid_values_free(&v);
        return;
    }
    if (rc < 0 || v.n != json_array_size(want))
        fail_msg("'%s': %zu values, not %zu: %s", text, v.n, json_array_size(want),
                 sdlora_last_error()->message);
    for (size_t i = 0; i < v.n; i++) {
        json_t *one = json_array_get(want, i);

        if (type == SLR_GRID_INT)
            assert_int_equal(v.at[i].i, json_integer_value(one));
        else if (type == SLR_GRID_REAL && v.at[i].real != json_number_value(one)) /* to the bit */
            fail_msg("'%s': %.17g, not %.17g", text, v.at[i].real, json_number_value(one));
        else if (type == SLR_GRID_TEXT)
            assert_string_equal(v.at[i].text, json_string_value(one));
        else if (type == SLR_GRID_ORDER)
            check_order(&v, i, one);
    }
    slr_grid_values_free(&v);
}

static void values_are_the_scripts(void **state)
{
    json_t *root, *row, *list = golden("values", &root);
    size_t i;

    (void)state;
    json_array_foreach(list, i, row)
    {
        check_values(row);
    }
    json_decref(root);
}

static void lines_may_be_values(void **state)
{
    slr_grid_values v;

    (void)state;
    ok(slr_grid_values_read(&v, NULL, SLR_GRID_TEXT, "\n a, b\r\n\n\"c\"\n", true));
    assert_int_equal(v.n, 3);
    assert_string_equal(v.at[0].text, "a, b");
    assert_string_equal(v.at[1].text, "");
    assert_string_equal(v.at[2].text, "\"c\"");
    slr_grid_values_free(&v);
    ok(slr_grid_values_read(&v, NULL, SLR_GRID_TEXT, "a, b", true)); /* one line is CSV */
    assert_int_equal(v.n, 2);
    slr_grid_values_free(&v);
}

static void too_many_values_are_refused(void **state)
{
    static const char *const texts[] = {"1-5000", "1-4000, 1-4000", "0-1 [5000]",
                                        "0-1 [99999999999]", "1-9007199254740992"};
    slr_grid_values v;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_int_equal(slr_grid_values_read(&v, NULL, SLR_GRID_INT, texts[i], false),
                         SDLORA_EINVAL);
    assert_int_equal(slr_grid_values_read(&v, NULL, SLR_GRID_ORDER, "1,2,3,4,5,6,7", false),
                     SDLORA_EINVAL);
    ok(slr_grid_values_read(&v, NULL, SLR_GRID_INT, "1-4096", false));
    assert_int_equal(v.n, 4096);
    slr_grid_values_free(&v);
}

/* --- axes --- */

static void labels_are_the_scripts(void **state)
{
    json_t *root, *row, *list = golden("labels", &root);
    size_t i;

    (void)state;
    json_array_foreach(list, i, row)
    {
        slr_grid_axis axis = {.label = "CFG Scale", .type = type_of(text_at(row, 0))};
        char text[32] = "";
        slr_grid_value v = {text, json_integer_value(json_array_get(row, 1)),
                            json_number_value(json_array_get(row, 1))};

        snprintf(text, sizeof text, "%lld", (long long)v.i);
        char *label = slr_grid_axis_label(&axis, NULL, &v);
        assert_string_equal(label, text_at(row, 2));
        slr_free(NULL, label);
    }
    json_decref(root);
}

/* Applies value i of `values` to the prompts; NULL in *prompt: it was refused. */
static void apply(const char *axis, const char *values, size_t i, const char *prompt,
                  const char *negative, const char **got, const char **got_negative,
                  sdlora_options **o)
{
    slr_grid_axis own;
    slr_grid_values v;
    const slr_grid_axis *row = slr_grid_axis_find(axis, &own);

    assert_non_null(row);
    ok(sdlora_options_new(o, "generate"));
    ok(sdlora_options_set_text(*o, "prompt", prompt));
    ok(sdlora_options_set_text(*o, "negative", negative));
    ok(slr_grid_values_read(&v, NULL, row->type, values, true));
    assert_true(i < v.n);
    int rc = slr_grid_axis_apply(row, NULL, *o, &v, i);
    slr_grid_values_free(&v);
    *got = *got_negative = NULL;
    if (rc >= 0) {
        ok(sdlora_options_get_text(*o, "prompt", got));
        ok(sdlora_options_get_text(*o, "negative", got_negative));
    }
}

static void prompts_change_as_the_script_changes_them(void **state)
{
    json_t *root, *row, *list = golden("replace", &root);
    size_t i;

    (void)state;
    json_array_foreach(list, i, row)
    {
        const char *prompt, *negative;
        char values[128];
        sdlora_options *o;

        snprintf(values, sizeof values, "%s\n%s", text_at(row, 2), text_at(row, 3));
        apply("Prompt S/R", values, 1, text_at(row, 0), text_at(row, 1), &prompt, &negative, &o);
        if (text_at(row, 4)) {
            assert_non_null(prompt);
            assert_string_equal(prompt, text_at(row, 4));
            assert_string_equal(negative, text_at(row, 5));
        } else {
            assert_null(prompt);
        }
        sdlora_options_unref(o);
    }
    json_decref(root);
}

static void orders_are_the_scripts(void **state)
{
    json_t *root, *row, *list = golden("order", &root);
    size_t i, k = 0;
    const char *before = "";

    (void)state;
    json_array_foreach(list, i, row)
    {
        json_t *parts = json_array_get(row, 1);
        const char *prompt, *negative;
        char values[256] = "";
        sdlora_options *o;

        for (size_t p = 0; p < json_array_size(parts); p++)
            snprintf(values + strlen(values), sizeof values - strlen(values), "%s%s", p ? "," : "",
                     text_at(parts, p));
        k = strcmp(before, text_at(row, 0)) ? 0 : k + 1;
        before = text_at(row, 0);
        apply("prompt order", values, k, before, "", &prompt, &negative, &o);
        assert_string_equal(prompt, text_at(row, 2));
        sdlora_options_unref(o);
    }
    json_decref(root);
}

static void loras_change_in_the_first_tag(void **state)
{
    static const struct {
        const char *axis, *value, *prompt, *want;
    } cases[] = {
        {"LoRA", "b", "x <lora:a:0.5> y <lora:c:1>", "x <lora:b:0.5> y <lora:c:1>"},
        {"LoRA", "b", "x", "x<lora:b:1>"},
        {"LoRA", "None", "x <lora:a:0.5> y", "x  y"},
        {"LoRA", "None", "x", "x"},
        {"LoRA weight", "0.25", "<lora:a>", "<lora:a:0.25>"},
        {"LoRA weight", "0-1 [2]", "<lora:a:0.5>", "<lora:a:0.0>"},
        {"LoRA weight", "2", "<lora:a:0.5:0.7:8>", "<lora:a:2.0:2.0:8>"},
        {"LoRA weight", "2", "<lora:a:te=0.5:unet=1:dyn=4>", "<lora:a:2.0:dyn=4>"},
        {"LoRA weight", "2", "no tag", NULL},
        {"LoRA epoch", "3", "<lora:run:0.8>", "<lora:run-000003:0.8>"},
        {"LoRA epoch", "12", "<lora:run-000003:0.8>", "<lora:run-000012:0.8>"},
        {"LoRA epoch", "1", "<lora:run-03>", "<lora:run-03-000001>"},
        {"LoRA epoch", "1", "<hypernet:run:1>", NULL},
        {"LoRA", "a:1", "x", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *prompt, *negative;
        sdlora_options *o;

        apply(cases[i].axis, cases[i].value, 0, cases[i].prompt, "", &prompt, &negative, &o);
        if (cases[i].want) {
            assert_non_null(prompt);
            assert_string_equal(prompt, cases[i].want);
        } else {
            assert_null(prompt);
        }
        sdlora_options_unref(o);
    }
}

static void every_axis_has_its_option(void **state)
{
    slr_grid_axis own;
    const slr_grid_axis *row;

    (void)state;
    for (size_t i = 0; (row = slr_grid_axis_at(i)) != NULL; i++) {
        assert_ptr_equal(slr_grid_axis_find(row->label, &own), row);
        assert_string_equal(sdlora_grid_axis_name(i), row->label);
        if (row->option && !slr_option_find("generate", row->option))
            fail_msg("'%s' wants the option %s", row->label, row->option);
    }
    assert_non_null(slr_grid_axis_find("width", &own));
    assert_int_equal(own.type, SLR_GRID_INT);
    assert_null(slr_grid_axis_find("CFG Skale", &own));
    assert_non_null(strstr(sdlora_last_error()->message, "CFG Scale"));
}

/* --- grids --- */

typedef struct setup {
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt;
    sdlora_generator *g;
    sdlora_options *opts;
} setup;

static int make_setup(void **state)
{
    static setup s;
    sdlora_options *o;

    ok(sdlora_options_new(&o, "context"));
    ok(sdlora_options_set_int(o, "threads", 1));
    ok(sdlora_context_new(&s.ctx, o, NULL));
    sdlora_options_unref(o);
    ok(sdlora_checkpoint_open(&s.ckpt, s.ctx, MODEL, NULL));
    ok(sdlora_generator_new(&s.g, s.ckpt, NULL));
    ok(sdlora_options_new(&s.opts, "generate"));
    ok(sdlora_options_set_text(s.opts, "prompt", "red apple"));
    ok(sdlora_options_set_int(s.opts, "width", 64));
    ok(sdlora_options_set_int(s.opts, "height", 64));
    ok(sdlora_options_set_int(s.opts, "steps", 2));
    ok(sdlora_options_set_int(s.opts, "seed", 5));
    *state = &s;
    return 0;
}

static int drop_setup(void **state)
{
    setup *s = *state;

    sdlora_options_unref(s->opts);
    sdlora_generator_unref(s->g);
    sdlora_checkpoint_unref(s->ckpt);
    sdlora_context_unref(s->ctx);
    return 0;
}

/* x, y and z as "type", "values" pairs; NULL ends them. */
static int grid_of(const setup *s, sdlora_grid **out, const char *const *axes)
{
    static const char *const names[] = {"x_type",   "x_values", "y_type",
                                        "y_values", "z_type",   "z_values"};
    sdlora_options *o;

    ok(sdlora_options_new(&o, "grid"));
    for (size_t i = 0; axes[i]; i++)
        ok(sdlora_options_set_text(o, names[i], axes[i]));
    int rc = sdlora_grid_new(out, s->g, o, s->opts);
    sdlora_options_unref(o);
    return rc;
}

static bool same(const sdlora_image *a, const sdlora_image *b)
{
    return sdlora_image_width(a) == sdlora_image_width(b) &&
           !memcmp(sdlora_image_data(a), sdlora_image_data(b),
                   (size_t)sdlora_image_width(a) * (size_t)sdlora_image_height(a) * 3);
}

static void cells_are_pictures_of_their_own_options(void **state)
{
    static const char *const axes[] = {"Seed",  "7-8", "Prompt S/R", "red apple, bird",
                                       "Steps", "1,3", NULL};
    const setup *s = *state;
    sdlora_grid *grid;
    sdlora_image *alone, *sheet;
    sdlora_options *o;

    ok(grid_of(s, &grid, axes));
    assert_int_equal(sdlora_grid_size(grid, 0), 2);
    assert_string_equal(sdlora_grid_label(grid, 0, 1), "Seed: 8");
    assert_string_equal(sdlora_grid_label(grid, 1, 1), "bird");
    assert_null(sdlora_grid_label(grid, 2, 2));
    assert_null(sdlora_grid_cell(grid, 0, 0, 0));
    assert_int_equal(sdlora_grid_sheet(&sheet, grid, -1), SDLORA_EINVAL);
    ok(sdlora_grid_run(grid, NULL, NULL));
    assert_int_equal(sdlora_grid_step(grid), SDLORA_DONE);
    ok(sdlora_options_new(&o, "generate"));
    ok(sdlora_options_set_text(o, "prompt", "bird"));
    ok(sdlora_options_set_int(o, "width", 64));
    ok(sdlora_options_set_int(o, "height", 64));
    ok(sdlora_options_set_int(o, "steps", 3));
    ok(sdlora_options_set_int(o, "seed", 8));
    ok(sdlora_generator_run(s->g, o, &alone, 1));
    assert_true(same(alone, sdlora_grid_cell(grid, 1, 1, 1)));
    assert_string_equal(sdlora_image_text(alone),
                        sdlora_image_text(sdlora_grid_cell(grid, 1, 1, 1)));
    assert_false(same(alone, sdlora_grid_cell(grid, 0, 1, 1)));
    assert_false(same(alone, sdlora_grid_cell(grid, 1, 0, 1)));
    assert_false(same(alone, sdlora_grid_cell(grid, 1, 1, 0)));
    sdlora_options_unref(o);
    sdlora_image_unref(alone);
    sdlora_grid_unref(grid);
}

static void sheets_tell_their_axes(void **state)
{
    static const char *const axes[] = {"Seed", "7, 8", "CFG Scale", "1-2", "Steps", "1,2", NULL};
    const setup *s = *state;
    sdlora_grid *grid;
    sdlora_image *one, *all;

    ok(grid_of(s, &grid, axes));
    ok(sdlora_grid_run(grid, NULL, NULL));
    ok(sdlora_grid_sheet(&one, grid, 1));
    ok(sdlora_grid_sheet(&all, grid, -1));
    assert_non_null(strstr(sdlora_image_text(one), "Steps: 2,"));
    assert_non_null(
        strstr(sdlora_image_text(one),
               ", Script: X/Y/Z plot, X Type: Seed, X Values: \"7, 8\", Fixed X Values: "
               "\"7, 8\", Y Type: CFG Scale, Y Values: 1-2, Version: "));
    assert_non_null(strstr(sdlora_image_text(all), "Steps: 1,"));
    assert_non_null(strstr(sdlora_image_text(all),
                           "Y Values: 1-2, Z Type: Steps, Z Values: \"1,2\", Version: "));
    assert_true(sdlora_image_width(all) > 2 * sdlora_image_width(one));
    sdlora_image_unref(one);
    assert_int_equal(sdlora_grid_sheet(&one, grid, 2), SDLORA_EINVAL);
    sdlora_image_unref(all);
    sdlora_grid_unref(grid);
}

static void a_picture_without_stands_beside_all_weights(void **state)
{
    static const char *const axes[] = {"LoRA", "a, None", "LoRA weight", "0, 1", NULL};
    setup *s = *state;
    sdlora_grid *grid;
    sdlora_generator *g;

    ok(sdlora_generator_new(&g, s->ckpt, NULL));
    ok(sdlora_generator_add_lora_dir(g, TEST_ROOT "/golden/tools"));
    setup with = *s;
    with.g = g;
    ok(grid_of(&with, &grid, axes));
    ok(sdlora_grid_run(grid, NULL, NULL));
    const sdlora_image *without = sdlora_grid_cell(grid, 1, 0, 0);
    assert_null(strstr(sdlora_image_text(without), "<lora"));
    assert_true(same(without, sdlora_grid_cell(grid, 1, 1, 0)));
    assert_true(same(without, sdlora_grid_cell(grid, 0, 0, 0))); /* strength 0 */
    assert_false(same(without, sdlora_grid_cell(grid, 0, 1, 0)));
    assert_non_null(
        strstr(sdlora_image_text(sdlora_grid_cell(grid, 0, 1, 0)), "red apple<lora:a:1.0>"));
    sdlora_grid_unref(grid);
    sdlora_generator_unref(g);
}

static void a_star_is_every_choice(void **state)
{
    static const char *const axes[] = {"RNG source", "*", "SGM noise multiplier", "*", "emphasis",
                                       "*",          NULL};
    static const char *const text[] = {"Prompt S/R", "*", NULL};
    setup *s = *state, starred = *s;
    sdlora_grid *grid;

    ok(grid_of(s, &grid, axes));
    assert_int_equal(sdlora_grid_size(grid, 0), 2);
    assert_string_equal(sdlora_grid_label(grid, 0, 1), "RNG source: NV");
    assert_int_equal(sdlora_grid_size(grid, 1), 2);
    assert_string_equal(sdlora_grid_label(grid, 1, 0), "SGM noise multiplier: False");
    assert_int_equal(sdlora_grid_size(grid, 2), 4);
    assert_string_equal(sdlora_grid_label(grid, 2, 1), "emphasis: No norm");
    sdlora_grid_unref(grid);
    ok(slr_options_copy(&starred.opts, s->opts));
    ok(sdlora_options_set_text(starred.opts, "prompt", "a * b")); /* a text where any may stand */
    ok(grid_of(&starred, &grid, text));
    assert_string_equal(sdlora_grid_label(grid, 0, 0), "*");
    sdlora_grid_unref(grid);
    sdlora_options_unref(starred.opts);
}

static void mistakes_are_told_before_anything_is_drawn(void **state)
{
    static const struct {
        const char *axes[5];
        int code;
        const char *word;
    } cases[] = {
        {{"Sead", "1"}, SDLORA_ENOTFOUND, "'Seed'"},
        {{"Seed", "one"}, SDLORA_EINVAL, "x_values"},
        {{"Seed", ""}, SDLORA_EINVAL, "x_values"},
        {{"Steps", "0"}, SDLORA_EINVAL, "steps"},
        {{"Prompt S/R", "green, red"}, SDLORA_EINVAL, "green"},
        {{"Sampler", "Euler, Oiler"}, 0, "Oiler"},
        {{"Seed", "1-2000", "Steps", "1-2000"}, SDLORA_EINVAL, "too large"},
        {{"width", "100000"}, SDLORA_EINVAL, "width"},
        {{"width", "64, 65"}, SDLORA_EINVAL, "65x64"},
    };
    const setup *s = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sdlora_grid *grid;
        int rc = grid_of(s, &grid, cases[i].axes);

        assert_true(rc < 0);
        assert_null(grid);
        if (cases[i].code)
            assert_int_equal(rc, cases[i].code);
        if (!strstr(sdlora_last_error()->message, cases[i].word))
            fail_msg("%zu: %s", i, sdlora_last_error()->message);
    }
}

static int give(sdlora_generator **out, const char *name, void *user)
{
    const setup *s = user;

    if (!strcmp(name, "gone"))
        return slr_fail(SDLORA_ENOTFOUND, __func__, "there is no %s", name);
    return sdlora_generator_new(out, s->ckpt, NULL);
}

/* Names of the last cell are looked for before the first one is drawn. */
static void what_cells_name_is_looked_for_first(void **state)
{
    static const struct {
        const char *axes[5];
        const char *word;
    } cases[] = {
        {{"VAE", "None, nobody.safetensors"}, "no VAE 'nobody.safetensors'"},
        {{"Styles", ", none such"}, "none such"},
        {{"LoRA", "None, nobody"}, "<lora:nobody>"},
        {{"hr_prompt", ", <lora:nobody:1>", "enable_hr", "true"}, "<lora:nobody>"},
        {{"Hires upscaler", "Latent, R-ESRGAN 4x+", "enable_hr", "true"}, "'R-ESRGAN 4x+'"},
        {{"Checkpoint name", "a, gone"}, "there is no gone"},
        {{"Refiner checkpoint", "None, gone"}, "'gone'"},
        {{"Hires checkpoint", "None, gone", "enable_hr", "true"}, "'gone'"},
    };
    setup *s = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sdlora_grid *grid;

        ok(grid_of(s, &grid, cases[i].axes));
        ok(sdlora_grid_set_models(grid, give, s));
        assert_int_equal(sdlora_grid_step(grid), SDLORA_ENOTFOUND);
        if (!strstr(sdlora_last_error()->message, cases[i].word))
            fail_msg("%zu: %s", i, sdlora_last_error()->message);
        assert_null(sdlora_grid_cell(grid, 0, 0, 0));
        sdlora_grid_unref(grid);
    }
}

typedef struct told {
    int n, stop_at;
    double done, total;
} told;

static int listen(const sdlora_progress *now, void *user)
{
    told *t = user;

    assert_true((double)now->phase_done >= t->done);
    t->done = (double)now->phase_done;
    t->total = (double)now->phase_total;
    return ++t->n == t->stop_at;
}

static void a_run_can_be_stopped_and_goes_on(void **state)
{
    static const char *const axes[] = {"Steps", "2-4", NULL};
    const setup *s = *state;
    told first = {.stop_at = 5}, second = {0};
    sdlora_grid *grid;
    sdlora_image *sheet;

    ok(grid_of(s, &grid, axes));
    assert_int_equal(sdlora_grid_run(grid, listen, &first), SDLORA_ECANCELED);
    assert_int_equal((int)first.total, 9);
    assert_non_null(sdlora_grid_cell(grid, 0, 0, 0));
    assert_null(sdlora_grid_cell(grid, 2, 0, 0));
    ok(sdlora_grid_sheet(&sheet, grid, -1)); /* with white places */
    sdlora_image_unref(sheet);
    ok(sdlora_grid_run(grid, listen, &second));
    assert_int_equal((int)second.done, 9);
    assert_non_null(sdlora_grid_cell(grid, 2, 0, 0));
    sdlora_grid_unref(grid);
}

static void models_come_from_the_caller(void **state)
{
    static const char *const axes[] = {"Checkpoint name", "dir/a.safetensors, b", "Seed", "1,2",
                                       NULL};
    static const char *const gone[] = {"Checkpoint name", "gone", NULL};
    setup *s = *state;
    sdlora_grid *grid;

    ok(grid_of(s, &grid, axes));
    assert_string_equal(sdlora_grid_label(grid, 0, 0), "a.safetensors");
    assert_int_equal(sdlora_grid_step(grid), SDLORA_EINVAL);
    ok(sdlora_grid_set_models(grid, give, s));
    ok(sdlora_grid_step(grid));
    ok(sdlora_grid_step(grid));
    assert_non_null(sdlora_grid_cell(grid, 0, 1, 0)); /* a model is changed last */
    assert_null(sdlora_grid_cell(grid, 1, 0, 0));
    ok(sdlora_grid_run(grid, NULL, NULL));
    assert_true(same(sdlora_grid_cell(grid, 0, 1, 0), sdlora_grid_cell(grid, 1, 1, 0)));
    sdlora_grid_unref(grid);
    ok(grid_of(s, &grid, gone));
    ok(sdlora_grid_set_models(grid, give, s));
    assert_int_equal(sdlora_grid_step(grid), SDLORA_ENOTFOUND);
    sdlora_grid_unref(grid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_the_scripts),
        cmocka_unit_test(lines_may_be_values),
        cmocka_unit_test(too_many_values_are_refused),
        cmocka_unit_test(labels_are_the_scripts),
        cmocka_unit_test(prompts_change_as_the_script_changes_them),
        cmocka_unit_test(orders_are_the_scripts),
        cmocka_unit_test(loras_change_in_the_first_tag),
        cmocka_unit_test(every_axis_has_its_option),
        cmocka_unit_test(cells_are_pictures_of_their_own_options),
        cmocka_unit_test(sheets_tell_their_axes),
        cmocka_unit_test(a_picture_without_stands_beside_all_weights),
        cmocka_unit_test(a_star_is_every_choice),
        cmocka_unit_test(mistakes_are_told_before_anything_is_drawn),
        cmocka_unit_test(what_cells_name_is_looked_for_first),
        cmocka_unit_test(a_run_can_be_stopped_and_goes_on),
        cmocka_unit_test(models_come_from_the_caller),
    };

    return cmocka_run_group_tests(tests, make_setup, drop_setup);
}
