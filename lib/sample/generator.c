/* SPDX-License-Identifier: MIT */
/* What lives from one run to the next: models, embeddings.  A run is run.c's. */
#include "sample/generator_impl.h"

#include "base/status.h"
#include "networks/embedding.h"

static int make(slr_generator *g, slr_checkpoint *base, slr_weights *vae, const char *vae_path,
                slr_bpe *bpe)
{
    slr_vae_runner *coder;
    slr_model **model = &g->model[SLR_ROLE_BASE];
    if (bpe)
        g->bpe = slr_bpe_ref(bpe);
    else
        SLR_TRY(slr_bpe_new(&g->bpe, g->m));
    SLR_TRY(slr_model_new(model, g->m, base, g->devices, g->bpe));
    SLR_TRY(slr_model_set_vae(*model, vae, vae_path));
    return slr_model_coder(*model, &coder); /* an autoencoder that can't be one is told now */
}

static int no_vae(const slr_checkpoint *base)
{
    return slr_fail(SDLORA_EINVAL, __func__, "%s has no VAE: give one", slr_checkpoint_path(base));
}

int slr_generator_new(slr_generator **out, slr_mem *m, slr_log log, slr_checkpoint *base,
                      slr_weights *vae, const char *vae_path, slr_devices *devices, slr_bpe *bpe)
{
    *out = NULL;
    if (!vae && !slr_checkpoint_part(base, SLR_PART_VAE))
        return no_vae(base);
    slr_generator *g = slr_calloc(m, 1, sizeof *g);
    if (!g)
        return SDLORA_ENOMEM;
    g->m = m;
    g->known.m = m;
    g->log = log;
    g->devices = slr_devices_ref(devices);
    int rc = make(g, base, vae, vae_path, bpe);
    if (rc < 0) {
        slr_generator_free(g);
        return rc;
    }
    *out = g;
    return SDLORA_OK;
}

int slr_generator_set_vae(slr_generator *g, int role, slr_weights *vae, const char *path)
{
    slr_model *model = g->model[role];
    if (!model)
        return SDLORA_OK;
    if (role == SLR_ROLE_BASE && !vae && !slr_checkpoint_part(model->base, SLR_PART_VAE))
        return no_vae(model->base);
    return slr_model_set_vae(model, vae, path);
}

slr_weights *slr_generator_vae(const slr_generator *g, int role, const char **path)
{
    const slr_model *model = g->model[role];
    *path = model ? model->vae_path : NULL;
    return model ? model->vae : NULL;
}

void slr_generator_rest(slr_generator *g)
{
    slr_upscaler_free(g->upscaler);
    g->upscaler = NULL;
    for (int role = 0; role < SLR_ROLES; role++)
        if (g->model[role])
            slr_model_rest(g->model[role]);
}

void slr_generator_free(slr_generator *g)
{
    if (!g)
        return;
    slr_upscaler_free(g->upscaler);
    slr_free(g->m, g->upscaler_name);
    for (int role = 0; role < SLR_ROLES; role++)
        slr_model_unref(g->model[role]);
    slr_known_free(&g->known);
    slr_bpe_unref(g->bpe);
    slr_devices_unref(g->devices);
    slr_free(g->m, g);
}

void slr_generator_set_finder(slr_generator *g, slr_find_network_fn fn, void *user)
{
    g->find = fn;
    g->find_user = user;
}

int slr_generator_add_embedding(slr_generator *g, slr_network *embedding)
{
    slr_require(slr_network_is_embedding(embedding));
    return slr_known_add(&g->known, embedding);
}

slr_network *const *slr_generator_embeddings(const slr_generator *g, size_t *n)
{
    *n = g->known.n;
    return g->known.at;
}

void slr_generator_set_hasher(slr_generator *g, slr_hash_fn fn, void *user)
{
    g->hash = fn;
    g->hash_user = user;
}

/* A reference to the model that a checkpoint has in a role already, or a new one. */
static int model_of(slr_generator *g, slr_checkpoint *ckpt, slr_model **out)
{
    const slr_model *base = g->model[SLR_ROLE_BASE];
    for (int role = 0; role < SLR_ROLES; role++)
        if (g->model[role] && g->model[role]->base == ckpt) {
            *out = slr_model_ref(g->model[role]);
            return SDLORA_OK;
        }
    SLR_TRY(slr_model_new(out, g->m, ckpt, g->devices, g->bpe));
    if (slr_denoiser_shape((*out)->denoiser)->out_channels ==
        slr_denoiser_shape(base->denoiser)->out_channels)
        return SDLORA_OK;
    slr_model_unref(*out);
    return slr_fail(SDLORA_EINVAL, __func__, "%s and %s do not share their latents",
                    slr_checkpoint_path(ckpt), slr_checkpoint_path(base->base));
}

int slr_generator_set_model(slr_generator *g, int role, slr_checkpoint *ckpt)
{
    slr_model *model = NULL;
    slr_require(role != SLR_ROLE_BASE);
    if (ckpt)
        SLR_TRY(model_of(g, ckpt, &model));
    slr_model_unref(g->model[role]);
    g->model[role] = model;
    return SDLORA_OK;
}

void slr_picture_free(slr_mem *m, slr_picture *p)
{
    slr_free(m, p->pixels.data);
    slr_free(m, p->infotext);
    slr_free(m, p->latents);
    *p = (slr_picture){0};
}
