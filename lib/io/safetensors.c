/* SPDX-License-Identifier: MIT */
/* Safetensors over the format core: it knows how to bring the header in without trusting its
 * length, how file types become the library's, and which sentence helps the owner of a file that is
 * not what its name says.  It refuses to know what a tensor is for. */
#include "io/safetensors.h"

#include <string.h>

#define SAFETENSORS_STATIC
#define SAFETENSORS_NO_MMAP
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <safetensors.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#include "base/status.h"
#include "io/file.h"
#include "io/source.h"

#define STEP ((size_t)1 << 20) /* bytes of header asked for at once */

struct slr_safetensors {
    slr_mem *m;
    st_doc doc;
    slr_storage *map;          /* NULL: header only, or bytes of the caller */
    const unsigned char *data; /* the whole file; NULL: header only */
    uint64_t *ids;             /* [n_tensors]; NULL without data */
};

static void *hook_alloc(void *user, size_t bytes)
{
    return slr_alloc(user, bytes);
}

static void *hook_realloc(void *user, void *ptr, size_t bytes)
{
    return slr_realloc(user, ptr, bytes, 1);
}

static void hook_free(void *user, void *ptr)
{
    slr_free(user, ptr);
}

static st_alloc hooks(slr_mem *m)
{
    return (st_alloc){hook_alloc, hook_realloc, hook_free, m};
}

static int failed(const st_error *err, const char *label)
{
    static const struct {
        int st, code;
    } codes[] = {{ST_EINVAL, SDLORA_EINVAL}, {ST_ENOMEM, SDLORA_ENOMEM}, {ST_EIO, SDLORA_EIO}};
    int code = SDLORA_EFORMAT;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].st == err->code)
            code = codes[i].code;
    return slr_fail(code, "slr_safetensors", "%s: %s", label, err->text);
}

/* The header's length, judged against the file's size before anything is allocated. */
static int header_length(const unsigned char *first, size_t have, uint64_t size, const char *label,
                         uint64_t *n)
{
    st_error err;
    const char *kind;
    if (st_header_length(first, size, n, &err) == ST_OK)
        return SDLORA_OK;
    if (size == 0)
        return slr_fail(SDLORA_EFORMAT, "slr_safetensors", "%s: is empty", label);
    kind = slr_file_kind(first, have);
    if (kind)
        return slr_fail(SDLORA_EFORMAT, "slr_safetensors", "%s: not a safetensors file: this is %s",
                        label, kind);
    return failed(&err, label);
}

static int parse(slr_safetensors *f, const void *json, uint64_t n, uint64_t size, const char *label)
{
    st_limits limits = {.flags = ST_ALLOW_OPAQUE};
    st_alloc alloc = hooks(f->m);
    st_error err;
    if (st_parse(&f->doc, json, (size_t)n, size, &limits, &alloc, &err) != ST_OK)
        return failed(&err, label);
    for (size_t i = 0; i < f->doc.n_tensors; i++) {
        const st_tensor *t = &f->doc.tensors[i];
        if (t->rank > SLR_MAX_RANK)
            return slr_fail(SDLORA_ENOTSUP, "slr_safetensors",
                            "%s: tensor %zu of the file has %d dimensions, at most %d can be used",
                            label, i, t->rank, SLR_MAX_RANK);
    }
    return SDLORA_OK;
}

/* Reads the header piece by piece, so that a length that lies never becomes an allocation. */
static int read_header(slr_safetensors *f, int fd, uint64_t size, const char *path)
{
    unsigned char first[64] = {0}, *json;
    size_t have = size < sizeof first ? (size_t)size : sizeof first;
    uint64_t n;
    int rc = SDLORA_OK;
    SLR_TRY(slr_file_fd_read(fd, path, 0, first, have));
    SLR_TRY(header_length(first, have, size, path, &n));
    json = slr_alloc(f->m, (size_t)n);
    if (!json)
        return SDLORA_ENOMEM;
    for (size_t at = 0; at < n && rc == SDLORA_OK; at += STEP)
        rc = slr_file_fd_read(fd, path, 8 + at, json + at, n - at < STEP ? (size_t)n - at : STEP);
    if (rc == SDLORA_OK)
        rc = parse(f, json, n, size, path);
    slr_free(f->m, json);
    return rc;
}

