/* SPDX-License-Identifier: MIT */
/* The oneDNN plugin's products and convolutions at Stable Diffusion 1.5's shapes, beside one
 * primitive of the library for the whole operation on one thread: the ceiling, measured in the same
 * run. `onednn DIR [THREADS] [FILTER]`.  Rates are per second of processor time that the process
 * used, so that a busy machine shows little; wall time stands beside them.  Not a test. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <omp.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "base/status.h"
#include "plugins/onednn/library.h"

/* kind: 'm' product m n k; 'g' the same with op(a) = a^T, from activations; 'l' with a live b;
 * 'c', 'b': convolution and its gradient by x, of image m x m, k channels to n, r x r, stride s. */
typedef struct shape {
    char kind;
    int64_t m, n, k, r, s;
} shape;

static const shape shapes[] = {
    {'c', 64, 320, 320, 3, 1},    {'c', 64, 320, 960, 3, 1},    {'c', 32, 640, 640, 3, 1},
    {'c', 32, 640, 1920, 3, 1},   {'c', 16, 1280, 1280, 3, 1},  {'c', 16, 1280, 2560, 3, 1},
    {'c', 8, 1280, 1280, 3, 1},   {'c', 8, 1280, 2560, 3, 1},   {'c', 64, 320, 320, 3, 2},
    {'c', 32, 640, 640, 3, 2},    {'c', 64, 320, 4, 3, 1},      {'c', 64, 4, 320, 3, 1},
    {'c', 64, 320, 640, 1, 1},    {'b', 64, 320, 320, 3, 1},    {'b', 32, 640, 640, 3, 1},
    {'b', 16, 1280, 1280, 3, 1},  {'b', 16, 1280, 2560, 3, 1},  {'b', 8, 1280, 1280, 3, 1},
    {'b', 64, 320, 320, 3, 2},    {'b', 16, 1280, 1280, 3, 2},  {'m', 4096, 320, 320, 0, 0},
    {'m', 4096, 2560, 320, 0, 0}, {'m', 4096, 320, 1280, 0, 0}, {'m', 1024, 640, 640, 0, 0},
    {'m', 1024, 5120, 640, 0, 0}, {'m', 256, 1280, 1280, 0, 0}, {'m', 256, 10240, 1280, 0, 0},
    {'m', 64, 1280, 1280, 0, 0},  {'m', 77, 320, 768, 0, 0},    {'m', 77, 1280, 768, 0, 0},
    {'m', 1, 1280, 320, 0, 0},    {'l', 4096, 16, 320, 0, 0},   {'l', 4096, 320, 16, 0, 0},
    {'l', 256, 16, 1280, 0, 0},   {'l', 256, 1280, 16, 0, 0},   {'g', 320, 16, 4096, 0, 0},
    {'g', 16, 320, 4096, 0, 0},   {'g', 1280, 16, 256, 0, 0},   {'g', 16, 1280, 256, 0, 0},
    {'c', 8, 64, 64, 3, 1},       {'b', 8, 64, 64, 3, 1},       {'m', 64, 64, 64, 0, 0},
    {'m', 64, 128, 128, 0, 0},    {'l', 64, 4, 64, 0, 0},       {'l', 64, 64, 4, 0, 0},
    {'g', 64, 4, 64, 0, 0},
};

typedef struct cost {
    double cpu, wall; /* seconds of the best run */
} cost;

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static cost best_of(void (*run)(void *arg), void *arg)
{
    cost best = {1e9, 1e9};
    double start = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < 2000 && (i < 3 || seconds(CLOCK_PROCESS_CPUTIME_ID) - start < 0.1); i++) {
        double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
        run(arg);
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        wall = seconds(CLOCK_MONOTONIC) - wall;
        best.cpu = cpu < best.cpu ? cpu : best.cpu;
        best.wall = wall < best.wall ? wall : best.wall;
    }
    return best;
}

static bool is_conv(const shape *s)
{
    return s->kind == 'c' || s->kind == 'b';
}

static double flops(const shape *s)
{
    if (!is_conv(s))
        return 2.0 * (double)(s->m * s->n * s->k);
    const int64_t o = s->m / s->s;
    return 2.0 * (double)(o * o * s->n * s->k * s->r * s->r);
}

/* --- the ceiling: one primitive, layouts as it likes, one thread */

typedef struct ceiling {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[4];
    void *data[4];
} ceiling;

static void add_memory(ceiling *c, int i, int id, const dn_layout *l)
{
    const size_t bytes = ((size_t)dn_layout_bytes(l) + 63) / 64 * 64 + 64;
    c->data[i] = aligned_alloc(64, bytes);
    memset(c->data[i], 0, bytes);
    c->args[i].arg = id;
    dn_memory_new(&c->args[i].memory, c->engine, l, c->data[i]);
}

