/* SPDX-License-Identifier: MIT */
/* JPEG by TurboJPEG.  It knows the marker stream (for size and orientation without
 * decoding), and which of the library's warnings Pillow lives with: all but an early end.  Slow
 * accurate DCT and smooth upsampling, so that pixels are Pillow's. */
#include "io/codec.h"

#include <string.h>

#include <turbojpeg.h>

#include "base/status.h"

enum {
    MARKERS_MAX = 10000,
    SOI = 0xd8,
    EOI = 0xd9,
    SOS = 0xda,
    APP0 = 0xe0,
    APP1 = 0xe1,
    COM = 0xfe,
    TEM = 0x01
};

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

typedef struct segment {
    int marker;
    uint64_t at, n; /* of its body */
} segment;

/* The next segment that has a body, before the picture's data; DONE when those begin. */
static int next_segment(slr_source *s, uint64_t *at, segment *out)
{
    uint8_t word[2];
    int marker;
    do {
        SLR_TRY(next_marker(s, at, &marker));
    } while (marker == 0 || marker == TEM || (marker >= 0xd0 && marker <= SOI)); /* no length */
    if (marker == SOS || marker == EOI)
        return SDLORA_DONE;
    SLR_TRY(slr_source_get(s, *at, word, 2));
    if (slr_be16(word) < 2)
        return slr_fail(SDLORA_EFORMAT, "slr_jpeg", "%s: marker %02X has no length", s->label,
                        marker);
    *out = (segment){marker, *at + 2, slr_be16(word) - 2u};
    *at = out->at + out->n;
    return SDLORA_OK;
}

static bool is_exif(slr_source *s, const segment *g)
{
    uint8_t id[6];
    return g->marker == APP1 && g->n > sizeof id &&
           slr_source_get(s, g->at, id, sizeof id) == SDLORA_OK && !memcmp(id, "Exif\0\0", 6);
}

static int info(slr_source *s, slr_image_info *out)
{
    uint64_t at = 2;
    segment g;
    bool exif = false;
    for (int i = 0; i < MARKERS_MAX; i++) {
        int rc = next_segment(s, &at, &g);
        SLR_TRY(rc);
        if (rc == SDLORA_DONE)
            break;
        if (is_frame(g.marker) && !out->width)
            SLR_TRY(read_frame(s, g.at, out));
        if (!exif && is_exif(s, &g)) {
            out->orientation = slr_exif_from(s, g.at, g.n);
            exif = true;
        }
    }
    if (!out->width)
        return slr_fail(SDLORA_EFORMAT, "slr_jpeg", "%s: has no frame before its data", s->label);
    slr_clear();
    return SDLORA_OK;
}

/* A comment has no encoding: what is UTF-8 of it, as A1111 takes it. */
static int read_comment(slr_source *s, const segment *g, slr_image_texts *out)
{
    uint8_t body[65536];
    slr_buf text;
    if (slr_source_get(s, g->at, body, (size_t)g->n) < 0)
        return SDLORA_OK;
    slr_buf_init(&text, out->m);
    slr_image_text_keep(&text, body, (size_t)g->n);
    return slr_image_texts_set(out, "comment", slr_buf_take(&text));
}

static int texts(slr_source *s, slr_image_texts *out)
{
    uint64_t at = 2;
    segment g;
    bool exif = false;
    for (int i = 0; i < MARKERS_MAX && next_segment(s, &at, &g) == SDLORA_OK; i++) {
        if (g.marker == COM)
            SLR_TRY(read_comment(s, &g, out));
        if (!exif && is_exif(s, &g)) {
            SLR_TRY(slr_exif_texts(s, g.at, g.n, out));
            exif = true;
        }
    }
    slr_clear(); /* where the file is broken its texts end */
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

/* --- writing: 4:2:0 and the accurate DCT, which are Pillow's choices --- */

/* The text goes behind JFIF's segment, in one of its own. */
static int add_with_text(const slr_encode_job *job, const uint8_t *jpeg, size_t n, slr_buf *out)
{
    enum { MOST = 65533 };
    size_t front = n > 6 && jpeg[2] == 0xff && jpeg[3] == APP0 ? 4 + slr_be16(jpeg + 4) : 2;
    slr_buf exif;
    int rc = SDLORA_OK;
    slr_buf_init(&exif, job->m);
    slr_buf_add(&exif, "Exif\0\0", 6);
    if (job->how->text && *job->how->text)
        rc = slr_exif_make(&exif, job->how->text);
    if (rc >= 0)
        rc = slr_buf_ok(&exif);
    if (rc >= 0 && exif.len > MOST)
        rc = slr_fail(SDLORA_EINVAL, "slr_jpeg",
                      "the picture's text takes %zu bytes of the %d that a JPEG file has for it: "
                      "PNG and WebP have room",
                      exif.len, MOST);
    if (rc >= 0) {
        slr_buf_add(out, jpeg, front);
        if (exif.len > 6) {
            const uint8_t head[4] = {0xff, APP1, (uint8_t)((exif.len + 2) >> 8),
                                     (uint8_t)(exif.len + 2)};
            slr_buf_add(out, head, sizeof head);
            slr_buf_add(out, exif.data, exif.len);
        }
        slr_buf_add(out, jpeg + front, n - front);
        rc = slr_buf_ok(out);
    }
    slr_buf_free(&exif);
    return rc;
}

static int encode_into(const slr_encode_job *job, tjhandle tj, uint8_t *room, unsigned long size,
                       slr_buf *out)
{
    const slr_pixels *p = job->p;
    if (tjCompress2(tj, p->data, p->width, p->width * p->channels, p->height,
                    p->channels == 4 ? TJPF_RGBA : TJPF_RGB, &room, &size, TJSAMP_420,
                    job->how->quality, TJFLAG_ACCURATEDCT | TJFLAG_NOREALLOC) != 0)
        return slr_fail(SDLORA_ERROR, "slr_jpeg", "libjpeg: %s", tjGetErrorStr2(tj));
    return add_with_text(job, room, size, out);
}

static int encode(const slr_encode_job *job, slr_buf *out)
{
    unsigned long size = tjBufSize(job->p->width, job->p->height, TJSAMP_420);
    uint8_t *room = slr_alloc(job->m, size);
    tjhandle tj = room ? tjInitCompress() : NULL;
    int rc = tj ? encode_into(job, tj, room, size, out) : slr_nomem("slr_jpeg", size);
    if (tj)
        tjDestroy(tj);
    slr_free(job->m, room);
    return rc;
}

const slr_codec slr_codec_jpeg = {.name = "jpeg",
                                  .ends = {".jpg", ".jpeg"},
                                  .is = is_jpeg,
                                  .info = info,
                                  .decode = decode,
                                  .texts = texts,
                                  .encode = encode};
