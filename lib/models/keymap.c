/* SPDX-License-Identifier: MIT */
/* Tables of names and the small engine that reads them in both directions.  The UNet's block
 * numbers are arithmetic over levels read off the model, never constants, so that models of any
 * depth map.  Refuses to know tensors' contents. */
#include "models/keymap.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"

enum { LDM = 0, OURS = 1 };

/* '#' stands for a number; '^' for a level that one spelling counts backwards. */
typedef struct row {
    const char *side[2];
} row;

typedef struct table {
    const row *rows;
    size_t n;
} table;

#define TABLE(rows)                                                                                \
    {                                                                                              \
        rows, sizeof(rows) / sizeof *(rows)                                                        \
    }

static const row UNET_TOP[] = {
    {{"input_blocks.0.0", "conv_in"}},
    {{"time_embed.0", "time_embedding.linear_1"}},
    {{"time_embed.2", "time_embedding.linear_2"}},
    {{"label_emb.0.0", "add_embedding.linear_1"}},
    {{"label_emb.0.2", "add_embedding.linear_2"}},
    {{"middle_block.0", "mid_block.resnets.0"}},
    {{"middle_block.1", "mid_block.attentions.0"}},
    {{"middle_block.2", "mid_block.resnets.1"}},
    {{"out.0", "conv_norm_out"}},
    {{"out.2", "conv_out"}},
};

/* inside ".resnets.#." */
static const row UNET_RES[] = {
    {{"in_layers.0", "norm1"}},          {{"in_layers.2", "conv1"}},
    {{"emb_layers.1", "time_emb_proj"}}, {{"out_layers.0", "norm2"}},
    {{"out_layers.3", "conv2"}},         {{"skip_connection", "conv_shortcut"}},
};

static const row VAE_TOP[] = {
    {{"encoder.down.#.block.#", "encoder.down_blocks.#.resnets.#"}},
    {{"encoder.down.#.downsample.conv", "encoder.down_blocks.#.downsamplers.0.conv"}},
    {{"decoder.up.^.block.#", "decoder.up_blocks.^.resnets.#"}},
    {{"decoder.up.^.upsample.conv", "decoder.up_blocks.^.upsamplers.0.conv"}},
    {{"encoder.mid.block_1", "encoder.mid_block.resnets.0"}},
    {{"encoder.mid.block_2", "encoder.mid_block.resnets.1"}},
    {{"encoder.mid.attn_1", "encoder.mid_block.attentions.0"}},
    {{"decoder.mid.block_1", "decoder.mid_block.resnets.0"}},
    {{"decoder.mid.block_2", "decoder.mid_block.resnets.1"}},
    {{"decoder.mid.attn_1", "decoder.mid_block.attentions.0"}},
    {{"encoder.norm_out", "encoder.conv_norm_out"}},
    {{"decoder.norm_out", "decoder.conv_norm_out"}},
    {{"encoder.conv_in", "encoder.conv_in"}},
    {{"encoder.conv_out", "encoder.conv_out"}},
    {{"decoder.conv_in", "decoder.conv_in"}},
    {{"decoder.conv_out", "decoder.conv_out"}},
    {{"quant_conv", "quant_conv"}},
    {{"post_quant_conv", "post_quant_conv"}},
};

static const row VAE_RES[] = {
    {{"norm1", "norm1"}},
    {{"conv1", "conv1"}},
    {{"norm2", "norm2"}},
    {{"conv2", "conv2"}},
    {{"nin_shortcut", "conv_shortcut"}},
};

/* inside ".attentions.#." */
static const row VAE_ATTN[] = {
    {{"norm", "group_norm"}},   {{"q", "to_q"}}, {{"k", "to_k"}}, {{"v", "to_v"}},
    {{"proj_out", "to_out.0"}},
};

static const row VAE_OLD[] = {
    {{"query", "to_q"}},
    {{"key", "to_k"}},
    {{"value", "to_v"}},
    {{"proj_attn", "to_out.0"}},
};

static const row CLIP_OPEN[] = {
    {{"token_embedding", "text_model.embeddings.token_embedding"}},
    {{"positional_embedding", "text_model.embeddings.position_embedding.weight"}},
    {{"transformer.resblocks.#.ln_1", "text_model.encoder.layers.#.layer_norm1"}},
    {{"transformer.resblocks.#.ln_2", "text_model.encoder.layers.#.layer_norm2"}},
    {{"transformer.resblocks.#.attn.out_proj", "text_model.encoder.layers.#.self_attn.out_proj"}},
    {{"transformer.resblocks.#.mlp.c_fc", "text_model.encoder.layers.#.mlp.fc1"}},
    {{"transformer.resblocks.#.mlp.c_proj", "text_model.encoder.layers.#.mlp.fc2"}},
    {{"ln_final", "text_model.final_layer_norm"}},
    {{"text_projection.weight", "text_projection.weight"}},
};

