/* SPDX-License-Identifier: MIT */
/* Reading PNG by libpng's row functions.  libpng inflates and unfilters; expanding palettes, depths
 * and transparency is done here, since that is where its past faults lay and because the result has
 * to be Pillow's.  Ancillary chunks are never given to it.  Memory is the picture plus one row,
 * or plus the raw picture when it is interlaced. */
#include "io/codec.h"

#include <setjmp.h>
#include <string.h>

#include <png.h>

#include "base/status.h"
#include "io/pngchunk.h"

enum { CHUNKS_MAX = 100000, CHUNK_BYTES = 8 << 20, CHUNK_CACHE = 128 };

/* Deflate makes at most 1032 bytes out of one; a header that asks for more can't be served. */
enum { DEFLATE_MOST = 1032 };

/* All that lives across a longjmp: only the fields, never locals, change after setjmp. */
typedef struct reader {
    const slr_decode_job *job;
    png_structp png;
    png_infop info;
    size_t at; /* next byte of the file */
    uint8_t *raw;
    slr_pixels *out;
    char text[128]; /* libpng's reason */
    bool starved;   /* an allocation failed: the reason is ENOMEM */
    int rc;
    /* What the header says. */
    uint32_t w, h;
    int depth, color;
    size_t row_bytes; /* of one raw row: depth < 8 is unpacked to bytes */
    png_colorp palette;
    int n_palette;
    png_bytep alphas; /* of palette entries */
    int n_alphas;
    png_color_16p key; /* the one transparent colour */
} reader;

static void on_error(png_structp png, png_const_charp text)
{
    reader *r = png_get_error_ptr(png);
    strncpy(r->text, text, sizeof r->text - 1);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
}

static png_voidp on_alloc(png_structp png, png_alloc_size_t n)
{
    reader *r = png_get_mem_ptr(png);
    void *p = slr_alloc(r->job->m, n);
    r->starved |= !p;
    return p;
}

static void on_free(png_structp png, png_voidp p)
{
    reader *r = png_get_mem_ptr(png);
    slr_free(r->job->m, p);
}

static void on_read(png_structp png, png_bytep to, size_t n)
{
    reader *r = png_get_io_ptr(png);
    if (n > r->job->n - r->at)
        png_error(png, "the file ends early");
    memcpy(to, r->job->bytes + r->at, n);
    r->at += n;
}

/* Chunks that libpng would parse, some of them into memory, and that pixels do not need. */
static void drop_ancillary(png_structp png)
{
    static const png_byte names[] = "bKGD\0cHRM\0eXIf\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0"
                                    "sBIT\0sCAL\0sPLT\0sRGB\0tEXt\0tIME\0zTXt";
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, names, (int)(sizeof names / 5));
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
}

static void read_header(reader *r)
{
    int interlace;
    png_set_user_limits(r->png, SLR_IMAGE_MAX_SIDE, SLR_IMAGE_MAX_SIDE);
    png_set_chunk_malloc_max(r->png, CHUNK_BYTES);
    png_set_chunk_cache_max(r->png, CHUNK_CACHE);
    drop_ancillary(r->png);
    png_set_read_fn(r->png, r, on_read);
    png_read_info(r->png, r->info);
    png_get_IHDR(r->png, r->info, &r->w, &r->h, &r->depth, &r->color, &interlace, NULL, NULL);
    if (r->depth < 8)
        png_set_packing(r->png);
    png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    r->row_bytes = png_get_rowbytes(r->png, r->info);
    png_get_PLTE(r->png, r->info, &r->palette, &r->n_palette);
    if (!png_get_tRNS(r->png, r->info, &r->alphas, &r->n_alphas, &r->key))
        r->key = NULL, r->n_alphas = 0;
    if (r->color == PNG_COLOR_TYPE_PALETTE)
        r->key = NULL;
}

static bool has_alpha(const reader *r)
{
    return (r->color & PNG_COLOR_MASK_ALPHA) || r->n_alphas > 0 || r->key;
}

/* One sample as Pillow's convert("RGB") gives it: colour keeps the high byte of 16, grey of 16 bits
 * saturates (Pillow's mode I;16 is clipped, not scaled), grey of few bits is spread to 0..255. */
