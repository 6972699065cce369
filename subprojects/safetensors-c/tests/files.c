/* SPDX-License-Identifier: MIT */
/* Whole files: those of the reference writer, cut and bent; mapping; size and speed. */
#define SAFETENSORS_IMPLEMENTATION
#include "check.h"

#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#define SLOW 10
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SLOW 10
#endif
#endif
#ifndef SLOW
#define SLOW 1
#endif

static const char *dir;
static const char *const names[] = {
    "empty.safetensors",  "one.safetensors",     "dtypes.safetensors",
    "shapes.safetensors", "escapes.safetensors", "lora.safetensors",
};
#define N_NAMES (sizeof names / sizeof *names)

static int parse_file(const void *file, size_t n, uint32_t flags, st_doc *doc, st_error *err)
{
    st_limits l = {0};
    uint64_t len;
    int rc = st_header_length(file, n, &len, err);
    l.flags = flags;
    memset(doc, 0, sizeof *doc);
    return rc < 0 ? rc
                  : st_parse(doc, (const char *)file + 8, (size_t)len, n, &l, NULL, err);
}

/* What must hold of any accepted document. */
static void check_doc(const st_doc *doc, uint64_t size)
{
    uint64_t at = doc->data_offset;
    size_t i;
    for (i = 0; i < doc->n_tensors; i++) {
        const st_tensor *t = &doc->tensors[i];
        CHECK(t->offset == at && strlen(t->name) == t->name_len, "%s", t->name);
        CHECK(st_find(doc, t->name) == t, "lookup of %s", t->name);
        at += t->size;
    }
    CHECK(at + doc->trailing == size && at == doc->data_offset + doc->data_size, "tiling");
}

static void test_reference_files(void)
{
    size_t i, k, n;
    for (i = 0; i < N_NAMES; i++) {
        unsigned char *file = check_slurp(dir, names[i], &n);
        st_doc doc;
        st_error err;
        CHECK(parse_file(file, n, 0, &doc, &err) == ST_OK, "%s: %s", names[i], err.text);
        check_doc(&doc, n);
        CHECK(doc.has_metadata == (strcmp(names[i], "empty.safetensors") &&
                                   strcmp(names[i], "dtypes.safetensors")), "%s", names[i]);
        st_free(&doc);
        for (k = 0; k < n; k++) { /* every truncation */
            unsigned char *cut = check_copy(file, k);
            int rc = parse_file(cut, k, ST_ALLOW_TRAILING, &doc, &err);
            CHECK(rc == ST_ETRUNCATED, "%s cut to %d: %d %s", names[i], (int)k, rc, err.text);
            st_free(&doc);
            free(cut);
        }
        free(file);
    }
}

static void test_tail(void)
{
    size_t n;
    unsigned char *file = check_slurp(dir, "lora.safetensors", &n), *longer = calloc(1, n + 3);
    st_doc doc;
    st_error err;
    memcpy(longer, file, n);
    CHECK(parse_file(longer, n + 3, 0, &doc, &err) == ST_ETRAILING, "tail");
    CHECK(!strcmp(err.text, "3 bytes follow the last tensor \"lora_unet_x.lora_up.weight\""), "%s",
          err.text);
    CHECK(parse_file(longer, n + 3, ST_ALLOW_TRAILING, &doc, &err) == ST_OK, "%s", err.text);
    CHECK(doc.trailing == 3, "tail");
    check_doc(&doc, n + 3);
    st_free(&doc);
    free(longer);
    free(file);
}

/* Every byte of a file takes every value: an error, or a document that holds together. */
static void test_bent(void)
{
    size_t n, i;
    int v, good = 0;
    unsigned char *file = check_slurp(dir, "lora.safetensors", &n);
    st_doc doc;
    st_error err;
    for (i = 0; i < n - 20; i++)
        for (v = 0; v < 256; v++) {
            unsigned char was = file[i];
            file[i] = (unsigned char)v;
            if (parse_file(file, n, 0, &doc, &err) == ST_OK) {
                check_doc(&doc, n);
                good++;
            }
            st_free(&doc);
            file[i] = was;
        }
    CHECK(good > 10000, "%d bent files read", good);
    free(file);
}

