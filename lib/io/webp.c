/* SPDX-License-Identifier: MIT */
/* Reading WebP by libwebp: still pictures, lossy or lossless.  It knows the RIFF chunks well enough
 * to find size, alpha and orientation; animations are refused with a sentence. */
#include "io/codec.h"

#include <string.h>

#include <webp/decode.h>

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

static int info(slr_source *s, slr_image_info *out)
{
    WebPBitstreamFeatures f;
    uint8_t head[HEAD];
    size_t n = s->size < sizeof head ? (size_t)s->size : sizeof head;
    uint64_t at = 12;
    SLR_TRY(slr_source_get(s, 0, head, n));
    SLR_TRY(features(head, n, s->label, &f));
    out->width = f.width;
    out->height = f.height;
    out->alpha = f.has_alpha;
    for (int i = 0; i < CHUNKS_MAX; i++) {
        uint32_t size;
        if (slr_source_get(s, at, head, 8) < 0)
            break;
        size = slr_le32(head + 4);
        if (!memcmp(head, "EXIF", 4)) {
            out->orientation = slr_exif_from(s, at + 8, size);
            break;
        }
        at += 8 + (uint64_t)size + (size & 1);
    }
    slr_clear();
    return SDLORA_OK;
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

const slr_codec slr_codec_webp = {.name = "webp", .is = is_webp, .info = info, .decode = decode};
