/* SPDX-License-Identifier: MIT */
/* AdamW with decoupled weight decay as one operation over the flat block per trained part, or per
 * run of slots with one rate (LoRA+, rates by block). */
#include "train/optim.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"

enum { HYPER = 8 };

/* Floats of one part with one learning rate. */
typedef struct range {
    int part;
    double lr_scale;
    size_t first, count;
    slr_val hyper, sumsq;
} range;

struct slr_optim {
    slr_mem *m;
    slr_network *network;
    float *grad, *moment[2];
    uint8_t *ranks; /* NULL: no ranks are drawn */
    float *kept[3]; /* parameters and moments before the update, then */
    double beta1, beta2, eps, weight_decay;
    range *range;
    size_t n_ranges, range_cap;
    slr_plan *norm, *update;
    char text[256];
};

/* --- options --- */

static int parse_betas(slr_optim *o, const char *value)
{
    char text[64]; /* as read_options() has it */
    size_t n = 0;
    for (size_t i = 0; value[i] && n < sizeof text - 1; i++)
        if (!strchr("()[] ", value[i]))
            text[n++] = value[i];
    text[n] = '\0';
    char *comma = strchr(text, ',');
    if (comma)
        *comma = '\0';
    if (!comma || !slr_parse_real(text, &o->beta1) || !slr_parse_real(comma + 1, &o->beta2))
        return slr_fail(SDLORA_EINVAL, __func__, "optimizer_args: betas=%s is not two numbers",
                        value);
    return SDLORA_OK;
}

static int parse_arg(slr_optim *o, const char *key, const char *value)
{
    const struct {
        const char *key;
        double *to;
    } numbers[] = {{"weight_decay", &o->weight_decay}, {"eps", &o->eps}};
    if (!strcmp(key, "betas"))
        return parse_betas(o, value);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(numbers[i].key, key))
            return slr_parse_real(value, numbers[i].to)
                       ? SDLORA_OK
                       : slr_fail(SDLORA_EINVAL, __func__, "optimizer_args: %s=%s is not a number",
                                  key, value);
    return slr_fail(SDLORA_ENOTSUP, __func__, "optimizer_args: AdamW has no '%s' here", key);
}

static int read_options(slr_optim *o, slr_opt opts)
{
    const char *type = slr_opt_text(opts, "optimizer_type");
    if (type && *type && strcmp(type, "AdamW"))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "optimizer_type %s is not supported yet: there is AdamW", type);
    *o = (slr_optim){.m = o->m, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01};

    slr_str rest = slr_str_of(slr_opt_text(opts, "optimizer_args")), key, value;
    int more;
    while ((more = slr_pair_next(&rest, "optimizer_args", &key, &value)) > 0) {
        char name[64], text[64];
        if (key.n >= sizeof name || value.n >= sizeof text)
            return slr_fail(SDLORA_EINVAL, __func__, "optimizer_args: %.*s=%.*s is too long",
                            (int)key.n, key.p, (int)value.n, value.p);
        snprintf(name, sizeof name, "%.*s", (int)key.n, key.p);
        snprintf(text, sizeof text, "%.*s", (int)value.n, value.p);
        SLR_TRY(parse_arg(o, name, text));
    }
    return more;
}

/* Arguments in the order in which the user gave them, as kohya writes ss_optimizer. */
static void describe(slr_optim *o, slr_opt opts)
{
    size_t n = (size_t)snprintf(o->text, sizeof o->text, "torch.optim.adamw.AdamW");
    slr_str rest = slr_str_of(slr_opt_text(opts, "optimizer_args")), key, value;
    const char *before = "(";
    while (slr_pair_next(&rest, "optimizer_args", &key, &value) > 0 &&
           n + key.n + value.n + 4 < sizeof o->text) {
        n += (size_t)snprintf(o->text + n, sizeof o->text - n, "%s%.*s=%.*s", before, (int)key.n,
                              key.p, (int)value.n, value.p);
        before = ",";
    }
    if (*before == ',')
        snprintf(o->text + n, sizeof o->text - n, ")");
}

/* --- graphs --- */

static const char *name_of(char name[32], const char *what, size_t i)
{
    snprintf(name, 32, "%s%zu", what, i);
    return name;
}

static slr_val leaf(slr_graph *g, const char *what, const slr_optim *o, size_t i)
{
    char name[32];
    int64_t dim[1] = {(int64_t)o->range[i].count};
    name_of(name, what, i);
    return slr_input(g, name, SDLORA_F32, 1, dim);
}

