/* SPDX-License-Identifier: MIT */
/* Plans text and UNet graphs as shapes come up, keeps a few, and runs them.  Refuses to know
 * samplers. */
#include "sample/denoiser.h"

#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "models/clip.h"
#include "models/unet.h"
#include "networks/embedding.h"

enum { MAX_PLANS = 6, MAX_TEXTS = 256, ROW = 77 };

/* A planned graph.  Text: a = chunks, b = clip skip, c = whether embeddings stand in it.  UNet: a =
 * batch, b = tokens, c = h * 65536 + w. */
typedef struct kept {
    slr_plan *plan;
    bool text;
    int64_t a, b, c;
    uint64_t used;
} kept;

/* Text states of one prompt, and which of the words it uses, in that order. */
typedef struct states {
    float *data;
    int64_t tokens;
    size_t *used, n_used;
} states;

struct slr_denoiser {
    slr_mem *m;
    slr_checkpoint *base;
    slr_devices *devices;
    slr_policy policy;
    slr_bpe *bpe;
    slr_words *words;  /* Nullable: no embeddings */
    uint64_t *written; /* the version of each when states were made of it */
    slr_stack *stack;
    slr_stack_item *item; /* what the stack holds, for comparing */
    size_t n_items;
    kept plan[MAX_PLANS];
    slr_plan *retired[2]; /* by `text`: keeps the packed weights that the next plan wants too */
    uint64_t clock;
    slr_map *by_prompt;
    states *text;
    size_t n_text, text_cap;
    slr_unet_shape unet;
    slr_clip_shape clip;
};

int slr_denoiser_new(slr_denoiser **out, slr_mem *m, slr_checkpoint *base, slr_devices *devices,
                     slr_bpe *bpe)
{
    *out = NULL;
    slr_weights *te = slr_checkpoint_part(base, SLR_PART_TE),
                *unet = slr_checkpoint_part(base, SLR_PART_UNET);
    if (!te || !unet)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no %s", slr_checkpoint_path(base),
                        te ? "UNet" : "text encoder");
    slr_denoiser *d = slr_calloc(m, 1, sizeof *d);
    if (!d)
        return SDLORA_ENOMEM;
    d->m = m;
    d->base = slr_checkpoint_ref(base);
    d->devices = slr_devices_ref(devices);
    d->policy = (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT};
    d->bpe = slr_bpe_ref(bpe);
    int rc = slr_map_new(&d->by_prompt, m);
    if (rc >= 0)
        rc = slr_clip_read(&d->clip, slr_checkpoint_family(base), te);
    if (rc >= 0)
        rc = slr_unet_read(&d->unet, slr_checkpoint_family(base), unet);
    if (rc < 0) {
        slr_denoiser_free(d);
        return rc;
    }
    *out = d;
    return SDLORA_OK;
}

static void free_states(slr_denoiser *d, const states *s)
{
    slr_free(d->m, s->data);
    slr_free(d->m, s->used);
}

static void drop_text(slr_denoiser *d)
{
    for (size_t i = 0; i < d->n_text; i++)
        free_states(d, &d->text[i]);
    d->n_text = 0;
    if (d->by_prompt)
        slr_map_clear(d->by_prompt);
}

static void drop_words(slr_denoiser *d)
{
    slr_words_free(d->words);
    slr_free(d->m, d->written);
    d->words = NULL;
    d->written = NULL;
}

static void drop_plans(slr_denoiser *d)
{
    for (int i = 0; i < MAX_PLANS; i++) {
        slr_plan_free(d->plan[i].plan);
        d->plan[i] = (kept){0};
    }
}

/* The plans of another stack.  The last of the UNet and of the text encoder stay until there are
 * new ones, since packing a model's weights again takes seconds. */
