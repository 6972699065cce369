/* SPDX-License-Identifier: MIT */
/* Residual and transformer blocks.  Knows their formulas and constants; refuses to know where in a
 * model they stand, which the module path says. */
#include "models/unet_block.h"

#include <math.h>

#include "base/status.h"

/* Three kinds of norm with three epsilons: mixing them up is a silent error of 1e-4. */
#define EPS_TRANSFORMER_GROUP 1e-6
#define EPS_LAYER             1e-5

slr_val slr_block_resnet(slr_nn *nn, const char *path, slr_val x, slr_val emb, double eps)
{
    static const slr_conv SAME = {
        .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
    char p[192];
    slr_graph *g = nn->g;
    slr_val h = slr_nn_group_norm(nn, slr_nn_path(p, "%s.norm1", path), x, SLR_NORM_GROUPS,
                                  SDLORA_ACT_SILU, eps);
    h = slr_nn_conv(nn, slr_nn_path(p, "%s.conv1", path), h, SLR_NONE, SAME);
    if (emb != SLR_NONE) {
        slr_val e = slr_nn_last_linear(nn, slr_nn_path(p, "%s.time_emb_proj", path), emb);
        /* [N,C] -> [N,1,1,C], repeated over all pixels */
        const int64_t dim[4] = {slr_dim(g, e, 0), 1, 1, slr_dim(g, e, 1)};
        slr_graph_push(g, path);
        h = slr_add(g, h, slr_reshape(g, e, 4, dim));
        slr_graph_pop(g);
    }
    h = slr_nn_group_norm(nn, slr_nn_path(p, "%s.norm2", path), h, SLR_NORM_GROUPS, SDLORA_ACT_SILU,
                          eps);
    slr_val skip = x;
    if (slr_nn_has(nn->w, slr_nn_path(p, "%s.conv_shortcut", path)))
        skip = slr_nn_linear(nn, p, x, SLR_NONE);
    return slr_nn_conv(nn, slr_nn_path(p, "%s.conv2", path), h, skip, SAME);
}

int slr_block_depth(const slr_weights *w, const char *path)
{
    char p[192];
    int depth = 0;
    while (slr_nn_has(w, slr_nn_path(p, "%s.transformer_blocks.%d.norm1", path, depth)))
        depth++;
    return depth;
}

int64_t slr_block_heads(const slr_family *family, int64_t channels)
{
    return family->heads > 0 ? family->heads : channels / family->head_dim;
}

/* --- token merging --- */

/* Tokens that stand for others in self-attention; ids SLR_NONE: none do. */
typedef struct merging {
    slr_val ids;  /* [N,T]: which row each token is part of */
    int64_t rows; /* of a sample */
} merging;

/* The first token of each 2x2 of x [N,h*w,C]: [N,(h/2)*(w/2),C]. */
static slr_val targets_of(slr_graph *g, slr_val x, int64_t h, int64_t w)
{
    int64_t n = slr_dim(g, x, 0), c = slr_dim(g, x, 2), rows = h / 2, columns = w / 2;
    const int64_t image[4] = {n, h, w, c}, pairs[4] = {n * rows, 2, columns, 2 * c},
                  tokens[3] = {n, rows * columns, c};
    x = slr_reshape(g, x, 4, image);
    x = slr_slice(g, slr_slice(g, x, 1, 0, 2 * rows), 2, 0, 2 * columns);
    x = slr_slice(g, slr_reshape(g, x, 4, pairs), 1, 0, 1);
    return slr_reshape(g, slr_slice(g, x, 3, 0, c), 3, tokens);
}

/* By the angles between tokens of a block's input x [N,h*w,C], in f32 whatever is stored. */
static merging match_tokens(slr_nn *nn, slr_val x, int64_t h, int64_t w)
{
    slr_graph *g = nn->g;
    int64_t n = slr_dim(g, x, 0), tokens = h * w, sources = tokens - (h / 2) * (w / 2);
    int64_t r = nn->adapter && nn->adapter->merge_from == tokens ? nn->adapter->merge : 0;
    const int64_t each[3] = {n, tokens, 1};
    r = r < sources ? r : sources;
    if (r < 1 || sources == tokens)
        return (merging){SLR_NONE, tokens};
    uint32_t was = slr_graph_storage(g, SDLORA_F32);
    x = slr_cast(g, x, SDLORA_F32);
    slr_val squares = slr_sum_to(g, slr_mul(g, x, x), 3, each);
    x = slr_mul(g, x, slr_pow(g, squares, -0.5));
    slr_val scores = slr_bmm(g, x, targets_of(g, x, h, w), false, true, 1.0);
    slr_val ids = slr_match(g, scores, h, w, r);
    slr_graph_storage(g, was);
    return (merging){ids, tokens - r};
}

/* x [N,T,C] -> [N,rows,C]: means of the tokens that became one. */
static slr_val merge(slr_nn *nn, const merging *m, slr_val x)
{
    slr_graph *g = nn->g;
    int64_t n = slr_dim(g, x, 0), c = slr_dim(g, x, 2), all = n * m->rows;
    const int64_t each[3] = {n, slr_dim(g, x, 1), 1}, merged[3] = {n, m->rows, c};
    if (m->ids == SLR_NONE)
        return x;
    uint32_t was = slr_graph_storage(g, SDLORA_F32);
    slr_val counts = slr_embed_bw(g, m->ids, slr_fill(g, 3, each, 1), all);
    x = slr_mul(g, slr_embed_bw(g, m->ids, x, all), slr_pow(g, counts, -1));
    slr_graph_storage(g, was);
    return slr_nn_store(nn, slr_reshape(g, x, 3, merged));
}

/* y [N,rows,C] -> [N,T,C]: each token has what its row has. */
static slr_val unmerge(slr_nn *nn, const merging *m, slr_val y)
{
    slr_graph *g = nn->g;
    const int64_t table[2] = {slr_dim(g, y, 0) * m->rows, slr_dim(g, y, 2)};
    return slr_embed(g, m->ids, slr_reshape(g, y, 2, table));
}

/* --- attention --- */

/* y = to_out(attention(to_q(x), to_k(c), to_v(c))) + residual; c = x for self-attention. */
static slr_val attend(slr_nn *nn, const char *path, const slr_family *family, slr_val x, slr_val c,
                      slr_val residual)
{
    char p[192];
    slr_graph *g = nn->g;
    slr_val q = slr_nn_linear(nn, slr_nn_path(p, "%s.to_q", path), x, SLR_NONE);
    slr_val to_k = slr_nn_context(nn, path, false, c), to_v = slr_nn_context(nn, path, true, c);
    slr_val k = slr_nn_linear(nn, slr_nn_path(p, "%s.to_k", path), to_k, SLR_NONE);
    slr_val v = slr_nn_linear(nn, slr_nn_path(p, "%s.to_v", path), to_v, SLR_NONE);
    int64_t width = slr_dim(g, q, -1), heads = slr_block_heads(family, width);
    if (slr_graph_status(g) == SDLORA_OK && (heads < 1 || width % heads != 0)) {
        slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is %lld wide, which %s cannot divide into heads",
                 slr_weights_label(nn->w), path, (long long)width, family->title);
        return slr_graph_error(g, SDLORA_EFORMAT);
    }
    slr_graph_push(g, path);
    slr_val o = slr_attention(g, q, k, v, (int)heads, false,
                              heads > 0 ? sqrt((double)heads / (double)width) : 1.0);
    slr_graph_pop(g);
    return slr_nn_linear(nn, slr_nn_path(p, "%s.to_out.0", path), o, residual);
}

