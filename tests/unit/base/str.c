/* SPDX-License-Identifier: MIT */
/* Text: buffers, slices, numbers in any locale, UTF-8, distances. */
#include "base_test.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>

#include "base/rng.h"
#include "base/str.h"

static int buffer_scenario(slr_mem *m)
{
    slr_buf b;
    char *text;
    int rc;

    slr_buf_init(&b, m);
    for (int i = 0; i < 300; i++) {
        slr_buf_printf(&b, "%d", i);
        slr_buf_putc(&b, ',');
        slr_buf_puts(&b, "");
        slr_buf_add(&b, "\0x", 2);
    }
    rc = slr_buf_ok(&b);
    text = slr_buf_take(&b);
    assert_true((text != NULL) == (rc == SDLORA_OK));
    if (text) {
        assert_memory_equal(text, "0,\0x1,\0x2,", 10);
        slr_free(m, text);
    }
    slr_buf_free(&b);
    return rc;
}

static void buffer_grows_and_errors_stick(void **state)
{
    slr_buf b;
    char *text;

    torture(buffer_scenario);
    slr_buf_init(&b, NULL);
    text = slr_buf_take(&b);
    assert_string_equal(text, "");
    slr_free(NULL, text);
    slr_buf_free(&b);
}

static void slices(void **state)
{
    slr_str rest = slr_str_of("a,,bc,"), piece;
    const char *const want[] = {"a", "", "bc", ""};

    for (size_t i = 0; i < 4; i++) {
        assert_true(slr_str_next(&rest, ',', &piece));
        assert_true(slr_str_eq(piece, want[i]));
    }
    assert_false(slr_str_next(&rest, ',', &piece));
    rest = slr_str_of("");
    assert_true(slr_str_next(&rest, ',', &piece) && piece.n == 0);
    assert_false(slr_str_next(&rest, ',', &piece));
    assert_true(slr_str_eq(slr_str_trim(slr_str_of(" \t x y\r\n")), "x y"));
    assert_true(slr_str_eq(slr_str_trim(slr_str_of(" \n ")), ""));
    assert_false(slr_str_eq(slr_str_of("ab"), "abc"));
    rest = slr_str_of(NULL);
    assert_true(rest.p && rest.n == 0);
    assert_true(slr_starts("lora_unet_x", "lora_unet_") && !slr_starts("lo", "lora"));
    assert_true(slr_ends("a.png", ".png") && !slr_ends("png", ".png") && slr_ends("x", ""));
}

static void pairs(void **state)
{
    slr_str rest = slr_str_of("a=1\n\n \t\n  key = v=w \r\n=\nlone\nb=2"), key, value;
    static const char *const want[][2] = {{"a", "1"}, {"key ", " v=w"}, {"", ""}};

    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(slr_pair_next(&rest, "some_args", &key, &value), 1);
        assert_true(slr_str_eq(key, want[i][0]) && slr_str_eq(value, want[i][1]));
    }
    assert_int_equal(slr_pair_next(&rest, "some_args", &key, &value), SDLORA_EINVAL);
    assert_message("some_args: 'lone' is not key=value");
    assert_int_equal(slr_pair_next(&rest, "some_args", &key, &value), 1);
    assert_int_equal(slr_pair_next(&rest, "some_args", &key, &value), 0);
    assert_int_equal(slr_pair_next(&rest, "some_args", &key, &value), 0);
    rest = slr_str_of(NULL);
    assert_int_equal(slr_pair_next(&rest, "some_args", &key, &value), 0);
}

static void joining(void **state)
{
    char out[6];

    assert_ok(slr_text_join(out, sizeof out, "ab", "cde"));
    assert_string_equal(out, "abcde");
    assert_int_equal(slr_text_join(out, sizeof out, "ab", "cdef"), SDLORA_EINVAL);
    assert_int_equal(slr_text_join(out, 0, "", ""), SDLORA_EINVAL);
    assert_int_equal(slr_text_join(out, 2, "abcdefgh", ""), SDLORA_EINVAL);
}

static void whole_numbers(void **state)
{
    static const char *const bad[] = {"",
                                      "-",
                                      "+",
                                      " 1",
                                      "1 ",
                                      "1x",
                                      "0x1",
                                      "1.0",
                                      "--1",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "1e3",
                                      "١"};
    int64_t v = 7;

    assert_true(slr_parse_i64("9223372036854775807", &v) && v == INT64_MAX);
    assert_true(slr_parse_i64("-9223372036854775808", &v) && v == INT64_MIN);
    assert_true(slr_parse_i64("+007", &v) && v == 7);
    assert_true(slr_parse_i64("-0", &v) && v == 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        v = 7;
        assert_false(slr_parse_i64(bad[i], &v));
        assert_int_equal(v, 7);
    }
}

