/* SPDX-License-Identifier: MIT */
/* A picture's text, fed back, makes the picture again: for settings of every kind, through files of
 * every format, and when a network goes by another name.  What is not there is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sdlora/sdlora.h>
#include "sample/infotext.h"

#define TINYSD TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define LORA   TEST_ROOT "/data/torch-openmoji-lora.safetensors"

enum { SIDE = 64 };

static sdlora_context *ctx;
static sdlora_checkpoint *ckpt;
static sdlora_generator *gen;
static char dir[64];

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s", sdlora_last_error()->message);
}

static const char *in_dir(const char *name)
{
    static char path[4][128];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof *path, "%s/%s", dir, name);
    return p;
}

static void copy(const char *from, const char *to)
{
    char command[1024];
    snprintf(command, sizeof command, "cp '%s' '%s'", from, to);
    assert_int_equal(system(command), 0);
}

/* "name=value;name=value" over small and quick ones. */
static sdlora_options *options(const char *list)
{
    sdlora_options *o;
    char text[512];
    ok(sdlora_options_new(&o, "generate"));
    ok(sdlora_options_set_text(o, "prompt", "red (apple:1.3), [fruit:stone:0.5]"));
    ok(sdlora_options_set_text(o, "negative", "food, (grey)"));
    ok(sdlora_options_set_int(o, "width", SIDE));
    ok(sdlora_options_set_int(o, "height", SIDE));
    ok(sdlora_options_set_int(o, "steps", 4));
    ok(sdlora_options_set_int(o, "seed", 7));
    snprintf(text, sizeof text, "%s", list);
    for (char *at = strtok(text, ";"); at; at = strtok(NULL, ";")) {
        char *value = strchr(at, '=');
        assert_non_null(value);
        *value = '\0';
        ok(sdlora_options_set_text(o, at, value + 1));
    }
    return o;
}

static sdlora_image *draw(sdlora_generator *g, sdlora_options *o)
{
    sdlora_image *img;
    ok(sdlora_generator_run(g, o, &img, 1));
    return img;
}

static bool same_pixels(const sdlora_image *a, const sdlora_image *b)
{
    int32_t w = sdlora_image_width(a), h = sdlora_image_height(a);
    return w == sdlora_image_width(b) && h == sdlora_image_height(b) &&
           !memcmp(sdlora_image_data(a), sdlora_image_data(b), (size_t)w * (size_t)h * 3);
}

static void same(const sdlora_image *a, const sdlora_image *b, const char *what)
{
    if (strcmp(sdlora_image_text(a), sdlora_image_text(b)) != 0)
        fail_msg("%s:\n%s\nthen:\n%s", what, sdlora_image_text(a), sdlora_image_text(b));
    if (!same_pixels(a, b))
        fail_msg("%s: other pixels from:\n%s", what, sdlora_image_text(a));
}

/* The options that a text alone gives; every note is a failure. */
static sdlora_options *from_text(const char *text)
{
    sdlora_options *o;
    char *notes;
    ok(sdlora_options_new(&o, "generate"));
    ok(sdlora_options_from_infotext(o, ctx, text, &notes));
    if (*notes)
        fail_msg("%s\nof:\n%s", notes, text);
    sdlora_text_free(ctx, notes);
    return o;
}

/* --- the same bytes --- */

/* Known fields stand in the order of the table, which is the original's. */
static void check_order(const char *text)
{
    slr_info i;
    size_t last = 0;
    ok(slr_info_read(&i, NULL, text));
    for (size_t k = 0; k < i.n; k++) {
        const char *key, *option;
        size_t at = 0;
        while ((key = slr_info_key_at(at, &option)) && strcmp(key, i.at[k].key) != 0)
            at++;
        if (!key)
            continue;
        if (at < last)
            fail_msg("%s stands too late in:\n%s", key, text);
        last = at;
    }
    slr_info_free(&i);
}

static void goes_round(sdlora_generator *g, sdlora_options *o, const char *field, const char *what)
{
    sdlora_image *first = draw(g, o);
    const char *text = sdlora_image_text(first);
    if (!strstr(text, field))
        fail_msg("\"%s\" is not in:\n%s", field, text);
    check_order(text);
    sdlora_options *again = from_text(text);
    sdlora_image *second = draw(g, again);
    same(first, second, what);
    sdlora_image_unref(second);
    sdlora_options_unref(again);
    sdlora_image_unref(first);
}