static int open_new(slr_safetensors **f, slr_mem *m)
{
    *f = slr_calloc(m, 1, sizeof **f);
    if (!*f)
        return SDLORA_ENOMEM;
    (*f)->m = m ? slr_mem_ref(m) : NULL;
    return SDLORA_OK;
}

/* Two looks at one tensor must give one id, so they are dealt out when the bytes are there. */
static int set_data(slr_safetensors *f, const void *data)
{
    f->ids = slr_calloc(f->m, f->doc.n_tensors + 1, sizeof *f->ids);
    if (!f->ids)
        return SDLORA_ENOMEM;
    f->data = data;
    for (size_t i = 0; i < f->doc.n_tensors; i++)
        f->ids[i] = slr_tensor_next_id();
    return SDLORA_OK;
}

int slr_safetensors_open(slr_safetensors **out, slr_mem *m, const char *path, bool weights)
{
    slr_safetensors *f = NULL;
    uint64_t size = 0;
    int fd = -1, rc;
    slr_require(out && path);
    *out = NULL;
    SLR_TRY(open_new(&f, m));
    rc = slr_file_fd_open(&fd, &size, path);
    if (rc == SDLORA_OK)
        rc = read_header(f, fd, size, path);
    if (rc == SDLORA_OK && weights)
        rc = slr_file_fd_map(&f->map, m, fd, size, path);
    if (rc == SDLORA_OK && weights)
        rc = set_data(f, slr_storage_data(f->map));
    slr_file_fd_close(fd);
    if (rc < 0) {
        slr_safetensors_close(f);
        return rc;
    }
    *out = f;
    return SDLORA_OK;
}

int slr_safetensors_parse(slr_safetensors **out, slr_mem *m, const void *bytes, size_t n,
                          const char *label)
{
    slr_safetensors *f = NULL;
    uint64_t length = 0;
    int rc;
    slr_require(out && label && (bytes || !n));
    *out = NULL;
    SLR_TRY(open_new(&f, m));
    rc = header_length(bytes, n < 64 ? n : 64, n, label, &length);
    if (rc == SDLORA_OK)
        rc = parse(f, (const unsigned char *)bytes + 8, length, n, label);
    if (rc == SDLORA_OK)
        rc = set_data(f, bytes);
    if (rc < 0) {
        slr_safetensors_close(f);
        return rc;
    }
    *out = f;
    return SDLORA_OK;
}

void slr_safetensors_close(slr_safetensors *f)
{
    slr_mem *m;
    if (!f)
        return;
    m = f->m;
    st_free(&f->doc);
    slr_storage_unref(f->map);
    slr_free(m, f->ids);
    slr_free(m, f);
    slr_mem_unref(m);
}

size_t slr_safetensors_count(const slr_safetensors *f)
{
    return f->doc.n_tensors;
}

const char *slr_safetensors_at(const slr_safetensors *f, size_t i, slr_tensor *t)
{
    const st_tensor *from = &f->doc.tensors[i];
    const slr_dtype_row *row = slr_dtype_by_st(from->dtype_name);
    if (!t)
        return from->name;
    memset(t, 0, sizeof *t);
    t->dtype = row ? row->dtype : 0;
    t->rank = from->rank;
    for (int d = 0; d < from->rank; d++)
        t->dim[d] = (int64_t)from->shape[d]; /* the core caps the product at 2^48 */
    if (row && f->data) {
        t->data = f->data + from->offset;
        t->id = f->ids[i];
        t->storage = f->map;
    }
    return from->name;
}

const char *slr_safetensors_tag(const slr_safetensors *f, size_t i)
{
    return f->doc.tensors[i].dtype_name;
}

