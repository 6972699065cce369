/* SPDX-License-Identifier: MIT */
/* lib/io/image.c and its codecs: pixels equal to Pillow's (data/io/make_pictures.py), refusals,
 * orientation, and PNG text in and out. */
#include "io_test.h"
#include "io/hash.h"
#include "io/codec.h"
#include "io/image.h"

#include <sys/resource.h>

#include <zlib.h>

#define PICTURES TEST_ROOT "/data/io/"

static void check_good(const char *name, const char *mode, int w, int h, int turn, const char *want)
{
    char path[512], hex[65];
    bool alpha = !strcmp(mode, "RGBA");
    slr_image_info info, again;
    slr_pixels p;
    char *bytes;
    size_t n;
    snprintf(path, sizeof path, PICTURES "pictures/%s", name);
    if (slr_image_read(NULL, path, alpha, &p) < 0)
        fail_msg("%s", sdlora_last_error_text());
    assert_int_equal(p.width, w);
    assert_int_equal(p.height, h);
    assert_int_equal(p.channels, alpha ? 4 : 3);
    slr_hash_bytes(p.data, (size_t)w * (size_t)h * (size_t)p.channels, hex);
    if (strcmp(hex, want) != 0)
        fail_msg("%s: pixels differ from Pillow's", name);
    slr_free(NULL, p.data);
    assert_int_equal(slr_image_info_read(path, &info), 0);
    assert_int_equal(info.width, w);
    assert_int_equal(info.height, h);
    assert_int_equal(info.orientation, turn);
    if (alpha)
        assert_true(info.alpha);
    bytes = get_file(path, &n);
    assert_int_equal(slr_image_info_parse(bytes, n, "x", &again), 0);
    assert_memory_equal(&info, &again, sizeof info);
    free(bytes);
}

static void check_bad(const char *name, int code)
{
    char path[512];
    slr_pixels p;
    int rc;
    snprintf(path, sizeof path, PICTURES "pictures/%s", name);
    rc = slr_image_read(NULL, path, false, &p);
    if (rc != code)
        fail_msg("%s: %d, wanted %d", name, rc, code);
    assert_null(p.data);
    assert_says(name);
}

static void equals_pillow(void **state)
{
    FILE *list = fopen(PICTURES "pictures.txt", "r");
    char line[256], name[64], mode[8], digest[65];
    int w, h, turn, code, n = 0;
    assert_non_null(list);
    for (; fgets(line, sizeof line, list); n++)
        if (sscanf(line, "%63s %7s %d %d %d %64s", name, mode, &w, &h, &turn, digest) == 6)
            check_good(name, mode, w, h, turn, digest);
        else if (sscanf(line, "%63s %d", name, &code) == 2)
            check_bad(name, code);
        else
            fail_msg("pictures.txt: %s", line);
    fclose(list);
    assert_true(n > 40);
}

static void every_cut_is_refused(void **state)
{
    static const char *const names[] = {"grey.jpg", "progressive.jpg", "lossy.webp",
                                        "lossless.webp", "corrupt.jpg"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char path[512], *bytes;
        size_t n;
        snprintf(path, sizeof path, PICTURES "pictures/%s", names[k]);
        bytes = get_file(path, &n);
        for (size_t cut = 0; cut < n; cut += k ? 3 : 1) {
            char *tight = malloc(cut + !cut); /* so that ASan sees the first byte too far */
            slr_pixels p;
            memcpy(tight, bytes, cut);
            if (slr_image_decode(NULL, tight, cut, "x", false, &p) == 0)
                fail_msg("%s cut to %zu of %zu bytes is accepted", names[k], cut, n);
            free(tight);
        }
        free(bytes);
    }
}

static void limits_are_the_callers(void **state)
{
    size_t n;
    char *bytes = get_file(PICTURES "pictures/rgb.png", &n);
    slr_pixels p;
    assert_int_equal(slr_image_decode_limit(NULL, bytes, n, "x", false, 43 * 29 - 1, &p),
                     SDLORA_EFORMAT);
    assert_says("43x29");
    assert_int_equal(slr_image_decode_limit(NULL, bytes, n, "x", false, 43 * 29, &p), 0);
    slr_free(NULL, p.data);
    free(bytes);
}

