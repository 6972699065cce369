/* SPDX-License-Identifier: MIT */
/* EXIF, as far as a picture's uprightness needs it: tag 0x0112 of the first directory.  No other
 * directory is entered and no offset but the first is followed, so hostile ones lead nowhere. */
#include "io/codec.h"

#include <string.h>

enum { EXIF_MAX = 65536, ENTRIES_MAX = 512, TAG = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4 };

static uint32_t u16(const uint8_t *p, bool big)
{
    return big ? slr_be16(p) : (uint32_t)p[1] << 8 | p[0];
}

static uint32_t u32(const uint8_t *p, bool big)
{
    return big ? slr_be32(p) : slr_le32(p);
}

int slr_exif_orientation(const uint8_t *tiff, size_t n)
{
    bool big;
    uint32_t at, entries;
    if (n < 8 || n > EXIF_MAX)
        return 1;
    big = tiff[0] == 'M';
    if (memcmp(tiff, big ? "MM\0*" : "II*\0", 4) != 0)
        return 1;
    at = u32(tiff + 4, big);
    if (at < 8 || at > n - 2)
        return 1;
    entries = u16(tiff + at, big);
    at += 2;
    for (uint32_t i = 0; i < entries && i < ENTRIES_MAX && n - at >= 12; i++, at += 12) {
        const uint8_t *e = tiff + at; /* tag, type, count, value: 2, 2, 4, 4 bytes */
        uint32_t type = u16(e + 2, big), value;
        if (u16(e, big) != TAG)
            continue;
        if (u32(e + 4, big) != 1 || (type != TYPE_SHORT && type != TYPE_LONG))
            return 1;
        value = type == TYPE_SHORT ? u16(e + 8, big) : u32(e + 8, big);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

int slr_exif_from(slr_source *s, uint64_t at, uint64_t n)
{
    uint8_t block[4096]; /* the first directory lies at the front; its values are inline */
    size_t have, skip;
    if (n > EXIF_MAX)
        return 1;
    have = n < sizeof block ? (size_t)n : sizeof block;
    if (slr_source_get(s, at, block, have) < 0)
        return 1;
    skip = have >= 6 && !memcmp(block, "Exif\0\0", 6) ? 6 : 0;
    return slr_exif_orientation(block + skip, have - skip);
}
