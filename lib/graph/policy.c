/* SPDX-License-Identifier: MIT */
/* Chooses storage and arithmetic from kohya's word for it and from what the devices say of
 * themselves.  Refuses to know models and processors. */
#include "graph/policy.h"

#include <string.h>

#include "base/status.h"

static bool multiplies_bf16(const slr_devices *devices)
{
    for (size_t i = 0; i < slr_devices_count(devices); i++) {
        sdlora_dev_info info;
        if (slr_devices_info(devices, i, &info) >= 0 && info.maths >> SDLORA_MATH_BF16 & 1)
            return true;
        slr_clear();
    }
    return false;
}

int slr_policy_read(slr_policy *out, const char *mixed_precision, const slr_devices *devices)
{
    const slr_policy bf16 = {SDLORA_BF16, SDLORA_MATH_STRICT};
    *out = (slr_policy){SDLORA_F32, SDLORA_MATH_STRICT};
    if (!mixed_precision || !strcmp(mixed_precision, "no"))
        return SDLORA_OK;
    if (!strcmp(mixed_precision, "auto")) {
        if (multiplies_bf16(devices))
            *out = bf16;
        return SDLORA_OK;
    }
    if (!strcmp(mixed_precision, "bf16")) {
        *out = bf16;
        return SDLORA_OK;
    }
    return slr_fail(SDLORA_ENOTSUP, __func__,
                    "mixed_precision %s is not supported: use no, bf16 or auto", mixed_precision);
}

int slr_precision_read(slr_precision *out, slr_opt o, const slr_devices *devices)
{
    const char *words = slr_opt_text(o, "mixed_precision");
    SLR_TRY(slr_policy_read(&out->model, words, devices));
    return slr_policy_read(&out->vae, slr_opt_bool(o, "no_half_vae") ? "no" : words, devices);
}

const char *slr_policy_name(slr_policy policy)
{
    return policy.storage == SDLORA_BF16 ? "bf16" : "no";
}
