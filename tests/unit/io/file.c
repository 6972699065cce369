/* SPDX-License-Identifier: MIT */
/* lib/io/file.c, path.c, writer.c: bounded reads, traps that must not hang, and writes that are all
 * or nothing through failures and kills. */
#include "io_test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void reads_in_full(void **state)
{
    const char *path = in_scratch("a.txt");
    void *bytes;
    uint64_t size;
    size_t n;
    char part[4];
    put_file(path, "0123456789", 10);
    assert_true(slr_file_exists(path));
    assert_false(slr_dir_exists(path));
    assert_int_equal(slr_file_size(path, &size), 0);
    assert_int_equal(size, 10);
    assert_int_equal(slr_file_read(NULL, path, 10, &bytes, &n), 0);
    assert_int_equal(n, 10);
    assert_string_equal(bytes, "0123456789"); /* NUL-terminated */
    slr_free(NULL, bytes);
    assert_int_equal(slr_file_read(NULL, path, 9, &bytes, &n), SDLORA_EFORMAT);
    assert_null(bytes);
    assert_says("a.txt");
    assert_int_equal(slr_file_read_at(path, 6, part, 4), 0);
    assert_memory_equal(part, "6789", 4);
    assert_int_equal(slr_file_read_at(path, 7, part, 4), SDLORA_EIO);
    assert_int_equal(slr_file_read_at(path, UINT64_MAX, part, 4), SDLORA_EIO);
}

static void refuses_what_is_no_file(void **state)
{
    void *bytes;
    size_t n;
    alarm(10); /* a FIFO that is opened carelessly waits for ever */
    assert_int_equal(mkfifo(in_scratch("fifo"), 0600), 0);
    assert_int_equal(slr_file_read(NULL, in_scratch("fifo"), 99, &bytes, &n), SDLORA_EINVAL);
    assert_int_equal(slr_file_read(NULL, "/dev/zero", 99, &bytes, &n), SDLORA_EINVAL);
    assert_int_equal(slr_file_read(NULL, scratch_dir, 99, &bytes, &n), SDLORA_EINVAL);
    assert_says("directory");
    assert_int_equal(slr_file_read(NULL, in_scratch("none"), 99, &bytes, &n), SDLORA_ENOTFOUND);
    assert_int_equal(slr_file_read(NULL, in_scratch("fifo/x"), 99, &bytes, &n), SDLORA_ENOTFOUND);
    assert_int_equal(slr_file_write(NULL, in_scratch("fifo"), "x", 1), SDLORA_EINVAL);
    assert_int_equal(slr_file_append_line(in_scratch("fifo"), "x"), SDLORA_EIO);
    assert_int_equal(unlink(in_scratch("fifo")), 0);
    alarm(0);
}

static void maps_and_forgets(void **state)
{
    size_t n = 3 * 4096 + 17;
    unsigned char *bytes = malloc(n);
    slr_storage *map;
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(i * 7);
    put_file(in_scratch("map"), bytes, n);
    assert_int_equal(slr_file_map(&map, NULL, in_scratch("map")), 0);
    assert_int_equal(slr_storage_bytes(map), n);
    assert_memory_equal(slr_storage_data(map), bytes, n);
    slr_file_forget(slr_storage_data(map), n);
    slr_file_forget((char *)slr_storage_data(map) + 1, 1); /* less than a page: nothing */
    assert_memory_equal(slr_storage_data(map), bytes, n);
    slr_storage_unref(map);
    put_file(in_scratch("map"), "", 0);
    assert_int_equal(slr_file_map(&map, NULL, in_scratch("map")), 0);
    assert_int_equal(slr_storage_bytes(map), 0);
    slr_storage_unref(map);
    free(bytes);
}

static size_t count_in(const char *dir)
{
    slr_list l;
    size_t n;
    assert_int_equal(slr_dir_list(&l, NULL, dir), 0);
    n = l.n;
    slr_list_free(&l);
    return n;
}

static void writes_whole_or_not_at_all(void **state)
{
    char dir[96], path[128], *back;
    char big[200000];
    slr_writer *w;
    size_t n;
    struct stat st;
    snprintf(dir, sizeof dir, "%s", in_scratch("w"));
    snprintf(path, sizeof path, "%s/out.bin", dir);
    memset(big, 'b', sizeof big);
    assert_int_equal(slr_dir_make(dir), 0);

    assert_int_equal(slr_writer_open(&w, NULL, path), 0);
    assert_int_equal(slr_writer_put(w, "head", 4), 0);
    assert_int_equal(slr_writer_put(w, big, sizeof big), 0);
    assert_int_equal(slr_writer_put(w, "tail", 4), 0);
    assert_false(slr_file_exists(path));
    assert_int_equal(slr_writer_commit(&w), 0);
    assert_null(w);
    back = get_file(path, &n);
    assert_int_equal(n, sizeof big + 8);
    assert_memory_equal(back, "head", 4);
    assert_memory_equal(back + 4, big, sizeof big);
    assert_memory_equal(back + 4 + sizeof big, "tail", 4);
    free(back);
    assert_int_equal(count_in(dir), 1);

    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(slr_writer_open(&w, NULL, path), 0);
    assert_int_equal(slr_writer_put(w, "other", 5), 0);
    slr_writer_abort(&w);
    slr_writer_abort(&w);
    assert_int_equal(count_in(dir), 1);
    assert_int_equal(slr_file_write(NULL, path, "new", 3), 0);
    back = get_file(path, &n);
    assert_string_equal(back, "new");
    free(back);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(count_in(dir), 1);

    assert_int_equal(slr_file_write(NULL, in_scratch("none/x"), "x", 1), SDLORA_EIO);
    assert_int_equal(slr_file_write(NULL, dir, "x", 1), SDLORA_EINVAL);
    assert_int_equal(slr_file_write(NULL, in_scratch("w/"), "x", 1), SDLORA_EINVAL);
}

