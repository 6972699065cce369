/* SPDX-License-Identifier: MIT */
/* Brackets are paired by one pass with a stack.  A pair that is no element of the grammar, or that
 * lacks its partner, is text, and so is every bracket that is open around it; elements within
 * stay.  A bar outside an alternative, or a backslash with nothing behind it, makes all of it text:
 * that is what AUTOMATIC1111's parser does with what it cannot read. */
#include "sample/edit.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "sample/letters.h"

enum { LITERAL = 0, EMPHASISED, SCHEDULED, ALTERNATE };

/* A bracket, a colon, a bar, or a run of other characters. */
typedef struct token {
    uint32_t at, n; /* bytes */
    uint32_t close; /* of an element's bracket or separator: its closing bracket */
    uint32_t next; /* of an element's opening bracket or separator: the next of them; of its closing
                      bracket: the opening one */
    int32_t value; /* of '[': the step of SCHEDULED, the number of options of ALTERNATE */
    char c;        /* 0: a run */
    unsigned char role;
} token;

/* An open bracket. */
typedef struct frame {
    uint32_t open, last; /* the bracket and its last separator so far, or itself */
    uint32_t colons, bars;
} frame;

struct slr_edit {
    slr_mem *m;
    const char *text;
    size_t n_text;
    slr_script_config config;
    token *at;
    size_t n, cap;
    frame *open;
    size_t n_open, open_cap;
    int steps;
    bool *ends; /* [steps + 1] */
    bool plain; /* all of it is text */
};

/* --- numbers --- */

/* Length of a number as the grammar spells it ("3", "0.25", ".5", "5.", "1e1", signs), or 0. */
static size_t number_length(const char *p, size_t n, bool *dot)
{
    size_t i = n && (*p == '-' || *p == '+'), whole = 0, part = 0;
    *dot = false;
    for (; i < n && p[i] >= '0' && p[i] <= '9'; i++)
        whole++;
    if (i < n && p[i] == '.') {
        *dot = true;
        for (i++; i < n && p[i] >= '0' && p[i] <= '9'; i++)
            part++;
    }
    if (!whole && !part)
        return 0;
    if (i + 1 >= n || (p[i] != 'e' && p[i] != 'E'))
        return i;
    size_t e = i + 1;
    if (p[e] == '-' || p[e] == '+')
        e++;
    size_t digits = e;
    while (e < n && p[e] >= '0' && p[e] <= '9')
        e++;
    return e > digits ? e : i;
}

/* The step behind which a number switches, at most the last one. */
static int switch_step(const slr_edit *e, double v, bool dot)
{
    const slr_script_config *c = &e->config;
    bool second = c->hires_steps > 0 && !c->old;
    if (c->old)
        v = v < 1 ? v * e->steps : v;
    else if (dot)
        v = (v - (second ? 1.0 : 0.0)) * e->steps;
    else
        v -= second ? c->steps : 0;
    return v >= e->steps ? e->steps : v < 1 ? 0 : (int)v;
}

/* Whether a run of text is a number with white space around it. */
static bool read_step(const slr_edit *e, const token *t, int *step)
{
    const char *p = e->text + t->at;
    char copy[64];
    double v;
    bool dot;
    size_t n = t->n, space;
    while ((space = slr_space_at(p, n)) > 0) {
        p += space;
        n -= space;
    }
    n = slr_space_trim_end(p, n);
    if (!n || n >= sizeof copy || number_length(p, n, &dot) != n)
        return false;
    memcpy(copy, p, n);
    copy[n] = '\0';
    if (!slr_parse_real(copy + (*copy == '+'), &v))
        v = *copy == '-' ? -INFINITY : INFINITY; /* out of range */
    *step = switch_step(e, v, dot);
    return true;
}

/* --- reading --- */

/* Every open bracket is text after all. */
static void drop_open(slr_edit *e)
{
    for (size_t i = 0; i < e->n_open; i++)
        e->plain = e->plain || e->open[i].bars;
    e->n_open = 0;
}

static void make_element(slr_edit *e, const frame *f, uint32_t close, int role, int value)
{
    for (uint32_t i = f->open; i != close; i = e->at[i].next) {
        e->at[i].role = (unsigned char)role;
        e->at[i].close = close;
    }
    e->at[close].role = (unsigned char)role;
    e->at[close].close = close;
    e->at[close].next = f->open;
    e->at[f->open].value = value;
}

