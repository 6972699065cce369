/* SPDX-License-Identifier: MIT */
/* The tokenizer against transformers' slow CLIPTokenizer with ftfy (tests/golden/tokens.json), and
 * its limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/status.h"
#include "models/bpe.h"

static slr_bpe *bpe;

static int setup(void **state)
{
    return slr_bpe_new(&bpe, NULL);
}

static int teardown(void **state)
{
    slr_bpe_unref(bpe);
    return 0;
}

/* ftfy's repairs of mojibake are not done, by decision (textclean.c).  Reading C1 controls as
 * Windows-1252 is. */
static int is_mojibake(const char *step)
{
    return (strstr(step, "encode") || strstr(step, "decode")) &&
           !strstr(step, "decode windows-1252");
}

static void golden_ids(void **state)
{
    /* one case holds a NUL, which io/json refuses */
    json_t *root = json_load_file(TEST_ROOT "/golden/tokens.json", JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    json_t *cases = json_object_get(root, "cases"), *c;
    size_t i, n_bad = 0, n_seen = 0, n_moji = 0;
    json_array_foreach(cases, i, c)
    {
        json_t *text = json_array_get(c, 0), *want = json_array_get(c, 1);
        int32_t *ids = NULL;
        size_t n = 0;
        assert_int_equal(
            slr_bpe_encode(bpe, NULL, json_string_value(text), json_string_length(text), &ids, &n),
            SDLORA_OK);
        int same = n == json_array_size(want);
        for (size_t k = 0; same && k < n; k++)
            same = ids[k] == json_integer_value(json_array_get(want, k));
        slr_free(NULL, ids);
        if (is_mojibake(json_string_value(json_array_get(c, 2)))) {
            n_moji++;
            continue;
        }
        n_seen++;
        if (!same) {
            n_bad++;
            print_error("differs: \"%s\" (%s)\n", json_string_value(text),
                        json_string_value(json_array_get(c, 2)));
        }
    }
    json_decref(root);
    print_message("%zu strings, %zu differ; %zu more hold mojibake\n", n_seen, n_bad, n_moji);
    assert_int_equal(n_bad, 0);
    assert_true(n_seen > 400 && n_moji < 20);
}

static void tokens_have_names(void **state)
{
    assert_string_equal(slr_bpe_token(bpe, 736), "red</w>");
    assert_string_equal(slr_bpe_token(bpe, 267), ",</w>");
    assert_string_equal(slr_bpe_token(bpe, 0), "!");
    assert_string_equal(slr_bpe_token(bpe, 188), "\u0100"); /* byte 0 */
    assert_string_equal(slr_bpe_token(bpe, 49406), "<|startoftext|>");
    assert_string_equal(slr_bpe_token(bpe, 49407), "<|endoftext|>");
    assert_null(slr_bpe_token(bpe, 49408));
    assert_null(slr_bpe_token(bpe, -1));
}

static void encode_fails(const char *text, size_t n)
{
    int32_t *ids = (int32_t *)&ids;
    size_t n_ids = 7;
    assert_int_equal(slr_bpe_encode(bpe, NULL, text, n, &ids, &n_ids), SDLORA_EINVAL);
    assert_null(ids);
    assert_int_equal(n_ids, 0);
}

static void refuses_what_is_not_text(void **state)
{
    static char large[1 << 17];
    encode_fails("a\xff", 2);
    encode_fails("\xed\xa0\x80", 3); /* a surrogate */
    memset(large, 'a', sizeof large);
    encode_fails(large, sizeof large);
}

/* Hostile text must not take quadratic time; these finish in milliseconds. */
static void long_words_are_quick(void **state)
{
    static char text[60000];
    int32_t *ids;
    size_t n;
    memset(text, 'a', sizeof text);
    assert_int_equal(slr_bpe_encode(bpe, NULL, text, sizeof text, &ids, &n), SDLORA_OK);
    assert_true(n > 1000 && n < sizeof text);
    slr_free(NULL, ids);
    memcpy(text, "&", 1);
    for (size_t i = 1; i + 4 <= sizeof text; i += 4)
        memcpy(text + i, "amp;", 4);
    assert_int_equal(slr_bpe_encode(bpe, NULL, text, sizeof text, &ids, &n), SDLORA_OK);
    slr_free(NULL, ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_ids),
        cmocka_unit_test(tokens_have_names),
        cmocka_unit_test(refuses_what_is_not_text),
        cmocka_unit_test(long_words_are_quick),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