bool slr_safetensors_find(const slr_safetensors *f, const char *name, slr_tensor *t)
{
    const st_tensor *found = st_find(&f->doc, name);
    if (found)
        slr_safetensors_at(f, (size_t)(found - f->doc.tensors), t);
    return found != NULL;
}

size_t slr_safetensors_meta_count(const slr_safetensors *f)
{
    return f->doc.n_metadata;
}

const char *slr_safetensors_meta_at(const slr_safetensors *f, size_t i, const char **value)
{
    if (value)
        *value = f->doc.metadata[i].value;
    return f->doc.metadata[i].key;
}

const char *slr_safetensors_meta(const slr_safetensors *f, const char *key)
{
    return st_metadata(&f->doc, key);
}

uint64_t slr_safetensors_data_start(const slr_safetensors *f)
{
    return f->doc.data_offset;
}

/* What the core's writer takes, made from what the library's callers have. */
typedef struct job {
    slr_mem *m;
    st_item *items;
    uint64_t *shapes; /* [n, SLR_MAX_RANK] */
    st_pair *pairs;
} job;

static void job_free(job *j)
{
    slr_free(j->m, j->items);
    slr_free(j->m, j->shapes);
    slr_free(j->m, j->pairs);
}

static int item_of(const slr_st_entry *e, st_item *item, uint64_t *shape)
{
    const slr_dtype_row *row = slr_dtype(e->t.dtype);
    slr_require(e->name && e->t.rank >= 0 && e->t.rank <= SLR_MAX_RANK);
    if (!row || !row->st_tag)
        return slr_fail(SDLORA_ENOTSUP, "slr_safetensors_write", "%s: dtype %u can't be written",
                        e->name, e->t.dtype);
    for (int d = 0; d < e->t.rank; d++) {
        if (e->t.dim[d] < 0)
            return slr_fail(SDLORA_EINVAL, "slr_safetensors_write", "%s: dimension %d is negative",
                            e->name, d);
        shape[d] = (uint64_t)e->t.dim[d];
    }
    *item = (st_item){.name = e->name,
                      .shape = shape,
                      .data = e->t.data,
                      .dtype = (uint16_t)st_dtype_from_name(row->st_tag),
                      .rank = (uint16_t)e->t.rank};
    return SDLORA_OK;
}

static int job_make(job *j, slr_mem *m, const slr_st_entry *e, size_t n, const slr_st_pair *meta,
                    size_t n_meta)
{
    memset(j, 0, sizeof *j);
    j->m = m;
    slr_require((e || !n) && (meta || !n_meta));
    j->items = slr_calloc(m, n + 1, sizeof *j->items);
    j->shapes = slr_calloc(m, n + 1, SLR_MAX_RANK * sizeof *j->shapes);
    j->pairs = slr_calloc(m, n_meta + 1, sizeof *j->pairs);
    if (!j->items || !j->shapes || !j->pairs)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++)
        SLR_TRY(item_of(&e[i], &j->items[i], j->shapes + i * SLR_MAX_RANK));
    for (size_t i = 0; i < n_meta; i++)
        j->pairs[i] = (st_pair){.key = meta[i].key, .value = meta[i].value};
    return SDLORA_OK;
}

static int put_piece(void *user, const void *bytes, size_t n)
{
    return slr_writer_put(user, bytes, n);
}

int slr_safetensors_write(slr_mem *m, const char *path, const slr_st_entry *e, size_t n,
                          const slr_st_pair *meta, size_t n_meta)
{
    slr_writer *w = NULL;
    st_alloc alloc = hooks(m);
    st_error err = {ST_OK, ""};
    job j;
    int rc = job_make(&j, m, e, n, meta, n_meta);
    if (rc == SDLORA_OK)
        rc = slr_writer_open(&w, m, path);
    if (rc == SDLORA_OK) {
        st_sink sink = {put_piece, NULL, w};
        if (st_write(&sink, j.items, n, meta ? j.pairs : NULL, n_meta, &alloc, &err) != ST_OK)
            rc = slr_writer_put(w, NULL, 0); /* a failed put has said why, and says it again */
        if (rc == SDLORA_OK && err.code != ST_OK)
            rc = failed(&err, path);
    }
    job_free(&j);
    if (rc == SDLORA_OK)
        return slr_writer_commit(&w);
    slr_writer_abort(&w);
    return rc;
}

