/* SPDX-License-Identifier: MIT */
/* torch.save's container: opcodes of pickle protocol 2 that any torch since 1.6 reads, and a zip of
 * stored entries whose data begins at multiples of 64 bytes.  It knows the two formats; it refuses
 * to know what the values mean.  Tensors pass through a small window, twice: once for the CRC-32
 * that stands before them, once to be written. */
#include "io/torchwrite.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <zlib.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"

#define ROOT "archive/"

enum {
    DEPTH_MAX = 32,
    WINDOW = 1 << 14, /* elements converted at a time */
    ALIGN = 64,       /* of an entry's data, as torch aligns it */
    LOCAL_SIZE = 30,
    PAD_HEAD = 4, /* an extra field's id and size */
    ZIP64_SIZE = 20,
    NAME_MAX_BYTES = 40,
    DOS_DATE = 0x21 /* 1 January 1980: files do not tell when they were made */
};

#define NO32   UINT32_MAX
#define MOST   (NO32 - 1) /* bytes and places that 32 bits can say */
#define MOST16 0xfffe

typedef struct stored {
    slr_tensor t;
    uint32_t dtype;
} stored;

typedef struct entry {
    char name[NAME_MAX_BYTES];
    uint64_t header, size;
    uint32_t crc;
} entry;

struct slr_torchwrite {
    slr_mem *m;
    slr_buf pickle;
    int error;
    struct {
        char close; /* the instruction that ends it */
        size_t n;   /* values so far */
    } open[DEPTH_MAX];
    int depth;
    size_t top; /* values outside of all containers */
    stored *tensor;
    size_t n_tensors, cap;
};

/* --- the pickle --- */

int slr_torchwrite_new(slr_torchwrite **out, slr_mem *m)
{
    *out = NULL;
    slr_torchwrite *w = slr_calloc(m, 1, sizeof *w);
    if (!w)
        return SDLORA_ENOMEM;
    w->m = m ? slr_mem_ref(m) : NULL;
    slr_buf_init(&w->pickle, m);
    slr_buf_add(&w->pickle, "\x80\x02", 2);
    *out = w;
    return SDLORA_OK;
}

void slr_torchwrite_free(slr_torchwrite *w)
{
    if (!w)
        return;
    slr_mem *m = w->m;
    slr_buf_free(&w->pickle);
    slr_free(m, w->tensor);
    slr_free(m, w);
    slr_mem_unref(m);
}

static void put(slr_torchwrite *w, const void *bytes, size_t n)
{
    slr_buf_add(&w->pickle, bytes, n);
}

static void op(slr_torchwrite *w, char c)
{
    slr_buf_putc(&w->pickle, c);
}

static void counted(slr_torchwrite *w)
{
    if (w->depth)
        w->open[w->depth - 1].n++;
    else
        w->top++;
}

/* `make` puts the empty container on the stack; the mark is for what comes into it. */
static void begin(slr_torchwrite *w, const char *make, char close)
{
    counted(w);
    if (w->depth == DEPTH_MAX) {
        if (w->error >= 0)
            w->error = slr_fail(SDLORA_EINVAL, "slr_torchwrite",
                                "values inside values are nested more than %d deep", DEPTH_MAX);
        return;
    }
    w->open[w->depth].close = close;
    w->open[w->depth++].n = 0;
    put(w, make, strlen(make));
    op(w, '(');
}

void slr_torchwrite_dict(slr_torchwrite *w)
{
    begin(w, "}", 'u');
}

void slr_torchwrite_ordered_dict(slr_torchwrite *w)
{
    begin(w, "ccollections\nOrderedDict\n)R", 'u');
}

void slr_torchwrite_list(slr_torchwrite *w)
{
    begin(w, "]", 'e');
}

void slr_torchwrite_tuple(slr_torchwrite *w)
{
    begin(w, "", 't');
}

void slr_torchwrite_end(slr_torchwrite *w)
{
    if (w->error < 0)
        return;
    if (!w->depth || (w->open[w->depth - 1].close == 'u' && w->open[w->depth - 1].n % 2)) {
        w->error = slr_fail(SDLORA_EINVAL, "slr_torchwrite", "%s",
                            w->depth ? "a dict's last key has no value" : "nothing is open");
        return;
    }
    op(w, w->open[--w->depth].close);
}

void slr_torchwrite_none(slr_torchwrite *w)
{
    counted(w);
    op(w, 'N');
}

void slr_torchwrite_bool(slr_torchwrite *w, bool value)
{
    counted(w);
    op(w, value ? '\x88' : '\x89');
}

static uint8_t *le(uint8_t *to, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(v >> 8 * i);
    return to + bytes;
}