/* What the pair of the innermost open bracket and `close` is; false: text. */
static bool take_pair(slr_edit *e, const frame *f, uint32_t close)
{
    const token *number = &e->at[close - 1];
    int step;
    e->at[f->last].next = close;
    if (e->at[f->open].c == '(') {
        bool good = !f->bars && f->colons <= 1;
        if (good)
            make_element(e, f, close, EMPHASISED, 0);
        return good;
    }
    if (f->bars) {
        if (f->colons)
            return false;
        make_element(e, f, close, ALTERNATE, (int)f->bars + 1);
        return true;
    }
    if (!f->colons) {
        make_element(e, f, close, EMPHASISED, 0);
        return true;
    }
    if (f->colons > 2 || f->last + 1 != close - 1 || number->c || !read_step(e, number, &step))
        return false;
    make_element(e, f, close, SCHEDULED, step);
    return true;
}

static int open_bracket(slr_edit *e, uint32_t i)
{
    SLR_TRY(slr_grow(e->m, &e->open, &e->open_cap, e->n_open + 1, sizeof *e->open));
    e->open[e->n_open++] = (frame){.open = i, .last = i};
    return SDLORA_OK;
}

static void close_bracket(slr_edit *e, uint32_t i)
{
    const frame *f = e->n_open ? &e->open[e->n_open - 1] : NULL;
    if (!f)
        return;
    bool pair = (e->at[f->open].c == '(') == (e->at[i].c == ')');
    if (pair && take_pair(e, f, i))
        e->n_open--;
    else
        drop_open(e);
}

static void separate(slr_edit *e, uint32_t i)
{
    frame *f = e->n_open ? &e->open[e->n_open - 1] : NULL;
    bool bar = e->at[i].c == '|';
    if (!f) {
        e->plain = e->plain || bar;
        return;
    }
    f->bars += bar;
    f->colons += !bar;
    e->at[f->last].next = i;
    f->last = i;
}

/* Length of the run of other characters at p; `n`: to the text's end. */
static size_t run_length(slr_edit *e, const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && !strchr("()[]:|", p[i])) {
        if (p[i] == '\\' && (i + 1 == n || p[i + 1] == '\n')) {
            e->plain = true;
            return n;
        }
        i += p[i] == '\\' ? 2 : 1;
    }
    return i;
}

static int read_all(slr_edit *e, size_t *work)
{
    for (size_t i = 0; i < e->n_text && !e->plain;) {
        const char *p = e->text + i;
        bool run = !strchr("()[]:|", *p);
        size_t n = run ? run_length(e, p, e->n_text - i) : 1;
        uint32_t k = (uint32_t)e->n;
        SLR_TRY(slr_grow(e->m, &e->at, &e->cap, e->n + 1, sizeof *e->at));
        e->at[e->n++] = (token){.at = (uint32_t)i, .n = (uint32_t)n, .c = (char)(run ? 0 : *p)};
        if (!run && (*p == '(' || *p == '['))
            SLR_TRY(open_bracket(e, k));
        else if (!run && (*p == ')' || *p == ']'))
            close_bracket(e, k);
        else if (!run)
            separate(e, k);
        i += n;
        *work += 1 + n;
    }
    drop_open(e);
    return SDLORA_OK;
}

static void make_text(slr_edit *e, uint32_t open, uint32_t close)
{
    for (uint32_t i = open; i != close; i = e->at[i].next)
        e->at[i].role = LITERAL;
    e->at[close].role = LITERAL;
}

/* How many elements but alternatives end with the bracket at i, one around the other. */
static size_t nested_ends(const slr_edit *e, size_t i)
{
    size_t n = 0;
    while (e->at[i - n].role != LITERAL && e->at[i - n].role != ALTERNATE &&
           e->at[i - n].close == i - n)
        n++;
    return n;
}

/* Stray brackets and colons behind an element make two readings of the text, and the original's
 * parser does not always take the one with the element: seen from the end, elements that end one
 * around the other are text where their closing brackets and all that stands behind them without a
 * word between, stray characters among it, are an odd number together.  (Found by trying: of 3700
 * drawn texts one disagrees.)  Alternatives always stay, since bars would be no text. */
