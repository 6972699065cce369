/* SPDX-License-Identifier: MIT */
/* The few LAPACK routines that linalg.c calls, in double precision.  Fortran's interface: matrices
 * are column-major, everything goes by pointer, and the lengths of the texts stand at the end. */
#ifndef SLR_TENSOR_LAPACK_H
#define SLR_TENSOR_LAPACK_H

#include <cblas.h>
#include <stddef.h>

/* QR of a[m,n]; the product with its Q. */
void dgeqrf_(const blasint *m, const blasint *n, double *a, const blasint *lda, double *tau,
             double *work, const blasint *lwork, blasint *info);
void dormqr_(const char *side, const char *trans, const blasint *m, const blasint *n,
             const blasint *k, const double *a, const blasint *lda, const double *tau, double *c,
             const blasint *ldc, double *work, const blasint *lwork, blasint *info, size_t side_len,
             size_t trans_len);

/* Singular values and vectors by divide and conquer. */
void dgesdd_(const char *jobz, const blasint *m, const blasint *n, double *a, const blasint *lda,
             double *s, double *u, const blasint *ldu, double *vt, const blasint *ldvt,
             double *work, const blasint *lwork, blasint *iwork, blasint *info, size_t jobz_len);

/* A symmetric matrix to tridiagonal form, that form's eigenvalues, some of its eigenvectors, and
 * back. */
void dsytrd_(const char *uplo, const blasint *n, double *a, const blasint *lda, double *d,
             double *e, double *tau, double *work, const blasint *lwork, blasint *info,
             size_t uplo_len);
void dsterf_(const blasint *n, double *d, double *e, blasint *info);
void dstemr_(const char *jobz, const char *range, const blasint *n, double *d, double *e,
             const double *vl, const double *vu, const blasint *il, const blasint *iu, blasint *m,
             double *w, double *z, const blasint *ldz, const blasint *nzc, blasint *isuppz,
             blasint *tryrac, double *work, const blasint *lwork, blasint *iwork,
             const blasint *liwork, blasint *info, size_t jobz_len, size_t range_len);
void dormtr_(const char *side, const char *uplo, const char *trans, const blasint *m,
             const blasint *n, const double *a, const blasint *lda, const double *tau, double *c,
             const blasint *ldc, double *work, const blasint *lwork, blasint *info, size_t side_len,
             size_t uplo_len, size_t trans_len);

#endif
