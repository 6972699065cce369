/* SPDX-License-Identifier: MIT */
/* Colour correction: histogram matching in CIE Lab and a luminosity blend.  Knows Lab in 8 bits as
 * OpenCV has it, the matching of skimage and the blend of the `blendmodes` package; refuses to know
 * why. */
#include "sample/colour.h"

#include <math.h>
#include <stdbool.h>

#include "base/status.h"

/* How many bits stand behind the point in OpenCV's 8-bit conversions. */
enum {
    LINEAR_BITS = 3,  /* of a linear colour, behind its 8 */
    LAB_BITS = 15,    /* of f() */
    MATRIX_BITS = 12, /* of the matrices, and of colours on the way back */
    BASE_BITS = 14,   /* of L, a, b on the way back */
    BASE = 1 << BASE_BITS,
    ROOTS = (256 * 3 / 2) << LINEAR_BITS /* a colour may be brighter than white */
};

/* Linear sRGB to X, Y, Z and back, and the white point D65. */
static const double to_xyz[3][3] = {
    {0.412453, 0.357580, 0.180423}, {0.212671, 0.715160, 0.072169}, {0.019334, 0.119193, 0.950227}};
static const double to_rgb[3][3] = {{3.240479, -1.53715, -0.498535},
                                    {-0.969256, 1.875991, 0.041556},
                                    {0.055648, -0.204043, 1.057311}};
static const double white[3] = {0.950456, 1, 1.088754};

static double to_linear(double v)
{
    return v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4);
}

static double from_linear(double v)
{
    return v <= 0.0031308 ? v * 12.92 : 1.055 * pow(v, 1 / 2.4) - 0.055;
}

typedef struct tables {
    int32_t linear[256], root[ROOTS], matrix[3][3];              /* there */
    int32_t y[256], f[256], back[3][3], gamma[1 << MATRIX_BITS]; /* back: Y and f(Y) by L */
} tables;

static void fill_tables(tables *t)
{
    for (int i = 0; i < 256; i++)
        t->linear[i] = (int32_t)lrint(255 * (1 << LINEAR_BITS) * to_linear(i / 255.0));
    for (int i = 0; i < ROOTS; i++) {
        float x = (float)i * (1.0f / (255.0f * (1 << LINEAR_BITS)));
        float root = x < 0.008856f ? x * 7.787f + 16.0f / 116.0f : (float)cbrt((double)x);
        t->root[i] = (int32_t)lrintf((1 << LAB_BITS) * root);
    }
    for (int i = 0; i < 9; i++) {
        int r = i / 3, c = i % 3;
        t->matrix[r][c] = (int32_t)lrint((1 << MATRIX_BITS) * to_xyz[r][c] / white[r]);
        t->back[r][c] = (int32_t)lrint((1 << MATRIX_BITS) * to_rgb[r][c] * white[c]);
    }
    for (int i = 0; i < 256; i++) {
        double f = (i * 100.0 / 255 + 16) / 116;
        bool dark = i <= 20; /* L up to 8, where f() is a line: 903.3 is (29 / 3)^3 */
        t->f[i] = (int32_t)lrint(BASE * (dark ? 16.0 / 116 + i * 5 / (3 * 17 * 29.0) : f));
        t->y[i] = (int32_t)lrint(BASE * (dark ? i * 180 / (17 * 29.0 * 29 * 29) : f * f * f));
    }
    for (int i = 0; i < 1 << MATRIX_BITS; i++)
        t->gamma[i] = (int32_t)lrint(255 * from_linear(i / (double)(1 << MATRIX_BITS)));
}

static int32_t descale(int64_t v, int bits)
{
    return (int32_t)((v + ((int64_t)1 << (bits - 1))) >> bits);
}

