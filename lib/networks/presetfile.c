/* SPDX-License-Identifier: MIT */
/* Reads presets that users write for LyCORIS as TOML, and matches paths with the regular
 * expressions in them: those of Python that POSIX has too, in another spelling.  What a class or a
 * setting means is not known here; names of classes and keys are checked. */
#include "networks/presetfile.h"

#include <regex.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/toml.h"

enum { FILE_MAX = 1 << 20, PATTERN_MAX = 256, POSIX_MAX = 2048 };

/* --- patterns --- */

/* What stands for a Python escape: outside of brackets, and inside. */
static const struct {
    char escape;
    const char *outside, *inside;
} escapes[] = {
    {'d', "[0-9]", "0-9"},        {'D', "[^0-9]", NULL}, {'w', "[A-Za-z0-9_]", "A-Za-z0-9_"},
    {'W', "[^A-Za-z0-9_]", NULL}, {'A', "^", NULL},      {'Z', "$", NULL},
    {'b', "\\b", NULL},           {'B', "\\B", NULL},
};

typedef struct posix {
    char text[POSIX_MAX];
    size_t n;
    bool inside, repeated; /* in brackets; just behind a * + ? } */
    int braces;
} posix;

static void put(posix *x, const char *text)
{
    for (; *text && x->n + 1 < sizeof x->text; text++)
        x->text[x->n++] = *text;
    x->text[x->n] = '\0';
}

/* The character behind a backslash; false: it has no POSIX spelling. */
static bool put_escape(posix *x, char c)
{
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
        if (escapes[i].escape == c) {
            const char *text = x->inside ? escapes[i].inside : escapes[i].outside;
            put(x, text ? text : "");
            return text != NULL;
        }
    if (strchr("0123456789", c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        (x->inside && strchr("]^-", c)))
        return false;
    put(x, (const char[]){x->inside ? c : '\\', x->inside ? '\0' : c, '\0'});
    return true;
}

/* Python's re.match() of a pattern as a POSIX extended expression. */
static bool translate(const char *p, posix *x)
{
    *x = (posix){0};
    put(x, "^(");
    for (; *p; p++) {
        bool repeats = !x->inside && strchr("*+?}", *p);
        x->braces += !x->inside && *p == '{';
        if (*p == '\\') {
            if (!p[1] || !put_escape(x, *++p))
                return false;
        } else if (!x->inside && !strncmp(p, "(?:", 3)) {
            put(x, "(");
            p += 2;
        } else if (!x->inside && !strncmp(p, "(?", 2)) {
            return false;
        } else if (!(*p == '?' && x->repeated)) { /* lazy or greedy: it fits or not all the same */
            put(x, (const char[]){*p, '\0'});
        }
        if (*p == '[' && !x->inside) {
            x->inside = true;
            if (p[1] == '^')
                put(x, (const char[]){*++p, '\0'});
            if (p[1] == ']')
                put(x, (const char[]){*++p, '\0'});
        } else if (*p == ']') {
            x->inside = false;
        }
        x->repeated = repeats && !x->repeated;
    }
    put(x, ")");
    return x->n + 1 < sizeof x->text && x->braces <= 1;
}

bool slr_pattern_fits(const char *pattern, const char *path)
{
    posix x;
    regex_t re;
    if (!translate(pattern, &x) || regcomp(&re, x.text, REG_EXTENDED | REG_NOSUB))
        return false;
    bool fits = !regexec(&re, path, 0, NULL, 0);
    regfree(&re);
    return fits;
}

/* --- the file --- */

typedef struct reading {
    slr_preset *p;
    slr_mem *m;
    slr_arena *texts;
    const char *path, *key;
} reading;

static int refuse(const reading *r, const char *what)
{
    return slr_fail(SDLORA_EFORMAT, "slr_preset_read", "preset %s: %s: %s", r->path, r->key, what);
}

static int keep(const reading *r, const char *text, const char **out)
{
    *out = slr_arena_strdup(r->texts, text);
    return *out ? SDLORA_OK : SDLORA_ENOMEM;
}

static int check_class(const reading *r, const char *name)
{
    const char *near = NULL;
    size_t best = 1 + strlen(name) / 2;
    for (size_t i = 0; slr_class_at(i); i++) {
        size_t d = slr_str_distance(name, slr_class_at(i), best);
        if (!strcmp(name, slr_class_at(i)))
            return SDLORA_OK;
        if (d < best) {
            best = d;
            near = slr_class_at(i);
        }
    }
    return slr_fail(SDLORA_EFORMAT, __func__, "preset %s: %s: there is no class %s%s%s%s", r->path,
                    r->key, name, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static int check_name(const reading *r, const char *name)
{
    posix x;
    regex_t re;
    if (strlen(name) >= PATTERN_MAX)
        return refuse(r, "a pattern is too long");
    if (r->p->wildcards)
        return SDLORA_OK;
    if (!translate(name, &x) || regcomp(&re, x.text, REG_EXTENDED | REG_NOSUB))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "preset %s: %s: '%s' is not a regular expression that is known here; "
                        "use_fnmatch = true makes names match as file names do",
                        r->path, r->key, name);
    regfree(&re);
    return SDLORA_OK;
}

typedef int (*check_fn)(const reading *r, const char *text);

static int read_list(const reading *r, const json_t *j, check_fn check, const char *const **out)
{
    size_t n = json_array_size(j);
    if (!json_is_array(j))
        return refuse(r, "a list of names is needed");
    const char **list = slr_arena_alloc(r->texts, n + 1, sizeof *list);
    if (!list)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(j, i));
        if (!text)
            return refuse(r, "a list of names is needed");
        SLR_TRY(check(r, text));
        SLR_TRY(keep(r, text, &list[i]));
    }
    list[n] = NULL;
    *out = list;
    return SDLORA_OK;
}