static dn_layout image(int64_t c, int64_t side, uint32_t type)
{
    return dn_layout_strided(type, 4, (int64_t[]){1, c, side, side},
                             (int64_t[]){side * side * c, 1, side * c, c});
}

static dn_want describe(const shape *s, uint32_t type)
{
    if (!is_conv(s))
        return (dn_want){.kind = DN_MATMUL,
                         .src = dn_layout_dense(type, 2, (int64_t[]){s->m, s->k}),
                         .weights = dn_layout_open(type, 2, (int64_t[]){s->k, s->n}),
                         .dst = dn_layout_dense(type, 2, (int64_t[]){s->m, s->n}),
                         .alpha = 1};
    /* a gradient by x at stride 1 is a forward convolution of the same size */
    const bool back = s->kind == 'b' && s->s > 1, turned = s->kind == 'b' && s->s == 1;
    const int64_t o = s->m / s->s, in = turned ? s->n : s->k, out = turned ? s->k : s->n;
    const int64_t after = s->r / 2 - (s->s > 1);
    const dn_layout x = image(in, s->m, type), y = image(out, o, type);
    return (dn_want){.kind = back ? DN_CONV_BX : DN_CONV,
                     .src = back ? y : x,
                     .weights = dn_layout_open(type, 4, (int64_t[]){out, in, s->r, s->r}),
                     .dst = back ? x : y,
                     .alpha = 1,
                     .stride = {s->s, s->s},
                     .before = {s->r / 2, s->r / 2},
                     .after = {after, after}};
}

static void run_ceiling(void *arg)
{
    ceiling *c = arg;
    dnnl_primitive_execute(c->primitive, c->stream, 4, c->args);
}

static double ceiling_rate(const shape *s, bool bf16)
{
    ceiling c = {0};
    dn_made made;
    const int team = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_engine_create(&c.engine, dnnl_cpu, 0);
    dnnl_stream_create(&c.stream, c.engine, dnnl_stream_default_flags);
    const dn_want want = describe(s, bf16 ? SDLORA_BF16 : SDLORA_F32);
    double rate = 0;
    if (dn_library_make(&made, c.engine, &want) == dnnl_success) {
        c.primitive = made.primitive;
        add_memory(&c, 0, made.src, &want.src);
        add_memory(&c, 1, DNNL_ARG_WEIGHTS, &made.weights);
        add_memory(&c, 2, made.dst, &want.dst);
        add_memory(&c, 3, DNNL_ARG_SCRATCHPAD, &made.scratch);
        rate = flops(s) / best_of(run_ceiling, &c).cpu * 1e-9;
        for (int i = 0; i < 4; i++) {
            dnnl_memory_destroy(c.args[i].memory);
            free(c.data[i]);
        }
        dnnl_primitive_destroy(c.primitive);
    }
    dnnl_stream_destroy(c.stream);
    dnnl_engine_destroy(c.engine);
    omp_set_num_threads(team);
    return rate;
}

/* --- the plugin */

typedef struct bench {
    slr_devices *devices;
    size_t which;
    sdlora_kernel *kernel;
    sdlora_arg args[3], scratch;
} bench;

static void run_bench(void *arg)
{
    bench *b = arg;
    slr_devices_backend(b->devices, b->which)
        ->launch(slr_devices_queue(b->devices, b->which), b->kernel, b->args, 3, b->scratch);
}

static sdlora_tdesc dense(uint32_t dtype, uint32_t rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    sdlora_tdesc t = {.dtype = dtype, .rank = rank, .dim = {a, b, c, d}};
    int64_t stride = 1;
    for (uint32_t i = rank; i-- > 0; stride *= t.dim[i])
        t.stride[i] = stride;
    return t;
}

