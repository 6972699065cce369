/* SPDX-License-Identifier: MIT */
/* Torch files: finds the pickle and the storages in either container, walks the value tree to named
 * tensors, and checks every offset and stride against the bytes that are there.  It knows nothing
 * of what the names mean. */
#include "io/torchfile.h"

#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/pickle.h"
#include "io/source.h"
#include "io/zip.h"

enum {
    PICKLE_MAX = 64 << 20, /* bytes; a full SDXL training state takes about one million */
    DEPTH_MAX = 64,
    NAME_MAX_BYTES = 1024,
    VALUES_MAX = 1000,
    VALUE_DEPTH = 2, /* names of at most so many keys */
    LEGACY_VERSION = 1001
};

#define ELEMENTS_MAX (UINT64_C(1) << 48)
#define GATHER_FREE  (UINT64_C(16) << 20) /* bytes of copies that need no file behind them */

typedef struct named {
    char *name;
    slr_tensor t;
    bool own; /* t.storage is a gathered copy of ours */
} named;

struct slr_torchfile {
    slr_mem *m;
    slr_storage *map;
    const uint8_t *base; /* the whole file */
    uint64_t size;
    named *item;
    size_t n, cap;
    slr_torch_value *value;
    size_t n_values, value_cap;
};

/* What one opening needs besides the result. */
typedef struct job {
    slr_torchfile *f;
    slr_source *s;
    slr_pickle p;
    slr_zip zip;
    const char *root; /* of the zip: "archive/" */
    size_t root_len;
    slr_map *seen;
    uint64_t visits, names, gathered; /* spent so far; all bounded by what the file holds */
    char path[NAME_MAX_BYTES + 1];
} job;

/* ---- from a value to a tensor ------------------------------------------------------------- */

static int refuse(job *j, int code, const char *why)
{
    return slr_fail(code, "slr_torchfile", "%s: %s %s", j->s->label,
                    *j->path ? j->path : "its top value", why);
}

/* Where a storage's bytes are: an entry of the zip; legacy files have placed theirs before. */
static int place(job *j, slr_py_storage *s)
{
    char name[NAME_MAX_BYTES];
    const slr_zip_entry *e = NULL;
    int n;
    if (s->placed)
        return SDLORA_OK;
    n = snprintf(name, sizeof name, "%.*sdata/%s", (int)j->root_len, j->root ? j->root : "",
                 s->key);
    if (j->root && n > 0 && n < (int)sizeof name)
        e = slr_zip_find(&j->zip, name);
    if (!e)
        return refuse(j, SDLORA_EFORMAT, "has no data in the file");
    if (s->width == 0 || s->numel > UINT64_MAX / s->width || e->size != s->numel * s->width)
        return refuse(j, SDLORA_EFORMAT, "has data of another size than it says");
    s->at = e->at;
    s->placed = true;
    return SDLORA_OK;
}

/* Elements of a shape, and how far its last one lies from its first. */
static int reach(job *j, const slr_py_tensor *t, uint64_t *count, uint64_t *last)
{
    uint64_t step, all = 1; /* of the sizes, zeros counted as 1 */
    *count = 1;
    *last = 0;
    for (uint32_t d = 0; d < t->size->n; d++) {
        uint64_t n = (uint64_t)t->size->u.item[d]->u.i;
        uint64_t stride = (uint64_t)t->stride->u.item[d]->u.i;
        if (__builtin_mul_overflow(all, n ? n : 1, &all) || all > ELEMENTS_MAX)
            return refuse(j, SDLORA_EFORMAT, "has too many elements");
        *count *= n;
        if (__builtin_mul_overflow(n ? n - 1 : 0, stride, &step) ||
            __builtin_add_overflow(*last, step, last))
            return refuse(j, SDLORA_EFORMAT, "has strides that reach out of the file");
    }
    return SDLORA_OK;
}

/* Whether the elements lie one after another; axes of one element may have any stride. */
static bool is_dense(const slr_py_tensor *t, uint64_t count)
{
    uint64_t want = 1;
    for (uint32_t d = t->size->n; d-- > 0 && count;) {
        uint64_t n = (uint64_t)t->size->u.item[d]->u.i;
        if (n != 1 && (uint64_t)t->stride->u.item[d]->u.i != want)
            return false;
        want *= n;
    }
    return true;
}

