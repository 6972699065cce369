/* SPDX-License-Identifier: MIT */
/* Singular values over LAPACK.  A product of thin factors becomes two QRs and the SVD of a small
 * core.  A dense matrix goes through its smaller Gram matrix, summed in double: its eigenvalues
 * all, its eigenvectors only as many as are asked for.  Refuses to know what the matrices are. */
#include "tensor/linalg.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/status.h"
#include "tensor/lapack.h"

/* Relative to the largest singular value: where f32 data have nothing to say any more. */
#define NOISE 1e-6
/* Columns or rows of a dense matrix that are widened to double at once. */
#define PANEL 256

struct slr_svd {
    slr_mem *mem;
    int64_t m, n;
    double *values; /* min(m,n) */

    /* a product: QRs of up [m,r] and of down' [n,r], column-major as LAPACK leaves them; the core's
     * vectors u [k1,k] and vt [k,k2], column-major */
    int64_t r, k1, k2, k;
    double *up_qr, *up_tau, *down_qr, *down_tau, *u, *vt;

    /* dense: the Gram matrix of the shorter side p, reduced to the diagonal d and e beside it */
    const float *a;
    int64_t p;
    double *gram, *tau, *d, *e;
};

static int64_t lesser(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static double *doubles(slr_mem *m, int64_t a, int64_t b)
{
    return slr_calloc(m, (size_t)a * (size_t)(b > 0 ? b : 1), sizeof(double));
}

static int failed(const char *routine, blasint info)
{
    return slr_fail(SDLORA_ERROR, __func__, "LAPACK's %s failed (%lld)", routine, (long long)info);
}

/* Whether sizes fit LAPACK's integers. */
static int check_size(int64_t m, int64_t r, int64_t n)
{
    const int64_t most = 1 << 20;
    slr_require(m > 0 && r > 0 && n > 0);
    if (m > most || r > most || n > most)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "a matrix of %lld x %lld is too large to be decomposed", (long long)m,
                        (long long)n);
    return SDLORA_OK;
}

static int start(slr_svd **out, slr_mem *mem, int64_t m, int64_t n)
{
    *out = NULL;
    slr_svd *s = slr_calloc(mem, 1, sizeof *s);
    if (!s)
        return SDLORA_ENOMEM;
    s->mem = mem;
    s->m = m;
    s->n = n;
    s->values = doubles(mem, lesser(m, n), 1);
    if (!s->values) {
        slr_free(mem, s);
        return SDLORA_ENOMEM;
    }
    *out = s;
    return SDLORA_OK;
}

void slr_svd_free(slr_svd *s)
{
    if (!s)
        return;
    double *blocks[] = {s->values, s->up_qr, s->up_tau, s->down_qr, s->down_tau, s->u,
                        s->vt,     s->gram,  s->tau,    s->d,       s->e};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        slr_free(s->mem, blocks[i]);
    slr_free(s->mem, s);
}

const double *slr_svd_values(const slr_svd *s, int64_t *count)
{
    *count = lesser(s->m, s->n);
    return s->values;
}

/* --- products --- */

/* a [m,r] column-major becomes its QR. */
static int qr(slr_mem *mem, double *a, int64_t m, int64_t r, double *tau)
{
    blasint rows = (blasint)m, cols = (blasint)r, lwork = -1, info = 0;
    double best = 1;
    dgeqrf_(&rows, &cols, a, &rows, tau, &best, &lwork, &info);
    lwork = (blasint)best;
    double *work = doubles(mem, lwork, 1);
    if (!work)
        return SDLORA_ENOMEM;
    dgeqrf_(&rows, &cols, a, &rows, tau, work, &lwork, &info);
    slr_free(mem, work);
    return info ? failed("dgeqrf", info) : SDLORA_OK;
}

/* The upper triangle of a QR as [k,r] column-major with zeros below. */
static double *triangle(slr_mem *mem, const double *a, int64_t m, int64_t r, int64_t k)
{
    double *t = doubles(mem, k, r);
    for (int64_t j = 0; t && j < r; j++)
        for (int64_t i = 0; i <= j && i < k; i++)
            t[i + j * k] = a[i + j * m];
    return t;
}

