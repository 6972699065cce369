/* SPDX-License-Identifier: MIT */
/* New hypernetworks: network_args under the names of AUTOMATIC1111's files, and its five ways to
 * begin.  Refuses to know files and the forward pass. */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "base/str.h"
#include "networks/hypernet.h"
#include "networks/kind.h"

bool slr_hyper_wanted(slr_opt o)
{
    const char *module = slr_opt_text(o, "network_module");
    return module && !strcmp(module, "hypernetwork");
}

/* ---- network_args ------------------------------------------------------------------------ */

typedef struct arguments {
    slr_hyper h;
    slr_arena *texts;
    bool dropout_given, sizes_given;
} arguments;

static int bad_value(const char *key, const char *text, const char *wanted)
{
    return slr_fail(SDLORA_EINVAL, "slr_hyper_make", "network_args: %s=%s is not %s", key, text,
                    wanted);
}

/* "1, 2, 1", with or without brackets; -1: too many, or no numbers. */
static int parse_list(const char *text, double *to, int most)
{
    slr_str rest = slr_str_trim(slr_str_of(text)), piece;
    int n = 0;
    if (rest.n >= 2 && rest.p[0] == '[' && rest.p[rest.n - 1] == ']')
        rest = (slr_str){rest.p + 1, rest.n - 2};
    while (slr_str_next(&rest, ',', &piece)) {
        char copy[32];
        piece = slr_str_trim(piece);
        if (n == most || piece.n >= sizeof copy)
            return -1;
        memcpy(copy, piece.p, piece.n);
        copy[piece.n] = '\0';
        if (!slr_parse_real(copy, &to[n++]))
            return -1;
    }
    return n;
}

static int take_structure(arguments *a, const char *key, const char *text)
{
    int n = parse_list(text, a->h.structure, SLR_HYPER_LAYERS + 1);
    if (n < 2)
        return bad_value(key, text, "a list of 2 to 17 numbers such as 1,2,1");
    a->h.layers = n - 1;
    return SDLORA_OK;
}

static int take_dropout(arguments *a, const char *key, const char *text)
{
    a->dropout_given = true;
    memset(a->h.dropout, 0, sizeof a->h.dropout);
    if (parse_list(text, a->h.dropout, SLR_HYPER_LAYERS + 1) < 1)
        return bad_value(key, text, "a list of numbers such as 0,0.3,0");
    return SDLORA_OK;
}

static int take_sizes(arguments *a, const char *key, const char *text)
{
    double sizes[SLR_HYPER_WIDTHS];
    int n = parse_list(text, sizes, SLR_HYPER_WIDTHS);
    a->sizes_given = true;
    a->h.widths = 0;
    for (int i = 0; i < n; i++) {
        if (!(sizes[i] >= 1 && sizes[i] <= SLR_HYPER_WIDEST) || sizes[i] != floor(sizes[i]))
            n = 0;
        else
            a->h.width[a->h.widths++] = (int64_t)sizes[i];
        for (int k = 0; k + 1 < a->h.widths; k++)
            if (a->h.width[k] == (int64_t)sizes[i])
                n = 0; /* twice */
    }
    return n > 0 ? SDLORA_OK : bad_value(key, text, "a list of widths such as 768,320");
}

static int take_activation(arguments *a, const char *key, const char *text)
{
    (void)key;
    a->h.activation = text;
    return SDLORA_OK;
}

/* ---- initial values ---------------------------------------------------------------------- */

enum { NORMAL, UNIFORM };

/* torch.nn.init's: the half width of a uniform distribution, or a normal one's deviation. */
static double flat(int64_t in, int64_t out)
{
    (void)in, (void)out;
    return 0.01;
}

static double xavier_uniform(int64_t in, int64_t out)
{
    return sqrt(6.0 / (double)(in + out));
}

static double xavier_normal(int64_t in, int64_t out)
{
    return sqrt(2.0 / (double)(in + out));
}

