/* SPDX-License-Identifier: MIT */
/* Grids over models and other files: the memory they take, the order in which they are changed,
 * those that "*" finds, and what their names mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sdlora/sdlora.h>

#define MODEL TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"

enum { MODELS = 3, PACKED = 8 << 20 }; /* PACKED: less than tinysd's packed weights */

static sdlora_context *ctx;
static sdlora_generator *gen;
static char dir[] = "grid-models-XXXXXX";

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static void run(const char *command)
{
    assert_int_equal(system(command), 0);
}

/* Files of their own: handles of one file share what is packed. */
static int make_models(void **state)
{
    sdlora_options *o;
    sdlora_checkpoint *ckpt;
    char command[1024];

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < MODELS; i++) {
        snprintf(command, sizeof command, "cp '%s' %s/m%d.safetensors", MODEL, dir, i);
        run(command);
    }
    ok(sdlora_options_new(&o, "context"));
    ok(sdlora_options_set_int(o, "threads", 1));
    ok(sdlora_context_new(&ctx, o, NULL));
    sdlora_options_unref(o);
    ok(sdlora_checkpoint_open(&ckpt, ctx, MODEL, NULL));
    ok(sdlora_generator_new(&gen, ckpt, NULL));
    sdlora_checkpoint_unref(ckpt);
    return 0;
}

static int drop_models(void **state)
{
    char command[64];

    (void)state;
    sdlora_generator_unref(gen);
    sdlora_context_unref(ctx);
    snprintf(command, sizeof command, "rm -r %s", dir);
    run(command);
    return 0;
}

static int give(sdlora_generator **out, const char *name, void *user)
{
    sdlora_checkpoint *ckpt;
    char path[64];

    (void)user;
    snprintf(path, sizeof path, "%s/%s.safetensors", dir, name);
    ok(sdlora_checkpoint_open(&ckpt, ctx, path, NULL));
    ok(sdlora_generator_new(out, ckpt, NULL));
    ok(sdlora_generator_add_ckpt_dir(*out, dir));
    sdlora_checkpoint_unref(ckpt);
    return 0;
}

/* A grid of one step a cell; x and z as "type", "values". */
static sdlora_grid *grid_of(const char *x, const char *xs, const char *z, const char *zs)
{
    sdlora_options *axes, *opts;
    sdlora_grid *grid;

    ok(sdlora_options_new(&axes, "grid"));
    ok(sdlora_options_set_text(axes, "x_type", x));
    ok(sdlora_options_set_text(axes, "x_values", xs));
    ok(sdlora_options_set_text(axes, "z_type", z));
    ok(sdlora_options_set_text(axes, "z_values", zs));
    ok(sdlora_options_new(&opts, "generate"));
    ok(sdlora_options_set_int(opts, "width", 64));
    ok(sdlora_options_set_int(opts, "height", 64));
    ok(sdlora_options_set_int(opts, "steps", 1));
    ok(sdlora_options_set_int(opts, "seed", 5));
    ok(sdlora_grid_new(&grid, gen, axes, opts));
    ok(sdlora_grid_set_models(grid, give, NULL));
    sdlora_options_unref(axes);
    sdlora_options_unref(opts);
    return grid;
}

static void one_model_is_packed_at_a_time(void **state)
{
    sdlora_grid *grid = grid_of("Checkpoint name", "m0, m1, m2", "Seed", "1, 2");

    (void)state;
    const uint64_t before = sdlora_context_memory_used(ctx);
    ok(sdlora_grid_step(grid));
    const uint64_t one = sdlora_context_memory_used(ctx);
    assert_true(one - before > PACKED);
    assert_int_equal(sdlora_grid_run(grid, NULL, NULL), SDLORA_OK);
    assert_true(sdlora_context_memory_used(ctx) < one + PACKED / 2);
    sdlora_grid_unref(grid);
}

/* A refiner belongs to its model's generator, and would be packed again with each model. */
static void a_model_is_changed_less_often_than_its_refiner(void **state)
{
    sdlora_grid *grid = grid_of("Checkpoint name", "m0, m1", "Refiner checkpoint", "None, m2");

    (void)state;
    ok(sdlora_grid_step(grid));
    ok(sdlora_grid_step(grid));
    assert_non_null(sdlora_grid_cell(grid, 0, 0, 1));
    assert_null(sdlora_grid_cell(grid, 1, 0, 0));
    sdlora_grid_unref(grid);
}

static void names_of_options_are_as_dear(void **state)
{
    sdlora_grid *grid = grid_of("refiner_checkpoint", "None, m2.safetensors", "Seed", "1, 2");

    (void)state;
    ok(sdlora_generator_add_ckpt_dir(gen, dir));
    ok(sdlora_grid_step(grid));
    ok(sdlora_grid_step(grid));
    assert_non_null(sdlora_grid_cell(grid, 0, 0, 1));
    assert_null(sdlora_grid_cell(grid, 1, 0, 0));
    sdlora_grid_unref(grid);
}

static char asked_for[64];

