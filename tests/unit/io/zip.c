/* SPDX-License-Identifier: MIT */
/* lib/io/zip.c through torch files: every field of every record bent, one at a time. */
#include "torch_build.h"

static zip_file base_zip;

static void base(zip_file *z)
{
    static bytes pickle;
    pickle.n = 0;
    plain_pickle(&pickle);
    torch_make(z, &pickle, "\0\0\200\077\0\0\0\100", 8); /* 1, 2 */
}

static void the_base_is_good(void **state)
{
    slr_torchfile *f;
    slr_tensor t;
    unsigned char *copy;
    base(&base_zip);
    assert_int_equal(torch_open(&f, base_zip.b.at, base_zip.b.n, &copy), 0);
    assert_int_equal(slr_torchfile_count(f), 1);
    assert_string_equal(slr_torchfile_at(f, 0, &t), "w");
    assert_int_equal(t.dtype, SDLORA_F32);
    assert_int_equal(t.rank, 1);
    assert_int_equal(t.dim[0], 2);
    assert_memory_equal(t.data, "\0\0\200\077\0\0\0\100", 8);
    assert_true((const unsigned char *)t.data > copy &&
                (const unsigned char *)t.data < copy + base_zip.b.n); /* in place */
    slr_torchfile_close(f);
    free(copy);
}

/* Where: L local header, C central record, Z ZIP64 end, P locator, E end. */
static const struct {
    char where;
    int entry;
    size_t at;
    int width;
    uint64_t value;
    const char *what;
} bends[] = {
    {'L', 0, 0, 4, 0x04034b51, "local signature"},
    {'L', 0, 6, 2, 0x0801, "local flag: encrypted"},
    {'L', 0, 6, 2, 0, "local flags differ"},
    {'L', 0, 8, 2, 8, "local method: deflate"},
    {'L', 2, 14, 4, 1, "local crc differs"},
    {'L', 2, 18, 4, 7, "local packed size differs"},
    {'L', 2, 22, 4, 9, "local size differs"},
    {'L', 2, 22, 4, 0, "local size 0 without descriptor"},
    {'L', 2, 22, 4, UINT32_MAX, "local size marked, no ZIP64 field"},
    {'L', 2, 26, 2, 7, "local name shorter"},
    {'L', 2, 26, 2, 9, "local name longer"},
    {'L', 2, 28, 2, 1, "local extra of one byte"},
    {'L', 2, 28, 2, 65535, "local extra past the end"},
    {'L', 2, 30, 1, 'b', "local name differs"},
    {'C', 0, 0, 4, 0x02014b51, "central signature"},
    {'C', 0, 8, 2, 0x0801, "encrypted"},
    {'C', 0, 8, 2, 0x0840, "strong encryption"},
    {'C', 0, 8, 2, 0x2800, "masked headers"},
    {'C', 0, 10, 2, 8, "deflated"},
    {'C', 2, 10, 2, 12, "bzip2"},
    {'C', 0, 16, 4, 1, "crc of the pickle"},
    {'C', 2, 20, 4, 4, "packed size differs from size"},
    {'C', 2, 24, 4, 4, "size differs from packed size"},
    {'C', 2, 20, 8, UINT64_MAX, "both sizes marked, no ZIP64 field"},
    {'C', 2, 20, 8, (uint64_t)9 << 32 | 9, "sizes one longer"},
    {'C', 2, 20, 8, (uint64_t)7 << 32 | 7, "sizes one shorter"},
    {'C', 2, 20, 8, (uint64_t)0xfffffff0 << 32 | 0xfffffff0, "sizes past the end"},
    {'C', 2, 28, 2, 7, "name shorter"},
    {'C', 2, 28, 2, 65535, "name past the directory"},
    {'C', 2, 30, 2, 1, "extra takes the next record's bytes"},
    {'C', 2, 32, 2, 1, "comment takes the next record's bytes"},
    {'C', 2, 34, 2, 1, "on another disk"},
    {'C', 2, 42, 4, 0, "header of another entry"},
    {'C', 2, 42, 4, 1, "header in the middle of nowhere"},
    {'C', 2, 42, 4, 0x7fffffff, "header past the end"},
    {'C', 2, 42, 4, UINT32_MAX, "header marked, no ZIP64 field"},
    {'C', 0, 46, 1, 'b', "central name differs"},
    {'C', 0, 46, 1, 0, "name with a NUL"},
    {'C', 0, 46, 1, '/', "absolute name"},
    {'C', 0, 46, 2, 0x2e2e, "name that goes up"},
    {'C', 0, 46, 1, 0xff, "name that is not UTF-8"},
    {'C', 0, 46, 1, 0x1b, "name with an escape"},
    {'C', 0, 47, 1, '\\', "name with a backslash"},
    {'Z', 0, 0, 4, 0, "ZIP64 end signature"},
    {'Z', 0, 4, 8, 45, "ZIP64 end size"},
    {'Z', 0, 4, 8, UINT64_MAX, "ZIP64 end size, huge"},
    {'Z', 0, 16, 4, 1, "ZIP64 disk"},
    {'Z', 0, 24, 8, 3, "ZIP64 counts differ"},
    {'Z', 0, 32, 8, 5, "ZIP64 count one more"},
    {'Z', 0, 32, 8, UINT64_MAX, "ZIP64 count, huge"},
    {'Z', 0, 40, 8, 1, "ZIP64 directory size"},
    {'Z', 0, 40, 8, UINT64_MAX, "ZIP64 directory size, huge"},
    {'Z', 0, 48, 8, 0, "ZIP64 directory place"},
    {'Z', 0, 48, 8, UINT64_MAX, "ZIP64 directory place, huge"},
    {'P', 0, 4, 4, 1, "locator: another disk"},
    {'P', 0, 8, 8, 0, "locator: wrong place"},
    {'P', 0, 8, 8, UINT64_MAX, "locator: place, huge"},
    {'P', 0, 16, 4, 2, "locator: two disks"},
    {'E', 0, 0, 4, 0, "end signature"},
    {'E', 0, 4, 2, 1, "end: disk"},
    {'E', 0, 6, 2, 1, "end: directory's disk"},
    {'E', 0, 8, 2, 3, "end: count here differs"},
    {'E', 0, 10, 2, 5, "end: count differs from ZIP64"},
    {'E', 0, 12, 4, 1, "end: size differs from ZIP64"},
    {'E', 0, 16, 4, 1, "end: place differs from ZIP64"},
    {'E', 0, 20, 2, 1, "end: comment that is not there"},
};