static void survives_a_full_disk(void **state)
{
    struct rlimit old, small;
    char dir[96], path[128], *back;
    char big[300000];
    slr_writer *w;
    size_t n;
    snprintf(dir, sizeof dir, "%s", in_scratch("full"));
    snprintf(path, sizeof path, "%s/out.bin", dir);
    memset(big, 'b', sizeof big);
    assert_int_equal(slr_dir_make(dir), 0);
    assert_int_equal(slr_file_write(NULL, path, "old", 3), 0);
    /* A limit on the size of files stands for a full disk: write() fails half way with EFBIG. */
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(slr_writer_open(&w, NULL, path), 0);
    assert_int_equal(slr_writer_put(w, big, sizeof big), SDLORA_EIO);
    assert_says("out.bin");
    assert_int_equal(slr_writer_put(w, "x", 1), SDLORA_EIO); /* it stays failed */
    assert_int_equal(slr_writer_commit(&w), SDLORA_EIO);
    assert_null(w);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_DFL);
    back = get_file(path, &n);
    assert_string_equal(back, "old");
    free(back);
    assert_int_equal(count_in(dir), 1);
}

/* Writes 2 MB of one letter again and again until killed. */
static void write_for_ever(const char *path)
{
    static char block[2000000];
    for (int i = 0;; i++) {
        memset(block, 'a' + i % 26, sizeof block);
        if (slr_file_write(NULL, path, block, sizeof block) < 0)
            _exit(1);
    }
}

static void survives_kills(void **state)
{
    char dir[96], path[128];
    snprintf(dir, sizeof dir, "%s", in_scratch("kill"));
    snprintf(path, sizeof path, "%s/out.bin", dir);
    assert_int_equal(slr_dir_make(dir), 0);
    assert_int_equal(slr_file_write(NULL, path, "", 0), 0);
    for (int i = 0; i < 12; i++) {
        pid_t child = fork();
        int status;
        size_t n;
        char *back;
        if (child == 0)
            write_for_ever(path);
        usleep(3000u + 7919u * (unsigned)i % 20000u);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        back = get_file(path, &n);
        assert_true(n == 0 || n == 2000000);
        for (size_t k = 1; k < n; k++)
            assert_true(back[k] == back[0]);
        free(back);
        /* Between link and rename a kill leaves a name; the sweep takes it away. */
        assert_int_equal(slr_writer_sweep(NULL, dir, 0, NULL), 0);
        assert_int_equal(count_in(dir), 1);
    }
}