static const row CLIP_NAI[] = {
    {{"embeddings", "text_model.embeddings"}},
    {{"encoder", "text_model.encoder"}},
    {{"final_layer_norm", "text_model.final_layer_norm"}},
};

static const table unet_top = TABLE(UNET_TOP), unet_res = TABLE(UNET_RES), vae_top = TABLE(VAE_TOP),
                   vae_res = TABLE(VAE_RES), vae_attn = TABLE(VAE_ATTN), vae_old = TABLE(VAE_OLD),
                   clip_open = TABLE(CLIP_OPEN), clip_nai = TABLE(CLIP_NAI);

/* ---- the engine ---- */

/* A decimal number of at most 4 digits at *p; moves past it. */
static bool number(const char **p, int *v)
{
    const char *s = *p;
    int n = 0;
    for (*v = 0; s[n] >= '0' && s[n] <= '9'; n++) {
        if (n == 4)
            return false;
        *v = *v * 10 + (s[n] - '0');
    }
    *p = s + n;
    return n > 0;
}

/* Length of the piece of name that pattern covers, up to its end or a '.', with its numbers; 0: no
 * match. */
static size_t match(const char *pattern, const char *name, int num[2])
{
    const char *s = name;
    int n = 0;
    for (; *pattern; pattern++) {
        if (*pattern == '#' || *pattern == '^') {
            if (!number(&s, &num[n++]))
                return 0;
        } else if (*s++ != *pattern) {
            return 0;
        }
    }
    return *s == '\0' || *s == '.' ? (size_t)(s - name) : 0;
}

/* Writes pattern with its numbers filled in; 0: does not fit. */
static size_t fill(const char *pattern, const int num[2], int levels, char out[SLR_NAME])
{
    size_t len = 0;
    for (int n = 0; *pattern; pattern++) {
        int v = *pattern == '#' || *pattern == '^' ? num[n++] : -1;
        if (*pattern == '^')
            v = levels - 1 - v;
        if (v < 0 && *pattern == '^')
            return 0;
        int used = v >= 0 ? snprintf(out + len, SLR_NAME - len, "%d", v)
                          : snprintf(out + len, SLR_NAME - len, "%c", *pattern);
        len += (size_t)used;
        if (len >= SLR_NAME)
            return 0;
    }
    return len;
}

/* Rewrites the head of name by the first row that fits.  *rest: what follows it in name. */
static bool rewrite(table t, int from, const char *name, int levels, char out[SLR_NAME],
                    const char **rest)
{
    for (size_t i = 0; i < t.n; i++) {
        int num[2] = {0, 0};
        size_t n = match(t.rows[i].side[from], name, num);
        if (n == 0)
            continue;
        *rest = name + n;
        return fill(t.rows[i].side[!from], num, levels, out) > 0;
    }
    return false;
}

static bool append(char out[SLR_NAME], const char *text)
{
    size_t len = strlen(out), n = strlen(text);
    if (len + n >= SLR_NAME)
        return false;
    memcpy(out + len, text, n + 1);
    return true;
}

/* Appends rest (".leaf.weight") with its leaf rewritten by the table; an empty rest is a module of
 * its own. */
static bool append_leaf(table t, int from, char out[SLR_NAME], const char *rest)
{
    char leaf[SLR_NAME];
    const char *tail;
    if (*rest == '\0')
        return true;
    return rewrite(t, from, rest + 1, 0, leaf, &tail) && append(out, ".") && append(out, leaf) &&
           append(out, tail);
}

/* ---- UNet ---- */

int slr_unet_map_read(slr_unet_map *out, const slr_weights *w)
{
    char name[SLR_NAME];
    slr_unet_map m = {0};
    for (int i = 0; i < SLR_MAP_LEVELS; i++) {
        for (int up = 0; up < 2; up++) {
            const char *block = up ? "up_blocks" : "down_blocks";
            int n = 0;
            do
                snprintf(name, sizeof name, "%s.%d.resnets.%d.conv1.weight", block, i, n++);
            while (slr_weights_find(w, name));
            (up ? m.up : m.down)[i] = n - 1;
            if (n > 1 && up)
                m.n_up = i + 1;
            else if (n > 1)
                m.n_down = i + 1;
        }
        snprintf(name, sizeof name, "up_blocks.%d.attentions.%d.norm.weight", i, m.up[i] - 1);
        m.up_attn[i] = slr_weights_find(w, name) != NULL;
    }
    if (m.n_down == 0)
        return slr_fail(SDLORA_ENOTFOUND, __func__, "%s has no down_blocks", slr_weights_label(w));
    *out = m;
    return SDLORA_OK;
}

