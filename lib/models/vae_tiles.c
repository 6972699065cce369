/* SPDX-License-Identifier: MIT */
/* Cuts a picture in tiles that overlap by a quarter and blends what comes back, by diffusers' rule:
 * along the height first, along the width second, each over tiles that were blended before.  Keeps
 * of finished tiles only the strips that others still need.  Refuses to know what is done to a
 * tile. */
#include "models/vae_tiles.h"

#include <string.h>

#include "base/status.h"

/* What a tile covers beyond its step is as long as what it shares with the next one: a quarter
 * of the side, or all of that next one when the picture ends within it. */
typedef struct work {
    const slr_tiles *t;
    int64_t step, step_out; /* from one tile to the next, in the input and in the output */
    int64_t overlap;        /* of the output */
    int64_t strip;          /* floats in a strip */
    float *in, *out;        /* the tile */
    float *left;            /* [height,overlap,c]: of the tile on the left */
    float *above;           /* one [overlap,width,c] for each column: of the tiles above */
} work;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* n rows of `count` floats, with other strides. */
static void copy_rows(float *dst, int64_t dst_step, const float *src, int64_t src_step, int64_t n,
                      int64_t count)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(dst + i * dst_step, src + i * src_step, (size_t)count * sizeof *dst);
}

/* b = a + (b - a) * k / n, in the order of operations that diffusers has. */
static void blend(float *b, const float *a, int64_t count, int64_t k, int64_t n)
{
    float weight = (float)((double)k / (double)n), rest = (float)(1 - (double)k / (double)n);
    for (int64_t i = 0; i < count; i++)
        b[i] = a[i] * rest + b[i] * weight;
}

/* The tile in row i and column j: h, w: its size in the output. */
static void place(const work *s, int64_t i, int64_t j, int64_t h, int64_t w, float *y)
{
    int64_t c = s->t->c_out, row = w * c;
    int64_t down = least(h, s->overlap), across = least(w, s->overlap);
    float *above = s->above + j * s->strip, *corner = s->out + s->step_out * c;
    for (int64_t k = 0; i > 0 && k < down; k++)
        blend(s->out + k * row, above + k * row, row, k, down);
    for (int64_t r = 0; j > 0 && r < h; r++)
        for (int64_t k = 0; k < across; k++)
            blend(s->out + r * row + k * c, s->left + (r * across + k) * c, c, k, across);
    if (h > s->step_out)
        memcpy(above, s->out + s->step_out * row, (size_t)((h - s->step_out) * row) * sizeof *y);
    if (w > s->step_out)
        copy_rows(s->left, (w - s->step_out) * c, corner, row, h, (w - s->step_out) * c);
    int64_t y_row = s->t->w * s->t->up / s->t->down * c;
    copy_rows(y + i * s->step_out * y_row + j * s->step_out * c, y_row, s->out, row,
              least(h, s->step_out), least(w, s->step_out) * c);
}

static int one(const work *s, int64_t i, int64_t j, const float *x, float *y)
{
    const slr_tiles *t = s->t;
    const float *made;
    int64_t top = i * s->step, side = j * s->step;
    int64_t h = least(t->tile, t->h - top), w = least(t->tile, t->w - side);
    int64_t h_out = h * t->up / t->down, w_out = w * t->up / t->down;
    copy_rows(s->in, w * t->c_in, x + (top * t->w + side) * t->c_in, t->w * t->c_in, h,
              w * t->c_in);
    SLR_TRY(t->fn(t->user, h, w, s->in, &made));
    memcpy(s->out, made, (size_t)(h_out * w_out * t->c_out) * sizeof *y);
    place(s, i, j, h_out, w_out, y);
    return SDLORA_OK;
}

static float *floats(const slr_tiles *t, int64_t a, int64_t b)
{
    return slr_calloc(t->m, (size_t)a, (size_t)b * sizeof(float));
}

int slr_tiles_run(const slr_tiles *t, const float *x, float *y)
{
    slr_require(t->tile > 0 && t->tile % (4 * t->down) == 0);
    slr_require(t->h > 0 && t->w > 0 && t->h % t->down == 0 && t->w % t->down == 0);
    int64_t side = t->tile * t->up / t->down; /* of a tile of the output */
    work s = {.t = t, .step = t->tile / 4 * 3, .step_out = side / 4 * 3, .overlap = side / 4};
    int64_t rows = (t->h + s.step - 1) / s.step, columns = (t->w + s.step - 1) / s.step;
    int64_t h = least(t->tile, t->h), w = least(t->tile, t->w);
    s.strip = s.overlap * side * t->c_out;
    s.in = floats(t, h * w, t->c_in);
    s.out = floats(t, h * t->up / t->down * (w * t->up / t->down), t->c_out);
    s.left = floats(t, 1, s.strip);
    s.above = floats(t, columns, s.strip);
    int rc = s.in && s.out && s.left && s.above ? SDLORA_OK : SDLORA_ENOMEM;
    for (int64_t i = 0; rc >= 0 && i < rows; i++)
        for (int64_t j = 0; rc >= 0 && j < columns; j++)
            rc = one(&s, i, j, x, y);
    slr_free(t->m, s.in);
    slr_free(t->m, s.out);
    slr_free(t->m, s.left);
    slr_free(t->m, s.above);
    return rc;
}
