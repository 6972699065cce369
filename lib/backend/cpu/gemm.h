/* SPDX-License-Identifier: MIT */
/* Matrix products in f32: the library call in one place, and how a product is cut into tiles.
 * Row-major. */
#ifndef SLR_BACKEND_CPU_GEMM_H
#define SLR_BACKEND_CPU_GEMM_H

#include "backend/cpu/cpu.h"
#include "tensor/dtype.h"

typedef struct slr_mat {
    const float *p;
    int64_t ld; /* elements from row to row */
    bool trans; /* the operand is the transpose of what lies at p */
} slr_mat;

/* c[m,n] = alpha a[m,k] b[k,n] + beta c, on the calling thread alone inside slr_cpu_parallel(). */
void slr_sgemm(int64_t m, int64_t n, int64_t k, float alpha, slr_mat a, slr_mat b, float beta,
               float *c, int64_t ldc);

/* What MATMUL's descriptor says. */
typedef struct slr_product {
    int64_t m, n, k;
    bool ta, tb, has_bias, has_add;
    float alpha;
} slr_product;

/* EINVAL where the shapes do not fit; refuses to look at types. */
int slr_matmul_read(slr_product *p, const sdlora_opdesc *op);

/* How [m,n] is cut: rows and columns of a tile.  Depends on shapes only. */
typedef struct slr_tiling {
    int64_t tm, tn;     /* the last of a row or column may be smaller */
    int64_t rows, cols; /* number of tiles */
} slr_tiling;
slr_tiling slr_gemm_tiling(int64_t m, int64_t n, int64_t k);

/* Puts what a product is added to into a tile of c: bias (by column) + add of the given type,
 * either may be NULL. Returns the beta with which the product goes on top: 0 when there was
 * nothing.  add
 * == c costs no copy. */
float slr_gemm_seed(float *c, int64_t ldc, const float *bias, const slr_dtype_row *type,
                    const void *add, int64_t ldadd, int64_t m, int64_t n);

#endif
