/* SPDX-License-Identifier: MIT */
/* Axes that edit prompts, by plain text as AUTOMATIC1111's script does, or by their first
 * <lora:...> tag, or add styles to them. */
#include "api/grid_prompt.h"

#include <ctype.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"

/* An option's text, "" when it has none. */
static const char *text_of(sdlora_options *o, const char *name)
{
    const char *text = slr_opt_text((slr_opt){o, "generate"}, name);

    return text ? text : "";
}

/* Puts what b holds into the option; ends b. */
static int put_text(sdlora_options *o, const char *name, slr_buf *b)
{
    slr_buf_puts(b, "");
    int rc = slr_buf_ok(b);

    if (rc >= 0)
        rc = slr_options_set_text(o, name, b->data);
    slr_buf_free(b);
    return rc;
}

/* --- the prompt --- */

static int replace(slr_mem *m, sdlora_options *o, const char *name, const char *from,
                   const char *to)
{
    const char *p = text_of(o, name), *hit;
    slr_buf b;

    slr_buf_init(&b, m);
    for (; *from && (hit = strstr(p, from)) != NULL; p = hit + strlen(from)) {
        slr_buf_add(&b, p, (size_t)(hit - p));
        slr_buf_puts(&b, to);
    }
    slr_buf_puts(&b, p);
    return put_text(o, name, &b);
}

int slr_grid_replace(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                     const slr_grid_values *v, size_t i)
{
    const char *from = v->at[0].text;

    if (!strstr(text_of(o, "prompt"), from) && !strstr(text_of(o, "negative"), from))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s: '%.100s' is neither in the prompt nor in the negative prompt",
                        a->label, from);
    SLR_TRY(replace(m, o, "prompt", from, v->at[i].text));
    return replace(m, o, "negative", from, v->at[i].text);
}

/* The places of all parts in the prompt, first come first; each is looked for behind the one before
 * it, as the script does. */
static int find_parts(const slr_grid_axis *a, const slr_grid_values *v, const char *prompt,
                      size_t *by_place)
{
    const char *place[8];

    for (size_t k = 0; k < v->n_parts; k++) {
        place[k] = strstr(prompt, v->part[k]);
        if (!place[k])
            return slr_fail(SDLORA_EINVAL, __func__, "%s: '%.100s' is not in the prompt", a->label,
                            v->part[k]);
        size_t at = k;
        for (; at > 0 && place[by_place[at - 1]] > place[k]; at--)
            by_place[at] = by_place[at - 1];
        by_place[at] = k;
    }
    return SDLORA_OK;
}

int slr_grid_reorder(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                     const slr_grid_values *v, size_t i)
{
    size_t order[8], by_place[8];
    const char *p = text_of(o, "prompt");
    slr_buf b;

    SLR_TRY(find_parts(a, v, p, by_place));
    slr_grid_order(i, v->n_parts, order);
    slr_buf_init(&b, m);
    for (size_t k = 0; k < v->n_parts; k++) {
        const char *part = v->part[by_place[k]], *hit = strstr(p, part);

        if (!hit) { /* it lies inside one that was taken out before it */
            slr_buf_free(&b);
            return slr_fail(SDLORA_EINVAL, __func__, "%s: '%.100s' overlaps another text", a->label,
                            part);
        }
        slr_buf_add(&b, p, (size_t)(hit - p));
        slr_buf_puts(&b, v->part[order[k]]);
        p = hit + strlen(part);
    }
    slr_buf_puts(&b, p);
    return put_text(o, "prompt", &b);
}

/* --- the first <lora:name:weight> of the prompt --- */

typedef struct tag {
    const char *start, *end; /* of all of it */
    slr_str name, rest;      /* rest: what stands behind the name, from ':' on, without '>' */
} tag;

static bool find_tag(const char *prompt, tag *t)
{
    static const char word[] = "<lora:";
    const char *start = strstr(prompt, word), *p, *end;

    if (!start)
        return false;
    p = start + sizeof word - 1;
    end = strchr(p, '>');
    if (!end || end == p)
        return false;
    size_t n = strcspn(p, ":>");
    *t = (tag){start, end + 1, {p, n}, {p + n, (size_t)(end - p) - n}};
    return true;
}

static int no_tag(const slr_grid_axis *a)
{
    return slr_fail(SDLORA_EINVAL, "slr_grid_axis_apply",
                    "%s: there is no <lora:name:weight> in the prompt", a->label);
}