/* x + attn1(norm1(x)), of all tokens or of those that stand for them. */
static slr_val attend_self(slr_nn *nn, const char *path, const slr_family *family, slr_val x,
                           int64_t h, int64_t w)
{
    char p[192];
    slr_graph *g = nn->g;
    slr_graph_push(g, path);
    merging m = match_tokens(nn, x, h, w);
    slr_graph_pop(g);
    slr_val y = slr_nn_layer_norm(nn, slr_nn_path(p, "%s.norm1", path), x, EPS_LAYER);
    slr_nn_path(p, "%s.attn1", path);
    if (m.ids == SLR_NONE)
        return attend(nn, p, family, y, y, x);
    y = merge(nn, &m, y);
    return slr_add(g, unmerge(nn, &m, attend(nn, p, family, y, y, SLR_NONE)), x);
}

/* x [N,h*w,C] */
static slr_val transformer_block(slr_nn *nn, const char *path, const slr_family *family, slr_val x,
                                 slr_val context, int64_t height, int64_t width)
{
    char p[192];
    slr_graph *g = nn->g;
    x = attend_self(nn, path, family, x, height, width);
    slr_val h = slr_nn_layer_norm(nn, slr_nn_path(p, "%s.norm2", path), x, EPS_LAYER);
    x = attend(nn, slr_nn_path(p, "%s.attn2", path), family, h, context, x);
    h = slr_nn_layer_norm(nn, slr_nn_path(p, "%s.norm3", path), x, EPS_LAYER);
    h = slr_nn_linear(nn, slr_nn_path(p, "%s.ff.net.0.proj", path), h, SLR_NONE);
    slr_graph_push(g, path);
    h = slr_geglu(g, h); /* [..., 8C] -> [..., 4C] */
    slr_graph_pop(g);
    return slr_nn_linear(nn, slr_nn_path(p, "%s.ff.net.2", path), h, x);
}

slr_val slr_block_transformer(slr_nn *nn, const char *path, const slr_family *family, slr_val x,
                              slr_val context)
{
    char p[192];
    slr_graph *g = nn->g;
    int depth = slr_block_depth(nn->w, path);
    slr_shape s = slr_shape_of(g, x);
    const int64_t tokens[3] = {s.dim[0], s.dim[1] * s.dim[2], s.dim[3]};
    slr_val h = slr_nn_group_norm(nn, slr_nn_path(p, "%s.norm", path), x, SLR_NORM_GROUPS,
                                  SDLORA_ACT_NONE, EPS_TRANSFORMER_GROUP);
    h = slr_reshape(g, h, 3, tokens); /* [N,h,w,C] -> [N,h*w,C] */
    slr_val residual = slr_reshape(g, x, 3, tokens);
    h = slr_nn_linear(nn, slr_nn_path(p, "%s.proj_in", path), h, SLR_NONE);
    for (int d = 0; d < depth; d++) {
        if (d > 0)
            slr_graph_segment(g);
        h = transformer_block(nn, slr_nn_path(p, "%s.transformer_blocks.%d", path, d), family, h,
                              context, s.dim[1], s.dim[2]);
    }
    h = slr_nn_linear(nn, slr_nn_path(p, "%s.proj_out", path), h, residual);
    return slr_reshape(g, h, 4, s.dim);
}
