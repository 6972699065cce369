/* SPDX-License-Identifier: MIT */
/* Encodes captions one by one with a planned graph and keeps the states by string.  Refuses to know
 * how captions are drawn. */
#include "train/captions.h"

#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "data/cache.h"
#include "graph/exec.h"

struct slr_captions {
    slr_mem *m;
    slr_captions_config c;
    slr_text_shape shape;
    slr_plan *plan; /* NULL: not yet, or no more */
    bool closed;
    int64_t tokens;
    size_t floats;
    slr_map *kept; /* caption -> index into block */
    float **block; /* states, then the pooled one */
    size_t n, cap;
    char encoder[40]; /* names what encodes; empty: not made yet */
    bool cannot_write;
};

int slr_captions_chunks(slr_opt o, int *n_chunks)
{
    int64_t tokens = slr_opt_has(o, "max_token_length") ? slr_opt_int(o, "max_token_length") : 75;
    if (tokens != 75 && tokens != 150 && tokens != 225)
        return slr_fail(SDLORA_EINVAL, __func__, "max_token_length is 75, 150 or 225, not %lld",
                        (long long)tokens);
    *n_chunks = (int)(tokens / 75);
    return SDLORA_OK;
}

/* --- the graph --- */

static slr_weights *weights_of(const slr_captions *t, int part)
{
    return t->c.stack ? slr_stack_weights(t->c.stack, part) : slr_checkpoint_part(t->c.base, part);
}

static int plan_graph(slr_captions *t, slr_graph *g, slr_val *vals)
{
    slr_train_hook hook;
    slr_adapter adapter = {0};
    slr_val states, pooled;
    if (t->c.stack) {
        adapter = slr_stack_adapter(t->c.stack);
    } else if (t->c.network) {
        slr_train_hook_init(&hook, t->c.network, SLR_NONE, vals);
        adapter = hook.adapter;
    }
    if (t->c.words)
        adapter.tokens = slr_words_tokens;
    slr_text_graph text = {.family = slr_checkpoint_family(t->c.base),
                           .shape = &t->shape,
                           .adapter = &adapter,
                           .n = 1,
                           .n_chunks = t->c.n_chunks,
                           .clip_skip = t->c.clip_skip};
    for (int e = 0; e < t->shape.n; e++)
        text.weights[e] = weights_of(t, t->shape.part[e]);
    slr_text_graph_build(g, &text, &states, &pooled);
    slr_output(g, slr_cast(g, states, SDLORA_F32), "states");
    if (pooled != SLR_NONE)
        slr_output(g, slr_cast(g, pooled, SDLORA_F32), "pooled");
    SLR_TRY(slr_graph_status(g));
    return slr_plan_new(&t->plan, g, t->c.devices);
}

static int bind_network(slr_captions *t)
{
    if (t->c.stack)
        return slr_stack_bind(t->c.stack, t->plan);
    slr_network *n = t->c.network;
    for (size_t i = 0; n && i < slr_network_slots(n); i++) {
        const slr_network_slot *slot = slr_network_slot_at(n, i);
        slr_val v;
        if (slr_plan_find(t->plan, slot->key, &v) < 0) {
            slr_clear();
            continue; /* a UNet slot, or rows of an embedding */
        }
        SLR_TRY(slr_plan_bind(t->plan, v, slr_network_params(n) + slot->offset));
    }
    return SDLORA_OK;
}

/* Encoders and graph, unless they are there. */
static int ready(slr_captions *t)
{
    slr_graph *g = NULL;
    size_t n_slots = t->c.network ? slr_network_slots(t->c.network) : 0;
    if (t->plan)
        return SDLORA_OK;
    slr_val *vals = slr_calloc(t->m, n_slots + 1, sizeof *vals);
    int rc = vals ? slr_graph_new(&g, t->m, t->c.policy) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = plan_graph(t, g, vals);
    slr_graph_free(g);
    slr_free(t->m, vals);
    if (rc >= 0)
        rc = bind_network(t);
    if (rc < 0) {
        slr_plan_free(t->plan);
        t->plan = NULL;
    }
    return rc;
}

/* --- life --- */

