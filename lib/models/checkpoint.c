/* SPDX-License-Identifier: MIT */
/* The handle of a model on disk.  Knows which files make one (a single file, or a diffusers folder)
 * and keeps what was found; containers are modelfile.c's, names parts.c's, families detect.c's.
 * Refuses to know graphs. */
#include "models/checkpoint.h"

#include <stdatomic.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "base/thread.h"
#include "io/file.h"
#include "models/checkpoint_part.h"
#include "models/detect.h"
#include "models/parts.h"

#define ALL_PARTS ((1u << SLR_PART_COUNT) - 1)

struct slr_checkpoint {
    slr_mem *m;
    slr_refs refs;
    char *path;
    const slr_family *family;
    slr_traits traits;
    slr_log log;
    _Atomic int probed;   /* SLR_PREDICT_* where traits do not say it; -1: not yet asked */
    _Atomic bool guessed; /* it could not be asked: the family's default */
    const char *layout;
    slr_weights *part[SLR_PART_COUNT];
    slr_bag *bag; /* for metadata; NULL: synthetic */
    bool on_disk; /* its weights are those of a file or folder */
    slr_file_id file;
};

/* A diffusers folder's folders. */
static const struct {
    int part;
    const char *folder, *base;
} COMPONENTS[] = {
    {SLR_PART_UNET, "unet", "diffusion_pytorch_model"},
    {SLR_PART_VAE, "vae", "diffusion_pytorch_model"},
    {SLR_PART_TE, "text_encoder", "model"},
    {SLR_PART_TE, "text_encoder", "pytorch_model"},
    {SLR_PART_TE2, "text_encoder_2", "model"},
    {SLR_PART_TE2, "text_encoder_2", "pytorch_model"},
};

int slr_checkpoint_make(slr_checkpoint **out, slr_mem *m, const char *path,
                        const slr_family *family, const slr_traits *traits, const char *layout)
{
    *out = NULL;
    slr_checkpoint *c = slr_calloc(m, 1, sizeof *c);
    if (!c)
        return SDLORA_ENOMEM;
    c->m = slr_mem_ref(m);
    slr_refs_init(&c->refs);
    c->family = family;
    c->traits = *traits;
    atomic_init(&c->probed, -1);
    atomic_init(&c->guessed, false);
    c->layout = layout;
    c->path = slr_strdup(m, path);
    if (!c->path) {
        slr_checkpoint_unref(c);
        return SDLORA_ENOMEM;
    }
    *out = c;
    return SDLORA_OK;
}

void slr_checkpoint_set_part(slr_checkpoint *c, int part, slr_weights *w)
{
    slr_weights_ref(w);
    slr_weights_unref(c->part[part]);
    c->part[part] = w;
}

/* One component of a folder, if it is there. */
static int add_component(slr_parts *parts, slr_mem *m, const char *path, size_t i)
{
    slr_bag *bag = NULL;
    slr_buf label;
    slr_buf_init(&label, m);
    slr_buf_printf(&label, "%s/%s", slr_path_base(path), COMPONENTS[i].folder);
    char *folder = slr_path_join(m, path, COMPONENTS[i].folder);
    int rc = folder ? slr_buf_ok(&label) : SDLORA_ENOMEM;
    if (rc < 0 || parts->part[COMPONENTS[i].part] || !slr_dir_exists(folder))
        goto done;
    rc = slr_bag_new(&bag, m);
    if (rc == SDLORA_OK)
        rc = slr_bag_add_component(bag, folder, COMPONENTS[i].base);
    if (rc == SDLORA_ENOTFOUND) { /* a folder with a configuration only, or the other base name */
        slr_clear();
        rc = SDLORA_OK;
        goto done;
    }
    if (rc == SDLORA_OK)
        rc = slr_parts_sort(parts, m, bag, label.data, 1u << COMPONENTS[i].part, COMPONENTS[i].part,
                            false);
done:
    slr_bag_free(bag);
    slr_buf_free(&label);
    slr_free(m, folder);
    return rc;
}

