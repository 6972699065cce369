/* SPDX-License-Identifier: MIT */
/* lib/io/safetensors.c: views, header-only reading, byte-equal writing, and files that are not what
 * they say. */
#include "io_test.h"
#include "io/safetensors.h"

#define GOLDEN TEST_ROOT "/golden/lora_tinysd.safetensors"

/* Reads a file of the reference writer, writes it again, and wants the same bytes. */
static void rewrites_byte_for_byte(void **state)
{
    slr_safetensors *f;
    slr_st_entry *e;
    slr_st_pair *meta;
    void *bytes;
    uint64_t start;
    size_t n, n_meta, n_bytes, n_want, n_back;
    char *want = get_file(GOLDEN, &n_want), *back;
    assert_int_equal(slr_safetensors_open(&f, NULL, GOLDEN, true), 0);
    n = slr_safetensors_count(f);
    n_meta = slr_safetensors_meta_count(f);
    assert_true(n > 10);
    e = calloc(n, sizeof *e);
    meta = calloc(n_meta + 1, sizeof *meta);
    for (size_t i = 0; i < n; i++) /* backwards: the writer has to sort */
        e[n - 1 - i].name = slr_safetensors_at(f, i, &e[n - 1 - i].t);
    for (size_t i = 0; i < n_meta; i++)
        meta[i].key = slr_safetensors_meta_at(f, i, &meta[i].value);
    assert_int_equal(
        slr_safetensors_write(NULL, in_scratch("out"), e, n, n_meta ? meta : NULL, n_meta), 0);
    back = get_file(in_scratch("out"), &n_back);
    assert_int_equal(n_back, n_want);
    assert_memory_equal(back, want, n_want);
    assert_int_equal(
        slr_safetensors_encode(NULL, e, n, n_meta ? meta : NULL, n_meta, &bytes, &n_bytes, &start),
        0);
    assert_int_equal(n_bytes, n_want);
    assert_memory_equal(bytes, want, n_want);
    assert_int_equal(start, slr_safetensors_data_start(f));
    slr_free(NULL, bytes);
    slr_safetensors_close(f);
    free(back);
    free(want);
    free(meta);
    free(e);
}

/* A file of two tensors and one pair, as the tests below change it. */
static const char plain_json[] =
    "{\"__metadata__\":{\"k\":\"v\"},"
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
    "\"b.c\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[8,10]}}";

static size_t make(char *out, const char *json, size_t data)
{
    size_t n = strlen(json);
    memset(out, 0, 8);
    out[0] = (char)(n & 255);
    out[1] = (char)(n >> 8);
    memcpy(out + 8, json, n);
    memset(out + 8 + n, 0x3f, data);
    return 8 + n + data;
}

static void reads_views_and_header(void **state)
{
    char file[400];
    size_t n = make(file, plain_json, 10);
    slr_safetensors *f;
    slr_storage *keep;
    slr_tensor t, u;
    const char *value;
    put_file(in_scratch("x"), file, n);
    assert_int_equal(slr_safetensors_open(&f, NULL, in_scratch("x"), true), 0);
    assert_int_equal(slr_safetensors_count(f), 2);
    assert_string_equal(slr_safetensors_at(f, 0, &t), "a");
    assert_int_equal(t.dtype, SDLORA_F32);
    assert_int_equal(t.rank, 1);
    assert_int_equal(t.dim[0], 2);
    assert_memory_equal(t.data, "????????", 8);
    assert_true(slr_safetensors_find(f, "a", &u));
    assert_int_equal(u.id, t.id);
    assert_true(slr_safetensors_find(f, "b.c", &u));
    assert_int_equal(u.rank, 0);
    assert_int_equal(u.dtype, SDLORA_F16);
    assert_true(u.id && u.id != t.id);
    assert_string_equal(slr_safetensors_tag(f, 1), "F16");
    assert_false(slr_safetensors_find(f, "b", &u));
    assert_int_equal(slr_safetensors_meta_count(f), 1);
    assert_string_equal(slr_safetensors_meta_at(f, 0, &value), "k");
    assert_string_equal(value, "v");
    assert_string_equal(slr_safetensors_meta(f, "k"), "v");
    assert_null(slr_safetensors_meta(f, "none"));
    keep = slr_storage_ref(t.storage);
    slr_safetensors_close(f);
    assert_memory_equal(t.data, "????????", 8); /* the mapping outlives the handle */
    slr_storage_unref(keep);

    assert_int_equal(slr_safetensors_open(&f, NULL, in_scratch("x"), false), 0);
    slr_safetensors_at(f, 0, &t);
    assert_null(t.data);
    assert_int_equal(t.id, 0);
    assert_int_equal(t.dim[0], 2);
    slr_safetensors_close(f);
}

