/* SPDX-License-Identifier: MIT */
/* scale_weight_norms: keeps the change of each layer below a length.  What is measured is LyCORIS'
 * choice: the change of a LoRA, LoHa and LoKr, the blocks of OFT; other kinds are left alone.
 * Refuses to know when. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "graph/exec.h"
#include "networks/kind.h"

enum { LEFT_ALONE, CHANGE, LEAVES };

static int way_of(const slr_kind *kind)
{
    static const struct {
        const char *kind;
        int way;
    } rows[] = {{"lora", CHANGE},     {"loha", CHANGE}, {"lokr", CHANGE},
                {"diag-oft", LEAVES}, {"boft", LEAVES}, {"oft", LEAVES}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].kind, kind->name))
            return rows[i].way;
    return LEFT_ALONE;
}

/* || up down ||_F without forming the product: trace of (up^T up)(down down^T). */
static double product_norm(const float *down, const float *up, int64_t rank, int64_t width,
                           int64_t rows)
{
    double sum = 0;
    for (int64_t a = 0; a < rank; a++)
        for (int64_t b = 0; b < rank; b++) {
            double dd = 0, uu = 0;
            for (int64_t i = 0; i < width; i++)
                dd += (double)down[a * width + i] * down[b * width + i];
            for (int64_t o = 0; o < rows; o++)
                uu += (double)up[o * rank + a] * up[o * rank + b];
            sum += dd * uu;
        }
    return sqrt(fmax(0.0, sum));
}

/* |scale D| of a kind that is two factors. */
static int factors_norm(const slr_network *n, const slr_module *mod, double *norm)
{
    int64_t width = slr_target_fan_in(&mod->target), rows = mod->target.out, rank = mod->rank;
    float *down = slr_alloc(n->m, (size_t)(rank * width) * sizeof *down);
    float *up = slr_alloc(n->m, (size_t)(rank * rows) * sizeof *up);
    if (down && up) {
        mod->kind->factors(mod, &n->slot[mod->slot], n->params, rank, down, up, rank);
        *norm = product_norm(down, up, rank, width, rows);
    }
    int rc = down && up ? SDLORA_OK : SDLORA_ENOMEM;
    slr_free(n->m, down);
    slr_free(n->m, up);
    return rc;
}

/* --- kinds whose change has to be built: one plan for all of them --- */

static bool planned(const slr_module *mod)
{
    return way_of(mod->kind) == CHANGE && !mod->kind->factors;
}

static const char *sum_name(char name[32], size_t module)
{
    snprintf(name, 32, "sumsq%zu", module);
    return name;
}

/* |D|^2, without scale. */
static void sum_node(slr_graph *g, const slr_network *n, size_t index)
{
    char name[32];
    const slr_module *mod = &n->module[index];
    const slr_target *t = &mod->target;
    const slr_layer layer = {.part = t->part,
                             .path = t->path,
                             .conv = t->conv,
                             .out = t->out,
                             .in = t->in,
                             .kh = t->kh,
                             .kw = t->kw};
    slr_apply a = {.g = g, .network = n, .layer = &layer, .seed = SLR_NONE, .strength = 1.0};
    for (int i = 0; i < SLR_KIND_LEAVES; i++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        bool used = s && i < SLR_KIND_OWN;
        a.param[i] = used ? slr_param(g, s->key, s->rank, s->dim) : SLR_NONE;
    }
    int64_t flat[1] = {t->out * slr_target_fan_in(t)};
    slr_val d = slr_reshape(g, mod->kind->delta(&a, mod, SLR_NONE), 1, flat);
    slr_output(g, slr_op(g, SDLORA_OP_SUMSQ, 1, &d, 0, NULL, 0, NULL, NULL), sum_name(name, index));
}

static int bind_leaves(const slr_network *n, const slr_module *mod)
{
    for (int i = 0; i < SLR_KIND_OWN; i++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        slr_val v;
        if (!s)
            continue;
        SLR_TRY(slr_plan_find(n->norms, s->key, &v));
        SLR_TRY(slr_plan_bind(n->norms, v, n->params + s->offset));
    }
    return SDLORA_OK;
}

static int make_plan(slr_network *n, slr_devices *devices)
{
    slr_graph *g;
    SLR_TRY(slr_graph_new(&g, n->m, (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT}));
    for (size_t i = 0; i < n->n_modules; i++)
        if (planned(&n->module[i]))
            sum_node(g, n, i);
    int rc = slr_graph_status(g);
    if (rc >= 0)
        rc = slr_plan_new(&n->norms, g, devices);
    slr_graph_free(g);
    for (size_t i = 0; rc >= 0 && i < n->n_modules; i++)
        if (planned(&n->module[i]))
            rc = bind_leaves(n, &n->module[i]);
    if (rc >= 0)
        rc = slr_plan_back(n->norms);
    if (rc < 0) {
        slr_plan_free(n->norms);
        n->norms = NULL;
    }
    return rc;
}

/* The plan is kept with the network: its block stays where it is. */
static int run_plan(slr_network *n, slr_devices *devices)
{
    for (size_t i = 0; i < n->n_modules; i++)
        if (planned(&n->module[i])) {
            if (!n->norms)
                SLR_TRY(make_plan(n, devices));
            return slr_plan_run(n->norms, NULL);
        }
    return SDLORA_OK;
}

static int change_norm(const slr_network *n, size_t index, double *norm)
{
    const slr_module *mod = &n->module[index];
    const slr_network_slot *scalar = slr_module_slot(mod, &n->slot[mod->slot], SLR_LEAF_SCALAR);
    char name[32];
    slr_val v;
    if (mod->kind->factors)
        return factors_norm(n, mod, norm);
    SLR_TRY(slr_plan_find(n->norms, sum_name(name, index), &v));
    *norm = fabs(mod->scale) * sqrt(*(const float *)slr_plan_data(n->norms, v));
    if (scalar)
        *norm *= fabs((double)n->params[scalar->offset]);
    return SDLORA_OK;
}

/* --- all kinds --- */

static double leaves_norm(const slr_network *n, const slr_module *mod)
{
    const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], 0);
    double sum = 0;
    for (size_t k = 0; k < s->count; k++)
        sum += (double)n->params[s->offset + k] * n->params[s->offset + k];
    return sqrt(sum);
}

/* Every factor takes its share, so that the product shrinks by `ratio`; of OFT the blocks alone. */
static void shrink(slr_network *n, const slr_module *mod, int leaves, double ratio)
{
    int factors = 0;
    for (int i = 0; i < leaves; i++)
        factors += slr_module_has(mod, i);
    float share = (float)pow(ratio, 1.0 / factors);
    for (int i = 0; i < leaves; i++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], i);
        for (size_t k = 0; s && k < s->count; k++)
            n->params[s->offset + k] *= share;
    }
}

int slr_network_scale_norms(slr_network *n, slr_devices *devices, double max)
{
    SLR_TRY(run_plan(n, devices));
    for (size_t i = 0; i < n->n_modules; i++) {
        const slr_module *mod = &n->module[i];
        int way = way_of(mod->kind);
        double norm = 0;
        if (way == LEFT_ALONE)
            continue;
        if (way == CHANGE)
            SLR_TRY(change_norm(n, i, &norm));
        else
            norm = leaves_norm(n, mod);
        norm = fmax(norm, max / 2);
        if (norm > max)
            shrink(n, mod, way == LEAVES ? 1 : SLR_KIND_OWN, max / norm);
    }
    return SDLORA_OK;
}
