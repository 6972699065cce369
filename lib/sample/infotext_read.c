/* SPDX-License-Identifier: MIT */
/* The grammar of the parameters text: prompt lines, negative lines, and items on the last line.  It
 * matches what AUTOMATIC1111's regular expressions match, in one pass without backtracking; letters
 * and spaces are Unicode's, as there.  What fields mean is for others. */
#include "sample/infotext.h"

#include <string.h>

#include <utf8proc.h>

#include "base/map.h"
#include "base/status.h"
#include "io/json.h"

enum { LEAST_ITEMS = 3, JSON_DEPTH = 16, MOST_BROKEN = 100 };

/* --- letters as Python's str and re see them --- */

static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static bool is_word(uint32_t c)
{
    if (c < 0x80)
        return c == '_' || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
           (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

static bool in_key(uint32_t c)
{
    return c == ' ' || c == '-' || c == '/' || is_word(c);
}

static slr_str strip(slr_str s)
{
    uint32_t c;
    while (s.n) {
        size_t k = slr_utf8_next(s.p, s.n, &c);
        if (!is_space(c))
            break;
        s = (slr_str){s.p + k, s.n - k};
    }
    while (s.n) {
        size_t k = 1;
        while (k < s.n && k < 4 && ((unsigned char)s.p[s.n - k] & 0xc0) == 0x80)
            k++;
        slr_utf8_next(s.p + s.n - k, k, &c);
        if (!is_space(c))
            break;
        s.n -= k;
    }
    return s;
}

/* --- items --- */

typedef struct item {
    slr_str key, raw;
    slr_str before; /* what stands between the last item and this one */
    int broken;     /* values of the line so far that begin as JSON and are none */
} item;

/* The end of a quoted value, behind its second quote; 0: it has none, or is empty. */
static size_t quoted_end(slr_str s)
{
    for (size_t i = 1; i < s.n; i++)
        if (s.p[i] == '\\')
            i++;
        else if (s.p[i] == '"')
            return i > 1 ? i + 1 : 0;
    return 0;
}

/* The end of a JSON object or list by its brackets; 0: they do not match. */
static size_t json_end(slr_str s)
{
    char open[JSON_DEPTH];
    size_t depth = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '"') {
            slr_str rest = {s.p + i, s.n - i};
            size_t k = rest.n > 1 && rest.p[1] == '"' ? 2 : quoted_end(rest);
            if (!k)
                return 0;
            i += k - 1;
        } else if (c == '{' || c == '[') {
            if (depth == JSON_DEPTH)
                return 0;
            open[depth++] = c;
        } else if (c == '}' || c == ']') {
            if (open[--depth] != (c == '}' ? '{' : '['))
                return 0;
            if (!depth)
                return i + 1;
        }
    }
    return 0;
}

/* The length of a value; what follows it is a comma or the end.  Whatever is not quoted, or not
 * JSON in brackets, ends at the next comma.  Each broken value costs a look at all that follows,
 * so after many of them brackets are no longer tried. */
static size_t value_end(slr_str s, int *broken)
{
    bool json = s.n && (s.p[0] == '{' || s.p[0] == '[') && *broken < MOST_BROKEN;
    size_t n = s.n && s.p[0] == '"' ? quoted_end(s) : json ? json_end(s) : 0;
    if (n && (n == s.n || s.p[n] == ','))
        return n;
    *broken += json;
    const char *comma = s.n ? memchr(s.p, ',', s.n) : NULL;
    return comma ? (size_t)(comma - s.p) : s.n;
}

/* A run of key letters that a colon follows; false: none begins before `rest` ends.  On success
 * *rest begins behind the colon. */
static bool find_key(slr_str *rest, slr_str *key)
{
    size_t i = 0;
    while (i < rest->n) {
        uint32_t c;
        size_t from = i, k = slr_utf8_next(rest->p + i, rest->n - i, &c), letters = 0;
        i += k;
        if (!is_word(c))
            continue;
        for (; i < rest->n; i += k, letters++) {
            k = slr_utf8_next(rest->p + i, rest->n - i, &c);
            if (!in_key(c))
                break;
        }
        if (letters && i < rest->n && rest->p[i] == ':') {
            *key = (slr_str){rest->p + from, i - from};
            *rest = (slr_str){rest->p + i + 1, rest->n - i - 1};
            return true;
        }
    }
    return false;
}

/* The next item of a line; out begins as zeros and goes from item to item.  False: there is none
 * left, and *rest is what is behind the last. */
static bool next_item(slr_str *rest, item *out)
{
    slr_str at = *rest;
    uint32_t c;
    if (!find_key(&at, &out->key))
        return false;
    out->before = (slr_str){rest->p, (size_t)(out->key.p - rest->p)};
    while (at.n) { /* white space before the value */
        size_t k = slr_utf8_next(at.p, at.n, &c);
        if (!is_space(c))
            break;
        at = (slr_str){at.p + k, at.n - k};
    }
    size_t n = value_end(at, &out->broken);
    out->raw = (slr_str){at.p, n};
    n += n < at.n; /* the comma */
    *rest = (slr_str){at.p + n, at.n - n};
    return true;
}

