/* SPDX-License-Identifier: MIT */
/* Builds the table of adaptable layers from the model builders' list and gives each its kohya name:
 * the part's prefix and the module path with '.' replaced by '_'.  Refuses to know what a network
 * does with a layer. */
#include "networks/target.h"

#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "models/clip.h"
#include "models/unet.h"

struct slr_targets {
    slr_mem *m;
    slr_arena *names;
    slr_target *item;
    size_t n, cap;
    slr_map *by_name;
};

/* File prefixes by part; the VAE is never adapted. */
static const char *const prefixes[SLR_PART_COUNT] = {
    [SLR_PART_UNET] = "lora_unet_",
    [SLR_PART_TE] = "lora_te_",
    [SLR_PART_TE2] = "lora_te2_",
};

static int kohya_name(slr_targets *t, int part, const char *path, const char **out)
{
    slr_buf b;
    slr_buf_init(&b, t->m);
    slr_buf_puts(&b, prefixes[part]);
    for (const char *p = path; *p; p++)
        slr_buf_putc(&b, *p == '.' ? '_' : *p);
    int rc = slr_buf_ok(&b);
    if (rc == SDLORA_OK) {
        *out = slr_arena_strdup(t->names, b.data);
        rc = *out ? SDLORA_OK : SDLORA_ENOMEM;
    }
    slr_buf_free(&b);
    return rc;
}

static int add_layer(void *user, const slr_layer *layer)
{
    slr_targets *t = user;
    SLR_TRY(slr_grow(t->m, &t->item, &t->cap, t->n + 1, sizeof *t->item));

    slr_target target = {.part = layer->part,
                         .conv = layer->conv,
                         .norm = layer->norm,
                         .out = layer->out,
                         .in = layer->in,
                         .kh = layer->kh,
                         .kw = layer->kw};
    SLR_TRY(kohya_name(t, layer->part, layer->path, &target.name));
    target.path = slr_arena_strdup(t->names, layer->path);
    if (!target.path)
        return SDLORA_ENOMEM;
    SLR_TRY(slr_map_set(t->by_name, target.name, (int64_t)t->n));
    t->item[t->n++] = target;
    return SDLORA_OK;
}

static int collect(slr_targets *t, const slr_checkpoint *base)
{
    const slr_family *family = slr_checkpoint_family(base);
    slr_weights *te = slr_checkpoint_part(base, SLR_PART_TE);
    slr_weights *unet = slr_checkpoint_part(base, SLR_PART_UNET);

    if (te)
        SLR_TRY(slr_clip_layers(family, te, add_layer, t));
    if (unet)
        SLR_TRY(slr_unet_layers(family, unet, add_layer, t));
    return SDLORA_OK;
}

int slr_targets_new(slr_targets **out, slr_mem *m, const slr_checkpoint *base)
{
    *out = NULL;
    slr_targets *t = slr_calloc(m, 1, sizeof *t);
    if (!t)
        return SDLORA_ENOMEM;
    t->m = m;
    int rc = slr_arena_new(&t->names, m);
    if (rc >= 0)
        rc = slr_map_new(&t->by_name, m);
    if (rc >= 0)
        rc = collect(t, base);
    if (rc < 0) {
        slr_targets_free(t);
        return rc;
    }
    *out = t;
    return SDLORA_OK;
}

void slr_targets_free(slr_targets *t)
{
    if (!t)
        return;
    slr_map_free(t->by_name);
    slr_arena_free(t->names);
    slr_free(t->m, t->item);
    slr_free(t->m, t);
}

size_t slr_targets_count(const slr_targets *t)
{
    return t->n;
}

const slr_target *slr_targets_at(const slr_targets *t, size_t i)
{
    return &t->item[i];
}

const slr_target *slr_targets_find(const slr_targets *t, const char *name, size_t n)
{
    int64_t i;
    return slr_map_getn(t->by_name, name, n, &i) ? &t->item[i] : NULL;
}

/* kohya's container classes by what the canonical path passes through. */
static const struct {
    int part;
    const char *inside;
    bool needs_conv_dim; /* visited only when conv_dim is given */
} containers[] = {
    {SLR_PART_UNET, ".attentions.", false}, /* Transformer2DModel */
    {SLR_PART_UNET, ".resnets.", true},     /* ResnetBlock2D */
    {SLR_PART_UNET, ".downsamplers.", true}, {SLR_PART_UNET, ".upsamplers.", true},
    {SLR_PART_TE, ".self_attn.", false}, /* CLIPAttention */
    {SLR_PART_TE, ".mlp.", false},       /* CLIPMLP */
    {SLR_PART_TE2, ".self_attn.", false},    {SLR_PART_TE2, ".mlp.", false},
};

int slr_target_rule(const slr_target *t)
{
    if (t->norm)
        return SLR_TARGET_NEVER;
    for (size_t i = 0; i < sizeof containers / sizeof *containers; i++) {
        if (containers[i].part != t->part || !strstr(t->path, containers[i].inside))
            continue;
        if (t->kh * t->kw > 1)
            return containers[i].needs_conv_dim ? SLR_TARGET_CONV : SLR_TARGET_NEVER;
        return containers[i].needs_conv_dim ? SLR_TARGET_CONV_LINEAR : SLR_TARGET_LINEAR;
    }
    return SLR_TARGET_NEVER;
}
