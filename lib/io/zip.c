/* SPDX-License-Identifier: MIT */
/* Reading zip directories (PKWARE's APPNOTE 6.3, stored entries only).  It knows where the records
 * lie and which of their fields must agree; it never inflates, decrypts or extracts anything. */
#include "io/zip.h"

#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"

enum {
    END_SIZE = 22,
    END64_SIZE = 56,
    LOCATOR_SIZE = 20,
    CENTRAL_SIZE = 46,
    LOCAL_SIZE = 30,
    COMMENT_MAX = 65535,
    DIRECTORY_MAX = 256 << 20, /* bytes */
    ENTRIES_MAX = 1000000,
    EXTRA_ZIP64 = 0x0001
};

enum { FLAG_ENCRYPTED = 1, FLAG_DESCRIPTOR = 8, FLAG_STRONG = 64, FLAG_MASKED = 0x2000 };

#define NO32 UINT32_MAX /* "see the ZIP64 record" */

static int bad(const slr_source *s, const char *what)
{
    return slr_fail(SDLORA_EFORMAT, "slr_zip", "%s: %s", s->label, what);
}

static int bad_entry(const slr_source *s, const char *name, const char *what)
{
    return slr_fail(SDLORA_EFORMAT, "slr_zip", "%s: entry %s %s", s->label, name, what);
}

/* Where the directory lies, after all records that say so have agreed. */
typedef struct directory {
    uint64_t at, size, n;
} directory;

/* The end record: searched backwards over a comment, which must reach exactly to the end. */
static int find_end(slr_mem *m, slr_source *s, uint64_t *at, uint8_t end[END_SIZE])
{
    size_t n = s->size < COMMENT_MAX + END_SIZE ? (size_t)s->size : COMMENT_MAX + END_SIZE;
    uint8_t *tail = slr_alloc(m, n);
    int rc = tail ? slr_source_get(s, s->size - n, tail, n) : SDLORA_ENOMEM;
    bool found = false;
    *at = 0;
    for (size_t back = END_SIZE; rc == SDLORA_OK && back <= n && !found; back++) {
        const uint8_t *p = tail + (n - back);
        found = slr_le32(p) == 0x06054b50 && slr_le16(p + 20) == back - END_SIZE;
        if (found) {
            *at = s->size - back;
            memcpy(end, p, END_SIZE);
        }
    }
    slr_free(m, tail);
    if (rc == SDLORA_OK && !found)
        rc = bad(s, "the zip directory at the end is missing: the file was cut or is no zip file");
    return rc;
}

/* The ZIP64 end record, if a locator stands before the end record; *at becomes its place. */
static int read_end64(slr_source *s, uint64_t *at, directory *d)
{
    uint8_t loc[LOCATOR_SIZE], end[END64_SIZE];
    uint64_t where;
    if (*at < LOCATOR_SIZE + END64_SIZE)
        return SDLORA_DONE;
    SLR_TRY(slr_source_get(s, *at - LOCATOR_SIZE, loc, sizeof loc));
    if (slr_le32(loc) != 0x07064b50)
        return SDLORA_DONE;
    where = slr_le64(loc + 8);
    if (slr_le32(loc + 4) != 0 || slr_le32(loc + 16) != 1 ||
        where != *at - LOCATOR_SIZE - END64_SIZE)
        return bad(s, "the ZIP64 locator points nowhere");
    SLR_TRY(slr_source_get(s, where, end, sizeof end));
    if (slr_le32(end) != 0x06064b50 || slr_le64(end + 4) != END64_SIZE - 12 ||
        slr_le32(end + 16) != 0 || slr_le32(end + 20) != 0 ||
        slr_le64(end + 24) != slr_le64(end + 32))
        return bad(s, "the ZIP64 end record is broken");
    *d = (directory){slr_le64(end + 48), slr_le64(end + 40), slr_le64(end + 32)};
    *at = where;
    return SDLORA_OK;
}

/* A short field either holds the value or, where ZIP64 has it, the mark that says so. */
static bool agrees(uint64_t wide, uint32_t narrow, uint32_t mark, bool zip64)
{
    return wide == narrow || (zip64 && narrow == mark);
}

static int find_directory(slr_mem *m, slr_source *s, directory *d)
{
    uint8_t end[END_SIZE] = {0};
    uint64_t at;
    bool zip64;
    int rc;
    SLR_TRY(find_end(m, s, &at, end));
    rc = read_end64(s, &at, d);
    SLR_TRY(rc);
    zip64 = rc == SDLORA_OK;
    if (!zip64)
        *d = (directory){slr_le32(end + 16), slr_le32(end + 12), slr_le16(end + 10)};
    if (slr_le16(end + 4) != 0 || slr_le16(end + 6) != 0)
        return bad(s, "is one part of a split zip file");
    if (!agrees(d->at, slr_le32(end + 16), NO32, zip64) ||
        !agrees(d->size, slr_le32(end + 12), NO32, zip64) ||
        !agrees(d->n, slr_le16(end + 10), 0xffff, zip64) ||
        !agrees(d->n, slr_le16(end + 8), 0xffff, zip64))
        return bad(s, "the two end records of the zip file differ");
    if (d->size > at || d->at != at - d->size)
        return bad(s, "the zip directory does not end where it should");
    if (d->size > DIRECTORY_MAX || d->n > ENTRIES_MAX || d->n * CENTRAL_SIZE > d->size)
        return bad(s, "the zip directory is too large, or too small for its entries");
    return SDLORA_OK;
}

