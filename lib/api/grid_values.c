/* SPDX-License-Identifier: MIT */
/* Axis values.  Knows Python's csv reader, range(), numpy's arange and linspace, since the numbers
 * must be the same to the bit: a strength of 0.30000000000000004 is another picture than 0.3. */
#include "api/grid_values.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"

enum { NUMBER_CHARS = 64 };

/* --- pieces --- */

static int too_many(void)
{
    return slr_fail(SDLORA_EINVAL, "slr_grid_values_read", "more than %d values for one axis",
                    SLR_GRID_MOST);
}

/* Takes the text over, also when it fails; NULL: ENOMEM. */
static int add(slr_grid_values *v, char *text, int64_t i, double real)
{
    int rc = text ? SDLORA_OK : SDLORA_ENOMEM;

    if (rc >= 0 && v->n == SLR_GRID_MOST)
        rc = too_many();
    if (rc >= 0)
        rc = slr_grow(v->m, &v->at, &v->cap, v->n + 1, sizeof *v->at);
    if (rc < 0) {
        slr_free(v->m, text);
        return rc;
    }
    v->at[v->n++] = (slr_grid_value){text, i, real};
    return SDLORA_OK;
}

static int add_part(slr_grid_values *v, slr_str text)
{
    if (v->n_parts == SLR_GRID_MOST)
        return too_many();
    SLR_TRY(slr_grow(v->m, &v->part, &v->parts_cap, v->n_parts + 1, sizeof *v->part));
    char *copy = slr_strndup(v->m, text.p, text.n);
    if (!copy)
        return SDLORA_ENOMEM;
    v->part[v->n_parts++] = copy;
    return SDLORA_OK;
}

static int split_lines(slr_grid_values *v, slr_str text)
{
    slr_str line;

    while (slr_str_next(&text, '\n', &line)) {
        line.n -= line.n && line.p[line.n - 1] == '\r';
        SLR_TRY(add_part(v, line));
    }
    return SDLORA_OK;
}

/* A field of CSV from p on into b: quotes count at its very start only, "" inside is one of them.
 */
static const char *take_field(slr_buf *b, const char *p)
{
    bool quoted;

    p += strspn(p, " ");
    quoted = *p == '"';
    for (p += quoted; *p; p++) {
        if (quoted && *p == '"') {
            if (p[1] != '"') {
                quoted = false;
                continue;
            }
            p++;
        } else if (!quoted && (*p == ',' || *p == '\n' || *p == '\r')) {
            break;
        }
        slr_buf_putc(b, *p);
    }
    return p;
}

/* Rows follow one another; an empty row has no field. */
static int split_csv(slr_grid_values *v, const char *p)
{
    int rc = SDLORA_OK;

    for (bool begins = true; rc >= 0 && (*p || !begins);) {
        slr_buf field;

        if (begins && (*p == '\n' || *p == '\r')) {
            p++;
            continue;
        }
        slr_buf_init(&field, v->m);
        p = take_field(&field, p);
        rc = slr_buf_ok(&field);
        if (rc >= 0)
            rc = add_part(v, slr_str_trim((slr_str){field.data ? field.data : "", field.len}));
        slr_buf_free(&field);
        begins = *p != ',';
        p += *p != '\0';
    }
    return rc;
}

/* --- numbers --- */

/* "[+-] digits [. digits]" with white space around it; false: it is none.  Whole numbers have no
 * fraction.  Exponents are read where they have no sign, since a '-' begins the other end. */
static bool take_number(const char **at, bool whole, double *out)
{
    char text[NUMBER_CHARS];
    const char *p = *at + strspn(*at, " \t"), *start = p, *digits;

    p += *p == '+' || *p == '-';
    digits = p;
    p += strspn(p, "0123456789");
    if (p == digits)
        return false;
    if (!whole && *p == '.')
        p += 1 + strspn(p + 1, "0123456789");
    if (!whole && (*p == 'e' || *p == 'E') && strspn(p + 1, "0123456789"))
        p += 1 + strspn(p + 1, "0123456789");
    start += *start == '+';
    if ((size_t)(p - start) >= sizeof text)
        return false;
    memcpy(text, start, (size_t)(p - start));
    text[p - start] = '\0';
    if (text[p - start - 1] == '.')
        text[p - start - 1] = '\0';
    *at = p + strspn(p, " \t");
    return slr_parse_real(text, out) && fabs(*out) <= 9007199254740992.0; /* 2^53: exact */
}

typedef struct range {
    double lo, hi, step; /* step: of "(+2)", 1 without */
    int count;           /* of "[5]"; -1: there is none */
} range;

/* Whether the whole text is a range. */
static bool take_range(const char *p, bool whole, range *r)
{
    double count;

    *r = (range){.step = 1, .count = -1};
    if (!take_number(&p, whole, &r->lo) || *p++ != '-' || !take_number(&p, whole, &r->hi))
        return false;
    if (*p == '(' && (p[1] == '+' || p[1] == '-')) {
        p++;
        if (!take_number(&p, whole, &r->step) || *p++ != ')')
            return false;
    } else if (*p == '[' && p[1] >= '0' && p[1] <= '9') {
        p++;
        if (!take_number(&p, true, &count) || *p++ != ']')
            return false;
        r->count = count > SLR_GRID_MOST ? SLR_GRID_MOST + 1 : (int)count;
    }
    return p[strspn(p, " \t")] == '\0';
}

