/* SPDX-License-Identifier: MIT */
/* Pictures as callers have them: texts from files of every kind, kept and replaced; transparency
 * and orientation for the rooms below; saving by ending; and what `info` tells of a picture. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"

#include <sdlora/sdlora.h>

#define FILES TEST_ROOT "/golden/infotext/"

static sdlora_context *ctx;
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

static sdlora_image *opened(const char *path)
{
    sdlora_image *img;
    ok(sdlora_image_open(&img, ctx, path));
    return img;
}

/* --- texts --- */

static void texts_come_along(void **state)
{
    (void)state;
    static const char *const names[] = {"a1111.png",  "a1111.jpg",   "a1111.webp",
                                        "packed.png", "novelai.png", "little.jpg"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char path[512], *text;
        snprintf(path, sizeof path, FILES "%s", names[k]);
        sdlora_image *img = opened(path);
        assert_non_null(strstr(sdlora_image_text(img), "\nSteps: "));
        ok(sdlora_image_read_text(ctx, path, &text));
        assert_string_equal(text, sdlora_image_text(img));
        sdlora_text_free(ctx, text);
        sdlora_image_unref(img);
    }
    sdlora_image *bare = opened(FILES "bare.jpg");
    char *text;
    assert_string_equal(sdlora_image_text(bare), "");
    sdlora_image_unref(bare);
    assert_int_equal(sdlora_image_read_text(ctx, FILES "bare.jpg", &text), SDLORA_ENOTFOUND);
    assert_null(text);
}

static void text_files_are_texts(void **state)
{
    (void)state;
    char *text;
    FILE *f = fopen(in_dir("a.txt"), "w");
    fputs("prompt\nSteps: 1, Seed: 2, Size: 64x64\n", f);
    fclose(f);
    ok(sdlora_image_read_text(ctx, in_dir("a.txt"), &text));
    assert_string_equal(text, "prompt\nSteps: 1, Seed: 2, Size: 64x64\n");
    sdlora_text_free(ctx, text);
    f = fopen(in_dir("b.txt"), "w");
    fputs("\xff", f);
    fclose(f);
    assert_int_equal(sdlora_image_read_text(ctx, in_dir("b.txt"), &text), SDLORA_EFORMAT);
}

/* What a PNG brought goes into the PNG that is made of it; the parameters can be others. */
static void further_texts_are_kept(void **state)
{
    (void)state;
    sdlora_image *img = opened(FILES "a1111-extras.png"), *other, *again;
    assert_string_equal(sdlora_image_keyword(img, 0), "postprocessing");
    assert_string_equal(sdlora_image_keyword_text(img, "postprocessing"),
                        "Postprocess upscale by: 4");
    assert_null(sdlora_image_keyword(img, 3));
    assert_null(sdlora_image_keyword_text(img, "parameters"));
    ok(sdlora_image_with_text(&other, img, "other \xe7\x8c\xab"));
    assert_string_equal(sdlora_image_text(other), "other \xe7\x8c\xab");
    ok(sdlora_image_save(other, in_dir("o.png")));
    again = opened(in_dir("o.png"));
    assert_string_equal(sdlora_image_text(again), "other \xe7\x8c\xab");
    assert_string_equal(sdlora_image_keyword_text(again, "workflow"),
                        sdlora_image_keyword_text(img, "workflow"));
    assert_memory_equal(sdlora_image_data(again), sdlora_image_data(img), 8 * 8 * 3);
    sdlora_image_unref(again);
    sdlora_image_unref(other);
    ok(sdlora_image_with_text(&other, img, NULL));
    assert_string_equal(sdlora_image_text(other), "");
    sdlora_image_unref(other);
    assert_int_equal(sdlora_image_with_text(&other, img, "\xff"), SDLORA_EINVAL);
    sdlora_image_unref(img);
}

static void saved_by_ending(void **state)
{
    (void)state;
    static const char *const names[] = {"s.png", "s.jpg", "s.webp"};
    sdlora_image *img = opened(FILES "a1111-wide.png");
    for (size_t k = 0; k < 3; k++) {
        ok(sdlora_image_save_as(img, in_dir(names[k]), SDLORA_QUALITY_LOSSLESS));
        sdlora_image *again = opened(in_dir(names[k]));
        assert_string_equal(sdlora_image_text(again), sdlora_image_text(img));
        if (k != 1)
            assert_memory_equal(sdlora_image_data(again), sdlora_image_data(img), 8 * 8 * 3);
        sdlora_image_unref(again);
    }
    assert_int_equal(sdlora_image_save(img, in_dir("s.gif")), SDLORA_EINVAL);
    assert_int_equal(sdlora_image_save_as(img, in_dir("s.jpg"), 102), SDLORA_EINVAL);
    assert_int_equal(sdlora_image_save_as(img, in_dir("s.jpg"), -1), SDLORA_EINVAL);
    sdlora_image_unref(img);
}

/* --- for the rooms below --- */

static void transparency_is_apart(void **state)
{
    (void)state;
    slr_pixels p = {2, 2, 4, (uint8_t[]){1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
    static const uint8_t rgb[] = {1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15},
                         alpha[] = {4, 8, 12, 16};
    ok(slr_png_write(NULL, in_dir("t.png"), &p, NULL));
    sdlora_image *img = opened(in_dir("t.png")), *copy;
    assert_int_equal(img->pixels.channels, 3);
    assert_memory_equal(sdlora_image_data(img), rgb, sizeof rgb);
    assert_memory_equal(img->alpha, alpha, sizeof alpha);
    ok(sdlora_image_with_text(&copy, img, "x"));
    assert_memory_equal(copy->alpha, alpha, sizeof alpha);
    sdlora_image_unref(copy);
    sdlora_image_unref(img);
    img = opened(FILES "a1111.png");
    assert_null(img->alpha);
    assert_int_equal(img->orientation, 1);
    sdlora_image_unref(img);
}

static void info_tells_of_pictures(void **state)
{
    (void)state;
    char *json;
    ok(sdlora_file_info(ctx, FILES "a1111.webp", 0, &json));
    assert_non_null(strstr(json, "\"kind\": \"picture\""));
    assert_non_null(strstr(json, "\"container\": \"webp\""));
    assert_non_null(strstr(json, "\"Sampler\": \"Euler a\""));
    sdlora_text_free(ctx, json);
    /* what is neither model nor picture is told what it is not, as before */
    assert_int_equal(sdlora_file_info(ctx, FILES "expected.json", 0, &json), SDLORA_EFORMAT);
    assert_null(strstr(sdlora_last_error()->message, "picture"));
}

static int make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sdlora-pictures-XXXXXX");
    return mkdtemp(dir) && sdlora_context_new(&ctx, NULL, NULL) >= 0 ? 0 : -1;
}

static int clean(void **state)
{
    char command[128];
    (void)state;
    sdlora_context_unref(ctx);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_come_along),       cmocka_unit_test(text_files_are_texts),
        cmocka_unit_test(further_texts_are_kept), cmocka_unit_test(saved_by_ending),
        cmocka_unit_test(transparency_is_apart),  cmocka_unit_test(info_tells_of_pictures),
    };
    return cmocka_run_group_tests(tests, make, clean);
}
