/* SPDX-License-Identifier: MIT */
/* lib/io/hash.c against FIPS 180 examples and the windows that users' tools hash. */
#include "io_test.h"
#include "io/hash.h"

static void known_answers(void **state)
{
    char hex[65], million[65];
    char a[1000];
    slr_sha256 *s;
    assert_int_equal(slr_hash_bytes("abc", 3, hex), 0);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(slr_hash_bytes("", 0, hex), 0);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    memset(a, 'a', sizeof a);
    assert_int_equal(slr_sha256_new(&s, NULL), 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(slr_sha256_add(s, a, sizeof a), 0);
    assert_int_equal(slr_sha256_hex(&s, million), 0);
    assert_null(s);
    assert_string_equal(million,
                        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_int_equal(slr_sha256_hex(&s, hex), 0); /* ended already: nothing to do */
}

static void windows_of_files(void **state)
{
    size_t n = 0x110000 + 100;
    unsigned char *bytes = malloc(n);
    const char *path = in_scratch("model.bin");
    char hex[65], want[65], legacy[9];
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(i * i >> 7);
    put_file(path, bytes, n);
    assert_int_equal(slr_hash_file(path, hex), 0);
    assert_int_equal(slr_hash_bytes(bytes, n, want), 0);
    assert_string_equal(hex, want);
    assert_int_equal(slr_hash_legacy(path, legacy), 0);
    assert_int_equal(slr_hash_bytes(bytes + 0x100000, 0x10000, want), 0);
    assert_memory_equal(legacy, want, 8);
    assert_int_equal(legacy[8], 0);
    put_file(path, bytes, 0x100000 + 5);
    assert_int_equal(slr_hash_legacy(path, legacy), 0);
    assert_int_equal(slr_hash_bytes(bytes + 0x100000, 5, want), 0);
    assert_memory_equal(legacy, want, 8);
    put_file(path, bytes, 100);
    assert_int_equal(slr_hash_legacy(path, legacy), 0);
    assert_string_equal(legacy, "e3b0c442"); /* of nothing, as other tools show it */
    assert_int_equal(slr_hash_legacy(in_scratch("none"), legacy), SDLORA_ENOTFOUND);
    free(bytes);
}

static void tensor_bytes_only(void **state)
{
    static const char file[] = "\x38\0\0\0\0\0\0\0"
                               "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}"
                               "   abc";
    char hex[65];
    put_file(in_scratch("t"), file, sizeof file - 1);
    assert_int_equal(slr_hash_tensors(in_scratch("t"), hex), 0);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    put_file(in_scratch("t"), file, 20);
    assert_int_equal(slr_hash_tensors(in_scratch("t"), hex), SDLORA_EFORMAT);
    put_file(in_scratch("t"), file, 3);
    assert_int_equal(slr_hash_tensors(in_scratch("t"), hex), SDLORA_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(windows_of_files),
        cmocka_unit_test(tensor_bytes_only),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