static void sweeps_only_the_dead(void **state)
{
    char dir[96], name[128];
    size_t removed;
    snprintf(dir, sizeof dir, "%s", in_scratch("sweep"));
    assert_int_equal(slr_dir_make(dir), 0);
    put_file(in_scratch("sweep/.a.bin.tmp.2147483647.1f"), "", 0); /* no such process */
    snprintf(name, sizeof name, "sweep/.a.bin.tmp.%ld.1f", (long)getpid());
    put_file(in_scratch(name), "", 0);
    put_file(in_scratch("sweep/.a.bin.tmp.2147483647.xyz"), "", 0);
    put_file(in_scratch("sweep/a.bin.tmp.2147483647.1f"), "", 0);
    put_file(in_scratch("sweep/.tmp.5"), "", 0);
    assert_int_equal(slr_writer_sweep(NULL, dir, 60, &removed), 0);
    assert_int_equal(removed, 0); /* it may be of another machine's process */
    assert_int_equal(slr_writer_sweep(NULL, dir, 0, &removed), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(count_in(dir), 4);
    assert_false(slr_file_exists(in_scratch("sweep/.a.bin.tmp.2147483647.1f")));
}

/* Runs body in a process of its own; its exit status is the answer, 77 = can't be tried here. */
static int in_child(int (*body)(void))
{
    pid_t child = fork();
    int status;
    if (child == 0)
        _exit(body());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Without /proc a nameless file could never get a name, so temporaries have names. */
static int write_with_names(void)
{
    slr_writer *w = NULL;
    slr_list l;
    if (chroot(scratch_dir) != 0 || chdir("/") != 0)
        return 77;
    if (slr_file_write(NULL, "/named/out", "old", 3) < 0 ||
        slr_file_write(NULL, "/named/out", "new", 3) < 0 || count_in("/named") != 1)
        return 1;
    if (slr_writer_open(&w, NULL, "/named/out") < 0 || slr_writer_put(w, "x", 1) < 0)
        return 2;
    if (slr_dir_list(&l, NULL, "/named") < 0 || l.n != 2 || strncmp(l.item[0], ".out.tmp.", 9) != 0)
        return 3;
    slr_list_free(&l);
    slr_writer_abort(&w);
    return count_in("/named") == 1 ? 0 : 4;
}

static void named_temporaries_leave_no_trace(void **state)
{
    int rc;
    assert_int_equal(slr_dir_make(in_scratch("named")), 0);
    rc = in_child(write_with_names);
    if (rc == 77)
        skip(); /* chroot is root's */
    assert_int_equal(rc, 0);
    assert_int_equal(count_in(in_scratch("named")), 1);
}

/* A process that is someone else's is alive all the same. */
static int sweep_as_nobody(void)
{
    if (setuid(65534) != 0)
        return 77;
    return slr_writer_sweep(NULL, in_scratch("others"), 0, NULL) < 0 ||
           !slr_file_exists(in_scratch("others/.a.tmp.1.ff"));
}

static void sweeps_no_living_stranger(void **state)
{
    int rc;
    assert_int_equal(slr_dir_make(in_scratch("others")), 0);
    put_file(in_scratch("others/.a.tmp.1.ff"), "", 0);
    assert_int_equal(chmod(scratch_dir, 0777), 0);
    assert_int_equal(chmod(in_scratch("others"), 0777), 0);
    rc = in_child(sweep_as_nobody);
    if (rc == 77)
        skip();
    assert_int_equal(rc, 0);
}

static void appends_lines(void **state)
{
    size_t n;
    char *back;
    assert_int_equal(slr_file_append_line(in_scratch("log"), "one"), 0);
    assert_int_equal(slr_file_append_line(in_scratch("log"), "two"), 0);
    back = get_file(in_scratch("log"), &n);
    assert_string_equal(back, "one\ntwo\n");
    free(back);
}

static void lists_in_byte_order(void **state)
{
    slr_list l;
    assert_int_equal(slr_dir_make(in_scratch("l/deep//er/")), 0);
    assert_true(slr_dir_exists(in_scratch("l/deep/er")));
    assert_int_equal(slr_dir_make(in_scratch("l/deep")), 0); /* is there already */
    put_file(in_scratch("l/b"), "", 0);
    put_file(in_scratch("l/B"), "", 0);
    put_file(in_scratch("l/\xc3\xa9"), "", 0);
    assert_int_equal(slr_dir_list(&l, NULL, in_scratch("l")), 0);
    assert_int_equal(l.n, 4);
    assert_string_equal(l.item[0], "B");
    assert_string_equal(l.item[1], "b");
    assert_string_equal(l.item[2], "deep");
    assert_string_equal(l.item[3], "\xc3\xa9");
    slr_list_free(&l);
    assert_int_equal(slr_dir_list(&l, NULL, in_scratch("l/none")), SDLORA_ENOTFOUND);
    assert_int_equal(slr_dir_list(&l, NULL, in_scratch("l/b")), SDLORA_ENOTFOUND);
    assert_int_equal(slr_dir_make(in_scratch("l/b/c")), SDLORA_EIO);
}

static void takes_paths_apart(void **state)
{
    static const struct {
        const char *base;
        size_t stem;
    } stems[] = {{"a.png", 1}, {"a.b.png", 3}, {"a", 1}, {".rc", 3},
                 {"..a.b", 3}, {"a.", 1},      {"", 0},  {"...", 3}};
    static const struct {
        const char *name;
        bool inner;
    } names[] = {{"a", true},       {"a/b.c", true},    {"a/..b", true}, {"", false},
                 {"/a", false},     {"..", false},      {"../a", false}, {"a/..", false},
                 {"a/../b", false}, {"a//../b", false}, {".", true},     {"a/.../b", true}};
    char *path;
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++)
        assert_int_equal(slr_path_stem(stems[i].base), stems[i].stem);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(slr_path_is_inner(names[i].name), names[i].inner);
    assert_string_equal(slr_path_base("/x/y.z"), "y.z");
    assert_string_equal(slr_path_base("y.z"), "y.z");
    path = slr_path_join(NULL, "a", "b");
    assert_string_equal(path, "a/b");
    slr_free(NULL, path);
    path = slr_path_join(NULL, "a/", "b");
    assert_string_equal(path, "a/b");
    slr_free(NULL, path);
    path = slr_path_join(NULL, "", "b");
    assert_string_equal(path, "b");
    slr_free(NULL, path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_in_full),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(maps_and_forgets),
        cmocka_unit_test(writes_whole_or_not_at_all),
        cmocka_unit_test(survives_a_full_disk),
        cmocka_unit_test(survives_kills),
        cmocka_unit_test(sweeps_only_the_dead),
        cmocka_unit_test(named_temporaries_leave_no_trace),
        cmocka_unit_test(sweeps_no_living_stranger),
        cmocka_unit_test(appends_lines),
        cmocka_unit_test(lists_in_byte_order),
        cmocka_unit_test(takes_paths_apart),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
