/* SPDX-License-Identifier: MIT */
/* Reads CSV as Python's csv module does (fields in double quotes may hold line breaks and doubled
 * quotes; spaces before a field are skipped) and merges texts.  Refuses to know what prompts mean.
 */
#include "sample/styles.h"

#include <string.h>

#include "base/status.h"
#include "io/file.h"
#include "sample/letters.h"

#define MOST_FILE UINT64_C(0x4000000) /* 64 MB */
#define MOST_TEXT ((size_t)16 << 20)  /* that styles may make of a prompt */

static const char slot[] = "{prompt}";

int slr_styles_new(slr_styles *out, slr_mem *m)
{
    *out = (slr_styles){.m = m};
    int rc = slr_arena_new(&out->texts, m);
    if (rc >= 0)
        rc = slr_map_new(&out->by_name, m);
    if (rc < 0)
        slr_styles_free(out);
    return rc;
}

void slr_styles_free(slr_styles *s)
{
    slr_free(s->m, s->at);
    slr_map_free(s->by_name);
    slr_arena_free(s->texts);
    *s = (slr_styles){0};
}

/* --- CSV --- */

enum { NAME, PROMPT, NEGATIVE, OLD_PROMPT, N_COLUMNS };

typedef struct reader {
    const char *p, *end;
    slr_buf field;
} reader;

/* The next field; *last: a line ends behind it. */
static int next_field(reader *r, bool *last)
{
    bool quoted = false;
    r->field.len = 0;
    while (r->p < r->end && *r->p == ' ')
        r->p++;
    if (r->p < r->end && *r->p == '"') {
        quoted = true;
        r->p++;
    }
    for (; r->p < r->end; r->p++) {
        if (quoted && *r->p == '"') {
            if (r->p + 1 < r->end && r->p[1] == '"')
                r->p++;
            else {
                quoted = false;
                continue;
            }
        } else if (!quoted && (*r->p == ',' || *r->p == '\r' || *r->p == '\n')) {
            break;
        }
        slr_buf_putc(&r->field, *r->p);
    }
    *last = r->p >= r->end || *r->p != ',';
    if (r->p < r->end && *r->p == '\r' && r->p + 1 < r->end && r->p[1] == '\n')
        r->p++;
    r->p += r->p < r->end;
    slr_buf_puts(&r->field, "");
    return slr_buf_ok(&r->field);
}

/* A line with nothing in it is no row. */
static bool skip_empty(reader *r)
{
    if (r->p < r->end && (*r->p == '\n' || *r->p == '\r')) {
        r->p++;
        return true;
    }
    return false;
}

static int read_header(reader *r, int column[], int cap, int *n, const char *label)
{
    static const char *const names[N_COLUMNS] = {"name", "prompt", "negative_prompt", "text"};
    bool last = false, have[N_COLUMNS] = {false};
    while (skip_empty(r))
        continue;
    for (*n = 0; !last && *n < cap; ++*n) {
        SLR_TRY(next_field(r, &last));
        column[*n] = N_COLUMNS;
        for (int k = 0; k < N_COLUMNS; k++)
            if (!strcmp(r->field.data, names[k])) {
                column[*n] = k;
                have[k] = true;
            }
    }
    if (!last || !have[NAME] || (!have[PROMPT] && !have[OLD_PROMPT]))
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: the first line is to be name,prompt,negative_prompt", label);
    for (int i = 0; i < *n; i++) /* "text" was "prompt" once, and counts where that is missing */
        if (column[i] == OLD_PROMPT)
            column[i] = have[PROMPT] ? N_COLUMNS : PROMPT;
    return SDLORA_OK;
}

static int add_style(slr_styles *s, const slr_style *style)
{
    int64_t at;
    if (slr_map_get(s->by_name, style->name, &at)) {
        s->at[at] = *style;
        return SDLORA_OK;
    }
    SLR_TRY(slr_grow(s->m, &s->at, &s->cap, s->n + 1, sizeof *s->at));
    SLR_TRY(slr_map_set(s->by_name, style->name, (int64_t)s->n));
    s->at[s->n++] = *style;
    return SDLORA_OK;
}