static int core_svd(slr_svd *s, double *core, double *values)
{
    blasint k1 = (blasint)s->k1, k2 = (blasint)s->k2, k = (blasint)s->k, lwork = -1, info = 0;
    double best = 1;
    blasint *iwork = slr_calloc(s->mem, (size_t)s->k * 8, sizeof *iwork);
    if (!iwork)
        return SDLORA_ENOMEM;
    dgesdd_("S", &k1, &k2, core, &k1, values, s->u, &k1, s->vt, &k, &best, &lwork, iwork, &info, 1);
    lwork = (blasint)best;
    double *work = doubles(s->mem, lwork, 1);
    if (work)
        dgesdd_("S", &k1, &k2, core, &k1, values, s->u, &k1, s->vt, &k, work, &lwork, iwork, &info,
                1);
    slr_free(s->mem, iwork);
    slr_free(s->mem, work);
    return !work ? SDLORA_ENOMEM : info ? failed("dgesdd", info) : SDLORA_OK;
}

/* The core [k1,k2] is the product of both triangles. */
static int product_core(slr_svd *s)
{
    double *left = triangle(s->mem, s->up_qr, s->m, s->r, s->k1),
           *right = triangle(s->mem, s->down_qr, s->n, s->r, s->k2),
           *core = doubles(s->mem, s->k1, s->k2);
    int rc = SDLORA_ENOMEM;
    if (left && right && core) {
        cblas_dgemm(CblasColMajor, CblasNoTrans, CblasTrans, (blasint)s->k1, (blasint)s->k2,
                    (blasint)s->r, 1.0, left, (blasint)s->k1, right, (blasint)s->k2, 0.0, core,
                    (blasint)s->k1);
        rc = core_svd(s, core, s->values);
    }
    slr_free(s->mem, left);
    slr_free(s->mem, right);
    slr_free(s->mem, core);
    return rc;
}

static int product(slr_svd *s, const float *up, const float *down, int64_t r)
{
    s->r = r;
    s->k1 = lesser(s->m, r);
    s->k2 = lesser(s->n, r);
    s->k = lesser(s->k1, s->k2);
    s->up_qr = doubles(s->mem, s->m, r);
    s->down_qr = doubles(s->mem, s->n, r);
    s->up_tau = doubles(s->mem, s->k1, 1);
    s->down_tau = doubles(s->mem, s->k2, 1);
    s->u = doubles(s->mem, s->k1, s->k);
    s->vt = doubles(s->mem, s->k, s->k2);
    if (!s->up_qr || !s->down_qr || !s->up_tau || !s->down_tau || !s->u || !s->vt)
        return SDLORA_ENOMEM;
    for (int64_t i = 0; i < s->m; i++)
        for (int64_t j = 0; j < r; j++)
            s->up_qr[i + j * s->m] = up[i * r + j];
    for (int64_t i = 0; i < r * s->n; i++) /* row-major [r,n] is column-major [n,r] */
        s->down_qr[i] = down[i];
    SLR_TRY(qr(s->mem, s->up_qr, s->m, r, s->up_tau));
    SLR_TRY(qr(s->mem, s->down_qr, s->n, r, s->down_tau));
    return product_core(s);
}

int slr_svd_product(slr_svd **out, slr_mem *mem, const float *up, const float *down, int64_t m,
                    int64_t r, int64_t n)
{
    slr_svd *s;
    *out = NULL;
    SLR_TRY(check_size(m, r, n));
    SLR_TRY(start(&s, mem, m, n));
    int rc = product(s, up, down, r);
    if (rc < 0) {
        slr_svd_free(s);
        return rc;
    }
    *out = s;
    return SDLORA_OK;
}

