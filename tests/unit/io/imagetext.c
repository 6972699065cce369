/* SPDX-License-Identifier: MIT */
/* Texts of pictures, in and out: what is written is read again from PNG, JPEG and WebP, comments of
 * every encoding, further texts of PNG, and hostile EXIF blocks. */
#include "io_test.h"
#include "io/codec.h"
#include "io/image.h"

#define PICTURES TEST_ROOT "/golden/infotext/"

static const char *const formats[] = {"png", "jpeg", "webp"};

static const char *const samples[] = {
    "red apple\nNegative prompt: food\nSteps: 4, Sampler: Euler a",
    "caf\xc3\xa9, \xe7\x8c\xab \xf0\x9f\x90\xb1, a: \"b\"",
    "x",
};

static slr_pixels gradient(int w, int h, int c)
{
    slr_pixels p = {w, h, c, slr_alloc(NULL, (size_t)(w * h * c))};
    for (int i = 0; i < w * h * c; i++)
        p.data[i] = (uint8_t)(i / c % w * 200 / w + i % c * 20);
    return p;
}

static void check_ok(int rc)
{
    if (rc < 0)
        fail_msg("%s", sdlora_last_error_text());
}

static const char *text_of(const slr_image_texts *t)
{
    const char *comment = slr_image_texts_get(t, "UserComment");
    return comment ? comment : slr_image_texts_get(t, "parameters");
}

/* --- what is written is read --- */

static void round_trip(const char *format, const slr_pixels *p, const slr_image_save *how)
{
    void *a, *b;
    size_t na, nb;
    slr_image_texts texts;
    slr_image_info info;
    slr_pixels back;
    check_ok(slr_image_encode(NULL, p, format, how, &a, &na));
    check_ok(slr_image_encode(NULL, p, format, how, &b, &nb));
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    check_ok(slr_image_info_parse(a, na, "x", &info));
    assert_string_equal(info.format, format);
    assert_int_equal(info.orientation, 1);
    check_ok(slr_image_decode(NULL, a, na, "x", true, &back));
    assert_int_equal(back.width, p->width);
    assert_int_equal(back.height, p->height);
    if (back.channels == p->channels && (!strcmp(format, "png") || how->lossless))
        assert_memory_equal(back.data, p->data, (size_t)(p->width * p->height * p->channels));
    check_ok(slr_image_texts_parse(&texts, NULL, a, na, "x"));
    if (how->text && *how->text)
        assert_string_equal(text_of(&texts), how->text);
    else
        assert_int_equal(texts.n, !strcmp(format, "png") && how->text);
    slr_image_texts_free(&texts);
    slr_free(NULL, back.data);
    slr_free(NULL, a);
    slr_free(NULL, b);
}

static void what_is_written_is_read(void **state)
{
    for (size_t f = 0; f < 3; f++)
        for (int c = 3; c <= 4; c++)
            for (size_t k = 0; k <= sizeof samples / sizeof *samples; k++) {
                slr_pixels p = gradient(17 + (int)k, 9, c);
                const char *text = k < sizeof samples / sizeof *samples ? samples[k] : NULL;
                round_trip(formats[f], &p, &(slr_image_save){.text = text});
                round_trip(formats[f], &p, &(slr_image_save){.text = text, .quality = 100});
                if (f == 2)
                    round_trip(formats[f], &p, &(slr_image_save){.text = text, .lossless = true});
                round_trip(formats[f], &p, &(slr_image_save){.text = ""});
                slr_free(NULL, p.data);
            }
}

/* Better quality takes more bytes and comes nearer. */
static void quality_counts(void **state)
{
    slr_pixels p = gradient(64, 64, 3);
    for (int i = 0; i < 64 * 64 * 3; i++)
        p.data[i] ^= (uint8_t)(i * 2654435761u >> 29);
    for (size_t f = 1; f < 3; f++) {
        size_t before = 0;
        for (int quality = 10; quality <= 100; quality += 30) {
            void *bytes;
            size_t n;
            check_ok(slr_image_encode(NULL, &p, formats[f], &(slr_image_save){.quality = quality},
                                      &bytes, &n));
            assert_true(n > before);
            before = n;
            slr_free(NULL, bytes);
        }
    }
    slr_free(NULL, p.data);
}

