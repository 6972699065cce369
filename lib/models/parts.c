/* SPDX-License-Identifier: MIT */
/* Finds the parts of a model among tensor names.  Each part is recognised by a tensor that only it
 * has, and whatever stands before that name is the part's prefix: so wrappers ("model.",
 * "module."), missing prefixes and all layouts are one rule.  Knows prefixes and which tensors must
 * be cut or converted; the renaming itself is keymap.c's. */
#include "models/parts.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "models/keymap.h"

/* ---- prefixes ---- */

typedef struct sentinel {
    const char *suffix; /* of the name that gives a part away */
    int part, spelling;
    const char *unless; /* the prefix must not end so: it would be something else */
} sentinel;

static const sentinel SENTINELS[] = {
    {"input_blocks.0.0.weight", SLR_PART_UNET, SLR_SPELL_LDM, "control_model."},
    {"down_blocks.0.resnets.0.conv1.weight", SLR_PART_UNET, SLR_SPELL_OURS, "encoder."},
    {"decoder.conv_in.weight", SLR_PART_VAE, SLR_SPELL_LDM, NULL},
    {"encoder.conv_in.weight", SLR_PART_VAE, SLR_SPELL_LDM, NULL},
    {"text_model.embeddings.token_embedding.weight", SLR_PART_TE, SLR_SPELL_OURS, NULL},
    {"embeddings.token_embedding.weight", SLR_PART_TE, SLR_SPELL_NAI, "text_model."},
    {"transformer.resblocks.0.ln_1.weight", SLR_PART_TE, SLR_SPELL_OPEN, "visual."},
};

/* Parts of prefixes that mean the second text encoder of SDXL. */
static const char *const SECOND[] = {"embedders.1.", "text_encoder_2.", "te2."};

static bool is_second(const char *prefix)
{
    for (size_t i = 0; i < sizeof SECOND / sizeof *SECOND; i++)
        if (strstr(prefix, SECOND[i]))
            return true;
    return false;
}

/* Takes a sighting, unless the part was seen already under a name that is at least as usual. */
static void sight(slr_parts *p, const sentinel *s, const char *name, size_t n, unsigned want,
                  int te)
{
    char prefix[sizeof p->prefix[0]];
    if (n >= sizeof prefix || (n > 0 && name[n - 1] != '.'))
        return;
    memcpy(prefix, name, n);
    prefix[n] = '\0';
    if (s->unless && slr_ends(prefix, s->unless))
        return;
    int part = s->part == SLR_PART_TE ? (is_second(prefix) ? SLR_PART_TE2 : te) : s->part;
    bool usual =
        slr_ends(prefix, "diffusion_model.") && !slr_ends(p->prefix[part], "diffusion_model.");
    if (!(want & 1u << part) || (p->spelling[part] != SLR_SPELL_NONE && !usual))
        return;
    p->spelling[part] = s->spelling;
    memcpy(p->prefix[part], prefix, n + 1);
}

static void find_prefixes(slr_parts *p, const slr_bag *bag, unsigned want, int te)
{
    for (size_t i = 0; i < slr_bag_count(bag); i++) {
        const char *name = slr_bag_at(bag, i, NULL);
        for (size_t k = 0; k < sizeof SENTINELS / sizeof *SENTINELS; k++)
            if (slr_ends(name, SENTINELS[k].suffix))
                sight(p, &SENTINELS[k], name, strlen(name) - strlen(SENTINELS[k].suffix), want, te);
    }
}

/* ---- which names a prefix really covers (it may be empty) ---- */

static const struct {
    int part;
    const char *first; /* component of the name */
} COMPONENTS[] = {
    {SLR_PART_UNET, "input_blocks"},
    {SLR_PART_UNET, "middle_block"},
    {SLR_PART_UNET, "output_blocks"},
    {SLR_PART_UNET, "time_embed"},
    {SLR_PART_UNET, "label_emb"},
    {SLR_PART_UNET, "out"},
    {SLR_PART_UNET, "down_blocks"},
    {SLR_PART_UNET, "mid_block"},
    {SLR_PART_UNET, "up_blocks"},
    {SLR_PART_UNET, "conv_in"},
    {SLR_PART_UNET, "conv_out"},
    {SLR_PART_UNET, "conv_norm_out"},
    {SLR_PART_UNET, "time_embedding"},
    {SLR_PART_UNET, "add_embedding"},
    {SLR_PART_UNET, "class_embedding"},
    {SLR_PART_VAE, "encoder"},
    {SLR_PART_VAE, "decoder"},
    {SLR_PART_VAE, "quant_conv"},
    {SLR_PART_VAE, "post_quant_conv"},
    {SLR_PART_TE, "text_model"},
    {SLR_PART_TE, "embeddings"},
    {SLR_PART_TE, "encoder"},
    {SLR_PART_TE, "final_layer_norm"},
    {SLR_PART_TE, "transformer"},
    {SLR_PART_TE, "token_embedding"},
    {SLR_PART_TE, "ln_final"},
    {SLR_PART_TE, "positional_embedding"},
    {SLR_PART_TE, "text_projection"},
};

