/* SPDX-License-Identifier: MIT */
/* The parameters text read: against AUTOMATIC1111 on a corpus, written again and read again, in
 * containers of every kind, as options; and what a megabyte of items costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "io/json.h"
#include "sample/infotext.h"

#define INFOTEXT TEST_ROOT "/golden/infotext.json"
#define FILES    TEST_ROOT "/golden/infotext/"

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

static json_t *golden(const char *path, const char *key, json_t **root)
{
    ok(slr_json_read(root, NULL, path, 64u << 20));
    json_t *list = json_object_get(*root, key);
    assert_non_null(list);
    return list;
}

static const char *str(const json_t *v)
{
    return v ? json_string_value(v) : NULL;
}

/* --- against the original --- */

/* The original keeps a size as two numbers. */
static bool half_of_size(const slr_info *i, const char *key, char out[32])
{
    char base[256];
    int64_t w, h;
    size_t n = strlen(key);
    if (n < 3 || n >= sizeof base || key[n - 2] != '-' || (key[n - 1] != '1' && key[n - 1] != '2'))
        return false;
    memcpy(base, key, n - 2);
    base[n - 2] = '\0';
    if (!slr_info_size(i, base, &w, &h))
        return false;
    snprintf(out, 32, "%lld", (long long)(key[n - 1] == '1' ? w : h));
    return true;
}

static void same_field(const slr_info *i, const char *key, const char *want, const char *text)
{
    char half[32];
    const char *got = !strcmp(key, "Prompt")            ? i->prompt
                      : !strcmp(key, "Negative prompt") ? i->negative
                      : half_of_size(i, key, half)      ? half
                                                        : slr_info_get(i, key);
    if (!got || strcmp(got, want) != 0)
        fail_msg("%s: \"%s\", wanted \"%s\", in:\n%s", key, got ? got : "(none)", want, text);
}

/* What the original has as well: no lone words, no empty values. */
static size_t count_fields(const slr_info *i)
{
    size_t n = 2;
    for (size_t k = 0; k < i->n; k++) {
        const slr_info_field *f = &i->at[k];
        int64_t w, h;
        if (!f->value || !*f->key || (!*f->raw && !f->implied))
            continue;
        /* the prompts of the items are overwritten there */
        if (!strcmp(f->key, "Prompt") || !strcmp(f->key, "Negative prompt"))
            continue;
        n += slr_info_size(i, f->key, &w, &h) ? 2 : 1;
    }
    return n;
}

static void same_as_original(const slr_info *i, const json_t *want, size_t more, const char *text)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)want, key, value)
    {
        char number[32];
        if (json_is_integer(value)) { /* of absent fields */
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
            same_field(i, key, number, text);
        } else if (json_is_boolean(value)) {
            same_field(i, key, json_is_true(value) ? "True" : "False", text);
        } else {
            same_field(i, key, json_string_value(value), text);
        }
    }
    if (count_fields(i) != json_object_size(want) + more)
        fail_msg("%zu fields, wanted %zu and %zu more, in:\n%s", count_fields(i),
                 json_object_size(want), more, text);
}

static void reads_like_the_original(void **state)
{
    (void)state;
    json_t *root, *row;
    size_t k;
    json_t *list = golden(INFOTEXT, "read", &root);
    json_array_foreach(list, k, row)
    {
        slr_info i;
        const char *text = str(json_array_get(row, 0));
        ok(slr_info_read(&i, NULL, text));
        ok(slr_info_complete(&i, NULL));
        same_as_original(&i, json_array_get(row, 1), 0, text);
        slr_info_free(&i);
    }
    assert_true(k > 20);
    json_decref(root);
}

static size_t tail_fields(const json_t *lines)
{
    size_t n = 0, k;
    json_t *line;
    json_array_foreach((json_t *)lines, k, line) n += strchr(str(line), ':') != NULL;
    return n;
}

