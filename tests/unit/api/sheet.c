/* SPDX-License-Identifier: MIT */
/* Sheets: pictures lie where they belong, labels are black on white outside of them, and what does
 * not fit is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <sdlora/sdlora.h>

enum { SIDE = 16, SCALE = 8 }; /* 16 pixels are enlarged to 128 */

static sdlora_image *plain(sdlora_context *ctx, uint8_t red, int32_t w)
{
    uint8_t rgb[SIDE * SIDE * 3];
    sdlora_image *img;

    memset(rgb, 7, sizeof rgb);
    for (size_t i = 0; i < sizeof rgb; i += 3)
        rgb[i] = red;
    assert_int_equal(sdlora_image_new(&img, ctx, w, SIDE, rgb), SDLORA_OK);
    return img;
}

/* Pixels whose red is `red` and whose other bytes are `rest`. */
static size_t count(const sdlora_image *img, int red, int rest)
{
    const uint8_t *p = sdlora_image_data(img);
    size_t n = (size_t)sdlora_image_width(img) * (size_t)sdlora_image_height(img), found = 0;

    for (size_t i = 0; i < n; i++, p += 3)
        found += p[0] == red && p[1] == rest && p[2] == rest;
    return found;
}

static void pictures_and_labels(void **state)
{
    static const char *const rows[] = {"ab", "a long label that is broken into lines"};
    static const char *const columns[] = {"0", "1", NULL};
    sdlora_context *ctx;
    sdlora_image *cell[6], *bare, *sheet, *odd;

    (void)state;
    assert_int_equal(sdlora_context_new(&ctx, NULL, NULL), SDLORA_OK);
    for (int i = 0; i < 6; i++)
        cell[i] = plain(ctx, (uint8_t)(10 + i), SIDE);
    assert_int_equal(sdlora_image_sheet(&bare, ctx, cell, 2, 3, NULL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_image_sheet(&sheet, ctx, cell, 2, 3, rows, columns), SDLORA_OK);
    assert_int_equal(count(bare, 0, 0), 0);
    assert_true(count(sheet, 0, 0) > 20);
    assert_true(sdlora_image_width(sheet) > sdlora_image_width(bare));
    assert_true(sdlora_image_height(sheet) > sdlora_image_height(bare));
    for (int i = 0; i < 6; i++) {
        assert_int_equal(count(bare, 10 + i, 7), SIDE * SIDE * SCALE * SCALE);
        assert_int_equal(count(sheet, 10 + i, 7), SIDE * SIDE * SCALE * SCALE);
    }
    odd = cell[5];
    cell[5] = plain(ctx, 1, SIDE - 1);
    sdlora_image *none = bare;
    assert_int_equal(sdlora_image_sheet(&none, ctx, cell, 2, 3, NULL, NULL), SDLORA_EINVAL);
    assert_null(none);
    assert_non_null(strstr(sdlora_last_error()->message, "picture 5 is 15x16"));
    assert_int_equal(sdlora_image_sheet(&none, ctx, cell, 0, 3, NULL, NULL), SDLORA_EINVAL);
    assert_int_equal(sdlora_image_sheet(&none, ctx, cell, 5000, 3, NULL, NULL), SDLORA_EINVAL);
    sdlora_image_unref(odd);
    for (int i = 0; i < 6; i++)
        sdlora_image_unref(cell[i]);
    sdlora_image_unref(bare);
    sdlora_image_unref(sheet);
    sdlora_context_unref(ctx);
}

/* Every pixel becomes a square; wide pictures stay as they are. */
static void small_pictures_are_enlarged(void **state)
{
    enum { W = 50, H = 2, TIMES = 3, WIDE = 128 };
    uint8_t rgb[WIDE * H * 3];
    sdlora_context *ctx;
    sdlora_image *small, *wide, *sheet;

    (void)state;
    for (size_t i = 0; i < sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * 7 + 1);
    assert_int_equal(sdlora_context_new(&ctx, NULL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_image_new(&small, ctx, W, H, rgb), SDLORA_OK);
    assert_int_equal(sdlora_image_new(&wide, ctx, WIDE, H, rgb), SDLORA_OK);
    assert_int_equal(sdlora_image_sheet(&sheet, ctx, &small, 1, 1, NULL, NULL), SDLORA_OK);
    size_t gap = ((size_t)sdlora_image_width(sheet) - W * TIMES) / 2;
    size_t line = (size_t)sdlora_image_width(sheet) * 3;
    assert_int_equal(sdlora_image_height(sheet), H * TIMES + 2 * gap);
    for (size_t y = 0; y < H * TIMES; y++)
        for (size_t x = 0; x < W * TIMES; x++)
            assert_memory_equal(sdlora_image_data(sheet) + (gap + y) * line + (gap + x) * 3,
                                rgb + (y / TIMES * W + x / TIMES) * 3, 3);
    sdlora_image_unref(sheet);
    assert_int_equal(sdlora_image_sheet(&sheet, ctx, &wide, 1, 1, NULL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_image_width(sheet), WIDE + 2 * gap);
    sdlora_image_unref(sheet);
    sdlora_image_unref(small);
    sdlora_image_unref(wide);
    sdlora_context_unref(ctx);
}

/* A label that does not fit beside its row in short lines gets longer ones, up to a limit. */
static void label_column_grows(void **state)
{
    char label[2000] = "";
    const char *const labels[] = {label};
    int32_t width[3];
    static const size_t words[] = {4, 60, 300}; /* of five characters; a row has 8 lines */
    sdlora_context *ctx;

    (void)state;
    assert_int_equal(sdlora_context_new(&ctx, NULL, NULL), SDLORA_OK);
    sdlora_image *cell = plain(ctx, 9, SIDE);
    for (size_t i = 0, n = 0; i < 3; i++) {
        sdlora_image *sheet;

        for (; n < words[i]; n++)
            memcpy(label + n * 5, "word ", 6);
        assert_int_equal(sdlora_image_sheet(&sheet, ctx, &cell, 1, 1, labels, NULL), SDLORA_OK);
        width[i] = sdlora_image_width(sheet);
        assert_int_equal(sdlora_image_height(sheet), SIDE * SCALE + 16);
        sdlora_image_unref(sheet);
    }
    assert_true(width[0] < width[1] && width[1] < width[2]);
    assert_true(width[2] - width[0] < 64 * 8);
    sdlora_image_unref(cell);
    sdlora_context_unref(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pictures_and_labels),
                                       cmocka_unit_test(small_pictures_are_enlarged),
                                       cmocka_unit_test(label_column_grows)};

    return cmocka_run_group_tests_name("sheet", tests, NULL, NULL);
}
