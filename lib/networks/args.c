/* SPDX-License-Identifier: MIT */
/* Reads network_module and network_args ("key=value" items) as kohya's users type them: rows of
 * names, ranges and the field that each fills.  Refuses to know what a setting does. */
#include "networks/args.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "base/str.h"

enum { WHOLE, REAL, FLAG };
enum { KOHYA = 1, LYCORIS = 2, BOTH = 3 };

#define FIELD(f) offsetof(slr_arguments, f)

/* What network_args may hold.  option: the option that means the same; the arg wins. */
static const struct {
    const char *key;
    int type, modules;
    size_t field;
    double min, max;
    const char *option;
} rows[] = {
    {"conv_dim", WHOLE, BOTH, FIELD(conv_dim), 0, 65536, "conv_dim"},
    {"conv_alpha", REAL, BOTH, FIELD(conv_alpha), 0, 1e9, "conv_alpha"},
    {"dropout", REAL, BOTH, FIELD(set.dropout), 0, 1, "network_dropout"},
    {"rank_dropout", REAL, BOTH, FIELD(set.rank_dropout), 0, 1, "rank_dropout"},
    {"module_dropout", REAL, BOTH, FIELD(set.module_dropout), 0, 1, "module_dropout"},
    {"rank_dropout_scale", FLAG, LYCORIS, FIELD(set.rank_dropout_scale), 0, 0, NULL},
    {"use_tucker", FLAG, LYCORIS, FIELD(set.tucker), 0, 0, NULL},
    {"use_cp", FLAG, LYCORIS, FIELD(set.tucker), 0, 0, NULL},
    {"use_conv_cp", FLAG, LYCORIS, FIELD(set.tucker), 0, 0, NULL},
    {"use_scalar", FLAG, LYCORIS, FIELD(set.scalar), 0, 0, NULL},
    {"rs_lora", FLAG, LYCORIS, FIELD(set.rs_lora), 0, 0, NULL},
    {"bypass_mode", FLAG, LYCORIS, FIELD(set.bypass), 0, 0, NULL},
    {"dora_wd", FLAG, LYCORIS, FIELD(set.dora), 0, 0, NULL},
    {"weight_decompose", FLAG, LYCORIS, FIELD(set.dora), 0, 0, NULL},
    {"wd_on_output", FLAG, LYCORIS, FIELD(set.wd_on_output), 0, 0, NULL},
    {"factor", WHOLE, LYCORIS, FIELD(set.factor), -1, 65536, NULL},
    {"decompose_both", FLAG, LYCORIS, FIELD(set.decompose_both), 0, 0, NULL},
    {"full_matrix", FLAG, LYCORIS, FIELD(set.full_matrix), 0, 0, NULL},
    {"unbalanced_factorization", FLAG, LYCORIS, FIELD(set.unbalanced), 0, 0, NULL},
    {"constraint", REAL, LYCORIS, FIELD(set.constraint), 0, 1e9, NULL},
    {"rescaled", FLAG, LYCORIS, FIELD(set.rescaled), 0, 0, NULL},
    {"block_size", WHOLE, LYCORIS, FIELD(set.block_size), 1, 65536, NULL},
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

/* LyCORIS: whatever is not "false" is true. */
static bool truth(const char *text)
{
    return strcasecmp(text, "false") != 0;
}

static int read_number(size_t row, const char *text, double *value)
{
    bool whole = rows[row].type == WHOLE;
    if (!slr_parse_real(text, value))
        return slr_fail(SDLORA_EINVAL, __func__, "network_args: %s=%s is not a number",
                        rows[row].key, text);
    if (!(*value >= rows[row].min && *value <= rows[row].max) || (whole && *value != floor(*value)))
        return slr_fail(SDLORA_EINVAL, __func__, "network_args: %s=%g is not %s from %g to %g",
                        rows[row].key, *value, whole ? "a whole number" : "a number", rows[row].min,
                        rows[row].max);
    return SDLORA_OK;
}

static void store(slr_arguments *a, size_t row, double value)
{
    void *field = (char *)a + rows[row].field;
    if (rows[row].type == REAL)
        *(double *)field = value;
    else if (rows[row].type == WHOLE)
        *(int64_t *)field = (int64_t)value;
    else
        *(bool *)field = value != 0;
}

static int read_row(slr_arguments *a, const slr_network *n, size_t row)
{
    slr_opt o = slr_network_options(n);
    const char *text = arg_of(n, rows[row].key), *option = rows[row].option;
    double value;
    if (text && rows[row].type == FLAG)
        store(a, row, truth(text));
    else if (text) {
        SLR_TRY(read_number(row, text, &value));
        store(a, row, value);
    } else if (option && slr_opt_has(o, option)) {
        store(a, row,
              rows[row].type == WHOLE ? (double)slr_opt_int(o, option) : slr_opt_real(o, option));
    }
    return SDLORA_OK;
}

/* Keys that no row has, or that the module at hand does not know. */
static int check_keys(const slr_arguments *a, const slr_network *n)
{
    const char *module = a->lycoris ? "lycoris.kohya" : "networks.lora";
    for (size_t i = 0; i < slr_map_count(n->args); i++) {
        const char *key = slr_map_at(n->args, i, NULL);
        size_t k = 0;
        while (k < N_ROWS && strcmp(rows[k].key, key))
            k++;
        bool algo = a->lycoris && !strcmp(key, "algo");
        if (!algo && (k == N_ROWS || !(rows[k].modules & (a->lycoris ? LYCORIS : KOHYA))))
            return slr_fail(SDLORA_ENOTSUP, __func__,
                            "network_args: '%s' is not supported by %s here", key, module);
    }
    return SDLORA_OK;
}

static int read_kind(slr_arguments *a, const slr_network *n)
{
    const char *module = slr_opt_text(slr_network_options(n), "network_module");
    const char *algo = arg_of(n, "algo");
    a->lycoris = module && !strcmp(module, "lycoris.kohya");
    if (module && !a->lycoris && strcmp(module, "networks.lora"))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "network_module %s is not known: use networks.lora or lycoris.kohya",
                        module);
    if (!a->lycoris || !algo || !strcmp(algo, "locon"))
        algo = "lora";
    a->kind = slr_kind_named(algo);
    if (!a->kind)
        return slr_fail(SDLORA_ENOTSUP, __func__, "network_args: algo=%s is not known", algo);
    return SDLORA_OK;
}