/* Real texts: all fields, raw JSON whole, lines behind the items kept. */
static void corpus_like_the_original(void **state)
{
    (void)state;
    json_t *root, *row, *pair;
    size_t k, p;
    json_t *list = golden(INFOTEXT, "corpus", &root);
    json_array_foreach(list, k, row)
    {
        slr_info i;
        const char *text = str(json_array_get(row, 0));
        json_t *raw = json_array_get(row, 2), *tail = json_array_get(row, 3);
        ok(slr_info_read(&i, NULL, text));
        json_array_foreach(raw, p, pair)
            same_field(&i, str(json_array_get(pair, 0)), str(json_array_get(pair, 1)), text);
        size_t more = json_array_size(raw) + tail_fields(tail);
        const char *addnet = slr_info_get(&i, "AddNet Enabled");
        ok(slr_info_complete(&i, NULL));
        if (addnet) { /* the extension's tags are ours */
            const char *prompt = str(json_object_get(json_array_get(row, 1), "Prompt"));
            assert_memory_equal(i.prompt, prompt, strlen(prompt));
            assert_non_null(strstr(i.prompt + strlen(prompt), "<lora:"));
            i.prompt = prompt;
        }
        same_as_original(&i, json_array_get(row, 1), more, text);
        slr_info_free(&i);
    }
    assert_true(k >= 60);
    json_decref(root);
}

static void versions_like_the_original(void **state)
{
    (void)state;
    static const char *const keys[] = {"Pad conds v0", "Downcast alphas_cumprod",
                                       "Refiner switch by sampling steps"};
    json_t *root, *row;
    size_t k, decided = 0;
    json_t *list = golden(INFOTEXT, "versions", &root);
    json_array_foreach(list, k, row)
    {
        slr_infotext t;
        slr_info i;
        json_t *want = json_array_get(row, 1);
        slr_infotext_init(&t, NULL, "p", "");
        slr_infotext_add(&t, "Sampler", "DDIM");
        slr_infotext_add(&t, "Refiner", "x");
        slr_infotext_add(&t, "Version", str(json_array_get(row, 0)));
        slr_infotext_int(&t, "Seed", 1);
        char *text = slr_infotext_take(&t);
        ok(slr_info_read(&i, NULL, text));
        ok(slr_info_complete(&i, NULL));
        for (size_t c = 0; c < 3; c++) {
            bool old = want && json_is_array(want) &&
                       json_is_true(json_array_get(json_array_get(want, c), 1));
            const char *value = slr_info_get(&i, keys[c]);
            if ((value && !strcmp(value, "True")) != old)
                fail_msg("version %s: %s", str(json_array_get(row, 0)), keys[c]);
            decided += old;
        }
        slr_info_free(&i);
        slr_free(NULL, text);
    }
    assert_true(k > 30 && decided > 20);
    json_decref(root);
}

/* --- written again --- */

static char *written(const slr_info *i)
{
    slr_infotext t;
    slr_buf item;
    slr_infotext_init(&t, NULL, i->prompt, i->negative);
    slr_buf_init(&item, NULL);
    for (size_t k = 0; k < i->n; k++) {
        item.len = 0;
        if (*i->at[k].key)
            slr_buf_printf(&item, "%s: ", i->at[k].key);
        slr_buf_puts(&item, i->at[k].raw);
        slr_infotext_raw(&t, item.data);
    }
    slr_buf_free(&item);
    return slr_infotext_take(&t);
}

static void same_info(const slr_info *a, const slr_info *b, const char *text)
{
    assert_string_equal(a->prompt, b->prompt);
    assert_string_equal(a->negative, b->negative);
    if (a->n != b->n)
        fail_msg("%zu fields, then %zu:\n%s", a->n, b->n, text);
    for (size_t k = 0; k < a->n; k++) {
        assert_string_equal(a->at[k].key, b->at[k].key);
        assert_string_equal(a->at[k].value, b->at[k].value);
        assert_string_equal(a->at[k].raw, b->at[k].raw);
    }
}