/* x [m,k] column-major becomes Q x, Q being that of `a` with `n` reflectors. */
static int times_q(slr_mem *mem, const double *a, const double *tau, int64_t m, int64_t n,
                   double *x, int64_t k)
{
    blasint rows = (blasint)m, cols = (blasint)k, refl = (blasint)n, lwork = -1, info = 0;
    double best = 1;
    dormqr_("L", "N", &rows, &cols, &refl, a, &rows, tau, x, &rows, &best, &lwork, &info, 1, 1);
    lwork = (blasint)best;
    double *work = doubles(mem, lwork, 1);
    if (!work)
        return SDLORA_ENOMEM;
    dormqr_("L", "N", &rows, &cols, &refl, a, &rows, tau, x, &rows, work, &lwork, &info, 1, 1);
    slr_free(mem, work);
    return info ? failed("dormqr", info) : SDLORA_OK;
}

static int product_factors(const slr_svd *s, int64_t k, float *up, float *down)
{
    double *x = doubles(s->mem, s->m > s->n ? s->m : s->n, k);
    if (!x)
        return SDLORA_ENOMEM;
    for (int64_t j = 0; j < k; j++)
        for (int64_t i = 0; i < s->k1; i++)
            x[i + j * s->m] = s->u[i + j * s->k1] * s->values[j];
    int rc = times_q(s->mem, s->up_qr, s->up_tau, s->m, s->k1, x, k);
    for (int64_t i = 0; rc >= 0 && i < s->m; i++)
        for (int64_t j = 0; j < k; j++)
            up[i * k + j] = (float)x[i + j * s->m];

    memset(x, 0, (size_t)(s->n * k) * sizeof *x);
    for (int64_t j = 0; j < k; j++)
        for (int64_t i = 0; i < s->k2; i++)
            x[i + j * s->n] = s->vt[j + i * s->k];
    if (rc >= 0)
        rc = times_q(s->mem, s->down_qr, s->down_tau, s->n, s->k2, x, k);
    for (int64_t i = 0; rc >= 0 && i < s->n * k; i++)
        down[i] = (float)x[i];
    slr_free(s->mem, x);
    return rc;
}

/* --- dense matrices --- */

/* The Gram matrix of the shorter side: a a' or a' a, one triangle of it. */
static int add_gram(slr_svd *s)
{
    bool rows = s->m <= s->n; /* the short side is that of rows: panels are cut from columns */
    int64_t depth = rows ? s->n : s->m;
    double *panel = doubles(s->mem, s->p, PANEL);
    if (!panel)
        return SDLORA_ENOMEM;
    for (int64_t at = 0; at < depth; at += PANEL) {
        int64_t w = lesser(PANEL, depth - at);
        for (int64_t i = 0; rows && i < s->m; i++)
            for (int64_t j = 0; j < w; j++)
                panel[i * w + j] = s->a[i * s->n + at + j];
        for (int64_t i = 0; !rows && i < w * s->n; i++)
            panel[i] = s->a[at * s->n + i];
        cblas_dsyrk(CblasRowMajor, CblasUpper, rows ? CblasNoTrans : CblasTrans, (blasint)s->p,
                    (blasint)w, 1.0, panel, (blasint)(rows ? w : s->p), 1.0, s->gram,
                    (blasint)s->p);
    }
    slr_free(s->mem, panel);
    return SDLORA_OK;
}

static int tridiagonal(slr_svd *s)
{
    blasint p = (blasint)s->p, lwork = -1, info = 0;
    double best = 1;
    /* a row-major upper triangle is a column-major lower one */
    dsytrd_("L", &p, s->gram, &p, s->d, s->e, s->tau, &best, &lwork, &info, 1);
    lwork = (blasint)best;
    double *work = doubles(s->mem, lwork, 1);
    if (!work)
        return SDLORA_ENOMEM;
    dsytrd_("L", &p, s->gram, &p, s->d, s->e, s->tau, work, &lwork, &info, 1);
    slr_free(s->mem, work);
    return info ? failed("dsytrd", info) : SDLORA_OK;
}

static int all_values(slr_svd *s)
{
    blasint p = (blasint)s->p, info = 0;
    double *d = doubles(s->mem, s->p, 2);
    if (!d)
        return SDLORA_ENOMEM;
    memcpy(d, s->d, (size_t)s->p * sizeof *d);
    memcpy(d + s->p, s->e, (size_t)s->p * sizeof *d);
    dsterf_(&p, d, d + s->p, &info);
    for (int64_t i = 0; i < s->p; i++) {
        double v = d[s->p - 1 - i]; /* ascending */
        s->values[i] = v > 0 ? sqrt(v) : 0.0;
    }
    slr_free(s->mem, d);
    return info ? failed("dsterf", info) : SDLORA_OK;
}

