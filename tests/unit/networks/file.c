/* SPDX-License-Identifier: MIT */
/* Network files: kohya's keys and shapes, options of new networks, saving and opening in three
 * types, hashes, and allocations that fail.  Refusals of broken files are in hostile.c. */
#include "failing.h"
#include "network_test.h"

#include "io/json.h"

#define GOLDEN TEST_ROOT "/golden/"

static slr_checkpoint *base, *sd15;
static slr_devices *devices;

static int setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    ok(slr_checkpoint_shapes(&sd15, "sd15", &CONFIG));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    slr_checkpoint_unref(base);
    slr_checkpoint_unref(sd15);
    slr_devices_unref(devices);
    return 0;
}

/* ---- keys ---- */

static void keys(json_t *want, const char *const *pairs, size_t modules)
{
    slr_network *n;
    char key[320];
    ok(make_rc(&n, sd15, pairs, 1));
    assert_int_equal(slr_network_modules(n), modules);
    assert_int_equal(json_object_size(want), 3 * modules);
    for (size_t i = 0; i < slr_network_slots(n); i++) {
        const slr_network_slot *s = slr_network_slot_at(n, i);
        json_t *shape = json_object_get(want, s->key);
        if (!shape)
            fail_msg("%s is not a key of the oracle", s->key);
        assert_int_equal(json_array_size(shape), s->rank);
        for (int d = 0; d < s->rank; d++)
            if (json_integer_value(json_array_get(shape, (size_t)d)) != s->dim[d])
                fail_msg("%s: axis %d is %d", s->key, d, (int)s->dim[d]);
    }
    for (size_t i = 0; i < modules; i++) {
        snprintf(key, sizeof key, "%s.alpha", slr_network_target(n, i)->name);
        assert_int_equal(json_array_size(json_object_get(want, key)), 0);
        assert_non_null(json_object_get(want, key));
    }
    slr_network_unref(n);
}

