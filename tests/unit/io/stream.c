/* SPDX-License-Identifier: MIT */
/* Safetensors written piece by piece: the bytes of the writer that has all of them, comparing
 * before the file takes its name, and failures that leave the old file. */
#include "io_test.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/status.h"
#include "io/safetensors.h"

#define GOLDEN TEST_ROOT "/golden/lora_tinysd.safetensors"

typedef struct feed {
    slr_safetensors *f;
    slr_st_entry *e; /* without data, in another order than the file's */
    size_t n;
    slr_st_pair *meta;
    size_t n_meta;
    uint64_t reads, most;
    uint64_t fail_at; /* the read that fails, from 1; 0: none */
    uint64_t lie_at;  /* the read that gives other bytes */
} feed;

static int give(void *user, size_t i, uint64_t at, void *to, size_t n)
{
    feed *d = user;
    slr_tensor t;
    assert_true(slr_safetensors_find(d->f, d->e[i].name, &t));
    assert_true(n > 0 && n <= SLR_ST_PIECE && at % SLR_ST_PIECE == 0);
    assert_true(at + n <= slr_tensor_bytes(&t));
    memcpy(to, (const char *)t.data + at, n);
    d->most = n > d->most ? n : d->most;
    if (++d->reads == d->fail_at)
        return slr_fail(SDLORA_ECANCELED, "give", "asked to stop");
    if (d->reads == d->lie_at)
        *(char *)to ^= 1;
    return SDLORA_OK;
}

static void open_feed(feed *d, const char *path)
{
    memset(d, 0, sizeof *d);
    assert_int_equal(slr_safetensors_open(&d->f, NULL, path, true), 0);
    d->n = slr_safetensors_count(d->f);
    d->n_meta = slr_safetensors_meta_count(d->f);
    d->e = calloc(d->n, sizeof *d->e);
    d->meta = calloc(d->n_meta + 1, sizeof *d->meta);
    for (size_t i = 0; i < d->n; i++) {
        slr_st_entry *e = &d->e[d->n - 1 - i];
        e->name = slr_safetensors_at(d->f, i, &e->t);
        e->t.data = NULL;
    }
    for (size_t i = 0; i < d->n_meta; i++)
        d->meta[i].key = slr_safetensors_meta_at(d->f, i, &d->meta[i].value);
}

static void close_feed(feed *d)
{
    slr_safetensors_close(d->f);
    free(d->e);
    free(d->meta);
}

static int run(feed *d, const char *path, bool verify)
{
    return slr_safetensors_stream(NULL, path, d->e, d->n, d->n_meta ? d->meta : NULL, d->n_meta,
                                  give, d, verify);
}

static void writes_the_same_bytes(void **state)
{
    size_t n_want, n_back;
    char *want = get_file(GOLDEN, &n_want);
    feed d;
    open_feed(&d, GOLDEN);
    for (int verify = 0; verify < 2; verify++) {
        d.reads = 0;
        assert_int_equal(run(&d, in_scratch("out"), verify), 0);
        assert_true(d.reads == (uint64_t)(verify + 1) * d.n); /* every tensor of it is small */
        char *back = get_file(in_scratch("out"), &n_back);
        assert_int_equal(n_back, n_want);
        assert_memory_equal(back, want, n_want);
        free(back);
    }
    close_feed(&d);
    free(want);
}

/* A tensor of 2.5 pieces, onto the very file that it is read from. */
static void large_ones_come_in_pieces(void **state)
{
    size_t count = SLR_ST_PIECE * 5 / 8, n_want, n_back;
    float *x = calloc(count, sizeof *x);
    slr_st_entry e = {"x", {.dtype = SDLORA_F32, .rank = 1, .dim = {(int64_t)count}, .data = x}};
    feed d;
    for (size_t i = 0; i < count; i++)
        x[i] = (float)i;
    assert_int_equal(slr_safetensors_write(NULL, in_scratch("big"), &e, 1, NULL, 0), 0);
    char *want = get_file(in_scratch("big"), &n_want), *back;
    open_feed(&d, in_scratch("big"));
    assert_int_equal(run(&d, in_scratch("big"), true), 0);
    assert_int_equal(d.reads, 6);
    assert_int_equal(d.most, SLR_ST_PIECE);
    back = get_file(in_scratch("big"), &n_back);
    assert_int_equal(n_back, n_want);
    assert_memory_equal(back, want, n_want);
    close_feed(&d);
    free(back);
    free(want);
    free(x);
}

static void keeps_old(const char *path)
{
    size_t n;
    char *old = get_file(path, &n);
    assert_string_equal(old, "old");
    free(old);
}

static void failures_leave_the_old_file(void **state)
{
    feed d;
    open_feed(&d, GOLDEN);
    for (uint64_t k = 1; k <= 2 * d.n; k += d.n / 3) {
        put_file(in_scratch("keep"), "old", 3);
        d.reads = 0;
        d.fail_at = k;
        assert_int_equal(run(&d, in_scratch("keep"), true), SDLORA_ECANCELED);
        assert_string_equal(sdlora_last_error()->message, "asked to stop");
        keeps_old(in_scratch("keep"));
    }
    d.fail_at = 0;
    d.reads = 0;
    d.lie_at = d.n + 3; /* in the second round: what was written differs */
    assert_int_equal(run(&d, in_scratch("keep"), true), SDLORA_EIO);
    assert_non_null(strstr(sdlora_last_error()->message, "does not lie on the disk as"));
    keeps_old(in_scratch("keep"));
    close_feed(&d);
}

/* A file that may not grow stands for a full disk: the room is asked for before the first read. */
static void no_room_is_said_before_work(void **state)
{
    struct rlimit old, small;
    feed d;
    open_feed(&d, GOLDEN);
    put_file(in_scratch("keep"), "old", 3);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){1 << 16, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = run(&d, in_scratch("keep"), true);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(rc, SDLORA_EIO);
    keeps_old(in_scratch("keep"));
    close_feed(&d);
}

typedef struct sum {
    feed *d;
    char *bytes;
    size_t n;
} sum;

static int sum_read(void *user, size_t i, uint64_t at, void *to, size_t n)
{
    return give(((sum *)user)->d, i, at, to, n);
}

static int sum_put(void *user, const void *bytes, size_t n)
{
    sum *s = user;
    memcpy(s->bytes + s->n, bytes, n);
    s->n += n;
    return SDLORA_OK;
}

static void emits_the_same_bytes(void **state)
{
    size_t n_want;
    char *want = get_file(GOLDEN, &n_want);
    uint64_t start = 0;
    feed d;
    sum s = {.d = &d, .bytes = malloc(n_want)};
    open_feed(&d, GOLDEN);
    assert_int_equal(slr_safetensors_emit(NULL, d.e, d.n, d.n_meta ? d.meta : NULL, d.n_meta,
                                          sum_read, sum_put, &s, &start),
                     0);
    assert_int_equal(s.n, n_want);
    assert_memory_equal(s.bytes, want, n_want);
    assert_int_equal(start, slr_safetensors_data_start(d.f));
    close_feed(&d);
    free(s.bytes);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_the_same_bytes),
        cmocka_unit_test(large_ones_come_in_pieces),
        cmocka_unit_test(failures_leave_the_old_file),
        cmocka_unit_test(no_room_is_said_before_work),
        cmocka_unit_test(emits_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