/* 80 is what AUTOMATIC1111 writes with. */
static void quality_has_a_default(void **state)
{
    slr_pixels p = gradient(32, 32, 3);
    for (size_t f = 1; f < 3; f++) {
        void *a, *b;
        size_t na, nb;
        check_ok(slr_image_encode(NULL, &p, formats[f], NULL, &a, &na));
        check_ok(slr_image_encode(NULL, &p, formats[f], &(slr_image_save){.quality = 80}, &b, &nb));
        assert_int_equal(na, nb);
        assert_memory_equal(a, b, na);
        slr_free(NULL, a);
        slr_free(NULL, b);
    }
    slr_free(NULL, p.data);
}

static void a_keyword_stands_once(void **state)
{
    slr_image_texts t = {0};
    check_ok(slr_image_texts_set(&t, "a", slr_strdup(NULL, "1")));
    check_ok(slr_image_texts_set(&t, "b", slr_strdup(NULL, "2")));
    check_ok(slr_image_texts_set(&t, "a", slr_strdup(NULL, "3")));
    assert_int_equal(t.n, 2);
    assert_string_equal(slr_image_texts_get(&t, "a"), "3");
    assert_null(slr_image_texts_get(&t, "c"));
    assert_int_equal(slr_image_texts_set(&t, "c", NULL), SDLORA_ENOMEM);
    slr_image_texts_free(&t);
}

static void endings_choose_the_format(void **state)
{
    static const struct {
        const char *name, *format;
    } rows[] = {{"a.png", "png"},   {"b.PNG", "png"},    {"c.jpg", "jpeg"},
                {"d.jpeg", "jpeg"}, {"e.JPG", "jpeg"},   {"f.webp", "webp"},
                {"g.gif", NULL},    {"no ending", NULL}, {"h.png.txt", NULL}};
    slr_pixels p = gradient(5, 4, 3);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        slr_image_info info;
        int rc = slr_image_write(NULL, in_scratch(rows[i].name), &p, NULL);
        if (!rows[i].format) {
            assert_int_equal(rc, SDLORA_EINVAL);
            assert_says(rows[i].name);
            continue;
        }
        check_ok(rc);
        check_ok(slr_image_info_read(in_scratch(rows[i].name), &info));
        assert_string_equal(info.format, rows[i].format);
    }
    slr_free(NULL, p.data);
}

/* 65533 bytes of a segment, less 6 of its name, 44 of directories and 8 of the encoding, leave room
 * for 32737 letters. */
static void long_texts(void **state)
{
    enum { MOST = (65533 - 6 - 44 - 8) / 2, MORE = 200000 };
    slr_pixels p = gradient(8, 8, 3);
    char *text = malloc(MORE + 1);
    void *bytes;
    size_t n;
    memset(text, 'a', MORE);
    text[MORE] = '\0';
    round_trip("png", &p, &(slr_image_save){.text = text});
    round_trip("webp", &p, &(slr_image_save){.text = text});
    text[MOST] = '\0';
    round_trip("jpeg", &p, &(slr_image_save){.text = text});
    text[MOST] = 'a';
    text[MOST + 1] = '\0';
    assert_int_equal(
        slr_image_encode(NULL, &p, "jpeg", &(slr_image_save){.text = text}, &bytes, &n),
        SDLORA_EINVAL);
    assert_null(bytes);
    assert_says("PNG and WebP");
    free(text);
    slr_free(NULL, p.data);
}

