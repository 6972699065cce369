/* SPDX-License-Identifier: MIT */
/* What training changed between two checkpoints, as a network: sd-scripts' LoRA and LyCORIS' modes,
 * each by its own rules of which layers, which ranks and what becomes of outliers. Refuses to know
 * files and how matrices are decomposed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "networks/tools.h"
#include "tensor/linalg.h"

/* torch.allclose's own numbers, by which LyCORIS leaves a layer out */
#define CLOSE_REL 1e-5
#define CLOSE_ABS 1e-8

/* How many singular values a mode wants, of n in descending order. */
typedef int64_t (*rule_fn)(const double *s, int64_t n, double param);

typedef struct extracting {
    const slr_tool *t;
    const slr_checkpoint *tuned;
    slr_targets *targets;
    bool lycoris, whole; /* whole: mode full */
    rule_fn rule;
    double linear, conv;
    bool small_conv;
    double sparsity;       /* of the residual; 1: none is kept */
    int64_t dim, conv_dim; /* conv_dim 0: layers that kohya trains only with one are left out */
    double clamp, min_diff;
    bool te_differs;
    const slr_target **pick;
    size_t n;
    float *max; /* of |change| by pick: text encoders only */
    slr_made *made;
} extracting;

/* --- LyCORIS' modes --- */

static int64_t fixed(const double *s, int64_t n, double param)
{
    (void)s, (void)n;
    return (int64_t)param;
}

static int64_t above(const double *s, int64_t n, double least)
{
    int64_t k = 0;
    while (k < n && s[k] > least)
        k++;
    return k;
}

static int64_t by_ratio(const double *s, int64_t n, double param)
{
    return above(s, n, s[0] * param);
}

static int64_t by_quantile(const double *s, int64_t n, double param)
{
    double whole = 0, sum = 0;
    int64_t k = 0;
    for (int64_t i = 0; i < n; i++)
        whole += s[i];
    for (; k < n; k++) {
        sum += s[k];
        if (sum >= param * whole)
            break;
    }
    return k;
}

static const struct {
    const char *name;
    rule_fn rule;
} modes[] = {{"fixed", fixed},
             {"threshold", above},
             {"ratio", by_ratio},
             {"quantile", by_quantile},
             {"full", NULL}};

/* --- layers --- */

static int find(const extracting *x, const slr_checkpoint *c, const slr_target *t, const char *what,
                const slr_tensor **out)
{
    char name[SLR_LAYER_KEY];
    slr_weights *part = slr_checkpoint_part(c, t->part);
    (void)x;
    if (!part)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no %s", slr_checkpoint_path(c),
                        slr_part_name(t->part));
    slr_nn_path(name, "%s.%s", t->path, what);
    return slr_weights_get(part, name, out);
}

/* Both models are read once or twice; their pages need not stay. */
static void let_go(const slr_tensor *t)
{
    if (slr_file_is_map(t->storage))
        slr_file_forget(t->data, slr_tensor_bytes(t));
}

static int read_diff(const extracting *x, const slr_target *t, const char *what, float **out,
                     int64_t *count, bool *close)
{
    const slr_tensor *a, *b;
    *out = NULL;
    SLR_TRY(find(x, x->tuned, t, what, &a));
    SLR_TRY(find(x, x->t->base, t, what, &b));
    *count = slr_tensor_count(b);
    if (a->rank != b->rank || memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim)) {
        char have[96], want[96];
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s: %s.%s is %s, and %s in %s: the models differ "
                        "in architecture",
                        slr_checkpoint_path(x->tuned), t->path, what,
                        slr_shape_text(a->dim, a->rank, have),
                        slr_shape_text(b->dim, b->rank, want), slr_checkpoint_path(x->t->base));
    }
    float *d = slr_alloc(x->t->m, (size_t)*count * sizeof *d);
    float *w = slr_alloc(x->t->m, (size_t)*count * sizeof *w);
    int rc = d && w ? slr_tensor_to_f32(a, d) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_tensor_to_f32(b, w);
    *close = true;
    for (int64_t i = 0; rc >= 0 && i < *count; i++) {
        d[i] -= w[i];
        *close = *close && fabs((double)d[i]) <= CLOSE_ABS + CLOSE_REL * fabs((double)w[i]);
        if (!isfinite(d[i]))
            rc = slr_fail(SDLORA_ENAN, __func__, "%s.%s of %s or %s is not finite", t->path, what,
                          slr_checkpoint_path(x->tuned), slr_checkpoint_path(x->t->base));
    }
    let_go(a);
    let_go(b);
    slr_free(x->t->m, w);
    if (rc < 0)
        slr_free(x->t->m, d);
    else
        *out = d;
    return rc;
}

