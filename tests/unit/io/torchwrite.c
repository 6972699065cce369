/* SPDX-License-Identifier: MIT */
/* lib/io/torchwrite.c: what is written is what lib/io/torchfile.c and a plain look at the zip find
 * again; what cannot be written leaves the old file alone. */
#include <math.h>

#include "io_test.h"
#include "io/torchfile.h"
#include "io/source.h"
#include "io/torchwrite.h"
#include "io/zip.h"

static const float numbers[6] = {1.0f, -2.5f, 65504.0f, 1e-7f, 0.0f, -0.1f};

static slr_tensor made(const void *data, uint32_t dtype, int rank, int64_t a, int64_t b)
{
    return (slr_tensor){.dtype = dtype, .rank = rank, .dim = {a, b}, .data = data};
}

/* A hypernetwork's shape: int keys, tuples of state dicts, a list, every kind of value. */
static void tell(slr_torchwrite *w)
{
    static const int64_t ids[3] = {-1, 7, INT64_MAX};
    slr_tensor t = made(numbers, SDLORA_F32, 2, 2, 3), none = made("", SDLORA_F32, 1, 0, 0),
               one = made(numbers, SDLORA_F32, 0, 0, 0), whole = made(ids, SDLORA_I64, 1, 3, 0);
    slr_torchwrite_dict(w);
    slr_torchwrite_int(w, 768);
    slr_torchwrite_tuple(w);
    slr_torchwrite_ordered_dict(w);
    slr_torchwrite_text(w, "linear.0.weight");
    slr_torchwrite_tensor(w, &t, SDLORA_F32);
    slr_torchwrite_text(w, "linear.0.bias");
    slr_torchwrite_tensor(w, &t, SDLORA_F16);
    slr_torchwrite_end(w);
    slr_torchwrite_dict(w);
    slr_torchwrite_end(w);
    slr_torchwrite_end(w);
    slr_torchwrite_text(w, "empty");
    slr_torchwrite_tensor(w, &none, SDLORA_F32);
    slr_torchwrite_text(w, "scalar");
    slr_torchwrite_tensor(w, &one, SDLORA_BF16);
    slr_torchwrite_text(w, "ids");
    slr_torchwrite_tensor(w, &whole, SDLORA_I64);
    slr_torchwrite_text(w, "step");
    slr_torchwrite_int(w, -5000000000);
    slr_torchwrite_text(w, "layers");
    slr_torchwrite_list(w);
    slr_torchwrite_int(w, 1);
    slr_torchwrite_real(w, 0.1);
    slr_torchwrite_int(w, -2147483648);
    slr_torchwrite_end(w);
    slr_torchwrite_text(w, "name");
    slr_torchwrite_text(w, "caf\xc3\xa9");
    slr_torchwrite_text(w, "off");
    slr_torchwrite_bool(w, false);
    slr_torchwrite_text(w, "on");
    slr_torchwrite_bool(w, true);
    slr_torchwrite_text(w, "nothing");
    slr_torchwrite_none(w);
    slr_torchwrite_end(w);
}

static const char *write_one(const char *name)
{
    const char *path = in_scratch(name);
    slr_torchwrite *w;
    assert_int_equal(slr_torchwrite_new(&w, NULL), 0);
    tell(w);
    if (slr_torchwrite_save(w, path) < 0)
        fail_msg("%s", sdlora_last_error_text());
    slr_torchwrite_free(w);
    return path;
}

static const slr_torch_value *value(const slr_torchfile *f, const char *name, int type)
{
    const slr_torch_value *v = slr_torchfile_value(f, name);
    assert_non_null(v);
    assert_int_equal(v->type, type);
    return v;
}

static void find(const slr_torchfile *f, const char *name, uint32_t dtype, size_t n, float *to)
{
    for (size_t i = 0; i < slr_torchfile_count(f); i++) {
        slr_tensor t;
        if (strcmp(slr_torchfile_at(f, i, &t), name) != 0)
            continue;
        assert_int_equal(t.dtype, dtype);
        assert_int_equal(slr_tensor_count(&t), n);
        assert_int_equal(slr_tensor_to_f32(&t, to), 0);
        return;
    }
    fail_msg("%s is not there", name);
}

static void reads_back(void **state)
{
    (void)state;
    const char *path = write_one("whole.pt");
    slr_torchfile *f;
    float got[6];
    if (slr_torchfile_open(&f, NULL, path) < 0)
        fail_msg("%s", sdlora_last_error_text());
    assert_int_equal(slr_torchfile_count(f), 5);
    find(f, "768.0.linear.0.weight", SDLORA_F32, 6, got);
    assert_memory_equal(got, numbers, sizeof numbers);
    find(f, "768.0.linear.0.bias", SDLORA_F16, 6, got);
    for (int i = 0; i < 6; i++) /* rounded once to 11 bits, below 2^-14 to steps of 2^-24 */
        assert_true(fabsf(got[i] - numbers[i]) <= fabsf(numbers[i]) / 2048 + 0x1p-25f);
    find(f, "empty", SDLORA_F32, 0, got);
    find(f, "scalar", SDLORA_BF16, 1, got);
    assert_true(got[0] == 1.0f);
    assert_true(value(f, "step", SLR_TORCH_INT)->i == -5000000000);
    assert_true(value(f, "layers.0", SLR_TORCH_INT)->i == 1);
    assert_true(value(f, "layers.1", SLR_TORCH_REAL)->f == 0.1);
    assert_true(value(f, "layers.2", SLR_TORCH_INT)->i == -2147483648);
    assert_string_equal(value(f, "name", SLR_TORCH_TEXT)->text, "caf\xc3\xa9");
    assert_int_equal(value(f, "off", SLR_TORCH_BOOL)->i, 0);
    assert_int_equal(value(f, "on", SLR_TORCH_BOOL)->i, 1);
    value(f, "nothing", SLR_TORCH_NONE);
    assert_null(slr_torchfile_value(f, "768.0"));
    assert_int_equal(slr_torchfile_values(f), 8);
    slr_torchfile_close(f);
}