/* What the text must hold, so that no row passes because its setting does nothing. */
static const struct {
    const char *options, *field;
} rows[] = {
    {"cfg=6.5", "CFG scale: 6.5"},
    {"sampler=DPM++ 2M", "Sampler: DPM++ 2M, Schedule type: Karras"},
    {"sampler=DPM++ 2M;scheduler=Exponential;rho=5", "Schedule type: Exponential"},
    {"sampler=Euler;scheduler=Karras;rho=5;sigma_min=0.1;sigma_max=10",
     "Schedule min sigma: 0.1, Schedule max sigma: 10, Schedule rho: 5"},
    {"sampler=Euler;scheduler=Beta;beta_dist_alpha=0.5", "Beta schedule alpha: 0.5"},
    {"sampler=DDIM;eta=0.5", "Eta DDIM: 0.5"},
    {"sampler=UniPC;uni_pc_variant=bh2;uni_pc_order=2;uni_pc_lower_order_final=false",
     "UniPC variant: bh2, UniPC order: 2, UniPC lower order final: False"},
    {"sampler=DPM++ SDE", "Sampler: DPM++ SDE"},
    {"eta=0.7", "Eta: 0.7"},
    {"eta_noise_seed_delta=31337", "ENSD: 31337"},
    {"sampler=Euler;s_churn=20;s_tmin=0.1;s_tmax=10;s_noise=1.01",
     "Sigma churn: 20, Sigma tmin: 0.1, Sigma tmax: 10, Sigma noise: 1.01"},
    {"randn_source=NV", "RNG: NV"},
    {"subseed=9;subseed_strength=0.25", "Variation seed: 9, Variation seed strength: 0.25"},
    {"seed_resize_from_w=128;seed_resize_from_h=64", "Seed resize from: 128x64"},
    {"clip_skip=2", "Clip skip: 2"},
    {"emphasis=No norm", "Emphasis: No norm"},
    {"use_old_scheduling=true", "Old prompt editing timelines: True"},
    {"always_discard_next_to_last_sigma=true", "Discard penultimate sigma: True"},
    {"sgm_noise_multiplier=true", "SGM noise multiplier: True"},
    {"use_downcasted_alpha_bar=true", "Downcast alphas_cumprod: True"},
    {"sd_noise_schedule=Zero Terminal SNR;sampler=DDIM", "Noise Schedule: Zero Terminal SNR"},
    {"s_min_uncond=5;s_min_uncond_all=true", "NGMS: 5, NGMS all steps: True"},
    {"skip_early_cond=0.3", "Skip Early CFG: 0.3"},
    {"cfg_rescale=0.7", "CFG rescale: 0.7"},
    {"mixed_precision=no;vae_tiling=true", "Precision: no, VAE tiling: True"},
    {"enable_hr=true;hr_scale=1.5;denoising_strength=0.6;hr_second_pass_steps=2",
     "Denoising strength: 0.6, RNG: CPU, Hires upscale: 1.5, Hires steps: 2, Hires upscaler: "
     "Latent"},
    {"enable_hr=true;hr_resize_x=96;hr_resize_y=128;hr_upscaler=Lanczos;hr_sampler_name=Euler;"
     "hr_scheduler=Karras;hr_prompt=green, (pear);hr_negative_prompt=a: b",
     "Hires sampler: Euler, Hires prompt: \"green, (pear)\", Hires negative prompt: \"a: b\", "
     "Hires schedule type: Karras, Hires resize: 96x128, Hires upscaler: Lanczos"},
    {"infotext_extra=Frame: {\"a\": [1, 2]}\nlone", "Frame: {\"a\": [1, 2]}, lone, Version"},
    {"prompt=a \"quoted\": text\nwith lines, \xe7\x8c\xab;negative=", "\xe7\x8c\xab\nSteps"},
};

static void a_text_makes_its_picture_again(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        sdlora_options *o = options(rows[k].options);
        goes_round(gen, o, rows[k].field, rows[k].options);
        sdlora_options_unref(o);
    }
}