static double kaiming_uniform(int64_t in, int64_t out)
{
    (void)out;
    return sqrt(6.0 / (double)in);
}

static double kaiming_normal(int64_t in, int64_t out)
{
    (void)out;
    return sqrt(2.0 / (double)in);
}

static const struct way {
    const char *name;
    int shape;
    double (*size)(int64_t in, int64_t out);
} ways[] = {
    {"Normal", NORMAL, flat},
    {"XavierUniform", UNIFORM, xavier_uniform},
    {"XavierNormal", NORMAL, xavier_normal},
    {"KaimingUniform", UNIFORM, kaiming_uniform},
    {"KaimingNormal", NORMAL, kaiming_normal},
};

static const struct way *way_named(const char *name)
{
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (!strcmp(ways[i].name, name))
            return &ways[i];
    return NULL;
}

static int take_init(arguments *a, const char *key, const char *text)
{
    const struct way *way = way_named(text);
    if (!way)
        return bad_value(key, text,
                         "Normal, XavierUniform, XavierNormal, KaimingUniform or KaimingNormal");
    a->h.weight_initialization = way->name;
    return SDLORA_OK;
}

/* Biases are zero; the weights of layer norms are as small as "Normal" makes them, whatever the
 * way. */
static void init_values(slr_network *n, uint64_t seed)
{
    const struct way *way = way_named(n->hyper->weight_initialization);
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_module *mod = &n->module[i];
        const slr_network_slot *slot = &n->slot[mod->slot];
        const slr_network_slot *w = slr_module_slot(mod, slot, SLR_HYPER_WEIGHT);
        const slr_network_slot *norm = slr_module_slot(mod, slot, SLR_HYPER_NORM_WEIGHT);
        double size = way->size(mod->target.in, mod->target.out);
        slr_rng rng;
        slr_rng_init(&rng, seed, SLR_STREAM_INIT, (uint32_t)i);
        if (way->shape == NORMAL)
            slr_init_normal(n->params + w->offset, w->count, size, &rng);
        else
            for (size_t k = 0; k < w->count; k++)
                n->params[w->offset + k] = (float)((2.0 * slr_rng_real(&rng) - 1.0) * size);
        if (norm)
            slr_init_normal(n->params + norm->offset, norm->count, 0.01, &rng);
    }
}

/* ---- keys -------------------------------------------------------------------------------- */

static bool truth(const char *text)
{
    return strcasecmp(text, "false") != 0 && strcmp(text, "0") != 0;
}

#define FLAG_AT(f) offsetof(arguments, h.f)

/* take NULL: a truth value at `flag`. */
static const struct {
    const char *key;
    int (*take)(arguments *a, const char *key, const char *text);
    size_t flag;
} keys[] = {
    {"layer_structure", take_structure, 0},
    {"dropout_structure", take_dropout, 0},
    {"enable_sizes", take_sizes, 0},
    {"activation_func", take_activation, 0},
    {"weight_initialization", take_init, 0},
    {"weight_init", take_init, 0},
    {"is_layer_norm", NULL, FLAG_AT(is_layer_norm)},
    {"add_layer_norm", NULL, FLAG_AT(is_layer_norm)},
    {"use_dropout", NULL, FLAG_AT(use_dropout)},
    {"last_layer_dropout", NULL, FLAG_AT(last_layer_dropout)},
    {"activate_output", NULL, FLAG_AT(activate_output)},
};

static char *copy_text(slr_arena *a, slr_str s)
{
    char *copy = slr_arena_alloc(a, s.n + 1, 1);
    if (copy)
        memcpy(copy, s.p, s.n);
    return copy;
}

static int take_pair(arguments *a, slr_str key, slr_str value)
{
    char *text = copy_text(a->texts, value), *name = copy_text(a->texts, key);
    if (!text || !name)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(keys[i].key, name) != 0)
            continue;
        if (keys[i].take)
            return keys[i].take(a, name, text);
        *(bool *)((char *)a + keys[i].flag) = truth(text);
        return SDLORA_OK;
    }
    return slr_fail(SDLORA_ENOTSUP, "slr_hyper_make",
                    "network_args: '%s' is not supported by hypernetwork here", name);
}

