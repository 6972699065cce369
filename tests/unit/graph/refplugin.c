/* SPDX-License-Identifier: MIT */
/* A backend plugin over the slow obvious operations of backend/cpu/ref.h: what plans are tested on.
 * Takes every floating type and any strides, computes in double, and links against nothing of the
 * library, so it also shows that the plugin border suffices.  Tests turn its knobs to make it
 * decline, fail and cancel. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/ref.h"
#include "refplugin.h"

SDLORA_API refplugin_knobs refplugin;

struct sdlora_dev {
    const sdlora_host *host;
};

struct sdlora_queue {
    sdlora_dev *dev;
};

enum { MAX_OPERANDS = 64 };

struct sdlora_kernel {
    sdlora_dev *dev;
    sdlora_opdesc op;
    sdlora_tdesc desc[MAX_OPERANDS]; /* inputs, then outputs */
    int64_t ints[16];
    double reals[8];
    double *frozen[MAX_OPERANDS];
};

static int dev_count(const sdlora_host *host)
{
    (void)host;
    return 1;
}

static int dev_open(sdlora_dev **out, const sdlora_host *host, int index)
{
    (void)index;
    *out = calloc(1, sizeof **out);
    if (!*out)
        return host->fail(host->self, SDLORA_ENOMEM, "ref: out of memory");
    (*out)->host = host;
    return SDLORA_OK;
}

static void dev_close(sdlora_dev *dev)
{
    free(dev);
}

static int dev_info(sdlora_dev *dev, sdlora_dev_info *info)
{
    (void)dev;
    info->flags = SDLORA_DEV_HOST_MEMORY;
    info->mem_align = 64;
    memcpy(info->name, "reference", 10);
    return SDLORA_OK;
}

static int queue_new(sdlora_queue **out, sdlora_dev *dev)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return dev->host->fail(dev->host->self, SDLORA_ENOMEM, "ref: out of memory");
    (*out)->dev = dev;
    return SDLORA_OK;
}

static void queue_free(sdlora_queue *q)
{
    free(q);
}

static int upload(sdlora_queue *q, sdlora_arg dst, const void *src, uint64_t bytes)
{
    (void)q;
    memcpy((char *)(void *)dst.mem + dst.offset, src, bytes);
    return SDLORA_OK;
}

static int download(sdlora_queue *q, void *dst, sdlora_arg src, uint64_t bytes)
{
    (void)q;
    memcpy(dst, (char *)(void *)src.mem + src.offset, bytes);
    return SDLORA_OK;
}

static int wait_all(sdlora_queue *q)
{
    (void)q;
    return SDLORA_OK;
}

/* --- operands as doubles */

static double get(uint32_t dtype, const void *p, int64_t i)
{
    uint32_t bits;
    float f;
    switch (dtype) {
    case SDLORA_F64:
        return ((const double *)p)[i];
    case SDLORA_I32:
        return ((const int32_t *)p)[i];
    case SDLORA_BF16:
        bits = (uint32_t)((const uint16_t *)p)[i] << 16;
        memcpy(&f, &bits, sizeof f);
        return f;
    default:
        return ((const float *)p)[i];
    }
}

static void put(uint32_t dtype, void *p, int64_t i, double v)
{
    float f = (float)v;
    uint32_t bits;
    switch (dtype) {
    case SDLORA_F64:
        ((double *)p)[i] = v;
        return;
    case SDLORA_I32:
        ((int32_t *)p)[i] = (int32_t)v;
        return;
    case SDLORA_BF16:
        memcpy(&bits, &f, sizeof bits);
        bits += 0x7fff + (bits >> 16 & 1);
        ((uint16_t *)p)[i] = (uint16_t)(bits >> 16);
        return;
    default:
        ((float *)p)[i] = f;
    }
}

/* Index by strides of element i in row-major order. */
static int64_t at(const sdlora_tdesc *t, int64_t i)
{
    int64_t where = 0;
    for (uint32_t a = t->rank; a-- > 0;) {
        where += i % t->dim[a] * t->stride[a];
        i /= t->dim[a];
    }
    return where;
}

static double *gather(const sdlora_tdesc *t, const void *data)
{
    int64_t n = slr_ref_count(t);
    double *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; x && i < n; i++)
        x[i] = get(t->dtype, data, at(t, i));
    return x;
}

/* --- kernels */

static void kernel_free(sdlora_kernel *k)
{
    for (uint32_t i = 0; k && i < MAX_OPERANDS; i++)
        free(k->frozen[i]);
    free(k);
}

static bool dense(const sdlora_tdesc *t)
{
    return at(t, slr_ref_count(t) - 1) == slr_ref_count(t) - 1;
}

