/* SPDX-License-Identifier: MIT */
/* The built-in backend: the vtable that plugins fill too, over the operation files of rows.def.
 * Works on the core's own memory, at once and on the calling thread plus the lent pool.  Refuses to
 * know how an operation is computed. */
#include "backend/cpu/cpu.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "backend/builtin.h"
#include "backend/cpu/pack.h"
#include "base/cpu.h"
#include "base/status.h"

enum { MAX_ARGS = 64, MAX_SLOTS = 256 };

struct sdlora_dev {
    slr_cpu_env env;
};

struct sdlora_queue {
    sdlora_dev *dev;
};

static const slr_cpu_row *const tables[] = {
#define SLR_CPU_ROWS(file) slr_cpu_rows_##file,
#include "backend/cpu/rows.def"
#undef SLR_CPU_ROWS
};

/* --- the environment of operations --- */

enum { MAX_RANGES = 64, LINE = 64 };

/* Pieces that one slot begins with; others come when theirs are done. */
typedef struct spread_range {
    _Atomic int64_t next;
    int64_t end;
    char far[LINE - 2 * sizeof(int64_t)]; /* neighbours do not wait for each other's cache line */
} spread_range;

typedef struct spread_job {
    spread_range *ranges;
    int64_t n_ranges;
    void (*body)(void *arg, int64_t piece, int slot);
    void *arg;
    const sdlora_host *host;
} spread_job;

static void spread_range_of(const spread_job *job, int64_t range, int64_t slot)
{
    spread_range *r = &job->ranges[range % job->n_ranges];
    for (;;) {
        const int64_t piece = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (piece >= r->end || job->host->canceled(job->host->self))
            return;
        job->body(job->arg, piece, (int)slot);
    }
}

static void spread_slots(void *arg, int64_t lo, int64_t hi)
{
    const spread_job *job = arg;
    for (int64_t slot = lo; slot < hi; slot++)
        for (int64_t i = 0; i < job->n_ranges; i++)
            spread_range_of(job, slot + i, slot);
}

/* Each slot begins with neighbouring pieces, the same ones whenever there are as many: what it
 * reads is then mostly what it wrote, and two threads seldom write to one cache line.  Who is done
 * takes what is left of the others', so that a busy core does not hold up the rest. */
void slr_cpu_spread(const slr_cpu_env *env, int64_t n,
                    void (*body)(void *arg, int64_t piece, int slot), void *arg)
{
    const int64_t slots = n < env->slots ? n : env->slots;
    spread_range ranges[MAX_RANGES];
    spread_job job = {.ranges = ranges,
                      .n_ranges = slots < MAX_RANGES ? slots : MAX_RANGES,
                      .body = body,
                      .arg = arg,
                      .host = env->host};
    for (int64_t i = 0; i < job.n_ranges; i++) {
        atomic_init(&ranges[i].next, i * n / job.n_ranges);
        ranges[i].end = (i + 1) * n / job.n_ranges;
    }
    slr_cpu_parallel(env, slots, 1, spread_slots, &job);
}

void *slr_cpu_kernel_new(const slr_cpu_env *env, size_t bytes,
                         int (*launch)(sdlora_kernel *, const slr_cpu_env *, void *const *, void *))
{
    sdlora_kernel *k = env->host->alloc(env->host->self, bytes, 64);
    if (!k)
        return NULL;
    memset(k, 0, bytes);
    k->env = env;
    k->launch = launch;
    return k;
}

void slr_cpu_kernel_free(sdlora_kernel *k)
{
    if (!k)
        return;
    const slr_cpu_env *env = k->env;
    if (k->free)
        k->free(k, env);
    for (int i = 0; i < SLR_CPU_MAX_FROZEN; i++)
        slr_cpu_pack_put(env->packs, k->frozen[i]);
    env->host->free(env->host->self, k);
}

/* --- the device --- */

static int dev_count(const sdlora_host *host)
{
    (void)host;
    return 1;
}

static int best_level(uint64_t features)
{
    if (features & SLR_CPU_AVX512)
        return features & SLR_CPU_AVX512_BF16 ? SLR_CPU_LEVEL_AVX512_BF16 : SLR_CPU_LEVEL_AVX512;
    return features & SLR_CPU_AVX2 ? SLR_CPU_LEVEL_AVX2 : SLR_CPU_LEVEL_BASE;
}

static int dev_open(sdlora_dev **out, const sdlora_host *host, int index)
{
    *out = NULL;
    if (index != 0)
        return slr_fail(SDLORA_ENOTFOUND, __func__, "cpu: there is one device, not number %d",
                        index);
    sdlora_dev *dev = host->alloc(host->self, sizeof *dev, 64);
    if (!dev)
        return SDLORA_ENOMEM;
    int threads = host->threads(host->self);
    dev->env = (slr_cpu_env){
        .host = host,
        .level = best_level(host->cpu_features),
        .slots = threads < 1           ? 1
                 : threads > MAX_SLOTS ? MAX_SLOTS
                                       : threads,
    };
    int rc = slr_cpu_packs_new(&dev->env.packs, host);
    if (rc < 0) {
        host->free(host->self, dev);
        return rc;
    }
    *out = dev;
    return SDLORA_OK;
}

static void dev_close(sdlora_dev *dev)
{
    if (!dev)
        return;
    const sdlora_host *host = dev->env.host;
    slr_cpu_packs_free(dev->env.packs);
    host->free(host->self, dev);
}