/* The 64-bit values of an extra field, in order, one for each 32-bit field that is marked; neither
 * more nor fewer, since readers differ in which ones they would believe. */
static int read_extra(const uint8_t *p, size_t n, uint64_t *const want[], size_t n_want)
{
    bool seen = false;
    while (n >= 4) {
        uint32_t id = slr_le16(p), size = slr_le16(p + 2);
        const uint8_t *v = p + 4;
        if (size > n - 4)
            return -1;
        if (id == EXTRA_ZIP64) {
            if (seen || n_want == 0 || size != 8 * n_want)
                return -1;
            for (size_t i = 0; i < n_want; i++)
                *want[i] = slr_le64(v + 8 * i);
            seen = true;
        }
        p += 4 + size;
        n -= 4 + size;
    }
    return n == 0 && (seen || n_want == 0) ? 0 : -1;
}

/* One record of the directory, and the flags that its local header has to repeat. */
typedef struct central {
    uint32_t flags, name_len;
    size_t size; /* of the record */
} central;

static int read_sizes(const uint8_t *p, const uint8_t *extra, size_t n, slr_zip_entry *e)
{
    uint64_t packed = slr_le32(p + 20), *want[3];
    size_t n_want = 0;
    e->size = slr_le32(p + 24);
    e->header = slr_le32(p + 42);
    if (e->size == NO32)
        want[n_want++] = &e->size;
    if (packed == NO32)
        want[n_want++] = &packed;
    if (e->header == NO32)
        want[n_want++] = &e->header;
    if (read_extra(extra, n, want, n_want) < 0)
        return -1;
    return packed == e->size ? 0 : -1;
}

/* Judges record `p` of a directory with `left` bytes left; the name is copied to `name`. */
static int read_central(const slr_source *s, const uint8_t *p, size_t left, char *name,
                        slr_zip_entry *e, central *c)
{
    size_t extra, comment;
    if (left < CENTRAL_SIZE || slr_le32(p) != 0x02014b50)
        return bad(s, "the zip directory is broken");
    c->flags = slr_le16(p + 8);
    c->name_len = slr_le16(p + 28);
    extra = slr_le16(p + 30);
    comment = slr_le16(p + 32);
    c->size = CENTRAL_SIZE + c->name_len + extra + comment;
    if (c->size > left)
        return bad(s, "the zip directory is broken");
    memcpy(name, p + CENTRAL_SIZE, c->name_len);
    name[c->name_len] = '\0';
    if (strlen(name) != c->name_len || slr_utf8_valid(name, c->name_len) != c->name_len ||
        !slr_path_is_inner(name) || strpbrk(name, "\\\n\r\t\x1b"))
        return bad(s, "a zip entry has a name that no honest writer gives");
    if (c->flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED))
        return bad_entry(s, name, "is encrypted");
    if (slr_le16(p + 10) != 0)
        return bad_entry(s, name, "is compressed; torch stores its entries plainly");
    if (slr_le16(p + 34) != 0 || read_sizes(p, p + CENTRAL_SIZE + c->name_len, extra, e) < 0)
        return bad_entry(s, name, "has sizes that contradict each other");
    e->name = name;
    e->crc = slr_le32(p + 16);
    return SDLORA_OK;
}

/* A local size: repeated, or 0 before a descriptor, or marked and in the extra field. */
static bool local_size_ok(uint32_t narrow, uint64_t wide, uint64_t size, bool descriptor)
{
    uint64_t v = narrow == NO32 ? wide : narrow;
    return v == size || (descriptor && v == 0);
}

