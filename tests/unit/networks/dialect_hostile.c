/* SPDX-License-Identifier: MIT */
/* Files of other programs that hold more than layers of the checkpoint, or nothing sound: names cut
 * short, doubled in another spelling, settings that contradict the tensors. */
#include "dialect_test.h"

#include "networks/peft.h"

/* ---- what fits nothing ---- */

enum { ENTRIES = 128 };

static char scratch[64]; /* a file that tests write */

/* The tensors of a file, and room for more. */
static size_t entries(const golden *g, slr_st_entry e[ENTRIES])
{
    size_t n = slr_safetensors_count(g->file);
    assert_true(n + 4 < ENTRIES);
    for (size_t i = 0; i < n; i++)
        e[i].name = slr_safetensors_at(g->file, i, &e[i].t);
    return n;
}

static void log_line(int level, const char *text, void *user)
{
    (void)level;
    snprintf(user, 512, "%s", text);
}

static void unmatched(void **state)
{
    (void)state;
    static const float zeros[64] = {0};
    static slr_st_entry e[ENTRIES];
    static const char *const STRANGE[] = {"unet.down_blocks.9.attn.to_q.lora_A.weight",
                                          "transformer.blocks.0.lora_A.weight",
                                          "unet.conv_in.lora_A.bias", "seasons_greetings"};
    char told[512] = "";
    const slr_log log = {log_line, told, SLR_LOG_WARN};
    const slr_open_config skip = {.skip = true, .log = &log};
    slr_network *net;
    golden g = golden_open(DIALECTS "diffusers.safetensors");
    size_t n = entries(&g, e);
    temp_file(scratch);
    for (size_t i = 0; i < 4; i++)
        e[n + i] = (slr_st_entry){STRANGE[i],
                                  {.dtype = SDLORA_F32, .rank = 1, .dim = {64}, .data = zeros}};
    ok(slr_safetensors_write(NULL, scratch, e, n + 4, NULL, 0));
    assert_true(slr_network_open(&net, NULL, base, scratch) < 0);
    says("transformer.blocks.0.lora_A.weight");
    ok(slr_safetensors_write(NULL, scratch, e, n + 1, NULL, 0));
    assert_int_equal(slr_network_open(&net, NULL, base, scratch), SDLORA_EFORMAT);
    says("1 of 17 tensors match no layer");
    assert_null(strstr(sdlora_last_error()->message, "in the file"));
    says(STRANGE[0]);

    ok(slr_safetensors_write(NULL, scratch, e, n + 4, NULL, 0));
    ok(slr_network_open_with(&net, NULL, base, scratch, &skip));
    assert_int_equal(slr_network_modules(net), 8);
    assert_int_equal(slr_network_skipped(net), 4);
    assert_null(slr_network_skipped_at(net, 4));
    for (size_t i = 0; i < 4; i++) {
        bool found = false;
        for (size_t k = 0; k < 4; k++)
            found = found || !strcmp(slr_network_skipped_at(net, k), STRANGE[i]);
        assert_true(found);
    }
    assert_non_null(strstr(told, "4 of 20 tensors were skipped"));
    compare(net, "diffusers");
    slr_network_unref(net);

    /* nothing left, and what is broken stays refused */
    ok(slr_safetensors_write(NULL, scratch, e + n, 4, NULL, 0));
    assert_int_equal(slr_network_open_with(&net, NULL, base, scratch, &skip), SDLORA_EFORMAT);
    says("holds no network module");
    e[0].t.dim[0]++;
    e[0].t.data = memset(slr_calloc(NULL, 1 << 20, 1), 0, 1 << 20);
    ok(slr_safetensors_write(NULL, scratch, e, n, NULL, 0));
    assert_int_equal(slr_network_open_with(&net, NULL, base, scratch, &skip), SDLORA_EFORMAT);
    slr_free(NULL, (void *)e[0].t.data);
    golden_close(&g);
    unlink(scratch);
}

/* ---- hostile ---- */

static size_t n_mutants;

static void refused(const char *file, const char *word, const char *before)
{
    char after[65];
    slr_network *net;
    int rc = slr_network_open(&net, NULL, base, file);
    if (rc != SDLORA_EFORMAT && rc != SDLORA_ENOTSUP)
        fail_msg("%s: %d %s", word, rc, rc < 0 ? sdlora_last_error()->message : "taken");
    assert_null(net);
    says(word);
    base_hash(base, after);
    assert_string_equal(before, after);
    n_mutants++;
}

/* Names cut short or bent, doubled in another spelling. */
static void bent_names(const char *file, const char *before)
{
    static slr_st_entry e[ENTRIES];
    /* without ".weight", which is 7, a key is what some write */
    static const size_t CUTS[] = {1, 2, 3, 5, 6, 8, 9, 10, 13, 14, 17, 20, 24, 30};
    static const char *const DOUBLES[][2] = {
        {"lora_A.weight", "lora_A.default.weight"},
        {"lora_A.weight", "lora.down.weight"},
        {"lora_A.weight", "lora_down.weight"},
        {"lora_B.weight", "lora_B"},
        {"lora_B.weight", "lora_linear_layer.up.weight"},
    };
    golden g = golden_open(file);
    for (size_t i = 0; i < sizeof CUTS / sizeof *CUTS; i++) {
        char name[256];
        size_t n = entries(&g, e), at = i % n, cut = CUTS[i];
        snprintf(name, sizeof name, "%.*s", (int)(strlen(e[at].name) - cut), e[at].name);
        e[at].name = name;
        ok(slr_safetensors_write(NULL, scratch, e, n, NULL, 0));
        refused(scratch, scratch, before);
    }
    for (size_t i = 0; i < sizeof DOUBLES / sizeof *DOUBLES; i++) {
        char name[256];
        size_t n = entries(&g, e), at = 0;
        while (!slr_ends(e[at].name, DOUBLES[i][0]))
            at++;
        snprintf(name, sizeof name, "%.*s%s", (int)(strlen(e[at].name) - strlen(DOUBLES[i][0])),
                 e[at].name, DOUBLES[i][1]);
        e[n] = e[at];
        e[n++].name = name;
        ok(slr_safetensors_write(NULL, scratch, e, n, NULL, 0));
        refused(scratch, "one tensor in two spellings", before);
        says(e[at].name);
        says(name);
    }
    golden_close(&g);
}

