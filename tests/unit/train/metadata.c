/* SPDX-License-Identifier: MIT */
/* The metadata of a run's last file against that of sd-scripts for the same arguments and folders
 * (tests/golden/metadata.json): every key but the volatile ones.  Its run "toml" needs
 * dataset_config, which is refused here. */
#include "trainer_test.h"

static bool is_volatile(json_t *golden, const char *key)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(golden, "volatile"), i, one)
    {
        if (!strcmp(json_string_value(one), key))
            return true;
    }
    return false;
}

static void make_folders(json_t *golden)
{
    const char *top, *sub;
    json_t *subs, *captions, *caption;
    size_t i;
    json_object_foreach(json_object_get(golden, "folders"), top, subs)
    {
        json_object_foreach(subs, sub, captions)
        {
            json_array_foreach(captions, i, caption)
            {
                char name[256];
                snprintf(name, sizeof name, "%s/%s/%zu.png", top, sub, i);
                put_picture(in_scratch(name), i % 2 ? 128 : 64, 64, (uint32_t)i);
                snprintf(name, sizeof name, "%s/%s/%zu.txt", top, sub, i);
                if (json_is_string(caption))
                    put_text(in_scratch(name), json_string_value(caption));
            }
        }
    }
}

/* --- arguments to options --- */

typedef struct arguments {
    sdlora_options *train, *network, *dataset;
} arguments;

static void set_argument(const arguments *a, const char *name, const char *value)
{
    sdlora_options *const kinds[] = {a->train, a->network, a->dataset};
    char text[1200];
    if (!strncmp(value, "ROOT", 4)) {
        snprintf(text, sizeof text, "%s%s", scratch_dir, value + 4);
        value = text;
    }
    for (size_t k = 0; k < 3; k++)
        if (slr_option_find(slr_options_kind(kinds[k]), name)) {
            assert_ok(slr_options_set_text(kinds[k], name, value));
            return;
        }
    if (strcmp(name, "pretrained_model_name_or_path"))
        fail_msg("no option %s", name);
}

static arguments read_arguments(json_t *list)
{
    arguments a;
    assert_ok(slr_options_new(&a.train, NULL, "train"));
    assert_ok(slr_options_new(&a.network, NULL, "network"));
    assert_ok(slr_options_new(&a.dataset, NULL, "dataset"));
    for (size_t i = 0; i < json_array_size(list);) {
        const char *name = json_string_value(json_array_get(list, i++)) + 2;
        char value[1024] = "";
        while (i < json_array_size(list)) {
            const char *word = json_string_value(json_array_get(list, i));
            if (!strncmp(word, "--", 2))
                break;
            size_t n = strlen(value);
            snprintf(value + n, sizeof value - n, "%s%s", n ? "\n" : "", word);
            i++;
        }
        set_argument(&a, name, *value ? value : "true");
    }
    return a;
}

/* --- comparing --- */

/* JSON values are compared as such: kohya's order of folders is the file system's. */
static bool same(const char *got, const char *want)
{
    if (!got || *want != '{')
        return got && !strcmp(got, want);
    json_t *a, *b;
    assert_ok(slr_json_parse(&a, got, strlen(got), "got"));
    assert_ok(slr_json_parse(&b, want, strlen(want), "want"));
    bool equal = json_equal(a, b) != 0;
    json_decref(a);
    json_decref(b);
    return equal;
}