/* Read, written, read: the same fields; and a text in the program's own form is the same bytes. */
static void corpus_goes_round(void **state)
{
    (void)state;
    json_t *root, *row;
    size_t k, same = 0;
    json_t *list = golden(INFOTEXT, "corpus", &root);
    json_array_foreach(list, k, row)
    {
        slr_info a, b;
        const char *text = str(json_array_get(row, 0));
        ok(slr_info_read(&a, NULL, text));
        char *again = written(&a);
        if (a.n) { /* a bare prompt may look like items, which no writer can help */
            ok(slr_info_read(&b, NULL, again));
            same_info(&a, &b, text);
            slr_info_free(&b);
        }
        same += !strcmp(again, text);
        slr_free(NULL, again);
        slr_info_free(&a);
    }
    print_message("%zu of %zu texts come back as the same bytes\n", same, k);
    assert_true(same >= 45);
    json_decref(root);
}

/* --- old and foreign spellings --- */

static void check_tags(const char *items, const char *prompt)
{
    slr_info i;
    slr_buf text;
    slr_buf_init(&text, NULL);
    slr_buf_printf(&text, "p\nSteps: 1, Seed: 1, %s", items);
    ok(slr_info_read(&i, NULL, text.data));
    ok(slr_info_complete(&i, NULL));
    assert_string_equal(i.prompt, prompt);
    slr_info_free(&i);
    slr_buf_free(&text);
}

static void networks_become_tags(void **state)
{
    (void)state;
    check_tags("Hypernet: anime, x: 1", "p<hypernet:anime:1.0>");
    check_tags("Hypernet: anime, Hypernet strength: 0.6", "p<hypernet:anime:0.6>");
    check_tags("AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: a(0123456789ab), "
               "AddNet Weight A 1: 0.5, AddNet Weight B 1: 0.5",
               "p<lora:a:0.5>");
    check_tags("AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: a(0), "
               "AddNet Weight A 1: 0.5, AddNet Weight B 1: 0.25, AddNet Module 2: LoRA, "
               "AddNet Model 2: b",
               "p<lora:a:0.25:0.5><lora:b:1>");
    check_tags("AddNet Enabled: False, AddNet Module 1: LoRA, AddNet Model 1: a(0)", "p");
    check_tags("AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: None", "p");
}

typedef struct heard {
    char text[256];
    int left;
} heard;

static bool hear(void *user, slr_info_hash h)
{
    heard *to = user;
    size_t n = strlen(to->text);
    snprintf(to->text + n, sizeof to->text - n, "%.*s=%.*s ", (int)h.name.n, h.name.p,
             (int)h.hash.n, h.hash.p);
    return --to->left != 0;
}

static void check_hashes(const slr_info *i, const char *kind, int left, const char *want)
{
    heard to = {.left = left};
    slr_info_hashes(i, kind, hear, &to);
    assert_string_equal(to.text, want);
}

static void hashes_of_all_writers(void **state)
{
    (void)state;
    slr_info i;
    ok(slr_info_read(&i, NULL,
                     "p\nSteps: 1, Lora hashes: \"a: 01 , b:02, broken, : 3\", "
                     "Lyco hashes: \"c: 04\", TI hashes: \"e: 05\", AddNet Model 1: d(06), "
                     "Hashes: {\"model\": \"07\", \"LORA:f\": \"08\", \"embed:g\": \"09\", "
                     "\"vae\": \"0a\", \"lora:h\": 3}"));
    check_hashes(&i, "lora", -1, "a=01 b=02 c=04 d=06 f=08 ");
    check_hashes(&i, "lora", 2, "a=01 b=02 ");
    check_hashes(&i, "lora", 4, "a=01 b=02 c=04 d=06 ");
    check_hashes(&i, "embed", -1, "e=05 g=09 ");
    check_hashes(&i, "model", -1, "=07 ");
    check_hashes(&i, "vae", -1, "=0a ");
    slr_info_free(&i);
}

static void fields_can_be_changed(void **state)
{
    (void)state;
    slr_info i;
    ok(slr_info_read(&i, NULL, "p\nSteps: 1, Seed: 2, Model: x"));
    ok(slr_info_set(&i, "Seed", "3", false));
    ok(slr_info_set(&i, "New", "4", true));
    assert_string_equal(slr_info_get(&i, "Seed"), "3");
    assert_string_equal(slr_info_get(&i, "New"), "4");
    assert_int_equal(i.n, 4);
    slr_info_free(&i);
}

/* --- pictures --- */

