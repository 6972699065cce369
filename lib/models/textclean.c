/* SPDX-License-Identifier: MIT */
/* Cleans text as CLIP's Python tokenizer does through ftfy: HTML references, C1 controls, Latin
 * ligatures, full-width forms, curly quotes, line breaks, terminal escapes, control characters,
 * NFC; then white space and lower case.
 *
 * Knows code points and nothing of tokens.  Refuses to repair mojibake (text decoded in the wrong
 * encoding): ftfy guesses there by statistics, and a caption that was saved wrongly should be saved
 * again. */
#include "models/textclean.h"

#include <string.h>
#include <utf8proc.h>

#include "base/status.h"
#include "models/tables.h"

/* ftfy repeats its fixes until nothing changes; "&amp;amp;amp;..." must not make that quadratic:
 * so many rounds for lines of up to 64 KiB, and so many code points for longer ones. */
#define MAX_ROUNDS 64
#define MAX_WORK   (MAX_ROUNDS << 16)

typedef struct points {
    slr_mem *m;
    int32_t *c;
    size_t n, cap;
} points;

static int push(points *p, int32_t c)
{
    if (p->n == p->cap)
        SLR_TRY(slr_grow(p->m, &p->c, &p->cap, p->n + 1, sizeof *p->c));
    p->c[p->n++] = c;
    return SDLORA_OK;
}

static int push_text(points *p, const char *text, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t c;
        i += slr_utf8_next(text + i, n - i, &c);
        SLR_TRY(push(p, (int32_t)c));
    }
    return SDLORA_OK;
}

static int put(slr_buf *out, int32_t c)
{
    char bytes[4];
    slr_buf_add(out, bytes, slr_utf8_put(bytes, (uint32_t)c));
    return SDLORA_OK;
}

/* Windows-1252 for 0x80..0x9f; the five unassigned codes stay as they are. */
static const uint16_t WINDOWS_1252[32] = {
    0x20AC, 0x0081, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
    0x2039, 0x0152, 0x008D, 0x017D, 0x008F, 0x0090, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x009D, 0x017E, 0x0178};

/* ---- HTML references ---- */

static int name_order(const char *line, size_t len, const char *name, size_t n)
{
    int order = memcmp(line, name, len < n ? len : n);
    return order ? order : (len > n) - (len < n);
}

/* The text behind a name in the sorted "name<TAB>text<NEWLINE>" table, by bisection over its bytes.
 */
static bool entity_find(const char *name, size_t n, slr_str *text)
{
    const char *table = (const char *)slr_html_entities;
    size_t lo = 0, hi = slr_html_entities_size;
    while (lo < hi) {
        size_t at = lo + (hi - lo) / 2;
        while (at > lo && table[at - 1] != '\n')
            at--;
        const char *tab = memchr(table + at, '\t', hi - at);
        const char *end = memchr(tab, '\n', (size_t)(table + hi - tab));
        int order = name_order(table + at, (size_t)(tab - table) - at, name, n);
        if (order == 0) {
            *text = (slr_str){tab + 1, (size_t)(end - tab) - 1};
            return true;
        }
        if (order < 0)
            lo = (size_t)(end + 1 - table);
        else
            hi = at;
    }
    return false;
}