/* Copies elements by stride into one dense block, last axis fastest. */
static void gather(uint8_t *to, const uint8_t *from, const slr_py_tensor *t, uint64_t count)
{
    uint64_t at[SLR_MAX_RANK] = {0}, offset = 0;
    size_t width = t->width;
    for (uint64_t i = 0; i < count; i++) {
        memcpy(to + i * width, from + offset * width, width);
        for (uint32_t d = t->size->n; d-- > 0;) {
            uint64_t n = (uint64_t)t->size->u.item[d]->u.i;
            uint64_t stride = (uint64_t)t->stride->u.item[d]->u.i;
            offset += stride;
            if (++at[d] < n)
                break;
            offset -= n * stride; /* wraps back with the same arithmetic that went there */
            at[d] = 0;
        }
    }
}

/* `at`: where element 0 lies in the file. */
static int set_data(job *j, named *to, const slr_py_tensor *t, uint64_t at, uint64_t count)
{
    slr_torchfile *f = j->f;
    uint64_t bytes = count * t->width; /* at most 2^48 * 8 */
    if (is_dense(t, count)) {
        to->t.data = f->base + at;
        to->t.storage = f->map;
    } else {
        if (__builtin_add_overflow(j->gathered, bytes, &j->gathered) ||
            j->gathered > 2 * f->size + GATHER_FREE)
            return refuse(j, SDLORA_EFORMAT, "repeats its few elements too often");
        SLR_TRY(slr_storage_new(&to->t.storage, f->m, (size_t)bytes));
        to->own = true;
        to->t.data = slr_storage_data(to->t.storage);
        gather(slr_storage_data(to->t.storage), f->base + at, t, count);
    }
    to->t.id = slr_tensor_next_id();
    return SDLORA_OK;
}

static int resolve(job *j, named *to, const slr_value *v)
{
    slr_py_tensor t = {0};
    const slr_py_storage *s;
    const char *why = NULL;
    uint64_t count, last, have, at, end;
    int rc = slr_py_tensor_of(v, &t, &why);
    if (rc < 0)
        return refuse(j, rc, why);
    if (t.size->n > SLR_MAX_RANK)
        return refuse(j, SDLORA_ENOTSUP, "has too many dimensions");
    SLR_TRY(place(j, t.view->of));
    SLR_TRY(reach(j, &t, &count, &last));
    s = t.view->of;
    have = t.view->size * s->width / t.width; /* elements of the tensor's own type */
    if (t.offset > have || (count && last >= have - t.offset))
        return refuse(j, SDLORA_EFORMAT, "reaches past the end of its data");
    at = s->at + t.view->offset * s->width + t.offset * t.width;
    end = s->at + s->numel * s->width;
    if (end > j->f->size || at > end)
        return refuse(j, SDLORA_EFORMAT, "reaches past the end of the file");
    to->t.dtype = t.dtype;
    to->t.rank = (int32_t)t.size->n;
    for (uint32_t d = 0; d < t.size->n; d++)
        to->t.dim[d] = t.size->u.item[d]->u.i;
    return set_data(j, to, &t, at, count);
}

static int add_tensor(job *j, const slr_value *v)
{
    slr_torchfile *f = j->f;
    size_t n = strlen(j->path);
    int64_t old;
    named *to;
    j->names += n + 1;
    if (j->names > 16 * (uint64_t)j->p.n + 65536)
        return refuse(j, SDLORA_EFORMAT, "and the other names are longer than the file can mean");
    if (slr_map_get(j->seen, j->path, &old))
        return refuse(j, SDLORA_EFORMAT, "is there twice");
    SLR_TRY(slr_map_set(j->seen, j->path, 1));
    SLR_TRY(slr_grow(f->m, &f->item, &f->cap, f->n + 1, sizeof *f->item));
    to = &f->item[f->n];
    memset(to, 0, sizeof *to);
    to->name = slr_strndup(f->m, j->path, n);
    if (!to->name)
        return SDLORA_ENOMEM;
    f->n++; /* from here on close() frees it */
    return resolve(j, to, v);
}

/* ---- the walk ----------------------------------------------------------------------------- */

static bool is_text(const slr_value *v, const char *want)
{
    return v->kind == SLR_PY_STR && v->n == strlen(want) && !memcmp(v->u.text, want, v->n);
}

