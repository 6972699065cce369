/* SPDX-License-Identifier: MIT */
/* What all public entries do with their arguments: NULL handles and options of another kind become
 * sentences, result structs are filled by the size that the caller knows, and jobs without a handle
 * tell their progress.  Knows nothing of what the handles stand for. */
#include "api/api.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"

int slr_api_given(const void *arg, const char *name, const char *where)
{
    if (arg)
        return SDLORA_OK;
    return slr_fail(SDLORA_EINVAL, where, "%s: the argument '%s' is NULL", where, name);
}

int slr_api_kind(const sdlora_options *o, const char *kind, const char *where)
{
    if (!o || !strcmp(slr_options_kind(o), kind))
        return SDLORA_OK;
    return slr_fail(SDLORA_EINVAL, where, "%s takes options of the kind '%s', these are '%s'",
                    where, kind, slr_options_kind(o));
}

int slr_api_tell(void *watch, const char *phase, int64_t done, int64_t total)
{
    slr_api_watch *w = watch;
    double now = slr_clock();

    if (!w->fn)
        return 0;
    if (!w->phase)
        w->start = now;
    if (!w->phase || strcmp(w->phase, phase) != 0)
        w->phase_start = now;
    w->phase = phase;
    const sdlora_progress p = {
        .struct_size = sizeof p,
        .val_loss = NAN,
        .elapsed = now - w->start,
        .eta = done > 0 ? (now - w->phase_start) / (double)done * (double)(total - done) : NAN,
        .phase = phase,
        .phase_done = done,
        .phase_total = total,
    };
    return w->fn(&p, w->user);
}

int slr_api_fill(void *dst, const void *src, size_t size, const char *where)
{
    size_t has;

    memcpy(&has, dst, sizeof has);
    if (has < sizeof has || has > 65536)
        return slr_fail(SDLORA_EVERSION, where,
                        "%s: struct_size is %zu; set it to the size of the struct", where, has);
    memset((char *)dst + sizeof has, 0, has - sizeof has);
    memcpy((char *)dst + sizeof has, (const char *)src + sizeof has,
           (has < size ? has : size) - sizeof has);
    return SDLORA_OK;
}