static int read_parts(slr_parts *parts, slr_bag *bag, slr_mem *m, const char *path, bool use_ema)
{
    if (!slr_dir_exists(path)) {
        SLR_TRY(slr_bag_add_file(bag, path));
        return slr_parts_sort(parts, m, bag, slr_path_base(path), ALL_PARTS, SLR_PART_TE, use_ema);
    }
    for (size_t i = 0; i < sizeof COMPONENTS / sizeof *COMPONENTS; i++)
        SLR_TRY(add_component(parts, m, path, i));
    for (int part = 0; part < SLR_PART_COUNT; part++)
        if (parts->part[part])
            return SDLORA_OK;
    return slr_fail(SDLORA_EFORMAT, __func__,
                    "%s is a folder without a diffusers model (unet/, vae/, text_encoder/)", path);
}

static const char *layout_of(const slr_parts *parts, const char *path)
{
    int unet = parts->spelling[SLR_PART_UNET];
    if (slr_dir_exists(path))
        return "diffusers";
    return unet == SLR_SPELL_LDM ? "ldm" : unet == SLR_SPELL_OURS ? "diffusers file" : "part";
}

static void report(const slr_checkpoint *c, const slr_parts *parts,
                   const slr_checkpoint_config *config)
{
    bool needed[SLR_PART_COUNT] = {[SLR_PART_UNET] = true, [SLR_PART_VAE] = true};
    slr_logf(&config->log, SLR_LOG_INFO, "%s: %s%s, layout %s, %zu other tensors", c->path,
             c->family->title,
             c->traits.inpaint ? " for inpainting"
             : c->traits.edit  ? " for editing"
                               : "",
             c->layout, parts->n_other);
    for (int i = 0; i < c->family->n_text; i++)
        needed[c->family->text[i].part] = true;
    for (int part = 0; part < SLR_PART_COUNT; part++)
        if (needed[part] && !c->part[part])
            slr_logf(&config->log, SLR_LOG_WARN, "%s has no %s", c->path, slr_part_name(part));
    const char *gap = c->part[SLR_PART_UNET] ? slr_detect_gap(c->part[SLR_PART_UNET]) : NULL;
    if (gap)
        slr_logf(&config->log, SLR_LOG_WARN,
                 "%s: the UNet has no %s, which no pruned form that is known lacks so: the file "
                 "may be incomplete",
                 c->path, gap);
    if (config->use_ema && parts->n_ema == 0)
        slr_logf(&config->log, SLR_LOG_WARN, "%s has no EMA weights; its plain ones are used",
                 c->path);
    else if (config->use_ema)
        slr_logf(&config->log, SLR_LOG_INFO, "%s: %zu UNet tensors are EMA weights", c->path,
                 parts->n_ema);
}

/* OpenCLIP's last layer conditions nothing in SD 2, and diffusers leaves it out: it is left out of
 * other files too, so that the states of all are those of the last layer.  Files that were written
 * of a folder lack it under any names. */
static int trim_text(slr_parts *parts, slr_mem *m)
{
    enum { STORED = 24 };
    slr_weights *w = parts->part[SLR_PART_TE], *kept;
    char name[192];
    int n = 0;
    while (w && slr_nn_has(w, slr_nn_path(name, "text_model.encoder.layers.%d.mlp.fc1", n)))
        n++;
    bool open = parts->spelling[SLR_PART_TE] == SLR_SPELL_OPEN;
    if (n < 2 || n == STORED - 1 || (n != STORED && !open))
        return SDLORA_OK;
    slr_nn_path(name, "text_model.encoder.layers.%d.", n - 1);
    SLR_TRY(slr_weights_new(&kept, m, slr_weights_label(w)));
    int rc = SDLORA_OK;
    for (size_t i = 0; i < slr_weights_count(w) && rc == SDLORA_OK; i++) {
        const slr_tensor *t;
        const char *is = slr_weights_at(w, i, &t);
        if (!slr_starts(is, name))
            rc = slr_weights_put(kept, is, t);
    }
    if (rc < 0) {
        slr_weights_unref(kept);
        return rc;
    }
    slr_weights_unref(w);
    parts->part[SLR_PART_TE] = kept;
    return SDLORA_OK;
}