static bool wanted(const extracting *x, const slr_target *t)
{
    int rule = slr_target_rule(t);
    if (x->lycoris) /* every matrix; norms as they are with mode full */
        return !t->norm || x->whole;
    return rule == SLR_TARGET_LINEAR || (rule != SLR_TARGET_NEVER && x->conv_dim > 0);
}

static int pick(extracting *x)
{
    size_t n = slr_targets_count(x->targets);
    x->pick = slr_calloc(x->t->m, n + 1, sizeof *x->pick);
    x->max = slr_calloc(x->t->m, n + 1, sizeof *x->max);
    x->made = slr_calloc(x->t->m, n + 1, sizeof *x->made);
    if (!x->pick || !x->max || !x->made)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const slr_target *t = slr_targets_at(x->targets, i);
        if (wanted(x, t))
            x->pick[x->n++] = t;
    }
    return SDLORA_OK;
}

/* --- kohya's text encoder rule --- */

static int look(void *job, size_t i)
{
    extracting *x = job;
    const slr_target *t = x->pick[i];
    float *d;
    int64_t count;
    bool close;
    if (t->part == SLR_PART_UNET)
        return SDLORA_OK;
    SLR_TRY(read_diff(x, t, "weight", &d, &count, &close));
    for (int64_t k = 0; k < count; k++)
        x->max[i] = fmaxf(x->max[i], fabsf(d[k]));
    slr_free(x->t->m, d);
    return SDLORA_OK;
}

/* Without one layer that moved by more than min_diff, text encoders count as unchanged. */
static int look_at_text(extracting *x)
{
    static const slr_tool_steps steps = {NULL, look, NULL};
    float most = 0;
    if (x->lycoris) {
        x->te_differs = true;
        return SDLORA_OK;
    }
    SLR_TRY(slr_tool_each(x->t, "compare", x->n, &steps, x));
    for (size_t i = 0; i < x->n; i++)
        most = fmaxf(most, x->max[i]);
    x->te_differs = (double)most > x->min_diff;
    slr_logf(&x->t->log, SLR_LOG_INFO, "text encoder: the largest change is %g, %s min_diff %g: %s",
             (double)most, x->te_differs ? "more than" : "not above", x->min_diff,
             x->te_differs ? "it is extracted" : "it is left out");
    return SDLORA_OK;
}

/* --- modules --- */

/* The layer as it is, to be read again when the network has memory for it. */
static int make_whole(extracting *x, const slr_target *t, slr_made *made)
{
    const slr_kind *kind = slr_kind_named(t->norm ? "norm" : "full");
    char name[SLR_LAYER_KEY];
    const slr_settings set = {.dim = 1, .alpha = 1, .factor = -1};
    if (!kind)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s would be stored whole, which this build "
                        "has no kind of network for",
                        t->name);
    *made = (slr_made){.target = t, .kind = kind, .form = {.alpha = NAN, .scale = 1.0}};
    SLR_TRY(kind->make(&set, t, &made->form));
    made->form.alpha = NAN;
    made->form.scale = 1.0;
    made->form.rank = 0;
    slr_nn_path(name, "%s.bias", t->path);
    bool biased = slr_weights_find(slr_checkpoint_part(x->t->base, t->part), name) &&
                  slr_weights_find(slr_checkpoint_part(x->tuned, t->part), name);
    if (!biased)
        made->form.have &= 1u;
    else if (!(made->form.have & 2u))
        slr_form_add(&made->form, 1, 1, &t->out);
    return SDLORA_OK;
}

/* Leaf 0 is the weight and leaf 1 the bias, of full and norm alike. */
static int fill_whole(void *job, size_t i, int leaf, float *to)
{
    extracting *x = job;
    float *d;
    int64_t count;
    bool close;
    SLR_TRY(read_diff(x, x->pick[i], leaf ? "bias" : "weight", &d, &count, &close));
    memcpy(to, d, (size_t)count * sizeof *d);
    slr_free(x->t->m, d);
    return SDLORA_OK;
}