/* A bias of PEFT's for a layer of another width, twice, and without factors. */
static void bent_biases(const char *before)
{
    static slr_st_entry e[ENTRIES];
    static const char *const words[] = {"one number for each output", "one tensor in two spellings",
                                        "without a LoRA's factors"};
    char name[256];
    for (int k = 0; k < 3; k++) {
        golden g = golden_open(DIALECTS "peft_bias/adapter_model.safetensors");
        size_t n = entries(&g, e), at = 0;
        while (!slr_ends(e[at].name, "lora_B.bias"))
            at++;
        if (k == 0) {
            e[at].t.dim[0]--;
        } else if (k == 1) {
            snprintf(name, sizeof name, "%.*s.default.bias", (int)strlen(e[at].name) - 5,
                     e[at].name);
            e[n] = e[at];
            e[n++].name = name;
        } else {
            e[0] = e[at];
            n = 1;
        }
        ok(slr_safetensors_write(NULL, scratch, e, n, NULL, 0));
        refused(scratch, words[k], before);
        golden_close(&g);
    }
}

/* Settings that are no settings, or contradict the tensors. */
static const struct {
    const char *text; /* '@' in front: repeated 100000 times */
    const char *word;
} SETTINGS[] = {
    {"", ""},
    {"{", ""},
    {"[]", "not a JSON object"},
    {"null", ""},
    {"@[", ""},
    {"@{\"a\":", ""},
    {"{\"r\": 4, \"r\": 4}", ""},
    {"{\"r\": 1000000000}", "rank 1000000000"},
    {"{\"r\": 1e300}", "rank 1e+300"},
    {"{\"r\": 0}", "rank 0"},
    {"{\"r\": -4}", "rank -4"},
    {"{\"r\": 4.5}", "rank 4.5"},
    {"{\"r\": 5}", "rank 5"},
    {"{\"r\": \"4\"}", "not a number"},
    {"{\"r\": null}", "not a number"},
    {"{\"r\": [4]}", "not a number"},
    {"{\"r\": 4, \"lora_alpha\": 1e999}", ""},
    {"{\"r\": 4, \"lora_alpha\": \"4\"}", "not a number"},
    {"{\"r\": 4, \"lora_alpha\": {}}", "not a number"},
    {"{\"r\": 4, \"rank_pattern\": {\".*to_q\": 4}}", "expression"},
    {"{\"r\": 4, \"rank_pattern\": {\"(a|b)\": 4}}", "expression"},
    {"{\"r\": 4, \"rank_pattern\": {\"conv_in\": 1000000000}}", "rank 1000000000"},
    {"{\"r\": 4, \"rank_pattern\": {\"conv_in\": \"x\"}}", "not a number"},
    {"{\"r\": 4, \"alpha_pattern\": {\"conv_in\": []}}", "not a number"},
    {"{\"r\": 4, \"alpha_pattern\": {\"conv+in\": 1}}", "expression"},
    {"{\"r\": 4, \"init_lora_weights\": \"pissa_niter_16\"}", "pissa"},
    {"{\"r\": 4, \"init_lora_weights\": \"olora\"}", "olora"},
    {"{\"r\": 4", ""},
    {"{\"r\": 4}x", ""},
    {"\xff\xfe", ""},
};

static void bent_settings(const char *before)
{
    static slr_st_entry e[ENTRIES];
    golden g = golden_open(DIALECTS "peft_dora/adapter_model.safetensors");
    size_t n = entries(&g, e);
    adapter a;
    adapter_begin(&a);
    ok(slr_safetensors_write(NULL, a.weights, e, n, NULL, 0));
    for (size_t i = 0; i < sizeof SETTINGS / sizeof *SETTINGS; i++) {
        const char *text = SETTINGS[i].text;
        slr_buf b;
        slr_buf_init(&b, NULL);
        for (int k = 0; k < (*text == '@' ? 100000 : 1); k++)
            slr_buf_puts(&b, text + (*text == '@'));
        ok(slr_buf_ok(&b));
        ok(slr_file_write(NULL, a.config, b.data ? b.data : "", b.len));
        refused(a.weights, a.config, before);
        says(SETTINGS[i].word);
        /* the same as diffusers' metadata, whose names would have the part in front */
        if (b.len && *text != '{' && (unsigned char)*text < 0x80) {
            const slr_st_pair pair = {SLR_PEFT_METADATA, b.data};
            ok(slr_safetensors_write(NULL, scratch, e, n, &pair, 1));
            refused(scratch, SLR_PEFT_METADATA, before);
        }
        slr_buf_free(&b);
    }
    adapter_end(&a);
    golden_close(&g);
}

static void hostile(void **state)
{
    (void)state;
    char before[65];
    base_hash(base, before);
    temp_file(scratch);
    bent_names(DIALECTS "diffusers.safetensors", before);
    bent_names(DIALECTS "peft_lora/adapter_model.safetensors", before);
    bent_biases(before);
    bent_settings(before);
    print_message("%zu mutants\n", n_mutants);
    assert_true(n_mutants >= 60);
    unlink(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unmatched),
        cmocka_unit_test(hostile),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
