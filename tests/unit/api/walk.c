/* SPDX-License-Identifier: MIT */
/* Walks: nearer files first, in byte order; what can't be read is skipped and told; links to a
 * parent end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/walk.h"
#include "base/status.h"
#include "failing.h"
#include "io/file.h"

enum { NOBODY = 65534 };

static char root[64];

static const char *at(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static int setup(void **state)
{
    static const char *const files[] = {"c", "a", "b/z", "b/d/y", "open/x"};

    (void)state;
    snprintf(root, sizeof root, "%s", "/tmp/sdlora-walk-XXXXXX");
    if (!mkdtemp(root) || chmod(root, 0755) || mkdir(at("b"), 0755) || mkdir(at("b/d"), 0755) ||
        mkdir(at("closed"), 0755) || mkdir(at("open"), 0755))
        return -1;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        assert_int_equal(slr_file_write(NULL, at(files[i]), "", 0), SDLORA_OK);
    return 0;
}

static int teardown(void **state)
{
    char command[96];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

typedef struct seen {
    char names[512], stop_at;
    int n, code;
} seen;

static int see(void *user, const char *path)
{
    seen *s = user;

    if (!slr_file_exists(path))
        return 0;
    s->n++;
    if (strlen(s->names) + 2 < sizeof s->names)
        strcat(s->names, slr_path_base(path));
    return s->stop_at == *slr_path_base(path) ? s->code : 0;
}

static void nearer_files_come_first(void **state)
{
    seen all = {0}, first = {.stop_at = 'c', .code = 1},
         failed = {.stop_at = 'y', .code = SDLORA_EFORMAT};

    (void)state;
    assert_int_equal(slr_walk(NULL, NULL, root, see, &all), 0);
    assert_string_equal(all.names, "aczyx");
    assert_int_equal(slr_walk(NULL, NULL, root, see, &first), 1);
    assert_string_equal(first.names, "ac");
    assert_int_equal(slr_walk(NULL, NULL, root, see, &failed), SDLORA_EFORMAT);
    assert_string_equal(failed.names, "aczy");
    assert_int_equal(slr_walk(NULL, NULL, at("none"), see, &all), SDLORA_ENOTFOUND);
}

typedef struct told {
    char text[256];
    int n;
} told;

static void tell(int level, const char *text, void *user)
{
    told *t = user;

    assert_int_equal(level, SLR_LOG_WARN);
    snprintf(t->text, sizeof t->text, "%s", text);
    t->n++;
}

/* The superuser may read everything, so the walk is somebody else's. */
static void closed_folders_are_skipped_and_told(void **state)
{
    bool super = geteuid() == 0;
    told t = {0};
    const slr_log log = {tell, &t, SLR_LOG_WARN};
    seen s = {0};

    (void)state;
    assert_int_equal(chmod(at("closed"), 0), 0);
    if (super)
        assert_int_equal(seteuid(NOBODY), 0);
    int rc = slr_walk(NULL, &log, root, see, &s);
    int closed = slr_walk(NULL, &log, at("closed"), see, &s);
    if (super)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(at("closed"), 0755), 0);
    assert_int_equal(rc, 0);
    assert_string_equal(s.names, "aczyx");
    assert_int_equal(t.n, 1);
    assert_non_null(strstr(t.text, "/closed: Permission denied"));
    assert_int_equal(closed, SDLORA_EIO); /* it was asked for by name */
}

static void links_to_a_parent_end(void **state)
{
    seen s = {0};

    (void)state;
    assert_int_equal(symlink("..", at("open/up")), 0);
    assert_int_equal(slr_walk(NULL, NULL, at("open"), see, &s), 0);
    unlink(at("open/up"));
    assert_true(s.n > 5 && s.n < 1000);
}

static void failed_allocations(void **state)
{
    int rc = SDLORA_ENOMEM;

    (void)state;
    for (int64_t n = 0; rc == SDLORA_ENOMEM; n++) {
        failing f = {.left = n};
        const slr_mem_hooks hooks = {fail_alloc, fail_realloc, fail_free, &f};
        slr_mem *m;
        seen s = {0};

        rc = slr_mem_new(&m, &hooks, 0);
        if (rc >= 0) {
            rc = slr_walk(m, NULL, root, see, &s);
            slr_mem_unref(m);
        }
        assert_int_equal(f.held, 0);
    }
    assert_int_equal(rc, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearer_files_come_first),
        cmocka_unit_test(closed_folders_are_skipped_and_told),
        cmocka_unit_test(links_to_a_parent_end),
        cmocka_unit_test(failed_allocations),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
