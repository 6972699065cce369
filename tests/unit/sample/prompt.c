/* SPDX-License-Identifier: MIT */
/* Prompts: tags, emphasis and chunks against AUTOMATIC1111 (tests/golden/prompt.json), the
 * parameters text (tests/golden/infotext.json), and what megabytes of brackets cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "io/json.h"
#include "models/family.h"
#include "sample/infotext.h"
#include "sample/prompt.h"

#define PROMPTS  TEST_ROOT "/golden/prompt.json"
#define INFOTEXT TEST_ROOT "/golden/infotext.json"

enum { ROW = 77, MEGABYTE = 1 << 20 };

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static json_t *golden_json(const char *path, const char *key, json_t **root)
{
    ok(slr_json_read(root, NULL, path, 64u << 20));
    json_t *list = json_object_get(*root, key);
    assert_true(json_array_size(list) > 0);
    return list;
}

/* --- tags --- */

typedef struct tag_case {
    const char *prompt, *text; /* what stays */
    const char *kind, *name;   /* of the only tag; NULL: there is none */
    double te, unet;
    int dyn;
    const char *bad;
} tag_case;

static const tag_case tag_cases[] = {
    {"a, <lora:x:1>, b", "a, , b", "lora", "x", 1, 1, 0, NULL},
    {"a <lora:x> b", "a  b", "lora", "x", 1, 1, 0, NULL},
    {"<lora:x:0.5>", "", "lora", "x", 0.5, 0.5, 0, NULL},
    {"<lora:x:0.5:0.25>", "", "lora", "x", 0.5, 0.25, 0, NULL},
    {"<lora:x:-0.5>", "", "lora", "x", -0.5, -0.5, 0, NULL},
    {"<lora:x:.7:-1e-1:8>", "", "lora", "x", 0.7, -0.1, 8, NULL},
    {"<lora:x:0>", "", "lora", "x", 0, 0, 0, NULL},
    {"<lora:x:te=0.5>", "", "lora", "x", 0.5, 0.5, 0, NULL},
    {"<lora:x:unet=0.5>", "", "lora", "x", 1, 0.5, 0, NULL},
    {"<lora:x:unet=0.25:te=0.5>", "", "lora", "x", 0.5, 0.25, 0, NULL},
    {"<lyco:x:te=0.5:unet=1:dyn=8>", "", "lyco", "x", 0.5, 1, 8, NULL},
    /* names override positions, and are not counted as positions */
    {"<lora:x:0.2:te=0.5>", "", "lora", "x", 0.5, 0.5, 0, NULL},
    {"<lora:x:te=0.5:0.2>", "", "lora", "x", 0.5, 0.5, 0, NULL},
    {"<lora:x:0.2:0.3:unet=0.9>", "", "lora", "x", 0.2, 0.9, 0, NULL},
    {"<lora:x:unet=0.9:0.2:0.3>", "", "lora", "x", 0.2, 0.9, 0, NULL},
    {"<lora:x:0.5:later=y>", "", "lora", "x", 0.5, 0.5, 0, NULL}, /* a name nobody asks for */
    {"<lora:my file (v1.2):1>", "", "lora", "my file (v1.2)", 1, 1, 0, NULL},
    {"<lora:\xe7\x8c\xab:1>", "", "lora", "\xe7\x8c\xab", 1, 1, 0, NULL},
    {"<foo:bar>x", "x", "foo", "bar", 1, 1, 0, NULL},
    {"<hypernet:h:0.3>", "", "hypernet", "h", 0.3, 0.3, 0, NULL},
    {"<lora:x:abc>", "", "lora", "x", 1, 1, 0, "abc"},
    {"<lora:x:>", "", "lora", "x", 1, 1, 0, ""},
    {"<lora:x:te=>", "", "lora", "x", 1, 1, 0, "te="},
    {"<lora:x:1:2:3.5>", "", "lora", "x", 1, 2, 0, "3.5"}, /* a rank is a whole number */
    {"<lora:x:1:2:1e300>", "", "lora", "x", 1, 2, 0, "1e300"},
    {"<lora:x:nan>", "", "lora", "x", 1, 1, 0, "nan"},
    {"<lora:x:inf>", "", "lora", "x", 1, 1, 0, "inf"},
    {"<lora:>", "<lora:>", NULL, NULL, 0, 0, 0, NULL},
    {"<lora:x", "<lora:x", NULL, NULL, 0, 0, 0, NULL},
    {"<:x>", "<:x>", NULL, NULL, 0, 0, 0, NULL},
    {"< lora:x>", "< lora:x>", NULL, NULL, 0, 0, 0, NULL},
    {"a < b > c", "a < b > c", NULL, NULL, 0, 0, 0, NULL},
    {"<3 <lora:x:2>", "<3 ", "lora", "x", 2, 2, 0, NULL},
    {"", "", NULL, NULL, 0, 0, 0, NULL},
};

