/* SPDX-License-Identifier: MIT */
/* Another metadata before the same bytes; and every customary digest of a file. */
#include "io_test.h"

#include "base/status.h"
#include "io/hash.h"
#include "io/metaedit.h"

#define GOLDEN TEST_ROOT "/golden/hash_lora.safetensors" /* by the reference writer */

static slr_safetensors *opened(const char *path)
{
    slr_safetensors *f;
    if (slr_safetensors_open(&f, NULL, path, true) < 0)
        fail_msg("%s", sdlora_last_error()->message);
    return f;
}

static void same_tensors(const char *a_path, const char *b_path)
{
    slr_safetensors *a = opened(a_path), *b = opened(b_path);
    assert_int_equal(slr_safetensors_count(a), slr_safetensors_count(b));
    for (size_t i = 0; i < slr_safetensors_count(a); i++) {
        slr_tensor x, y;
        assert_true(slr_safetensors_find(b, slr_safetensors_at(a, i, &x), &y));
        assert_int_equal(slr_tensor_bytes(&x), slr_tensor_bytes(&y));
        assert_memory_equal(x.data, y.data, slr_tensor_bytes(&x));
    }
    slr_safetensors_close(a);
    slr_safetensors_close(b);
}

static void has(const char *path, const char *key, const char *value)
{
    slr_safetensors *f = opened(path);
    const char *got = slr_safetensors_meta(f, key);
    if (!value)
        assert_null(got);
    else
        assert_string_equal(got, value);
    slr_safetensors_close(f);
}

static void sets_and_removes(void **state)
{
    static const slr_st_pair ADD[] = {{"ssmd_author", "Zo\xc3\xab \"Z\"\n"}, {"empty", ""}};
    static const slr_st_pair GO[] = {{"ssmd_author", NULL}, {"empty", NULL}, {"not there", NULL}};
    const char *path = in_scratch("edited");
    size_t n_before, n_after;
    assert_int_equal(slr_safetensors_edit(NULL, GOLDEN, path, ADD, 2, NULL, NULL), 0);
    has(path, "ssmd_author", ADD[0].value);
    has(path, "empty", "");
    has(path, "ss_output_name", "hash");
    same_tensors(GOLDEN, path);
    slr_safetensors *f = opened(path);
    assert_int_equal(slr_safetensors_data_start(f) % 8, 0);
    slr_safetensors_close(f);
    /* onto itself, and the file is what it was */
    assert_int_equal(slr_safetensors_edit(NULL, path, path, GO, 3, NULL, NULL), 0);
    char *before = get_file(GOLDEN, &n_before), *after = get_file(path, &n_after);
    assert_int_equal(n_after, n_before);
    assert_memory_equal(after, before, n_before);
    free(before);
    free(after);
}

/* Types that the library has no row for are copied all the same. */
static void odd_types_stay(void **state)
{
    static const char json[] = "{\"a\":{\"dtype\":\"U16\",\"shape\":[2],\"data_offsets\":[0,4]}}";
    static const slr_st_pair ADD[] = {{"k", "v"}};
    char file[256] = {0};
    size_t n = sizeof json - 1, n_back;
    file[0] = (char)n;
    memcpy(file + 8, json, n);
    memcpy(file + 8 + n, "WXYZ", 4);
    put_file(in_scratch("odd"), file, 8 + n + 4);
    assert_int_equal(
        slr_safetensors_edit(NULL, in_scratch("odd"), in_scratch("odd"), ADD, 1, NULL, NULL), 0);
    char *back = get_file(in_scratch("odd"), &n_back);
    assert_memory_equal(back + n_back - 4, "WXYZ", 4);
    free(back);
    has(in_scratch("odd"), "k", "v");
}

/* A file of more than 1 MiB, whose legacy hash covers tensors and so moves with the header. Kohya's
 * would be that of the file with the ss_* pairs alone. */
static void legacy_hash_follows(void **state)
{
    static float x[1 << 18 | 1 << 14];
    static const slr_st_pair FIRST[] = {{"ss_a", "1"}, {"sshs_legacy_hash", "0"}, {"other", "x"}};
    static const slr_st_pair CHANGE[] = {{"ss_training_comment", "a longer text than before"}};
    static const slr_st_pair OTHER[] = {{"other", "a text that is not of the training"}};
    const slr_st_pair alone[] = {FIRST[0], CHANGE[0]};
    char path[256], plain[256], hex[9];
    snprintf(path, sizeof path, "%s", in_scratch("large"));
    snprintf(plain, sizeof plain, "%s", in_scratch("plain"));
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        x[i] = (float)i;
    slr_st_entry e = {"x", {.dtype = SDLORA_F32, .rank = 1, .dim = {1 << 18 | 1 << 14}, .data = x}};
    assert_int_equal(slr_safetensors_write(NULL, path, &e, 1, FIRST, 3), 0);
    assert_int_equal(slr_safetensors_edit(NULL, path, path, CHANGE, 1, NULL, NULL), 0);
    assert_int_equal(slr_safetensors_write(NULL, plain, &e, 1, alone, 2), 0);
    assert_int_equal(slr_hash_legacy(plain, hex), 0);
    has(path, "sshs_legacy_hash", hex);
    assert_int_equal(slr_safetensors_edit(NULL, path, path, OTHER, 1, NULL, NULL), 0);
    has(path, "sshs_legacy_hash", hex);
}

