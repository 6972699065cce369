/* SPDX-License-Identifier: MIT */
/* The denoising UNet.  Knows how blocks are chained: time embedding, down, middle, up with skips.
 * Every count and width comes from the weights, so that pruned and distilled variants are the same
 * code.  Refuses to know file names, noise schedules and guidance. */
#include "models/unet.h"

#include "base/status.h"
#include "models/unet_block.h"

#define EPS_UNET 1e-5

static const slr_conv SAME = {
    .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
static const slr_conv HALVE = {
    .stride = 2, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};

/* ---- reading the shape ---- */

static int64_t width_of(const slr_weights *w, const char *path, int axis)
{
    char name[192];
    const slr_tensor *t = slr_weights_find(w, slr_nn_path(name, "%s.weight", path));
    return t && axis < t->rank ? t->dim[axis] : 0;
}

static int count(const slr_weights *w, const char *fmt_head, int level, const char *fmt_tail)
{
    char path[192];
    int n = 0;
    while (slr_nn_has(w, slr_nn_path(path, "%s.%d.%s.%d.conv1", fmt_head, level, fmt_tail, n)))
        n++;
    return n;
}

static int64_t context_of(const slr_weights *w)
{
    char path[192];
    for (int i = 0; i < SLR_UNET_LEVELS; i++) {
        slr_nn_path(path, "down_blocks.%d.attentions.0.transformer_blocks.0.attn2.to_k", i);
        if (width_of(w, path, 1))
            return width_of(w, path, 1);
    }
    return width_of(w, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k", 1);
}

int slr_unet_read(slr_unet_shape *out, const slr_family *family, const slr_weights *unet)
{
    char path[192];
    slr_unet_shape s = {0};
    const slr_tensor *t;
    for (int i = 0;; i++) {
        int n = count(unet, "down_blocks", i, "resnets");
        if (n == 0)
            break;
        if (i == SLR_UNET_LEVELS)
            return slr_fail(SDLORA_ENOTSUP, __func__, "%s: the UNet has more than %d levels",
                            slr_weights_label(unet), SLR_UNET_LEVELS);
        s.n_levels = i + 1;
        s.resnets[i] = n;
        s.channels[i] = width_of(unet, slr_nn_path(path, "down_blocks.%d.resnets.0.conv1", i), 0);
        s.depth[i] = slr_block_depth(unet, slr_nn_path(path, "down_blocks.%d.attentions.0", i));
        s.heads[i] = slr_block_heads(family, s.channels[i]);
    }
    SLR_TRY(slr_weights_get(unet, "conv_in.weight", &t));
    s.in_channels = t->rank == 4 ? t->dim[1] : 0;
    SLR_TRY(slr_weights_get(unet, "conv_out.weight", &t));
    s.out_channels = t->rank == 4 ? t->dim[0] : 0;
    SLR_TRY(slr_weights_get(unet, "time_embedding.linear_2.weight", &t));
    s.time_dim = t->dim[0];
    s.mid_depth = slr_block_depth(unet, "mid_block.attentions.0");
    s.context = context_of(unet);
    s.vector = width_of(unet, "add_embedding.linear_1", 1);
    if (s.n_levels == 0 || s.in_channels < 1 || s.out_channels < 1)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: this UNet has no blocks",
                        slr_weights_label(unet));
    *out = s;
    return SDLORA_OK;
}

/* ---- building ---- */

#define MAX_SKIPS 64

typedef struct unet {
    slr_nn *nn;
    const slr_family *family;
    slr_unet_shape shape;
    slr_val emb, context; /* emb: after SiLU, which every residual block applies */
    slr_val skip[MAX_SKIPS];
    int n_skip;
} unet;

static slr_val fail(unet *u, int code)
{
    return slr_graph_error(u->nn->g, code);
}

static void keep(unet *u, slr_val h)
{
    if (u->n_skip == MAX_SKIPS) {
        slr_fail(SDLORA_ENOTSUP, __func__, "%s: the UNet has more than %d skips",
                 slr_weights_label(u->nn->w), MAX_SKIPS);
        fail(u, SDLORA_ENOTSUP);
        return;
    }
    u->skip[u->n_skip++] = h;
}

static slr_val mlp(unet *u, const char *path, slr_val x)
{
    char p[192];
    slr_graph *g = u->nn->g;
    slr_val h = slr_nn_linear(u->nn, slr_nn_path(p, "%s.linear_1", path), x, SLR_NONE);
    h = slr_act(g, h, SDLORA_ACT_SILU);
    return slr_nn_linear(u->nn, slr_nn_path(p, "%s.linear_2", path), h, SLR_NONE);
}

static slr_val embed_time(unet *u, slr_val t, slr_val vector)
{
    slr_graph *g = u->nn->g;
    slr_val emb = mlp(u, "time_embedding", slr_time_embed(g, t, u->shape.channels[0]));
    if (u->shape.vector > 0) {
        if (vector == SLR_NONE) {
            slr_fail(SDLORA_ENOTSUP, __func__,
                     "%s: this UNet wants a size and pooled-text vector of %lld",
                     slr_weights_label(u->nn->w), (long long)u->shape.vector);
            return fail(u, SDLORA_ENOTSUP);
        }
        emb = slr_add(g, emb, mlp(u, "add_embedding", vector));
    }
    return slr_act(g, emb, SDLORA_ACT_SILU);
}

/* Residual block j of a block, then its transformer if there is one. */
static slr_val res_attn(unet *u, const char *block, int j, slr_val x)
{
    char p[192];
    x = slr_block_resnet(u->nn, slr_nn_path(p, "%s.resnets.%d", block, j), x, u->emb, EPS_UNET);
    if (slr_block_depth(u->nn->w, slr_nn_path(p, "%s.attentions.%d", block, j)) > 0)
        x = slr_block_transformer(u->nn, p, u->family, x, u->context);
    return x;
}

static slr_val down(unet *u, slr_val x)
{
    char block[192], p[192];
    keep(u, x);
    for (int i = 0; i < u->shape.n_levels; i++) {
        slr_nn_path(block, "down_blocks.%d", i);
        for (int j = 0; j < u->shape.resnets[i]; j++) {
            slr_graph_segment(u->nn->g);
            keep(u, x = res_attn(u, block, j, x));
        }
        if (slr_nn_has(u->nn->w, slr_nn_path(p, "%s.downsamplers.0.conv", block)))
            keep(u, x = slr_nn_conv(u->nn, p, x, SLR_NONE, HALVE));
    }
    return x;
}

static slr_val middle(unet *u, slr_val x)
{
    slr_graph_segment(u->nn->g);
    if (!slr_nn_has(u->nn->w, "mid_block.resnets.0.conv1"))
        return x; /* of some distilled models */
    x = res_attn(u, "mid_block", 0, x);
    if (slr_nn_has(u->nn->w, "mid_block.resnets.1.conv1"))
        x = slr_block_resnet(u->nn, "mid_block.resnets.1", x, u->emb, EPS_UNET);
    return x;
}

/* A side that was odd is one longer after halving and doubling: what is over goes, as with A1111,
 * so that any size can be drawn. */
static slr_val fit(slr_graph *g, slr_val x, slr_val skip)
{
    for (int axis = 1; axis <= 2; axis++)
        if (slr_graph_status(g) >= 0 && slr_dim(g, x, axis) != slr_dim(g, skip, axis))
            x = slr_slice(g, x, axis, 0, slr_dim(g, skip, axis));
    return x;
}

static slr_val up(unet *u, slr_val x)
{
    char block[192], p[192];
    slr_graph *g = u->nn->g;
    for (int i = 0; i < u->shape.n_levels; i++) {
        slr_nn_path(block, "up_blocks.%d", i);
        int n = count(u->nn->w, "up_blocks", i, "resnets");
        for (int j = 0; j < n; j++) {
            if (u->n_skip == 0) {
                slr_fail(SDLORA_EFORMAT, __func__, "%s: %s.resnets.%d has no skip to take",
                         slr_weights_label(u->nn->w), block, j);
                return fail(u, SDLORA_EFORMAT);
            }
            slr_graph_segment(g);
            slr_val pair[2] = {fit(g, x, u->skip[u->n_skip - 1]), u->skip[u->n_skip - 1]};
            u->n_skip--;
            x = res_attn(u, block, j, slr_concat(g, pair, 2, 3));
        }
        if (slr_nn_has(u->nn->w, slr_nn_path(p, "%s.upsamplers.0.conv", block)))
            x = slr_nn_conv(u->nn, p, slr_upsample2(g, x), SLR_NONE, SAME);
    }
    if (u->n_skip > 0 && slr_graph_status(g) == SDLORA_OK) {
        slr_fail(SDLORA_ENOTFOUND, __func__,
                 "%s: the UNet's up_blocks are missing or short (%d skips left)",
                 slr_weights_label(u->nn->w), u->n_skip);
        return fail(u, SDLORA_ENOTFOUND);
    }
    return x;
}

static int check_inputs(const unet *u, slr_val x, slr_val context)
{
    const slr_graph *g = u->nn->g;
    slr_shape s = slr_shape_of(g, x);
    char text[96];
    if (s.rank != 4 || s.dim[3] != u->shape.in_channels || !s.dim[1] || !s.dim[2])
        return slr_fail(SDLORA_EINVAL, __func__, "latents are %s; %s wants [n,h,w,%lld]",
                        slr_shape_text(s.dim, s.rank, text), slr_weights_label(u->nn->w),
                        (long long)u->shape.in_channels);
    if (u->shape.context > 0 && slr_dim(g, context, -1) != u->shape.context)
        return slr_fail(SDLORA_EINVAL, __func__, "text states are %lld wide; %s wants %lld",
                        (long long)slr_dim(g, context, -1), slr_weights_label(u->nn->w),
                        (long long)u->shape.context);
    return SDLORA_OK;
}

slr_val slr_unet_build_vector(slr_nn *nn, const slr_family *family, slr_val x, slr_val t,
                              slr_val context, slr_val vector)
{
    unet u = {.nn = nn, .family = family, .context = context};
    if (slr_graph_status(nn->g) < 0)
        return SLR_NONE;
    int rc = slr_unet_read(&u.shape, family, nn->w);
    if (rc == SDLORA_OK)
        rc = check_inputs(&u, x, context);
    if (rc < 0)
        return slr_graph_error(nn->g, rc);
    u.context = slr_nn_store(nn, context); /* every block reads it */
    slr_graph_segment(nn->g);
    uint32_t was = slr_graph_storage(nn->g, SDLORA_F32);
    u.emb = embed_time(&u, t, vector); /* one row that every block reads: f32 costs nothing */
    slr_graph_storage(nn->g, was);
    slr_val h = slr_nn_conv(nn, "conv_in", x, SLR_NONE, SAME);
    h = up(&u, middle(&u, down(&u, h)));
    h = slr_nn_group_norm(nn, "conv_norm_out", h, SLR_NORM_GROUPS, SDLORA_ACT_SILU, EPS_UNET);
    return slr_nn_last_conv(nn, "conv_out", h, SAME);
}

slr_val slr_unet_build(slr_nn *nn, const slr_family *family, slr_val x, slr_val t, slr_val context)
{
    return slr_unet_build_vector(nn, family, x, t, context, SLR_NONE);
}

/* ---- listing layers ---- */

typedef struct listing {
    const slr_family *family;
    slr_unet_shape shape;
} listing;

static void build_smallest(slr_nn *nn, const void *arg)
{
    const listing *l = arg;
    int64_t side = (int64_t)1 << (l->shape.n_levels - 1);
    const int64_t xd[4] = {1, side, side, l->shape.in_channels}, td[1] = {1};
    const int64_t cd[3] = {1, 1, l->shape.context > 0 ? l->shape.context : 1},
                  vd[2] = {1, l->shape.vector};
    slr_val x = slr_input(nn->g, "x", SDLORA_F32, 4, xd),
            t = slr_input(nn->g, "t", SDLORA_F32, 1, td);
    slr_val context = slr_input(nn->g, "context", SDLORA_F32, 3, cd), vector = SLR_NONE;
    if (l->shape.vector > 0)
        vector = slr_input(nn->g, "vector", SDLORA_F32, 2, vd);
    slr_unet_build_vector(nn, l->family, x, t, context, vector);
}

int slr_unet_layers(const slr_family *family, const slr_weights *w, slr_layer_fn fn, void *user)
{
    listing l = {.family = family};
    SLR_TRY(slr_unet_read(&l.shape, family, w));
    return slr_nn_layers(w, SLR_PART_UNET, build_smallest, &l, fn, user);
}
