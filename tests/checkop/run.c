/* SPDX-License-Identifier: MIT */
/* Runs cases on a backend through the public vtable: operands between guard bytes, outputs full of
 * NaN before, twice per kernel, with one thread and with more, which must give the same bytes. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/ref.h"
#include "backend/registry.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/status.h"
#include "tensor/dtype.h"

enum { GUARD = 64 };

/* Memory of one operand, or of the scratch, between two guards of 0xA5. */
typedef struct block {
    unsigned char *base, *data;
    size_t bytes;
} block;

static void block_new(block *b, size_t bytes)
{
    size_t whole = (bytes + 2 * GUARD + 63) / 64 * 64;
    b->base = aligned_alloc(64, whole);
    memset(b->base, 0xA5, whole);
    b->data = b->base + GUARD;
    b->bytes = bytes;
    memset(b->data, 0xFF, bytes); /* a NaN in every float type */
}

static bool block_whole(const block *b)
{
    for (int i = 0; i < GUARD; i++)
        if (b->base[i] != 0xA5 || b->data[b->bytes + (size_t)i] != 0xA5)
            return false;
    return true;
}

/* --- operands */

static int64_t strided(const sdlora_tdesc *t, int64_t i)
{
    int64_t at = 0;
    for (uint32_t x = t->rank; x-- > 0; i /= t->dim[x])
        at += i % t->dim[x] * t->stride[x];
    return at;
}

static size_t bytes_of(const sdlora_tdesc *t)
{
    int64_t last = 0;
    for (uint32_t x = 0; x < t->rank; x++)
        last += (t->dim[x] - 1) * t->stride[x];
    return t->dtype ? (size_t)(last + 1) * slr_dtype_size(t->dtype) : 0;
}

static void encode(const sdlora_tdesc *t, unsigned char *to, const double *v)
{
    const slr_dtype_row *row = slr_dtype(t->dtype);
    for (int64_t i = 0; i < slr_ref_count(t); i++) {
        unsigned char *p = to + strided(t, i) * (int64_t)row->size;
        float f = (float)v[i];
        int32_t n = t->dtype == SDLORA_I32 ? (int32_t)v[i] : 0;
        if (t->dtype == SDLORA_I32)
            memcpy(p, &n, sizeof n);
        else
            row->from_f32(p, &f, 1);
    }
}

/* Half a unit in the last place of v, which is what storing adds to an error. */
static double half_ulp(uint32_t dtype, double v)
{
    return dtype == SDLORA_BF16 && v != 0 ? ldexp(1, ilogb(v) - 8) : 0;
}

/* Largest error in units of the tolerance; *at says where. */
static double error_of(const check_call *c, int x, const unsigned char *got, int64_t *at)
{
    const sdlora_tdesc *t = &c->out[x];
    const slr_dtype_row *row = slr_dtype(t->dtype);
    const check_room tol = check_tolerance[c->info->class];
    const double *want = c->out_v[x];
    int64_t n = slr_ref_count(t);
    double square = 0, worst = 0;
    for (int64_t i = 0; i < n; i++)
        square += want[i] * want[i] / (double)n;
    for (int64_t i = 0; i < n; i++) {
        float f;
        row->to_f32(&f, got + i * (int64_t)row->size, 1);
        double goal = c->info->class == EXACT ? check_stored(t->dtype, want[i]) : want[i];
        double rel = tol.rel + (c->bf16 ? tol.bf16 : 0);
        double off = fabs(f - goal), room = rel * (fabs(goal) + sqrt(square)) + tol.floor;
        if (c->info->class != EXACT)
            room += half_ulp(t->dtype, goal);
        double e = off == 0 ? 0 : room > 0 ? off / room : INFINITY;
        if (isnan(off))
            e = INFINITY;
        if (e > worst) {
            worst = e;
            *at = i;
        }
    }
    return worst;
}

/* --- a prepared case on one device */

typedef struct bound {
    slr_devices *devices;
    size_t which;
    sdlora_kernel *kernel;
    block mem[2 * MAX_ARGS], scratch;
    sdlora_arg args[2 * MAX_ARGS];
    uint32_t n;
} bound;

static int case_fail(const check_call *c, const char *where, const char *text)
{
    printf("FAIL %s%s  %s -> %s  on %s: %s\n", c->info->name, c->bf16 ? " in bf16" : "",
           c->from->in, c->from->out, where, text);
    return 1;
}

