/* SPDX-License-Identifier: MIT */
/* Reads and writes the settings of PEFT's adapters.  A pattern of ranks or alphas is PEFT's regular
 * expression; here it is a module path or the end of one, which is all that programs write.
 * Refuses to guess: settings that change the base or contradict the tensors end the opening. */
#include "networks/peft.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/json.h"

#define CONFIG_LIMIT  (16u << 20) /* bytes; patterns name modules, of which there are thousands */
#define DEFAULT_ALPHA 8.0         /* PEFT's own, of LoRA, LoHa and LoKr */
#define MAX_RANK      1e6         /* that a configuration may speak of */

struct slr_peft {
    slr_mem *m;
    char *label; /* what messages call it */
    json_t *root;
    bool by_part; /* diffusers': each name has its part before it */
};

static const char *const part_prefix[SLR_PART_COUNT] = {
    [SLR_PART_UNET] = "unet.", [SLR_PART_TE] = "text_encoder.", [SLR_PART_TE2] = "text_encoder_2."};

static json_t *get(const slr_peft *p, int part, const char *name)
{
    char key[64];
    if (!p->by_part)
        return json_object_get(p->root, name);
    snprintf(key, sizeof key, "%s%s", part_prefix[part], name);
    return json_object_get(p->root, key);
}

/* Ways of starting a LoRA that take it out of the base: the file means nothing on the base that
 * everybody has. */
static int check_base(const slr_peft *p)
{
    static const char *const changed[] = {"pissa", "olora", "corda", "loftq"};
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        const char *how =
            part_prefix[part] ? json_string_value(get(p, part, "init_lora_weights")) : NULL;
        for (size_t i = 0; how && i < sizeof changed / sizeof *changed; i++)
            if (slr_starts(how, changed[i]))
                return slr_fail(SDLORA_ENOTSUP, __func__,
                                "%s: init_lora_weights is %s: the adapter belongs to a base that "
                                "its training changed",
                                p->label, how);
    }
    return SDLORA_OK;
}

/* A turn of inputs is read as a series of five terms, which is what PEFT takes unless told. */
static int check_turns(const slr_peft *p)
{
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        if (!part_prefix[part])
            continue;
        json_t *terms = get(p, part, "num_cayley_neumann_terms");
        if (json_is_true(get(p, part, "coft")) ||
            json_is_false(get(p, part, "use_cayley_neumann")) ||
            (terms && json_integer_value(terms) != 5))
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "%s: OFT is read with use_cayley_neumann, five terms and no coft",
                            p->label);
    }
    return SDLORA_OK;
}

static char *label_of(slr_mem *m, const char *file, const char *what)
{
    slr_buf b;
    slr_buf_init(&b, m);
    slr_buf_printf(&b, "%s: %s", file, what);
    char *text = slr_buf_ok(&b) >= 0 ? slr_buf_take(&b) : NULL;
    slr_buf_free(&b);
    return text;
}

/* "folder/adapter_config.json" of "folder/adapter_model.safetensors". */
static char *config_path(slr_mem *m, const char *file)
{
    slr_buf b;
    slr_buf_init(&b, m);
    slr_buf_add(&b, file, (size_t)(slr_path_base(file) - file));
    slr_buf_puts(&b, SLR_PEFT_CONFIG);
    char *text = slr_buf_ok(&b) >= 0 ? slr_buf_take(&b) : NULL;
    slr_buf_free(&b);
    return text;
}

static int load(slr_peft *p, const char *file, const char *metadata)
{
    p->by_part = metadata != NULL;
    p->label = metadata ? label_of(p->m, file, SLR_PEFT_METADATA) : config_path(p->m, file);
    if (!p->label)
        return SDLORA_ENOMEM;
    if (metadata)
        SLR_TRY(slr_json_parse(&p->root, metadata, strlen(metadata), p->label));
    else
        SLR_TRY(slr_json_read(&p->root, p->m, p->label, CONFIG_LIMIT));
    if (!json_is_object(p->root))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s is not a JSON object", p->label);
    SLR_TRY(check_base(p));
    return check_turns(p);
}