static void no_memory_is_said_so(void **state)
{
    static const char *const names[] = {"rgb.png", "adam7.png", "grey.jpg", "lossless.webp"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char path[512], *bytes;
        size_t n;
        int rc = SDLORA_ENOMEM;
        snprintf(path, sizeof path, PICTURES "pictures/%s", names[k]);
        bytes = get_file(path, &n);
        for (uint64_t budget = 16; rc == SDLORA_ENOMEM; budget *= 2) {
            slr_mem *m;
            slr_pixels p;
            assert_true(budget < 1u << 30);
            assert_int_equal(slr_mem_new(&m, NULL, budget), 0);
            rc = slr_image_decode(m, bytes, n, "x", false, &p);
            if (rc == 0)
                slr_free(m, p.data);
            assert_int_equal(slr_mem_used(m), 0);
            slr_mem_unref(m);
        }
        assert_int_equal(rc, 0);
        free(bytes);
    }
}

static void reads_orientation(void **state)
{
    static const struct {
        const char *tiff;
        size_t n;
        int want;
    } rows[] = {
        {"II*\0\10\0\0\0\1\0\22\1\3\0\1\0\0\0\6\0\0\0", 22, 6},
        {"MM\0*\0\0\0\10\0\1\1\22\0\3\0\0\0\1\0\6\0\0", 22, 6},
        {"II*\0\10\0\0\0\1\0\22\1\4\0\1\0\0\0\10\0\0\0", 22, 8},
        {"II*\0\10\0\0\0\1\0\22\1\3\0\1\0\0\0\11\0\0\0", 22, 1}, /* 9 is none */
        {"II*\0\10\0\0\0\1\0\22\1\3\0\1\0\0\0\0\0\0\0", 22, 1},  /* nor is 0 */
        {"II*\0\10\0\0\0\1\0\22\1\2\0\1\0\0\0\6\0\0\0", 22, 1},  /* text */
        {"II*\0\10\0\0\0\1\0\22\1\3\0\2\0\0\0\6\0\0\0", 22, 1},  /* two values */
        {"II*\0\10\0\0\0\1\0\22\1\3\0\1\0\0\0\6\0\0", 21, 1},    /* cut */
        {"II*\0\10\0\0\0\377\377", 10, 1},
        {"II*\0\10\0\0\0\1", 9, 1},
        {"II*\0\10\0\0\0", 8, 1},
        {"II*\0\0\0\0\0\1\0", 10, 1},
        {"II*\0\377\377\377\377\1\0", 10, 1},
        {"II*\1\10\0\0\0\1\0", 10, 1},
        {"", 0, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t *tight = malloc(rows[i].n + !rows[i].n);
        memcpy(tight, rows[i].tiff, rows[i].n);
        if (slr_exif_orientation(tight, rows[i].n) != rows[i].want)
            fail_msg("row %zu", i);
        free(tight);
    }
}

/* Letters in a 3x2 picture, as EXIF's eight orientations show them upright. */
static void turns_upright(void **state)
{
    static const struct {
        int w, h;
        const char *upright;
    } rows[9] = {{3, 2, "abcdef"}, {3, 2, "abcdef"}, {3, 2, "cbafed"},
                 {3, 2, "fedcba"}, {3, 2, "defabc"}, {2, 3, "adbecf"},
                 {2, 3, "daebfc"}, {2, 3, "fcebda"}, {2, 3, "cfbead"}};
    for (int o = 0; o < 9; o++) {
        slr_pixels p = {3, 2, 3, slr_alloc(NULL, 18)};
        for (int i = 0; i < 18; i++)
            p.data[i] = (uint8_t)("abcdef"[i / 3]);
        assert_int_equal(slr_image_orient(NULL, &p, o), 0);
        assert_int_equal(p.width, rows[o].w);
        assert_int_equal(p.height, rows[o].h);
        for (int i = 0; i < 18; i++)
            if (p.data[i] != rows[o].upright[i / 3])
                fail_msg("orientation %d, byte %d", o, i);
        slr_free(NULL, p.data);
    }
}

static slr_pixels noise(int w, int h, int c)
{
    slr_pixels p = {w, h, c, slr_alloc(NULL, (size_t)(w * h * c))};
    uint32_t x = 1;
    for (int i = 0; i < w * h * c; i++) {
        x = x * 1664525 + 1013904223;
        p.data[i] = (uint8_t)(x >> 24);
    }
    return p;
}

static void writes_png_and_text(void **state)
{
    static const char *const texts[] = {
        "1girl, caf\xc3\xa9\nNegative prompt: bad\nSteps: 20, Sampler: Euler a",
        "\xe7\x8c\xab, (cat:1.2) \xf0\x9f\x90\xb1", "x", ""};
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
        for (int c = 3; c <= 4; c++) {
            slr_pixels p = noise(17, 9, c), q;
            const char *path = in_scratch("out.png");
            void *a, *b;
            size_t na, nb;
            char *text, *file;
            assert_int_equal(slr_png_encode(NULL, &p, texts[k], &a, &na), 0);
            assert_int_equal(slr_png_encode(NULL, &p, texts[k], &b, &nb), 0);
            assert_int_equal(na, nb);
            assert_memory_equal(a, b, na);
            slr_free(NULL, b);
            assert_int_equal(slr_png_write(NULL, path, &p, texts[k]), 0);
            file = get_file(path, &nb);
            assert_int_equal(na, nb);
            assert_memory_equal(a, file, na);
            assert_int_equal(slr_image_read(NULL, path, true, &q), 0);
            assert_int_equal(q.channels, c);
            assert_memory_equal(p.data, q.data, (size_t)(17 * 9 * c));
            assert_int_equal(slr_png_text(NULL, path, &text), 0);
            assert_string_equal(text, texts[k]);
            slr_free(NULL, text);
            free(file);
            slr_free(NULL, a);
            slr_free(NULL, p.data);
            slr_free(NULL, q.data);
        }
}

static void text_can_be_absent_or_wrong(void **state)
{
    slr_pixels p = noise(3, 3, 3);
    char *text = "x";
    void *bytes;
    size_t n;
    assert_int_equal(slr_png_encode(NULL, &p, "\xff", &bytes, &n), SDLORA_EINVAL);
    assert_int_equal(slr_png_write(NULL, in_scratch("p.png"), &p, NULL), 0);
    assert_int_equal(slr_png_text(NULL, in_scratch("p.png"), &text), SDLORA_ENOTFOUND);
    assert_null(text);
    assert_int_equal(slr_png_text(NULL, in_scratch("none"), &text), SDLORA_ENOTFOUND);
    put_file(in_scratch("p.png"), "PNG", 3);
    assert_int_equal(slr_png_text(NULL, in_scratch("p.png"), &text), SDLORA_EFORMAT);
    slr_free(NULL, p.data);
}

/* A PNG signature and one chunk; returns the length. */
static size_t one_chunk(unsigned char *out, const char *name, const void *body, size_t n)
{
    uLong crc = crc32(crc32(0, (const Bytef *)name, 4), body, (uInt)n);
    memcpy(out, "\211PNG\r\n\032\n", 8);
    for (int i = 0; i < 4; i++)
        out[8 + i] = (unsigned char)(n >> (24 - 8 * i));
    memcpy(out + 12, name, 4);
    memcpy(out + 16, body, n);
    for (int i = 0; i < 4; i++)
        out[16 + n + (size_t)i] = (unsigned char)(crc >> (24 - 8 * i));
    return 20 + n;
}

static void reads_every_text_chunk(void **state)
{
    static const struct {
        const char *name, *body;
        size_t n;
        int want;
        const char *text;
    } rows[] = {
        {"tEXt", "parameters\0caf\xe9", 15, 0, "caf\xc3\xa9"},
        {"tEXt", "parameters\0", 11, 0, ""},
        {"tEXt", "parameters", 10, SDLORA_ENOTFOUND, NULL},
        {"tEXt", "Parameters\0a", 12, SDLORA_ENOTFOUND, NULL},
        {"tEXt", "parameters\0a\0b", 14, SDLORA_EFORMAT, NULL},
        {"iTXt", "parameters\0\0\0en\0key\0caf\xc3\xa9", 25, 0, "caf\xc3\xa9"},
        {"iTXt", "parameters\0\0\0\0\0caf\xe9", 19, SDLORA_EFORMAT, NULL},
        {"iTXt", "parameters\0\2\0\0\0a", 16, SDLORA_EFORMAT, NULL},
        {"iTXt", "parameters\0\1\1\0\0a", 16, SDLORA_EFORMAT, NULL},
        {"iTXt", "parameters\0\0\0\0", 14, SDLORA_EFORMAT, NULL},
        {"iTXt", "parameters\0\0\0", 13, SDLORA_EFORMAT, NULL},
        {"iTXt", "parameters\0\0", 12, SDLORA_EFORMAT, NULL},
        {"iTXt", "parameters\0\1\0\0\0not deflate", 26, SDLORA_EFORMAT, NULL},
        {"zTXt", "parameters\0\1aa", 14, SDLORA_EFORMAT, NULL},
        {"zTXt", "parameters\0", 11, SDLORA_EFORMAT, NULL},
        {"zTXt", "parameters\0\0", 12, SDLORA_EFORMAT, NULL},
        {"pHYs", "parameters\0a", 12, SDLORA_ENOTFOUND, NULL},
    };
    unsigned char file[200];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = one_chunk(file, rows[i].name, rows[i].body, rows[i].n);
        char *text;
        int rc = slr_png_text_find(NULL, file, n, "x", "parameters", &text);
        if (rc != rows[i].want)
            fail_msg("row %zu: %d, wanted %d", i, rc, rows[i].want);
        assert_true((text != NULL) == (rc == 0));
        if (text)
            assert_string_equal(text, rows[i].text);
        slr_free(NULL, text);
        file[n - 1] ^= 1; /* the checksum */
        rc = slr_png_text_find(NULL, file, n, "x", "parameters", &text);
        assert_true(rc < 0);
        file[n - 1] ^= 1;
        file[11] = 0xff; /* a chunk longer than the file */
        assert_int_equal(slr_png_text_find(NULL, file, n, "x", "parameters", &text),
                         SDLORA_EFORMAT);
    }
}

