/* SPDX-License-Identifier: MIT */
/* AUTOMATIC1111's emphasis grammar as one pass over the text (inference.md §2.5): "(x)" 1.1, "[x]"
 * 1/1.1, "(x:1.3)", escapes, BREAK.  Linear in the text, since few brackets are open at once. */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "sample/prompt.h"

#define ROUND      1.1
#define SQUARE     (1 / 1.1)
#define MAX_WEIGHT 100 /* keeps products of hostile weights, and the states times them, finite */
/* Brackets open at once; deeper ones are text, which keeps the pass linear. */
#define MAX_DEPTH 100

/* A fragment as byte range of `text`, before merging. */
typedef struct piece {
    size_t at, n;
    double weight;
} piece;

typedef struct parser {
    slr_mem *m;
    slr_buf text; /* the literal characters of all pieces */
    piece *at;
    size_t n, cap;
    size_t *round, *square;
    size_t n_round, cap_round, n_square, cap_square;
} parser;

/* Whether text here gets the weight of the piece before it whatever follows. */
static bool continues(const parser *p)
{
    return p->n && p->at[p->n - 1].weight == 1.0 &&
           !(p->n_round && p->round[p->n_round - 1] == p->n) &&
           !(p->n_square && p->square[p->n_square - 1] == p->n);
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
    for (size_t i = from; i < p->n; i++)
        p->at[i].weight = fmax(-MAX_WEIGHT, fmin(MAX_WEIGHT, p->at[i].weight * factor));
}

static int add_text(parser *p, const char *s, size_t n);

static int open_bracket(parser *p, const char *s, size_t **stack, size_t *n, size_t *cap)
{
    if (*n >= MAX_DEPTH)
        return add_text(p, s, 1);
    SLR_TRY(slr_grow(p->m, stack, cap, *n + 1, sizeof **stack));
    (*stack)[(*n)++] = p->n;
    return SDLORA_OK;
}

/* Length of ":<spaces>number<spaces>)" at s, or 0. */
static size_t weight_suffix(const char *s, double *value)
{
    size_t i = 1, k = 0;
    char text[64];
    while (isspace((unsigned char)s[i]))
        i++;
    size_t start = i;
    if (s[i] == '+' || s[i] == '-')
        i++;
    while (s[i] == '.' || isdigit((unsigned char)s[i]))
        i++;
    for (k = start; k < i && k - start < sizeof text - 1; k++)
        text[k - start] = s[k];
    text[k - start] = '\0';
    while (isspace((unsigned char)s[i]))
        i++;
    return s[i] == ')' && slr_parse_real(text[0] == '+' ? text + 1 : text, value) ? i + 1 : 0;
}

static bool word_byte(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

/* Plain text, cut at the word BREAK with the white space around it. */
static int add_text(parser *p, const char *s, size_t n)
{
    size_t from = 0;
    for (size_t i = 0; i + 5 <= n; i++) {
        if (memcmp(s + i, "BREAK", 5) || (i && word_byte(s[i - 1])) ||
            (i + 5 < n && word_byte(s[i + 5])))
            continue;
        size_t end = i;
        while (end > from && isspace((unsigned char)s[end - 1]))
            end--;
        SLR_TRY(add_piece(p, s + from, end - from, false));
        SLR_TRY(add_piece(p, "BREAK", 5, true));
        from = i + 5;
        while (from < n && isspace((unsigned char)s[from]))
            from++;
        i = from - 1;
    }
    return add_piece(p, s + from, n - from, false);
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
        return open_bracket(p, s, &p->round, &p->n_round, &p->cap_round);
    case '[':
        return open_bracket(p, s, &p->square, &p->n_square, &p->cap_square);
    case ':':
        n = weight_suffix(s, &weight);
        if (n && p->n_round) {
            multiply(p, p->round[--p->n_round], weight);
            *used = n;
            return SDLORA_OK;
        }
        *used = n ? n : 1; /* without an open bracket it is text */
        return add_text(p, s, *used);
    case ')':
        if (!p->n_round)
            return add_text(p, s, 1);
        multiply(p, p->round[--p->n_round], ROUND);
        return SDLORA_OK;
    case ']':
        if (!p->n_square)
            return add_text(p, s, 1);
        multiply(p, p->square[--p->n_square], SQUARE);
        return SDLORA_OK;
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

static int parse(parser *p, const char *prompt)
{
    for (const char *s = prompt; *s;) {
        size_t used;
        SLR_TRY(take_token(p, s, &used));
        s += used;
    }
    while (p->n_round)
        multiply(p, p->round[--p->n_round], ROUND);
    while (p->n_square)
        multiply(p, p->square[--p->n_square], SQUARE);
    if (!p->n)
        SLR_TRY(add_piece(p, "", 0, false));
    slr_buf_puts(&p->text, "");
    return slr_buf_ok(&p->text);
}

int slr_prompt_emphasis(slr_mem *m, const char *prompt, slr_fragment **out, size_t *n)
{
    parser p = {.m = m};
    slr_buf_init(&p.text, m);
    *out = NULL;
    int rc = parse(&p, prompt);
    if (rc >= 0)
        rc = merge(&p, out, n);
    slr_buf_free(&p.text);
    slr_free(m, p.at);
    slr_free(m, p.round);
    slr_free(m, p.square);
    return rc;
}

void slr_fragments_free(slr_mem *m, slr_fragment *f, size_t n)
{
    for (size_t i = 0; f && i < n; i++)
        slr_free(m, f[i].text);
    slr_free(m, f);
}
