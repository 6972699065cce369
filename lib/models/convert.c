/* SPDX-License-Identifier: MIT */
/* Converting and pruning model files.  Knows which tensors of a file are no weights of the model
 * and what becomes of them, where averages stand in, and in which order files appear; bytes are
 * outfile.c's, other layouts relayout.c's and dfconfig.c's.  Refuses to know graphs. */
#include "models/convert.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "models/detect.h"
#include "models/outfile.h"

#define ALL_PARTS ((1u << SLR_PART_COUNT) - 1)

/* ---- opening ---- */

static const struct {
    int part;
    const char *folder, *base[2];
} COMPONENTS[] = {
    {SLR_PART_UNET, "unet", {"diffusion_pytorch_model", NULL}},
    {SLR_PART_VAE, "vae", {"diffusion_pytorch_model", NULL}},
    {SLR_PART_TE, "text_encoder", {"model", "pytorch_model"}},
    {SLR_PART_TE2, "text_encoder_2", {"model", "pytorch_model"}},
};

static int open_component(slr_converting *c, size_t i)
{
    int part = COMPONENTS[i].part, rc = SDLORA_ENOTFOUND;
    char *folder = slr_path_join(c->m, c->in, COMPONENTS[i].folder);
    if (!folder)
        return SDLORA_ENOMEM;
    if (slr_dir_exists(folder)) {
        rc = slr_bag_new(&c->folder[part], c->m);
        for (int k = 0; k < 2 && rc == SDLORA_OK && COMPONENTS[i].base[k]; k++) {
            rc = slr_bag_add_component(c->folder[part], folder, COMPONENTS[i].base[k]);
            if (rc != SDLORA_ENOTFOUND || k == 1 || !COMPONENTS[i].base[1])
                break;
            rc = SDLORA_OK;
        }
        if (rc == SDLORA_OK)
            rc = slr_parts_sort(&c->parts, c->m, c->folder[part], folder, 1u << part, part, false);
    }
    slr_free(c->m, folder);
    if (rc == SDLORA_ENOTFOUND) { /* none, or a configuration only */
        slr_clear();
        rc = SDLORA_OK;
    }
    return rc;
}

static int open_vae(slr_converting *c)
{
    const char *path = c->config->vae, *label = slr_path_base(path);
    SLR_TRY(slr_bag_new(&c->vae_bag, c->m));
    if (slr_dir_exists(path)) {
        char *inner = slr_path_join(c->m, path, "vae");
        int rc = inner ? slr_bag_add_component(c->vae_bag, slr_dir_exists(inner) ? inner : path,
                                               "diffusion_pytorch_model")
                       : SDLORA_ENOMEM;
        slr_free(c->m, inner);
        SLR_TRY(rc);
    } else {
        SLR_TRY(slr_bag_add_file(c->vae_bag, path));
    }
    SLR_TRY(
        slr_parts_sort(&c->vae, c->m, c->vae_bag, label, 1u << SLR_PART_VAE, SLR_PART_TE, false));
    if (c->vae.part[SLR_PART_VAE])
        return SDLORA_OK;
    return slr_fail(SDLORA_EFORMAT, __func__, "%s: none of its %zu tensors is of an autoencoder",
                    path, slr_bag_count(c->vae_bag));
}

/* The given autoencoder has the tensors and sizes of the one it replaces. */
static int check_vae(const slr_converting *c)
{
    const slr_weights *old = c->parts.part[SLR_PART_VAE], *new = c->vae.part[SLR_PART_VAE];
    for (size_t i = 0; old && i < slr_weights_count(old); i++) {
        const slr_tensor *was, *is;
        const char *name = slr_weights_at(old, i, &was);
        SLR_TRY(slr_weights_get(new, name, &is));
        if (slr_tensor_count(was) != slr_tensor_count(is)) {
            char a[96], b[96];
            return slr_fail(SDLORA_EINVAL, __func__, "%s: %s is %s, the model's is %s",
                            c->config->vae, name, slr_shape_text(is->dim, is->rank, a),
                            slr_shape_text(was->dim, was->rank, b));
        }
    }
    return SDLORA_OK;
}

/* Files that are more than their tensors. */
static int check_names(const slr_converting *c)
{
    for (size_t i = 0; c->config->refuse && i < slr_bag_count(c->bag); i++) {
        const char *why = c->config->refuse(slr_bag_at(c->bag, i, NULL));
        if (why)
            return slr_fail(SDLORA_ENOTSUP, __func__, "%s is %s", c->in, why);
    }
    return SDLORA_OK;
}

static int read_traits(slr_converting *c)
{
    const slr_weights *unet = c->parts.part[SLR_PART_UNET];
    slr_traits traits;
    SLR_TRY(slr_detect_traits(&traits, c->m, c->family, unet, c->bag, c->in, -1));
    c->ztsnr = traits.ztsnr;
    c->predict = traits.predict;
    return SDLORA_OK;
}

