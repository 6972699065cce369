/* SPDX-License-Identifier: MIT */
/* lib/data/scan.c, dataset.c, dataset_json.c, intact.c: metadata as sd-scripts wrote it, counts,
 * and folders that were made to hurt. */
#include "data_test.h"

#include <unistd.h>

#include "data/augment.h"
#include "data/dataset_impl.h"

/* --- metadata --- */

static void tree_of_the_script(const char *root)
{
    json_t *all = golden_json("metadata.json");
    const char *top, *dir;
    json_t *dirs, *captions, *one;
    size_t i;
    json_object_foreach(json_object_get(all, "folders"), top, dirs)
    {
        json_object_foreach(dirs, dir, captions)
        {
            json_array_foreach(captions, i, one)
            {
                char path[256];
                snprintf(path, sizeof path, "%s/%s/%s/%zu.png", root, top, dir, i);
                put_picture(in_scratch(path), i % 2 ? 128 : 64, 64, (uint32_t)i);
                snprintf(path, sizeof path, "%s/%s/%s/%zu.txt", root, top, dir, i);
                if (json_is_string(one))
                    put_text(in_scratch(path), json_string_value(one));
            }
        }
    }
    json_decref(all);
}

static void check_run(const json_t *meta, const slr_dataset *d)
{
    char *text[] = {slr_dataset_tag_frequency(d, NULL), slr_dataset_dirs_json(d, NULL, false),
                    slr_dataset_dirs_json(d, NULL, true), slr_dataset_bucket_info(d, NULL)};
    static const char *const key[] = {"ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs",
                                      "ss_bucket_info"};
    const int64_t number[] = {slr_dataset_train_images(d), slr_dataset_reg_images(d),
                              slr_dataset_batches_per_epoch(d)};
    static const char *const count[] = {"ss_num_train_images", "ss_num_reg_images",
                                        "ss_num_batches_per_epoch"};
    for (int i = 0; i < 4; i++) {
        assert_string_equal(text[i], json_string_value(json_object_get(meta, key[i])));
        slr_free(NULL, text[i]);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(number[i], atoll(json_string_value(json_object_get(meta, count[i]))));
}

static void metadata_of_sd_scripts(void **state)
{
    json_t *all = golden_json("metadata.json"), *run;
    const char *dir, *reg;
    size_t i, seen = 0;
    tree_of_the_script("gold");
    dir = option_of("train_data_dir", in_scratch("gold/img"));
    reg = option_of("reg_data_dir", in_scratch("gold/reg"));
    json_array_foreach(json_object_get(all, "runs"), i, run)
    {
        const char *name = json_string_value(json_object_get(run, "name"));
        bool full = !strcmp(name, "full");
        const char *pairs[] = {dir,
                               "resolution=64",
                               "caption_extension=.txt",
                               "train_batch_size=2",
                               full ? reg : "random_crop=true",
                               full ? "enable_bucket=true" : NULL,
                               "min_bucket_reso=64",
                               "max_bucket_reso=128",
                               NULL};
        slr_dataset *d;
        if (!full && strcmp(name, "plain") != 0)
            continue;
        assert_ok(open_dataset(&d, pairs));
        check_run(json_object_get(run, "metadata"), d);
        slr_dataset_unref(d);
        seen++;
    }
    assert_int_equal(seen, 2);
    json_decref(all);
}

static void tags_beyond_ascii(void **state)
{
    slr_dataset *d;
    put_picture(in_scratch("uni/2_\xC3\x84\"x/a.png"), 64, 64, 1);
    put_text(in_scratch("uni/2_\xC3\x84\"x/a.txt"),
             "\xEF\xBB\xBF\xC3\x84PFEL, \xE7\x8C\xAB ,\xE3\x80\x80Red\xC2\xA0,\xC4\xB0\r\nsecond");
    const char *pairs[] = {option_of("train_data_dir", in_scratch("uni")), "resolution=64",
                           "caption_extension=txt", NULL};
    assert_ok(open_dataset(&d, pairs));
    char *text = slr_dataset_tag_frequency(d, NULL);
    assert_string_equal(text, "{\"2_\\u00c4\\\"x\": {\"\\u00e4pfel\": 1, \"\\u732b\": 1, "
                              "\"red\": 1, \"i\\u0307\": 1}}");
    slr_free(NULL, text);
    slr_dataset_unref(d);
}

/* --- counting --- */

static void many(const char *dir, int n, int32_t w, int32_t h, const char *prefix)
{
    for (int i = 0; i < n; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s%02d.png", dir, prefix, i);
        put_picture(in_scratch(path), w, h, (uint32_t)i);
    }
}

/* 20 pictures with 10 repeats in buckets of 120 and 80, batch 3: 40 + 27 batches. */
static void worked_example(void **state)
{
    slr_dataset *d;
    many("ex/10_dog", 12, 56, 72, "a");
    many("ex/10_dog", 8, 64, 64, "b");
    const char *pairs[] = {option_of("train_data_dir", in_scratch("ex")),
                           "resolution=64",
                           "enable_bucket=true",
                           "bucket_no_upscale=true",
                           "bucket_reso_steps=8",
                           "train_batch_size=3",
                           NULL};
    assert_ok(open_dataset(&d, pairs));
    assert_int_equal(slr_dataset_buckets(d), 2);
    assert_int_equal(slr_dataset_bucket(d, 0)->width, 56);
    assert_int_equal(slr_dataset_bucket(d, 0)->count, 120);
    assert_int_equal(slr_dataset_bucket(d, 1)->count, 80);
    assert_int_equal(slr_dataset_batches_per_epoch(d), 67);
    slr_dataset_unref(d);
}

static int64_t repeats_of(const slr_dataset *d, const char *name)
{
    for (size_t i = 0; i < slr_dataset_items(d); i++)
        if (strstr(slr_dataset_item(d, i)->path, name))
            return slr_dataset_item(d, i)->repeats;
    return 0;
}

static void regularisation_fills_up_to_training(void **state)
{
    slr_dataset *d;
    many("bal/img/10_x", 1, 64, 64, "t");
    many("bal/few/2_r", 3, 64, 64, "r");
    many("bal/lots/5_r", 5, 64, 64, "r");
    const char *pairs[] = {option_of("train_data_dir", in_scratch("bal/img")),
                           option_of("reg_data_dir", in_scratch("bal/few")), "resolution=64", NULL};
    assert_ok(open_dataset(&d, pairs)); /* 2+2+2, then one each in turn: 4, 3, 3 */
    assert_int_equal(repeats_of(d, "r00"), 4);
    assert_int_equal(repeats_of(d, "r01"), 3);
    assert_int_equal(repeats_of(d, "r02"), 3);
    assert_int_equal(slr_dataset_reg_images(d), 6);
    assert_int_equal(slr_dataset_batches_per_epoch(d), 20);
    slr_dataset_unref(d);
    pairs[1] = option_of("reg_data_dir", in_scratch("bal/lots"));
    assert_ok(open_dataset(&d, pairs)); /* 5 + 5 >= 10: three are left out */
    assert_int_equal(slr_dataset_items(d), 3);
    assert_int_equal(repeats_of(d, "r01"), 5);
    assert_int_equal(slr_dataset_subset(d, 1)->images, 5);
    assert_true(notes_say(d, "3 regularisation pictures are not used"));
    slr_dataset_unref(d);
}

static void fingerprint_follows_what_matters(void **state)
{
    slr_dataset *d;
    uint64_t h[5];
    many("fp/3_x", 2, 64, 64, "p");
    const char *pairs[] = {option_of("train_data_dir", in_scratch("fp")), "resolution=64",
                           "cache_info=false", NULL};
    for (int i = 0; i < 5; i++) {
        if (i == 1)
            pairs[2] = "cache_latents_to_disk=true";
        if (i == 2)
            pairs[2] = "flip_aug=true";
        if (i == 3)
            put_text(in_scratch("fp/3_x/p00.caption"), "new");
        if (i == 4)
            put_picture(in_scratch("fp/3_x/p01.png"), 64, 64, 9);
        assert_ok(open_dataset(&d, pairs));
        h[i] = slr_dataset_fingerprint(d, true);
        slr_dataset_unref(d);
    }
    assert_true(h[0] == h[1]);
    assert_true(h[1] != h[2] && h[2] != h[3] && h[3] != h[4]);
}

/* --- folders --- */

static void leaf_and_plain_folders(void **state)
{
    slr_dataset *d;
    many("lay/top/7_my cat", 2, 64, 64, "p");
    many("lay/top/notes", 1, 64, 64, "p");
    many("lay/plain", 2, 64, 64, "q");
    put_text(in_scratch("lay/plain/q00.txt"), "words");
    assert_int_equal(slr_dir_make(in_scratch("lay/empty/sub")), 0);
    const char *pairs[] = {option_of("train_data_dir", in_scratch("lay/top")), "resolution=64",
                           NULL, NULL};
    assert_ok(open_dataset(&d, pairs));
    assert_int_equal(d->n_subset, 1);
    assert_string_equal(slr_dataset_subset(d, 0)->class_tokens, "my cat");
    assert_string_equal(slr_dataset_item(d, 0)->caption, "my cat");
    assert_true(notes_say(d, "notes: its name is not REPEATS_name"));
    slr_dataset_unref(d);
    pairs[0] = option_of("train_data_dir", in_scratch("lay/top/7_my cat/"));
    assert_ok(open_dataset(&d, pairs));
    assert_int_equal(slr_dataset_train_images(d), 14);
    assert_true(notes_say(d, "give the directory above it"));
    slr_dataset_unref(d);
    pairs[0] = option_of("train_data_dir", in_scratch("lay/plain"));
    pairs[2] = "dataset_repeats=3";
    assert_ok(open_dataset(&d, pairs));
    assert_int_equal(slr_dataset_train_images(d), 6);
    assert_string_equal(slr_dataset_item(d, 0)->caption, "");
    assert_true(notes_say(d, "set caption_extension to .txt"));
    slr_dataset_unref(d);
    pairs[0] = option_of("train_data_dir", in_scratch("lay/empty"));
    assert_int_equal(open_dataset(&d, pairs), SDLORA_ENOTFOUND);
    assert_says("REPEATS_name");
    pairs[0] = option_of("train_data_dir", in_scratch("lay/none"));
    assert_int_equal(open_dataset(&d, pairs), SDLORA_ENOTFOUND);
    assert_says("train_data_dir");
    assert_null(d);
}

/* "<stem minus four parts>.caption" serves pictures that a face cropper named. */
static void captions_of_cropped_faces(void **state)
{
    slr_dataset *d;
    many("face/1_x", 1, 64, 64, "my_pic_100_20_30_");
    put_picture(in_scratch("face/1_x/my_pic_1_2_3_4.png"), 64, 64, 1);
    put_text(in_scratch("face/1_x/my_pic.caption"), "shared");
    put_text(in_scratch("face/1_x/my_pic_1_2_3_4.caption"), "own");
    const char *pairs[] = {option_of("train_data_dir", in_scratch("face")), "resolution=64", NULL};
    assert_ok(open_dataset(&d, pairs));
    assert_string_equal(slr_dataset_item(d, 0)->caption, "shared");
    assert_string_equal(slr_dataset_item(d, 1)->caption, "own");
    slr_dataset_unref(d);
}

static void traps(void **state)
{
    slr_dataset *d;
    void *png;
    size_t n;
    alarm(20); /* a FIFO that is opened carelessly waits for ever */
    put_picture(in_scratch("trap/1_x/good.PnG"), 64, 64, 1);
    assert_ok(slr_file_read(NULL, in_scratch("trap/1_x/good.PnG"), 1 << 20, &png, &n));
    put_file(in_scratch("trap/1_x/cut.png"), png, n - 20);
    put_file(in_scratch("trap/1_x/head.png"), png, 40);
    ((unsigned char *)png)[n / 2] ^= 1;
    put_file(in_scratch("trap/1_x/bent.png"), png, n);
    slr_free(NULL, png);
    put_text(in_scratch("trap/1_x/empty.jpg"), "");
    put_text(in_scratch("trap/1_x/text.webp"), "no picture at all");
    put_text(in_scratch("trap/1_x/old.bmp"), "BM");
    put_text(in_scratch("trap/1_x/thin.jxl"), "");
    assert_int_equal(mkfifo(in_scratch("trap/1_x/fifo.png"), 0600), 0);
    assert_int_equal(mkfifo(in_scratch("trap/1_x/good.caption"), 0600), 0);
    assert_int_equal(mkdir(in_scratch("trap/1_x/dir.png"), 0700), 0);
    assert_int_equal(symlink("loop.png", in_scratch("trap/1_x/loop.png")), 0);
    assert_int_equal(symlink("/dev/zero", in_scratch("trap/1_x/zero.png")), 0);
    assert_int_equal(symlink("..", in_scratch("trap/1_x/2_up")), 0);
    assert_int_equal(symlink(".", in_scratch("trap/5_self")), 0);
    assert_int_equal(mkfifo(in_scratch("trap/3_fifo"), 0600), 0);
    assert_int_equal(mkdir(in_scratch("trap/99999999999999999999_x"), 0700), 0);
    assert_int_equal(mkdir(in_scratch("trap/0_x"), 0700), 0);
    assert_int_equal(mkdir(in_scratch("trap/4_\xFF"), 0700), 0);
    const char *pairs[] = {option_of("train_data_dir", in_scratch("trap")), "resolution=64", NULL};
    assert_ok(open_dataset(&d, pairs));
    assert_int_equal(slr_dataset_items(d), 1);
    static const char *const told[] = {"cut.png",  "head.png", "bent.png", "empty.jpg", "text.webp",
                                       "old.bmp",  "thin.jxl", "fifo.png", "dir.png",   "loop.png",
                                       "zero.png", "0_x",      "5_self"};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        if (!notes_say(d, told[i]))
            fail_msg("no note about %s", told[i]);
    slr_dataset_unref(d);
    alarm(0);
}

static void options_that_cannot_be(void **state)
{
    static const struct {
        const char *option, *says;
        int code;
    } row[] = {{"resolution=12,x", "resolution", SDLORA_EINVAL},
               {"resolution=1,2,3", "resolution", SDLORA_EINVAL},
               {"resolution=1000000", "resolution", SDLORA_EINVAL},
               {"background=mauve", "mauve", SDLORA_EINVAL},
               {"color_aug=true", "color_aug", SDLORA_ENOTSUP},
               {"face_crop_aug_range=1.0,2.0", "face_crop_aug_range", SDLORA_ENOTSUP},
               {"alpha_mask=true", "alpha_mask", SDLORA_ENOTSUP},
               {"reg_data_dir=/nowhere/at/all", "reg_data_dir", SDLORA_ENOTFOUND}};
    slr_dataset *d;
    many("opt/1_x", 1, 64, 64, "p");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        const char *pairs[] = {option_of("train_data_dir", in_scratch("opt")), row[i].option, NULL};
        assert_int_equal(open_dataset(&d, pairs), row[i].code);
        assert_says(row[i].says);
    }
    const char *both[] = {option_of("train_data_dir", in_scratch("opt")), "cache_latents=true",
                          "random_crop=true", NULL};
    assert_int_equal(open_dataset(&d, both), SDLORA_EINVAL);
    many("huge/999999999_x", 1, 64, 64, "p");
    const char *huge[] = {option_of("train_data_dir", in_scratch("huge")), NULL};
    assert_int_equal(open_dataset(&d, huge), SDLORA_EINVAL);
    assert_says("repeats");
    put_text(in_scratch("opt/1_x/p00.caption"), "caf\xE9");
    assert_int_equal(open_dataset(&d, (const char *[]){both[0], NULL}), SDLORA_EFORMAT);
    assert_says("p00.caption");
    put_file(in_scratch("opt/1_x/p00.caption"), "\xFF\xFE\x61\x00", 4);
    assert_int_equal(open_dataset(&d, (const char *[]){both[0], NULL}), SDLORA_EFORMAT);
    assert_says("UTF-16");
}