int slr_captions_new(slr_captions **out, const slr_captions_config *config)
{
    *out = NULL;
    slr_captions *t = slr_calloc(config->mem, 1, sizeof *t);
    if (!t)
        return SDLORA_ENOMEM;
    t->m = config->mem;
    t->c = *config;
    slr_checkpoint_ref(t->c.base);
    slr_network_ref(t->c.network);
    int rc = slr_text_read(&t->shape, t->c.base);
    if (rc >= 0)
        rc = slr_map_new(&t->kept, t->m);
    t->tokens = slr_text_tokens(t->c.n_chunks);
    t->floats = (size_t)(t->tokens * t->shape.width + t->shape.pooled);
    if (rc >= 0 && !t->c.later)
        rc = ready(t);
    if (rc < 0) {
        slr_captions_free(t);
        return rc;
    }
    *out = t;
    return SDLORA_OK;
}

static void drop_blocks(slr_captions *t)
{
    for (size_t i = 0; i < t->n; i++)
        slr_free(t->m, t->block[i]);
    t->n = 0;
}

void slr_captions_free(slr_captions *t)
{
    if (!t)
        return;
    drop_blocks(t);
    slr_free(t->m, t->block);
    slr_map_free(t->kept);
    slr_plan_free(t->plan);
    slr_network_unref(t->c.network);
    slr_checkpoint_unref(t->c.base);
    slr_free(t->m, t);
}

void slr_captions_forget(slr_captions *t)
{
    if (t->closed)
        return;
    drop_blocks(t);
    slr_map_clear(t->kept);
    t->encoder[0] = '\0'; /* it names the network too */
}

bool slr_captions_reopen(slr_captions *t)
{
    bool was = t->closed;
    t->closed = false;
    slr_captions_forget(t);
    return was;
}

void slr_captions_close(slr_captions *t)
{
    slr_plan_free(t->plan);
    t->plan = NULL;
    t->closed = true;
}

size_t slr_captions_floats(const slr_captions *t)
{
    return t->floats;
}

/* --- encoding --- */

static int encode(slr_captions *t, const char *caption, const slr_cancel_flag *cancel, float *out)
{
    const slr_family *family = slr_checkpoint_family(t->c.base);
    size_t wide = t->floats - (size_t)t->shape.pooled;
    if (t->closed)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "the caption '%.100s' is not among those that were encoded before training",
                        caption);
    SLR_TRY(ready(t));
    SLR_TRY(slr_plan_back(t->plan));
    slr_text_io io = slr_text_io_of(t->plan);
    SLR_TRY(
        slr_words_caption(t->c.words, t->c.bpe, t->m, family, caption, t->c.n_chunks, io.ids[0]));
    slr_text_io_fill(&io, t->c.words, family, &t->shape, (size_t)t->c.n_chunks);
    SLR_TRY(slr_plan_run(t->plan, cancel));
    memcpy(out, slr_train_held(t->plan, "states"), wide * sizeof *out);
    if (t->shape.pooled)
        memcpy(out + wide, slr_train_held(t->plan, "pooled"),
               (size_t)t->shape.pooled * sizeof *out);
    return SDLORA_OK;
}

/* Takes over a block of states. */
static int keep_block(slr_captions *t, const char *caption, float *block)
{
    int rc = slr_grow(t->m, &t->block, &t->cap, t->n + 1, sizeof *t->block);
    if (rc >= 0)
        rc = slr_map_set(t->kept, caption, (int64_t)t->n);
    if (rc < 0)
        slr_free(t->m, block);
    else
        t->block[t->n++] = block;
    return rc;
}

int slr_captions_get(slr_captions *t, const char *caption, const slr_cancel_flag *cancel,
                     slr_caption_states *out)
{
    int64_t at;
    if (!slr_map_get(t->kept, caption, &at)) {
        if (!t->closed && (t->n + 1) * t->floats * sizeof(float) > SLR_CAPTIONS_KEPT_BYTES)
            slr_captions_forget(t);
        float *block = slr_alloc(t->m, t->floats * sizeof *block);
        int rc = block ? encode(t, caption, cancel, block) : SDLORA_ENOMEM;
        if (rc < 0) {
            slr_free(t->m, block);
            return rc;
        }
        at = (int64_t)t->n;
        SLR_TRY(keep_block(t, caption, block));
    }
    const float *block = t->block[at];
    *out = (slr_caption_states){block, t->shape.pooled ? block + t->tokens * t->shape.width : NULL};
    return SDLORA_OK;
}