static int open_input(slr_converting *c)
{
    bool folder = slr_dir_exists(c->in);
    c->parts.keep_types = c->vae.keep_types = true;
    SLR_TRY(slr_bag_new(&c->bag, c->m));
    if (folder) {
        for (size_t i = 0; i < sizeof COMPONENTS / sizeof *COMPONENTS; i++)
            SLR_TRY(open_component(c, i));
    } else {
        SLR_TRY(slr_bag_add_file(c->bag, c->in));
        SLR_TRY(check_names(c));
        SLR_TRY(slr_parts_sort(&c->parts, c->m, c->bag, slr_path_base(c->in), ALL_PARTS,
                               SLR_PART_TE, c->config->ema == SLR_EMA_USE));
    }
    if (c->config->vae) {
        SLR_TRY(open_vae(c));
        SLR_TRY(check_vae(c));
    }
    /* a file of no family (an upscaler, an embedding) may still change its container and types */
    int rc = slr_detect_family(&c->family, &c->parts, c->bag, c->in);
    if (rc == SDLORA_EFORMAT || rc == SDLORA_ENOTSUP) {
        c->family = NULL;
        return SDLORA_OK;
    }
    SLR_TRY(rc);
    slr_detect_settle(&c->parts, c->family);
    return read_traits(c);
}

static void close_input(slr_converting *c)
{
    slr_parts_drop(&c->parts);
    slr_parts_drop(&c->vae);
    slr_bag_free(c->bag);
    slr_bag_free(c->vae_bag);
    for (int part = 0; part < SLR_PART_COUNT; part++)
        slr_bag_free(c->folder[part]);
}

/* ---- metadata ---- */

static int add_meta(slr_outfile *f, const slr_converting *c)
{
    size_t n = slr_bag_meta_count(c->bag);
    for (size_t i = 0; i < n; i++) {
        const char *value, *key = slr_bag_meta_at(c->bag, i, &value);
        if (strcmp(key, "modelspec.hash_sha256") != 0) /* of the old file */
            SLR_TRY(slr_outfile_meta(f, key, value));
    }
    return slr_outfile_meta(f, "format", "pt"); /* transformers opens no file without */
}

/* ---- writing ---- */

static int finish_file(slr_converting *c, slr_outfile *f, const char *path, slr_out_progress *p,
                       slr_converted *r)
{
    slr_out_report report = {0};
    uint64_t bytes = 0;
    SLR_TRY(slr_outfile_write(f, path, c->config->verify, p, &report));
    if (report.overflows && !r->overflows)
        memcpy(r->first_overflow, report.first, sizeof report.first);
    r->overflows += report.overflows;
    r->tensors += slr_outfile_count(f);
    SLR_TRY(slr_file_size(path, &bytes));
    r->bytes_out += bytes;
    return SDLORA_OK;
}

static void plan_progress(slr_out_progress *p, const slr_converting *c, uint64_t bytes)
{
    *p = (slr_out_progress){.fn = c->config->phase,
                            .user = c->config->phase_user,
                            .total = c->config->verify ? 2 * bytes : bytes};
}

static int write_file(slr_converting *c, bool as_named, slr_converted *r)
{
    slr_outfile *f;
    slr_out_progress p;
    if (!slr_ends(c->out, ".safetensors"))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s: a model is written as a .safetensors file, or as a folder with "
                        "layout=diffusers",
                        c->out);
    SLR_TRY(slr_outfile_new(&f, c->m));
    int rc = as_named ? slr_fill_as_named(f, c, r) : slr_relayout_ldm(f, c);
    if (rc == SDLORA_OK)
        rc = add_meta(f, c);
    if (rc == SDLORA_OK && slr_outfile_count(f) == 0)
        rc = slr_fail(SDLORA_EFORMAT, __func__, "%s: nothing of it would be left", c->in);
    if (rc == SDLORA_OK) {
        plan_progress(&p, c, slr_outfile_bytes(f));
        rc = finish_file(c, f, c->out, &p, r);
    }
    slr_outfile_free(f);
    return rc;
}

static int fill_component(slr_outfile *f, slr_converting *c, int part)
{
    SLR_TRY(slr_relayout_part(f, c, part));
    return slr_outfile_meta(f, "format", "pt");
}

static int write_component(slr_converting *c, slr_outfile *f, const char *temp, size_t i,
                           slr_out_progress *p, slr_converted *r)
{
    char *folder = slr_path_join(c->m, temp, COMPONENTS[i].folder);
    slr_buf path;
    slr_buf_init(&path, c->m);
    slr_buf_printf(&path, "%s/%s.safetensors", folder ? folder : "", COMPONENTS[i].base[0]);
    int rc = folder ? slr_buf_ok(&path) : SDLORA_ENOMEM;
    if (rc == SDLORA_OK)
        rc = slr_dir_make(folder);
    if (rc == SDLORA_OK)
        rc = finish_file(c, f, path.data, p, r);
    slr_buf_free(&path);
    slr_free(c->m, folder);
    return rc;
}