static void retire_plans(slr_denoiser *d)
{
    for (int text = 0; text < 2; text++) {
        kept *last = NULL;
        for (int i = 0; i < MAX_PLANS; i++)
            if (d->plan[i].plan && d->plan[i].text == text &&
                (!last || d->plan[i].used > last->used))
                last = &d->plan[i];
        if (!last)
            continue;
        slr_plan_free(d->retired[text]);
        d->retired[text] = last->plan;
        last->plan = NULL;
    }
    drop_plans(d);
}

static void drop_retired(slr_denoiser *d, int text)
{
    slr_plan_free(d->retired[text]);
    d->retired[text] = NULL;
}

static void drop_stack(slr_denoiser *d)
{
    slr_stack_free(d->stack);
    slr_free(d->m, d->item);
    d->stack = NULL;
    d->item = NULL;
    d->n_items = 0;
}

void slr_denoiser_rest(slr_denoiser *d)
{
    drop_plans(d);
    drop_retired(d, false);
    drop_retired(d, true);
    drop_text(d);
    drop_words(d);
    drop_stack(d);
}

void slr_denoiser_free(slr_denoiser *d)
{
    if (!d)
        return;
    slr_denoiser_rest(d);
    slr_free(d->m, d->text);
    slr_map_free(d->by_prompt);
    slr_bpe_unref(d->bpe);
    slr_devices_unref(d->devices);
    slr_checkpoint_unref(d->base);
    slr_free(d->m, d);
}

int64_t slr_denoiser_channels(const slr_denoiser *d)
{
    return d->unet.out_channels;
}

void slr_denoiser_set_policy(slr_denoiser *d, slr_policy policy)
{
    if (d->policy.storage == policy.storage && d->policy.math == policy.math)
        return;
    drop_plans(d);
    drop_text(d);
    d->policy = policy;
}

/* --- networks --- */

static bool same_networks(const slr_denoiser *d, const slr_stack_item *items, size_t n)
{
    if (n != d->n_items)
        return false;
    for (size_t i = 0; i < n; i++)
        if (items[i].network != d->item[i].network || items[i].dyn != d->item[i].dyn)
            return false;
    return true;
}

static bool same_strengths(const slr_denoiser *d, const slr_stack_item *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (items[i].te != d->item[i].te || items[i].unet != d->item[i].unet)
            return false;
    return true;
}

/* A new stack, before anything of the old one is given up. */
static int replace_stack(slr_denoiser *d, const slr_stack_item *items, size_t n)
{
    slr_stack *stack = NULL;
    slr_stack_item *copy = NULL;
    if (n) {
        SLR_TRY(slr_stack_new(&stack, d->m, d->devices, d->base, items, n));
        copy = slr_calloc(d->m, n, sizeof *copy);
        if (!copy) {
            slr_stack_free(stack);
            return SDLORA_ENOMEM;
        }
        memcpy(copy, items, n * sizeof *copy);
    }
    retire_plans(d);
    drop_text(d);
    drop_stack(d);
    d->stack = stack;
    d->item = copy;
    d->n_items = n;
    return SDLORA_OK;
}

int slr_denoiser_set_networks(slr_denoiser *d, const slr_stack_item *items, size_t n)
{
    if (!same_networks(d, items, n))
        return replace_stack(d, items, n);
    if (d->n_text >= MAX_TEXTS)
        drop_text(d);
    if (same_strengths(d, items, n) && !(d->stack && slr_stack_stale(d->stack)))
        return SDLORA_OK;
    if (!slr_stack_live(d->stack))
        return replace_stack(d, items, n);
    SLR_TRY(slr_stack_set(d->stack, items, n));
    memcpy(d->item, items, n * sizeof *items);
    drop_text(d);
    return SDLORA_OK;
}

/* --- embeddings --- */

static bool same_words(const slr_denoiser *d, slr_network *const *embeddings, size_t n)
{
    if (n != slr_words_count(d->words))
        return false;
    for (size_t i = 0; i < n; i++)
        if (embeddings[i] != slr_words_at(d->words, i) ||
            slr_network_version(embeddings[i]) != d->written[i])
            return false;
    return true;
}

