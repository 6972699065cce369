/* SPDX-License-Identifier: MIT */
/* Reads network_module and network_args ("key=value" items) as kohya's users type them: rows of
 * modules, and of names, ranges and the field that each fills; and puts together what a layer gets.
 * Refuses to know what a setting does. */
#include "networks/args.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "base/str.h"

/* Who takes a key.  MAP: the tables of a preset; LYCORIS' keys that are a module's stand there too.
 */
enum { LORA = 1, FA = 2, DYLORA = 4, OFT = 8, LYCORIS = 16, MAP = 32 };
enum { KOHYA = LORA | FA, BOTH = LYCORIS | MAP };

static const struct {
    const char *name;
    int bit;
    const char *kind; /* NULL: algo says it */
} modules[] = {
    {"networks.lora", LORA, "lora"},     {"networks.lora_fa", FA, "lora"},
    {"networks.dylora", DYLORA, "lora"}, {"networks.oft", OFT, "oft"},
    {"lycoris.kohya", LYCORIS, NULL},
};
enum { N_MODULES = sizeof modules / sizeof *modules };

enum { WHOLE, REAL, FLAG, TEXT, NOTHING };

#define SET(f) true, offsetof(slr_settings, f)
#define ALL(f) false, offsetof(slr_arguments, f)

/* What network_args may hold.  option: the option that means the same; the arg wins.  Of two that
 * fill the same field the later row wins, as LyCORIS' deprecated names do. */
