/* SPDX-License-Identifier: MIT */
/* Handles as clients see them: NULL arguments become sentences, parents outlive children in any
 * order of unref, structs of another size are filled as far as both sides know them, hooks get all
 * memory back. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include <sdlora/sdlora.h>

#define MODEL TEST_ROOT "/../../examples/data/tinysd/tinysd.safetensors"

static void expect_error(int rc, int code, const char *word)
{
    assert_int_equal(rc, code);
    assert_int_equal(sdlora_last_error()->code, code);
    if (!strstr(sdlora_last_error()->message, word))
        fail_msg("'%s' is not in: %s", word, sdlora_last_error()->message);
}

static void null_arguments(void **state)
{
    sdlora_checkpoint *ckpt = (sdlora_checkpoint *)(uintptr_t)1;
    sdlora_context *ctx;
    sdlora_options *o, *none;
    size_t n;

    (void)state;
    expect_error(sdlora_context_new(NULL, NULL, NULL), SDLORA_EINVAL, "'out'");
    expect_error(sdlora_checkpoint_open(&ckpt, NULL, MODEL, NULL), SDLORA_EINVAL, "'ctx'");
    assert_null(ckpt);
    assert_int_equal(sdlora_context_new(&ctx, NULL, NULL), SDLORA_OK);
    assert_string_equal(sdlora_last_error()->message, "");
    expect_error(sdlora_checkpoint_open(&ckpt, ctx, NULL, NULL), SDLORA_EINVAL, "'path'");
    expect_error(sdlora_tokenize(ctx, NULL, NULL, 0, &n), SDLORA_EINVAL, "'text'");
    expect_error(sdlora_trainer_step(NULL, NULL), SDLORA_EINVAL, "'t'");
    expect_error(sdlora_generator_run(NULL, NULL, NULL, 0), SDLORA_EINVAL, "'g'");
    assert_int_equal(sdlora_options_new(&o, "train"), SDLORA_OK);
    expect_error(sdlora_checkpoint_open(&ckpt, ctx, MODEL, o), SDLORA_EINVAL, "'train'");
    expect_error(sdlora_options_new(&none, "trian"), SDLORA_ENOTFOUND, "trian");
    assert_null(none);
    sdlora_options_unref(o);
    sdlora_context_unref(ctx);
    sdlora_context_unref(NULL);
    sdlora_checkpoint_unref(NULL);
    sdlora_image_unref(NULL);
    assert_int_equal(sdlora_image_width(NULL), 0);
    assert_null(sdlora_checkpoint_family(NULL));
}

static void option_values(void **state)
{
    sdlora_options *o;
    const char *text;
    int64_t i;
    double r;

    (void)state;
    assert_int_equal(sdlora_options_new(&o, "train"), SDLORA_OK);
    assert_int_equal(sdlora_options_get_real(o, "unet_lr", &r), SDLORA_DONE);
    assert_int_equal(sdlora_options_set_text(o, "unet_lr", "1e-4"), SDLORA_OK);
    assert_int_equal(sdlora_options_get_real(o, "unet_lr", &r), SDLORA_OK);
    assert_true(r == 1e-4);
    expect_error(sdlora_options_get_int(o, "unet_lr", &i), SDLORA_EINVAL, "get_real");
    expect_error(sdlora_options_get_int(o, "output_name", &i), SDLORA_EINVAL, "get_text");
    expect_error(sdlora_options_get_text(o, "uent_lr", &text), SDLORA_ENOTFOUND, "unet_lr");
    assert_int_equal(sdlora_options_get_int(o, "max_train_steps", &i), SDLORA_OK);
    assert_int_equal(i, 1600);
    sdlora_options_unref(o);
}

/* A struct that is shorter or longer than the library's. */
static void struct_sizes(void **state)
{
    struct {
        sdlora_option_info info;
        uint64_t later[4];
    } longer;
    sdlora_option_info whole = {.struct_size = sizeof whole};

    (void)state;
    memset(&longer, 0xff, sizeof longer);
    longer.info.struct_size = sizeof longer;
    assert_int_equal(sdlora_option_at("train", 0, &longer.info), SDLORA_OK);
    assert_int_equal(longer.info.struct_size, sizeof longer);
    assert_int_equal(longer.later[3], 0);
    memset(&longer, 0xff, sizeof longer);
    longer.info.struct_size = offsetof(sdlora_option_info, help);
    assert_int_equal(sdlora_option_at("train", 0, &longer.info), SDLORA_OK);
    assert_string_equal(longer.info.kind, "train");
    assert_ptr_equal(longer.info.help, (void *)UINTPTR_MAX); /* not touched */
    whole.struct_size = 0;
    expect_error(sdlora_option_at("train", 0, &whole), SDLORA_EVERSION, "struct_size");
    whole.struct_size = sizeof whole;
    expect_error(sdlora_option_at("train", 100000, &whole), SDLORA_ENOTFOUND, "100000");
}

