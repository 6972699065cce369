/* SPDX-License-Identifier: MIT */
/* lib/io/toml.c: the trees that Python's tomllib makes (tests/golden/make_toml.py), what is refused
 * beyond that, and sentences with a line. */
#include "io_test.h"
#include "io/toml.h"

static void like_tomllib(void **state)
{
    json_t *golden, *want, *have;
    size_t i;
    (void)state;
    if (slr_json_read(&golden, NULL, TEST_ROOT "/golden/toml.json", 1 << 20) < 0)
        fail_msg("%s", sdlora_last_error_text());
    json_t *documents = json_object_get(golden, "documents"), *doc;
    assert_true(json_array_size(documents) > 80);
    json_array_foreach(documents, i, doc)
    {
        json_t *text = json_object_get(doc, "text");
        want = json_object_get(doc, "tree");
        int rc =
            slr_toml_parse(&have, json_string_value(text), json_string_length(text), "document");
        if (json_is_null(want) ? rc != SDLORA_EFORMAT || have : rc < 0 || !json_equal(have, want)) {
            char *got = have ? json_dumps(have, JSON_SORT_KEYS) : NULL;
            fail_msg("'%s' gives %s (%s)", json_string_value(text), got ? got : "nothing",
                     sdlora_last_error_text());
        }
        json_decref(have);
    }
    json_decref(golden);
}

static void refuse(const char *text, size_t n, const char *sentence)
{
    json_t *j;
    assert_int_equal(slr_toml_parse(&j, text, n, "x"), SDLORA_EFORMAT);
    assert_null(j);
    assert_says(sentence);
}

static void refuses(void **state)
{
    static const struct {
        const char *text, *sentence;
    } CASES[] = {
        {"a = 1\nb = \n", "x: line 2, column 5"},
        {"a = inf", "x: line 1, column 5: inf and nan"},
        {"a = [1.0, -nan]", "inf and nan"},
        {"a = \"\\u0000\"", "NUL"},
        {"\"\\u0000\" = 1", "NUL character in a key"},
        {"a = 9223372036854775808", "line 1"},
        {"a = '\xff'", "utf-8"},
    };
    char deep[4096], keys[4096] = "";
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        refuse(CASES[i].text, strlen(CASES[i].text), CASES[i].sentence);
    memset(deep, '[', sizeof deep);
    memcpy(deep, "a = ", 4);
    refuse(deep, sizeof deep, "nest");
    for (int i = 0; i < 1000; i++)
        strcat(keys, "a.");
    strcat(keys, "a = 1");
    refuse(keys, strlen(keys), "a key of more than 64 parts");
    keys[0] = '[';
    refuse(keys, strlen(keys), "a key of more than 64 parts");
}

/* Dots inside strings and comments are no parts of keys. */
static void dots(void **state)
{
    char text[1024], *p = text;
    json_t *j;
    (void)state;
    p += sprintf(p, "a = '");
    p = (char *)memset(p, '.', 100) + 100;
    p += sprintf(p, "' # ");
    p = (char *)memset(p, '.', 100) + 100;
    p += sprintf(p, "\nb = \"\"\"\n\\\"");
    p = (char *)memset(p, '.', 100) + 100;
    p += sprintf(p, "\n\"\"\"\nc.d = 1.5");
    assert_int_equal(slr_toml_parse(&j, text, (size_t)(p - text), "x"), 0);
    assert_int_equal(json_object_size(j), 3);
    json_decref(j);
}

static void reads(void **state)
{
    json_t *j;
    (void)state;
    put_file(in_scratch("a.toml"), "a = 1", 5);
    assert_int_equal(slr_toml_read(&j, NULL, in_scratch("a.toml"), 100), 0);
    json_decref(j);
    assert_int_equal(slr_toml_read(&j, NULL, in_scratch("a.toml"), 4), SDLORA_EFORMAT);
    assert_null(j);
    assert_int_equal(slr_toml_read(&j, NULL, in_scratch("none.toml"), 4), SDLORA_ENOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(like_tomllib), cmocka_unit_test(refuses),
                                       cmocka_unit_test(dots), cmocka_unit_test(reads)};
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