/* kohya: alpha absent or 0 means rank. */
static double alpha_or_rank(double alpha, int64_t rank)
{
    return alpha > 0 ? alpha : (double)rank;
}

int slr_arguments_read(slr_arguments *a, slr_network *n)
{
    slr_opt o = slr_network_options(n);
    *a = (slr_arguments){.conv_dim = -1, .conv_alpha = -1};
    a->set = (slr_settings){.factor = -1, .wd_on_output = true, .block_size = 4};
    SLR_TRY(split(n, slr_opt_text(o, "network_args")));
    SLR_TRY(read_kind(a, n));
    SLR_TRY(check_keys(a, n));
    a->set.dim = slr_opt_has(o, "network_dim") ? slr_opt_int(o, "network_dim") : 4;
    a->set.alpha = alpha_or_rank(slr_opt_real(o, "network_alpha"), a->set.dim);
    for (size_t i = 0; i < N_ROWS; i++)
        SLR_TRY(read_row(a, n, i));
    if (a->conv_dim < 0)
        a->conv_dim = a->lycoris ? a->set.dim : 0;
    if (a->conv_alpha < 0)
        a->conv_alpha = a->lycoris ? slr_opt_real(o, "network_alpha") : 1;
    a->conv_alpha = alpha_or_rank(a->conv_alpha, a->conv_dim);
    return SDLORA_OK;
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