/* Numbers that HTML 5 drops. */
static bool charref_is_void(int32_t c)
{
    return (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
           (c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE;
}

/* "#65" or "#x41" -> code point; -1: not a whole number; -2: nothing. */
static int32_t charref(const char *p, size_t n)
{
    int base = n > 1 && (p[1] == 'x' || p[1] == 'X') ? 16 : 10;
    size_t i = base == 16 ? 2 : 1;
    int64_t v = 0;
    if (i >= n)
        return -1;
    for (; i < n; i++) {
        int digit = p[i] >= '0' && p[i] <= '9' ? p[i] - '0' : (p[i] | 32) - 'a' + 10;
        if (digit < 0 || digit >= base)
            return -1;
        if (v <= 0x10FFFF)
            v = v * base + digit;
    }
    if (v == 0 || v > 0x10FFFF || (v >= 0xD800 && v <= 0xDFFF))
        return 0xFFFD;
    if (v >= 0x80 && v <= 0x9F)
        return WINDOWS_1252[v - 0x80];
    if (v == ';') /* ftfy takes a leftover semicolon for a sign of failure */
        return -1;
    return charref_is_void((int32_t)v) ? -2 : (int32_t)v;
}

static int unescape_html(const points *in, points *out)
{
    for (size_t i = 0; i < in->n; i++) {
        char name[26];
        size_t n = 0;
        if (in->c[i] == '&') {
            for (size_t j = i + 1; j < in->n && n < 25; j++) {
                int32_t c = in->c[j];
                if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                      (c == '#' && n == 0)))
                    break;
                name[n++] = (char)c;
            }
        }
        size_t digits = n - (n > 0 && name[0] == '#');
        slr_str text;
        if (digits >= 1 && digits <= 24 && i + n + 1 < in->n && in->c[i + n + 1] == ';') {
            int32_t c = name[0] == '#' ? charref(name, n) : -1;
            if (c >= 0)
                SLR_TRY(push(out, c));
            else if (c == -1 && entity_find(name, n, &text)) {
                if (slr_str_eq(text, "\\t") || slr_str_eq(text, "\\n"))
                    SLR_TRY(push(out, text.p[1] == 't' ? '\t' : '\n'));
                else
                    SLR_TRY(push_text(out, text.p, text.n));
            } else if (c == -1) {
                SLR_TRY(push(out, in->c[i]));
                continue;
            }
            i += n + 1;
            continue;
        }
        SLR_TRY(push(out, in->c[i]));
    }
    return SDLORA_OK;
}

/* ---- characters ---- */

static const struct {
    int32_t from;
    const char *to;
} LIGATURES[] = {
    {0x0132, "IJ"},      {0x0133, "ij"}, {0x0149, "\u02bcn"}, {0x01F1, "DZ"},
    {0x01F2, "Dz"},      {0x01F3, "dz"}, {0x01C4, "D\u017d"}, {0x01C5, "D\u017e"},
    {0x01C6, "d\u017e"}, {0x01C7, "LJ"}, {0x01C8, "Lj"},      {0x01C9, "lj"},
    {0x01CA, "NJ"},      {0x01CB, "Nj"}, {0x01CC, "nj"},      {0xFB00, "ff"},
    {0xFB01, "fi"},      {0xFB02, "fl"}, {0xFB03, "ffi"},     {0xFB04, "ffl"},
    {0xFB05, "\u017ft"}, {0xFB06, "st"},
};

static int fix_ligature(int32_t c, points *out)
{
    for (size_t i = 0; i < sizeof LIGATURES / sizeof *LIGATURES; i++)
        if (LIGATURES[i].from == c)
            return push_text(out, LIGATURES[i].to, strlen(LIGATURES[i].to));
    return push(out, c);
}

/* Half- and full-width forms to their normal ones (NFKC of the single character). */
static int fix_width(int32_t c, points *out)
{
    utf8proc_int32_t form[8];
    int class = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char(
        c, form, 8, UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_COMPOSE, &class);
    if (n < 1 || n > 8)
        return push(out, c);
    n = utf8proc_normalize_utf32(form, n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < n; i++)
        SLR_TRY(push(out, form[i]));
    return SDLORA_OK;
}

static int fix_characters(const points *in, points *out)
{
    for (size_t i = 0; i < in->n; i++) {
        int32_t c = in->c[i];
        if (c >= 0x80 && c <= 0x9F)
            SLR_TRY(push(out, WINDOWS_1252[c - 0x80]));
        else if ((c >= 0x132 && c <= 0x1F3) || (c >= 0xFB00 && c <= 0xFB06))
            SLR_TRY(fix_ligature(c, out));
        else if (c == 0x3000)
            SLR_TRY(push(out, ' '));
        else if (c >= 0xFF01 && c < 0xFFF0)
            SLR_TRY(fix_width(c, out));
        else
            SLR_TRY(push(out, c));
    }
    return SDLORA_OK;
}