int slr_peft_open(slr_peft **out, slr_mem *m, const char *file, const char *metadata, bool beside)
{
    *out = NULL;
    if (!metadata) {
        char *path = beside ? config_path(m, file) : NULL;
        bool there = path && slr_file_exists(path);
        slr_free(m, path);
        if (beside && !path)
            return SDLORA_ENOMEM;
        if (!there)
            return SDLORA_OK;
    }
    slr_peft *p = slr_calloc(m, 1, sizeof *p);
    if (!p)
        return SDLORA_ENOMEM;
    p->m = m;
    int rc = load(p, file, metadata);
    if (rc < 0) {
        slr_peft_free(p);
        return rc;
    }
    *out = p;
    return SDLORA_OK;
}

void slr_peft_free(slr_peft *p)
{
    if (!p)
        return;
    json_decref(p->root);
    slr_free(p->m, p->label);
    slr_free(p->m, p);
}

/* --- patterns --- */

/* Whether a path is what the pattern names: all of it, or its end after a '.'.  An escaped dot is a
 * dot; -1: an expression that is more than a name. */
static int names_path(const char *pattern, const char *path)
{
    char plain[SLR_LAYER_KEY];
    size_t n = 0, k = strlen(path);
    bool whole = *pattern == '^';
    for (pattern += whole; *pattern; pattern++) {
        bool escaped = pattern[0] == '\\' && pattern[1] == '.';
        bool last = pattern[0] == '$' && !pattern[1];
        if (last)
            break;
        pattern += escaped;
        if ((!escaped && strchr("\\*+?()[]{}|^$", *pattern)) || n + 1 == sizeof plain)
            return -1;
        plain[n++] = *pattern;
    }
    plain[n] = '\0';
    if (n > k || strcmp(path + k - n, plain) != 0)
        return 0;
    return n == k || (!whole && path[k - n - 1] == '.');
}

/* The first pattern that fits, or the value for all; NULL: neither. */
static int pick(const slr_peft *p, const slr_target *t, const char *patterns, const char *all,
                json_t **out)
{
    const char *pattern;
    json_t *value;
    *out = get(p, t->part, all);
    json_object_foreach(get(p, t->part, patterns), pattern, value)
    {
        int fits = names_path(pattern, t->path);
        if (fits < 0)
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "%s: %s has the expression '%.60s'; only module paths are read",
                            p->label, patterns, pattern);
        if (fits) {
            *out = value;
            break;
        }
    }
    return SDLORA_OK;
}

static int number(const slr_peft *p, const slr_target *t, json_t *value, const char *what,
                  double *out)
{
    if (!value)
        return SDLORA_OK; /* what stands in *out */
    *out = json_number_value(value);
    if (!json_is_number(value) || !isfinite(*out))
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s of %s is not a number", p->label, what,
                        t->name);
    return SDLORA_OK;
}

int slr_peft_scale(const slr_peft *p, const slr_target *t, int64_t rank, double *scale)
{
    json_t *r, *a;
    double told = (double)rank, alpha = DEFAULT_ALPHA;
    *scale = NAN;
    if (!p || (p->by_part && !get(p, t->part, "r")))
        return SDLORA_OK;
    SLR_TRY(pick(p, t, "rank_pattern", "r", &r));
    SLR_TRY(
        pick(p, t, "alpha_pattern", get(p, t->part, "lora_alpha") ? "lora_alpha" : "alpha", &a));
    SLR_TRY(number(p, t, r, "the rank", &told));
    SLR_TRY(number(p, t, a, "the alpha", &alpha));
    if (!(told >= 1 && told <= MAX_RANK) || (rank > 0 && told != (double)rank))
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s gives %s the rank %.15g, but its tensors have %lld", p->label, t->name,
                        told, (long long)rank);
    *scale = alpha / (json_is_true(get(p, t->part, "use_rslora")) ? sqrt(told) : told);
    return SDLORA_OK;
}

