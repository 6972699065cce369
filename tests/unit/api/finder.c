/* SPDX-License-Identifier: MIT */
/* Finding networks by tag: file stem before alias, nearer folders first, opened once; and what
 * sdlora_file_info tells of such a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "api/api.h"
#include "api/finder.h"
#include "base/status.h"
#include "io/file.h"
#include "io/hash.h"
#include "networks/hypernet.h"
#include "networks/netfile.h"

#define MODEL    TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define HYPERNET TEST_ROOT "/golden/hypernet/relu.pt"

typedef struct setup {
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt;
} setup;

static void save(const setup *s, const char *path, const char *alias, int64_t dim)
{
    sdlora_options *o;
    sdlora_network *net;
    slr_meta *meta;

    assert_int_equal(sdlora_options_new(&o, "network"), SDLORA_OK);
    assert_int_equal(sdlora_options_set_int(o, "network_dim", dim), SDLORA_OK);
    assert_int_equal(sdlora_network_new(&net, s->ckpt, o, 1), SDLORA_OK);
    assert_int_equal(slr_meta_new(&meta, NULL), SDLORA_OK);
    slr_meta_set(meta, "ss_output_name", alias);
    slr_meta_set(meta, "ss_base_model_version", "sd_v1");
    slr_meta_set(meta, "ss_tag_frequency",
                 "{\"1_x\": {\"trigger\": 10, \"often\": 9, \"rare\": 2}}");
    slr_meta_set(meta, "ss_dataset_dirs", "{\"1_x\": {\"n_repeats\": 1, \"img_count\": 10}}");
    assert_int_equal(slr_netfile_save(net->net, path, SDLORA_F16, meta), SDLORA_OK);
    slr_meta_free(meta);
    sdlora_network_unref(net);
    sdlora_options_unref(o);
}

static int64_t rank_of(slr_finder *f, const char *name)
{
    slr_network *net;

    if (slr_finder_find(f, "lora", name, &net) < 0)
        return -1;
    int64_t rank = slr_network_rank(net, 0);
    slr_network_unref(net);
    return rank;
}

static void names_and_aliases(void **state)
{
    const setup *s = *state;
    slr_finder *f;
    slr_network *a, *b;

    assert_int_equal(slr_finder_new(&f, NULL, s->ckpt->base), SDLORA_OK);
    assert_int_equal(rank_of(f, "one"), -1);
    assert_non_null(strstr(sdlora_last_error()->message, "no directory"));
    assert_int_equal(slr_finder_add(f, "api-finder/none"), SDLORA_ENOTFOUND);
    assert_int_equal(slr_finder_add(f, "api-finder"), SDLORA_OK);
    assert_int_equal(rank_of(f, "one"), 1);
    assert_int_equal(rank_of(f, "two"), 2);   /* the file of that name, not the alias of `one` */
    assert_int_equal(rank_of(f, "three"), 3); /* in a folder below */
    assert_int_equal(rank_of(f, "its other name"), 3); /* by ss_output_name */
    assert_int_equal(rank_of(f, "four"), -1);
    assert_non_null(strstr(sdlora_last_error()->message, "<lora:four>"));
    assert_int_equal(slr_finder_find(f, "lora", "three", &a), SDLORA_OK);
    assert_int_equal(slr_finder_find(f, "lora", "its other name", &b), SDLORA_OK);
    assert_ptr_equal(a, b); /* opened once */
    slr_network_unref(a);
    slr_network_unref(b);
    slr_finder_free(f);
}

/* A name in two files is nobody's; the same file by another way is one file. */
static void aliases_of_two(void **state)
{
    const setup *s = *state;
    slr_finder *f;

    save(s, "api-finder/sub/twin.safetensors", "twin of both", 4);
    assert_int_equal(slr_finder_new(&f, NULL, s->ckpt->base), SDLORA_OK);
    assert_int_equal(slr_finder_add(f, "api-finder"), SDLORA_OK);
    assert_int_equal(slr_finder_add(f, "api-finder/sub"), SDLORA_OK);
    assert_int_equal(rank_of(f, "twin of both"), 4);
    save(s, "api-finder/other.safetensors", "None", 5);
    assert_int_equal(rank_of(f, "None"), -1); /* A1111's word for no network */
    save(s, "api-finder/other.safetensors", "twin of all", 5);
    save(s, "api-finder/sub/twin.safetensors", "twin of all", 4);
    assert_int_equal(rank_of(f, "twin of all"), -1);
    assert_non_null(strstr(sdlora_last_error()->message, "sub/twin.safetensors"));
    assert_int_equal(rank_of(f, "twin"), 4);
    slr_finder_free(f);
    unlink("api-finder/other.safetensors");
    unlink("api-finder/sub/twin.safetensors");
}

