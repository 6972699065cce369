/* SPDX-License-Identifier: MIT */
/* Plugins that must be refused, one per value of BROKEN: 1 another ABI, 2 a table that is too
 * short, 3 missing members, 4 no entry point, 5 an entry that fails. */
#include <sdlora/backend.h>

static int dev_count(const sdlora_host *host)
{
    (void)host;
    return 1;
}

static const sdlora_backend backend = {
    .struct_size = BROKEN == 2 ? offsetof(sdlora_backend, prepare) : sizeof(sdlora_backend),
    .abi = BROKEN == 1 ? SDLORA_BACKEND_ABI + 1 : SDLORA_BACKEND_ABI,
    .name = "broken",
    .dev_count = dev_count,
};

#if BROKEN == 4
#define sdlora_backend_entry some_other_name
#endif

SDLORA_API int sdlora_backend_entry(const sdlora_host *host, const sdlora_backend **out);
int sdlora_backend_entry(const sdlora_host *host, const sdlora_backend **out)
{
    (void)host;
    *out = &backend;
    return BROKEN == 5 ? SDLORA_EBACKEND : SDLORA_OK;
}
