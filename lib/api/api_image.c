/* SPDX-License-Identifier: MIT */
/* Pictures in and out: 8-bit RGB with the generation parameters beside them.  Files are io's. */
#include "api/api.h"

#include <string.h>

#include "base/status.h"

int slr_api_image(sdlora_image **out, sdlora_context *ctx, slr_pixels pixels, char *text)
{
    sdlora_image *img = slr_calloc(ctx->mem, 1, sizeof *img);

    if (!img) {
        slr_free(ctx->mem, pixels.data);
        slr_free(ctx->mem, text);
        return SDLORA_ENOMEM;
    }
    slr_refs_init(&img->refs);
    img->ctx = sdlora_context_ref(ctx);
    img->pixels = pixels;
    img->text = text;
    *out = img;
    return SDLORA_OK;
}

int sdlora_image_open(sdlora_image **out, sdlora_context *ctx, const char *path)
{
    slr_pixels pixels;
    slr_image_info info;
    char *text = NULL;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    SLR_TRY(slr_image_info_read(path, &info));
    SLR_TRY(slr_image_read(ctx->mem, path, false, &pixels));
    int rc = SDLORA_OK;
    if (!strcmp(info.format, "png"))
        rc = slr_png_text(ctx->mem, path, &text);
    if (rc == SDLORA_ENOTFOUND) { /* a picture without parameters is an ordinary one */
        slr_clear();
        rc = SDLORA_OK;
        text = NULL;
    }
    if (rc < 0) {
        slr_free(ctx->mem, pixels.data);
        return rc;
    }
    return slr_api_image(out, ctx, pixels, text);
}

int sdlora_image_new(sdlora_image **out, sdlora_context *ctx, int32_t width, int32_t height,
                     const uint8_t *rgb)
{
    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(rgb, "rgb", __func__));
    if (width < 1 || height < 1 || width > SLR_IMAGE_MAX_SIDE || height > SLR_IMAGE_MAX_SIDE)
        return slr_fail(SDLORA_EINVAL, __func__, "%d x %d pixels: sides are from 1 to %d", width,
                        height, SLR_IMAGE_MAX_SIDE);
    size_t bytes = (size_t)width * (size_t)height * 3;
    slr_pixels pixels = {width, height, 3, slr_alloc(ctx->mem, bytes)};
    if (!pixels.data)
        return SDLORA_ENOMEM;
    memcpy(pixels.data, rgb, bytes);
    return slr_api_image(out, ctx, pixels, NULL);
}

sdlora_image *sdlora_image_ref(sdlora_image *img)
{
    if (img)
        slr_refs_get(&img->refs);
    return img;
}

void sdlora_image_unref(sdlora_image *img)
{
    if (!img || !slr_refs_put(&img->refs))
        return;
    sdlora_context *ctx = img->ctx;
    slr_free(ctx->mem, img->pixels.data);
    slr_free(ctx->mem, img->text);
    slr_free(ctx->mem, img);
    sdlora_context_unref(ctx);
}

int32_t sdlora_image_width(const sdlora_image *img)
{
    return img ? img->pixels.width : 0;
}

int32_t sdlora_image_height(const sdlora_image *img)
{
    return img ? img->pixels.height : 0;
}

const uint8_t *sdlora_image_data(const sdlora_image *img)
{
    return img ? img->pixels.data : NULL;
}

const char *sdlora_image_text(const sdlora_image *img)
{
    return img && img->text ? img->text : "";
}

int sdlora_image_save(const sdlora_image *img, const char *path)
{
    slr_clear();
    SLR_TRY(slr_api_given(img, "img", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    return slr_png_write(img->ctx->mem, path, &img->pixels, img->text);
}
