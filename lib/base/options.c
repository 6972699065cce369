/* SPDX-License-Identifier: MIT */
/* Options: the table made from options.def, and sets of values of one kind.
 *
 * Knows types, ranges, choices and how to name the nearest option on a typo.  Refuses to know what
 * an option does: whoever reads a value decides whether it can be honoured. */
#include "base/options.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "base/thread.h"

static const slr_option_row rows[] = {
#define SLR_OPTION(kind_, name_, type_, min_, max_, choices_, def_, help_)                         \
    {kind_, name_, SLR_OPT_##type_, min_, max_, choices_, def_, help_},
#include "base/options.def"
#undef SLR_OPTION
};

enum { N_ROWS = sizeof rows / sizeof *rows };

/* A value in all the forms that its type has. */
typedef struct value {
    bool given;
    int64_t i; /* INT, BOOL */
    double r;  /* INT, REAL */
    char *text;
} value;

struct sdlora_options {
    slr_refs refs;
    slr_mem *m;
    const slr_option_row *first; /* the rows of this kind stand together in the table */
    size_t count;
    value values[];
};

const slr_option_row *slr_option_rows(size_t *count)
{
    *count = N_ROWS;
    return rows;
}

static const slr_option_row *rows_of_kind(const char *kind, size_t *count)
{
    size_t first = 0, last;

    while (first < N_ROWS && strcmp(rows[first].kind, kind) != 0)
        first++;
    for (last = first; last < N_ROWS && !strcmp(rows[last].kind, kind);)
        last++;
    *count = last - first;
    return *count ? &rows[first] : NULL;
}

static const slr_option_row *find(const slr_option_row *first, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(first[i].name, name))
            return &first[i];
    return NULL;
}

const slr_option_row *slr_option_find(const char *kind, const char *name)
{
    size_t count;
    const slr_option_row *first = rows_of_kind(kind, &count);

    return find(first, count, name);
}

