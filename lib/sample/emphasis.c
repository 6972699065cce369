/* SPDX-License-Identifier: MIT */
/* AUTOMATIC1111's emphasis grammar as one pass over the text: "(x)" 1.1, "[x]" 1/1.1, "(x:1.3)",
 * escapes, BREAK.  Linear in the text, since few brackets at once have a weight. */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "sample/letters.h"
#include "sample/prompt.h"

#define ROUND      1.1
#define SQUARE     (1 / 1.1)
#define MAX_WEIGHT 100 /* keeps products of hostile weights, and the states times them, finite */
/* Brackets open at once; deeper ones have no weight, which keeps the pass linear: 1.1^100 is beyond
 * MAX_WEIGHT anyway. */
#define MAX_DEPTH 100

/* A fragment as byte range of `text`, before merging. */
typedef struct piece {
    size_t at, n;
    double weight;
} piece;

/* Open brackets of one shape: the piece that each begins with, and how many more are open. */
typedef struct stack {
    size_t at[MAX_DEPTH];
    size_t n, deeper;
} stack;

typedef struct parser {
    slr_mem *m;
    const char *end; /* of the prompt */
    slr_buf text;    /* the literal characters of all pieces */
    piece *at;
    size_t n, cap;
    stack round, square;
    size_t work; /* pieces and bytes looked at */
} parser;

/* Whether text here gets the weight of the piece before it whatever follows. */
static bool continues(const parser *p)
{
    return p->n && p->at[p->n - 1].weight == 1.0 &&
           !(p->round.n && p->round.at[p->round.n - 1] == p->n) &&
           !(p->square.n && p->square.at[p->square.n - 1] == p->n);
}

static int add_piece(parser *p, const char *bytes, size_t n, bool is_break)
{
    if (!is_break && continues(p)) {
        p->at[p->n - 1].n += n;
    } else {
        SLR_TRY(slr_grow(p->m, &p->at, &p->cap, p->n + 1, sizeof *p->at));
        p->at[p->n++] = (piece){p->text.len, n, is_break ? -1.0 : 1.0};
    }
    slr_buf_add(&p->text, bytes, n);
    return slr_buf_ok(&p->text);
}

static void multiply(parser *p, size_t from, double factor)
{
    p->work += p->n - from;
    for (size_t i = from; i < p->n; i++)
        p->at[i].weight = fmax(-MAX_WEIGHT, fmin(MAX_WEIGHT, p->at[i].weight * factor));
}

static void open_bracket(parser *p, stack *s)
{
    if (s->n == MAX_DEPTH)
        s->deeper++;
    else
        s->at[s->n++] = p->n;
}

/* false: none is open. */
static bool close_bracket(parser *p, stack *s, double factor)
{
    if (s->deeper) {
        s->deeper--;
        return true;
    }
    if (!s->n)
        return false;
    multiply(p, s->at[--s->n], factor);
    return true;
}

static size_t skip_space(const parser *p, const char *s)
{
    size_t used = 0, step;
    while ((step = slr_space_at(s + used, (size_t)(p->end - s) - used)) > 0)
        used += step;
    return used;
}

/* Length of ":<spaces>number<spaces>)" at s, or 0. */
static size_t weight_suffix(parser *p, const char *s, double *value)
{
    char text[64];
    size_t start = 1 + skip_space(p, s + 1), i = start, n;
    if (s[i] == '+' || s[i] == '-')
        i++;
    while (s[i] == '.' || isdigit((unsigned char)s[i]))
        i++;
    n = i - start < sizeof text ? i - start : sizeof text - 1;
    memcpy(text, s + start, n);
    text[n] = '\0';
    i += skip_space(p, s + i);
    p->work += i;
    return s[i] == ')' && slr_parse_real(text + (*text == '+'), value) ? i + 1 : 0;
}