static int read_row(slr_styles *s, reader *r, const int column[], int n)
{
    const char *text[N_COLUMNS] = {NULL};
    bool last = false;
    for (int i = 0; !last; i++) {
        SLR_TRY(next_field(r, &last));
        int k = i < n ? column[i] : N_COLUMNS;
        if (k < N_COLUMNS && !(text[k] = slr_arena_strdup(s->texts, r->field.data)))
            return SDLORA_ENOMEM;
    }
    slr_style style = {text[NAME], text[PROMPT], text[NEGATIVE]};
    if (!style.name || *style.name == '#')
        return SDLORA_OK;
    return add_style(s, &style);
}

int slr_styles_parse(slr_styles *s, const char *text, size_t n, const char *label)
{
    enum { MOST_COLUMNS = 64 };
    int column[MOST_COLUMNS], n_columns = 0;
    reader r = {.p = text, .end = text + n};
    if (slr_utf8_valid(text, n) != n || memchr(text, 0, n))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s is not UTF-8 text", label);
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
        r.p += 3;
    slr_buf_init(&r.field, s->m);
    int rc = read_header(&r, column, MOST_COLUMNS, &n_columns, label);
    while (rc >= 0 && r.p < r.end)
        if (!skip_empty(&r))
            rc = read_row(s, &r, column, n_columns);
    slr_buf_free(&r.field);
    return rc;
}

int slr_styles_read(slr_styles *s, const char *path)
{
    void *bytes;
    size_t n;
    SLR_TRY(slr_file_read(s->m, path, MOST_FILE, &bytes, &n));
    int rc = slr_styles_parse(s, bytes, n, path);
    slr_free(s->m, bytes);
    return rc;
}

int slr_styles_read_all(slr_styles *out, slr_mem *m, const char *files)
{
    slr_str rest = slr_str_of(files), one;
    int rc = slr_styles_new(out, m);
    while (rc >= 0 && slr_str_next(&rest, '\n', &one)) {
        char *path = one.n ? slr_strndup(m, one.p, one.n) : NULL;
        if (one.n)
            rc = path ? slr_styles_read(out, path) : SDLORA_ENOMEM;
        slr_free(m, path);
    }
    return rc;
}

const slr_style *slr_styles_find(const slr_styles *s, const char *name)
{
    int64_t at;
    return slr_map_get(s->by_name, name, &at) ? &s->at[at] : NULL;
}

/* --- merging --- */

static slr_str strip(const char *text)
{
    slr_str s = slr_str_of(text ? text : "");
    for (size_t step; (step = slr_space_at(s.p, s.n)) > 0;) {
        s.p += step;
        s.n -= step;
    }
    s.n = slr_space_trim_end(s.p, s.n);
    return s;
}

/* *text becomes the style with it in its place, or both with a comma between. */
static int merge(slr_mem *m, const char *style, char **text)
{
    slr_buf b;
    style = style ? style : "";
    slr_buf_init(&b, m);
    if (!strstr(style, slot)) {
        slr_str first = strip(*text), second = strip(style);
        slr_buf_add(&b, first.p, first.n);
        slr_buf_puts(&b, first.n && second.n ? ", " : "");
        slr_buf_add(&b, second.p, second.n);
    } else {
        size_t n = strlen(*text);
        for (const char *hit; (hit = strstr(style, slot)) && b.len <= MOST_TEXT;
             style = hit + sizeof slot - 1) {
            slr_buf_add(&b, style, (size_t)(hit - style));
            slr_buf_add(&b, *text, n);
        }
        slr_buf_puts(&b, style);
    }
    int rc = slr_buf_ok(&b);
    if (rc >= 0 && b.len > MOST_TEXT)
        rc = slr_fail(SDLORA_EINVAL, __func__, "styles make more than %zu MB of a prompt",
                      MOST_TEXT >> 20);
    if (rc < 0) {
        slr_buf_free(&b);
        return rc;
    }
    slr_free(m, *text);
    *text = slr_buf_take(&b);
    return SDLORA_OK;
}

static int apply_all(const slr_styles *s, const char *names, char *text[2])
{
    slr_str rest = slr_str_of(names), line;
    char name[512];
    while (slr_str_next(&rest, '\n', &line)) {
        if (!line.n)
            continue;
        size_t n = line.n < sizeof name ? line.n : sizeof name - 1;
        memcpy(name, line.p, n);
        name[n] = '\0';
        const slr_style *style = slr_styles_find(s, name);
        if (!style)
            return slr_fail(SDLORA_ENOTFOUND, __func__, "there is no style '%s' among %zu", name,
                            s->n);
        SLR_TRY(merge(s->m, style->prompt, &text[0]));
        SLR_TRY(merge(s->m, style->negative, &text[1]));
    }
    return SDLORA_OK;
}

