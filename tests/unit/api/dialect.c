/* SPDX-License-Identifier: MIT */
/* Dialects through the public headers: what a file is, converting it without its model, keys that
 * fit nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "api/api.h"

#define MODEL    TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define DIALECTS TEST_ROOT "/golden/dialects/"
#define OUT      "unit-api-dialect.safetensors"

static sdlora_context *ctx;

static int setup(void **state)
{
    (void)state;
    return sdlora_context_new(&ctx, NULL, NULL);
}

static int teardown(void **state)
{
    (void)state;
    sdlora_context_unref(ctx);
    unlink(OUT);
    return 0;
}

static void good(int rc)
{
    if (rc < 0)
        fail_msg("%s", sdlora_last_error()->message);
}

static bool tells(char *json, const char *text)
{
    bool found = strstr(json, text) != NULL;

    if (!found)
        print_message("%s", json);
    sdlora_text_free(ctx, json);
    return found;
}

/* Fifteen files of other programs into three dialects, the model unknown. */
static void converted_without_a_model(void **state)
{
    static const char *const files[] = {
        "kohya.pt",           "ldm.safetensors",       "native.safetensors",
        "diffusers_old.bin",  "diffusers.safetensors", "diffusers_metadata.safetensors",
        "lycoris.safetensors"};
    static const char *const dialects[] = {"kohya", "diffusers", "diffusers-old"};
    sdlora_options *o;
    char *json;

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (size_t k = 0; k < sizeof dialects / sizeof *dialects; k++) {
            char path[256], want[64];

            snprintf(path, sizeof path, DIALECTS "%s", files[i]);
            good(sdlora_options_new(&o, "convert"));
            good(sdlora_options_set_text(o, "dialect", dialects[k]));
            good(sdlora_options_set_text(o, "save_precision", k ? "fp16" : "keep"));
            good(sdlora_file_convert(ctx, path, OUT, o, NULL, NULL, &json));
            assert_true(tells(json, "\"skipped\": []"));
            sdlora_options_unref(o);
            good(sdlora_file_info(ctx, OUT, 0, &json));
            snprintf(want, sizeof want, "\"dialect\": \"%s\"", dialects[k]);
            assert_true(tells(json, want));
        }
}

static void refusals(void **state)
{
    sdlora_options *o;
    char *json;

    (void)state;
    good(sdlora_options_new(&o, "convert"));
    assert_int_equal(sdlora_options_set_text(o, "dialect", "comfy"), SDLORA_EINVAL);
    good(sdlora_options_set_text(o, "dialect", "diffusers"));
    assert_int_equal(
        sdlora_file_convert(ctx, "/nonexistent/a.safetensors", OUT, o, NULL, NULL, &json),
        SDLORA_ENOTFOUND);
    assert_null(json);
    assert_int_equal(sdlora_file_convert(ctx, DIALECTS "peft_loha/adapter_model.safetensors", OUT,
                                         o, NULL, NULL, NULL),
                     SDLORA_ENOTSUP);
    assert_non_null(strstr(sdlora_last_error()->message, "'loha'"));
    assert_int_equal(sdlora_file_convert(ctx, MODEL, OUT, o, NULL, NULL, NULL), SDLORA_EFORMAT);
    sdlora_options_unref(o);
}

static void handles(void **state)
{
    sdlora_checkpoint *ckpt;
    sdlora_network *net;
    sdlora_options *o;
    size_t n = 0;

    (void)state;
    good(sdlora_checkpoint_open(&ckpt, ctx, MODEL, NULL));
    good(sdlora_options_new(&o, "network"));
    good(sdlora_options_set_text(o, "lora_unmatched", "skip"));
    good(sdlora_network_open_with(&net, ckpt, DIALECTS "native.safetensors", o));
    assert_int_equal(sdlora_network_modules(net), 8);
    assert_int_equal(sdlora_network_skipped(net), 0);
    assert_null(sdlora_network_skipped_key(net, 0));
    good(sdlora_network_save_as(net, OUT, "bf16", "lycoris"));
    assert_int_equal(sdlora_network_save_as(net, OUT, NULL, "comfy"), SDLORA_EINVAL);
    assert_int_equal(sdlora_network_save_as(net, OUT, "fp17", NULL), SDLORA_EINVAL);
    assert_int_equal(sdlora_network_open_with(NULL, ckpt, OUT, o), SDLORA_EINVAL);
    while (sdlora_dialect_name(n))
        n++;
    assert_int_equal(n, 7);
    assert_int_equal(sdlora_network_skipped(NULL), 0);
    sdlora_network_unref(net);
    sdlora_options_unref(o);
    sdlora_checkpoint_unref(ckpt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(converted_without_a_model),
        cmocka_unit_test(refusals),
        cmocka_unit_test(handles),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