static int unknown_kind(const char *kind)
{
    char list[256];
    size_t at = 0;

    for (size_t i = 0; i < N_ROWS; i++)
        if ((!i || strcmp(rows[i].kind, rows[i - 1].kind) != 0) && at < sizeof list)
            at +=
                (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", rows[i].kind);
    return slr_fail(SDLORA_ENOTFOUND, "slr_options_new",
                    "no options of the kind '%s' (there are: %s)", kind, list);
}

int slr_options_new(sdlora_options **out, slr_mem *m, const char *kind)
{
    size_t count;
    const slr_option_row *first = rows_of_kind(kind, &count);
    sdlora_options *o;

    *out = NULL;
    if (!first)
        return unknown_kind(kind);
    o = slr_calloc(m, 1, sizeof *o + count * sizeof(value));
    if (!o)
        return SDLORA_ENOMEM;
    slr_refs_init(&o->refs);
    o->m = slr_mem_ref(m);
    o->first = first;
    o->count = count;
    *out = o;
    return SDLORA_OK;
}

int slr_options_copy(sdlora_options **out, const sdlora_options *src)
{
    sdlora_options *o;

    *out = NULL;
    if (!src)
        return SDLORA_OK;
    SLR_TRY(slr_options_new(&o, src->m, src->first->kind));
    for (size_t i = 0; i < src->count; i++) {
        o->values[i] = src->values[i];
        if (!src->values[i].text)
            continue;
        o->values[i].text = slr_strdup(o->m, src->values[i].text);
        if (!o->values[i].text) {
            slr_options_unref(o);
            return SDLORA_ENOMEM;
        }
    }
    *out = o;
    return SDLORA_OK;
}

sdlora_options *slr_options_ref(sdlora_options *o)
{
    if (o)
        slr_refs_get(&o->refs);
    return o;
}

void slr_options_unref(sdlora_options *o)
{
    slr_mem *m;

    if (!o || !slr_refs_put(&o->refs))
        return;
    m = o->m;
    for (size_t i = 0; i < o->count; i++)
        slr_free(m, o->values[i].text);
    slr_free(m, o);
    slr_mem_unref(m);
}

const char *slr_options_kind(const sdlora_options *o)
{
    return o->first->kind;
}

/* --- setting --------------------------------------------------------------------------------- */

static int unknown_name(const sdlora_options *o, const char *name)
{
    const slr_option_row *near = NULL;
    size_t best = 1 + strlen(name) / 2, d; /* further than half the word is no hint */

    for (size_t i = 0; i < N_ROWS; i++)
        if (!strcmp(rows[i].name, name))
            return slr_fail(SDLORA_ENOTFOUND, "slr_options_set",
                            "there is no %s option '%s'; it is a %s option", o->first->kind, name,
                            rows[i].kind);
    for (size_t i = 0; i < o->count; i++) {
        d = slr_str_distance(name, o->first[i].name, best);
        if (d < best) {
            best = d;
            near = &o->first[i];
        }
    }
    if (near)
        return slr_fail(SDLORA_ENOTFOUND, "slr_options_set",
                        "there is no %s option '%s'; did you mean '%s'?", o->first->kind, name,
                        near->name);
    return slr_fail(SDLORA_ENOTFOUND, "slr_options_set", "there is no %s option '%s'",
                    o->first->kind, name);
}

static int bad_value(const slr_option_row *row, const char *text)
{
    static const char *const wanted[] = {
        [SLR_OPT_INT] = "a whole number", [SLR_OPT_REAL] = "a number", [SLR_OPT_TEXT] = "one of",
        [SLR_OPT_BOOL] = "true or false", [SLR_OPT_LIST] = "text",
    };
    char range[96] = "";

    if (row->type == SLR_OPT_INT)
        snprintf(range, sizeof range, " from %.0f to %.0f", row->min, row->max);
    else if (row->type == SLR_OPT_REAL)
        snprintf(range, sizeof range, " from %g to %g", row->min, row->max);
    return slr_fail(SDLORA_EINVAL, "slr_options_set", "%s is '%.200s', wanted %s%s%s%s", row->name,
                    text, wanted[row->type], range, row->choices ? " " : "",
                    row->choices ? row->choices : "");
}

static bool in_range(const slr_option_row *row, double v)
{
    return v >= row->min && v <= row->max; /* also refuses NaN */
}

static bool parse_bool(const char *text, int64_t *out)
{
    static const char *const words[][2] = {
        {"false", "true"}, {"0", "1"}, {"no", "yes"}, {"off", "on"}, {"False", "True"}};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int b = 0; b < 2; b++)
            if (!strcmp(text, words[i][b])) {
                *out = b;
                return true;
            }
    return false;
}

/* Numbers may also be written in percent, as kohya's warm-up steps are. */
static bool parse_number(const char *text, double *out)
{
    char head[64];
    size_t n = strlen(text);

    if (n < 2 || n >= sizeof head || text[n - 1] != '%')
        return slr_parse_real(text, out);
    memcpy(head, text, n - 1);
    head[n - 1] = '\0';
    if (!slr_parse_real(head, out))
        return false;
    *out /= 100;
    return true;
}

/* Other programs' words for choices. */
static const char *choice_of(const slr_option_row *row, const char *text)
{
    static const struct {
        const char *name, *word, *choice;
    } words[] = {
        {"randn_source", "GPU",
         "NV"}, /* AUTOMATIC1111: torch on the card, whose numbers NV makes */
    };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(row->name, words[i].name) && !strcmp(text, words[i].word))
            return words[i].choice;
    return text;
}

static bool is_choice(const char *choices, const char *text)
{
    slr_str rest = slr_str_of(choices), one;

    while (slr_str_next(&rest, '|', &one))
        if (slr_str_eq(one, text))
            return true;
    return false;
}

/* Reads `text` by the row's rules into v->i and v->r; v->text stays. */
static bool parse(const slr_option_row *row, const char *text, value *v)
{
    switch (row->type) {
    case SLR_OPT_INT:
        if (!slr_parse_i64(text, &v->i))
            return false;
        v->r = (double)v->i;
        return in_range(row, v->r);
    case SLR_OPT_REAL:
        return parse_number(text, &v->r) && in_range(row, v->r);
    case SLR_OPT_BOOL:
        return parse_bool(text, &v->i);
    default:
        return !row->choices || is_choice(row->choices, text);
    }
}

