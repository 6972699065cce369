/* SPDX-License-Identifier: MIT */
/* Text: a growing buffer, slices, numbers, UTF-8.
 *
 * Knows C-locale spellings whatever locale the host program has set, and the strict rules of UTF-8
 * (no overlong forms, no surrogates, nothing above U+10FFFF).  Refuses to know character classes.
 */
#include "base/str.h"

#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

void slr_buf_init(slr_buf *b, slr_mem *m)
{
    *b = (slr_buf){.m = m};
}

void slr_buf_free(slr_buf *b)
{
    slr_free(b->m, b->data);
    slr_buf_init(b, b->m);
}

/* Room for n more bytes and the NUL. */
static bool room(slr_buf *b, size_t n)
{
    size_t want;

    if (b->error)
        return false;
    if (!slr_add_ok(b->len, n, &want) || !slr_add_ok(want, 1, &want))
        b->error = slr_nomem("slr_buf_add", n);
    else
        b->error = slr_grow(b->m, &b->data, &b->cap, want, 1);
    return !b->error;
}

void slr_buf_add(slr_buf *b, const void *bytes, size_t n)
{
    if (!room(b, n))
        return;
    if (n)
        memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void slr_buf_puts(slr_buf *b, const char *text)
{
    slr_buf_add(b, text, strlen(text));
}

void slr_buf_putc(slr_buf *b, char c)
{
    slr_buf_add(b, &c, 1);
}

void slr_buf_printf(slr_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 && !b->error)
        b->error = slr_nomem("slr_buf_printf", 0);
    if (n >= 0 && room(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

int slr_buf_ok(const slr_buf *b)
{
    return b->error;
}

char *slr_buf_take(slr_buf *b)
{
    char *data = NULL;

    slr_buf_add(b, "", 0); /* an empty buffer is an empty text */
    if (!b->error) {
        data = b->data;
        b->data = NULL;
    }
    slr_buf_free(b);
    return data;
}

slr_str slr_str_of(const char *text)
{
    return (slr_str){text ? text : "", text ? strlen(text) : 0};
}

bool slr_str_eq(slr_str a, const char *text)
{
    return a.n == strlen(text) && (!a.n || !memcmp(a.p, text, a.n));
}

bool slr_starts(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

bool slr_ends(const char *text, const char *suffix)
{
    size_t n = strlen(text), k = strlen(suffix);

    return n >= k && !memcmp(text + n - k, suffix, k);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

slr_str slr_str_trim(slr_str s)
{
    while (s.n && is_space(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool slr_str_next(slr_str *rest, char sep, slr_str *piece)
{
    const char *end;

    if (!rest->p)
        return false;
    end = rest->n ? memchr(rest->p, sep, rest->n) : NULL;
    piece->p = rest->p;
    if (!end) {
        piece->n = rest->n;
        *rest = (slr_str){NULL, 0}; /* the last piece, which may be empty, was given */
        return true;
    }
    piece->n = (size_t)(end - rest->p);
    rest->n -= piece->n + 1;
    rest->p = end + 1;
    return true;
}

int slr_pair_next(slr_str *rest, const char *name, slr_str *key, slr_str *value)
{
    slr_str item;

    while (slr_str_next(rest, '\n', &item)) {
        item = slr_str_trim(item);
        if (!item.n)
            continue;
        const char *eq = memchr(item.p, '=', item.n);
        if (!eq)
            return slr_fail(SDLORA_EINVAL, __func__, "%s: '%.*s' is not key=value", name,
                            (int)item.n, item.p);
        *key = (slr_str){item.p, (size_t)(eq - item.p)};
        *value = (slr_str){eq + 1, item.n - key->n - 1};
        return 1;
    }
    return 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool slr_parse_i64(const char *text, int64_t *out)
{
    const char *p = text;
    bool minus = *p == '-';
    int64_t v = 0;

    if (*p == '-' || *p == '+')
        p++;
    if (!is_digit(*p))
        return false;
    for (; is_digit(*p); p++) { /* downwards, since INT64_MIN has no positive twin */
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, *p - '0', &v))
            return false;
    }
    if (*p || (!minus && v == INT64_MIN))
        return false;
    *out = minus ? v : -v;
    return true;
}

/* [+-] (digits [. digits] | . digits) [e [+-] digits], or inf, infinity, nan in small letters. */
static bool real_spelling(const char *p)
{
    int digits = 0;

    if (*p == '-' || *p == '+')
        p++;
    if (!strcmp(p, "inf") || !strcmp(p, "infinity") || !strcmp(p, "nan"))
        return true;
    for (; is_digit(*p); p++)
        digits++;
    if (*p == '.')
        for (p++; is_digit(*p); p++)
            digits++;
    if (!digits)
        return false;
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '-' || *p == '+')
            p++;
        if (!is_digit(*p))
            return false;
        while (is_digit(*p))
            p++;
    }
    return !*p;
}

bool slr_parse_real(const char *text, double *out)
{
    locale_t c;
    double v;

    if (!real_spelling(text))
        return false;
    c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c)
        return false;
    v = strtod_l(text, NULL, c);
    freelocale(c);
    if (isinf(v) && !strchr(text, 'n')) /* digits too large for a double; "inf" has an n */
        return false;
    *out = v;
    return true;
}

/* Decimal digits of v > 0, as few as read back as v; the value is 0.DIGITS x 10^point. */
static int shortest_digits(double v, char digits[20], int *point)
{
    for (int n = 1;; n++) {
        char text[48], again[48];
        int at = 0, exp10 = 0;
        char *e;

        snprintf(text, sizeof text, "%.*e", n - 1, v);
        e = strchr(text, 'e');
        for (char *p = text; p < e; p++)
            if (is_digit(*p)) /* skips the decimal point of any locale */
                digits[at++] = *p;
        digits[at] = '\0';
        exp10 = atoi(e + 1);
        snprintf(again, sizeof again, "%se%d", digits, exp10 - (at - 1));
        if (n == 17 || strtod(again, NULL) == v) { /* 17 always suffice */
            *point = exp10 + 1;
            return at;
        }
    }
}

void slr_real_repr(double v, char out[32])
{
    char digits[20], *p = out;
    int n, point;

    if (isnan(v) || isinf(v)) {
        snprintf(out, 32, "%s", isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
        return;
    }
    if (signbit(v)) {
        *p++ = '-';
        v = -v;
    }
    if (v == 0) {
        memcpy(p, "0.0", 4);
        return;
    }
    n = shortest_digits(v, digits, &point);
    while (n > 1 && digits[n - 1] == '0')
        digits[--n] = '\0';
    if (point > 16 || point < -3) { /* scientific from 1e16 up and below 1e-4 */
        *p++ = digits[0];
        if (n > 1)
            *p++ = '.';
        memcpy(p, digits + 1, (size_t)n - 1);
        p += n - 1;
        snprintf(p, (size_t)(out + 32 - p), "e%c%02d", point > 0 ? '+' : '-', abs(point - 1));
        return;
    }
    if (point <= 0) { /* 0.000ddd */
        memcpy(p, "0.0000", 6);
        p += 2 - point;
        memcpy(p, digits, (size_t)n + 1);
        return;
    }
    for (int i = 0; i < point || i < n; i++) {
        if (i == point)
            *p++ = '.';
        *p++ = i < n ? digits[i] : '0';
    }
    memcpy(p, n <= point ? ".0" : "", n <= point ? 3 : 1);
}

/* Length of the valid sequence at p, 0 when there is none. */
static size_t utf8_one(const unsigned char *p, size_t n)
{
    unsigned lead = p[0];
    unsigned lo = 0x80, hi = 0xBF; /* what the second byte may be */
    size_t len;

    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    len = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (n < len)
        return 0;
    if (lead == 0xE0)
        lo = 0xA0; /* shorter forms exist below */
    else if (lead == 0xED)
        hi = 0x9F; /* surrogates above */
    else if (lead == 0xF0)
        lo = 0x90;
    else if (lead == 0xF4)
        hi = 0x8F; /* U+10FFFF */
    if (p[1] < lo || p[1] > hi)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return len;
}

size_t slr_utf8_valid(const char *p, size_t n)
{
    size_t at = 0, len;

    while (at < n && (len = utf8_one((const unsigned char *)p + at, n - at)) > 0)
        at += len;
    return at;
}

size_t slr_utf8_next(const char *p, size_t n, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t len = n ? utf8_one(u, n) : 0;

    if (len <= 1) { /* broken bytes stand for themselves, so that a loop always gets on */
        *cp = n ? u[0] : 0;
        return n ? 1 : 0;
    }
    *cp = u[0] & (0xFFu >> (len + 1));
    for (size_t i = 1; i < len; i++)
        *cp = *cp << 6 | (u[i] & 0x3Fu);
    return len;
}

size_t slr_utf8_put(char out[4], uint32_t cp)
{
    static const struct {
        uint32_t below;
        unsigned char lead;
    } rows[] = {{0x80, 0}, {0x800, 0xC0}, {0x10000, 0xE0}, {0x110000, 0xF0}};
    size_t len = 1;

    if (cp >= 0x110000 || (cp >= 0xD800 && cp < 0xE000))
        cp = 0xFFFD;
    while (cp >= rows[len - 1].below)
        len++;
    for (size_t i = len - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3F));
    out[0] = (char)(rows[len - 1].lead | cp);
    return len;
}

int slr_text_join(char *out, size_t cap, const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);

    if (na >= cap || nb >= cap - na)
        return slr_fail(SDLORA_EINVAL, __func__, "'%.200s%.200s' is longer than %zu bytes", a, b,
                        cap ? cap - 1 : 0);
    memcpy(out, a, na);
    memcpy(out + na, b, nb + 1);
    return SDLORA_OK;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Optimal string alignment: insert, delete, replace, or swap two neighbours. */
size_t slr_str_distance(const char *a, const char *b, size_t cap)
{
    enum { LONGEST = 64 };
    size_t rows[3][LONGEST + 1], na = strlen(a), nb = strlen(b);

    if (na > LONGEST || nb > LONGEST)
        return cap;
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *now = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t d = up[j - 1] + (a[i - 1] != b[j - 1]);

            d = least(d, least(up[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d = least(d, up2[j - 2] + 1);
            now[j] = d;
        }
    }
    return least(rows[na % 3][nb], cap);
}