bool slr_peft_feedforward(const slr_peft *p, const slr_target *t)
{
    json_t *list = p ? get(p, t->part, "feedforward_modules") : NULL, *item;
    size_t i;
    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(item);
        if (name && names_path(name, t->path) > 0)
            return true;
    }
    return false;
}

/* --- writing --- */

static const struct {
    const char *kind, *type, *alpha; /* PEFT's name of the alpha; NULL: it has no rank either */
} types[] = {{"lora", "LORA", "lora_alpha"}, {"loha", "LOHA", "alpha"}, {"ia3", "IA3", NULL}};

/* What the modules of a part have in common: the numbers that most of them have, and the kind. */
typedef struct common {
    const slr_network *n;
    int part;
    bool folded;
    size_t type;
    int64_t widest, rank;
    double alpha;
    bool dora, bias, tucker, flat; /* any module with; of convolutions: with a core, and without */
} common;

int64_t slr_peft_widest(const slr_network *n, int part)
{
    int64_t widest = 0;
    for (size_t i = 0; i < n->n_modules; i++)
        if (n->module[i].target.part == part && n->module[i].rank > widest)
            widest = n->module[i].rank;
    return widest;
}

static int64_t rank_of(const common *c, const slr_module *mod)
{
    return c->folded ? c->widest : mod->rank;
}

static double alpha_of(const common *c, const slr_module *mod)
{
    return c->folded ? (double)c->widest : mod->scale * (double)mod->rank;
}

static bool counts(const common *c, size_t i)
{
    return c->n->module[i].target.part == c->part;
}

/* The pair of rank and alpha that is met most often, the first of those. */
static void find_usual(common *c)
{
    size_t best = 0;
    for (size_t i = 0; i < c->n->n_modules; i++) {
        const slr_module *mod = &c->n->module[i];
        size_t n = 0;
        if (!counts(c, i) || (best && rank_of(c, mod) == c->rank && alpha_of(c, mod) == c->alpha))
            continue;
        for (size_t k = i; k < c->n->n_modules; k++)
            n += counts(c, k) && rank_of(c, &c->n->module[k]) == rank_of(c, mod) &&
                 alpha_of(c, &c->n->module[k]) == alpha_of(c, mod);
        if (n > best) {
            best = n;
            c->rank = rank_of(c, mod);
            c->alpha = alpha_of(c, mod);
        }
    }
}

static int look(common *c)
{
    const slr_module *first = NULL;
    for (size_t i = 0; i < c->n->n_modules; i++) {
        const slr_module *mod = &c->n->module[i];
        const slr_kind *kind = mod->kind;
        bool core = false;
        if (!counts(c, i))
            continue;
        first = first ? first : mod;
        if (kind != first->kind)
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "%s is of the kind '%s' and %s of '%s': a PEFT adapter has one",
                            first->target.name, first->kind->name, mod->target.name, kind->name);
        for (int k = 0; k < SLR_KIND_OWN; k++)
            core = core ||
                   (kind->leaf[k] && !strcmp(kind->leaf[k], "hada_t1") && slr_module_has(mod, k));
        c->dora = c->dora || slr_module_has(mod, SLR_LEAF_DORA);
        c->bias = c->bias || slr_module_has(mod, SLR_LEAF_DIFF_B);
        c->tucker = c->tucker || core;
        c->flat = c->flat || (!core && mod->target.kh * mod->target.kw > 1);
    }
    while (c->type < sizeof types / sizeof *types && strcmp(types[c->type].kind, first->kind->name))
        c->type++;
    if (c->type == sizeof types / sizeof *types)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s: PEFT's settings of the kind '%s' are not written", first->target.name,
                        first->kind->name);
    if (c->dora && c->bias)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "some modules have magnitudes (DoRA) and others change a bias: a PEFT "
                        "adapter does not have both");
    if (c->type > 0 && c->tucker && c->flat)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "some convolutions have a tucker core and others none: a PEFT adapter has "
                        "one form for all");
    find_usual(c);
    return SDLORA_OK;
}

