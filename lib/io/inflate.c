/* SPDX-License-Identifier: MIT */
/* Inflates by pieces, so that a stream that becomes too much is found out before it is all there.
 * Refuses to know what is in it. */
#include "io/inflate.h"

#include <limits.h>

#include <zlib.h>

#include "base/status.h"

int slr_inflate(const void *bytes, size_t n, size_t limit, slr_buf *to, const char **why)
{
    uint8_t piece[16384];
    size_t before = to->len;
    z_stream z = {0};
    int rc;
    *why = "does not inflate";
    if (n > UINT_MAX)
        return SDLORA_EFORMAT;
    if (inflateInit(&z) != Z_OK)
        return slr_nomem(__func__, 0);
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.avail_in = (uInt)n;
    do {
        z.next_out = piece;
        z.avail_out = sizeof piece;
        rc = inflate(&z, Z_NO_FLUSH);
        slr_buf_add(to, piece, sizeof piece - z.avail_out);
    } while (rc == Z_OK && to->len - before <= limit && slr_buf_ok(to) == SDLORA_OK);
    inflateEnd(&z);
    SLR_TRY(slr_buf_ok(to));
    if (to->len - before > limit) {
        *why = "inflates to too much";
        return SDLORA_EFORMAT;
    }
    return rc == Z_STREAM_END ? SDLORA_OK : SDLORA_EFORMAT;
}
