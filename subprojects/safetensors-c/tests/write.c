/* SPDX-License-Identifier: MIT */
/* The writer: byte equality with the reference, refusals, streaming, failing calls. */
#define SAFETENSORS_IMPLEMENTATION
#include "check.h"

static const char *dir;

/* Items of a parsed file; `backwards` gives them in the opposite order of the file's. */
static st_item *items_of(const st_doc *doc, const unsigned char *file, int backwards, int data)
{
    st_item *items = calloc(doc->n_tensors + 1, sizeof *items);
    size_t i;
    for (i = 0; i < doc->n_tensors; i++) {
        const st_tensor *t = &doc->tensors[backwards ? doc->n_tensors - 1 - i : i];
        items[i].name = t->name;
        items[i].shape = t->shape;
        items[i].rank = t->rank;
        items[i].dtype = t->dtype;
        items[i].data = data ? file + t->offset : NULL;
    }
    return items;
}

typedef struct stream {
    const unsigned char *file; /* what must be written */
    size_t n, at;
    const st_item *items;
    const st_doc *doc;
    int calls, fail_at;
} stream;

static int stream_write(void *user, const void *bytes, size_t n)
{
    stream *s = user;
    if (++s->calls == s->fail_at)
        return 42;
    if (!n || n > s->n - s->at || memcmp(s->file + s->at, bytes, n))
        return 7;
    s->at += n;
    return 0;
}

static int stream_read(void *user, size_t index, uint64_t at, void *buf, size_t n)
{
    stream *s = user;
    const st_tensor *t = st_find(s->doc, s->items[index].name);
    if (++s->calls == s->fail_at)
        return -42;
    memcpy(buf, s->file + t->offset + at, n);
    return 0;
}

static void check_stream(const unsigned char *file, size_t n, const st_doc *doc,
                         const st_item *items)
{
    st_error err = {0, ""};
    int k = 0, rc;
    do {
        stream s = {file, n, 0, items, doc, 0, 0};
        st_sink sink = {stream_write, stream_read, NULL};
        sink.user = &s;
        s.fail_at = ++k;
        rc = st_write(&sink, items, doc->n_tensors, doc->has_metadata ? doc->metadata : NULL,
                      doc->n_metadata, NULL, &err);
        if (rc < 0)
            CHECK(rc == ST_EIO && strstr(err.text, "42"), "%s", err.text);
        else
            CHECK(s.at == n && s.calls == k - 1, "%d of %d bytes", (int)s.at, (int)n);
    } while (rc < 0 && k < 1000);
}

static void check_heap_failures(const st_item *items, const st_doc *doc)
{
    check_heap heap = {0};
    st_alloc hooks = check_hooks(&heap);
    st_error err;
    void *out = NULL;
    size_t n;
    int rc;
    do {
        heap.calls = 0;
        heap.fail_at++;
        rc = st_write_buffer(&out, &n, items, doc->n_tensors,
                             doc->has_metadata ? doc->metadata : NULL, doc->n_metadata, &hooks,
                             &err);
        if (rc < 0)
            CHECK(rc == ST_ENOMEM && !heap.alive && !out && !n, "%s", err.text);
    } while (rc < 0 && heap.fail_at < 10);
    CHECK(rc == ST_OK && heap.alive == 1 && heap.fail_at == 4, "%d", (int)heap.fail_at);
    check_free(&heap, out);
}

