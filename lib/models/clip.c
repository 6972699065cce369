/* SPDX-License-Identifier: MIT */
/* The CLIP text encoder as a graph, and how training cuts captions into chunks.  Knows Hugging
 * Face's names and kohya's chunk rule; refuses to know prompts with weights (sample/prompt) and
 * files. */
#include "models/clip.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

#define EPS_CLIP   1e-5
#define CHUNK      75 /* content tokens between BOS and EOS */
#define ROW        (CHUNK + 2)
#define MAX_CHUNKS 3

static int count_layers(const slr_weights *te)
{
    char path[192];
    int n = 0;
    while (slr_nn_has(te, slr_nn_path(path, "text_model.encoder.layers.%d.mlp.fc1", n)))
        n++;
    return n;
}

int slr_clip_read(slr_clip_shape *out, const slr_family *family, const slr_weights *te)
{
    const slr_tensor *table, *position;
    SLR_TRY(slr_weights_get(te, "text_model.embeddings.token_embedding.weight", &table));
    SLR_TRY(slr_weights_get(te, "text_model.embeddings.position_embedding.weight", &position));
    if (table->rank != 2 || position->rank != 2 || position->dim[1] != table->dim[1] ||
        table->dim[1] % family->te_head_dim != 0)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: token and position embeddings do not fit a CLIP text encoder",
                        slr_weights_label(te));
    *out = (slr_clip_shape){
        .width = table->dim[1],
        .layers = count_layers(te),
        .heads = table->dim[1] / family->te_head_dim,
        .positions = position->dim[0],
        .vocab = table->dim[0],
    };
    if (out->layers == 0)
        return slr_fail(SDLORA_ENOTFOUND, __func__,
                        "%s has no tensor text_model.encoder.layers.0.mlp.fc1.weight",
                        slr_weights_label(te));
    return SDLORA_OK;
}

static slr_val embed(slr_nn *nn, const slr_clip_shape *s, slr_val ids)
{
    slr_graph *g = nn->g;
    slr_val x =
        slr_embed(g, ids, slr_nn_weight(nn, "text_model.embeddings.token_embedding.weight"));
    x = slr_nn_tokens(nn, ids, x);
    const char *name = "text_model.embeddings.position_embedding.weight";
    const slr_tensor *t = slr_weights_find(nn->w, name);
    slr_tensor position = *t; /* there, since the shape was read */
    position.rank = 3;        /* [77,W] -> [1,T,W], repeated over the batch */
    position.dim[0] = 1;
    position.dim[1] = slr_dim(g, ids, 1);
    position.dim[2] = s->width;
    if (position.dim[1] != s->positions)
        position.id = slr_tensor_next_id(); /* other contents than the whole table */
    slr_val p = slr_const(g, name, &position);
    if (slr_shape_of(g, x).dtype != slr_shape_of(g, p).dtype && slr_graph_status(g) == SDLORA_OK)
        p = slr_cast(g, p, slr_shape_of(g, x).dtype);
    return slr_add(g, x, p);
}

static slr_val layer(slr_nn *nn, const slr_family *family, const slr_family_text *row,
                     const slr_clip_shape *s, int64_t i, slr_val x)
{
    char base[192], p[192];
    slr_graph *g = nn->g;
    slr_nn_path(base, "text_model.encoder.layers.%lld", (long long)i);
    slr_val h = slr_nn_layer_norm(nn, slr_nn_path(p, "%s.layer_norm1", base), x, EPS_CLIP);
    slr_val q = slr_nn_linear(nn, slr_nn_path(p, "%s.self_attn.q_proj", base), h, SLR_NONE);
    slr_val k = slr_nn_linear(nn, slr_nn_path(p, "%s.self_attn.k_proj", base), h, SLR_NONE);
    slr_val v = slr_nn_linear(nn, slr_nn_path(p, "%s.self_attn.v_proj", base), h, SLR_NONE);
    slr_graph_push(g, base);
    slr_val o =
        slr_attention(g, q, k, v, (int)s->heads, true, 1.0 / sqrt((double)family->te_head_dim));
    slr_graph_pop(g);
    x = slr_nn_linear(nn, slr_nn_path(p, "%s.self_attn.out_proj", base), o, x);
    h = slr_nn_layer_norm(nn, slr_nn_path(p, "%s.layer_norm2", base), x, EPS_CLIP);
    h = slr_nn_linear(nn, slr_nn_path(p, "%s.mlp.fc1", base), h, SLR_NONE);
    slr_graph_push(g, base);
    h = slr_act(g, h, row->act);
    slr_graph_pop(g);
    return slr_nn_linear(nn, slr_nn_path(p, "%s.mlp.fc2", base), h, x);
}

