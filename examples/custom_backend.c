/* SPDX-License-Identifier: MIT */
/* A backend plugin that does one operation, ADD of two f32 tensors of one shape; the built-in
 * backend does what it declines.  It sees sdlora/backend.h and links nothing of ours:
 *     gcc -shared -fPIC -o sdlora-adder.so custom_backend.c  &&  open -p .
 * Device and queue have nothing of their own and stand for the host, a kernel for its length. */
#include <sdlora/backend.h>

static int dev_count(const sdlora_host *host)
{
    return host->abi == SDLORA_BACKEND_ABI;
}
static int dev_open(sdlora_dev **out, const sdlora_host *host, int index)
{
    *out = (sdlora_dev *)(uintptr_t)host;
    return index == 0 ? SDLORA_OK : SDLORA_ENOTFOUND;
}
static void dev_close(sdlora_dev *dev)
{
}
static int dev_info(sdlora_dev *dev, sdlora_dev_info *info)
{
    info->flags = SDLORA_DEV_HOST_MEMORY; /* works on the core's own buffers: no copies */
    info->dtypes = 1u << SDLORA_F32;
    info->maths = 1u << SDLORA_MATH_STRICT;
    info->name[0] = '+', info->name[1] = 0;
    return SDLORA_OK;
}
static int queue_new(sdlora_queue **out, sdlora_dev *dev)
{
    *out = (sdlora_queue *)dev;
    return SDLORA_OK;
}
static void queue_free(sdlora_queue *q)
{
}
static int prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev, const sdlora_opdesc *op)
{
    const sdlora_host *host = (const sdlora_host *)dev;
    const sdlora_tdesc *a = op->in, *b = op->in + 1;
    int64_t n = 1;
    int ours = op->op == SDLORA_OP_ADD && a->dtype == SDLORA_F32 && b->dtype == SDLORA_F32;
    for (uint32_t axis = 0; ours && axis < a->rank; n *= a->dim[axis++]) /* dense by contract */
        ours = a->rank == b->rank && a->dim[axis] == b->dim[axis];
    for (uint32_t i = 0; ours && op->consts && i < 2; i++)
        ours = !op->consts[i].data; /* a frozen input comes here, not with the launch */
    if (!ours)
        return host->fail(host->self, SDLORA_ENOTSUP, "only ADD of two f32 tensors of one shape");
    *scratch = 0;
    *out = (sdlora_kernel *)(uintptr_t)n;
    return SDLORA_OK;
}
static void kernel_free(sdlora_kernel *k)
{
}
static void add(void *arg, int64_t lo, int64_t hi)
{
    float *const *p = arg;
    for (int64_t i = lo; i < hi; i++)
        p[2][i] = p[0][i] + p[1][i];
}
static int launch(sdlora_queue *q, sdlora_kernel *k, const sdlora_arg *args, uint32_t n,
                  sdlora_arg scratch)
{
    const sdlora_host *host = (const sdlora_host *)q;
    float *p[3];
    for (uint32_t i = 0; i < 3 && i < n; i++)
        p[i] = (float *)((char *)args[i].mem + args[i].offset);
    host->parallel(host->self, (int64_t)(uintptr_t)k, 4096, add, p);
    return SDLORA_OK;
}
static const sdlora_backend adder = {
    sizeof adder, SDLORA_BACKEND_ABI, "adder",    dev_count, dev_open, dev_close, dev_info, NULL,
    NULL,         queue_new,          queue_free, NULL,      NULL,     NULL,      prepare,  launch,
    kernel_free};
SDLORA_API sdlora_backend_entry_fn sdlora_backend_entry;
int sdlora_backend_entry(const sdlora_host *host, const sdlora_backend **out)
{
    *out = &adder;
    return SDLORA_OK;
}