static int add_whole(slr_grid_values *v, int64_t i)
{
    slr_buf b;

    slr_buf_init(&b, v->m);
    slr_buf_printf(&b, "%lld", (long long)i);
    return add(v, slr_buf_take(&b), i, (double)i);
}

static int add_number(slr_grid_values *v, int type, double x)
{
    char text[32];

    if (type == SLR_GRID_INT)
        return add_whole(v, (int64_t)x);
    slr_real_repr(x, text);
    return add(v, slr_strdup(v->m, text), 0, x);
}

/* numpy.linspace(lo, hi, count); whole numbers are cut. */
static int add_spaced(slr_grid_values *v, int type, const range *r)
{
    double parts = r->count - 1, delta = r->hi - r->lo, step = delta / parts;

    if (r->count > SLR_GRID_MOST)
        return too_many();
    for (int i = 0; i < r->count; i++) {
        double x = r->count == 1 ? r->lo : i == r->count - 1 ? r->hi : i * step + r->lo;

        SLR_TRY(add_number(v, type, type == SLR_GRID_INT ? trunc(x) : x));
    }
    return SDLORA_OK;
}

/* range(lo, hi + 1, step) of whole numbers, numpy.arange(lo, hi + step, step) of others.  A step
 * below 0 therefore stops early in the first, as it does in the script. */
static int add_range(slr_grid_values *v, int type, const range *r, const char *text)
{
    double end = type == SLR_GRID_INT ? r->hi + 1 : r->hi + r->step, n, second = r->lo + r->step;

    if (r->step == 0)
        return slr_fail(SDLORA_EINVAL, "slr_grid_values_read", "'%.100s': the step is 0", text);
    n = ceil((end - r->lo) / r->step);
    if (n > SLR_GRID_MOST)
        return too_many();
    for (double i = 0; i < n; i++)
        SLR_TRY(add_number(v, type, i == 1 ? second : r->lo + i * (second - r->lo)));
    return SDLORA_OK;
}

/* One field: a range or a number. */
static int add_field(slr_grid_values *v, int type, const char *text)
{
    const char *digits = text + (*text == '+');
    bool whole = type == SLR_GRID_INT, ok;
    int64_t i = 0;
    double real = 0;
    range r;

    if (take_range(text, whole, &r))
        return r.count >= 0 ? add_spaced(v, type, &r) : add_range(v, type, &r, text);
    ok = whole ? slr_parse_i64(digits, &i) : slr_parse_real(digits, &real) && isfinite(real);
    if (!ok)
        return slr_fail(SDLORA_EINVAL, "slr_grid_values_read",
                        "'%.100s' is no %snumber and no range", text, whole ? "whole " : "");
    return whole ? add_whole(v, i) : add_number(v, type, real);
}

/* --- orders --- */

void slr_grid_order(size_t k, size_t n, size_t *order)
{
    size_t ways = 1;

    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = 2; i < n; i++)
        ways *= i; /* of the places behind the first */
    for (size_t i = 0; i + 1 < n; i++) {
        size_t at = i + k / ways, taken = order[at];

        memmove(order + i + 1, order + i, (at - i) * sizeof *order);
        order[i] = taken;
        k %= ways;
        ways /= n - 1 - i;
    }
}

static int add_orders(slr_grid_values *v)
{
    size_t order[8], ways = 1;

    if (v->n_parts > 6) /* 7! is 5040 */
        return too_many();
    for (size_t i = 2; i <= v->n_parts; i++)
        ways *= i;
    for (size_t k = 0; v->n_parts && k < ways; k++) {
        slr_buf b;

        slr_buf_init(&b, v->m);
        slr_grid_order(k, v->n_parts, order);
        for (size_t i = 0; i < v->n_parts; i++)
            slr_buf_printf(&b, "%s%s", i ? ", " : "", v->part[order[i]]);
        SLR_TRY(add(v, slr_buf_take(&b), 0, 0));
    }
    return SDLORA_OK;
}

static int make(slr_grid_values *v, int type)
{
    if (type == SLR_GRID_ORDER)
        return add_orders(v);
    for (size_t i = 0; i < v->n_parts; i++)
        if (type == SLR_GRID_TEXT || *v->part[i]) /* numbers that are not there are left out */
            SLR_TRY(type == SLR_GRID_TEXT ? add(v, slr_strdup(v->m, v->part[i]), 0, 0)
                                          : add_field(v, type, v->part[i]));
    return SDLORA_OK;
}

int slr_grid_values_read(slr_grid_values *out, slr_mem *m, int type, const char *text, bool lines)
{
    slr_str trimmed = slr_str_trim(slr_str_of(text));
    int rc;

    *out = (slr_grid_values){.m = m};
    if (lines && memchr(trimmed.p, '\n', trimmed.n))
        rc = split_lines(out, trimmed);
    else
        rc = split_csv(out, text);
    if (rc >= 0)
        rc = make(out, type);
    if (rc < 0)
        slr_grid_values_free(out);
    return rc;
}

void slr_grid_values_free(slr_grid_values *v)
{
    for (size_t i = 0; i < v->n; i++)
        slr_free(v->m, v->at[i].text);
    for (size_t i = 0; i < v->n_parts; i++)
        slr_free(v->m, v->part[i]);
    slr_free(v->m, v->at);
    slr_free(v->m, v->part);
    *v = (slr_grid_values){0};
}
