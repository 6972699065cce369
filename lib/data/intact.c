/* SPDX-License-Identifier: MIT */
/* Tells picture files that were cut short or damaged from whole ones without decoding them, so that
 * a long run does not meet them later.  Knows the outer structure of three formats; refuses to know
 * pixels, which the decoder checks. */
#include <string.h>
#include <zlib.h>

#include "data/dataset_impl.h"
#include "io/source.h"

static const char *png_cut(const uint8_t *p, size_t n)
{
    size_t at = 8; /* behind the signature; then length, name, payload, CRC */
    while (n - at >= 12) {
        size_t size = slr_be32(p + at);
        if (size > n - at - 12)
            break;
        const uint8_t *name = p + at + 4;
        bool critical = !(name[0] & 0x20);
        if (critical && crc32(crc32(0, NULL, 0), name, (uInt)size + 4) != slr_be32(name + 4 + size))
            return "this PNG file is damaged: a checksum is wrong";
        if (!memcmp(name, "IEND", 4))
            return NULL;
        at += size + 12;
    }
    return "this PNG file ends early";
}

static const char *jpeg_cut(const uint8_t *p, size_t n)
{
    size_t at = 2;
    while (n - at >= 4) { /* segments up to the first scan; thumbnails lie inside them */
        if (p[at] != 0xFF || p[at + 1] == 0xFF) {
            at++;
            continue;
        }
        if (p[at + 1] == 0xDA)
            return memmem(p + at, n - at, "\xFF\xD9", 2) ? NULL : "this JPEG file ends early";
        size_t size = slr_be16(p + at + 2) + (size_t)2;
        if (size > n - at)
            break;
        at += size;
    }
    return "this JPEG file ends early";
}

static const char *webp_cut(const uint8_t *p, size_t n)
{
    return n >= 12 && slr_le32(p + 4) <= n - 8 ? NULL : "this WebP file ends early";
}

const char *slr_picture_cut(const uint8_t *bytes, size_t n, const char *format)
{
    static const struct {
        const char *format;
        const char *(*cut)(const uint8_t *p, size_t n);
    } row[] = {{"png", png_cut}, {"jpeg", jpeg_cut}, {"webp", webp_cut}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (n >= 8 && !strcmp(row[i].format, format))
            return row[i].cut(bytes, n);
    return NULL;
}
