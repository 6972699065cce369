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

enum { SIDE = 16 };

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
        assert_int_equal(count(bare, 10 + i, 7), SIDE * SIDE);
        assert_int_equal(count(sheet, 10 + i, 7), SIDE * SIDE);
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pictures_and_labels)};

    return cmocka_run_group_tests_name("sheet", tests, NULL, NULL);
}