static int dense(slr_svd *s, const float *a)
{
    s->a = a;
    s->p = lesser(s->m, s->n);
    s->gram = doubles(s->mem, s->p, s->p);
    s->tau = doubles(s->mem, s->p, 1);
    s->d = doubles(s->mem, s->p, 1);
    s->e = doubles(s->mem, s->p, 1);
    if (!s->gram || !s->tau || !s->d || !s->e)
        return SDLORA_ENOMEM;
    SLR_TRY(add_gram(s));
    SLR_TRY(tridiagonal(s));
    return all_values(s);
}

int slr_svd_dense(slr_svd **out, slr_mem *mem, const float *a, int64_t m, int64_t n)
{
    slr_svd *s;
    *out = NULL;
    SLR_TRY(check_size(m, 1, n));
    SLR_TRY(start(&s, mem, m, n));
    int rc = dense(s, a);
    if (rc < 0) {
        slr_svd_free(s);
        return rc;
    }
    *out = s;
    return SDLORA_OK;
}

/* The last k eigenvectors of the tridiagonal form, [p,k] column-major, ascending. */
static int tri_vectors(const slr_svd *s, int64_t k, double *z)
{
    blasint p = (blasint)s->p, lo = (blasint)(s->p - k + 1), hi = p, found = 0, nzc = (blasint)k,
            tryrac = 1, lwork = 18 * p, liwork = 10 * p, info = 0;
    double *work = doubles(s->mem, s->p, 18 + 3), none = 0;
    blasint *iwork = slr_calloc(s->mem, (size_t)s->p * 12, sizeof *iwork);
    int rc = work && iwork ? SDLORA_OK : SDLORA_ENOMEM;
    if (rc >= 0) {
        double *d = work + 18 * s->p, *e = d + s->p, *w = e + s->p;
        memcpy(d, s->d, (size_t)s->p * sizeof *d);
        memcpy(e, s->e, (size_t)s->p * sizeof *e);
        dstemr_("V", "I", &p, d, e, &none, &none, &lo, &hi, &found, w, z, &p, &nzc,
                iwork + 10 * s->p, &tryrac, work, &lwork, iwork, &liwork, &info, 1, 1);
        if (info || found != nzc)
            rc = failed("dstemr", info);
    }
    slr_free(s->mem, work);
    slr_free(s->mem, iwork);
    return rc;
}

/* The first k singular vectors of the shorter side, [k,p] row-major. */
static int gram_vectors(const slr_svd *s, int64_t k, float *out)
{
    blasint p = (blasint)s->p, cols = (blasint)k, lwork = -1, info = 0;
    double best = 1, *work = NULL, *z = doubles(s->mem, s->p, k);
    int rc = z ? tri_vectors(s, k, z) : SDLORA_ENOMEM;
    if (rc >= 0) {
        dormtr_("L", "L", "N", &p, &cols, s->gram, &p, s->tau, z, &p, &best, &lwork, &info, 1, 1,
                1);
        lwork = (blasint)best;
        work = doubles(s->mem, lwork, 1);
        rc = work ? SDLORA_OK : SDLORA_ENOMEM;
    }
    if (rc >= 0) {
        dormtr_("L", "L", "N", &p, &cols, s->gram, &p, s->tau, z, &p, work, &lwork, &info, 1, 1, 1);
        if (info)
            rc = failed("dormtr", info);
    }
    for (int64_t j = 0; rc >= 0 && j < k; j++)
        for (int64_t i = 0; i < s->p; i++)
            out[j * s->p + i] = (float)z[i + (k - 1 - j) * s->p];
    slr_free(s->mem, z);
    slr_free(s->mem, work);
    return rc;
}