static const struct {
    int kind, type;
} plain[] = {
    {SLR_PY_NONE, SLR_TORCH_NONE},  {SLR_PY_BOOL, SLR_TORCH_BOOL}, {SLR_PY_INT, SLR_TORCH_INT},
    {SLR_PY_FLOAT, SLR_TORCH_REAL}, {SLR_PY_STR, SLR_TORCH_TEXT},
};
enum { N_PLAIN = sizeof plain / sizeof *plain };

/* Keeps a number or a text under the path as it stands. */
static int add_value(job *j, const slr_value *v)
{
    slr_torchfile *f = j->f;
    size_t row = 0;
    while (row < N_PLAIN && plain[row].kind != v->kind)
        row++;
    if (row == N_PLAIN || f->n_values >= VALUES_MAX ||
        (v->kind == SLR_PY_STR &&
         (memchr(v->u.text, 0, v->n) || slr_utf8_valid(v->u.text, v->n) != v->n)))
        return SDLORA_OK;
    SLR_TRY(slr_grow(f->m, &f->value, &f->value_cap, f->n_values + 1, sizeof *f->value));
    slr_torch_value *to = &f->value[f->n_values];
    *to = (slr_torch_value){.name = slr_strdup(f->m, j->path), .type = plain[row].type};
    if (!to->name)
        return SDLORA_ENOMEM;
    f->n_values++; /* from here on close() frees it */
    if (v->kind == SLR_PY_STR) {
        to->text = slr_strndup(f->m, v->u.text, v->n);
        return to->text ? SDLORA_OK : SDLORA_ENOMEM;
    }
    if (v->kind == SLR_PY_BOOL || v->kind == SLR_PY_INT)
        to->i = v->u.i;
    to->f = v->kind == SLR_PY_FLOAT ? v->u.f : (double)to->i;
    return SDLORA_OK;
}

/* Puts a key behind the path; DONE for keys that can't be part of a name. */
static int push_key(job *j, size_t *len, const slr_value *key)
{
    char number[24];
    const char *text = key->u.text;
    size_t n = key->n, dot = *len > 0;
    if (key->kind == SLR_PY_INT) {
        n = (size_t)snprintf(number, sizeof number, "%lld", (long long)key->u.i);
        text = number;
    } else if (key->kind != SLR_PY_STR) {
        return SDLORA_DONE;
    }
    if (n > NAME_MAX_BYTES - *len - dot || memchr(text, 0, n) || slr_utf8_valid(text, n) != n)
        return refuse(j, SDLORA_EFORMAT, "has below it a name that is too long or not UTF-8");
    if (dot)
        j->path[*len] = '.';
    memcpy(j->path + *len + dot, text, n);
    *len += dot + n;
    j->path[*len] = '\0';
    return SDLORA_OK;
}

static int walk(job *j, const slr_value *v, size_t len, int depth, bool top);

/* One child of a container, its key behind the path for as long as the walk is in it. */
static int walk_child(job *j, const slr_value *key, const slr_value *v, size_t len, int depth)
{
    size_t below = len;
    int rc;
    /* Values may be shared or contain themselves.  In an honest file every step of the walk has a
     * byte of pickle of its own, and more than one as a rule. */
    if (++j->visits > j->p.n || depth >= DEPTH_MAX)
        return refuse(j, SDLORA_EFORMAT, "has values inside values without end");
    if (!v->touches && depth >= VALUE_DEPTH && v->kind != SLR_PY_DICT && v->kind != SLR_PY_LIST)
        return SDLORA_OK; /* a number, a text: no tensor can be in it */
    rc = push_key(j, &below, key);
    if (rc == SDLORA_OK && depth < VALUE_DEPTH)
        SLR_TRY(add_value(j, v));
    if (rc == SDLORA_OK)
        rc = walk(j, v, below, depth + 1, false);
    j->path[len] = '\0';
    return rc < 0 ? rc : SDLORA_OK;
}

static int walk_dict(job *j, const slr_value *v, size_t len, int depth, bool top)
{
    for (uint32_t i = 0; i + 1 < v->n; i += 2)
        /* A `state_dict` inside of the `state_dict` that was entered is a leftover. */
        if (!(top && is_text(v->u.item[i], "state_dict")))
            SLR_TRY(walk_child(j, v->u.item[i], v->u.item[i + 1], len, depth));
    return SDLORA_OK;
}

