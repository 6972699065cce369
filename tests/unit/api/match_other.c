/* SPDX-License-Identifier: MIT */
/* Checkpoints besides the model: by handle, by option, and found for a picture's text by name and
 * by hash; what a text does not hold is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/generator.h"
#include "io/safetensors.h"

#define TINYSD TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"

enum { SIDE = 64 };

static sdlora_context *ctx;
static sdlora_checkpoint *ckpt;
static char dir[64];

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s", sdlora_last_error()->message);
}

static const char *in_dir(const char *name)
{
    static char path[4][128];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof *path, "%s/%s", dir, name);
    return p;
}

/* tinysd with one tensor moved. */
static void write_changed(const char *path, const char *name, float by)
{
    slr_safetensors *f;
    float *moved = NULL;
    ok(slr_safetensors_open(&f, NULL, TINYSD, true));
    size_t n = slr_safetensors_count(f);
    slr_st_entry *e = slr_calloc(NULL, n, sizeof *e);
    for (size_t i = 0; i < n; i++) {
        e[i].name = slr_safetensors_at(f, i, &e[i].t);
        if (strcmp(e[i].name, name) != 0)
            continue;
        size_t count = (size_t)slr_tensor_count(&e[i].t);
        moved = slr_alloc(NULL, count * sizeof *moved);
        ok(slr_tensor_to_f32(&e[i].t, moved));
        for (size_t k = 0; k < count; k++)
            moved[k] += by;
        e[i].t.dtype = SDLORA_F32;
        e[i].t.data = moved;
    }
    assert_non_null(moved);
    ok(slr_safetensors_write(NULL, path, e, n, NULL, 0));
    slr_free(NULL, moved);
    slr_free(NULL, e);
    slr_safetensors_close(f);
}