int slr_captions_put(slr_captions *t, const char *caption, const slr_cancel_flag *cancel,
                     const slr_step_io *io, int64_t i)
{
    slr_caption_states s;
    int64_t n = t->tokens * t->shape.width, pooled = t->shape.pooled;
    SLR_TRY(slr_captions_get(t, caption, cancel, &s));
    memcpy(io->states + i * n, s.states, (size_t)n * sizeof *io->states);
    if (io->pooled)
        memcpy(io->pooled + i * pooled, s.pooled, (size_t)pooled * sizeof *io->pooled);
    return SDLORA_OK;
}

/* --- files --- */

static uint64_t digest(const slr_weights *w, uint64_t seed)
{
    for (size_t i = 0; i < slr_weights_count(w); i++) {
        const slr_tensor *t;
        const char *name = slr_weights_at(w, i, &t);
        size_t bytes = slr_tensor_bytes(t);
        seed = slr_hash64(name, strlen(name), seed);
        seed = slr_hash64(t->data, bytes < 4096 ? bytes : 4096, seed);
    }
    return seed;
}

/* All that states depend on beside the caption. */
static slr_cache_key key_of(slr_captions *t)
{
    if (!t->encoder[0]) {
        const int64_t how[] = {t->c.n_chunks, t->c.clip_skip, (int64_t)t->c.policy.storage};
        uint64_t h = slr_hash64(how, sizeof how, 0);
        for (int e = 0; e < t->shape.n; e++) {
            h = digest(weights_of(t, t->shape.part[e]), h);
            if (t->c.network) /* one that is not trained may have been opened */
                h = slr_network_digest(t->c.network, t->shape.part[e], h);
        }
        snprintf(t->encoder, sizeof t->encoder, "text-%016llx", (unsigned long long)h);
    }
    return (slr_cache_key){.what = "text",
                           .encoder_id = t->encoder,
                           .h = 1,
                           .w = 1,
                           .c = (int64_t)t->floats,
                           .variants = 1};
}

/* OK: it was on disk.  DONE: it has to be made. */
static int from_disk(slr_captions *t, const slr_item *item, float *block)
{
    slr_cache_key key = key_of(t);
    int rc = slr_cache_load(t->m, item, &key, block);
    if (rc != SDLORA_EFORMAT)
        return rc;
    slr_logf(&t->c.log, SLR_LOG_WARN, "text states are made anew: %s",
             sdlora_last_error()->message);
    slr_clear();
    return SDLORA_DONE;
}

/* A directory that cannot be written costs the next run's time, not this run. */
static int to_disk(slr_captions *t, const slr_item *item, const float *block)
{
    slr_cache_key key = key_of(t);
    if (t->cannot_write)
        return SDLORA_OK;
    int rc = slr_cache_save(t->m, item, &key, block);
    if (rc >= 0 || rc == SDLORA_ENOMEM)
        return rc;
    slr_logf(&t->c.log, SLR_LOG_WARN, "text states are not kept on disk: %s",
             sdlora_last_error()->message);
    slr_clear();
    t->cannot_write = true;
    return SDLORA_OK;
}

int slr_captions_keep(slr_captions *t, const char *caption, const slr_item *item,
                      const slr_cancel_flag *cancel)
{
    int64_t at;
    slr_item of_caption; /* the file belongs to the words, whatever the picture shows */
    if (slr_map_get(t->kept, caption, &at))
        return SDLORA_OK;
    if (item)
        of_caption =
            (slr_item){.path = item->path, .content_hash = slr_hash64(caption, strlen(caption), 0)};
    float *block = slr_alloc(t->m, t->floats * sizeof *block);
    int rc = !block ? SDLORA_ENOMEM : item ? from_disk(t, &of_caption, block) : SDLORA_DONE;
    if (rc == SDLORA_DONE) {
        rc = encode(t, caption, cancel, block);
        if (rc >= 0 && item)
            rc = to_disk(t, &of_caption, block);
    }
    if (rc < 0) {
        slr_free(t->m, block);
        return rc;
    }
    return keep_block(t, caption, block);
}