static int bind(slr_plan *p, const char *what, const slr_optim *o, size_t i, float *data)
{
    char name[32];
    slr_val v;
    SLR_TRY(slr_plan_find(p, name_of(name, what, i), &v));
    return slr_plan_bind(p, v, data + o->range[i].first);
}

static int plan_norm(slr_optim *o, slr_graph *g, slr_devices *devices)
{
    char name[32];
    for (size_t i = 0; i < o->n_ranges; i++) {
        slr_val grad = leaf(g, "grad", o, i);
        slr_output(g, slr_op(g, SDLORA_OP_SUMSQ, 1, &grad, 0, NULL, 0, NULL, NULL),
                   name_of(name, "sumsq", i));
    }
    SLR_TRY(slr_graph_status(g));
    SLR_TRY(slr_plan_new(&o->norm, g, devices));
    for (size_t i = 0; i < o->n_ranges; i++) {
        SLR_TRY(bind(o->norm, "grad", o, i, o->grad));
        SLR_TRY(slr_plan_find(o->norm, name_of(name, "sumsq", i), &o->range[i].sumsq));
    }
    return SDLORA_OK;
}

static void update_node(slr_graph *g, const slr_optim *o, size_t i)
{
    char name[32];
    int64_t eight[1] = {HYPER};
    static const char *const outputs[3] = {"p_out", "m_out", "v_out"};
    slr_val in[5] = {leaf(g, "p", o, i), leaf(g, "g", o, i), leaf(g, "m", o, i), leaf(g, "v", o, i),
                     SLR_NONE},
            out[3];
    in[4] = slr_input(g, name_of(name, "hyper", i), SDLORA_F32, 1, eight);
    slr_op(g, SDLORA_OP_ADAMW, 5, in, 0, NULL, 0, NULL, out);
    for (int k = 0; k < 3; k++)
        slr_output(g, out[k], name_of(name, outputs[k], i));
}

static int plan_update(slr_optim *o, slr_graph *g, slr_devices *devices)
{
    char name[32];
    float *params = slr_network_params(o->network);
    for (size_t i = 0; i < o->n_ranges; i++)
        update_node(g, o, i);
    SLR_TRY(slr_graph_status(g));
    SLR_TRY(slr_plan_new(&o->update, g, devices));
    for (size_t i = 0; i < o->n_ranges; i++) {
        SLR_TRY(bind(o->update, "p", o, i, params));
        SLR_TRY(bind(o->update, "g", o, i, o->grad));
        SLR_TRY(bind(o->update, "m", o, i, o->moment[0]));
        SLR_TRY(bind(o->update, "v", o, i, o->moment[1]));
        SLR_TRY(slr_plan_find(o->update, name_of(name, "hyper", i), &o->range[i].hyper));
    }
    return SDLORA_OK;
}

static int planned(slr_optim *o, slr_devices *devices,
                   int (*fn)(slr_optim *, slr_graph *, slr_devices *))
{
    slr_graph *g;
    SLR_TRY(slr_graph_new(&g, o->m, (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT}));
    int rc = fn(o, g, devices);
    slr_graph_free(g);
    return rc;
}

/* Neighbours of the same part and rate are one range, so that most networks have one per part. */
static int add_slot(slr_optim *o, const slr_network_slot *slot, size_t end)
{
    range *last = o->n_ranges ? &o->range[o->n_ranges - 1] : NULL;
    if (last && last->part == slot->part && last->lr_scale == slot->lr_scale &&
        last->first + last->count == slot->offset) {
        last->count = end - last->first;
        return SDLORA_OK;
    }
    SLR_TRY(slr_grow(o->m, &o->range, &o->range_cap, o->n_ranges + 1, sizeof *o->range));
    o->range[o->n_ranges++] = (range){.part = slot->part,
                                      .lr_scale = slot->lr_scale,
                                      .first = slot->offset,
                                      .count = end - slot->offset};
    return SDLORA_OK;
}

/* Slots follow each other, each with the gap behind it. */
static int make_ranges(slr_optim *o, unsigned part_mask, const bool *live)
{
    size_t n = slr_network_slots(o->network);
    for (size_t i = 0; i < n; i++) {
        const slr_network_slot *s = slr_network_slot_at(o->network, i);
        size_t end = i + 1 < n ? slr_network_slot_at(o->network, i + 1)->offset
                               : slr_network_param_count(o->network);
        if ((part_mask >> s->part & 1u) && s->lr_scale > 0 && (!live || live[i]))
            SLR_TRY(add_slot(o, s, end));
    }
    return o->n_ranges ? SDLORA_OK : slr_fail(SDLORA_EINVAL, __func__, "nothing is left to train");
}

