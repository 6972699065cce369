/* SPDX-License-Identifier: MIT */
/* Sheets: rows and columns of equally large pictures on white, enlarged where they are small, with
 * labels that are broken into lines where they are too long.  Knows pixels and a font; refuses to
 * know what the pictures are.
 */
#include "api/sheet.h"

#include <string.h>

#include "api/font.h"
#include "base/status.h"
#include "base/str.h"

enum {
    LINE = 16,       /* pixels from line to line */
    ROW_CHARS = 24,  /* longest line left of a row where that is room enough */
    MOST_CHARS = 64, /* and where labels are long */
    MIN_CELL = 128,  /* pictures that are narrower are shown enlarged */
    TOP_LINES = 4,   /* most lines above a column */
    LEAST_GAP = 8,   /* white pixels between a label and its row */
    MAX_CELLS = 4096 /* rows or columns */
};

typedef struct sheet {
    slr_pixels *to;
    size_t rows, columns;
    int32_t gap;            /* white pixels between pictures and around the sheet */
    int32_t scale;          /* sheet pixels per picture pixel, both ways */
    int32_t cell_w, cell_h; /* of an enlarged picture */
    int32_t left, top;      /* where the first picture begins */
    size_t row_chars;       /* longest line left of a row */
} sheet;

/* Length of the next line of `text`: up to `chars`, broken at the last space where there is one. */
static size_t line_length(const char *text, size_t chars)
{
    size_t n = strcspn(text, "\n"), i;

    if (n <= chars)
        return n;
    for (i = chars; i > 0 && text[i] != ' '; i--) {
    }
    return i > 0 ? i : chars;
}

static size_t count_lines(const char *text, size_t chars, size_t most)
{
    size_t lines = 0;

    while (text && *text && lines < most) {
        text += line_length(text, chars);
        text += *text == ' ' || *text == '\n';
        lines++;
    }
    return lines;
}

static void draw_char(slr_pixels *to, int32_t x, int32_t y, char c)
{
    const unsigned char *glyph =
        slr_font[(c < SLR_FONT_FIRST || c > SLR_FONT_LAST ? '?' : c) - SLR_FONT_FIRST];

    for (int32_t r = 0; r < SLR_FONT_HEIGHT; r++)
        for (int32_t k = 0; k < SLR_FONT_WIDTH; k++)
            if ((glyph[r] >> (7 - k) & 1) && x + k < to->width && y + r < to->height)
                memset(to->data + ((size_t)(y + r) * (size_t)to->width + (size_t)(x + k)) * 3, 0,
                       3);
}

static void draw_text(slr_pixels *to, int32_t x, int32_t y, const char *text, size_t chars,
                      size_t most)
{
    for (size_t line = 0; text && *text && line < most; line++) {
        size_t n = line_length(text, chars);

        for (size_t i = 0; i < n; i++)
            draw_char(to, x + (int32_t)i * SLR_FONT_WIDTH, y, text[i]);
        text += n;
        text += *text == ' ' || *text == '\n';
        y += LINE;
    }
}

static size_t cell_chars(int32_t pixels)
{
    size_t n = (size_t)pixels / SLR_FONT_WIDTH;

    return n > 0 ? n : 1;
}

static size_t cell_lines(int32_t pixels)
{
    size_t n = (size_t)pixels / LINE;

    return n > 0 ? n : 1;
}

/* Line length left of the rows: as short as lets every label fit beside its row. */
static size_t row_chars(const char *const *labels, size_t n, size_t lines)
{
    size_t chars = ROW_CHARS;

    for (size_t i = 0; labels && i < n; i++)
        while (chars < MOST_CHARS && count_lines(labels[i], chars, lines + 1) > lines)
            chars++;
    return chars;
}

/* Room left of the rows: the longest line that any label is broken into. */
static int32_t label_width(const char *const *labels, size_t n, size_t chars, int32_t gap)
{
    size_t longest = 0;

    for (size_t i = 0; labels && i < n; i++)
        for (const char *p = labels[i]; p && *p;) {
            size_t length = line_length(p, chars);

            longest = length > longest ? length : longest;
            p += length;
            p += *p == ' ' || *p == '\n';
        }
    return longest ? (int32_t)longest * SLR_FONT_WIDTH + (gap > LEAST_GAP ? gap : LEAST_GAP) : 0;
}

static int32_t label_height(const char *const *labels, size_t n, size_t chars)
{
    size_t most = 0;

    for (size_t i = 0; labels && i < n; i++) {
        size_t lines = count_lines(labels[i], chars, TOP_LINES);

        most = lines > most ? lines : most;
    }
    return (int32_t)most * LINE;
}

