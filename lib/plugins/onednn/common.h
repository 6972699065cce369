/* SPDX-License-Identifier: MIT */
/* The contract inside the oneDNN plugin: what a file of operations gives (rows), what it is lent
 * (the device), and the head of its kernels.  Knows sdlora/backend.h and dnnl.h and nothing else of
 * either side. */
#ifndef DN_COMMON_H
#define DN_COMMON_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dnnl.h>
#include <sdlora/backend.h>

/* Bits of sdlora_host.cpu_features. */
enum {
    DN_CPU_AVX2 = 1 << 0,
    DN_CPU_AVX512 = 1 << 1,
    DN_CPU_AVX512_BF16 = 1 << 2,
    DN_CPU_AMX_BF16 = 1 << 3
};

typedef struct dn_pack dn_pack; /* pack.h */
typedef struct dn_exec dn_exec; /* exec.h */

/* --- the device --- */
struct sdlora_dev {
    const sdlora_host *host;
    uint64_t features; /* what the processor has and the user allows */
    bool active;       /* false: everything is declined; `off` says why */
    bool bf16;         /* bf16 products run in hardware */
    const char *off;
    int slots; /* how many pieces of dn_spread() may run at once; fixed per device */
    dnnl_engine_t engine;
    dnnl_stream_t stream;  /* CPU streams hold no state: all threads execute on this one */
    pthread_mutex_t lock;  /* of the two lists: kernels of several plans come and go at once */
    pthread_mutex_t turns; /* held through a launch: memory objects belong to the device */
    dn_exec *execs;
    dn_pack *packs;
};

/* Says why by a sentence of at most 255 bytes; returns code. */
int dn_fail(const sdlora_dev *dev, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for a oneDNN call: status is not dnnl_success. */
int dn_fail_dnnl(const sdlora_dev *dev, dnnl_status_t status, const char *what);

/* Memory of the host, aligned to 64; NULL: ENOMEM was set. */
void *dn_alloc(const sdlora_dev *dev, size_t bytes); /* cleared */
void dn_free(const sdlora_dev *dev, void *p);        /* NULL does nothing */

/* Calls body over [0,n) in pieces of `grain` items.  grain may depend on shapes only. */
static inline void dn_parallel(const sdlora_dev *dev, int64_t n, int64_t grain,
                               void (*body)(void *arg, int64_t lo, int64_t hi), void *arg)
{
    dev->host->parallel(dev->host->self, n, grain, body, arg);
}

/* Is the job that this thread works for over?  What is left undone does not matter then. */
static inline bool dn_canceled(const sdlora_dev *dev)
{
    return SDLORA_HOST_HAS(dev->host, canceled) && dev->host->canceled(dev->host->self);
}

/* Calls body for each of n pieces, in any order and on any thread; `slot` < dev->slots is not used
 * by two pieces at once, so that scratch can be dev->slots blocks.  Which slot must not change a
 * result.  Inside a piece libraries see a team of one thread. */
void dn_spread(const sdlora_dev *dev, int64_t n, void (*body)(void *arg, int64_t piece, int slot),
               void *arg);

/* Primitives are made for one thread, whatever the team of the calling thread is:
 *     int team = dn_one_thread();  ... dnnl_primitive_create ...  dn_restore_threads(team); */
int dn_one_thread(void);
void dn_restore_threads(int team);

/* --- kernels --- */

/* Head of every kernel; an operation puts it first in a struct of its own. */
struct sdlora_kernel {
    sdlora_dev *dev;
    /* ptr: inputs, then outputs, as addresses; NULL for absent and for frozen.  scratch is 64-byte
     * aligned and as big as prepare said. */
    int (*launch)(sdlora_kernel *k, void *const *ptr, void *scratch);
    void (*free)(sdlora_kernel *k); /* frees what the operation added; NULL: nothing was */
    uint32_t n_in, n_args;
};

/* A cleared block of `bytes` (>= sizeof(sdlora_kernel)); NULL: ENOMEM was set. */
void *dn_kernel_new(sdlora_dev *dev, size_t bytes,
                    int (*launch)(sdlora_kernel *, void *const *, void *),
                    void (*free)(sdlora_kernel *));
void dn_kernel_free(sdlora_kernel *k); /* NULL does nothing */

/* prepare checks the descriptor (SDLORA_ENOTSUP with a sentence for what it does not take), makes a
 * kernel by dn_kernel_new() and sets *out at once, so that onednn.c frees it when the rest fails;
 * *scratch is 0 before. */
typedef struct dn_row {
    uint32_t op;
    int (*prepare)(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                   const sdlora_opdesc *op);
} dn_row;

/* One table per file; it ends with op 0. */
#define DN_ROWS(file) extern const dn_row dn_rows_##file[];
#include "rows.def"
#undef DN_ROWS

#define DN_TRY(expr)                                                                               \
    do {                                                                                           \
        int dn_try_rc_ = (expr);                                                                   \
        if (dn_try_rc_ < 0)                                                                        \
            return dn_try_rc_;                                                                     \
    } while (0)

/* --- descriptors --- */
static inline int64_t dn_count(const sdlora_tdesc *t)
{
    int64_t n = 1;
    for (uint32_t i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

static inline int64_t dn_last(const sdlora_tdesc *t)
{
    return t->rank ? t->dim[t->rank - 1] : 1;
}

/* Row-major without gaps; axes of length 1 may have any stride. */
static inline bool dn_dense(const sdlora_tdesc *t)
{
    int64_t want = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        if (t->dim[i] != 1 && t->stride[i] != want)
            return false;
        want *= t->dim[i];
    }
    return true;
}

static inline bool dn_given(const sdlora_opdesc *op, uint32_t i)
{
    return i < op->n_in && op->in[i].dtype;
}

static inline bool dn_frozen(const sdlora_opdesc *op, uint32_t i)
{
    return op->consts && i < op->n_in && op->consts[i].data;
}

static inline int64_t dn_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t dn_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t dn_round_up(int64_t a, int64_t b)
{
    return dn_ceil_div(a, b) * b;
}

#endif