static int read_traits(slr_traits *out, const slr_checkpoint_config *config,
                       const slr_family *family, const slr_parts *parts, const slr_bag *bag,
                       const char *path)
{
    SLR_TRY(slr_detect_traits(out, config->mem, family, parts->part[SLR_PART_UNET], bag, path,
                              config->predict));
    out->limits = (slr_probe_limits){config->threads, config->cpu_off};
    if (config->ztsnr)
        out->ztsnr = config->ztsnr > 0;
    return SDLORA_OK;
}

int slr_checkpoint_open(slr_checkpoint **out, const char *path, const slr_checkpoint_config *config)
{
    slr_mem *m = config->mem;
    slr_parts parts = {0};
    slr_checkpoint *c = NULL;
    slr_bag *bag = NULL;
    const slr_family *family = NULL;
    slr_traits traits;
    *out = NULL;
    int rc = slr_bag_new(&bag, m);
    if (rc == SDLORA_OK)
        rc = read_parts(&parts, bag, m, path, config->use_ema);
    if (rc == SDLORA_OK)
        rc = slr_detect_family(&family, &parts, bag, path);
    if (rc == SDLORA_OK)
        slr_detect_settle(&parts, family);
    if (rc == SDLORA_OK && family->id == SLR_FAMILY_SD2)
        rc = trim_text(&parts, m);
    if (rc == SDLORA_OK)
        rc = read_traits(&traits, config, family, &parts, bag, path);
    if (rc == SDLORA_OK)
        rc = slr_checkpoint_make(&c, m, path, family, &traits, layout_of(&parts, path));
    if (rc == SDLORA_OK) {
        for (int part = 0; part < SLR_PART_COUNT; part++)
            slr_checkpoint_set_part(c, part, parts.part[part]);
        c->bag = bag;
        bag = NULL;
        c->on_disk = slr_path_identify(path, &c->file);
        c->log = config->log;
        report(c, &parts, config);
        *out = c;
    }
    slr_parts_drop(&parts);
    slr_bag_free(bag);
    return rc;
}

slr_checkpoint *slr_checkpoint_ref(slr_checkpoint *c)
{
    if (c)
        slr_refs_get(&c->refs);
    return c;
}

void slr_checkpoint_unref(slr_checkpoint *c)
{
    if (!c || !slr_refs_put(&c->refs))
        return;
    slr_mem *m = c->m;
    for (int part = 0; part < SLR_PART_COUNT; part++)
        slr_weights_unref(c->part[part]);
    slr_bag_free(c->bag);
    slr_free(m, c->path);
    slr_free(m, c);
    slr_mem_unref(m);
}

slr_mem *slr_checkpoint_mem(const slr_checkpoint *c)
{
    return c->m;
}

const char *slr_checkpoint_path(const slr_checkpoint *c)
{
    return c->path;
}

bool slr_checkpoint_same(const slr_checkpoint *a, const slr_checkpoint *b)
{
    return a == b || (a->on_disk && b->on_disk && slr_file_same(&a->file, &b->file));
}

bool slr_checkpoint_on_disk(const slr_checkpoint *c)
{
    return c->on_disk;
}

const slr_family *slr_checkpoint_family(const slr_checkpoint *c)
{
    return c->family;
}