/* BININT of 32 bits, or LONG1 of 8 bytes, both two's complement. */
static void put_int(slr_torchwrite *w, int64_t value)
{
    uint8_t b[10] = {'J'};
    if (value >= INT32_MIN && value <= INT32_MAX) {
        le(b + 1, (uint64_t)value, 4);
        put(w, b, 5);
        return;
    }
    b[0] = 0x8a;
    b[1] = 8;
    le(b + 2, (uint64_t)value, 8);
    put(w, b, 10);
}

void slr_torchwrite_int(slr_torchwrite *w, int64_t value)
{
    counted(w);
    put_int(w, value);
}

void slr_torchwrite_real(slr_torchwrite *w, double value)
{
    uint64_t bits;
    uint8_t b[9] = {'G'};
    counted(w);
    memcpy(&bits, &value, sizeof bits);
    for (int i = 0; i < 8; i++)
        b[1 + i] = (uint8_t)(bits >> (56 - 8 * i));
    put(w, b, sizeof b);
}

static void put_text(slr_torchwrite *w, const char *text)
{
    size_t n = strlen(text);
    uint8_t head[5] = {'X'};
    if (w->error >= 0 && (n > INT32_MAX || slr_utf8_valid(text, n) != n))
        w->error = slr_fail(SDLORA_EINVAL, "slr_torchwrite", "a text is not UTF-8");
    le(head + 1, n, 4);
    put(w, head, sizeof head);
    put(w, text, n);
}

void slr_torchwrite_text(slr_torchwrite *w, const char *value)
{
    counted(w);
    put_text(w, value);
}

static void put_sizes(slr_torchwrite *w, const int64_t *v, int n)
{
    op(w, '(');
    for (int i = 0; i < n; i++)
        put_int(w, v[i]);
    op(w, 't');
}

static int check_tensor(const slr_tensor *t, uint32_t dtype)
{
    const slr_dtype_row *from = slr_dtype(t->dtype), *to = slr_dtype(dtype);
    if (from && to && to->torch && slr_tensor_count(t) >= 0 && slr_tensor_bytes(t) < SIZE_MAX &&
        (from == to || (from->to_f32 && to->from_f32)))
        return SDLORA_OK;
    return slr_fail(SDLORA_ENOTSUP, "slr_torchwrite", "a tensor of %s can't be written as %s",
                    from ? from->name : "an unknown type", to ? to->name : "an unknown one");
}

/* torch._utils._rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict()), where the
 * storage is the persistent id ('storage', class, key, 'cpu', count). */
static void put_tensor(slr_torchwrite *w, const slr_tensor *t, uint32_t dtype)
{
    int64_t stride[SLR_MAX_RANK], step = 1;
    char key[24];
    for (int i = t->rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= t->dim[i] ? t->dim[i] : 1;
    }
    snprintf(key, sizeof key, "%zu", w->n_tensors);
    slr_buf_puts(&w->pickle, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(w, "storage");
    slr_buf_printf(&w->pickle, "ctorch\n%s\n", slr_dtype(dtype)->torch);
    put_text(w, key);
    put_text(w, "cpu");
    put_int(w, slr_tensor_count(t));
    slr_buf_puts(&w->pickle, "tQ");
    put_int(w, 0);
    put_sizes(w, t->dim, t->rank);
    put_sizes(w, stride, t->rank);
    slr_buf_puts(&w->pickle, "\x89"
                             "ccollections\nOrderedDict\n)RtR");
}

void slr_torchwrite_tensor(slr_torchwrite *w, const slr_tensor *t, uint32_t dtype)
{
    counted(w);
    if (w->error >= 0)
        w->error = check_tensor(t, dtype);
    if (w->error >= 0)
        w->error = slr_grow(w->m, &w->tensor, &w->cap, w->n_tensors + 1, sizeof *w->tensor);
    if (w->error < 0)
        return;
    put_tensor(w, t, dtype);
    w->tensor[w->n_tensors++] = (stored){.t = *t, .dtype = dtype};
}

/* --- the zip --- */

typedef struct zipping {
    slr_torchwrite *w;
    slr_writer *file;
    uint64_t at;
    entry *entry;
    size_t n;
    float *wide; /* [WINDOW] */
    uint8_t *narrow;
} zipping;

static int emit(zipping *z, const void *bytes, size_t n)
{
    z->at += n;
    return slr_writer_put(z->file, bytes, n);
}

static int check_finite(const zipping *z, const stored *s, size_t n)
{
    bool bounded = s->dtype == SDLORA_F32 || s->dtype == SDLORA_F16 || s->dtype == SDLORA_BF16;
    if (!bounded)
        return SDLORA_OK;
    slr_dtype(s->dtype)->to_f32(z->wide, z->narrow, n);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(z->wide[i]))
            return slr_fail(SDLORA_ENAN, "slr_torchwrite",
                            "tensor %zu holds a value that is not finite as %s: nothing was "
                            "written",
                            (size_t)(s - z->w->tensor), slr_dtype(s->dtype)->name);
    return SDLORA_OK;
}

