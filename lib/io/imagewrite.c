/* SPDX-License-Identifier: MIT */
/* Writing pictures: checks what every format asks for, finds the codec's row by name or by a path's
 * ending, and puts the file in its place whole. */
#include "io/image.h"

#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "io/codec.h"
#include "io/file.h"

enum { QUALITY = 80 }; /* AUTOMATIC1111's jpeg_quality */

static int encode(slr_mem *m, const slr_pixels *p, const slr_codec *codec,
                  const slr_image_save *how, void **bytes, size_t *n)
{
    slr_image_save save = how ? *how : (slr_image_save){0};
    slr_encode_job job = {m, p, &save};
    slr_buf out;
    slr_require(bytes && n && p && p->data && (p->channels == 3 || p->channels == 4));
    slr_require(p->width > 0 && p->height > 0);
    *bytes = NULL;
    *n = 0;
    if (save.text && slr_utf8_valid(save.text, strlen(save.text)) != strlen(save.text))
        return slr_fail(SDLORA_EINVAL, "slr_image", "the text for the picture is not UTF-8");
    if (save.quality < 0 || save.quality > 100)
        return slr_fail(SDLORA_EINVAL, "slr_image", "quality %d is not from 1 to 100",
                        save.quality);
    save.quality = save.quality ? save.quality : QUALITY;
    slr_buf_init(&out, m);
    int rc = codec->encode(&job, &out);
    if (rc >= 0) {
        *n = out.len;
        *bytes = slr_buf_take(&out);
        rc = *bytes ? SDLORA_OK : SDLORA_ENOMEM;
    }
    slr_buf_free(&out);
    return rc;
}

int slr_image_encode(slr_mem *m, const slr_pixels *p, const char *format, const slr_image_save *how,
                     void **bytes, size_t *n)
{
    for (size_t i = 0; i < slr_codecs_count; i++)
        if (!strcmp(slr_codecs[i]->name, format))
            return encode(m, p, slr_codecs[i], how, bytes, n);
    return slr_fail(SDLORA_EINVAL, "slr_image", "there is no picture format '%s': png, jpeg, webp",
                    format);
}

static const slr_codec *by_ending(const char *path)
{
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < slr_codecs_count; i++)
        for (size_t k = 0; slr_codecs[i]->ends[k]; k++)
            if (!strcasecmp(dot, slr_codecs[i]->ends[k]))
                return slr_codecs[i];
    return NULL;
}

int slr_image_write(slr_mem *m, const char *path, const slr_pixels *p, const slr_image_save *how)
{
    const slr_codec *codec = by_ending(path);
    void *bytes;
    size_t n;
    if (!codec)
        return slr_fail(SDLORA_EINVAL, "slr_image",
                        "%s: pictures are written as .png, .jpg, .jpeg or .webp", path);
    int rc = encode(m, p, codec, how, &bytes, &n);
    if (rc < 0)
        return slr_wrap("%s", path);
    rc = slr_file_write(m, path, bytes, n);
    slr_free(m, bytes);
    return rc;
}

int slr_png_encode(slr_mem *m, const slr_pixels *p, const char *text, void **bytes, size_t *n)
{
    return encode(m, p, &slr_codec_png, &(slr_image_save){.text = text}, bytes, n);
}

int slr_png_write(slr_mem *m, const char *path, const slr_pixels *p, const char *text)
{
    void *bytes;
    size_t n;
    int rc;
    SLR_TRY(slr_png_encode(m, p, text, &bytes, &n));
    rc = slr_file_write(m, path, bytes, n);
    slr_free(m, bytes);
    return rc;
}
