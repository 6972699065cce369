/* SPDX-License-Identifier: MIT */
/* A checkpoint without values for a network file, so that tools which need only its layers work
 * without the model.  Knows the architectures that can be made from a name; refuses to guess beyond
 * that. */
#include <string.h>

#include "base/status.h"
#include "io/file.h"
#include "networks/tools.h"

static const char *const archs[] = {"sd15", "sd21", "sdxl", "tiny"};

int slr_checkpoint_for_network(slr_checkpoint **out, const char *path,
                               const slr_checkpoint_config *config)
{
    *out = NULL;
    if (!slr_file_exists(path))
        return slr_fail(SDLORA_ENOTFOUND, __func__, "%s: no such file", path);
    slr_error_copy first = {0};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        slr_checkpoint *base;
        slr_network *n;
        SLR_TRY(slr_checkpoint_shapes(&base, archs[i], config));
        int rc = slr_network_open(&n, config->mem, base, path);
        if (rc >= 0) {
            slr_network_unref(n);
            slr_clear();
            *out = base;
            return SDLORA_OK;
        }
        slr_checkpoint_unref(base);
        if (!i)
            slr_error_take(&first);
        if (rc != SDLORA_EFORMAT && rc != SDLORA_EINVAL && rc != SDLORA_ENOTSUP)
            return rc;
    }
    return slr_fail(first.code, __func__,
                    "%s; nor does it fit another architecture without its checkpoint", first.text);
}