static int allocate(slr_optim *o, slr_network *network, unsigned part_mask, const bool *live)
{
    o->network = slr_network_ref(network);
    size_t n = slr_network_param_count(network);
    o->grad = slr_calloc(o->m, n, sizeof(float));
    o->moment[0] = slr_calloc(o->m, n, sizeof(float));
    o->moment[1] = slr_calloc(o->m, n, sizeof(float));
    if (!o->grad || !o->moment[0] || !o->moment[1])
        return SDLORA_ENOMEM;
    size_t ranks = slr_network_ranks(network);
    o->ranks = ranks ? slr_calloc(o->m, ranks, 1) : NULL;
    for (int i = 0; ranks && i < 3; i++)
        if (!(o->kept[i] = slr_alloc(o->m, n * sizeof(float))))
            return SDLORA_ENOMEM;
    return ranks && !o->ranks ? SDLORA_ENOMEM : make_ranges(o, part_mask, live);
}

int slr_optim_new(slr_optim **out, slr_mem *m, slr_network *network, slr_devices *devices,
                  slr_opt opts, unsigned part_mask, const bool *live)
{
    *out = NULL;
    slr_optim *o = slr_calloc(m, 1, sizeof *o);
    if (!o)
        return SDLORA_ENOMEM;
    o->m = m;
    int rc = read_options(o, opts);
    if (rc >= 0)
        rc = allocate(o, network, part_mask, live);
    if (rc >= 0)
        rc = planned(o, devices, plan_norm);
    if (rc >= 0)
        rc = planned(o, devices, plan_update);
    if (rc < 0) {
        slr_optim_free(o);
        return rc;
    }
    describe(o, opts);
    *out = o;
    return SDLORA_OK;
}

void slr_optim_free(slr_optim *o)
{
    if (!o)
        return;
    slr_plan_free(o->norm);
    slr_plan_free(o->update);
    slr_free(o->m, o->range);
    slr_free(o->m, o->ranks);
    for (int i = 0; i < 3; i++)
        slr_free(o->m, o->kept[i]);
    slr_free(o->m, o->grad);
    slr_free(o->m, o->moment[0]);
    slr_free(o->m, o->moment[1]);
    slr_network_unref(o->network);
    slr_free(o->m, o);
}

float *slr_optim_grad(slr_optim *o)
{
    return o->grad;
}

uint8_t *slr_optim_ranks(slr_optim *o)
{
    return o->ranks;
}

float *slr_optim_moments(slr_optim *o, int which)
{
    return o->moment[which];
}

const char *slr_optim_text(const slr_optim *o)
{
    return o->text;
}

int slr_optim_norm(slr_optim *o, double *norm)
{
    SLR_TRY(slr_plan_run(o->norm, NULL));
    double sum = 0;
    for (size_t i = 0; i < o->n_ranges; i++)
        sum += *(const float *)slr_plan_data(o->norm, o->range[i].sumsq);
    *norm = sqrt(sum);
    return SDLORA_OK;
}

/* torch leaves parameters alone that have no gradient, moments and decay included.  (Its count of
 * updates, by which moments are corrected, is each row's own; here it is that of the run.) */
static int update_some(slr_optim *o)
{
    size_t bytes = slr_network_param_count(o->network) * sizeof(float);
    float *const block[3] = {slr_network_params(o->network), o->moment[0], o->moment[1]};
    for (int i = 0; i < 3; i++)
        memcpy(o->kept[i], block[i], bytes);
    int rc = slr_plan_run(o->update, NULL);
    for (int i = 0; i < 3; i++)
        slr_network_keep_ranks(o->network, o->ranks, o->kept[i], block[i]);
    return rc;
}

int slr_optim_apply(slr_optim *o, int64_t step, const double lr[SLR_PART_COUNT], double scale)
{
    SLR_TRY(slr_plan_back(o->update));
    for (size_t i = 0; i < o->n_ranges; i++) {
        float *h = slr_plan_data(o->update, o->range[i].hyper);
        h[0] = (float)(lr[o->range[i].part] * o->range[i].lr_scale);
        h[1] = (float)o->beta1;
        h[2] = (float)o->beta2;
        h[3] = (float)o->eps;
        h[4] = (float)o->weight_decay;
        h[5] = (float)(1.0 - pow(o->beta1, (double)step));
        h[6] = (float)(1.0 - pow(o->beta2, (double)step));
        h[7] = (float)scale;
    }
    return o->ranks ? update_some(o) : slr_plan_run(o->update, NULL);
}
