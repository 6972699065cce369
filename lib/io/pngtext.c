/* SPDX-License-Identifier: MIT */
/* Text chunks of PNG files, by hand: tEXt, zTXt and iTXt in, with limits on what they may inflate
 * to.  It knows keywords, Latin-1 and UTF-8; it refuses to know what a text says. */
#include "io/image.h"

#include <string.h>

#include <zlib.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/inflate.h"
#include "io/pngchunk.h"

enum { KEYWORD_MAX = 79, CHUNK_MAX = 8 << 20, TEXT_MAX = 16 << 20, CHUNKS_MAX = 100000 };

#define FILE_MAX (UINT64_C(1) << 30)

/* One text chunk's payload, and where it is from. */
typedef struct payload {
    slr_mem *m;
    const char *label;
    const char *keyword;
    uint8_t *bytes;
    size_t n;
} payload;

static int bad(const payload *p, const char *what)
{
    return slr_fail(SDLORA_EFORMAT, "slr_png_text", "%s: text \"%s\": %s", p->label, p->keyword,
                    what);
}

static int inflate_into(const payload *p, const uint8_t *from, size_t n, slr_buf *to)
{
    const char *why;
    int rc = slr_inflate(from, n, TEXT_MAX, to, &why);
    if (rc == SDLORA_EFORMAT)
        return bad(p, to->len > TEXT_MAX ? "inflates to more than 16 MiB" : why);
    return rc;
}

/* Adds text as UTF-8 and checks that it can be a C string. */
static int add_text(const payload *p, const char *text, size_t n, bool latin1, slr_buf *out)
{
    char utf8[4];
    if (memchr(text, 0, n))
        return bad(p, "has a NUL inside");
    if (!latin1 && slr_utf8_valid(text, n) != n)
        return bad(p, "is not UTF-8");
    for (size_t i = 0; latin1 && i < n; i++)
        slr_buf_add(out, utf8, slr_utf8_put(utf8, (unsigned char)text[i]));
    if (!latin1)
        slr_buf_add(out, text, n);
    slr_buf_add(out, "", 0);
    return slr_buf_ok(out);
}

static int add_packed(const payload *p, const uint8_t *from, size_t n, bool latin1, slr_buf *out)
{
    slr_buf plain;
    int rc;
    slr_buf_init(&plain, p->m);
    rc = inflate_into(p, from, n, &plain);
    if (rc == SDLORA_OK)
        rc = add_text(p, plain.len ? plain.data : "", plain.len, latin1, out);
    slr_buf_free(&plain);
    return rc;
}

/* keyword 0 | text, Latin-1 */
static int read_text(const payload *p, size_t at, slr_buf *out)
{
    return add_text(p, (const char *)p->bytes + at, p->n - at, true, out);
}

/* keyword 0 | method | deflated Latin-1 */
static int read_ztxt(const payload *p, size_t at, slr_buf *out)
{
    if (at >= p->n || p->bytes[at] != 0)
        return bad(p, "unknown compression");
    return add_packed(p, p->bytes + at + 1, p->n - at - 1, true, out);
}

/* keyword 0 | packed? | method | language 0 | translated keyword 0 | UTF-8 */
static int read_itxt(const payload *p, size_t at, slr_buf *out)
{
    const uint8_t *end = p->bytes + p->n, *from = p->bytes + at + 2;
    bool packed;
    if (p->n - at < 2 || p->bytes[at] > 1 || (p->bytes[at] && p->bytes[at + 1]))
        return bad(p, "unknown compression");
    packed = p->bytes[at];
    for (int i = 0; i < 2; i++) {
        from = memchr(from, 0, (size_t)(end - from));
        if (!from)
            return bad(p, "is cut short");
        from++;
    }
    if (packed)
        return add_packed(p, from, (size_t)(end - from), false, out);
    return add_text(p, (const char *)from, (size_t)(end - from), false, out);
}

static const struct {
    const char *chunk;
    int (*read)(const payload *p, size_t at, slr_buf *out);
} rows[] = {{"tEXt", read_text}, {"zTXt", read_ztxt}, {"iTXt", read_itxt}};

