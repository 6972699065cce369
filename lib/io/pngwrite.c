/* SPDX-License-Identifier: MIT */
/* Writing PNG: 8-bit RGB or RGBA, texts, zlib level 6, no time stamp; so equal pixels and texts
 * give equal bytes. */
#include "io/codec.h"

#include <setjmp.h>
#include <string.h>

#include <png.h>

#include "base/status.h"

enum { LEVEL = 6, KEYWORD_MAX = 79 };

/* All that lives across a longjmp. */
typedef struct maker {
    png_structp png;
    png_infop info;
    slr_mem *m;
    bool starved; /* an allocation failed: the reason is ENOMEM */
    slr_buf *out;
    slr_buf keyword, latin1;
    char why[128];
    int rc;
} maker;

static void on_error(png_structp png, png_const_charp text)
{
    maker *k = png_get_error_ptr(png);
    strncpy(k->why, text, sizeof k->why - 1);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
}

static png_voidp on_alloc(png_structp png, png_alloc_size_t n)
{
    maker *k = png_get_mem_ptr(png);
    void *p = slr_alloc(k->m, n);
    k->starved |= !p;
    return p;
}

static void on_free(png_structp png, png_voidp p)
{
    maker *k = png_get_mem_ptr(png);
    slr_free(k->m, p);
}

static void on_write(png_structp png, png_bytep bytes, size_t n)
{
    maker *k = png_get_io_ptr(png);
    slr_buf_add(k->out, bytes, n);
    k->starved |= slr_buf_ok(k->out) < 0;
    if (k->starved)
        png_error(png, "out of memory");
}

static void on_flush(png_structp png)
{
}

/* Latin-1 spelling of UTF-8 text; false when some letter has none. */
static bool to_latin1(slr_buf *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += slr_utf8_next(text + i, n - i, &cp);
        if (cp > 0xff)
            return false;
        slr_buf_putc(out, (char)(unsigned char)cp);
    }
    return true;
}

/* The keyword in `keyword`: one to 79 letters of Latin-1, with no space at either end. */
static bool set_keyword(maker *k, const char *keyword)
{
    size_t n = strlen(keyword);
    k->keyword.len = 0;
    if (!n || !to_latin1(&k->keyword, keyword, n) || k->keyword.len > KEYWORD_MAX)
        return false;
    for (size_t i = 0; i < k->keyword.len; i++) {
        unsigned char c = (unsigned char)k->keyword.data[i];
        if (c < 0x20 || (c >= 0x7f && c <= 0xa0))
            return false;
    }
    return keyword[0] != ' ' && keyword[n - 1] != ' ' && !strstr(keyword, "  ");
}

/* As Pillow does: tEXt when the text is Latin-1, else iTXt.  A keyword that PNG has no way to
 * write drops its text. */
static void write_text(maker *k, const char *keyword, const char *text)
{
    png_text chunk = {0};
    size_t n = strlen(text);
    if (!set_keyword(k, keyword))
        return;
    k->latin1.len = 0;
    chunk.key = k->keyword.data;
    if (to_latin1(&k->latin1, text, n)) {
        chunk.compression = PNG_TEXT_COMPRESSION_NONE;
        chunk.text = k->latin1.len ? k->latin1.data : (png_charp)(uintptr_t) "";
        chunk.text_length = k->latin1.len;
    } else {
        chunk.compression = PNG_ITXT_COMPRESSION_NONE;
        chunk.text = (png_charp)(uintptr_t)text;
        chunk.itxt_length = n;
    }
    k->starved |= slr_buf_ok(&k->keyword) < 0 || slr_buf_ok(&k->latin1) < 0;
    if (k->starved)
        png_error(k->png, "out of memory");
    png_set_text(k->png, k->info, &chunk, 1);
}

static void write_texts(maker *k, const slr_image_save *how)
{
    for (size_t i = 0; how->others && i < how->others->n; i++)
        if (strcmp(how->others->at[i].keyword, "parameters") != 0)
            write_text(k, how->others->at[i].keyword, how->others->at[i].text);
    if (how->text)
        write_text(k, "parameters", how->text);
}

/* The only frame that setjmp returns into. */
static void encode_guarded(maker *k, const slr_pixels *p, const slr_image_save *how)
{
    if (setjmp(png_jmpbuf(k->png))) {
        k->rc = k->starved ? slr_nomem("slr_png_encode", k->out->len)
                           : slr_fail(SDLORA_ERROR, "slr_png_encode", "libpng: %s", k->why);
        return;
    }
    png_set_write_fn(k->png, k, on_write, on_flush);
    png_set_user_limits(k->png, SLR_IMAGE_MAX_SIDE, SLR_IMAGE_MAX_SIDE);
    png_set_compression_level(k->png, LEVEL);
    png_set_IHDR(k->png, k->info, (png_uint_32)p->width, (png_uint_32)p->height, 8,
                 p->channels == 4 ? PNG_COLOR_TYPE_RGB_ALPHA : PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    write_texts(k, how);
    png_write_info(k->png, k->info);
    for (int32_t y = 0; y < p->height; y++)
        png_write_row(k->png, p->data + (size_t)y * (size_t)p->width * (size_t)p->channels);
    png_write_end(k->png, k->info);
}

int slr_png_encode_job(const slr_encode_job *job, slr_buf *out)
{
    maker k = {.m = job->m, .out = out};
    slr_buf_init(&k.keyword, job->m);
    slr_buf_init(&k.latin1, job->m);
    k.png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &k, on_error, on_warning, &k, on_alloc,
                                      on_free);
    k.info = k.png ? png_create_info_struct(k.png) : NULL;
    if (k.info)
        encode_guarded(&k, job->p, job->how);
    else
        k.rc = slr_nomem("slr_png_encode", 0);
    png_destroy_write_struct(&k.png, &k.info);
    slr_buf_free(&k.keyword);
    slr_buf_free(&k.latin1);
    return k.rc;
}