static int refuse(sdlora_generator **out, const char *name, void *user)
{
    (void)out;
    (void)user;
    snprintf(asked_for, sizeof asked_for, "%s", name);
    return SDLORA_ENOTFOUND;
}

/* What the caller is asked for. */
static void names_of_files_become_paths(void **state)
{
    static const char *const names[] = {"m1", "m1.safetensors", "m1 [0123456789]", "nobody"};

    (void)state;
    ok(sdlora_generator_add_ckpt_dir(gen, dir));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        sdlora_grid *grid = grid_of("Checkpoint name", names[i], "Nothing", "");
        char want[64];

        ok(sdlora_grid_set_models(grid, refuse, NULL));
        assert_int_equal(sdlora_grid_step(grid), SDLORA_ENOTFOUND);
        snprintf(want, sizeof want, "%s/m1.safetensors", dir);
        assert_string_equal(asked_for, i < 3 ? want : names[i]);
        sdlora_grid_unref(grid);
    }
}

static void touch(const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
}

/* What follows the label's "AXIS: " along x. */
static void check_star(const char *axis, const char *const *want, size_t n)
{
    sdlora_grid *grid = grid_of(axis, "*", "Nothing", "");

    assert_int_equal(sdlora_grid_size(grid, 0), n);
    for (size_t i = 0; i < n; i++) {
        const char *label = sdlora_grid_label(grid, 0, i);

        label += strncmp(label, axis, strlen(axis)) ? 0 : strlen(axis) + 2;
        assert_string_equal(label, want[i]);
    }
    sdlora_grid_unref(grid);
}

static void a_star_finds_files(void **state)
{
    static const char *const upscalers[] = {"Latent", "Latent (antialiased)", "Latent (bicubic)",
                                            "Latent (bicubic antialiased)", "Latent (nearest)",
                                            "Latent (nearest-exact)", "None", "Lanczos", "Nearest",
                                            /* files */
                                            "a \"4x\", sharp", "B", "m0", "m0.vae", "m1", "m2"};
    static const char *const models[] = {"None",           "a \"4x\", sharp.pth", "B.pth",
                                         "m0.safetensors", "m1.safetensors",      "m2.safetensors"};
    static const char *const vaes[] = {"Automatic", "None"};
    char path[64];

    (void)state;
    check_star("Hires upscaler", upscalers, 9);
    check_star("Checkpoint name", (const char *const[]){"*"}, 1);
    snprintf(path, sizeof path, "mkdir %s/deep", dir);
    run(path);
    touch("B.pth");
    touch("deep/B.pth");
    touch("deep/a \"4x\", sharp.pth");
    touch("m0.vae.pt");
    touch("notes.txt");
    ok(sdlora_generator_add_upscaler_dir(gen, dir));
    ok(sdlora_generator_add_ckpt_dir(gen, dir));
    check_star("Hires upscaler", upscalers, sizeof upscalers / sizeof *upscalers);
    check_star("hr_upscaler", upscalers, sizeof upscalers / sizeof *upscalers);
    check_star("Refiner checkpoint", models, sizeof models / sizeof *models);
    check_star("Hires checkpoint", models, sizeof models / sizeof *models);
    check_star("Checkpoint name", models + 1, sizeof models / sizeof *models - 1);
    check_star("VAE", vaes, 2);
}

/* What a handle says beats an option. */
static void axes_that_change_nothing_are_refused(void **state)
{
    static const struct {
        const char *axis, *why;
    } cases[] = {{"VAE", "with a VAE"},
                 {"sd_vae", "with a VAE"},
                 {"Refiner checkpoint", "a refiner"},
                 {"Hires checkpoint", "second passes"}};
    sdlora_generator *plain = gen;
    sdlora_checkpoint *ckpt;
    sdlora_vae *vae;

    (void)state;
    ok(sdlora_checkpoint_open(&ckpt, ctx, MODEL, NULL));
    ok(sdlora_vae_open(&vae, ctx, MODEL));
    ok(sdlora_generator_new(&gen, ckpt, vae));
    ok(sdlora_generator_set_refiner(gen, ckpt));
    ok(sdlora_generator_set_hr_checkpoint(gen, ckpt));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sdlora_grid *grid = grid_of(cases[i].axis, "None", "Nothing", "");

        assert_int_equal(sdlora_grid_step(grid), SDLORA_EINVAL);
        assert_non_null(strstr(sdlora_last_error()->message, cases[i].why));
        sdlora_grid_unref(grid);
    }
    sdlora_generator_unref(gen);
    gen = plain;
    sdlora_vae_unref(vae);
    sdlora_checkpoint_unref(ckpt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_model_is_packed_at_a_time),
        cmocka_unit_test(a_model_is_changed_less_often_than_its_refiner),
        cmocka_unit_test(a_star_finds_files),
        cmocka_unit_test(names_of_options_are_as_dear),
        cmocka_unit_test(names_of_files_become_paths),
        cmocka_unit_test(axes_that_change_nothing_are_refused),
    };

    return cmocka_run_group_tests(tests, make_models, drop_models);
}