static void open_elements(slr_edit *e, size_t *work)
{
    size_t run = 0; /* stray characters behind the token at hand */
    for (size_t i = e->n; i-- > 0; ++*work) {
        const token *t = &e->at[i];
        if (t->role != LITERAL) {
            size_t n = run ? nested_ends(e, i) : 0;
            bool empty = n && e->at[i + 1 - n].next == i - n; /* "()", which is text either way */
            *work += n;
            if (!n || (!empty && (run + n) % 2 == 0)) {
                i = t->next; /* to where the element begins */
                run = 0;
                continue;
            }
            for (size_t k = 0; k < n; k++)
                make_text(e, e->at[i - k].next, (uint32_t)(i - k));
        }
        run = t->c ? run + 1 : 0;
    }
}

/* The steps behind which texts change; where nothing changes, all of it is text. */
static void mark_ends(slr_edit *e)
{
    bool edited = false, turns = false;
    for (size_t i = 0; i < e->n && !e->plain; i++) {
        const token *t = &e->at[i];
        if (t->c == '[' && t->role == SCHEDULED && t->value >= 1)
            e->ends[t->value] = true;
        turns = turns || t->role == ALTERNATE;
        edited = edited || t->role >= SCHEDULED;
    }
    if (turns)
        memset(e->ends + 1, true, (size_t)e->steps * sizeof *e->ends);
    e->plain = !edited;
    e->ends[e->steps] = true;
}

int slr_edit_new(slr_edit **out, slr_mem *m, const char *text, size_t n, const slr_script_config *c,
                 size_t *work)
{
    *out = NULL;
    if (n > INT32_MAX)
        return slr_fail(SDLORA_EINVAL, __func__, "a prompt of %zu bytes is too long", n);
    slr_edit *e = slr_calloc(m, 1, sizeof *e);
    if (!e)
        return SDLORA_ENOMEM;
    *e = (slr_edit){.m = m, .text = text, .n_text = n, .config = *c};
    e->steps = c->hires_steps > 0 && !c->old ? c->hires_steps : c->steps;
    e->ends = slr_calloc(m, (size_t)e->steps + 1, sizeof *e->ends);
    int rc = e->ends ? SDLORA_OK : SDLORA_ENOMEM;
    e->plain = !memchr(text, '[', n); /* nothing is edited without one */
    *work += n;
    if (rc >= 0)
        rc = read_all(e, work);
    if (rc < 0) {
        slr_edit_free(e);
        return rc;
    }
    open_elements(e, work);
    mark_ends(e);
    *out = e;
    return SDLORA_OK;
}

void slr_edit_free(slr_edit *e)
{
    if (!e)
        return;
    slr_free(e->m, e->at);
    slr_free(e->m, e->open);
    slr_free(e->m, e->ends);
    slr_free(e->m, e);
}

int slr_edit_steps(const slr_edit *e)
{
    return e->steps;
}

bool slr_edit_ends(const slr_edit *e, int step)
{
    return e->ends[step];
}

/* --- writing --- */

/* The token at which to go on inside an element that opens at i. */
static size_t enter(const slr_edit *e, size_t i, int step, size_t *work)
{
    const token *t = &e->at[i];
    if (t->role == SCHEDULED) {
        bool both = e->at[t->next].next != t->close; /* [before:after:n], not [after:n] */
        if (step <= t->value)
            return both ? i + 1 : t->close + 1;
        return both ? t->next + 1 : i + 1;
    }
    for (int option = (step - 1) % t->value; option > 0; option--) {
        i = e->at[i].next;
        ++*work;
    }
    return i + 1;
}

void slr_edit_render(const slr_edit *e, int step, slr_buf *out, size_t *work)
{
    if (e->plain)
        slr_buf_add(out, e->text, e->n_text);
    for (size_t i = 0; !e->plain && i < e->n;) {
        const token *t = &e->at[i];
        if (t->role == LITERAL || t->role == EMPHASISED) {
            slr_buf_add(out, e->text + t->at, t->n);
            *work += t->n;
            i++;
        } else {
            i = t->c == '[' ? enter(e, i, step, work) : t->close + 1;
        }
        ++*work;
    }
    slr_buf_puts(out, ""); /* ends the text even if nothing stands in it */
}