/* Opens bytes as a file and in memory; both must say the same. */
static int open_both(const void *bytes, size_t n)
{
    slr_safetensors *f = NULL, *g = NULL;
    int a, b;
    put_file(in_scratch("bad"), bytes, n);
    b = slr_safetensors_parse(&g, NULL, bytes, n, "bad");
    a = slr_safetensors_open(&f, NULL, in_scratch("bad"), true);
    assert_int_equal(a, b);
    assert_true((a == 0) == (f != NULL));
    slr_safetensors_close(f);
    slr_safetensors_close(g);
    return a;
}

static void refuses_every_truncation(void **state)
{
    char file[400];
    size_t n = make(file, plain_json, 10);
    assert_int_equal(open_both(file, n), 0);
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(open_both(file, cut), SDLORA_EFORMAT);
    file[n] = 'x';
    assert_int_equal(open_both(file, n + 1), SDLORA_EFORMAT);
}

static void refuses_lies(void **state)
{
    static const struct {
        const char *json;
        size_t data;
        int want;
    } rows[] = {
        {"{}", 0, 0},
        {"{\"a\":{\"dtype\":\"U16\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2, 0},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2, 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2, SDLORA_EFORMAT},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,4611686018427387904,0],"
         "\"data_offsets\":[0,0]}}",
         0, SDLORA_EFORMAT},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0,4611686018427387904,4611686018427387904],"
         "\"data_offsets\":[0,0]}}",
         0, SDLORA_EFORMAT},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, SDLORA_EFORMAT},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, SDLORA_EFORMAT},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
         2, SDLORA_EFORMAT},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1, SDLORA_EFORMAT},
        {"{\"__metadata__\":{\"a\":1}}", 0, SDLORA_EFORMAT},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1,
         SDLORA_ENOTSUP},
    };
    char file[600];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int rc = open_both(file, make(file, rows[i].json, rows[i].data));
        if (rc != rows[i].want)
            fail_msg("%s: %d, wanted %d", rows[i].json, rc, rows[i].want);
        if (rc < 0)
            assert_says("bad");
    }
}