/* Layers from..to - 1, each a piece that may be computed again. */
static slr_val layers(slr_nn *nn, const slr_family *family, const slr_family_text *row,
                      const slr_clip_shape *s, int64_t from, int64_t to, slr_val x)
{
    for (int64_t i = from; i < to; i++) {
        slr_graph_segment(nn->g);
        x = layer(nn, family, row, s, i, x);
    }
    return x;
}

/* The row of states that `end` marks, normalised and projected: [B,pooled].  Small, so f32. */
static slr_val pool(slr_nn *nn, slr_val states, slr_val end)
{
    slr_graph *g = nn->g;
    uint32_t was = slr_graph_storage(g, SDLORA_F32);
    slr_val x = slr_bmm(g, end, states, false, false, 1.0); /* [B,1,77] [B,77,W] -> [B,1,W] */
    x = slr_nn_layer_norm(nn, "text_model.final_layer_norm", x, EPS_CLIP);
    x = slr_nn_last_linear(nn, "text_projection", x);
    const int64_t dim[2] = {slr_dim(g, x, 0), slr_dim(g, x, -1)};
    slr_graph_storage(g, was);
    return slr_reshape(g, x, 2, dim);
}

static const slr_family_text *row_of(const slr_family *family, int part)
{
    const slr_family_text *row = slr_family_text_of(family, part);
    return row ? row : &family->text[0];
}

/* How many layers lead to the states; an error: out of range. */
static int64_t layers_used(const slr_nn *nn, const slr_family *family, const slr_family_text *row,
                           const slr_clip_shape *s, int clip_skip)
{
    const char *label = slr_weights_label(nn->w);
    long long n = s->layers, behind = row->behind;
    bool below = clip_skip < 0 && !row->pooled;
    if (below)
        behind = -(int64_t)clip_skip - 1;
    else if (row->clip_skip)
        behind = (int64_t)clip_skip - 1;
    if (behind >= 0 && behind < n)
        return n - behind;
    if (!below && !row->clip_skip)
        return slr_fail(
            SDLORA_EINVAL, __func__,
            "%s has too few layers (%lld): %s takes the states of the layer %lld before the last",
            label, n, family->title, behind);
    return slr_fail(SDLORA_EINVAL, __func__,
                    "clip_skip is %d; %s has %lld layers, so %s1 to %s%lld will do", clip_skip,
                    label, n, below ? "-" : "", below ? "-" : "", n);
}

slr_val slr_clip_build_pooled(slr_nn *nn, const slr_family *family, slr_val ids, int clip_skip,
                              slr_val end, slr_val *pooled)
{
    slr_clip_shape s;
    const slr_family_text *row = row_of(family, nn->part);
    int64_t used = 0;
    if (pooled)
        *pooled = SLR_NONE;
    if (slr_graph_status(nn->g) < 0)
        return SLR_NONE;
    int rc = slr_clip_read(&s, family, nn->w);
    if (rc == SDLORA_OK) {
        used = layers_used(nn, family, row, &s, clip_skip);
        rc = used < 0 ? (int)used : SDLORA_OK;
    }
    if (rc == SDLORA_OK &&
        (slr_shape_of(nn->g, ids).rank != 2 || slr_dim(nn->g, ids, 1) > s.positions))
        rc = slr_fail(SDLORA_EINVAL, __func__, "token ids must be [n,%lld] or shorter rows",
                      (long long)s.positions);
    if (rc < 0)
        return slr_graph_error(nn->g, rc);
    slr_val x = layers(nn, family, row, &s, 0, used, embed(nn, &s, ids));
    if (pooled && row->pooled)
        *pooled = pool(nn, layers(nn, family, row, &s, used, s.layers, x), end);
    return row->final_norm ? slr_nn_layer_norm(nn, "text_model.final_layer_norm", x, EPS_CLIP) : x;
}

