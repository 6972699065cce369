/* SPDX-License-Identifier: MIT */
/* Files of other programs: each opens, adapts the layers that its writer meant, and changes weights
 * and outputs as there.  Keys of SDXL by names and shapes. */
#include "dialect_test.h"

#include "io/json.h"
#include "networks/dialect.h"
#include "networks/info.h"

/* ---- reading ---- */

static const struct {
    const char *name, *file, *dialect, *algo;
    size_t modules;
} FILES[] = {
    {"kohya", "kohya.pt", "kohya", "lora", 8},
    {"ldm", "ldm.safetensors", "kohya", "lora", 8},
    {"native", "native.safetensors", "native", "lora", 8},
    {"onetrainer", "onetrainer.safetensors", "kohya", "lora", 8},
    {"lycoris", "lycoris.safetensors", "lycoris", "lora", 36},
    {"diffusers", "diffusers.safetensors", "diffusers", "lora", 8},
    {"diffusers_metadata", "diffusers_metadata.safetensors", "diffusers", "lora", 8},
    {"diffusers_old", "diffusers_old.bin", "diffusers-old", "lora", 5},
    {"diffusers_processor", "diffusers_processor.safetensors", "diffusers-processor", "lora", 5},
    {"processor_bare", "processor_bare.ckpt", "diffusers-processor", "lora", 3},
    {"peft_lora", "peft_lora/adapter_model.safetensors", "peft", "lora", 6},
    {"peft_bias", "peft_bias/adapter_model.safetensors", "peft", "lora", 6},
    {"peft_dora", "peft_dora/adapter_model.safetensors", "peft", "lora", 6},
    {"peft_loha", "peft_loha/adapter_model.safetensors", "peft", "loha", 6},
    {"peft_loha_flat", "peft_loha_flat/adapter_model.safetensors", "peft", "loha", 6},
    {"peft_lokr", "peft_lokr/adapter_model.safetensors", "peft", "lokr", 6},
    {"peft_lokr_full", "peft_lokr_full/adapter_model.safetensors", "peft", "lokr", 6},
    {"peft_ia3", "peft_ia3/adapter_model.safetensors", "peft", "ia3", 3},
    {"peft_oft", "peft_oft/adapter_model.safetensors", "peft", "oft-v2", 3},
};

static void reading(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        char path[256];
        slr_network *net;
        if (!slr_kind_named(FILES[i].algo)) {
            print_message("%s waits for %s\n", FILES[i].name, FILES[i].algo);
            continue;
        }
        path_of(path, FILES[i].file);
        ok(slr_network_open(&net, NULL, base, path));
        assert_int_equal(slr_network_modules(net), FILES[i].modules);
        compare(net, FILES[i].name);
        slr_network_unref(net);
    }
}

/* ---- a look without a checkpoint ---- */

static json_t *look(const char *path)
{
    char *text;
    json_t *j;
    ok(slr_file_info(&text, NULL, (slr_log){0}, path, false));
    ok(slr_json_parse(&j, text, strlen(text), path));
    slr_free(NULL, text);
    return j;
}

static void info(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        char path[256];
        path_of(path, FILES[i].file);
        json_t *j = look(path), *n = json_object_get(j, "network");
        assert_string_equal(json_string_value(json_object_get(j, "kind")), "lora");
        assert_string_equal(json_string_value(json_object_get(n, "dialect")), FILES[i].dialect);
        assert_int_equal(json_integer_value(json_object_get(n, "modules")), FILES[i].modules);
        assert_int_equal(
            json_integer_value(json_object_get(json_object_get(n, "algorithms"), FILES[i].algo)),
            FILES[i].modules);
        assert_int_equal(json_object_size(json_object_get(n, "algorithms")), 1);
        const char *naming = json_string_value(json_object_get(n, "naming"));
        bool ldm = !strcmp(FILES[i].name, "ldm") || !strcmp(FILES[i].name, "native");
        assert_string_equal(naming, ldm ? "ldm" : "diffusers");
        json_decref(j);
    }
    json_t *j = look(TINYSD);
    assert_null(json_object_get(j, "network"));
    json_decref(j);
}

/* ---- SDXL ---- */

static const slr_target *target_of(const slr_targets *t, const char *key)
{
    slr_key k;
    return slr_key_read(&k, key) ? slr_key_target(t, &k) : NULL;
}

static void sdxl_group(const slr_targets *t, json_t *names, json_t *others, size_t *seen)
{
    const char *name;
    json_t *shapes;
    json_object_foreach(names, name, shapes)
    {
        char key[320];
        const slr_target *x = target_named(t, name, strlen(name));
        if (!x)
            fail_msg("%s is not a name here", name);
        json_t *down = json_array_get(shapes, 0), *up = json_array_get(shapes, 1);
        assert_int_equal(json_integer_value(json_array_get(down, 1)), x->in);
        assert_int_equal(json_integer_value(json_array_get(up, 0)), x->out);
        if (json_array_size(down) == 4)
            assert_int_equal(json_integer_value(json_array_get(down, 2)), x->kh);
        snprintf(key, sizeof key, "%s.lora_down.weight", name);
        assert_ptr_equal(target_of(t, key), x);
        const char *other = json_string_value(json_object_get(others, name));
        if (other)
            snprintf(key, sizeof key, "%s.lora_down.weight", other);
        if (target_of(t, key) != x)
            fail_msg("%s does not mean %s", key, name);
        snprintf(key, sizeof key, "%s.%s.lora_B.default.weight",
                 x->part == SLR_PART_UNET ? "unet"
                 : x->part == SLR_PART_TE ? "text_encoder"
                                          : "text_encoder_2",
                 x->path);
        assert_ptr_equal(target_of(t, key), x);
        ++*seen;
    }
}