static struct {
    size_t blocks;
} hooks;

static void *hook_alloc(void *user, size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);

    (void)user;
    if (p)
        __atomic_add_fetch(&hooks.blocks, 1, __ATOMIC_RELAXED);
    return p;
}

static void *hook_realloc(void *user, void *ptr, size_t bytes)
{
    return ptr ? realloc(ptr, bytes) : hook_alloc(user, bytes);
}

static void hook_free(void *user, void *ptr)
{
    (void)user;
    if (ptr)
        __atomic_sub_fetch(&hooks.blocks, 1, __ATOMIC_RELAXED);
    free(ptr);
}

/* Opening a file again shares what the first opening holds; another file under the name does not.
 */
static void open_twice(void **state)
{
    const sdlora_allocator mine = {hook_alloc, hook_realloc, hook_free, NULL};
    sdlora_context *ctx;
    sdlora_checkpoint *first, *second;
    size_t before, cost;

    (void)state;
    assert_int_equal(sdlora_context_new(&ctx, NULL, &mine), SDLORA_OK);
    before = hooks.blocks;
    assert_int_equal(sdlora_checkpoint_open(&first, ctx, MODEL, NULL), SDLORA_OK);
    cost = hooks.blocks - before;
    before = hooks.blocks;
    assert_int_equal(sdlora_checkpoint_open(&second, ctx, MODEL, NULL), SDLORA_OK);
    assert_int_equal(hooks.blocks - before, 1); /* the handle alone */
    assert_true(cost > 10);
    sdlora_checkpoint_unref(first);
    assert_string_equal(sdlora_checkpoint_family(second), "sd1");

    sdlora_options *o;
    assert_int_equal(sdlora_options_new(&o, "checkpoint"), SDLORA_OK);
    assert_int_equal(sdlora_options_set_text(o, "prediction_type", "epsilon"), SDLORA_OK);
    before = hooks.blocks;
    assert_int_equal(sdlora_checkpoint_open(&first, ctx, MODEL, o), SDLORA_OK);
    assert_true(hooks.blocks - before > 10); /* asked for in another way */
    sdlora_options_unref(o);
    sdlora_checkpoint_unref(first);
    sdlora_checkpoint_unref(second);
    sdlora_context_unref(ctx);
    assert_int_equal(hooks.blocks, 0);
}

