/* SPDX-License-Identifier: MIT */
/* Files made of other files' tensors.  Knows types, shapes and how to bring any stretch of an
 * entry's bytes from its sources; the layout of the file is lib/io/safetensors.c's.  Refuses to
 * know what names mean. */
#include "models/outfile.h"

#include <math.h>
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/safetensors.h"

enum { MAX_JOINED = 3 };
#define F16_INFINITE  65520.0f /* the smallest magnitude that rounds to infinity */
#define BF16_INFINITE 0x1.ffp127f

typedef struct item {
    const char *name;
    uint32_t dtype; /* in the file */
    int n;          /* sources */
    bool turned;
    slr_tensor source[MAX_JOINED];
} item;

struct slr_outfile {
    slr_mem *m;
    slr_arena *texts;
    slr_map *index;
    item *item;
    slr_st_entry *entry; /* parallel to item */
    size_t n, cap, cap_entry;
    uint64_t bytes;
    slr_st_pair *meta;
    size_t n_meta, cap_meta;
};

int slr_outfile_new(slr_outfile **out, slr_mem *m)
{
    *out = NULL;
    slr_outfile *f = slr_calloc(m, 1, sizeof *f);
    if (!f)
        return SDLORA_ENOMEM;
    f->m = m;
    int rc = slr_arena_new(&f->texts, m);
    if (rc == SDLORA_OK)
        rc = slr_map_new(&f->index, m);
    if (rc < 0) {
        slr_outfile_free(f);
        return rc;
    }
    *out = f;
    return SDLORA_OK;
}

void slr_outfile_free(slr_outfile *f)
{
    if (!f)
        return;
    slr_free(f->m, f->item);
    slr_free(f->m, f->entry);
    slr_free(f->m, f->meta);
    slr_map_free(f->index);
    slr_arena_free(f->texts);
    slr_free(f->m, f);
}

/* Room for one more under this name. */
static int add(slr_outfile *f, const char *name, item **it, slr_st_entry **e)
{
    int64_t at;
    if (slr_map_get(f->index, name, &at))
        return slr_fail(SDLORA_EINVAL, __func__, "two tensors would be called %s", name);
    SLR_TRY(slr_grow(f->m, &f->item, &f->cap, f->n + 1, sizeof *f->item));
    SLR_TRY(slr_grow(f->m, &f->entry, &f->cap_entry, f->n + 1, sizeof *f->entry));
    char *copy = slr_arena_strdup(f->texts, name);
    if (!copy)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_map_set(f->index, name, (int64_t)f->n));
    *it = &f->item[f->n];
    *e = &f->entry[f->n++];
    memset(*it, 0, sizeof **it);
    memset(*e, 0, sizeof **e);
    (*it)->name = (*e)->name = copy;
    return SDLORA_OK;
}

static int shape_entry(slr_st_entry *e, const slr_tensor *source, const slr_out_how *how)
{
    slr_tensor *t = &e->t;
    int64_t count = slr_tensor_count(source);
    char a[96], b[96];
    t->rank = source->rank;
    memcpy(t->dim, source->dim, sizeof t->dim);
    if (how->rank > 0) {
        t->rank = how->rank;
        memcpy(t->dim, how->dim, sizeof t->dim);
    } else if (how->turned && source->rank == 2) {
        t->dim[0] = source->dim[1];
        t->dim[1] = source->dim[0];
    } else if (how->joined > 1 && source->rank > 0) {
        t->dim[0] *= how->joined;
        count *= how->joined;
    }
    for (int k = 1; k < how->joined; k++)
        if (source[k].dtype != source->dtype || source[k].rank != source->rank ||
            memcmp(source[k].dim, source->dim, sizeof source->dim) != 0)
            count = -1;
    if (slr_tensor_count(t) == count && (!how->turned || source->rank == 2))
        return SDLORA_OK;
    return slr_fail(SDLORA_EFORMAT, __func__, "%s is %s, which can't become %s", e->name,
                    slr_shape_text(source->dim, source->rank, a),
                    slr_shape_text(t->dim, t->rank, b));
}