static int write_folder(slr_converting *c, slr_converted *r)
{
    enum { N = sizeof COMPONENTS / sizeof *COMPONENTS };
    slr_outfile *f[N] = {0};
    slr_out_progress p;
    char *temp = NULL;
    uint64_t bytes = 0;
    int rc = SDLORA_OK;
    for (size_t i = 0; i < N && rc == SDLORA_OK; i++) {
        if (!c->parts.part[COMPONENTS[i].part])
            continue;
        rc = slr_outfile_new(&f[i], c->m);
        if (rc == SDLORA_OK)
            rc = fill_component(f[i], c, COMPONENTS[i].part);
        bytes += rc == SDLORA_OK ? slr_outfile_bytes(f[i]) : 0;
    }
    plan_progress(&p, c, bytes);
    if (rc == SDLORA_OK)
        rc = slr_dir_stage(&temp, c->m, c->out);
    for (size_t i = 0; i < N && rc == SDLORA_OK; i++)
        if (f[i])
            rc = write_component(c, f[i], temp, i, &p, r);
    if (rc == SDLORA_OK)
        rc = slr_write_df_configs(c, temp);
    if (rc == SDLORA_OK)
        rc = slr_dir_commit(c->m, &temp, c->out);
    else
        slr_dir_abandon(c->m, &temp);
    for (size_t i = 0; i < N; i++)
        slr_outfile_free(f[i]);
    return rc;
}

/* An LDM file whose names are already what a conversion would give. */
static bool is_plain_ldm(const slr_converting *c)
{
    const slr_parts *p = &c->parts;
    return p->spelling[SLR_PART_UNET] == SLR_SPELL_LDM &&
           strcmp(p->prefix[SLR_PART_UNET], "model.diffusion_model.") == 0 &&
           p->spelling[SLR_PART_TE] != SLR_SPELL_NAI &&
           (!p->part[SLR_PART_VAE] || strcmp(p->prefix[SLR_PART_VAE], "first_stage_model.") == 0);
}

/* Everything under canonical names: averages are in or out by now. */
static int prepare_parts(slr_converting *c, slr_converted *r)
{
    if (!c->family)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s is no Stable Diffusion model that this library knows, so it has no "
                        "other layout",
                        c->in);
    if (c->vae_bag) {
        slr_weights_unref(c->parts.part[SLR_PART_VAE]);
        c->parts.part[SLR_PART_VAE] = slr_weights_ref(c->vae.part[SLR_PART_VAE]);
    }
    slr_note_dropped(c, r);
    r->n_ema = c->parts.n_ema;
    return SDLORA_OK;
}

static uint64_t bytes_of(const slr_bag *bag)
{
    uint64_t bytes = 0;
    for (size_t i = 0; bag && i < slr_bag_count(bag); i++) {
        slr_tensor t;
        slr_bag_at(bag, i, &t);
        bytes += slr_dtype(t.dtype) ? slr_tensor_bytes(&t) : 0;
    }
    return bytes;
}

static int run(slr_converting *c, slr_converted *r)
{
    bool folder = slr_dir_exists(c->in);
    int layout = c->config->layout;
    SLR_TRY(open_input(c));
    if (c->config->ema == SLR_EMA_USE && c->parts.n_ema == 0)
        return slr_fail(SDLORA_ENOTFOUND, __func__, "%s has no averaged weights (model_ema.*)",
                        c->in);
    if (layout == SLR_LAYOUT_KEEP && folder)
        layout = SLR_LAYOUT_DIFFUSERS;
    bool as_named =
        layout == SLR_LAYOUT_KEEP || (layout == SLR_LAYOUT_LDM && !folder && is_plain_ldm(c));
    r->layout = layout == SLR_LAYOUT_DIFFUSERS ? "diffusers"
                : !as_named || is_plain_ldm(c) ? "ldm"
                                               : "as named";
    if (!as_named)
        SLR_TRY(prepare_parts(c, r));
    r->bytes_in = bytes_of(c->bag);
    for (int part = 0; part < SLR_PART_COUNT; part++)
        r->bytes_in += bytes_of(c->folder[part]);
    return layout == SLR_LAYOUT_DIFFUSERS ? write_folder(c, r) : write_file(c, as_named, r);
}

int slr_model_convert(char **json, const char *in, const char *out,
                      const slr_convert_config *config)
{
    slr_mem *m = config->mem;
    *json = NULL;
    slr_converting *c = slr_calloc(m, 1, sizeof *c);
    slr_converted *r = slr_calloc(m, 1, sizeof *r);
    int rc = c && r ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc == SDLORA_OK) {
        *c = (slr_converting){.config = config, .m = m, .in = in, .out = out};
        rc = run(c, r);
        if (rc == SDLORA_OK && r->overflows)
            slr_logf(&config->log, SLR_LOG_WARN,
                     "%s: %llu values became infinite, the first in %s: they do not fit the type",
                     out, (unsigned long long)r->overflows, r->first_overflow);
        if (rc == SDLORA_OK)
            rc = slr_converted_json(json, c, r);
        close_input(c);
    }
    slr_free(m, r);
    slr_free(m, c);
    return rc;
}
