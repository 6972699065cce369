/* SPDX-License-Identifier: MIT */
/* Reading JPEG by TurboJPEG.  It knows the marker stream (for size and orientation without
 * decoding), and which of the library's warnings Pillow lives with: all but an early end.  Slow
 * accurate DCT and smooth upsampling, so that pixels are Pillow's. */
#include "io/codec.h"

#include <string.h>

#include <turbojpeg.h>

#include "base/status.h"

enum { MARKERS_MAX = 10000, SOI = 0xd8, EOI = 0xd9, SOS = 0xda, APP1 = 0xe1, TEM = 0x01 };

static bool is_jpeg(const uint8_t *first, size_t n)
{
    return n >= 3 && !memcmp(first, "\377\330\377", 3);
}

/* SOF0..SOF15 but for DHT, JPG and DAC, which sit among their numbers. */
static bool is_frame(int marker)
{
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

/* The marker at or after *at; *at moves behind it.  Stray bytes before it are stepped over. */
static int next_marker(slr_source *s, uint64_t *at, int *marker)
{
    uint8_t b;
    do {
        SLR_TRY(slr_source_get(s, (*at)++, &b, 1));
    } while (b != 0xff);
    do {
        SLR_TRY(slr_source_get(s, (*at)++, &b, 1));
    } while (b == 0xff);
    *marker = b;
    return SDLORA_OK;
}

static int read_frame(slr_source *s, uint64_t at, slr_image_info *out)
{
    uint8_t f[6]; /* precision, height, width, components */
    SLR_TRY(slr_source_get(s, at, f, sizeof f));
    out->height = (int32_t)slr_be16(f + 1);
    out->width = (int32_t)slr_be16(f + 3);
    return SDLORA_OK;
}

static int info(slr_source *s, slr_image_info *out)
{
    uint64_t at = 2;
    bool exif = false;
    for (int i = 0; i < MARKERS_MAX; i++) {
        uint8_t word[2], id[6];
        uint64_t body, n;
        int marker;
        SLR_TRY(next_marker(s, &at, &marker));
        if (marker == 0 || marker == TEM || (marker >= 0xd0 && marker <= SOI))
            continue; /* these have no length */
        if (marker == SOS || marker == EOI)
            break;
        SLR_TRY(slr_source_get(s, at, word, 2));
        n = slr_be16(word);
        if (n < 2)
            return slr_fail(SDLORA_EFORMAT, "slr_jpeg", "%s: marker %02X has no length", s->label,
                            marker);
        body = at + 2;
        n -= 2;
        at = body + n;
        if (is_frame(marker) && !out->width)
            SLR_TRY(read_frame(s, body, out));
        if (marker == APP1 && !exif && n > 6 && slr_source_get(s, body, id, 6) == SDLORA_OK &&
            !memcmp(id, "Exif\0\0", 6)) {
            out->orientation = slr_exif_from(s, body, n);
            exif = true;
        }
    }
    if (!out->width)
        return slr_fail(SDLORA_EFORMAT, "slr_jpeg", "%s: has no frame before its data", s->label);
    slr_clear();
    return SDLORA_OK;
}

static int failed(const slr_decode_job *job, tjhandle tj)
{
    return slr_fail(SDLORA_EFORMAT, "slr_jpeg", "%s: %s", job->label, tjGetErrorStr2(tj));
}

/* Whether an end marker follows the first start of scan; without one the file was cut. */
static bool has_end(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (i + 1 < n && !(p[i] == 0xff && p[i + 1] == SOS))
        i++;
    while (i + 1 < n && !(p[i] == 0xff && p[i + 1] == EOI))
        i++;
    return i + 1 < n;
}

/* TurboJPEG keeps its first warning only; so an early end is also looked for in the bytes. */
static int decode_pixels(const slr_decode_job *job, tjhandle tj, slr_pixels *out)
{
    int flags = TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS;
    size_t pitch = (size_t)out->width * 3;
    if (tjDecompress2(tj, job->bytes, (unsigned long)job->n, out->data, out->width, (int)pitch,
                      out->height, TJPF_RGB, flags | TJFLAG_STOPONWARNING) == 0)
        return SDLORA_OK;
    if (tjGetErrorCode(tj) != TJERR_WARNING || strstr(tjGetErrorStr2(tj), "Premature end of JPEG"))
        return failed(job, tj);
    if (!has_end(job->bytes, job->n))
        return slr_fail(SDLORA_EFORMAT, "slr_jpeg", "%s: ends early", job->label);
    /* The strict pass may have stopped anywhere. */
    memset(out->data, 0, pitch * (size_t)out->height);
    if (tjDecompress2(tj, job->bytes, (unsigned long)job->n, out->data, out->width, (int)pitch,
                      out->height, TJPF_RGB, flags) == 0 ||
        (tjGetErrorCode(tj) == TJERR_WARNING &&
         !strstr(tjGetErrorStr2(tj), "Premature end of JPEG")))
        return SDLORA_OK;
    return failed(job, tj);
}

static int decode_with(const slr_decode_job *job, tjhandle tj, slr_pixels *out)
{
    int w, h, sampling, space;
    if (tjDecompressHeader3(tj, job->bytes, (unsigned long)job->n, &w, &h, &sampling, &space) != 0)
        return failed(job, tj);
    if (space == TJCS_CMYK || space == TJCS_YCCK)
        return slr_fail(SDLORA_ENOTSUP, "slr_jpeg",
                        "%s: is a CMYK picture; save it as RGB to use it", job->label);
    SLR_TRY(slr_pixels_new(job, w < 0 ? 0 : (uint64_t)w, h < 0 ? 0 : (uint64_t)h, 3, out));
    return decode_pixels(job, tj, out);
}

static int decode(const slr_decode_job *job, slr_pixels *out)
{
    tjhandle tj = tjInitDecompress();
    int rc;
    if (!tj)
        return slr_nomem("slr_jpeg", 0);
    rc = decode_with(job, tj, out);
    tjDestroy(tj);
    return rc;
}

const slr_codec slr_codec_jpeg = {.name = "jpeg", .is = is_jpeg, .info = info, .decode = decode};
