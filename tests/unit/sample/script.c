/* SPDX-License-Identifier: MIT */
/* Prompts as programs against AUTOMATIC1111 (tests/golden/script.json, prompt.json): editing,
 * alternation, AND, comments, styles; and what megabytes of brackets cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/status.h"
#include "failing.h"
#include "io/json.h"
#include "sample/letters.h"
#include "sample/prompt.h"
#include "sample/script.h"
#include "sample/styles.h"

#define SCRIPT  TEST_ROOT "/golden/script.json"
#define PROMPTS TEST_ROOT "/golden/prompt.json"

enum { MEGABYTE = 1 << 20 };

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static json_t *root;

static int setup(void **state)
{
    (void)state;
    ok(slr_json_read(&root, NULL, SCRIPT, 64u << 20));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static json_t *list_of(const char *key)
{
    json_t *list = json_object_get(root, key);
    assert_true(json_array_size(list) > 0);
    return list;
}

static const char *text_at(const json_t *list, size_t i)
{
    return json_string_value(json_array_get(list, i));
}

/* --- editing --- */

static void check_texts(const char *prompt, const slr_script_config *c, const json_t *want)
{
    slr_script s;
    ok(slr_script_new(&s, NULL, prompt, c));
    assert_int_equal(s.n, 1);
    const slr_script_part *p = &s.part[0];
    if (p->n != json_array_size(want))
        fail_msg("'%s' of %d+%d steps%s has %zu texts, not %zu", prompt, c->steps, c->hires_steps,
                 c->old ? ", old" : "", p->n, json_array_size(want));
    for (size_t i = 0; i < p->n; i++) {
        const json_t *pair = json_array_get(want, i);
        int end = (int)json_integer_value(json_array_get(pair, 0));
        if (p->at[i].end != end || strcmp(p->at[i].text, text_at(pair, 1)) != 0)
            fail_msg("'%s' of %d+%d steps%s: [%d, '%s'], not [%d, '%s']", prompt, c->steps,
                     c->hires_steps, c->old ? ", old" : "", p->at[i].end, p->at[i].text, end,
                     text_at(pair, 1));
    }
    slr_script_free(&s);
}

static void editing_like_the_original(void **state)
{
    (void)state;
    json_t *row, *prompts;
    size_t i;
    json_array_foreach(list_of("schedule"), i, row)
    {
        slr_script_config c = {.steps = (int)json_integer_value(json_array_get(row, 1)),
                               .hires_steps = (int)json_integer_value(json_array_get(row, 2)),
                               .old = json_is_true(json_array_get(row, 3))};
        check_texts(text_at(row, 0), &c, json_array_get(row, 4));
    }
    assert_true(i > 400);
    ok(slr_json_read(&prompts, NULL, PROMPTS, 64u << 20));
    json_array_foreach(json_object_get(prompts, "schedule"), i, row)
    {
        slr_script_config c = {.steps = (int)json_integer_value(json_array_get(row, 1))};
        check_texts(text_at(row, 0), &c, json_array_get(row, 2));
    }
    assert_true(i > 40);
    json_decref(prompts);
}

/* A switch at 5 serves the evaluations 0 to 5, which are six. */
static void evaluations(void **state)
{
    (void)state;
    slr_script s;
    const slr_script_config c = {.steps = 10};
    ok(slr_script_new(&s, NULL, "[a:b:5]", &c));
    for (int i = 0; i < 12; i++)
        assert_string_equal(slr_script_text_at(&s.part[0], i), i <= 5 ? "a" : i <= 10 ? "b" : "a");
    slr_script_free(&s);
    ok(slr_script_new(&s, NULL, "[a|b]", &c));
    for (int i = 0; i < 11; i++) /* evaluation 0 and 1 are both before the first end */
        assert_string_equal(slr_script_text_at(&s.part[0], i), i < 2 || i % 2 ? "a" : "b");
    assert_int_equal(slr_map_count(s.texts), 2); /* each text is kept once */
    slr_script_free(&s);
}

static void composition_like_the_original(void **state)
{
    (void)state;
    json_t *row;
    size_t i;
    const slr_script_config c = {.steps = 1, .old = true, .compose = true};
    json_array_foreach(list_of("multicond"), i, row)
    {
        const json_t *want = json_array_get(row, 1);
        const char *prompt = text_at(row, 0);
        slr_script s;
        if (strchr(prompt, '[')) /* texts of scripts are edited already */
            continue;
        ok(slr_script_new(&s, NULL, prompt, &c));
        if (s.n != json_array_size(want))
            fail_msg("'%s' has %zu parts, not %zu", prompt, s.n, json_array_size(want));
        for (size_t k = 0; k < s.n; k++) {
            const json_t *pair = json_array_get(want, k);
            if (strcmp(s.part[k].at[0].text, text_at(pair, 0)) != 0)
                fail_msg("'%s': '%s', not '%s'", prompt, s.part[k].at[0].text, text_at(pair, 0));
            assert_true(s.part[k].weight == json_number_value(json_array_get(pair, 1)));
        }
        slr_script_free(&s);
    }
    slr_script s;
    ok(slr_script_new(&s, NULL, "a AND b :2", &(slr_script_config){.steps = 3}));
    assert_int_equal(s.n, 1);
    assert_string_equal(s.part[0].at[0].text, "a AND b :2");
    slr_script_free(&s);
}

