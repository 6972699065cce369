/* SPDX-License-Identifier: MIT */
/* Many networks as one.  By default the exact sum of what they do: ranks side by side with
 * strengths folded in, or the best approximation of that by fewer.  Beside it what sd-scripts'
 * merge_lora.py does, an average of factors, and svd_merge_lora.py.  Refuses to know checkpoints'
 * files. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "networks/tools.h"
#include "tensor/linalg.h"

enum { SUM, AVERAGE, SVD };

/* One layer and who adapts it. */
typedef struct layer {
    const slr_target *target;
    size_t first, n; /* its members */
} layer;

typedef struct member {
    size_t item;
    const slr_module *mod;
} member;

/* What the networks do to a layer together: thin factors, or a matrix. */
typedef slr_change change;

typedef struct combining {
    const slr_tool *t;
    const slr_stack_item *items;
    size_t n;
    int method;
    bool concat, shuffle;
    uint64_t seed;
    int64_t rank, conv_rank; /* 0: as many as there are */
    double clamp;            /* 0: none */
    slr_blocks *blocks;      /* per item; NULL: none */
    slr_unet_map map;
    layer *layer;
    size_t n_layers, layer_cap;
    member *member;
    size_t n_members, member_cap;
    change *change;
    slr_made *made;
} combining;

/* --- who adapts what --- */

static bool seen(const combining *c, size_t item, const slr_module *mod)
{
    for (size_t i = 0; i < item; i++)
        if (slr_network_find(c->items[i].network, mod->target.part, mod->target.path))
            return true;
    return false;
}

/* A network that was opened for another architecture must not be taken for one that fits. */
static int check_member(const combining *c, const slr_target *want, const member *m)
{
    const slr_target *have = &m->mod->target;
    const slr_network *n = c->items[m->item].network;
    if (!m->mod->kind->delta)
        return slr_fail(SDLORA_ENOTSUP, __func__, "%s: %s is %s, which changes no weights",
                        n->path ? n->path : n->name, have->name, m->mod->kind->name);
    if (have->out == want->out && slr_target_fan_in(have) == slr_target_fan_in(want) &&
        have->norm == want->norm)
        return SDLORA_OK;
    return slr_fail(SDLORA_EINVAL, __func__,
                    "%s: %s takes %lld inputs to %lld outputs there, and %lld to %lld in %s",
                    n->path ? n->path : n->name, have->name, (long long)slr_target_fan_in(have),
                    (long long)have->out, (long long)slr_target_fan_in(want), (long long)want->out,
                    c->items[0].network->path ? c->items[0].network->path : "the first network");
}

static int add_layer(combining *c, const slr_target *target)
{
    SLR_TRY(slr_grow(c->t->m, &c->layer, &c->layer_cap, c->n_layers + 1, sizeof *c->layer));
    layer *l = &c->layer[c->n_layers++];
    *l = (layer){.target = target, .first = c->n_members};
    for (size_t i = 0; i < c->n; i++) {
        const slr_module *mod = slr_network_find(c->items[i].network, target->part, target->path);
        member m = {i, mod};
        if (!mod)
            continue;
        SLR_TRY(check_member(c, target, &m));
        SLR_TRY(slr_grow(c->t->m, &c->member, &c->member_cap, c->n_members + 1, sizeof *c->member));
        c->member[c->n_members++] = m;
        l->n++;
    }
    return SDLORA_OK;
}

static int find_layers(combining *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const slr_network *n = c->items[i].network;
        for (size_t k = 0; k < n->n_modules; k++)
            if (!seen(c, i, &n->module[k]))
                SLR_TRY(add_layer(c, &n->module[k].target));
    }
    return SDLORA_OK;
}

/* What the member's change is multiplied by. */
static double weight_of(const combining *c, const member *m)
{
    const slr_target *t = &m->mod->target;
    double w = slr_item_strength(&c->items[m->item], t->part);
    return c->blocks ? w * slr_blocks_weight(&c->blocks[m->item], t->part, t->path) : w;
}

static const char *member_file(const combining *c, const member *m)
{
    const slr_network *n = c->items[m->item].network;
    return n->path ? n->path : n->name;
}