/* "input_blocks.7.1.rest" with head "input_blocks." -> 7, 1, "rest" */
static bool split(const char *name, const char *head, int *block, int *slot, const char **rest)
{
    const char *s = name + strlen(head);
    if (!slr_starts(name, head) || !number(&s, block) || *s++ != '.' || !number(&s, slot))
        return false;
    *rest = s;
    return *s == '\0' || *s == '.';
}

static bool is_module(const char *rest, const char *module)
{
    size_t n = strlen(module);
    return strncmp(rest, module, n) == 0 && (rest[n] == '\0' || rest[n] == '.');
}

void slr_unet_scan_name(slr_unet_scan *s, const char *ldm)
{
    int block, slot;
    const char *rest;
    if (split(ldm, "input_blocks.", &block, &slot, &rest) && block < SLR_MAP_BLOCKS) {
        s->n_in = block + 1 > s->n_in ? block + 1 : s->n_in;
        s->in_down[block] |= slot == 0 && is_module(rest, ".op");
    } else if (split(ldm, "output_blocks.", &block, &slot, &rest) && block < SLR_MAP_BLOCKS) {
        s->n_out = block + 1 > s->n_out ? block + 1 : s->n_out;
        s->out_up[block] |= slot > 0 && is_module(rest, ".conv");
        s->out_attn[block] |= slot == 1 && is_module(rest, ".norm");
    }
}

int slr_unet_scan_finish(const slr_unet_scan *s, slr_unet_map *out, const char *label)
{
    slr_unet_map m = {0};
    int run = 0;
    for (int i = 1; i < s->n_in; i++) {
        bool last = i + 1 == s->n_in;
        run += !s->in_down[i];
        if (!s->in_down[i] && !last)
            continue;
        if (m.n_down == SLR_MAP_LEVELS)
            goto too_many;
        m.down[m.n_down++] = run;
        run = 0;
    }
    for (int i = 0; i < s->n_out; i++) {
        run++;
        if (!s->out_up[i] && i + 1 < s->n_out)
            continue;
        if (m.n_up == SLR_MAP_LEVELS)
            goto too_many;
        m.up_attn[m.n_up] = s->out_attn[i];
        m.up[m.n_up++] = run;
        run = 0;
    }
    if (m.n_up == 0) /* a file of the first half only */
        for (m.n_up = m.n_down, run = 0; run < m.n_up; run++)
            m.up[run] = m.down[m.n_down - 1 - run] + 1;
    *out = m;
    return SDLORA_OK;
too_many:
    return slr_fail(SDLORA_ENOTSUP, __func__, "%s: the UNet has more than %d levels", label,
                    SLR_MAP_LEVELS);
}

/* LDM input block -> level and index; true when the block is the level's down-sampler. */
static bool locate_in(const slr_unet_map *m, int block, int *level, int *j)
{
    int at = 1;
    for (*level = 0; *level < m->n_down; at += m->down[(*level)++] + 1)
        if (block < at + m->down[*level] + 1) {
            *j = block - at;
            return *j == m->down[*level];
        }
    *j = -1;
    return false;
}

static void locate_out(const slr_unet_map *m, int block, int *level, int *j)
{
    int at = 0;
    for (*level = 0; *level < m->n_up; at += m->up[(*level)++])
        if (block < at + m->up[*level]) {
            *j = block - at;
            return;
        }
    *j = -1;
}

static bool block_from_ldm(const slr_unet_map *m, const char *ldm, char out[SLR_NAME],
                           const char **rest)
{
    int block, slot, level, j;
    if (split(ldm, "input_blocks.", &block, &slot, rest)) {
        bool sampler = locate_in(m, block, &level, &j);
        if (j < 0 || slot > 1 || sampler != is_module(*rest, ".op") || (sampler && slot != 0))
            return false;
        *rest += sampler ? 3 : 0;
        snprintf(out, SLR_NAME,
                 sampler ? "down_blocks.%d.downsamplers.0.conv" : "down_blocks.%d.%s.%d", level,
                 slot ? "attentions" : "resnets", j);
        return true;
    }
    if (!split(ldm, "output_blocks.", &block, &slot, rest))
        return false;
    locate_out(m, block, &level, &j);
    bool sampler = slot > 0 && is_module(*rest, ".conv");
    if (j < 0 || (slot > 1 && !sampler))
        return false;
    *rest += sampler ? 5 : 0;
    snprintf(out, SLR_NAME, sampler ? "up_blocks.%d.upsamplers.0.conv" : "up_blocks.%d.%s.%d",
             level, slot ? "attentions" : "resnets", j);
    return true;
}

