/* SPDX-License-Identifier: MIT */
/* Builds torch files byte by byte, so that tests can bend any of them: a pickle assembler and a zip
 * writer that remembers where its records are. */
#ifndef TORCH_BUILD_H
#define TORCH_BUILD_H

#include "io_test.h"
#include "io/torchfile.h"

#include <zlib.h>

typedef struct bytes {
    unsigned char at[400000];
    size_t n;
} bytes;

static inline void add(bytes *b, const void *p, size_t n)
{
    assert_true(b->n + n <= sizeof b->at);
    if (n)
        memcpy(b->at + b->n, p, n);
    b->n += n;
}

static inline void add_le(bytes *b, uint64_t v, int width)
{
    for (int i = 0; i < width; i++) {
        unsigned char c = (unsigned char)(i < 8 ? v >> 8 * i : 0);
        add(b, &c, 1);
    }
}

static inline void set_le(bytes *b, size_t at, uint64_t v, int width)
{
    for (int i = 0; i < width; i++)
        b->at[at + (size_t)i] = (unsigned char)(v >> 8 * i);
}

/* ---- pickles ---- */

/* Plain opcodes, as letters or octal escapes; NUL ends. */
static inline void ops(bytes *b, const char *text)
{
    add(b, text, strlen(text));
}

static inline void text(bytes *b, const char *s)
{
    ops(b, "X");
    add_le(b, strlen(s), 4);
    ops(b, s);
}

static inline void number(bytes *b, int64_t v)
{
    ops(b, "\212\10"); /* LONG1 of 8 bytes */
    add_le(b, (uint64_t)v, 8);
}

/* torch._utils._rebuild_tensor_v2(storage(class, key, numel), offset, size, stride, False, {}) */
static inline void tensor(bytes *b, const char *class, const char *key, int64_t numel,
                          int64_t offset, int rank, const int64_t *size, const int64_t *stride)
{
    ops(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    text(b, "storage");
    ops(b, "ctorch\n");
    ops(b, class);
    ops(b, "\n");
    text(b, key);
    text(b, "cpu");
    number(b, numel);
    ops(b, "tQ");
    number(b, offset);
    for (int k = 0; k < 2; k++) {
        ops(b, "(");
        for (int d = 0; d < rank; d++)
            number(b, k ? stride[d] : size[d]);
        ops(b, "t");
    }
    ops(b, "\211}tR");
}

/* {"w": float32 [2]} of storage 0 */
static inline void plain_pickle(bytes *b)
{
    ops(b, "\200\2}");
    text(b, "w");
    tensor(b, "FloatStorage", "0", 2, 0, 1, (const int64_t[]){2}, (const int64_t[]){1});
    ops(b, "s.");
}

/* ---- zip files ---- */

enum { ENTRIES = 4 };

typedef struct zip_entry {
    const char *name;
    const void *data;
    size_t n;
} zip_entry;

typedef struct zip_file {
    bytes b;
    size_t local[ENTRIES], central[ENTRIES], end64, locator, end;
} zip_file;

static inline void zip_header(bytes *b, bool central, const zip_entry *e, uint64_t at)
{
    add_le(b, central ? 0x02014b50 : 0x04034b50, 4);
    add_le(b, 0, central ? 4 : 2); /* versions */
    add_le(b, 0x0800, 2);          /* flags: UTF-8 */
    add_le(b, 0, 2);               /* method: stored */
    add_le(b, 0, 4);               /* time */
    add_le(b, crc32(0, e->data, (uInt)e->n), 4);
    add_le(b, e->n, 4);
    add_le(b, e->n, 4);
    add_le(b, strlen(e->name), 2);
    add_le(b, 0, 2); /* extra */
    if (central) {
        add_le(b, 0, 2 + 2 + 2 + 4); /* comment, disk, attributes */
        add_le(b, at, 4);
    }
    add(b, e->name, strlen(e->name));
}

static inline void zip_make(zip_file *z, const zip_entry *e, size_t n)
{
    size_t dir, dir_size;
    memset(z, 0, sizeof *z);
    for (size_t i = 0; i < n; i++) {
        z->local[i] = z->b.n;
        zip_header(&z->b, false, &e[i], 0);
        add(&z->b, e[i].data, e[i].n);
    }
    dir = z->b.n;
    for (size_t i = 0; i < n; i++) {
        z->central[i] = z->b.n;
        zip_header(&z->b, true, &e[i], z->local[i]);
    }
    dir_size = z->b.n - dir;
    z->end64 = z->b.n; /* torch always writes the ZIP64 records too */
    add_le(&z->b, 0x06064b50, 4);
    add_le(&z->b, 44, 8);
    add_le(&z->b, 0, 4 + 4 + 4);
    add_le(&z->b, n, 8);
    add_le(&z->b, n, 8);
    add_le(&z->b, dir_size, 8);
    add_le(&z->b, dir, 8);
    z->locator = z->b.n;
    add_le(&z->b, 0x07064b50, 4);
    add_le(&z->b, 0, 4);
    add_le(&z->b, z->end64, 8);
    add_le(&z->b, 1, 4);
    z->end = z->b.n;
    add_le(&z->b, 0x06054b50, 4);
    add_le(&z->b, 0, 4);
    add_le(&z->b, n, 2);
    add_le(&z->b, n, 2);
    add_le(&z->b, dir_size, 4);
    add_le(&z->b, dir, 4);
    add_le(&z->b, 0, 2);
}

/* A torch file around one pickle and one storage. */
static inline void torch_make(zip_file *z, const bytes *pickle, const void *storage, size_t n)
{
    zip_entry e[ENTRIES] = {{"a/data.pkl", pickle->at, pickle->n},
                            {"a/byteorder", "little", 6},
                            {"a/data/0", storage, n},
                            {"a/version", "3\n", 2}};
    zip_make(z, e, ENTRIES);
}

/* Opens a copy that ends where its bytes end, so that ASan sees the first byte too far. */
static inline int torch_open(slr_torchfile **f, const void *p, size_t n, unsigned char **copy)
{
    int rc;
    *copy = malloc(n + !n);
    memcpy(*copy, p, n);
    rc = slr_torchfile_parse(f, NULL, *copy, n, "t.pt");
    assert_true((rc == 0) == (*f != NULL));
    if (rc < 0)
        assert_says("t.pt");
    return rc;
}

static inline int torch_try(const void *p, size_t n)
{
    slr_torchfile *f;
    unsigned char *copy;
    int rc = torch_open(&f, p, n, &copy);
    slr_torchfile_close(f);
    free(copy);
    return rc;
}

#endif