/* --- comments and styles --- */

static void comments_like_the_original(void **state)
{
    (void)state;
    json_t *row;
    size_t i;
    json_array_foreach(list_of("comments"), i, row)
    {
        char *got = slr_prompt_uncomment(NULL, text_at(row, 0));
        if (strcmp(got, text_at(row, 1)) != 0)
            fail_msg("'%s' becomes '%s', not '%s'", text_at(row, 0), got, text_at(row, 1));
        slr_free(NULL, got);
    }
}

static void read_styles(slr_styles *s)
{
    const char *csv = json_string_value(json_object_get(root, "styles"));
    ok(slr_styles_new(s, NULL));
    ok(slr_styles_parse(s, csv, strlen(csv), "styles.csv"));
}

static bool same(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

/* Rows with fewer fields than the header have no prompt; comments are no rows. */
static void styles_like_the_original(void **state)
{
    (void)state;
    slr_styles s;
    json_t *row;
    size_t i;
    read_styles(&s);
    assert_int_equal(s.n, json_array_size(list_of("style_rows")));
    json_array_foreach(list_of("style_rows"), i, row)
    {
        assert_string_equal(s.at[i].name, text_at(row, 0));
        if (!same(s.at[i].prompt, text_at(row, 1)) || !same(s.at[i].negative, text_at(row, 2)))
            fail_msg("style '%s' is '%s', '%s'", s.at[i].name, s.at[i].prompt, s.at[i].negative);
    }
    slr_styles_free(&s);
}

/* The names of a list, one a line. */
static char *lines_of(const json_t *names)
{
    slr_buf b;
    slr_buf_init(&b, NULL);
    for (size_t i = 0; i < json_array_size(names); i++) {
        slr_buf_puts(&b, i ? "\n" : "");
        slr_buf_puts(&b, text_at(names, i));
    }
    slr_buf_puts(&b, "");
    return slr_buf_take(&b);
}

static void styles_put_on_and_taken_off(void **state)
{
    (void)state;
    slr_styles s;
    json_t *row;
    size_t i;
    read_styles(&s);
    json_array_foreach(list_of("merge"), i, row)
    {
        char *names = lines_of(json_array_get(row, 0)), *prompt, *negative;
        ok(slr_styles_apply(&s, names, text_at(row, 1), text_at(row, 2), &prompt, &negative));
        assert_string_equal(prompt, text_at(row, 3));
        assert_string_equal(negative, text_at(row, 4));
        slr_free(NULL, names);
        slr_free(NULL, prompt);
        slr_free(NULL, negative);
    }
    json_array_foreach(list_of("extract"), i, row)
    {
        char *want = lines_of(json_array_get(row, 2)), *names, *prompt, *negative;
        ok(slr_styles_extract(&s, text_at(row, 0), text_at(row, 1), &names, &prompt, &negative));
        assert_string_equal(names, want);
        assert_string_equal(prompt, text_at(row, 3));
        assert_string_equal(negative, text_at(row, 4));
        slr_free(NULL, want);
        slr_free(NULL, names);
        slr_free(NULL, prompt);
        slr_free(NULL, negative);
    }
    char *prompt, *negative;
    assert_int_equal(slr_styles_apply(&s, "plain\nnone", "a", "b", &prompt, &negative),
                     SDLORA_ENOTFOUND);
    assert_non_null(strstr(sdlora_last_error()->message, "'none'"));
    slr_styles_free(&s);
}

static void styles_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "a,b\nx,y\n", "name\nx\n", "prompt,text\n",
                                      "name,prompt\n\xff,x\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        slr_styles s;
        ok(slr_styles_new(&s, NULL));
        assert_int_equal(slr_styles_parse(&s, bad[i], strlen(bad[i]), "x.csv"), SDLORA_EFORMAT);
        slr_styles_free(&s);
    }
    slr_styles s; /* 26 doublings of a prompt are refused, not made */
    char names[128] = "";
    ok(slr_styles_new(&s, NULL));
    ok(slr_styles_parse(&s, "name,text\nx,{prompt}{prompt}\n", 28, "x.csv"));
    for (int i = 0; i < 26; i++)
        strcat(names, "x\n");
    char *prompt, *negative;
    assert_int_equal(slr_styles_apply(&s, names, "a", "b", &prompt, &negative), SDLORA_EINVAL);
    slr_styles_free(&s);
}

/* --- hostile prompts --- */

static char *repeated(const char *unit, size_t bytes)
{
    char *text = slr_calloc(NULL, bytes + 1, 1);
    for (size_t i = 0; i < bytes; i++)
        text[i] = unit[i % strlen(unit)];
    return text;
}

static size_t script_work(const char *text)
{
    slr_script s;
    ok(slr_script_new(&s, NULL, text, &(slr_script_config){.steps = 20}));
    size_t work = s.work;
    slr_script_free(&s);
    return work;
}