/* down [r,in,taps] as a matrix of inputs, [in, r*taps], is cut to r again: `mid` takes the taps. */
static int make_small(extracting *x, slr_made *made)
{
    const slr_target *t = made->target;
    int64_t r = made->form.rank, in = t->in, taps = t->kh * t->kw, cols = r * taps;
    const slr_settings set = {.dim = r, .alpha = (double)r, .tucker = true, .factor = -1};
    slr_made small = {.target = t, .kind = &slr_kind_lora};
    slr_svd *svd = NULL;
    float *m = slr_alloc(x->t->m, (size_t)(in * cols) * sizeof *m),
          *u = slr_alloc(x->t->m, (size_t)(in * r) * sizeof *u),
          *v = slr_alloc(x->t->m, (size_t)(r * cols) * sizeof *v), *down = slr_made_down(made);
    int down_leaf = slr_kind_find(&slr_kind_lora, "lora_down.weight"),
        mid_leaf = slr_kind_find(&slr_kind_lora, "lora_mid.weight");
    small.form.rank = r;
    small.form.alpha = (double)r;
    small.form.scale = 1.0;
    int rc = m && u && v ? slr_kind_lora.make(&set, t, &small.form) : SDLORA_ENOMEM;
    for (int64_t p = 0; rc >= 0 && p < r; p++)
        for (int64_t i = 0; i < in; i++)
            memcpy(m + i * cols + p * taps, down + (p * in + i) * taps, (size_t)taps * sizeof *m);
    if (rc >= 0)
        rc = slr_svd_dense(&svd, x->t->m, m, in, cols);
    if (rc >= 0)
        rc = slr_svd_factors(svd, r, u, v);
    if (rc >= 0) { /* both fit where `down` of in*taps and what was freed stood */
        small.leaf[slr_kind_find(&slr_kind_lora, "lora_up.weight")] = slr_made_up(made);
        small.leaf[down_leaf] = slr_alloc(x->t->m, (size_t)(r * in) * sizeof(float));
        small.leaf[mid_leaf] = slr_alloc(x->t->m, (size_t)(r * cols) * sizeof(float));
        rc = small.leaf[down_leaf] && small.leaf[mid_leaf] ? SDLORA_OK : SDLORA_ENOMEM;
    }
    for (int64_t q = 0; rc >= 0 && q < r; q++) {
        for (int64_t i = 0; i < in; i++)
            small.leaf[down_leaf][q * in + i] = u[i * r + q];
        for (int64_t p = 0; p < r; p++) /* v[q, p, taps] -> mid[p, q, taps] */
            memcpy(small.leaf[mid_leaf] + (p * r + q) * taps, v + q * cols + p * taps,
                   (size_t)taps * sizeof *v);
    }
    if (rc >= 0) {
        slr_free(x->t->m, down);
        *made = small;
    } else {
        slr_free(x->t->m, small.leaf[down_leaf]);
        slr_free(x->t->m, small.leaf[mid_leaf]);
    }
    slr_svd_free(svd);
    slr_free(x->t->m, m);
    slr_free(x->t->m, u);
    slr_free(x->t->m, v);
    return rc;
}

/* left -= up down, the tucker core put into `down` row by row. */
static int subtract(const extracting *x, const slr_made *made, float *left)
{
    const slr_target *t = made->target;
    int64_t r = made->form.rank, taps = t->kh * t->kw, width = slr_target_fan_in(t);
    const float *up = slr_made_up(made), *down = slr_made_down(made),
                *mid = made->leaf[slr_kind_find(&slr_kind_lora, "lora_mid.weight")];
    float *row = slr_alloc(x->t->m, (size_t)width * sizeof *row);
    if (!row)
        return SDLORA_ENOMEM;
    for (int64_t p = 0; p < r; p++) {
        for (int64_t j = 0; j < width; j++) {
            double sum = mid ? 0 : down[p * width + j];
            for (int64_t q = 0; mid && q < r; q++)
                sum += (double)mid[(p * r + q) * taps + j % taps] * down[q * t->in + j / taps];
            row[j] = (float)sum;
        }
        for (int64_t o = 0; o < t->out; o++)
            for (int64_t j = 0; j < width; j++)
                left[o * width + j] -= up[o * r + p] * row[j];
    }
    slr_free(x->t->m, row);
    return SDLORA_OK;
}