static void put_name(slr_buf *b, const char *prefix, const char *name)
{
    slr_buf_printf(b, "  \"%s%s\": ", prefix, name);
}

static void put_real(slr_buf *b, double value)
{
    char text[32];
    size_t n;
    slr_real_repr(value, text);
    n = strlen(text); /* PEFT's alphas are integers where they can be */
    slr_buf_add(b, text, n > 2 && !strcmp(text + n - 2, ".0") ? n - 2 : n);
}

/* {"path": number} of the modules that are not as most are. */
static void put_pattern(slr_buf *b, const common *c, bool ranks)
{
    bool any = false;
    slr_buf_puts(b, "{");
    for (size_t i = 0; i < c->n->n_modules; i++) {
        const slr_module *mod = &c->n->module[i];
        double value = ranks ? (double)rank_of(c, mod) : alpha_of(c, mod);
        if (!counts(c, i) || value == (ranks ? (double)c->rank : c->alpha))
            continue;
        slr_buf_puts(b, any ? ", " : "");
        slr_json_quote(b, mod->target.path, strlen(mod->target.path), false);
        slr_buf_puts(b, ": ");
        put_real(b, value);
        any = true;
    }
    slr_buf_puts(b, "}");
}

/* The paths of all modules, or of those that are marked. */
static void put_paths(slr_buf *b, const common *c, bool marked)
{
    bool any = false;
    slr_buf_puts(b, "[");
    for (size_t i = 0; i < c->n->n_modules; i++) {
        const char *path = c->n->module[i].target.path;
        if (!counts(c, i) || (marked && !c->n->module[i].marked))
            continue;
        slr_buf_puts(b, any ? ", " : "");
        slr_json_quote(b, path, strlen(path), false);
        any = true;
    }
    slr_buf_puts(b, "]");
}

/* What (IA)^3 has none of. */
static void put_ranks(slr_buf *b, const char *prefix, const common *c)
{
    put_name(b, prefix, "r");
    slr_buf_printf(b, "%lld,\n", (long long)c->rank);
    put_name(b, prefix, types[c->type].alpha);
    put_real(b, c->alpha);
    slr_buf_puts(b, ",\n");
    put_name(b, prefix, "rank_pattern");
    put_pattern(b, c, true);
    slr_buf_puts(b, ",\n");
    put_name(b, prefix, "alpha_pattern");
    put_pattern(b, c, false);
    slr_buf_puts(b, ",\n");
}

static void put_flag(slr_buf *b, const char *prefix, const char *name, bool value)
{
    put_name(b, prefix, name);
    slr_buf_puts(b, value ? "true,\n" : "false,\n");
}

int slr_peft_describe(slr_buf *b, const slr_network *n, int part, const char *prefix, bool folded)
{
    common c = {.n = n, .part = part, .folded = folded, .widest = slr_peft_widest(n, part)};
    SLR_TRY(look(&c));
    put_name(b, prefix, "peft_type");
    slr_buf_printf(b, "\"%s\",\n", types[c.type].type);
    if (types[c.type].alpha) {
        put_ranks(b, prefix, &c);
    } else {
        put_name(b, prefix, "feedforward_modules");
        put_paths(b, &c, true);
        slr_buf_puts(b, ",\n");
    }
    if (!strcmp(types[c.type].kind, "lora")) {
        put_flag(b, prefix, "use_rslora", false);
        put_flag(b, prefix, "use_dora", c.dora);
        if (c.bias) /* a setting that older versions of PEFT do not know */
            put_flag(b, prefix, "lora_bias", true);
    } else if (!strcmp(types[c.type].kind, "loha")) {
        put_flag(b, prefix, "use_effective_conv2d", c.tucker);
    }
    put_flag(b, prefix, "inference_mode", true);
    put_name(b, prefix, "target_modules");
    put_paths(b, &c, false);
    return slr_buf_ok(b);
}