static int read_args(arguments *a, slr_opt o)
{
    static const double usual[] = {1, 2, 1};
    slr_str rest = slr_str_of(slr_opt_text(o, "network_args")), key, value;
    int more;
    a->h = (slr_hyper){.layers = 2,
                       .activation = "linear",
                       .weight_initialization = "Normal",
                       .last_layer_dropout = true};
    memcpy(a->h.structure, usual, sizeof usual);
    while ((more = slr_pair_next(&rest, "network_args", &key, &value)) > 0)
        SLR_TRY(take_pair(a, key, value));
    SLR_TRY(more);
    if (!a->dropout_given)
        slr_hyper_derive_dropout(&a->h);
    return SDLORA_OK;
}

/* All that the base's attention layers read, in the order of the layers. */
static int all_widths(slr_hyper *h, slr_mem *m, const slr_checkpoint *base)
{
    slr_targets *targets;
    SLR_TRY(slr_targets_new(&targets, m, base));
    for (size_t i = 0; i < slr_targets_count(targets); i++) {
        const slr_target *t = slr_targets_at(targets, i);
        int k = 0;
        if (t->part != SLR_PART_UNET || !slr_ends(t->path, ".to_k"))
            continue;
        while (k < h->widths && h->width[k] != t->in)
            k++;
        if (k == h->widths && k < SLR_HYPER_WIDTHS)
            h->width[h->widths++] = t->in;
    }
    slr_targets_free(targets);
    return SDLORA_OK;
}

static int check_options(slr_opt o)
{
    if (slr_opt_bool(o, "network_train_text_encoder_only"))
        return slr_fail(SDLORA_EINVAL, "slr_hyper_make",
                        "network_train_text_encoder_only leaves nothing of a hypernetwork, which "
                        "is all in the UNet");
    return SDLORA_OK;
}

int slr_hyper_make(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                   uint64_t seed)
{
    slr_mem *m = slr_checkpoint_mem(base);
    slr_opt o = {opts, "network"};
    arguments a = {0};
    *out = NULL;
    SLR_TRY(check_options(o));
    SLR_TRY(slr_arena_new(&a.texts, m));
    int rc = read_args(&a, o);
    if (rc >= 0 && !a.sizes_given)
        rc = all_widths(&a.h, m, base);
    if (rc >= 0)
        rc = slr_hyper_check(&a.h, "network_args");
    if (rc >= 0)
        rc = slr_hyper_new(out, m, base, &a.h, "network_args");
    slr_arena_free(a.texts);
    if (rc >= 0)
        rc = slr_options_copy(&(*out)->opts, opts);
    if (rc < 0) {
        slr_network_unref(*out);
        *out = NULL;
        return rc == SDLORA_EFORMAT ? SDLORA_EINVAL : rc;
    }
    init_values(*out, seed);
    return SDLORA_OK;
}

int slr_hyper_make_like(slr_network **out, const slr_checkpoint *base, const sdlora_options *opts,
                        const slr_network *from)
{
    slr_hyper h;
    *out = NULL;
    if (!slr_network_is_hyper(from))
        return slr_fail(SDLORA_EINVAL, __func__, "%s is not a hypernetwork",
                        from->path ? from->path : "the network");
    SLR_TRY(check_options((slr_opt){opts, "network"}));
    h = *from->hyper;
    if (!h.weight_initialization)
        h.weight_initialization = "Normal";
    SLR_TRY(slr_hyper_new(out, slr_checkpoint_mem(base), base, &h, from->name));
    int rc = slr_options_copy(&(*out)->opts, opts);
    if (rc < 0) {
        slr_network_unref(*out);
        *out = NULL;
        return rc;
    }
    memcpy((*out)->params, from->params, from->n_params * sizeof *from->params);
    return SDLORA_OK;
}
