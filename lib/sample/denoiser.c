/* SPDX-License-Identifier: MIT */
/* Builds text and UNet graphs as shapes come up and runs them.  Refuses to know samplers. */
#include "sample/denoiser.h"

#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "models/clip.h"
#include "models/unet.h"
#include "networks/embedding.h"

enum { MAX_TEXTS = 256, ROW = 77 };

/* Text states of one prompt, and which of the words it uses, in that order. */
typedef struct states {
    float *data;
    int64_t tokens;
    size_t *used, n_used;
} states;

struct slr_denoiser {
    slr_mem *m;
    slr_engine *engine;
    const slr_family *family;
    uint64_t version; /* of the engine, when texts were kept */
    slr_bpe *bpe;
    slr_words *words;  /* Nullable: no embeddings */
    uint64_t *written; /* the version of each when states were made of it */
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
    d->family = slr_checkpoint_family(base);
    d->bpe = slr_bpe_ref(bpe);
    int rc = slr_engine_new(&d->engine, m, base, devices);
    if (rc >= 0)
        rc = slr_map_new(&d->by_prompt, m);
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

void slr_denoiser_rest(slr_denoiser *d)
{
    slr_engine_rest(d->engine);
    drop_text(d);
    drop_words(d);
}

void slr_denoiser_free(slr_denoiser *d)
{
    if (!d)
        return;
    drop_text(d);
    drop_words(d);
    slr_engine_free(d->engine);
    slr_free(d->m, d->text);
    slr_map_free(d->by_prompt);
    slr_bpe_unref(d->bpe);
    slr_free(d->m, d);
}

int64_t slr_denoiser_channels(const slr_denoiser *d)
{
    return d->unet.out_channels;
}

void slr_denoiser_set_policy(slr_denoiser *d, slr_policy policy)
{
    slr_engine_set_policy(d->engine, policy);
}

int slr_denoiser_set_networks(slr_denoiser *d, const slr_stack_item *items, size_t n)
{
    if (d->n_text >= MAX_TEXTS)
        drop_text(d);
    return slr_engine_set_networks(d->engine, items, n);
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

/* a = chunks, b = clip skip, c = whether embeddings stand in them. */
static void build_text(void *user, slr_graph *g, const slr_engine_key *k)
{
    slr_denoiser *d = user;
    slr_adapter adapter = slr_engine_adapter(d->engine);
    slr_nn nn = {g, slr_engine_weights(d->engine, SLR_PART_TE), SLR_PART_TE, &adapter};
    if (k->c)
        adapter.tokens = slr_words_tokens;
    int64_t dim[2] = {k->a, ROW};
    slr_val ids = slr_input(g, "ids", SDLORA_I32, 2, dim);
    slr_graph_push(g, "text_encoder");
    slr_val out = slr_clip_build(&nn, d->family, ids, (int)k->b);
    slr_graph_pop(g);
    slr_output(g, slr_cast(g, out, SDLORA_F32), "out");
}

/* a = batch, b = tokens, c = h * 65536 + w. */
static void build_unet(void *user, slr_graph *g, const slr_engine_key *k)
{
    slr_denoiser *d = user;
    slr_adapter adapter = slr_engine_adapter(d->engine);
    slr_nn nn = {g, slr_engine_weights(d->engine, SLR_PART_UNET), SLR_PART_UNET, &adapter};
    int64_t image[4] = {k->a, k->c >> 16, k->c & 0xffff, d->unet.in_channels}, one[1] = {k->a};
    int64_t text[3] = {k->a, k->b, d->clip.width};
    slr_val x = slr_input(g, "x", SDLORA_F32, 4, image), t = slr_input(g, "t", SDLORA_F32, 1, one);
    slr_val context = slr_input(g, "context", SDLORA_F32, 3, text);
    slr_graph_push(g, "unet");
    slr_val out = slr_unet_build(&nn, d->family, x, t, context);
    slr_graph_pop(g);
    slr_output(g, out, "out");
}

/* --- text --- */

/* Ids, and rows where embeddings stand. */
static void fill_text(slr_denoiser *d, slr_plan *p, slr_chunks *chunks, bool any)
{
    size_t n = chunks->n * ROW;
    if (any)
        slr_words_split(d->words, chunks->ids, n, slr_engine_memory(p, "text_encoder.put"),
                        slr_engine_memory(p, "text_encoder.rows"), d->clip.width, NULL);
    memcpy(slr_engine_memory(p, "ids"), chunks->ids, n * sizeof *chunks->ids);
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
    slr_engine_key key = {SLR_ENGINE_TEXT, (int64_t)chunks->n, clip_skip, any};
    SLR_TRY(slr_engine_plan(d->engine, &key, build_text, d, &p));
    fill_text(d, p, chunks, any);
    SLR_TRY(slr_plan_run(p, cancel));
    memcpy(out->data, slr_engine_memory(p, "out"), floats * sizeof(float));
    slr_chunks_emphasise(chunks, out->data, d->clip.width);
    return SDLORA_OK;
}

static int encode(slr_denoiser *d, const char *prompt, int clip_skip, const slr_cancel_flag *cancel,
                  states *out)
{
    slr_chunks chunks;
    *out = (states){0};
    SLR_TRY(slr_prompt_chunks(&chunks, d->m, d->bpe, d->words, d->family, prompt));
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
    if (d->version != slr_engine_version(d->engine))
        drop_text(d);
    d->version = slr_engine_version(d->engine);
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
    slr_engine_key key = {SLR_ENGINE_UNET, n, tokens, g->h << 16 | g->w};
    SLR_TRY(slr_engine_plan(d->engine, &key, build_unet, d, &p));
    size_t floats = (size_t)(g->h * g->w * d->unet.in_channels),
           words = (size_t)(tokens * d->clip.width);
    float *to_x = slr_engine_memory(p, "x"), *to_t = slr_engine_memory(p, "t"),
          *to_text = slr_engine_memory(p, "context");
    for (int64_t i = 0; i < n; i++) {
        memcpy(to_x + (size_t)i * floats, x, floats * sizeof(float));
        memcpy(to_text + (size_t)i * words, text[i], words * sizeof(float));
        to_t[i] = (float)t;
    }
    SLR_TRY(slr_plan_run(p, cancel));
    *out = slr_engine_memory(p, "out");
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
