/* SPDX-License-Identifier: MIT */
/* The backends that are part of the library: tables like those that plugins give. */
#ifndef SLR_BACKEND_BUILTIN_H
#define SLR_BACKEND_BUILTIN_H

#include <sdlora/backend.h>

extern const sdlora_backend slr_backend_cpu;

#endif