static size_t place(const zip_file *z, char where, int entry)
{
    switch (where) {
    case 'L':
        return z->local[entry];
    case 'C':
        return z->central[entry];
    case 'Z':
        return z->end64;
    case 'P':
        return z->locator;
    default:
        return z->end;
    }
}

static void refuses_every_bend(void **state)
{
    static zip_file z;
    for (size_t i = 0; i < sizeof bends / sizeof *bends; i++) {
        base(&z);
        set_le(&z.b, place(&z, bends[i].where, bends[i].entry) + bends[i].at, bends[i].value,
               bends[i].width);
        if (torch_try(z.b.at, z.b.n) == 0)
            fail_msg("accepted: %s", bends[i].what);
    }
}

/* Lies that both headers of an entry tell alike. */
static void refuses_what_both_headers_say(void **state)
{
    static const struct {
        size_t local, central;
        uint64_t value;
        int width;
    } rows[] = {
        {6, 8, 0x0801, 2}, {6, 8, 0x0840, 2}, {6, 8, 0x2800, 2}, {8, 10, 8, 2}, {14, 16, 12345, 4}};
    static zip_file z;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        base(&z);
        set_le(&z.b, z.local[0] + rows[i].local, rows[i].value, rows[i].width);
        set_le(&z.b, z.central[0] + rows[i].central, rows[i].value, rows[i].width);
        if (torch_try(z.b.at, z.b.n) != SDLORA_EFORMAT)
            fail_msg("row %zu is accepted", i);
    }
}

/* Any one bit of the records but times, versions and attributes: refused, or no difference. */
static void refuses_every_bit_of_the_end(void **state)
{
    static zip_file z;
    base(&z);
    for (size_t at = z.end64; at < z.b.n; at++)
        for (int bit = 0; bit < 8; bit++) {
            if (at >= z.end64 + 12 && at < z.end64 + 16)
                continue; /* versions */
            z.b.at[at] ^= (unsigned char)(1 << bit);
            if (torch_try(z.b.at, z.b.n) == 0)
                fail_msg("bit %d of byte %zu of the end records", bit, at - z.end64);
            z.b.at[at] ^= (unsigned char)(1 << bit);
        }
}

static void refuses_every_cut(void **state)
{
    static zip_file z;
    base(&z);
    for (size_t n = 0; n < z.b.n; n++)
        if (torch_try(z.b.at, n) == 0)
            fail_msg("cut to %zu of %zu bytes", n, z.b.n);
    add(&z.b, "x", 1);
    assert_true(torch_try(z.b.at, z.b.n) < 0);
}

