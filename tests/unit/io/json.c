/* SPDX-License-Identifier: MIT */
/* lib/io/json.c: what is refused, with line and column, and Python's spelling of strings. */
#include "io_test.h"
#include "io/json.h"

static void parses(void **state)
{
    json_t *j;
    const char *text = "{\"a\": [1, 2.5, \"\xc3\xa9\", null, true]}";
    assert_int_equal(slr_json_parse(&j, text, strlen(text), "x"), 0);
    assert_int_equal(json_array_size(json_object_get(j, "a")), 5);
    json_decref(j);
    assert_int_equal(slr_json_parse(&j, "null", 4, "x"), 0); /* kohya's ss_bucket_info */
    assert_true(json_is_null(j));
    json_decref(j);
    put_file(in_scratch("a.json"), text, strlen(text));
    assert_int_equal(slr_json_read(&j, NULL, in_scratch("a.json"), 1000), 0);
    json_decref(j);
    assert_int_equal(slr_json_read(&j, NULL, in_scratch("a.json"), 10), SDLORA_EFORMAT);
    assert_null(j);
}

static void refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}",
        "[1,]",
        "{\"a\" 1}",
        "[1] 2",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "nul",
        "[0x10]",
        "\"\\ud800\"",
        "1e999",
        "[01]",
        "\"a\nb\"",
        "'a'",
        "\"\\u0000\"",
        "99999999999999999999",
        "[NaN]",
        "\x1b[31m",
    };
    json_t *j;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (slr_json_parse(&j, bad[i], strlen(bad[i]), "meta.json") != SDLORA_EFORMAT)
            fail_msg("accepted: %s", bad[i]);
        assert_null(j);
        assert_says("meta.json");
        assert_null(strchr(sdlora_last_error_text(), '\x1b'));
    }
    assert_int_equal(slr_json_parse(&j, "{\n \"a\": ?}", 10, "x"), SDLORA_EFORMAT);
    assert_says("line 2");
    assert_int_equal(slr_json_parse(&j, "[\"a\0b\"]", 7, "x"), SDLORA_EFORMAT);
}

static void caps_depth(void **state)
{
    static char deep[200000];
    json_t *j;
    memset(deep, '[', sizeof deep);
    assert_int_equal(slr_json_parse(&j, deep, sizeof deep, "x"), SDLORA_EFORMAT);
    assert_says("levels");
    memset(deep + 64, ']', 64);
    assert_int_equal(slr_json_parse(&j, deep, 128, "x"), 0);
    json_decref(j);
    memset(deep, '[', 65);
    memset(deep + 65, ']', 65);
    assert_int_equal(slr_json_parse(&j, deep, 130, "x"), SDLORA_EFORMAT);
    /* Brackets inside strings are no depth. */
    deep[0] = deep[199] = '"';
    memset(deep + 1, '[', 198);
    deep[100] = '\\', deep[101] = '"';
    assert_int_equal(slr_json_parse(&j, deep, 200, "x"), 0);
    json_decref(j);
}

static void check_quote(const char *in, size_t n, const char *plain, const char *ascii)
{
    slr_buf b;
    slr_buf_init(&b, NULL);
    slr_json_quote(&b, in, n, false);
    assert_int_equal(slr_buf_ok(&b), 0);
    assert_string_equal(b.data, plain);
    slr_buf_free(&b);
    slr_buf_init(&b, NULL);
    slr_json_quote(&b, in, n, true);
    assert_string_equal(b.data, ascii);
    slr_buf_free(&b);
}

static void quotes(void **state)
{
    check_quote("", 0, "\"\"", "\"\"");
    check_quote("a\"\\/\b\f\n\r\t\x01", 10, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\"",
                "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\"");
    check_quote("\x7f", 1, "\"\x7f\"", "\"\\u007f\"");
    check_quote("a\0b", 3, "\"a\\u0000b\"", "\"a\\u0000b\"");
    check_quote("\xc3\xa9", 2, "\"\xc3\xa9\"", "\"\\u00e9\"");
    check_quote("\xf0\x9f\x98\x80", 4, "\"\xf0\x9f\x98\x80\"", "\"\\ud83d\\ude00\"");
    check_quote("\xff"
                "a",
                2,
                "\"\xef\xbf\xbd"
                "a\"",
                "\"\\ufffda\"");
    check_quote("\xc3", 1, "\"\xef\xbf\xbd\"", "\"\\ufffd\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses),
        cmocka_unit_test(refuses),
        cmocka_unit_test(caps_depth),
        cmocka_unit_test(quotes),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