bool slr_unet_from_ldm(const slr_unet_map *map, const char *ldm, char out[SLR_NAME])
{
    const char *rest;
    if (!rewrite(unet_top, LDM, ldm, 0, out, &rest) && !block_from_ldm(map, ldm, out, &rest))
        return false;
    return strstr(out, ".resnets.") ? append_leaf(unet_res, LDM, out, rest) : append(out, rest);
}

static bool block_to_ldm(const slr_unet_map *m, const char *name, char out[SLR_NAME],
                         const char **rest)
{
    static const row KINDS[] = {
        {{"down_blocks.#.resnets.#", "0"}},
        {{"down_blocks.#.attentions.#", "1"}},
        {{"down_blocks.#.downsamplers.#.conv", "0.op"}},
        {{"up_blocks.#.resnets.#", "0"}},
        {{"up_blocks.#.attentions.#", "1"}},
        {{"up_blocks.#.upsamplers.#.conv", NULL}},
    };
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        int num[2] = {0, 0};
        size_t n = match(KINDS[i].side[0], name, num);
        bool up = i >= 3, sampler = i % 3 == 2;
        if (n == 0 || num[0] >= (up ? m->n_up : m->n_down))
            continue;
        int per = (up ? m->up : m->down)[num[0]], at = up ? 0 : 1;
        for (int level = 0; level < num[0]; level++)
            at += up ? m->up[level] : m->down[level] + 1;
        if (sampler ? num[1] != 0 : num[1] >= per)
            return false;
        at += sampler ? (up ? per - 1 : per) : num[1];
        const char *slot = KINDS[i].side[1];
        if (!slot) /* after the attention if there is one */
            slot = m->up_attn[num[0]] ? "2.conv" : "1.conv";
        snprintf(out, SLR_NAME, "%s.%d.%s", up ? "output_blocks" : "input_blocks", at, slot);
        *rest = name + n;
        return true;
    }
    return false;
}

bool slr_unet_to_ldm(const slr_unet_map *map, const char *name, char out[SLR_NAME])
{
    const char *rest;
    if (!rewrite(unet_top, OURS, name, 0, out, &rest) && !block_to_ldm(map, name, out, &rest))
        return false;
    return strstr(name, ".resnets.") ? append_leaf(unet_res, OURS, out, rest) : append(out, rest);
}

/* ---- autoencoder ---- */

static bool vae_rewrite(int from, int levels, const char *name, char out[SLR_NAME])
{
    const char *rest, *ours = from == LDM ? out : name;
    if (!rewrite(vae_top, from, name, levels, out, &rest))
        return false;
    if (strstr(ours, ".resnets."))
        return append_leaf(vae_res, from, out, rest);
    return strstr(ours, ".attentions.") ? append_leaf(vae_attn, from, out, rest)
                                        : append(out, rest);
}

void slr_vae_scan_name(int *levels, const char *ldm)
{
    static const char *const HEADS[] = {"encoder.down.#", "decoder.up.#"};
    for (size_t i = 0; i < sizeof HEADS / sizeof *HEADS; i++) {
        int num[2] = {0, 0};
        if (match(HEADS[i], ldm, num) && num[0] >= *levels && num[0] < SLR_MAP_LEVELS)
            *levels = num[0] + 1;
    }
}

bool slr_vae_from_ldm(int levels, const char *ldm, char out[SLR_NAME])
{
    return vae_rewrite(LDM, levels, ldm, out);
}

bool slr_vae_to_ldm(int levels, const char *name, char out[SLR_NAME])
{
    return vae_rewrite(OURS, levels, name, out);
}

bool slr_vae_from_old(const char *old, char out[SLR_NAME])
{
    const char *at = strstr(old, ".attentions.0.");
    size_t n = at ? (size_t)(at - old) + strlen(".attentions.0") : 0;
    if (!at || n >= SLR_NAME)
        return false;
    memcpy(out, old, n);
    out[n] = '\0';
    return append_leaf(vae_old, LDM, out, old + n);
}

/* ---- text encoder ---- */

static bool plain_rewrite(table t, int from, const char *name, char out[SLR_NAME])
{
    const char *rest;
    return rewrite(t, from, name, 0, out, &rest) && append(out, rest);
}

bool slr_clip_from_open(const char *open, char out[SLR_NAME])
{
    return plain_rewrite(clip_open, LDM, open, out);
}

bool slr_clip_to_open(const char *name, char out[SLR_NAME])
{
    return plain_rewrite(clip_open, OURS, name, out);
}

bool slr_clip_from_nai(const char *nai, char out[SLR_NAME])
{
    return plain_rewrite(clip_nai, LDM, nai, out);
}
