/* SPDX-License-Identifier: MIT */
/* Grids over models: the memory they take, and the order in which they are changed. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_model_is_packed_at_a_time),
        cmocka_unit_test(a_model_is_changed_less_often_than_its_refiner),
    };

    return cmocka_run_group_tests(tests, make_models, drop_models);
}