/* The second pass sees the first's picture through a mask. */
static void an_inpainting_model_in_two_passes(void **state)
{
    (void)state;
    sdlora_checkpoint *inpaint;
    sdlora_generator *own;
    ok(sdlora_checkpoint_open(&inpaint, ctx, "synthetic:tiny-inpaint", NULL));
    ok(sdlora_generator_new(&own, inpaint, NULL));
    sdlora_options *o = options("enable_hr=true;hr_upscaler=Lanczos;inpainting_mask_weight=0.5");
    goes_round(own, o, "Conditional mask weight: 0.5", "inpainting_mask_weight");
    sdlora_options_unref(o);
    sdlora_generator_unref(own);
    sdlora_checkpoint_unref(inpaint);
}

/* Pictures that are made of others: the text tells all but those. */
static void pictures_of_pictures(void **state)
{
    (void)state;
    static const struct {
        bool masked;
        const char *options, *field;
    } cases[] = {
        {false, "denoising_strength=0.6", "Denoising strength: 0.6, RNG: CPU, Version"},
        {false, "denoising_strength=0.5;initial_noise_multiplier=0.9;img2img_extra_noise=0.1",
         "Noise multiplier: 0.9, Extra noise: 0.1"},
        {true, "mask_blur=2", "Mask blur: 2"},
        {true, "inpainting_mask_invert=true;mask_blur=0;mask_round=false",
         "Mask mode: Inpaint not masked, Mask rounding: False"},
        {true, "inpaint_full_res=true;inpaint_full_res_padding=8",
         "Inpaint area: Only masked, Masked area padding: 8"},
        {true, "inpainting_fill=0", "Masked content: fill"},
        {true, "inpainting_fill=2", "Masked content: latent noise"},
        {true, "inpainting_fill=3", "Masked content: latent nothing"},
    };
    static uint8_t black_and_white[SIDE * SIDE * 3];
    sdlora_generator *g;
    sdlora_image *mask;
    ok(sdlora_generator_new(&g, ckpt, NULL));
    sdlora_options *plain = options("");
    sdlora_image *init = draw(g, plain);
    memset(black_and_white + 20 * SIDE * 3, 255, 20 * SIDE * 3);
    ok(sdlora_image_new(&mask, ctx, SIDE, SIDE, black_and_white));
    ok(sdlora_generator_set_init_image(g, init));
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        sdlora_options *o = options(cases[k].options);
        ok(sdlora_generator_set_mask(g, cases[k].masked ? mask : NULL));
        goes_round(g, o, cases[k].field, cases[k].options);
        sdlora_options_unref(o);
    }
    sdlora_image_unref(mask);
    sdlora_image_unref(init);
    sdlora_options_unref(plain);
    sdlora_generator_unref(g);
}

static void through_files_of_every_format(void **state)
{
    (void)state;
    static const char *const names[] = {"f.png", "f.jpg", "f.webp"};
    sdlora_options *o = options("subseed=9;subseed_strength=0.25");
    sdlora_image *first = draw(gen, o);
    for (size_t k = 0; k < 3; k++) {
        char *text;
        ok(sdlora_image_save(first, in_dir(names[k])));
        ok(sdlora_image_read_text(ctx, in_dir(names[k]), &text));
        sdlora_options *again = from_text(text);
        sdlora_image *second = draw(gen, again);
        same(first, second, names[k]);
        sdlora_image_unref(second);
        sdlora_options_unref(again);
        sdlora_text_free(ctx, text);
    }
    sdlora_image_unref(first);
    sdlora_options_unref(o);
}

/* --- networks --- */

static char *match(sdlora_generator *g, sdlora_options *o, const char *text)
{
    char *notes;
    ok(sdlora_generator_match(g, o, text, &notes));
    return notes;
}

static void check_notes(sdlora_generator *g, sdlora_options *o, const char *text, const char *want)
{
    char *notes = match(g, o, text);
    if (want ? !strstr(notes, want) : *notes)
        fail_msg("notes are \"%s\", wanted \"%s\"", notes, want ? want : "");
    sdlora_text_free(ctx, notes);
}

