/* SPDX-License-Identifier: MIT */
/* Enlarging pictures by name.  Knows AUTOMATIC1111's loop: enlarge until large enough, down to
 * whole eights, then to the size asked for; and its tiles.  Networks are rrdb.c's. */
#include "sample/upscaler.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "data/resample.h"
#include "sample/compose.h"

/* AUTOMATIC1111's options ESRGAN_tile and ESRGAN_tile_overlap. */
enum { TILE = 192, OVERLAP = 8, ROUNDS = 3 };

struct slr_upscaler {
    slr_mem *m;
    const struct plain *plain; /* NULL: a network */
    slr_rrdb *network;
};

/* Pillow's nearest neighbour: by centres of pixels. */
static int nearest(slr_mem *m, const slr_pixels *p, int32_t w, int32_t h, slr_pixels *out)
{
    double sx = (double)p->width / w, sy = (double)p->height / h, y = sy * 0.5;
    SLR_TRY(slr_picture_zero(out, m, w, h, p->channels));
    size_t c = (size_t)p->channels;
    uint8_t *to = out->data;
    for (int32_t i = 0; i < h; i++, y += sy) {
        double x = sx * 0.5; /* summed up, as Pillow does */
        int32_t from_y = (int32_t)y < p->height ? (int32_t)y : p->height - 1;
        for (int32_t j = 0; j < w; j++, to += c, x += sx) {
            int32_t from_x = (int32_t)x < p->width ? (int32_t)x : p->width - 1;
            memcpy(to, p->data + ((size_t)from_y * (size_t)p->width + (size_t)from_x) * c, c);
        }
    }
    return SDLORA_OK;
}

static int lanczos(slr_mem *m, const slr_pixels *p, int32_t w, int32_t h, slr_pixels *out)
{
    return slr_resize(m, p, w, h, SLR_RESIZE_LANCZOS, out);
}

typedef struct plain {
    const char *name;
    int (*run)(slr_mem *m, const slr_pixels *p, int32_t w, int32_t h, slr_pixels *out);
    bool direct; /* straight to the size asked for */
} plain;

static const plain plains[] = {
    {"None", lanczos, true}, {"Lanczos", lanczos, false}, {"Nearest", nearest, false}};

static const plain *find(const char *name)
{
    for (size_t i = 0; name && i < sizeof plains / sizeof *plains; i++)
        if (!strcasecmp(plains[i].name, name))
            return &plains[i];
    return NULL;
}

bool slr_upscaler_is_plain(const char *name)
{
    return find(name) != NULL;
}

const char *slr_upscaler_plain_name(size_t i)
{
    return i < sizeof plains / sizeof *plains ? plains[i].name : NULL;
}

int slr_upscaler_new(slr_upscaler **out, slr_mem *m, slr_devices *devices, const char *name,
                     const char *path)
{
    const plain *row = find(name);
    *out = NULL;
    if (!row && !path)
        return slr_fail(SDLORA_ENOTFOUND, __func__, "there is no upscaler '%s'", name);
    slr_upscaler *u = slr_calloc(m, 1, sizeof *u);
    if (!u)
        return SDLORA_ENOMEM;
    u->m = m;
    u->plain = row;
    int rc = row ? SDLORA_OK : slr_rrdb_open(&u->network, m, devices, path);
    if (rc < 0) {
        slr_free(m, u);
        return rc;
    }
    *out = u;
    return SDLORA_OK;
}

void slr_upscaler_free(slr_upscaler *u)
{
    if (!u)
        return;
    slr_rrdb_free(u->network);
    slr_free(u->m, u);
}

/* --- tiles --- */

/* Where tiles of a side start: `n` of them, spread evenly and ending with the picture. */
typedef struct spread {
    int32_t n, size, limit;
    double step;
} spread;

static spread spread_over(int32_t size)
{
    int32_t tile = size < TILE ? size : TILE, fresh = tile - OVERLAP;
    spread s = {.n = 1, .size = tile, .limit = size - tile};
    if (size > tile) {
        s.n = (size - OVERLAP + fresh - 1) / fresh;
        s.step = (double)(size - tile) / (s.n - 1);
    }
    return s;
}

static int32_t spread_at(const spread *s, int32_t i)
{
    int32_t at = (int32_t)(i * s->step);
    return at > s->limit ? s->limit : at;
}

