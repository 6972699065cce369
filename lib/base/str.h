/* SPDX-License-Identifier: MIT */
/* Text: a growing buffer, slices, number parsing independent of the locale, strict UTF-8. */
#ifndef SLR_BASE_STR_H
#define SLR_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

/* A growing byte string, always NUL-terminated once anything was added.  Errors stick: after a
 * failed append every later one does nothing and slr_buf_ok() is SDLORA_ENOMEM. */
typedef struct slr_buf {
    slr_mem *m;
    char *data;
    size_t len, cap;
    int error;
} slr_buf;

void slr_buf_init(slr_buf *b, slr_mem *m);
void slr_buf_free(slr_buf *b);
void slr_buf_add(slr_buf *b, const void *bytes, size_t n);
void slr_buf_puts(slr_buf *b, const char *text);
void slr_buf_putc(slr_buf *b, char c);
void slr_buf_printf(slr_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int slr_buf_ok(const slr_buf *b);
char *slr_buf_take(slr_buf *b); /* the bytes become the caller's (slr_free with the same m) */

/* A slice of someone else's bytes. */
typedef struct slr_str {
    const char *p;
    size_t n;
} slr_str;

slr_str slr_str_of(const char *text); /* NULL: empty */
bool slr_str_eq(slr_str a, const char *text);
bool slr_starts(const char *text, const char *prefix);
bool slr_ends(const char *text, const char *suffix);
slr_str slr_str_trim(slr_str s); /* ASCII white space off both ends */
/* Next piece of *rest up to `sep`; false when there is none left. */
bool slr_str_next(slr_str *rest, char sep, slr_str *piece);
/* Next "key=value" of a list with one item a line; white space around items and empty items are
 * skipped.  1: there is one, 0: none left, EINVAL: an item without "=" of the option `name`. */
int slr_pair_next(slr_str *rest, const char *name, slr_str *key, slr_str *value);

/* Whole-string numbers in C-locale spelling.  false: not a number, or out of range. */
bool slr_parse_i64(const char *text, int64_t *out);
bool slr_parse_real(const char *text, double *out);
/* Shortest text that reads back as the same double, spelled as Python's repr does ("1e-05", "0.1",
 * "1.0", "nan", "inf").  out holds 32 bytes. */
void slr_real_repr(double v, char out[32]);

/* Length of the longest valid UTF-8 prefix; == n when all is valid. */
size_t slr_utf8_valid(const char *p, size_t n);
/* Decodes one code point (must be valid); returns bytes used. */
size_t slr_utf8_next(const char *p, size_t n, uint32_t *cp);
size_t slr_utf8_put(char out[4], uint32_t cp);

/* a + b into out; EINVAL when it does not fit. */
int slr_text_join(char *out, size_t cap, const char *a, const char *b);

/* Edit distance with a cap, for "did you mean". */
size_t slr_str_distance(const char *a, const char *b, size_t cap);

#endif
