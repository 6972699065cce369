/* SPDX-License-Identifier: MIT */
/* Checkpoints, VAEs, tokens and a look at any file: arguments checked, then one call down.  A merge
 * makes a new checkpoint whose adapted parts are other weights. */
#include "api/api.h"

#include <string.h>

#include "base/cpu.h"
#include "base/status.h"
#include "base/str.h"
#include "models/checkpoint_part.h"
#include "networks/info.h"
#include "sample/infotext.h"

#define SYNTHETIC "synthetic:"

/* SLR_PREDICT_*, or -1: to be detected. */
static int wanted_prediction(slr_opt o, int *predict)
{
    static const struct {
        const char *name;
        int predict;
    } rows[] = {{"auto", -1}, {"epsilon", SLR_PREDICT_EPS}, {"v", SLR_PREDICT_V}};
    const char *name = slr_opt_text(o, "prediction_type");

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name))
            *predict = rows[i].predict;
    if (!slr_opt_bool(o, "v_parameterization"))
        return SDLORA_OK;
    if (*predict == SLR_PREDICT_EPS)
        return slr_fail(SDLORA_EINVAL, "sdlora_checkpoint_open",
                        "prediction_type is epsilon, but v_parameterization is set");
    *predict = SLR_PREDICT_V;
    return SDLORA_OK;
}

/* As slr_checkpoint_config has it. */
static int wanted_ztsnr(slr_opt o)
{
    const char *name = slr_opt_text(o, "ztsnr");

    return !strcmp(name, "yes") ? 1 : !strcmp(name, "no") ? -1 : 0;
}

int slr_api_checkpoint(sdlora_checkpoint **out, sdlora_context *ctx, slr_checkpoint *base)
{
    sdlora_checkpoint *c = slr_calloc(ctx->mem, 1, sizeof *c);

    if (!c) {
        slr_checkpoint_unref(base);
        return SDLORA_ENOMEM;
    }
    slr_refs_init(&c->refs);
    c->ctx = sdlora_context_ref(ctx);
    c->base = base;
    *out = c;
    return SDLORA_OK;
}

int sdlora_checkpoint_open(sdlora_checkpoint **out, sdlora_context *ctx, const char *path,
                           const sdlora_options *opts)
{
    slr_opt o = {opts, "checkpoint"};
    slr_checkpoint *base;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    SLR_TRY(slr_api_kind(opts, "checkpoint", __func__));
    slr_checkpoint_config config = {
        .mem = ctx->mem, .log = ctx->log, .use_ema = slr_opt_bool(o, "use_ema"), .predict = -1};
    config.ztsnr = wanted_ztsnr(o);
    config.threads = slr_devices_threads(ctx->devices);
    config.cpu_off = slr_cpu_features() & ~slr_devices_host(ctx->devices)->cpu_features;
    SLR_TRY(wanted_prediction(o, &config.predict));
    if (slr_starts(path, SYNTHETIC)) {
        SLR_TRY(slr_checkpoint_synthetic(&base, path + strlen(SYNTHETIC), SDLORA_F16, 0, &config));
        return slr_api_checkpoint(out, ctx, base);
    }
    slr_shelf_key key = {
        .use_ema = config.use_ema, .predict = config.predict, .ztsnr = config.ztsnr};
    bool file = slr_file_identify(path, &key.file);
    base = file ? slr_shelf_find(ctx, &key, path) : NULL;
    if (!base)
        SLR_TRY(slr_checkpoint_open(&base, path, &config));
    SLR_TRY(slr_api_checkpoint(out, ctx, base));
    if (file)
        slr_shelf_put(*out, &key);
    return SDLORA_OK;
}

sdlora_checkpoint *sdlora_checkpoint_ref(sdlora_checkpoint *ckpt)
{
    if (ckpt)
        slr_refs_get(&ckpt->refs);
    return ckpt;
}

void sdlora_checkpoint_unref(sdlora_checkpoint *ckpt)
{
    if (!ckpt || !slr_refs_put(&ckpt->refs))
        return;
    sdlora_context *ctx = ckpt->ctx;
    slr_shelf_take(ckpt);
    slr_checkpoint_unref(ckpt->base);
    slr_free(ctx->mem, ckpt);
    sdlora_context_unref(ctx);
}

const char *sdlora_checkpoint_family(const sdlora_checkpoint *ckpt)
{
    return ckpt ? slr_checkpoint_family(ckpt->base)->name : NULL;
}

const char *sdlora_checkpoint_layout(const sdlora_checkpoint *ckpt)
{
    return ckpt ? slr_checkpoint_layout(ckpt->base) : NULL;
}

const char *sdlora_checkpoint_path(const sdlora_checkpoint *ckpt)
{
    return ckpt ? slr_checkpoint_path(ckpt->base) : NULL;
}

/* --- merging --- */

