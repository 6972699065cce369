/* SPDX-License-Identifier: MIT */
/* Builds UNet graphs as shapes come up, runs them on rows of texts, two at a time, and joins what
 * they predict.  Refuses to know where texts come from. */
#include "sample/denoiser.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

enum { BATCH = 2 }; /* texts at once: prompt and negative prompt */

struct slr_denoiser {
    slr_mem *m;
    slr_engine *engine;
    const slr_family *family;
    slr_unet_shape unet;
    float *pred; /* predictions of all rows of one evaluation */
    size_t pred_floats;
};

/* One text as the UNet is to see it: its own tokens, its last one again up to `repeat`, and the
 * empty prompt's from there on. */
typedef struct row {
    const slr_cond *cond;
    const float *sizes;
    int64_t tokens, repeat;
    bool blank; /* zeros stand for the extra channels */
} row;

int slr_denoiser_new(slr_denoiser **out, slr_mem *m, slr_engine *engine)
{
    *out = NULL;
    slr_checkpoint *base = slr_engine_base(engine);
    slr_weights *unet = slr_checkpoint_part(base, SLR_PART_UNET);
    if (!unet)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no UNet", slr_checkpoint_path(base));
    slr_denoiser *d = slr_calloc(m, 1, sizeof *d);
    if (!d)
        return SDLORA_ENOMEM;
    d->m = m;
    d->engine = engine;
    d->family = slr_checkpoint_family(base);
    int rc = slr_unet_read(&d->unet, d->family, unet);
    if (rc < 0) {
        slr_denoiser_free(d);
        return rc;
    }
    *out = d;
    return SDLORA_OK;
}

void slr_denoiser_rest(slr_denoiser *d)
{
    slr_free(d->m, d->pred);
    d->pred = NULL;
    d->pred_floats = 0;
}

void slr_denoiser_free(slr_denoiser *d)
{
    if (!d)
        return;
    slr_denoiser_rest(d);
    slr_free(d->m, d);
}

const slr_unet_shape *slr_denoiser_shape(const slr_denoiser *d)
{
    return &d->unet;
}

/* --- graphs --- */

/* a = batch, b = tokens, c = h * 65536 + w, d = tokens of the picture that are merged. */
static void build_unet(void *user, slr_graph *g, const slr_engine_key *k)
{
    slr_denoiser *d = user;
    slr_adapter adapter = slr_engine_adapter(d->engine);
    slr_nn nn = {g, slr_engine_weights(d->engine, SLR_PART_UNET), SLR_PART_UNET, &adapter};
    adapter.merge = k->d;
    adapter.merge_from = (k->c >> 16) * (k->c & 0xffff);
    int64_t image[4] = {k->a, k->c >> 16, k->c & 0xffff, d->unet.in_channels}, one[1] = {k->a};
    int64_t text[3] = {k->a, k->b, d->unet.context}, vector[2] = {k->a, d->unet.vector};
    slr_val x = slr_input(g, "x", SDLORA_F32, 4, image), t = slr_input(g, "t", SDLORA_F32, 1, one);
    slr_val context = slr_input(g, "context", SDLORA_F32, 3, text), v = SLR_NONE;
    if (d->unet.vector)
        v = slr_input(g, "vector", SDLORA_F32, 2, vector);
    slr_graph_push(g, "unet");
    slr_val out = slr_unet_build_vector(&nn, d->family, x, t, context, v);
    slr_graph_pop(g);
    slr_output(g, out, "out");
}

/* x [h,w,out] and extra [h,w,in-out] -> [h,w,in]. */
static void fill_image(const slr_denoiser *d, const slr_guidance *g, const float *x, bool blank,
                       float *to)
{
    int64_t own = d->unet.out_channels, more = d->unet.in_channels - own, n = g->h * g->w;
    if (!more) {
        memcpy(to, x, (size_t)(n * own) * sizeof *x);
        return;
    }
    for (int64_t i = 0; i < n; i++, to += own + more) {
        memcpy(to, x + i * own, (size_t)own * sizeof *x);
        if (blank)
            memset(to + own, 0, (size_t)more * sizeof *x);
        else
            memcpy(to + own, g->extra + i * more, (size_t)more * sizeof *x);
    }
}

