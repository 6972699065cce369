/* SPDX-License-Identifier: MIT */
/* Pictures of any kind: it tells the format by content and hands over to a codec's row, keeps the
 * size limits, and turns pixels upright.  It refuses to know how any format packs its pixels. */
#include "io/image.h"

#include <string.h>

#include "base/status.h"
#include "io/codec.h"
#include "io/file.h"

#define FILE_MAX (UINT64_C(1) << 30) /* bytes of a picture file; 100 Mpixel of 16-bit RGBA fit */

const slr_codec *const slr_codecs[] = {&slr_codec_png, &slr_codec_jpeg, &slr_codec_webp};
const size_t slr_codecs_count = sizeof slr_codecs / sizeof *slr_codecs;

/* Formats that are known but not read, so that the sentence can say so. */
static const struct {
    size_t at, n;
    const char *magic, *name;
} strangers[] = {
    {0, 2, "BM", "BMP"},        {0, 4, "GIF8", "GIF"},
    {4, 8, "ftypavif", "AVIF"}, {4, 8, "ftypheic", "HEIC"},
    {4, 8, "ftypmif1", "HEIF"}, {0, 4, "II*\0", "TIFF"},
    {0, 4, "MM\0*", "TIFF"},    {0, 2, "\377\012", "JPEG XL"},
    {4, 4, "JXL ", "JPEG XL"},  {0, 4, "8BPS", "Photoshop"},
    {0, 4, "<svg", "SVG"},      {0, 23, "version https://git-lfs", "git-lfs pointer"},
};

int slr_codec_find(const slr_codec **out, const uint8_t *first, size_t n, const char *label)
{
    for (size_t i = 0; i < slr_codecs_count; i++)
        if (slr_codecs[i]->is(first, n)) {
            *out = slr_codecs[i];
            return SDLORA_OK;
        }
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        size_t end = strangers[i].at + strangers[i].n;
        if (n >= end && !memcmp(first + strangers[i].at, strangers[i].magic, strangers[i].n))
            return slr_fail(SDLORA_ENOTSUP, "slr_image",
                            "%s: is a %s file; PNG, JPEG and WebP can be read", label,
                            strangers[i].name);
    }
    return slr_fail(SDLORA_EFORMAT, "slr_image", "%s: %s", label,
                    n ? "is no picture: its first bytes are those of no known format" : "is empty");
}

int slr_image_check(const char *label, uint64_t w, uint64_t h, uint64_t max_pixels)
{
    if (w >= 1 && h >= 1 && w <= SLR_IMAGE_MAX_SIDE && h <= SLR_IMAGE_MAX_SIDE &&
        w * h <= max_pixels)
        return SDLORA_OK;
    return slr_fail(SDLORA_EFORMAT, "slr_image",
                    "%s: %llux%llu pixels are outside the limits: 1 to %d a side, %llu in all",
                    label, (unsigned long long)w, (unsigned long long)h, SLR_IMAGE_MAX_SIDE,
                    (unsigned long long)max_pixels);
}

int slr_pixels_new(const slr_decode_job *job, uint64_t w, uint64_t h, int channels, slr_pixels *out)
{
    SLR_TRY(slr_image_check(job->label, w, h, job->max_pixels));
    out->data = slr_alloc(job->m, (size_t)(w * h * (uint64_t)channels));
    if (!out->data)
        return SDLORA_ENOMEM;
    out->width = (int32_t)w;
    out->height = (int32_t)h;
    out->channels = channels;
    return SDLORA_OK;
}

static int info_of(slr_source *s, slr_image_info *out)
{
    uint8_t first[32] = {0};
    size_t n = s->size < sizeof first ? (size_t)s->size : sizeof first;
    const slr_codec *codec = NULL;
    memset(out, 0, sizeof *out);
    out->orientation = 1;
    SLR_TRY(slr_source_get(s, 0, first, n));
    SLR_TRY(slr_codec_find(&codec, first, n, s->label));
    out->format = codec->name;
    SLR_TRY(codec->info(s, out));
    return slr_image_check(s->label, (uint64_t)out->width, (uint64_t)out->height, UINT64_MAX);
}

