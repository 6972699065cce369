/* SPDX-License-Identifier: MIT */
/* Puts the pieces of one checkpoint together.  Refuses to know passes. */
#include "sample/model.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "tensor/dtype.h"

int slr_model_new(slr_model **out, slr_mem *m, slr_checkpoint *base, slr_devices *devices,
                  slr_bpe *bpe)
{
    *out = NULL;
    slr_model *s = slr_calloc(m, 1, sizeof *s);
    if (!s)
        return SDLORA_ENOMEM;
    s->m = m;
    s->refs = 1;
    s->base = slr_checkpoint_ref(base);
    s->devices = slr_devices_ref(devices);
    s->vae = slr_weights_ref(slr_checkpoint_part(base, SLR_PART_VAE));
    slr_schedule_init(&s->schedule);
    int rc = slr_engine_new(&s->engine, m, base, devices);
    if (rc >= 0)
        rc = slr_denoiser_new(&s->denoiser, m, s->engine);
    if (rc >= 0)
        rc = slr_conds_new(&s->conds, m, s->engine, bpe);
    if (rc < 0) {
        slr_model_unref(s);
        return rc;
    }
    *out = s;
    return SDLORA_OK;
}

static void close_coder(slr_model *s)
{
    slr_vae_runner_free(s->coder);
    s->coder = NULL;
}

void slr_model_rest(slr_model *s)
{
    close_coder(s);
    slr_conds_rest(s->conds);
    slr_denoiser_rest(s->denoiser);
    slr_engine_rest(s->engine);
}

slr_model *slr_model_ref(slr_model *s)
{
    s->refs++;
    return s;
}

void slr_model_unref(slr_model *s)
{
    if (!s || --s->refs)
        return;
    close_coder(s);
    slr_conds_free(s->conds);
    slr_denoiser_free(s->denoiser);
    slr_engine_free(s->engine);
    slr_weights_unref(s->vae);
    slr_devices_unref(s->devices);
    slr_checkpoint_unref(s->base);
    slr_free(s->m, s->vae_path);
    slr_free(s->m, s);
}

/* --- its VAE --- */

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

int slr_model_set_vae(slr_model *s, slr_weights *vae, const char *path)
{
    vae = vae ? vae : slr_checkpoint_part(s->base, SLR_PART_VAE);
    if (vae == s->vae && same_text(path, s->vae_path))
        return SDLORA_OK;
    char *copy = path ? slr_strdup(s->m, path) : NULL;
    if (path && !copy)
        return SDLORA_ENOMEM;
    close_coder(s);
    slr_weights_ref(vae);
    slr_weights_unref(s->vae);
    s->vae = vae;
    slr_free(s->m, s->vae_path);
    s->vae_path = copy;
    s->vae_hash[0] = '\0';
    return SDLORA_OK;
}

void slr_model_set_coder(slr_model *s, slr_policy policy, bool tiling)
{
    s->vae_policy = policy;
    s->vae_tiling = tiling;
}

int slr_model_coder(slr_model *s, slr_vae_runner **out)
{
    slr_require(s->vae);
    if (!s->coder)
        SLR_TRY(slr_vae_runner_new(&s->coder, s->vae, slr_checkpoint_family(s->base), s->devices));
    slr_vae_runner_set_policy(s->coder, s->vae_policy);
    *out = s->coder;
    return slr_vae_runner_set_tiling(s->coder, s->vae_tiling ? slr_vae_runner_tile(s->coder) : 0);
}

/* --- its noise --- */

/* As AUTOMATIC1111 before 1.7 had it: alpha_bar went through f16. */
static void downcast(slr_schedule *s)
{
    for (int i = 0; i < SLR_TIMESTEPS; i++) {
        float a = slr_f16_to_f32(slr_f32_to_f16(s->alpha_bar[i]));
        s->alpha_bar[i] = a;
        s->sigma[i] = sqrtf((1.0f - a) / a);
        s->log_sigma[i] = (float)log((double)s->sigma[i]);
    }
}

void slr_model_set(slr_model *s, const slr_settings *set, slr_policy policy)
{
    slr_engine_set_policy(s->engine, policy);
    slr_schedule_init(&s->schedule);
    if (set->downcast)
        downcast(&s->schedule);
    if (set->ztsnr || slr_checkpoint_ztsnr(s->base))
        slr_schedule_rescale(&s->schedule, SLR_ZTSNR_LAST);
}

bool slr_model_v(const slr_model *s)
{
    return slr_checkpoint_predict(s->base) == SLR_PREDICT_V;
}

int64_t slr_model_extra(const slr_model *s)
{
    const slr_unet_shape *unet = slr_denoiser_shape(s->denoiser);
    return unet->in_channels - unet->out_channels;
}
