/* SPDX-License-Identifier: MIT */
/* <kind:name:numbers> tags: cut out of the prompt with everything around them left in place. */
#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "sample/prompt.h"

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

/* Length of a tag that starts at p ('<'), or 0: <word:at least one character that is not '>'>.
 * last: the text's last '>'; nothing that starts behind it is a tag, so that the scan for its end
 * always finds one.  *work grows by what is read in vain. */
static size_t tag_length(const char *p, const char *last, size_t *colon, size_t *work)
{
    size_t i = 1;
    if (!last || p > last)
        return 0;
    while (word_char(p[i]))
        i++;
    *work += i;
    if (i == 1 || p[i] != ':')
        return 0;
    *colon = i++;
    size_t body = i;
    while (p[i] != '>')
        i++;
    return i > body ? i + 1 : 0;
}

/* Numbers of a tag: te, unet, dyn by position, and by name, which wins. */
enum { TE = 1, UNET, DYN, N_NUMBERS };
typedef struct numbers {
    double value[2][N_NUMBERS]; /* [by name] */
    bool given[2][N_NUMBERS];
    int positions; /* seen so far */
} numbers;

static bool read_number(slr_str text, int which, double *value)
{
    char copy[64];
    text = slr_str_trim(text);
    if (text.n >= sizeof copy)
        return false;
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    if (!slr_parse_real(copy, value) || !isfinite(*value))
        return false;
    return which != DYN || (*value >= 0 && *value <= INT32_MAX && *value == floor(*value));
}

/* One item behind the name; false when it is to be a number and is none. */
static bool take_number(numbers *n, slr_str item)
{
    static const char *const names[N_NUMBERS] = {[TE] = "te", [UNET] = "unet", [DYN] = "dyn"};
    const char *eq = memchr(item.p, '=', item.n);
    int which = N_NUMBERS;
    if (eq) {
        slr_str key = {item.p, (size_t)(eq - item.p)};
        for (int i = TE; i < N_NUMBERS; i++)
            if (slr_str_eq(key, names[i]))
                which = i;
        item = (slr_str){eq + 1, item.n - key.n - 1};
    } else if (n->positions < DYN) {
        which = ++n->positions;
    }
    if (which == N_NUMBERS)
        return true; /* nobody asks for it */
    n->given[eq != NULL][which] = true;
    return read_number(item, which, &n->value[eq != NULL][which]);
}

/* "lbw=" and 12, 17, 20 or 26 numbers, as the extension that is called so takes them.  0: it is
 * another item; negative: the numbers are not in order. */
static int take_blocks(slr_prompt_tag *tag, slr_str item)
{
    static const char key[] = "lbw=";
    enum { KEY = sizeof key - 1 };
    char text[1024];
    if (item.n < KEY || memcmp(item.p, key, KEY) || item.n - KEY >= sizeof text)
        return 0;
    memcpy(text, item.p + KEY, item.n - KEY);
    text[item.n - KEY] = '\0';
    if (slr_blocks_parse(&tag->blocks, text) >= 0)
        return 1;
    slr_clear(); /* the tag will be named as bad */
    tag->blocks.n = 0;
    return -1;
}

static double number_or(const numbers *n, int which, double otherwise)
{
    return n->given[1][which]   ? n->value[1][which]
           : n->given[0][which] ? n->value[0][which]
                                : otherwise;
}

static int parse_tag(slr_prompt_tags *out, const char *p, size_t colon, size_t length)
{
    SLR_TRY(slr_grow(out->m, &out->tag, &out->cap, out->n + 1, sizeof *out->tag));
    slr_prompt_tag *tag = &out->tag[out->n++];
    *tag = (slr_prompt_tag){0};
    slr_str rest = {p + colon + 1, length - colon - 2}, item;
    numbers n = {0};
    tag->kind = slr_strndup(out->m, p + 1, colon - 1);
    slr_str_next(&rest, ':', &item);
    tag->name = slr_strndup(out->m, item.p, item.n);
    if (!tag->kind || !tag->name)
        return SDLORA_ENOMEM;
    while (!tag->bad && slr_str_next(&rest, ':', &item)) {
        int blocks = take_blocks(tag, item);
        bool good = blocks > 0 || (blocks == 0 && take_number(&n, item));
        if (!good && !(tag->bad = slr_strndup(out->m, item.p, item.n)))
            return SDLORA_ENOMEM;
    }
    tag->te = number_or(&n, TE, 1.0);
    tag->unet = number_or(&n, UNET, tag->te);
    tag->dyn = (int)number_or(&n, DYN, 0);
    return SDLORA_OK;
}

int slr_prompt_cut_tags(slr_prompt_tags *out, slr_mem *m, const char *prompt)
{
    slr_buf text;
    const char *last = strrchr(prompt, '>');
    slr_buf_init(&text, m);
    *out = (slr_prompt_tags){.m = m};
    int rc = SDLORA_OK;
    for (const char *p = prompt; rc >= 0 && *p;) {
        size_t colon, n = *p == '<' ? tag_length(p, last, &colon, &out->work) : 0;
        if (n) {
            rc = parse_tag(out, p, colon, n);
        } else { /* up to where the next one may begin */
            n = 1 + strcspn(p + 1, "<");
            slr_buf_add(&text, p, n);
        }
        p += n;
        out->work += n;
    }
    slr_buf_puts(&text, "");
    if (rc >= 0)
        rc = slr_buf_ok(&text);
    if (rc < 0) {
        slr_buf_free(&text);
        slr_prompt_tags_free(out);
        return rc;
    }
    out->text = slr_buf_take(&text);
    return SDLORA_OK;
}

void slr_prompt_tags_free(slr_prompt_tags *t)
{
    for (size_t i = 0; i < t->n; i++) {
        slr_free(t->m, t->tag[i].kind);
        slr_free(t->m, t->tag[i].name);
        slr_free(t->m, t->tag[i].bad);
    }
    slr_free(t->m, t->tag);
    slr_free(t->m, t->text);
    *t = (slr_prompt_tags){0};
}