/* src onto dst at (x, y), fading in over the first `fade` columns or rows. */
static void lay(slr_pixels *dst, const slr_pixels *src, int32_t x, int32_t y, int32_t fade,
                bool columns)
{
    for (int32_t i = 0; i < src->height; i++)
        for (int32_t j = 0; j < src->width; j++) {
            int32_t at = columns ? j : i;
            uint32_t new = at < fade ? (uint32_t)((float)at * 255.0f / (float)fade) : 255;
            const uint8_t *from = src->data + ((size_t)i * (size_t)src->width + (size_t)j) * 3;
            uint8_t *to = dst->data + ((size_t)(y + i) * (size_t)dst->width + (size_t)(x + j)) * 3;
            for (int k = 0; k < 3; k++) {
                uint32_t v = from[k] * new + to[k] * (255 - new) + 128;
                to[k] = (uint8_t)(((v >> 8) + v) >> 8);
            }
        }
}

/* One row of tiles, joined: out [tile height * scale, picture width * scale]. */
static int tile_row(slr_upscaler *u, const slr_pixels *p, int32_t y, const spread *across,
                    const spread *down, const slr_cancel_flag *cancel, slr_pixels *out)
{
    int32_t scale = slr_rrdb_scale(u->network);
    SLR_TRY(slr_picture_zero(out, u->m, p->width * scale, down->size * scale, 3));
    int rc = SDLORA_OK;
    for (int32_t i = 0; rc >= 0 && i < across->n; i++) {
        slr_pixels tile, large = {0};
        int32_t x = spread_at(across, i);
        rc = slr_picture_crop(&tile, u->m, p, x, y, across->size, down->size);
        if (rc < 0)
            break;
        rc = slr_rrdb_run(u->network, &tile, cancel, &large);
        slr_free(u->m, tile.data);
        if (rc >= 0)
            lay(out, &large, x * scale, 0, i ? OVERLAP * scale : 0, true);
        slr_free(u->m, large.data);
    }
    if (rc < 0) {
        slr_free(u->m, out->data);
        out->data = NULL;
    }
    return rc;
}

static int in_tiles(slr_upscaler *u, const slr_pixels *p, const slr_cancel_flag *cancel,
                    slr_pixels *out)
{
    spread across = spread_over(p->width), down = spread_over(p->height);
    int32_t scale = slr_rrdb_scale(u->network);
    SLR_TRY(slr_picture_zero(out, u->m, p->width * scale, p->height * scale, 3));
    int rc = SDLORA_OK;
    for (int32_t i = 0; rc >= 0 && i < down.n; i++) {
        slr_pixels row = {0};
        int32_t y = spread_at(&down, i);
        rc = tile_row(u, p, y, &across, &down, cancel, &row);
        if (rc >= 0)
            lay(out, &row, 0, y * scale, i ? OVERLAP * scale : 0, false);
        slr_free(u->m, row.data);
    }
    if (rc < 0) {
        slr_free(u->m, out->data);
        out->data = NULL;
    }
    return rc;
}

/* --- one size or another --- */

/* Takes the place of *p. */
static int replace(slr_mem *m, slr_pixels *p, int rc, slr_pixels by)
{
    if (rc >= 0) {
        slr_free(m, p->data);
        *p = by;
    }
    return rc;
}

/* p, at least w x h and of whole eights, in place. */
static int enlarge(slr_upscaler *u, slr_pixels *p, double scale, const slr_cancel_flag *cancel)
{
    slr_pixels next;
    int32_t w = (int32_t)(p->width * scale) / 8 * 8, h = (int32_t)(p->height * scale) / 8 * 8;
    for (int i = 0; i < ROUNDS && (p->width < w || p->height < h); i++) {
        int32_t was_w = p->width, was_h = p->height;
        int rc = u->plain ? u->plain->run(u->m, p, (int32_t)(p->width * scale),
                                          (int32_t)(p->height * scale), &next)
                          : in_tiles(u, p, cancel, &next);
        SLR_TRY(replace(u->m, p, rc, next));
        if (p->width == was_w && p->height == was_h)
            break;
    }
    if ((p->width == w && p->height == h) || w < 1 || h < 1)
        return SDLORA_OK;
    return replace(u->m, p, slr_resize(u->m, p, w, h, SLR_RESIZE_LANCZOS, &next), next);
}

int slr_upscaler_run(slr_upscaler *u, const slr_pixels *p, int32_t w, int32_t h,
                     const slr_cancel_flag *cancel, slr_pixels *out)
{
    slr_pixels now, sized;
    double sx = (double)w / p->width, sy = (double)h / p->height, scale = sx > sy ? sx : sy;
    if (scale <= 1 || (u->plain && u->plain->direct))
        return slr_resize(u->m, p, w, h, SLR_RESIZE_LANCZOS, out);
    SLR_TRY(slr_picture_copy(&now, u->m, p));
    int rc = enlarge(u, &now, scale, cancel);
    if (rc >= 0 && (now.width != w || now.height != h))
        rc = replace(u->m, &now, slr_resize(u->m, &now, w, h, SLR_RESIZE_LANCZOS, &sized), sized);
    if (rc < 0)
        slr_free(u->m, now.data);
    else
        *out = now;
    return rc;
}
