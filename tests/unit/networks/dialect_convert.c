/* SPDX-License-Identifier: MIT */
/* Networks in another dialect: what is written means the same when it is read again, and what a
 * dialect cannot hold is refused before a file is there. */
#include "dialect_test.h"

#include "failing.h"
#include "networks/dialect.h"
#include "networks/info.h"

/* ---- writing ---- */

static int save_as(const slr_network *net, const char *path, const char *dialect, uint32_t dtype)
{
    const slr_spelling *s;
    slr_meta *meta;
    ok(slr_spelling_named(&s, dialect));
    ok(slr_meta_new(&meta, NULL));
    ok(slr_meta_set(meta, "ss_output_name", "cat"));
    int rc = slr_netfile_save_as(net, path, dtype, meta, s);
    slr_meta_free(meta);
    return rc;
}

/* The same values bit by bit, whatever the order of modules. */
static void same_values(const slr_network *a, const slr_network *b)
{
    assert_int_equal(slr_network_slots(a), slr_network_slots(b));
    for (size_t i = 0; i < slr_network_slots(a); i++) {
        const slr_network_slot *s = slr_network_slot_at(a, i), *t = NULL;
        for (size_t k = 0; k < slr_network_slots(b) && !t; k++)
            if (!strcmp(slr_network_slot_at(b, k)->key, s->key))
                t = slr_network_slot_at(b, k);
        assert_true(t && t->count == s->count);
        assert_memory_equal(slr_network_params((slr_network *)a) + s->offset,
                            slr_network_params((slr_network *)b) + t->offset,
                            s->count * sizeof(float));
        double alpha = slr_network_alpha(a, s->module), other = slr_network_alpha(b, t->module);
        assert_true(isnan(alpha) ? isnan(other) : fabs(alpha - other) <= 1e-6 * alpha);
    }
}

/* What one dialect says is read again as the writer's program meant it. */
static void writing(void **state)
{
    (void)state;
    adapter a;
    static const struct {
        const char *from, *name, *dialect;
        bool folds;
    } CASES[] = {
        {"kohya.pt", "kohya", "kohya", false},
        {"kohya.pt", "kohya", "onetrainer", false},
        {"kohya.pt", "kohya", "lycoris", false},
        {"kohya.pt", "kohya", "diffusers", false},
        {"kohya.pt", "kohya", "diffusers-folded", true},
        {"kohya.pt", "kohya", "diffusers-old", true},
        {"diffusers_metadata.safetensors", "diffusers_metadata", "kohya", false},
        {"diffusers_metadata.safetensors", "diffusers_metadata", "diffusers", false},
        {"diffusers_metadata.safetensors", "diffusers_metadata", "diffusers-folded", true},
        {"onetrainer.safetensors", "onetrainer", "diffusers", false},
        {"onetrainer.safetensors", "onetrainer", "kohya", false},
        {"peft_lora/adapter_model.safetensors", "peft_lora", "peft", false},
        {"peft_lora/adapter_model.safetensors", "peft_lora", "kohya", false},
        {"peft_bias/adapter_model.safetensors", "peft_bias", "peft", true},
        {"peft_bias/adapter_model.safetensors", "peft_bias", "diffusers", true},
        {"peft_bias/adapter_model.safetensors", "peft_bias", "diffusers-folded", true},
        {"peft_bias/adapter_model.safetensors", "peft_bias", "kohya", false},
        {"peft_bias/adapter_model.safetensors", "peft_bias", "lycoris", false},
        {"peft_dora/adapter_model.safetensors", "peft_dora", "peft", false},
        {"peft_dora/adapter_model.safetensors", "peft_dora", "kohya", false},
        {"peft_loha/adapter_model.safetensors", "peft_loha", "peft", false},
        {"peft_loha/adapter_model.safetensors", "peft_loha", "lycoris", false},
        {"peft_loha_flat/adapter_model.safetensors", "peft_loha_flat", "peft", false},
        {"peft_lokr/adapter_model.safetensors", "peft_lokr", "kohya", false},
        {"peft_lokr_full/adapter_model.safetensors", "peft_lokr_full", "kohya", true},
        {"peft_ia3/adapter_model.safetensors", "peft_ia3", "kohya", false},
        {"peft_ia3/adapter_model.safetensors", "peft_ia3", "peft", true},
        {"peft_oft/adapter_model.safetensors", "peft_oft", "kohya", false},
    };
    adapter_begin(&a);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char path[256];
        slr_network *net, *back;
        if (strstr(CASES[i].name, "ia3") && !slr_kind_named("ia3"))
            continue;
        path_of(path, CASES[i].from);
        ok(slr_network_open(&net, NULL, base, path));
        ok(save_as(net, a.weights, CASES[i].dialect, SDLORA_F32));
        ok(slr_network_open(&back, NULL, base, a.weights));
        print_message("%s as %s\n", CASES[i].from, CASES[i].dialect);
        if (!CASES[i].folds)
            same_values(net, back);
        compare(back, CASES[i].name);
        assert_string_equal(slr_meta_get(slr_network_meta(back), "ss_output_name"), "cat");
        slr_network_unref(net);
        slr_network_unref(back);
        adapter_remove(&a);
    }
    adapter_end(&a);
}