/* One spelling per value, whoever set it: Python's, as kohya's metadata has it. */
static const char *spell(const slr_option_row *row, const value *v, const char *text, char out[32])
{
    switch (row->type) {
    case SLR_OPT_INT:
        snprintf(out, 32, "%lld", (long long)v->i);
        return out;
    case SLR_OPT_REAL:
        slr_real_repr(v->r, out);
        return out;
    case SLR_OPT_BOOL:
        return v->i ? "true" : "false";
    default:
        return text;
    }
}

int slr_options_set_text(sdlora_options *o, const char *name, const char *v)
{
    const slr_option_row *row;
    value *slot, fresh = {.given = true};
    char spelt[32];

    slr_require(o && name);
    row = find(o->first, o->count, name);
    if (!row)
        return unknown_name(o, name);
    slot = &o->values[row - o->first];
    if (!v) { /* back to the default */
        slr_free(o->m, slot->text);
        *slot = (value){0};
        return SDLORA_OK;
    }
    v = choice_of(row, v);
    if (!parse(row, v, &fresh))
        return bad_value(row, v);
    fresh.text = slr_strdup(o->m, spell(row, &fresh, v, spelt));
    if (!fresh.text)
        return SDLORA_ENOMEM;
    slr_free(o->m, slot->text);
    *slot = fresh;
    return SDLORA_OK;
}

int slr_options_set_int(sdlora_options *o, const char *name, int64_t v)
{
    char text[32];

    snprintf(text, sizeof text, "%lld", (long long)v);
    return slr_options_set_text(o, name, text);
}

int slr_options_set_real(sdlora_options *o, const char *name, double v)
{
    const slr_option_row *row;
    char text[32];

    slr_require(o && name);
    row = find(o->first, o->count, name);
    if (row && row->type == SLR_OPT_INT && v == floor(v) && fabs(v) < 0x1p53)
        return slr_options_set_int(o, name, (int64_t)v); /* Lua knows one kind of number */
    slr_real_repr(v, text);
    return slr_options_set_text(o, name, text);
}

/* --- reading --------------------------------------------------------------------------------- */

/* The value that holds: the caller's, or the row's default (text borrowed from the row). */
static value look(slr_opt o, const char *name, bool *has)
{
    const slr_option_row *row =
        o.o ? find(o.o->first, o.o->count, name) : slr_option_find(o.kind, name);
    value v = {0};

    *has = false;
    if (!row)
        return v;
    if (o.o && o.o->values[row - o.o->first].given) {
        *has = true;
        return o.o->values[row - o.o->first];
    }
    if (!row->def)
        return v;
    *has = true;
    parse(row, row->def, &v);
    v.text = (char *)(uintptr_t)row->def; /* only ever handed out as const */
    return v;
}

bool slr_opt_given(slr_opt o, const char *name)
{
    bool has;

    return o.o && look(o, name, &has).given;
}

bool slr_opt_has(slr_opt o, const char *name)
{
    bool has;

    look(o, name, &has);
    return has;
}

int64_t slr_opt_int(slr_opt o, const char *name)
{
    bool has;

    return look(o, name, &has).i;
}

double slr_opt_real(slr_opt o, const char *name)
{
    bool has;

    return look(o, name, &has).r;
}

bool slr_opt_bool(slr_opt o, const char *name)
{
    bool has;

    return look(o, name, &has).i != 0;
}

const char *slr_opt_text(slr_opt o, const char *name)
{
    bool has;

    return look(o, name, &has).text;
}

int slr_opt_check_supported(slr_opt o)
{
    for (size_t i = 0; o.o && i < o.o->count; i++) {
        const slr_option_row *row = &o.o->first[i];
        const value *v = &o.o->values[i];

        if (v->given && slr_ends(row->help, "(not supported yet)") &&
            strcmp(v->text, row->def ? row->def : "") != 0)
            return slr_fail(SDLORA_ENOTSUP, __func__, "%s = '%.200s' is not supported yet",
                            row->name, v->text);
    }
    return SDLORA_OK;
}