/* Prepares; frozen inputs stand in the memory that the descriptor points to. */
static int bound_init(bound *b, check_call *c, slr_devices *devices)
{
    memset(b, 0, sizeof *b);
    b->devices = devices;
    b->n = c->desc.n_in + c->desc.n_out;
    bool any = false;
    for (uint32_t x = 0; x < b->n; x++) {
        bool in = x < c->desc.n_in;
        const sdlora_tdesc *t = in ? &c->in[x] : &c->out[x - c->desc.n_in];
        if (!t->dtype)
            continue;
        size_t odd = in && c->frozen[x]; /* frozen bytes come from files, at any alignment */
        block_new(&b->mem[x], bytes_of(t) + odd);
        if (in && c->frozen[x]) {
            encode(t, b->mem[x].data + odd, c->in_v[x]);
            c->consts[x] = (sdlora_const){b->mem[x].data + odd, 0};
            any = true;
        }
    }
    c->desc.consts = any ? c->consts : NULL;
    for (uint32_t x = 0; x < b->n; x++) {
        int alias = x >= c->desc.n_in ? c->from->alias[x - c->desc.n_in] : 0;
        const block *m = &b->mem[alias ? alias - 1 : (int)x];
        if (m->data && !(x < c->desc.n_in && c->frozen[x]))
            b->args[x].mem = (sdlora_mem *)(void *)m->data;
    }
    uint64_t scratch = 0;
    int rc = slr_devices_prepare(devices, &c->desc, &b->which, &b->kernel, &scratch);
    block_new(&b->scratch, scratch);
    return rc;
}

static int bound_launch(const bound *b)
{
    const sdlora_backend *be = slr_devices_backend(b->devices, b->which);
    sdlora_arg scratch = {(sdlora_mem *)(void *)b->scratch.data, 0};
    return be->launch(slr_devices_queue(b->devices, b->which), b->kernel, b->args, b->n, scratch);
}

static void bound_fill(const bound *b, const check_call *c)
{
    for (uint32_t x = 0; x < b->n; x++)
        if (b->mem[x].data && !(x < c->desc.n_in && c->frozen[x]))
            memset(b->mem[x].data, 0xFF, b->mem[x].bytes);
    for (uint32_t x = 0; x < c->desc.n_in; x++)
        if (b->args[x].mem)
            encode(&c->in[x], b->mem[x].data, c->in_v[x]);
}

static void bound_free(bound *b)
{
    if (b->kernel)
        slr_devices_backend(b->devices, b->which)->kernel_free(b->kernel);
    for (uint32_t x = 0; x < b->n; x++)
        free(b->mem[x].base);
    free(b->scratch.base);
}

/* Output x of a finished run. */
static unsigned char *result(const bound *b, const check_call *c, uint32_t x)
{
    return (unsigned char *)(void *)b->args[c->desc.n_in + x].mem;
}

static int check_results(const bound *b, const check_call *c, const char *where)
{
    char text[256];
    int bad = 0;
    for (uint32_t x = 0; x < c->desc.n_out; x++) {
        int64_t at = 0;
        double e = error_of(c, (int)x, result(b, c, x), &at);
        if (e <= 1)
            continue;
        float got;
        const slr_dtype_row *row = slr_dtype(c->out[x].dtype);
        row->to_f32(&got, result(b, c, x) + at * (int64_t)row->size, 1);
        snprintf(text, sizeof text, "output %u at %lld is %.9g, not %.9g: %.3g times the tolerance",
                 (unsigned)x, (long long)at, (double)got, c->out_v[x][at], e);
        bad += case_fail(c, where, text);
    }
    for (uint32_t x = 0; x < b->n; x++)
        if (b->mem[x].base && !block_whole(&b->mem[x]))
            bad += case_fail(c, where, "wrote outside of an operand");
    if (!block_whole(&b->scratch))
        bad += case_fail(c, where, "wrote outside of its scratch");
    return bad;
}

/* --- devices */

/* "avx512f" is avx512 without the instructions for bf16; the rest are the names of base/cpu.h. */
static uint64_t mask_of(const char *mask)
{
    return strcmp(mask, "avx512f") ? slr_cpu_mask(mask)
                                   : slr_cpu_mask("avx512") & ~(uint64_t)SLR_CPU_AVX512_BF16;
}

static const char *backend_name = "cpu", *plugin_dir;