/* What the decomposition left, at its largest places.  (Of convolutions with a core LyCORIS takes
 * the weight for what was left; here it is the change.) */
static int keep_residual(const extracting *x, const float *d, slr_made *made)
{
    size_t count = (size_t)(made->target->out * slr_target_fan_in(made->target));
    float *left = slr_alloc(x->t->m, count * sizeof *left);
    if (!left)
        return SDLORA_ENOMEM;
    memcpy(left, d, count * sizeof *left);
    int rc = subtract(x, made, left);
    if (rc >= 0)
        rc = slr_residual_make(made, x->t->m, left, x->sparsity);
    slr_free(x->t->m, left);
    return rc;
}

/* LyCORIS: at least one rank, no more than the sides; from half of the outputs on, the change
 * itself is smaller. */
static int64_t lycoris_rank(const extracting *x, const slr_target *t, const double *s, int64_t n)
{
    bool spatial = t->kh * t->kw > 1;
    int64_t k = x->rule(s, n, spatial ? x->conv : x->linear),
            most = t->out < t->in ? t->out : t->in;
    k = k < 1 ? 1 : k;
    return k > most ? most : k;
}

static int64_t kohya_rank(const extracting *x, const slr_target *t)
{
    int64_t k = t->kh * t->kw > 1 && x->conv_dim > 0 ? x->conv_dim : x->dim;
    int64_t most = t->out < t->in ? t->out : t->in;
    return k > most ? most : k;
}

static int decompose(extracting *x, const slr_target *t, const float *d, slr_made *made)
{
    slr_svd *svd;
    int64_t n, width = slr_target_fan_in(t);
    SLR_TRY(slr_svd_dense(&svd, x->t->m, d, t->out, width));
    const double *s = slr_svd_values(svd, &n);
    int64_t k = x->lycoris ? lycoris_rank(x, t, s, n) : kohya_rank(x, t);
    int rc;
    if (x->lycoris && 2 * k >= t->out) {
        rc = make_whole(x, t, made);
    } else {
        rc = slr_made_lora(made, x->t->m, t, k, (double)k);
        if (rc >= 0)
            rc = slr_svd_factors(svd, k, slr_made_up(made), slr_made_down(made));
        if (rc >= 0 && x->clamp > 0)
            rc = slr_clamp_factors(x->t->m, slr_made_up(made), (size_t)(t->out * k),
                                   slr_made_down(made), (size_t)(k * width), x->clamp);
        if (rc >= 0 && x->lycoris && x->small_conv && t->kh * t->kw > 1)
            rc = make_small(x, made);
        if (rc >= 0 && x->sparsity < 1)
            rc = keep_residual(x, d, made);
    }
    slr_svd_free(svd);
    return rc;
}

static int work(void *job, size_t i)
{
    extracting *x = job;
    const slr_target *t = x->pick[i];
    float *d;
    int64_t count;
    bool close;
    if (t->part != SLR_PART_UNET && !x->te_differs)
        return SDLORA_OK;
    SLR_TRY(read_diff(x, t, "weight", &d, &count, &close));
    int rc = SDLORA_OK;
    if (!(x->lycoris && close))
        rc = x->whole ? make_whole(x, t, &x->made[i]) : decompose(x, t, d, &x->made[i]);
    slr_free(x->t->m, d);
    return rc;
}

/* --- options and metadata --- */