int slr_denoiser_set_embeddings(slr_denoiser *d, slr_network *const *embeddings, size_t n)
{
    slr_words *words;
    if (same_words(d, embeddings, n))
        return SDLORA_OK;
    uint64_t *written = slr_calloc(d->m, n + 1, sizeof *written);
    if (!written)
        return SDLORA_ENOMEM;
    int rc = slr_words_new(&words, d->m, d->bpe);
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        int64_t vectors, width;
        slr_embedding_rows(embeddings[i], &vectors, &width);
        written[i] = slr_network_version(embeddings[i]);
        rc = width == d->clip.width
                 ? slr_words_add(words, embeddings[i])
                 : slr_fail(SDLORA_EINVAL, __func__, "%s is %lld wide, and the text encoder %lld",
                            slr_network_name(embeddings[i]), (long long)width,
                            (long long)d->clip.width);
    }
    if (rc < 0) {
        slr_words_free(words);
        slr_free(d->m, written);
        return rc;
    }
    drop_text(d);
    drop_words(d);
    d->words = words;
    d->written = written;
    return SDLORA_OK;
}

/* --- graphs --- */

static slr_weights *weights_of(slr_denoiser *d, int part)
{
    return d->stack ? slr_stack_weights(d->stack, part) : slr_checkpoint_part(d->base, part);
}

static void build_text(slr_denoiser *d, slr_graph *g, const slr_adapter *stacked, const kept *k)
{
    slr_adapter adapter = stacked ? *stacked : (slr_adapter){0};
    slr_nn nn = {g, weights_of(d, SLR_PART_TE), SLR_PART_TE, &adapter};
    if (k->c)
        adapter.tokens = slr_words_tokens;
    int64_t dim[2] = {k->a, ROW};
    slr_val ids = slr_input(g, "ids", SDLORA_I32, 2, dim);
    slr_graph_push(g, "text_encoder");
    slr_val out = slr_clip_build(&nn, slr_checkpoint_family(d->base), ids, (int)k->b);
    slr_graph_pop(g);
    slr_output(g, slr_cast(g, out, SDLORA_F32), "out");
}

static void build_unet(slr_denoiser *d, slr_graph *g, const slr_adapter *adapter, const kept *k)
{
    slr_nn nn = {g, weights_of(d, SLR_PART_UNET), SLR_PART_UNET, adapter};
    int64_t image[4] = {k->a, k->c >> 16, k->c & 0xffff, d->unet.in_channels}, one[1] = {k->a};
    int64_t text[3] = {k->a, k->b, d->clip.width};
    slr_val x = slr_input(g, "x", SDLORA_F32, 4, image), t = slr_input(g, "t", SDLORA_F32, 1, one);
    slr_val context = slr_input(g, "context", SDLORA_F32, 3, text);
    slr_graph_push(g, "unet");
    slr_val out = slr_unet_build(&nn, slr_checkpoint_family(d->base), x, t, context);
    slr_graph_pop(g);
    slr_output(g, out, "out");
}

static int plan_graph(slr_denoiser *d, kept *k)
{
    slr_graph *g;
    slr_adapter adapter = d->stack ? slr_stack_adapter(d->stack) : (slr_adapter){0};
    SLR_TRY(slr_graph_new(&g, d->m, d->policy));
    (k->text ? build_text : build_unet)(d, g, d->stack ? &adapter : NULL, k);
    int rc = slr_graph_status(g);
    if (rc >= 0)
        rc = slr_plan_new(&k->plan, g, d->devices);
    slr_graph_free(g);
    if (rc >= 0 && d->stack)
        rc = slr_stack_bind(d->stack, k->plan);
    return rc;
}

/* All plans work in one memory, as big as the biggest needs. */
static int share_memory(slr_denoiser *d, const kept *slot)
{
    for (int i = 0; i < MAX_PLANS; i++)
        if (&d->plan[i] != slot && d->plan[i].plan)
            return slr_plan_share(slot->plan, d->plan[i].plan);
    return SDLORA_OK;
}