/* --- pixels --- */

static void transparency_and_crop(void **state)
{
    uint8_t rgba[2 * 2 * 4] = {10, 20, 30, 255, 10, 20, 30, 0, 200, 100, 0, 128, 9, 9, 9, 255};
    slr_pixels p = {2, 2, 4, rgba}, out;
    slr_picture_rule r;
    sdlora_options *o;
    float x[2 * 3];
    put_picture(in_scratch("px/1_x/a.png"), 8, 8, 1);
    assert_ok(slr_png_write(NULL, in_scratch("px/1_x/b.png"), &p, NULL));
    const char *pairs[] = {option_of("train_data_dir", in_scratch("px")), "resolution=8", NULL};
    slr_dataset *d;
    assert_ok(open_dataset(&d, pairs));
    slr_item item = *slr_dataset_item(d, 1);
    item.resized_w = item.resized_h = 2;
    static const char *const colour[] = {"background=white", "background=#010203",
                                         "background=none"};
    static const uint8_t want[][3] = {{255, 255, 255}, {1, 2, 3}, {10, 20, 30}};
    for (int i = 0; i < 3; i++) {
        o = dataset_options((const char *[]){colour[i], NULL});
        assert_ok(slr_picture_rule_new(&r, (slr_opt){o, "dataset"}));
        assert_ok(slr_picture_read(&r, NULL, &item, &out));
        assert_memory_equal(out.data, rgba, 3);
        assert_memory_equal(out.data + 3, want[i], 3);
        if (i == 0) /* (200*128 + 255*127 + 127) / 255 */
            assert_int_equal(out.data[6], 227);
        slr_picture_floats(&out, 0, 0, 2, 1, true, x);
        assert_true(x[3] == (10 / 255.0f - 0.5f) / 0.5f); /* mirrored: the left one is last */
        slr_free(NULL, out.data);
        slr_options_unref(o);
    }
    slr_dataset_unref(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_of_sd_scripts),
        cmocka_unit_test(tags_beyond_ascii),
        cmocka_unit_test(worked_example),
        cmocka_unit_test(regularisation_fills_up_to_training),
        cmocka_unit_test(fingerprint_follows_what_matters),
        cmocka_unit_test(leaf_and_plain_folders),
        cmocka_unit_test(captions_of_cropped_faces),
        cmocka_unit_test(traps),
        cmocka_unit_test(options_that_cannot_be),
        cmocka_unit_test(transparency_and_crop),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