static void bad_requests(void **state)
{
    slr_pixels p = gradient(8, 8, 3), wide = gradient(16384, 1, 3);
    void *bytes;
    size_t n;
    for (size_t f = 0; f < 3; f++) {
        assert_int_equal(
            slr_image_encode(NULL, &p, formats[f], &(slr_image_save){.text = "\xff"}, &bytes, &n),
            SDLORA_EINVAL);
        assert_int_equal(
            slr_image_encode(NULL, &p, formats[f], &(slr_image_save){.quality = 101}, &bytes, &n),
            SDLORA_EINVAL);
    }
    assert_int_equal(slr_image_encode(NULL, &p, "gif", NULL, &bytes, &n), SDLORA_EINVAL);
    assert_int_equal(slr_image_encode(NULL, &wide, "webp", NULL, &bytes, &n), SDLORA_EINVAL);
    assert_says("16383");
    slr_free(NULL, p.data);
    slr_free(NULL, wide.data);
}

/* --- further texts of a PNG --- */

static void other_texts_are_kept(void **state)
{
    static const struct {
        const char *keyword, *text;
        bool kept;
    } rows[] = {{"workflow", "{\"nodes\": []}", true},
                {"postprocessing", "\xe7\x8c\xab", true},
                {"caf\xc3\xa9", "", true},
                {"parameters", "of another picture", false},
                {"", "no keyword", false},
                {" leading", "x", false},
                {"two  spaces", "x", false},
                {"\xe7\x8c\xab", "no Latin letter", false},
                {"control\x01", "x", false}};
    slr_image_texts others = {0}, back, copy;
    slr_pixels p = gradient(4, 4, 3);
    void *bytes;
    size_t n, kept = 1;
    char longest[81];
    memset(longest, 'k', 80);
    longest[80] = '\0';
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check_ok(slr_image_texts_set(&others, rows[i].keyword, slr_strdup(NULL, rows[i].text)));
    check_ok(slr_image_texts_set(&others, longest, slr_strdup(NULL, "too long")));
    check_ok(slr_image_texts_copy(&copy, NULL, &others));
    assert_int_equal(copy.n, others.n);
    check_ok(slr_image_encode(NULL, &p, "png", &(slr_image_save){.text = "new", .others = &copy},
                              &bytes, &n));
    check_ok(slr_image_texts_parse(&back, NULL, bytes, n, "x"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].kept) {
            assert_string_equal(slr_image_texts_get(&back, rows[i].keyword), rows[i].text);
            kept++;
        }
    assert_string_equal(slr_image_texts_get(&back, "parameters"), "new");
    assert_int_equal(back.n, kept);
    assert_string_equal(back.at[back.n - 1].keyword, "parameters"); /* the last, as A1111 has it */
    slr_free(NULL, bytes);
    slr_image_texts_free(&others);
    slr_image_texts_free(&copy);
    slr_image_texts_free(&back);
    slr_free(NULL, p.data);
}

/* A broken text that nobody needs does not keep a picture from being read; its parameters do. */
static void broken_texts(void **state)
{
    slr_image_texts others = {0}, back;
    slr_pixels p = gradient(4, 4, 3);
    void *bytes;
    size_t n;
    check_ok(slr_image_texts_set(&others, "note", slr_strdup(NULL, "damaged")));
    check_ok(slr_image_encode(NULL, &p, "png", &(slr_image_save){.text = "fine", .others = &others},
                              &bytes, &n));
    char *note = memmem(bytes, n, "damaged", 7), *fine = memmem(bytes, n, "fine", 4);
    note[0] ^= 1; /* now its checksum is wrong */
    check_ok(slr_image_texts_parse(&back, NULL, bytes, n, "x"));
    assert_int_equal(back.n, 1);
    assert_string_equal(slr_image_texts_get(&back, "parameters"), "fine");
    slr_image_texts_free(&back);
    fine[0] ^= 1;
    assert_int_equal(slr_image_texts_parse(&back, NULL, bytes, n, "x"), SDLORA_EFORMAT);
    slr_image_texts_free(&back);
    slr_image_texts_free(&others);
    slr_free(NULL, bytes);
    slr_free(NULL, p.data);
}

/* --- EXIF --- */