static void fill_text(const slr_denoiser *d, const slr_guidance *g, const row *r, float *to)
{
    int64_t width = d->unet.context;
    size_t bytes = (size_t)width * sizeof *to;
    for (int64_t i = 0; i < r->tokens; i++, to += width) {
        const float *from = r->cond->states + (r->cond->tokens - 1) * width; /* the last again */
        if (i < r->cond->tokens)
            from = r->cond->states + i * width;
        else if (i >= r->repeat)
            from = g->empty->states + (i - r->repeat) % g->empty->tokens * width;
        memcpy(to, from, bytes);
    }
}

/* [pooled, sizes]. */
static void fill_vector(const slr_denoiser *d, const slr_guidance *g, const row *r, float *to)
{
    size_t sizes = (size_t)g->n_sizes * SLR_SIZE_WIDTH, pooled = (size_t)d->unet.vector - sizes;
    memcpy(to, r->cond->pooled, pooled * sizeof *to);
    memcpy(to + pooled, r->sizes, sizes * sizeof *to);
}

/* One evaluation of rows of one length, which share x and t. */
static int evaluate(slr_denoiser *d, const slr_guidance *g, const float *x, double t,
                    const row *rows, int64_t n, float *out, const slr_cancel_flag *cancel)
{
    slr_plan *p;
    int64_t pixels = g->h * g->w, tokens = rows[0].tokens;
    slr_engine_key key = {SLR_ENGINE_UNET, n, tokens, g->h << 16 | g->w,
                          (int64_t)((double)pixels * g->merge)};
    SLR_TRY(slr_engine_plan(d->engine, &key, build_unet, d, cancel, &p));
    float *to_x = slr_engine_memory(p, "x"), *to_t = slr_engine_memory(p, "t"),
          *to_text = slr_engine_memory(p, "context"), *to_vector = slr_engine_memory(p, "vector");
    for (int64_t i = 0; i < n; i++) {
        fill_image(d, g, x, rows[i].blank, to_x + i * pixels * d->unet.in_channels);
        fill_text(d, g, &rows[i], to_text + i * tokens * d->unet.context);
        if (d->unet.vector)
            fill_vector(d, g, &rows[i], to_vector + i * d->unet.vector);
        to_t[i] = (float)t;
    }
    SLR_TRY(slr_plan_run(p, cancel));
    memcpy(out, slr_engine_memory(p, "out"),
           (size_t)(n * pixels * d->unet.out_channels) * sizeof *out);
    return SDLORA_OK;
}

/* --- lengths --- */

static int64_t longest(const slr_guidance *g)
{
    int64_t tokens = 0;
    for (size_t i = 0; i < g->n; i++)
        tokens = g->cond[i].tokens > tokens ? g->cond[i].tokens : tokens;
    return tokens;
}

bool slr_guidance_pads(const slr_guidance *g)
{
    return g->pad != SLR_PAD_NONE && longest(g) != g->uncond.tokens;
}

static row cond_row(const slr_guidance *g, size_t i)
{
    row r = {&g->cond[i], g->sizes, longest(g), longest(g), false};
    if (g->pad == SLR_PAD_EMPTY && g->uncond.tokens > r.tokens)
        r.tokens = g->uncond.tokens;
    return r;
}

static row uncond_row(const slr_guidance *g, bool blank)
{
    row r = {&g->uncond, g->uncond_sizes, g->uncond.tokens, g->uncond.tokens, blank};
    int64_t other = longest(g);
    if (g->pad == SLR_PAD_REPEAT)
        r.tokens = r.repeat = other;
    else if (g->pad == SLR_PAD_EMPTY && other > r.tokens)
        r.tokens = other;
    return r;
}

/* --- guidance --- */

static double deviation(const float *x, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - sum / (double)n) * (x[i] - sum / (double)n);
    return sqrt(squares / (double)n);
}

/* u + scale * sum of weight * (c - u): conds one after the other, as f32 sums. */
static void combine(const slr_guidance *g, const float *conds, const float *u, double scale,
                    size_t n, float *out)
{
    if (out != u)
        memcpy(out, u, n * sizeof *out);
    for (size_t k = 0; k < g->n; k++) {
        const float *c = conds + k * n;
        float by = (float)(g->weight[k] * scale);
        for (size_t i = 0; i < n; i++)
            out[i] += (c[i] - u[i]) * by;
    }
}