static int stop(void *user, const char *phase, int64_t done, int64_t total)
{
    return 1;
}

static void failures_change_nothing(void **state)
{
    static const slr_st_pair BAD[] = {{"k", "\xff"}}, GOOD[] = {{"k", "v"}};
    size_t n;
    put_file(in_scratch("keep"), "old", 3);
    assert_int_equal(slr_safetensors_edit(NULL, GOLDEN, in_scratch("keep"), BAD, 1, NULL, NULL),
                     SDLORA_EINVAL);
    assert_int_equal(slr_safetensors_edit(NULL, GOLDEN, in_scratch("keep"), GOOD, 1, stop, NULL),
                     SDLORA_ECANCELED);
    assert_int_equal(
        slr_safetensors_edit(NULL, in_scratch("keep"), in_scratch("keep"), GOOD, 1, NULL, NULL),
        SDLORA_EFORMAT);
    char *old = get_file(in_scratch("keep"), &n);
    assert_string_equal(old, "old");
    free(old);
    int rc = SDLORA_ENOMEM;
    for (uint64_t budget = 64; rc == SDLORA_ENOMEM; budget = budget * 5 / 4) {
        slr_mem *m;
        assert_true(budget < 1u << 28);
        assert_int_equal(slr_mem_new(&m, NULL, budget), 0);
        rc = slr_safetensors_edit(m, GOLDEN, in_scratch("tight"), GOOD, 1, NULL, NULL);
        assert_int_equal(slr_mem_used(m), 0);
        slr_mem_unref(m);
    }
    assert_int_equal(rc, 0);
}

/* One reading gives what the single functions give; kohya's as sd-scripts wrote them. */
static void all_hashes(void **state)
{
    static const char *const FILES[] = {GOLDEN, TEST_ROOT "/golden/lora_tinysd.safetensors",
                                        TEST_ROOT "/golden/layouts/lightning.ckpt"};
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        slr_hashes h;
        char whole[65], legacy[9], tensors[65];
        bool safe = i < 2;
        assert_int_equal(slr_hash_all(&h, NULL, FILES[i], safe, NULL, NULL), 0);
        assert_int_equal(slr_hash_file(FILES[i], whole), 0);
        assert_int_equal(slr_hash_legacy(FILES[i], legacy), 0);
        assert_string_equal(h.sha256, whole);
        assert_string_equal(h.legacy, legacy);
        if (!safe) {
            assert_string_equal(h.tensors, "");
            continue;
        }
        assert_int_equal(slr_hash_tensors(FILES[i], tensors), 0);
        assert_string_equal(h.tensors, tensors);
        assert_string_equal(h.sshs_model, tensors); /* both lie as the reference writer orders */
    }
}

/* A file in another order of tensors than kohya's writer has: its hash is of kohya's. */
static void sshs_of_another_order(void **state)
{
    static const char json[] = "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                               "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}";
    char file[256] = {0}, want[65];
    size_t n = sizeof json - 1;
    slr_hashes h;
    file[0] = (char)n;
    memcpy(file + 8, json, n);
    memcpy(file + 8 + n, "BBBBAAAA", 8);
    put_file(in_scratch("order"), file, 8 + n + 8);
    assert_int_equal(slr_hash_all(&h, NULL, in_scratch("order"), true, NULL, NULL), 0);
    assert_int_equal(slr_hash_bytes("AAAABBBB", 8, want), 0);
    assert_string_equal(h.sshs_model, want);
    assert_int_equal(slr_hash_bytes("BBBBAAAA", 8, want), 0);
    assert_string_equal(h.tensors, want);
    assert_string_equal(h.sshs_legacy, "e3b0c442"); /* of nothing: the file is short */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_and_removes),    cmocka_unit_test(odd_types_stay),
        cmocka_unit_test(legacy_hash_follows), cmocka_unit_test(failures_change_nothing),
        cmocka_unit_test(all_hashes),          cmocka_unit_test(sshs_of_another_order),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
