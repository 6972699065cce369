/* SPDX-License-Identifier: MIT */
/* Files of sample prompts: kohya's flags, defaults, limits, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "api/samples.h"

static int read_text(slr_sample_lines *out, const char *name, const char *text)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    int rc = slr_sample_lines_read(out, NULL, name);
    remove(name);
    return rc;
}

static void refused(const char *name, const char *text, int code, const char *word)
{
    slr_sample_lines l;

    assert_int_equal(read_text(&l, name, text), code);
    if (!strstr(sdlora_last_error()->message, word))
        fail_msg("'%s' is not in: %s", word, sdlora_last_error()->message);
}

static void flags_of_a_line(void **state)
{
    slr_sample_lines l;

    (void)state;
    assert_int_equal(read_text(&l, "api-samples.txt",
                               "# a comment\n\n"
                               "a cat, sitting --n bad --w 519 --h 20 --d 42 --l 6.5 --s 2000 "
                               "--ss k_euler_a\r\n"
                               "  plain -- with a dash\n"),
                     SDLORA_ENOTSUP); /* " -- with" is a flag without a name */
    assert_int_equal(read_text(&l, "api-samples.txt",
                               "# a comment\n\n"
                               "a cat, sitting --n bad --w 519 --h 20 --d 42 --l 6.5 --s 2000 "
                               "--ss k_euler_a\r\n"
                               "  two-part--name\n"),
                     SDLORA_OK);
    assert_int_equal(l.n, 2);
    assert_string_equal(l.at[0].prompt, "a cat, sitting");
    assert_string_equal(l.at[0].negative, "bad");
    assert_int_equal(l.at[0].width, 512); /* floored to 8 */
    assert_int_equal(l.at[0].height, 64); /* at least 64 */
    assert_int_equal(l.at[0].seed, 42);
    assert_true(l.at[0].cfg == 6.5);
    assert_int_equal(l.at[0].steps, 1000); /* at most 1000 */
    assert_string_equal(l.at[0].sampler, "k_euler_a");
    assert_string_equal(l.at[1].prompt, "two-part--name");
    assert_string_equal(l.at[1].negative, "");
    assert_int_equal(l.at[1].width, 512);
    assert_int_equal(l.at[1].steps, 30);
    assert_int_equal(l.at[1].seed, -1);
    assert_true(l.at[1].cfg == 7.5);
    assert_null(l.at[1].sampler);
    slr_sample_lines_free(&l);
}

static void list_of_objects(void **state)
{
    slr_sample_lines l;

    (void)state;
    assert_int_equal(read_text(&l, "api-samples.json",
                               "[{\"prompt\": \"a\", \"width\": 640, \"scale\": 5.5},"
                               " {\"prompt\": \"b\", \"negative_prompt\": \"c\", \"seed\": 7}]"),
                     SDLORA_OK);
    assert_int_equal(l.n, 2);
    assert_int_equal(l.at[0].width, 640);
    assert_true(l.at[0].cfg == 5.5);
    assert_string_equal(l.at[1].negative, "c");
    assert_int_equal(l.at[1].seed, 7);
    slr_sample_lines_free(&l);
}

static void refusals(void **state)
{
    (void)state;
    refused("api-samples.txt", "x --w wide\n", SDLORA_EFORMAT, "line 1: 'wide'");
    refused("api-samples.txt", "x\ny --cn pose.png\n", SDLORA_ENOTSUP, "line 2: the flag --cn");
    refused("api-samples.txt", "# nothing\n", SDLORA_EFORMAT, "no prompt");
    refused("api-samples.json", "{\"prompt\": \"a\"}", SDLORA_EFORMAT, "not a list");
    refused("api-samples.json", "[{\"prompt\": [1]}]", SDLORA_EFORMAT, "prompt 1");
    refused("api-samples.toml", "[prompt]\n", SDLORA_ENOTSUP, ".txt and .json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_of_a_line),
        cmocka_unit_test(list_of_objects),
        cmocka_unit_test(refusals),
    };

    return cmocka_run_group_tests_name("samples", tests, NULL, NULL);
}