static int dev_info(sdlora_dev *dev, sdlora_dev_info *info)
{
    static const char *const names[] = {
        [SLR_CPU_LEVEL_BASE] = "CPU (baseline)",
        [SLR_CPU_LEVEL_AVX2] = "CPU (AVX2)",
        [SLR_CPU_LEVEL_AVX512] = "CPU (AVX-512)",
        [SLR_CPU_LEVEL_AVX512_BF16] = "CPU (AVX-512)",
    };
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    sdlora_dev_info all = {
        .struct_size = info->struct_size,
        .flags = SDLORA_DEV_HOST_MEMORY,
        .mem_total = (uint64_t)sysconf(_SC_PHYS_PAGES) * page,
        .mem_free = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * page,
        .mem_align = 64,
        .max_alloc = UINT64_MAX,
        .dtypes = UINT64_C(1) << SDLORA_F32 | UINT64_C(1) << SDLORA_BF16,
        .maths = UINT64_C(1) << SDLORA_MATH_STRICT,
    };
    strncpy(all.name, names[dev->env.level], sizeof all.name - 1);
    memcpy(info, &all, info->struct_size < sizeof all ? info->struct_size : sizeof all);
    return SDLORA_OK;
}

/* --- the queue: everything has happened when a call returns --- */

static int queue_new(sdlora_queue **out, sdlora_dev *dev)
{
    const sdlora_host *host = dev->env.host;
    *out = host->alloc(host->self, sizeof **out, 64);
    if (!*out)
        return SDLORA_ENOMEM;
    (*out)->dev = dev;
    return SDLORA_OK;
}

static void queue_free(sdlora_queue *q)
{
    if (q)
        q->dev->env.host->free(q->dev->env.host->self, q);
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

/* The type that a kernel sees for a frozen input: packs of floats are f32. */
static void as_frozen(sdlora_tdesc *t)
{
    if (t->dtype == SDLORA_F16 || t->dtype == SDLORA_BF16 || t->dtype == SDLORA_F64)
        t->dtype = SDLORA_F32;
    int64_t stride = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        t->stride[i] = stride;
        stride *= t->dim[i];
    }
}

static int freeze_rest(sdlora_kernel *k, const sdlora_opdesc *op)
{
    for (uint32_t i = 0; i < op->n_in; i++)
        if (slr_cpu_is_frozen(op, i) && (i >= SLR_CPU_MAX_FROZEN || !k->frozen[i]))
            SLR_TRY(slr_cpu_freeze(k, op, i, SLR_PACK_PLAIN, 1));
    return SDLORA_OK;
}

/* Asks one row.  A failure leaves nothing behind. */
static int ask_row(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                   const slr_cpu_row *row, const sdlora_opdesc *op)
{
    sdlora_tdesc in[MAX_ARGS];
    sdlora_opdesc seen = *op;
    if (op->consts && !row->own_packs) {
        for (uint32_t i = 0; i < op->n_in; i++) {
            in[i] = op->in[i];
            if (slr_cpu_is_frozen(op, i))
                as_frozen(&in[i]);
        }
        seen.in = in;
    }
    sdlora_kernel *k = NULL;
    *scratch = 0;
    int rc = row->prepare(&k, scratch, env, &seen);
    if (rc >= 0)
        rc = freeze_rest(k, op);
    if (rc < 0) {
        slr_cpu_kernel_free(k);
        return rc;
    }
    k->n_in = op->n_in;
    k->n_args = op->n_in + op->n_out;
    *out = k;
    return SDLORA_OK;
}

static int prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev, const sdlora_opdesc *op)
{
    *out = NULL;
    if (op->n_in + op->n_out > MAX_ARGS)
        return slr_fail(SDLORA_ENOTSUP, __func__, "an operation with %u operands; %d is the most",
                        (unsigned)(op->n_in + op->n_out), (int)MAX_ARGS);
    int rc =
        slr_fail(SDLORA_ENOTSUP, __func__, "there is no kernel for operation %u", (unsigned)op->op);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const slr_cpu_row *row = tables[i]; row->op; row++) {
            if (row->op != op->op)
                continue;
            rc = ask_row(out, scratch, &dev->env, row, op);
            if (rc != SDLORA_ENOTSUP)
                return rc;
        }
    return rc;
}

static int launch(sdlora_queue *q, sdlora_kernel *k, const sdlora_arg *args, uint32_t n,
                  sdlora_arg scratch)
{
    void *ptr[MAX_ARGS];
    if (n != k->n_args)
        return slr_fail(SDLORA_EINVAL, __func__, "a kernel of %u operands was launched with %u",
                        (unsigned)k->n_args, (unsigned)n);
    for (uint32_t i = 0; i < n; i++)
        ptr[i] = address(args[i]);
    for (uint32_t i = 0; i < k->n_in && i < SLR_CPU_MAX_FROZEN; i++)
        if (k->frozen[i])
            ptr[i] = (void *)slr_cpu_pack_data(k->frozen[i]); /* read only, as inputs are */
    return k->launch(k, &q->dev->env, ptr, address(scratch));
}

const sdlora_backend slr_backend_cpu = {
    .struct_size = sizeof(sdlora_backend),
    .abi = SDLORA_BACKEND_ABI,
    .name = "cpu",
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
    .kernel_free = slr_cpu_kernel_free,
};