int slr_outfile_add(slr_outfile *f, const char *name, const slr_tensor *source,
                    const slr_out_how *how)
{
    static const slr_out_how AS_IT_IS = {0};
    const slr_out_how *h = how ? how : &AS_IT_IS;
    uint32_t dtype = h->dtype ? h->dtype : source->dtype;
    item *it = NULL;
    slr_st_entry *e = NULL;
    slr_require(h->joined <= MAX_JOINED);
    if (!slr_dtype(source->dtype) || !slr_dtype(dtype) || !slr_dtype(dtype)->st_tag)
        return slr_fail(SDLORA_ENOTSUP, __func__, "%s has a type that this library has no name for",
                        name);
    SLR_TRY(add(f, name, &it, &e));
    it->n = h->joined > 1 ? h->joined : 1;
    memcpy(it->source, source, (size_t)it->n * sizeof *source);
    it->turned = h->turned;
    it->dtype = e->t.dtype = dtype;
    SLR_TRY(shape_entry(e, source, h));
    f->bytes += slr_tensor_bytes(&e->t);
    return SDLORA_OK;
}

int slr_outfile_add_i64(slr_outfile *f, const char *name, int rank, const int64_t *dim,
                        const int64_t *values)
{
    slr_tensor t = {.dtype = SDLORA_I64, .rank = rank};
    memcpy(t.dim, dim, (size_t)rank * sizeof *dim);
    size_t bytes = slr_tensor_bytes(&t);
    void *copy = slr_arena_alloc(f->texts, 1, bytes);
    if (!copy)
        return SDLORA_ENOMEM;
    memcpy(copy, values, bytes);
    t.data = copy;
    return slr_outfile_add(f, name, &t, NULL);
}

size_t slr_outfile_count(const slr_outfile *f)
{
    return f->n;
}

uint64_t slr_outfile_bytes(const slr_outfile *f)
{
    return f->bytes;
}

int slr_outfile_meta(slr_outfile *f, const char *key, const char *value)
{
    size_t i = 0;
    while (i < f->n_meta && strcmp(f->meta[i].key, key) != 0)
        i++;
    if (!value) {
        if (i < f->n_meta)
            memmove(f->meta + i, f->meta + i + 1, (--f->n_meta - i) * sizeof *f->meta);
        return SDLORA_OK;
    }
    char *copy = slr_arena_strdup(f->texts, value);
    char *name = i < f->n_meta ? NULL : slr_arena_strdup(f->texts, key);
    if (!copy || (i == f->n_meta && !name))
        return SDLORA_ENOMEM;
    if (i == f->n_meta) {
        SLR_TRY(slr_grow(f->m, &f->meta, &f->cap_meta, f->n_meta + 1, sizeof *f->meta));
        f->meta[f->n_meta++].key = name;
    }
    f->meta[i].value = copy;
    return SDLORA_OK;
}

/* ---- bytes of an entry ---- */

typedef struct writing {
    slr_outfile *f;
    const char *path;
    slr_out_progress *progress;
    slr_out_report *report;
    const char *phase;
    size_t entry;        /* at work; SIZE_MAX: none */
    uint64_t done;       /* bytes of this pass */
    bool again;          /* the second pass: nothing is counted */
    float *wide;         /* [SLR_ST_PIECE / 8] */
    unsigned char *line; /* [SLR_ST_PIECE]: elements gathered, of 8 bytes at most */
} writing;

static void let_go(const slr_tensor *t, size_t at, size_t n)
{
    if (slr_file_is_map(t->storage))
        slr_file_forget((const char *)t->data + at, n);
}

/* Elements [first, first + n) of an entry, in the type of its sources. */
static void gather(const item *it, int64_t first, int64_t n, unsigned char *to)
{
    size_t size = slr_dtype_size(it->source[0].dtype);
    if (it->turned) { /* [R,C] -> [C,R]: element (c, r) */
        int64_t rows = it->source[0].dim[0], columns = it->source[0].dim[1];
        for (int64_t i = 0; i < n; i++) {
            int64_t c = (first + i) / rows, r = (first + i) % rows;
            memcpy(to + (size_t)i * size,
                   (const char *)it->source[0].data + (size_t)(r * columns + c) * size, size);
        }
        return;
    }
    int64_t each = slr_tensor_count(&it->source[0]);
    while (n > 0 && each > 0) {
        int64_t which = first / each, at = first % each, k = n < each - at ? n : each - at;
        memcpy(to, (const char *)it->source[which].data + (size_t)at * size, (size_t)k * size);
        to += (size_t)k * size;
        first += k;
        n -= k;
    }
}

