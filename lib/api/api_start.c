/* SPDX-License-Identifier: MIT */
/* Pictures, masks, VAEs and upscalers of a generator.  Knows which file a name
 * means for this checkpoint; what becomes of pictures is the room sample's. */
#include "api/start.h"

#include <string.h>

#include "api/generator.h"
#include "base/status.h"
#include "models/checkpoint.h"
#include "sample/latents.h"
#include "sample/upscaler.h"

void slr_api_start_init(slr_api_start *s, slr_mem *m)
{
    slr_folders_init(&s->vaes, m);
    slr_folders_init(&s->upscalers, m);
    slr_folders_init(&s->ckpts, m);
}

void slr_api_start_free(slr_api_start *s, slr_mem *m)
{
    slr_free(m, s->init.data);
    slr_free(m, s->mask.data);
    slr_folders_free(&s->vaes);
    slr_folders_free(&s->upscalers);
    slr_folders_free(&s->ckpts);
    for (int role = 0; role < SLR_ROLES; role++)
        slr_api_other_free(&s->other[role], m);
    slr_free(m, s->upscaler_path);
}

/* A copy that stands upright, RGBA where the image is transparent. */
static int upright(slr_pixels *out, slr_mem *m, const sdlora_image *img)
{
    const slr_pixels *p = &img->pixels;
    size_t n = (size_t)p->width * (size_t)p->height, c = img->alpha ? 4 : 3;

    *out = (slr_pixels){p->width, p->height, (int32_t)c, slr_calloc(m, n, c)};
    if (!out->data)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        memcpy(out->data + i * c, p->data + i * 3, 3);
        if (img->alpha)
            out->data[i * c + 3] = img->alpha[i];
    }
    int rc = img->orientation > 1 ? slr_image_orient(m, out, img->orientation) : SDLORA_OK;
    if (rc < 0) {
        slr_free(m, out->data);
        *out = (slr_pixels){0};
    }
    return rc;
}

static int set_picture(sdlora_generator *g, slr_pixels *at, const sdlora_image *img)
{
    slr_mem *m = g->ckpt->ctx->mem;
    slr_pixels copy = {0};

    if (img)
        SLR_TRY(upright(&copy, m, img));
    slr_free(m, at->data);
    *at = copy;
    return SDLORA_OK;
}

int sdlora_generator_set_init_image(sdlora_generator *g, const sdlora_image *image)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    return set_picture(g, &g->start.init, image);
}

int sdlora_generator_set_mask(sdlora_generator *g, const sdlora_image *mask)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    return set_picture(g, &g->start.mask, mask);
}

int sdlora_generator_add_vae_dir(sdlora_generator *g, const char *dir)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    SLR_TRY(slr_api_given(dir, "dir", __func__));
    return slr_folders_add(&g->start.vaes, dir);
}

int sdlora_generator_add_upscaler_dir(sdlora_generator *g, const char *dir)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    SLR_TRY(slr_api_given(dir, "dir", __func__));
    return slr_folders_add(&g->start.upscalers, dir);
}

int sdlora_generator_add_ckpt_dir(sdlora_generator *g, const char *dir)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    SLR_TRY(slr_api_given(dir, "dir", __func__));
    return slr_folders_add(&g->start.ckpts, dir);
}

/* The VAE of a file, which some role may have already, so that it is packed once. */
static int open_vae(slr_weights **out, const sdlora_generator *g, const char *path)
{
    sdlora_context *ctx = g->ckpt->ctx;
    slr_checkpoint_config config = {.mem = ctx->mem, .log = ctx->log, .predict = -1};

    for (int role = 0; role < SLR_ROLES; role++) {
        const char *its;
        slr_weights *vae = slr_generator_vae(g->gen, role, &its);
        if (vae && its && slr_path_same(its, path)) {
            *out = slr_weights_ref(vae);
            return SDLORA_OK;
        }
    }
    return slr_vae_weights_open(out, path, &config);
}

/* path NULL: the checkpoint's own VAE. */
static int use_vae(sdlora_generator *g, int role, const char *path)
{
    slr_weights *vae = NULL;

    if (path)
        SLR_TRY(open_vae(&vae, g, path));
    int rc = slr_generator_set_vae(g->gen, role, vae, path);
    slr_weights_unref(vae);
    return rc;
}

/* The checkpoint that has a role; NULL: none. */
static const slr_checkpoint *checkpoint_of(const sdlora_generator *g, int role)
{
    const slr_api_other *c = &g->start.other[role];
    const sdlora_checkpoint *of = role == SLR_ROLE_BASE ? g->ckpt : c->given ? c->given : c->named;

    return of ? of->base : NULL;
}

static int choose_vae(sdlora_generator *g, int role, const char *setting)
{
    const slr_checkpoint *ckpt = checkpoint_of(g, role);
    char *path;

    if (!ckpt)
        return SDLORA_OK;
    SLR_TRY(slr_folders_vae(&g->start.vaes, setting, slr_checkpoint_path(ckpt), &path));
    int rc = use_vae(g, role, path);
    slr_free(g->ckpt->ctx->mem, path);
    return rc;
}

/* Each checkpoint has a VAE by the option's rule, as AUTOMATIC1111 loads them;
 * one that the generator was made with beats the option. */
static int choose_vaes(sdlora_generator *g, const char *setting)
{
    for (int role = 0; role < SLR_ROLES; role++)
        if (!g->vae)
            SLR_TRY(choose_vae(g, role, setting));
        else if (role != SLR_ROLE_BASE)
            SLR_TRY(slr_generator_set_vae(g->gen, role, g->vae->weights, g->vae->path));
    return SDLORA_OK;
}

static int choose_upscaler(sdlora_generator *g, const char *name)
{
    char *path;

    SLR_TRY(slr_folders_named(&g->start.upscalers, "upscaler", name, &path));
    slr_free(g->ckpt->ctx->mem, g->start.upscaler_path);
    g->start.upscaler_path = path;
    return SDLORA_OK;
}

int slr_api_start_request(slr_request *r, sdlora_generator *g, slr_opt o)
{
    const char *upscaler = r->set.hr_upscaler;

    r->init = g->start.init.data ? &g->start.init : NULL;
    r->mask = g->start.mask.data ? &g->start.mask : NULL;
    SLR_TRY(slr_api_other_choose(g, SLR_ROLE_REFINER, o));
    SLR_TRY(slr_api_other_choose(g, SLR_ROLE_SECOND, o));
    SLR_TRY(choose_vaes(g, slr_opt_text(o, "sd_vae")));
    if (!r->set.hr || !upscaler || !*upscaler || slr_latent_find(upscaler) ||
        slr_upscaler_is_plain(upscaler))
        return SDLORA_OK;
    SLR_TRY(choose_upscaler(g, upscaler));
    r->upscaler_path = g->start.upscaler_path;
    return SDLORA_OK;
}