static slr_devices *open_devices(const char *mask, int threads)
{
    slr_devices *d = NULL;
    slr_devices_config config = {.threads = threads,
                                 .cpu_features = slr_cpu_features() & mask_of(mask),
                                 .backend = backend_name,
                                 .plugin_path = plugin_dir};
    if (slr_devices_open(&d, &config) < 0) {
        printf("checkop: no device: %s\n", sdlora_last_error()->message);
        exit(2);
    }
    return d;
}

bool check_use_plugin(const char *name, const char *dir)
{
    slr_devices *d = NULL;
    sdlora_dev_info info = {.struct_size = sizeof info};
    slr_devices_config config = {
        .threads = 1, .cpu_features = slr_cpu_features(), .backend = name, .plugin_path = dir};
    if (slr_devices_open(&d, &config) < 0 || slr_devices_info(d, 0, &info) < 0 || !info.dtypes) {
        printf("%s: %s\n", name, d ? info.name : sdlora_last_error()->message);
        slr_devices_unref(d);
        return false;
    }
    slr_devices_unref(d);
    backend_name = name;
    plugin_dir = dir;
    return true;
}

/* True when the case went to another backend than the one under test. */
static bool elsewhere(const bound *b)
{
    return plugin_dir && strcmp(slr_devices_backend(b->devices, b->which)->name, backend_name) != 0;
}

/* True when this processor has all that the mask names. */
static bool has_isa(const char *mask)
{
    uint64_t need = !strcmp(mask, "avx2")      ? SLR_CPU_AVX2
                    : !strcmp(mask, "avx512f") ? SLR_CPU_AVX512
                    : !strcmp(mask, "avx512")  ? SLR_CPU_AVX512
                                               : 0;
    return (slr_cpu_features() & need) == need;
}

static const int thread_counts[] = {1, 2, 3};
enum { N_COUNTS = sizeof thread_counts / sizeof *thread_counts };

/* One case on all thread counts; the first one's bytes are what the others must give. */
static int check_case_on(const check_case *from, slr_devices *const *devices, const char *mask,
                         bool bf16, int *n)
{
    check_call c;
    bound first, b;
    int bad = 0;
    check_call_init(&c, from, bf16);
    if (bf16 && !c.bf16) {
        check_call_free(&c);
        return 0;
    }
    for (int t = 0; t < N_COUNTS && !bad; t++) {
        char where[64];
        snprintf(where, sizeof where, "%s, %d threads", mask, thread_counts[t]);
        bound *use = t ? &b : &first;
        int rc = bound_init(use, &c, devices[t]);
        if (rc >= 0 && elsewhere(use)) {
            bound_free(use);
            check_call_free(&c);
            return bad;
        }
        *n += t == 0;
        for (int pass = 0; pass < 2 && rc >= 0 && !bad; pass++) {
            bound_fill(use, &c);
            rc = bound_launch(use);
            if (rc >= 0)
                bad += check_results(use, &c, where);
        }
        if (rc < 0)
            bad += case_fail(&c, where, sdlora_last_error()->message);
        for (uint32_t x = 0; t && !bad && x < c.desc.n_out; x++)
            if (memcmp(result(&first, &c, x), result(use, &c, x), bytes_of(&c.out[x])) != 0)
                bad += case_fail(&c, where, "other bytes than with one thread");
        if (t)
            bound_free(&b);
    }
    bound_free(&first);
    check_call_free(&c);
    return bad;
}

/* A wrong case has to be refused with its code and a sentence. */
static int check_refusal(const check_case *from, slr_devices *devices)
{
    check_call c;
    bound b;
    check_call_init(&c, from, false);
    slr_clear();
    int rc = bound_init(&b, &c, devices), bad = 0;
    if (rc >= 0) {
        bound_fill(&b, &c);
        rc = bound_launch(&b);
    }
    char text[64];
    snprintf(text, sizeof text, "gave %d instead of %d, or no sentence", rc, from->refuse);
    if (rc != from->refuse || !*sdlora_last_error()->message)
        bad = case_fail(&c, "refusal", text);
    bound_free(&b);
    check_call_free(&c);
    return bad;
}

int check_backends(const char *mask, const char *filter)
{
    if (!has_isa(mask)) {
        printf("this processor has no %s\n", mask);
        return -1;
    }
    slr_devices *devices[N_COUNTS];
    int bad = 0, n = 0;
    for (int t = 0; t < N_COUNTS; t++)
        devices[t] = open_devices(mask, thread_counts[t]);
    for (const check_case *from = check_cases; from->op; from++)
        if (!from->big && (!filter || strstr(check_op_of(from->op)->name, filter))) {
            if (from->refuse) {
                bad += check_refusal(from, devices[0]);
            } else {
                bad += check_case_on(from, devices, mask, false, &n);
                bad += check_case_on(from, devices, mask, true, &n);
            }
        }
    for (int t = 0; t < N_COUNTS; t++)
        slr_devices_unref(devices[t]);
    printf("%s, %s: %d cases, %d failures\n", backend_name, mask, n, bad);
    if (!n && !filter)
        bad++;
    return bad;
}