static int walk_list(job *j, const slr_value *v, size_t len, int depth)
{
    for (uint32_t i = 0; i < v->n; i++) {
        slr_value index = {.kind = SLR_PY_INT, .u = {.i = i}};
        SLR_TRY(walk_child(j, &index, v->u.item[i], len, depth));
    }
    return SDLORA_OK;
}

static int walk(job *j, const slr_value *v, size_t len, int depth, bool top)
{
    char why[160];
    switch (v->kind) {
    case SLR_PY_TENSOR:
        return add_tensor(j, v);
    case SLR_PY_DICT:
        return walk_dict(j, v, len, depth, top);
    case SLR_PY_LIST:
    case SLR_PY_TUPLE:
        return walk_list(j, v, len, depth);
    case SLR_PY_OPAQUE:
        if (!v->touches)
            return SDLORA_OK;
        snprintf(why, sizeof why, "is made by %.100s, which is not known here", v->u.text);
        return refuse(j, SDLORA_ENOTSUP, why);
    default:
        return SDLORA_OK;
    }
}

static int walk_root(job *j, const slr_value *root)
{
    const slr_value *from = root;
    if (root->kind != SLR_PY_DICT)
        return slr_fail(SDLORA_EFORMAT, "slr_torchfile", "%s: holds %s, wanted a dict of tensors",
                        j->s->label, root->kind == SLR_PY_OPAQUE ? root->u.text : "a single value");
    for (uint32_t i = 0; i + 1 < root->n; i += 2)
        if (is_text(root->u.item[i], "state_dict") && root->u.item[i + 1]->kind == SLR_PY_DICT)
            from = root->u.item[i + 1];
    SLR_TRY(slr_map_new(&j->seen, j->f->m));
    return walk(j, from, 0, 0, from != root);
}

/* ---- containers --------------------------------------------------------------------------- */

/* The directory above the one data.pkl there is. */
static int find_pickle(job *j, const slr_zip_entry **out)
{
    static const char name[] = "data.pkl";
    *out = NULL;
    for (size_t i = 0; i < j->zip.n; i++) {
        const slr_zip_entry *e = &j->zip.entry[i];
        const char *base = slr_path_base(e->name);
        if (strcmp(base, name) != 0)
            continue;
        if (*out)
            return slr_fail(SDLORA_EFORMAT, "slr_torchfile", "%s: has more than one data.pkl",
                            j->s->label);
        *out = e;
        j->root = e->name;
        j->root_len = (size_t)(base - e->name);
    }
    if (!*out)
        return slr_fail(SDLORA_EFORMAT, "slr_torchfile",
                        "%s: is a zip file without data.pkl, so not one of torch's", j->s->label);
    return SDLORA_OK;
}

/* Torch notes its byte order since 2.0; only one order can be read in place. */
static int check_byteorder(job *j)
{
    char name[NAME_MAX_BYTES];
    const slr_zip_entry *e;
    void *text;
    bool little;
    snprintf(name, sizeof name, "%.*sbyteorder", (int)j->root_len, j->root);
    e = slr_zip_find(&j->zip, name);
    if (!e)
        return SDLORA_OK;
    SLR_TRY(slr_zip_read(&j->zip, j->s, e, 16, &text));
    little = e->size == 6 && !memcmp(text, "little", 6);
    slr_free(j->f->m, text);
    if (little)
        return SDLORA_OK;
    return slr_fail(SDLORA_ENOTSUP, "slr_torchfile", "%s: was written on a big-endian machine",
                    j->s->label);
}

static int read_zip(job *j)
{
    const slr_zip_entry *e;
    slr_value *root;
    void *bytes;
    int rc;
    SLR_TRY(slr_zip_open(&j->zip, j->f->m, j->s));
    SLR_TRY(find_pickle(j, &e));
    SLR_TRY(check_byteorder(j));
    SLR_TRY(slr_zip_read(&j->zip, j->s, e, PICKLE_MAX, &bytes));
    rc = slr_pickle_init(&j->p, j->f->m, bytes, (size_t)e->size, j->s->label);
    if (rc == SDLORA_OK)
        rc = slr_pickle_run(&j->p, &root);
    if (rc == SDLORA_OK)
        rc = walk_root(j, root);
    slr_free(j->f->m, bytes);
    return rc;
}

