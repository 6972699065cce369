/* SPDX-License-Identifier: MIT */
/* Generators: options to a request, pictures to images, networks by handle and by tag.  The picture
 * itself is made in the room `sample`. */
#include "api/generator.h"

#include <string.h>

#include "api/embeddings.h"
#include "base/status.h"
#include "graph/policy.h"

/* Hashes that matching a text has computed are not computed again for the next picture's. */
static int hash_of(void *user, const char *path, char hex[65])
{
    sdlora_generator *g = user;

    return slr_byhash_whole(slr_finder_hashes(g->finder), path, hex);
}

int sdlora_generator_new(sdlora_generator **out, sdlora_checkpoint *ckpt, sdlora_vae *vae)
{
    slr_bpe *bpe;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ckpt, "ckpt", __func__));
    sdlora_context *ctx = ckpt->ctx;
    SLR_TRY(slr_api_bpe(ctx, &bpe));
    sdlora_generator *g = slr_calloc(ctx->mem, 1, sizeof *g);
    if (!g)
        return SDLORA_ENOMEM;
    slr_refs_init(&g->refs);
    g->ckpt = sdlora_checkpoint_ref(ckpt);
    g->vae = sdlora_vae_ref(vae);
    slr_api_start_init(&g->start, ctx->mem);
    int rc = slr_finder_new(&g->finder, ctx->mem, ckpt->base);
    if (rc >= 0)
        rc = slr_generator_new(&g->gen, ctx->mem, ctx->log, ckpt->base, vae ? vae->weights : NULL,
                               vae ? vae->path : NULL, ctx->devices, bpe);
    if (rc < 0) {
        sdlora_generator_unref(g);
        return rc;
    }
    slr_generator_set_finder(g->gen, slr_finder_find, g->finder);
    slr_generator_set_hasher(g->gen, hash_of, g);
    *out = g;
    return SDLORA_OK;
}

sdlora_generator *sdlora_generator_ref(sdlora_generator *g)
{
    if (g)
        slr_refs_get(&g->refs);
    return g;
}

void sdlora_generator_unref(sdlora_generator *g)
{
    if (!g || !slr_refs_put(&g->refs))
        return;
    sdlora_checkpoint *ckpt = g->ckpt;
    slr_mem *m = ckpt->ctx->mem;
    slr_generator_free(g->gen);
    slr_finder_free(g->finder);
    for (size_t i = 0; i < g->n; i++)
        sdlora_network_unref(g->nets[i]);
    slr_free(m, g->items);
    slr_free(m, g->nets);
    slr_api_start_free(&g->start, m);
    sdlora_vae_unref(g->vae);
    slr_free(m, g);
    sdlora_checkpoint_unref(ckpt);
}

int sdlora_generator_add_lora_dir(sdlora_generator *g, const char *dir)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    SLR_TRY(slr_api_given(dir, "dir", __func__));
    return slr_finder_add(g->finder, dir);
}

int sdlora_generator_add_embeddings(sdlora_generator *g, const char *path)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    sdlora_context *ctx = g->ckpt->ctx;
    return slr_embeddings_load(g->gen, ctx->mem, &ctx->log, g->ckpt->base, path);
}

static void remove_at(sdlora_generator *g, size_t i)
{
    sdlora_network_unref(g->nets[i]);
    for (g->n--; i < g->n; i++) {
        g->nets[i] = g->nets[i + 1];
        g->items[i] = g->items[i + 1];
    }
}

int sdlora_generator_set_network(sdlora_generator *g, sdlora_network *net, double te, double unet)
{
    slr_mem *m;
    size_t i = 0;

    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    SLR_TRY(slr_api_given(net, "net", __func__));
    SLR_TRY(slr_api_fits(net, g->ckpt, __func__));
    while (i < g->n && g->nets[i] != net)
        i++;
    if (te == 0 && unet == 0) {
        if (i < g->n)
            remove_at(g, i);
        return SDLORA_OK;
    }
    if (i == g->n) {
        m = g->ckpt->ctx->mem;
        SLR_TRY(slr_grow(m, &g->nets, &g->nets_cap, i + 1, sizeof *g->nets));
        SLR_TRY(slr_grow(m, &g->items, &g->items_cap, i + 1, sizeof *g->items));
        g->nets[g->n++] = sdlora_network_ref(net);
    }
    g->items[i] = (slr_stack_item){.network = net->net, .te = te, .unet = unet};
    return SDLORA_OK;
}

