/* SPDX-License-Identifier: MIT */
/* EXIF orientation from a bare TIFF structure. */
#include "fuzz.h"
#include "io/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slr_source s;
    int a = slr_exif_orientation(data, size), b;
    FUZZ_CHECK(a >= 1 && a <= 8);
    slr_source_memory(&s, data, size, "fuzz");
    b = slr_exif_from(&s, 0, size);
    FUZZ_CHECK(b >= 1 && b <= 8);
    return 0;
}