static void networks_are_found_by_their_hash(void **state)
{
    (void)state;
    sdlora_generator *here, *there;
    const char *prompt;
    ok(sdlora_generator_new(&here, ckpt, NULL));
    ok(sdlora_generator_new(&there, ckpt, NULL));
    char a[128], b[128];
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    char command[512];
    snprintf(command, sizeof command, "mkdir '%s' '%s'", a, b);
    assert_int_equal(system(command), 0);
    copy(LORA, in_dir("a/style.safetensors"));
    copy(LORA, in_dir("b/renamed.safetensors"));
    ok(sdlora_generator_add_lora_dir(here, a));
    ok(sdlora_generator_add_lora_dir(there, b));

    sdlora_options *o = options("prompt=apple <lora:style:0.6>, <lora:style:0.3:0.2>");
    sdlora_image *first = draw(here, o);
    assert_non_null(strstr(sdlora_image_text(first), "Lora hashes: \"style: 605d96dc2092\""));
    sdlora_options *again = from_text(sdlora_image_text(first));
    check_notes(here, again, sdlora_image_text(first), NULL);
    sdlora_image *second = draw(here, again);
    same(first, second, "the same name");
    sdlora_image_unref(second);

    check_notes(there, again, sdlora_image_text(first),
                "lora style: goes by the name renamed here");
    ok(sdlora_options_get_text(again, "prompt", &prompt));
    assert_string_equal(prompt, "apple <lora:renamed:0.6>, <lora:renamed:0.3:0.2>");
    second = draw(there, again);
    assert_true(same_pixels(first, second));
    sdlora_image_unref(second);
    sdlora_options_unref(again);
    sdlora_image_unref(first);
    sdlora_options_unref(o);
    sdlora_generator_unref(here);
    sdlora_generator_unref(there);
}

/* A VAE of the directories is chosen by its name, and its hash looked at. */
static void a_vae_is_found_by_its_name(void **state)
{
    (void)state;
    sdlora_generator *g;
    const char *setting;
    char vaes[128], text[512];
    snprintf(vaes, sizeof vaes, "%s/vae", dir);
    assert_int_equal(mkdir(vaes, 0700), 0);
    copy(TINYSD, in_dir("vae/kl.safetensors"));
    ok(sdlora_generator_new(&g, ckpt, NULL));
    ok(sdlora_generator_add_vae_dir(g, vaes));
    sdlora_options *o = options("sd_vae=kl.safetensors");
    sdlora_image *first = draw(g, o);
    assert_non_null(strstr(sdlora_image_text(first), "VAE hash: 48dc8ae778, VAE: kl.safetensors"));
    sdlora_options *again = from_text(sdlora_image_text(first));
    check_notes(g, again, sdlora_image_text(first), NULL);
    ok(sdlora_options_get_text(again, "sd_vae", &setting));
    assert_string_equal(setting, "kl.safetensors");
    sdlora_image *second = draw(g, again);
    same(first, second, "a VAE by name");
    snprintf(text, sizeof text, "p\nSteps: 4, Seed: 1, VAE hash: 0123456789, VAE: kl.safetensors");
    check_notes(g, again, text, "kl.safetensors is another");
    sdlora_image_unref(second);
    sdlora_image_unref(first);
    sdlora_options_unref(again);
    sdlora_options_unref(o);
    sdlora_generator_unref(g);
}

/* Networks that a call sets are told as tags in front of the prompt. */
static void networks_without_a_tag_get_one(void **state)
{
    (void)state;
    sdlora_generator *g;
    sdlora_network *net;
    ok(sdlora_generator_new(&g, ckpt, NULL));
    ok(sdlora_network_open(&net, ckpt, LORA));
    ok(sdlora_generator_set_network(g, net, 0.5, 1));
    sdlora_options *o = options("prompt=apple");
    sdlora_image *first = draw(g, o);
    assert_int_equal(
        strncmp(sdlora_image_text(first), "<lora:torch-openmoji-lora:0.5:1>apple\n", 38), 0);
    ok(sdlora_generator_set_network(g, net, 0, 0));
    ok(sdlora_generator_add_lora_dir(g, TEST_ROOT "/data"));
    sdlora_options *again = from_text(sdlora_image_text(first));
    sdlora_image *second = draw(g, again);
    same(first, second, "a network set by call");
    sdlora_image_unref(second);
    sdlora_options_unref(again);
    sdlora_image_unref(first);
    sdlora_options_unref(o);
    sdlora_network_unref(net);
    sdlora_generator_unref(g);
}