static void check_tag(const tag_case *c)
{
    slr_prompt_tags t;
    ok(slr_prompt_cut_tags(&t, NULL, c->prompt));
    assert_string_equal(t.text, c->text);
    assert_int_equal(t.n, c->kind != NULL);
    if (t.n) {
        assert_string_equal(t.tag[0].kind, c->kind);
        assert_string_equal(t.tag[0].name, c->name);
        assert_int_equal(t.tag[0].bad != NULL, c->bad != NULL);
        if (c->bad)
            assert_string_equal(t.tag[0].bad, c->bad);
        if (!c->bad) {
            assert_true(t.tag[0].te == c->te);
            assert_true(t.tag[0].unet == c->unet);
            assert_int_equal(t.tag[0].dyn, c->dyn);
        }
    }
    slr_prompt_tags_free(&t);
}

static void tags_one_by_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof tag_cases / sizeof *tag_cases; i++)
        check_tag(&tag_cases[i]);
}

static void tags_keep_their_order(void **state)
{
    (void)state;
    slr_prompt_tags t;
    ok(slr_prompt_cut_tags(&t, NULL, "<lora:b:1> x (<foo:y>:1.2)\n<lora:a:2>, <lora:b:3>"));
    assert_string_equal(t.text, " x (:1.2)\n, ");
    static const char *const names[] = {"b", "y", "a", "b"};
    static const double te[] = {1, 1, 2, 3};
    assert_int_equal(t.n, 4);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(t.tag[i].name, names[i]);
        assert_true(t.tag[i].te == te[i]);
    }
    slr_prompt_tags_free(&t);
}

static void tags_with_block_weights(void **state)
{
    (void)state;
    slr_prompt_tags t;
    ok(slr_prompt_cut_tags(&t, NULL,
                           "<lora:x:1:lbw=1,0,0,0,0,0,0,0,0,0,.5,0,0,0,0,0,-1><lora:y:lbw=1,2:0.5>"
                           "<lora:z:0.5:lbw=1,1,1,1,1,1,1,1,1,1,1,1>"));
    assert_int_equal(t.n, 3);
    assert_true(!t.tag[0].bad && t.tag[0].te == 1 && t.tag[0].unet == 1);
    assert_int_equal(t.tag[0].blocks.n, 17);
    assert_true(t.tag[0].blocks.weight[10] == 0.5 && t.tag[0].blocks.weight[16] == -1);
    assert_string_equal(t.tag[1].bad, "lbw=1,2");
    assert_int_equal(t.tag[2].blocks.n, 12);
    assert_true(t.tag[2].te == 0.5);
    slr_prompt_tags_free(&t);
}

/* --- emphasis and chunks --- */

static void emphasis_like_the_original(void **state)
{
    (void)state;
    json_t *root, *pair;
    size_t i;
    json_t *list = golden_json(PROMPTS, "attention", &root);
    json_array_foreach(list, i, pair)
    {
        const char *prompt = json_string_value(json_array_get(pair, 0));
        json_t *want = json_array_get(pair, 1);
        slr_fragment *f;
        size_t n;
        ok(slr_prompt_emphasis(NULL, prompt, &f, &n, NULL));
        if (json_is_null(want)) { /* no number after all: text within brackets of weight 1.1 */
            assert_int_equal(n, 1);
            assert_true(f[0].weight == 1.1);
            assert_memory_equal(f[0].text, prompt + 1, strlen(prompt) - 2);
        } else if (json_array_size(want) != n) {
            fail_msg("'%s' has %zu fragments, not %zu", prompt, n, json_array_size(want));
        }
        for (size_t k = 0; k < json_array_size(want); k++) {
            json_t *fragment = json_array_get(want, k);
            assert_string_equal(f[k].text, json_string_value(json_array_get(fragment, 0)));
            /* the same products in the same order: the very same doubles */
            assert_true(f[k].weight == json_number_value(json_array_get(fragment, 1)));
        }
        slr_fragments_free(NULL, f, n);
    }
    json_decref(root);
}