static const struct {
    const char *key;
    int type, modules;
    bool in_set;
    size_t field;
    double min, max;
    const char *option;
} rows[] = {
    {"algo", TEXT, LYCORIS, ALL(algo), 0, 0, NULL},
    {"preset", TEXT, LYCORIS, ALL(preset_name), 0, 0, NULL},
    {"dim", WHOLE, MAP, SET(dim), 1, 1000000, NULL},
    {"alpha", REAL, MAP, SET(alpha), 0, 1e9, NULL},
    {"conv_dim", WHOLE, KOHYA | DYLORA | LYCORIS, ALL(conv_dim), 0, 1000000, "conv_dim"},
    {"conv_alpha", REAL, KOHYA | DYLORA | LYCORIS, ALL(conv_alpha), 0, 1e9, "conv_alpha"},
    {"unit", WHOLE, DYLORA, ALL(unit), 1, 65536, NULL},
    {"dropout", REAL, KOHYA | BOTH, SET(dropout), 0, 1, "network_dropout"},
    {"rank_dropout", REAL, KOHYA | BOTH, SET(rank_dropout), 0, 1, "rank_dropout"},
    {"module_dropout", REAL, KOHYA | BOTH, SET(module_dropout), 0, 1, "module_dropout"},
    {"rank_dropout_scale", FLAG, BOTH, SET(rank_dropout_scale), 0, 0, NULL},
    {"use_tucker", FLAG, BOTH, SET(tucker), 0, 0, NULL},
    {"use_cp", FLAG, BOTH, SET(tucker), 0, 0, NULL},
    {"use_conv_cp", FLAG, BOTH, SET(tucker), 0, 0, NULL},
    {"disable_conv_cp", NOTHING, LYCORIS, SET(tucker), 0, 0, NULL},
    {"use_scalar", FLAG, BOTH, SET(scalar), 0, 0, NULL},
    {"rs_lora", FLAG, BOTH, SET(rs_lora), 0, 0, NULL},
    {"bypass_mode", FLAG, BOTH, SET(bypass), 0, 0, NULL},
    {"dora_wd", FLAG, BOTH, SET(dora), 0, 0, NULL},
    {"weight_decompose", FLAG, BOTH, SET(dora), 0, 0, NULL},
    {"wd_on_output", FLAG, BOTH, SET(wd_on_output), 0, 0, NULL},
    {"wd_on_out", FLAG, BOTH, SET(wd_on_output), 0, 0, NULL},
    {"factor", WHOLE, BOTH, SET(factor), -1, 65536, NULL},
    {"decompose_both", FLAG, BOTH, SET(decompose_both), 0, 0, NULL},
    {"full_matrix", FLAG, BOTH, SET(full_matrix), 0, 0, NULL},
    {"unbalanced_factorization", FLAG, BOTH, SET(unbalanced), 0, 0, NULL},
    {"constraint", REAL, BOTH, SET(constraint), 0, 1e9, NULL},
    {"constrain", REAL, BOTH, SET(constraint), 0, 1e9, NULL},
    {"rescaled", FLAG, BOTH, SET(rescaled), 0, 0, NULL},
    {"block_size", WHOLE, BOTH, SET(block_size), 1, 65536, NULL},
    {"sig_type", TEXT, BOTH, SET(sig_type), 0, 0, NULL},
    {"use_data_init", FLAG, BOTH, SET(data_init), 0, 0, NULL},
    {"mask_group_id", NOTHING, BOTH, SET(sig_type), 0, 0, NULL},
    {"tlora_min_rank", WHOLE, BOTH, SET(min_rank), 1, 65536, NULL},
    {"tlora_alpha", REAL, BOTH, SET(rank_power), 0, 1000, NULL},
    {"train_on_input", FLAG, MAP, SET(train_on_input), 0, 0, NULL},
    {"train_norm", FLAG, LYCORIS, ALL(train_norm), 0, 0, NULL},
    {"enable_all_linear", FLAG, OFT, ALL(all_linear), 0, 0, NULL},
    {"enable_conv", FLAG, OFT, ALL(conv), 0, 0, NULL},
    {"block_dims", TEXT, KOHYA, ALL(block.dims), 0, 0, NULL},
    {"block_alphas", TEXT, KOHYA, ALL(block.alphas), 0, 0, NULL},
    {"conv_block_dims", TEXT, KOHYA, ALL(block.conv_dims), 0, 0, NULL},
    {"conv_block_alphas", TEXT, KOHYA, ALL(block.conv_alphas), 0, 0, NULL},
    {"down_lr_weight", TEXT, KOHYA, ALL(block.down), 0, 0, NULL},
    {"mid_lr_weight", TEXT, KOHYA, ALL(block.mid), 0, 0, NULL},
    {"up_lr_weight", TEXT, KOHYA, ALL(block.up), 0, 0, NULL},
    {"block_lr_zero_threshold", REAL, KOHYA, ALL(threshold), 0, 1e9, NULL},
    {"loraplus_lr_ratio", REAL, LORA | DYLORA | LYCORIS, ALL(plus), 0, 1e6, NULL},
    {"loraplus_unet_lr_ratio", REAL, LORA | DYLORA | LYCORIS, ALL(plus_part[SLR_PART_UNET]), 0, 1e6,
     NULL},
    {"loraplus_text_encoder_lr_ratio", REAL, LORA | DYLORA | LYCORIS, ALL(plus_part[SLR_PART_TE]),
     0, 1e6, NULL},
    /* of models that have such parts */
    {"train_t5xxl", NOTHING, LYCORIS, ALL(algo), 0, 0, NULL},
    {"train_llm_adapter", NOTHING, LYCORIS, ALL(algo), 0, 0, NULL},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static const char *arg_of(const slr_network *n, const char *key)
{
    int64_t at;
    return slr_map_get(n->args, key, &at) ? n->arg_value[at] : NULL;
}

/* "key=value" items of network_args. */
static int split(slr_network *n, const char *list)
{
    slr_str rest = slr_str_of(list), key, value;
    size_t count = 0;
    int more;
    while ((more = slr_pair_next(&rest, "network_args", &key, &value)) > 0) {
        char *text = slr_arena_alloc(n->texts, key.n + value.n + 2, 1); /* both, each with a NUL */
        if (!text)
            return SDLORA_ENOMEM;
        memcpy(text, key.p, key.n);
        memcpy(text + key.n + 1, value.p, value.n);
        SLR_TRY(slr_grow(n->m, &n->arg_value, &n->arg_cap, count + 1, sizeof *n->arg_value));
        n->arg_value[count] = text + key.n + 1;
        SLR_TRY(slr_map_set(n->args, text, (int64_t)count++));
    }
    return more;
}

/* --- values --- */

/* LyCORIS: whatever is not "false" is true. */
static bool truth(const char *text)
{
    return strcasecmp(text, "false") != 0;
}

static int read_number(const char *where, size_t row, const char *text, double *value)
{
    bool whole = rows[row].type == WHOLE;
    if (!slr_parse_real(text, value))
        return slr_fail(SDLORA_EINVAL, __func__, "%s: %s=%s is not a number", where, rows[row].key,
                        text);
    if (!(*value >= rows[row].min && *value <= rows[row].max) || (whole && *value != floor(*value)))
        return slr_fail(SDLORA_EINVAL, __func__, "%s: %s=%g is not %s from %g to %g", where,
                        rows[row].key, *value, whole ? "a whole number" : "a number", rows[row].min,
                        rows[row].max);
    return SDLORA_OK;
}

static void store(void *field, int type, double value)
{
    if (type == REAL)
        *(double *)field = value;
    else if (type == WHOLE)
        *(int64_t *)field = (int64_t)value;
    else
        *(bool *)field = value != 0;
}

/* base: what the row's field is counted from. */
static int store_text(const char *where, size_t row, void *base, const char *text)
{
    void *field = (char *)base + rows[row].field;
    double value;
    switch (rows[row].type) {
    case NOTHING:
        return SDLORA_OK;
    case TEXT:
        *(const char **)field = text;
        return SDLORA_OK;
    case FLAG:
        *(bool *)field = truth(text);
        return SDLORA_OK;
    default:
        SLR_TRY(read_number(where, row, text, &value));
        store(field, rows[row].type, value);
        return SDLORA_OK;
    }
}

static int unknown_key(const char *where, const char *key, int bit, const char *owner)
{
    const char *near = NULL;
    size_t best = 1 + strlen(key) / 2, d;
    for (size_t k = 0; k < N_ROWS; k++)
        if (rows[k].modules & bit && (d = slr_str_distance(key, rows[k].key, best)) < best) {
            best = d;
            near = rows[k].key;
        }
    return slr_fail(SDLORA_ENOTSUP, __func__, "%s: '%s' is not supported by %s here%s%s%s", where,
                    key, owner, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* N_ROWS: nobody whom the bits name takes it. */
static size_t find_row(const char *key, int bit)
{
    size_t k = 0;
    while (k < N_ROWS && (!(rows[k].modules & bit) || strcmp(rows[k].key, key)))
        k++;
    return k;
}

/* Keys that the module at hand does not know. */
static int check_keys(const slr_arguments *a, const slr_network *n)
{
    for (size_t i = 0; i < slr_map_count(n->args); i++) {
        const char *key = slr_map_at(n->args, i, NULL);
        if (find_row(key, a->bit) == N_ROWS)
            return unknown_key("network_args", key, a->bit, a->module);
    }
    return SDLORA_OK;
}

static int read_row(slr_arguments *a, const slr_network *n, size_t row)
{
    slr_opt o = slr_network_options(n);
    const char *text = arg_of(n, rows[row].key), *option = rows[row].option;
    void *base = rows[row].in_set ? (void *)&a->set : a;
    bool given = option && slr_opt_has(o, option);
    if (!(rows[row].modules & a->bit))
        return !given ? SDLORA_OK
                      : slr_fail(SDLORA_ENOTSUP, __func__, "%s has no %s", a->module, option);
    if (text)
        return store_text("network_args", row, base, text);
    if (given)
        store((char *)base + rows[row].field, rows[row].type,
              rows[row].type == WHOLE ? (double)slr_opt_int(o, option) : slr_opt_real(o, option));
    return SDLORA_OK;
}

/* --- algorithms --- */

static int kind_named(const char *name, const char *where, const slr_kind **out)
{
    char algo[32];
    size_t n = 0;
    for (; name[n] && n + 1 < sizeof algo; n++)
        algo[n] = (char)tolower((unsigned char)name[n]);
    algo[n] = '\0';
    *out = slr_kind_named(!strcmp(algo, "locon") || !strcmp(algo, "dylora") ? "lora" : algo);
    if (!*out || !(*out)->make) /* some are read and not made */
        return slr_fail(SDLORA_ENOTSUP, __func__, "%s: algo=%s is not known", where, name);
    return SDLORA_OK;
}

/* The settings that an algorithm's name says by itself. */
static void algo_settings(slr_settings *set, const char *algo)
{
    set->unit = !strcasecmp(algo, "dylora") ? set->block_size : 0;
}

static int read_module(slr_arguments *a, const slr_network *n)
{
    a->module = slr_opt_text(slr_network_options(n), "network_module");
    size_t i = 0;
    while (i < N_MODULES && strcmp(modules[i].name, a->module))
        i++;
    if (i == N_MODULES)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "network_module %s is not known: there are networks.lora, lycoris.kohya, "
                        "networks.lora_fa, networks.dylora and networks.oft",
                        a->module);
    a->bit = modules[i].bit;
    SLR_TRY(check_keys(a, n));
    for (size_t k = 0; k < N_ROWS; k++)
        SLR_TRY(read_row(a, n, k));
    if (!a->algo || !*a->algo)
        a->algo = "lora";
    const char *cp = arg_of(n, "disable_conv_cp");
    if (cp)
        a->set.tucker = !truth(cp);
    return kind_named(modules[i].kind ? modules[i].kind : a->algo, "network_args", &a->kind);
}

/* --- the tables of a preset --- */

static int apply_override(const slr_override *o, slr_settings *set)
{
    char where[128];
    snprintf(where, sizeof where, "preset: %s", o->match);
    for (const char *const *p = o->pairs; p && *p; p += 2) {
        size_t row = find_row(p[0], MAP);
        if (row == N_ROWS)
            return unknown_key(where, p[0], MAP, "LyCORIS");
        SLR_TRY(store_text(where, row, set, p[1]));
    }
    return SDLORA_OK;
}

/* Also the entries that no layer meets. */
static int check_overrides(const slr_override *o)
{
    for (; o && o->match; o++) {
        slr_settings scratch = {0};
        const slr_kind *kind;
        SLR_TRY(apply_override(o, &scratch));
        if (o->algo)
            SLR_TRY(kind_named(o->algo, o->match, &kind));
    }
    return SDLORA_OK;
}

/* --- what each module of kohya's makes of its keys --- */

static int finish_lycoris(slr_arguments *a, slr_network *n)
{
    a->set.lycoris = true;
    SLR_TRY(slr_preset_open(&a->preset, n->m, n->texts, a->preset_name ? a->preset_name : "full"));
    SLR_TRY(check_overrides(a->preset.class_algo));
    SLR_TRY(check_overrides(a->preset.name_algo));
    if (a->conv_dim < 0)
        a->conv_dim = a->set.dim;
    if (a->conv_alpha < 0)
        a->conv_alpha = a->set.alpha;
    if (a->preset.no_conv)
        a->conv_dim = 0;
    algo_settings(&a->set, a->algo);
    return SDLORA_OK;
}

static int finish_kohya(slr_arguments *a)
{
    const slr_block_defaults d = {.dim = a->set.dim,
                                  .alpha = a->set.alpha,
                                  .conv_dim = a->conv_dim,
                                  .conv_alpha = a->conv_alpha < 0 ? 1 : a->conv_alpha,
                                  .threshold = a->threshold};
    SLR_TRY(slr_block_plan_read(&a->blocks, &a->block, &d, a->family));
    bool conv = a->blocks.n ? a->blocks.conv : a->conv_dim >= 0;
    a->preset = conv ? slr_preset_locon : slr_preset_lora;
    a->set.frozen_down = a->bit == FA;
    if (a->conv_alpha < 0)
        a->conv_alpha = 1;
    return SDLORA_OK;
}

static int finish_dylora(slr_arguments *a)
{
    bool conv = a->conv_dim >= 0;
    a->set.unit = a->unit;
    a->set.unit_root = true;
    a->preset = conv ? slr_preset_locon : slr_preset_lora;
    if (conv && a->conv_dim != a->set.dim)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "networks.dylora: conv_dim has to be network_dim, %lld, or absent",
                        (long long)a->set.dim);
    a->conv_alpha = a->set.alpha; /* kohya leaves what conv_alpha says */
    return SDLORA_OK;
}

static int finish(slr_arguments *a, slr_network *n)
{
    switch (a->bit) {
    case LYCORIS:
        return finish_lycoris(a, n);
    case DYLORA:
        return finish_dylora(a);
    case OFT:
        a->preset = slr_preset_oft[a->all_linear][a->conv];
        a->conv_dim = a->set.dim;
        a->conv_alpha = a->set.alpha;
        return SDLORA_OK;
    default:
        return finish_kohya(a);
    }
}

int slr_arguments_read(slr_arguments *a, slr_network *n)
{
    slr_opt o = slr_network_options(n);
    *a = (slr_arguments){
        .conv_dim = -1, .conv_alpha = -1, .unit = 1, .family = slr_network_family(n)->id};
    a->set = (slr_settings){
        .factor = -1, .wd_on_output = true, .data_init = true, .block_size = 4, .lr_weight = 1.0};
    SLR_TRY(split(n, slr_opt_text(o, "network_args")));
    a->set.dim = slr_opt_has(o, "network_dim") ? slr_opt_int(o, "network_dim") : 4;
    a->set.alpha = slr_opt_real(o, "network_alpha");
    SLR_TRY(read_module(a, n));
    a->plus_part[SLR_PART_TE2] = a->plus_part[SLR_PART_TE];
    return finish(a, n);
}

/* --- layers --- */

static bool spatial(const slr_target *t)
{
    return t->kh * t->kw > 1;
}

/* Rank and alpha by block of the UNet; false: the layer's block is left alone. */
static bool block_settings(const slr_arguments *a, const slr_target *t, slr_settings *set)
{
    int b = slr_block_of(t, a->family);
    if (!a->blocks.n || t->part != SLR_PART_UNET)
        return true;
    if (b < 0)
        return false;
    set->dim = spatial(t) ? a->blocks.conv_dim[b] : a->blocks.dim[b];
    set->alpha = spatial(t) ? a->blocks.conv_alpha[b] : a->blocks.alpha[b];
    return set->dim > 0;
}

/* What the preset's tables say of the layer. */
static int override_settings(const slr_arguments *a, const slr_choice *choice,
                             const slr_kind **kind, slr_settings *set)
{
    const char *algo = choice->algo ? choice->algo : a->algo;
    if (choice->over)
        SLR_TRY(apply_override(choice->over, set));
    SLR_TRY(kind_named(algo, "preset", kind));
    algo_settings(set, algo);
    return SDLORA_OK;
}

static int check_unit(const slr_target *t, const slr_settings *set)
{
    if (set->unit && set->dim % set->unit)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "DyLoRA: rank %lld of %s is not a multiple of %lld", (long long)set->dim,
                        t->name, (long long)set->unit);
    if (set->unit && (set->dora || set->tucker))
        return slr_fail(SDLORA_ENOTSUP, __func__, "DyLoRA has no %s",
                        set->dora ? "weight decomposition" : "tucker form");
    return SDLORA_OK;
}

