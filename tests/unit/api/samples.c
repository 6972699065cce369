/* SPDX-License-Identifier: MIT */
/* Files of sample prompts: kohya's flags, defaults, limits, and what is refused; and what is kept
 * from one draw to the next. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "api/samples.h"
#include "io/file.h"

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

/* --- drawing --- */

#define TINYSD  TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define MODEL   "unit-api-samples.safetensors"
#define PROMPTS "unit-api-samples-drawn.txt"
#define DIR     "unit-api-samples-out"

typedef struct bytes {
    void *data;
    size_t n;
} bytes;

static bytes read_bytes(const char *path)
{
    bytes b;

    assert_int_equal(slr_file_read(NULL, path, 1 << 28, &b.data, &b.n), SDLORA_OK);
    return b;
}

/* The file of the one picture that a draw leaves; its name, which has the date, is dropped. */
static bytes draw(const slr_samples *s)
{
    slr_list names;
    char path[512];

    assert_int_equal(slr_samples_draw(s, 1, 1), SDLORA_OK);
    assert_int_equal(slr_dir_list(&names, NULL, DIR "/sample"), SDLORA_OK);
    assert_int_equal(names.n, 1);
    snprintf(path, sizeof path, DIR "/sample/%s", names.item[0]);
    slr_list_free(&names);
    bytes b = read_bytes(path);
    remove(path);
    return b;
}

/* As a step of training would. */
static void change(slr_network *net, float by)
{
    for (size_t i = 0; i < slr_network_slots(net); i++) {
        const slr_network_slot *slot = slr_network_slot_at(net, i);

        for (size_t k = 0; k < slot->count; k++)
            slr_network_params(net)[slot->offset + k] += by * (float)(k % 5);
    }
    slr_network_touch(net);
}

static sdlora_options *draw_options(void)
{
    sdlora_options *o;

    assert_int_equal(sdlora_options_new(&o, "train"), SDLORA_OK);
    assert_int_equal(sdlora_options_set_text(o, "sample_prompts", PROMPTS), SDLORA_OK);
    assert_int_equal(sdlora_options_set_text(o, "output_dir", DIR), SDLORA_OK);
    return o;
}

/* A run's second samples: the picture that a new generator would draw, but the model's file, which
 * is another one by now, is not hashed again; and training has its memory back in between. */
static void one_generator_for_a_run(void **state)
{
    static const char prompt[] = "red apple --w 64 --h 64 --s 2 --d 5\n";
    bytes model = read_bytes(TINYSD);
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt;
    sdlora_network *net;
    sdlora_options *o = draw_options();
    slr_generator *kept = NULL, *fresh = NULL;
    slr_bpe *bpe;

    (void)state;
    assert_int_equal(slr_file_write(NULL, MODEL, model.data, model.n), SDLORA_OK);
    assert_int_equal(slr_file_write(NULL, PROMPTS, prompt, strlen(prompt)), SDLORA_OK);
    assert_int_equal(sdlora_context_new(&ctx, NULL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_checkpoint_open(&ckpt, ctx, MODEL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_network_new(&net, ckpt, NULL, 1), SDLORA_OK);
    assert_int_equal(slr_api_bpe(ctx, &bpe), SDLORA_OK); /* the context's: not of the samples */
    slr_samples s = {
        .ctx = ctx, .base = ckpt->base, .network = net->net, .gen = &kept, .train = {o, "train"}};
    uint64_t before = sdlora_context_memory_used(ctx);
    bytes first = draw(&s);
    uint64_t between = sdlora_context_memory_used(ctx);

    change(net->net, 0.01f);
    assert_int_equal(slr_file_write(NULL, MODEL, model.data, model.n - 1), SDLORA_OK);
    bytes second = draw(&s);
    assert_int_equal(slr_file_write(NULL, MODEL, model.data, model.n), SDLORA_OK);
    s.gen = &fresh;
    bytes want = draw(&s);
    assert_int_equal(second.n, want.n);
    assert_memory_equal(second.data, want.data, want.n);
    assert_true(first.n != second.n || memcmp(first.data, second.data, first.n) != 0);
    /* a generator at rest is its struct with the schedule: 13 KB; awake it holds 42 MB here */
    print_message("%llu bytes between two draws\n", (unsigned long long)(between - before));
    assert_true(between - before < 1 << 17);

    slr_generator_free(kept);
    slr_generator_free(fresh);
    sdlora_network_unref(net);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
    sdlora_options_unref(o);
    slr_free(NULL, model.data);
    slr_free(NULL, first.data);
    slr_free(NULL, second.data);
    slr_free(NULL, want.data);
    remove(MODEL);
    remove(PROMPTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_of_a_line),
        cmocka_unit_test(list_of_objects),
        cmocka_unit_test(refusals),
        cmocka_unit_test(one_generator_for_a_run),
    };

    return cmocka_run_group_tests_name("samples", tests, NULL, NULL);
}