/* sd-scripts' names of every layer and diffusers', of a LoRA and of what a LoCon adds. */
static void sdxl_names(void **state)
{
    (void)state;
    json_t *j;
    slr_checkpoint *c;
    slr_targets *t;
    size_t lora = 0, locon = 0;
    ok(slr_json_read(&j, NULL, DIALECTS "keys_sdxl.json", 16 << 20));
    ok(slr_checkpoint_shapes(&c, "sdxl", &CONFIG));
    ok(slr_targets_new(&t, NULL, c));
    json_t *others = json_object_get(j, "diffusers");
    sdxl_group(t, json_object_get(j, "lora"), others, &lora);
    sdxl_group(t, json_object_get(j, "locon"), others, &locon);
    assert_int_equal(lora, 986); /* 722 of the UNet, 72 and 192 of the encoders */
    assert_int_equal(locon, 66);
    size_t rule[4] = {0};
    for (size_t i = 0; i < slr_targets_count(t); i++)
        rule[slr_target_rule(slr_targets_at(t, i))]++;
    assert_int_equal(rule[SLR_TARGET_LINEAR], 986);
    assert_int_equal(rule[SLR_TARGET_CONV] + rule[SLR_TARGET_CONV_LINEAR], 66);
    slr_targets_free(t);
    slr_checkpoint_unref(c);
    json_decref(j);
}

/* ---- keys ---- */

static void spellings(void **state)
{
    (void)state;
    static const struct {
        const char *key, *module, *leaf;
        int dialect, parts;
        bool peft;
    } CASES[] = {
#define U (1 << SLR_PART_UNET)
#define T (1 << SLR_PART_TE)
#define B (1 << SLR_PART_TE2)
        {"lora_unet_a_b.lora_down.weight", "a_b", "lora_down.weight", SLR_DIALECT_KOHYA, U, false},
        {"lora_te_a.alpha", "a", "alpha", SLR_DIALECT_KOHYA, T, false},
        {"lora_te2_a.hada_w1_a", "a", "hada_w1_a", SLR_DIALECT_KOHYA, B, false},
        {"oft_unet_a.oft_blocks", "a", "oft_blocks", SLR_DIALECT_KOHYA, U, false},
        {"lycoris_a.lokr_w1", "a", "lokr_w1", SLR_DIALECT_LYCORIS, U | T | B, false},
        {"unet.a.0.b.lora_A.weight", "a_0_b", "lora_down.weight", SLR_DIALECT_DIFFUSERS, U, true},
        {"unet.a.lora_B.default.weight", "a", "lora_up.weight", SLR_DIALECT_DIFFUSERS, U, true},
        {"unet.a.hada_w1_b.my-cat", "a", "hada_w1_b", SLR_DIALECT_DIFFUSERS, U, true},
        {"text_encoder_2.a.lora_A", "a", "lora_down.weight", SLR_DIALECT_DIFFUSERS, B, true},
        {"base_model.model.a.b.lora_magnitude_vector.default.weight", "a_b", "dora_scale",
         SLR_DIALECT_PEFT, U | T | B, true},
        {"base_model.model.a.hada_t1.default", "a", "hada_t1", SLR_DIALECT_PEFT, U | T | B, true},
        {"base_model.model.unet.a.ia3_l", "a", "weight", SLR_DIALECT_PEFT, U, true},
        {"unet.x.attn1.processor.to_out_lora.up.weight", "x_attn1_to_out_0", "lora_up.weight",
         SLR_DIALECT_PROCESSOR, U, false},
        {"text_encoder.l.self_attn.to_k_lora.down.weight", "l_self_attn_k_proj", "lora_down.weight",
         SLR_DIALECT_PROCESSOR, T, false},
        {"text_encoder.l.self_attn.to_out_lora.down.weight", "l_self_attn_out_proj",
         "lora_down.weight", SLR_DIALECT_PROCESSOR, T, false},
        {"text_encoder.q_proj.lora_linear_layer.up.weight", "q_proj", "lora_up.weight",
         SLR_DIALECT_OLD, T, false},
        {"unet.x.to_out.0.lora.down.weight", "x_to_out_0", "lora_down.weight", SLR_DIALECT_OLD, U,
         false},
        {"diffusion_model.input_blocks.1.1.proj_in.alpha", "input_blocks_1_1_proj_in", "alpha",
         SLR_DIALECT_NATIVE, U, false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        slr_key k;
        assert_true(slr_key_read(&k, CASES[i].key));
        assert_string_equal(k.module, CASES[i].module);
        assert_string_equal(k.leaf, CASES[i].leaf);
        assert_int_equal(k.dialect, CASES[i].dialect);
        assert_int_equal(k.parts, CASES[i].parts);
        assert_int_equal(k.peft, CASES[i].peft);
    }
    static const char *const BAD[] = {"",
                                      ".",
                                      "..",
                                      "lora_unet_",
                                      "lora_unet_.alpha",
                                      "unet.",
                                      "unet.lora_A.weight",
                                      ".lora_A.weight",
                                      "lora_A.weight",
                                      "nothing",
                                      "_lora.down.weight"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        slr_key k;
        if (slr_key_read(&k, BAD[i]) && (!*k.module || !*k.leaf))
            fail_msg("'%s' gives '%s' and '%s'", BAD[i], k.module, k.leaf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spellings),
        cmocka_unit_test(sdxl_names),
        cmocka_unit_test(reading),
        cmocka_unit_test(info),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
