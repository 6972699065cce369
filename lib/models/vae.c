/* SPDX-License-Identifier: MIT */
/* The autoencoder's two halves as graphs.  Knows their blocks and the down-sampler's uneven
 * padding; refuses to know images, scale factors and plans (vae_runner.c). */
#include <math.h>

#include "base/status.h"
#include "models/unet_block.h"
#include "models/vae.h"

#define EPS_VAE    1e-6
#define MAX_LEVELS 8

static const slr_conv SAME = {
    .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
static const slr_conv HALVE = {
    .stride = 2, .pad_bottom = 1, .pad_right = 1}; /* right and bottom only */

/* Single-head attention over all pixels, with the residual. */
static slr_val attention(slr_nn *nn, const char *path, slr_val x)
{
    char p[192];
    slr_graph *g = nn->g;
    slr_shape s = slr_shape_of(g, x);
    const int64_t tokens[3] = {s.dim[0], s.dim[1] * s.dim[2], s.dim[3]};
    slr_val h = slr_nn_group_norm(nn, slr_nn_path(p, "%s.group_norm", path), x, SLR_NORM_GROUPS,
                                  SDLORA_ACT_NONE, EPS_VAE);
    h = slr_reshape(g, h, 3, tokens); /* [N,h,w,C] -> [N,h*w,C] */
    slr_val q = slr_nn_linear(nn, slr_nn_path(p, "%s.to_q", path), h, SLR_NONE);
    slr_val k = slr_nn_linear(nn, slr_nn_path(p, "%s.to_k", path), h, SLR_NONE);
    slr_val v = slr_nn_linear(nn, slr_nn_path(p, "%s.to_v", path), h, SLR_NONE);
    slr_graph_push(g, path);
    slr_val o =
        slr_attention(g, q, k, v, 1, false, s.dim[3] > 0 ? 1.0 / sqrt((double)s.dim[3]) : 1.0);
    slr_graph_pop(g);
    o = slr_nn_linear(nn, slr_nn_path(p, "%s.to_out.0", path), o, slr_reshape(g, x, 3, tokens));
    return slr_reshape(g, o, 4, s.dim);
}

static slr_val middle(slr_nn *nn, const char *half, slr_val x)
{
    char p[192];
    x = slr_block_resnet(nn, slr_nn_path(p, "%s.mid_block.resnets.0", half), x, SLR_NONE, EPS_VAE);
    if (slr_nn_has(nn->w, slr_nn_path(p, "%s.mid_block.attentions.0.group_norm", half)))
        x = attention(nn, slr_nn_path(p, "%s.mid_block.attentions.0", half), x);
    return slr_block_resnet(nn, slr_nn_path(p, "%s.mid_block.resnets.1", half), x, SLR_NONE,
                            EPS_VAE);
}

static slr_val resnets(slr_nn *nn, const char *block, slr_val x)
{
    char p[192], q[192];
    for (int j = 0; slr_nn_has(nn->w, slr_nn_path(q, "%s.resnets.%d.conv1", block, j)); j++)
        x = slr_block_resnet(nn, slr_nn_path(p, "%s.resnets.%d", block, j), x, SLR_NONE, EPS_VAE);
    return x;
}

static bool has_level(const slr_weights *w, const char *fmt_block, int i)
{
    char p[192];
    return slr_nn_has(w, slr_nn_path(p, "%s.%d.resnets.0.conv1", fmt_block, i));
}

static slr_val head(slr_nn *nn, const char *half, slr_val x)
{
    char p[192];
    x = slr_nn_group_norm(nn, slr_nn_path(p, "%s.conv_norm_out", half), x, SLR_NORM_GROUPS,
                          SDLORA_ACT_SILU, EPS_VAE);
    return slr_nn_last_conv(nn, slr_nn_path(p, "%s.conv_out", half), x, SAME);
}

slr_val slr_vae_encode_build(slr_nn *nn, slr_val image)
{
    char block[192], p[192];
    slr_val h = slr_nn_conv(nn, "encoder.conv_in", image, SLR_NONE, SAME);
    for (int i = 0; has_level(nn->w, "encoder.down_blocks", i); i++) {
        h = resnets(nn, slr_nn_path(block, "encoder.down_blocks.%d", i), h);
        if (slr_nn_has(nn->w, slr_nn_path(p, "%s.downsamplers.0.conv", block)))
            h = slr_nn_conv(nn, p, h, SLR_NONE, HALVE);
    }
    h = head(nn, "encoder", middle(nn, "encoder", h));
    return slr_nn_has(nn->w, "quant_conv") ? slr_nn_last_linear(nn, "quant_conv", h) : h;
}

slr_val slr_vae_decode_build(slr_nn *nn, slr_val latents)
{
    char block[192], p[192];
    slr_val h = latents;
    if (slr_nn_has(nn->w, "post_quant_conv"))
        h = slr_nn_linear(nn, "post_quant_conv", h, SLR_NONE);
    h = middle(nn, "decoder", slr_nn_conv(nn, "decoder.conv_in", h, SLR_NONE, SAME));
    for (int i = 0; has_level(nn->w, "decoder.up_blocks", i); i++) {
        h = resnets(nn, slr_nn_path(block, "decoder.up_blocks.%d", i), h);
        if (slr_nn_has(nn->w, slr_nn_path(p, "%s.upsamplers.0.conv", block)))
            h = slr_nn_conv(nn, p, slr_upsample2(nn->g, h), SLR_NONE, SAME);
    }
    return head(nn, "decoder", h);
}

/* Levels whose "<blocks>.<i>.<sampler>" convolution exists. */
static int count_samplers(const slr_weights *w, const char *blocks, const char *sampler)
{
    char p[192];
    int n = 0;
    for (int i = 0; i < MAX_LEVELS; i++)
        n += slr_nn_has(w, slr_nn_path(p, "%s.%d.%s.0.conv", blocks, i, sampler));
    return n;
}

int slr_vae_factor(const slr_weights *vae, int *factor)
{
    int up = count_samplers(vae, "decoder.up_blocks", "upsamplers");
    int down = count_samplers(vae, "encoder.down_blocks", "downsamplers");
    bool halves[2] = {slr_nn_has(vae, "decoder.conv_in"), slr_nn_has(vae, "encoder.conv_in")};
    if (!halves[0] && !halves[1])
        return slr_fail(SDLORA_ENOTFOUND, __func__, "%s has no autoencoder",
                        slr_weights_label(vae));
    if (halves[0] && halves[1] && up != down)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: the autoencoder halves %d times and doubles %d times",
                        slr_weights_label(vae), down, up);
    *factor = halves[0] ? up : down;
    return SDLORA_OK;
}