static size_t count_items(slr_str line, size_t most)
{
    item one = {0};
    size_t n = 0;
    while (n < most && next_item(&line, &one))
        n++;
    return n;
}

/* --- fields --- */

static const char *keep(slr_info *i, slr_str s)
{
    char *copy = slr_arena_alloc(i->arena, s.n + 1, 1);
    if (copy && s.n)
        memcpy(copy, s.p, s.n);
    return copy;
}

static slr_info_field *find(const slr_info *i, const char *key)
{
    int64_t at;
    return i->by_key && slr_map_get(i->by_key, key, &at) ? &i->at[at] : NULL;
}

/* The array moves inside the arena: old copies stay until it goes, which doubling keeps small. */
static int push(slr_info *i, slr_info_field f)
{
    if (!f.key || !f.value || !f.raw)
        return SDLORA_ENOMEM;
    if (i->n == i->cap) {
        size_t cap = i->cap ? 2 * i->cap : 32;
        slr_info_field *grown = slr_arena_alloc(i->arena, cap, sizeof *grown);
        if (!grown)
            return SDLORA_ENOMEM;
        if (i->n)
            memcpy(grown, i->at, i->n * sizeof *grown);
        i->at = grown;
        i->cap = cap;
    }
    if (f.key[0])
        SLR_TRY(slr_map_set(i->by_key, f.key, (int64_t)i->n));
    i->at[i->n++] = f;
    return SDLORA_OK;
}

/* A value without its quotes; one that is no JSON string stays as it is. */
static const char *unquoted(slr_info *i, slr_str raw)
{
    json_t *text = NULL;
    if (raw.n > 1 && raw.p[0] == '"' && raw.p[raw.n - 1] == '"' &&
        slr_json_parse(&text, raw.p, raw.n, "infotext") >= 0 && json_is_string(text)) {
        const char *value = keep(i, (slr_str){json_string_value(text), json_string_length(text)});
        json_decref(text);
        return value;
    }
    json_decref(text);
    slr_clear();
    return keep(i, raw);
}

/* A later item of a key replaces the value of an earlier one, in the earlier one's place; an empty
 * one does not. */
static int add_item(slr_info *i, slr_str key, slr_str raw)
{
    slr_info_field f = {keep(i, key), unquoted(i, raw), keep(i, raw), false};
    slr_info_field *old = f.key ? find(i, f.key) : NULL;
    if (!old)
        return push(i, f);
    if (!f.value || !f.raw)
        return SDLORA_ENOMEM;
    if (raw.n)
        *old = f;
    return SDLORA_OK;
}

/* Text between items: words alone are kept, commas and spaces are not. */
static int add_loose(slr_info *i, slr_str s)
{
    for (slr_str piece; slr_str_next(&s, ',', &piece);) {
        piece = strip(piece);
        if (piece.n)
            SLR_TRY(push(i, (slr_info_field){"", keep(i, piece), keep(i, piece), false}));
    }
    return SDLORA_OK;
}

static int read_items(slr_info *i, slr_str line)
{
    item one = {0};
    while (next_item(&line, &one)) {
        SLR_TRY(add_loose(i, one.before));
        SLR_TRY(add_item(i, one.key, one.raw));
    }
    return add_loose(i, line);
}

/* --- lines --- */

static bool begins(slr_str s, const char *with)
{
    size_t n = strlen(with);
    return s.n >= n && !memcmp(s.p, with, n);
}

/* Where the items' line begins in the stripped text: the last line, or else the last that begins
 * with "Steps: ", which has lines of other programs behind it.  The text's end: there is none. */
static size_t items_at(slr_str text, size_t *end)
{
    size_t at = text.n;
    *end = text.n;
    while (at && text.p[at - 1] != '\n')
        at--;
    if (count_items((slr_str){text.p + at, text.n - at}, LEAST_ITEMS) == LEAST_ITEMS)
        return at;
    while (at) {
        size_t stop = at - 1;
        for (at = stop; at && text.p[at - 1] != '\n';)
            at--;
        slr_str line = {text.p + at, stop - at};
        if (begins(line, "Steps: ") && count_items(line, LEAST_ITEMS) == LEAST_ITEMS) {
            *end = stop;
            return at;
        }
    }
    return text.n;
}

/* One field of the tail, its lines joined.  Quoted, so that it can stand among items. */
static int add_tail(slr_info *i, slr_str key, const slr_buf *value)
{
    slr_buf quoted;
    SLR_TRY(slr_buf_ok(value));
    slr_buf_init(&quoted, value->m);
    slr_json_quote(&quoted, value->data ? value->data : "", value->len, false);
    int rc = slr_buf_ok(&quoted);
    if (rc >= 0)
        rc = add_item(i, key, (slr_str){quoted.data, quoted.len});
    slr_buf_free(&quoted);
    return rc;
}

