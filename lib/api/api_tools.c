/* SPDX-License-Identifier: MIT */
/* Tools on whole files: arguments checked, options read, then one call down. */
#include "api/api.h"

#include <string.h>

#include "base/cpu.h"
#include "base/status.h"
#include "base/str.h"
#include "io/hash.h"
#include "io/json.h"
#include "io/metaedit.h"
#include "models/convert.h"
#include "networks/check.h"
#include "networks/hypernet.h"
#include "networks/metaview.h"

/* --- convert and prune --- */

static int choice(const char *text, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(text, names[i]))
            return (int)i;
    return 0;
}

/* "keep" is 0; "float", "fp16" and "bf16" are types. */
static uint32_t precision(slr_opt o, const char *name)
{
    const slr_dtype_row *row = slr_dtype_by_precision(slr_opt_text(o, name));

    return row ? row->dtype : 0;
}

static void read_options(slr_convert_config *c, slr_opt o, bool layout)
{
    static const char *const layouts[] = {"keep", "ldm", "diffusers"};
    static const char *const emas[] = {"drop", "use", "keep"};
    const char *vae = slr_opt_text(o, "vae_precision");

    c->layout = layout ? choice(slr_opt_text(o, "layout"), layouts, 3) : SLR_LAYOUT_KEEP;
    c->ema = choice(slr_opt_text(o, "ema"), emas, 3);
    c->dtype = precision(o, "save_precision");
    c->vae_keep = !strcmp(vae, "keep");
    c->vae_dtype = precision(o, "vae_precision");
    c->drop_extras = !strcmp(slr_opt_text(o, "extras"), "drop");
    c->verify = slr_opt_bool(o, "verify");
    c->vae = slr_opt_text(o, "vae");
}

static const char *not_tensors_alone(const char *name)
{
    return slr_hyper_key_width(name) > 0
               ? "a hypernetwork: its file also says how its layers are joined, so it stays a .pt"
               : NULL;
}

static int convert(const char *kind, const char *where, sdlora_context *ctx, const char *in,
                   const char *out, const sdlora_options *opts, sdlora_progress_fn progress,
                   void *user, char **json)
{
    slr_api_watch watch = {.fn = progress, .user = user};
    slr_opt o = {opts, kind};
    char *report = NULL;

    slr_clear();
    if (json)
        *json = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", where));
    SLR_TRY(slr_api_given(in, "in", where));
    SLR_TRY(slr_api_given(out, "out", where));
    SLR_TRY(slr_api_kind(opts, kind, where));
    slr_convert_config config = {
        .mem = ctx->mem, .log = ctx->log, .phase = slr_api_tell, .phase_user = &watch};
    config.refuse = not_tensors_alone;
    config.threads = slr_devices_threads(ctx->devices);
    config.cpu_off = slr_cpu_features() & ~slr_devices_host(ctx->devices)->cpu_features;
    read_options(&config, o, !strcmp(kind, "convert"));
    if (!strcmp(kind, "convert") && slr_opt_has(o, "dialect"))
        SLR_TRY(slr_api_convert_network(&report, ctx, in, out, o));
    else
        SLR_TRY(slr_model_convert(&report, in, out, &config));
    if (json)
        *json = report;
    else
        slr_free(ctx->mem, report);
    return SDLORA_OK;
}

int sdlora_file_convert(sdlora_context *ctx, const char *in, const char *out,
                        const sdlora_options *opts, sdlora_progress_fn progress, void *user,
                        char **json)
{
    return convert("convert", __func__, ctx, in, out, opts, progress, user, json);
}

int sdlora_file_prune(sdlora_context *ctx, const char *in, const char *out,
                      const sdlora_options *opts, sdlora_progress_fn progress, void *user,
                      char **json)
{
    return convert("prune", __func__, ctx, in, out, opts, progress, user, json);
}

/* --- hash --- */

static void put_hash(slr_buf *b, const char *name, const char *hex, int digits)
{
    if (*hex)
        slr_buf_printf(b, ",\n  \"%s\": \"%.*s\"", name, digits, hex);
}

static int hash_json(char **json, slr_mem *m, const char *path, const slr_hashes *h)
{
    slr_buf b;

    slr_buf_init(&b, m);
    slr_buf_puts(&b, "{\n  \"path\": ");
    slr_json_quote(&b, path, strlen(path), false);
    put_hash(&b, "sha256", h->sha256, 64);
    put_hash(&b, "autov2", h->sha256, 10);
    put_hash(&b, "legacy", h->legacy, 8);
    put_hash(&b, "tensors", h->tensors, 64);
    put_hash(&b, "autov3", h->tensors, 12);
    put_hash(&b, "sshs_model_hash", h->sshs_model, 64);
    put_hash(&b, "sshs_legacy_hash", h->sshs_legacy, 8);
    slr_buf_puts(&b, "\n}\n");
    int rc = slr_buf_ok(&b);
    if (rc >= 0)
        *json = slr_buf_take(&b);
    slr_buf_free(&b);
    return rc;
}