static void chunks_like_the_original(void **state)
{
    (void)state;
    json_t *root, *item;
    size_t i;
    slr_bpe *bpe;
    ok(slr_bpe_new(&bpe, NULL));
    json_t *list = golden_json(PROMPTS, "chunks", &root);
    json_array_foreach(list, i, item)
    {
        const char *prompt = json_string_value(json_array_get(item, 0));
        json_t *ids = json_array_get(item, 2), *weights = json_array_get(item, 3);
        slr_chunks c;
        ok(slr_prompt_chunks(&c, NULL, bpe, NULL, slr_family_by_name("sd1"), prompt));
        if (c.n != json_array_size(ids))
            fail_msg("'%s' has %zu chunks, not %zu", prompt, c.n, json_array_size(ids));
        for (size_t k = 0; k < c.n * ROW; k++) {
            json_t *id = json_array_get(json_array_get(ids, k / ROW), k % ROW),
                   *weight = json_array_get(json_array_get(weights, k / ROW), k % ROW);
            assert_int_equal(c.ids[k], json_integer_value(id));
            assert_true(c.weights[k] == (float)json_number_value(weight));
        }
        slr_chunks_free(&c);
    }
    slr_bpe_unref(bpe);
    json_decref(root);
}

static void breaks(void **state)
{
    (void)state;
    static const struct {
        const char *prompt;
        size_t chunks;
    } cases[] = {{"a BREAK b", 2},   {"BREAK a", 2},         {"a BREAK", 1},
                 {"a BREAKb", 1},    {"a BREAK BREAK b", 3}, {"a, BREAK, b", 2},
                 {"a\nBREAK\nb", 2}, {"(a BREAK b:1.2)", 1}, {"(a:1.2) BREAK (b:0.5)", 2}};
    slr_bpe *bpe;
    slr_chunks c;
    ok(slr_bpe_new(&bpe, NULL));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ok(slr_prompt_chunks(&c, NULL, bpe, NULL, slr_family_by_name("sd1"), cases[i].prompt));
        if (c.n != cases[i].chunks)
            fail_msg("'%s' has %zu chunks, not %zu", cases[i].prompt, c.n, cases[i].chunks);
        slr_chunks_free(&c);
    }
    slr_bpe_unref(bpe);
}

/* 75 - 55 = 20 tokens back is near enough for a comma to end the chunk; 21 is not. */
static void commas_twenty_back(void **state)
{
    (void)state;
    slr_bpe *bpe;
    ok(slr_bpe_new(&bpe, NULL));
    for (int before = 54; before <= 55; before++) {
        char text[256] = "";
        slr_chunks c;
        for (int i = 0; i < before + 26; i++)
            strcat(text, i == before ? ", " : "a ");
        ok(slr_prompt_chunks(&c, NULL, bpe, NULL, slr_family_by_name("sd1"), text));
        assert_int_equal(c.n, 2);
        int32_t eos = slr_family_by_name("sd1")->eos;
        for (int i = 1; i <= 75; i++)
            assert_int_equal(c.ids[i] == eos, before == 55 && i > 56);
        slr_chunks_free(&c);
    }
    slr_bpe_unref(bpe);
}

/* Weights of hostile prompts stay finite: from -100 to 100. */
static void weights_are_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *prompt;
        double weight;
    } cases[] = {
        {"(x:99.5)", 99.5},
        {"(x:100.5)", 100},
        {"(x:-99999999999999999999999999999999999999999)", -100},
        {"((x:50):50)", 100},
        {"((x:-50):50)", -100},
        {"(((x:99999999999999999999):9999999):0.5)", 50},
        {"(x:1e308)", 1.1}, /* no number of this grammar: text */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        slr_fragment *f;
        size_t n;
        ok(slr_prompt_emphasis(NULL, cases[i].prompt, &f, &n, NULL));
        assert_int_equal(n, 1);
        if (f[0].weight != cases[i].weight)
            fail_msg("%s has %g, wanted %g", cases[i].prompt, f[0].weight, cases[i].weight);
        slr_fragments_free(NULL, f, n);
    }
}

/* A hundred brackets count, deeper ones have no weight. */
static void depth_is_bounded(void **state)
{
    (void)state;
    char prompt[320];
    double weight = 1;
    slr_fragment *f;
    size_t n;
    memset(prompt, '[', 150);
    strcpy(prompt + 150, "x");
    for (int i = 0; i < 100; i++)
        weight /= 1.1;
    for (int closed = 0; closed < 2; closed++) {
        ok(slr_prompt_emphasis(NULL, prompt, &f, &n, NULL));
        assert_int_equal(n, 1);
        assert_string_equal(f[0].text, "x");
        assert_true(fabs(f[0].weight / weight - 1) < 1e-12); /* rounding of a hundred products */
        slr_fragments_free(NULL, f, n);
        memset(prompt + 151, ']', 150);
        prompt[301] = '\0';
    }
}