static void names_and_numbers_of_entries(void **state)
{
    static const struct {
        const char *name[ENTRIES];
        int want;
    } rows[] = {
        {{"a/data.pkl", "a/x", "a/data/0", "a/y"}, 0},
        {{"data.pkl", "x", "data/0", "y"}, 0},
        {{"a/data.pkl", "a/x", "a/data/0", "b/data.pkl"}, SDLORA_EFORMAT},
        {{"a/data.pkl", "a/data.pkl", "a/data/0", "y"}, SDLORA_EFORMAT},
        {{"a/data.pkl", "a/data/0", "a/data/0", "y"}, SDLORA_EFORMAT},
        {{"a/data.pkl", "x", "b/data/0", "y"}, SDLORA_EFORMAT},
        {{"a/data.pkl", "x", "a/data/1", "y"}, SDLORA_EFORMAT},
        {{"a/data.pickle", "x", "a/data/0", "y"}, SDLORA_EFORMAT},
        {{"../data.pkl", "x", "../data/0", "y"}, SDLORA_EFORMAT},
        {{"/data.pkl", "x", "/data/0", "y"}, SDLORA_EFORMAT},
        {{"a/data.pkl", "x", "a/data/0", ""}, SDLORA_EFORMAT},
        {{"a/data.pkl", "a/byteorder", "a/data/0", "y"}, SDLORA_ENOTSUP}, /* not "little" */
    };
    static bytes pickle;
    static zip_file z;
    plain_pickle(&pickle);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        zip_entry e[ENTRIES] = {{rows[i].name[0], pickle.at, pickle.n},
                                {rows[i].name[1], "big", 3},
                                {rows[i].name[2], "12345678", 8},
                                {rows[i].name[3], "", 0}};
        int rc;
        zip_make(&z, e, ENTRIES);
        rc = torch_try(z.b.at, z.b.n);
        if (rc != rows[i].want)
            fail_msg("row %zu: %d, wanted %d", i, rc, rows[i].want);
    }
}

/* Two directory records that lead to one stretch of bytes. */
static void refuses_overlap(void **state)
{
    static bytes pickle;
    static zip_file z;
    unsigned char inner[64] = {0};
    bytes local = {{0}, 0};
    zip_entry hidden = {"a/data/1", "12345678", 8};
    plain_pickle(&pickle);
    zip_header(&local, false, &hidden, 0);
    add(&local, "12345678", 8);
    memcpy(inner, local.at, local.n);
    {
        zip_entry e[ENTRIES] = {{"a/data.pkl", pickle.at, pickle.n},
                                {"a/data/0", "12345678", 8},
                                {"a/outer", inner, local.n},
                                {"a/data/1", "12345678", 8}};
        zip_make(&z, e, ENTRIES);
    }
    assert_int_equal(torch_try(z.b.at, z.b.n), 0);
    /* The last record now points at the header that lies inside the entry before it. */
    set_le(&z.b, z.central[3] + 42, z.local[2] + 30 + 7, 4);
    assert_int_equal(torch_try(z.b.at, z.b.n), SDLORA_EFORMAT);
    assert_says("overlaps");
}

static void descriptors_and_zip64_fields_are_read(void **state)
{
    static zip_file z;
    base(&z);
    for (int i = 0; i < ENTRIES; i++) { /* as torch writes: sizes follow the data */
        set_le(&z.b, z.local[i] + 6, 0x0808, 2);
        set_le(&z.b, z.central[i] + 8, 0x0808, 2);
        set_le(&z.b, z.local[i] + 14, 0, 4);
        set_le(&z.b, z.local[i] + 18, 0, 8);
    }
    assert_int_equal(torch_try(z.b.at, z.b.n), 0);
    set_le(&z.b, z.local[0] + 18, 3, 4);
    assert_true(torch_try(z.b.at, z.b.n) < 0);
}

static void a_plain_end_record_is_enough(void **state)
{
    static zip_file z, y;
    base(&z);
    y = z;
    y.b.n = z.end64;
    add(&y.b, z.b.at + z.end, 22);
    assert_int_equal(torch_try(y.b.at, y.b.n), 0);
    y.b.n = z.end64;
    add(&y.b, z.b.at + z.end, 20);
    add(&y.b, "\5\0hello", 7); /* with a comment */
    assert_int_equal(torch_try(y.b.at, y.b.n), 0);
    add(&y.b, "!", 1);
    assert_true(torch_try(y.b.at, y.b.n) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_base_is_good),
        cmocka_unit_test(refuses_every_bend),
        cmocka_unit_test(refuses_what_both_headers_say),
        cmocka_unit_test(refuses_every_bit_of_the_end),
        cmocka_unit_test(refuses_every_cut),
        cmocka_unit_test(names_and_numbers_of_entries),
        cmocka_unit_test(refuses_overlap),
        cmocka_unit_test(descriptors_and_zip64_fields_are_read),
        cmocka_unit_test(a_plain_end_record_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