static void not_written(void **state)
{
    (void)state;
    static const struct {
        const char *from, *dialect, *to;
        int code;
        const char *word;
    } CASES[] = {
        {"peft_lokr/adapter_model.safetensors", "diffusers-old", NULL, SDLORA_ENOTSUP, "'lokr'"},
        {"peft_lokr/adapter_model.safetensors", "diffusers", NULL, SDLORA_ENOTSUP, "can't hold"},
        {"peft_lokr/adapter_model.safetensors", "peft", NULL, SDLORA_ENOTSUP, "'lokr'"},
        {"onetrainer.safetensors", "diffusers-old", NULL, SDLORA_ENOTSUP, "DoRA"},
        {"peft_oft/adapter_model.safetensors", "peft", NULL, SDLORA_ENOTSUP, "'oft-v2'"},
        {"peft_bias/adapter_model.safetensors", "diffusers-old", NULL, SDLORA_ENOTSUP,
         "no change of a bias"},
        {"kohya.pt", "peft", NULL, SDLORA_EINVAL, "adapter_model.safetensors"},
        {"kohya.pt", "peft", "/tmp/adapter_model.safetensors", SDLORA_ENOTSUP, "one model"},
    };
    const slr_spelling *s;
    char to[64];
    temp_file(to);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char path[256];
        uint64_t size;
        slr_network *net;
        path_of(path, CASES[i].from);
        ok(slr_network_open(&net, NULL, base, path));
        assert_int_equal(save_as(net, CASES[i].to ? CASES[i].to : to, CASES[i].dialect, SDLORA_F16),
                         CASES[i].code);
        says(CASES[i].word);
        ok(slr_file_size(to, &size));
        assert_int_equal(size, 0);
        slr_network_unref(net);
    }
    assert_int_equal(slr_spelling_named(&s, "comfy"), SDLORA_EINVAL);
    says("kohya, onetrainer, lycoris, diffusers, diffusers-folded, diffusers-old, peft");
    unlink(to);
}

/* A tucker core, a scalar and a norm beside it, from kohya's form to diffusers'. */
static void tucker(void **state)
{
    (void)state;
    char a[64];
    slr_network *net, *back;
    slr_weights *one, *two;
    const char *const pairs[] = {"network_module",
                                 "lycoris.kohya",
                                 "network_args",
                                 "algo=lora\nuse_tucker=True\nconv_dim=3",
                                 "network_dim",
                                 "3",
                                 NULL};
    if (make_rc(&net, base, pairs, 5) < 0) {
        print_message("tucker is not made here: %s\n", sdlora_last_error()->message);
        return;
    }
    slr_network_unref(net);
    net = make(base, pairs, 5, 0.2);
    ok(save_as(net, temp_file(a), "diffusers", SDLORA_F32));
    ok(slr_network_open(&back, NULL, base, a));
    const slr_stack_item items[] = {{net, 1, 1, 0, {0}}, {back, 1, 1, 0, {0}}};
    ok(slr_merge_part(&one, NULL, devices, unet, SLR_PART_UNET, &items[0], 1));
    ok(slr_merge_part(&two, NULL, devices, unet, SLR_PART_UNET, &items[1], 1));
    for (size_t i = 0; i < slr_weights_count(one); i++) {
        const slr_tensor *x, *y;
        const char *name = slr_weights_at(one, i, &x);
        ok(slr_weights_get(two, name, &y));
        /* the sums of a core are taken in another order */
        assert_true(golden_compare(y->data, x->data, (size_t)slr_tensor_count(x)).l2 < 1e-6);
    }
    slr_weights_unref(one);
    slr_weights_unref(two);
    slr_network_unref(net);
    slr_network_unref(back);
    unlink(a);
}

/* ---- memory ---- */

static int open_and_save(slr_mem *m, const char *from, const char *dialect, const char *to)
{
    const slr_open_config config = {.skip = true};
    const slr_spelling *s;
    slr_network *net = NULL;
    slr_meta *meta = NULL;
    char *json = NULL;
    ok(slr_spelling_named(&s, dialect));
    int rc = slr_network_open_with(&net, m, base, from, &config);
    if (rc >= 0)
        rc = slr_meta_new(&meta, m);
    if (rc >= 0)
        rc = slr_netfile_save_as(net, to, SDLORA_F32, meta, s);
    if (rc >= 0)
        rc = slr_file_info(&json, m, (slr_log){0}, from, false);
    slr_free(m, json);
    slr_meta_free(meta);
    slr_network_unref(net);
    return rc;
}

static void failed_allocations(void **state)
{
    (void)state;
    static const struct {
        const char *from, *dialect;
    } CASES[] = {{"diffusers_metadata.safetensors", "diffusers"},
                 {"peft_ia3/adapter_model.safetensors", "kohya"},
                 {"peft_dora/adapter_model.safetensors", "peft"}};
    adapter a;
    adapter_begin(&a);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char path[256];
        int rc = -1;
        if (strstr(CASES[i].from, "ia3") && !slr_kind_named("ia3"))
            continue;
        path_of(path, CASES[i].from);
        /* most of them list the layers of the model, all alike */
        for (int64_t n = 0; rc < 0; n += n < 60 ? 1 : 13) {
            failing f = {.left = n};
            const slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
            slr_mem *m;
            assert_true(n < 100000);
            rc = slr_mem_new(&m, &hooks, 0);
            if (rc >= 0) {
                rc = open_and_save(m, path, CASES[i].dialect, a.weights);
                slr_mem_unref(m);
            }
            if (rc < 0 && rc != SDLORA_ENOMEM)
                fail_msg("allocation %d: %s", (int)n, sdlora_last_error()->message);
            if (f.held)
                fail_msg("allocation %d: %d blocks are lost", (int)n, (int)f.held);
        }
    }
    adapter_end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writing),
        cmocka_unit_test(not_written),
        cmocka_unit_test(tucker),
        cmocka_unit_test(failed_allocations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
