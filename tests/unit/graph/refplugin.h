/* SPDX-License-Identifier: MIT */
/* What tests may ask of the reference plugin (symbol `refplugin`). */
#ifndef TEST_GRAPH_REFPLUGIN_H
#define TEST_GRAPH_REFPLUGIN_H

#include <stdbool.h>
#include <stdint.h>

typedef struct refplugin_knobs {
    uint32_t decline_op; /* prepare says ENOTSUP */
    uint32_t fail_op;    /* launch says EBACKEND */
    bool fail_silently;  /* without a text */
    bool dense_only;     /* prepare declines inputs that are not dense */
    bool idle;           /* launches do nothing at all */
    void *cancel;        /* an _Atomic int that is set ... */
    uint64_t cancel_at;  /* ... by this launch, counted from 1 */
    uint64_t launches, prepares;
} refplugin_knobs;

#endif
