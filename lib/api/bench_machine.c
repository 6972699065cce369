/* SPDX-License-Identifier: MIT */
/* What the machine can do, measured through the same backends that run models: products and
 * convolutions of frozen weights, and copying.  Refuses to know models. */
#include "api/bench.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "io/json.h"

enum { REPEATS = 5 };

/* A layer whose rate is measured.  side 0: a product [rows,in] x [in,out]. */
typedef struct layer {
    int64_t rows, in, out;
    int64_t side; /* a 3x3 convolution of a picture of side x side */
} layer;

static const layer GEMMS[] = {{2048, 2048, 2048, 0}, {4096, 4096, 1024, 0}, {4096, 320, 1280, 0}};
static const layer CONVS[] = {{0, 320, 320, 64}, {0, 640, 640, 32}};

static double flops_of(const layer *l)
{
    int64_t pixels = l->side ? l->side * l->side * 9 : l->rows;
    return 2.0 * (double)pixels * (double)l->in * (double)l->out;
}

/* Weights of the storage type, all of them small and none of them zero. */
static int make_weights(slr_tensor *t, slr_mem *m, const layer *l, uint32_t dtype)
{
    *t = (slr_tensor){.dtype = dtype, .rank = l->side ? 4 : 2, .dim = {l->out, l->in, 3, 3}};
    int64_t n = slr_tensor_count(t);

    SLR_TRY(slr_storage_new(&t->storage, m, slr_tensor_bytes(t)));
    t->data = slr_storage_data(t->storage);
    t->id = slr_tensor_next_id();
    float *row = slr_alloc(m, (size_t)n * sizeof *row);
    if (!row) {
        slr_storage_unref(t->storage);
        return SDLORA_ENOMEM;
    }
    for (int64_t i = 0; i < n; i++)
        row[i] = 0.01f * (float)(1 + i % 13);
    slr_dtype(dtype)->from_f32(slr_storage_data(t->storage), row, (size_t)n);
    slr_free(m, row);
    return SDLORA_OK;
}