static int merge_parts(slr_checkpoint *to, const slr_checkpoint *from, const sdlora_context *ctx,
                       const slr_stack_item *items, size_t n)
{
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        slr_weights *w = slr_checkpoint_part(from, part), *merged;

        if (!w)
            continue;
        if (part == SLR_PART_VAE) { /* no network adapts it */
            slr_checkpoint_set_part(to, part, w);
            continue;
        }
        SLR_TRY(slr_merge_part(&merged, ctx->mem, ctx->devices, w, part, items, n));
        slr_checkpoint_set_part(to, part, merged);
        slr_weights_unref(merged);
    }
    return SDLORA_OK;
}

static int merge(sdlora_checkpoint **out, sdlora_checkpoint *ckpt, const slr_stack_item *items,
                 size_t n)
{
    const slr_checkpoint *base = ckpt->base;
    slr_checkpoint *merged;

    SLR_TRY(slr_checkpoint_make(&merged, ckpt->ctx->mem, slr_checkpoint_path(base),
                                slr_checkpoint_family(base), slr_checkpoint_traits(base),
                                slr_checkpoint_layout(base)));
    int rc = merge_parts(merged, base, ckpt->ctx, items, n);
    if (rc < 0) {
        slr_checkpoint_unref(merged);
        return rc;
    }
    return slr_api_checkpoint(out, ckpt->ctx, merged);
}

int sdlora_checkpoint_merge(sdlora_checkpoint **out, sdlora_checkpoint *ckpt,
                            sdlora_network *const *nets, const double *te, const double *unet,
                            size_t n)
{
    slr_stack_item *items;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ckpt, "ckpt", __func__));
    SLR_TRY(slr_api_items(&items, ckpt, nets, te, unet, n, __func__));
    int rc = merge(out, ckpt, items, n);
    slr_free(ckpt->ctx->mem, items);
    return rc;
}

/* --- VAEs --- */

int sdlora_vae_open(sdlora_vae **out, sdlora_context *ctx, const char *path)
{
    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    slr_checkpoint_config config = {.mem = ctx->mem, .log = ctx->log, .predict = -1};
    sdlora_vae *vae = slr_calloc(ctx->mem, 1, sizeof *vae);
    if (!vae)
        return SDLORA_ENOMEM;
    slr_refs_init(&vae->refs);
    vae->ctx = sdlora_context_ref(ctx);
    vae->path = slr_strdup(ctx->mem, path);
    int rc = vae->path ? slr_vae_weights_open(&vae->weights, path, &config) : SDLORA_ENOMEM;
    if (rc < 0) {
        sdlora_vae_unref(vae);
        return rc;
    }
    *out = vae;
    return SDLORA_OK;
}

sdlora_vae *sdlora_vae_ref(sdlora_vae *vae)
{
    if (vae)
        slr_refs_get(&vae->refs);
    return vae;
}

void sdlora_vae_unref(sdlora_vae *vae)
{
    if (!vae || !slr_refs_put(&vae->refs))
        return;
    sdlora_context *ctx = vae->ctx;
    slr_weights_unref(vae->weights);
    slr_free(ctx->mem, vae->path);
    slr_free(ctx->mem, vae);
    sdlora_context_unref(ctx);
}

/* --- text and files --- */

int sdlora_tokenize(sdlora_context *ctx, const char *text, int32_t *ids, size_t cap, size_t *n)
{
    slr_bpe *bpe;
    int32_t *all;
    size_t count;

    slr_clear();
    SLR_TRY(slr_api_given(n, "n", __func__));
    *n = 0;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(text, "text", __func__));
    if (cap > 0)
        SLR_TRY(slr_api_given(ids, "ids", __func__));
    SLR_TRY(slr_api_bpe(ctx, &bpe));
    SLR_TRY(slr_bpe_encode(bpe, ctx->mem, text, strlen(text), &all, &count));
    size_t fits = count < cap ? count : cap;
    if (fits > 0)
        memcpy(ids, all, fits * sizeof *ids);
    slr_free(ctx->mem, all);
    *n = count;
    return SDLORA_OK;
}

int sdlora_file_info(sdlora_context *ctx, const char *path, int hashes, char **json)
{
    slr_clear();
    SLR_TRY(slr_api_given(json, "json", __func__));
    *json = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    int rc = slr_file_info(json, ctx->mem, ctx->log, path, hashes != 0);
    if (rc != SDLORA_EFORMAT)
        return rc;
    slr_error_copy why; /* no model of any kind: if it is no picture either, that is what counts */
    slr_error_take(&why);
    rc = slr_picture_info(json, ctx->mem, path);
    return rc < 0 && rc != SDLORA_ENOMEM ? slr_error_put(&why) : rc;
}

void sdlora_text_free(sdlora_context *ctx, char *text)
{
    if (ctx)
        slr_free(ctx->mem, text);
}
