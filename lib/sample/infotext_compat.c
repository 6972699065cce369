/* SPDX-License-Identifier: MIT */
/* What a parameters text means beyond its words: values that an absent field stands for, switches
 * that older versions of AUTOMATIC1111 imply, and fields of old or foreign spelling turned into
 * today's.  It follows modules/infotext_utils.py and infotext_versions.py of version 1.10.1. */
#include "sample/infotext.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "io/json.h"
#include "sample/prompt.h"

/* --- versions, as PEP 440 orders them --- */

enum { PARTS_MAX = 4 };

typedef struct version {
    int64_t epoch, part[PARTS_MAX]; /* what is behind the fourth part decides nothing here */
    int64_t post;                   /* -1: none */
    bool pre, dev;
} version;

/* A number; without digits 0. */
static int64_t number(const char **at)
{
    int64_t v = 0;
    for (; isdigit((unsigned char)**at); ++*at)
        v = v < INT64_MAX / 16 ? v * 10 + (**at - '0') : v;
    return v;
}

static bool is_joint(char c)
{
    return c == '-' || c == '_' || c == '.';
}

/* One of the words, with a joint before it and between it and its number. */
static bool word(const char **at, const char *const *words, int64_t *n)
{
    const char *from = *at + is_joint(**at);
    for (; *words; words++) {
        size_t k = strlen(*words);
        if (strncasecmp(from, *words, k) != 0)
            continue;
        from += k;
        if (is_joint(*from) && isdigit((unsigned char)from[1]))
            from++;
        *n = number(&from);
        *at = from;
        return true;
    }
    return false;
}

/* "+local": letters and digits with joints between them. */
static bool is_local(const char *at)
{
    if (*at != '+' || !isalnum((unsigned char)at[1]))
        return false;
    for (at++; isalnum((unsigned char)*at); at += is_joint(*at) && isalnum((unsigned char)at[1]))
        while (isalnum((unsigned char)*at))
            at++;
    return !*at;
}

static bool parse_version(const char *at, version *v)
{
    static const char *const pre[] = {"alpha", "a", "beta", "b", "preview", "pre", "c", "rc", NULL};
    static const char *const post[] = {"post", "rev", "r", NULL};
    static const char *const dev[] = {"dev", NULL};
    int64_t n;
    *v = (version){.post = -1};
    at += *at == 'v' || *at == 'V';
    if (!isdigit((unsigned char)*at))
        return false;
    n = number(&at);
    if (*at == '!') {
        v->epoch = n;
        at++;
        if (!isdigit((unsigned char)*at))
            return false;
        n = number(&at);
    }
    v->part[0] = n;
    for (int i = 1; *at == '.' && isdigit((unsigned char)at[1]); i++) {
        at++;
        n = number(&at);
        if (i < PARTS_MAX)
            v->part[i] = n;
    }
    v->pre = word(&at, pre, &n);
    if (*at == '-' && isdigit((unsigned char)at[1])) {
        at++;
        v->post = number(&at);
    } else if (word(&at, post, &n)) {
        v->post = n;
    }
    v->dev = word(&at, dev, &n);
    return !*at || is_local(at);
}

/* "v1.7.0-225-gabcdef" counts as its first two pieces. */
static bool read_version(const char *text, version *v)
{
    char head[64];
    const char *first = text ? strchr(text, '-') : NULL,
               *second = first ? strchr(first + 1, '-') : NULL;
    if (!text)
        return false;
    size_t n = first && first > text && second && second > first + 1 ? (size_t)(second - text)
                                                                     : strlen(text);
    if (n >= sizeof head)
        return false;
    memcpy(head, text, n);
    head[n] = '\0';
    return parse_version(head, v);
}

/* Whether v is before a.b.0, or before a.b.0-post. */
static bool before(const version *v, int64_t a, int64_t b, int64_t post)
{
    const int64_t want[PARTS_MAX] = {a, b};
    if (v->epoch)
        return false;
    for (int i = 0; i < PARTS_MAX; i++)
        if (v->part[i] != want[i])
            return v->part[i] < want[i];
    if (v->pre || (v->dev && v->post < 0))
        return true;
    return post >= 0 && (v->post < post || (v->post == post && v->dev));
}

