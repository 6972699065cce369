/* SPDX-License-Identifier: MIT */
/* AND, weights behind it, and which text stands at which step.  What brackets mean is edit.c's;
 * refuses to know tokens of text encoders. */
#include "sample/script.h"

#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "sample/edit.h"
#include "sample/letters.h"

enum { MOST_PARTS = 100 }; /* each costs an evaluation of the UNet in every step */

/* Alternatives multiply a text by the number of steps.  Nobody writes this much. */
#define MOST_TEXT (UINT64_C(256) << 20)

/* --- texts by step --- */

/* Keeps a text once; *out is borrowed from the script. */
static int keep(slr_script *s, const char *text, const char **out)
{
    int64_t at;
    if (!slr_map_get(s->texts, text, &at)) {
        at = (int64_t)slr_map_count(s->texts);
        SLR_TRY(slr_map_set(s->texts, text, at));
    }
    *out = slr_map_at(s->texts, (size_t)at, NULL);
    return SDLORA_OK;
}

static int add_text(slr_script *s, slr_script_part *p, int end, const char *text)
{
    SLR_TRY(slr_grow(s->m, &p->at, &p->cap, p->n + 1, sizeof *p->at));
    SLR_TRY(keep(s, text, &p->at[p->n].text));
    p->at[p->n++].end = end;
    return SDLORA_OK;
}

/* All texts of a part, one for each step at which one ends. */
static int add_texts(slr_script *s, slr_script_part *p, const slr_edit *e)
{
    slr_buf text;
    uint64_t total = 0;
    int rc = SDLORA_OK;
    slr_buf_init(&text, s->m);
    for (int step = 1; rc >= 0 && step <= slr_edit_steps(e); step++) {
        if (!slr_edit_ends(e, step))
            continue;
        text.len = 0;
        slr_edit_render(e, step, &text, &s->work);
        total += text.len;
        rc = slr_buf_ok(&text);
        if (rc >= 0 && total > MOST_TEXT)
            rc = slr_fail(SDLORA_EINVAL, __func__,
                          "the prompt's alternatives make more than %llu MB of text",
                          (unsigned long long)(MOST_TEXT >> 20));
        if (rc >= 0)
            rc = add_text(s, p, step, text.data);
    }
    slr_buf_free(&text);
    return rc;
}

static int add_part(slr_script *s, const char *text, size_t n, double weight,
                    const slr_script_config *c)
{
    slr_edit *e;
    if (s->n == MOST_PARTS)
        return slr_fail(SDLORA_EINVAL, __func__, "the prompt has more than %d parts between ANDs",
                        MOST_PARTS);
    SLR_TRY(slr_grow(s->m, &s->part, &s->cap, s->n + 1, sizeof *s->part));
    slr_script_part *p = &s->part[s->n++];
    *p = (slr_script_part){.weight = weight};
    SLR_TRY(slr_edit_new(&e, s->m, text, n, c, &s->work));
    int rc = add_texts(s, p, e);
    slr_edit_free(e);
    return rc;
}

/* --- AND --- */

/* "1", "1.", ".5" and "1.5" with a sign or none, and nothing else. */
static bool is_weight(const char *p, size_t n, double *out)
{
    char text[64];
    size_t i = n && (*p == '-' || *p == '+'), digits = 0, dots = 0;
    if (n >= sizeof text)
        return false;
    for (size_t k = i; k < n; k++) {
        digits += p[k] >= '0' && p[k] <= '9';
        dots += p[k] == '.';
    }
    if (!digits || dots > 1 || digits + dots + i != n)
        return false;
    memcpy(text, p, n);
    text[n] = '\0';
    return slr_parse_real(text + (*text == '+'), out);
}

/* Takes " : 1.5" off the end of a sub-prompt. */
static double take_weight(const char *p, size_t *n)
{
    double weight = 1.0;
    size_t end = slr_space_trim_end(p, *n), number = end;
    while (number > 0 && p[number - 1] && strchr("+-.0123456789", p[number - 1]))
        number--;
    size_t colon = slr_space_trim_end(p, number);
    *n = end;
    if (number < end && colon > 0 && p[colon - 1] == ':' &&
        is_weight(p + number, end - number, &weight))
        *n = slr_space_trim_end(p, colon - 1);
    return weight;
}

static int add_parts(slr_script *s, const char *prompt, const slr_script_config *c)
{
    size_t n = strlen(prompt);
    if (!c->compose)
        return add_part(s, prompt, n, 1.0, c);
    for (size_t from = 0; from <= n;) {
        size_t and = slr_word_find(prompt, n, from, "AND"), len = and-from;
        double weight = take_weight(prompt + from, &len);
        s->work += and-from;
        SLR_TRY(add_part(s, prompt + from, len, weight, c));
        if (and == n)
            break;
        from = and+3;
    }
    return SDLORA_OK;
}

int slr_script_new(slr_script *out, slr_mem *m, const char *prompt, const slr_script_config *c)
{
    size_t n = strlen(prompt), valid = slr_utf8_valid(prompt, n);
    *out = (slr_script){.m = m};
    slr_require(c->steps >= 1 && c->hires_steps >= 0);
    if (valid != n)
        return slr_fail(SDLORA_EINVAL, __func__, "the prompt is not UTF-8 at byte %zu", valid);
    int rc = slr_map_new(&out->texts, m);
    if (rc >= 0)
        rc = add_parts(out, prompt, c);
    if (rc < 0)
        slr_script_free(out);
    return rc;
}

void slr_script_free(slr_script *s)
{
    for (size_t i = 0; i < s->n; i++)
        slr_free(s->m, s->part[i].at);
    slr_free(s->m, s->part);
    slr_map_free(s->texts);
    *s = (slr_script){0};
}

const char *slr_script_text_at(const slr_script_part *p, int evaluation)
{
    size_t low = 0, high = p->n;
    while (low < high) { /* the first whose end is not passed */
        size_t mid = (low + high) / 2;
        if (evaluation <= p->at[mid].end)
            high = mid;
        else
            low = mid + 1;
    }
    return p->at[low < p->n ? low : 0].text;
}

/* --- comments --- */

/* A comment and the line break behind it become one line break; with `lines` also the one before,
 * and only comments that have their line for themselves. */
static void cut_comments(const char *p, bool lines, slr_buf *out)
{
    for (size_t i = 0; p[i];) {
        size_t hash = lines && p[i] == '\n' ? i + 1 : i;
        bool cut = p[hash] == '#' && (!lines || hash > i || i == 0);
        if (!cut) {
            size_t n = 1 + strcspn(p + i + 1, "#\n");
            slr_buf_add(out, p + i, n);
            i += n;
            continue;
        }
        i = hash + strcspn(p + hash, "\n");
        i += p[i] == '\n';
        slr_buf_putc(out, '\n');
    }
    slr_buf_puts(out, "");
}

char *slr_prompt_uncomment(slr_mem *m, const char *prompt)
{
    slr_buf lines, all;
    slr_buf_init(&lines, m);
    slr_buf_init(&all, m);
    cut_comments(prompt, true, &lines);
    if (slr_buf_ok(&lines) >= 0)
        cut_comments(lines.data, false, &all);
    int rc = slr_buf_ok(&lines) >= 0 ? slr_buf_ok(&all) : SDLORA_ENOMEM;
    slr_buf_free(&lines);
    if (rc < 0) {
        slr_buf_free(&all);
        return NULL;
    }
    return slr_buf_take(&all);
}