/* --- the sum --- */

/* A whole module without a weight: it has no part in the sum of weights. */
static bool bias_alone(const slr_module *mod)
{
    return mod->kind->bias && !mod->target.norm && !slr_module_has(mod, 0);
}

/* A full or norm module: the sum is one again, since nothing else holds a whole weight or a vector.
 */
static const slr_module *whole_member(const combining *c, const layer *l)
{
    for (size_t i = 0; i < l->n; i++) {
        const slr_module *mod = c->member[l->first + i].mod;
        if ((mod->kind->bias && !bias_alone(mod)) || mod->target.norm)
            return mod;
    }
    return NULL;
}

/* The first that is not two factors, and a weight. */
static const member *thick_member(const combining *c, const layer *l)
{
    for (size_t i = 0; i < l->n; i++) {
        const member *m = &c->member[l->first + i];
        if (!slr_module_thin(m->mod) && !bias_alone(m->mod))
            return m;
    }
    return NULL;
}

static bool biases_alone(const combining *c, const layer *l)
{
    for (size_t i = 0; i < l->n; i++)
        if (!bias_alone(c->member[l->first + i].mod))
            return false;
    return true;
}

static int64_t width_of(const slr_target *t)
{
    return t->norm ? 1 : slr_target_fan_in(t);
}

static int64_t wanted_rank(const combining *c, const slr_target *t)
{
    int64_t rank = t->kh * t->kw > 1 ? c->conv_rank : c->rank;
    int64_t most = t->out < t->in ? t->out : t->in;
    return rank < most ? rank : most;
}

/* Ranks side by side. */
static int sum_thin(const combining *c, const layer *l, change *sum)
{
    int64_t width = width_of(l->target), at = 0;
    for (size_t i = 0; i < l->n; i++)
        sum->rank += c->member[l->first + i].mod->rank; /* 0: of a bias alone */
    sum->up = slr_calloc(c->t->m, (size_t)(l->target->out * sum->rank), sizeof *sum->up);
    sum->down = slr_calloc(c->t->m, (size_t)(sum->rank * width), sizeof *sum->down);
    if (!sum->up || !sum->down)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < l->n; i++) {
        const member *m = &c->member[l->first + i];
        const slr_network *n = c->items[m->item].network;
        float w = (float)weight_of(c, m);
        if (bias_alone(m->mod))
            continue;
        m->mod->kind->factors(m->mod, &n->slot[m->mod->slot], n->params, m->mod->rank,
                              sum->down + at * width, sum->up + at, sum->rank);
        for (int64_t o = 0; o < l->target->out; o++)
            for (int64_t p = 0; p < m->mod->rank; p++)
                sum->up[o * sum->rank + at + p] *= w;
        at += m->mod->rank;
    }
    return SDLORA_OK;
}

static int add_change(const combining *c, const member *m, int64_t out, int64_t width, float *to)
{
    change one;
    float w = (float)weight_of(c, m);
    SLR_TRY(slr_change_read(&one, c->t, c->items[m->item].network, m->mod, true));
    for (int64_t o = 0; o < out; o++) {
        float *row = to + o * width;
        for (int64_t p = 0; one.up && p < one.rank; p++) {
            float f = w * one.up[o * one.rank + p];
            for (int64_t j = 0; j < width; j++)
                row[j] += f * one.down[p * width + j];
        }
        for (int64_t j = 0; one.dense && j < width; j++)
            row[j] += w * one.dense[o * width + j];
    }
    slr_change_free(c->t->m, &one);
    return SDLORA_OK;
}

static int sum_dense(const combining *c, const layer *l, float *to)
{
    for (size_t i = 0; i < l->n; i++)
        SLR_TRY(add_change(c, &c->member[l->first + i], l->target->out, width_of(l->target), to));
    return SDLORA_OK;
}