static uint8_t grey_of(const reader *r, uint32_t v)
{
    if (r->depth == 16)
        return (uint8_t)(v > 255 ? 255 : v);
    return (uint8_t)(v * 255 / ((1u << r->depth) - 1));
}

static void put_palette(const reader *r, const uint8_t *from, uint8_t *to, int channels)
{
    for (uint32_t x = 0; x < r->w; x++, to += channels) {
        int i = from[x];
        png_color c = {0, 0, 0}; /* an index past the palette is black, as in Pillow */
        if (i < r->n_palette)
            c = r->palette[i];
        to[0] = c.red;
        to[1] = c.green;
        to[2] = c.blue;
        if (channels == 4)
            to[3] = i < r->n_alphas ? r->alphas[i] : 255;
    }
}

static void put_grey(const reader *r, const uint8_t *from, uint8_t *to, int channels)
{
    size_t wide = r->depth == 16 ? 2 : 1;
    bool alpha = r->color & PNG_COLOR_MASK_ALPHA;
    for (uint32_t x = 0; x < r->w; x++, to += channels, from += wide * (alpha ? 2 : 1)) {
        uint32_t v = wide == 2 ? slr_be16(from) : from[0];
        /* With alpha, 16 bits are Pillow's LA;16B, which does keep the high byte. */
        to[0] = to[1] = to[2] = alpha ? from[0] : grey_of(r, v);
        if (channels == 4)
            to[3] = alpha ? from[wide] : r->key && v == r->key->gray ? 0 : 255;
    }
}

static void put_colour(const reader *r, const uint8_t *from, uint8_t *to, int channels)
{
    size_t wide = r->depth == 16 ? 2 : 1;
    bool alpha = r->color & PNG_COLOR_MASK_ALPHA;
    for (uint32_t x = 0; x < r->w; x++, to += channels, from += wide * (alpha ? 4 : 3)) {
        uint32_t v[3];
        for (int c = 0; c < 3; c++) {
            v[c] = wide == 2 ? slr_be16(from + 2 * c) : from[c];
            to[c] = from[wide * (size_t)c];
        }
        if (channels == 4)
            to[3] = alpha ? from[3 * wide]
                    : r->key && v[0] == r->key->red && v[1] == r->key->green && v[2] == r->key->blue
                        ? 0
                        : 255;
    }
}

static void put_row(const reader *r, const uint8_t *from, uint32_t y)
{
    int channels = r->out->channels;
    uint8_t *to = r->out->data + (size_t)y * r->w * (size_t)channels;
    if (r->color == PNG_COLOR_TYPE_PALETTE)
        put_palette(r, from, to, channels);
    else if (r->color & PNG_COLOR_MASK_COLOR)
        put_colour(r, from, to, channels);
    else
        put_grey(r, from, to, channels);
}

/* Memory for the rows: refused when the file is too short to fill it, so a small file can't ask for
 * much. */
static int make_room(reader *r, bool interlaced)
{
    const slr_decode_job *job = r->job;
    size_t file_row = (r->w * png_get_channels(r->png, r->info) * (size_t)r->depth + 7) / 8;
    SLR_TRY(slr_image_check(job->label, r->w, r->h, job->max_pixels));
    if ((uint64_t)file_row * r->h / DEFLATE_MOST > job->n)
        return slr_fail(SDLORA_EFORMAT, "slr_png", "%s: %ux%u pixels can't be in %zu bytes",
                        job->label, r->w, r->h, job->n);
    r->raw = slr_calloc(job->m, interlaced ? r->h : 1, r->row_bytes);
    if (!r->raw)
        return SDLORA_ENOMEM;
    return slr_pixels_new(job, r->w, r->h, job->alpha && has_alpha(r) ? 4 : 3, r->out);
}

static void read_rows(reader *r, bool interlaced)
{
    int passes = interlaced ? PNG_INTERLACE_ADAM7_PASSES : 1;
    for (int pass = 0; pass < passes; pass++)
        for (uint32_t y = 0; y < r->h; y++) {
            uint8_t *row = r->raw + (interlaced ? y * r->row_bytes : 0);
            png_read_row(r->png, row, NULL);
            if (pass == passes - 1)
                put_row(r, row, y);
        }
}

