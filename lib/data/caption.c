/* SPDX-License-Identifier: MIT */
/* What happens to a caption between its file and the tokenizer, in the order of kohya's trainers.
 * Every chance comes from the caller's stream, so that a draw is a function of its address.
 * Refuses to know tokens and weights: "(cat:1.2)" is text here. */
#include "data/caption.h"

#include <math.h>
#include <string.h>
#include <utf8proc.h>

#include "base/status.h"
#include "io/file.h"

#define CAPTION_BYTES (1u << 20) /* of a file; longer ones are no captions */

/* --- reading --- */

static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

slr_str slr_caption_strip(slr_str s)
{
    uint32_t c;
    while (s.n > 0) {
        size_t n = slr_utf8_next(s.p, s.n, &c);
        if (!is_space(c))
            break;
        s.p += n;
        s.n -= n;
    }
    while (s.n > 0) {
        size_t at = s.n - 1;
        while (at > 0 && ((unsigned char)s.p[at] & 0xC0) == 0x80)
            at--;
        slr_utf8_next(s.p + at, s.n - at, &c);
        if (!is_space(c))
            break;
        s.n = at;
    }
    return s;
}

/* The next line of *rest; "\n", "\r\n" and "\r" end one. */
static bool next_line(slr_str *rest, slr_str *line)
{
    if (rest->n == 0)
        return false;
    size_t n = 0;
    while (n < rest->n && rest->p[n] != '\n' && rest->p[n] != '\r')
        n++;
    *line = (slr_str){rest->p, n};
    if (n + 1 < rest->n && rest->p[n] == '\r' && rest->p[n + 1] == '\n')
        n++;
    n += n < rest->n;
    rest->p += n;
    rest->n -= n;
    return true;
}

static int check_text(const char *path, const char *bytes, size_t n)
{
    size_t good = slr_utf8_valid(bytes, n), line = 1;
    if (n >= 2 && (!memcmp(bytes, "\xFF\xFE", 2) || !memcmp(bytes, "\xFE\xFF", 2)))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: this caption is UTF-16: save it as UTF-8",
                        path);
    if (memchr(bytes, '\0', n))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: this caption has a zero byte: no text",
                        path);
    for (size_t i = 0; i < good; i++)
        line += bytes[i] == '\n';
    if (good < n)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: this caption is not UTF-8 (byte 0x%02x in line %zu): save it as UTF-8",
                        path, (unsigned char)bytes[good], line);
    return SDLORA_OK;
}

int slr_caption_read(char **out, slr_mem *m, const char *path, bool wildcard)
{
    void *bytes;
    size_t n;
    slr_str line;
    slr_buf text;
    *out = NULL;
    SLR_TRY(slr_file_read(m, path, CAPTION_BYTES, &bytes, &n));
    int rc = check_text(path, bytes, n);
    slr_str rest = {bytes, n};
    if (n >= 3 && !memcmp(bytes, "\xEF\xBB\xBF", 3))
        rest = (slr_str){rest.p + 3, n - 3};
    slr_buf_init(&text, m);
    slr_buf_add(&text, "", 0);
    while (rc == 0 && next_line(&rest, &line)) {
        line = slr_caption_strip(line);
        if (wildcard && line.n == 0)
            continue;
        if (text.len > 0)
            slr_buf_putc(&text, '\n');
        slr_buf_add(&text, line.p, line.n);
        if (!wildcard)
            break;
    }
    slr_free(m, bytes);
    if (rc == 0)
        rc = slr_buf_ok(&text);
    if (rc == 0 && !(*out = text.data ? slr_buf_take(&text) : slr_strdup(m, "")))
        rc = SDLORA_ENOMEM;
    slr_buf_free(&text);
    return rc;
}

void slr_caption_lower(slr_buf *out, slr_str s)
{
    uint32_t c;
    for (size_t n, i = 0; i < s.n; i += n) {
        char text[4];
        n = slr_utf8_next(s.p + i, s.n - i, &c);
        if (c == 0x130) { /* the one letter whose lower case is two */
            slr_buf_puts(out, "i\xCC\x87");
            continue;
        }
        slr_buf_add(out, text, slr_utf8_put(text, (uint32_t)utf8proc_tolower((int32_t)c)));
    }
}

/* --- rule --- */

static const char *text_or_empty(slr_opt o, const char *name)
{
    const char *text = slr_opt_text(o, name);
    return text ? text : "";
}

