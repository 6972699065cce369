/* SPDX-License-Identifier: MIT */
/* Counts what keys tell.  The dialect is what most tensors are spelled in; the family is read off
 * the width of the text that cross-attention takes, then off what only one family has. */
#include "networks/netlook.h"

#include <string.h>

#include "base/status.h"
#include "io/json.h"
#include "networks/dialect.h"

enum { MAX_ROWS = 48 };
enum { BARE = 1, KNOWN = 2 };

/* Counts by a short text. */
typedef struct tally {
    struct {
        char what[40];
        int64_t n;
    } row[MAX_ROWS];
    size_t n;
} tally;

struct slr_netlook {
    slr_mem *m;
    slr_map *modules; /* part and path -> BARE or KNOWN */
    int64_t bare;     /* modules of which there is a diff_b alone */
    tally algorithms, dialects, naming, parts, ranks, alphas;
    const char *algorithm; /* of the first module that is more than whole weights */
    int64_t context;       /* inputs of the first cross-attention's keys */
    int proj_rank;         /* dimensions of the first proj_in's factor */
    bool dora, second;     /* second: a text encoder that SDXL alone has */
};

static void count_all(tally *t, const char *what, int64_t more)
{
    size_t i = 0, n = strlen(what);
    while (i < t->n && strcmp(t->row[i].what, what) != 0)
        i++;
    if (i == MAX_ROWS || n >= sizeof t->row[i].what)
        return; /* more kinds than anyone reads */
    if (i == t->n)
        memcpy(t->row[t->n++].what, what, n + 1);
    t->row[i].n += more;
}

static void count(tally *t, const char *what)
{
    count_all(t, what, 1);
}

static void count_real(tally *t, double v)
{
    char text[32];
    slr_real_repr(v, text);
    count(t, text);
}

int slr_netlook_new(slr_netlook **out, slr_mem *m)
{
    slr_netlook *l = slr_calloc(m, 1, sizeof *l);
    *out = NULL;
    if (!l)
        return SDLORA_ENOMEM;
    l->m = m;
    if (slr_map_new(&l->modules, m) < 0) {
        slr_free(m, l);
        return SDLORA_ENOMEM;
    }
    *out = l;
    return SDLORA_OK;
}

void slr_netlook_free(slr_netlook *l)
{
    if (!l)
        return;
    slr_map_free(l->modules);
    slr_free(l->m, l);
}

/* --- parts and naming --- */

static const struct {
    const char *head, *naming;
} unet_heads[] = {
    {"down_blocks_", "diffusers"},   {"up_blocks_", "diffusers"},
    {"mid_block_", "diffusers"},     {"conv_in", "diffusers"},
    {"conv_out", "diffusers"},       {"time_embedding_", "diffusers"},
    {"input_blocks_", "ldm"},        {"output_blocks_", "ldm"},
    {"middle_block_", "ldm"},        {"time_embed_", "ldm"},
    {"add_embedding_", "diffusers"}, {"label_emb_", "ldm"},
};

/* NULL: not a path of a UNet. */
static const char *naming_of(const char *module)
{
    for (size_t i = 0; i < sizeof unet_heads / sizeof *unet_heads; i++)
        if (slr_starts(module, unet_heads[i].head))
            return unet_heads[i].naming;
    return NULL;
}