/* ---- streaming ---- */

typedef struct stream {
    slr_mem *m;
    const char *path;
    const slr_st_entry *e;
    slr_st_read *read;
    slr_st_put *put;
    void *user;
    slr_writer *w;
    size_t entry;         /* that was read last; SIZE_MAX: none yet */
    uint64_t at;          /* bytes compared so far */
    unsigned char *piece; /* [SLR_ST_PIECE] of the file; comparing only */
    int rc;               /* of the callback that failed */
} stream;

static int stream_read(void *user, size_t i, uint64_t at, void *to, size_t n)
{
    stream *s = user;
    s->entry = i;
    return s->rc = s->read(s->user, i, at, to, n);
}

static int stream_put(void *user, const void *bytes, size_t n)
{
    stream *s = user;
    return s->rc = s->put(s->user, bytes, n);
}

static int stream_write(void *user, const void *bytes, size_t n)
{
    stream *s = user;
    return s->rc = slr_writer_put(s->w, bytes, n);
}

static int stream_compare(void *user, const void *bytes, size_t n)
{
    stream *s = user;
    const unsigned char *want = bytes;
    while (n && s->rc == SDLORA_OK) {
        size_t k = n < SLR_ST_PIECE ? n : SLR_ST_PIECE;
        s->rc = slr_writer_read(s->w, s->at, s->piece, k);
        if (s->rc == SDLORA_OK && memcmp(s->piece, want, k) != 0)
            s->rc = slr_fail(SDLORA_EIO, "slr_safetensors_stream",
                             "%s: %s does not lie on the disk as it was written", s->path,
                             s->entry == SIZE_MAX ? "the header" : s->e[s->entry].name);
        s->at += k;
        want += k;
        n -= k;
    }
    return s->rc;
}

/* One pass over all bytes of the file to be. */
static int stream_pass(stream *s, const job *j, size_t n, const st_pair *pairs, size_t n_pairs,
                       int (*write)(void *, const void *, size_t))
{
    st_sink sink = {write, s->read ? stream_read : NULL, s};
    st_alloc alloc = hooks(s->m);
    st_error err = {ST_OK, ""};
    s->rc = SDLORA_OK;
    s->entry = SIZE_MAX;
    int st = st_write(&sink, j->items, n, pairs, n_pairs, &alloc, &err);
    if (s->rc != SDLORA_OK)
        return s->rc < 0
                   ? s->rc
                   : slr_fail(SDLORA_ERROR, __func__, "%s: a callback returned %d", s->path, s->rc);
    return st == ST_OK ? SDLORA_OK : failed(&err, s->path);
}

/* The header as a reader meets it, then every byte. */
static int verify_stream(stream *s, const job *j, size_t n, const st_pair *pairs, size_t n_pairs,
                         const st_plan *plan)
{
    st_limits limits = {0};
    st_alloc alloc = hooks(s->m);
    st_error err;
    st_doc doc;
    size_t head = (size_t)plan->head_size;
    unsigned char *bytes = slr_alloc(s->m, head);
    if (!bytes)
        return SDLORA_ENOMEM;
    int rc = slr_writer_read(s->w, 0, bytes, head);
    if (rc == SDLORA_OK) {
        if (st_parse(&doc, bytes + 8, head - 8, plan->file_size, &limits, &alloc, &err) == ST_OK)
            st_free(&doc);
        else
            rc = failed(&err, s->path);
    }
    slr_free(s->m, bytes);
    SLR_TRY(rc);
    s->at = 0;
    s->piece = slr_alloc(s->m, SLR_ST_PIECE);
    rc = s->piece ? stream_pass(s, j, n, pairs, n_pairs, stream_compare) : SDLORA_ENOMEM;
    slr_free(s->m, s->piece);
    return rc;
}