static void packed_text_is_bounded(void **state)
{
    uLong plain = 40u << 20, packed = compressBound(plain);
    unsigned char *zeros = malloc(plain), *body = malloc(packed + 64), *file = malloc(packed + 128);
    char *text;
    size_t n;
    memset(zeros, 'a', plain);
    memcpy(body, "parameters\0\0", 12);
    assert_int_equal(compress(body + 12, &packed, zeros, 1000), Z_OK);
    n = one_chunk(file, "zTXt", body, 12 + packed);
    assert_int_equal(slr_png_text_find(NULL, file, n, "x", "parameters", &text), 0);
    assert_int_equal(strlen(text), 1000);
    slr_free(NULL, text);
    packed = compressBound(plain);
    assert_int_equal(compress(body + 12, &packed, zeros, plain), Z_OK);
    n = one_chunk(file, "zTXt", body, 12 + packed);
    assert_int_equal(slr_png_text_find(NULL, file, n, "x", "parameters", &text), SDLORA_EFORMAT);
    assert_says("16 MiB");
    free(zeros);
    free(body);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_pillow),          cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(limits_are_the_callers), cmocka_unit_test(no_memory_is_said_so),
        cmocka_unit_test(reads_orientation),      cmocka_unit_test(turns_upright),
        cmocka_unit_test(writes_png_and_text),    cmocka_unit_test(text_can_be_absent_or_wrong),
        cmocka_unit_test(reads_every_text_chunk), cmocka_unit_test(packed_text_is_bounded),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
