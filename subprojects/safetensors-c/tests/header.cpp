/* SPDX-License-Identifier: MIT */
/* Compiles the header as C++, as meson.build defines it. */
#include <safetensors.h>

int header_version();

int header_version()
{
    return ST_VERSION_MINOR;
}