/* The end of "ESC [ digits letter" that starts at i, or i. */
static size_t terminal_escape(const points *in, size_t i)
{
    if (in->c[i] != 0x1B || i + 1 >= in->n || in->c[i + 1] != '[')
        return i;
    size_t j = i + 2;
    while (j < in->n && ((in->c[j] >= '0' && in->c[j] <= '9') || in->c[j] == ';'))
        j++;
    bool letter = j < in->n && (in->c[j] | 32) >= 'a' && (in->c[j] | 32) <= 'z';
    return letter ? j + 1 : i;
}

static bool is_dropped_control(int32_t c)
{
    return c < 0x09 || c == 0x0B || (c >= 0x0E && c < 0x20) || c == 0x7F ||
           (c >= 0x206A && c < 0x2070) || c == 0xFEFF || (c >= 0xFFF9 && c < 0xFFFD);
}

static int fix_controls(const points *in, points *out)
{
    for (size_t i = 0; i < in->n; i++) {
        int32_t c = in->c[i];
        size_t end = terminal_escape(in, i);
        if (end > i) {
            i = end - 1;
            continue;
        }
        if (c == '\r') {
            if (i + 1 < in->n && in->c[i + 1] == '\n')
                continue;
            c = '\n';
        }
        if (c == 0x2028 || c == 0x2029 || c == 0x85)
            c = '\n';
        else if (c == 0x02BC || (c >= 0x2018 && c <= 0x201B))
            c = '\'';
        else if (c >= 0x201C && c <= 0x201F)
            c = '"';
        if (!is_dropped_control(c))
            SLR_TRY(push(out, c));
    }
    return SDLORA_OK;
}

static int combining_class(int32_t c)
{
    return c < 0x300 ? 0 : utf8proc_get_property(c)->combining_class;
}

/* Puts marks that follow each other in the order of their combining classes, as NFC wants them.  A
 * counting sort: utf8proc's own takes a time that is quadratic in the number of marks. */
static int order_marks(points *p)
{
    points sorted = {.m = p->m};
    int rc = SDLORA_OK;
    for (size_t from = 0, to; from < p->n && rc == SDLORA_OK; from = to + 1) {
        size_t at[256] = {0};
        bool ordered = true;
        int before = 0, class;
        for (to = from; to < p->n && (class = combining_class(p->c[to])) > 0; to++) {
            ordered = ordered && class >= before;
            before = class;
        }
        if (ordered)
            continue;
        rc = slr_grow(p->m, &sorted.c, &sorted.cap, to - from, sizeof *sorted.c);
        if (rc < 0)
            break;
        for (size_t i = from; i < to; i++)
            at[combining_class(p->c[i])]++;
        for (size_t k = 0, sum = 0; k < 256; k++) {
            size_t n = at[k];
            at[k] = sum;
            sum += n;
        }
        for (size_t i = from; i < to; i++)
            sorted.c[at[combining_class(p->c[i])]++] = p->c[i];
        memcpy(p->c + from, sorted.c, (to - from) * sizeof *sorted.c);
    }
    slr_free(p->m, sorted.c);
    return rc;
}

static int normalize(const points *in, points *out)
{
    const utf8proc_option_t how = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    bool plain = true; /* everything below U+0300 is in NFC already */
    for (size_t i = 0; i < in->n; i++)
        plain = plain && in->c[i] < 0x300;
    for (size_t i = 0; i < in->n; i++) {
        utf8proc_int32_t part[8] = {in->c[i]};
        utf8proc_ssize_t n = 1;
        int class = 0;
        if (!plain && in->c[i] >= 0x80)
            n = utf8proc_decompose_char(in->c[i], part, 8, how, &class);
        if (n < 0 || n > 8)
            return slr_fail(SDLORA_EINVAL, __func__, "U+%04X cannot be normalised",
                            (unsigned)in->c[i]);
        for (utf8proc_ssize_t k = 0; k < n; k++)
            SLR_TRY(push(out, part[k]));
    }
    if (plain)
        return SDLORA_OK;
    SLR_TRY(order_marks(out));
    out->n = (size_t)utf8proc_normalize_utf32(out->c, (utf8proc_ssize_t)out->n, how);
    return SDLORA_OK;
}

/* ---- white space and case ---- */