/* Pickle 3 of a legacy file tells the byte order. */
static int check_system(job *j, const slr_value *info)
{
    for (uint32_t i = 0; info->kind == SLR_PY_DICT && i + 1 < info->n; i += 2)
        if (is_text(info->u.item[i], "little_endian") && info->u.item[i + 1]->u.i != 1)
            return slr_fail(SDLORA_ENOTSUP, "slr_torchfile",
                            "%s: was written on a big-endian machine", j->s->label);
    return SDLORA_OK;
}

/* Behind the pickles: for each key of the list an int64 count, then that many elements. */
static int place_legacy(job *j, const slr_value *keys)
{
    uint64_t at = j->p.at;
    if (keys->kind != SLR_PY_LIST)
        return slr_fail(SDLORA_EFORMAT, "slr_torchfile", "%s: its list of storages is none",
                        j->s->label);
    for (uint32_t i = 0; i < keys->n; i++) {
        const slr_value *key = keys->u.item[i];
        uint8_t count[8];
        slr_py_storage *s;
        uint64_t bytes;
        int64_t k;
        if (key->kind != SLR_PY_STR || !slr_map_getn(j->p.storage_index, key->u.text, key->n, &k) ||
            j->p.storage[k]->placed || j->p.storage[k]->width == 0)
            return slr_fail(SDLORA_EFORMAT, "slr_torchfile",
                            "%s: storage %u of its list is unknown or repeated", j->s->label, i);
        s = j->p.storage[k];
        SLR_TRY(slr_source_get(j->s, at, count, sizeof count));
        at += sizeof count;
        if (slr_le64(count) != s->numel || __builtin_mul_overflow(s->numel, s->width, &bytes) ||
            bytes > j->s->size - at)
            return slr_fail(SDLORA_EFORMAT, "slr_torchfile",
                            "%s: storage %.40s is cut or has another size than it says",
                            j->s->label, s->key);
        s->at = at;
        s->placed = true;
        at += bytes;
    }
    return SDLORA_OK;
}

/* The five pickles of a legacy file from its first n bytes. */
static int run_legacy(job *j, const void *head, size_t n)
{
    static const uint8_t magic[10] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    slr_value *v, *root;
    SLR_TRY(slr_pickle_init(&j->p, j->f->m, head, n, j->s->label));
    SLR_TRY(slr_pickle_run(&j->p, &v));
    if (v->kind != SLR_PY_LONG || v->n != sizeof magic || memcmp(v->u.text, magic, v->n) != 0)
        return slr_fail(SDLORA_EFORMAT, "slr_torchfile",
                        "%s: is a Python pickle, but not one that torch saved", j->s->label);
    SLR_TRY(slr_pickle_run(&j->p, &v));
    if (v->kind != SLR_PY_INT || v->u.i != LEGACY_VERSION)
        return slr_fail(SDLORA_ENOTSUP, "slr_torchfile", "%s: an unknown version of torch's format",
                        j->s->label);
    SLR_TRY(slr_pickle_run(&j->p, &v));
    SLR_TRY(check_system(j, v));
    SLR_TRY(slr_pickle_run(&j->p, &root));
    SLR_TRY(slr_pickle_run(&j->p, &v));
    SLR_TRY(place_legacy(j, v));
    return walk_root(j, root);
}

/* The pickles' length is written nowhere, so ever longer heads of the file are tried. */
static int read_legacy(job *j)
{
    uint64_t most = j->s->size < PICKLE_MAX ? j->s->size : PICKLE_MAX;
    for (uint64_t want = (uint64_t)1 << 20;; want *= 8) {
        size_t n = (size_t)(want < most ? want : most);
        void *head = slr_alloc(j->f->m, n);
        bool again;
        int rc = head ? slr_source_get(j->s, 0, head, n) : SDLORA_ENOMEM;
        if (rc == SDLORA_OK)
            rc = run_legacy(j, head, n);
        again = rc < 0 && j->p.starved && n < most;
        slr_pickle_free(&j->p);
        slr_free(j->f->m, head);
        if (!again)
            return rc;
    }
}

bool slr_torchfile_is(const void *first, size_t n)
{
    const uint8_t *p = first;
    /* a safetensors header of 0x280 bytes, say, starts as a pickle of protocol 2 does */
    if (n >= 9 && !p[4] && !p[5] && !p[6] && !p[7] && p[8] == '{')
        return false;
    return n >= 4 && (!memcmp(p, "PK\003\004", 4) || (p[0] == 0x80 && p[1] >= 2 && p[1] <= 5));
}