/* m <= n: vectors are U'[k,m], so that up = U S and down = U' a / S. */
static void from_left(const slr_svd *s, int64_t k, const float *vec, float *up, float *down)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)k, (blasint)s->n, (blasint)s->m,
                1.0f, vec, (blasint)s->m, s->a, (blasint)s->n, 0.0f, down, (blasint)s->n);
    for (int64_t j = 0; j < k; j++) {
        float scale = s->values[j] > 0 ? (float)(1.0 / s->values[j]) : 0.0f;
        for (int64_t i = 0; i < s->n; i++)
            down[j * s->n + i] *= scale;
        for (int64_t i = 0; i < s->m; i++)
            up[i * k + j] = (float)(vec[j * s->m + i] * s->values[j]);
    }
}

/* m > n: vectors are down itself, and up = a down'. */
static void from_right(const slr_svd *s, int64_t k, const float *vec, float *up, float *down)
{
    memcpy(down, vec, (size_t)(k * s->n) * sizeof *down);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)s->m, (blasint)k, (blasint)s->n,
                1.0f, s->a, (blasint)s->n, vec, (blasint)s->n, 0.0f, up, (blasint)k);
}

static int dense_factors(const slr_svd *s, int64_t k, float *up, float *down)
{
    float *vec = slr_calloc(s->mem, (size_t)(k * s->p), sizeof *vec);
    int rc = vec ? gram_vectors(s, k, vec) : SDLORA_ENOMEM;
    if (rc >= 0)
        (s->m <= s->n ? from_left : from_right)(s, k, vec, up, down);
    slr_free(s->mem, vec);
    return rc;
}

/* --- what both share --- */

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* Row j of down becomes a unit vector at right angles to the rows before it.  A row that was drawn
 * at random keeps most of its length, since k <= n; twice is enough (Kahan's rule). */
static void complete_row(float *down, int64_t j, int64_t n)
{
    slr_rng rng;
    float *row = down + j * n;
    slr_rng_init(&rng, (uint64_t)n, SLR_STREAM_INIT, (uint32_t)j);
    for (int tries = 0; tries < 4; tries++) {
        slr_rng_normal(&rng, row, (size_t)n);
        for (int pass = 0; pass < 2; pass++)
            for (int64_t i = 0; i < j; i++) {
                double along = dot(row, down + i * n, n);
                for (int64_t x = 0; x < n; x++)
                    row[x] -= (float)(along * down[i * n + x]);
            }
        double length = sqrt(dot(row, row, n));
        for (int64_t x = 0; x < n; x++)
            row[x] /= (float)(length > 0 ? length : 1);
        if (length > 1e-3)
            return;
    }
}

int slr_svd_factors(const slr_svd *s, int64_t k, float *up, float *down)
{
    slr_require(k >= 1 && k <= lesser(s->m, s->n));
    int64_t alive = 0;
    while (alive < k && s->values[alive] > s->values[0] * NOISE)
        alive++;
    memset(up, 0, (size_t)(s->m * k) * sizeof *up);
    memset(down, 0, (size_t)(k * s->n) * sizeof *down);
    if (alive > 0 && alive < k) { /* pack what counts into k columns */
        float *few = slr_alloc(s->mem, (size_t)(s->m * alive) * sizeof *few);
        if (!few)
            return SDLORA_ENOMEM;
        int rc = (s->a ? dense_factors : product_factors)(s, alive, few, down);
        for (int64_t i = 0; rc >= 0 && i < s->m; i++)
            memcpy(up + i * k, few + i * alive, (size_t)alive * sizeof *up);
        slr_free(s->mem, few);
        SLR_TRY(rc);
    } else if (alive > 0) {
        SLR_TRY((s->a ? dense_factors : product_factors)(s, k, up, down));
    }
    for (int64_t j = alive; j < k; j++)
        complete_row(down, j, s->n);
    return SDLORA_OK;
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

float slr_quantile(float *x, size_t n, double q)
{
    if (!n)
        return 0.0f;
    qsort(x, n, sizeof *x, ascending);
    double at = q * (double)(n - 1), lo = floor(at);
    size_t i = (size_t)lo;
    return i + 1 < n ? (float)(x[i] + (at - lo) * ((double)x[i + 1] - x[i])) : x[n - 1];
}
