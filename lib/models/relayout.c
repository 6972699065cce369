/* SPDX-License-Identifier: MIT */
/* A model's parts under other names: canonical ones become LDM's (and OpenCLIP's) or stay for a
 * diffusers folder.  Knows prefixes, which tensors are cut, joined, turned or reshaped on the way,
 * and what each side does not keep; the names themselves are keymap.c's. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "models/convert.h"
#include "models/keymap.h"
#include "models/outfile.h"
#include "models/vae.h"

enum { FULL = SLR_NAME + 96 };

static const char ATTENTION[] = ".mid_block.attentions.0.";
static const char Q_PROJ[] = ".self_attn.q_proj.";
static const char *const OTHERS[] = {".self_attn.k_proj.", ".self_attn.v_proj."};

/* ---- shapes that differ ---- */

static bool is_vae_product(const char *name, const slr_tensor *t)
{
    return strstr(name, ATTENTION) && slr_ends(name, ".weight") && t->rank >= 2;
}

/* The autoencoder's attention: 1x1 convolutions in LDM, linear layers in diffusers. */
static slr_out_how vae_how(const slr_converting *c, const char *name, const slr_tensor *t, bool ldm)
{
    slr_out_how how = {.dtype = slr_convert_dtype(c, SLR_PART_VAE, t)};
    if (!is_vae_product(name, t) || (t->rank == 4 && t->dim[2] * t->dim[3] != 1))
        return how;
    how.rank = ldm ? 4 : 2;
    how.dim[0] = t->dim[0];
    how.dim[1] = t->dim[1];
    how.dim[2] = how.dim[3] = 1;
    return how;
}

static int no_name(const slr_weights *w, const char *name)
{
    return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has no name in an LDM file",
                    slr_weights_label(w), name);
}

/* ---- to LDM ---- */

static int unet_to_ldm(slr_outfile *f, const slr_converting *c, const slr_weights *w)
{
    slr_unet_map map;
    SLR_TRY(slr_unet_map_read(&map, w));
    for (size_t i = 0; i < slr_weights_count(w); i++) {
        char name[SLR_NAME], full[FULL];
        const slr_tensor *t;
        const char *ours = slr_weights_at(w, i, &t);
        if (!slr_unet_to_ldm(&map, ours, name))
            return no_name(w, ours);
        snprintf(full, sizeof full, "model.diffusion_model.%s", name);
        SLR_TRY(slr_outfile_add(f, full, t,
                                &(slr_out_how){.dtype = slr_convert_dtype(c, SLR_PART_UNET, t)}));
    }
    return SDLORA_OK;
}

int slr_relayout_vae(slr_outfile *f, const slr_converting *c, const slr_weights *w,
                     const char *prefix)
{
    int levels = 0;
    SLR_TRY(slr_vae_factor(w, &levels));
    levels++; /* one more than samplers */
    for (size_t i = 0; i < slr_weights_count(w); i++) {
        char name[SLR_NAME], full[FULL];
        const slr_tensor *t;
        const char *ours = slr_weights_at(w, i, &t);
        if (!slr_vae_to_ldm(levels, ours, name))
            return no_name(w, ours);
        snprintf(full, sizeof full, "%s%s", prefix, name);
        slr_out_how how = vae_how(c, ours, t, true);
        SLR_TRY(slr_outfile_add(f, full, t, &how));
    }
    return SDLORA_OK;
}

/* Hugging Face's names are LDM's too where the encoder is CLIP-L; the buffer is what strict loaders
 * of old look for. */
