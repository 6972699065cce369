/* SPDX-License-Identifier: MIT */
/* A tensor on the host: type, shape and bytes that someone else may own.  Dense and row-major. */
#ifndef SLR_TENSOR_TENSOR_H
#define SLR_TENSOR_TENSOR_H

#include <stdint.h>

#include "base/mem.h"
#include "tensor/dtype.h"

#define SLR_MAX_RANK 6

/* Shared memory behind tensors: an mmapped file, or a heap block.  Atomically refcounted. */
typedef struct slr_storage slr_storage;
int slr_storage_new(slr_storage **out, slr_mem *m, size_t bytes);
/* Wraps memory that `release(user)` gives back. */
int slr_storage_wrap(slr_storage **out, slr_mem *m, const void *data, size_t bytes,
                     void (*release)(void *user), void *user);
slr_storage *slr_storage_ref(slr_storage *s);
void slr_storage_unref(slr_storage *s);
void *slr_storage_data(slr_storage *s);
size_t slr_storage_bytes(const slr_storage *s);
/* Whether it was wrapped with this release: so whoever maps files knows its own again. */
int slr_storage_is(const slr_storage *s, void (*release)(void *user));

/* A value type: copying copies the view; `storage` is borrowed unless a comment says otherwise. */
typedef struct slr_tensor {
    uint32_t dtype;
    int32_t rank;
    int64_t dim[SLR_MAX_RANK];
    const void *data; /* any alignment */
    uint64_t id;      /* unique per contents; 0: not frozen */
    slr_storage *storage;
} slr_tensor;

int64_t slr_tensor_count(const slr_tensor *t); /* -1: not a shape, or too large to count */
size_t slr_tensor_bytes(const slr_tensor *t);  /* SIZE_MAX likewise */
uint64_t slr_tensor_next_id(void);             /* a fresh, process-wide id */
/* "[320,4,3,3]" into out. */
const char *slr_shape_text(const int64_t *dim, int rank, char out[96]);
/* All elements as f32 into dst; ENOTSUP for types without a rule. */
int slr_tensor_to_f32(const slr_tensor *t, float *dst);

/* [N,C,H,W] <-> [N,H,W,C], f32. */
void slr_nchw_to_nhwc(float *dst, const float *src, int64_t n, int64_t c, int64_t h, int64_t w);
void slr_nhwc_to_nchw(float *dst, const float *src, int64_t n, int64_t c, int64_t h, int64_t w);

#endif