static size_t emphasis_work(const char *text)
{
    slr_fragment *f;
    size_t n, work;
    ok(slr_prompt_emphasis(NULL, text, &f, &n, &work));
    slr_fragments_free(NULL, f, n);
    return work;
}

static size_t tags_work(const char *text)
{
    slr_prompt_tags t;
    ok(slr_prompt_cut_tags(&t, NULL, text));
    size_t work = t.work;
    slr_prompt_tags_free(&t);
    return work;
}

/* A megabyte of anything is looked at a bounded number of times.  A hundred weights may lie on one
 * piece of text (MAX_DEPTH); whatever is read once more for each bracket would be 10^5 times. */
static void megabytes(void **state)
{
    (void)state;
    static const char *const units[] = {
        "(",   "[",    "]",      ")",     "([",  "[(",      "a",      "(a",   "[a",    "(a)",
        "[a]", "[a:",  ":",      "|",     "[|",  "[a|b]",   "[a:b:2", "\\",   "\\[",   "[a:b:2]",
        " ",   "[ : ", "(a:1.1", ": 1",   "#",   "BREAK",   "AND ",   "a\n#", "[[a]:", "[:::::",
        "<",   "<a:",  "<a:b>",  "<a<b>", "{<|", "<lora:x", ",",      "[||",  "1",     "\xc2\xa0"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        char *text = repeated(units[i], MEGABYTE);
        bool many = !strcmp(units[i], "AND "); /* more parts than a prompt may have */
        size_t program = many ? 0 : script_work(text), weights = emphasis_work(text),
               tags = tags_work(text);
        if (program > 60u * MEGABYTE || weights > 110u * MEGABYTE || tags > 2u * MEGABYTE)
            fail_msg("'%s': %zu, %zu and %zu for a megabyte", units[i], program, weights, tags);
        slr_free(NULL, text);
    }
}

static void refused(void **state)
{
    (void)state;
    slr_script s;
    const slr_script_config c = {.steps = 9999, .compose = true};
    assert_int_equal(slr_script_new(&s, NULL, "a\xff", &c), SDLORA_EINVAL);
    assert_non_null(strstr(sdlora_last_error()->message, "byte 1"));
    char *text = repeated("AND ", 4 * 200);
    assert_int_equal(slr_script_new(&s, NULL, text, &c), SDLORA_EINVAL);
    slr_free(NULL, text);
    text = repeated("a", MEGABYTE); /* 9999 times */
    memcpy(text + MEGABYTE - 5, "[b|c]", 5);
    assert_int_equal(slr_script_new(&s, NULL, text, &c), SDLORA_EINVAL);
    assert_non_null(strstr(sdlora_last_error()->message, "256 MB"));
    slr_free(NULL, text);
}

/* Nothing leaks whichever allocation fails. */
static int everything(slr_mem *m)
{
    slr_script s;
    slr_styles styles = {0};
    const slr_script_config c = {.steps = 4, .compose = true};
    char *text = slr_prompt_uncomment(m, "a # b\n[c|d:"), *prompt, *negative, *names;
    if (!text)
        return SDLORA_ENOMEM;
    slr_free(m, text);
    int rc = slr_script_new(&s, m, "[a|b] (c) AND [d:[e]:2]:2", &c);
    if (rc >= 0)
        slr_script_free(&s);
    if (rc >= 0)
        rc = slr_styles_new(&styles, m);
    if (rc >= 0)
        rc =
            slr_styles_parse(&styles, "name,prompt,negative_prompt\nx,{prompt} y,z\n", 43, "x.csv");
    if (rc >= 0)
        rc = slr_styles_apply(&styles, "x", "a", "b", &prompt, &negative);
    if (rc >= 0) {
        slr_free(m, prompt);
        slr_free(m, negative);
        rc = slr_styles_extract(&styles, "a y", "b, z", &names, &prompt, &negative);
    }
    if (rc >= 0) {
        slr_free(m, names);
        slr_free(m, prompt);
        slr_free(m, negative);
    }
    slr_styles_free(&styles);
    return rc;
}

static void every_allocation(void **state)
{
    (void)state;
    bool done = false;
    for (int64_t k = 0; !done; k++) {
        failing f = {.left = k};
        slr_mem *m;
        const slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
        if (slr_mem_new(&m, &hooks, 0) < 0) {
            assert_int_equal(f.held, 0);
            continue;
        }
        int rc = everything(m);
        assert_true(rc == SDLORA_OK || rc == SDLORA_ENOMEM);
        done = rc == SDLORA_OK;
        slr_mem_unref(m);
        assert_int_equal(f.held, 0);
        assert_true(k < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(editing_like_the_original),
        cmocka_unit_test(evaluations),
        cmocka_unit_test(composition_like_the_original),
        cmocka_unit_test(comments_like_the_original),
        cmocka_unit_test(styles_like_the_original),
        cmocka_unit_test(styles_put_on_and_taken_off),
        cmocka_unit_test(styles_refused),
        cmocka_unit_test(megabytes),
        cmocka_unit_test(refused),
        cmocka_unit_test(every_allocation),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