int slr_caption_rule_new(slr_caption_rule *r, slr_opt o, int64_t max_steps)
{
    double warmup = slr_opt_real(o, "token_warmup_step");
    *r = (slr_caption_rule){
        .prefix = text_or_empty(o, "caption_prefix"),
        .suffix = text_or_empty(o, "caption_suffix"),
        .separator = text_or_empty(o, "caption_separator"),
        .secondary = text_or_empty(o, "secondary_separator"),
        .keep_separator = text_or_empty(o, "keep_tokens_separator"),
        .wildcard = slr_opt_bool(o, "enable_wildcard"),
        .shuffle = slr_opt_bool(o, "shuffle_caption"),
        .keep_tokens = slr_opt_int(o, "keep_tokens"),
        .drop_every = slr_opt_int(o, "caption_dropout_every_n_epochs"),
        .warmup_min = slr_opt_int(o, "token_warmup_min"),
        .warmup_steps = warmup,
        .drop_rate = slr_opt_real(o, "caption_dropout_rate"),
        .tag_drop_rate = slr_opt_real(o, "caption_tag_dropout_rate"),
    };
    const char *const text[] = {r->prefix, r->suffix, r->separator, r->secondary,
                                r->keep_separator};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        if (slr_utf8_valid(text[i], strlen(text[i])) < strlen(text[i]))
            return slr_fail(SDLORA_EINVAL, __func__, "a caption option is not UTF-8: \"%s\"",
                            text[i]);
    if (!*r->separator)
        return slr_fail(SDLORA_EINVAL, __func__, "caption_separator must not be empty");
    if (warmup > 0 && warmup < 1) {
        if (max_steps <= 0)
            return slr_fail(SDLORA_EINVAL, __func__,
                            "token_warmup_step %g is a share of all steps, whose number is not "
                            "known here: give a number of steps",
                            warmup);
        r->warmup_steps = floor(warmup * (double)max_steps);
    }
    return SDLORA_OK;
}

/* --- wildcards --- */

/* Doubled braces stand for themselves; these bytes never occur in UTF-8. */
#define OPEN  '\xFE'
#define CLOSE '\xFF'

static void hide_braces(slr_buf *out, slr_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        bool twice = i + 1 < s.n && s.p[i] == s.p[i + 1];
        if (twice && (s.p[i] == '{' || s.p[i] == '}')) {
            slr_buf_putc(out, s.p[i] == '{' ? OPEN : CLOSE);
            i++;
        } else {
            slr_buf_putc(out, s.p[i]);
        }
    }
}

static slr_str pick(slr_str list, char separator, slr_rng *rng)
{
    uint64_t n = 1;
    for (size_t i = 0; i < list.n; i++)
        n += list.p[i] == separator;
    uint64_t skip = slr_rng_below(rng, n);
    size_t from = 0, to;
    for (; skip > 0; from++)
        skip -= list.p[from] == separator;
    for (to = from; to < list.n && list.p[to] != separator;)
        to++;
    return (slr_str){list.p + from, to - from};
}

/* Each {a|b|c} to one of its choices; a choice may hold "{" but no "}". */
static void choose(slr_buf *out, slr_str s, slr_rng *rng)
{
    bool closed = true; /* a "}" may still come: asked once, so that time stays linear */
    for (size_t i = 0; i < s.n; i++) {
        const char *end = s.p[i] == '{' && closed ? memchr(s.p + i, '}', s.n - i) : NULL;
        closed = closed && (s.p[i] != '{' || end);
        size_t inside = end ? (size_t)(end - (s.p + i)) - 1 : 0;
        if (inside > 0) {
            slr_str one = pick((slr_str){s.p + i + 1, inside}, '|', rng);
            slr_buf_add(out, one.p, one.n);
            i += inside + 1;
        } else {
            slr_buf_putc(out, s.p[i]);
        }
    }
}

static void wildcards(slr_mem *m, slr_str s, slr_rng *rng, slr_buf *out)
{
    slr_buf hidden, chosen;
    slr_buf_init(&hidden, m);
    slr_buf_init(&chosen, m);
    hide_braces(&hidden, pick(s, '\n', rng));
    choose(&chosen, (slr_str){hidden.data, hidden.len}, rng);
    for (size_t i = 0; i < chosen.len; i++) {
        char c = chosen.data[i];
        slr_buf_putc(out, (char)(c == OPEN ? '{' : c == CLOSE ? '}' : c));
    }
    if (slr_buf_ok(&hidden) < 0 || slr_buf_ok(&chosen) < 0)
        out->error = SDLORA_ENOMEM;
    slr_buf_free(&hidden);
    slr_buf_free(&chosen);
}

/* --- tags --- */

typedef struct tags {
    slr_mem *m;
    slr_str *tag;
    size_t n, cap;
} tags;

static const char *find(slr_str s, const char *part)
{
    size_t n = strlen(part);
    return n > 0 && n <= s.n ? memmem(s.p, s.n, part, n) : NULL;
}

static int split(tags *t, slr_str s, const char *separator, bool keep_empty)
{
    for (;;) {
        const char *at = find(s, separator);
        slr_str one = slr_caption_strip((slr_str){s.p, at ? (size_t)(at - s.p) : s.n});
        if (one.n > 0 || keep_empty) {
            SLR_TRY(slr_grow(t->m, &t->tag, &t->cap, t->n + 1, sizeof *t->tag));
            t->tag[t->n++] = one;
        }
        if (!at)
            return SDLORA_OK;
        size_t used = (size_t)(at - s.p) + strlen(separator);
        s = (slr_str){s.p + used, s.n - used};
    }
}