/* The plan for a shape; the one not used for longest makes room. */
static int plan_for(slr_denoiser *d, kept want, slr_plan **out)
{
    kept *slot = &d->plan[0];
    d->clock++;
    for (int i = 0; i < MAX_PLANS; i++) {
        kept *k = &d->plan[i];
        if (k->plan && k->text == want.text && k->a == want.a && k->b == want.b && k->c == want.c) {
            k->used = d->clock;
            *out = k->plan;
            return SDLORA_OK;
        }
        if (k->used < slot->used)
            slot = k;
    }
    slr_plan_free(slot->plan);
    *slot = want;
    int rc = plan_graph(d, slot);
    if (rc >= 0)
        rc = share_memory(d, slot);
    if (rc >= 0)
        rc = slr_plan_back(slot->plan);
    if (rc < 0) {
        slr_plan_free(slot->plan);
        *slot = (kept){0};
        return rc;
    }
    drop_retired(d, want.text);
    slot->used = d->clock;
    *out = slot->plan;
    return SDLORA_OK;
}

static void *plan_memory(slr_plan *p, const char *name)
{
    slr_val v;
    return slr_plan_find(p, name, &v) < 0 ? NULL : slr_plan_data(p, v);
}

/* --- text --- */

/* Ids, and rows where embeddings stand. */
static void fill_text(slr_denoiser *d, slr_plan *p, slr_chunks *chunks, bool any)
{
    size_t n = chunks->n * ROW;
    if (any)
        slr_words_split(d->words, chunks->ids, n, plan_memory(p, "text_encoder.put"),
                        plan_memory(p, "text_encoder.rows"), d->clip.width, NULL);
    memcpy(plan_memory(p, "ids"), chunks->ids, n * sizeof *chunks->ids);
}

static int run_text(slr_denoiser *d, slr_chunks *chunks, int clip_skip,
                    const slr_cancel_flag *cancel, states *out)
{
    slr_plan *p;
    size_t n = chunks->n * ROW, floats = n * (size_t)d->clip.width;
    bool any = slr_words_any(chunks->ids, n);
    out->tokens = (int64_t)n;
    out->used = slr_calloc(d->m, slr_words_count(d->words) + 1, sizeof *out->used);
    out->data = slr_alloc(d->m, floats * sizeof(float));
    if (!out->used || !out->data)
        return SDLORA_ENOMEM;
    out->n_used = slr_words_used(d->words, chunks->ids, n, out->used);
    SLR_TRY(
        plan_for(d, (kept){.text = true, .a = (int64_t)chunks->n, .b = clip_skip, .c = any}, &p));
    fill_text(d, p, chunks, any);
    SLR_TRY(slr_plan_run(p, cancel));
    memcpy(out->data, plan_memory(p, "out"), floats * sizeof(float));
    slr_chunks_emphasise(chunks, out->data, d->clip.width);
    return SDLORA_OK;
}

static int encode(slr_denoiser *d, const char *prompt, int clip_skip, const slr_cancel_flag *cancel,
                  states *out)
{
    slr_chunks chunks;
    *out = (states){0};
    SLR_TRY(
        slr_prompt_chunks(&chunks, d->m, d->bpe, d->words, slr_checkpoint_family(d->base), prompt));
    int rc = run_text(d, &chunks, clip_skip, cancel, out);
    if (rc < 0) {
        free_states(d, out);
        *out = (states){0};
    }
    slr_chunks_free(&chunks);
    return rc;
}

/* Keeps states under "<clip skip>:<prompt>". */
static int keep_text(slr_denoiser *d, const char *key, const states *s)
{
    SLR_TRY(slr_grow(d->m, &d->text, &d->text_cap, d->n_text + 1, sizeof *d->text));
    SLR_TRY(slr_map_set(d->by_prompt, key, (int64_t)d->n_text));
    d->text[d->n_text++] = *s;
    return SDLORA_OK;
}

