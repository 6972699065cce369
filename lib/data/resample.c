/* SPDX-License-Identifier: MIT */
/* Resizing by windowed filters: one row of weights per output position, in 22-bit fixed point,
 * first along x and then along y with 8-bit pixels between, which is what Pillow's bytes come from.
 * Refuses to know why a picture is resized. */
#include "data/resample.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "data/resample_impl.h"

#define PRECISION 22 /* bits behind the point: 32 - 8 for the pixel - 2 for sums above 1 */

static double sinc(double x)
{
    return x == 0 ? 1 : sin(x * M_PI) / (x * M_PI);
}

static double lanczos(double x)
{
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

/* Keys' cubic with a = -1/2. */
static double bicubic(double x)
{
    x = fabs(x);
    if (x < 1)
        return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? -0.5 * (((x - 5) * x + 8) * x - 4) : 0;
}

static double bilinear(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

static double box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1 : 0;
}

typedef struct window {
    double (*at)(double x);
    double support; /* half its width, in source pixels at scale 1 */
} window;

static const window windows[] = {[SLR_RESIZE_LANCZOS] = {lanczos, 3},
                                 [SLR_RESIZE_BICUBIC] = {bicubic, 2},
                                 [SLR_RESIZE_BILINEAR] = {bilinear, 1},
                                 [SLR_RESIZE_BOX] = {box, 0.5}};

/* Weights of one axis: output i is the sum of n[i] sources from first[i] on. */
typedef struct axis {
    int32_t *first, *n, *weight; /* weight: [out][size] */
    int32_t size;
} axis;

static void axis_free(slr_mem *m, axis *a)
{
    slr_free(m, a->first);
    slr_free(m, a->n);
    slr_free(m, a->weight);
}

/* After a failure too, the caller frees what is there. */
static int axis_new(slr_mem *m, const window *win, int32_t from, int32_t to, axis *a)
{
    double scale = (double)from / to, widen = scale < 1 ? 1 : scale;
    double support = win->support * widen;
    size_t cells;
    *a = (axis){.size = (int32_t)ceil(support) * 2 + 1};
    double *k = slr_calloc(m, (size_t)a->size, sizeof *k);
    a->first = slr_calloc(m, (size_t)to, sizeof *a->first);
    a->n = slr_calloc(m, (size_t)to, sizeof *a->n);
    if (slr_mul_ok((size_t)to, (size_t)a->size, &cells))
        a->weight = slr_calloc(m, cells, sizeof *a->weight);
    if (!k || !a->first || !a->n || !a->weight) {
        slr_free(m, k);
        return slr_nomem(__func__, (size_t)to * sizeof *a->first);
    }
    for (int32_t i = 0; i < to; i++) {
        double centre = (i + 0.5) * scale, sum = 0;
        int32_t lo = (int32_t)(centre - support + 0.5), hi = (int32_t)(centre + support + 0.5);
        lo = lo < 0 ? 0 : lo;
        hi = hi > from ? from : hi;
        for (int32_t x = 0; x < hi - lo; x++) {
            k[x] = win->at((x + lo - centre + 0.5) / widen);
            sum += k[x];
        }
        a->first[i] = lo;
        a->n[i] = hi - lo;
        for (int32_t x = 0; x < hi - lo; x++) {
            double w = (sum != 0 ? k[x] / sum : k[x]) * (1 << PRECISION);
            a->weight[(size_t)i * (size_t)a->size + (size_t)x] =
                (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
        }
    }
    slr_free(m, k);
    return SDLORA_OK;
}

static uint8_t clip(int32_t sum)
{
    int32_t v = sum >> PRECISION;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* [h,from,c] -> [h,to,c] */
static void along_x(const slr_pixels *src, const axis *a, slr_pixels *dst)
{
    int32_t c = src->channels;
    for (int32_t y = 0; y < dst->height; y++) {
        const uint8_t *row = src->data + (size_t)y * (size_t)src->width * (size_t)c;
        uint8_t *to = dst->data + (size_t)y * (size_t)dst->width * (size_t)c;
        for (int32_t x = 0; x < dst->width; x++) {
            const int32_t *w = a->weight + (size_t)x * (size_t)a->size;
            const uint8_t *p = row + (size_t)a->first[x] * (size_t)c;
            for (int32_t ch = 0; ch < c; ch++) {
                int32_t sum = 1 << (PRECISION - 1);
                for (int32_t i = 0; i < a->n[x]; i++)
                    sum += p[i * c + ch] * w[i];
                *to++ = clip(sum);
            }
        }
    }
}

/* [from,w,c] -> [to,w,c], row by row: sum holds one row of w * c */
static void along_y(const slr_pixels *src, const axis *a, slr_pixels *dst, int32_t *sum)
{
    size_t n = (size_t)src->width * (size_t)src->channels;
    for (int32_t y = 0; y < dst->height; y++) {
        const int32_t *w = a->weight + (size_t)y * (size_t)a->size;
        for (size_t x = 0; x < n; x++)
            sum[x] = 1 << (PRECISION - 1);
        for (int32_t i = 0; i < a->n[y]; i++) {
            const uint8_t *row = src->data + (size_t)(a->first[y] + i) * n;
            for (size_t x = 0; x < n; x++)
                sum[x] += row[x] * w[i];
        }
        for (size_t x = 0; x < n; x++)
            dst->data[(size_t)y * n + x] = clip(sum[x]);
    }
}

/* Both sides change: along y first where that drops more than twice as many rows as x columns.
 * Inferred from the bytes of Pillow 13; versions up to 12 always go along x first. */
static bool y_first(const slr_pixels *src, const slr_pixels *dst)
{
    int64_t rows = (int64_t)src->height - dst->height, columns = (int64_t)src->width - dst->width;
    return rows > 0 && rows > 2 * columns;
}

static int both(slr_mem *m, const slr_pixels *src, const axis *ax, const axis *ay, slr_pixels *dst,
                int32_t *sum)
{
    bool first = y_first(src, dst);
    slr_pixels mid = {first ? src->width : dst->width, first ? dst->height : src->height,
                      src->channels, NULL};
    mid.data = slr_calloc(m, (size_t)mid.width * (size_t)mid.channels, (size_t)mid.height);
    if (!mid.data)
        return SDLORA_ENOMEM;
    if (first) {
        along_y(src, ay, &mid, sum);
        along_x(&mid, ax, dst);
    } else {
        along_x(src, ax, &mid);
        along_y(&mid, ay, dst, sum);
    }
    slr_free(m, mid.data);
    return SDLORA_OK;
}

static int resize_windowed(slr_mem *m, const slr_pixels *src, int filter, slr_pixels *dst)
{
    axis ax = {0}, ay = {0};
    int32_t wide = src->width > dst->width ? src->width : dst->width;
    int32_t *sum = slr_calloc(m, (size_t)wide * (size_t)src->channels, sizeof *sum);
    int rc = sum ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc == 0)
        rc = axis_new(m, &windows[filter], src->width, dst->width, &ax);
    if (rc == 0)
        rc = axis_new(m, &windows[filter], src->height, dst->height, &ay);
    if (rc == 0 && dst->width == src->width) /* a side that stays is not filtered */
        along_y(src, &ay, dst, sum);
    else if (rc == 0 && dst->height == src->height)
        along_x(src, &ax, dst);
    else if (rc == 0)
        rc = both(m, src, &ax, &ay, dst, sum);
    axis_free(m, &ax);
    axis_free(m, &ay);
    slr_free(m, sum);
    return rc;
}

static void nearest(const slr_pixels *src, slr_pixels *dst)
{
    double sx = (double)src->width / dst->width, sy = (double)src->height / dst->height;
    size_t c = (size_t)src->channels;
    uint8_t *to = dst->data;
    for (int32_t y = 0; y < dst->height; y++) {
        int32_t fy = (int32_t)(y * sy);
        fy = fy < src->height ? fy : src->height - 1;
        for (int32_t x = 0; x < dst->width; x++, to += c) {
            int32_t fx = (int32_t)(x * sx);
            fx = fx < src->width ? fx : src->width - 1;
            memcpy(to, src->data + ((size_t)fy * (size_t)src->width + (size_t)fx) * c, c);
        }
    }
}

int slr_resize_filter(const char *name)
{
    static const struct {
        const char *name;
        int filter;
    } row[] = {{"lanczos", SLR_RESIZE_LANCZOS},   {"nearest", SLR_RESIZE_NEAREST},
               {"bilinear", SLR_RESIZE_BILINEAR}, {"linear", SLR_RESIZE_BILINEAR},
               {"bicubic", SLR_RESIZE_BICUBIC},   {"cubic", SLR_RESIZE_BICUBIC},
               {"area", SLR_RESIZE_AREA},         {"box", SLR_RESIZE_BOX}};
    if (!name || !*name)
        return SLR_RESIZE_AUTO;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (!strcmp(row[i].name, name))
            return row[i].filter;
    return -1;
}

int slr_resize(slr_mem *m, const slr_pixels *src, int32_t w, int32_t h, int filter, slr_pixels *out)
{
    size_t row, bytes;
    int rc = SDLORA_OK;
    slr_require(src && out && src->data && w > 0 && h > 0 && src->width > 0 && src->height > 0);
    slr_require(filter >= SLR_RESIZE_AUTO && filter <= SLR_RESIZE_BOX);
    *out = (slr_pixels){w, h, src->channels, NULL};
    if (!slr_mul_ok((size_t)w, (size_t)src->channels, &row) || !slr_mul_ok(row, (size_t)h, &bytes))
        return slr_nomem(__func__, SIZE_MAX);
    out->data = slr_alloc(m, bytes);
    if (!out->data)
        return SDLORA_ENOMEM;
    if (filter == SLR_RESIZE_AUTO)
        filter = src->width >= w && src->height >= h ? SLR_RESIZE_AREA : SLR_RESIZE_LANCZOS;
    if (src->width == w && src->height == h)
        memcpy(out->data, src->data, bytes);
    else if (filter == SLR_RESIZE_NEAREST)
        nearest(src, out);
    else if (filter == SLR_RESIZE_AREA)
        rc = slr_resize_area(m, src, out);
    else
        rc = resize_windowed(m, src, filter, out);
    if (rc < 0) {
        slr_free(m, out->data);
        out->data = NULL;
    }
    return rc;
}