int slr_is_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static bool is_cased(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
           c == 0xAA || c == 0xBA || (c >= 0x2160 && c <= 0x217F) || (c >= 0x24B6 && c <= 0x24E9);
}

/* Case_Ignorable: marks, formats, modifiers, and punctuation inside words. */
static bool is_case_ignorable(int32_t c)
{
    static const uint16_t INNER[] = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,
                                     0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                     0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
    utf8proc_category_t k = utf8proc_category(c);
    if (k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
        k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK)
        return true;
    for (size_t i = 0; i < sizeof INNER / sizeof *INNER; i++)
        if (INNER[i] == c)
            return true;
    return false;
}

/* A capital sigma at i ends a word (Unicode's Final_Sigma). */
static bool is_final_sigma(const points *p, size_t i)
{
    size_t a = i, b = i + 1;
    while (a > 0 && is_case_ignorable(p->c[a - 1]))
        a--;
    while (b < p->n && is_case_ignorable(p->c[b]))
        b++;
    return a > 0 && is_cased(p->c[a - 1]) && !(b < p->n && is_cased(p->c[b]));
}

static void finish(const points *p, slr_buf *out)
{
    bool gap = false, any = false;
    for (size_t i = 0; i < p->n; i++) {
        int32_t c = p->c[i];
        if (slr_is_space(c)) {
            gap = any;
            continue;
        }
        if (gap)
            slr_buf_putc(out, ' ');
        gap = false;
        any = true;
        if (c == 0x130) /* the one capital whose small form is two code points */
            slr_buf_puts(out, "i\u0307");
        else if (c == 0x3A3)
            put(out, is_final_sigma(p, i) ? 0x3C2 : 0x3C3);
        else
            put(out, utf8proc_tolower(c));
    }
}

/* ---- the whole ---- */

typedef int pass_fn(const points *in, points *out);

/* Fixes one line in rounds and appends the result to all.  round: scratch; [2] keeps the text as a
 * round began. */
static int fix_line(points round[3], const int32_t *c, size_t n, bool html, points *all)
{
    static pass_fn *const PASSES[] = {unescape_html, fix_characters, fix_controls, normalize};
    int rc = SDLORA_OK;
    round[0].n = 0;
    for (size_t i = 0; i < n && rc == SDLORA_OK; i++)
        rc = push(&round[0], c[i]);
    for (size_t k = 0; k < MAX_ROUNDS && k * n <= MAX_WORK && rc == SDLORA_OK; k++) {
        round[2].n = 0;
        for (size_t i = 0; i < round[0].n && rc == SDLORA_OK; i++)
            rc = push(&round[2], round[0].c[i]);
        for (size_t p = html ? 0 : 1; p < sizeof PASSES / sizeof *PASSES && rc == SDLORA_OK; p++) {
            round[1].n = 0;
            rc = PASSES[p](&round[0], &round[1]);
            points swap = round[0];
            round[0] = round[1];
            round[1] = swap;
        }
        if (round[0].n == round[2].n &&
            (round[0].n == 0 ||
             memcmp(round[0].c, round[2].c, round[0].n * sizeof *round[0].c) == 0))
            break;
    }
    for (size_t i = 0; i < round[0].n && rc == SDLORA_OK; i++)
        rc = push(all, round[0].c[i]);
    return rc;
}

int slr_text_clean(slr_mem *m, const char *text, size_t n, slr_buf *out)
{
    points raw = {.m = m}, all = {.m = m}, round[3] = {{.m = m}, {.m = m}, {.m = m}};
    /* until a '<' is seen: then this is markup, whose references mean themselves */
    bool html = true;
    int rc = push_text(&raw, text, n);
    for (size_t from = 0; rc == SDLORA_OK && from < raw.n;) {
        size_t to = from;
        while (to < raw.n && raw.c[to++] != '\n')
            html = html && raw.c[to - 1] != '<';
        rc = fix_line(round, raw.c + from, to - from, html, &all);
        from = to;
    }
    if (rc == SDLORA_OK) {
        finish(&all, out);
        rc = slr_buf_ok(out);
    }
    slr_free(m, raw.c);
    slr_free(m, all.c);
    for (int i = 0; i < 3; i++)
        slr_free(m, round[i].c);
    return rc;
}
