/* SPDX-License-Identifier: MIT */
/* Speed of the heavy operations at Stable Diffusion 1.5's shapes, each as a share of what one large
 * product of this machine's BLAS reaches.  `ops [THREADS] [CPU]`: with one thread, time is what the
 * thread itself used, so that a busy machine does not show; with more it is wall time.
 * Best of several runs.  Not a test: nothing here can fail but preparation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "base/status.h"

typedef struct bench_op {
    char name[80];
    double flops;
    sdlora_opdesc op;
    sdlora_tdesc desc[12];
    int64_t ints[12];
    double reals[2];
    int frozen; /* index of the frozen input, or -1 */
} bench_op;

static int n_threads = 1;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(n_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static sdlora_tdesc dense(uint32_t rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    sdlora_tdesc t = {.dtype = SDLORA_F32, .rank = rank, .dim = {a, b, c, d}};
    int64_t stride = 1;
    for (uint32_t i = rank; i-- > 0;) {
        t.stride[i] = stride;
        stride *= t.dim[i];
    }
    return t;
}

static size_t bytes_of(const sdlora_tdesc *t)
{
    size_t n = 4;
    for (uint32_t i = 0; i < t->rank; i++)
        n *= (size_t)t->dim[i];
    return n;
}

static float *fill(size_t bytes)
{
    float *p = slr_alloc(NULL, bytes);
    uint32_t s = 1;
    for (size_t i = 0; p && i < bytes / 4; i++) {
        s = s * 1664525u + 1013904223u;
        p[i] = (float)(int32_t)s / 2147483648.0f;
    }
    return p;
}

/* Best seconds of one launch, or a negative code. */
static double time_op(slr_devices *d, bench_op *b)
{
    sdlora_arg args[12] = {{0}};
    sdlora_const consts[12] = {{0}};
    float *data[12] = {0};
    const uint32_t n = b->op.n_in + b->op.n_out;
    b->op.struct_size = sizeof b->op;
    b->op.in = b->desc;
    b->op.out = b->desc + b->op.n_in;
    b->op.ints = b->ints;
    b->op.reals = b->reals;
    b->op.consts = consts;
    for (uint32_t i = 0; i < n; i++) {
        if (!b->desc[i].dtype)
            continue;
        data[i] = fill(bytes_of(&b->desc[i]));
        args[i].mem = (sdlora_mem *)data[i];
        if ((int)i == b->frozen) {
            consts[i] = (sdlora_const){.data = data[i], .id = 0};
            args[i].mem = NULL;
        }
    }
    size_t which;
    sdlora_kernel *k;
    uint64_t scratch;
    int rc = slr_devices_prepare(d, &b->op, &which, &k, &scratch);
    double best = rc;
    if (rc >= 0) {
        const sdlora_backend *back = slr_devices_backend(d, which);
        sdlora_arg s = {.mem = slr_alloc(NULL, scratch ? scratch : 1)};
        double start = seconds(), t = 0;
        best = 1e9;
        for (int run = 0; run < 40 && (run < 3 || seconds() - start < 0.6); run++) {
            t = seconds();
            back->launch(slr_devices_queue(d, which), k, args, n, s);
            t = seconds() - t;
            best = t < best ? t : best;
        }
        back->kernel_free(k);
        slr_free(NULL, s.mem);
    }
    for (uint32_t i = 0; i < n; i++)
        slr_free(NULL, data[i]);
    return best;
}

static bench_op conv(uint32_t op, int64_t n, int64_t hw, int64_t c, int64_t k, int64_t r,
                     int64_t stride)
{
    const int64_t o = hw / stride, pad = r / 2;
    bench_op b = {.op = {.op = op, .n_in = 2, .n_out = 1, .n_int = 9, .n_real = 1}, .frozen = -1};
    const sdlora_tdesc x = dense(4, n, hw, hw, c), y = dense(4, n, o, o, k),
                       w = dense(4, k, c, r, r);
    const int64_t ints[9] = {stride,
                             stride,
                             pad,
                             pad,
                             pad,
                             pad,
                             1,
                             op == SDLORA_OP_CONV2D_BW ? r : hw,
                             op == SDLORA_OP_CONV2D_BW ? r : hw};
    static const char *const names[] = {"conv", "conv_bx", "conv_bw"};
    snprintf(b.name, sizeof b.name, "%s %lldx%lld %lld->%lld @%lld/%lld x%lld",
             names[op - SDLORA_OP_CONV2D], (long long)r, (long long)r, (long long)c, (long long)k,
             (long long)hw, (long long)stride, (long long)n);
    memcpy(b.ints, ints, sizeof ints);
    b.reals[0] = 1;
    b.flops = 2.0 * (double)(n * o * o * c * k * r * r);
    b.desc[0] = op == SDLORA_OP_CONV2D ? x : y;
    b.desc[1] = op == SDLORA_OP_CONV2D_BW ? x : w;
    b.desc[2] = op == SDLORA_OP_CONV2D ? y : op == SDLORA_OP_CONV2D_BX ? x : w;
    b.frozen = op == SDLORA_OP_CONV2D_BW ? -1 : 1;
    return b;
}

static bench_op linear(int64_t m, int64_t n, int64_t k, int ta, int tb, const char *what)
{
    bench_op b = {.op = {.op = SDLORA_OP_MATMUL, .n_in = 2, .n_out = 1, .n_int = 2, .n_real = 1},
                  .flops = 2.0 * (double)(m * n * k),
                  .desc = {ta ? dense(2, k, m, 0, 0) : dense(2, m, k, 0, 0),
                           tb ? dense(2, n, k, 0, 0) : dense(2, k, n, 0, 0), dense(2, m, n, 0, 0)},
                  .ints = {ta, tb},
                  .reals = {1},
                  .frozen = ta ? -1 : 1};
    snprintf(b.name, sizeof b.name, "%s %lldx%lldx%lld", what, (long long)m, (long long)n,
             (long long)k);
    return b;
}

static bench_op attention(int backward, int64_t n, int64_t tq, int64_t tk, int64_t heads, int64_t d)
{
    const sdlora_tdesc q = dense(3, n, tq, heads * d, 0), k = dense(3, n, tk, heads * d, 0);
    const sdlora_tdesc lse = dense(3, n, heads, tq, 0);
    bench_op f = {.op = {.op = SDLORA_OP_ATTENTION, .n_in = 3, .n_out = 2, .n_int = 2, .n_real = 1},
                  .flops = 4.0 * (double)(n * tq * tk * heads * d),
                  .desc = {q, k, k, q, lse},
                  .ints = {heads, 0},
                  .reals = {0.125},
                  .frozen = -1};
    if (backward) {
        const sdlora_tdesc all[9] = {q, q, k, k, q, lse, q, k, k};
        f.op.op = SDLORA_OP_ATTENTION_B;
        f.op.n_in = 6;
        f.op.n_out = 3;
        f.flops *= 2.5;
        memcpy(f.desc, all, sizeof all);
    }
    snprintf(f.name, sizeof f.name, "attention%s %lld heads of %lld, %lld x %lld x%lld",
             backward ? "_b" : "", (long long)heads, (long long)d, (long long)tq, (long long)tk,
             (long long)n);
    return f;
}

int main(int argc, char **argv)
{
    slr_devices *d;
    if (argc > 1)
        n_threads = atoi(argv[1]);
    slr_devices_config c = {.threads = n_threads,
                            .cpu_features =
                                slr_cpu_features() & slr_cpu_mask(argc > 2 ? argv[2] : "auto"),
                            .backend = "cpu"};
    if (slr_devices_open(&d, &c) < 0)
        return fprintf(stderr, "%s\n", sdlora_last_error()->message), 1;
    bench_op ops[] = {
        linear(2048, 2048, 2048, 0, 0, "product"),
        conv(SDLORA_OP_CONV2D, 1, 64, 4, 320, 3, 1),
        conv(SDLORA_OP_CONV2D, 1, 64, 320, 320, 3, 1),
        conv(SDLORA_OP_CONV2D, 1, 32, 640, 640, 3, 1),
        conv(SDLORA_OP_CONV2D, 1, 16, 1280, 1280, 3, 1),
        conv(SDLORA_OP_CONV2D, 1, 16, 2560, 1280, 3, 1),
        conv(SDLORA_OP_CONV2D, 1, 8, 1280, 1280, 3, 1),
        conv(SDLORA_OP_CONV2D, 1, 64, 320, 320, 3, 2),
        conv(SDLORA_OP_CONV2D, 1, 256, 128, 128, 3, 1),
        conv(SDLORA_OP_CONV2D, 1, 64, 640, 320, 1, 1),
        conv(SDLORA_OP_CONV2D_BX, 1, 64, 320, 320, 3, 1),
        conv(SDLORA_OP_CONV2D_BX, 1, 32, 640, 640, 3, 1),
        conv(SDLORA_OP_CONV2D_BX, 1, 16, 2560, 1280, 3, 1),
        conv(SDLORA_OP_CONV2D_BX, 1, 8, 1280, 1280, 3, 1),
        conv(SDLORA_OP_CONV2D_BX, 1, 64, 320, 320, 3, 2),
        conv(SDLORA_OP_CONV2D_BW, 1, 64, 320, 16, 3, 1),
        linear(4096, 320, 320, 0, 1, "linear"),
        linear(4096, 2560, 320, 0, 1, "linear"),
        linear(1024, 5120, 640, 0, 1, "linear"),
        linear(256, 1280, 1280, 0, 1, "linear"),
        linear(77, 768, 768, 0, 1, "linear"),
        linear(77, 320, 768, 0, 1, "linear"),
        linear(1, 1280, 320, 0, 1, "linear"),
        linear(4096, 16, 320, 0, 1, "lora down"),
        linear(4096, 320, 16, 0, 1, "lora up"),
        linear(320, 16, 4096, 1, 0, "lora down gradient"),
        linear(16, 320, 4096, 1, 0, "lora up gradient"),
        attention(0, 1, 4096, 4096, 8, 40),
        attention(0, 1, 4096, 77, 8, 40),
        attention(0, 1, 1024, 1024, 8, 80),
        attention(0, 1, 256, 256, 8, 160),
        attention(0, 1, 77, 77, 12, 64),
        attention(0, 1, 4096, 4096, 1, 512),
        attention(1, 1, 4096, 4096, 8, 40),
        attention(1, 1, 4096, 77, 8, 40),
        attention(1, 1, 1024, 1024, 8, 80),
        attention(1, 1, 256, 256, 8, 160),
        /* a small model: what an operation costs beside its arithmetic */
        conv(SDLORA_OP_CONV2D, 1, 8, 32, 32, 3, 1),
        conv(SDLORA_OP_CONV2D_BX, 1, 8, 32, 32, 3, 1),
        linear(64, 32, 32, 0, 1, "linear"),
        linear(64, 4, 32, 0, 1, "lora down"),
        attention(0, 1, 64, 64, 8, 4),
        attention(1, 1, 64, 64, 8, 4),
    };
    double top = 0;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (argc > 3 && i && !strstr(ops[i].name, argv[3]))
            continue;
        double t = time_op(d, &ops[i]);
        double rate = ops[i].flops / t * 1e-9;
        top = i == 0 ? rate : top;
        if (t < 0)
            printf("%-46s %s\n", ops[i].name, sdlora_last_error()->message);
        else
            printf("%-46s %9.3f ms %7.1f GFLOP/s %4.0f %%\n", ops[i].name, t * 1e3, rate,
                   100 * rate / top);
    }
    slr_devices_unref(d);
    return 0;
}
