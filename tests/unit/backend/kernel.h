/* SPDX-License-Identifier: MIT */
/* For tests of kernels: devices with a wished thread count and instruction set, and one call that
 * prepares, runs and frees an operation on host memory. */
#ifndef SLR_TEST_KERNEL_H
#define SLR_TEST_KERNEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/registry.h"
#include "base/cpu.h"
#include "base/status.h"
#include "tensor/dtype.h"

static inline slr_devices *test_devices(int threads, const char *cpu)
{
    slr_devices *d = NULL;
    slr_devices_config c = {.threads = threads,
                            .cpu_features = slr_cpu_features() & slr_cpu_mask(cpu),
                            .backend = "cpu"};
    if (slr_devices_open(&d, &c) < 0)
        fail_msg("devices: %s", sdlora_last_error()->message);
    return d;
}

/* A dense descriptor of the given type. */
static inline sdlora_tdesc desc_of(uint32_t dtype, int rank, const int64_t *dim)
{
    sdlora_tdesc t = {.dtype = dtype, .rank = (uint32_t)rank};
    int64_t stride = 1;
    for (int i = rank; i-- > 0;) {
        t.dim[i] = dim[i];
        t.stride[i] = stride;
        stride *= dim[i];
    }
    return t;
}
#define F32_(...)                                                                                  \
    desc_of(SDLORA_F32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                 \
            (int64_t[]){__VA_ARGS__})
#define ABSENT ((sdlora_tdesc){0})

/* One operation at one set of operands: inputs, then outputs. */
typedef struct test_op {
    uint32_t op;
    uint32_t n_in, n_out, n_int, n_real;
    sdlora_tdesc desc[12];
    void *data[12];
    sdlora_const consts[12]; /* data set: frozen */
    int64_t ints[12];
    double reals[4];
} test_op;

static inline sdlora_opdesc opdesc_of(const test_op *t)
{
    return (sdlora_opdesc){.struct_size = sizeof(sdlora_opdesc),
                           .op = t->op,
                           .flags = SDLORA_OPF_DETERMINISTIC,
                           .n_in = t->n_in,
                           .n_out = t->n_out,
                           .n_int = t->n_int,
                           .n_real = t->n_real,
                           .in = t->desc,
                           .out = t->desc + t->n_in,
                           .ints = t->ints,
                           .reals = t->reals,
                           .consts = t->consts};
}

/* Prepares and runs; returns the code of the first failure. */
static inline int run_op(slr_devices *d, const test_op *t)
{
    sdlora_opdesc op = opdesc_of(t);
    size_t which = 0;
    sdlora_kernel *k = NULL;
    uint64_t bytes = 0;
    int rc = slr_devices_prepare(d, &op, &which, &k, &bytes);
    if (rc < 0)
        return rc;
    sdlora_arg args[12] = {{0}};
    for (uint32_t i = 0; i < t->n_in + t->n_out; i++)
        if (!(i < t->n_in && t->consts[i].data))
            args[i].mem = (sdlora_mem *)t->data[i];
    void *scratch = slr_alloc(NULL, bytes ? bytes : 1);
    memset(scratch, 0x7f, bytes); /* large numbers: a kernel must not count on zeros */
    const sdlora_backend *b = slr_devices_backend(d, which);
    rc = b->launch(slr_devices_queue(d, which), k, args, t->n_in + t->n_out,
                   (sdlora_arg){.mem = scratch});
    b->kernel_free(k);
    slr_free(NULL, scratch);
    return rc;
}

static inline void run_ok(slr_devices *d, const test_op *t)
{
    if (run_op(d, t) < 0)
        fail_msg("operation %u: %s", (unsigned)t->op, sdlora_last_error()->message);
}

/* Numbers in [-1,1) from a small generator; the same for the same seed. */
static inline float *numbers(size_t n, uint64_t seed)
{
    float *p = slr_alloc(NULL, (n ? n : 1) * sizeof *p);
    uint64_t s = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        p[i] = (float)(int32_t)(s >> 32) / 2147483648.0f;
    }
    return p;
}

/* Largest difference as a share of `scale`. */
static inline void assert_near(const float *got, const double *want, size_t n, double tolerance,
                               const char *what)
{
    for (size_t i = 0; i < n; i++) {
        double diff = got[i] - want[i];
        if (!(diff <= tolerance && diff >= -tolerance))
            fail_msg("%s: element %zu is %.9g, wanted %.9g (tolerance %.2g)", what, i, got[i],
                     want[i], tolerance);
    }
}

#endif