static void test_open(void)
{
    char path[4096];
    st_file f;
    st_error err;
    check_heap heap = {0, 0, 1, NULL, NULL};
    st_alloc hooks = check_hooks(&heap);
    size_t i;
    for (i = 0; i < N_NAMES; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        CHECK(st_open(&f, path, NULL, NULL, &err) == ST_OK, "%s: %s", path, err.text);
        check_doc(&f.doc, f.size);
        if (!strcmp(names[i], "one.safetensors")) {
            const st_tensor *t = st_find(&f.doc, "a");
            CHECK(t && t->size == 24 && f.map[t->offset + 1] == 7, "data");
            CHECK(!strcmp(st_metadata(&f.doc, "format"), "pt"), "metadata");
        }
        st_close(&f);
        st_close(&f);
    }
    CHECK(st_open(&f, path, NULL, &hooks, &err) == ST_ENOMEM && !heap.alive, "%s", err.text);
    CHECK(check_zeroed(&f, sizeof f), "zeroed");
    CHECK(st_open(&f, "absent/file", NULL, NULL, &err) == ST_EIO, "%s", err.text);
    CHECK(strstr(err.text, "open: no such file"), "%s", err.text);
    CHECK(st_open(&f, dir, NULL, NULL, &err) == ST_EIO, "%s", err.text);
    CHECK(strstr(err.text, "not a regular file"), "%s", err.text);
    CHECK(st_open(&f, "/dev/zero", NULL, NULL, &err) == ST_EIO, "%s", err.text);
    snprintf(path, sizeof path, "%s/make.py", dir);
    CHECK(st_open(&f, path, NULL, NULL, &err) == ST_EHEADER, "%s", err.text);
    CHECK(check_zeroed(&f, sizeof f), "zeroed");
    CHECK(st_open(NULL, path, NULL, NULL, &err) == ST_EINVAL, "NULL");
    CHECK(st_open(&f, NULL, NULL, NULL, &err) == ST_EINVAL, "NULL");
    st_close(NULL);
}

static double seconds(clock_t from)
{
    return (double)(clock() - from) / CLOCKS_PER_SEC;
}

/* n entries in shuffled order by `format`, which takes a number; returns bytes. */
static size_t many(char *to, unsigned n, const char *format)
{
    char *p = to;
    unsigned i;
    p += sprintf(p, "{");
    for (i = 0; i < n; i++) {
        if (i)
            *p++ = ',';
        p += sprintf(p, format, (unsigned)((i * UINT64_C(7919)) % n));
    }
    p += sprintf(p, "}");
    return (size_t)(p - to);
}

static void test_hundred_thousand(void)
{
    const unsigned n = 100000;
    char *json = malloc(16u << 20), name[64];
    size_t len = many(json, n, "\"layer.%06u.weight\":{\"dtype\":\"F32\",\"shape\":[0],"
                               "\"data_offsets\":[0,0]}");
    st_doc doc;
    st_error err;
    clock_t from = clock();
    unsigned i;
    double took;
    CHECK(st_parse(&doc, json, len, 8 + len, NULL, NULL, &err) == ST_OK, "%s", err.text);
    took = seconds(from);
    printf("%u empty tensors, %.1f MB: %.3f s\n", n, (double)len / 1e6, took);
    CHECK(took < 0.2 * SLOW, "%.3f s", took);
    CHECK(doc.n_tensors == n, "count");
    for (i = 0; i < n; i++) {
        snprintf(name, sizeof name, "layer.%06u.weight", i);
        if (!st_find(&doc, name))
            break;
    }
    CHECK(i == n, "%s is not found", name);
    st_free(&doc);
    free(json);
}

static void test_a_million(void)
{
    const unsigned n = 1000000;
    char *json = malloc(20u << 20);
    size_t len;
    st_doc doc;
    st_error err;
    clock_t from;
    len = (size_t)sprintf(json, "{\"__metadata__\":");
    len += many(json + len, n, "\"%u\":\"\"");
    len += (size_t)sprintf(json + len, "}");
    from = clock();
    CHECK(st_parse(&doc, json, len, 8 + len, NULL, NULL, &err) == ST_OK, "%s", err.text);
    CHECK(doc.n_metadata == n && st_metadata(&doc, "999999"), "count");
    st_free(&doc);
    printf("%u metadata pairs: %.3f s\n", n, seconds(from));
    len = (size_t)sprintf(json + len - 1, ",\"t\":{\"dtype\":\"U8\",\"shape\":[0],"
                                          "\"data_offsets\":[0,0]}}") + len - 1;
    CHECK(st_parse(&doc, json, len, 8 + len, NULL, NULL, &err) == ST_ELIMIT, "cap");
    CHECK(strstr(err.text, "more than 1000000 entries"), "%s", err.text);
    free(json);
}

/* Depth costs neither stack nor time: each frame opens 1e5 times. */
static void test_deep(void)
{
    static const char *const heads[] = {"", "{\"t\":", "{\"__metadata__\":", "{\"t\":{\"shape\":",
                                        "{\"__metadata__\":{\"k\":"};
    char *json = malloc(700000);
    size_t i, k;
    for (i = 0; i < sizeof heads / sizeof *heads; i++)
        for (k = 0; k < 2; k++) {
            size_t len = strlen(heads[i]), j;
            clock_t from = clock();
            st_doc doc;
            st_error err;
            memcpy(json, heads[i], len);
            for (j = 0; j < 100000; j++) {
                memcpy(json + len, k ? "{\"a\":" : "[[[[[", 5);
                len += 5;
            }
            CHECK(st_parse(&doc, json, len, 8 + len, NULL, NULL, &err) < 0, "accepted");
            CHECK(seconds(from) < 0.01 * SLOW, "%.3f s", seconds(from));
        }
    free(json);
}

int main(int argc, char **argv)
{
    dir = argc > 1 ? argv[1] : "tests/data";
    test_reference_files();
    test_tail();
    test_bent();
    test_open();
    test_hundred_thousand();
    test_a_million();
    test_deep();
    return check_report();
}