static int states_of(slr_denoiser *d, const char *prompt, int clip_skip,
                     const slr_cancel_flag *cancel, states *out)
{
    slr_buf key;
    int64_t at;
    states s = {0};
    slr_buf_init(&key, d->m);
    slr_buf_printf(&key, "%d:%s", clip_skip, prompt);
    int rc = slr_buf_ok(&key);
    if (rc >= 0 && slr_map_get(d->by_prompt, key.data, &at)) {
        s = d->text[at];
    } else if (rc >= 0) {
        rc = encode(d, prompt, clip_skip, cancel, &s);
        if (rc >= 0) {
            rc = keep_text(d, key.data, &s);
            if (rc < 0)
                free_states(d, &s);
        }
    }
    slr_buf_free(&key);
    *out = s;
    return rc;
}

int slr_denoiser_text(slr_denoiser *d, const char *prompt, int clip_skip,
                      const slr_cancel_flag *cancel, const float **out, int64_t *tokens)
{
    states s;
    *out = NULL;
    *tokens = 0;
    SLR_TRY(states_of(d, prompt, clip_skip, cancel, &s));
    *out = s.data;
    *tokens = s.tokens;
    return SDLORA_OK;
}

int slr_denoiser_text_uses(slr_denoiser *d, const char *prompt, int clip_skip, const size_t **list,
                           size_t *n)
{
    states s;
    SLR_TRY(states_of(d, prompt, clip_skip, NULL, &s));
    *list = s.used;
    *n = s.n_used;
    return SDLORA_OK;
}

/* --- prediction --- */

/* One evaluation of a batch whose samples share x and t: states[i] for sample i. */
static int evaluate(slr_denoiser *d, const slr_guidance *g, const float *x, double t,
                    const float *const *text, int64_t n, int64_t tokens, float **out,
                    const slr_cancel_flag *cancel)
{
    slr_plan *p;
    SLR_TRY(plan_for(d, (kept){.a = n, .b = tokens, .c = g->h << 16 | g->w}, &p));
    size_t floats = (size_t)(g->h * g->w * d->unet.in_channels),
           words = (size_t)(tokens * d->clip.width);
    float *to_x = plan_memory(p, "x"), *to_t = plan_memory(p, "t"),
          *to_text = plan_memory(p, "context");
    for (int64_t i = 0; i < n; i++) {
        memcpy(to_x + (size_t)i * floats, x, floats * sizeof(float));
        memcpy(to_text + (size_t)i * words, text[i], words * sizeof(float));
        to_t[i] = (float)t;
    }
    SLR_TRY(slr_plan_run(p, cancel));
    *out = plan_memory(p, "out");
    return SDLORA_OK;
}

int slr_denoiser_predict(slr_denoiser *d, const slr_guidance *g, const float *x, double t,
                         float *out, const slr_cancel_flag *cancel)
{
    size_t floats = (size_t)(g->h * g->w * d->unet.out_channels);
    const float *both[2] = {g->cond, g->uncond};
    float *pred;
    if (g->cond_tokens == g->uncond_tokens) { /* one batch of two */
        SLR_TRY(evaluate(d, g, x, t, both, 2, g->cond_tokens, &pred, cancel));
        for (size_t i = 0; i < floats; i++)
            out[i] = pred[floats + i] + (float)g->cfg * (pred[i] - pred[floats + i]);
        return SDLORA_OK;
    }
    SLR_TRY(evaluate(d, g, x, t, &both[1], 1, g->uncond_tokens, &pred, cancel));
    memcpy(out, pred, floats * sizeof(float));
    SLR_TRY(evaluate(d, g, x, t, &both[0], 1, g->cond_tokens, &pred, cancel));
    for (size_t i = 0; i < floats; i++)
        out[i] += (float)g->cfg * (pred[i] - out[i]);
    return SDLORA_OK;
}