static void put_tag(slr_buf *b, slr_str name, slr_str rest)
{
    slr_buf_puts(b, "<lora:");
    slr_buf_add(b, name.p, name.n);
    slr_buf_add(b, rest.p, rest.n);
    slr_buf_puts(b, ">");
}

/* The prompt with another tag in the first one's place; name empty: with none. */
static int replace_tag(slr_mem *m, sdlora_options *o, const tag *t, slr_str name, slr_str rest)
{
    const char *prompt = text_of(o, "prompt");
    slr_buf b;

    slr_buf_init(&b, m);
    slr_buf_add(&b, prompt, (size_t)(t->start - prompt));
    if (name.n)
        put_tag(&b, name, rest);
    slr_buf_puts(&b, t->end);
    return put_text(o, "prompt", &b);
}

bool slr_grid_names_none(const char *name)
{
    return !*name || !strcmp(name, "None") || !strcmp(name, "none");
}

int slr_grid_lora(const slr_grid_axis *a, slr_mem *m, sdlora_options *o, const slr_grid_values *v,
                  size_t i)
{
    slr_str name = slr_str_of(v->at[i].text);
    bool none = slr_grid_names_none(name.p);
    slr_buf b;
    tag t;

    if (memchr(name.p, ':', name.n) || memchr(name.p, '>', name.n))
        return slr_fail(SDLORA_EINVAL, __func__, "%s: '%.100s' is no name for a tag", a->label,
                        name.p);
    if (find_tag(text_of(o, "prompt"), &t))
        return replace_tag(m, o, &t, none ? (slr_str){"", 0} : name, t.rest);
    if (none)
        return SDLORA_OK;
    slr_buf_init(&b, m);
    slr_buf_puts(&b, text_of(o, "prompt"));
    put_tag(&b, name, slr_str_of(":1"));
    return put_text(o, "prompt", &b);
}

int slr_grid_lora_weight(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                         const slr_grid_values *v, size_t i)
{
    slr_str rest, item;
    int position = 0;
    slr_buf b;
    tag t;

    if (!find_tag(text_of(o, "prompt"), &t))
        return no_tag(a);
    slr_buf_init(&b, m);
    slr_buf_printf(&b, ":%s", v->at[i].text);
    rest = (slr_str){t.rest.p + (t.rest.n > 0), t.rest.n - (t.rest.n > 0)};
    while (slr_str_next(&rest, ':', &item)) {
        bool named = memchr(item.p, '=', item.n) != NULL;

        if (named && (slr_starts(item.p, "te=") || slr_starts(item.p, "unet=")))
            continue;
        position += !named;
        if (!named && position == 1)
            continue;
        slr_buf_puts(&b, ":");
        if (!named && position == 2)
            slr_buf_puts(&b, v->at[i].text);
        else
            slr_buf_add(&b, item.p, item.n);
    }
    int rc = slr_buf_ok(&b);
    if (rc >= 0)
        rc = replace_tag(m, o, &t, t.name, (slr_str){b.data, b.len});
    slr_buf_free(&b);
    return rc;
}

int slr_grid_lora_epoch(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                        const slr_grid_values *v, size_t i)
{
    enum { DIGITS = 6 };
    slr_buf b;
    tag t;

    if (!find_tag(text_of(o, "prompt"), &t))
        return no_tag(a);
    size_t n = t.name.n, digits = 0;
    while (digits < DIGITS && digits < n && isdigit((unsigned char)t.name.p[n - 1 - digits]))
        digits++;
    if (digits == DIGITS && n > DIGITS + 1 && t.name.p[n - 1 - DIGITS] == '-')
        n -= DIGITS + 1;
    slr_buf_init(&b, m);
    slr_buf_add(&b, t.name.p, n);
    slr_buf_printf(&b, "-%06lld", (long long)v->at[i].i);
    int rc = slr_buf_ok(&b);
    if (rc >= 0)
        rc = replace_tag(m, o, &t, (slr_str){b.data, b.len}, t.rest);
    slr_buf_free(&b);
    return rc;
}

/* --- styles --- */

int slr_grid_add_styles(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                        const slr_grid_values *v, size_t i)
{
    slr_str rest = slr_str_of(v->at[i].text), one;
    const char *had = text_of(o, a->option);
    slr_buf b;

    slr_buf_init(&b, m);
    slr_buf_puts(&b, had);
    while (slr_str_next(&rest, ',', &one)) {
        one = slr_str_trim(one);
        slr_buf_puts(&b, b.len ? "\n" : "");
        slr_buf_add(&b, one.p, one.n);
    }
    return put_text(o, a->option, &b);
}