/* A setting as network_args would spell it. */
static int read_value(const reading *r, const json_t *j, const char **out)
{
    char number[32];
    if (json_is_string(j))
        return keep(r, json_string_value(j), out);
    if (json_is_boolean(j))
        return keep(r, json_is_true(j) ? "true" : "false", out);
    if (!json_is_number(j))
        return refuse(r, "settings are text, numbers, true or false");
    slr_real_repr(json_number_value(j), number);
    return keep(r, number, out);
}

static int read_override(const reading *r, json_t *j, slr_override *out)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    if (!json_is_object(j))
        return refuse(r, "each entry has to be a table of settings");
    const char **pairs = slr_arena_alloc(r->texts, 2 * json_object_size(j) + 1, sizeof *pairs);
    if (!pairs)
        return SDLORA_ENOMEM;
    json_object_foreach(j, key, value)
    {
        const char *text = NULL;
        SLR_TRY(read_value(r, value, &text));
        if (!strcmp(key, "algo")) {
            out->algo = text;
            continue;
        }
        SLR_TRY(keep(r, key, &pairs[n]));
        pairs[n + 1] = text;
        n += 2;
    }
    pairs[n] = NULL;
    out->pairs = pairs;
    return SDLORA_OK;
}

static int read_map(const reading *r, json_t *j, check_fn check, const slr_override **out)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    if (!json_is_object(j))
        return refuse(r, "a table is needed");
    slr_override *list = slr_arena_alloc(r->texts, json_object_size(j) + 1, sizeof *list);
    if (!list)
        return SDLORA_ENOMEM;
    json_object_foreach(j, key, value)
    {
        SLR_TRY(check(r, key));
        SLR_TRY(read_override(r, value, &list[n]));
        SLR_TRY(keep(r, key, &list[n++].match));
    }
    *out = list;
    return SDLORA_OK;
}

enum { SWITCH, LIST, MAP, IGNORED };

#define AT(field) offsetof(slr_preset, field)

/* LyCORIS' keys.  negated: the field says the contrary. */
static const struct {
    const char *key;
    int type;
    size_t field;
    check_fn check;
    bool negated;
} keys[] = {
    {"use_fnmatch", SWITCH, AT(wildcards), NULL, false}, /* first: names are checked by it */
    {"enable_conv", SWITCH, AT(no_conv), NULL, true},
    {"unet_target_module", LIST, AT(unet_class), check_class, false},
    {"unet_target_name", LIST, AT(unet_name), check_name, false},
    {"text_encoder_target_module", LIST, AT(te_class), check_class, false},
    {"text_encoder_target_name", LIST, AT(te_name), check_name, false},
    {"exclude_name", LIST, AT(exclude), check_name, false},
    {"module_algo_map", MAP, AT(class_algo), check_class, false},
    {"name_algo_map", MAP, AT(name_algo), check_name, false},
    /* of LyCORIS used without kohya's scripts */
    {"target_module", IGNORED, 0, NULL, false},
    {"target_name", IGNORED, 0, NULL, false},
    {"lora_prefix", IGNORED, 0, NULL, false},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

static int read_key(reading *r, size_t k, json_t *j)
{
    void *field = (char *)r->p + keys[k].field;
    r->key = keys[k].key;
    switch (keys[k].type) {
    case SWITCH:
        if (!json_is_boolean(j))
            return refuse(r, "true or false is needed");
        *(bool *)field = json_is_true(j) != keys[k].negated;
        return SDLORA_OK;
    case LIST:
        return read_list(r, j, keys[k].check, field);
    case MAP:
        return read_map(r, j, keys[k].check, field);
    default:
        return SDLORA_OK;
    }
}

static int check_keys(reading *r, json_t *j)
{
    const char *key;
    json_t *value;
    json_object_foreach(j, key, value)
    {
        const char *near = NULL;
        size_t best = 1 + strlen(key) / 2, k = 0;
        for (; k < N_KEYS && strcmp(keys[k].key, key); k++) {
            size_t d = slr_str_distance(key, keys[k].key, best);
            if (d < best) {
                best = d;
                near = keys[k].key;
            }
        }
        if (k == N_KEYS)
            return slr_fail(SDLORA_EFORMAT, __func__, "preset %s: there is no key %s%s%s%s",
                            r->path, key, near ? "; did you mean " : "", near ? near : "",
                            near ? "?" : "");
    }
    return SDLORA_OK;
}

int slr_preset_read(slr_preset *p, slr_mem *m, slr_arena *texts, const char *path)
{
    reading r = {p, m, texts, path, ""};
    json_t *j;
    int rc = slr_toml_read(&j, m, path, FILE_MAX);
    if (rc == SDLORA_ENOTFOUND)
        return slr_fail(SDLORA_ENOTFOUND, __func__,
                        "preset %s is neither a file nor one of full, full-lin, attn-mlp, "
                        "attn-only, unet-only, unet-transformer-only, unet-convblock-only, ia3",
                        path);
    SLR_TRY(rc);
    p->name = path;
    rc = check_keys(&r, j);
    for (size_t k = 0; rc >= 0 && k < N_KEYS; k++) {
        json_t *value = json_object_get(j, keys[k].key);
        rc = value ? read_key(&r, k, value) : SDLORA_OK;
    }
    json_decref(j);
    return rc;
}