/* Operands as training has them: frozen weights in f16, live ones and gradients by them in f32. */
static sdlora_opdesc operation(const shape *s, uint32_t type, sdlora_tdesc *t, int64_t *ints)
{
    static const double alpha = 1;
    sdlora_opdesc op = {.struct_size = sizeof op,
                        .op = SDLORA_OP_MATMUL,
                        .flags = SDLORA_OPF_DETERMINISTIC,
                        .n_in = 2,
                        .n_out = 1,
                        .n_int = 2,
                        .n_real = 1,
                        .in = t,
                        .out = t + 2,
                        .ints = ints,
                        .reals = &alpha};
    if (is_conv(s)) {
        const int64_t o = s->m / s->s, p = s->r / 2, after = p - (s->s > 1);
        const int64_t all[9] = {s->s, s->s, p, p, after, after, 1, s->m, s->m};
        memcpy(ints, all, sizeof all);
        op.op = s->kind == 'c' ? SDLORA_OP_CONV2D : SDLORA_OP_CONV2D_BX;
        op.n_int = s->kind == 'c' ? 7 : 9;
        const bool back = s->kind == 'b';
        t[back ? 2 : 0] = dense(type, 4, 1, s->m, s->m, s->k);
        t[1] = dense(SDLORA_F16, 4, s->n, s->k, s->r, s->r);
        t[back ? 0 : 2] = dense(type, 4, 1, o, o, s->n);
        return op;
    }
    const bool grad = s->kind == 'g';
    ints[0] = grad;
    ints[1] = !grad;
    t[0] = grad ? dense(type, 2, s->k, s->m, 0, 0) : dense(type, 2, s->m, s->k, 0, 0);
    t[1] = grad ? dense(type, 2, s->k, s->n, 0, 0)
                : dense(s->kind == 'l' ? SDLORA_F32 : SDLORA_F16, 2, s->n, s->k, 0, 0);
    t[2] = dense(grad ? SDLORA_F32 : type, 2, s->m, s->n, 0, 0);
    return op;
}

static cost plugin_cost(slr_devices *d, const shape *s, bool bf16, const char **who)
{
    sdlora_tdesc t[3];
    sdlora_const consts[2] = {{0}};
    int64_t ints[9];
    bench b = {.devices = d};
    sdlora_opdesc op = operation(s, bf16 ? SDLORA_BF16 : SDLORA_F32, t, ints);
    void *data[3];
    for (int i = 0; i < 3; i++) {
        size_t n = 8;
        for (uint32_t x = 0; x < t[i].rank; x++)
            n *= (size_t)t[i].dim[x];
        data[i] = slr_calloc(NULL, 1, n);
        b.args[i].mem = data[i];
    }
    if (s->kind != 'l' && s->kind != 'g') {
        consts[1].data = data[1];
        op.consts = consts;
        b.args[1].mem = NULL;
    }
    uint64_t scratch;
    cost result = {0};
    *who = "none";
    if (slr_devices_prepare(d, &op, &b.which, &b.kernel, &scratch) >= 0) {
        *who = slr_devices_backend(d, b.which)->name;
        b.scratch.mem = slr_alloc(NULL, scratch + 1);
        result = best_of(run_bench, &b);
        slr_devices_backend(d, b.which)->kernel_free(b.kernel);
        slr_free(NULL, b.scratch.mem);
    }
    for (int i = 0; i < 3; i++)
        slr_free(NULL, data[i]);
    return result;
}

static slr_devices *open_devices(const char *backend, const char *dir, int threads)
{
    slr_devices *d = NULL;
    slr_devices_config c = {.threads = threads,
                            .cpu_features = slr_cpu_features(),
                            .backend = backend,
                            .plugin_path = dir};
    if (slr_devices_open(&d, &c) < 0)
        fprintf(stderr, "%s\n", sdlora_last_error()->message);
    return d;
}

int main(int argc, char **argv)
{
    const int threads = argc > 2 ? atoi(argv[2]) : 1;
    slr_devices *d = argc > 1 ? open_devices("onednn", argv[1], threads) : NULL;
    slr_devices *cpu = open_devices("cpu", NULL, threads);
    if (!d || !cpu)
        return 77;
    printf("%d threads; GFLOP per second of processor time; share of one primitive on one thread\n"
           "%-28s %-6s %8s %8s %6s %10s %10s\n",
           threads, "", "", "ceiling", "plugin", "share", "wall us", "cpu us");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int bf16 = 1; bf16 >= 0; bf16--) {
            const shape *s = &shapes[i];
            char name[80];
            snprintf(name, sizeof name, "%c %lld %lld %lld %lld/%lld", s->kind, (long long)s->m,
                     (long long)s->n, (long long)s->k, (long long)s->r, (long long)s->s);
            if (argc > 3 && !strstr(name, argv[3]))
                continue;
            const char *who, *core;
            double top = ceiling_rate(s, bf16);
            cost c = plugin_cost(d, s, bf16, &who);
            double rate = flops(s) / c.cpu * 1e-9;
            printf("%-28s %-6s %8.1f %8.1f %5.0f%% %10.1f %10.1f  %-6s", name,
                   bf16 ? "bf16" : "f32", top, rate, 100 * rate / top, c.wall * 1e6, c.cpu * 1e6,
                   who);
            c = plugin_cost(cpu, s, bf16, &core);
            printf(c.wall > 0 ? " %10.1f us by the core\n" : "\n", c.cpu * 1e6);
            fflush(stdout);
        }
    slr_devices_unref(cpu);
    slr_devices_unref(d);
    return 0;
}