/* The only frame that setjmp returns into. */
static void decode_guarded(reader *r)
{
    bool interlaced;
    if (setjmp(png_jmpbuf(r->png))) {
        r->rc = r->starved ? slr_nomem("slr_png", r->job->n)
                           : slr_fail(SDLORA_EFORMAT, "slr_png", "%s: %s", r->job->label, r->text);
        return;
    }
    read_header(r);
    interlaced = png_get_interlace_type(r->png, r->info) != PNG_INTERLACE_NONE;
    r->rc = make_room(r, interlaced);
    if (r->rc == SDLORA_OK)
        read_rows(r, interlaced);
    /* What follows the last row does not matter to pixels: chunks there are not read. */
}

static int decode(const slr_decode_job *job, slr_pixels *out)
{
    reader r = {.job = job, .out = out};
    r.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning, &r, on_alloc,
                                     on_free);
    if (!r.png)
        return slr_nomem("slr_png", 0);
    r.info = png_create_info_struct(r.png);
    if (r.info)
        decode_guarded(&r);
    else
        r.rc = slr_nomem("slr_png", 0);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    slr_free(job->m, r.raw);
    return r.rc;
}

static bool is_png(const uint8_t *first, size_t n)
{
    return n >= 8 && !memcmp(first, "\211PNG\r\n\032\n", 8);
}

int slr_png_next(slr_source *s, uint64_t *at, slr_png_chunk *out)
{
    uint8_t head[8];
    if (*at >= s->size)
        return SDLORA_DONE;
    SLR_TRY(slr_source_get(s, *at, head, 8));
    out->size = slr_be32(head);
    memcpy(out->name, head + 4, 4);
    out->name[4] = '\0';
    out->at = *at + 8;
    for (int i = 4; i < 8; i++)
        if (!((head[i] | 32) >= 'a' && (head[i] | 32) <= 'z'))
            return slr_fail(SDLORA_EFORMAT, "slr_png", "%s: no chunk starts at byte %llu", s->label,
                            (unsigned long long)*at);
    if (out->size > INT32_MAX || out->size + UINT64_C(4) > s->size - out->at)
        return slr_fail(SDLORA_EFORMAT, "slr_png", "%s: ends inside chunk %s", s->label, out->name);
    *at = out->at + out->size + 4;
    return !strcmp(out->name, "IEND") ? SDLORA_DONE : SDLORA_OK;
}

/* IHDR must be there and whole; whatever is broken behind it is the decoder's business. */
static int info(slr_source *s, slr_image_info *out)
{
    slr_png_chunk c;
    uint64_t at = 8;
    uint8_t head[13];
    int rc = slr_png_next(s, &at, &c);
    if (rc < 0)
        return rc;
    if (strcmp(c.name, "IHDR") != 0 || c.size != sizeof head)
        return slr_fail(SDLORA_EFORMAT, "slr_png", "%s: does not begin with IHDR", s->label);
    SLR_TRY(slr_source_get(s, c.at, head, sizeof head));
    if (slr_be32(head) > INT32_MAX || slr_be32(head + 4) > INT32_MAX)
        return slr_image_check(s->label, slr_be32(head), slr_be32(head + 4), UINT64_MAX);
    out->width = (int32_t)slr_be32(head);
    out->height = (int32_t)slr_be32(head + 4);
    out->alpha = head[9] & PNG_COLOR_MASK_ALPHA;
    for (int i = 0; i < CHUNKS_MAX && slr_png_next(s, &at, &c) == SDLORA_OK; i++) {
        if (!strcmp(c.name, "tRNS"))
            out->alpha = true;
        if (!strcmp(c.name, "eXIf"))
            out->orientation = slr_exif_from(s, c.at, c.size);
    }
    slr_clear();
    return SDLORA_OK;
}

const slr_codec slr_codec_png = {.name = "png",
                                 .ends = {".png"},
                                 .is = is_png,
                                 .info = info,
                                 .decode = decode,
                                 .texts = slr_png_texts,
                                 .encode = slr_png_encode_job};