static int switches_of_old(slr_info *i)
{
    const char *sampler = slr_info_get(i, "Sampler"), *refiner = slr_info_get(i, "Refiner");
    version v;
    if (!read_version(slr_info_get(i, "Version"), &v))
        return SDLORA_OK;
    const struct {
        const char *key;
        bool on;
    } rows[] = {
        {"Old prompt editing timelines", before(&v, 1, 6, -1) && strchr(i->prompt, '[')},
        {"Pad conds v0",
         before(&v, 1, 6, -1) && sampler && (!strcmp(sampler, "DDIM") || !strcmp(sampler, "PLMS"))},
        {"Downcast alphas_cumprod", before(&v, 1, 7, 225)},
        {"Refiner switch by sampling steps", before(&v, 1, 8, -1) && refiner && *refiner},
    };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        if (rows[k].on)
            SLR_TRY(slr_info_set(i, rows[k].key, "True", true));
    return SDLORA_OK;
}

/* --- what absence means --- */

static int imply(slr_info *i, const char *key, const char *value)
{
    return slr_info_get(i, key) ? SDLORA_OK : slr_info_set(i, key, value, true);
}

static bool weighs(slr_mem *m, const char *prompt, int *rc)
{
    slr_fragment *f = NULL;
    size_t n = 0;
    bool any = false;
    if (*rc >= 0)
        *rc = slr_prompt_emphasis(m, prompt, &f, &n, NULL);
    for (size_t k = 0; *rc >= 0 && k < n; k++)
        any = any || (f[k].weight != 1.0 && strcmp(f[k].text, "BREAK") != 0);
    slr_fragments_free(m, f, n);
    return any;
}

static int imply_all(slr_info *i, slr_mem *m)
{
    static const struct {
        const char *key, *value;
    } rows[] = {
        {"Clip skip", "1"},
        {"Hires resize", "0x0"},
        {"Hires sampler", "Use same sampler"},
        {"Hires schedule type", "Use same scheduler"},
        {"Hires checkpoint", "Use same checkpoint"},
        {"Hires prompt", ""},
        {"Hires negative prompt", ""},
        {"Mask mode", "Inpaint masked"},
        {"Masked content", "original"},
        {"Inpaint area", "Whole picture"},
        {"Masked area padding", "32"},
        {"RNG", "GPU"},
        {"Schedule type", "Automatic"},
        {"Schedule max sigma", "0"},
        {"Schedule min sigma", "0"},
        {"Schedule rho", "0"},
        {"VAE Encoder", "Full"},
        {"VAE Decoder", "Full"},
        {"FP8 weight", "Disable"},
        {"Refiner switch by sampling steps", "False"},
    };
    int rc = SDLORA_OK;
    bool weights = weighs(m, i->prompt, &rc);
    weights = weighs(m, i->negative, &rc) || weights;
    SLR_TRY(rc);
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        SLR_TRY(imply(i, rows[k].key, rows[k].value));
    if (strcmp(slr_info_get(i, "FP8 weight"), "Disable") != 0)
        SLR_TRY(imply(i, "Cache FP16 weight for LoRA", "False"));
    return weights ? imply(i, "Emphasis", "Original") : SDLORA_OK;
}

/* --- old spellings --- */

/* The area of 512x512 in steps of 64 pixels, as the program once chose it
 * (processing.old_hires_fix_first_pass_dimensions). */
static void first_pass_of(int64_t w, int64_t h, int64_t *fw, int64_t *fh)
{
    double scale = sqrt(512.0 * 512.0 / ((double)w * (double)h));
    *fw = (int64_t)ceil(scale * (double)w / 64) * 64;
    *fh = (int64_t)ceil(scale * (double)h / 64) * 64;
}

/* "First pass size" was the first size, and "Size" the second. */
static int old_hires(slr_info *i)
{
    char text[64];
    int64_t fw, fh, w = 512, h = 512;
    if (!slr_info_size(i, "First pass size", &fw, &fh))
        return SDLORA_OK;
    slr_info_size(i, "Size", &w, &h);
    if ((!fw || !fh) && w > 0 && h > 0)
        first_pass_of(w, h, &fw, &fh);
    snprintf(text, sizeof text, "%lldx%lld", (long long)fw, (long long)fh);
    SLR_TRY(slr_info_set(i, "Size", text, false));
    snprintf(text, sizeof text, "%lldx%lld", (long long)w, (long long)h);
    return slr_info_set(i, "Hires resize", text, false);
}

static int add_tag(slr_info *i, const char *kind, const char *name, size_t n_name,
                   const char *strengths)
{
    slr_buf tag;
    slr_buf_init(&tag, NULL);
    slr_buf_printf(&tag, "<%s:%.*s:%s>", kind, (int)n_name, name, strengths);
    int rc = slr_buf_ok(&tag);
    if (rc >= 0)
        rc = slr_info_prompt_add(i, tag.data);
    slr_buf_free(&tag);
    return rc;
}

static int old_hypernet(slr_info *i)
{
    const char *name = slr_info_get(i, "Hypernet"),
               *strength = slr_info_get(i, "Hypernet strength");
    return name ? add_tag(i, "hypernet", name, strlen(name), strength ? strength : "1.0")
                : SDLORA_OK;
}

