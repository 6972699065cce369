/* SPDX-License-Identifier: MIT */
/* Fewer ranks: the change of each module without its scale, decomposed and cut by sd-scripts'
 * rules, with its metadata.  Refuses to know how matrices are decomposed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "networks/tools.h"
#include "tensor/linalg.h"

/* Below this a matrix counts as zero, and one rank is left of it. */
#define MIN_VALUE 1e-6

/* How many singular values a rule wants, of n in descending order. */
typedef int64_t (*rule_fn)(const double *s, int64_t n, double target);

/* What a module lost. */
typedef struct loss {
    double sum, fro, ratio;
} loss;

typedef struct resizing {
    const slr_tool *t;
    const slr_network *n;
    int64_t rank, conv_rank;
    rule_fn rule; /* NULL: fixed ranks */
    double param;
    slr_change *change;
    slr_made *made;
    loss *lost;
} resizing;

/* --- rules --- */

static int64_t by_ratio(const double *s, int64_t n, double target)
{
    int64_t k = 0;
    while (k < n && s[k] > s[0] / target)
        k++;
    return k;
}

/* One more than how many of the running sums of s^power, as shares of the whole, are below target.
 */
static int64_t by_share(const double *s, int64_t n, int power, double target)
{
    double whole = 0, sum = 0;
    int64_t k = 0;
    for (int64_t i = 0; i < n; i++)
        whole += power == 2 ? s[i] * s[i] : s[i];
    for (; k < n; k++) {
        sum += power == 2 ? s[k] * s[k] : s[k];
        if (sum / whole >= target)
            break;
    }
    return k + 1;
}

static int64_t by_sum(const double *s, int64_t n, double target)
{
    return by_share(s, n, 1, target);
}

static int64_t by_fro(const double *s, int64_t n, double target)
{
    return by_share(s, n, 2, target * target);
}

static const struct {
    const char *name;
    rule_fn rule;
} rules[] = {{"sv_ratio", by_ratio}, {"sv_cumulative", by_sum}, {"sv_fro", by_fro}};

/* sd-scripts: a rule's count is at least 1 and less than all, and then one more; the cap comes
 * last. */
static int64_t new_rank(const resizing *r, const double *s, int64_t n, int64_t cap)
{
    int64_t k = cap;
    if (s[0] <= MIN_VALUE)
        return 1;
    if (r->rule) {
        k = r->rule(s, n, r->param);
        k = (k > n - 1 ? n - 1 : k) < 1 ? 1 : (k > n - 1 ? n - 1 : k);
        k++;
    }
    k = k > cap ? cap : k;
    return k > n ? n : k;
}

static loss lost_by(const double *s, int64_t n, int64_t k)
{
    double sum = 0, fro = 0, kept = 0, kept_fro = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += s[i];
        fro += s[i] * s[i];
        kept = i < k ? sum : kept;
        kept_fro = i < k ? fro : kept_fro;
    }
    return (loss){kept / sum, sqrt(kept_fro) / sqrt(fro), s[0] / s[k - 1]};
}

/* --- modules --- */

/* A module that is no matrix, or of whole weights, which has no rank to be made less. */
static bool stays(const slr_module *mod)
{
    return mod->target.norm || mod->kind->bias;
}

static int fetch(void *job, size_t i)
{
    resizing *r = job;
    const slr_module *mod = &r->n->module[i];
    if (slr_module_has(mod, SLR_LEAF_DORA))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s has a dora_scale, which belongs to the change as it is: DoRA cannot be "
                        "resized",
                        mod->target.name);
    if (stays(mod))
        return slr_made_copy(&r->made[i], r->t->m, r->n, mod);
    return slr_module_thin(mod) ? SDLORA_OK
                                : slr_change_read(&r->change[i], r->t, r->n, mod, false);
}

/* alpha / rank as sd-scripts computes it: in f32, and 1 where a file has no alpha. */
static float old_scale(const slr_module *mod)
{
    if (mod->rank > 0 && slr_module_thin(mod))
        return isnan(mod->alpha) ? 1.0f : (float)mod->alpha / (float)mod->rank;
    return (float)mod->scale;
}

static int cut(resizing *r, size_t i, const slr_module *mod, const slr_svd *svd)
{
    int64_t n;
    const double *s = slr_svd_values(svd, &n);
    int64_t k = new_rank(r, s, n, mod->target.conv ? r->conv_rank : r->rank);
    slr_made *made = &r->made[i];
    r->lost[i] = lost_by(s, n, k);
    SLR_TRY(slr_made_lora(made, r->t->m, &mod->target, k, old_scale(mod) * (float)k));
    SLR_TRY(slr_made_bias(made, r->t->m, r->n, mod, 1.0));
    return slr_svd_factors(svd, k, slr_made_up(made), slr_made_down(made));
}

static int work(void *job, size_t i)
{
    resizing *r = job;
    const slr_module *mod = &r->n->module[i];
    slr_change *c = &r->change[i];
    slr_svd *svd = NULL;
    int64_t out = mod->target.out, width = slr_target_fan_in(&mod->target);
    if (r->made[i].kind)
        return SDLORA_OK;
    int rc = slr_module_thin(mod) ? slr_change_read(c, r->t, r->n, mod, false) : SDLORA_OK;
    if (rc >= 0)
        rc = c->dense ? slr_svd_dense(&svd, r->t->m, c->dense, out, width)
                      : slr_svd_product(&svd, r->t->m, c->up, c->down, out, c->rank, width);
    if (rc >= 0)
        rc = cut(r, i, mod, svd);
    slr_svd_free(svd);
    slr_change_free(r->t->m, c);
    return rc;
}

