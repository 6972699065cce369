/* SPDX-License-Identifier: MIT */
/* Text chunks of PNG files, by hand: tEXt, zTXt and iTXt in, with limits on what they may inflate
 * to.  It knows keywords, Latin-1 and UTF-8; it refuses to know what a text says. */
#include "io/image.h"

#include <string.h>

#include <zlib.h>

#include "base/status.h"
#include "base/str.h"
#include "io/codec.h"
#include "io/file.h"
#include "io/inflate.h"
#include "io/pngchunk.h"

enum { KEYWORD_MAX = 79, CHUNK_MAX = 8 << 20, TEXT_MAX = 16 << 20, CHUNKS_MAX = 100000 };

/* One text chunk's payload, and where it is from. */
typedef struct payload {
    slr_mem *m;
    const char *label;
    char keyword[2 * KEYWORD_MAX + 1]; /* UTF-8 */
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

/* The keyword of a chunk as UTF-8, and how many bytes it takes in the file; 0: it has none. */
static size_t read_keyword(slr_source *s, const slr_png_chunk *c, payload *p)
{
    uint8_t head[KEYWORD_MAX + 1];
    size_t have = c->size < sizeof head ? c->size : sizeof head, n = 0, len = 0;
    if (slr_source_get(s, c->at, head, have) < 0)
        return 0;
    for (; n < have && head[n]; n++)
        len += slr_utf8_put(p->keyword + len, head[n]);
    p->keyword[len] = '\0';
    return n < have ? n : 0;
}

static int read_chunk(slr_source *s, const slr_png_chunk *c, size_t row, size_t key, payload *p,
                      slr_buf *out)
{
    uint8_t crc[4];
    uLong sum;
    int rc;
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

/* What is wanted of a file: one keyword's text, which must be whole, or all. */
typedef struct wish {
    const char *keyword; /* NULL: all */
    slr_image_texts *out;
} wish;

/* Takes the text of one chunk, if it is wanted; a later chunk replaces an earlier one. */
static int visit(slr_source *s, const slr_png_chunk *c, const wish *w)
{
    payload p = {.m = w->out->m, .label = s->label};
    size_t row = 0, n_rows = sizeof rows / sizeof *rows, key;
    slr_buf out;
    while (row < n_rows && strcmp(c->name, rows[row].chunk) != 0)
        row++;
    if (row == n_rows || !(key = read_keyword(s, c, &p)) ||
        (w->keyword && strcmp(p.keyword, w->keyword) != 0))
        return SDLORA_OK;
    slr_buf_init(&out, p.m);
    int rc = read_chunk(s, c, row, key, &p, &out);
    if (rc >= 0)
        return slr_image_texts_set(w->out, p.keyword, slr_buf_take(&out));
    slr_buf_free(&out);
    if (w->keyword || rc == SDLORA_ENOMEM || !strcmp(p.keyword, "parameters"))
        return rc;
    slr_clear(); /* what nobody asked for may be broken */
    return SDLORA_OK;
}

static int walk(slr_source *s, const wish *w)
{
    slr_png_chunk c;
    uint64_t at = 8;
    uint8_t first[8];
    int rc = SDLORA_OK;
    SLR_TRY(slr_source_get(s, 0, first, s->size < 8 ? (size_t)s->size : 8));
    if (s->size < 8 || !slr_codec_png.is(first, 8))
        return slr_fail(SDLORA_EFORMAT, "slr_png_text", "%s: is not a PNG file", s->label);
    for (int i = 0; i < CHUNKS_MAX && rc == SDLORA_OK; i++) {
        rc = slr_png_next(s, &at, &c);
        if (rc == SDLORA_EFORMAT && !w->keyword) { /* where the file is broken its texts end */
            slr_clear();
            rc = SDLORA_DONE;
        }
        if (rc == SDLORA_OK)
            rc = visit(s, &c, w);
        if (rc == SDLORA_OK && !w->keyword && !strcmp(c.name, "eXIf"))
            rc = slr_exif_texts(s, c.at, c.size, w->out);
    }
    return rc;
}

int slr_png_texts(slr_source *s, slr_image_texts *out)
{
    int rc = walk(s, &(wish){NULL, out});
    return rc < 0 ? rc : SDLORA_OK;
}

static int find_text(slr_mem *m, slr_source *s, const char *keyword, char **text)
{
    slr_image_texts found = {.m = m};
    slr_require(text && *keyword && strlen(keyword) <= KEYWORD_MAX);
    *text = NULL;
    int rc = walk(s, &(wish){keyword, &found});
    if (rc >= 0 && !found.n)
        rc =
            slr_fail(SDLORA_ENOTFOUND, "slr_png_text", "%s: has no text \"%s\"", s->label, keyword);
    if (rc >= 0) {
        *text = found.at[0].text;
        found.at[0].text = NULL;
        rc = SDLORA_OK;
    }
    slr_image_texts_free(&found);
    return rc;
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