static bool covers(int part, const char *name)
{
    int kind = part == SLR_PART_TE2 ? SLR_PART_TE : part;
    for (size_t i = 0; i < sizeof COMPONENTS / sizeof *COMPONENTS; i++) {
        size_t n = strlen(COMPONENTS[i].first);
        if (COMPONENTS[i].part == kind && strncmp(name, COMPONENTS[i].first, n) == 0 &&
            (name[n] == '.' || name[n] == '\0'))
            return true;
    }
    return false;
}

/* The wanted part whose prefix fits best, or -1; *rest: the name behind the prefix. */
static int part_of(const slr_parts *p, unsigned want, const char *name, const char **rest)
{
    int best = -1;
    size_t longest = 0;
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        size_t n = strlen(p->prefix[part]);
        if (!(want & 1u << part) || p->spelling[part] == SLR_SPELL_NONE ||
            strncmp(name, p->prefix[part], n) != 0 || !covers(part, name + n) ||
            (best >= 0 && n <= longest))
            continue;
        best = part;
        longest = n;
        *rest = name + n;
    }
    return best;
}

/* ---- storing ---- */

typedef struct sorter {
    slr_parts *p;
    slr_mem *m;
    const slr_bag *bag;
    slr_unet_map unet;
    int vae_levels;
    unsigned want;
    bool use_ema;
} sorter;

/* Types that graphs read as they are are kept as views; rare ones become f32; numbers that count
 * are skipped. */
static int put(sorter *s, int part, const char *name, const slr_tensor *t)
{
    slr_weights *w = s->p->part[part];
    if (t->dtype == SDLORA_F16 || t->dtype == SDLORA_BF16 || t->dtype == SDLORA_F32 ||
        (s->p->keep_types && slr_dtype(t->dtype)))
        return slr_weights_put(w, name, t);
    if (t->dtype != SDLORA_F64 && t->dtype != SDLORA_F8_E4M3 && t->dtype != SDLORA_F8_E5M2)
        return SDLORA_OK;
    slr_tensor f = *t;
    SLR_TRY(slr_storage_new(&f.storage, s->m, (size_t)slr_tensor_count(t) * sizeof(float)));
    f.dtype = SDLORA_F32;
    f.data = slr_storage_data(f.storage);
    f.id = 0;
    int rc = slr_tensor_to_f32(t, slr_storage_data(f.storage));
    if (rc == SDLORA_OK)
        rc = slr_weights_put(w, name, &f);
    slr_storage_unref(f.storage);
    return rc;
}

static int wrong_shape(sorter *s, int part, const char *name, const slr_tensor *t,
                       const char *wanted)
{
    char shape[96];
    return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s is %s, wanted %s",
                    slr_weights_label(s->p->part[part]), name,
                    slr_shape_text(t->dim, t->rank, shape), wanted);
}

/* OpenCLIP keeps q, k, v in one tensor: three views of its thirds. */
static int put_thirds(sorter *s, int part, const char *rest, const slr_tensor *t)
{
    static const char *const THIRD[3] = {"q_proj", "k_proj", "v_proj"};
    const char *at = strstr(rest, ".attn.in_proj_"), *leaf = at + strlen(".attn.in_proj_");
    const char *layer = rest + strlen("transformer.resblocks.");
    if (t->rank < 1 || t->rank > 2 || t->dim[0] % 3 != 0)
        return wrong_shape(s, part, rest, t, "three equal parts of rows");
    for (int i = 0; i < 3; i++) {
        char name[SLR_NAME];
        slr_tensor third = *t;
        third.dim[0] = t->dim[0] / 3;
        third.id = 0;
        third.data = (const char *)t->data + (size_t)i * slr_tensor_bytes(&third);
        slr_nn_path(name, "text_model.encoder.layers.%.*s.self_attn.%s.%s", (int)(at - layer),
                    layer, THIRD[i], leaf);
        SLR_TRY(put(s, part, name, &third));
    }
    return SDLORA_OK;
}

/* OpenCLIP's text_projection [W,E] is the transpose of Hugging Face's weight [E,W]. */
static int put_transposed(sorter *s, int part, const char *name, const slr_tensor *t)
{
    size_t size = slr_dtype_size(t->dtype);
    slr_tensor turned = *t;
    if (t->rank != 2)
        return wrong_shape(s, part, name, t, "two axes");
    SLR_TRY(slr_storage_new(&turned.storage, s->m, slr_tensor_bytes(t)));
    char *to = slr_storage_data(turned.storage);
    turned.dim[0] = t->dim[1];
    turned.dim[1] = t->dim[0];
    turned.data = to;
    turned.id = 0;
    for (int64_t i = 0; i < t->dim[0]; i++)
        for (int64_t j = 0; j < t->dim[1]; j++)
            memcpy(to + (size_t)(j * t->dim[0] + i) * size,
                   (const char *)t->data + (size_t)(i * t->dim[1] + j) * size, size);
    int rc = put(s, part, name, &turned);
    slr_storage_unref(turned.storage);
    return rc;
}

