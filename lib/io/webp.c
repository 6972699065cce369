/* SPDX-License-Identifier: MIT */
/* WebP by libwebp: still pictures, lossy or lossless.  It knows the RIFF chunks well enough to find
 * size, alpha, orientation and text, and to add text; animations are refused with a sentence. */
#include "io/codec.h"

#include <string.h>

#include <webp/decode.h>
#include <webp/encode.h>

#include "base/status.h"

enum { CHUNKS_MAX = 10000, HEAD = 64 };

static bool is_webp(const uint8_t *first, size_t n)
{
    return n >= 12 && !memcmp(first, "RIFF", 4) && !memcmp(first + 8, "WEBP", 4);
}

static int features(const uint8_t *bytes, size_t n, const char *label, WebPBitstreamFeatures *f)
{
    VP8StatusCode status = WebPGetFeatures(bytes, n, f);
    if (status != VP8_STATUS_OK)
        return slr_fail(SDLORA_EFORMAT, "slr_webp", "%s: %s", label,
                        status == VP8_STATUS_NOT_ENOUGH_DATA ? "ends early"
                                                             : "its WebP header is broken");
    return SDLORA_OK;
}

/* The EXIF chunk; false when there is none. */
static bool find_exif(slr_source *s, uint64_t *body, uint32_t *size)
{
    uint8_t head[8];
    uint64_t at = 12;
    for (int i = 0; i < CHUNKS_MAX && slr_source_get(s, at, head, 8) == SDLORA_OK; i++) {
        *size = slr_le32(head + 4);
        *body = at + 8;
        if (!memcmp(head, "EXIF", 4))
            return true;
        at = *body + *size + (*size & 1);
    }
    slr_clear();
    return false;
}

static int info(slr_source *s, slr_image_info *out)
{
    WebPBitstreamFeatures f;
    uint8_t head[HEAD];
    size_t n = s->size < sizeof head ? (size_t)s->size : sizeof head;
    uint64_t at;
    uint32_t size;
    SLR_TRY(slr_source_get(s, 0, head, n));
    SLR_TRY(features(head, n, s->label, &f));
    out->width = f.width;
    out->height = f.height;
    out->alpha = f.has_alpha;
    if (find_exif(s, &at, &size))
        out->orientation = slr_exif_from(s, at, size);
    slr_clear();
    return SDLORA_OK;
}

static int texts(slr_source *s, slr_image_texts *out)
{
    uint64_t at;
    uint32_t size;
    if (!find_exif(s, &at, &size))
        return SDLORA_OK;
    return slr_exif_texts(s, at, size, out);
}

static int decode(const slr_decode_job *job, slr_pixels *out)
{
    WebPBitstreamFeatures f;
    size_t bytes, pitch;
    uint8_t *done;
    SLR_TRY(features(job->bytes, job->n, job->label, &f));
    if (f.has_animation)
        return slr_fail(SDLORA_ENOTSUP, "slr_webp", "%s: is an animation; only stills can be read",
                        job->label);
    SLR_TRY(slr_pixels_new(job, (uint64_t)f.width, (uint64_t)f.height,
                           job->alpha && f.has_alpha ? 4 : 3, out));
    pitch = (size_t)out->width * (size_t)out->channels;
    bytes = pitch * (size_t)out->height;
    if (out->channels == 4)
        done = WebPDecodeRGBAInto(job->bytes, job->n, out->data, bytes, (int)pitch);
    else
        done = WebPDecodeRGBInto(job->bytes, job->n, out->data, bytes, (int)pitch);
    return done ? SDLORA_OK
                : slr_fail(SDLORA_EFORMAT, "slr_webp", "%s: is broken or ends early", job->label);
}

/* --- writing --- */

static int on_write(const uint8_t *bytes, size_t n, const WebPPicture *picture)
{
    slr_buf *b = picture->custom_ptr;
    slr_buf_add(b, bytes, n);
    return slr_buf_ok(b) >= 0;
}