static slr_val build(slr_graph *g, const layer *l, const slr_tensor *weights, uint32_t storage)
{
    const slr_conv same = {
        .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
    slr_val w = slr_const(g, "w", weights);

    if (!l->side)
        return slr_linear(g, slr_input(g, "x", storage, 2, (const int64_t[]){l->rows, l->in}), w,
                          SLR_NONE, SLR_NONE);
    slr_val x = slr_input(g, "x", storage, 4, (const int64_t[]){1, l->side, l->side, l->in});
    return slr_conv2d(g, x, w, SLR_NONE, SLR_NONE, same, 1.0);
}

static int time_layer(const slr_bench *b, const layer *l, slr_policy policy, double *rate)
{
    slr_tensor weights;
    slr_graph *g = NULL;
    slr_plan *p = NULL;
    slr_val x;
    double best, median;

    SLR_TRY(make_weights(&weights, b->ctx->mem, l, policy.storage));
    int rc = slr_graph_new(&g, b->ctx->mem, policy);
    if (rc >= 0) {
        slr_output(g, build(g, l, &weights, policy.storage), "y");
        rc = slr_graph_status(g);
    }
    if (rc >= 0)
        rc = slr_plan_new(&p, g, b->ctx->devices);
    if (rc >= 0)
        rc = slr_plan_back(p);
    if (rc >= 0)
        rc = slr_plan_find(p, "x", &x);
    if (rc >= 0) {
        slr_shape s = slr_plan_shape(p, x);
        int64_t n = 1;
        for (int i = 0; i < s.rank; i++)
            n *= s.dim[i];
        memset(slr_plan_data(p, x), 0x3c, (size_t)n * slr_dtype_size(s.dtype)); /* about 0.01 */
        rc = slr_bench_time(b, "machine", p, REPEATS, &best, &median);
    }
    if (rc >= 0)
        *rate = fmax(*rate, flops_of(l) / best);
    slr_plan_free(p);
    slr_graph_free(g);
    slr_storage_unref(weights.storage);
    return rc;
}

static int time_layers(slr_bench *b, slr_policy policy, int which)
{
    for (size_t i = 0; i < sizeof GEMMS / sizeof *GEMMS; i++)
        SLR_TRY(time_layer(b, &GEMMS[i], policy, &b->ceiling.gemm[which]));
    for (size_t i = 0; i < sizeof CONVS / sizeof *CONVS; i++)
        SLR_TRY(time_layer(b, &CONVS[i], policy, &b->ceiling.conv[which]));
    return SDLORA_OK;
}

/* --- copying --- */

typedef struct copy_job {
    char *to;
    const char *from;
} copy_job;

#define COPY_BYTES ((int64_t)256 << 20)

static void copy_piece(void *arg, int64_t lo, int64_t hi)
{
    const copy_job *job = arg;

    memcpy(job->to + lo, job->from + lo, (size_t)(hi - lo));
}

static int time_copy(slr_bench *b)
{
    slr_mem *m = b->ctx->mem;
    char *blocks[2] = {slr_alloc(m, COPY_BYTES), slr_alloc(m, COPY_BYTES)};
    int rc = blocks[0] && blocks[1] ? SDLORA_OK : SDLORA_ENOMEM;
    copy_job job = {blocks[1], blocks[0]};
    double best = INFINITY;

    if (rc >= 0)
        memset(blocks[0], 1, COPY_BYTES);
    for (int i = 0; rc >= 0 && i < 6; i++) { /* the first one touches the target's pages */
        double start = slr_clock();

        slr_parallel(slr_devices_threads(b->ctx->devices), COPY_BYTES, 1 << 20, copy_piece, &job);
        best = i ? fmin(best, slr_clock() - start) : best;
    }
    b->ceiling.copy = 2.0 * COPY_BYTES / best;
    slr_free(m, blocks[0]);
    slr_free(m, blocks[1]);
    return rc;
}

/* --- the row --- */

static int which(const slr_bench *b)
{
    return b->policy.storage == SDLORA_BF16 ? SLR_CEILING_BF16 : SLR_CEILING_F32;
}

double slr_bench_ceiling(const slr_bench *b)
{
    return fmax(b->ceiling.gemm[which(b)], b->ceiling.conv[which(b)]);
}

int slr_bench_machine_again(slr_bench *b)
{
    SLR_TRY(time_layer(b, &GEMMS[0], b->policy, &b->ceiling.gemm[which(b)]));
    return time_layer(b, &CONVS[0], b->policy, &b->ceiling.conv[which(b)]);
}

static int put_devices(const slr_bench *b)
{
    for (size_t i = 0; i < slr_devices_count(b->ctx->devices); i++) {
        sdlora_dev_info dev = {.struct_size = sizeof dev};
        SLR_TRY(slr_devices_info(b->ctx->devices, i, &dev));
        slr_buf_puts(b->out, i ? ", " : "");
        slr_json_quote(b->out, dev.name, strlen(dev.name), false);
    }
    return SDLORA_OK;
}

int slr_bench_machine(slr_bench *b)
{
    static const slr_policy F32 = {SDLORA_F32, SDLORA_MATH_STRICT};
    const slr_ceilings *c = &b->ceiling;

    SLR_TRY(time_layers(b, F32, SLR_CEILING_F32));
    if (b->policy.storage == SDLORA_BF16)
        SLR_TRY(time_layers(b, b->policy, SLR_CEILING_BF16));
    SLR_TRY(time_copy(b));
    slr_buf_puts(b->out, "{\n  \"machine\": {\"devices\": [");
    SLR_TRY(put_devices(b));
    slr_buf_printf(b->out,
                   "], \"threads\": %d, \"sgemm_gflops\": %.1f, \"f32_conv_gflops\": %.1f, "
                   "\"bf16_gemm_gflops\": %.1f, \"bf16_conv_gflops\": %.1f, "
                   "\"copy_gbytes\": %.1f},\n",
                   slr_devices_threads(b->ctx->devices), c->gemm[0] * 1e-9, c->conv[0] * 1e-9,
                   c->gemm[1] * 1e-9, c->conv[1] * 1e-9, c->copy * 1e-9);
    return SDLORA_OK;
}