/* Lines behind the items: "Template: ..." and the lines that belong to it. */
static int read_tail(slr_info *i, slr_str tail, slr_mem *m)
{
    slr_str line, key, next, name = {0};
    slr_buf value;
    int rc = SDLORA_OK;
    slr_buf_init(&value, m);
    while (rc >= 0 && slr_str_next(&tail, '\n', &line)) {
        next = line = strip(line);
        if (find_key(&next, &key) && key.p == line.p) {
            if (name.p)
                rc = add_tail(i, name, &value);
            name = key;
            line = strip(next);
            value.len = 0;
        } else if (!name.p) {
            rc = add_loose(i, line);
        } else {
            slr_buf_putc(&value, '\n');
        }
        slr_buf_add(&value, line.p, line.n);
    }
    if (rc >= 0 && name.p)
        rc = add_tail(i, name, &value);
    slr_buf_free(&value);
    return rc;
}

static int read_prompts(slr_info *i, slr_str lines, slr_mem *m)
{
    static const char mark[] = "Negative prompt:";
    slr_buf text[2];
    slr_str line;
    int side = 0, rc;
    slr_buf_init(&text[0], m);
    slr_buf_init(&text[1], m);
    while (slr_str_next(&lines, '\n', &line)) {
        line = strip(line);
        if (begins(line, mark)) {
            side = 1;
            line = strip((slr_str){line.p + sizeof mark - 1, line.n - (sizeof mark - 1)});
        }
        if (text[side].len)
            slr_buf_putc(&text[side], '\n');
        slr_buf_add(&text[side], line.p, line.n);
    }
    rc = slr_buf_ok(&text[0]) < 0 ? SDLORA_ENOMEM : slr_buf_ok(&text[1]);
    if (rc >= 0) {
        i->prompt = keep(i, (slr_str){text[0].data, text[0].len});
        i->negative = keep(i, (slr_str){text[1].data, text[1].len});
        rc = i->prompt && i->negative ? SDLORA_OK : SDLORA_ENOMEM;
    }
    slr_buf_free(&text[0]);
    slr_buf_free(&text[1]);
    return rc;
}

int slr_info_read(slr_info *out, slr_mem *m, const char *text)
{
    slr_str all = strip(slr_str_of(text));
    size_t end, at = items_at(all, &end);
    *out = (slr_info){0};
    int rc = slr_arena_new(&out->arena, m);
    if (rc >= 0)
        rc = slr_map_new(&out->by_key, m);
    /* with items the newline before them ends the last prompt line */
    if (rc >= 0)
        rc = read_prompts(out, (slr_str){all.p, at < all.n && at ? at - 1 : at}, m);
    if (rc >= 0)
        rc = read_items(out, (slr_str){all.p + at, end - at});
    if (rc >= 0 && end < all.n)
        rc = read_tail(out, (slr_str){all.p + end + 1, all.n - end - 1}, m);
    if (rc < 0)
        slr_info_free(out);
    return rc;
}

void slr_info_free(slr_info *i)
{
    slr_map_free(i->by_key);
    slr_arena_free(i->arena);
    *i = (slr_info){0};
}

const char *slr_info_get(const slr_info *i, const char *key)
{
    const slr_info_field *f = find(i, key);
    return f ? f->value : NULL;
}

bool slr_info_size(const slr_info *i, const char *key, int64_t *w, int64_t *h)
{
    const char *value = slr_info_get(i, key), *x = value ? strchr(value, 'x') : NULL;
    char first[20];
    size_t n = x ? (size_t)(x - value) : 0;
    if (!n || n >= sizeof first || strspn(value, "0123456789") != n || !x[1] ||
        strspn(x + 1, "0123456789") != strlen(x + 1))
        return false;
    memcpy(first, value, n);
    first[n] = '\0';
    return slr_parse_i64(first, w) && slr_parse_i64(x + 1, h);
}

int slr_info_set(slr_info *i, const char *key, const char *value, bool implied)
{
    const char *copy = keep(i, slr_str_of(value));
    slr_info_field *old = find(i, key);
    if (!copy)
        return SDLORA_ENOMEM;
    if (!old)
        return push(i, (slr_info_field){keep(i, slr_str_of(key)), copy, copy, implied});
    old->value = old->raw = copy;
    old->implied = implied;
    return SDLORA_OK;
}

int slr_info_prompt_add(slr_info *i, const char *more)
{
    size_t n = strlen(i->prompt), k = strlen(more);
    char *joined = slr_arena_alloc(i->arena, n + k + 1, 1);
    if (!joined)
        return SDLORA_ENOMEM;
    memcpy(joined, i->prompt, n);
    memcpy(joined + n, more, k);
    i->prompt = joined;
    return SDLORA_OK;
}
