/* SPDX-License-Identifier: MIT */
/* <kind:name:numbers> tags: cut out of the prompt with everything around them left in place
 * (inference.md §3.1). */
#include <ctype.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "sample/prompt.h"

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

/* Length of a tag that starts at p ('<'), or 0: <word:at least one character that is not '>'>. */
static size_t tag_length(const char *p, size_t *colon)
{
    size_t i = 1;
    while (word_char(p[i]))
        i++;
    if (i == 1 || p[i] != ':')
        return 0;
    *colon = i++;
    size_t body = i;
    while (p[i] && p[i] != '>')
        i++;
    return p[i] == '>' && i > body ? i + 1 : 0;
}

/* One number of a tag: positional (1: te, 2: unet, 3: dyn) or named. */
static int take_number(slr_mem *m, slr_prompt_tag *tag, slr_str item, int position,
                       bool *unet_given)
{
    char text[64];
    double value;
    static const char *const names[] = {"", "te", "unet", "dyn"};
    const char *eq = memchr(item.p, '=', item.n);
    if (eq) {
        slr_str key = {item.p, (size_t)(eq - item.p)};
        position = 0;
        for (int i = 1; i < 4; i++)
            if (slr_str_eq(key, names[i]))
                position = i;
        item = (slr_str){eq + 1, item.n - key.n - 1};
    }
    item = slr_str_trim(item);
    memcpy(text, item.p, item.n < sizeof text ? item.n : 0);
    text[item.n < sizeof text ? item.n : 0] = '\0';
    if (!slr_parse_real(text, &value)) {
        tag->bad = slr_strndup(m, item.p, item.n);
        return tag->bad ? SDLORA_OK : SDLORA_ENOMEM;
    }
    if (position == 1) {
        tag->te = value;
        if (!*unet_given)
            tag->unet = value;
    } else if (position == 2) {
        tag->unet = value;
        *unet_given = true;
    } else if (position == 3) {
        tag->dyn = (int)value;
    }
    return SDLORA_OK;
}

static int parse_tag(slr_prompt_tags *out, const char *p, size_t colon, size_t length)
{
    slr_prompt_tag *grown = slr_realloc(out->m, out->tag, out->n + 1, sizeof *out->tag);
    if (!grown)
        return SDLORA_ENOMEM;
    out->tag = grown;
    slr_prompt_tag *tag = &out->tag[out->n++];
    *tag = (slr_prompt_tag){.te = 1.0, .unet = 1.0};
    slr_str rest = {p + colon + 1, length - colon - 2}, item;
    tag->kind = slr_strndup(out->m, p + 1, colon - 1);
    bool unet_given = false;
    for (int position = 0; slr_str_next(&rest, ':', &item); position++) {
        if (position == 0)
            tag->name = slr_strndup(out->m, item.p, item.n);
        else
            SLR_TRY(take_number(out->m, tag, item, position, &unet_given));
    }
    return tag->kind && tag->name ? SDLORA_OK : SDLORA_ENOMEM;
}

int slr_prompt_cut_tags(slr_prompt_tags *out, slr_mem *m, const char *prompt)
{
    slr_buf text;
    slr_buf_init(&text, m);
    *out = (slr_prompt_tags){.m = m};
    int rc = SDLORA_OK;
    for (const char *p = prompt; rc >= 0 && *p;) {
        size_t colon, n = *p == '<' ? tag_length(p, &colon) : 0;
        if (n)
            rc = parse_tag(out, p, colon, n);
        else
            slr_buf_putc(&text, *p);
        p += n ? n : 1;
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