/* As the product of averaged factors, whose own terms have the squares of the ratios. */
static int sum_biases(const combining *c, const layer *l, slr_made *made)
{
    for (size_t i = 0; i < l->n; i++) {
        const member *m = &c->member[l->first + i];
        double w = weight_of(c, m);
        SLR_TRY(slr_made_bias(made, c->t->m, c->items[m->item].network, m->mod,
                              c->method == AVERAGE ? w * fabs(w) : w));
    }
    return SDLORA_OK;
}

static int sum_bare(const layer *l, slr_made *made)
{
    *made = (slr_made){.target = l->target, .kind = &slr_kind_full};
    made->form.alpha = NAN;
    made->form.scale = 1;
    return SDLORA_OK; /* sum_biases() does it all */
}

static int sum_whole(const combining *c, const layer *l, const slr_module *like, slr_made *made)
{
    const slr_settings set = {.dim = 1, .alpha = 1, .factor = -1};
    slr_target plain = *l->target;
    plain.bias = false; /* sum_biases() adds one where a member has it */
    *made = (slr_made){.target = l->target, .kind = like->kind->make ? like->kind : &slr_kind_norm};
    SLR_TRY(made->kind->make(&set, &plain, &made->form));
    made->leaf[0] =
        slr_calloc(c->t->m, (size_t)(l->target->out * width_of(l->target)), sizeof(float));
    return made->leaf[0] ? sum_dense(c, l, made->leaf[0]) : SDLORA_ENOMEM;
}

/* --- sd-scripts' average of factors --- */

static double alpha_of(const slr_module *mod)
{
    return isnan(mod->alpha) ? (double)mod->rank : mod->alpha;
}

static int check_average(const combining *c, const layer *l, const member *m)
{
    const slr_module *first = c->member[l->first].mod;
    if (strcmp(m->mod->kind->name, slr_kind_lora.name) || !slr_module_thin(m->mod))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s: %s is %s%s, and factors of LoRA alone can be averaged; method sum "
                        "takes any kind",
                        member_file(c, m), m->mod->target.name, m->mod->kind->name,
                        slr_module_beside(m->mod));
    if (!c->concat && m->mod->rank != first->rank)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s: %s has rank %lld, and %lld in %s: averaging wants equal ranks; method "
                        "sum takes any",
                        member_file(c, m), m->mod->target.name, (long long)m->mod->rank,
                        (long long)first->rank, member_file(c, &c->member[l->first]));
    return SDLORA_OK;
}

/* down += k down_i, up += |k| up_i with k = sqrt(alpha_i / alpha_first) ratio_i: a product with the
 * squares of the ratios, and terms between networks, as merge_lora.py has it. */
static int average(const combining *c, const layer *l, slr_made *made)
{
    const slr_module *first = c->member[l->first].mod;
    int64_t out = l->target->out, width = width_of(l->target), rank = 0, at = 0;
    for (size_t i = 0; i < l->n; i++) {
        SLR_TRY(check_average(c, l, &c->member[l->first + i]));
        rank = c->concat ? rank + c->member[l->first + i].mod->rank : first->rank;
    }
    SLR_TRY(slr_made_lora(made, c->t->m, l->target, rank, alpha_of(first)));
    float *up = slr_made_up(made), *down = slr_made_down(made);
    for (size_t i = 0; i < l->n; i++) {
        const member *m = &c->member[l->first + i];
        change one;
        double k = sqrt(alpha_of(m->mod) / alpha_of(first)) * weight_of(c, m);
        SLR_TRY(slr_change_read(&one, c->t, c->items[m->item].network, m->mod, false));
        for (int64_t o = 0; o < out; o++)
            for (int64_t p = 0; p < one.rank; p++)
                up[o * rank + at + p] += (float)fabs(k) * one.up[o * one.rank + p];
        for (int64_t x = 0; x < one.rank * width; x++)
            down[at * width + x] += (float)k * one.down[x];
        at += c->concat ? one.rank : 0;
        slr_change_free(c->t->m, &one);
    }
    return SDLORA_OK;
}

/* --- modules of the result --- */

