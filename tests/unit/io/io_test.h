/* SPDX-License-Identifier: MIT */
/* What the tests of lib/io share: cmocka with its includes, and a scratch directory per program. */
#ifndef IO_TEST_H
#define IO_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <sdlora/types.h>
#include "base/mem.h"
#include "base/status.h"
#include "io/file.h"

/* The sentence of the last failure has this in it. */
#define assert_says(part)                                                                          \
    do {                                                                                           \
        const char *text_ = sdlora_last_error_text();                                              \
        if (!strstr(text_, part))                                                                  \
            fail_msg("\"%s\" does not say \"%s\"", text_, part);                                   \
    } while (0)

static inline const char *sdlora_last_error_text(void)
{
    static _Thread_local slr_error_copy copy;
    slr_error_take(&copy);
    return copy.text;
}

static char scratch_dir[64];

static inline int scratch_make(void **state)
{
    strcpy(scratch_dir, "/tmp/sdlora-io-XXXXXX");
    return mkdtemp(scratch_dir) ? 0 : -1;
}

static inline int scratch_remove(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch_dir);
    return system(command) == 0 ? 0 : -1;
}

/* A path below the scratch directory; four may be in use at once. */
static inline const char *in_scratch(const char *name)
{
    static char path[4][256];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof *path, "%s/%s", scratch_dir, name);
    return p;
}

/* The plain way, so that tests of the writer do not lean on it. */
static inline void put_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline char *get_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *bytes;
    long size;
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size = ftell(f);
    rewind(f);
    bytes = malloc((size_t)size + 1);
    assert_non_null(bytes);
    *n = fread(bytes, 1, (size_t)size, f);
    bytes[*n] = '\0';
    fclose(f);
    return bytes;
}

#endif