static void pictures_like_the_original(void **state)
{
    (void)state;
    json_t *root, *row, *value;
    const char *name, *key;
    size_t n = 0;
    json_t *files = golden(FILES "expected.json", "files", &root);
    json_object_foreach(files, name, row)
    {
        slr_image_texts texts;
        slr_image_info info;
        char path[512], *text;
        snprintf(path, sizeof path, FILES "%s", name);
        ok(slr_image_info_read(path, &info));
        ok(slr_image_texts_read(&texts, NULL, path));
        ok(slr_infotext_pick(&text, NULL, &texts, info.width, info.height));
        const char *want = str(json_array_get(row, 0));
        if (!want || !text ? want != text : strcmp(want, text))
            fail_msg("%s: \"%s\", wanted \"%s\"", name, text ? text : "(none)",
                     want ? want : "(none)");
        json_object_foreach(json_array_get(row, 1), key, value)
        {
            const char *got = slr_image_texts_get(&texts, key);
            if (!got || strcmp(got, json_string_value(value)) != 0)
                fail_msg("%s: %s is \"%s\"", name, key, got ? got : "(none)");
        }
        slr_free(NULL, text);
        slr_image_texts_free(&texts);
        n++;
    }
    assert_true(n >= 20);
    json_decref(root);
}

static void pictures_tell_of_themselves(void **state)
{
    (void)state;
    char *text;
    json_t *root;
    ok(slr_picture_info(&text, NULL, FILES "a1111-extras.png"));
    ok(slr_json_parse(&root, text, strlen(text), "info"));
    assert_string_equal(str(json_object_get(root, "kind")), "picture");
    assert_string_equal(str(json_object_get(root, "prompt")), "red apple, (fruit:1.2)");
    assert_string_equal(str(json_object_get(root, "negative_prompt")), "food");
    json_t *fields = json_object_get(root, "fields"), *texts = json_object_get(root, "texts");
    assert_string_equal(str(json_object_get(fields, "Sampler")), "Euler a");
    assert_int_equal(json_object_size(texts), 3);
    json_decref(root);
    slr_free(NULL, text);
    ok(slr_picture_info(&text, NULL, FILES "bare.jpg"));
    ok(slr_json_parse(&root, text, strlen(text), "info"));
    assert_null(json_object_get(root, "prompt"));
    json_decref(root);
    slr_free(NULL, text);
    assert_int_equal(slr_picture_info(&text, NULL, FILES "expected.json"), SDLORA_EFORMAT);
}

/* --- options --- */

static void every_field_has_its_option(void **state)
{
    (void)state;
    const char *key, *option;
    size_t n = 0;
    for (size_t k = 0; (key = slr_info_key_at(k, &option)); k++)
        if (option && !slr_option_find("generate", option))
            fail_msg("%s sets %s, which is no option", key, option);
        else
            n += option != NULL;
    assert_true(n > 50);
}

static void check_option(const sdlora_options *o, const char *name, const char *want)
{
    const char *got = slr_opt_text((slr_opt){o, "generate"}, name);
    if (want ? !got || strcmp(got, want) : got != NULL)
        fail_msg("%s is \"%s\", wanted \"%s\"", name, got ? got : "(none)", want ? want : "(none)");
}

static sdlora_options *options_of(const char *text, const char *given, const char *value,
                                  char **notes)
{
    sdlora_options *o;
    slr_info i;
    slr_buf b;
    ok(slr_options_new(&o, NULL, "generate"));
    if (given)
        ok(slr_options_set_text(o, given, value));
    slr_buf_init(&b, NULL);
    ok(slr_info_read(&i, NULL, text));
    ok(slr_info_complete(&i, NULL));
    ok(slr_info_options(&i, NULL, o, &b));
    slr_info_free(&i);
    *notes = slr_buf_take(&b);
    return o;
}

