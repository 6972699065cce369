/* SPDX-License-Identifier: MIT */
/* The checkpoints that a context has open, so that opening a file again costs no memory: the new
 * handle shares the weights and whatever the devices have packed of them.  Refuses to know what is
 * in a checkpoint. */
#include "api/api.h"

#include <string.h>

static bool same(const slr_shelf_key *a, const slr_shelf_key *b)
{
    return slr_file_same(&a->file, &b->file) && a->use_ema == b->use_ema &&
           a->predict == b->predict && a->ztsnr == b->ztsnr;
}

slr_checkpoint *slr_shelf_find(sdlora_context *ctx, const slr_shelf_key *key, const char *path)
{
    slr_checkpoint *found = NULL;

    pthread_mutex_lock(&ctx->lock);
    for (const sdlora_checkpoint *c = ctx->shelf; c && !found; c = c->next)
        if (same(&c->key, key) && !strcmp(slr_checkpoint_path(c->base), path))
            found = slr_checkpoint_ref(c->base);
    pthread_mutex_unlock(&ctx->lock);
    return found;
}

void slr_shelf_put(sdlora_checkpoint *c, const slr_shelf_key *key)
{
    sdlora_context *ctx = c->ctx;

    c->key = *key;
    pthread_mutex_lock(&ctx->lock);
    c->next = ctx->shelf;
    ctx->shelf = c;
    pthread_mutex_unlock(&ctx->lock);
}

void slr_shelf_take(sdlora_checkpoint *c)
{
    sdlora_context *ctx = c->ctx;

    pthread_mutex_lock(&ctx->lock);
    for (sdlora_checkpoint **at = &ctx->shelf; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    pthread_mutex_unlock(&ctx->lock);
}
