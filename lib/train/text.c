/* SPDX-License-Identifier: MIT */
/* Encodes captions one by one with a planned graph and keeps the states by string. */
#include "train/text.h"

#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "graph/exec.h"

struct slr_text {
    slr_mem *m;
    slr_text_config c;
    slr_plan *plan;
    slr_val ids, states;
    slr_val put, rows; /* SLR_NONE: no embeddings */
    size_t floats;
    slr_map *kept; /* caption -> index into block */
    float **block;
    size_t n, cap;
};

int slr_text_chunks(slr_opt o, int *n_chunks)
{
    int64_t tokens = slr_opt_has(o, "max_token_length") ? slr_opt_int(o, "max_token_length") : 75;
    if (tokens != 75 && tokens != 150 && tokens != 225)
        return slr_fail(SDLORA_EINVAL, __func__, "max_token_length is 75, 150 or 225, not %lld",
                        (long long)tokens);
    *n_chunks = (int)(tokens / 75);
    return SDLORA_OK;
}

static int plan_graph(slr_text *t, slr_graph *g, slr_val *vals)
{
    slr_train_hook hook;
    slr_adapter adapter = {0};
    if (t->c.stack) {
        adapter = slr_stack_adapter(t->c.stack);
    } else if (t->c.network) {
        slr_train_hook_init(&hook, t->c.network, SLR_NONE, vals);
        adapter = hook.adapter;
    }
    if (t->c.words)
        adapter.tokens = slr_words_tokens;
    int64_t dim[2] = {t->c.n_chunks, 77};
    slr_weights *te = t->c.stack ? slr_stack_weights(t->c.stack, SLR_PART_TE)
                                 : slr_checkpoint_part(t->c.base, SLR_PART_TE);
    slr_nn nn = {g, te, SLR_PART_TE, &adapter};
    slr_val ids = slr_input(g, "ids", SDLORA_I32, 2, dim);
    slr_val states = slr_clip_build(&nn, slr_checkpoint_family(t->c.base), ids, t->c.clip_skip);
    states = slr_cast(g, slr_clip_join(g, states, t->c.n_chunks), SDLORA_F32);
    slr_output(g, states, "states");
    SLR_TRY(slr_graph_status(g));
    SLR_TRY(slr_plan_new(&t->plan, g, t->c.devices));
    SLR_TRY(slr_plan_find(t->plan, "ids", &t->ids));
    if (t->c.words) {
        SLR_TRY(slr_plan_find(t->plan, "put", &t->put));
        SLR_TRY(slr_plan_find(t->plan, "rows", &t->rows));
    }
    return slr_plan_find(t->plan, "states", &t->states);
}

static int bind_network(slr_text *t)
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

static int build(slr_text *t)
{
    if (!slr_checkpoint_part(t->c.base, SLR_PART_TE))
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no text encoder",
                        slr_checkpoint_path(t->c.base));
    SLR_TRY(slr_map_new(&t->kept, t->m));

    slr_graph *g = NULL;
    size_t n_slots = t->c.network ? slr_network_slots(t->c.network) : 0;
    slr_val *vals = slr_calloc(t->m, n_slots + 1, sizeof *vals);
    int rc = vals ? slr_graph_new(&g, t->m, t->c.policy) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = plan_graph(t, g, vals);
    slr_graph_free(g);
    slr_free(t->m, vals);
    SLR_TRY(rc);
    slr_shape s = slr_plan_shape(t->plan, t->states);
    t->floats = (size_t)(s.dim[1] * s.dim[2]);
    return bind_network(t);
}

int slr_text_new(slr_text **out, const slr_text_config *config)
{
    *out = NULL;
    slr_text *t = slr_calloc(config->mem, 1, sizeof *t);
    if (!t)
        return SDLORA_ENOMEM;
    t->m = config->mem;
    t->c = *config;
    slr_checkpoint_ref(t->c.base);
    slr_network_ref(t->c.network);
    int rc = build(t);
    if (rc < 0) {
        slr_text_free(t);
        return rc;
    }
    *out = t;
    return SDLORA_OK;
}

static void drop_blocks(slr_text *t)
{
    for (size_t i = 0; i < t->n; i++)
        slr_free(t->m, t->block[i]);
    t->n = 0;
}

void slr_text_free(slr_text *t)
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

void slr_text_forget(slr_text *t)
{
    drop_blocks(t);
    slr_map_clear(t->kept);
}

size_t slr_text_floats(const slr_text *t)
{
    return t->floats;
}

static int encode(slr_text *t, const char *caption, const slr_cancel_flag *cancel, float *out)
{
    SLR_TRY(slr_plan_back(t->plan));
    int32_t *ids = slr_plan_data(t->plan, t->ids);
    SLR_TRY(slr_words_caption(t->c.words, t->c.bpe, t->m, slr_checkpoint_family(t->c.base), caption,
                              t->c.n_chunks, ids));
    if (t->c.words)
        slr_words_split(t->c.words, ids, (size_t)t->c.n_chunks * 77, slr_plan_data(t->plan, t->put),
                        slr_plan_data(t->plan, t->rows), slr_plan_shape(t->plan, t->rows).dim[2],
                        NULL);
    SLR_TRY(slr_plan_run(t->plan, cancel));
    memcpy(out, slr_plan_data(t->plan, t->states), t->floats * sizeof(float));
    return SDLORA_OK;
}

int slr_text_states(slr_text *t, const char *caption, const slr_cancel_flag *cancel,
                    const float **states)
{
    int64_t at;
    if (slr_map_get(t->kept, caption, &at)) {
        *states = t->block[at];
        return SDLORA_OK;
    }
    if ((t->n + 1) * t->floats * sizeof(float) > SLR_TEXT_KEPT_BYTES)
        slr_text_forget(t);
    SLR_TRY(slr_grow(t->m, &t->block, &t->cap, t->n + 1, sizeof *t->block));
    float *out = slr_alloc(t->m, t->floats * sizeof(float));
    int rc = out ? encode(t, caption, cancel, out) : SDLORA_ENOMEM;
    if (rc >= 0)
        rc = slr_map_set(t->kept, caption, (int64_t)t->n);
    if (rc < 0) {
        slr_free(t->m, out);
        return rc;
    }
    *states = t->block[t->n++] = out;
    return SDLORA_OK;
}