int slr_checkpoint_predict(const slr_checkpoint *c)
{
    slr_checkpoint *asked = (slr_checkpoint *)c; /* what it is does not change */
    int predict = c->traits.predict >= 0 ? c->traits.predict : atomic_load(&asked->probed);
    if (predict >= 0)
        return predict;
    /* two threads may ask at once, and hear the same */
    if (!c->part[SLR_PART_UNET] ||
        slr_probe_predict(&predict, c->m, c->family, c->part[SLR_PART_UNET], &c->traits.limits) <
            0) {
        predict = c->family->predict;
        if (c->part[SLR_PART_UNET])
            slr_logf(&c->log, SLR_LOG_WARN,
                     "%s does not say what it predicts and its UNet could not be asked (%s): it is "
                     "taken for one of %s; prediction_type tells otherwise",
                     c->path, sdlora_last_error()->message,
                     predict == SLR_PREDICT_V ? "v" : "epsilon");
        slr_clear();
        atomic_store(&asked->guessed, true);
    }
    atomic_store(&asked->probed, predict);
    return predict;
}

const slr_traits *slr_checkpoint_traits(const slr_checkpoint *c)
{
    return &c->traits;
}

const char *slr_checkpoint_predict_source(const slr_checkpoint *c)
{
    if (c->traits.predict >= 0)
        return c->traits.source;
    slr_checkpoint *asked = (slr_checkpoint *)c;
    if (atomic_load(&asked->probed) < 0)
        return NULL;
    return atomic_load(&asked->guessed) ? "its family" : "a run of its UNet";
}

bool slr_checkpoint_ztsnr(const slr_checkpoint *c)
{
    return c->traits.ztsnr;
}

bool slr_checkpoint_inpaint(const slr_checkpoint *c)
{
    return c->traits.inpaint;
}

bool slr_checkpoint_edit(const slr_checkpoint *c)
{
    return c->traits.edit;
}

slr_weights *slr_checkpoint_part(const slr_checkpoint *c, int part)
{
    return part >= 0 && part < SLR_PART_COUNT ? c->part[part] : NULL;
}

const slr_bag *slr_checkpoint_bag(const slr_checkpoint *c)
{
    return c->bag;
}

const char *slr_checkpoint_metadata(const slr_checkpoint *c, const char *key)
{
    return c->bag ? slr_bag_meta(c->bag, key) : NULL;
}

const char *slr_checkpoint_layout(const slr_checkpoint *c)
{
    return c->layout;
}

/* The folder's vae/ if it has one, or the folder itself. */
static int add_vae_folder(slr_bag *bag, slr_mem *m, const char *path)
{
    char *inner = slr_path_join(m, path, "vae");
    if (!inner)
        return SDLORA_ENOMEM;
    int rc =
        slr_bag_add_component(bag, slr_dir_exists(inner) ? inner : path, "diffusion_pytorch_model");
    slr_free(m, inner);
    return rc;
}

int slr_vae_weights_open(slr_weights **out, const char *path, const slr_checkpoint_config *config)
{
    slr_mem *m = config->mem;
    slr_parts parts = {0};
    slr_bag *bag = NULL;
    *out = NULL;
    int rc = slr_bag_new(&bag, m);
    if (rc == SDLORA_OK)
        rc = slr_dir_exists(path) ? add_vae_folder(bag, m, path) : slr_bag_add_file(bag, path);
    if (rc == SDLORA_OK)
        rc = slr_parts_sort(&parts, m, bag, slr_path_base(path), 1u << SLR_PART_VAE, SLR_PART_TE,
                            false);
    if (rc == SDLORA_OK && !parts.part[SLR_PART_VAE])
        rc = slr_fail(SDLORA_EFORMAT, __func__, "%s: none of its %zu tensors is of an autoencoder",
                      path, slr_bag_count(bag));
    if (rc == SDLORA_OK)
        *out = slr_weights_ref(parts.part[SLR_PART_VAE]);
    slr_parts_drop(&parts);
    slr_bag_free(bag);
    return rc;
}
