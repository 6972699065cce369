/* SPDX-License-Identifier: MIT */
/* JPEG: the marker walk and the pixels. */
#include "picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_picture(data, size);
    return 0;
}