static void comments_of_every_encoding(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *text;
    } rows[] = {
        {"UNICODE\0\0a\0b", 12, "ab"},
        {"UNICODE\0a\0b\0", 12, "ab"}, /* little endian by its zeros */
        {"UNICODE\0\xff\xfe"
         "a\0",
         12, "a"}, /* by its mark */
        {"UNICODE\0\xfe\xff\0a", 12, "a"},
        {"UNICODE\0\x73\x2b", 10, "\xe7\x8c\xab"},             /* no zeros: big endian */
        {"UNICODE\0\xd8\x3d\xdc\x31", 12, "\xf0\x9f\x90\xb1"}, /* a pair */
        {"UNICODE\0\xd8\x3d\0a", 12,
         "\xef\xbf\xbd"
         "a"},                       /* half a pair */
        {"UNICODE\0\0a\0", 11, "a"}, /* an odd byte */
        {"UNICODE\0", 8, ""},
        {"ASCII\0\0\0abc\0\0", 13, "abc"},
        {"JIS\0\0\0\0\0ab\xb1\x8e\x4c", 13, "ab\xef\xbd\xb1\xef\xbf\xbd"},
        {"\0\0\0\0\0\0\0\0abc", 11, "abc"},
        {"caf\xc3\xa9, plain", 12, "caf\xc3\xa9, plain"},
        {"a\xff\xfe"
         "b\0",
         5, "ab"},
        {"", 0, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        slr_buf b;
        slr_buf_init(&b, NULL);
        slr_buf_add(&b, "", 0);
        slr_exif_comment_text(&b, (const uint8_t *)rows[i].bytes, rows[i].n);
        assert_string_equal(b.data, rows[i].text);
        slr_buf_free(&b);
    }
}

/* Every cut, and every byte replaced by a few others, in a block of exactly its size. */
static void hostile_exif(void **state)
{
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
    slr_buf good;
    size_t at, len;
    slr_buf_init(&good, NULL);
    check_ok(slr_exif_make(&good, "text"));
    assert_true(slr_exif_comment((uint8_t *)good.data, good.len, &at, &len));
    assert_int_equal(at, 44);
    assert_int_equal(len, 8 + 2 * 4);
    for (size_t n = 0; n < good.len; n++) {
        uint8_t *cut = malloc(n ? n : 1);
        memcpy(cut, good.data, n);
        assert_false(slr_exif_comment(cut, n, &at, &len));
        slr_exif_orientation(cut, n);
        free(cut);
    }
    for (size_t i = 0; i < good.len; i++)
        for (size_t k = 0; k < sizeof values; k++) {
            uint8_t *bytes = malloc(good.len);
            slr_buf text;
            memcpy(bytes, good.data, good.len);
            bytes[i] = values[k];
            slr_buf_init(&text, NULL);
            if (slr_exif_comment(bytes, good.len, &at, &len)) {
                assert_true(at <= good.len && len <= good.len - at);
                slr_exif_comment_text(&text, bytes + at, len);
            }
            slr_buf_free(&text);
            free(bytes);
        }
    slr_buf_free(&good);
}

/* Files of Pillow and piexif, cut everywhere: never more than what is there. */
static void cut_files(void **state)
{
    static const char *const names[] = {"a1111.png", "a1111.jpg", "a1111.webp", "little.jpg",
                                        "comment.jpg"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char path[512];
        size_t n;
        snprintf(path, sizeof path, PICTURES "%s", names[k]);
        char *file = get_file(path, &n);
        for (size_t cut = 0; cut <= n; cut++) {
            slr_image_texts texts;
            char *part = malloc(cut ? cut : 1);
            memcpy(part, file, cut);
            int rc = slr_image_texts_parse(&texts, NULL, part, cut, "x");
            assert_true(rc <= 0);
            assert_true(cut < n || (rc == 0 && texts.n == 1));
            slr_image_texts_free(&texts);
            free(part);
        }
        free(file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(quality_counts),
        cmocka_unit_test(quality_has_a_default),
        cmocka_unit_test(a_keyword_stands_once),
        cmocka_unit_test(endings_choose_the_format),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(other_texts_are_kept),
        cmocka_unit_test(broken_texts),
        cmocka_unit_test(comments_of_every_encoding),
        cmocka_unit_test(hostile_exif),
        cmocka_unit_test(cut_files),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
