/* SPDX-License-Identifier: MIT */
/* Writing PNG: 8-bit RGB or RGBA, one `parameters` text, zlib level 6, no time stamp; so equal
 * pixels and text give equal bytes. */
#include "io/image.h"

#include <setjmp.h>
#include <string.h>

#include <png.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"

enum { LEVEL = 6 };

/* All that lives across a longjmp. */
typedef struct maker {
    png_structp png;
    png_infop info;
    slr_mem *m;
    bool starved; /* an allocation failed: the reason is ENOMEM */
    slr_buf out, latin1;
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
    slr_buf_add(&k->out, bytes, n);
    k->starved |= slr_buf_ok(&k->out) < 0;
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

static void write_text(maker *k, const char *text)
{
    png_text chunk = {0};
    size_t n = strlen(text);
    chunk.key = (png_charp)(uintptr_t) "parameters";
    if (to_latin1(&k->latin1, text, n)) {
        chunk.compression = PNG_TEXT_COMPRESSION_NONE;
        chunk.text = k->latin1.len ? k->latin1.data : (png_charp)(uintptr_t) "";
        chunk.text_length = k->latin1.len;
    } else {
        chunk.compression = PNG_ITXT_COMPRESSION_NONE;
        chunk.text = (png_charp)(uintptr_t)text;
        chunk.itxt_length = n;
    }
    png_set_text(k->png, k->info, &chunk, 1);
}

/* The only frame that setjmp returns into. */
static void encode_guarded(maker *k, const slr_pixels *p, const char *text)
{
    if (setjmp(png_jmpbuf(k->png))) {
        k->rc = k->starved ? slr_nomem("slr_png_encode", k->out.len)
                           : slr_fail(SDLORA_ERROR, "slr_png_encode", "libpng: %s", k->why);
        return;
    }
    png_set_write_fn(k->png, k, on_write, on_flush);
    png_set_user_limits(k->png, SLR_IMAGE_MAX_SIDE, SLR_IMAGE_MAX_SIDE);
    png_set_compression_level(k->png, LEVEL);
    png_set_IHDR(k->png, k->info, (png_uint_32)p->width, (png_uint_32)p->height, 8,
                 p->channels == 4 ? PNG_COLOR_TYPE_RGB_ALPHA : PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (text)
        write_text(k, text);
    png_write_info(k->png, k->info);
    for (int32_t y = 0; y < p->height; y++)
        png_write_row(k->png, p->data + (size_t)y * (size_t)p->width * (size_t)p->channels);
    png_write_end(k->png, k->info);
}

int slr_png_encode(slr_mem *m, const slr_pixels *p, const char *text, void **bytes, size_t *n)
{
    maker k = {.m = m};
    slr_require(bytes && n && p && p->data && (p->channels == 3 || p->channels == 4));
    slr_require(p->width > 0 && p->height > 0);
    *bytes = NULL;
    *n = 0;
    if (text && slr_utf8_valid(text, strlen(text)) != strlen(text))
        return slr_fail(SDLORA_EINVAL, __func__, "the text for the picture is not UTF-8");
    slr_buf_init(&k.out, m);
    slr_buf_init(&k.latin1, m);
    k.png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &k, on_error, on_warning, &k, on_alloc,
                                      on_free);
    k.info = k.png ? png_create_info_struct(k.png) : NULL;
    if (k.info)
        encode_guarded(&k, p, text);
    else
        k.rc = slr_nomem(__func__, 0);
    png_destroy_write_struct(&k.png, &k.info);
    slr_buf_free(&k.latin1);
    if (k.rc == SDLORA_OK) {
        *n = k.out.len;
        *bytes = slr_buf_take(&k.out);
    }
    slr_buf_free(&k.out);
    return k.rc;
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