static int encode_plain(const slr_encode_job *job, slr_buf *out)
{
    const slr_pixels *p = job->p;
    WebPConfig config;
    WebPPicture picture;
    if (!WebPConfigInit(&config) || !WebPPictureInit(&picture))
        return slr_fail(SDLORA_ERROR, "slr_webp", "libwebp is of another version");
    config.quality = (float)job->how->quality;
    config.lossless = job->how->lossless;
    picture.use_argb = job->how->lossless;
    picture.width = p->width;
    picture.height = p->height;
    picture.writer = on_write;
    picture.custom_ptr = out;
    int pitch = p->width * p->channels, ok = p->channels == 4
                                                 ? WebPPictureImportRGBA(&picture, p->data, pitch)
                                                 : WebPPictureImportRGB(&picture, p->data, pitch);
    ok = ok && WebPEncode(&config, &picture);
    int error = picture.error_code;
    WebPPictureFree(&picture);
    if (ok)
        return slr_buf_ok(out);
    if (slr_buf_ok(out) < 0 || error == VP8_ENC_ERROR_OUT_OF_MEMORY ||
        error == VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY)
        return slr_nomem("slr_webp", (size_t)p->width * (size_t)p->height);
    return slr_fail(SDLORA_ERROR, "slr_webp", "libwebp: error %d", error);
}

static void put_le32(slr_buf *b, uint32_t v)
{
    for (int i = 0; i < 4; i++, v >>= 8)
        slr_buf_putc(b, (char)v);
}

/* The extended form (RFC 9649, 2.7): flags and size in front, then the chunks, then EXIF. */
static int add_exif(const slr_encode_job *job, slr_buf *plain, slr_buf *exif, slr_buf *out)
{
    enum { FLAG_EXIF = 8, FLAG_ALPHA = 16, EXTENDED = 18 };
    bool has_head = plain->len >= 12 + EXTENDED && !memcmp(plain->data + 12, "VP8X", 4);
    uint32_t flags = has_head                ? (uint8_t)plain->data[20]
                     : job->p->channels == 4 ? FLAG_ALPHA
                                             : 0,
             w = (uint32_t)job->p->width - 1, h = (uint32_t)job->p->height - 1;
    size_t from = has_head ? 12 + EXTENDED : 12, padded = exif->len + (exif->len & 1),
           total = 4 + EXTENDED + (plain->len - from) + 8 + padded;
    slr_buf_puts(out, "RIFF");
    put_le32(out, (uint32_t)total);
    slr_buf_puts(out, "WEBPVP8X");
    put_le32(out, 10);
    put_le32(out, flags | FLAG_EXIF);
    for (int i = 0; i < 3; i++)
        slr_buf_putc(out, (char)(w >> 8 * i));
    for (int i = 0; i < 3; i++)
        slr_buf_putc(out, (char)(h >> 8 * i));
    slr_buf_add(out, plain->data + from, plain->len - from);
    slr_buf_puts(out, "EXIF");
    put_le32(out, (uint32_t)exif->len);
    slr_buf_add(out, exif->data, exif->len);
    slr_buf_add(out, "", exif->len & 1); /* chunks have even sizes */
    return slr_buf_ok(out);
}

static int encode(const slr_encode_job *job, slr_buf *out)
{
    slr_buf plain, exif;
    int rc;
    if (job->p->width > WEBP_MAX_DIMENSION || job->p->height > WEBP_MAX_DIMENSION)
        return slr_fail(SDLORA_EINVAL, "slr_webp", "%dx%d pixels: sides of WebP end at %d",
                        job->p->width, job->p->height, WEBP_MAX_DIMENSION);
    if (!job->how->text || !*job->how->text)
        return encode_plain(job, out);
    slr_buf_init(&plain, job->m);
    slr_buf_init(&exif, job->m);
    rc = encode_plain(job, &plain);
    if (rc >= 0)
        rc = slr_exif_make(&exif, job->how->text);
    if (rc >= 0)
        rc = add_exif(job, &plain, &exif, out);
    slr_buf_free(&plain);
    slr_buf_free(&exif);
    return rc;
}

const slr_codec slr_codec_webp = {.name = "webp",
                                  .ends = {".webp"},
                                  .is = is_webp,
                                  .info = info,
                                  .decode = decode,
                                  .texts = texts,
                                  .encode = encode};