static void test_equal(const char *name)
{
    size_t n, size, i;
    unsigned char *file = check_slurp(dir, name, &n);
    st_doc doc;
    st_error err;
    st_plan plan;
    uint64_t len = 0;
    int backwards;
    CHECK(st_header_length(file, n, &len, &err) == ST_OK, "%s", err.text);
    CHECK(st_parse(&doc, file + 8, (size_t)len, n, NULL, NULL, &err) == ST_OK, "%s", err.text);
    for (backwards = 0; backwards < 2; backwards++) {
        /* an empty __metadata__ is told from none by the pointer, which a parse may leave NULL */
        const st_pair none = {"", "", 0, 0};
        const st_pair *pairs = doc.n_metadata ? doc.metadata : doc.has_metadata ? &none : NULL;
        st_item *items = items_of(&doc, file, backwards, 1);
        st_item *bare = items_of(&doc, file, backwards, 0);
        void *out;
        int rc = st_write_buffer(&out, &size, items, doc.n_tensors, pairs, doc.n_metadata, NULL,
                                 &err);
        CHECK(rc == ST_OK && size == n && !memcmp(out, file, n), "%s differs", name);
        free(out);
        doc.metadata = pairs;
        check_stream(file, n, &doc, items);
        check_stream(file, n, &doc, bare);
        check_heap_failures(items, &doc);
        rc = st_plan_make(&plan, bare, doc.n_tensors, pairs, doc.n_metadata, NULL, &err);
        CHECK(rc == ST_OK && plan.file_size == n && plan.n_items == doc.n_tensors, "plan");
        CHECK(plan.head_size == doc.data_offset && plan.head_size % 8 == 0, "plan");
        for (i = 0; i < doc.n_tensors; i++) {
            const st_tensor *t = &doc.tensors[i];
            size_t k = plan.order[i];
            CHECK(!strcmp(bare[k].name, t->name), "order");
            CHECK(plan.offset[k] == t->offset && plan.size[k] == t->size, "place");
        }
        st_plan_free(&plan);
        free(items);
        free(bare);
    }
    st_free(&doc);
    free(file);
}

/* All escapes and a few wide characters, as name, key and value, there and back. */
static void test_escapes(void)
{
    char all[300];
    size_t n = 0, size, i;
    uint64_t len;
    st_pair pair = {all, all, 0, 0};
    st_item item = {all, NULL, "\5", ST_U8, 0, 0};
    void *out;
    st_doc doc;
    st_error err;
    for (i = 1; i < 0x80; i++)
        all[n++] = (char)i;
    strcpy(all + n, "\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf");
    CHECK(st_write_buffer(&out, &size, &item, 1, &pair, 1, NULL, &err) == ST_OK, "%s", err.text);
    CHECK(strstr((char *)out + 8, "\"\\u0001\\u0002\\u0003\\u0004\\u0005\\u0006\\u0007\\b\\t\\n"
                                  "\\u000b\\f\\r\\u000e\\u000f\\u0010"), "serde_json's escapes");
    CHECK(strstr((char *)out + 8, "\\u001e\\u001f !\\\"#"), "serde_json's escapes");
    CHECK(strstr((char *)out + 8, "-./0"), "a slash stays");
    CHECK(st_header_length(out, size, &len, &err) == ST_OK, "%s", err.text);
    CHECK(st_parse(&doc, (char *)out + 8, (size_t)len, size, NULL, NULL, &err) == ST_OK, "%s",
          err.text);
    CHECK(st_find(&doc, all) && !strcmp(st_metadata(&doc, all), all), "round trip");
    st_free(&doc);
    free(out);
}

/* Here the reference (0.8.0) writes {},"__metadata__":{}} which no reader takes, nor its own. */
static void test_empty_metadata(void)
{
    st_pair none = {"", "", 0, 0};
    st_error err;
    void *out;
    size_t n;
    CHECK(st_write_buffer(&out, &n, NULL, 0, &none, 0, NULL, &err) == ST_OK, "%s", err.text);
    CHECK(n == 32 && !memcmp(out, "\30\0\0\0\0\0\0\0{\"__metadata__\":{}}     ", 32), "bytes");
    free(out);
}

