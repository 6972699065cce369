/* SPDX-License-Identifier: MIT */
/* The error slot: one code and one sentence per thread.
 *
 * Knows how to keep a sentence short, valid UTF-8 and owned by the thread.  Refuses to know what
 * failed: callers bring the words.  The slot is the one piece of writable state at file scope that
 * the library allows itself; it allocates nothing, so that running out of memory can be told. */
#include "base/status.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"

typedef struct slot {
    sdlora_error pub;
    char where[SLR_ERROR_WHERE];
    char text[SLR_ERROR_TEXT];
} slot;

static _Thread_local slot slot_here;

/* Replaces what is not UTF-8 (a file name may be anything) and drops a character cut in half. */
static void make_utf8(char *text, int was_cut)
{
    size_t n = strlen(text), at = 0;

    while ((at += slr_utf8_valid(text + at, n - at)) < n) {
        if (was_cut && n - at < 4 && ((unsigned char)text[at] & 0xC0) == 0xC0) {
            text[at] = '\0';
            return;
        }
        text[at] = '?';
    }
}

static void copy_text(char *dst, size_t cap, const char *src)
{
    size_t n = strlen(src);
    int was_cut = n >= cap;

    if (was_cut)
        n = cap - 1;
    memmove(dst, src, n);
    dst[n] = '\0';
    make_utf8(dst, was_cut);
}

static void publish(slot *s, int code)
{
    s->pub.code = code;
    s->pub.reserved0 = 0;
    s->pub.message = s->text;
    s->pub.where = s->where;
}

const sdlora_error *sdlora_last_error(void)
{
    slot *s = &slot_here;

    publish(s, s->pub.code); /* a thread that never failed has NULL pointers in a fresh slot */
    return &s->pub;
}

int slr_vfail(int code, const char *where, const char *fmt, va_list ap)
{
    slot *s = &slot_here;
    char text[SLR_ERROR_TEXT]; /* an argument may be this slot's own text */
    int n = vsnprintf(text, sizeof text, fmt, ap);

    if (n < 0)
        copy_text(s->text, sizeof s->text, fmt);
    else {
        make_utf8(text, (size_t)n >= sizeof text);
        copy_text(s->text, sizeof s->text, text);
    }
    copy_text(s->where, sizeof s->where, where ? where : "");
    publish(s, code);
    return code;
}

int slr_fail(int code, const char *where, const char *fmt, ...)
{
    va_list ap;
    int rc;

    va_start(ap, fmt);
    rc = slr_vfail(code, where, fmt, ap);
    va_end(ap);
    return rc;
}

int slr_wrap(const char *fmt, ...)
{
    slot *s = &slot_here;
    char prefix[SLR_ERROR_TEXT], text[2 * SLR_ERROR_TEXT + 4];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    if (n > 0) {
        snprintf(text, sizeof text, "%s: %s", prefix, s->text);
        copy_text(s->text, sizeof s->text, text);
        publish(s, s->pub.code);
    }
    return s->pub.code;
}

void slr_clear(void)
{
    slot *s = &slot_here;

    s->text[0] = '\0';
    s->where[0] = '\0';
    publish(s, SDLORA_OK);
}

void slr_error_take(slr_error_copy *out)
{
    const slot *s = &slot_here;

    out->code = s->pub.code;
    copy_text(out->where, sizeof out->where, s->where);
    copy_text(out->text, sizeof out->text, s->text);
}

int slr_error_put(const slr_error_copy *error)
{
    slot *s = &slot_here;

    copy_text(s->where, sizeof s->where, error->where);
    copy_text(s->text, sizeof s->text, error->text);
    publish(s, error->code);
    return error->code;
}

int slr_nomem(const char *where, size_t bytes)
{
    return slr_fail(SDLORA_ENOMEM, where, "out of memory (%zu bytes)", bytes);
}