static void real_numbers(void **state)
{
    static const char *const bad[] = {"",      ".",      "e5",    "1e",   "1e+",    "0x1p3",
                                      " 1",    "1 ",     "1,5",   "NAN",  "nan(1)", "infx",
                                      "1e400", "-1e400", "1.2.3", "1_000"};
    double v;

    assert_true(slr_parse_real("1e-4", &v) && v == 1e-4);
    assert_true(slr_parse_real("-.5", &v) && v == -.5);
    assert_true(slr_parse_real("5.", &v) && v == 5);
    assert_true(slr_parse_real("1e-400", &v) && v == 0);
    assert_true(slr_parse_real("5e-324", &v) && v == 5e-324);
    assert_true(slr_parse_real("1.7976931348623157e308", &v) && v == DBL_MAX);
    assert_true(slr_parse_real("nan", &v) && isnan(v));
    assert_true(slr_parse_real("-inf", &v) && isinf(v) && v < 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(slr_parse_real(bad[i], &v));
}

/* Expected texts are what Python 3's repr prints. */
static void reals_are_spelled_as_python_does(void **state)
{
    static const struct {
        double v;
        const char *text;
    } rows[] = {
        {0, "0.0"},
        {-0.0, "-0.0"},
        {1, "1.0"},
        {-1, "-1.0"},
        {0.1, "0.1"},
        {1e-4, "0.0001"},
        {1e-5, "1e-05"},
        {1.5e-7, "1.5e-07"},
        {0.00012345, "0.00012345"},
        {123456, "123456.0"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
        {1.2e16, "1.2e+16"},
        {1e22, "1e+22"},
        {9007199254740993, "9007199254740992.0"},
        {0.1 + 0.2, "0.30000000000000004"},
        {DBL_MAX, "1.7976931348623157e+308"},
        {5e-324, "5e-324"},
        {DBL_MIN, "2.2250738585072014e-308"},
        {NAN, "nan"},
        {INFINITY, "inf"},
        {-INFINITY, "-inf"},
        {100, "100.0"},
        {1.0 / 3, "0.3333333333333333"},
        {123.456, "123.456"},
        {5e-05, "5e-05"},
        {1e100, "1e+100"},
        {9.5, "9.5"},
        {2.5e-10, "2.5e-10"},
    };
    char out[32];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        slr_real_repr(rows[i].v, out);
        assert_string_equal(out, rows[i].text);
    }
}

static void reals_read_back(void **state)
{
    slr_rng r;

    slr_rng_init(&r, 1, 0, 0);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = (uint64_t)slr_rng_u32(&r) << 32 | slr_rng_u32(&r);
        double v, back;
        char out[32];

        memcpy(&v, &bits, sizeof v);
        slr_real_repr(v, out);
        assert_true(strlen(out) < sizeof out);
        assert_true(slr_parse_real(out, &back));
        assert_true(back == v || (isnan(v) && isnan(back)));
    }
}

static void numbers_ignore_the_locale(void **state)
{
    static const char *const comma[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "nl_NL.UTF-8"};
    char out[32];
    double v;
    size_t i;

    for (i = 0; i < sizeof comma / sizeof *comma && !setlocale(LC_ALL, comma[i]);)
        i++;
    if (i == sizeof comma / sizeof *comma)
        skip(); /* no locale with a decimal comma on this machine */
    snprintf(out, sizeof out, "%.1f", 1.5);
    assert_string_equal(out, "1,5");
    slr_real_repr(1.5, out);
    assert_string_equal(out, "1.5");
    slr_real_repr(0.1 + 0.2, out);
    assert_string_equal(out, "0.30000000000000004");
    assert_true(slr_parse_real("1.5", &v) && v == 1.5);
    assert_false(slr_parse_real("1,5", &v));
    setlocale(LC_ALL, "C");
}

static void utf8_is_strict(void **state)
{
    static const char *const bad[] = {"\x80",
                                      "\xBF",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xC3",
                                      "\xE0\x9F\xBF",
                                      "\xE2\x88",
                                      "\xED\xA0\x80",
                                      "\xED\xBF\xBF",
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xFE",
                                      "\xFF",
                                      "\xE2\x28\xA1",
                                      "\xF0\x9F\x98"};
    char text[8];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "a%s", bad[i]);
        assert_int_equal(slr_utf8_valid(text, strlen(text)), 1);
    }
    assert_int_equal(slr_utf8_valid("a\0b", 3), 3);
    assert_int_equal(slr_utf8_valid("", 0), 0);
}

static void utf8_goes_round(void **state)
{
    for (uint32_t cp = 0; cp < 0x110000; cp += cp < 0x3000 ? 1 : 61) {
        char out[4];
        uint32_t back;
        size_t n = slr_utf8_put(out, cp);

        assert_int_equal(slr_utf8_valid(out, n), n);
        assert_int_equal(slr_utf8_next(out, n, &back), n);
        assert_int_equal(back, cp >= 0xD800 && cp < 0xE000 ? 0xFFFD : cp);
    }
    {
        uint32_t cp;

        assert_int_equal(slr_utf8_next("\xFFz", 2, &cp), 1); /* a loop over junk gets on */
        assert_int_equal(slr_utf8_next("", 0, &cp), 0);
    }
}

static void distances(void **state)
{
    char longest[200];

    assert_int_equal(slr_str_distance("abc", "abc", 9), 0);
    assert_int_equal(slr_str_distance("netowrk_dim", "network_dim", 9), 1); /* a swap is one */
    assert_int_equal(slr_str_distance("kitten", "sitting", 9), 3);
    assert_int_equal(slr_str_distance("", "abc", 9), 3);
    assert_int_equal(slr_str_distance("kitten", "sitting", 2), 2);
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(slr_str_distance(longest, "x", 5), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffer_grows_and_errors_stick),
        cmocka_unit_test(slices),
        cmocka_unit_test(pairs),
        cmocka_unit_test(joining),
        cmocka_unit_test(whole_numbers),
        cmocka_unit_test(real_numbers),
        cmocka_unit_test(reals_are_spelled_as_python_does),
        cmocka_unit_test(reals_read_back),
        cmocka_unit_test(numbers_ignore_the_locale),
        cmocka_unit_test(utf8_is_strict),
        cmocka_unit_test(utf8_goes_round),
        cmocka_unit_test(distances),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