static void unknown_types_have_no_data(void **state)
{
    char file[200];
    size_t n = make(file, "{\"a\":{\"dtype\":\"U16\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2);
    slr_safetensors *f;
    slr_tensor t;
    assert_int_equal(slr_safetensors_parse(&f, NULL, file, n, "x"), 0);
    slr_safetensors_at(f, 0, &t);
    assert_int_equal(t.dtype, 0);
    assert_null(t.data);
    assert_string_equal(slr_safetensors_tag(f, 0), "U16");
    slr_safetensors_close(f);
}

static void names_what_it_is_instead(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } rows[] = {
        {"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", 58, "git-lfs"},
        {"<!DOCTYPE html><html><body>404</body></html>", 44, "web page"},
        {"\n\n  <HTML><body>Sign in</body></HTML>", 37, "web page"},
        {"{\"error\":\"not found\"}", 21, "JSON"},
        {"PK\003\004aaaaaaaaaaaaaaaaaaaaa", 25, "zip"},
        {"\200\002}q\0(X\1\0\0\0aq\1K\1u.", 18, "pickle"},
        {"GGUF\3\0\0\0aaaaaaaa", 16, "GGUF"},
        {"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, "cut short"},
        {"", 0, "empty"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(open_both(rows[i].bytes, rows[i].n), SDLORA_EFORMAT);
        assert_says(rows[i].says);
    }
}

static void lengths_that_lie(void **state)
{
    static const uint64_t lies[] = {0,
                                    1,
                                    9,
                                    8,
                                    1u << 31,
                                    100000001,
                                    UINT64_C(1) << 32,
                                    UINT64_C(1) << 53,
                                    UINT64_C(1) << 62,
                                    UINT64_C(1) << 63,
                                    UINT64_MAX};
    char file[24];
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        for (int b = 0; b < 8; b++)
            file[b] = (char)(lies[i] >> 8 * b);
        memset(file + 8, ' ', 8);
        assert_int_equal(open_both(file, 16), SDLORA_EFORMAT);
    }
}

static void writer_checks_its_input(void **state)
{
    float x = 1;
    slr_st_entry e[2] = {{"a", {.dtype = SDLORA_F32, .rank = 1, .dim = {1}, .data = &x}},
                         {"a", {.dtype = SDLORA_F32, .rank = 1, .dim = {1}, .data = &x}}};
    put_file(in_scratch("keep"), "old", 3);
    assert_int_equal(slr_safetensors_write(NULL, in_scratch("keep"), e, 2, NULL, 0),
                     SDLORA_EFORMAT);
    e[1].name = "b";
    e[1].t.dtype = 99;
    assert_int_equal(slr_safetensors_write(NULL, in_scratch("keep"), e, 2, NULL, 0),
                     SDLORA_ENOTSUP);
    assert_says("b");
    e[1].t.dtype = SDLORA_F32;
    e[1].t.dim[0] = -1;
    assert_int_equal(slr_safetensors_write(NULL, in_scratch("keep"), e, 2, NULL, 0), SDLORA_EINVAL);
    assert_true(slr_file_exists(in_scratch("keep")));
    assert_int_equal(slr_safetensors_write(NULL, in_scratch("no/dir"), e, 1, NULL, 0), SDLORA_EIO);
    {
        size_t n;
        char *back = get_file(in_scratch("keep"), &n);
        assert_string_equal(back, "old");
        free(back);
    }
}

/* Reads and writes under ever larger budgets: ENOMEM, nothing leaked, the old file whole, until all
 * of it goes through. */
static void no_memory_is_said_so(void **state)
{
    int rc = SDLORA_ENOMEM;
    size_t n_old;
    for (uint64_t budget = 64; rc == SDLORA_ENOMEM; budget = budget * 9 / 8) {
        slr_mem *m;
        slr_safetensors *f = NULL;
        slr_st_entry e;
        assert_true(budget < 1u << 30);
        put_file(in_scratch("keep"), "old", 3);
        assert_int_equal(slr_mem_new(&m, NULL, budget), 0);
        rc = slr_safetensors_open(&f, m, GOLDEN, true);
        if (rc == 0) {
            e.name = slr_safetensors_at(f, 0, &e.t);
            rc = slr_safetensors_write(m, in_scratch("keep"), &e, 1, NULL, 0);
        }
        slr_safetensors_close(f);
        assert_int_equal(slr_mem_used(m), 0);
        slr_mem_unref(m);
        if (rc < 0) {
            char *old = get_file(in_scratch("keep"), &n_old);
            assert_string_equal(old, "old");
            free(old);
        }
    }
    assert_int_equal(rc, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rewrites_byte_for_byte),     cmocka_unit_test(reads_views_and_header),
        cmocka_unit_test(refuses_every_truncation),   cmocka_unit_test(refuses_lies),
        cmocka_unit_test(unknown_types_have_no_data), cmocka_unit_test(names_what_it_is_instead),
        cmocka_unit_test(lengths_that_lie),           cmocka_unit_test(writer_checks_its_input),
        cmocka_unit_test(no_memory_is_said_so),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
