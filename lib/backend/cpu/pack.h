/* SPDX-License-Identifier: MIT */
/* Frozen inputs in the form that kernels want: f32, in one of a few layouts, one copy for all
 * kernels of a device.  Knows layouts; refuses to know where weights come from. */
#ifndef SLR_BACKEND_CPU_PACK_H
#define SLR_BACKEND_CPU_PACK_H

#include "backend/cpu/cpu.h"
#include "tensor/dtype.h"

enum {
    SLR_PACK_PLAIN = 0,   /* the same order; f32 that is aligned to 4 bytes is used where it lies */
    SLR_PACK_CONV_CK = 1, /* [K,Cg,R,S] -> [groups][R][S][Cg][Kg] */
    SLR_PACK_CONV_KC = 2, /* [K,Cg,R,S] -> [groups][R][S][Kg][Cg] */
    SLR_PACK_FILE = 3,    /* the bytes of the file where they lie: own type, any alignment */
    /* Panels of mm.h, of f32 or (+ SLR_PACK_HALF) of bf16 */
    SLR_PACK_MM = 4,      /* of b[k,n] */
    SLR_PACK_MM_T = 5,    /* of b[n,k] */
    SLR_PACK_MM_CONV = 6, /* [K,C,R,S]: k is C, n is K; one run per tap */
    SLR_PACK_MM_BACK = 7, /* [K,C,R,S]: k is K, n is C */
    SLR_PACK_HALF = 8
};

int slr_cpu_packs_new(slr_cpu_packs **out, const sdlora_host *host);
void slr_cpu_packs_free(slr_cpu_packs *packs); /* after the last pack was given back */

/* Gives input i of the operation to the kernel as k->frozen[i]: one reference to a shared pack.
 * `groups` matters to the convolution layouts only.  Integer inputs stay in their own type. */
int slr_cpu_freeze(sdlora_kernel *k, const sdlora_opdesc *op, uint32_t i, int layout,
                   int64_t groups);
const void *slr_cpu_pack_data(const slr_cpu_pack *p);
void slr_cpu_pack_put(slr_cpu_packs *packs, slr_cpu_pack *p);

/* Bytes that packs hold now, without those used in place; for tests. */
uint64_t slr_cpu_packs_bytes(slr_cpu_packs *packs);

/* n elements of any alignment as f32. */
void slr_cpu_to_f32(const slr_cpu_env *env, const slr_dtype_row *type, float *dst, const void *src,
                    int64_t n);

/* One layout, from dense f32 in file order; also for weights that change between launches. */
void slr_cpu_pack_conv(const slr_cpu_env *env, float *dst, const float *src, const int64_t dim[4],
                       int64_t groups, int layout);

#endif
