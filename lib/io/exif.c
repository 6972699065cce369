/* SPDX-License-Identifier: MIT */
/* EXIF, as far as pictures here need it: the orientation in the first directory, and the user
 * comment in the directory of camera settings, which is where generation parameters lie in JPEG and
 * WebP files.  Two offsets are followed, one to that directory and one to the comment, so hostile
 * ones lead nowhere. */
#include "io/codec.h"

#include <string.h>

#include "base/status.h"
#include "base/str.h"

enum {
    EXIF_MAX = 65536, /* for the orientation, which lies in front */
    BLOCK_MAX = 8 << 20,
    ENTRIES_MAX = 512,
    ENTRY = 12, /* tag, type, count, value: 2, 2, 4, 4 bytes */
    TAG_ORIENTATION = 0x0112,
    TAG_SETTINGS = 0x8769, /* offset of the second directory */
    TAG_COMMENT = 0x9286,
    TYPE_BYTE = 1,
    TYPE_ASCII = 2,
    TYPE_SHORT = 3,
    TYPE_LONG = 4,
    TYPE_UNDEFINED = 7,
    CODE = 8 /* bytes that name a comment's encoding */
};

typedef struct tiff {
    const uint8_t *p;
    size_t n;
    bool big;
} tiff;

typedef struct entry {
    uint32_t type, count, value; /* value: of SHORT or LONG, or an offset */
    size_t inline_at;            /* of the four bytes */
} entry;

static uint32_t u16(const tiff *t, size_t at)
{
    return t->big ? slr_be16(t->p + at) : slr_le16(t->p + at);
}

static uint32_t u32(const tiff *t, size_t at)
{
    return t->big ? slr_be32(t->p + at) : slr_le32(t->p + at);
}

static bool open_tiff(tiff *t, const uint8_t *bytes, size_t n)
{
    *t = (tiff){bytes, n, n && bytes[0] == 'M'};
    return n >= 8 && !memcmp(bytes, t->big ? "MM\0*" : "II*\0", 4);
}

/* The first entry with this tag in the directory at `at`. */
static bool find(const tiff *t, uint32_t at, uint32_t tag, entry *out)
{
    uint32_t entries;
    if (at < 8 || at > t->n - 2)
        return false;
    entries = u16(t, at);
    at += 2;
    for (uint32_t i = 0; i < entries && i < ENTRIES_MAX && t->n - at >= ENTRY; i++, at += ENTRY) {
        if (u16(t, at) != tag)
            continue;
        out->type = u16(t, at + 2);
        out->count = u32(t, at + 4);
        out->value = out->type == TYPE_SHORT ? u16(t, at + 8) : u32(t, at + 8);
        out->inline_at = at + 8;
        return true;
    }
    return false;
}

int slr_exif_orientation(const uint8_t *bytes, size_t n)
{
    tiff t;
    entry e;
    if (n > EXIF_MAX || !open_tiff(&t, bytes, n) || !find(&t, u32(&t, 4), TAG_ORIENTATION, &e) ||
        e.count != 1 || (e.type != TYPE_SHORT && e.type != TYPE_LONG))
        return 1;
    return e.value >= 1 && e.value <= 8 ? (int)e.value : 1;
}

bool slr_exif_comment(const uint8_t *bytes, size_t n, size_t *at, size_t *len)
{
    tiff t;
    entry e;
    if (!open_tiff(&t, bytes, n) || !find(&t, u32(&t, 4), TAG_SETTINGS, &e) ||
        e.type != TYPE_LONG || e.count != 1 || !find(&t, e.value, TAG_COMMENT, &e) ||
        (e.type != TYPE_UNDEFINED && e.type != TYPE_BYTE && e.type != TYPE_ASCII))
        return false;
    *len = e.count;
    *at = e.count <= 4 ? e.inline_at : u32(&t, e.inline_at);
    return *at <= n && *len <= n - *at;
}

static size_t skip_name(const uint8_t *block, size_t n)
{
    return n >= 6 && !memcmp(block, "Exif\0\0", 6) ? 6 : 0;
}

int slr_exif_from(slr_source *s, uint64_t at, uint64_t n)
{
    uint8_t block[4096]; /* the first directory lies at the front; its values are inline */
    size_t have, skip;
    if (n > EXIF_MAX)
        return 1;
    have = n < sizeof block ? (size_t)n : sizeof block;
    if (slr_source_get(s, at, block, have) < 0)
        return 1;
    skip = skip_name(block, have);
    return slr_exif_orientation(block + skip, have - skip);
}

/* --- the comment's text --- */

static void put(slr_buf *out, uint32_t cp)
{
    char utf8[4];
    if (cp) /* texts are C strings; some writers end or fill theirs with NULs */
        slr_buf_add(out, utf8, slr_utf8_put(utf8, cp));
}

/* The standard leaves the byte order open and A1111 writes big endian; little endian is told by its
 * mark, or by where the zero halves of Latin letters stand. */
