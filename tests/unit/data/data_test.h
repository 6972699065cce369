/* SPDX-License-Identifier: MIT */
/* What the tests of lib/data share: cmocka with its includes, a scratch directory, small pictures
 * and a dataset made from options. */
#ifndef DATA_TEST_H
#define DATA_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <sdlora/types.h>
#include "base/mem.h"
#include "base/status.h"
#include "data/dataset.h"
#include "io/file.h"
#include "io/image.h"
#include "io/json.h"

#define GOLDEN   TEST_ROOT "/golden/"
#define PICTURES TEST_ROOT "/../examples/data/"

/* The sentence of the last failure has this in it. */
#define assert_says(part)                                                                          \
    do {                                                                                           \
        slr_error_copy copy_;                                                                      \
        slr_error_take(&copy_);                                                                    \
        if (!strstr(copy_.text, part))                                                             \
            fail_msg("\"%s\" does not say \"%s\"", copy_.text, part);                              \
    } while (0)

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        slr_error_copy copy_;                                                                      \
        slr_error_take(&copy_);                                                                    \
        if (rc_ != 0)                                                                              \
            fail_msg("%s: %d, %s", #call, rc_, copy_.text);                                        \
    } while (0)

static char scratch_dir[64];

static inline int scratch_make(void **state)
{
    (void)state;
    strcpy(scratch_dir, "/tmp/sdlora-data-XXXXXX");
    return mkdtemp(scratch_dir) ? 0 : -1;
}

static inline int scratch_remove(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch_dir);
    return system(command) == 0 ? 0 : -1;
}

/* A path below the scratch directory, whose directories are made; eight may be in use at once. */
static inline const char *in_scratch(const char *name)
{
    static char path[8][512];
    static unsigned turn;
    char *p = path[turn++ % 8];
    snprintf(p, sizeof *path, "%s/%s", scratch_dir, name);
    char *slash = strrchr(p, '/');
    *slash = '\0';
    assert_int_equal(slr_dir_make(p), 0);
    *slash = '/';
    return p;
}

static inline void put_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void put_text(const char *path, const char *text)
{
    put_file(path, text, strlen(text));
}

/* A picture whose bytes depend on `seed`. */
static inline void put_picture(const char *path, int32_t w, int32_t h, uint32_t seed)
{
    slr_pixels p = {w, h, 3, malloc((size_t)w * (size_t)h * 3)};
    assert_non_null(p.data);
    for (size_t i = 0; i < (size_t)w * (size_t)h * 3; i++) {
        seed = seed * 1664525u + 1013904223u;
        p.data[i] = (uint8_t)(seed >> 24);
    }
    assert_ok(slr_png_write(NULL, path, &p, NULL));
    free(p.data);
}

static inline json_t *golden_json(const char *name)
{
    json_t *j = NULL;
    char path[1024];
    snprintf(path, sizeof path, "%s%s", GOLDEN, name);
    assert_ok(slr_json_read(&j, NULL, path, 1 << 24));
    return j;
}

/* "name=value" pairs up to NULL. */
static inline sdlora_options *dataset_options(const char *const *pairs)
{
    sdlora_options *o;
    assert_ok(slr_options_new(&o, NULL, "dataset"));
    for (; *pairs; pairs++) {
        const char *eq = strchr(*pairs, '=');
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)(eq - *pairs), *pairs);
        assert_ok(slr_options_set_text(o, name, eq + 1));
    }
    return o;
}

static inline int open_dataset(slr_dataset **out, const char *const *pairs)
{
    sdlora_options *o = dataset_options(pairs);
    int rc = slr_dataset_open(out, NULL, (slr_log){0}, o);
    slr_options_unref(o);
    return rc;
}

static inline const char *option_of(const char *name, const char *value)
{
    static char text[8][1024];
    static unsigned turn;
    char *p = text[turn++ % 8];
    snprintf(p, sizeof *text, "%s=%s", name, value);
    return p;
}

/* Some note has this in it. */
static inline bool notes_say(const slr_dataset *d, const char *part)
{
    const char *const *line;
    size_t n = slr_dataset_notes(d, &line);
    for (size_t i = 0; i < n; i++)
        if (strstr(line[i], part))
            return true;
    return false;
}

#endif
