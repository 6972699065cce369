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

static char *folder_of(slr_mem *m, const char *path)
{
    size_t n = strlen(path) - strlen(slr_path_base(path));

    return n ? slr_strndup(m, path, n) : slr_strdup(m, ".");
}

/* Whether two paths of one file are spellings of one place.  A link is another: it has a name of
 * its own, and other files beside it. */
static bool same_place(slr_mem *m, const char *a, const char *b)
{
    if (!strcmp(a, b))
        return true;
    char *fa = folder_of(m, a), *fb = folder_of(m, b);
    bool one = fa && fb && slr_path_same(fa, fb) && !strcmp(slr_path_base(a), slr_path_base(b));

    slr_free(m, fa);
    slr_free(m, fb);
    return one;
}

slr_checkpoint *slr_shelf_find(sdlora_context *ctx, const slr_shelf_key *key, const char *path)
{
    slr_checkpoint *found = NULL;

    pthread_mutex_lock(&ctx->lock);
    for (const sdlora_checkpoint *c = ctx->shelf; c && !found; c = c->next)
        if (same(&c->key, key) && same_place(ctx->mem, slr_checkpoint_path(c->base), path))
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