static void copy(const char *from, const char *to)
{
    char command[512];
    snprintf(command, sizeof command, "cp '%s' '%s'", from, to);
    assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/sdlora-other-XXXXXX");
    assert_non_null(mkdtemp(dir));
    mkdir(in_dir("a"), 0700);
    mkdir(in_dir("b"), 0700);
    mkdir(in_dir("vae"), 0700);
    write_changed(in_dir("a/other.safetensors"), "model.diffusion_model.out.2.bias", 0.05f);
    copy(in_dir("a/other.safetensors"), in_dir("b/renamed.safetensors"));
    write_changed(in_dir("vae/other.vae.safetensors"), "first_stage_model.decoder.conv_out.bias",
                  0.25f);
    ok(sdlora_context_new(&ctx, NULL, NULL));
    ok(sdlora_checkpoint_open(&ckpt, ctx, TINYSD, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    return system(command);
}

/* --- runs --- */

static sdlora_generator *generator(const char *models)
{
    sdlora_generator *g;
    ok(sdlora_generator_new(&g, ckpt, NULL));
    if (models)
        ok(sdlora_generator_add_ckpt_dir(g, in_dir(models)));
    return g;
}

static sdlora_options *options(const char *name, const char *value)
{
    sdlora_options *o;
    ok(sdlora_options_new(&o, "generate"));
    ok(sdlora_options_set_text(o, "prompt", "red apple"));
    ok(sdlora_options_set_int(o, "width", SIDE));
    ok(sdlora_options_set_int(o, "height", SIDE));
    ok(sdlora_options_set_int(o, "steps", 3));
    ok(sdlora_options_set_int(o, "seed", 7));
    ok(sdlora_options_set_text(o, "enable_hr", "true"));
    ok(sdlora_options_set_text(o, "hr_scale", "1"));
    ok(sdlora_options_set_text(o, "refiner_switch_at", "0.1"));
    if (name)
        ok(sdlora_options_set_text(o, name, value));
    return o;
}

static sdlora_image *draw(sdlora_generator *g, sdlora_options *o)
{
    sdlora_image *img;
    ok(sdlora_generator_run(g, o, &img, 1));
    return img;
}

static bool same_pixels(const sdlora_image *a, const sdlora_image *b)
{
    return !memcmp(sdlora_image_data(a), sdlora_image_data(b), (size_t)SIDE * SIDE * 3);
}

static sdlora_options *from_text(const char *text)
{
    sdlora_options *o;
    char *notes;
    ok(sdlora_options_new(&o, "generate"));
    ok(sdlora_options_from_infotext(o, ctx, text, &notes));
    assert_string_equal(notes, "");
    sdlora_text_free(ctx, notes);
    return o;
}

static void check_notes(sdlora_generator *g, sdlora_options *o, const char *text, const char *want)
{
    char *notes;
    ok(sdlora_generator_match(g, o, text, &notes));
    if (want ? !strstr(notes, want) : *notes)
        fail_msg("notes are \"%s\", wanted \"%s\"", notes, want ? want : "");
    sdlora_text_free(ctx, notes);
}

/* --- by handle and by option --- */

static const char *const roles[2][2] = {{"hr_checkpoint_name", "Hires checkpoint: other ["},
                                        {"refiner_checkpoint", "Refiner: other ["}};

/* A handle, a path, a name and a title are the same picture, which is not the one without. */
static void named_in_every_way(void **state)
{
    (void)state;
    for (int role = 0; role < 2; role++) {
        sdlora_generator *g = generator("a");
        sdlora_options *o = options(NULL, NULL);
        sdlora_checkpoint *other;
        const char *const names[] = {in_dir("a/other.safetensors"), "other", "other.safetensors",
                                     "other [0123456789]"};
        ok(sdlora_checkpoint_open(&other, ctx, in_dir("a/other.safetensors"), NULL));
        sdlora_image *without = draw(g, o);
        ok(role ? sdlora_generator_set_refiner(g, other)
                : sdlora_generator_set_hr_checkpoint(g, other));
        sdlora_image *with = draw(g, o);
        assert_false(same_pixels(with, without));
        assert_non_null(strstr(sdlora_image_text(with), roles[role][1]));
        ok(role ? sdlora_generator_set_refiner(g, NULL)
                : sdlora_generator_set_hr_checkpoint(g, NULL));
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            ok(sdlora_options_set_text(o, roles[role][0], names[i]));
            sdlora_image *again = draw(g, o);
            assert_string_equal(sdlora_image_text(again), sdlora_image_text(with));
            assert_true(same_pixels(again, with));
            sdlora_image_unref(again);
        }
        ok(sdlora_options_set_text(o, roles[role][0], "nobody"));
        sdlora_image *none;
        assert_int_equal(sdlora_generator_run(g, o, &none, 1), SDLORA_ENOTFOUND);
        assert_non_null(strstr(sdlora_last_error()->message, "model 'nobody'"));
        ok(sdlora_options_set_text(o, roles[role][0], ""));
        sdlora_image *last = draw(g, o);
        assert_true(same_pixels(last, without));
        sdlora_image_unref(last);
        sdlora_image_unref(with);
        sdlora_image_unref(without);
        sdlora_checkpoint_unref(other);
        sdlora_options_unref(o);
        sdlora_generator_unref(g);
    }
}

/* Automatic looks for the VAE of each checkpoint. */
static void with_a_vae_of_its_own(void **state)
{
    (void)state;
    sdlora_generator *g = generator("a");
    sdlora_options *o = options("hr_checkpoint_name", "other");
    sdlora_image *first = draw(g, o);
    ok(sdlora_generator_add_vae_dir(g, in_dir("vae")));
    sdlora_image *second = draw(g, o);
    assert_false(same_pixels(first, second));
    assert_null(strstr(sdlora_image_text(second), "VAE"));
    ok(sdlora_options_set_text(o, "sd_vae", "None"));
    sdlora_image *third = draw(g, o);
    assert_true(same_pixels(first, third));
    sdlora_image_unref(first);
    sdlora_image_unref(second);
    sdlora_image_unref(third);
    sdlora_options_unref(o);
    sdlora_generator_unref(g);
}

/* One that the option names is opened once for all. */
static void with_one_vae_for_all(void **state)
{
    (void)state;
    sdlora_generator *g = generator("a");
    sdlora_options *o = options("hr_checkpoint_name", "other");
    const char *path;
    slr_weights *vae[SLR_ROLES];
    ok(sdlora_generator_add_vae_dir(g, in_dir("vae")));
    ok(sdlora_options_set_text(o, "refiner_checkpoint", in_dir("b/renamed.safetensors")));
    ok(sdlora_options_set_text(o, "sd_vae", "other.vae"));
    for (int k = 0; k < 2; k++) {
        sdlora_image *image = draw(g, o);
        for (int role = 0; role < SLR_ROLES; role++)
            vae[role] = slr_generator_vae(g->gen, role, &path);
        assert_non_null(strstr(path, k ? "./vae/other.vae.safetensors" : "/vae/other.vae"));
        assert_ptr_equal(vae[SLR_ROLE_REFINER], vae[SLR_ROLE_BASE]);
        assert_ptr_equal(vae[SLR_ROLE_SECOND], vae[SLR_ROLE_BASE]);
        sdlora_image_unref(image);
        ok(sdlora_options_set_text(o, "sd_vae", in_dir("./vae/other.vae.safetensors")));
    }
    ok(sdlora_options_set_text(o, "sd_vae", "None"));
    sdlora_image_unref(draw(g, o));
    for (int role = 0; role < SLR_ROLES; role++) {
        assert_ptr_not_equal(slr_generator_vae(g->gen, role, &path), vae[role]);
        assert_null(path);
    }
    sdlora_options_unref(o);
    sdlora_generator_unref(g);
}

/* One file by several names and options: spellings of a path are one model, and none of them
 * refines itself. */
static void one_file_in_every_way(void **state)
{
    (void)state;
    sdlora_checkpoint *first, *other;
    sdlora_options *ema;
    ok(sdlora_options_new(&ema, "checkpoint"));
    ok(sdlora_options_set_text(ema, "use_ema", "true"));
    assert_int_equal(symlink(in_dir("a/other.safetensors"), in_dir("vae/link.safetensors")), 0);
    const struct {
        const char *path;
        const sdlora_options *options;
        bool shared;
    } ways[] = {{in_dir("./a/../a/other.safetensors"), NULL, true},
                {in_dir("vae/link.safetensors"), NULL, false},
                {in_dir("a/other.safetensors"), ema, false}};
    ok(sdlora_checkpoint_open(&first, ctx, in_dir("a/other.safetensors"), NULL));
    sdlora_generator *g;
    sdlora_options *o = options(NULL, NULL);
    ok(sdlora_options_set_text(o, "enable_hr", "false"));
    ok(sdlora_generator_new(&g, first, NULL));
    sdlora_image *alone = draw(g, o);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        ok(sdlora_checkpoint_open(&other, ctx, ways[i].path, ways[i].options));
        assert_int_equal(other->base == first->base, ways[i].shared);
        ok(sdlora_generator_set_refiner(g, other));
        sdlora_image *again = draw(g, o);
        assert_string_equal(sdlora_image_text(again), sdlora_image_text(alone));
        sdlora_image_unref(again);
        sdlora_checkpoint_unref(other);
    }
    sdlora_image_unref(alone);
    sdlora_options_unref(o);
    sdlora_options_unref(ema);
    sdlora_generator_unref(g);
    sdlora_checkpoint_unref(first);
    assert_int_equal(unlink(in_dir("vae/link.safetensors")), 0);
}