int slr_styles_apply(const slr_styles *s, const char *names, const char *prompt,
                     const char *negative, char **out, char **out_negative)
{
    char *text[2] = {slr_strdup(s->m, prompt), slr_strdup(s->m, negative)};
    int rc = text[0] && text[1] ? apply_all(s, names, text) : SDLORA_ENOMEM;
    if (rc < 0) {
        slr_free(s->m, text[0]);
        slr_free(s->m, text[1]);
        return rc;
    }
    *out = text[0];
    *out_negative = text[1];
    return SDLORA_OK;
}

/* --- taking off --- */

static bool ends_with(slr_str s, slr_str end)
{
    return s.n >= end.n && !memcmp(s.p + s.n - end.n, end.p, end.n);
}

/* What is left of a prompt without a style's text; false: it is not in it. */
static bool take_off(const char *style, slr_str prompt, slr_str *left)
{
    slr_str whole = {prompt.p, prompt.n}, text = strip(style);
    for (size_t step; (step = slr_space_at(whole.p, whole.n)) > 0;) {
        whole.p += step;
        whole.n -= step;
    }
    whole.n = slr_space_trim_end(whole.p, whole.n);
    const char *hit = NULL;
    for (size_t i = 0; i + sizeof slot - 1 <= text.n && !hit; i++)
        if (!memcmp(text.p + i, slot, sizeof slot - 1))
            hit = text.p + i;
    if (hit) {
        slr_str before = {text.p, (size_t)(hit - text.p)};
        slr_str behind = {hit + sizeof slot - 1, text.n - before.n - (sizeof slot - 1)};
        if (whole.n < before.n || memcmp(whole.p, before.p, before.n) || !ends_with(whole, behind))
            return false;
        size_t end = whole.n - behind.n; /* both may overlap: nothing is left then */
        *left = (slr_str){whole.p + before.n, end > before.n ? end - before.n : 0};
        return true;
    }
    if (!ends_with(whole, text))
        return false;
    *left = (slr_str){whole.p, whole.n - text.n};
    if (ends_with(*left, slr_str_of(", ")))
        left->n -= 2;
    return true;
}

/* The first style, not taken yet, that is in both prompts; takes it off. */
static const slr_style *take_one(const slr_styles *s, bool *taken, slr_str text[2])
{
    for (size_t i = 0; i < s->n; i++) {
        const slr_style *style = &s->at[i];
        slr_str left[2];
        bool empty = !(style->prompt && *style->prompt) && !(style->negative && *style->negative);
        if (taken[i] || empty || !take_off(style->prompt, text[0], &left[0]) ||
            !take_off(style->negative, text[1], &left[1]))
            continue;
        taken[i] = true;
        text[0] = left[0];
        text[1] = left[1];
        return style;
    }
    return NULL;
}

int slr_styles_extract(const slr_styles *s, const char *prompt, const char *negative, char **names,
                       char **out, char **out_negative)
{
    slr_str text[2] = {slr_str_of(prompt), slr_str_of(negative)};
    const slr_style **list = slr_calloc(s->m, s->n + 1, sizeof(const slr_style *));
    bool *taken = slr_calloc(s->m, s->n + 1, sizeof *taken);
    size_t n = 0;
    slr_buf b;
    slr_buf_init(&b, s->m);
    while (list && taken && (list[n] = take_one(s, taken, text)))
        n++;
    for (size_t i = n; i > 0; i--) { /* the last one found was applied first */
        slr_buf_puts(&b, i < n ? "\n" : "");
        slr_buf_puts(&b, list[i - 1]->name);
    }
    slr_buf_puts(&b, "");
    int rc = list && taken ? slr_buf_ok(&b) : SDLORA_ENOMEM;
    slr_free(s->m, list);
    slr_free(s->m, taken);
    *out = slr_strndup(s->m, text[0].p, text[0].n);
    *out_negative = slr_strndup(s->m, text[1].p, text[1].n);
    if (rc >= 0 && *out && *out_negative) {
        *names = slr_buf_take(&b);
        return SDLORA_OK;
    }
    slr_free(s->m, *out);
    slr_free(s->m, *out_negative);
    slr_buf_free(&b);
    return SDLORA_ENOMEM;
}
