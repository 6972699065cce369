/* SPDX-License-Identifier: MIT */
/* The oneDNN backend: its table of functions and its device.  Takes what the files of rows.def
 * take, on the core's own memory, at once.  Refuses to know how an operation is computed and how
 * work is handed to threads.  The library is only ever called for one piece on one thread, and
 * pieces depend on shapes alone, so bytes do not depend on the number of threads. */
#include "common.h"

#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ARGS = 64, MAX_SLOTS = 256, TURN_NS = 50000000 /* between looks at the flag */ };

struct sdlora_queue {
    sdlora_dev *dev;
};

static const dn_row *const tables[] = {
#define DN_ROWS(file) dn_rows_##file,
#include "rows.def"
#undef DN_ROWS
    NULL,
};

/* --- what operations are lent --- */

int dn_fail(const sdlora_dev *dev, int code, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return dev->host->fail(dev->host->self, code, text);
}

int dn_fail_dnnl(const sdlora_dev *dev, dnnl_status_t status, const char *what)
{
    if (status == dnnl_out_of_memory)
        return dn_fail(dev, SDLORA_ENOMEM, "%s: oneDNN found no memory", what);
    if (status == dnnl_unimplemented || status == dnnl_invalid_arguments)
        return dn_fail(dev, SDLORA_ENOTSUP, "%s: oneDNN has no primitive for it (%d)", what,
                       (int)status);
    return dn_fail(dev, SDLORA_EBACKEND, "%s: oneDNN failed (%d)", what, (int)status);
}

void *dn_alloc(const sdlora_dev *dev, size_t bytes)
{
    void *p = dev->host->alloc(dev->host->self, bytes ? bytes : 1, 64);
    return p ? memset(p, 0, bytes) : NULL;
}

void dn_free(const sdlora_dev *dev, void *p)
{
    if (p)
        dev->host->free(dev->host->self, p);
}

int dn_one_thread(void)
{
    int team = omp_get_max_threads();
    if (team > 1)
        omp_set_num_threads(1); /* this thread's own setting: other threads keep theirs */
    return team;
}

void dn_restore_threads(int team)
{
    if (team > 1)
        omp_set_num_threads(team);
}

void *dn_kernel_new(sdlora_dev *dev, size_t bytes,
                    int (*launch)(sdlora_kernel *, void *const *, void *),
                    void (*release)(sdlora_kernel *))
{
    sdlora_kernel *k = dn_alloc(dev, bytes);
    if (!k)
        return NULL;
    k->dev = dev;
    k->launch = launch;
    k->free = release;
    return k;
}

void dn_kernel_free(sdlora_kernel *k)
{
    if (!k)
        return;
    if (k->free)
        k->free(k);
    dn_free(k->dev, k);
}

/* --- the device --- */

static int dev_count(const sdlora_host *host)
{
    (void)host;
    return 1;
}

/* oneDNN picks instruction sets for the whole process, once.  A narrower set than the process has
 * already used can not be had any more. */
static bool limit_isa(uint64_t features)
{
    if (features & DN_CPU_AMX_BF16)
        return true; /* the widest: whatever the process uses is allowed */
    const dnnl_cpu_isa_t want =
        features & DN_CPU_AVX512_BF16 ? dnnl_cpu_isa_avx512_core_bf16 : dnnl_cpu_isa_avx512_core;
    if (dnnl_set_max_cpu_isa(want) == dnnl_success)
        return true;
    /* sets are bit masks, wider ones hold more */
    return (dnnl_get_effective_cpu_isa() & ~want) == 0;
}

static void choose_activity(sdlora_dev *dev)
{
    dev->features = dev->host->cpu_features;
    dev->bf16 = dev->features & (DN_CPU_AVX512_BF16 | DN_CPU_AMX_BF16);
    if (!(dev->features & DN_CPU_AVX512))
        dev->off = "off: needs AVX-512";
    else if (!limit_isa(dev->features))
        dev->off = "off: the process uses a wider set";
    else
        dev->active = true;
}

static void dev_close(sdlora_dev *dev)
{
    if (!dev)
        return;
    if (dev->stream)
        dnnl_stream_destroy(dev->stream);
    if (dev->engine)
        dnnl_engine_destroy(dev->engine);
    pthread_mutex_destroy(&dev->turns);
    pthread_mutex_destroy(&dev->lock);
    dn_free(dev, dev);
}

static int open_library(sdlora_dev *dev)
{
    dnnl_status_t s = dnnl_engine_create(&dev->engine, dnnl_cpu, 0);
    if (s == dnnl_success)
        s = dnnl_stream_create(&dev->stream, dev->engine, dnnl_stream_default_flags);
    return s == dnnl_success ? SDLORA_OK : dn_fail_dnnl(dev, s, "the CPU engine");
}

static int dev_open(sdlora_dev **out, const sdlora_host *host, int index)
{
    *out = NULL;
    if (index != 0)
        return host->fail(host->self, SDLORA_ENOTFOUND, "onednn: there is one device, number 0");
    sdlora_dev *dev = host->alloc(host->self, sizeof *dev, 64);
    if (!dev)
        return SDLORA_ENOMEM;
    const int threads = host->threads(host->self);
    *dev = (sdlora_dev){.host = host,
                        .slots = threads < 1           ? 1
                                 : threads > MAX_SLOTS ? MAX_SLOTS
                                                       : threads};
    pthread_mutex_init(&dev->lock, NULL);
    pthread_mutex_init(&dev->turns, NULL);
    choose_activity(dev);
    int rc = dev->active ? open_library(dev) : SDLORA_OK;
    if (rc < 0) {
        dev_close(dev);
        return rc;
    }
    *out = dev;
    return SDLORA_OK;
}