static void what_is_not_here_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *items, *note;
    } cases[] = {
        {"Model hash: 48dc8ae778, Model: tinysd", NULL},
        {"Model hash: 48DC8AE778, Model: tinysd", NULL},
        {"Model hash: 0123456789, Model: other", "hash 0123456789, its name is other"},
        {"Hashes: {\"model\": \"48dc8ae778\"}", NULL},
        {"Hashes: {\"model\": \"0123456789\"}", "hash 0123456789"},
        {"VAE hash: 0123456789, VAE: kl.pt", "its name is kl.pt, here is none but"},
        {"Lora hashes: \"x: 0123456789ab\"", "lora x: is not in the directories"},
        {"Lora hashes: \"y: 0123456789ab\"", NULL}, /* no tag names it */
        {"TI hashes: \"easy: 0123456789ab\"", "embedding easy: is not here"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        char text[512];
        snprintf(text, sizeof text, "p <lora:x:1>\nSteps: 4, Seed: 1, %s", cases[k].items);
        sdlora_options *o = from_text(text);
        check_notes(gen, o, text, cases[k].note);
        sdlora_options_unref(o);
    }
    sdlora_options *o = options("");
    assert_int_equal(sdlora_generator_match(gen, o, "\xff", NULL), SDLORA_EINVAL);
    assert_int_equal(sdlora_generator_match(gen, o, NULL, NULL), SDLORA_EINVAL);
    sdlora_options_unref(o);
}

/* One that two fields tell, and more than anybody writes. */
static void many_networks_are_looked_for_at_once(void **state)
{
    (void)state;
    static char text[16384], prompt[8192];
    sdlora_generator *g;
    const char *now;
    char *notes;
    size_t at = 0, in = 0;
    ok(sdlora_generator_new(&g, ckpt, NULL));
    assert_int_equal(mkdir(in_dir("many"), 0700), 0);
    copy(LORA, in_dir("many/here.safetensors"));
    ok(sdlora_generator_add_lora_dir(g, in_dir("many")));
    for (int i = 0; i < 120; i++)
        in += (size_t)snprintf(prompt + in, sizeof prompt - in, "<lora:n%d:1>", i);
    at = (size_t)snprintf(text, sizeof text,
                          "%s\nSteps: 4, Seed: 1, Hashes: {\"lora:n7\": \"605d96dc2092\"}, Lora "
                          "hashes: \"",
                          prompt);
    for (int i = 0; i < 120; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "n%d: %s, ", i,
                               i == 7 || i == 110 ? "605d96dc2092" : "0123456789ab");
    snprintf(text + at, sizeof text - at, "\"");
    sdlora_options *o = from_text(text);
    notes = match(g, o, text);
    assert_non_null(strstr(notes, "lora n7: goes by the name here here"));
    assert_non_null(strstr(notes, "lora n99: is not in the directories"));
    assert_non_null(strstr(notes, "lora n100: is not looked for"));
    assert_null(strstr(notes, "n101"));
    ok(sdlora_options_get_text(o, "prompt", &now));
    assert_non_null(strstr(now, "<lora:n6:1><lora:here:1><lora:n8:1>"));
    assert_non_null(strstr(now, "<lora:n110:1>"));
    sdlora_text_free(ctx, notes);
    sdlora_options_unref(o);

    static const char twice[] = "p <lora:n7:1>\nSteps: 4, Seed: 1, Hashes: {\"lora:n7\": "
                                "\"605d96dc2092\"}, Lora hashes: \"n7: 605d96dc2092\"";
    o = from_text(twice);
    notes = match(g, o, twice);
    assert_string_equal(notes, "lora n7: goes by the name here here\n");
    sdlora_text_free(ctx, notes);
    sdlora_options_unref(o);
    sdlora_generator_unref(g);
}

static int make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sdlora-match-XXXXXX");
    if (!mkdtemp(dir) || sdlora_context_new(&ctx, NULL, NULL) < 0)
        return -1;
    if (sdlora_checkpoint_open(&ckpt, ctx, TINYSD, NULL) < 0)
        return -1;
    return sdlora_generator_new(&gen, ckpt, NULL) < 0 ? -1 : 0;
}

static int clean(void **state)
{
    char command[128];
    (void)state;
    sdlora_generator_unref(gen);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_makes_its_picture_again),
        cmocka_unit_test(an_inpainting_model_in_two_passes),
        cmocka_unit_test(pictures_of_pictures),
        cmocka_unit_test(through_files_of_every_format),
        cmocka_unit_test(networks_are_found_by_their_hash),
        cmocka_unit_test(a_vae_is_found_by_its_name),
        cmocka_unit_test(networks_without_a_tag_get_one),
        cmocka_unit_test(what_is_not_here_is_told),
        cmocka_unit_test(many_networks_are_looked_for_at_once),
    };
    return cmocka_run_group_tests(tests, make, clean);
}
