/* SPDX-License-Identifier: MIT */
/* Primitives: made once per description, shared by all kernels of the device that want the same,
 * and run on one thread per slot. */
#ifndef DN_EXEC_H
#define DN_EXEC_H

#include "common.h"
#include "library.h"

enum { DN_ADD_NONE, DN_ADD_IN_PLACE, DN_ADD_ELSEWHERE }; /* the last: products only */
enum { DN_B_PACKED, DN_B_PLAIN, DN_B_TRANS };

/* A piece of work.  Compared by bytes: clear it first. */
typedef struct dn_spec {
    int kind; /* DN_MATMUL, DN_CONV, DN_CONV_BX */
    int add;
    uint32_t type, out, add_type; /* SDLORA_*: of both factors, of the result, of the addend */
    uint32_t bias;                /* 1: there is one, of f32 */
    float alpha;                  /* on product and bias, not on the addend */
    uint32_t ta, b;
    int64_t m, n, k, lda, ldb, ldc; /* products; result and addend have rows of ldc */
    /* convolutions: one image of h x w x c under n_filters; pads may differ on all sides */
    int64_t h, w, c, oh, ow, filters, r, s, stride_h, stride_w, top, left, bottom, right;
} dn_spec;

/* Declines (ENOTSUP) what only a reference implementation would do. */
int dn_exec_get(dn_exec **out, sdlora_dev *dev, const dn_spec *spec);
void dn_exec_put(sdlora_dev *dev, dn_exec *e); /* NULL does nothing */

size_t dn_exec_scratch(const dn_exec *e);           /* bytes of a running piece, a multiple of 64 */
const dn_layout *dn_exec_weights(const dn_exec *e); /* as the primitive wants them */

typedef struct dn_operands {
    const void *src;
    dnnl_memory_t packed; /* DN_B_PACKED */
    const void *plain;    /* otherwise */
    const float *bias;
    const void *add; /* DN_ADD_ELSEWHERE */
    void *dst, *scratch;
} dn_operands;

/* Thread: one per slot.  Kernels take the device's run lock for a launch. */
dnnl_status_t dn_exec_run(const dn_exec *e, int slot, const dn_operands *o);

#endif