/* Model k of sd-webui-additional-networks: "name(hash)", weight A of the UNet, B of the text
 * encoder. */
static int addnet_model(slr_info *i, int k)
{
    char key[48], strengths[128];
    snprintf(key, sizeof key, "AddNet Module %d", k);
    const char *module = slr_info_get(i, key);
    snprintf(key, sizeof key, "AddNet Model %d", k);
    const char *model = slr_info_get(i, key);
    snprintf(key, sizeof key, "AddNet Weight A %d", k);
    const char *a = slr_info_get(i, key);
    snprintf(key, sizeof key, "AddNet Weight B %d", k);
    const char *b = slr_info_get(i, key);
    if (!module || strcasecmp(module, "LoRA") != 0 || !model || !strcmp(model, "None"))
        return SDLORA_OK;
    a = a ? a : "1";
    if (b && strcmp(a, b) != 0)
        snprintf(strengths, sizeof strengths, "%s:%s", b, a);
    else
        snprintf(strengths, sizeof strengths, "%s", a);
    const char *hash = strrchr(model, '(');
    return add_tag(i, "lora", model, hash ? (size_t)(hash - model) : strlen(model), strengths);
}

static int addnet(slr_info *i)
{
    const char *on = slr_info_get(i, "AddNet Enabled");
    for (int k = 1; on && !strcasecmp(on, "True") && k <= 10; k++)
        SLR_TRY(addnet_model(i, k));
    return SDLORA_OK;
}

int slr_info_complete(slr_info *i, slr_mem *m)
{
    SLR_TRY(imply_all(i, m));
    SLR_TRY(old_hypernet(i));
    SLR_TRY(addnet(i));
    SLR_TRY(old_hires(i));
    return switches_of_old(i);
}

/* --- hashes --- */

/* "name: hash, name: hash", the form of A1111 and of the LyCORIS extension. */
static bool each_pair(const char *list, slr_info_hash_fn each, void *user)
{
    slr_str rest = slr_str_of(list), item;
    while (slr_str_next(&rest, ',', &item)) {
        const char *colon = memchr(item.p, ':', item.n);
        if (!colon)
            continue;
        size_t n = (size_t)(colon - item.p);
        slr_info_hash h = {slr_str_trim((slr_str){item.p, n}),
                           slr_str_trim((slr_str){colon + 1, item.n - n - 1})};
        if (h.name.n && h.hash.n && !each(user, h))
            return false;
    }
    return true;
}

/* {"lora:name": "hash"} of Civitai's extension, with kinds in any case. */
static bool each_json(const slr_info *i, const char *kind, slr_info_hash_fn each, void *user)
{
    const char *text = slr_info_get(i, "Hashes"), *key;
    json_t *root = NULL, *hash;
    size_t n = strlen(kind);
    bool go_on = true;
    if (!text || slr_json_parse(&root, text, strlen(text), "Hashes") < 0) {
        slr_clear(); /* what other programs write is taken as far as it can be read */
        return true;
    }
    json_object_foreach(root, key, hash)
    {
        if (!go_on || strncasecmp(key, kind, n) != 0 || (key[n] && key[n] != ':') ||
            !json_is_string(hash))
            continue;
        const char *name = key[n] ? key + n + 1 : "";
        go_on = each(user, (slr_info_hash){slr_str_of(name), slr_str_of(json_string_value(hash))});
    }
    json_decref(root);
    return go_on;
}

static bool each_addnet(const slr_info *i, slr_info_hash_fn each, void *user)
{
    for (int k = 1; k <= 10; k++) {
        char key[48];
        snprintf(key, sizeof key, "AddNet Model %d", k);
        const char *model = slr_info_get(i, key), *open = model ? strrchr(model, '(') : NULL,
                   *close = open ? strchr(open, ')') : NULL;
        if (close && !each(user, (slr_info_hash){{model, (size_t)(open - model)},
                                                 {open + 1, (size_t)(close - open - 1)}}))
            return false;
    }
    return true;
}

void slr_info_hashes(const slr_info *i, const char *kind, slr_info_hash_fn each, void *user)
{
    static const struct {
        const char *kind, *field;
    } rows[] = {{"lora", "Lora hashes"}, {"lora", "Lyco hashes"}, {"embed", "TI hashes"}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        const char *list = strcmp(rows[k].kind, kind) ? NULL : slr_info_get(i, rows[k].field);
        if (list && !each_pair(list, each, user))
            return;
    }
    if (!strcmp(kind, "lora") && !each_addnet(i, each, user))
        return;
    each_json(i, kind, each, user);
}