static int fetch(void *job, size_t i)
{
    combining *c = job;
    const layer *l = &c->layer[i];
    const slr_module *whole = whole_member(c, l);
    if (c->method == AVERAGE)
        return average(c, l, &c->made[i]);
    if (whole)
        return sum_whole(c, l, whole, &c->made[i]);
    if (biases_alone(c, l))
        return sum_bare(l, &c->made[i]);
    const member *thick = thick_member(c, l);
    if (!thick)
        return SDLORA_OK;
    if (!c->rank)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s: %s is %s%s, which has no two factors to put beside others: say a "
                        "new_rank",
                        member_file(c, thick), l->target->name, thick->mod->kind->name,
                        slr_module_beside(thick->mod));
    c->change[i].dense =
        slr_calloc(c->t->m, (size_t)(l->target->out * width_of(l->target)), sizeof(float));
    return c->change[i].dense ? sum_dense(c, l, c->change[i].dense) : SDLORA_ENOMEM;
}

static int approximate(combining *c, const layer *l, change *sum, slr_made *made)
{
    slr_svd *svd;
    int64_t out = l->target->out, width = width_of(l->target), k = wanted_rank(c, l->target);
    SLR_TRY(sum->dense ? slr_svd_dense(&svd, c->t->m, sum->dense, out, width)
                       : slr_svd_product(&svd, c->t->m, sum->up, sum->down, out, sum->rank, width));
    int rc = slr_made_lora(made, c->t->m, l->target, k, (double)k);
    if (rc >= 0)
        rc = slr_svd_factors(svd, k, slr_made_up(made), slr_made_down(made));
    slr_svd_free(svd);
    if (rc >= 0 && c->clamp > 0)
        rc = slr_clamp_factors(c->t->m, slr_made_up(made), (size_t)(out * k), slr_made_down(made),
                               (size_t)(k * width), c->clamp);
    return rc;
}

static int keep_sum(const combining *c, const layer *l, const change *sum, slr_made *made)
{
    int64_t out = l->target->out, width = width_of(l->target);
    SLR_TRY(slr_made_lora(made, c->t->m, l->target, sum->rank, (double)sum->rank));
    memcpy(slr_made_up(made), sum->up, (size_t)(out * sum->rank) * sizeof(float));
    memcpy(slr_made_down(made), sum->down, (size_t)(sum->rank * width) * sizeof(float));
    return SDLORA_OK;
}

static int work(void *job, size_t i)
{
    combining *c = job;
    const layer *l = &c->layer[i];
    change *sum = &c->change[i];
    if (c->made[i].kind)
        return SDLORA_OK;
    int rc = sum->dense ? SDLORA_OK : sum_thin(c, l, sum);
    bool keep =
        c->method == SUM && !sum->dense && (!c->rank || sum->rank <= wanted_rank(c, l->target));
    if (rc >= 0)
        rc = keep ? keep_sum(c, l, sum, &c->made[i]) : approximate(c, l, sum, &c->made[i]);
    slr_change_free(c->t->m, sum);
    return rc;
}

static uint64_t bytes(void *job, size_t i)
{
    const combining *c = job;
    const layer *l = &c->layer[i];
    return !thick_member(c, l) ? 0
                               : (uint64_t)(l->target->out * width_of(l->target)) * sizeof(float);
}

/* The order of a module's ranks: the product stays what it is. */
static int shuffle(const combining *c, slr_made *made, size_t index)
{
    if (!made->kind || strcmp(made->kind->name, slr_kind_lora.name))
        return SDLORA_OK;
    int64_t rank = made->form.rank, out = made->target->out, width = width_of(made->target);
    int64_t *order = slr_calloc(c->t->m, (size_t)rank, sizeof *order);
    float *up = slr_alloc(c->t->m, (size_t)(out * rank) * sizeof *up);
    float *down = slr_alloc(c->t->m, (size_t)(rank * width) * sizeof *down);
    int rc = order && up && down ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0) {
        slr_rng rng;
        slr_rng_init(&rng, c->seed, SLR_STREAM_ORDER, (uint32_t)index);
        for (int64_t p = 0; p < rank; p++)
            order[p] = p;
        slr_rng_shuffle(&rng, order, (size_t)rank, sizeof *order);
        memcpy(up, slr_made_up(made), (size_t)(out * rank) * sizeof *up);
        memcpy(down, slr_made_down(made), (size_t)(rank * width) * sizeof *down);
        for (int64_t p = 0; p < rank; p++) {
            memcpy(slr_made_down(made) + p * width, down + order[p] * width,
                   (size_t)width * sizeof *down);
            for (int64_t o = 0; o < out; o++)
                slr_made_up(made)[o * rank + p] = up[o * rank + order[p]];
        }
    }
    slr_free(c->t->m, order);
    slr_free(c->t->m, up);
    slr_free(c->t->m, down);
    return rc;
}

