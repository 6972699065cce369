/* SPDX-License-Identifier: MIT */
/* Pictures in and out: 8-bit RGB with the generation parameters beside them.  Files are io's, what
 * texts mean is sample's. */
#include "api/api.h"

#include <string.h>

#include "base/status.h"
#include "io/file.h"
#include "sample/infotext.h"

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
    img->texts.m = ctx->mem;
    *out = img;
    return SDLORA_OK;
}

/* Four channels become three and the fourth. */
static int split_alpha(slr_mem *m, slr_pixels *p, uint8_t **alpha)
{
    size_t n = (size_t)p->width * (size_t)p->height;

    *alpha = NULL;
    if (p->channels == 3)
        return SDLORA_OK;
    *alpha = slr_alloc(m, n);
    if (!*alpha)
        return SDLORA_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        (*alpha)[i] = p->data[4 * i + 3];
        memmove(p->data + 3 * i, p->data + 4 * i, 3);
    }
    p->channels = 3;
    return SDLORA_OK;
}

/* The texts of a file: its parameters in img->text, others in img->texts. */
static int take_texts(sdlora_image *img, slr_image_texts *texts)
{
    slr_mem *m = img->ctx->mem;

    SLR_TRY(slr_infotext_pick(&img->text, m, texts, img->pixels.width, img->pixels.height));
    for (size_t i = 0; i < texts->n; i++) {
        if (slr_infotext_is_source(texts->at[i].keyword))
            continue;
        char *text = texts->at[i].text;
        texts->at[i].text = NULL;
        SLR_TRY(slr_image_texts_set(&img->texts, texts->at[i].keyword, text));
    }
    return SDLORA_OK;
}

static int decode(sdlora_image *img, const void *bytes, size_t n, const char *path)
{
    slr_mem *m = img->ctx->mem;
    slr_image_info info;
    slr_image_texts texts = {.m = m};

    SLR_TRY(slr_image_info_parse(bytes, n, path, &info));
    img->orientation = info.orientation;
    SLR_TRY(slr_image_decode(m, bytes, n, path, true, &img->pixels));
    SLR_TRY(split_alpha(m, &img->pixels, &img->alpha));
    int rc = slr_image_texts_parse(&texts, m, bytes, n, path);
    if (rc >= 0)
        rc = take_texts(img, &texts);
    slr_image_texts_free(&texts);
    return rc;
}

int sdlora_image_open(sdlora_image **out, sdlora_context *ctx, const char *path)
{
    enum { FILE_MAX = 1 << 30 };
    void *bytes;
    size_t n;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    SLR_TRY(slr_file_read(ctx->mem, path, FILE_MAX, &bytes, &n));
    sdlora_image *img = NULL;
    int rc = slr_api_image(&img, ctx, (slr_pixels){0}, NULL);
    if (rc >= 0)
        rc = decode(img, bytes, n, path);
    slr_free(ctx->mem, bytes);
    if (rc < 0) {
        sdlora_image_unref(img);
        return rc;
    }
    *out = img;
    return SDLORA_OK;
}

int sdlora_image_read_text(sdlora_context *ctx, const char *path, char **text)
{
    enum { TEXT_MAX = 4 << 20 };
    slr_image_info info;
    slr_image_texts texts;
    size_t n;

    slr_clear();
    SLR_TRY(slr_api_given(text, "text", __func__));
    *text = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    if (slr_ends(path, ".txt")) {
        SLR_TRY(slr_file_read(ctx->mem, path, TEXT_MAX, (void **)text, &n));
        if (slr_utf8_valid(*text, n) == n && !memchr(*text, 0, n))
            return SDLORA_OK;
        slr_free(ctx->mem, *text);
        *text = NULL;
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: is not UTF-8 text", path);
    }
    SLR_TRY(slr_image_info_read(path, &info));
    int rc = slr_image_texts_read(&texts, ctx->mem, path);
    if (rc >= 0)
        rc = slr_infotext_pick(text, ctx->mem, &texts, info.width, info.height);
    slr_image_texts_free(&texts);
    if (rc >= 0 && !*text)
        rc = slr_fail(SDLORA_ENOTFOUND, __func__, "%s: has no generation parameters", path);
    return rc;
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
    slr_free(ctx->mem, img->alpha);
    slr_image_texts_free(&img->texts);
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

const char *sdlora_image_keyword(const sdlora_image *img, size_t i)
{
    return img && i < img->texts.n ? img->texts.at[i].keyword : NULL;
}

const char *sdlora_image_keyword_text(const sdlora_image *img, const char *keyword)
{
    return img && keyword ? slr_image_texts_get(&img->texts, keyword) : NULL;
}

/* Everything but the text. */
static int copy_into(sdlora_image *to, const sdlora_image *from)
{
    slr_mem *m = to->ctx->mem;
    size_t n = (size_t)from->pixels.width * (size_t)from->pixels.height;

    to->pixels = from->pixels;
    to->orientation = from->orientation;
    to->pixels.data = slr_alloc(m, 3 * n);
    to->alpha = from->alpha ? slr_alloc(m, n) : NULL;
    if (!to->pixels.data || (from->alpha && !to->alpha))
        return SDLORA_ENOMEM;
    memcpy(to->pixels.data, from->pixels.data, 3 * n);
    if (from->alpha)
        memcpy(to->alpha, from->alpha, n);
    return slr_image_texts_copy(&to->texts, m, &from->texts);
}

int sdlora_image_with_text(sdlora_image **out, const sdlora_image *img, const char *text)
{
    sdlora_image *copy;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(img, "img", __func__));
    if (text && slr_utf8_valid(text, strlen(text)) != strlen(text))
        return slr_fail(SDLORA_EINVAL, __func__, "the text for the picture is not UTF-8");
    SLR_TRY(slr_api_image(&copy, img->ctx, (slr_pixels){0}, NULL));
    int rc = copy_into(copy, img);
    if (rc >= 0 && text && *text && !(copy->text = slr_strdup(img->ctx->mem, text)))
        rc = SDLORA_ENOMEM;
    if (rc < 0) {
        sdlora_image_unref(copy);
        return rc;
    }
    *out = copy;
    return SDLORA_OK;
}

int sdlora_image_save(const sdlora_image *img, const char *path)
{
    return sdlora_image_save_as(img, path, SDLORA_QUALITY_DEFAULT);
}

int sdlora_image_save_as(const sdlora_image *img, const char *path, int32_t quality)
{
    slr_clear();
    SLR_TRY(slr_api_given(img, "img", __func__));
    SLR_TRY(slr_api_given(path, "path", __func__));
    bool lossless = quality == SDLORA_QUALITY_LOSSLESS;
    slr_image_save how = {.text = img->text,
                          .others = &img->texts,
                          .quality = lossless ? 100 : quality,
                          .lossless = lossless};
    return slr_image_write(img->ctx->mem, path, &img->pixels, &how);
}
