/* SPDX-License-Identifier: MIT */
/* Networks that start from a file: with dim_from_weights the file says modules, ranks and alphas,
 * and the options say all else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "api/api.h"

#define MODEL     TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"
#define FILE_NAME "unit-api-start.safetensors"

static sdlora_options *options(const char *const (*pairs)[2])
{
    sdlora_options *o;

    assert_int_equal(sdlora_options_new(&o, "network"), SDLORA_OK);
    for (size_t i = 0; pairs[i][0]; i++)
        assert_int_equal(sdlora_options_set_text(o, pairs[i][0], pairs[i][1]), SDLORA_OK);
    return o;
}

static sdlora_network *make(sdlora_checkpoint *ckpt, const char *const (*pairs)[2], uint64_t seed)
{
    sdlora_options *o = options(pairs);
    sdlora_network *net;

    if (sdlora_network_new(&net, ckpt, o, seed) < 0)
        fail_msg("%s", sdlora_last_error()->message);
    sdlora_options_unref(o);
    return net;
}

static void file_gives_shape_and_options_the_rest(void **state)
{
    static const char *const first[][2] = {
        {"network_dim", "3"}, {"network_alpha", "2"}, {"conv_dim", "2"}, {NULL, NULL}};
    static const char *const like[][2] = {
        {"network_weights", FILE_NAME}, {"dim_from_weights", "true"},        {"network_dim", "7"},
        {"network_dropout", "0.5"},     {"network_train_unet_only", "true"}, {NULL, NULL}};
    static const char *const te_only[][2] = {{"network_weights", FILE_NAME},
                                             {"dim_from_weights", "true"},
                                             {"network_train_text_encoder_only", "true"},
                                             {NULL, NULL}};
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt;

    (void)state;
    assert_int_equal(sdlora_context_new(&ctx, NULL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_checkpoint_open(&ckpt, ctx, MODEL, NULL), SDLORA_OK);
    sdlora_network *from = make(ckpt, first, 5);
    assert_int_equal(sdlora_network_save(from, FILE_NAME, NULL), SDLORA_OK);
    sdlora_network *net = make(ckpt, like, 6), *te = make(ckpt, te_only, 6);
    const slr_network *a = from->net, *b = net->net;

    assert_true(slr_network_has_dropout(b));
    assert_null(slr_network_path(b));
    assert_true(sdlora_network_modules(net) > 0);
    assert_int_equal(sdlora_network_modules(net) + sdlora_network_modules(te),
                     sdlora_network_modules(from));
    for (size_t i = 0; i < slr_network_modules(b); i++)
        assert_int_equal(slr_network_target(b, i)->part, SLR_PART_UNET);
    for (size_t i = 0; i < slr_network_slots(b); i++) {
        const slr_network_slot *s = slr_network_slot_at(b, i), *t = NULL;

        for (size_t k = 0; k < slr_network_slots(a); k++)
            if (!strcmp(slr_network_slot_at(a, k)->key, s->key))
                t = slr_network_slot_at(a, k);
        assert_non_null(t);
        assert_true(slr_network_alpha(a, t->module) == slr_network_alpha(b, s->module));
        assert_int_equal(s->count, t->count);
        assert_memory_equal(slr_network_params(net->net) + s->offset,
                            slr_network_params(from->net) + t->offset, s->count * sizeof(float));
    }
    sdlora_network_unref(from);
    sdlora_network_unref(net);

    /* a file of the text encoder alone leaves nothing for a UNet-only run */
    assert_int_equal(sdlora_network_save(te, FILE_NAME, NULL), SDLORA_OK);
    sdlora_network_unref(te);
    sdlora_options *o = options(like);
    assert_int_equal(sdlora_network_new(&net, ckpt, o, 1), SDLORA_EINVAL);
    assert_null(net);
    assert_non_null(strstr(sdlora_last_error()->message, FILE_NAME " has no module"));
    sdlora_options_unref(o);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
}

/* ---- base_weights ---- */

static void fill(sdlora_network *net, float size)
{
    float *p = slr_network_params(net->net);
    for (size_t i = 0; i < slr_network_param_count(net->net); i++)
        p[i] = size * (float)((int)(i % 17) - 8);
}

/* The bytes of the UNet and of the text encoder are those of a merge; the caller's are as before.
 */
static bool same_weights(const sdlora_checkpoint *a, const sdlora_checkpoint *b)
{
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        slr_weights *w = slr_checkpoint_part(a->base, part);
        for (size_t i = 0; w && i < slr_weights_count(w); i++) {
            const slr_tensor *t, *u;
            const char *name = slr_weights_at(w, i, &t);
            if (slr_weights_get(slr_checkpoint_part(b->base, part), name, &u) < 0 ||
                memcmp(t->data, u->data, slr_tensor_bytes(t)))
                return false;
        }
    }
    return true;
}

static void base_weights_are_merged_first(void **state)
{
    static const char *const lora[][2] = {{"network_dim", "2"}, {NULL, NULL}};
    static const char *const two[][2] = {{"base_weights", FILE_NAME "\n" FILE_NAME},
                                         {"base_weights_multiplier", "0.5"},
                                         {NULL, NULL}};
    static const char *const bad[][2] = {
        {"base_weights", FILE_NAME}, {"base_weights_multiplier", "much"}, {NULL, NULL}};
    static const char *const none[][2] = {{"base_weights", "no-such-file"}, {NULL, NULL}};
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt, *merged;
    sdlora_network *failed;

    (void)state;
    assert_int_equal(sdlora_context_new(&ctx, NULL, NULL), SDLORA_OK);
    assert_int_equal(sdlora_checkpoint_open(&ckpt, ctx, MODEL, NULL), SDLORA_OK);
    sdlora_network *from = make(ckpt, lora, 5);
    fill(from, 0.01f);
    assert_int_equal(sdlora_network_save(from, FILE_NAME, NULL), SDLORA_OK);

    sdlora_network *net = make(ckpt, two, 1), *plain = make(ckpt, lora, 1);
    sdlora_network *const both[] = {from, from};
    const double strength[] = {0.5, 1.0};
    assert_int_equal(sdlora_checkpoint_merge(&merged, ckpt, both, strength, strength, 2),
                     SDLORA_OK);
    assert_true(net->merged && !plain->merged);
    assert_true(same_weights(net->ckpt, merged));
    assert_false(same_weights(net->ckpt, ckpt));
    assert_ptr_equal(plain->ckpt, ckpt);

    sdlora_options *o = options(bad);
    assert_int_equal(sdlora_network_new(&failed, ckpt, o, 1), SDLORA_EINVAL);
    assert_non_null(strstr(sdlora_last_error()->message, "'much' is not a number"));
    sdlora_options_unref(o);
    o = options(none);
    assert_int_equal(sdlora_network_new(&failed, ckpt, o, 1), SDLORA_ENOTFOUND);
    assert_null(failed);
    sdlora_options_unref(o);

    remove(FILE_NAME);
    sdlora_network_unref(from);
    sdlora_network_unref(net);
    sdlora_network_unref(plain);
    sdlora_checkpoint_unref(merged);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(file_gives_shape_and_options_the_rest),
                                       cmocka_unit_test(base_weights_are_merged_first)};

    return cmocka_run_group_tests_name("start", tests, NULL, NULL);
}