static bool is_little(const uint8_t *p, size_t n)
{
    size_t first = 0, second = 0;
    if (n >= 2 && ((p[0] == 0xff && p[1] == 0xfe) || (p[0] == 0xfe && p[1] == 0xff)))
        return p[0] == 0xff;
    for (size_t i = 0; i + 1 < n; i += 2) {
        first += !p[i];
        second += !p[i + 1];
    }
    return second > first;
}

static void add_utf16(slr_buf *out, const uint8_t *p, size_t n)
{
    tiff t = {p, n & ~(size_t)1, !is_little(p, n)};
    for (size_t i = 0; i < t.n; i += 2) {
        uint32_t c = u16(&t, i), next = i + 2 < t.n ? u16(&t, i + 2) : 0;
        if (!i && c == 0xfeff)
            continue;
        if ((c & 0xfc00) == 0xd800 && (next & 0xfc00) == 0xdc00) {
            c = 0x10000 + ((c & 0x3ff) << 10) + (next & 0x3ff);
            i += 2;
        }
        put(out, c); /* half a pair comes out as U+FFFD */
    }
}

/* ASCII as it is; half-width kana by their table; of double bytes only that there was a letter. */
static void add_jis(slr_buf *out, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool pair = p[i] >= 0x80 && !(p[i] >= 0xa1 && p[i] <= 0xdf);
        put(out, pair ? 0xfffd : p[i] < 0x80 ? p[i] : p[i] - 0xa1u + 0xff61u);
        i += pair;
    }
}

void slr_exif_comment_text(slr_buf *out, const uint8_t *p, size_t n)
{
    static const struct {
        const char *code;
        void (*add)(slr_buf *out, const uint8_t *p, size_t n);
    } rows[] = {{"UNICODE\0", add_utf16},
                {"ASCII\0\0\0", slr_image_text_keep},
                {"JIS\0\0\0\0\0", add_jis},
                {"\0\0\0\0\0\0\0\0", slr_image_text_keep}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (n >= CODE && !memcmp(p, rows[i].code, CODE)) {
            rows[i].add(out, p + CODE, n - CODE);
            return;
        }
    slr_image_text_keep(out, p, n);
}

int slr_exif_texts(slr_source *s, uint64_t at, uint64_t n, slr_image_texts *out)
{
    size_t from, len, skip;
    slr_buf text;
    uint8_t *block;
    int rc;
    if (n > BLOCK_MAX)
        return SDLORA_OK;
    block = slr_alloc(out->m, (size_t)n);
    if (!block)
        return SDLORA_ENOMEM;
    rc = slr_source_get(s, at, block, (size_t)n);
    skip = rc < 0 ? 0 : skip_name(block, (size_t)n);
    slr_buf_init(&text, out->m);
    if (rc >= 0 && slr_exif_comment(block + skip, (size_t)n - skip, &from, &len))
        slr_exif_comment_text(&text, block + skip + from, len);
    slr_free(out->m, block);
    if (rc >= 0)
        rc = slr_buf_ok(&text);
    if (rc >= 0 && text.len)
        return slr_image_texts_set(out, "UserComment", slr_buf_take(&text));
    slr_buf_free(&text);
    return rc;
}

/* --- writing --- */

static void put16(slr_buf *b, uint32_t v)
{
    slr_buf_putc(b, (char)(v >> 8));
    slr_buf_putc(b, (char)v);
}

static void put32(slr_buf *b, uint32_t v)
{
    put16(b, v >> 16);
    put16(b, v & 0xffff);
}

/* A directory of one entry. */
static void put_directory(slr_buf *b, uint32_t tag, uint32_t type, uint32_t count, uint32_t value)
{
    put16(b, 1);
    put16(b, tag);
    put16(b, type);
    put32(b, count);
    put32(b, value);
    put32(b, 0); /* no further directory */
}

static void put_utf16(slr_buf *b, const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += slr_utf8_next(text + i, n - i, &cp);
        if (cp > 0xffff) {
            put16(b, 0xd800 + ((cp - 0x10000) >> 10));
            cp = 0xdc00 + (cp & 0x3ff);
        }
        put16(b, cp);
    }
}

int slr_exif_make(slr_buf *out, const char *text)
{
    enum { HEAD = 8, DIRECTORY = 2 + ENTRY + 4 };
    slr_buf comment;
    int rc;
    slr_buf_init(&comment, out->m);
    slr_buf_add(&comment, "UNICODE\0", CODE);
    put_utf16(&comment, text);
    rc = slr_buf_ok(&comment);
    if (rc >= 0 && comment.len > BLOCK_MAX)
        rc = slr_fail(SDLORA_EINVAL, "slr_exif", "the text for the picture takes %zu bytes",
                      comment.len);
    if (rc >= 0) {
        slr_buf_add(out, "MM\0*\0\0\0\10", HEAD);
        put_directory(out, TAG_SETTINGS, TYPE_LONG, 1, HEAD + DIRECTORY);
        put_directory(out, TAG_COMMENT, TYPE_UNDEFINED, (uint32_t)comment.len,
                      HEAD + 2 * DIRECTORY);
        slr_buf_add(out, comment.data, comment.len);
        rc = slr_buf_ok(out);
    }
    slr_buf_free(&comment);
    return rc;
}