/* --- options and metadata --- */

static int read_blocks(combining *c, slr_opt o)
{
    slr_str rest = slr_str_of(slr_opt_text(o, "lbws")), line;
    size_t n = 0;
    slr_weights *unet = slr_checkpoint_part(c->t->base, SLR_PART_UNET);
    if (!rest.n)
        return SDLORA_OK;
    c->blocks = slr_calloc(c->t->m, c->n, sizeof *c->blocks);
    if (!c->blocks)
        return SDLORA_ENOMEM;
    bool mapped = unet && slr_unet_map_read(&c->map, unet) >= 0;
    if (!mapped)
        slr_clear(); /* a UNet that LDM has no numbers for */
    for (; slr_str_next(&rest, '\n', &line); n++) {
        char *text = slr_strndup(c->t->m, line.p, line.n);
        int rc = !text       ? SDLORA_ENOMEM
                 : n >= c->n ? SDLORA_OK
                             : slr_blocks_parse(&c->blocks[n], text);
        slr_free(c->t->m, text);
        SLR_TRY(rc);
        if (n < c->n && c->blocks[n].n != c->blocks[0].n)
            return slr_fail(SDLORA_EINVAL, __func__, "lbws have %zu and %zu numbers",
                            c->blocks[0].n, c->blocks[n].n);
        if (n < c->n && mapped)
            c->blocks[n].map = &c->map;
    }
    if (n != c->n)
        return slr_fail(SDLORA_EINVAL, __func__, "there are %zu lbws for %zu networks", n, c->n);
    return SDLORA_OK;
}

static int read_options(combining *c, slr_opt o)
{
    static const char *const methods[] = {[SUM] = "sum", [AVERAGE] = "average", [SVD] = "svd"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(methods[i], slr_opt_text(o, "method")))
            c->method = i;
    c->concat = slr_opt_bool(o, "concat");
    c->shuffle = slr_opt_bool(o, "shuffle");
    c->seed = (uint64_t)slr_opt_int(o, "seed");
    c->rank = slr_opt_int(o, "new_rank");
    c->clamp = slr_opt_real(o, "clamp_quantile");
    if (c->concat && c->method != AVERAGE)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "concat belongs to method average; method sum puts ranks side by side by "
                        "itself");
    if (c->method == AVERAGE && (c->rank || slr_opt_has(o, "lbws")))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "method average knows neither new_rank nor lbws: sum and svd do");
    if (c->method == SVD && !c->rank)
        c->rank = 4; /* svd_merge_lora.py's default */
    if (c->method == SVD && !slr_opt_has(o, "clamp_quantile"))
        c->clamp = 0.99;
    c->conv_rank = slr_opt_has(o, "new_conv_rank") ? slr_opt_int(o, "new_conv_rank") : c->rank;
    return read_blocks(c, o);
}

/* The first value that a network's file has. */
static const char *first_meta(const combining *c, const char *key)
{
    const char *value = NULL;
    for (size_t i = 0; i < c->n && !value; i++)
        value = slr_meta_get(c->items[i].network->meta, key);
    return value;
}