static int clip_to_ldm(slr_outfile *f, const slr_converting *c, int part, const char *prefix)
{
    const slr_weights *w = c->parts.part[part];
    const slr_tensor *position = NULL;
    int64_t ids[256];
    char full[FULL];
    for (size_t i = 0; i < slr_weights_count(w); i++) {
        const slr_tensor *t;
        const char *ours = slr_weights_at(w, i, &t);
        if (slr_ends(ours, ".position_ids"))
            continue;
        if (slr_ends(ours, ".position_embedding.weight"))
            position = t;
        snprintf(full, sizeof full, "%s%s", prefix, ours);
        SLR_TRY(
            slr_outfile_add(f, full, t, &(slr_out_how){.dtype = slr_convert_dtype(c, part, t)}));
    }
    if (!position || position->rank != 2 || position->dim[0] > (int64_t)(sizeof ids / sizeof *ids))
        return SDLORA_OK;
    for (int64_t i = 0; i < position->dim[0]; i++)
        ids[i] = i;
    snprintf(full, sizeof full, "%stext_model.embeddings.position_ids", prefix);
    return slr_outfile_add_i64(f, full, 2, (const int64_t[]){1, position->dim[0]}, ids);
}

/* q, k and v of a layer are one tensor in OpenCLIP. */
static int join_qkv(slr_outfile *f, const slr_converting *c, int part, const char *prefix,
                    const char *q_name, int as_layer)
{
    const slr_weights *w = c->parts.part[part];
    const char *at = strstr(q_name, Q_PROJ), *leaf = at + strlen(Q_PROJ);
    const char *layer = q_name + strlen("text_model.encoder.layers.");
    slr_tensor three[3];
    char name[FULL];
    const slr_tensor *t;
    SLR_TRY(slr_weights_get(w, q_name, &t));
    three[0] = *t;
    for (int k = 0; k < 2; k++) {
        snprintf(name, sizeof name, "%.*s%s%s", (int)(at - q_name), q_name, OTHERS[k], leaf);
        SLR_TRY(slr_weights_get(w, name, &t));
        three[k + 1] = *t;
    }
    if (as_layer >= 0)
        snprintf(name, sizeof name, "%stransformer.resblocks.%d.attn.in_proj_%s", prefix, as_layer,
                 leaf);
    else
        snprintf(name, sizeof name, "%stransformer.resblocks.%.*s.attn.in_proj_%s", prefix,
                 (int)(at - layer), layer, leaf);
    return slr_outfile_add(
        f, name, three,
        &(slr_out_how){.dtype = slr_convert_dtype(c, part, &three[0]), .joined = 3});
}

/* The layer of "text_model.encoder.layers.7.rest"; -1: none. */
static int layer_of(const char *name)
{
    static const char head[] = "text_model.encoder.layers.";
    int n = 0;
    if (!slr_starts(name, head))
        return -1;
    for (const char *p = name + strlen(head); *p >= '0' && *p <= '9' && n < 1000; p++)
        n = 10 * n + (*p - '0');
    return n;
}

static int layers_of(const slr_weights *w)
{
    int most = 0;
    for (size_t i = 0; i < slr_weights_count(w); i++) {
        int n = layer_of(slr_weights_at(w, i, NULL)) + 1;
        most = n > most ? n : most;
    }
    return most;
}

/* One tensor under its OpenCLIP name, or in place of that layer when as_layer >= 0. */
static int open_tensor(slr_outfile *f, const slr_converting *c, int part, const char *prefix,
                       const char *ours, const slr_tensor *t, int as_layer)
{
    char name[SLR_NAME], renamed[SLR_NAME], full[FULL];
    slr_out_how how = {.dtype = slr_convert_dtype(c, part, t)};
    if (strstr(ours, Q_PROJ))
        return join_qkv(f, c, part, prefix, ours, as_layer);
    if (strstr(ours, OTHERS[0]) || strstr(ours, OTHERS[1]))
        return SDLORA_OK;
    if (strcmp(ours, "text_projection.weight") == 0) {
        how.turned = true;
        snprintf(name, sizeof name, "text_projection");
    } else if (as_layer >= 0) {
        const char *rest = strchr(ours + strlen("text_model.encoder.layers."), '.');
        snprintf(renamed, sizeof renamed, "text_model.encoder.layers.%d%s", as_layer, rest);
        if (!slr_clip_to_open(renamed, name))
            return no_name(c->parts.part[part], ours);
    } else if (!slr_clip_to_open(ours, name)) {
        return SDLORA_OK; /* buffers that OpenCLIP has not got */
    }
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return slr_outfile_add(f, full, t, &how);
}

