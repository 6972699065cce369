/* SPDX-License-Identifier: MIT */
/* Singular value decompositions of f32 matrices, row-major, with all arithmetic that matters in
 * double: of a dense matrix, and of a product of two thin factors without building it.  On the
 * calling thread; callers run many at once, each in a piece of slr_parallel(), where LAPACK stays
 * on one thread and gives the same bytes whatever the number of threads. */
#ifndef SLR_TENSOR_LINALG_H
#define SLR_TENSOR_LINALG_H

#include <stdint.h>

#include "base/mem.h"

typedef struct slr_svd slr_svd;

/* up[m,r] down[r,n]: exact, in O((m + n) r^2). */
int slr_svd_product(slr_svd **out, slr_mem *mem, const float *up, const float *down, int64_t m,
                    int64_t r, int64_t n);
/* a[m,n], which is borrowed until the handle is freed.  Values below 1e-7 of the first are noise.
 */
int slr_svd_dense(slr_svd **out, slr_mem *mem, const float *a, int64_t m, int64_t n);
void slr_svd_free(slr_svd *s);

/* All min(m,n) singular values, descending. */
const double *slr_svd_values(const slr_svd *s, int64_t *count);
/* The best approximation of rank k <= min(m,n): up[m,k] = U S, down[k,n] = V^T.  Rows of `down` are
 * orthonormal, also those that belong to no singular value above the noise, whose columns of `up`
 * are zero. */
int slr_svd_factors(const slr_svd *s, int64_t k, float *up, float *down);

/* The value below which the share q (0 to 1) of x lies, between two of them by proportion; x is put
 * into another order. */
float slr_quantile(float *x, size_t n, double q);

#endif