static int stream_plan(st_plan *plan, slr_mem *m, const job *j, size_t n, const st_pair *pairs,
                       size_t n_pairs, const char *label)
{
    st_alloc alloc = hooks(m);
    st_error err;
    if (st_plan_make(plan, j->items, n, pairs, n_pairs, &alloc, &err) == ST_OK)
        return SDLORA_OK;
    memset(plan, 0, sizeof *plan);
    return failed(&err, label);
}

int slr_safetensors_stream(slr_mem *m, const char *path, const slr_st_entry *e, size_t n,
                           const slr_st_pair *meta, size_t n_meta, slr_st_read *read, void *user,
                           bool verify)
{
    stream s = {.m = m, .path = path, .e = e, .read = read, .user = user};
    st_plan plan = {0};
    job j;
    int rc = job_make(&j, m, e, n, meta, n_meta);
    const st_pair *pairs = meta ? j.pairs : NULL;
    if (rc == SDLORA_OK)
        rc = stream_plan(&plan, m, &j, n, pairs, n_meta, path);
    if (rc == SDLORA_OK)
        rc = slr_writer_open(&s.w, m, path);
    if (rc == SDLORA_OK)
        rc = slr_writer_reserve(s.w, plan.file_size);
    if (rc == SDLORA_OK)
        rc = stream_pass(&s, &j, n, pairs, n_meta, stream_write);
    if (rc == SDLORA_OK && verify)
        rc = verify_stream(&s, &j, n, pairs, n_meta, &plan);
    st_plan_free(&plan);
    job_free(&j);
    if (rc == SDLORA_OK)
        return slr_writer_commit(&s.w);
    slr_writer_abort(&s.w);
    return rc;
}

int slr_safetensors_emit(slr_mem *m, const slr_st_entry *e, size_t n, const slr_st_pair *meta,
                         size_t n_meta, slr_st_read *read, slr_st_put *put, void *user,
                         uint64_t *data_start)
{
    stream s = {.m = m, .path = "safetensors", .e = e, .read = read, .put = put, .user = user};
    st_plan plan = {0};
    job j;
    int rc = job_make(&j, m, e, n, meta, n_meta);
    const st_pair *pairs = meta ? j.pairs : NULL;
    if (rc == SDLORA_OK)
        rc = stream_plan(&plan, m, &j, n, pairs, n_meta, s.path);
    if (rc == SDLORA_OK && data_start)
        *data_start = plan.head_size;
    st_plan_free(&plan);
    if (rc == SDLORA_OK)
        rc = stream_pass(&s, &j, n, pairs, n_meta, stream_put);
    job_free(&j);
    return rc;
}

int slr_safetensors_encode(slr_mem *m, const slr_st_entry *e, size_t n, const slr_st_pair *meta,
                           size_t n_meta, void **bytes, size_t *n_bytes, uint64_t *data_start)
{
    st_alloc alloc = hooks(m);
    st_error err;
    job j;
    int rc;
    slr_require(bytes && n_bytes);
    *bytes = NULL;
    rc = job_make(&j, m, e, n, meta, n_meta);
    if (rc == SDLORA_OK && st_write_buffer(bytes, n_bytes, j.items, n, meta ? j.pairs : NULL,
                                           n_meta, &alloc, &err) != ST_OK)
        rc = failed(&err, "safetensors in memory");
    job_free(&j);
    if (rc == SDLORA_OK && data_start) {
        const unsigned char *p = *bytes;
        *data_start = 0;
        for (int i = 7; i >= 0; i--)
            *data_start = *data_start << 8 | p[i];
        *data_start += 8;
    }
    return rc;
}