/* Parents are dropped first; the child keeps them, and the last unref gives everything back. */
static void free_order_of_unref(void **state)
{
    const sdlora_allocator mine = {hook_alloc, hook_realloc, hook_free, NULL};
    sdlora_allocator half = mine;
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt;
    sdlora_network *net;
    sdlora_generator *g;
    sdlora_options *o;
    sdlora_image *img[2] = {NULL, NULL};

    (void)state;
    half.free = NULL;
    expect_error(sdlora_context_new(&ctx, NULL, &half), SDLORA_EINVAL, "free");
    assert_int_equal(sdlora_context_new(&ctx, NULL, &mine), SDLORA_OK);
    assert_int_equal(sdlora_checkpoint_open(&ckpt, ctx, MODEL, NULL), SDLORA_OK);
    sdlora_context_unref(ctx);
    assert_string_equal(sdlora_checkpoint_family(ckpt), "sd1");
    assert_int_equal(sdlora_network_new(&net, ckpt, NULL, 1), SDLORA_OK);
    assert_int_equal(sdlora_generator_new(&g, ckpt, NULL), SDLORA_OK);
    sdlora_checkpoint_unref(ckpt);
    assert_int_equal(sdlora_generator_set_network(g, net, 1, 1), SDLORA_OK);
    sdlora_network_unref(net);
    assert_int_equal(sdlora_options_new(&o, "generate"), SDLORA_OK);
    sdlora_options_set_int(o, "width", 64);
    sdlora_options_set_int(o, "height", 64);
    sdlora_options_set_int(o, "steps", 1);
    sdlora_options_set_int(o, "seed", 7);
    sdlora_options_set_int(o, "count", 2);
    expect_error(sdlora_generator_run(g, o, img, 1), SDLORA_EINVAL, "room for 1");
    assert_int_equal(sdlora_generator_run(g, o, img, 2), SDLORA_OK);
    sdlora_generator_unref(g);
    sdlora_options_unref(o);
    assert_int_equal(sdlora_image_width(img[1]), 64);
    assert_non_null(strstr(sdlora_image_text(img[1]), "Seed: 8"));
    sdlora_image_unref(img[0]);
    assert_int_not_equal(hooks.blocks, 0);
    sdlora_image_unref(img[1]);
    assert_int_equal(hooks.blocks, 0);
}

/* Two pictures with captions under ./handles-data/1_ramp. */
static void make_pictures(sdlora_context *ctx)
{
    uint8_t rgb[64 * 64 * 3];
    sdlora_image *img;
    char path[64];

    mkdir("handles-data", 0777);
    mkdir("handles-data/1_ramp", 0777);
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < sizeof rgb; i++)
            rgb[i] = (uint8_t)(i / 3 % 64 * 4 + (size_t)k * 30);
        assert_int_equal(sdlora_image_new(&img, ctx, 64, 64, rgb), SDLORA_OK);
        snprintf(path, sizeof path, "handles-data/1_ramp/%d.png", k);
        assert_int_equal(sdlora_image_save(img, path), SDLORA_OK);
        sdlora_image_unref(img);
    }
}

