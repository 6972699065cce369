/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/backend.h
 * The C ABI between the core and a compute backend.  The built-in CPU backend
 * is written against this header too, so what it can do, a plugin can do.
 *
 * A plugin is a shared object that exports one symbol, sdlora_backend_entry, of
 * type sdlora_backend_entry_fn.  It links against nothing of ours.
 *
 * Unless a comment says otherwise: functions return SDLORA_OK or a negative
 * SDLORA_E*, with the text given to host->fail first; no exception crosses the
 * border; the core calls one device from one thread at a time.
 */
#ifndef SDLORA_BACKEND_H
#define SDLORA_BACKEND_H

#include <sdlora/ops.h>
#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

#define SDLORA_BACKEND_ABI 1u /**< bumped when an existing member changes; appending does not bump */
#define SDLORA_MAX_RANK    6u

/* Plugin-owned, opaque to the core.  For a HOST_MEMORY device an sdlora_mem pointer is simply
 * the base address of the core's own buffer. */
typedef struct sdlora_dev sdlora_dev;
typedef struct sdlora_mem sdlora_mem;
typedef struct sdlora_queue sdlora_queue;
typedef struct sdlora_kernel sdlora_kernel;

/** One tensor's type and layout. */
typedef struct sdlora_tdesc {
    uint32_t dtype;                   /**< SDLORA_F32 ...; 0: this optional input is absent */
    uint32_t rank;                    /**< 0..SDLORA_MAX_RANK */
    int64_t dim[SDLORA_MAX_RANK];
    int64_t stride[SDLORA_MAX_RANK];  /**< in elements; 0 repeats */
} sdlora_tdesc;

/** A frozen input: its bytes are known when the kernel is made and never change. */
typedef struct sdlora_const {
    const void *data; /**< NULL: not frozen.  Dense, of the descriptor's dtype, any alignment */
    uint64_t id;      /**< names the contents: equal ids mean equal bytes, so packs are shared */
} sdlora_const;

enum {
    SDLORA_OPF_DETERMINISTIC = 1 << 0 /**< same bytes whatever the thread count (always set today) */
};

/** One operation, forward or backward alike. */
typedef struct sdlora_opdesc {
    uint32_t struct_size;
    uint32_t op;                 /**< SDLORA_OP_* */
    uint32_t math;               /**< SDLORA_MATH_* */
    uint32_t flags;              /**< SDLORA_OPF_* */
    uint32_t n_in, n_out, n_int, n_real;
    const sdlora_tdesc *in;      /**< n_in of them */
    const sdlora_tdesc *out;     /**< n_out; values saved for the backward pass are ordinary outputs */
    const int64_t *ints;
    const double *reals;
    const sdlora_const *consts;  /**< n_in of them, or NULL when no input is frozen */
} sdlora_opdesc;

/** Where one operand lies.  mem NULL: absent. */
typedef struct sdlora_arg {
    sdlora_mem *mem;
    uint64_t offset; /**< bytes */
} sdlora_arg;

/** What the core lends a backend. */
typedef struct sdlora_host {
    uint32_t struct_size, abi;
    void *self;
    void *(*alloc)(void *self, size_t bytes, size_t align);
    void (*free)(void *self, void *ptr);
    void (*log)(void *self, int level, const char *text);
    int (*fail)(void *self, int code, const char *text); /**< keeps the text, returns code */
    /**
     * The core's one thread pool.  Calls body over [0,n) in pieces of `grain` items; which thread
     * runs a piece must not change a result.  One piece, or a nested call, runs on this thread.
     */
    void (*parallel)(void *self, int64_t n, int64_t grain,
                     void (*body)(void *arg, int64_t lo, int64_t hi), void *arg);
    int (*threads)(void *self);   /**< how many threads parallel() may use */
    uint64_t cpu_features;        /**< bits of base/cpu.h, already masked by the user's wish */
    /* --- ABI 1.0 ends here; members below may be absent: SDLORA_HOST_HAS tells --- */
    /**
     * Non-zero once the job that this thread works for, in a launch or in a piece of parallel(), is
     * to end: what it computes is thrown away, so the launch may return early with SDLORA_OK and
     * rubbish.  parallel() asks between its pieces; ask here where a piece takes longer than a tenth
     * of a second.
     */
    int (*canceled)(void *self);
} sdlora_host;

enum {
    SDLORA_DEV_HOST_MEMORY = 1 << 0, /**< works on the core's own buffers */
    SDLORA_DEV_ASYNC       = 1 << 1
};

typedef struct sdlora_dev_info {
    uint32_t struct_size, flags; /**< SDLORA_DEV_* */
    uint64_t mem_total, mem_free, mem_align, max_alloc;
    uint64_t dtypes, maths;      /**< bit sets: 1 << SDLORA_F32 ..., 1 << SDLORA_MATH_* */
    char name[64];
} sdlora_dev_info;

typedef struct sdlora_backend {
    uint32_t struct_size, abi;
    const char *name; /**< "cpu", "onednn", "cuda" */
    /* devices */
    int (*dev_count)(const sdlora_host *host);
    int (*dev_open)(sdlora_dev **out, const sdlora_host *host, int index);
    void (*dev_close)(sdlora_dev *dev);
    int (*dev_info)(sdlora_dev *dev, sdlora_dev_info *info);
    /* memory: a HOST_MEMORY device leaves both NULL and uses the core's buffers */
    int (*mem_alloc)(sdlora_mem **out, sdlora_dev *dev, uint64_t bytes);
    void (*mem_free)(sdlora_mem *mem);
    /* queues: in order; a synchronous device runs at once */
    int (*queue_new)(sdlora_queue **out, sdlora_dev *dev);
    void (*queue_free)(sdlora_queue *q);
    int (*upload)(sdlora_queue *q, sdlora_arg dst, const void *src, uint64_t bytes);
    int (*download)(sdlora_queue *q, void *dst, sdlora_arg src, uint64_t bytes);
    int (*wait)(sdlora_queue *q); /**< NULL: launch is done when it returns */
    /**
     * Makes a kernel for one operation at one set of shapes, and says how many bytes of scratch
     * a launch wants.  SDLORA_ENOTSUP declines: the next candidate is asked.
     */
    int (*prepare)(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev, const sdlora_opdesc *op);
    /**
     * Runs it.  args: inputs, then outputs, in the descriptor's order; the argument of a frozen
     * input is {NULL, 0}: the kernel has its own pack.  `scratch` is 64-byte aligned.
     */
    int (*launch)(sdlora_queue *q, sdlora_kernel *k, const sdlora_arg *args, uint32_t n,
                  sdlora_arg scratch);
    void (*kernel_free)(sdlora_kernel *k);
    /* --- ABI 1.0 ends here; members below may be absent: test struct_size first --- */
} sdlora_backend;

/** The one symbol that a plugin exports, under the name sdlora_backend_entry. */
typedef int sdlora_backend_entry_fn(const sdlora_host *host, const sdlora_backend **out);

#define SDLORA_HOST_HAS(h, member) \
    ((h)->struct_size >= offsetof(sdlora_host, member) + sizeof((h)->member) && (h)->member)
#define SDLORA_BACKEND_HAS(b, member) \
    ((b)->struct_size >= offsetof(sdlora_backend, member) + sizeof((b)->member) && (b)->member)

SDLORA_END_DECLS
#endif /* SDLORA_BACKEND_H */