/* Fills t with all tags: [0,*fixed) stay in front, [*flex,n) stay behind. */
static int divide(const slr_caption_rule *r, slr_str s, tags *t, size_t *fixed, size_t *flex)
{
    const char *at = find(s, r->keep_separator);
    if (!at) {
        SLR_TRY(split(t, slr_caption_strip(s), r->separator, true));
        *fixed = r->keep_tokens < (int64_t)t->n ? (size_t)r->keep_tokens : t->n;
        *flex = t->n;
        return SDLORA_OK;
    }
    size_t mark = strlen(r->keep_separator), head = (size_t)(at - s.p);
    slr_str rest = {at + mark, s.n - head - mark}, middle = rest;
    const char *second = find(rest, r->keep_separator);
    if (second)
        middle.n = (size_t)(second - rest.p);
    SLR_TRY(split(t, (slr_str){s.p, head}, r->separator, false));
    *fixed = t->n;
    SLR_TRY(split(t, middle, r->separator, false));
    *flex = t->n;
    if (second)
        SLR_TRY(split(t, (slr_str){second + mark, rest.n - middle.n - mark}, r->separator, false));
    return SDLORA_OK;
}

/* How many of n flexible tags are in use at this step. */
static size_t warm(const slr_caption_rule *r, size_t n, int64_t step)
{
    if (r->warmup_steps <= 0 || (double)step >= r->warmup_steps)
        return n;
    double part = ((double)n - (double)r->warmup_min) / r->warmup_steps;
    double use = floor((double)step * part) + (double)r->warmup_min;
    return use < 0 ? 0 : use < (double)n ? (size_t)use : n;
}

static void put_tag(slr_buf *out, bool *any, slr_str tag)
{
    if (*any)
        slr_buf_puts(out, ", ");
    slr_buf_add(out, tag.p, tag.n);
    *any = true;
}

static int arrange(const slr_caption_rule *r, slr_mem *m, slr_str s, slr_rng *rng, int64_t step,
                   slr_buf *out)
{
    tags t = {.m = m};
    size_t fixed = 0, flex = 0;
    bool any = false;
    int rc = divide(r, s, &t, &fixed, &flex);
    if (rc == 0) {
        size_t use = warm(r, flex - fixed, step);
        if (r->shuffle)
            slr_rng_shuffle(rng, t.tag + fixed, use, sizeof *t.tag);
        for (size_t i = 0; i < t.n; i++) {
            bool loose = i >= fixed && i < flex;
            if (loose && i - fixed >= use)
                continue;
            if (loose && r->tag_drop_rate > 0 && slr_rng_real(rng) < r->tag_drop_rate)
                continue;
            put_tag(out, &any, t.tag[i]);
        }
        rc = slr_buf_ok(out);
    }
    slr_free(m, t.tag);
    return rc;
}

/* --- a draw --- */

static void replace(slr_buf *out, slr_str s, const char *from, const char *to)
{
    for (const char *at; (at = find(s, from)) != NULL;) {
        size_t head = (size_t)(at - s.p), used = head + strlen(from);
        slr_buf_add(out, s.p, head);
        slr_buf_puts(out, to);
        s = (slr_str){s.p + used, s.n - used};
    }
    slr_buf_add(out, s.p, s.n);
}

static bool dropped(const slr_caption_rule *r, slr_rng *rng, int64_t epoch)
{
    if (r->drop_rate > 0 && slr_rng_real(rng) < r->drop_rate)
        return true;
    return r->drop_every > 0 && (epoch + 1) % r->drop_every == 0;
}

static int draw(const slr_caption_rule *r, slr_mem *m, const char *raw, slr_rng *rng, int64_t step,
                slr_buf work[3], slr_buf *out)
{
    slr_buf *whole = &work[0], *line = &work[1], *tagged = &work[2];
    slr_buf_printf(whole, "%s%s%s%s%s", r->prefix, *r->prefix ? " " : "", raw,
                   *r->suffix ? " " : "", r->suffix);
    SLR_TRY(slr_buf_ok(whole));
    if (r->wildcard) {
        wildcards(m, (slr_str){whole->data, whole->len}, rng, line);
    } else {
        const char *end = memchr(whole->data, '\n', whole->len);
        slr_buf_add(line, whole->data, end ? (size_t)(end - whole->data) : whole->len);
    }
    SLR_TRY(slr_buf_ok(line));
    slr_str now = {line->data, line->len};
    if (r->shuffle || r->warmup_steps > 0 || r->tag_drop_rate > 0) {
        SLR_TRY(arrange(r, m, now, rng, step, tagged));
        now = (slr_str){tagged->data, tagged->len};
    }
    replace(out, now, r->secondary, r->separator);
    return slr_buf_ok(out);
}

int slr_caption_draw(const slr_caption_rule *r, slr_mem *m, const char *raw, slr_rng *rng,
                     int64_t epoch, int64_t step, slr_buf *out)
{
    slr_buf work[3];
    slr_buf_add(out, "", 0);
    if (dropped(r, rng, epoch))
        return slr_buf_ok(out);
    for (int i = 0; i < 3; i++) {
        slr_buf_init(&work[i], m);
        slr_buf_add(&work[i], "", 0);
    }
    int rc = draw(r, m, raw, rng, step, work, out);
    for (int i = 0; i < 3; i++)
        slr_buf_free(&work[i]);
    return rc;
}