static int read_options(extracting *x, slr_opt o)
{
    const char *mode = slr_opt_text(o, "mode");
    x->lycoris = strcmp(mode, "kohya") != 0;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(modes[i].name, mode))
            x->rule = modes[i].rule;
    x->whole = x->lycoris && !x->rule;
    x->dim = slr_opt_int(o, "dim");
    x->conv_dim = slr_opt_has(o, "conv_dim") ? slr_opt_int(o, "conv_dim") : 0;
    x->linear = slr_opt_real(o, "linear_param");
    x->conv = slr_opt_has(o, "conv_param") ? slr_opt_real(o, "conv_param") : x->linear;
    if (x->rule == fixed) {
        x->linear = (double)x->dim;
        x->conv = (double)(x->conv_dim ? x->conv_dim : x->dim);
    } else if (x->rule && !slr_opt_has(o, "linear_param")) {
        return slr_fail(SDLORA_EINVAL, __func__, "mode %s needs a linear_param", mode);
    }
    if ((x->rule == by_ratio || x->rule == by_quantile) && (x->linear > 1 || x->conv > 1))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "mode %s wants linear_param and conv_param between 0 and 1", mode);
    x->clamp = x->lycoris ? 0 : slr_opt_real(o, "clamp_quantile");
    x->min_diff = slr_opt_real(o, "min_diff");
    x->small_conv = slr_opt_bool(o, "small_conv");
    x->sparsity = slr_opt_bool(o, "use_sparse_bias") ? slr_opt_real(o, "sparsity") : 1;
    if (!x->lycoris && x->sparsity < 1)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "use_sparse_bias belongs to LyCORIS' modes, not to mode kohya");
    return SDLORA_OK;
}

static int check_pair(const extracting *x)
{
    const slr_family *a = slr_checkpoint_family(x->tuned), *b = slr_checkpoint_family(x->t->base);
    if (a != b)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s is %s, and %s is %s: one cannot have been "
                        "trained from the other",
                        slr_checkpoint_path(x->tuned), a->title, slr_checkpoint_path(x->t->base),
                        b->title);
    return SDLORA_OK;
}

static int describe(const extracting *x, slr_network *made, slr_opt o)
{
    const slr_family *f = slr_checkpoint_family(x->t->base);
    bool odd_v =
        slr_checkpoint_predict(x->t->base) == SLR_PREDICT_V && f->predict == SLR_PREDICT_EPS;
    char dim[32], alpha[32], args[128] = "{}", version[64];
    snprintf(version, sizeof version, "%s%s", f->base_version, odd_v ? "_v" : "");
    snprintf(dim, sizeof dim, "%lld", (long long)x->dim);
    slr_real_repr((double)x->dim, alpha);
    if (x->lycoris && x->rule != fixed) {
        memcpy(dim, "Dynamic", 8);
        memcpy(alpha, dim, sizeof alpha);
    }
    if (x->lycoris)
        snprintf(args, sizeof args, "{\"algo\": \"%s\"}", x->whole ? "full" : "locon");
    else if (x->conv_dim)
        snprintf(args, sizeof args, "{\"conv_dim\": \"%lld\", \"conv_alpha\": \"%lld.0\"}",
                 (long long)x->conv_dim, (long long)x->conv_dim);
    SLR_TRY(slr_tool_minimum(made->meta, f->id == SLR_FAMILY_SD2 ? "True" : "False", version,
                             x->lycoris ? "lycoris.kohya" : "networks.lora", dim, alpha, args));
    if (slr_opt_bool(o, "no_metadata"))
        return SDLORA_OK;
    return slr_tool_modelspec(made->meta, x->t->base, true, slr_opt_text(o, "metadata_title"),
                              NULL);
}

static int run(extracting *x, slr_network **out, slr_opt o)
{
    static const slr_tool_steps steps = {NULL, work, NULL};
    SLR_TRY(slr_opt_check_supported(o));
    SLR_TRY(read_options(x, o));
    SLR_TRY(check_pair(x));
    SLR_TRY(slr_targets_new(&x->targets, x->t->m, x->t->base));
    SLR_TRY(pick(x));
    SLR_TRY(look_at_text(x));
    SLR_TRY(slr_tool_each(x->t, "extract", x->n, &steps, x));
    SLR_TRY(slr_made_network(out, x->t, x->made, x->n, fill_whole, x));
    return describe(x, *out, o);
}

int slr_network_extract(slr_network **out, const slr_tool *t, const slr_checkpoint *tuned,
                        slr_opt o)
{
    extracting x = {.t = t, .tuned = tuned};
    *out = NULL;
    int rc = run(&x, out, o);
    slr_made_free(t->m, x.made, x.n);
    slr_free(t->m, x.pick);
    slr_free(t->m, x.max);
    slr_targets_free(x.targets);
    if (rc < 0) {
        slr_network_unref(*out);
        *out = NULL;
    }
    return rc;
}