/* Plain text, cut at the word BREAK with the white space around it. */
static int add_text(parser *p, const char *s, size_t n)
{
    size_t from = 0;
    p->work += n;
    for (;;) {
        size_t at = slr_word_find(s, n, from, "BREAK");
        if (at == n)
            return add_piece(p, s + from, n - from, false);
        SLR_TRY(add_piece(p, s + from, slr_space_trim_end(s + from, at - from), false));
        SLR_TRY(add_piece(p, "BREAK", 5, true));
        from = at + 5;
        for (size_t step; (step = slr_space_at(s + from, n - from)) > 0;)
            from += step;
    }
}

/* One token of the grammar at s; *used receives its length. */
static int take_token(parser *p, const char *s, size_t *used)
{
    double weight;
    size_t n;
    *used = 1;
    switch (*s) {
    case '\\':
        if (s[1] && strchr("()[]\\", s[1])) {
            *used = 2;
            return add_piece(p, s + 1, 1, false);
        }
        return add_piece(p, s + 1, 0, false); /* a lone backslash disappears */
    case '(':
        open_bracket(p, &p->round);
        return SDLORA_OK;
    case '[':
        open_bracket(p, &p->square);
        return SDLORA_OK;
    case ':':
        n = weight_suffix(p, s, &weight);
        *used = n ? n : 1;
        return n && close_bracket(p, &p->round, weight) ? SDLORA_OK : add_text(p, s, *used);
    case ')':
        return close_bracket(p, &p->round, ROUND) ? SDLORA_OK : add_text(p, s, 1);
    case ']':
        return close_bracket(p, &p->square, SQUARE) ? SDLORA_OK : add_text(p, s, 1);
    default:
        *used = strcspn(s, "\\()[]:");
        return add_text(p, s, *used);
    }
}

/* Neighbours of exactly equal weight become one. */
static int merge(parser *p, slr_fragment **out, size_t *n)
{
    slr_fragment *f = slr_calloc(p->m, p->n, sizeof *f);
    if (!f)
        return SDLORA_ENOMEM;
    *n = 0;
    for (size_t i = 0; i < p->n;) {
        size_t k = i + 1, bytes = p->at[i].n;
        while (k < p->n && p->at[k].weight == p->at[i].weight)
            bytes += p->at[k++].n;
        f[*n] =
            (slr_fragment){slr_strndup(p->m, p->text.data + p->at[i].at, bytes), p->at[i].weight};
        if (!f[(*n)++].text) {
            slr_fragments_free(p->m, f, *n);
            return SDLORA_ENOMEM;
        }
        i = k;
    }
    *out = f;
    return SDLORA_OK;
}

/* What is open at the end closes there, the outermost brackets first. */
static void close_all(parser *p, const stack *s, double factor)
{
    for (size_t i = 0; i < s->n; i++)
        multiply(p, s->at[i], factor);
}

static int parse(parser *p, const char *prompt)
{
    for (const char *s = prompt; *s;) {
        size_t used;
        SLR_TRY(take_token(p, s, &used));
        s += used;
        p->work += used;
    }
    close_all(p, &p->round, ROUND);
    close_all(p, &p->square, SQUARE);
    if (!p->n)
        SLR_TRY(add_piece(p, "", 0, false));
    slr_buf_puts(&p->text, "");
    return slr_buf_ok(&p->text);
}

int slr_prompt_emphasis(slr_mem *m, const char *prompt, slr_fragment **out, size_t *n, size_t *work)
{
    size_t bytes = strlen(prompt), valid = slr_utf8_valid(prompt, bytes);
    *out = NULL;
    if (valid != bytes)
        return slr_fail(SDLORA_EINVAL, __func__, "the prompt is not UTF-8 at byte %zu", valid);
    parser *p = slr_calloc(m, 1, sizeof *p);
    if (!p)
        return SDLORA_ENOMEM;
    p->m = m;
    p->end = prompt + bytes;
    slr_buf_init(&p->text, m);
    int rc = parse(p, prompt);
    if (rc >= 0)
        rc = merge(p, out, n);
    if (work)
        *work = p->work;
    slr_buf_free(&p->text);
    slr_free(m, p->at);
    slr_free(m, p);
    return rc;
}

void slr_fragments_free(slr_mem *m, slr_fragment *f, size_t n)
{
    for (size_t i = 0; f && i < n; i++)
        slr_free(m, f[i].text);
    slr_free(m, f);
}