/* Elements [from, from + n) as the file has them, in z->narrow. */
static int load(zipping *z, const stored *s, size_t from, size_t n)
{
    const slr_dtype_row *have = slr_dtype(s->t.dtype), *want = slr_dtype(s->dtype);
    const uint8_t *src = (const uint8_t *)s->t.data + from * have->size;
    if (have == want) {
        memcpy(z->narrow, src, n * have->size);
    } else {
        have->to_f32(z->wide, src, n);
        want->from_f32(z->narrow, z->wide, n);
    }
    return check_finite(z, s, n);
}

/* Feeds a tensor's bytes to the checksum, or to the file. */
static int pass(zipping *z, const stored *s, uint32_t *crc)
{
    size_t count = (size_t)slr_tensor_count(&s->t), width = slr_dtype_size(s->dtype);
    for (size_t from = 0; from < count; from += WINDOW) {
        size_t n = count - from < WINDOW ? count - from : WINDOW;
        SLR_TRY(load(z, s, from, n));
        if (crc)
            *crc = (uint32_t)crc32_z(*crc, z->narrow, n * width);
        else
            SLR_TRY(emit(z, z->narrow, n * width));
    }
    return SDLORA_OK;
}

/* Version needed, flags, method, time, date, CRC: the same in both headers. */
static uint8_t *put_common(uint8_t *p, const entry *e, bool wide)
{
    p = le(p, wide ? 45 : 20, 2);
    p = le(p, 0, 4);
    p = le(p, 0, 2);
    p = le(p, DOS_DATE, 2);
    return le(p, e->crc, 4);
}

/* The local header; an extra field of no meaning moves the data to a multiple of 64. */
static int put_local(zipping *z, entry *e)
{
    static const char fill[ALIGN] = "";
    uint8_t head[LOCAL_SIZE + NAME_MAX_BYTES + ZIP64_SIZE + PAD_HEAD], *p = head;
    size_t n_name = strlen(e->name);
    bool wide = e->size > MOST;
    uint64_t plain = z->at + LOCAL_SIZE + n_name + (wide ? ZIP64_SIZE : 0) + PAD_HEAD;
    size_t pad = (size_t)((ALIGN - plain % ALIGN) % ALIGN);
    e->header = z->at;
    p = le(p, 0x04034b50, 4);
    p = put_common(p, e, wide);
    p = le(p, wide ? NO32 : e->size, 4);
    p = le(p, wide ? NO32 : e->size, 4);
    p = le(p, n_name, 2);
    p = le(p, (wide ? ZIP64_SIZE : 0) + PAD_HEAD + pad, 2);
    memcpy(p, e->name, n_name);
    p += n_name;
    if (wide) {
        p = le(p, 1, 2);
        p = le(p, 16, 2);
        p = le(p, e->size, 8);
        p = le(p, e->size, 8);
    }
    p = le(p, 0x4246, 2);
    p = le(p, pad, 2);
    SLR_TRY(emit(z, head, (size_t)(p - head)));
    return emit(z, fill, pad);
}

static entry *new_entry(zipping *z, const char *name, size_t number, bool numbered)
{
    entry *e = &z->entry[z->n++];
    if (numbered)
        snprintf(e->name, sizeof e->name, ROOT "%s%zu", name, number);
    else
        snprintf(e->name, sizeof e->name, ROOT "%s", name);
    return e;
}

static int put_bytes(zipping *z, const char *name, const void *bytes, size_t n)
{
    entry *e = new_entry(z, name, 0, false);
    e->size = n;
    e->crc = (uint32_t)crc32_z(0, bytes, n);
    SLR_TRY(put_local(z, e));
    return emit(z, bytes, n);
}

static int put_data(zipping *z, size_t i)
{
    const stored *s = &z->w->tensor[i];
    entry *e = new_entry(z, "data/", i, true);
    e->size = (uint64_t)slr_tensor_count(&s->t) * slr_dtype_size(s->dtype);
    SLR_TRY(pass(z, s, &e->crc));
    SLR_TRY(put_local(z, e));
    return pass(z, s, NULL);
}