/* The option's file is opened as the model was, if it is the model's. */
static void the_model_by_name(void **state)
{
    (void)state;
    sdlora_checkpoint *v;
    sdlora_options *taken;
    sdlora_generator *g;
    ok(sdlora_options_new(&taken, "checkpoint"));
    ok(sdlora_options_set_text(taken, "prediction_type", "v"));
    ok(sdlora_checkpoint_open(&v, ctx, in_dir("a/other.safetensors"), taken));
    ok(sdlora_generator_new(&g, v, NULL));
    ok(sdlora_generator_add_ckpt_dir(g, in_dir("a")));
    sdlora_options *o = options(NULL, NULL);
    sdlora_image *alone = draw(g, o);
    ok(sdlora_options_set_text(o, "refiner_checkpoint", "other"));
    ok(sdlora_options_set_text(o, "hr_checkpoint_name", "other"));
    sdlora_image *named = draw(g, o);
    assert_true(same_pixels(named, alone));
    assert_non_null(strstr(sdlora_image_text(named), "Hires checkpoint: other ["));
    assert_null(strstr(sdlora_image_text(named), "Refiner"));
    sdlora_image_unref(named);
    sdlora_image_unref(alone);
    sdlora_options_unref(o);
    sdlora_options_unref(taken);
    sdlora_generator_unref(g);
    sdlora_checkpoint_unref(v);
}

/* --- from a text --- */

static void found_for_a_text(void **state)
{
    (void)state;
    char note[128];
    for (int role = 0; role < 2; role++) {
        sdlora_generator *here = generator("a"), *there = generator("b"), *none = generator(NULL);
        sdlora_options *o = options(roles[role][0], "other");
        sdlora_image *first = draw(here, o);
        const char *text = sdlora_image_text(first);

        sdlora_options *again = from_text(text);
        check_notes(here, again, text, NULL);
        sdlora_image *second = draw(here, again);
        assert_string_equal(sdlora_image_text(second), text);
        assert_true(same_pixels(first, second));
        sdlora_image_unref(second);
        sdlora_options_unref(again);

        again = from_text(text);
        snprintf(note, sizeof note, "is %s here", in_dir("b/renamed.safetensors"));
        check_notes(there, again, text, note);
        second = draw(there, again);
        assert_true(same_pixels(first, second));
        sdlora_image_unref(second);
        sdlora_options_unref(again);

        again = from_text(text);
        check_notes(none, again, text, "is not in the directories of models: ");
        sdlora_options_unref(again);
        sdlora_image_unref(first);
        sdlora_options_unref(o);
        sdlora_generator_unref(here);
        sdlora_generator_unref(there);
        sdlora_generator_unref(none);
    }
}