/* The rank is read off the oracle's first module, so that the script may choose another. */
static void keys_of_sd15(void **state)
{
    (void)state;
    json_t *j;
    ok(slr_json_read(&j, NULL, GOLDEN "keys_sd15.json", 16 << 20));
    json_t *lora = json_object_get(j, "lora"), *locon = json_object_get(j, "locon");
    static const char *const PATHS[] = {
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_unet_mid_block_resnets_0_conv1.lora_down.weight"};
    char dim[32], linear[32], conv[32];
    snprintf(dim, 32, "%d",
             (int)json_integer_value(json_array_get(json_object_get(lora, PATHS[0]), 0)));
    snprintf(linear, 32, "%d",
             (int)json_integer_value(json_array_get(json_object_get(locon, PATHS[0]), 0)));
    snprintf(conv, 32, "%d",
             (int)json_integer_value(json_array_get(json_object_get(locon, PATHS[1]), 0)));
    keys(lora, (const char *[]){"network_dim", dim, NULL}, 264);
    keys(locon, (const char *[]){"network_dim", linear, "conv_dim", conv, NULL}, 350);
    json_decref(j);
}

/* What kohya's trainers adapt. */
static void counts(void **state)
{
    (void)state;
    static const struct {
        const char *arch;
        size_t unet, te, conv;
        int64_t unet_numbers, te_numbers;
    } CASES[] = {{"sd15", 192, 72, 86, 423936, 165888}, {"sd21", 192, 138, 86, 432128, 423936}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        slr_checkpoint *c;
        slr_targets *t;
        size_t n[4] = {0}, te = 0;
        int64_t numbers[2] = {0};
        ok(slr_checkpoint_shapes(&c, CASES[i].arch, &CONFIG));
        ok(slr_targets_new(&t, NULL, c));
        for (size_t k = 0; k < slr_targets_count(t); k++) {
            const slr_target *x = slr_targets_at(t, k);
            int rule = slr_target_rule(x);
            assert_ptr_equal(target_named(t, x->name, strlen(x->name)), x);
            n[rule]++;
            te += x->part == SLR_PART_TE && rule == SLR_TARGET_LINEAR;
            if (rule == SLR_TARGET_LINEAR)
                numbers[x->part == SLR_PART_TE] += x->in + x->out;
        }
        assert_int_equal(n[SLR_TARGET_LINEAR], CASES[i].unet + CASES[i].te);
        assert_int_equal(te, CASES[i].te);
        assert_int_equal(n[SLR_TARGET_CONV] + n[SLR_TARGET_CONV_LINEAR], CASES[i].conv);
        assert_int_equal(numbers[0], CASES[i].unet_numbers);
        assert_int_equal(numbers[1], CASES[i].te_numbers);
        slr_targets_free(t);
        slr_checkpoint_unref(c);
    }
}

/* ---- new networks ---- */

static void new_network(void **state)
{
    (void)state;
    slr_network *a, *b, *c;
    const char *const pairs[] = {"network_dim", "4", "network_alpha", "2", NULL};
    ok(make_rc(&a, base, pairs, 5));
    ok(make_rc(&b, base, pairs, 5));
    ok(make_rc(&c, base, pairs, 6));
    size_t bytes = slr_network_param_count(a) * sizeof(float);
    assert_memory_equal(slr_network_params(a), slr_network_params(b), bytes);
    assert_true(memcmp(slr_network_params(a), slr_network_params(c), bytes) != 0);
    assert_int_equal((uintptr_t)slr_network_params(a) % 64, 0);
    for (size_t i = 0; i < slr_network_slots(a); i++) {
        const slr_network_slot *s = slr_network_slot_at(a, i);
        const slr_target *t = slr_network_target(a, s->module);
        const float *x = slr_network_params(a) + s->offset;
        double bound = 1 / sqrt((double)(t->in * t->kh * t->kw)), peak = 0, square = 0;
        for (size_t k = 0; k < s->count; k++) {
            peak = fmax(peak, fabs((double)x[k]));
            square += (double)x[k] * x[k];
        }
        assert_int_equal(s->offset % 16, 0);
        if (strstr(s->key, "lora_up")) {
            assert_true(peak == 0);
            continue;
        }
        /* uniform on +-bound: no draw beyond it, and of >= 128 draws the variance bound^2/3 to
         * 5 standard deviations of 0.9/sqrt(n) */
        assert_true(peak <= bound && peak > 0.9 * bound);
        assert_true(fabs(square / (double)s->count / (bound * bound / 3) - 1) <
                    5 * 0.9 / sqrt((double)s->count));
    }
    assert_true(slr_network_alpha(a, 0) == 2 && slr_network_rank(a, 0) == 4);

    size_t te_first, te_last, unet_first, unet_last;
    slr_network_part_range(a, SLR_PART_TE, &te_first, &te_last);
    slr_network_part_range(a, SLR_PART_UNET, &unet_first, &unet_last);
    assert_true(te_first == 0 && te_last == unet_first && unet_last == slr_network_param_count(a) &&
                te_last > 0 && unet_last > te_last);

    memset(slr_network_params(c), 0, bytes);
    ok(slr_network_load_into(c, a));
    assert_memory_equal(slr_network_params(a), slr_network_params(c), bytes);
    slr_network_unref(b);
    ok(make_rc(&b, base, (const char *[]){"network_dim", "5", NULL}, 1));
    assert_int_equal(slr_network_load_into(b, a), SDLORA_EINVAL);
    says("lora_down.weight");
    slr_network_unref(b);
    ok(make_rc(&b, base, (const char *[]){"network_train_unet_only", "true", NULL}, 1));
    assert_int_equal(slr_network_load_into(b, a), SDLORA_EINVAL);
    slr_network_part_range(b, SLR_PART_TE, &te_first, &te_last);
    assert_true(te_first == te_last);
    slr_network_unref(a);
    slr_network_unref(b);
    slr_network_unref(c);
}

static void network_args(void **state)
{
    (void)state;
    slr_network *n;
    ok(make_rc(&n, base,
               (const char *[]){
                   "network_args",
                   " conv_dim=2 \n\nconv_alpha=0.5\nrank_dropout=0.25\nmodule_dropout=0", NULL},
               1));
    assert_true(slr_network_arg(n, "conv_dim", 0) == 2);
    assert_true(slr_network_arg(n, "rank_dropout", 0) == 0.25);
    assert_true(slr_network_arg(n, "module_dropout", 7) == 0);
    assert_true(slr_network_arg(n, "nothing", 7) == 7);
    assert_true(slr_network_has_dropout(n));
    size_t convs = 0;
    for (size_t i = 0; i < slr_network_modules(n); i++)
        if (slr_network_target(n, i)->kh == 3) {
            assert_true(slr_network_rank(n, i) == 2 && slr_network_alpha(n, i) == 0.5);
            convs++;
        }
    assert_true(convs > 20);
    slr_network_unref(n);

    /* alpha 0 means the rank; conv_alpha is 1 when not given */
    ok(make_rc(&n, base,
               (const char *[]){"network_alpha", "0", "network_dim", "8", "conv_dim", "3", NULL},
               1));
    for (size_t i = 0; i < slr_network_modules(n); i++)
        assert_true(slr_network_alpha(n, i) == (slr_network_target(n, i)->kh == 3 ? 1 : 8));
    assert_false(slr_network_has_dropout(n));
    slr_network_unref(n);

    /* kohya's other name of network_dropout goes before the option */
    ok(make_rc(&n, base,
               (const char *[]){"network_args", "dropout=0.5", "network_dropout", "0.25", NULL},
               1));
    assert_true(slr_network_arg(n, "network_dropout", 0) == 0.5);
    assert_true(slr_network_has_dropout(n));
    slr_network_unref(n);
    ok(make_rc(&n, base,
               (const char *[]){"network_args", "dropout=0", "network_dropout", "0.25", NULL}, 1));
    assert_false(slr_network_has_dropout(n));
    slr_network_unref(n);

    static const struct {
        const char *args, *words;
        int code;
    } BAD[] = {
        {"dropout=1.5", "dropout=1.5", SDLORA_EINVAL},
        {"network_dropout=0.5", "'network_dropout'", SDLORA_ENOTSUP},
        {"conv_dim", "'conv_dim' is not key=value", SDLORA_EINVAL},
        {"conv_dim=two", "conv_dim=two", SDLORA_EINVAL},
        {"conv_dim=", "conv_dim=", SDLORA_EINVAL},
        {"conv_dim=2.5", "conv_dim=2.5", SDLORA_EINVAL},
        {"conv_dim=-1", "conv_dim=-1", SDLORA_EINVAL},
        {"conv_dim=1e30", "conv_dim=1e+30", SDLORA_EINVAL},
        {"conv_dim=nan", "conv_dim=nan", SDLORA_EINVAL},
        {"conv_alpha=inf", "conv_alpha=inf", SDLORA_EINVAL},
        {"rank_dropout=1.5", "rank_dropout=1.5", SDLORA_EINVAL},
        {"module_dropout=-0.1", "module_dropout=-0.1", SDLORA_EINVAL},
        {"algo=loha", "'algo'", SDLORA_ENOTSUP},
        {"conv_dim=2\nfactor=2", "'factor'", SDLORA_ENOTSUP},
        {"=3", "''", SDLORA_ENOTSUP},
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        int rc = make_rc(&n, base, (const char *[]){"network_args", BAD[i].args, NULL}, 1);
        if (rc != BAD[i].code)
            fail_msg("%s: %d", BAD[i].args, rc);
        says(BAD[i].words);
        assert_null(n);
    }
    assert_int_equal(
        make_rc(&n, base, (const char *[]){"network_module", "networks.none", NULL}, 1),
        SDLORA_ENOTSUP);
    says("networks.none");
    assert_int_equal(make_rc(&n, base,
                             (const char *[]){"network_train_unet_only", "true",
                                              "network_train_text_encoder_only", "true", NULL},
                             1),
                     SDLORA_EINVAL);
}

/* ---- files ---- */

/* Saved in a type, opened again: each value is the rounding of the one before, and a second save is
 * the same file. */
static void round_trip(void **state)
{
    (void)state;
    static const uint32_t TYPES[] = {SDLORA_F32, SDLORA_F16, SDLORA_BF16};
    const char *const pairs[] = {"network_dim", "3", "network_alpha", "1.5", "conv_dim", "2", NULL};
    slr_network *n = make(base, pairs, 9, 0.1);
    for (int i = 0; i < 3; i++) {
        const slr_dtype_row *type = slr_dtype(TYPES[i]);
        char path[64], again[64], a[65], b[65];
        const char *v;
        slr_network *back;
        slr_meta *meta;
        ok(slr_meta_new(&meta, NULL));
        ok(slr_meta_set(meta, "ss_output_name", "\xc3\xa4 \"quoted\"\n"));
        ok(slr_netfile_save(n, temp_file(path), TYPES[i], meta));
        ok(slr_network_open(&back, NULL, base, path));
        assert_int_equal(slr_network_modules(back), slr_network_modules(n));
        assert_string_equal(slr_meta_get(slr_network_meta(back), "ss_output_name"),
                            "\xc3\xa4 \"quoted\"\n");
        assert_string_equal(slr_network_path(back), path);
        for (size_t k = 0; k < slr_network_slots(n); k++) {
            const slr_network_slot *s = slr_network_slot_at(n, k), *t = NULL;
            for (size_t q = 0; q < slr_network_slots(back) && !t; q++)
                if (!strcmp(slr_network_slot_at(back, q)->key, s->key))
                    t = slr_network_slot_at(back, q);
            assert_non_null(t);
            assert_int_equal(t->count, s->count);
            assert_true(slr_network_alpha(back, t->module) == slr_network_alpha(n, s->module));
            for (size_t q = 0; q < s->count; q++) {
                float want = slr_network_params(n)[s->offset + q];
                uint32_t bits;
                type->from_f32(&bits, &want, 1);
                type->to_f32(&want, &bits, 1);
                assert_true(want == slr_network_params(back)[t->offset + q]);
            }
        }
        ok(slr_hash_tensors(path, a));
        assert_string_equal(slr_meta_get(slr_network_meta(back), "sshs_model_hash"), a);
        ok(slr_netfile_save(back, temp_file(again), TYPES[i], meta));
        ok(slr_hash_file(path, a));
        ok(slr_hash_file(again, b));
        assert_string_equal(a, b);
        assert_non_null(slr_meta_at(meta, 0, &v));
        assert_int_equal(slr_meta_count(meta), 3);
        slr_meta_free(meta);
        slr_network_unref(back);
        unlink(path);
        unlink(again);
    }
    slr_network_unref(n);
}

/* Values that are not finite, or would not be in the file's type, are refused and leave the file
 * that was there alone. */
static void values_that_do_not_fit(void **state)
{
    (void)state;
    static const struct {
        float value;
        uint32_t type;
        int code;
    } CASES[] = {{NAN, SDLORA_F32, SDLORA_ENAN},          {-INFINITY, SDLORA_BF16, SDLORA_ENAN},
                 {65519.0f, SDLORA_F16, SDLORA_OK},       {65520.0f, SDLORA_F16, SDLORA_ENAN},
                 {-1e6f, SDLORA_F16, SDLORA_ENAN},        {1e6f, SDLORA_BF16, SDLORA_OK},
                 {0x1.ffp127f, SDLORA_BF16, SDLORA_ENAN}, {0x1.ffp127f, SDLORA_F32, SDLORA_OK}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        slr_network *n = make(base, NULL, 3, 0.1);
        char path[64];
        uint64_t size;
        slr_meta *meta;
        ok(slr_meta_new(&meta, NULL));
        temp_file(path);
        slr_network_params(n)[slr_network_slot_at(n, 7)->offset] = CASES[i].value;
        int rc = slr_netfile_save(n, path, CASES[i].type, meta);
        if (rc != CASES[i].code)
            fail_msg("%g as %s: %d", CASES[i].value, slr_dtype(CASES[i].type)->name, rc);
        if (rc < 0) {
            says(slr_network_slot_at(n, 7)->key);
            ok(slr_file_size(path, &size));
            assert_int_equal(size, 0);
        }
        unlink(path);
        slr_meta_free(meta);
        slr_network_unref(n);
    }
}

/* sd-scripts' hashes.  Its file holds a tensor that is no network's, so the digest is checked on
 * the file, and what a save puts into the metadata against the rule on the saved bytes. */
static void hashes(void **state)
{
    (void)state;
    json_t *j;
    ok(slr_json_read(&j, NULL, GOLDEN "metadata.json", 16 << 20));
    json_t *small = json_object_get(json_object_get(j, "hashes"), "small");
    char hex[65];
    ok(slr_hash_tensors(GOLDEN "hash_lora.safetensors", hex));
    assert_string_equal(hex, json_string_value(json_object_get(small, "sshs_model_hash")));

    /* less than 1 MiB: the hash of nothing; pairs that are not ss_* do not count */
    slr_network *n = make(base, (const char *[]){"network_dim", "1", NULL}, 3, 0.1);
    char path[64];
    slr_meta *meta;
    ok(slr_meta_new(&meta, NULL));
    ok(slr_meta_set(meta, "ss_network_dim", "4"));
    ok(slr_meta_set(meta, "modelspec.title", "not hashed"));
    ok(slr_netfile_save(n, temp_file(path), SDLORA_F16, meta));
    assert_string_equal(slr_meta_get(meta, "sshs_legacy_hash"),
                        json_string_value(json_object_get(small, "sshs_legacy_hash")));
    slr_network_unref(n);

    /* more: 64 KiB at 1 MiB of the file as it is without the other pairs */
    n = make(base, (const char *[]){"network_dim", "16", NULL}, 3, 0.1);
    ok(slr_netfile_save(n, path, SDLORA_F32, meta));
    golden f = golden_open(path);
    size_t count = slr_safetensors_count(f.file), bytes;
    uint64_t start;
    void *whole;
    slr_st_entry *e = slr_calloc(NULL, count, sizeof *e);
    for (size_t i = 0; i < count; i++)
        e[i].name = slr_safetensors_at(f.file, i, &e[i].t);
    const slr_st_pair pair = {"ss_network_dim", "4"};
    ok(slr_safetensors_encode(NULL, e, count, &pair, 1, &whole, &bytes, &start));
    assert_true(bytes > 0x110000);
    ok(slr_hash_bytes((char *)whole + 0x100000, 0x10000, hex));
    hex[8] = '\0';
    assert_string_equal(slr_meta_get(meta, "sshs_legacy_hash"), hex);
    ok(slr_hash_bytes((char *)whole + start, bytes - start, hex));
    assert_string_equal(slr_meta_get(meta, "sshs_model_hash"), hex);
    slr_free(NULL, whole);
    slr_free(NULL, e);
    golden_close(&f);
    slr_meta_free(meta);
    slr_network_unref(n);
    unlink(path);
    json_decref(j);
}

/* ---- memory ---- */

static int open_apply_save(slr_mem *m, const char *path, const char *copy)
{
    slr_network *n = NULL;
    slr_stack *s = NULL;
    slr_weights *merged = NULL;
    slr_meta *meta = NULL;
    int rc = slr_network_open(&n, m, base, path);
    const slr_stack_item items[] = {{n, 1, 1, 0, {0}}, {n, 0.5, 0.5, 0, {0}}};
    if (rc >= 0)
        rc = slr_stack_new(&s, m, devices, base, items, 2);
    if (rc >= 0)
        rc = slr_stack_set(s, items, 2);
    if (rc >= 0)
        rc = slr_merge_part(&merged, m, devices, slr_checkpoint_part(base, SLR_PART_TE),
                            SLR_PART_TE, items, 1);
    if (rc >= 0)
        rc = slr_meta_new(&meta, m);
    if (rc >= 0)
        rc = slr_netfile_save(n, copy, SDLORA_F32, meta);
    slr_meta_free(meta);
    slr_weights_unref(merged);
    slr_stack_free(s);
    slr_network_unref(n);
    return rc;
}

/* Each allocation fails in turn: ENOMEM, every block comes back, and at last the same file. */
static void failed_allocations(void **state)
{
    (void)state;
    char path[64], copy[64], a[65], b[65];
    slr_network *net =
        make(base, (const char *[]){"network_dim", "1", "conv_dim", "1", NULL}, 3, 0.1);
    slr_meta *meta;
    ok(slr_meta_new(&meta, NULL));
    ok(slr_netfile_save(net, temp_file(path), SDLORA_F32, meta));
    slr_meta_free(meta);
    slr_network_unref(net);
    temp_file(copy);
    int rc = -1;
    int64_t tried = 0;
    /* the first 400 one by one, then every 7th: the later ones repeat per module */
    for (int64_t n = 0; rc < 0; n += n < 400 ? 1 : 7, tried++) {
        failing f = {.left = n};
        const slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
        slr_mem *m;
        assert_true(n < 100000);
        rc = slr_mem_new(&m, &hooks, 0);
        if (rc >= 0) {
            rc = open_apply_save(m, path, copy);
            slr_mem_unref(m);
        }
        if (rc < 0 && rc != SDLORA_ENOMEM)
            fail_msg("allocation %d: %s", (int)n, sdlora_last_error()->message);
        if (f.held)
            fail_msg("allocation %d: %d blocks are lost", (int)n, (int)f.held);
    }
    print_message("%d failing allocations\n", (int)tried - 1);
    ok(slr_hash_tensors(path, a));
    ok(slr_hash_tensors(copy, b));
    assert_string_equal(a, b);
    unlink(path);
    unlink(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_of_sd15), cmocka_unit_test(counts),
        cmocka_unit_test(new_network),  cmocka_unit_test(network_args),
        cmocka_unit_test(round_trip),   cmocka_unit_test(values_that_do_not_fit),
        cmocka_unit_test(hashes),       cmocka_unit_test(failed_allocations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