static int prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev, const sdlora_opdesc *op)
{
    *out = NULL;
    *scratch = 256;
    refplugin.prepares++;
    if (op->op == refplugin.decline_op)
        return dev->host->fail(dev->host->self, SDLORA_ENOTSUP, "told to decline");
    if (op->n_in + op->n_out > MAX_OPERANDS || op->n_int > 16 || op->n_real > 8)
        return dev->host->fail(dev->host->self, SDLORA_ENOTSUP, "too many operands");
    for (uint32_t i = 0; i < op->n_in; i++)
        if (refplugin.dense_only && op->in[i].dtype && !dense(&op->in[i]))
            return dev->host->fail(dev->host->self, SDLORA_ENOTSUP, "dense operands only");
    sdlora_kernel *k = calloc(1, sizeof *k);
    if (!k)
        return dev->host->fail(dev->host->self, SDLORA_ENOMEM, "ref: out of memory");
    k->dev = dev;
    k->op = *op;
    memcpy(k->desc, op->in, op->n_in * sizeof *op->in);
    memcpy(k->desc + op->n_in, op->out, op->n_out * sizeof *op->out);
    if (op->n_int)
        memcpy(k->ints, op->ints, op->n_int * sizeof *op->ints);
    if (op->n_real)
        memcpy(k->reals, op->reals, op->n_real * sizeof *op->reals);
    k->op.in = k->desc;
    k->op.out = k->desc + op->n_in;
    k->op.ints = k->ints;
    k->op.reals = k->reals;
    for (uint32_t i = 0; op->consts && i < op->n_in; i++)
        if (op->consts[i].data)
            k->frozen[i] = gather(&op->in[i], op->consts[i].data);
    k->op.consts = NULL;
    *out = k;
    return SDLORA_OK;
}

/* Contracts that a wrong plan would break: an absent operand has no memory, all others have. */
static bool operands_fit(const sdlora_kernel *k, const sdlora_arg *args, uint32_t n)
{
    bool fits = n == k->op.n_in + k->op.n_out;
    for (uint32_t i = 0; fits && i < n; i++) {
        bool wanted = k->desc[i].dtype && !k->frozen[i];
        fits = wanted ? args[i].mem && (args[i].offset + (uintptr_t)args[i].mem) % 64 == 0
                      : !args[i].mem;
    }
    return fits;
}

static int run(const sdlora_kernel *k, const sdlora_arg *args)
{
    double *x[MAX_OPERANDS] = {0};
    uint32_t n_in = k->op.n_in, n = n_in + k->op.n_out;
    for (uint32_t i = 0; i < n; i++)
        if (k->desc[i].dtype && !k->frozen[i])
            x[i] = i < n_in ? gather(&k->desc[i], (char *)(void *)args[i].mem + args[i].offset)
                            : calloc((size_t)slr_ref_count(&k->desc[i]), sizeof(double));
    const double *in[MAX_OPERANDS];
    for (uint32_t i = 0; i < n_in; i++)
        in[i] = k->frozen[i] ? k->frozen[i] : x[i];
    slr_ref_call call = {.op = &k->op, .in = in, .out = x + n_in};
    int rc = slr_ref_run(&call);
    for (uint32_t i = n_in; i < n; i++)
        for (int64_t e = 0; e < slr_ref_count(&k->desc[i]); e++)
            put(k->desc[i].dtype, (char *)(void *)args[i].mem + args[i].offset, at(&k->desc[i], e),
                x[i][e]);
    for (uint32_t i = 0; i < n; i++)
        free(x[i]);
    return rc;
}

static int launch(sdlora_queue *q, sdlora_kernel *k, const sdlora_arg *args, uint32_t n,
                  sdlora_arg scratch)
{
    const sdlora_host *host = q->dev->host;
    if (refplugin.idle)
        return SDLORA_OK;
    refplugin.launches++;
    if (refplugin.cancel && refplugin.launches == refplugin.cancel_at)
        atomic_store((_Atomic int *)refplugin.cancel, 1);
    if (k->op.op == refplugin.fail_op)
        return refplugin.fail_silently ? SDLORA_EBACKEND
                                       : host->fail(host->self, SDLORA_EBACKEND, "told to fail");
    if (!scratch.mem || ((uintptr_t)scratch.mem + scratch.offset) % 64)
        return host->fail(host->self, SDLORA_EBACKEND, "scratch is missing or not aligned");
    if (!operands_fit(k, args, n))
        return host->fail(host->self, SDLORA_EBACKEND, "operands do not fit the descriptor");
    memset((void *)scratch.mem, 0xff, 256);
    int rc = run(k, args);
    return rc < 0 ? host->fail(host->self, rc, "the reference has no such operation") : rc;
}

static const sdlora_backend backend = {
    .struct_size = sizeof(sdlora_backend),
    .abi = SDLORA_BACKEND_ABI,
    .name = "ref",
    .dev_count = dev_count,
    .dev_open = dev_open,
    .dev_close = dev_close,
    .dev_info = dev_info,
    .queue_new = queue_new,
    .queue_free = queue_free,
    .upload = upload,
    .download = download,
    .wait = wait_all,
    .prepare = prepare,
    .launch = launch,
    .kernel_free = kernel_free,
};

SDLORA_API int sdlora_backend_entry(const sdlora_host *host, const sdlora_backend **out);
int sdlora_backend_entry(const sdlora_host *host, const sdlora_backend **out)
{
    *out = NULL;
    if (host->abi != SDLORA_BACKEND_ABI)
        return SDLORA_EVERSION;
    *out = &backend;
    return SDLORA_OK;
}