/* All dots of the name below "model." are gone. */
bool slr_parts_ema_name(const slr_parts *p, const char *rest, char *out, size_t cap)
{
    const char *prefix = p->prefix[SLR_PART_UNET], *tail = "model.diffusion_model.";
    if (!slr_ends(prefix, tail))
        return false;
    size_t n = (size_t)snprintf(out, cap, "%.*smodel_ema.diffusion_model",
                                (int)(strlen(prefix) - strlen(tail)), prefix);
    for (; *rest && n + 1 < cap; rest++)
        if (*rest != '.')
            out[n++] = *rest;
    if (n + 1 >= cap)
        return false;
    out[n] = '\0';
    return true;
}

static bool ema_of(sorter *s, const char *rest, slr_tensor *t)
{
    char name[2 * SLR_NAME];
    return s->use_ema && slr_parts_ema_name(s->p, rest, name, sizeof name) &&
           slr_bag_find(s->bag, name, t);
}

static int put_unet(sorter *s, const char *rest, const slr_tensor *t)
{
    char name[SLR_NAME];
    slr_tensor ema;
    if (s->p->spelling[SLR_PART_UNET] == SLR_SPELL_OURS)
        return put(s, SLR_PART_UNET, rest, t);
    if (!slr_unet_from_ldm(&s->unet, rest, name)) {
        s->p->n_other++;
        return SDLORA_OK;
    }
    if (!ema_of(s, rest, &ema))
        return put(s, SLR_PART_UNET, name, t);
    s->p->n_ema++;
    return put(s, SLR_PART_UNET, name, &ema);
}

static int put_vae(sorter *s, const char *rest, const slr_tensor *t)
{
    char name[SLR_NAME];
    if (slr_vae_from_ldm(s->vae_levels, rest, name) || slr_vae_from_old(rest, name))
        return put(s, SLR_PART_VAE, name, t);
    return put(s, SLR_PART_VAE, rest, t);
}

static int put_text(sorter *s, int part, const char *rest, const slr_tensor *t)
{
    char name[SLR_NAME];
    if (s->p->spelling[part] == SLR_SPELL_OPEN) {
        if (slr_starts(rest, "transformer.resblocks.") && strstr(rest, ".attn.in_proj_"))
            return put_thirds(s, part, rest, t);
        if (strcmp(rest, "text_projection") == 0)
            return put_transposed(s, part, "text_projection.weight", t);
        if (slr_clip_from_open(rest, name))
            return put(s, part, name, t);
        s->p->n_other++;
        return SDLORA_OK;
    }
    if (s->p->spelling[part] == SLR_SPELL_NAI && slr_clip_from_nai(rest, name))
        return put(s, part, name, t);
    return put(s, part, rest, t);
}

/* What renaming needs to know of the whole before the first name: levels. */
static int survey(sorter *s, const char *label)
{
    slr_unet_scan scan = {0};
    for (size_t i = 0; i < slr_bag_count(s->bag); i++) {
        const char *rest, *name = slr_bag_at(s->bag, i, NULL);
        int part = part_of(s->p, s->want, name, &rest);
        if (part == SLR_PART_UNET)
            slr_unet_scan_name(&scan, rest);
        if (part == SLR_PART_VAE)
            slr_vae_scan_name(&s->vae_levels, rest);
    }
    return slr_unet_scan_finish(&scan, &s->unet, label);
}

int slr_parts_sort(slr_parts *out, slr_mem *m, const slr_bag *bag, const char *label, unsigned want,
                   int te, bool use_ema)
{
    sorter s = {.p = out, .m = m, .bag = bag, .want = want, .use_ema = use_ema};
    find_prefixes(out, bag, want, te);
    SLR_TRY(survey(&s, label));
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        char name[512];
        if (out->spelling[part] == SLR_SPELL_NONE || out->part[part])
            continue;
        snprintf(name, sizeof name, "%s: %s", label, slr_part_name(part));
        SLR_TRY(slr_weights_new(&out->part[part], m, name));
    }
    for (size_t i = 0; i < slr_bag_count(bag); i++) {
        slr_tensor t;
        const char *rest, *name = slr_bag_at(bag, i, &t);
        int part = part_of(out, want, name, &rest), rc = SDLORA_OK;
        if (part < 0)
            out->n_other++;
        else if (part == SLR_PART_UNET)
            rc = put_unet(&s, rest, &t);
        else if (part == SLR_PART_VAE)
            rc = put_vae(&s, rest, &t);
        else
            rc = put_text(&s, part, rest, &t);
        if (rc < 0)
            return rc;
    }
    return SDLORA_OK;
}

int slr_parts_of(const slr_parts *p, const char *name, const char **rest)
{
    return part_of(p, (1u << SLR_PART_COUNT) - 1, name, rest);
}

void slr_parts_drop(slr_parts *p)
{
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        slr_weights_unref(p->part[part]);
        p->part[part] = NULL;
    }
}