static int norm_layer(const slr_arguments *a, const slr_kind **kind)
{
    *kind = slr_kind_named("norm");
    if (a->train_norm && !*kind)
        return slr_fail(SDLORA_ENOTSUP, __func__, "train_norm is not supported");
    return a->train_norm;
}

void slr_arguments_rates(const slr_arguments *a, const slr_target *t, slr_settings *set)
{
    int b = a->blocks.n ? slr_block_of(t, a->family) : -1;
    set->lr_plus = a->plus_part[t->part] > 0 ? a->plus_part[t->part] : a->plus;
    set->lr_weight = b < 0 ? 1.0 : a->blocks.lr[b];
}

int slr_arguments_layer(const slr_arguments *a, const slr_target *t, const slr_kind **kind,
                        slr_settings *set)
{
    slr_choice choice;
    *set = a->set;
    *kind = a->kind;
    if (!slr_preset_takes(&a->preset, t, &choice))
        return 0;
    slr_arguments_rates(a, t, set);
    if (t->norm)
        return norm_layer(a, kind);
    if (spatial(t)) {
        set->dim = a->conv_dim;
        set->alpha = a->conv_alpha;
    }
    if (!block_settings(a, t, set))
        return 0;
    if (a->bit == LYCORIS)
        SLR_TRY(override_settings(a, &choice, kind, set));
    if (set->dim <= 0)
        return 0;                           /* of a larger kernel, and no table gives it a rank */
    if (a->bit != OFT && !(set->alpha > 0)) /* absent or 0 means rank; of OFT it is a constraint */
        set->alpha = (double)set->dim;
    SLR_TRY(check_unit(t, set));
    return 1;
}

double slr_network_arg(const slr_network *n, const char *key, double otherwise)
{
    slr_opt o = slr_network_options(n);
    double value;
    for (size_t k = 0; k < N_ROWS; k++) {
        bool named = !strcmp(rows[k].key, key) || (rows[k].option && !strcmp(rows[k].option, key));
        const char *text = named ? arg_of(n, rows[k].key) : NULL;
        if (text && rows[k].type != FLAG && slr_parse_real(text, &value))
            return value;
    }
    if (slr_option_find("network", key) && slr_opt_has(o, key))
        return slr_opt_real(o, key);
    return otherwise;
}
