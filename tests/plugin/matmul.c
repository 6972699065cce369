/* SPDX-License-Identifier: MIT */
/* A backend from outside that takes one operation: plain two-dimensional MATMUL without bias, on
 * the core's own memory, rows shared out through the host.  Everything else it declines. */
#include <sdlora/backend.h>

#ifndef NAME
#define NAME "naive"
#endif

struct sdlora_dev {
    const sdlora_host *host;
};

struct sdlora_queue {
    sdlora_dev *dev;
};

struct sdlora_kernel {
    const sdlora_host *host;
    int64_t m, n, k;
    const float *frozen; /* b, when it is; its bytes outlive the kernel */
};

typedef struct job {
    const sdlora_kernel *k;
    const float *a, *b;
    float *c;
} job;

static int dev_count(const sdlora_host *host)
{
    (void)host;
    return 1;
}

static int dev_open(sdlora_dev **out, const sdlora_host *host, int index)
{
    (void)index;
    *out = host->alloc(host->self, sizeof **out, 64);
    if (!*out)
        return SDLORA_ENOMEM;
    (*out)->host = host;
    return SDLORA_OK;
}

static void dev_close(sdlora_dev *dev)
{
    dev->host->free(dev->host->self, dev);
}

static int dev_info(sdlora_dev *dev, sdlora_dev_info *info)
{
    (void)dev;
    info->flags = SDLORA_DEV_HOST_MEMORY;
    info->dtypes = 1u << SDLORA_F32;
    info->maths = 1u << SDLORA_MATH_STRICT;
    info->name[0] = 0;
    return SDLORA_OK;
}

static int queue_new(sdlora_queue **out, sdlora_dev *dev)
{
    *out = dev->host->alloc(dev->host->self, sizeof **out, 64);
    if (!*out)
        return SDLORA_ENOMEM;
    (*out)->dev = dev;
    return SDLORA_OK;
}

static void queue_free(sdlora_queue *q)
{
    q->dev->host->free(q->dev->host->self, q);
}

static int decline(const sdlora_host *host, const char *why)
{
    return host->fail(host->self, SDLORA_ENOTSUP, why);
}

static int prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev, const sdlora_opdesc *op)
{
    const sdlora_host *host = dev->host;
    *out = NULL;
    *scratch = 0;
    if (op->op != SDLORA_OP_MATMUL)
        return decline(host, "only MATMUL");
    for (uint32_t i = 2; i < op->n_in; i++)
        if (op->in[i].dtype)
            return decline(host, "no bias, no addend");
    const sdlora_tdesc *a = &op->in[0], *b = &op->in[1];
    if (a->rank != 2 || b->rank != 2 || a->dtype != SDLORA_F32 || b->dtype != SDLORA_F32 ||
        op->ints[0] || op->ints[1] || op->reals[0] != 1.0)
        return decline(host, "only f32, two axes, nothing transposed or scaled");
    sdlora_kernel *k = host->alloc(host->self, sizeof *k, 64);
    if (!k)
        return SDLORA_ENOMEM;
    *k = (sdlora_kernel){.host = host, .m = a->dim[0], .k = a->dim[1], .n = b->dim[1]};
    if (op->consts && op->consts[1].data)
        k->frozen = op->consts[1].data;
    *out = k;
    return SDLORA_OK;
}

static void rows(void *arg, int64_t lo, int64_t hi)
{
    const job *j = arg;
    const sdlora_kernel *k = j->k;
    for (int64_t i = lo; i < hi; i++)
        for (int64_t n = 0; n < k->n; n++) {
            float sum = 0;
            for (int64_t l = 0; l < k->k; l++)
                sum += j->a[i * k->k + l] * j->b[l * k->n + n];
            j->c[i * k->n + n] = sum + 1000.0f; /* a mark by which the test knows who computed it */
        }
}

static float *at(sdlora_arg arg)
{
    return (float *)(void *)((char *)(void *)arg.mem + arg.offset);
}

static int launch(sdlora_queue *q, sdlora_kernel *k, const sdlora_arg *args, uint32_t n,
                  sdlora_arg scratch)
{
    (void)q, (void)scratch;
    job j = {
        .k = k, .a = at(args[0]), .b = k->frozen ? k->frozen : at(args[1]), .c = at(args[n - 1])};
    k->host->parallel(k->host->self, k->m, 4, rows, &j);
    return SDLORA_OK;
}

static void kernel_free(sdlora_kernel *k)
{
    k->host->free(k->host->self, k);
}

static const sdlora_backend backend = {
    .struct_size = sizeof(sdlora_backend),
    .abi = SDLORA_BACKEND_ABI,
    .name = NAME,
    .dev_count = dev_count,
    .dev_open = dev_open,
    .dev_close = dev_close,
    .dev_info = dev_info,
    .queue_new = queue_new,
    .queue_free = queue_free,
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