/* Equal in all modules, or NAN.  sd-scripts tells of the first file's ranks when it averages. */
static void common(const combining *c, const slr_network *made, double *dim, double *alpha)
{
    *dim = *alpha = -1;
    for (size_t i = 0; i < c->n_layers; i++) {
        const slr_module *mod =
            c->method == AVERAGE
                ? c->member[c->layer[i].first].mod
                : slr_network_find(made, c->layer[i].target->part, c->layer[i].target->path);
        if (!mod || mod->rank < 1)
            continue;
        double a = c->method == AVERAGE ? alpha_of(mod) : mod->alpha;
        *dim = *dim < 0 || *dim == (double)mod->rank ? (double)mod->rank : NAN;
        *alpha = *alpha < 0 || *alpha == a ? a : NAN;
    }
    if (*dim < 0) /* no module has a rank */
        *dim = *alpha = NAN;
}

static int titles(const combining *c, slr_buf *b)
{
    for (size_t i = 0; i < c->n; i++) {
        const slr_network *n = c->items[i].network;
        const char *title = slr_meta_get(n->meta, "modelspec.title");
        slr_buf_printf(b, "%s%s", i ? ", " : "", title ? title : n->name);
    }
    return slr_buf_ok(b);
}

static int minimum(const combining *c, slr_network *made)
{
    char dim[32] = "Dynamic", alpha[32] = "Dynamic", args[96];
    double d, a;
    common(c, made, &d, &a);
    if (!isnan(d))
        snprintf(dim, sizeof dim, "%.0f", d);
    if (!isnan(a))
        slr_real_repr((double)(float)a, alpha);
    if (c->method == SVD) { /* what was asked for */
        snprintf(dim, sizeof dim, "%lld", (long long)c->rank);
        memcpy(alpha, dim, sizeof alpha);
        snprintf(args, sizeof args, "{\"conv_dim\": %lld, \"conv_alpha\": %lld}",
                 (long long)c->conv_rank, (long long)c->conv_rank);
    }
    return slr_tool_minimum(made->meta, first_meta(c, "ss_v2"),
                            first_meta(c, "ss_base_model_version"), "networks.lora", dim, alpha,
                            c->method == SVD ? args : NULL);
}

static int describe(const combining *c, slr_network *made, slr_opt o)
{
    slr_buf merged;
    SLR_TRY(minimum(c, made));
    if (slr_opt_bool(o, "no_metadata"))
        return SDLORA_OK;
    slr_buf_init(&merged, c->t->m);
    int rc = titles(c, &merged);
    if (rc >= 0)
        rc = slr_tool_modelspec(made->meta, c->t->base, true, slr_opt_text(o, "metadata_title"),
                                merged.data);
    slr_buf_free(&merged);
    return rc;
}

static int run(combining *c, slr_network **out, slr_opt o)
{
    static const slr_tool_steps steps = {fetch, work, bytes};
    SLR_TRY(read_options(c, o));
    SLR_TRY(find_layers(c));
    c->change = slr_calloc(c->t->m, c->n_layers, sizeof *c->change);
    c->made = slr_calloc(c->t->m, c->n_layers, sizeof *c->made);
    if (!c->change || !c->made)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_tool_each(c->t, "merge", c->n_layers, &steps, c));
    for (size_t i = 0; i < c->n_layers; i++)
        SLR_TRY(sum_biases(c, &c->layer[i], &c->made[i]));
    for (size_t i = 0; c->shuffle && i < c->n_layers; i++)
        SLR_TRY(shuffle(c, &c->made[i], i));
    SLR_TRY(slr_made_network(out, c->t, c->made, c->n_layers, NULL, NULL));
    return describe(c, *out, o);
}

int slr_network_combine(slr_network **out, const slr_tool *t, const slr_stack_item *items, size_t n,
                        slr_opt o)
{
    combining c = {.t = t, .items = items, .n = n};
    *out = NULL;
    if (!n)
        return slr_fail(SDLORA_EINVAL, __func__, "there is no network to merge");
    int rc = run(&c, out, o);
    for (size_t i = 0; c.change && i < c.n_layers; i++)
        slr_change_free(t->m, &c.change[i]);
    slr_free(t->m, c.change);
    slr_made_free(t->m, c.made, c.n_layers);
    slr_free(t->m, c.blocks);
    slr_free(t->m, c.layer);
    slr_free(t->m, c.member);
    if (rc < 0) {
        slr_network_unref(*out);
        *out = NULL;
    }
    return rc;
}
