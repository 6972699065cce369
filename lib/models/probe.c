/* SPDX-License-Identifier: MIT */
/* Asks a UNet itself what it predicts.  Knows one run on constant input and how to read it; refuses
 * to know files. */
#include <sdlora/backend.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "base/status.h"
#include "base/thread.h"
#include "graph/exec.h"
#include "models/detect.h"
#include "models/unet.h"

/* AUTOMATIC1111's numbers: latents and text states of 0.5, the last timestep; v of such latents is
 * near minus one and a half times them, noise near them. */
#define GREY       0.5F
#define TIMESTEP   999.0F
#define V_IS_BELOW (-1.0)
enum { SIDE = 8, TOKENS = 2 };

static slr_val build(slr_nn *nn, const slr_family *family, const slr_unet_shape *s)
{
    const int64_t x[4] = {1, SIDE, SIDE, s->in_channels}, t[1] = {1},
                  context[3] = {1, TOKENS, s->context > 0 ? s->context : 1},
                  vector[2] = {1, s->vector};
    slr_graph *g = nn->g;
    return slr_unet_build_vector(
        nn, family, slr_input(g, "x", SDLORA_F32, 4, x), slr_input(g, "t", SDLORA_F32, 1, t),
        slr_input(g, "context", SDLORA_F32, 3, context),
        s->vector > 0 ? slr_input(g, "vector", SDLORA_F32, 2, vector) : SLR_NONE);
}

static void fill(slr_plan *p, const char *name, float value)
{
    slr_val v;
    if (slr_plan_find(p, name, &v) < 0) {
        slr_clear(); /* SD 2 takes no vector */
        return;
    }
    slr_shape s = slr_plan_shape(p, v);
    float *to = slr_plan_data(p, v);
    int64_t n = 1;
    for (int i = 0; i < s.rank; i++)
        n *= s.dim[i];
    for (int64_t i = 0; i < n; i++)
        to[i] = value;
}

/* Mean of what comes out, less what went in. */
static int run(slr_plan *p, double *mean)
{
    slr_val v;
    fill(p, "x", GREY);
    fill(p, "context", GREY);
    fill(p, "vector", GREY);
    fill(p, "t", TIMESTEP);
    SLR_TRY(slr_plan_run(p, NULL));
    SLR_TRY(slr_plan_find(p, "y", &v));
    const float *y = slr_plan_data(p, v);
    int64_t n = SIDE * SIDE * slr_plan_shape(p, v).dim[3];
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)y[i] - GREY;
    *mean = sum / (double)n;
    return SDLORA_OK;
}

int slr_probe_predict(int *out, slr_mem *m, const slr_family *family, const slr_weights *unet,
                      const slr_probe_limits *limits)
{
    const slr_devices_config config = {.mem = m,
                                       .threads = limits->threads,
                                       .cpu_features = slr_cpu_features() & ~limits->cpu_off,
                                       .backend = "cpu"};
    slr_devices *devices = NULL;
    slr_graph *g = NULL;
    slr_plan *p = NULL;
    slr_unet_shape s;
    double mean = 0;
    *out = SLR_PREDICT_EPS;
    SLR_TRY(slr_unet_read(&s, family, unet));
    int rc = slr_devices_open(&devices, &config);
    if (rc >= 0)
        rc = slr_graph_new(&g, m, (slr_policy){.storage = SDLORA_F32});
    if (rc >= 0) {
        slr_nn nn = {.g = g, .w = unet, .part = SLR_PART_UNET};
        slr_output(g, build(&nn, family, &s), "y");
        rc = slr_graph_status(g);
    }
    if (rc >= 0)
        rc = slr_plan_new(&p, g, devices);
    if (rc >= 0)
        rc = run(p, &mean);
    if (rc >= 0)
        *out = mean < V_IS_BELOW ? SLR_PREDICT_V : SLR_PREDICT_EPS;
    slr_plan_free(p);
    if (g)
        slr_graph_free(g);
    slr_devices_unref(devices);
    return rc;
}