static void count_overflows(writing *w, const item *it, const float *x, size_t n)
{
    float limit = it->dtype == SDLORA_F16 ? F16_INFINITE : BF16_INFINITE;
    uint64_t over = 0;
    if (it->dtype != SDLORA_F16 && it->dtype != SDLORA_BF16)
        return;
    for (size_t i = 0; i < n; i++)
        over += isfinite(x[i]) && fabsf(x[i]) >= limit;
    if (over && !w->report->overflows)
        slr_text_join(w->report->first, sizeof w->report->first, it->name, "");
    w->report->overflows += over;
}

/* A new entry begins: the pages of the last one's sources may go. */
static int begin(writing *w, size_t i)
{
    if (w->entry != SIZE_MAX && w->entry != i)
        for (int k = 0; k < w->f->item[w->entry].n; k++) {
            const slr_tensor *t = &w->f->item[w->entry].source[k];
            let_go(t, 0, slr_tensor_bytes(t));
        }
    w->entry = i;
    return SDLORA_OK;
}

static int tell(writing *w, size_t n)
{
    w->done += n;
    w->progress->done += n;
    if (w->progress->fn && w->progress->fn(w->progress->user, w->phase, (int64_t)w->progress->done,
                                           (int64_t)w->progress->total))
        return slr_fail(SDLORA_ECANCELED, "slr_outfile_write", "%s: cancelled; nothing was changed",
                        w->path);
    return SDLORA_OK;
}

static int read_piece(void *user, size_t i, uint64_t at, void *to, size_t n)
{
    writing *w = user;
    const item *it = &w->f->item[i];
    const slr_dtype_row *from = slr_dtype(it->source[0].dtype), *into = slr_dtype(it->dtype);
    size_t count = n / into->size, first = (size_t)(at / into->size);
    if (!w->again && w->done + n > w->f->bytes) { /* the first pass is over */
        w->again = true;
        w->done = 0;
        w->phase = "verify";
    }
    SLR_TRY(begin(w, i));
    bool plain = it->n == 1 && !it->turned;
    const unsigned char *src =
        plain ? (const unsigned char *)it->source[0].data + first * from->size : w->line;
    if (from == into) {
        if (plain)
            memcpy(to, src, n);
        else
            gather(it, (int64_t)first, (int64_t)count, to);
    } else {
        for (size_t done = 0; done < count;) { /* an element of the source may be wider */
            size_t k = SLR_ST_PIECE / 8 < count - done ? SLR_ST_PIECE / 8 : count - done;
            if (!plain)
                gather(it, (int64_t)(first + done), (int64_t)k, w->line);
            from->to_f32(w->wide, plain ? src + done * from->size : src, k);
            if (!w->again)
                count_overflows(w, it, w->wide, k);
            into->from_f32((char *)to + done * into->size, w->wide, k);
            done += k;
        }
    }
    if (plain)
        let_go(&it->source[0], first * from->size, count * from->size);
    return tell(w, n);
}

int slr_outfile_write(slr_outfile *f, const char *path, bool verify, slr_out_progress *progress,
                      slr_out_report *report)
{
    slr_out_progress silent = {0};
    slr_out_report unread = {0};
    writing w = {.f = f,
                 .path = path,
                 .progress = progress ? progress : &silent,
                 .report = report ? report : &unread,
                 .phase = "write",
                 .entry = SIZE_MAX};
    w.wide = slr_alloc(f->m, SLR_ST_PIECE / 8 * sizeof *w.wide);
    w.line = slr_alloc(f->m, SLR_ST_PIECE);
    int rc = w.wide && w.line ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc == SDLORA_OK)
        rc = slr_safetensors_stream(f->m, path, f->entry, f->n, f->n_meta ? f->meta : NULL,
                                    f->n_meta, read_piece, &w, verify);
    slr_free(f->m, w.wide);
    slr_free(f->m, w.line);
    return rc;
}
