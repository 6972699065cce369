/* SPDX-License-Identifier: MIT */
/* Datasets: opened by options, then only looked at. */
#include "api/api.h"

#include "base/status.h"

int sdlora_dataset_open(sdlora_dataset **out, sdlora_context *ctx, const sdlora_options *opts)
{
    slr_dataset *data;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(opts, "opts", __func__));
    SLR_TRY(slr_api_kind(opts, "dataset", __func__));
    SLR_TRY(slr_dataset_open(&data, ctx->mem, ctx->log, opts));
    sdlora_dataset *d = slr_calloc(ctx->mem, 1, sizeof *d);
    if (!d) {
        slr_dataset_unref(data);
        return SDLORA_ENOMEM;
    }
    slr_refs_init(&d->refs);
    d->ctx = sdlora_context_ref(ctx);
    d->data = data;
    *out = d;
    return SDLORA_OK;
}

sdlora_dataset *sdlora_dataset_ref(sdlora_dataset *data)
{
    if (data)
        slr_refs_get(&data->refs);
    return data;
}

void sdlora_dataset_unref(sdlora_dataset *data)
{
    if (!data || !slr_refs_put(&data->refs))
        return;
    sdlora_context *ctx = data->ctx;
    slr_dataset_unref(data->data);
    slr_free(ctx->mem, data);
    sdlora_context_unref(ctx);
}

size_t sdlora_dataset_images(const sdlora_dataset *data)
{
    return data ? slr_dataset_items(data->data) : 0;
}

int64_t sdlora_dataset_views(const sdlora_dataset *data)
{
    return data ? slr_dataset_train_images(data->data) + slr_dataset_reg_images(data->data) : 0;
}

int64_t sdlora_dataset_batches_per_epoch(const sdlora_dataset *data)
{
    return data ? slr_dataset_batches_per_epoch(data->data) : 0;
}

int sdlora_dataset_item_at(const sdlora_dataset *data, size_t i, sdlora_dataset_item *item)
{
    slr_clear();
    SLR_TRY(slr_api_given(data, "data", __func__));
    SLR_TRY(slr_api_given(item, "item", __func__));
    if (i >= slr_dataset_items(data->data))
        return slr_fail(SDLORA_ENOTFOUND, __func__, "there are %zu pictures, no number %zu",
                        slr_dataset_items(data->data), i);
    const slr_item *it = slr_dataset_item(data->data, i);
    const slr_bucket *bucket = slr_dataset_bucket(data->data, it->bucket);
    sdlora_dataset_item filled = {
        .path = it->path,
        .caption = it->caption,
        .repeats = it->repeats,
        .width = it->width,
        .height = it->height,
        .bucket_width = bucket->width,
        .bucket_height = bucket->height,
        .resized_width = it->resized_w,
        .resized_height = it->resized_h,
        .crop_left = it->crop_left,
        .crop_top = it->crop_top,
    };
    return slr_api_fill(item, &filled, sizeof filled, __func__);
}

const char *sdlora_dataset_note(const sdlora_dataset *data, size_t i)
{
    const char *const *lines;

    return data && i < slr_dataset_notes(data->data, &lines) ? lines[i] : NULL;
}