slr_val slr_clip_build(slr_nn *nn, const slr_family *family, slr_val ids, int clip_skip)
{
    return slr_clip_build_pooled(nn, family, ids, clip_skip, SLR_NONE, NULL);
}

static void build_smallest(slr_nn *nn, const void *arg)
{
    const slr_family *family = arg;
    const int64_t dim[2] = {1, 1};
    slr_clip_shape s;
    int rc = slr_clip_read(&s, family, nn->w);
    if (rc < 0) {
        slr_graph_error(nn->g, rc);
        return;
    }
    slr_val x = embed(nn, &s, slr_input(nn->g, "ids", SDLORA_I32, 2, dim));
    x = layers(nn, family, &family->text[0], &s, 0, s.layers, x);
    slr_nn_layer_norm(nn, "text_model.final_layer_norm", x, EPS_CLIP);
}

int slr_clip_layers(const slr_family *family, const slr_weights *te, slr_layer_fn fn, void *user)
{
    return slr_nn_layers(te, SLR_PART_TE, build_smallest, family, fn, user);
}

/* ---- captions ---- */

int slr_clip_rows(const slr_family *family, const int32_t *token, size_t n, int n_chunks,
                  int32_t *ids)
{
    slr_require(n_chunks >= 1 && n_chunks <= MAX_CHUNKS);
    size_t room = (size_t)CHUNK * (size_t)n_chunks;
    if (n > room)
        n = room;
    /* the long row: BOS, up to 75 n tokens, EOS, padding */
    int32_t last = n == room ? family->eos : family->pad;
    for (int c = 0; c < n_chunks; c++) {
        int32_t *row = ids + (size_t)c * ROW;
        row[0] = family->bos;
        for (size_t i = 0; i <= CHUNK; i++) {
            size_t at = (size_t)c * CHUNK + i;
            row[1 + i] = at < n ? token[at] : at == n ? family->eos : family->pad;
        }
        if (n_chunks == 1)
            break;
        row[ROW - 1] = last;
        if (family->pad == family->eos)
            continue;
        /* kohya's repair where padding differs from EOS: each chunk ends, and an empty one begins
         * with EOS */
        if (row[ROW - 2] != family->eos && row[ROW - 2] != family->pad)
            row[ROW - 1] = family->eos;
        if (row[1] == family->pad)
            row[1] = family->eos;
    }
    return SDLORA_OK;
}

int slr_clip_caption_ids(slr_mem *m, const slr_bpe *bpe, const slr_family *family,
                         const char *caption, int n_chunks, int32_t *ids)
{
    int32_t *token;
    size_t n;
    SLR_TRY(slr_bpe_encode(bpe, m, caption, strlen(caption), &token, &n));
    int rc = slr_clip_rows(family, token, n, n_chunks, ids);
    slr_free(m, token);
    return rc;
}

slr_val slr_clip_join(slr_graph *g, slr_val states, int n_chunks)
{
    slr_val piece[MAX_CHUNKS + 2];
    int n = 0;
    slr_shape s = slr_shape_of(g, states);
    if (n_chunks == 1 || slr_graph_status(g) < 0)
        return states;
    if (n_chunks < 1 || n_chunks > MAX_CHUNKS || s.rank != 3 || s.dim[0] % n_chunks != 0 ||
        s.dim[1] != ROW) {
        slr_fail(SDLORA_EINVAL, __func__, "states of %d chunks cannot be joined", n_chunks);
        return slr_graph_error(g, SDLORA_EINVAL);
    }
    /* [B*n,77,W] -> [B,n*77,W], then the columns that are kept */
    const int64_t rows[3] = {s.dim[0] / n_chunks, s.dim[1] * n_chunks, s.dim[2]};
    slr_val x = slr_reshape(g, states, 3, rows);
    piece[n++] = slr_slice(g, x, 1, 0, 1);
    for (int c = 0; c < n_chunks; c++)
        piece[n++] = slr_slice(g, x, 1, (int64_t)c * ROW + 1, CHUNK);
    piece[n++] = slr_slice(g, x, 1, rows[1] - 1, 1);
    return slr_concat(g, piece, n, 1);
}