/* Guidance raises contrast: phi of the way back to what the prompt alone has. */
static void rescale(const slr_guidance *g, const float *conds, const float *u, size_t n,
                    float *scratch, float *out)
{
    combine(g, conds, u, 1, n, scratch);
    double from = deviation(out, n), to = deviation(scratch, n);
    if (from <= 0)
        return;
    float by = (float)(g->rescale * (to / from) + (1 - g->rescale));
    for (size_t i = 0; i < n; i++)
        out[i] *= by;
}

/* u + cfg * (c - i) + edit_cfg * (i - u): i has the picture and the negative prompt, u neither. */
static void combine_edit(const slr_guidance *g, const float *c, const float *i, const float *u,
                         size_t n, float *out)
{
    float cfg = (float)g->cfg, edit = (float)g->edit_cfg;
    for (size_t k = 0; k < n; k++)
        out[k] = u[k] + cfg * (c[k] - i[k]) + edit * (i[k] - u[k]);
}

static int check(const slr_denoiser *d, const slr_guidance *g)
{
    int64_t own = d->unet.out_channels, more = d->unet.in_channels - own,
            given = g->extra ? g->n_extra : 0;
    if (more && more != given)
        return slr_fail(SDLORA_EINVAL, __func__, "the UNet takes %lld channels, and %lld are given",
                        (long long)(own + more), (long long)(own + given));
    if (d->unet.vector && (!g->sizes || !g->uncond_sizes || !g->uncond.pooled))
        return slr_fail(SDLORA_EINVAL, __func__, "the UNet takes sizes, and none are given");
    if (g->edit && g->n > 1)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "a model that edits pictures takes no AND, but with image_cfg_scale 1");
    return SDLORA_OK;
}

/* Predictions of n texts, of which those from g->n on are the negative prompt: where a picture is
 * edited with it and then without.  Those of one length together. */
static int evaluate_all(slr_denoiser *d, const slr_guidance *g, const float *x, double t, size_t n,
                        size_t floats, const slr_cancel_flag *cancel)
{
    size_t width;
    for (size_t i = 0; i < n; i += width) {
        row rows[BATCH] = {{0}};
        for (width = 0; width < BATCH && i + width < n; width++) {
            size_t k = i + width;
            rows[width] = k < g->n ? cond_row(g, k) : uncond_row(g, k > g->n);
            if (rows[width].tokens != rows[0].tokens)
                break;
        }
        SLR_TRY(evaluate(d, g, x, t, rows, (int64_t)width, d->pred + i * floats, cancel));
    }
    return SDLORA_OK;
}

/* With one prompt at cfg 1 the negative prompt has no say. */
static bool without_uncond(const slr_guidance *g, const float *uncond)
{
    if (g->edit)
        return false;
    return g->skip_uncond || (g->n == 1 && g->cfg == 1 && g->weight[0] == 1 && !uncond);
}

int slr_denoiser_predict(slr_denoiser *d, const slr_guidance *g, const float *x, double t,
                         float *out, float *uncond, const slr_cancel_flag *cancel)
{
    size_t floats = (size_t)(g->h * g->w * d->unet.out_channels);
    bool alone = without_uncond(g, uncond);
    size_t n = g->n + !alone + g->edit;
    SLR_TRY(check(d, g));
    /* predictions of all texts, and scratch */
    SLR_TRY(slr_grow(d->m, &d->pred, &d->pred_floats, (n + 1) * floats, sizeof *d->pred));
    SLR_TRY(evaluate_all(d, g, x, t, n, floats, cancel));
    const float *u = d->pred + (alone ? 0 : n - 1) * floats;
    if (g->edit)
        combine_edit(g, d->pred, d->pred + floats, u, floats, out);
    else
        combine(g, d->pred, u, alone ? 1 : g->cfg, floats, out);
    if (g->rescale > 0 && !alone)
        rescale(g, d->pred, u, floats, d->pred + n * floats, out);
    if (uncond)
        memcpy(uncond, u, floats * sizeof *uncond);
    return SDLORA_OK;
}