static int read_any(job *j)
{
    uint8_t first[64] = {0};
    size_t n = j->s->size < sizeof first ? (size_t)j->s->size : sizeof first;
    const char *kind;
    SLR_TRY(slr_source_get(j->s, 0, first, n));
    if (slr_torchfile_is(first, n))
        return first[0] == 'P' ? read_zip(j) : read_legacy(j);
    kind = n ? slr_file_kind(first, n) : "an empty file";
    return slr_fail(SDLORA_EFORMAT, "slr_torchfile", "%s: not a torch file%s%s", j->s->label,
                    kind ? ": this is " : "", kind ? kind : "");
}

/* Runs a job on f and gives the result out, or closes it. */
static int finish(slr_torchfile **out, slr_torchfile *f, slr_source *s)
{
    job *j = slr_calloc(f->m, 1, sizeof *j);
    int rc = SDLORA_ENOMEM;
    if (j) {
        j->f = f;
        j->s = s;
        rc = read_any(j);
        slr_zip_close(&j->zip);
        slr_pickle_free(&j->p);
        if (j->seen)
            slr_map_free(j->seen);
        slr_free(f->m, j);
    }
    if (rc < 0)
        slr_torchfile_close(f);
    else
        *out = f;
    return rc;
}

static int open_new(slr_torchfile **f, slr_mem *m)
{
    *f = slr_calloc(m, 1, sizeof **f);
    if (!*f)
        return SDLORA_ENOMEM;
    (*f)->m = m ? slr_mem_ref(m) : NULL;
    return SDLORA_OK;
}

int slr_torchfile_open(slr_torchfile **out, slr_mem *m, const char *path)
{
    slr_torchfile *f;
    slr_source s;
    uint64_t size;
    int fd, rc;
    slr_require(out && path);
    *out = NULL;
    SLR_TRY(slr_file_fd_open(&fd, &size, path));
    rc = open_new(&f, m);
    if (rc == SDLORA_OK) {
        rc = slr_file_fd_map(&f->map, m, fd, size, path);
        if (rc < 0) {
            slr_torchfile_close(f);
        } else {
            f->base = slr_storage_data(f->map);
            f->size = size;
            slr_source_file(&s, fd, size, path);
            rc = finish(out, f, &s);
        }
    }
    slr_file_fd_close(fd);
    return rc;
}

int slr_torchfile_parse(slr_torchfile **out, slr_mem *m, const void *bytes, size_t n,
                        const char *label)
{
    slr_torchfile *f;
    slr_source s;
    slr_require(out && label && (bytes || !n));
    *out = NULL;
    SLR_TRY(open_new(&f, m));
    f->base = bytes ? bytes : (const void *)"";
    f->size = n;
    slr_source_memory(&s, f->base, n, label);
    return finish(out, f, &s);
}

void slr_torchfile_close(slr_torchfile *f)
{
    slr_mem *m;
    if (!f)
        return;
    m = f->m;
    for (size_t i = 0; i < f->n; i++) {
        if (f->item[i].own)
            slr_storage_unref(f->item[i].t.storage);
        slr_free(m, f->item[i].name);
    }
    for (size_t i = 0; i < f->n_values; i++) {
        slr_free(m, f->value[i].name);
        slr_free(m, f->value[i].text);
    }
    slr_free(m, f->value);
    slr_free(m, f->item);
    slr_storage_unref(f->map);
    slr_free(m, f);
    slr_mem_unref(m);
}

size_t slr_torchfile_count(const slr_torchfile *f)
{
    return f->n;
}

const char *slr_torchfile_at(const slr_torchfile *f, size_t i, slr_tensor *t)
{
    if (t)
        *t = f->item[i].t;
    return f->item[i].name;
}

slr_storage *slr_torchfile_map(const slr_torchfile *f)
{
    return f->map;
}

size_t slr_torchfile_values(const slr_torchfile *f)
{
    return f->n_values;
}

const slr_torch_value *slr_torchfile_value_at(const slr_torchfile *f, size_t i)
{
    return &f->value[i];
}

const slr_torch_value *slr_torchfile_value(const slr_torchfile *f, const char *name)
{
    for (size_t i = 0; i < f->n_values; i++)
        if (!strcmp(f->value[i].name, name))
            return &f->value[i];
    return NULL;
}