/* A network that was just made changes nothing, so merging it gives the same loss to the bit. */
static void fresh_network_is_a_no_op(void **state)
{
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt, *merged;
    sdlora_dataset *data;
    sdlora_network *net;
    sdlora_options *o;
    const double one = 1;
    double plain, with;

    (void)state;
    assert_int_equal(sdlora_context_new(&ctx, NULL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_checkpoint_open(&ckpt, ctx, MODEL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_options_new(&o, "dataset"), SDLORA_OK);
    make_pictures(ctx);
    sdlora_options_set_text(o, "train_data_dir", "handles-none");
    expect_error(sdlora_dataset_open(&data, ctx, o), SDLORA_ENOTFOUND, "handles-none");
    sdlora_options_set_text(o, "train_data_dir", "handles-data");
    sdlora_options_set_text(o, "resolution", "64");
    assert_int_equal(sdlora_dataset_open(&data, ctx, o), SDLORA_OK);
    assert_int_equal(sdlora_network_new(&net, ckpt, NULL, 1), SDLORA_OK);
    assert_int_equal(sdlora_checkpoint_merge(&merged, ckpt, &net, &one, &one, 1), SDLORA_OK);
    assert_int_equal(
        sdlora_evaluate(ckpt, NULL, data, NULL, NULL, NULL, 0, NULL, NULL, NULL, &plain), 0);
    assert_int_equal(
        sdlora_evaluate(merged, NULL, data, NULL, NULL, NULL, 0, NULL, NULL, NULL, &with), 0);
    assert_int_equal(sdlora_dataset_images(data), 2);
    assert_true(plain > 0);
    assert_true(plain == with);
    sdlora_options_unref(o);
    sdlora_checkpoint_unref(merged);
    sdlora_network_unref(net);
    sdlora_dataset_unref(data);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
}

/* Cancels once, when the first file is written. */
static int cancel_saving(const sdlora_progress *now, void *user)
{
    int *left = user;

    return !strcmp(now->phase, "save") && now->phase_done == 1 && (*left)-- > 0;
}

/* The last step is applied, and its files are written at the second call. */
static void done_tells_of_the_last_step(void **state)
{
    sdlora_progress now = {.struct_size = sizeof now};
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt;
    sdlora_dataset *data;
    sdlora_network *net;
    sdlora_options *o, *train;
    sdlora_trainer *t;
    int left = 1;

    (void)state;
    assert_int_equal(sdlora_context_new(&ctx, NULL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_checkpoint_open(&ckpt, ctx, MODEL, NULL), SDLORA_OK);
    make_pictures(ctx);
    assert_int_equal(sdlora_options_new(&o, "dataset"), SDLORA_OK);
    sdlora_options_set_text(o, "train_data_dir", "handles-data");
    sdlora_options_set_text(o, "resolution", "64");
    assert_int_equal(sdlora_dataset_open(&data, ctx, o), SDLORA_OK);
    assert_int_equal(sdlora_network_new(&net, ckpt, NULL, 1), SDLORA_OK);
    assert_int_equal(sdlora_options_new(&train, "train"), SDLORA_OK);
    sdlora_options_set_text(train, "output_dir", "handles-out");
    sdlora_options_set_text(train, "max_train_steps", "1");
    assert_int_equal(
        sdlora_trainer_new(&t, ckpt, NULL, net, data, NULL, train, cancel_saving, &left), 0);
    expect_error(sdlora_trainer_step(t, &now), SDLORA_ECANCELED, "after step 1");
    assert_int_equal(now.step, 0);
    assert_int_equal(sdlora_trainer_step(t, &now), SDLORA_DONE);
    assert_int_equal(now.step, 1);
    assert_int_equal(now.total, 1);
    assert_true(now.loss > 0);
    assert_string_equal(now.phase, "train");
    sdlora_trainer_unref(t);
    sdlora_options_unref(train);
    sdlora_options_unref(o);
    sdlora_network_unref(net);
    sdlora_dataset_unref(data);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
}

/* Threads of this process; 0 where the system does not tell. */
static int count_threads(void)
{
    DIR *dir = opendir("/proc/self/task");
    const struct dirent *e;
    int n = 0;

    while (dir && (e = readdir(dir)) != NULL)
        n += e->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return n;
}

static void merge_with_threads(const char *threads)
{
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt, *merged;
    sdlora_network *net;
    sdlora_options *o;
    const double one = 1;

    assert_int_equal(sdlora_options_new(&o, "context"), SDLORA_OK);
    assert_int_equal(sdlora_options_set_text(o, "threads", threads), SDLORA_OK);
    assert_int_equal(sdlora_context_new(&ctx, o, NULL), SDLORA_OK);
    assert_int_equal(sdlora_checkpoint_open(&ckpt, ctx, MODEL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_network_new(&net, ckpt, NULL, 1), SDLORA_OK);
    assert_int_equal(sdlora_checkpoint_merge(&merged, ckpt, &net, &one, &one, 1), SDLORA_OK);
    sdlora_checkpoint_unref(merged);
    sdlora_network_unref(net);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
    sdlora_options_unref(o);
}

/* OpenMP starts threads when a team first needs them and keeps them, so this test comes first. */
static void merging_keeps_to_the_threads_of_its_context(void **state)
{
    const int before = count_threads();

    (void)state;
    if (!before)
        skip();
    merge_with_threads("1");
    assert_int_equal(count_threads(), before);
    merge_with_threads("3"); /* the tiny model's layers are cut into two pieces or more */
    assert_in_range(count_threads(), before + 1, before + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_keeps_to_the_threads_of_its_context),
        cmocka_unit_test(null_arguments),
        cmocka_unit_test(option_values),
        cmocka_unit_test(struct_sizes),
        cmocka_unit_test(open_twice),
        cmocka_unit_test(free_order_of_unref),
        cmocka_unit_test(fresh_network_is_a_no_op),
        cmocka_unit_test(done_tells_of_the_last_step),
    };

    return cmocka_run_group_tests_name("handles", tests, NULL, NULL);
}