/* A megabyte is a prompt too, and one of brackets is an empty one. */
static void long_prompts_are_taken(void **state)
{
    (void)state;
    slr_bpe *bpe;
    slr_chunks c;
    char *text = slr_calloc(NULL, MEGABYTE + 1, 1);
    ok(slr_bpe_new(&bpe, NULL));
    memset(text, '(', MEGABYTE);
    ok(slr_prompt_chunks(&c, NULL, bpe, NULL, slr_family_by_name("sd1"), text));
    assert_int_equal(c.n, 1);
    slr_chunks_free(&c);
    memset(text, '!', MEGABYTE);
    ok(slr_prompt_chunks(&c, NULL, bpe, NULL, slr_family_by_name("sd1"), text));
    assert_true(c.n > 100);
    slr_chunks_free(&c);
    slr_bpe_unref(bpe);
    slr_free(NULL, text);
}

/* Brackets are text without emphasis, and commas end no chunk without backtracking. */
static void chunks_by_other_rules(void **state)
{
    (void)state;
    slr_bpe *bpe;
    slr_chunks c;
    slr_fragment *f;
    size_t n;
    const slr_chunk_config none = {SLR_EMPHASIS_NONE, 20}, flat = {SLR_EMPHASIS_ORIGINAL, 0};
    ok(slr_bpe_new(&bpe, NULL));
    ok(slr_prompt_chunks_by(&c, NULL, bpe, NULL, slr_family_by_name("sd1"), "(a BREAK b:1.2)",
                            &none));
    int32_t *ids;
    ok(slr_bpe_encode(bpe, NULL, "(a BREAK b:1.2)", 15, &ids, &n));
    assert_int_equal(c.n, 1);
    assert_memory_equal(c.ids + 1, ids, n * sizeof *ids);
    for (int i = 0; i < ROW; i++)
        assert_true(c.weights[i] == 1);
    slr_free(NULL, ids);
    slr_chunks_free(&c);
    char text[256] = "";
    for (int i = 0; i < 81; i++)
        strcat(text, i == 70 ? ", " : "a ");
    ok(slr_prompt_chunks_by(&c, NULL, bpe, NULL, slr_family_by_name("sd1"), text, &flat));
    assert_int_equal(c.n, 2);
    int32_t eos = slr_family_by_name("sd1")->eos;
    assert_true(c.ids[75] != eos && c.ids[77 + 6] != eos && c.ids[77 + 7] == eos);
    ok(slr_chunks_extend(&c, slr_family_by_name("sd1"), 4));
    assert_int_equal(c.n, 4);
    for (int i = 1; i < ROW; i++)
        assert_true(c.ids[3 * ROW + i] == eos && c.weights[3 * ROW + i] == 1);
    slr_chunks_free(&c);
    slr_bpe_unref(bpe);
    assert_int_equal(slr_prompt_emphasis(NULL, "\xff", &f, &n, NULL), SDLORA_EINVAL);
}

/* BREAK stands by itself also beside letters that are not ASCII's, and white space is what Unicode
 * says. */