static const char *part_of(const slr_key *k)
{
    static const struct {
        int part;
        const char *name;
    } parts[] = {{SLR_PART_UNET, "UNet"},
                 {SLR_PART_TE, "text encoder"},
                 {SLR_PART_TE2, "second text encoder"}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (k->parts == 1u << parts[i].part)
            return parts[i].name;
    return naming_of(k->module)                  ? "UNet"
           : strstr(k->module, "encoder_layers") ? "text encoder"
                                                 : "other";
}

/* --- algorithms --- */

/* Kinds with the same tensor names differ in shape or in the prefix. */
static const char *algorithm_of(const slr_key *k, const char *name, const slr_tensor *t)
{
    if (k->take == SLR_TAKE_FACTOR)
        return "ia3";
    if (!strcmp(k->leaf, "oft_blocks"))
        return slr_starts(name, "oft_unet_") ? "oft" : t->rank == 4 ? "boft" : "diag-oft";
    return slr_leaf_algorithm(k->leaf);
}

/* Axis of the tensor that is the rank; -1: the smaller one. */
static const struct {
    const char *leaf;
    int axis;
} rank_leaves[] = {{"lora_down.weight", 0},
                   {"hada_w1_b", 0},
                   {"lokr_w2_b", 0},
                   {"a1.weight", -1},
                   {"lambda_layer", 1}};

static void see_rank(slr_netlook *l, const slr_key *k, const slr_tensor *t)
{
    for (size_t i = 0; i < sizeof rank_leaves / sizeof *rank_leaves; i++) {
        int axis = rank_leaves[i].axis;
        if (strcmp(rank_leaves[i].leaf, k->leaf) != 0 || t->rank < 2)
            continue;
        if (axis < 0)
            axis = t->dim[0] <= t->dim[1] ? 0 : 1;
        count_real(&l->ranks, (double)t->dim[axis]);
    }
    if (strcmp(k->leaf, "lora_down.weight") != 0)
        return;
    if (!l->context && t->rank >= 2 && slr_ends(k->module, "attn2_to_k"))
        l->context = t->dim[1];
    if (!l->proj_rank && slr_ends(k->module, "proj_in"))
        l->proj_rank = t->rank;
}

/* Algorithms that stand beside others: weights as they are. */
static bool is_whole(const char *algorithm)
{
    static const char *const whole[] = {"full", "set", "norm"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (!strcmp(whole[i], algorithm))
            return true;
    return false;
}

static void see_algorithm(slr_netlook *l, const char *algorithm)
{
    count(&l->algorithms, algorithm);
    if (!l->algorithm || (is_whole(l->algorithm) && !is_whole(algorithm)))
        l->algorithm = algorithm;
}

/* algorithm: NULL of a diff_b, which may be all that a module has, or stand beside any. */
static int see_module(slr_netlook *l, const slr_key *k, const char *algorithm)
{
    char id[SLR_LAYER_KEY];
    int64_t known = 0;
    const char *part = part_of(k), *naming = naming_of(k->module);
    if (!slr_layer_key(id, (int)k->parts, k->module))
        return SDLORA_OK;
    if (slr_map_get(l->modules, id, &known) && (known == KNOWN || !algorithm))
        return SDLORA_OK;
    l->bare += algorithm ? -(known == BARE) : 1;
    if (algorithm)
        see_algorithm(l, algorithm);
    if (!known) {
        count(&l->parts, part);
        if (naming && !strcmp(part, "UNet"))
            count(&l->naming, naming);
        l->second = l->second || k->parts == 1u << SLR_PART_TE2;
    }
    return slr_map_set(l->modules, id, algorithm ? KNOWN : BARE);
}

int slr_netlook_tensor(slr_netlook *l, const char *name, const slr_tensor *t)
{
    slr_key k;
    float alpha;
    if (slr_key_foreign(name) || !slr_key_read(&k, name))
        return SDLORA_OK;
    const char *algorithm = algorithm_of(&k, name, t);
    if (!strcmp(k.leaf, "dora_scale"))
        l->dora = true;
    if (!strcmp(k.leaf, "alpha") && slr_tensor_count(t) == 1 && t->data &&
        slr_tensor_to_f32(t, &alpha) >= 0)
        count_real(&l->alphas, alpha);
    if (!algorithm && strcmp(k.leaf, "diff_b") != 0)
        return SDLORA_OK;
    count(&l->dialects, slr_dialect_name(k.dialect));
    see_rank(l, &k, t);
    return see_module(l, &k, algorithm);
}

size_t slr_netlook_modules(const slr_netlook *l)
{
    return slr_map_count(l->modules);
}

/* Text is 768, 1024 or 2048 numbers wide.  Else: only SDXL has two encoders, and SD 1 projects by
 * 1x1 convolutions where SD 2 has linear layers. */
const char *slr_netlook_family(const slr_netlook *l)
{
    static const struct {
        int64_t context;
        const char *family;
    } rows[] = {{768, "sd1"}, {1024, "sd2"}, {2048, "sdxl"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (l->context == rows[i].context)
            return rows[i].family;
    return l->second ? "sdxl" : l->proj_rank == 4 ? "sd1" : l->proj_rank == 2 ? "sd2" : NULL;
}

/* --- the text --- */

/* {"16": 264}; ranks and alphas lose a trailing ".0". */
static void put_tally(slr_buf *b, const char *key, const tally *t)
{
    slr_buf_printf(b, ",\n    \"%s\": {", key);
    for (size_t i = 0; i < t->n; i++) {
        const char *what = t->row[i].what;
        size_t n = strlen(what);
        n -= slr_ends(what, ".0") ? 2 : 0;
        slr_buf_puts(b, i ? ", " : "");
        slr_json_quote(b, what, n, false);
        slr_buf_printf(b, ": %lld", (long long)t->row[i].n);
    }
    slr_buf_puts(b, "}");
}

static const char *most(const tally *t)
{
    size_t best = 0;
    for (size_t i = 1; i < t->n; i++)
        if (t->row[i].n > t->row[best].n)
            best = i;
    return t->n ? t->row[best].what : "unknown";
}

void slr_netlook_put(const slr_netlook *l, slr_buf *b)
{
    tally algorithms = l->algorithms;
    if (l->bare > 0)
        count_all(&algorithms, slr_kind_full.name, l->bare);
    slr_buf_printf(b,
                   "    \"algorithm\": \"%s%s\",\n    \"modules\": %zu,\n    \"dialect\": \"%s\"",
                   l->dora ? "dora+" : "", l->algorithm ? l->algorithm : slr_kind_full.name,
                   slr_netlook_modules(l), most(&l->dialects));
    if (l->dialects.n > 1)
        put_tally(b, "dialects", &l->dialects);
    if (l->naming.n)
        slr_buf_printf(b, ",\n    \"naming\": \"%s\"", most(&l->naming));
    put_tally(b, "algorithms", &algorithms);
    put_tally(b, "parts", &l->parts);
    put_tally(b, "ranks", &l->ranks);
    put_tally(b, "alphas", &l->alphas);
}