static int put_central(zipping *z, const entry *e)
{
    uint8_t head[46 + NAME_MAX_BYTES + 28], *p = head;
    size_t n_name = strlen(e->name);
    bool wide = e->size > MOST, far = e->header > MOST;
    size_t n_wide = (wide ? 16u : 0u) + (far ? 8u : 0u);
    p = le(p, 0x02014b50, 4);
    p = le(p, wide || far ? 45 : 20, 2);
    p = put_common(p, e, wide || far);
    p = le(p, wide ? NO32 : e->size, 4);
    p = le(p, wide ? NO32 : e->size, 4);
    p = le(p, n_name, 2);
    p = le(p, n_wide ? 4 + n_wide : 0, 2);
    p = le(p, 0, 6); /* comment, disk, text or not */
    p = le(p, 0, 4); /* attributes */
    p = le(p, far ? NO32 : e->header, 4);
    memcpy(p, e->name, n_name);
    p += n_name;
    if (n_wide) {
        p = le(p, 1, 2);
        p = le(p, n_wide, 2);
        if (wide) {
            p = le(p, e->size, 8);
            p = le(p, e->size, 8);
        }
        if (far)
            p = le(p, e->header, 8);
    }
    return emit(z, head, (size_t)(p - head));
}

static int put_end64(zipping *z, uint64_t at, uint64_t size)
{
    uint8_t end[56 + 20], *p = end;
    uint64_t here = z->at;
    p = le(p, 0x06064b50, 4);
    p = le(p, 56 - 12, 8);
    p = le(p, 45, 2);
    p = le(p, 45, 2);
    p = le(p, 0, 8); /* disks */
    p = le(p, z->n, 8);
    p = le(p, z->n, 8);
    p = le(p, size, 8);
    p = le(p, at, 8);
    p = le(p, 0x07064b50, 4);
    p = le(p, 0, 4);
    p = le(p, here, 8);
    p = le(p, 1, 4);
    return emit(z, end, sizeof end);
}

static int put_directory(zipping *z)
{
    uint8_t end[22], *p = end;
    uint64_t at = z->at, size;
    for (size_t i = 0; i < z->n; i++)
        SLR_TRY(put_central(z, &z->entry[i]));
    size = z->at - at;
    if (z->n > MOST16 || at > MOST || size > MOST)
        SLR_TRY(put_end64(z, at, size));
    p = le(p, 0x06054b50, 4);
    p = le(p, 0, 4);
    p = le(p, z->n > MOST16 ? 0xffff : z->n, 2);
    p = le(p, z->n > MOST16 ? 0xffff : z->n, 2);
    p = le(p, size > MOST ? NO32 : size, 4);
    p = le(p, at > MOST ? NO32 : at, 4);
    le(p, 0, 2);
    return emit(z, end, sizeof end);
}

static int write_all(zipping *z)
{
    slr_torchwrite *w = z->w;
    z->entry = slr_calloc(w->m, w->n_tensors + 3, sizeof *z->entry);
    z->wide = slr_alloc(w->m, WINDOW * sizeof *z->wide);
    z->narrow = slr_alloc(w->m, WINDOW * sizeof(double));
    if (!z->entry || !z->wide || !z->narrow)
        return SDLORA_ENOMEM;
    SLR_TRY(put_bytes(z, "data.pkl", w->pickle.data, w->pickle.len));
    SLR_TRY(put_bytes(z, "byteorder", "little", 6));
    for (size_t i = 0; i < w->n_tensors; i++)
        SLR_TRY(put_data(z, i));
    SLR_TRY(put_bytes(z, "version", "3\n", 2));
    return put_directory(z);
}

static int check_whole(slr_torchwrite *w)
{
    if (w->error < 0)
        return w->error;
    if (w->depth || w->top != 1)
        return slr_fail(SDLORA_EINVAL, "slr_torchwrite_save", "%zu values and %d open, wanted one",
                        w->top, w->depth);
    return slr_buf_ok(&w->pickle);
}

int slr_torchwrite_save(slr_torchwrite *w, const char *path)
{
    zipping z = {.w = w};
    SLR_TRY(check_whole(w));
    op(w, '.');
    int rc = slr_buf_ok(&w->pickle);
    if (rc >= 0)
        rc = slr_writer_open(&z.file, w->m, path);
    if (rc >= 0)
        rc = write_all(&z);
    if (rc >= 0)
        rc = slr_writer_commit(&z.file);
    slr_writer_abort(&z.file);
    slr_free(w->m, z.narrow);
    slr_free(w->m, z.wide);
    slr_free(w->m, z.entry);
    if (w->pickle.len)
        w->pickle.len--; /* the stop: more may be told, or it may be saved again */
    return rc;
}