/* Every entry starts at a multiple of 64 bytes and has the checksum that stands in the directory;
 * the same values make the same bytes. */
static void zip_is_sound(void **state)
{
    (void)state;
    const char *path = write_one("a.pt"), *again = write_one("b.pt");
    void *bytes, *other;
    size_t n, k;
    slr_source s;
    slr_zip z;
    assert_int_equal(slr_file_read(NULL, path, 1 << 20, &bytes, &n), 0);
    assert_int_equal(slr_file_read(NULL, again, 1 << 20, &other, &k), 0);
    assert_int_equal(n, k);
    assert_memory_equal(bytes, other, n);
    slr_source_memory(&s, bytes, n, "a.pt");
    assert_int_equal(slr_zip_open(&z, NULL, &s), 0);
    assert_int_equal(z.n, 8);
    for (size_t i = 0; i < z.n; i++) {
        void *entry;
        assert_int_equal(z.entry[i].at % 64, 0);
        assert_int_equal(slr_zip_read(&z, &s, &z.entry[i], 1 << 20, &entry), 0);
        slr_free(NULL, entry);
    }
    slr_zip_close(&z);
    slr_free(NULL, bytes);
    slr_free(NULL, other);
}

static const float bad_number[2] = {1.0f, NAN}, large[1] = {1e6f};

static void tell_nan(slr_torchwrite *w)
{
    slr_tensor t = made(bad_number, SDLORA_F32, 1, 2, 0);
    slr_torchwrite_tensor(w, &t, SDLORA_F32);
}

static void tell_large(slr_torchwrite *w)
{
    slr_tensor t = made(large, SDLORA_F32, 1, 1, 0);
    slr_torchwrite_tensor(w, &t, SDLORA_F16);
}

static void tell_type(slr_torchwrite *w)
{
    slr_tensor t = made(large, 999, 1, 1, 0);
    slr_torchwrite_tensor(w, &t, SDLORA_F16);
}

static void tell_nothing(slr_torchwrite *w)
{
    (void)w;
}

static void tell_two(slr_torchwrite *w)
{
    slr_torchwrite_none(w);
    slr_torchwrite_none(w);
}

static void tell_open(slr_torchwrite *w)
{
    slr_torchwrite_list(w);
}

static void tell_closed(slr_torchwrite *w)
{
    slr_torchwrite_none(w);
    slr_torchwrite_end(w);
}

static void tell_half(slr_torchwrite *w)
{
    slr_torchwrite_dict(w);
    slr_torchwrite_text(w, "key");
    slr_torchwrite_end(w);
}

static void tell_deep(slr_torchwrite *w)
{
    for (int i = 0; i < 1000; i++)
        slr_torchwrite_list(w);
    for (int i = 0; i < 1000; i++)
        slr_torchwrite_end(w);
}

static void tell_latin(slr_torchwrite *w)
{
    slr_torchwrite_text(w, "caf\xe9");
}

static void refuses(void **state)
{
    (void)state;
    static const struct {
        void (*tell)(slr_torchwrite *w);
        int code;
        const char *says;
    } cases[] = {
        {tell_nan, SDLORA_ENAN, "not finite as f32"},
        {tell_large, SDLORA_ENAN, "not finite as f16"},
        {tell_type, SDLORA_ENOTSUP, "unknown type"},
        {tell_nothing, SDLORA_EINVAL, "0 values"},
        {tell_two, SDLORA_EINVAL, "2 values"},
        {tell_open, SDLORA_EINVAL, "1 open"},
        {tell_closed, SDLORA_EINVAL, "nothing is open"},
        {tell_half, SDLORA_EINVAL, "no value"},
        {tell_deep, SDLORA_EINVAL, "nested"},
        {tell_latin, SDLORA_EINVAL, "UTF-8"},
    };
    const char *path = in_scratch("kept.pt");
    assert_int_equal(slr_file_write(NULL, path, "old", 3), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        slr_torchwrite *w;
        void *bytes;
        size_t n;
        assert_int_equal(slr_torchwrite_new(&w, NULL), 0);
        cases[i].tell(w);
        assert_int_equal(slr_torchwrite_save(w, path), cases[i].code);
        assert_says(cases[i].says);
        slr_torchwrite_free(w);
        assert_int_equal(slr_file_read(NULL, path, 100, &bytes, &n), 0);
        assert_memory_equal(bytes, "old", 3);
        slr_free(NULL, bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_back),
        cmocka_unit_test(zip_is_sound),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
