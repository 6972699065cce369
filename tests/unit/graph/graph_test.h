/* SPDX-License-Identifier: MIT */
/* What the graph's tests share: cmocka, devices with the reference plugin, random numbers, and an
 * interpreter that runs a graph node by node in f64 without any plan. */
#ifndef TEST_GRAPH_TEST_H
#define TEST_GRAPH_TEST_H

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/status.h"
#include "base/str.h"
#include "graph/exec.h"
#include "graph/node.h"
#include "refplugin.h"

#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        if ((expr) < 0)                                                                            \
            fail_msg("%s: %s", #expr, sdlora_last_error()->message);                               \
    } while (0)
#define assert_message(part)                                                                       \
    do {                                                                                           \
        if (!strstr(sdlora_last_error()->message, part))                                           \
            fail_msg("\"%s\" is not in \"%s\"", part, sdlora_last_error()->message);               \
    } while (0)
#define DIMS(...)                                                                                  \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[])                         \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* --- devices */

/* The plugin lies beside this executable, where Meson puts it. */
static inline void plugin_dir(char out[4096])
{
    ssize_t n = readlink("/proc/self/exe", out, 4000);
    assert_true(n > 0);
    out[n] = 0;
    strcpy(strrchr(out, '/'), "/unit/graph");
}

static inline slr_devices *ref_devices(slr_mem *m)
{
    char dir[4096];
    plugin_dir(dir);
    slr_devices *d = NULL;
    assert_ok(slr_devices_open(
        &d, &(slr_devices_config){.mem = m, .threads = 1, .backend = "ref", .plugin_path = dir}));
    return d;
}

static inline refplugin_knobs *knobs(void)
{
    char path[4120];
    plugin_dir(path);
    strcat(path, "/sdlora-ref.so");
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(so);
    refplugin_knobs *k = dlsym(so, "refplugin");
    assert_non_null(k);
    dlclose(so); /* the registry keeps it open */
    return k;
}

/* --- numbers */

static uint64_t seed_now;

static inline uint64_t random_bits(void)
{
    seed_now = seed_now * 6364136223846793005u + 1442695040888963407u;
    return seed_now >> 33;
}

static inline int random_to(int n)
{
    return (int)(random_bits() % (uint64_t)n);
}

/* Uniform in [-1, 1). */
static inline double random_real(void)
{
    return (double)random_bits() / 1073741824.0 - 1.0;
}

/* A frozen tensor of random f32 numbers; freed by the caller's arena of bytes. */
typedef struct pool {
    void *blocks[4096];
    int n;
} pool;

static inline void pool_free(pool *p)
{
    for (int i = 0; i < p->n; i++)
        free(p->blocks[i]);
    p->n = 0;
}

static inline slr_val random_const(slr_graph *g, pool *p, const char *name, int rank,
                                   const int64_t *dim)
{
    slr_tensor t = {.dtype = SDLORA_F32, .rank = rank, .id = slr_tensor_next_id()};
    for (int i = 0; i < rank; i++)
        t.dim[i] = dim[i];
    int64_t n = slr_tensor_count(&t);
    float *data = malloc((size_t)n * sizeof *data);
    for (int64_t i = 0; i < n; i++)
        data[i] = (float)random_real();
    assert_true(p->n < 4096);
    p->blocks[p->n++] = data;
    t.data = data;
    return slr_const(g, name, &t);
}

/* --- the interpreter */

typedef struct interp {
    const slr_graph *g;
    slr_devices *devices;
    size_t n;     /* values when it was made; the graph may have grown since */
    double **val; /* by value; leaves are filled by the test */
} interp;

static inline int64_t count_of(const slr_graph *g, slr_val v)
{
    return slr_count(&g->vals[v].shape);
}

static inline void interp_free(interp *ip)
{
    for (size_t v = 0; v < ip->n; v++)
        free(ip->val[v]);
    free(ip->val);
}

/* Inputs and parameters get random numbers, constants their contents. */
static inline interp interp_new(const slr_graph *g, slr_devices *devices)
{
    interp ip = {g, devices, g->n_vals, calloc(g->n_vals + 1, sizeof(double *))};
    for (size_t v = 0; v < g->n_vals; v++) {
        const slr_value *x = &g->vals[v];
        int64_t n = count_of(g, (slr_val)v);
        ip.val[v] = aligned_alloc(64, ((size_t)n * sizeof(double) + 63) / 64 * 64);
        if (x->node >= 0)
            continue;
        float *f = calloc((size_t)n, sizeof *f);
        if (x->tensor)
            assert_ok(slr_tensor_to_f32(x->tensor, f));
        for (int64_t i = 0; i < n; i++)
            ip.val[v][i] = x->tensor                      ? (double)f[i]
                           : x->shape.dtype == SDLORA_I32 ? (double)random_to(4)
                                                          : (double)(float)random_real();
        free(f);
    }
    return ip;
}

static inline sdlora_tdesc f64_desc(const slr_shape *s)
{
    sdlora_tdesc t = {.dtype = s->dtype ? SDLORA_F64 : 0, .rank = (uint32_t)s->rank};
    int64_t stride = 1;
    for (int i = s->rank; i-- > 0;) {
        t.dim[i] = s->dim[i];
        t.stride[i] = stride;
        stride *= s->dim[i];
    }
    return t;
}

static inline void interp_node(interp *ip, const slr_node *n)
{
    sdlora_tdesc desc[64] = {0};
    sdlora_arg args[64] = {0};
    int n_out = n->row->n_out;
    for (int i = 0; i < n->n_in + n_out; i++) {
        slr_val v = i < n->n_in ? n->in[i] : n->out + i - n->n_in;
        if (v == SLR_NONE)
            continue;
        desc[i] = f64_desc(&ip->g->vals[v].shape);
        args[i].mem = (sdlora_mem *)(void *)ip->val[v];
    }
    sdlora_opdesc d = {.struct_size = sizeof d,
                       .op = n->row->op,
                       .n_in = (uint32_t)n->n_in,
                       .n_out = (uint32_t)n_out,
                       .n_int = (uint32_t)n->n_int,
                       .n_real = (uint32_t)n->n_real,
                       .in = desc,
                       .out = desc + n->n_in,
                       .ints = n->ints,
                       .reals = n->reals};
    sdlora_kernel *k;
    uint64_t scratch;
    const sdlora_backend *b = slr_devices_backend(ip->devices, 0);
    assert_ok(b->prepare(&k, &scratch, slr_devices_dev(ip->devices, 0), &d));
    _Alignas(64) char space[256];
    sdlora_arg at = {(sdlora_mem *)(void *)space, 0};
    assert_true(scratch <= sizeof space);
    assert_ok(b->launch(slr_devices_queue(ip->devices, 0), k, args, d.n_in + d.n_out, at));
    b->kernel_free(k);
}

static inline void interp_run(interp *ip)
{
    for (size_t i = 0; i < ip->g->n_nodes; i++)
        interp_node(ip, &ip->g->nodes[i]);
}

#endif