static void fields_become_options(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
    } rows[] = {
        {"prompt", "a [b:c:0.5]"},
        {"negative", "d"},
        {"steps", "12"},
        {"sampler", "DPM++ 2M SDE"},
        {"scheduler", "Karras"},
        {"cfg", "6.5"},
        {"seed", "7"},
        {"width", "640"},
        {"height", "448"},
        {"clip_skip", "2"},
        {"randn_source", "NV"},
        {"subseed", "9"},
        {"subseed_strength", "0.25"},
        {"seed_resize_from_w", "512"},
        {"seed_resize_from_h", "768"},
        {"eta_noise_seed_delta", "31337"},
        {"enable_hr", "true"},
        {"hr_scale", "1.5"},
        {"hr_second_pass_steps", "5"},
        {"hr_upscaler", "Latent (nearest-exact)"},
        {"hr_prompt", " e\nf"},
        {"denoising_strength", "0.6"},
        {"use_old_scheduling", "true"},
        {"use_downcasted_alpha_bar", "true"},
        {"inpainting_mask_invert", "true"},
        {"inpainting_fill", "2"},
        {"inpaint_full_res", "true"},
        {"inpaint_full_res_padding", "16"},
        {"eta", "0.5"},
        {"emphasis", "No norm"},
        {"infotext_extra", "Script: X/Y/Z plot\nX Values: \"1, 2\"\nFrame: {\"a\": [1, 2]}"},
    };
    char *notes;
    sdlora_options *o = options_of(
        "a [b:c:0.5]\nNegative prompt: d\nSteps: 12, Sampler: DPM++ 2M SDE, Schedule type: Karras, "
        "CFG scale: 6.5, Seed: 7, Size: 640x448, Model hash: 0123456789, Model: x, VAE: y.pt, "
        "Variation seed: 9, Variation seed strength: 0.25, Seed resize from: 512x768, "
        "Denoising strength: 0.6, Clip skip: 2, ENSD: 31337, Mask mode: Inpaint not masked, "
        "Masked content: latent noise, Inpaint area: Only masked, Masked area padding: 16, "
        "Hires prompt: \" e\\nf\", Hires upscale: 1.5, Hires steps: 5, "
        "Hires upscaler: Latent (nearest-exact), Eta: 0.5, Emphasis: No norm, "
        "Lora hashes: \"q: 0123456789ab\", Script: X/Y/Z plot, X Values: \"1, 2\", "
        "Frame: {\"a\": [1, 2]}, Token merging ratio: 0, Version: v1.5.0",
        NULL, NULL, &notes);
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        check_option(o, rows[k].name, rows[k].value);
    assert_string_equal(notes, "");
    slr_free(NULL, notes);
    slr_options_unref(o);
}

static void what_is_set_stays(void **state)
{
    (void)state;
    char *notes;
    sdlora_options *o = options_of("a\nSteps: 12, Seed: 7, Size: 640x448", "seed", "5", &notes);
    check_option(o, "seed", "5");
    check_option(o, "steps", "12");
    check_option(o, "enable_hr", "false");
    slr_free(NULL, notes);
    slr_options_unref(o);
}

