/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the input is a whole file.  What is accepted must hold together, and must come
 * out of the writer as a file that reads the same.  A broken promise ends in a trap.
 */
#define SAFETENSORS_STATIC
#include <safetensors.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)            \
    do {                      \
        if (!(cond))          \
            __builtin_trap(); \
    } while (0)

static int parse(st_doc *doc, const uint8_t *file, size_t size, uint64_t pretend, uint32_t flags)
{
    st_limits limits = {0, 0, 0, 0, 0};
    st_error err;
    uint64_t n;
    int rc = size < 8 ? ST_ETRUNCATED : st_header_length(file, pretend, &n, &err);
    limits.flags = flags;
    if (rc == ST_OK && n > size - 8)
        rc = ST_ETRUNCATED;
    if (rc == ST_OK)
        rc = st_parse(doc, file + 8, (size_t)n, pretend, &limits, NULL, &err);
    if (rc < 0 && size >= 8)
        MUST(memchr(err.text, '\0', sizeof err.text));
    return rc;
}

static void check(const st_doc *doc, uint64_t pretend)
{
    uint64_t at = doc->data_offset;
    size_t i;
    for (i = 0; i < doc->n_tensors; i++) {
        const st_tensor *t = &doc->tensors[i];
        uint64_t n = st_dtype_size(t->dtype);
        size_t k;
        for (k = 0; k < t->rank; k++)
            n *= t->shape[k];
        MUST(t->offset == at && strlen(t->name) == t->name_len && st_find(doc, t->name) == t);
        MUST(t->dtype == ST_OPAQUE || n == t->size);
        at += t->size;
    }
    for (i = 0; i < doc->n_metadata; i++)
        MUST(st_metadata(doc, doc->metadata[i].key) == doc->metadata[i].value);
    MUST(at + doc->trailing == pretend);
}

static void rewrite(const st_doc *doc, const uint8_t *file)
{
    st_item *items = (st_item *)calloc(doc->n_tensors + 1, sizeof *items);
    st_doc again;
    st_error err;
    void *out;
    size_t i, n;
    MUST(items);
    for (i = 0; i < doc->n_tensors; i++) {
        const st_tensor *t = &doc->tensors[i];
        items[i].name = t->name;
        items[i].shape = t->shape;
        items[i].rank = t->rank;
        items[i].dtype = t->dtype;
        items[i].data = file + t->offset;
    }
    MUST(st_write_buffer(&out, &n, items, doc->n_tensors, doc->metadata, doc->n_metadata, NULL,
                         &err) == ST_OK);
    MUST(parse(&again, (const uint8_t *)out, n, n, 0) == ST_OK);
    MUST(again.n_tensors == doc->n_tensors && again.n_metadata == doc->n_metadata);
    for (i = 0; i < doc->n_tensors; i++) {
        const st_tensor *t = &doc->tensors[i], *u = st_find(&again, t->name);
        MUST(u && u->dtype == t->dtype && u->rank == t->rank && u->size == t->size);
        MUST(!memcmp((char *)out + u->offset, file + t->offset, (size_t)t->size));
    }
    st_free(&again);
    free(out);
    free(items);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    st_doc doc;
    if (parse(&doc, data, size, size, 0) == ST_OK) {
        check(&doc, size);
        rewrite(&doc, data);
        st_free(&doc);
    }
    if (parse(&doc, data, size, size, ST_ALLOW_TRAILING | ST_ALLOW_OPAQUE) == ST_OK) {
        check(&doc, size);
        st_free(&doc);
    }
    /* a header alone, before a file of any size: what a pread user has in hand */
    if (parse(&doc, data, size, UINT64_MAX, ST_ALLOW_TRAILING) == ST_OK) {
        check(&doc, UINT64_MAX);
        st_free(&doc);
    }
    return 0;
}