int sdlora_generator_set_progress(sdlora_generator *g, sdlora_sample_fn fn, void *user)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    g->progress = fn;
    g->user = user;
    return SDLORA_OK;
}

static int pass_progress(void *user, const slr_run_progress *p)
{
    sdlora_generator *g = user;
    int answer = slr_api_watch_tell(g, p);

    if (answer || !g->progress || p->phase != SLR_RUN_SAMPLE)
        return answer;
    return g->progress(p->done, p->total, g->user);
}

/* One image per picture; what was made before a failure is dropped. */
static int to_images(sdlora_generator *g, slr_picture *pictures, size_t n, sdlora_image **images)
{
    sdlora_context *ctx = g->ckpt->ctx;
    int rc = SDLORA_OK;

    for (size_t i = 0; i < n; i++) {
        if (rc >= 0) {
            rc = slr_api_image(&images[i], ctx, pictures[i].pixels, pictures[i].infotext);
            pictures[i].pixels.data = NULL;
            pictures[i].infotext = NULL;
        }
        slr_picture_free(ctx->mem, &pictures[i]);
    }
    for (size_t i = 0; rc < 0 && i < n; i++) {
        sdlora_image_unref(images[i]);
        images[i] = NULL;
    }
    return rc;
}

int slr_api_request(slr_request *out, sdlora_generator *g, const sdlora_options *opts)
{
    slr_opt o = {opts, "generate"};
    slr_precision precision;

    SLR_TRY(slr_precision_read(&precision, o, g->ckpt->ctx->devices));
    slr_finder_skip(g->finder, !strcmp(slr_opt_text(o, "lora_unmatched"), "skip"),
                    &g->ckpt->ctx->log);
    *out = (slr_request){
        .policy = precision.model,
        .vae_policy = precision.vae,
        .vae_tiling = slr_opt_bool(o, "vae_tiling"),
        .networks = g->items,
        .n_networks = g->n,
        .progress = g->progress || g->watch.fn ? pass_progress : NULL,
        .progress_user = g,
        .cancel = &g->cancel,
    };
    slr_settings_read(&out->set, o);
    return slr_api_start_request(out, g, o);
}

int sdlora_generator_run(sdlora_generator *g, const sdlora_options *opts, sdlora_image **images,
                         size_t cap)
{
    slr_request r;

    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    SLR_TRY(slr_api_given(images, "images", __func__));
    SLR_TRY(slr_api_kind(opts, "generate", __func__));
    for (size_t i = 0; i < cap; i++)
        images[i] = NULL;
    atomic_store(&g->cancel, 0); /* from here on it counts: a VAE may have to be opened first */
    SLR_TRY(slr_api_request(&r, g, opts));
    size_t count = (size_t)r.set.count;
    if (cap < count)
        return slr_fail(SDLORA_EINVAL, __func__, "count is %zu, but there is room for %zu images",
                        count, cap);
    slr_picture *pictures = slr_calloc(g->ckpt->ctx->mem, count, sizeof *pictures);
    if (!pictures)
        return SDLORA_ENOMEM;
    slr_api_watch_begin(g);
    int rc = slr_generator_run(g->gen, &r, pictures);
    if (rc >= 0)
        rc = to_images(g, pictures, count, images);
    slr_free(g->ckpt->ctx->mem, pictures);
    return rc;
}

void sdlora_generator_cancel(sdlora_generator *g)
{
    if (g)
        atomic_store(&g->cancel, 1);
}

const char *sdlora_sampler_name(size_t i)
{
    size_t n;
    const slr_sampler_row *rows = slr_samplers(&n);

    return i < n ? rows[i].name : NULL;
}

const char *sdlora_scheduler_name(size_t i)
{
    size_t n;
    const slr_scheduler_row *rows = slr_schedulers(&n);

    return i < n ? rows[i].name : NULL;
}