static uint64_t bytes(void *job, size_t i)
{
    const resizing *r = job;
    const slr_module *mod = &r->n->module[i];
    return slr_module_thin(mod)
               ? 0
               : (uint64_t)(mod->target.out * slr_target_fan_in(&mod->target)) * sizeof(float);
}

/* --- what is told and written of it --- */

static void report_module(const resizing *r, size_t i)
{
    char alpha[32];
    const loss *l = &r->lost[i];
    slr_real_repr(r->made[i].form.alpha, alpha);
    slr_logf(
        &r->t->log, SLR_LOG_INFO,
        "%-75s | sum(S) retained: %.1f%%, fro retained: %.1f%%, max(S) ratio: %.1f, dim: %lld, "
        "alpha: %s",
        r->made[i].target->name, 100 * l->sum, 100 * l->fro, l->ratio,
        (long long)r->made[i].form.rank, alpha);
}

static void report(const resizing *r)
{
    double sum = 0, squares = 0;
    size_t n = 0;
    for (size_t i = 0; i < r->n->n_modules; i++) {
        if (stays(&r->n->module[i]))
            continue;
        report_module(r, i);
        if (isnan(r->lost[i].fro))
            continue;
        sum += r->lost[i].fro;
        squares += r->lost[i].fro * r->lost[i].fro;
        n++;
    }
    double mean = n ? sum / (double)n : NAN;
    slr_logf(&r->t->log, SLR_LOG_INFO, "Average Frobenius norm retention: %.2f%% | std: %.3f",
             100 * mean, n ? sqrt(fmax(0, squares / (double)n - mean * mean)) : NAN);
}

/* sd-scripts tells of the largest old rank and of the last module's alpha. */
static int describe(const resizing *r, slr_network *made, slr_opt o)
{
    char number[32];
    int64_t old = 0;
    const char *comment = slr_meta_get(r->n->meta, "ss_training_comment");
    double alpha = NAN;
    for (size_t i = 0; i < slr_meta_count(r->n->meta); i++) {
        const char *value, *key = slr_meta_at(r->n->meta, i, &value);
        SLR_TRY(slr_meta_set(made->meta, key, value));
    }
    for (size_t i = 0; i < r->n->n_modules; i++) {
        old = r->n->module[i].rank > old ? r->n->module[i].rank : old;
        if (!stays(&r->n->module[i]))
            alpha = r->made[i].form.alpha;
    }
    if (r->rule) {
        slr_real_repr(r->param, number);
        SLR_TRY(slr_meta_setf(
            made->meta, "ss_training_comment", "Dynamic resize with %s: %s from %lld; %s",
            slr_opt_text(o, "dynamic_method"), number, (long long)old, comment ? comment : ""));
        SLR_TRY(slr_meta_set(made->meta, "ss_network_dim", "Dynamic"));
        return slr_meta_set(made->meta, "ss_network_alpha", "Dynamic");
    }
    char conv[48] = "";
    if (r->conv_rank != r->rank)
        snprintf(conv, sizeof conv, " (conv: %lld)", (long long)r->conv_rank);
    slr_real_repr(alpha, number);
    SLR_TRY(slr_meta_setf(made->meta, "ss_training_comment",
                          "dimension is resized from %lld to %lld%s; %s", (long long)old,
                          (long long)r->rank, conv, comment ? comment : ""));
    SLR_TRY(slr_meta_setf(made->meta, "ss_network_dim", "%lld", (long long)r->rank));
    return slr_meta_set(made->meta, "ss_network_alpha", isnan(alpha) ? "None" : number);
}

static int read_options(resizing *r, slr_opt o)
{
    const char *method = slr_opt_text(o, "dynamic_method");
    r->rank = slr_opt_int(o, "new_rank");
    r->conv_rank = slr_opt_has(o, "new_conv_rank") ? slr_opt_int(o, "new_conv_rank") : r->rank;
    r->param = slr_opt_real(o, "dynamic_param");
    for (size_t i = 0; method && i < sizeof rules / sizeof *rules; i++)
        if (!strcmp(rules[i].name, method))
            r->rule = rules[i].rule;
    if (r->rule && !(r->param > 0))
        return slr_fail(SDLORA_EINVAL, __func__, "dynamic_method %s needs a dynamic_param", method);
    return SDLORA_OK;
}

static int run(resizing *r, slr_network **out, slr_opt o)
{
    static const slr_tool_steps steps = {fetch, work, bytes};
    size_t n = r->n->n_modules;
    r->change = slr_calloc(r->t->m, n, sizeof *r->change);
    r->made = slr_calloc(r->t->m, n, sizeof *r->made);
    r->lost = slr_calloc(r->t->m, n, sizeof *r->lost);
    if (!r->change || !r->made || !r->lost)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_tool_each(r->t, "resize", n, &steps, r));
    SLR_TRY(slr_made_network(out, r->t, r->made, n, NULL, NULL));
    SLR_TRY(describe(r, *out, o));
    if (slr_opt_bool(o, "verbose"))
        report(r);
    return SDLORA_OK;
}

int slr_network_resize(slr_network **out, const slr_tool *t, const slr_network *n, slr_opt o)
{
    resizing r = {.t = t, .n = n};
    *out = NULL;
    SLR_TRY(read_options(&r, o));
    int rc = run(&r, out, o);
    for (size_t i = 0; r.change && i < n->n_modules; i++)
        slr_change_free(t->m, &r.change[i]);
    slr_free(t->m, r.change);
    slr_free(t->m, r.lost);
    slr_made_free(t->m, r.made, n->n_modules);
    if (rc < 0) {
        slr_network_unref(*out);
        *out = NULL;
    }
    return rc;
}
