/* SPDX-License-Identifier: MIT */
/* The tokenizer against transformers' slow CLIPTokenizer with ftfy
 * (tests/golden/tokens.safetensors), and its limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/status.h"
#include "golden_test.h"
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

/* A list of byte strings or of 16-bit ids: all items in one tensor, their lengths in another. */
typedef struct packed {
    const uint8_t *data, *length;
    size_t n;
} packed;

static size_t u16(const uint8_t *p)
{
    return p[0] | (size_t)p[1] << 8;
}

static packed packed_of(const golden *g, const char *name, const char *lengths)
{
    slr_tensor data, length;
    assert_true(slr_safetensors_find(g->file, name, &data));
    assert_true(slr_safetensors_find(g->file, lengths, &length));
    assert_int_equal(data.dtype, SDLORA_U8);
    return (packed){data.data, length.data, (size_t)length.dim[0]};
}

static bool same_ids(const int32_t *ids, size_t n, const uint8_t *want, size_t n_want)
{
    bool same = n == n_want;
    for (size_t k = 0; same && k < n; k++)
        same = ids[k] == (int32_t)u16(want + 2 * k);
    return same;
}

/* ftfy's repairs of mojibake are not done, by decision (textclean.c); everything else is.  So all
 * ids are those without the repairs, and those with them differ in the strings of one list only. */
static void golden_ids(void **state)
{
    (void)state;
    golden g = golden_open(TEST_ROOT "/golden/tokens.safetensors");
    assert_non_null(g.file);
    packed text = packed_of(&g, "text", "text.length"), want = packed_of(&g, "ids", "ids.length"),
           repaired = packed_of(&g, "repaired", "repaired.length");
    int32_t *broken = golden_i32(&g, "mojibake", NULL);
    size_t n_bad = 0, n_other = 0;
    assert_int_equal(text.n, want.n);
    for (size_t i = 0; i < text.n; i++) {
        size_t n_bytes = u16(text.length + 2 * i), n_want = u16(want.length + 2 * i), n = 0;
        int32_t *ids = NULL;
        assert_int_equal(slr_bpe_encode(bpe, NULL, (const char *)text.data, n_bytes, &ids, &n),
                         SDLORA_OK);
        if (!same_ids(ids, n, want.data, n_want)) {
            n_bad++;
            print_error("%zu differs: \"%.*s\"\n", i, (int)n_bytes, (const char *)text.data);
        }
        if (n_other < repaired.n && broken[n_other] == (int32_t)i) {
            size_t n_repaired = u16(repaired.length + 2 * n_other++);
            assert_false(same_ids(ids, n, repaired.data, n_repaired));
            repaired.data += 2 * n_repaired;
        }
        text.data += n_bytes;
        want.data += 2 * n_want;
        slr_free(NULL, ids);
    }
    print_message("%zu strings, %zu differ; %zu of them would be repaired by ftfy\n", text.n, n_bad,
                  n_other);
    slr_free(NULL, broken);
    golden_close(&g);
    assert_int_equal(n_bad, 0);
    assert_true(text.n >= 10000);
    assert_int_equal(n_other, repaired.n);
    assert_in_range(n_other, 1, text.n / 100);
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
    static char large[(1 << 20) + 1];
    encode_fails("a\xff", 2);
    encode_fails("\xed\xa0\x80", 3); /* a surrogate */
    memset(large, ' ', sizeof large);
    encode_fails(large, sizeof large);
    assert_non_null(strstr(sdlora_last_error()->message, "1048577 bytes"));

    int32_t *ids;
    size_t n;
    assert_int_equal(slr_bpe_encode(bpe, NULL, large, sizeof large - 1, &ids, &n), SDLORA_OK);
    assert_int_equal(n, 0);
    slr_free(NULL, ids);
}

/* --- time --- */

#define MEGABYTE 1000000

/* Processor seconds, the best of three tries if the first is slow, for `bytes` of a repeated unit
 * after a head. */
static double time_of(const char *head, const char *unit, size_t bytes)
{
    char *text = slr_alloc(NULL, bytes);
    size_t n = strlen(head), step = strlen(unit), n_ids;
    double best = INFINITY;
    int32_t *ids;
    memcpy(text, head, n);
    for (; n + step <= bytes; n += step)
        memcpy(text + n, unit, step);
    for (int i = 0; i < 3 && best > 0.1; i++) {
        clock_t from = clock();
        assert_int_equal(slr_bpe_encode(bpe, NULL, text, n, &ids, &n_ids), SDLORA_OK);
        best = fmin(best, (double)(clock() - from) / CLOCKS_PER_SEC);
        slr_free(NULL, ids);
    }
    slr_free(NULL, text);
    return best;
}

/* Hostile text: a megabyte within 0.2 s, and sixteen times the text in less than 64 times the time
 * where a quadratic pass would need 256 times.  Sanitizers slow everything down: `slack`. */
static void time_is_linear(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    const double slack = 20;
#else
    const double slack = 1;
#endif
    static const struct {
        const char *head, *unit;
    } cases[] = {
        {"", "a"},
        {"", "abcdefghijklmnopqrstuvwxyz"}, /* one long word */
        {"", "!"},
        {"", "\u732b"},
        {"&", "amp;"},
        {"", "&amp;"}, /* ftfy's rounds */
        {"", "\u0301\u0323"},
        {"", "a\u0301\u0323"}, /* marks in the wrong order */
        {"", "\n"},
        {"", "\u03a3'"},
        {"", "<|"},
        {"", "\x1b[1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double all = time_of(cases[i].head, cases[i].unit, MEGABYTE),
               part = time_of(cases[i].head, cases[i].unit, MEGABYTE / 16);
        print_message("1 MB of %zu bytes repeated: %.1f ms; 64 KB: %.2f ms\n",
                      strlen(cases[i].unit), 1e3 * all, 1e3 * part);
        assert_true(all < slack * 0.2);
        assert_true(all < 64 * fmax(part, 1e-3)); /* below 1 ms the clock decides */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_ids),
        cmocka_unit_test(tokens_have_names),
        cmocka_unit_test(refuses_what_is_not_text),
        cmocka_unit_test(time_is_linear),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