/* SD 2's folders leave the last layer out, which nothing computes with; programs that read LDM
 * files still look for its names, so the one before stands there again, as kohya's scripts do it.
 */
enum { SD2_LAYERS = 24 };

static int open_to_ldm(slr_outfile *f, const slr_converting *c, int part, const char *prefix)
{
    const slr_weights *w = c->parts.part[part];
    bool again = c->family->id == SLR_FAMILY_SD2 && layers_of(w) == SD2_LAYERS - 1;
    for (size_t i = 0; i < slr_weights_count(w); i++) {
        const slr_tensor *t;
        const char *ours = slr_weights_at(w, i, &t);
        SLR_TRY(open_tensor(f, c, part, prefix, ours, t, -1));
        if (again && layer_of(ours) == SD2_LAYERS - 2)
            SLR_TRY(open_tensor(f, c, part, prefix, ours, t, SD2_LAYERS - 1));
    }
    return SDLORA_OK;
}

int slr_relayout_ldm(slr_outfile *f, const slr_converting *c)
{
    static const struct {
        int family, part;
        int (*to)(slr_outfile *f, const slr_converting *c, int part, const char *prefix);
        const char *prefix;
    } TEXT[] = {
        {SLR_FAMILY_SD1, SLR_PART_TE, clip_to_ldm, "cond_stage_model.transformer."},
        {SLR_FAMILY_SD2, SLR_PART_TE, open_to_ldm, "cond_stage_model.model."},
        {SLR_FAMILY_SDXL, SLR_PART_TE, clip_to_ldm, "conditioner.embedders.0.transformer."},
        {SLR_FAMILY_SDXL, SLR_PART_TE2, open_to_ldm, "conditioner.embedders.1.model."},
        {SLR_FAMILY_REFINER, SLR_PART_TE2, open_to_ldm, "conditioner.embedders.0.model."},
    };
    if (c->parts.part[SLR_PART_UNET])
        SLR_TRY(unet_to_ldm(f, c, c->parts.part[SLR_PART_UNET]));
    if (c->parts.part[SLR_PART_VAE])
        SLR_TRY(slr_relayout_vae(f, c, c->parts.part[SLR_PART_VAE], "first_stage_model."));
    for (size_t i = 0; i < sizeof TEXT / sizeof *TEXT; i++)
        if (TEXT[i].family == c->family->id && c->parts.part[TEXT[i].part])
            SLR_TRY(TEXT[i].to(f, c, TEXT[i].part, TEXT[i].prefix));
    return SDLORA_OK;
}

/* ---- to a folder ---- */

/* What a folder's component keeps of a text encoder. */
static bool text_kept(const slr_converting *c, int part, const char *name, int layers)
{
    if (strcmp(name, "text_projection.weight") == 0)
        return part == SLR_PART_TE2;
    if (!slr_starts(name, "text_model.") || slr_ends(name, ".position_ids"))
        return false;
    return c->family->id != SLR_FAMILY_SD2 || layers < SD2_LAYERS ||
           layer_of(name) < SD2_LAYERS - 1;
}

int slr_relayout_part(slr_outfile *f, const slr_converting *c, int part)
{
    const slr_weights *w = c->parts.part[part];
    bool text = part == SLR_PART_TE || part == SLR_PART_TE2;
    int layers = text ? layers_of(w) : 0;
    for (size_t i = 0; i < slr_weights_count(w); i++) {
        const slr_tensor *t;
        const char *name = slr_weights_at(w, i, &t);
        slr_out_how how = part == SLR_PART_VAE
                              ? vae_how(c, name, t, false)
                              : (slr_out_how){.dtype = slr_convert_dtype(c, part, t)};
        if (!text || text_kept(c, part, name, layers))
            SLR_TRY(slr_outfile_add(f, name, t, &how));
    }
    return SDLORA_OK;
}