static void test_refusals(void)
{
    static const uint64_t huge[] = {UINT64_C(1) << 62, 4}, wide[] = {UINT64_C(1) << 49},
                          ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, zero[] = {0, UINT64_C(1) << 62, 8};
    static const struct { st_item item; int code; const char *text; } r[] = {
        {{NULL, NULL, "", ST_U8, 0, 0}, ST_EINVAL, "tensor is NULL"},
        {{"\xff", NULL, "", ST_U8, 0, 0}, ST_ESYNTAX, "tensor \"\\xFF\": not UTF-8 at byte 0"},
        {{"a\xed\xa0\x80", NULL, "", ST_U8, 0, 0}, ST_ESYNTAX, "not UTF-8 at byte 1"},
        {{"__metadata__", NULL, "", ST_U8, 0, 0}, ST_EINVAL, "reserved"},
        {{"t", NULL, "", ST_OPAQUE, 0, 0}, ST_EDTYPE, "tensor \"t\": dtype 0 (unknown)"},
        {{"t", NULL, "", 99, 0, 0}, ST_EDTYPE, "dtype 99"},
        {{"t", NULL, "", ST_F4, 0, 0}, ST_EDTYPE, "F4"},
        {{"t", ones, "", ST_U8, 9, 0}, ST_ESHAPE, "more than 8"},
        {{"t", NULL, "", ST_U8, 1, 0}, ST_EINVAL, "shape is NULL"},
        {{"t", huge, "", ST_U8, 2, 0}, ST_ESHAPE, "[4611686018427387904,4]"},
        {{"t", zero, "", ST_U8, 3, 0}, ST_ESHAPE, "too many elements"},
        {{"t", wide, "", ST_U8, 1, 0}, ST_ELIMIT, "too many elements"},
        {{"t", ones, NULL, ST_U8, 1, 0}, ST_EINVAL, "no data, and no read callback"},
        {{"twin", NULL, "", ST_F32, 0, 0}, ST_EDUPLICATE, "tensor \"twin\""},
    };
    static const struct { st_pair pair; int code; const char *text; } m[] = {
        {{NULL, "", 0, 0}, ST_EINVAL, "metadata key is NULL"},
        {{"k", NULL, 0, 0}, ST_EINVAL, "metadata value is NULL"},
        {{"\xc0\x80", "", 0, 0}, ST_ESYNTAX, "metadata key"},
        {{"k", "x\x80", 0, 0}, ST_ESYNTAX, "not UTF-8 at byte 1"},
        {{"twin", "", 0, 0}, ST_EDUPLICATE, "metadata key \"twin\""},
    };
    size_t i, n;
    void *out;
    st_error err;
    st_plan plan;
    st_sink sink = {NULL, NULL, NULL};
    for (i = 0; i < sizeof r / sizeof *r; i++) {
        st_item items[3] = {{"first", NULL, "1", ST_U8, 0, 0}, {"twin", NULL, "1", ST_U8, 0, 0},
                            {0}};
        int rc;
        items[2] = r[i].item;
        rc = st_write_buffer(&out, &n, items, 3, NULL, 0, NULL, &err);
        CHECK(rc == r[i].code && err.code == rc, "row %d: %d", (int)i, rc);
        CHECK(!out && !n && strstr(err.text, r[i].text), "row %d: %s", (int)i, err.text);
    }
    for (i = 0; i < sizeof m / sizeof *m; i++) {
        st_pair pairs[3] = {{"twin", "", 0, 0}, {"b", "", 0, 0}, {0}};
        int rc;
        pairs[2] = m[i].pair;
        rc = st_plan_make(&plan, NULL, 0, pairs, 3, NULL, &err);
        CHECK(rc == m[i].code && strstr(err.text, m[i].text), "row %d: %d %s", (int)i, rc,
              err.text);
        CHECK(check_zeroed(&plan, sizeof plan), "zeroed");
    }
    CHECK(st_plan_make(NULL, NULL, 0, NULL, 0, NULL, &err) == ST_EINVAL, "plan");
    CHECK(st_plan_make(&plan, NULL, 1, NULL, 0, NULL, &err) == ST_EINVAL, "items");
    CHECK(st_plan_make(&plan, NULL, 0, NULL, 1, NULL, &err) == ST_EINVAL, "pairs");
    CHECK(st_plan_make(&plan, &r[0].item, 1000001, NULL, 0, NULL, &err) == ST_ELIMIT, "cap");
    CHECK(st_plan_make(&plan, &r[0].item, 1, &m[0].pair, 1000000, NULL, &err) == ST_ELIMIT, "cap");
    CHECK(st_write(NULL, NULL, 0, NULL, 0, NULL, &err) == ST_EINVAL, "sink");
    CHECK(st_write(&sink, NULL, 0, NULL, 0, NULL, &err) == ST_EINVAL, "sink");
    CHECK(st_write_buffer(NULL, &n, NULL, 0, NULL, 0, NULL, &err) == ST_EINVAL, "out");
    CHECK(st_write_buffer(&out, NULL, NULL, 0, NULL, 0, NULL, NULL) == ST_EINVAL, "size");
    st_plan_free(NULL);
}

