/* SPDX-License-Identifier: MIT */
/* Builds the table of adaptable layers from the model builders' list and gives each its kohya name:
 * the part's prefix and the module path with '.' replaced by '_' (SDXL's UNet by its LDM path), and
 * whatever else files call it.  Refuses to know what a network does with a layer. */
#include "networks/target.h"

#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "base/str.h"
#include "models/clip.h"
#include "models/keymap.h"
#include "models/unet.h"
#include "networks/kind.h"

struct slr_targets {
    slr_mem *m;
    slr_arena *names;
    slr_target *item;
    size_t n, cap;
    slr_map *by_spelling; /* "<part>:<path with '_'>" in any naming */
    int part;             /* whose layers are listed */
    bool two;             /* SDXL: a pair of text encoders, and kohya's UNet has LDM names */
    bool has_map;
    slr_unet_map map;
};

/* File prefixes by part, of a model with one text encoder and with two; the VAE is never adapted.
 */
static const char *const prefixes[2][SLR_PART_COUNT] = {
    {[SLR_PART_UNET] = "lora_unet_", [SLR_PART_TE] = "lora_te_"},
    {[SLR_PART_UNET] = "lora_unet_", [SLR_PART_TE] = "lora_te1_", [SLR_PART_TE2] = "lora_te2_"},
};

static int kohya_name(slr_targets *t, int part, const char *path, const char **out)
{
    char ldm[SLR_NAME];
    slr_buf b;
    slr_buf_init(&b, t->m);
    slr_buf_puts(&b, prefixes[t->two][part]);
    if (t->two && part == SLR_PART_UNET && t->has_map && slr_unet_to_ldm(&t->map, path, ldm))
        path = ldm;
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

    slr_target target = {.part = t->part,
                         .conv = layer->conv,
                         .norm = layer->norm,
                         .bias = layer->bias,
                         .out = layer->out,
                         .in = layer->in,
                         .kh = layer->kh,
                         .kw = layer->kw};
    SLR_TRY(kohya_name(t, t->part, layer->path, &target.name));
    target.path = slr_arena_strdup(t->names, layer->path);
    if (!target.path)
        return SDLORA_ENOMEM;
    t->item[t->n++] = target;
    return SDLORA_OK;
}

static int list_part(slr_targets *t, const slr_checkpoint *base, int part)
{
    const slr_family *family = slr_checkpoint_family(base);
    slr_weights *w = slr_checkpoint_part(base, part);
    t->part = part;
    if (!w)
        return SDLORA_OK;
    return part == SLR_PART_UNET ? slr_unet_layers(family, w, add_layer, t)
                                 : slr_clip_layers(family, w, add_layer, t);
}

static int collect(slr_targets *t, const slr_checkpoint *base)
{
    slr_weights *unet = slr_checkpoint_part(base, SLR_PART_UNET);
    t->two = slr_family_text_of(slr_checkpoint_family(base), SLR_PART_TE2) != NULL;
    t->has_map = unet && slr_unet_map_read(&t->map, unet) >= 0;
    if (unet && !t->has_map)
        slr_clear(); /* a UNet that LDM has no names for */
    SLR_TRY(list_part(t, base, SLR_PART_TE));
    SLR_TRY(list_part(t, base, SLR_PART_TE2));
    return list_part(t, base, SLR_PART_UNET);
}

/* --- spellings --- */

/* The first target that claims a spelling keeps it. */
static int add_spelling(slr_targets *t, size_t i, const char *path)
{
    char key[SLR_LAYER_KEY];
    int64_t known;
    if (!slr_layer_key(key, t->item[i].part, path))
        return SDLORA_OK;
    for (char *p = key; *p; p++)
        *p = *p == '.' ? '_' : *p;
    return slr_map_get(t->by_spelling, key, &known) ? SDLORA_OK
                                                    : slr_map_set(t->by_spelling, key, (int64_t)i);
}

/* LDM's block numbers; OpenCLIP's names; text encoders without their outer module. */
static int add_others(slr_targets *t, size_t i)
{
    static const char outer[] = "text_model.";
    const slr_target *x = &t->item[i];
    char other[SLR_NAME];
    if (x->part == SLR_PART_UNET) {
        if (t->has_map && slr_unet_to_ldm(&t->map, x->path, other))
            SLR_TRY(add_spelling(t, i, other));
        return SDLORA_OK;
    }
    if (slr_starts(x->path, outer))
        SLR_TRY(add_spelling(t, i, x->path + strlen(outer)));
    if (slr_clip_to_open(x->path, other))
        SLR_TRY(add_spelling(t, i, other));
    return SDLORA_OK;
}

static int spell(slr_targets *t)
{
    for (size_t i = 0; i < t->n; i++)
        SLR_TRY(add_spelling(t, i, t->item[i].path));
    for (size_t i = 0; i < t->n; i++)
        SLR_TRY(add_others(t, i));
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
        rc = slr_map_new(&t->by_spelling, m);
    if (rc >= 0)
        rc = collect(t, base);
    if (rc >= 0)
        rc = spell(t);
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
    slr_map_free(t->by_spelling);
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

const slr_target *slr_targets_spelled(const slr_targets *t, int part, const char *path)
{
    char key[SLR_LAYER_KEY];
    int64_t i;
    return slr_layer_key(key, part, path) && slr_map_get(t->by_spelling, key, &i) ? &t->item[i]
                                                                                  : NULL;
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