static void words_of_all_scripts(void **state)
{
    (void)state;
    static const struct {
        const char *prompt;
        size_t fragments;
    } cases[] = {{"\xe7\x8c\xab"
                  "BREAK",
                  1},
                 {"\xe3\x80\x81"
                  "BREAK"
                  "\xe3\x80\x81",
                  3},
                 {"a\xc2\xa0"
                  "BREAK\xe3\x80\x80"
                  "b",
                  3},
                 {"(a:\xc2\xa0"
                  "1.2\xc2\xa0)",
                  1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        slr_fragment *f;
        size_t n;
        ok(slr_prompt_emphasis(NULL, cases[i].prompt, &f, &n, NULL));
        assert_int_equal(n, cases[i].fragments);
        if (i == 2)
            assert_true(!strcmp(f[0].text, "a") && !strcmp(f[2].text, "b"));
        if (i == 3)
            assert_true(f[0].weight == 1.2);
        slr_fragments_free(NULL, f, n);
    }
}

/* --- parameters text --- */

static void quoting(void **state)
{
    (void)state;
    json_t *root, *pair;
    size_t i;
    json_t *list = golden_json(INFOTEXT, "quote", &root);
    json_array_foreach(list, i, pair)
    {
        char want[256];
        slr_infotext t;
        slr_infotext_init(&t, NULL, "p", "");
        slr_infotext_add(&t, "key", json_string_value(json_array_get(pair, 0)));
        char *got = slr_infotext_take(&t);
        snprintf(want, sizeof want, "p\nkey: %s", json_string_value(json_array_get(pair, 1)));
        assert_string_equal(got, want);
        slr_free(NULL, got);
    }
    json_decref(root);
}

static void add_number(slr_infotext *t, const char *key, json_t *value)
{
    if (json_is_integer(value))
        slr_infotext_int(t, key, json_integer_value(value));
    else if (json_is_real(value))
        slr_infotext_real(t, key, json_real_value(value));
}

/* The rows whose fields this library writes, with its spelling of a whole CFG ("7"). */
static void texts_like_the_original(void **state)
{
    (void)state;
    json_t *root, *row;
    size_t i, n = 0;
    json_t *list = golden_json(INFOTEXT, "write", &root);
    json_array_foreach(list, i, row)
    {
        json_t *in = json_array_get(row, 0);
        char size[32], want[512];
        const char *text = json_string_value(json_array_get(row, 1)), *model;
        static const char *const others[] = {"extra", "subseed", "seed_resize_from_w", "tiling"};
        bool known = true;
        for (size_t k = 0; k < sizeof others / sizeof *others; k++)
            known = known && !json_object_get(in, others[k]);
        if (!known)
            continue;
        const char *whole = strstr(text, "CFG scale: 7.0,");
        if (whole)
            snprintf(want, sizeof want, "%.*sCFG scale: 7,%s", (int)(whole - text), text,
                     whole + 15);
        else
            snprintf(want, sizeof want, "%s", text);
        model = json_string_value(json_object_get(in, "sd_model_name"));
        slr_infotext t;
        slr_infotext_init(&t, NULL, json_string_value(json_object_get(in, "prompt")),
                          json_string_value(json_object_get(in, "negative_prompt")));
        add_number(&t, "Steps", json_object_get(in, "steps"));
        slr_infotext_add(&t, "Sampler", json_string_value(json_object_get(in, "sampler_name")));
        slr_infotext_add(&t, "Schedule type", json_string_value(json_object_get(in, "scheduler")));
        add_number(&t, "CFG scale", json_object_get(in, "cfg_scale"));
        add_number(&t, "Seed", json_object_get(in, "seed"));
        snprintf(size, sizeof size, "%dx%d", (int)json_integer_value(json_object_get(in, "width")),
                 (int)json_integer_value(json_object_get(in, "height")));
        slr_infotext_add(&t, "Size", size);
        slr_infotext_add(&t, "Model hash", "45dee52b01");
        slr_infotext_add(&t, "Model", model ? model : "tinysd");
        slr_infotext_add(&t, "VAE hash", json_string_value(json_object_get(in, "sd_vae_hash")));
        slr_infotext_add(&t, "VAE", json_string_value(json_object_get(in, "sd_vae_name")));
        add_number(&t, "Clip skip", json_object_get(in, "clip_skip"));
        slr_infotext_add(&t, "RNG", "CPU");
        slr_infotext_add(&t, "Version", "v1.10.1");
        char *got = slr_infotext_take(&t);
        assert_string_equal(got, want);
        slr_free(NULL, got);
        n++;
    }
    assert_true(n >= 8);
    json_decref(root);
}

static void numbers_and_lone_keys(void **state)
{
    (void)state;
    slr_infotext t;
    slr_infotext_init(&t, NULL, "", "");
    slr_infotext_real(&t, "A", 7);
    slr_infotext_real(&t, "B", 7.5);
    slr_infotext_real(&t, "C", 0.1);
    slr_infotext_int(&t, "D", -1);
    slr_infotext_int(&t, "E", INT64_MIN);
    slr_infotext_add(&t, "F", NULL);
    slr_infotext_add(&t, "Tiling", "Tiling"); /* key == value: the key alone */
    char *got = slr_infotext_take(&t);
    assert_string_equal(got, "\nA: 7, B: 7.5, C: 0.1, D: -1, E: -9223372036854775808, Tiling");
    slr_free(NULL, got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tags_one_by_one),
        cmocka_unit_test(tags_keep_their_order),
        cmocka_unit_test(tags_with_block_weights),
        cmocka_unit_test(emphasis_like_the_original),
        cmocka_unit_test(chunks_like_the_original),
        cmocka_unit_test(breaks),
        cmocka_unit_test(commas_twenty_back),
        cmocka_unit_test(weights_are_bounded),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(long_prompts_are_taken),
        cmocka_unit_test(chunks_by_other_rules),
        cmocka_unit_test(words_of_all_scripts),
        cmocka_unit_test(quoting),
        cmocka_unit_test(texts_like_the_original),
        cmocka_unit_test(numbers_and_lone_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