static int dev_info(sdlora_dev *dev, sdlora_dev_info *info)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t f32 = UINT64_C(1) << SDLORA_F32, bf16 = UINT64_C(1) << SDLORA_BF16;
    sdlora_dev_info all = {
        .struct_size = info->struct_size,
        .flags = SDLORA_DEV_HOST_MEMORY,
        .mem_total = (uint64_t)sysconf(_SC_PHYS_PAGES) * page,
        .mem_free = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * page,
        .mem_align = 64,
        .max_alloc = UINT64_MAX,
        .dtypes = !dev->active ? 0
                  : dev->bf16  ? f32 | bf16
                               : f32,
        .maths = !dev->active ? 0
                 : dev->bf16  ? UINT64_C(1) << SDLORA_MATH_STRICT | UINT64_C(1) << SDLORA_MATH_BF16
                              : UINT64_C(1) << SDLORA_MATH_STRICT,
    };
    const dnnl_version_t *v = dnnl_version();
    snprintf(all.name, sizeof all.name, "oneDNN %d.%d.%d (%s)", v->major, v->minor, v->patch,
             dev->off                             ? dev->off
             : dev->features & DN_CPU_AMX_BF16    ? "AMX"
             : dev->features & DN_CPU_AVX512_BF16 ? "AVX-512, bf16"
                                                  : "AVX-512");
    memcpy(info, &all, info->struct_size < sizeof all ? info->struct_size : sizeof all);
    return SDLORA_OK;
}

/* --- the queue: everything has happened when a call returns --- */

static int queue_new(sdlora_queue **out, sdlora_dev *dev)
{
    *out = dn_alloc(dev, sizeof **out);
    if (!*out)
        return SDLORA_ENOMEM;
    (*out)->dev = dev;
    return SDLORA_OK;
}

static void queue_free(sdlora_queue *q)
{
    if (q)
        dn_free(q->dev, q);
}

static void *address(sdlora_arg arg)
{
    return arg.mem ? (char *)(void *)arg.mem + arg.offset : NULL;
}

static int upload(sdlora_queue *q, sdlora_arg dst, const void *src, uint64_t bytes)
{
    (void)q;
    memmove(address(dst), src, bytes);
    return SDLORA_OK;
}

static int download(sdlora_queue *q, void *dst, sdlora_arg src, uint64_t bytes)
{
    (void)q;
    memmove(dst, address(src), bytes);
    return SDLORA_OK;
}

static int wait_all(sdlora_queue *q)
{
    (void)q;
    return SDLORA_OK;
}

/* --- kernels --- */

/* Asks one row.  A failure leaves nothing behind. */
static int ask_row(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev, const dn_row *row,
                   const sdlora_opdesc *op)
{
    *out = NULL;
    *scratch = 0;
    const int team = dn_one_thread();
    int rc = row->prepare(out, scratch, dev, op);
    dn_restore_threads(team);
    if (rc < 0) {
        dn_kernel_free(*out);
        *out = NULL;
        return rc;
    }
    (*out)->n_in = op->n_in;
    (*out)->n_args = op->n_in + op->n_out;
    return SDLORA_OK;
}

static int prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev, const sdlora_opdesc *op)
{
    *out = NULL;
    *scratch = 0;
    if (!dev->active)
        return dn_fail(dev, SDLORA_ENOTSUP, "oneDNN is %s", dev->off);
    if (op->n_in + op->n_out > MAX_ARGS)
        return dn_fail(dev, SDLORA_ENOTSUP, "an operation with %u operands; %d is the most",
                       (unsigned)(op->n_in + op->n_out), (int)MAX_ARGS);
    int rc = dn_fail(dev, SDLORA_ENOTSUP, "there is no kernel for operation %u", (unsigned)op->op);
    for (size_t i = 0; tables[i]; i++)
        for (const dn_row *row = tables[i]; row->op; row++) {
            if (row->op != op->op)
                continue;
            rc = ask_row(out, scratch, dev, row, op);
            if (rc != SDLORA_ENOTSUP)
                return rc;
        }
    return rc;
}

/* Waits while other plans' kernels run, unless this one's job is over meanwhile: then false. */
static bool take_turn(sdlora_dev *dev)
{
    struct timespec at;
    if (!SDLORA_HOST_HAS(dev->host, canceled))
        return pthread_mutex_lock(&dev->turns) == 0;
    do {
        if (dn_canceled(dev))
            return false;
        clock_gettime(CLOCK_REALTIME, &at);
        at.tv_nsec += TURN_NS;
        at.tv_sec += at.tv_nsec / 1000000000;
        at.tv_nsec %= 1000000000;
    } while (pthread_mutex_timedlock(&dev->turns, &at) != 0);
    return true;
}

static int launch(sdlora_queue *q, sdlora_kernel *k, const sdlora_arg *args, uint32_t n,
                  sdlora_arg scratch)
{
    void *ptr[MAX_ARGS];
    if (n != k->n_args)
        return dn_fail(q->dev, SDLORA_EINVAL, "a kernel of %u operands was launched with %u",
                       (unsigned)k->n_args, (unsigned)n);
    for (uint32_t i = 0; i < n; i++)
        ptr[i] = address(args[i]);
    if (!take_turn(q->dev))
        return SDLORA_OK; /* the host knows that the job is over */
    int rc = k->launch(k, ptr, address(scratch));
    pthread_mutex_unlock(&q->dev->turns);
    return rc;
}

static const sdlora_backend backend = {
    .struct_size = sizeof(sdlora_backend),
    .abi = SDLORA_BACKEND_ABI,
    .name = "onednn",
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
    .kernel_free = dn_kernel_free,
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
