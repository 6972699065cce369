/* SPDX-License-Identifier: MIT */
/* Pictures as latents for a trainer: the autoencoder with a loader that uses it.  Knows which
 * autoencoder, how precise, and whose masks; refuses to know what becomes of batches. */
#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "train/trainer_impl.h"

static int encode(void *user, const float *image, int64_t n, int64_t h, int64_t w, float *latents)
{
    slr_feed *feed = user;
    return slr_vae_encode(feed->vae, image, n, h, w, NULL, latents, feed->cancel);
}

static int cached(void *user, int64_t done, int64_t total)
{
    slr_feed *feed = user;
    return feed->phase ? feed->phase(feed->phase_user, "latents", done, total) : 0;
}

uint64_t slr_trainer_digest(const slr_weights *w, uint64_t seed)
{
    for (size_t i = 0; w && i < slr_weights_count(w); i++) {
        const slr_tensor *t;
        const char *name = slr_weights_at(w, i, &t);
        size_t bytes = slr_tensor_bytes(t);
        seed = slr_hash64(name, strlen(name), seed);
        seed = slr_hash64(t->data, bytes < 4096 ? bytes : 4096, seed);
    }
    return seed;
}

slr_weights *slr_trainer_vae(const slr_trainer_config *c)
{
    return c->vae ? c->vae : slr_checkpoint_part(c->base, SLR_PART_VAE);
}

enum { FEED_ID = 32 };

/* The options may be those of any job that has pictures. */
static bool in_tiles(const sdlora_options *o)
{
    return o && slr_opt_bool((slr_opt){o, slr_options_kind(o)}, "vae_tiling");
}

/* The autoencoder, and what a loader needs to use it; id holds FEED_ID bytes. */
static int open_encoder(slr_feed *feed, const slr_trainer_config *c, const slr_feed_use *use,
                        char *id, slr_loader_config *config)
{
    slr_weights *vae = slr_trainer_vae(c);
    int factor;
    *feed = (slr_feed){.cancel = use->cancel, .phase = c->phase, .phase_user = c->phase_user};
    if (!vae)
        return slr_fail(SDLORA_EINVAL, __func__, "%s has no VAE: give one",
                        slr_checkpoint_path(c->base));
    SLR_TRY(slr_vae_factor(vae, &factor));
    bool tiles = in_tiles(c->opts);
    snprintf(id, FEED_ID, "%016llx%s%s", (unsigned long long)slr_trainer_digest(vae, 0),
             use->precision.storage == SDLORA_BF16 ? "-bf16" : "", tiles ? "-tiled" : "");
    SLR_TRY(slr_vae_runner_new(&feed->vae, vae, slr_checkpoint_family(c->base), c->devices));
    slr_vae_runner_set_policy(feed->vae, use->precision);
    SLR_TRY(slr_vae_runner_set_tiling(feed->vae, tiles ? slr_vae_runner_tile(feed->vae) : 0));
    *config = (slr_loader_config){.mem = c->mem,
                                  .log = c->log,
                                  .encode = encode,
                                  .encode_user = feed,
                                  .encoder_id = id,
                                  .factor = 1 << factor,
                                  .channels = 4,
                                  .progress = cached,
                                  .progress_user = feed,
                                  .cancel = use->cancel,
                                  .seed = use->seed,
                                  .threads = slr_devices_threads(c->devices),
                                  .max_steps = use->max_steps,
                                  .max_epochs = use->max_epochs,
                                  .inpaint = slr_checkpoint_inpaint(c->base),
                                  .masks = use->masks,
                                  .mask_seed = use->mask_seed};
    return SDLORA_OK;
}

int slr_feed_open(slr_feed *feed, const slr_trainer_config *c, slr_dataset *data,
                  const slr_feed_use *use)
{
    slr_loader_config config;
    char id[FEED_ID];
    SLR_TRY(open_encoder(feed, c, use, id, &config));
    int rc = slr_loader_new(&feed->loader, data, &config);
    if (rc < 0) {
        slr_feed_close(feed);
        return rc;
    }
    if (!slr_loader_encodes(feed->loader)) {
        slr_vae_runner_free(feed->vae); /* its weights and workspace are worth hundreds of MB */
        feed->vae = NULL;
    }
    return SDLORA_OK;
}

int slr_feed_look(slr_feed *feed, const slr_trainer_config *c, slr_dataset *data,
                  const slr_feed_use *use, slr_loader_needs *needs)
{
    slr_loader_config config;
    char id[FEED_ID];
    SLR_TRY(open_encoder(feed, c, use, id, &config));
    int rc = slr_loader_look(data, &config, needs);
    if (rc < 0)
        slr_feed_close(feed);
    return rc;
}

void slr_feed_close(slr_feed *feed)
{
    slr_loader_free(feed->loader);
    slr_vae_runner_free(feed->vae);
    feed->loader = NULL;
    feed->vae = NULL;
}

slr_feed_use slr_trainer_use(slr_trainer *t)
{
    return (slr_feed_use){.precision = t->precision.vae,
                          .seed = t->seed,
                          .max_steps = t->total,
                          .max_epochs = t->epochs,
                          .masks = slr_opt_int(t->o, "masks_per_image"),
                          .mask_seed = t->seed,
                          .cancel = &t->cancel};
}

slr_feed_use slr_trainer_held_out_use(slr_trainer *t)
{
    slr_feed_use use = slr_trainer_use(t);
    use.max_epochs = 0;
    use.masks = 1;
    use.mask_seed = 0;
    return use;
}