/* --- curves: the activations on a fine grid, each against its own bound */

/* |error| <= rel |y| + abs max(1, |x|), which is what act.h promises. */
static const struct curve {
    int kind;
    const char *name;
    double rel, abs;
} curves[] = {
    {SDLORA_ACT_SILU, "silu", 3e-7, 1e-37},
    {SDLORA_ACT_GELU, "gelu", 3e-7, 3e-8},
    {SDLORA_ACT_QUICK_GELU, "quick gelu", 2e-6, 1e-37},
    {SDLORA_ACT_TANH, "tanh", 2e-7, 0},
    {SDLORA_ACT_SIGMOID, "sigmoid", 3e-7, 1e-37},
    {SDLORA_ACT_LEAKY_RELU, "leaky relu", 1.5e-7, 0},
    {SDLORA_ACT_ELU, "elu", 3e-7, 0},
    {SDLORA_ACT_SELU, "selu", 3e-7, 0},
    {SDLORA_ACT_SOFTPLUS, "softplus", 4e-7, 1e-37},
    {SDLORA_ACT_LOG_SIGMOID, "log sigmoid", 4e-7, 1e-37},
    {SDLORA_ACT_MISH, "mish", 5e-7, 1e-37},
    {SDLORA_ACT_HARDSWISH, "hardswish", 3e-7, 1.5e-7}, /* x + 3 is rounded before it is judged */
    {SDLORA_ACT_HARDSIGMOID, "hardsigmoid", 3e-7, 1e-7},
    {SDLORA_ACT_HARDTANH, "hardtanh", 0, 0},
    {SDLORA_ACT_RELU6, "relu6", 0, 0},
    {SDLORA_ACT_SOFTSIGN, "softsign", 2e-7, 0},
    {SDLORA_ACT_TANHSHRINK, "tanhshrink", 1e-7,
     1.5e-7}, /* near 0 two like numbers are taken apart */
    {SDLORA_ACT_HARDSHRINK, "hardshrink", 0, 0},
    {SDLORA_ACT_SOFTSHRINK, "softshrink", 1e-7, 0},
};

static int check_curve(slr_devices *d, const struct curve *v, const char *mask)
{
    enum { N = 1 << 18 };
    static float x[N], y[N];
    sdlora_tdesc t = {SDLORA_F32, 1, {N}, {1}};
    int64_t kind = v->kind;
    sdlora_opdesc op = {.struct_size = sizeof op,
                        .op = SDLORA_OP_ACT,
                        .n_in = 1,
                        .n_out = 1,
                        .n_int = 1,
                        .in = &t,
                        .out = &t,
                        .ints = &kind};
    size_t which;
    sdlora_kernel *k;
    uint64_t scratch;
    for (int i = 0; i < N; i++)
        x[i] = (float)(i - N / 2) * (24.0f / N) + 1e-5f;
    x[0] = NAN;
    if (slr_devices_prepare(d, &op, &which, &k, &scratch) < 0)
        return 1;
    const sdlora_backend *be = slr_devices_backend(d, which);
    sdlora_arg args[] = {{(sdlora_mem *)(void *)x, 0}, {(sdlora_mem *)(void *)y, 0}};
    be->launch(slr_devices_queue(d, which), k, args, 2, (sdlora_arg){0});
    be->kernel_free(k);
    double rel = 0, abs = 0, worst = 0;
    for (int i = 1; i < N; i++) {
        double want = slr_ref_act(v->kind, x[i]), off = fabs(y[i] - want);
        double room = v->rel * fabs(want) + v->abs * fmax(1, fabs(x[i]));
        rel = fmax(rel, off == 0 ? 0 : off / fabs(want));
        abs = fmax(abs, off / fmax(1, fabs(x[i])));
        worst = fmax(worst, off == 0 ? 0 : off / room);
    }
    bool good = worst <= 1 && isnan(y[0]);
    printf("%s %s, %s: relative %.3g, absolute %.3g max(1,|x|), %.2f of the bound%s\n",
           good ? "ok  " : "FAIL", v->name, mask, rel, abs, worst,
           isnan(y[0]) ? "" : "; a NaN was lost");
    return !good;
}

