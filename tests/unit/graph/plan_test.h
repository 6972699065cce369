/* SPDX-License-Identifier: MIT */
/* What tests of plans that run share: devices with the reference plugin and its knobs. */
#ifndef TEST_PLAN_TEST_H
#define TEST_PLAN_TEST_H

#include "graph_test.h"

typedef struct fixture {
    slr_devices *devices;
    refplugin_knobs *knobs;
    pool consts;
} fixture;

static inline int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->devices = ref_devices(NULL);
    f->knobs = knobs();
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    fixture *f = *state;
    slr_devices_unref(f->devices);
    free(f);
    return 0;
}

/* After each test: the plugin does as it should, and no constant is left. */
static inline int reset(void **state)
{
    fixture *f = *state;
    *f->knobs = (refplugin_knobs){0};
    pool_free(&f->consts);
    return 0;
}

static inline slr_graph *graph(void)
{
    slr_graph *g;
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    return g;
}

static inline slr_plan *plan_of(fixture *f, const slr_graph *g)
{
    slr_plan *p = NULL;
    assert_ok(slr_graph_status(g));
    assert_ok(slr_plan_new(&p, g, f->devices));
    return p;
}

static inline slr_val silu(slr_graph *g, slr_val x)
{
    return slr_act(g, x, SDLORA_ACT_SILU);
}

#endif