/* Rows: what is set beside a file of styles, and what comes of a text that has one of them. */
static void styles_are_options_again(void **state)
{
    (void)state;
    static const struct {
        const char *given, *value, *prompt, *negative, *styles;
    } rows[] = {
        {"steps", "5", "a cat", "old", "film"},
        {"styles", "ink", "a cat", "old", "ink"},
        {"prompt", "a dog", "a dog", "grain, old, red", NULL},
        {"negative", "a dog", "a cat, film still", "a dog", NULL},
    };
    char path[] = "/tmp/sdlora-styles-XXXXXX", *notes;
    static const char csv[] =
        "name,prompt,negative_prompt\nfilm,film still,\"grain, {prompt}, red\"\n"
        "ink,ink,colour\ntagged,film <lora:x:1>,\"grain, {prompt}\"\n";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, csv, sizeof csv - 1) == (ssize_t)sizeof csv - 1);
    close(fd);
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        sdlora_options *o;
        slr_info i;
        slr_buf b;
        ok(slr_options_new(&o, NULL, "generate"));
        ok(slr_options_set_text(o, "styles_file", path));
        ok(slr_options_set_text(o, rows[k].given, rows[k].value));
        slr_buf_init(&b, NULL);
        ok(slr_info_read(
            &i, NULL,
            "a cat, film still\nNegative prompt: grain, old, red\nSteps: 4, Seed: 7, Size: 64x64"));
        ok(slr_info_options(&i, NULL, o, &b));
        check_option(o, "prompt", rows[k].prompt);
        check_option(o, "negative", rows[k].negative);
        check_option(o, "styles", rows[k].styles);
        slr_info_free(&i);
        slr_buf_free(&b);
        slr_options_unref(o);
    }
    static const char *const whole[] = {
        "a <lora:x:1>, film <lora:x:1>\nNegative prompt: grain, old, red",
        "a cat,film still\nNegative prompt: grain, old, red",
        "a cat, film still\nNegative prompt: grain, old, red",
    };
    for (size_t k = 0; k < sizeof whole / sizeof *whole; k++) {
        char text[256];
        snprintf(text, sizeof text, "%s\nSteps: 4, Seed: 7, Size: 64x64%s", whole[k],
                 k == 2 ? ", Hires prompt: \"b, film still\"" : "");
        sdlora_options *o = options_of(text, "styles_file", path, &notes);
        check_option(o, "styles", NULL);
        check_option(o, "negative", "grain, old, red");
        slr_free(NULL, notes);
        slr_options_unref(o);
    }
    unlink(path);
    sdlora_options *o = options_of("a", "styles_file", "", &notes);
    check_option(o, "prompt", "a");
    slr_free(NULL, notes);
    slr_options_unref(o);
}

static void what_cannot_be_followed_is_told(void **state)
{
    (void)state;
    static const char *const parts[] = {"Steps: many", "Face restoration: CodeFormer",
                                        "Sampler: Dreamy", "Size: big"};
    char *notes;
    sdlora_options *o = options_of("a\nSteps: many, Seed: 7, Face restoration: CodeFormer, "
                                   "Sampler: Dreamy, Size: big",
                                   NULL, NULL, &notes);
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++)
        if (!strstr(notes, parts[k]))
            fail_msg("\"%s\" is not among:\n%s", parts[k], notes);
    check_option(o, "steps", "20");
    check_option(o, "sampler", "DPM++ 2M");
    check_option(o, "width", "512");
    slr_free(NULL, notes);
    slr_options_unref(o);
}

/* --- large and odd texts --- */

static char *repeated(const char *unit, size_t bytes)
{
    size_t n = strlen(unit);
    char *text = slr_calloc(NULL, bytes + 1, 1);
    for (size_t i = 0; i + n <= bytes; i += n) /* no letter is cut */
        memcpy(text + i, unit, n);
    return text;
}

/* A quadratic pass over these would take hours. */
static void megabytes(void **state)
{
    (void)state;
    static const char *const units[] = {"aa: 1, ",
                                        "aa: \"b",
                                        "aa: {, ",
                                        "aa: [\"x, ",
                                        "aa: \"\\",
                                        ",",
                                        " : ",
                                        "\nSteps: ",
                                        "aa",
                                        "a/-: {\"",
                                        "aa: {[",
                                        "\xe7\x8c\xab: ",
                                        "Negative prompt:\n"};
    for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
        char *text = repeated(units[k], 1 << 20);
        slr_info i;
        ok(slr_info_read(&i, NULL, text));
        ok(slr_info_complete(&i, NULL));
        slr_info_free(&i);
        slr_free(NULL, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_like_the_original),
        cmocka_unit_test(corpus_like_the_original),
        cmocka_unit_test(versions_like_the_original),
        cmocka_unit_test(corpus_goes_round),
        cmocka_unit_test(networks_become_tags),
        cmocka_unit_test(hashes_of_all_writers),
        cmocka_unit_test(fields_can_be_changed),
        cmocka_unit_test(pictures_like_the_original),
        cmocka_unit_test(pictures_tell_of_themselves),
        cmocka_unit_test(every_field_has_its_option),
        cmocka_unit_test(fields_become_options),
        cmocka_unit_test(what_is_set_stays),
        cmocka_unit_test(styles_are_options_again),
        cmocka_unit_test(what_cannot_be_followed_is_told),
        cmocka_unit_test(megabytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