/* Reads a chunk whose keyword is the wanted one; DONE when it is another's. */
static int read_chunk(slr_source *s, const slr_png_chunk *c, size_t row, payload *p, slr_buf *out)
{
    size_t key = strlen(p->keyword);
    uint8_t head[KEYWORD_MAX + 1], crc[4];
    uLong sum;
    int rc;
    if (c->size <= key)
        return SDLORA_DONE;
    SLR_TRY(slr_source_get(s, c->at, head, key + 1));
    if (memcmp(head, p->keyword, key + 1) != 0)
        return SDLORA_DONE;
    if (c->size > CHUNK_MAX)
        return bad(p, "takes more than 8 MiB");
    p->n = c->size;
    p->bytes = slr_alloc(p->m, p->n);
    if (!p->bytes)
        return SDLORA_ENOMEM;
    rc = slr_source_get(s, c->at, p->bytes, p->n);
    if (rc == SDLORA_OK)
        rc = slr_source_get(s, c->at + c->size, crc, 4);
    sum = crc32(0, (const Bytef *)c->name, 4);
    if (rc == SDLORA_OK && crc32(sum, p->bytes, (uInt)p->n) != slr_be32(crc))
        rc = bad(p, "its checksum is wrong");
    if (rc == SDLORA_OK)
        rc = rows[row].read(p, key + 1, out);
    slr_free(p->m, p->bytes);
    p->bytes = NULL;
    return rc;
}

/* Takes the wanted text of one chunk, if it is one; a later chunk replaces an earlier one. */
static int visit(slr_source *s, const slr_png_chunk *c, payload *p, char **text)
{
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        slr_buf out;
        int rc;
        if (strcmp(c->name, rows[row].chunk) != 0)
            continue;
        slr_buf_init(&out, p->m);
        rc = read_chunk(s, c, row, p, &out);
        if (rc != SDLORA_OK) {
            slr_buf_free(&out);
            return rc < 0 ? rc : SDLORA_OK;
        }
        slr_free(p->m, *text);
        *text = slr_buf_take(&out);
        if (!*text)
            *text = slr_strdup(p->m, "");
        return *text ? SDLORA_OK : SDLORA_ENOMEM;
    }
    return SDLORA_OK;
}

static int find_text(slr_mem *m, slr_source *s, const char *keyword, char **text)
{
    payload p = {m, s->label, keyword, NULL, 0};
    slr_png_chunk c;
    uint64_t at = 8;
    uint8_t first[8];
    int rc;
    slr_require(text && *keyword && strlen(keyword) <= KEYWORD_MAX);
    *text = NULL;
    SLR_TRY(slr_source_get(s, 0, first, s->size < 8 ? (size_t)s->size : 8));
    if (s->size < 8 || !slr_codec_png.is(first, 8))
        return slr_fail(SDLORA_EFORMAT, "slr_png_text", "%s: is not a PNG file", s->label);
    rc = SDLORA_OK;
    for (int i = 0; i < CHUNKS_MAX && rc == SDLORA_OK; i++) {
        rc = slr_png_next(s, &at, &c);
        if (rc == SDLORA_OK)
            rc = visit(s, &c, &p, text);
    }
    if (rc < 0) {
        slr_free(m, *text);
        *text = NULL;
        return rc;
    }
    if (!*text)
        return slr_fail(SDLORA_ENOTFOUND, "slr_png_text", "%s: has no text \"%s\"", s->label,
                        keyword);
    return SDLORA_OK;
}

int slr_png_text_find(slr_mem *m, const void *bytes, size_t n, const char *label,
                      const char *keyword, char **text)
{
    slr_source s;
    slr_require(bytes && label && keyword && text);
    slr_source_memory(&s, bytes, n, label);
    return find_text(m, &s, keyword, text);
}

int slr_png_text(slr_mem *m, const char *path, char **text)
{
    slr_source s;
    uint64_t size;
    int fd, rc;
    slr_require(path && text);
    *text = NULL;
    SLR_TRY(slr_file_fd_open(&fd, &size, path));
    slr_source_file(&s, fd, size, path);
    rc = find_text(m, &s, "parameters", text);
    slr_file_fd_close(fd);
    return rc;
}
