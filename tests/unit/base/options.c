/* SPDX-License-Identifier: MIT */
/* The option table and sets of values: every row sound, every bad value named. */
#include "base_test.h"

#include <math.h>
#include <stdio.h>

#include "base/options.h"
#include "base/str.h"

static sdlora_options *make(const char *kind)
{
    sdlora_options *o;

    assert_ok(slr_options_new(&o, NULL, kind));
    return o;
}

/* Names are unique in a kind, kinds stand together, and each default passes its own row's check. */
static void rows_are_sound(void **state)
{
    size_t n;
    const slr_option_row *rows = slr_option_rows(&n);

    assert_true(n > 150);
    for (size_t i = 0; i < n; i++) {
        sdlora_options *o = make(rows[i].kind);

        assert_true(strlen(rows[i].name) < 60 && strlen(rows[i].help) > 5);
        assert_false(slr_ends(rows[i].help, "."));
        assert_ptr_equal(slr_option_find(rows[i].kind, rows[i].name), &rows[i]);
        assert_true(rows[i].min <= rows[i].max);
        if (rows[i].def) {
            assert_ok(slr_options_set_text(o, rows[i].name, rows[i].def));
            assert_string_equal(slr_opt_text((slr_opt){o, NULL}, rows[i].name), rows[i].def);
        }
        slr_options_unref(o);
    }
}

static void defaults_are_kohyas(void **state)
{
    slr_opt train = {NULL, "train"}, net = {NULL, "network"}, data = {NULL, "dataset"};

    assert_true(slr_opt_real(train, "learning_rate") == 2e-6);
    assert_int_equal(slr_opt_int(train, "max_train_steps"), 1600);
    assert_true(slr_opt_real(train, "huber_c") == 0.1);
    assert_string_equal(slr_opt_text(train, "loss_type"), "l2");
    assert_string_equal(slr_opt_text(train, "sample_sampler"), "ddim");
    assert_true(slr_opt_real(net, "network_alpha") == 1);
    assert_int_equal(slr_opt_int(net, "network_dim"), 4);
    assert_string_equal(slr_opt_text(data, "caption_extension"), ".caption");
    assert_false(slr_opt_bool(data, "enable_bucket"));
    assert_false(slr_opt_has(train, "unet_lr"));
    assert_true(slr_opt_real(train, "unet_lr") == 0);
    assert_null(slr_opt_text(train, "output_dir"));
    assert_false(slr_opt_given(train, "learning_rate"));
    assert_true(slr_opt_has(train, "learning_rate"));
    assert_false(slr_opt_has(train, "no such row"));
    assert_int_equal(slr_opt_int((slr_opt){NULL, "generate"}, "seed"), -1);
}

static void values_of_all_types(void **state)
{
    sdlora_options *o = make("train");
    slr_opt r = {o, "train"};

    assert_ok(slr_options_set_int(o, "max_train_steps", 7));
    assert_int_equal(slr_opt_int(r, "max_train_steps"), 7);
    assert_true(slr_opt_given(r, "max_train_steps"));
    assert_ok(slr_options_set_real(o, "max_train_steps", 9.0));
    assert_int_equal(slr_opt_int(r, "max_train_steps"), 9);
    assert_int_equal(slr_options_set_real(o, "max_train_steps", 9.5), SDLORA_EINVAL);
    assert_ok(slr_options_set_int(o, "unet_lr", 1));
    assert_true(slr_opt_real(r, "unet_lr") == 1);
    assert_ok(slr_options_set_real(o, "unet_lr", 1e-4));
    assert_string_equal(slr_opt_text(r, "unet_lr"), "0.0001");
    assert_ok(slr_options_set_text(o, "lr_warmup_steps", "5%"));
    assert_true(slr_opt_real(r, "lr_warmup_steps") == 0.05);
    assert_ok(slr_options_set_text(o, "gradient_checkpointing", "yes"));
    assert_true(slr_opt_bool(r, "gradient_checkpointing"));
    assert_string_equal(slr_opt_text(r, "gradient_checkpointing"), "true");
    assert_ok(slr_options_set_int(o, "gradient_checkpointing", 0));
    assert_false(slr_opt_bool(r, "gradient_checkpointing"));
    assert_ok(slr_options_set_text(o, "optimizer_args", "weight_decay=0.1\nbetas=0.9,0.99"));
    assert_ok(slr_options_set_int(o, "seed", INT64_MAX));
    assert_true(slr_opt_int(r, "seed") == INT64_MAX);
    assert_ok(slr_options_set_text(o, "seed", NULL)); /* back to none */
    assert_false(slr_opt_has(r, "seed"));
    assert_ok(slr_options_set_text(o, "output_dir", ""));
    assert_string_equal(slr_opt_text(r, "output_dir"), "");
    slr_options_unref(o);
}

