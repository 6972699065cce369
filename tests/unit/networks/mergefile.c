/* SPDX-License-Identifier: MIT */
/* Networks merged into a checkpoint's file: what is read back is what a merge in memory gives, the
 * rest of the file is the same, and a failure leaves no file. */
#include "tools_test.h"

#define OPENMOJI TEST_ROOT "/data/torch-openmoji-lora.safetensors"

static int write_rc(const char *path, const slr_tool *t, const slr_stack_item *items, size_t n,
                    slr_weights *vae, const char *const *pairs)
{
    sdlora_options *o = tool_options("merge", pairs);
    int rc = slr_merge_file(t, items, n, vae, path, (slr_opt){o, "merge"});
    slr_options_unref(o);
    return rc;
}

static float *values(slr_weights *w, const char *name, size_t *n)
{
    const slr_tensor *t;
    ok(slr_weights_get(w, name, &t));
    *n = (size_t)slr_tensor_count(t);
    float *x = slr_alloc(NULL, *n * sizeof *x);
    ok(slr_tensor_to_f32(t, x));
    return x;
}

/* Every tensor of a part, to a relative tolerance (0: to the bit). */
static size_t same_part(slr_weights *got, slr_weights *want, double tol)
{
    size_t differ = 0;
    assert_int_equal(slr_weights_count(got), slr_weights_count(want));
    for (size_t i = 0; i < slr_weights_count(want); i++) {
        const slr_tensor *t;
        size_t n, m;
        const char *name = slr_weights_at(want, i, &t);
        float *a = values(got, name, &n), *b = values(want, name, &m);
        assert_int_equal(n, m);
        double e = golden_compare(a, b, n).l2;
        if (e > tol)
            fail_msg("%s differs by %g", name, e);
        differ += memcmp(a, b, n * sizeof *a) != 0;
        slr_free(NULL, a);
        slr_free(NULL, b);
    }
    return differ;
}

static void check_against_memory(const char *path, const slr_stack_item *items, size_t n,
                                 double tol)
{
    slr_checkpoint *c;
    ok(slr_checkpoint_open(&c, path, &CONFIG));
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        slr_weights *w = slr_checkpoint_part(base, part), *want;
        if (!w)
            continue;
        if (part == SLR_PART_VAE) {
            same_part(slr_checkpoint_part(c, part), w, tol);
            continue;
        }
        ok(slr_merge_part(&want, NULL, devices, w, part, items, n));
        same_part(slr_checkpoint_part(c, part), want, tol);
        slr_weights_unref(want);
    }
    slr_checkpoint_unref(c);
}

static void test_merge(void **state)
{
    (void)state;
    char path[64];
    slr_network *a = opened("a"), *b;
    ok(slr_network_open(&b, NULL, base, OPENMOJI));
    const slr_stack_item items[] = {{.network = a, .te = 0.5, .unet = -0.7},
                                    {.network = b, .te = 0, .unet = 1.2}};
    ok(write_rc(temp_file(path), &tool, items, 2, NULL,
                (const char *[]){"metadata_title", "mine", NULL}));
    check_against_memory(path, items, 2, 0); /* rounded once, as there */

    slr_checkpoint *c;
    ok(slr_checkpoint_open(&c, path, &CONFIG));
    assert_string_equal(slr_checkpoint_layout(c), slr_checkpoint_layout(base));
    assert_string_equal(slr_checkpoint_metadata(c, "modelspec.title"), "mine");
    assert_string_equal(slr_checkpoint_metadata(c, "modelspec.license"), "CC-BY-SA-4.0");
    assert_string_equal(slr_checkpoint_metadata(c, "modelspec.merged_from"),
                        "tinysd, The A, torch-openmoji-lora");
    assert_string_equal(slr_checkpoint_metadata(c, "modelspec.architecture"),
                        "stable-diffusion-v1");
    slr_checkpoint_unref(c);

    /* in f32 nothing is rounded: f16 of it is the file before, but for its own rounding */
    ok(write_rc(path, &tool, items, 2, NULL, (const char *[]){"save_precision", "float", NULL}));
    check_against_memory(path, items, 2, 1e-3);
    unlink(path);
    slr_network_unref(a);
    slr_network_unref(b);
}

/* No network at all: the same tensors; another autoencoder: that one. */
static void test_vae(void **state)
{
    (void)state;
    char path[64];
    slr_checkpoint *c;
    slr_weights *vae, *own = slr_checkpoint_part(base, SLR_PART_VAE);
    ok(write_rc(temp_file(path), &tool, NULL, 0, NULL, NULL));
    check_against_memory(path, NULL, 0, 0);

    ok(slr_weights_new(&vae, NULL, "other vae"));
    for (size_t i = 0; i < slr_weights_count(own); i++) {
        const slr_tensor *t;
        slr_storage *s;
        const char *name = slr_weights_at(own, i, &t);
        slr_tensor other = *t;
        ok(slr_storage_new(&s, NULL, slr_tensor_bytes(t)));
        memset(slr_storage_data(s), 0x35, slr_tensor_bytes(t)); /* a small f16 number */
        other.data = slr_storage_data(s);
        other.storage = s;
        other.id = 0;
        ok(slr_weights_put(vae, name, &other));
        slr_storage_unref(s);
    }
    ok(write_rc(path, &tool, NULL, 0, vae, NULL));
    ok(slr_checkpoint_open(&c, path, &CONFIG));
    assert_int_equal(same_part(slr_checkpoint_part(c, SLR_PART_VAE), vae, 0), 0);
    assert_int_equal(same_part(slr_checkpoint_part(c, SLR_PART_UNET),
                               slr_checkpoint_part(base, SLR_PART_UNET), 0),
                     0);
    slr_checkpoint_unref(c);
    slr_weights_unref(vae);
    unlink(path);
}

static int stop_late(void *user, const char *phase, int64_t done, int64_t total)
{
    (void)user;
    assert_string_equal(phase, "write");
    return done > total / 2;
}

static void test_refused(void **state)
{
    (void)state;
    char path[64];
    slr_network *a = opened("a");
    slr_stack_item item = {.network = a, .te = 1, .unet = 1};
    temp_file(path);
    unlink(path);
    slr_tool t = tool;
    t.tell = stop_late;
    assert_int_equal(write_rc(path, &t, &item, 1, NULL, NULL), SDLORA_ECANCELED);
    assert_false(slr_file_exists(path));
    assert_int_equal(write_rc("/tmp/x.ckpt", &tool, &item, 1, NULL, NULL), SDLORA_EINVAL);
    says(".safetensors");
    slr_checkpoint *other;
    ok(slr_checkpoint_shapes(&other, "tiny", &CONFIG));
    t = tool;
    t.base = other;
    assert_int_equal(write_rc(path, &t, &item, 1, NULL, NULL), SDLORA_ENOTSUP);
    says("not one file");
    assert_false(slr_file_exists(path));
    slr_checkpoint_unref(other);
    slr_network_unref(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_vae),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, tools_setup, tools_teardown);
}
