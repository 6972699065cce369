/* SPDX-License-Identifier: MIT */
/* lib/io/torchfile.c on files that torch wrote (golden/layouts): every tensor equal to its twin in
 * a safetensors file, names flattened, bytes used in place; and damaged copies of them. */
#include "torch_build.h"
#include "io/safetensors.h"

#define LAYOUTS TEST_ROOT "/golden/layouts/"

static bool equal(const slr_tensor *a, const slr_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim) &&
           !memcmp(a->data, b->data, slr_tensor_bytes(a));
}

/* How many tensors of a torch file have an equal twin of that name. */
static size_t twins(const char *torch, const char *st, size_t *count, size_t *copies)
{
    slr_torchfile *f;
    slr_safetensors *g;
    size_t same = 0;
    if (slr_torchfile_open(&f, NULL, torch) < 0)
        fail_msg("%s", sdlora_last_error_text());
    assert_int_equal(slr_safetensors_open(&g, NULL, st, true), 0);
    *count = slr_torchfile_count(f);
    *copies = 0;
    for (size_t i = 0; i < *count; i++) {
        slr_tensor a, b;
        const char *name = slr_torchfile_at(f, i, &a);
        same += slr_safetensors_find(g, name, &b) && equal(&a, &b);
        *copies += a.storage != slr_torchfile_map(f);
        assert_true(a.id != 0);
    }
    slr_torchfile_close(f);
    slr_safetensors_close(g);
    return same;
}

static void legacy_file(void **state)
{
    size_t n, copies, same;
    same = twins(LAYOUTS "legacy.pt", LAYOUTS "ldm.safetensors", &n, &copies);
    assert_int_equal(same, n);
    assert_int_equal(n, 36);
    assert_int_equal(copies, 0);
}

static void lightning_checkpoint(void **state)
{
    size_t n, copies, same;
    same = twins(LAYOUTS "lightning.ckpt", LAYOUTS "ldm.safetensors", &n, &copies);
    /* All but the position ids, two EMA weights (twice the raw ones) and two EMA counters. */
    assert_int_equal(same, n - 5);
    assert_int_equal(n, 69);
    assert_int_equal(copies, 1); /* the transposed one; shared storages are no copies */
}

static void lightning_vae(void **state)
{
    size_t n, copies, same;
    same = twins(LAYOUTS "lightning.vae.pt", LAYOUTS "vae.safetensors", &n, &copies);
    assert_int_equal(same, n - 4); /* all but two of the loss and two counters */
    assert_int_equal(copies, 0);
}

static void scalars_have_no_dimensions(void **state)
{
    slr_torchfile *f;
    bool seen = false;
    assert_int_equal(slr_torchfile_open(&f, NULL, LAYOUTS "lightning.ckpt"), 0);
    for (size_t i = 0; i < slr_torchfile_count(f); i++) {
        slr_tensor t;
        if (strcmp(slr_torchfile_at(f, i, &t), "model_ema.num_updates") != 0)
            continue;
        seen = true;
        assert_int_equal(t.rank, 0);
        assert_int_equal(t.dtype, SDLORA_I32);
        assert_memory_equal(t.data, "\12\0\0\0", 4);
    }
    assert_true(seen);
    slr_torchfile_close(f);
}

static void views_outlive_the_handle(void **state)
{
    slr_torchfile *f;
    slr_storage *keep;
    slr_tensor t;
    unsigned char first;
    assert_int_equal(slr_torchfile_open(&f, NULL, LAYOUTS "legacy.pt"), 0);
    slr_torchfile_at(f, 0, &t);
    first = *(const unsigned char *)t.data;
    keep = slr_storage_ref(t.storage);
    slr_torchfile_close(f);
    assert_int_equal(*(const unsigned char *)t.data, first);
    slr_storage_unref(keep);
}

/* Flips and cuts, spread over the whole file: any answer but a crash. */
static void damage_is_survived(const char *path, unsigned step)
{
    size_t n;
    unsigned char *whole = (unsigned char *)get_file(path, &n);
    for (size_t i = 0; i < n; i += 1 + i % step) {
        whole[i] ^= (unsigned char)(1u << i % 8);
        torch_try(whole, n);
        whole[i] ^= (unsigned char)(1u << i % 8);
    }
    for (size_t i = 0; i < n; i += 1 + n / 200)
        assert_true(torch_try(whole, i) < 0);
    free(whole);
}

