/* SPDX-License-Identifier: MIT */
/* Classes of characters as Python's `re` has them for texts: white space, and letters and digits of
 * all scripts.  Refuses to know what they are looked up for. */
#include "sample/letters.h"

#include <string.h>
#include <utf8proc.h>

#include "base/str.h"
#include "models/textclean.h"

static bool is_space(uint32_t c)
{
    return (c >= 0x1c && c <= 0x1f) || slr_is_space((int32_t)c);
}

static bool is_word(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return c == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
           (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

size_t slr_space_at(const char *p, size_t n)
{
    uint32_t c;
    size_t used = n ? slr_utf8_next(p, n, &c) : 0;
    return used && is_space(c) ? used : 0;
}

/* Where the character begins that ends at `end` > 0. */
static size_t before(const char *p, size_t end)
{
    size_t at = end - 1;
    while (at > 0 && ((unsigned char)p[at] & 0xc0) == 0x80)
        at--;
    return at;
}

size_t slr_space_trim_end(const char *p, size_t n)
{
    while (n > 0) {
        size_t at = before(p, n);
        if (!slr_space_at(p + at, n - at))
            break;
        n = at;
    }
    return n;
}

static bool word_at(const char *p, size_t n, size_t at)
{
    uint32_t c;
    if (at >= n)
        return false;
    slr_utf8_next(p + at, n - at, &c);
    return is_word(c);
}

size_t slr_word_find(const char *p, size_t n, size_t from, const char *word)
{
    size_t len = strlen(word);
    for (size_t i = from; i + len <= n; i++) {
        const char *hit = memchr(p + i, word[0], n - len - i + 1);
        if (!hit)
            break;
        i = (size_t)(hit - p);
        if (!memcmp(hit, word, len) && !(i && word_at(p, n, before(p, i))) &&
            !word_at(p, n, i + len))
            return i;
    }
    return n;
}