static void compare(json_t *golden, const char *run, const slr_safetensors *f, json_t *want)
{
    const char *key;
    json_t *value;
    int wrong = 0;
    json_object_foreach(want, key, value)
    {
        const char *got = slr_safetensors_meta(f, key), *text = json_string_value(value);
        bool free_value = is_volatile(golden, key);
        if (free_value ? !got : !same(got, text)) {
            print_message("%s: %s is %s, not %s\n", run, key, got ? got : "absent", text);
            wrong++;
        }
    }
    for (size_t i = 0; i < slr_safetensors_meta_count(f); i++) {
        const char *text;
        key = slr_safetensors_meta_at(f, i, &text);
        if (!json_object_get(want, key) && strcmp(key, "format")) {
            print_message("%s: %s = %s is not sd-scripts'\n", run, key, text);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

static void run_and_compare(json_t *golden, const char *name)
{
    size_t i;
    json_t *run = NULL, *one;
    json_array_foreach(json_object_get(golden, "runs"), i, one)
    {
        if (!strcmp(json_string_value(json_object_get(one, "name")), name))
            run = one;
    }
    assert_non_null(run);
    arguments a = read_arguments(json_object_get(run, "args"));
    job j = {0};
    assert_ok(slr_dataset_open(&j.data, NULL, (slr_log){0}, a.dataset));
    assert_ok(slr_network_make(&j.net, base, a.network, 1));
    const slr_trainer_config config = {.mem = slr_checkpoint_mem(base),
                                       .devices = devices,
                                       .base = base,
                                       .network = j.net,
                                       .data = j.data,
                                       .bpe = bpe,
                                       .opts = a.train};
    assert_ok(slr_trainer_new(&j.t, &config));
    job_run(&j, j.t->total);

    slr_safetensors *f;
    char file[128];
    snprintf(file, sizeof file, "out/%s.safetensors", name);
    assert_ok(slr_safetensors_open(&f, NULL, in_scratch(file), true));
    assert_int_equal(slr_safetensors_count(f), json_integer_value(json_object_get(run, "tensors")));
    compare(golden, name, f, json_object_get(run, "metadata"));
    slr_safetensors_close(f);
    job_close(&j);
    slr_options_unref(a.train);
    slr_options_unref(a.network);
    slr_options_unref(a.dataset);
}

static void metadata_is_that_of_sd_scripts(void **state)
{
    (void)state;
    json_t *golden = golden_json("metadata.json");
    make_folders(golden);
    run_and_compare(golden, "plain");
    run_and_compare(golden, "bare");
    run_and_compare(golden, "full");
    json_decref(golden);
}

/* --- dim_from_weights --- */

static void expect_meta(const char *const *network, const char *dim, const char *alpha,
                        const char *args)
{
    sdlora_options *o = options_of("network", LIST("dim_from_weights", "true"), network);
    job from = job_open(&(job_spec){.network = LIST("network_dim", "3", "network_alpha", "2")});
    job j = {.data = open_folder(pictures_dir(), NULL)};
    assert_ok(slr_network_make_like(&j.net, base, o, from.net));
    assert_int_equal(slr_network_rank(j.net, 0), 3);
    sdlora_options *train = options_of("train", LIST("max_train_steps", "1"), NULL);
    const slr_trainer_config config = {.mem = slr_checkpoint_mem(base),
                                       .devices = devices,
                                       .base = base,
                                       .network = j.net,
                                       .data = j.data,
                                       .bpe = bpe,
                                       .opts = train};
    assert_ok(slr_trainer_new(&j.t, &config));

    slr_safetensors *f;
    const char *path = in_scratch("like.safetensors");
    assert_ok(slr_trainer_save(j.t, path));
    assert_ok(slr_safetensors_open(&f, NULL, path, true));
    assert_string_equal(slr_safetensors_meta(f, "ss_network_dim"), dim);
    assert_string_equal(slr_safetensors_meta(f, "ss_network_alpha"), alpha);
    const char *got = slr_safetensors_meta(f, "ss_network_args");
    assert_string_equal(got ? got : "", args);
    slr_safetensors_close(f);
    job_close(&j);
    job_close(&from);
    slr_options_unref(train);
    slr_options_unref(o);
}

/* train_network.py: "ss_network_dim": args.network_dim, whatever the network; and net_kwargs has
 * no "dropout" on the road of dim_from_weights. */
static void dim_from_weights_tells_the_arguments(void **state)
{
    (void)state;
    expect_meta(NULL, "None", "1", "");
    expect_meta(LIST("network_dim", "7", "network_alpha", "5", "network_dropout", "0.5",
                     "network_args", "conv_dim=4"),
                "7", "5.0", "{\"conv_dim\": \"4\"}");
}

/* net_kwargs["dropout"] is what network_args say, as text and in its place, or else the option;
 * what was given both ways is told once. */
static void arguments_are_told_once(void **state)
{
    (void)state;
    static const struct {
        const char *args, *told;
    } cases[] = {
        {"rank_dropout=0.125", "{\"rank_dropout\": \"0.125\", \"dropout\": 0.5}"},
        {" dropout=0.25\n\nconv_dim=2 ",
         "{\"dropout\": \"0.25\", \"conv_dim\": \"2\", \"rank_dropout\": \"0.125\"}"},
        {"conv_dim=2", "{\"conv_dim\": \"2\", \"rank_dropout\": \"0.125\", \"dropout\": 0.5}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        slr_safetensors *f;
        const char *path = in_scratch("args.safetensors");
        job j = job_open(&(job_spec){.train = LIST("max_train_steps", "1"),
                                     .network = LIST("network_dropout", "0.5", "rank_dropout",
                                                     "0.125", "network_args", cases[i].args)});
        assert_ok(slr_trainer_save(j.t, path));
        assert_ok(slr_safetensors_open(&f, NULL, path, true));
        assert_string_equal(slr_safetensors_meta(f, "ss_network_args"), cases[i].told);
        slr_safetensors_close(f);
        job_close(&j);
    }
}

/* A value that JSON has to escape can be read back. */
static void arguments_are_json(void **state)
{
    (void)state;
    char args[256];
    const char *preset = in_scratch("a \"b\"\\\xc3\xa9.toml");
    put_file(preset, "enable_conv = false", 19);
    snprintf(args, sizeof args, "preset=%s", preset);
    job j = job_open(
        &(job_spec){.train = LIST("max_train_steps", "1"),
                    .network = LIST("network_module", "lycoris.kohya", "network_args", args)});
    slr_safetensors *f;
    json_t *told;
    const char *path = in_scratch("json.safetensors");
    assert_ok(slr_trainer_save(j.t, path));
    assert_ok(slr_safetensors_open(&f, NULL, path, true));
    const char *text = slr_safetensors_meta(f, "ss_network_args");
    assert_ok(slr_json_parse(&told, text, strlen(text), "ss_network_args"));
    assert_string_equal(json_string_value(json_object_get(told, "preset")), preset);
    json_decref(told);
    slr_safetensors_close(f);
    job_close(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_is_that_of_sd_scripts),
        cmocka_unit_test(dim_from_weights_tells_the_arguments),
        cmocka_unit_test(arguments_are_told_once),
        cmocka_unit_test(arguments_are_json),
    };
    return cmocka_run_group_tests(tests, trainer_setup, trainer_teardown);
}