static void damaged_files(void **state)
{
    damage_is_survived(LAYOUTS "legacy.pt", 2000);
    damage_is_survived(LAYOUTS "lightning.ckpt", 2000);
}

static void names_what_it_is_instead(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } rows[] = {
        {"version https://git-lfs.github.com/spec/v1", 42, "git-lfs"},
        {"\n<html>", 7, "web page"},
        {"", 0, "empty"},
        {"\0\0\0\0\0\0\0\0\0", 9, "cut short"},
        {"\20\0\0\0\0\0\0\0{\"a\":{}}", 16, "safetensors"},
        {"7z\274\257\47\34", 6, "7z"},
        {"\200\2}.", 4, "not one that torch saved"},
        {"\200\2K\1.", 5, "not one that torch saved"},
        {"PK\3\4abcdefgh", 12, "cut"},
        {"hello", 5, "not a torch file"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(torch_try(rows[i].bytes, rows[i].n), SDLORA_EFORMAT);
        assert_says(rows[i].says);
    }
}

/* {320: ({"w": tensor}, {"w": tensor}), "x": {"y": tensor}}: hypernetworks nest so. */
static void names_are_flattened(void **state)
{
    static const char *const want[] = {"320.0.w", "320.1.w", "x.y"};
    static bytes p;
    static zip_file z;
    slr_torchfile *f;
    unsigned char *copy;
    p.n = 0;
    ops(&p, "\200\2}(M\100\1(");
    for (int i = 0; i < 2; i++) {
        ops(&p, "}");
        text(&p, "w");
        tensor(&p, "FloatStorage", "0", 2, 0, 0, NULL, NULL);
        ops(&p, "s");
    }
    ops(&p, "t");
    text(&p, "x");
    ops(&p, "}");
    text(&p, "y");
    tensor(&p, "FloatStorage", "0", 2, 1, 0, NULL, NULL);
    ops(&p, "su.");
    torch_make(&z, &p, "12345678", 8);
    assert_int_equal(torch_open(&f, z.b.at, z.b.n, &copy), 0);
    assert_int_equal(slr_torchfile_count(f), 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(slr_torchfile_at(f, i, NULL), want[i]);
    slr_torchfile_close(f);
    free(copy);
}

static void no_memory_is_said_so(void **state)
{
    int rc = SDLORA_ENOMEM;
    for (uint64_t budget = 64; rc == SDLORA_ENOMEM; budget = budget * 5 / 4) {
        slr_mem *m;
        slr_torchfile *f;
        assert_true(budget < 1u << 30);
        assert_int_equal(slr_mem_new(&m, NULL, budget), 0);
        rc = slr_torchfile_open(&f, m, LAYOUTS "lightning.ckpt");
        slr_torchfile_close(f);
        assert_int_equal(slr_mem_used(m), 0);
        slr_mem_unref(m);
    }
    assert_int_equal(rc, 0);
}

/* The length of a header may look like the start of a pickle: 0x280, 0x380, ... */
static void headers_that_look_like_pickles(void **state)
{
    (void)state;
    static const uint8_t ours[16] = {0x80, 2, 0, 0, 0, 0, 0, 0, '{', '"'},
                         framed[16] = {0x80, 4, 0x95, 40, 0, 0, 0, 0, 0, 0, 0, '}'},
                         legacy[16] = {0x80, 2, 0x8a, 10, 'l', 0xfc, 0x9c, 0x46, 0xf9, 0x20};
    assert_false(slr_torchfile_is(ours, sizeof ours));
    assert_true(slr_torchfile_is(framed, sizeof framed));
    assert_true(slr_torchfile_is(legacy, sizeof legacy));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(legacy_file),
        cmocka_unit_test(lightning_checkpoint),
        cmocka_unit_test(lightning_vae),
        cmocka_unit_test(scalars_have_no_dimensions),
        cmocka_unit_test(views_outlive_the_handle),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(names_what_it_is_instead),
        cmocka_unit_test(names_are_flattened),
        cmocka_unit_test(no_memory_is_said_so),
        cmocka_unit_test(headers_that_look_like_pickles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