static uint8_t byte(double v)
{
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void rgb_to_lab(const tables *t, const uint8_t *rgb, uint8_t *lab)
{
    const int64_t l_scale = (116 * 255 + 50) / 100,
                  l_shift = -((16 * 255 * ((int64_t)1 << LAB_BITS) + 50) / 100),
                  middle = (int64_t)128 << LAB_BITS;
    int64_t f[3];
    for (int i = 0; i < 3; i++) {
        int64_t sum = 0;
        for (int k = 0; k < 3; k++)
            sum += (int64_t)t->linear[rgb[k]] * t->matrix[i][k];
        f[i] = t->root[descale(sum, MATRIX_BITS)];
    }
    lab[0] = byte(descale(l_scale * f[1] + l_shift, LAB_BITS));
    lab[1] = byte(descale(500 * (f[0] - f[1]) + middle, LAB_BITS));
    lab[2] = byte(descale(200 * (f[1] - f[2]) + middle, LAB_BITS));
}

/* f() backwards, to X or Z over white. */
static int64_t cube(int64_t f)
{
    if (f <= 3390) /* 6 / 29 */
        return f * 108 / 841 - BASE * 16 / 116 * 108 / 841;
    return f * f / BASE * f / BASE;
}

static void lab_to_rgb(const tables *t, const uint8_t *lab, uint8_t *rgb)
{
    /* (a - 128) / 500 and (b - 128) / 200, as OpenCV multiplies instead of dividing */
    int64_t a = ((5 * (int64_t)lab[1] * 53687 + 128) >> 13) - 128 * BASE / 500,
            b = (((int64_t)lab[2] * 41943 + 16) >> 9) - 128 * BASE / 200 + 1;
    int64_t xyz[3] = {cube(t->f[lab[0]] + a), t->y[lab[0]], cube(t->f[lab[0]] - b)};
    for (int i = 0; i < 3; i++) {
        int64_t sum = 0, limit = (1 << MATRIX_BITS) - 1;
        for (int k = 0; k < 3; k++)
            sum += t->back[i][k] * xyz[k];
        int64_t v = descale(sum, BASE_BITS);
        rgb[i] = (uint8_t)t->gamma[v < 0 ? 0 : v > limit ? limit : v];
    }
}

/* --- histograms --- */

typedef struct histogram {
    double share[3][256]; /* of values up to this one */
    uint64_t count[3][256];
} histogram;

static void count(histogram *h, const slr_pixels *p, const tables *t)
{
    size_t n = (size_t)p->width * (size_t)p->height;
    *h = (histogram){0};
    for (size_t i = 0; i < n; i++) {
        uint8_t lab[3];
        rgb_to_lab(t, p->data + i * 3, lab);
        for (int c = 0; c < 3; c++)
            h->count[c][lab[c]]++;
    }
    for (int c = 0; c < 3; c++) {
        uint64_t sum = 0;
        for (int v = 0; v < 256; v++) {
            sum += h->count[c][v];
            h->share[c][v] = (double)sum / (double)n;
        }
    }
}

/* The value below which `like` has the same share, between its own values linearly. */
static uint8_t matched(const histogram *like, int c, double share)
{
    int below = -1;
    for (int v = 0; v < 256; v++) {
        if (!like->count[c][v])
            continue;
        double here = like->share[c][v];
        if (share <= here) {
            if (below < 0 || share == here)
                return (uint8_t)v;
            double from = like->share[c][below];
            return byte((share - from) * ((v - below) / (here - from)) + below);
        }
        below = v;
    }
    return (uint8_t)(below < 0 ? 0 : below);
}

/* --- luminosity --- */

static double brightness(const double *rgb)
{
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
}

/* rgb with the brightness of `of`, pulled towards grey where it would leave 0..1. */
static void keep_brightness(uint8_t *rgb, const uint8_t *of)
{
    double c[3], o[3], low, high;
    for (int i = 0; i < 3; i++) {
        c[i] = rgb[i] / 255.0;
        o[i] = of[i] / 255.0;
    }
    double more = brightness(o) - brightness(c);
    for (int i = 0; i < 3; i++)
        c[i] += more;
    double l = brightness(c);
    low = fmin(c[0], fmin(c[1], c[2]));
    high = fmax(c[0], fmax(c[1], c[2]));
    for (int i = 0; i < 3; i++) {
        if (low < 0)
            c[i] = l + (c[i] - l) * l / (l - low);
        if (high > 1)
            c[i] = l + (c[i] - l) * (1 - l) / (high - l);
        rgb[i] = byte(nearbyint(c[i] * 255));
    }
}

int slr_colour_match(slr_pixels *p, slr_mem *m, const slr_pixels *like)
{
    slr_require(p->channels == 3 && like->channels == 3);
    tables *t = slr_alloc(m, sizeof *t);
    histogram *h = slr_calloc(m, 2, sizeof *h);
    uint8_t map[3][256];
    if (t && h) {
        fill_tables(t);
        count(&h[0], p, t);
        count(&h[1], like, t);
        for (int c = 0; c < 3; c++)
            for (int v = 0; v < 256; v++)
                map[c][v] = matched(&h[1], c, h[0].share[c][v]);
        for (size_t i = 0; i < (size_t)p->width * (size_t)p->height; i++) {
            uint8_t *rgb = p->data + i * 3, lab[3], made[3];
            rgb_to_lab(t, rgb, lab);
            for (int c = 0; c < 3; c++)
                lab[c] = map[c][lab[c]];
            lab_to_rgb(t, lab, made);
            keep_brightness(made, rgb);
            for (int c = 0; c < 3; c++)
                rgb[c] = made[c];
        }
    }
    int rc = t && h ? SDLORA_OK : SDLORA_ENOMEM;
    slr_free(m, t);
    slr_free(m, h);
    return rc;
}
