/* SPDX-License-Identifier: MIT */
/* What lives from one run to the next: models, autoencoder, embeddings.  A run is run.c's. */
#include "sample/generator_impl.h"

#include "base/status.h"
#include "networks/embedding.h"

static int open_decoder(slr_generator *g)
{
    return slr_vae_runner_new(&g->decoder, g->vae, slr_checkpoint_family(g->model->base),
                              g->devices);
}

static int make(slr_generator *g, slr_checkpoint *base, const char *vae_path, slr_bpe *bpe)
{
    if (vae_path && !(g->vae_path = slr_strdup(g->m, vae_path)))
        return SDLORA_ENOMEM;
    if (bpe)
        g->bpe = slr_bpe_ref(bpe);
    else
        SLR_TRY(slr_bpe_new(&g->bpe, g->m));
    SLR_TRY(slr_model_new(&g->model, g->m, base, g->devices, g->bpe));
    return open_decoder(g);
}

int slr_generator_new(slr_generator **out, slr_mem *m, slr_log log, slr_checkpoint *base,
                      slr_weights *vae, const char *vae_path, slr_devices *devices, slr_bpe *bpe)
{
    *out = NULL;
    slr_weights *decoder = vae ? vae : slr_checkpoint_part(base, SLR_PART_VAE);
    if (!decoder)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no VAE: give one",
                        slr_checkpoint_path(base));
    slr_generator *g = slr_calloc(m, 1, sizeof *g);
    if (!g)
        return SDLORA_ENOMEM;
    g->m = m;
    g->known.m = m;
    g->log = log;
    g->vae = slr_weights_ref(decoder);
    g->devices = slr_devices_ref(devices);
    int rc = make(g, base, vae_path, bpe);
    if (rc < 0) {
        slr_generator_free(g);
        return rc;
    }
    *out = g;
    return SDLORA_OK;
}

int slr_generator_set_vae(slr_generator *g, slr_weights *vae, const char *path)
{
    slr_weights *own = slr_checkpoint_part(g->model->base, SLR_PART_VAE);
    char *copy = path ? slr_strdup(g->m, path) : NULL;
    if (path && !copy)
        return SDLORA_ENOMEM;
    if (!vae && !own) {
        slr_free(g->m, copy);
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no VAE: give one",
                        slr_checkpoint_path(g->model->base));
    }
    slr_vae_runner_free(g->decoder);
    g->decoder = NULL; /* the next run opens it */
    slr_weights_ref(vae ? vae : own);
    slr_weights_unref(g->vae);
    g->vae = vae ? vae : own;
    slr_free(g->m, g->vae_path);
    g->vae_path = copy;
    g->vae_hash[0] = '\0';
    return SDLORA_OK;
}

void slr_generator_rest(slr_generator *g)
{
    slr_vae_runner_free(g->decoder);
    slr_upscaler_free(g->upscaler);
    g->upscaler = NULL;
    g->decoder = NULL;
    slr_model_rest(g->model);
    if (g->refiner)
        slr_model_rest(g->refiner);
}

void slr_generator_free(slr_generator *g)
{
    if (!g)
        return;
    slr_vae_runner_free(g->decoder);
    slr_upscaler_free(g->upscaler);
    slr_free(g->m, g->upscaler_name);
    slr_model_free(g->model);
    slr_model_free(g->refiner);
    slr_known_free(&g->known);
    slr_bpe_unref(g->bpe);
    slr_devices_unref(g->devices);
    slr_weights_unref(g->vae);
    slr_free(g->m, g->vae_path);
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

int slr_generator_set_refiner(slr_generator *g, slr_checkpoint *refiner)
{
    slr_model *model = NULL;
    if (refiner)
        SLR_TRY(slr_model_new(&model, g->m, refiner, g->devices, g->bpe));
    if (model && slr_denoiser_shape(model->denoiser)->out_channels !=
                     slr_denoiser_shape(g->model->denoiser)->out_channels) {
        slr_model_free(model);
        return slr_fail(SDLORA_EINVAL, __func__, "%s and %s do not share their latents",
                        slr_checkpoint_path(refiner), slr_checkpoint_path(g->model->base));
    }
    slr_model_free(g->refiner);
    g->refiner = model;
    g->refiner_hash[0] = '\0';
    return SDLORA_OK;
}

int slr_generator_wake(slr_generator *g)
{
    return g->decoder ? SDLORA_OK : open_decoder(g);
}

void slr_picture_free(slr_mem *m, slr_picture *p)
{
    slr_free(m, p->pixels.data);
    slr_free(m, p->infotext);
    slr_free(m, p->latents);
    *p = (slr_picture){0};
}
