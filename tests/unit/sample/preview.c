/* SPDX-License-Identifier: MIT */
/* Previews: AUTOMATIC1111's two tables of "Approx cheap" to the byte, and what is no number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include <sdlora/sdlora.h>

#include "sample/preview.h"

/* Bytes are (v * 0.5 + 0.5) * 255, cut, v being the latents times the table of
 * modules/sd_vae_approx.py, worked out by hand. */
static void bytes_are_the_tables(void **state)
{
    static const struct {
        double scale;
        float latents[4];
        uint8_t rgb[3];
    } cases[] = {
        {0.18215, {0, 0, 0, 0}, {127, 127, 127}}, {0.18215, {1, 0, 0, 0}, {165, 153, 154}},
        {0.18215, {0, 1, 0, 0}, {151, 163, 149}}, {0.18215, {0, 0, 1, 0}, {107, 151, 161}},
        {0.18215, {0, 0, 0, 1}, {104, 92, 67}},   {0.18215, {9, 9, 9, -9}, {255, 255, 255}},
        {0.18215, {-9, -9, 0, 9}, {0, 0, 0}},     {0.13025, {1, 0, 0, 0}, {171, 180, 183}},
        {0.13025, {0, 1, 0, 0}, {102, 123, 130}}, {0.13025, {0, 0, 1, 0}, {141, 138, 125}},
        {0.13025, {0, 0, 0, 1}, {79, 95, 100}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float latents[2 * 4] = {0};
        slr_pixels p;

        memcpy(latents + 4, cases[i].latents, sizeof cases[i].latents);
        assert_int_equal(slr_preview_make(&p, NULL, latents, 2, 1, 4, cases[i].scale), SDLORA_OK);
        assert_int_equal(p.width, 1);
        assert_int_equal(p.height, 2);
        assert_memory_equal(p.data + 3, cases[i].rgb, 3);
        slr_free(NULL, p.data);
    }
}

static void what_is_no_number_is_black(void **state)
{
    const float latents[4] = {NAN, 0, 0, 0};
    const uint8_t black[3] = {0};
    slr_pixels p;

    (void)state;
    assert_int_equal(slr_preview_make(&p, NULL, latents, 1, 1, 4, 0.18215), SDLORA_OK);
    assert_memory_equal(p.data, black, 3);
    slr_free(NULL, p.data);
    assert_int_equal(slr_preview_make(&p, NULL, latents, 1, 1, 16, 0.18215), SDLORA_ENOTSUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_the_tables),
        cmocka_unit_test(what_is_no_number_is_black),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