static int big_write(void *user, const void *bytes, size_t n)
{
    uint64_t *at = user;
    (void)bytes;
    *at += n;
    return n > 1 << 20;
}

static int big_read(void *user, size_t index, uint64_t at, void *buf, size_t n)
{
    const uint64_t *written = user;
    memset(buf, 0, n);
    return index != 0 || n > 1 << 20 || (n < 1 << 20 && n != 3) || *written % 8 != at % 8;
}

/* Sizes that memory could not hold are only numbers to a plan; pieces are a MiB at most. */
static void test_big(void)
{
    static const uint64_t tera[] = {UINT64_C(1) << 40, 1 << 8}, odd[] = {(5 << 20) + 3};
    st_item items[70] = {{0}};
    char names[70][8];
    uint64_t at = 0;
    st_sink sink = {big_write, big_read, NULL};
    st_plan plan;
    st_error err;
    char *text = malloc(100000001);
    st_pair pair = {"k", text, 0, 0};
    size_t i;
    for (i = 0; i < 70; i++) {
        snprintf(names[i], sizeof names[i], "%02d", (int)i);
        items[i].name = names[i];
        items[i].shape = tera;
        items[i].rank = 2;
        items[i].dtype = ST_F64;
    }
    CHECK(st_plan_make(&plan, items, 70, NULL, 0, NULL, &err) == ST_OK, "%s", err.text);
    CHECK(plan.offset[69] == plan.head_size + 69 * (UINT64_C(1) << 51), "offset");
    st_plan_free(&plan);
    items[0].shape = odd;
    items[0].rank = 1;
    items[0].dtype = ST_U8;
    sink.user = &at;
    CHECK(st_write(&sink, items, 1, NULL, 0, NULL, &err) == ST_OK, "%s", err.text);
    CHECK(at % 8 == 3 && at > odd[0], "%d bytes", (int)at);
    memset(text, 'x', 100000000); /* the header's limit, from both sides */
    text[100000000 - (int)strlen("{\"__metadata__\":{\"k\":\"\"}}")] = '\0';
    CHECK(st_plan_make(&plan, NULL, 0, &pair, 1, NULL, &err) == ST_OK, "%s", err.text);
    CHECK(plan.head_size == 8 + ST_MAX_HEADER, "exactly the limit");
    st_plan_free(&plan);
    strcat(text + 99999900, "x");
    CHECK(st_plan_make(&plan, NULL, 0, &pair, 1, NULL, &err) == ST_ELIMIT, "%s", err.text);
    free(text);
}

/* 4096 items of 2^48 f64 pass 2^63 bytes together. */
static void test_sum_overflow(void)
{
    static const uint64_t most[] = {ST_MAX_ELEMENTS};
    enum { N = 4096 };
    st_item *items = calloc(N, sizeof *items);
    char (*names)[8] = calloc(N, sizeof *names);
    st_plan plan;
    st_error err;
    int i;
    for (i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "%04d", i);
        items[i].name = names[i];
        items[i].shape = most;
        items[i].rank = 1;
        items[i].dtype = ST_F64;
    }
    CHECK(st_plan_make(&plan, items, N - 1, NULL, 0, NULL, &err) == ST_OK, "%s", err.text);
    st_plan_free(&plan);
    CHECK(st_plan_make(&plan, items, N, NULL, 0, NULL, &err) == ST_ELIMIT, "%s", err.text);
    CHECK(strstr(err.text, "tensor \"4095\""), "%s", err.text);
    free(items);
    free(names);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {
        "empty.safetensors",  "one.safetensors",     "dtypes.safetensors",
        "shapes.safetensors", "escapes.safetensors", "lora.safetensors",
    };
    size_t i;
    dir = argc > 1 ? argv[1] : "tests/data";
    for (i = 0; i < sizeof names / sizeof *names; i++)
        test_equal(names[i]);
    test_escapes();
    test_empty_metadata();
    test_refusals();
    test_big();
    test_sum_overflow();
    return check_report();
}
