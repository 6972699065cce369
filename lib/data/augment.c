/* SPDX-License-Identifier: MIT */
/* One picture: decoded, upright, on its background, resized, cropped, mirrored and as numbers.
 * Refuses to choose: crop and mirroring come from the caller, so that nothing here is random. */
#include "data/augment.h"

#include <string.h>

#include "base/map.h"
#include "base/status.h"
#include "data/resample.h"
#include "io/file.h"

#define PICTURE_BYTES ((uint64_t)1 << 30) /* of a file */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

int slr_background_parse(const char *text, slr_background *out)
{
    static const struct {
        const char *name;
        slr_background colour;
    } row[] = {{"white", {false, {255, 255, 255}}},
               {"black", {false, {0, 0, 0}}},
               {"gray", {false, {128, 128, 128}}},
               {"grey", {false, {128, 128, 128}}},
               {"none", {true, {0, 0, 0}}}};
    text = text ? text : "none";
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (!strcmp(text, row[i].name)) {
            *out = row[i].colour;
            return SDLORA_OK;
        }
    bool good = text[0] == '#' && strlen(text) == 7;
    *out = (slr_background){0};
    for (int i = 0; good && i < 3; i++) {
        int high = hex_digit(text[1 + 2 * i]), low = hex_digit(text[2 + 2 * i]);
        good = high >= 0 && low >= 0;
        out->rgb[i] = good ? (uint8_t)(high * 16 + low) : 0;
    }
    if (!good)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "background \"%s\" is not white, black, gray, none or #rrggbb", text);
    return SDLORA_OK;
}

int slr_picture_rule_new(slr_picture_rule *r, slr_opt o)
{
    *r = (slr_picture_rule){.apply_exif = !strcmp(slr_opt_text(o, "exif_orientation"), "apply"),
                            .filter = slr_resize_filter(slr_opt_text(o, "resize_interpolation")),
                            .max_pixels = (uint64_t)slr_opt_int(o, "max_image_pixels")};
    slr_require(r->filter >= 0);
    return slr_background_parse(slr_opt_text(o, "background"), &r->background);
}

/* [h,w,4] -> [h,w,3] in place. */
static void flatten(slr_pixels *p, const slr_background *on)
{
    size_t n = (size_t)p->width * (size_t)p->height;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *from = p->data + i * 4;
        uint32_t a = from[3];
        for (int c = 0; c < 3; c++) /* to moves slower than from: nothing is lost */
            p->data[i * 3 + (size_t)c] =
                (uint8_t)((from[c] * a + on->rgb[c] * (255 - a) + 127) / 255);
    }
    p->channels = 3;
}

static int decode(const slr_picture_rule *r, slr_mem *m, const slr_item *item, const void *bytes,
                  size_t n, slr_pixels *out)
{
    slr_image_info info;
    if (slr_hash64(bytes, n, 0) != item->content_hash)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: the picture changed after the dataset was opened: open it again",
                        item->path);
    SLR_TRY(slr_image_info_parse(bytes, n, item->path, &info));
    SLR_TRY(
        slr_image_decode_limit(m, bytes, n, item->path, !r->background.drop, r->max_pixels, out));
    if (out->channels == 4)
        flatten(out, &r->background);
    if (r->apply_exif && info.orientation > 1)
        SLR_TRY(slr_image_orient(m, out, info.orientation));
    if (out->width != item->width || out->height != item->height)
        return slr_fail(SDLORA_EFORMAT, __func__, "%s: decoded to %dx%d, its header says %dx%d",
                        item->path, (int)out->width, (int)out->height, (int)item->width,
                        (int)item->height);
    return SDLORA_OK;
}

int slr_picture_read(const slr_picture_rule *r, slr_mem *m, const slr_item *item, slr_pixels *out)
{
    slr_pixels whole = {0};
    void *bytes;
    size_t n;
    *out = (slr_pixels){0};
    SLR_TRY(slr_file_read(m, item->path, PICTURE_BYTES, &bytes, &n));
    int rc = decode(r, m, item, bytes, n, &whole);
    slr_free(m, bytes);
    if (rc == 0)
        rc = slr_resize(m, &whole, item->resized_w, item->resized_h, r->filter, out);
    slr_free(m, whole.data);
    return rc;
}

void slr_picture_floats(const slr_pixels *p, int32_t left, int32_t top, int32_t w, int32_t h,
                        bool flip, float *out)
{
    float table[256];
    for (int i = 0; i < 256; i++) /* torchvision's two steps: to [0,1], then (x - .5) / .5 */
        table[i] = ((float)i / 255.0f - 0.5f) / 0.5f;
    for (int32_t y = 0; y < h; y++) {
        const uint8_t *row = p->data + ((size_t)(top + y) * (size_t)p->width + (size_t)left) * 3;
        for (int32_t x = 0; x < w; x++) {
            const uint8_t *from = row + (size_t)(flip ? w - 1 - x : x) * 3;
            for (int c = 0; c < 3; c++)
                *out++ = table[from[c]];
        }
    }
}