static int check_local(slr_source *s, slr_zip_entry *e, const central *c, uint64_t limit,
                       uint8_t *rest)
{
    uint8_t p[LOCAL_SIZE];
    uint64_t wide[2] = {0, 0}, *want[2] = {&wide[0], &wide[1]};
    bool descriptor = c->flags & FLAG_DESCRIPTOR;
    size_t n_name, n_extra, marked;
    if (e->header > limit || limit - e->header < LOCAL_SIZE)
        return bad_entry(s, e->name, "lies outside of the file");
    SLR_TRY(slr_source_get(s, e->header, p, sizeof p));
    n_name = slr_le16(p + 26);
    n_extra = slr_le16(p + 28);
    e->at = e->header + LOCAL_SIZE + n_name + n_extra;
    if (slr_le32(p) != 0x04034b50 || e->at > limit || e->size > limit - e->at)
        return bad_entry(s, e->name, "lies outside of the file");
    SLR_TRY(slr_source_get(s, e->header + LOCAL_SIZE, rest, n_name + n_extra));
    marked = (slr_le32(p + 18) == NO32) + (size_t)(slr_le32(p + 22) == NO32);
    if (slr_le16(p + 6) != c->flags || slr_le16(p + 8) != 0 || n_name != c->name_len ||
        memcmp(rest, e->name, n_name) != 0)
        return bad_entry(s, e->name, "has two headers that differ");
    if (read_extra(rest + n_name, n_extra, want, marked == 2 ? 2 : 0) < 0 || marked == 1 ||
        !local_size_ok(slr_le32(p + 18), wide[1], e->size, descriptor) ||
        !local_size_ok(slr_le32(p + 22), wide[0], e->size, descriptor) ||
        (slr_le32(p + 14) != e->crc && !(descriptor && slr_le32(p + 14) == 0)))
        return bad_entry(s, e->name, "has two headers that differ");
    return SDLORA_OK;
}

static int by_place(const void *a, const void *b)
{
    const slr_zip_entry *x = a, *y = b;
    return (x->header > y->header) - (x->header < y->header);
}

static int by_name(const void *a, const void *b)
{
    const slr_zip_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int check_together(slr_zip *z, const slr_source *s)
{
    if (z->n < 2)
        return SDLORA_OK;
    qsort(z->entry, z->n, sizeof *z->entry, by_place);
    for (size_t i = 1; i < z->n; i++)
        if (z->entry[i].header < z->entry[i - 1].at + z->entry[i - 1].size)
            return bad_entry(s, z->entry[i].name, "overlaps another");
    qsort(z->entry, z->n, sizeof *z->entry, by_name);
    for (size_t i = 1; i < z->n; i++)
        if (!strcmp(z->entry[i].name, z->entry[i - 1].name))
            return bad_entry(s, z->entry[i].name, "is there twice");
    return SDLORA_OK;
}

static int read_entries(slr_zip *z, slr_source *s, const directory *d, const uint8_t *p,
                        uint8_t *scratch)
{
    size_t at = 0, used = 0;
    for (size_t i = 0; i < d->n; i++) {
        central c = {0};
        SLR_TRY(read_central(s, p + at, (size_t)d->size - at, z->names + used, &z->entry[i], &c));
        SLR_TRY(check_local(s, &z->entry[i], &c, d->at, scratch));
        at += c.size;
        used += c.name_len + 1;
        z->n = i + 1;
    }
    return at == d->size ? check_together(z, s) : bad(s, "the zip directory is broken");
}

int slr_zip_open(slr_zip *out, slr_mem *m, slr_source *s)
{
    directory d = {0};
    uint8_t *p, *scratch;
    int rc;
    memset(out, 0, sizeof *out);
    out->m = m;
    SLR_TRY(find_directory(m, s, &d));
    p = slr_alloc(m, (size_t)d.size);
    out->entry = slr_calloc(m, (size_t)d.n + 1, sizeof *out->entry);
    out->names = slr_alloc(m, (size_t)d.size + 1); /* a record is longer than its name and NUL */
    scratch = slr_alloc(m, 2 * 65536);             /* a local header's name and extra field */
    rc = p && scratch && out->entry && out->names ? slr_source_get(s, d.at, p, (size_t)d.size)
                                                  : SDLORA_ENOMEM;
    if (rc == SDLORA_OK)
        rc = read_entries(out, s, &d, p, scratch);
    slr_free(m, p);
    slr_free(m, scratch);
    if (rc < 0)
        slr_zip_close(out);
    return rc;
}

void slr_zip_close(slr_zip *z)
{
    slr_free(z->m, z->entry);
    slr_free(z->m, z->names);
    memset(z, 0, sizeof *z);
}

const slr_zip_entry *slr_zip_find(const slr_zip *z, const char *name)
{
    slr_zip_entry key = {.name = name};
    return z->n ? bsearch(&key, z->entry, z->n, sizeof key, by_name) : NULL;
}

int slr_zip_read(const slr_zip *z, slr_source *s, const slr_zip_entry *e, size_t limit,
                 void **bytes)
{
    int rc;
    *bytes = NULL;
    if (e->size > limit)
        return bad_entry(s, e->name, "is larger than such an entry can be");
    *bytes = slr_alloc(z->m, (size_t)e->size + 1);
    if (!*bytes)
        return SDLORA_ENOMEM;
    rc = slr_source_get(s, e->at, *bytes, (size_t)e->size);
    if (rc == SDLORA_OK && crc32_z(0, *bytes, (size_t)e->size) != e->crc)
        rc = bad_entry(s, e->name, "has a wrong checksum");
    if (rc < 0) {
        slr_free(z->m, *bytes);
        *bytes = NULL;
    }
    return rc;
}