static void words_of_other_programs_become_choices(void **state)
{
    sdlora_options *o;

    (void)state;
    assert_ok(slr_options_new(&o, NULL, "generate"));
    assert_ok(slr_options_set_text(o, "randn_source", "GPU"));
    assert_string_equal(slr_opt_text((slr_opt){o, "generate"}, "randn_source"), "NV");
    assert_int_equal(slr_options_set_text(o, "randn_source", "TPU"), SDLORA_EINVAL);
    assert_int_equal(slr_options_set_text(o, "emphasis", "GPU"), SDLORA_EINVAL);
    slr_options_unref(o);
}

static void bad_values_name_what_is_wanted(void **state)
{
    static const struct {
        const char *kind, *name, *value, *part;
    } rows[] = {
        {"train", "max_train_steps", "0", "from 1 to"},
        {"train", "max_train_steps", "ten", "a whole number"},
        {"train", "max_train_steps", "", "a whole number"},
        {"train", "max_train_steps", "99999999999999999999", "a whole number"},
        {"train", "learning_rate", "nan", "a number from 0"},
        {"train", "learning_rate", "-1", "learning_rate is '-1'"},
        {"train", "learning_rate", "inf", "a number"},
        {"train", "learning_rate", "1e-4x", "a number"},
        {"train", "learning_rate", "%", "a number"},
        {"train", "loss_type", "L2", "l2|l1|huber|smooth_l1"},
        {"train", "loss_type", "", "one of"},
        {"train", "loss_type", "l2|l1", "one of"},
        {"train", "zero_terminal_snr", "maybe", "true or false"},
        {"dataset", "caption_dropout_rate", "1.01", "from 0 to 1"},
        {"context", "cpu", "sse", "auto|generic|avx2|avx512|amx"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sdlora_options *o = make(rows[i].kind);

        assert_int_equal(slr_options_set_text(o, rows[i].name, rows[i].value), SDLORA_EINVAL);
        assert_message(rows[i].name);
        assert_message(rows[i].part);
        assert_false(slr_opt_given((slr_opt){o, NULL}, rows[i].name));
        slr_options_unref(o);
    }
    {
        sdlora_options *o = make("train");

        assert_int_equal(slr_options_set_real(o, "learning_rate", NAN), SDLORA_EINVAL);
        assert_int_equal(slr_options_set_int(o, "zero_terminal_snr", 2), SDLORA_EINVAL);
        assert_ok(slr_options_set_text(o, "learning_rate", "0.5"));
        assert_int_equal(slr_options_set_text(o, "learning_rate", "x"), SDLORA_EINVAL);
        assert_true(slr_opt_real((slr_opt){o, NULL}, "learning_rate") == 0.5); /* stays */
        slr_options_unref(o);
    }
}

static void typos_are_answered(void **state)
{
    sdlora_options *o = make("train");
    char longest[300];

    assert_int_equal(slr_options_set_int(o, "lerning_rate", 1), SDLORA_ENOTFOUND);
    assert_message("did you mean 'learning_rate'");
    assert_int_equal(slr_options_set_real(o, "max_train_epoch", 1), SDLORA_ENOTFOUND);
    assert_message("'max_train_epochs'");
    assert_int_equal(slr_options_set_text(o, "train_data_dir", "x"), SDLORA_ENOTFOUND);
    assert_message("dataset option");
    assert_int_equal(slr_options_set_text(o, "q", "x"), SDLORA_ENOTFOUND);
    assert_string_equal(sdlora_last_error()->message, "there is no train option 'q'");
    assert_int_equal(slr_options_set_text(o, "", "x"), SDLORA_ENOTFOUND);
    memset(longest, 'l', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(slr_options_set_text(o, longest, "x"), SDLORA_ENOTFOUND);
    slr_options_unref(o);
    assert_int_equal(slr_options_new(&o, NULL, "trian"), SDLORA_ENOTFOUND);
    assert_message("dataset, train");
    assert_null(o);
}

static void every_type_has_one_spelling(void **state)
{
    static const char *const rows[][3] = {{"max_train_steps", "+007", "7"},
                                          {"unet_lr", "1.0e-4", "0.0001"},
                                          {"lr_warmup_steps", "5%", "0.05"},
                                          {"max_grad_norm", "1", "1.0"},
                                          {"sdpa", "1", "true"},
                                          {"output_name", "+007", "+007"}};
    sdlora_options *o = make("train");

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_ok(slr_options_set_text(o, rows[i][0], rows[i][1]));
        assert_string_equal(slr_opt_text((slr_opt){o, NULL}, rows[i][0]), rows[i][2]);
    }
    slr_options_unref(o);
}

static void gaps_are_told(void **state)
{
    sdlora_options *o = make("train");
    slr_opt r = {o, NULL};

    assert_ok(slr_opt_check_supported((slr_opt){NULL, "train"}));
    assert_ok(slr_options_set_int(o, "fp8_base", 0)); /* the default, said aloud */
    assert_ok(slr_options_set_text(o, "log_with", NULL));
    assert_ok(slr_options_set_text(o, "lr_scheduler_type", ""));
    assert_ok(slr_options_set_real(o, "validation_split", 0));
    assert_ok(slr_options_set_real(o, "unet_lr", 1));
    assert_ok(slr_opt_check_supported(r));
    assert_ok(slr_options_set_real(o, "validation_split", 0.1));
    assert_int_equal(slr_opt_check_supported(r), SDLORA_ENOTSUP);
    assert_message("validation_split = '0.1'");
    assert_ok(slr_options_set_text(o, "validation_split", NULL));
    assert_ok(slr_options_set_text(o, "initial_step", "0")); /* its default is none */
    assert_int_equal(slr_opt_check_supported(r), SDLORA_ENOTSUP);
    slr_options_unref(o);
}

static int copy_scenario(slr_mem *m)
{
    sdlora_options *a = NULL, *b = NULL;
    int rc;

    rc = slr_options_new(&a, m, "train");
    if (rc < 0)
        return rc;
    if ((rc = slr_options_set_text(a, "output_name", "first")) < 0 ||
        (rc = slr_options_set_text(a, "output_name", "second")) < 0 ||
        (rc = slr_options_set_real(a, "unet_lr", 3e-4)) < 0 || (rc = slr_options_copy(&b, a)) < 0 ||
        (rc = slr_options_set_text(a, "output_name", "third")) < 0)
        goto done;
    assert_string_equal(slr_opt_text((slr_opt){b, NULL}, "output_name"), "second");
    assert_true(slr_opt_real((slr_opt){b, NULL}, "unet_lr") == 3e-4);
    assert_string_equal(slr_options_kind(b), "train");
done:
    slr_options_unref(slr_options_ref(b));
    slr_options_unref(b);
    slr_options_unref(a);
    return rc;
}

static void copies_stand_alone(void **state)
{
    sdlora_options *o;

    torture(copy_scenario);
    slr_options_unref(NULL);
    assert_ok(slr_options_copy(&o, NULL));
    assert_null(o);
    assert_int_equal(slr_options_set_real(NULL, "x", 1), SDLORA_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_sound),
        cmocka_unit_test(defaults_are_kohyas),
        cmocka_unit_test(values_of_all_types),
        cmocka_unit_test(words_of_other_programs_become_choices),
        cmocka_unit_test(bad_values_name_what_is_wanted),
        cmocka_unit_test(typos_are_answered),
        cmocka_unit_test(every_type_has_one_spelling),
        cmocka_unit_test(gaps_are_told),
        cmocka_unit_test(copies_stand_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
