/* SPDX-License-Identifier: MIT */
/* The error slot: text, code, UTF-8, threads, wrapping. */
#include "base_test.h"

#include <pthread.h>
#include <stdio.h>

#include "base/str.h"

static void fresh_slot_is_ok(void **state)
{
    slr_clear();
    assert_int_equal(sdlora_last_error()->code, SDLORA_OK);
    assert_string_equal(sdlora_last_error()->message, "");
    assert_string_equal(sdlora_last_error()->where, "");
}

static void fail_keeps_code_text_and_place(void **state)
{
    assert_int_equal(slr_fail(SDLORA_EFORMAT, "reader", "%s is %d", "x", 3), SDLORA_EFORMAT);
    assert_int_equal(sdlora_last_error()->code, SDLORA_EFORMAT);
    assert_string_equal(sdlora_last_error()->message, "x is 3");
    assert_string_equal(sdlora_last_error()->where, "reader");
    assert_int_equal(slr_wrap("file %s", "a.png"), SDLORA_EFORMAT);
    assert_string_equal(sdlora_last_error()->message, "file a.png: x is 3");
    slr_fail(SDLORA_EIO, NULL, "%s, again", sdlora_last_error()->message); /* its own text */
    assert_string_equal(sdlora_last_error()->message, "file a.png: x is 3, again");
    assert_string_equal(sdlora_last_error()->where, "");
}

static void long_and_broken_text_stays_utf8(void **state)
{
    char name[4000];
    const char *text;

    for (size_t shift = 0; shift < 4; shift++) {
        memset(name, 'a', shift);
        for (size_t i = shift; i + 2 < sizeof name; i += 3) /* U+2211, three bytes each */
            memcpy(name + i, "\xE2\x88\x91", 3);
        name[(sizeof name - shift) / 3 * 3 + shift - 3] = '\0';
        slr_fail(SDLORA_EIO, name, "%s", name);
        text = sdlora_last_error()->message;
        assert_true(strlen(text) > SLR_ERROR_TEXT - 5 && strlen(text) < SLR_ERROR_TEXT);
        assert_int_equal(slr_utf8_valid(text, strlen(text)), strlen(text));
        assert_null(strchr(text, '?')); /* cut between characters, not through one */
        text = sdlora_last_error()->where;
        assert_int_equal(slr_utf8_valid(text, strlen(text)), strlen(text));
        slr_wrap("%s", name);
        text = sdlora_last_error()->message;
        assert_int_equal(slr_utf8_valid(text, strlen(text)), strlen(text));
    }
    slr_fail(SDLORA_EIO, "w", "%s",
             "a\xFF"
             "b\xC3");
    assert_string_equal(sdlora_last_error()->message, "a?b?");
}

static void *other_thread(void *arg)
{
    assert_int_equal(sdlora_last_error()->code, SDLORA_OK);
    assert_string_equal(sdlora_last_error()->message, "");
    slr_fail(SDLORA_ENAN, "worker", "loss is not finite");
    slr_error_take(arg);
    return NULL;
}

static void threads_have_slots_of_their_own(void **state)
{
    slr_error_copy copy;
    pthread_t t;

    slr_fail(SDLORA_EINVAL, "here", "mine");
    assert_int_equal(pthread_create(&t, NULL, other_thread, &copy), 0);
    pthread_join(t, NULL);
    assert_string_equal(sdlora_last_error()->message, "mine");
    assert_int_equal(slr_error_put(&copy), SDLORA_ENAN);
    assert_string_equal(sdlora_last_error()->message, "loss is not finite");
    assert_string_equal(sdlora_last_error()->where, "worker");
}

static int guarded(int x)
{
    slr_require(x > 2);
    SLR_TRY(x == 3 ? slr_nomem("guarded", 77) : SDLORA_DONE);
    return x;
}

static void guards_return(void **state)
{
    assert_int_equal(guarded(1), SDLORA_EINVAL);
    assert_message("x > 2");
    assert_int_equal(guarded(3), SDLORA_ENOMEM);
    assert_message("77 bytes");
    assert_int_equal(guarded(4), 4); /* DONE is not an error */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_slot_is_ok),
        cmocka_unit_test(fail_keeps_code_text_and_place),
        cmocka_unit_test(long_and_broken_text_stays_utf8),
        cmocka_unit_test(threads_have_slots_of_their_own),
        cmocka_unit_test(guards_return),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
