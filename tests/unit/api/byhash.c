/* SPDX-License-Identifier: MIT */
/* Files by their hashes: many in one walk, each file read once until it is written to, and ended by
 * a cancel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/byhash.h"
#include "base/status.h"
#include "base/thread.h"
#include "io/hash.h"
#include "io/safetensors.h"

static char root[64];
static char *item[1] = {root};
static const slr_list dirs = {.item = item, .n = 1};
static slr_byhash *known;

static const char *at(const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void put(const char *name, const char *text)
{
    assert_int_equal(slr_file_write(NULL, at(name), text, strlen(text)), SDLORA_OK);
}

/* Without a new file or time, so that only reading tells. */
static void put_unseen(const char *name, const char *text)
{
    struct stat old;
    assert_int_equal(stat(at(name), &old), 0);
    FILE *f = fopen(at(name), "r+");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    const struct timespec times[2] = {old.st_atim, old.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, at(name), times, 0), 0);
}

static slr_byhash_wanted of(const char *text, char hex[65])
{
    assert_int_equal(slr_hash_bytes(text, strlen(text), hex), SDLORA_OK);
    return (slr_byhash_wanted){.digits = {hex, 12}};
}

static void check(const char *text, const char *stem)
{
    char hex[65];
    slr_byhash_wanted w = of(text, hex);
    assert_int_equal(slr_byhash_find(known, &dirs, SLR_BYHASH_NETWORK, &w, 1), SDLORA_OK);
    if (stem)
        assert_string_equal(w.stem, stem);
    else
        assert_null(w.stem);
    slr_free(NULL, w.stem);
    slr_free(NULL, w.path);
}

static void many_in_one_walk(void **state)
{
    (void)state;
    char hex[4][65];
    put("a.pt", "one");
    put("deep/b.ckpt", "two");
    put("c.txt", "three");
    put("d.safetensors", "no header");
    slr_byhash_wanted w[] = {of("two", hex[0]),
                             of("three", hex[1]),
                             of("one", hex[2]),
                             of("no header", hex[3]),
                             {.digits = {"0123", 4}}};
    assert_int_equal(slr_byhash_find(known, &dirs, SLR_BYHASH_NETWORK, w, 5), SDLORA_OK);
    assert_string_equal(w[0].stem, "b");
    assert_null(w[1].stem);
    assert_string_equal(w[2].stem, "a");
    assert_string_equal(w[3].stem, "d");
    assert_null(w[4].stem);
    assert_non_null(strstr(w[0].path, "/deep/b.ckpt"));
    for (size_t i = 0; i < 5; i++) {
        slr_free(NULL, w[i].stem);
        slr_free(NULL, w[i].path);
    }
}

static void a_file_is_read_once(void **state)
{
    (void)state;
    check("one", "a");
    put_unseen("a.pt", "uno");
    check("one", "a");
    check("uno", NULL);
    put("a.pt", "ein");
    check("one", NULL);
    check("ein", "a");
}

/* What a match has read a picture's text does not read again. */
static void a_whole_file_is_read_once(void **state)
{
    (void)state;
    char first[65], again[65];
    bool same;
    put("e.pt", "one");
    assert_int_equal(slr_byhash_whole(known, at("e.pt"), first), SDLORA_OK);
    put_unseen("e.pt", "uno");
    assert_int_equal(slr_byhash_whole(known, at("e.pt"), again), SDLORA_OK);
    assert_string_equal(again, first);
    assert_int_equal(
        slr_byhash_is(known, at("e.pt"), SLR_BYHASH_NETWORK, (slr_str){first, 10}, &same),
        SDLORA_OK);
    assert_true(same);
    put("e.pt", "ein");
    assert_int_equal(slr_byhash_whole(known, at("e.pt"), again), SDLORA_OK);
    assert_string_not_equal(again, first);
    assert_int_equal(slr_byhash_whole(known, at("nobody.pt"), again), SDLORA_ENOTFOUND);
}

/* A checkpoint's tensors are not what its title has the hash of. */
static void of_what_is_asked(void **state)
{
    (void)state;
    const float value = 2;
    slr_st_entry e = {.name = "x", .t = {.dtype = SDLORA_F32, .data = (void *)&value}};
    char hex[65];
    bool same;
    assert_int_equal(slr_safetensors_write(NULL, at("t.safetensors"), &e, 1, NULL, 0), SDLORA_OK);
    assert_int_equal(slr_hash_tensors(at("t.safetensors"), hex), SDLORA_OK);
    for (int of = SLR_BYHASH_FILE; of <= SLR_BYHASH_NETWORK; of++) {
        slr_byhash_wanted w = {.digits = {hex, 10}};
        assert_int_equal(slr_byhash_find(known, &dirs, of, &w, 1), SDLORA_OK);
        assert_int_equal(w.path != NULL, of == SLR_BYHASH_NETWORK);
        slr_free(NULL, w.stem);
        slr_free(NULL, w.path);
        assert_int_equal(slr_byhash_is(known, at("t.safetensors"), of, w.digits, &same), SDLORA_OK);
        assert_int_equal(same, of == SLR_BYHASH_NETWORK);
    }
    assert_int_equal(slr_hash_file(at("t.safetensors"), hex), SDLORA_OK);
    assert_int_equal(
        slr_byhash_is(known, at("t.safetensors"), SLR_BYHASH_FILE, (slr_str){hex, 10}, &same),
        SDLORA_OK);
    assert_true(same);
}

static void a_cancel_ends_it(void **state)
{
    (void)state;
    slr_cancel_flag flag = 1;
    slr_watch watch;
    char hex[65];
    bool same;
    slr_byhash_wanted w = of("new", hex);
    put("deep/new.pt", "new");
    slr_watch_enter(&watch, &flag);
    assert_int_equal(slr_byhash_find(known, &dirs, SLR_BYHASH_NETWORK, &w, 1), SDLORA_ECANCELED);
    assert_int_equal(slr_byhash_is(known, at("deep/new.pt"), SLR_BYHASH_NETWORK, w.digits, &same),
                     SDLORA_ECANCELED);
    slr_watch_leave(&watch);
    assert_null(w.stem);
    check("new", "new"); /* nothing wrong was kept */
}

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/sdlora-byhash-XXXXXX");
    if (!mkdtemp(root) || mkdir(at("deep"), 0777))
        return -1;
    return slr_byhash_new(&known, NULL);
}

static int teardown(void **state)
{
    (void)state;
    char command[96];
    slr_byhash_free(known);
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_in_one_walk),          cmocka_unit_test(a_file_is_read_once),
        cmocka_unit_test(a_whole_file_is_read_once), cmocka_unit_test(of_what_is_asked),
        cmocka_unit_test(a_cancel_ends_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
