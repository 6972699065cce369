/* SPDX-License-Identifier: MIT */
/* Networks made of networks and of checkpoints: arguments checked, then one call down. */
#include "api/api.h"

#include "base/status.h"
#include "networks/tools.h"

int sdlora_checkpoint_for_network(sdlora_checkpoint **out, sdlora_context *ctx, const char *network)
{
    slr_checkpoint *base;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(network, "network", __func__));
    const slr_checkpoint_config config = {.mem = ctx->mem, .log = ctx->log, .predict = -1};
    SLR_TRY(slr_checkpoint_for_network(&base, network, &config));
    SLR_TRY(slr_api_checkpoint(out, ctx, base));
    (*out)->hollow = true;
    return SDLORA_OK;
}

static slr_tool tool_of(const sdlora_checkpoint *ckpt, slr_api_watch *watch)
{
    return (slr_tool){.m = ckpt->ctx->mem,
                      .devices = ckpt->ctx->devices,
                      .log = ckpt->ctx->log,
                      .base = ckpt->base,
                      .hollow = ckpt->hollow,
                      .tell = slr_api_tell,
                      .user = watch};
}

int sdlora_network_resize(sdlora_network **out, sdlora_network *net, const sdlora_options *opts,
                          sdlora_progress_fn progress, void *user)
{
    slr_api_watch watch = {.fn = progress, .user = user};
    slr_network *made;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(net, "net", __func__));
    SLR_TRY(slr_api_kind(opts, "resize", __func__));
    const slr_tool tool = tool_of(net->ckpt, &watch);
    SLR_TRY(slr_network_resize(&made, &tool, net->net, (slr_opt){opts, "resize"}));
    return slr_api_network(out, net->ckpt, made);
}

int sdlora_network_merge(sdlora_network **out, sdlora_network *const *nets, const double *te,
                         const double *unet, size_t n, const sdlora_options *opts,
                         sdlora_progress_fn progress, void *user)
{
    slr_api_watch watch = {.fn = progress, .user = user};
    slr_stack_item *items;
    slr_network *made;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(nets, "nets", __func__));
    if (!n)
        return slr_fail(SDLORA_EINVAL, __func__, "there is no network to merge");
    SLR_TRY(slr_api_given(nets[0], "nets[0]", __func__));
    SLR_TRY(slr_api_kind(opts, "merge", __func__));
    sdlora_checkpoint *ckpt = nets[0]->ckpt;
    SLR_TRY(slr_api_items(&items, ckpt, nets, te, unet, n, __func__));
    const slr_tool tool = tool_of(ckpt, &watch);
    int rc = slr_network_combine(&made, &tool, items, n, (slr_opt){opts, "merge"});
    slr_free(ckpt->ctx->mem, items);
    SLR_TRY(rc);
    return slr_api_network(out, ckpt, made);
}

int sdlora_network_extract(sdlora_network **out, sdlora_checkpoint *tuned, sdlora_checkpoint *base,
                           const sdlora_options *opts, sdlora_progress_fn progress, void *user)
{
    slr_api_watch watch = {.fn = progress, .user = user};
    slr_network *made;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(tuned, "tuned", __func__));
    SLR_TRY(slr_api_given(base, "base", __func__));
    SLR_TRY(slr_api_kind(opts, "extract", __func__));
    if (tuned->hollow || base->hollow)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "a checkpoint without weights has nothing that could be extracted");
    const slr_tool tool = tool_of(base, &watch);
    SLR_TRY(slr_network_extract(&made, &tool, tuned->base, (slr_opt){opts, "extract"}));
    return slr_api_network(out, base, made);
}

int sdlora_checkpoint_merge_file(sdlora_checkpoint *ckpt, sdlora_vae *vae,
                                 sdlora_network *const *nets, const double *te, const double *unet,
                                 size_t n, const char *path, const sdlora_options *opts,
                                 sdlora_progress_fn progress, void *user)
{
    slr_api_watch watch = {.fn = progress, .user = user};
    slr_stack_item *items;

    slr_clear();
    SLR_TRY(slr_api_given(ckpt, "ckpt", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    SLR_TRY(slr_api_kind(opts, "merge", __func__));
    if (ckpt->hollow)
        return slr_fail(SDLORA_EINVAL, __func__, "a checkpoint without weights cannot be written");
    if (ckpt->key.use_ema)
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s is open with its averages: put them in place of the plain weights "
                        "first, by sdlora_file_prune with ema=use",
                        slr_checkpoint_path(ckpt->base));
    SLR_TRY(slr_api_items(&items, ckpt, nets, te, unet, n, __func__));
    const slr_tool tool = tool_of(ckpt, &watch);
    int rc =
        slr_merge_file(&tool, items, n, vae ? vae->weights : NULL, path, (slr_opt){opts, "merge"});
    slr_free(ckpt->ctx->mem, items);
    return rc;
}