/* The size of a place; pictures that differ from the first one are refused unless they may. */
static int size_cells(sheet *s, const slr_sheet *c)
{
    int32_t w = 0, h = 0;

    for (size_t i = 0; i < s->rows * s->columns; i++) {
        const slr_pixels *p = c->cells[i] ? &c->cells[i]->pixels : NULL;

        if (!p)
            continue;
        if (!c->mixed && w && (p->width != w || p->height != h))
            return slr_fail(SDLORA_EINVAL, "sdlora_image_sheet",
                            "picture %zu is %dx%d, the first one %dx%d", i, p->width, p->height, w,
                            h);
        w = p->width > w ? p->width : w;
        h = p->height > h ? p->height : h;
    }
    s->scale = w < MIN_CELL && !c->pixels ? (MIN_CELL + w - 1) / w : 1;
    s->cell_w = w * s->scale;
    s->cell_h = h * s->scale;
    return SDLORA_OK;
}

static int lay_out(sheet *s, const slr_sheet *c)
{
    int64_t w, h;

    SLR_TRY(size_cells(s, c));
    s->row_chars = row_chars(c->row_labels, s->rows, cell_lines(s->cell_h));
    s->left = s->gap + label_width(c->row_labels, s->rows, s->row_chars, s->gap);
    s->top = s->gap + label_height(c->column_labels, s->columns, cell_chars(s->cell_w));
    w = s->left + (int64_t)s->columns * (s->cell_w + s->gap);
    h = s->top + (int64_t)s->rows * (s->cell_h + s->gap);
    if (w > SLR_IMAGE_MAX_SIDE || h > SLR_IMAGE_MAX_SIDE ||
        (uint64_t)(w * h) > SLR_IMAGE_MAX_PIXELS)
        return slr_fail(SDLORA_EINVAL, "sdlora_image_sheet",
                        "the sheet would have %lldx%lld pixels, which is too large", (long long)w,
                        (long long)h);
    s->to->width = (int32_t)w;
    s->to->height = (int32_t)h;
    s->to->channels = 3;
    return SDLORA_OK;
}

static void paste(const sheet *s, size_t row, size_t column, const slr_pixels *from)
{
    size_t scale = (size_t)s->scale, width = (size_t)from->width, w = width * scale,
           h = (size_t)from->height * scale;
    size_t x =
        (size_t)s->left + column * (size_t)(s->cell_w + s->gap) + ((size_t)s->cell_w - w) / 2;
    size_t y = (size_t)s->top + row * (size_t)(s->cell_h + s->gap) + ((size_t)s->cell_h - h) / 2;

    for (size_t i = 0; i < h; i++) {
        uint8_t *to = s->to->data + ((y + i) * (size_t)s->to->width + x) * 3;
        const uint8_t *line = from->data + i / scale * width * 3;

        for (size_t k = 0; k < w; k++)
            memcpy(to + k * 3, line + k / scale * 3, 3);
    }
}

static void draw(const sheet *s, const slr_sheet *from)
{
    for (size_t r = 0; r < s->rows; r++)
        for (size_t c = 0; c < s->columns; c++)
            if (from->cells[r * s->columns + c])
                paste(s, r, c, &from->cells[r * s->columns + c]->pixels);
    for (size_t c = 0; from->column_labels && c < s->columns; c++)
        draw_text(s->to, s->left + (int32_t)c * (s->cell_w + s->gap), s->gap / 2,
                  from->column_labels[c], cell_chars(s->cell_w), TOP_LINES);
    for (size_t r = 0; from->row_labels && r < s->rows; r++)
        draw_text(s->to, s->gap, s->top + (int32_t)r * (s->cell_h + s->gap), from->row_labels[r],
                  s->row_chars, cell_lines(s->cell_h));
}

int slr_sheet_make(sdlora_image **out, sdlora_context *ctx, const slr_sheet *config, char *text)
{
    slr_pixels pixels = {0};
    sheet s = {.to = &pixels, .rows = config->rows, .columns = config->columns, .gap = config->gap};
    int rc = lay_out(&s, config);
    size_t bytes = (size_t)pixels.width * (size_t)pixels.height * 3;

    if (rc >= 0) {
        pixels.data = slr_alloc(ctx->mem, bytes);
        rc = pixels.data ? SDLORA_OK : SDLORA_ENOMEM;
    }
    if (rc < 0) {
        slr_free(ctx->mem, text);
        return rc;
    }
    memset(pixels.data, 255, bytes);
    draw(&s, config);
    return slr_api_image(out, ctx, pixels, text);
}

int sdlora_image_sheet(sdlora_image **out, sdlora_context *ctx, sdlora_image *const *cells,
                       size_t rows, size_t columns, const char *const *row_labels,
                       const char *const *column_labels)
{
    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(ctx, "ctx", __func__));
    SLR_TRY(slr_api_given(cells, "cells", __func__));
    if (rows < 1 || columns < 1 || rows > MAX_CELLS || columns > MAX_CELLS)
        return slr_fail(SDLORA_EINVAL, __func__, "%zu rows and %zu columns: wanted 1 to %d of each",
                        rows, columns, MAX_CELLS);
    for (size_t i = 0; i < rows * columns; i++)
        SLR_TRY(slr_api_given(cells[i], "cells[i]", __func__));
    slr_sheet config = {.cells = cells,
                        .rows = rows,
                        .columns = columns,
                        .row_labels = row_labels,
                        .column_labels = column_labels,
                        .gap = SLR_SHEET_GAP};
    return slr_sheet_make(out, ctx, &config, NULL);
}