/* A LoRA and a hypernetwork may share a directory and a name; a hash picks among files. */
static void hypernets_beside_loras(void **state)
{
    const setup *s = *state;
    static const char copy[] = "api-finder/one.pt";
    char legacy[9], full[65], name[32];
    slr_finder *f;
    slr_network *net;
    void *bytes;
    size_t n;

    assert_int_equal(slr_file_read(NULL, HYPERNET, 1 << 20, &bytes, &n), SDLORA_OK);
    assert_int_equal(slr_file_write(NULL, copy, bytes, n), SDLORA_OK);
    slr_free(NULL, bytes);
    assert_int_equal(slr_hash_file(copy, full), SDLORA_OK);
    assert_int_equal(slr_hash_legacy(copy, legacy), SDLORA_OK);
    assert_int_equal(slr_finder_new(&f, NULL, s->ckpt->base), SDLORA_OK);
    assert_int_equal(slr_finder_add(f, "api-finder"), SDLORA_OK);
    assert_int_equal(rank_of(f, "one"), 1);
    const char *const hashes[] = {NULL, legacy, full};
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, hashes[i] ? "one(%.10s)" : "one", hashes[i]);
        assert_int_equal(slr_finder_find(f, "hypernet", name, &net), SDLORA_OK);
        assert_true(slr_network_is_hyper(net));
        slr_network_unref(net);
    }
    assert_int_equal(slr_finder_find(f, "hypernet", "one(0123456789)", &net), SDLORA_ENOTFOUND);
    assert_non_null(strstr(sdlora_last_error()->message, "<hypernet:one(0123456789)>"));
    slr_finder_free(f);
}

static void a_look_at_a_network(void **state)
{
    static const char *const wanted[] = {
        "\"kind\": \"lora\"",
        "\"family\": \"sd1\"",
        "\"ranks\": {\"2\": 156}",
        "\"alphas\": {\"1\": 156}",
        "\"trigger_words\": [\"trigger\", \"often\"]",
        "\"F16\"",
        "\"autov2\"",
        "\"addnet\"",
        "\"parts\": {\"text encoder\": 36, \"UNet\": 120}",
    };
    const setup *s = *state;
    char *json;

    assert_int_equal(sdlora_file_info(s->ctx, "api-finder/two.safetensors", 1, &json), SDLORA_OK);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!strstr(json, wanted[i]))
            fail_msg("%s is not in %s", wanted[i], json);
    assert_null(strstr(json, "\"rare\","));
    sdlora_text_free(s->ctx, json);
    assert_int_equal(sdlora_file_info(s->ctx, HYPERNET, 0, &json), SDLORA_OK);
    assert_non_null(strstr(json, "\"kind\": \"hypernetwork\""));
    assert_non_null(strstr(json, "\"activation_func\": \"relu\""));
    assert_non_null(strstr(json, "\"layer_structure.1\": \"0.25\""));
    sdlora_text_free(s->ctx, json);
    assert_int_equal(sdlora_file_info(s->ctx, "api-finder/none", 0, &json), SDLORA_ENOTFOUND);
    assert_null(json);
}

int main(void)
{
    setup s;

    if (sdlora_context_new(&s.ctx, NULL, NULL) < 0 ||
        sdlora_checkpoint_open(&s.ckpt, s.ctx, MODEL, NULL) < 0)
        return 1;
    mkdir("api-finder", 0777);
    mkdir("api-finder/sub", 0777);
    save(&s, "api-finder/one.safetensors", "two", 1);
    save(&s, "api-finder/two.safetensors", "x", 2);
    save(&s, "api-finder/sub/three.safetensors", "its other name", 3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(names_and_aliases, &s),
        cmocka_unit_test_prestate(aliases_of_two, &s),
        cmocka_unit_test_prestate(hypernets_beside_loras, &s),
        cmocka_unit_test_prestate(a_look_at_a_network, &s),
    };
    int failed = cmocka_run_group_tests_name("finder", tests, NULL, NULL);
    sdlora_checkpoint_unref(s.ckpt);
    sdlora_context_unref(s.ctx);
    return failed;
}
