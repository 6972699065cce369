/* SPDX-License-Identifier: MIT */
/* Compiles the header as meson.build defines it. */
#include <safetensors.h>

int header_version(void);

int header_version(void)
{
    return ST_VERSION_MINOR;
}
