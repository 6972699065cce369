/* SPDX-License-Identifier: MIT */
/* A backend that takes nothing: the smallest whole plugin, and a proof that the table can be filled
 * from outside.  It counts what it is asked and says so in its reason.  Knows backend.h and nothing
 * else. */
#include <sdlora/backend.h>

struct sdlora_dev {
    const sdlora_host *host;
    uint64_t asked; /* operations declined so far */
};

struct sdlora_queue {
    sdlora_dev *dev;
};

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
    **out = (sdlora_dev){.host = host};
    return SDLORA_OK;
}

static void dev_close(sdlora_dev *dev)
{
    dev->host->free(dev->host->self, dev);
}

static int dev_info(sdlora_dev *dev, sdlora_dev_info *info)
{
    static const char name[] = "takes nothing";
    (void)dev;
    info->flags = SDLORA_DEV_HOST_MEMORY;
    info->mem_total = info->mem_free = info->max_alloc = 0;
    info->mem_align = 64;
    info->dtypes = info->maths = 0;
    for (unsigned i = 0; i < sizeof name; i++)
        info->name[i] = name[i];
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

static int upload(sdlora_queue *q, sdlora_arg dst, const void *src, uint64_t bytes)
{
    (void)dst, (void)src, (void)bytes;
    return q->dev->host->fail(q->dev->host->self, SDLORA_ENOTSUP, "null: holds no memory");
}

static int download(sdlora_queue *q, void *dst, sdlora_arg src, uint64_t bytes)
{
    (void)dst, (void)src, (void)bytes;
    return q->dev->host->fail(q->dev->host->self, SDLORA_ENOTSUP, "null: holds no memory");
}

static int wait_all(sdlora_queue *q)
{
    (void)q;
    return SDLORA_OK;
}

/* "takes nothing (42 asked)" without stdio, which a plugin need not link. */
static void reason(char out[64], uint64_t asked)
{
    char digits[20];
    int n = 0, at = 0;
    do
        digits[n++] = (char)('0' + asked % 10);
    while (asked /= 10);
    for (const char *p = "takes nothing ("; *p; p++)
        out[at++] = *p;
    while (n)
        out[at++] = digits[--n];
    for (const char *p = " asked)"; *p; p++)
        out[at++] = *p;
    out[at] = 0;
}

static int prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev, const sdlora_opdesc *op)
{
    char text[64];
    (void)op;
    *out = NULL;
    *scratch = 0;
    reason(text, ++dev->asked);
    return dev->host->fail(dev->host->self, SDLORA_ENOTSUP, text);
}

static int launch(sdlora_queue *q, sdlora_kernel *k, const sdlora_arg *args, uint32_t n,
                  sdlora_arg scratch)
{
    (void)k, (void)args, (void)n, (void)scratch;
    return q->dev->host->fail(q->dev->host->self, SDLORA_EINVAL, "null: made no kernel to launch");
}

static void kernel_free(sdlora_kernel *k)
{
    (void)k; /* there is none */
}

static const sdlora_backend null_backend = {
    .struct_size = sizeof(sdlora_backend),
    .abi = SDLORA_BACKEND_ABI,
    .name = "null",
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
    *out = &null_backend;
    return SDLORA_OK;
}