int slr_image_info_parse(const void *bytes, size_t n, const char *label, slr_image_info *out)
{
    slr_source s;
    slr_require(out && label && (bytes || !n));
    slr_source_memory(&s, bytes ? bytes : "", n, label);
    return info_of(&s, out);
}

int slr_image_info_read(const char *path, slr_image_info *out)
{
    slr_source s;
    uint64_t size;
    int fd, rc;
    slr_require(out && path);
    SLR_TRY(slr_file_fd_open(&fd, &size, path));
    slr_source_file(&s, fd, size, path);
    rc = info_of(&s, out);
    slr_file_fd_close(fd);
    return rc;
}

int slr_image_decode_limit(slr_mem *m, const void *bytes, size_t n, const char *label, bool alpha,
                           uint64_t max_pixels, slr_pixels *out)
{
    slr_decode_job job = {m, bytes, n, label, alpha, max_pixels};
    const slr_codec *codec = NULL;
    int rc;
    slr_require(out && label && (bytes || !n));
    memset(out, 0, sizeof *out);
    if (!job.max_pixels)
        job.max_pixels = SLR_IMAGE_MAX_PIXELS;
    SLR_TRY(slr_codec_find(&codec, job.bytes, n < 32 ? n : 32, label));
    rc = codec->decode(&job, out);
    if (rc < 0) {
        slr_free(m, out->data);
        memset(out, 0, sizeof *out);
    }
    return rc;
}

int slr_image_decode(slr_mem *m, const void *bytes, size_t n, const char *label, bool alpha,
                     slr_pixels *out)
{
    return slr_image_decode_limit(m, bytes, n, label, alpha, 0, out);
}

int slr_image_read(slr_mem *m, const char *path, bool alpha, slr_pixels *out)
{
    void *bytes;
    size_t n;
    int rc;
    slr_require(out);
    memset(out, 0, sizeof *out);
    /* Read, not mapped: a picture that changes under us must not become a SIGBUS. */
    SLR_TRY(slr_file_read(m, path, FILE_MAX, &bytes, &n));
    rc = slr_image_decode(m, bytes, n, path, alpha, out);
    slr_free(m, bytes);
    return rc;
}

/* Where pixel (x, y) of the upright picture lies in the stored one: first mirrored across the
 * diagonal, then along each stored axis (EXIF 2.3, table of Orientation). */
static const struct {
    bool transpose, flip_x, flip_y;
} turns[9] = {
    [1] = {false, false, false}, [2] = {false, true, false}, [3] = {false, true, true},
    [4] = {false, false, true},  [5] = {true, false, false}, [6] = {true, false, true},
    [7] = {true, true, true},    [8] = {true, true, false},
};

int slr_image_orient(slr_mem *m, slr_pixels *p, int orientation)
{
    size_t c, bytes;
    int32_t w, h;
    uint8_t *to;
    slr_require(p && p->data);
    if (orientation <= 1 || orientation > 8)
        return SDLORA_OK;
    c = (size_t)p->channels;
    w = turns[orientation].transpose ? p->height : p->width;
    h = turns[orientation].transpose ? p->width : p->height;
    bytes = (size_t)w * (size_t)h * c;
    to = slr_alloc(m, bytes);
    if (!to)
        return SDLORA_ENOMEM;
    for (int32_t y = 0; y < h; y++)
        for (int32_t x = 0; x < w; x++) {
            int32_t sx = turns[orientation].transpose ? y : x;
            int32_t sy = turns[orientation].transpose ? x : y;
            sx = turns[orientation].flip_x ? p->width - 1 - sx : sx;
            sy = turns[orientation].flip_y ? p->height - 1 - sy : sy;
            memcpy(to + ((size_t)y * (size_t)w + (size_t)x) * c,
                   p->data + ((size_t)sy * (size_t)p->width + (size_t)sx) * c, c);
        }
    slr_free(m, p->data);
    p->data = to;
    p->width = w;
    p->height = h;
    return SDLORA_OK;
}