/* The same of bf16, values and slopes at all of its numbers in [-12,12]: what goes beyond half a
 * unit in the last place, as a share of max(|y|, 1), is what act.h promises. */
static int check_curve_bf16(slr_devices *d, const struct curve *v, bool back, const char *mask)
{
    enum { N = 1 << 16 };
    static uint16_t x[N], one[N], y[N];
    const double limit = 1e-4;
    sdlora_tdesc t[2] = {{SDLORA_BF16, 1, {N}, {1}}, {SDLORA_BF16, 1, {N}, {1}}};
    int64_t kind = v->kind;
    sdlora_opdesc op = {.struct_size = sizeof op,
                        .op = back ? SDLORA_OP_ACT_BX : SDLORA_OP_ACT,
                        .n_in = back ? 2 : 1,
                        .n_out = 1,
                        .n_int = 1,
                        .in = t,
                        .out = t,
                        .ints = &kind};
    size_t which;
    sdlora_kernel *k;
    uint64_t scratch;
    for (int i = 0; i < N; i++) {
        one[i] = slr_f32_to_bf16(1);
        x[i] = fabsf(slr_bf16_to_f32((uint16_t)i)) <= 12 ? (uint16_t)i : 0;
    }
    if (slr_devices_prepare(d, &op, &which, &k, &scratch) < 0)
        return 1;
    const sdlora_backend *be = slr_devices_backend(d, which);
    sdlora_arg args[3] = {{(sdlora_mem *)(void *)(back ? one : x), 0},
                          {(sdlora_mem *)(void *)(back ? x : y), 0},
                          {(sdlora_mem *)(void *)y, 0}};
    be->launch(slr_devices_queue(d, which), k, args, back ? 3 : 2, (sdlora_arg){0});
    be->kernel_free(k);
    double worst = 0;
    for (int i = 0; i < N; i++) {
        double at = slr_bf16_to_f32(x[i]), got = slr_bf16_to_f32(y[i]);
        double want = back ? slr_ref_act_slope(v->kind, at) : slr_ref_act(v->kind, at);
        double over = fabs(got - want) - half_ulp(SDLORA_BF16, want);
        worst = fmax(worst, isnan(got) ? INFINITY : over / fmax(fabs(want), 1));
    }
    printf("%s %s%s in bf16, %s: %.3g beyond half a place\n", worst <= limit ? "ok  " : "FAIL",
           v->name, back ? " slope" : "", mask, worst);
    return worst > limit;
}

int check_curves(const char *mask)
{
    if (!has_isa(mask))
        return -1;
    int bad = 0;
    slr_devices *d = open_devices(mask, 1);
    for (size_t i = 0; i < sizeof curves / sizeof *curves; i++)
        bad += check_curve(d, &curves[i], mask) + check_curve_bf16(d, &curves[i], false, mask) +
               check_curve_bf16(d, &curves[i], true, mask);
    slr_devices_unref(d);
    return bad;
}

/* --- bench */

static double seconds_of(const bound *b)
{
    double best = INFINITY, start = slr_clock();
    for (int i = 0; i < 3 || slr_clock() - start < 0.3; i++) {
        double t = slr_clock();
        bound_launch(b);
        best = fmin(best, slr_clock() - t);
    }
    return best;
}

int check_bench(const char *mask, const char *filter, int threads, bool bf16)
{
    slr_devices *d = open_devices(mask, threads);
    for (const check_case *from = check_cases; from->op; from++) {
        check_call c;
        bound b;
        if (from->refuse || (filter ? !strstr(check_op_of(from->op)->name, filter) : !from->big))
            continue;
        check_call_init(&c, from, bf16);
        if (bound_init(&b, &c, d) < 0) {
            printf("%-14s %s: %s\n", c.info->name, from->in, sdlora_last_error()->message);
        } else {
            bound_fill(&b, &c);
            double s = seconds_of(&b), bytes = 0;
            for (uint32_t x = 0; x < b.n; x++)
                bytes += (double)b.mem[x].bytes;
            double rate = c.info->flops ? c.info->flops(&c.desc) : bytes;
            printf("%-14s %10.2f us %8.2f %s  %s -> %s\n", c.info->name, s * 1e6, rate / s * 1e-9,
                   c.info->flops ? "GFLOP/s" : "GB/s   ", from->in, from->out);
        }
        bound_free(&b);
        check_call_free(&c);
    }
    slr_devices_unref(d);
    return 0;
}