/* Kohya's hashes are of networks: of a model they would be read twice for nothing. */
static int wants_sshs(bool *out, slr_mem *m, const char *path)
{
    slr_safetensors *f;
    int rc = slr_safetensors_open(&f, m, path, false);

    *out = false;
    if (rc == SDLORA_EFORMAT || rc == SDLORA_ENOTSUP) {
        slr_clear(); /* another kind of file */
        return SDLORA_OK;
    }
    SLR_TRY(rc);
    *out = true;
    for (size_t i = 0; i < slr_safetensors_count(f) && *out; i++)
        *out = !slr_starts(slr_safetensors_at(f, i, NULL), "model.diffusion_model.");
    slr_safetensors_close(f);
    return SDLORA_OK;
}

int sdlora_file_hash(sdlora_context *ctx, const char *path, sdlora_progress_fn progress, void *user,
                     char **json)
{
    slr_api_watch watch = {.fn = progress, .user = user};
    slr_hashes h;
    bool sshs;

    slr_clear();
    SLR_TRY(slr_api_given(json, "json", __func__));
    *json = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    SLR_TRY(wants_sshs(&sshs, ctx->mem, path));
    SLR_TRY(slr_hash_all(&h, ctx->mem, path, sshs, slr_api_tell, &watch));
    return hash_json(json, ctx->mem, path, &h);
}

/* --- check --- */

int sdlora_file_check(sdlora_context *ctx, const char *path, int each, sdlora_progress_fn progress,
                      void *user, char **json)
{
    slr_api_watch watch = {.fn = progress, .user = user};

    slr_clear();
    SLR_TRY(slr_api_given(json, "json", __func__));
    *json = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    return slr_file_check(json, ctx->mem, slr_devices_threads(ctx->devices), path, each != 0,
                          slr_api_tell, &watch);
}

/* --- metadata --- */

int sdlora_metadata_get(sdlora_context *ctx, const char *path, const char *key, char **text)
{
    slr_clear();
    SLR_TRY(slr_api_given(text, "text", __func__));
    *text = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    return slr_metadata_text(text, ctx->mem, path, key);
}

int sdlora_metadata_set(sdlora_context *ctx, const char *path, const char *out,
                        const char *const *keys, const char *const *values, size_t n,
                        sdlora_progress_fn progress, void *user)
{
    slr_api_watch watch = {.fn = progress, .user = user};

    slr_clear();
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    if (n > 0) {
        SLR_TRY(slr_api_given(keys, "keys", __func__));
        SLR_TRY(slr_api_given(values, "values", __func__));
    }
    slr_st_pair *pair = slr_calloc(ctx->mem, n, sizeof *pair);
    int rc = pair ? SDLORA_OK : SDLORA_ENOMEM;
    for (size_t i = 0; i < n && rc >= 0; i++) {
        rc = slr_api_given(keys[i], "keys[i]", __func__);
        pair[i] = (slr_st_pair){keys[i], values[i]};
    }
    if (rc >= 0)
        rc = slr_safetensors_edit(ctx->mem, path, out ? out : path, pair, n, slr_api_tell, &watch);
    slr_free(ctx->mem, pair);
    return rc;
}

int sdlora_metadata_copy(sdlora_context *ctx, const char *from, const char *path, const char *out,
                         const char *prefix, sdlora_progress_fn progress, void *user)
{
    slr_api_watch watch = {.fn = progress, .user = user};
    slr_safetensors *f;
    size_t n = 0;

    slr_clear();
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(from, "from", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    SLR_TRY(slr_safetensors_open(&f, ctx->mem, from, false));
    slr_st_pair *pair = slr_calloc(ctx->mem, slr_safetensors_meta_count(f), sizeof *pair);
    int rc = pair ? SDLORA_OK : SDLORA_ENOMEM;
    for (size_t i = 0; i < slr_safetensors_meta_count(f) && rc >= 0; i++) {
        slr_st_pair p;

        p.key = slr_safetensors_meta_at(f, i, &p.value);
        if (!slr_starts(p.key, "sshs_") && slr_starts(p.key, prefix ? prefix : ""))
            pair[n++] = p;
    }
    if (rc >= 0)
        rc = slr_safetensors_edit(ctx->mem, path, out ? out : path, pair, n, slr_api_tell, &watch);
    slr_free(ctx->mem, pair);
    slr_safetensors_close(f);
    return rc;
}