/* The file that has the name is taken, whatever its hash, unless another has the hash. */
static void of_another_hash(void **state)
{
    (void)state;
    static const char *const titles[] = {"Refiner: other [0123456789]",
                                         "Refiner: a\\other.safetensors [0123456789]",
                                         "Hires checkpoint: other.safetensors [0123456789]",
                                         "Hires checkpoint: a/other [0123456789]"};
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++) {
        char text[256];
        const char *name;
        int role = i < 2;
        sdlora_generator *g = generator(i % 2 ? "" : "a");
        snprintf(text, sizeof text,
                 "p\nSteps: 3, Seed: 7, Hires upscale: 1, Denoising strength: 0.5, %s, "
                 "Refiner switch at: 0.1",
                 titles[i]);
        sdlora_options *o = from_text(text);
        check_notes(g, o, text, "a/other.safetensors is another file than the picture's ");
        ok(sdlora_options_get_text(o, roles[role][0], &name));
        assert_non_null(strstr(name, "/a/other.safetensors"));
        sdlora_options_unref(o);
        sdlora_generator_unref(g);
    }
}

/* The model itself makes the second pass: its file is in no directory. */
static void the_model_itself(void **state)
{
    (void)state;
    static const char *const names[] = {"tinysd", "tinysd.safetensors", "sub/tinysd.safetensors"};
    sdlora_generator *g = generator(NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[256];
        const char *name;
        snprintf(text, sizeof text,
                 "p\nSteps: 3, Seed: 7, Hires upscale: 1, Denoising strength: 0.5, "
                 "Hires checkpoint: %s [48dc8ae778]",
                 names[i]);
        sdlora_options *o = from_text(text);
        check_notes(g, o, text, NULL);
        ok(sdlora_options_get_text(o, "hr_checkpoint_name", &name));
        assert_string_equal(name, TINYSD);
        sdlora_options_unref(o);
    }
    sdlora_generator_unref(g);
}

/* A text may say what it likes: only the directories are looked at. */
static void a_text_names_no_path(void **state)
{
    (void)state;
    const char *const paths[] = {in_dir("a/other.safetensors"), "/etc/passwd", dir};
    const char *const fields[2][2] = {{"Refiner", "refiner_checkpoint"},
                                      {"Hires upscale: 1, Hires checkpoint", "hr_checkpoint_name"}};
    sdlora_generator *g = generator("b");
    for (size_t i = 0; i < 6; i++) {
        char text[256];
        const char *name;
        snprintf(text, sizeof text, "p\nSteps: 3, Seed: 7, %s: %s, Denoising strength: 0.5",
                 fields[i % 2][0], paths[i / 2]);
        sdlora_options *o = from_text(text);
        check_notes(g, o, text, "is not in the directories of models: ");
        ok(sdlora_options_get_text(o, fields[i % 2][1], &name));
        assert_string_equal(name ? name : "", "");
        sdlora_options_unref(o);
    }
    sdlora_generator_unref(g);
}

static void what_it_was_made_of_is_told(void **state)
{
    (void)state;
    static uint8_t grey[SIDE * SIDE * 3];
    static const struct {
        const char *items;
        bool init, mask;
        const char *note;
    } cases[] = {
        {"Denoising strength: 0.5", false, false, "made of another one (img2img)"},
        {"Denoising strength: 0.5", true, false, NULL},
        {"Denoising strength: 0.5, Mask blur: 4", true, false, "made with a mask"},
        {"Denoising strength: 0.5, Mask blur: 4", true, true, NULL},
        {"Denoising strength: 0.5, Hires upscale: 2", false, false, NULL},
        {"Denoising strength: 0.5, Hires upscale: 2", true, false, "hires fix is left out"},
        {"Noise multiplier: 0.9", false, false, "made of another one (img2img)"},
        {"CFG scale: 7", false, false, NULL},
    };
    sdlora_image *image;
    ok(sdlora_image_new(&image, ctx, SIDE, SIDE, grey));
    sdlora_generator *g = generator(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        snprintf(text, sizeof text, "p\nSteps: 4, Seed: 1, %s", cases[i].items);
        sdlora_options *o = from_text(text);
        ok(sdlora_generator_set_init_image(g, cases[i].init ? image : NULL));
        ok(sdlora_generator_set_mask(g, cases[i].mask ? image : NULL));
        check_notes(g, o, text, cases[i].note);
        sdlora_options_unref(o);
    }
    sdlora_image_unref(image);
    sdlora_generator_unref(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_in_every_way),   cmocka_unit_test(with_a_vae_of_its_own),
        cmocka_unit_test(with_one_vae_for_all), cmocka_unit_test(one_file_in_every_way),
        cmocka_unit_test(the_model_by_name),    cmocka_unit_test(found_for_a_text),
        cmocka_unit_test(of_another_hash),      cmocka_unit_test(the_model_itself),
        cmocka_unit_test(a_text_names_no_path), cmocka_unit_test(what_it_was_made_of_is_told)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
