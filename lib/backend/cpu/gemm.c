/* SPDX-License-Identifier: MIT */
/* MATMUL and BMM over a BLAS.  The library is only ever called for one tile on one thread, and
 * tiles depend on shapes alone, so results do not depend on the number of threads.  Operands are
 * f32 or bf16, each for itself: what is bf16 passes through f32 scratch, tile by tile.  Refuses to
 * know packing inside a product: that is the library's. */
#include "backend/cpu/gemm.h"

#include <cblas.h>
#include <string.h>

#include "backend/cpu/convert.h"
#include "base/status.h"

void slr_sgemm(int64_t m, int64_t n, int64_t k, float alpha, slr_mat a, slr_mat b, float beta,
               float *c, int64_t ldc)
{
    cblas_sgemm(CblasRowMajor, a.trans ? CblasTrans : CblasNoTrans,
                b.trans ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, alpha, a.p,
                (blasint)a.ld, b.p, (blasint)b.ld, beta, c, (blasint)ldc);
}

/* Below this many multiply-adds a second thread costs more than it brings: about 10 us of one core.
 */
#define SMALL_WORK (INT64_C(1) << 19)

static int64_t split_evenly(int64_t n, int64_t parts)
{
    int64_t each = (n + parts - 1) / parts;
    return (each + 15) / 16 * 16; /* whole vectors */
}

slr_tiling slr_gemm_tiling(int64_t m, int64_t n, int64_t k)
{
    slr_tiling t = {.tm = m, .tn = n, .rows = 1, .cols = 1};
    if (m < 1 || n < 1 || m * n <= SMALL_WORK / (k < 1 ? 1 : k))
        return t;
    /* Tall enough that the library's packing of b is paid back, small enough for its caches. */
    int64_t rows = (m + 255) / 256, cols = (n + 639) / 640;
    t.tm = split_evenly(m, rows);
    t.tn = split_evenly(n, cols);
    /* Enough pieces to share out, while each is still worth a hand-over. */
    while ((m + t.tm - 1) / t.tm * ((n + t.tn - 1) / t.tn) < 16 &&
           t.tm * t.tn * k > 2 * SMALL_WORK) {
        if (t.tn > t.tm && t.tn > 64)
            t.tn = split_evenly(t.tn, 2);
        else if (t.tm > 64)
            t.tm = split_evenly(t.tm, 2);
        else if (t.tn > 64)
            t.tn = split_evenly(t.tn, 2);
        else
            break;
    }
    t.rows = (m + t.tm - 1) / t.tm;
    t.cols = (n + t.tn - 1) / t.tn;
    return t;
}

float slr_gemm_seed(float *c, int64_t ldc, const float *bias, const slr_dtype_row *type,
                    const void *add, int64_t ldadd, int64_t m, int64_t n)
{
    if (!bias && !add)
        return 0.0f;
    const bool convert = add && type->dtype != SDLORA_F32;
    for (int64_t i = 0; i < m; i++) {
        float *row = c + i * ldc;
        const float *from = add ? slr_cpu_at(add, i * ldadd, (int64_t)type->size) : bias;
        if (convert) {
            type->to_f32(row, from, (size_t)n);
            from = row;
        }
        if (add && bias)
            for (int64_t j = 0; j < n; j++)
                row[j] = from[j] + bias[j];
        else if (from != row)
            memcpy(row, from, (size_t)n * sizeof *row);
    }
    return 1.0f;
}

/* --- the operations --- */

enum {
    IN_A = 0,
    IN_B = 1,
    IN_BIAS = 2,
    IN_ADD = 3,
    DEPTH = 384 /* of the blocks that are converted: a tile of 256 x 384 floats is 384 KiB */
};

typedef struct gemm_kernel {
    sdlora_kernel head;
    int64_t batch, m, n, k;
    bool ta, tb;
    float alpha;
    slr_tiling tiling;
    bool has_bias, has_add;
    const slr_dtype_row *a_type, *b_type, *add_type, *c_type;
    int64_t depth;                                     /* of one call of the library */
    int64_t a_floats, b_floats, c_floats, slot_floats; /* 0: used where it lies */
} gemm_kernel;

typedef struct gemm_job {
    const gemm_kernel *g;
    const void *a, *b, *add;
    const float *bias;
    void *c;
    float *slots;
    int64_t tiles, grain; /* tiles handed over at once */
} gemm_job;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* rows x cols of an operand from element `at` on, through `block` when it is not f32. */
static slr_mat operand(const slr_dtype_row *type, const void *p, int64_t at, int64_t ld, bool trans,
                       float *block, int64_t rows, int64_t cols)
{
    if (type->dtype == SDLORA_F32)
        return (slr_mat){(const float *)p + at, ld, trans};
    slr_cpu_widen(block, cols, type, slr_cpu_at(p, at, (int64_t)type->size), ld, rows, cols);
    return (slr_mat){block, cols, trans};
}

static void run_tile(const gemm_job *job, int64_t tile, float *a_block)
{
    const gemm_kernel *g = job->g;
    const slr_tiling *t = &g->tiling;
    const int64_t col = tile % t->cols, row = tile / t->cols % t->rows,
                  z = tile / t->cols / t->rows;
    const int64_t i = row * t->tm, j = col * t->tn, to = z * g->m * g->n + i * g->n + j;
    const int64_t m = min64(t->tm, g->m - i), n = min64(t->tn, g->n - j);
    float *b_block = a_block + g->a_floats;
    float *c = g->c_floats ? b_block + g->b_floats : (float *)job->c + to;
    const int64_t ldc = g->c_floats ? n : g->n;
    const void *add = job->add ? slr_cpu_at(job->add, to, (int64_t)g->add_type->size) : NULL;
    float beta =
        slr_gemm_seed(c, ldc, job->bias ? job->bias + j : NULL, g->add_type, add, g->n, m, n);
    int64_t k0 = 0;
    do {
        const int64_t k = min64(g->depth, g->k - k0);
        const int64_t a_at = z * g->m * g->k + (g->ta ? k0 * g->m + i : i * g->k + k0);
        const int64_t b_at = z * g->k * g->n + (g->tb ? j * g->k + k0 : k0 * g->n + j);
        const slr_mat a = operand(g->a_type, job->a, a_at, g->ta ? g->m : g->k, g->ta, a_block,
                                  g->ta ? k : m, g->ta ? m : k);
        const slr_mat b = operand(g->b_type, job->b, b_at, g->tb ? g->k : g->n, g->tb, b_block,
                                  g->tb ? n : k, g->tb ? k : n);
        slr_sgemm(m, n, k, g->alpha, a, b, beta, c, ldc);
        beta = 1.0f;
        k0 += k;
    } while (k0 < g->k);
    if (g->c_floats)
        slr_cpu_narrow(g->c_type, slr_cpu_at(job->c, to, (int64_t)g->c_type->size), g->n, c, n, m,
                       n);
}

static void run_tiles(void *arg, int64_t piece, int slot)
{
    const gemm_job *job = arg;
    const int64_t first = piece * job->grain, end = min64(first + job->grain, job->tiles);
    for (int64_t tile = first; tile < end; tile++)
        run_tile(job, tile, job->slots + slot * job->g->slot_floats);
}

static int gemm_launch(sdlora_kernel *k, const slr_cpu_env *env, void *const *ptr, void *scratch)
{
    const gemm_kernel *g = (const gemm_kernel *)k;
    gemm_job job = {
        .g = g,
        .a = ptr[IN_A],
        .b = ptr[IN_B],
        .bias = g->has_bias ? ptr[IN_BIAS] : NULL,
        .add = g->has_add ? ptr[IN_ADD] : NULL,
        .c = ptr[k->n_in],
        .slots = scratch,
    };
    if (g->m == 0 || g->n == 0)
        return SDLORA_OK;
    job.tiles = g->batch * g->tiling.rows * g->tiling.cols;
    /* A tile below the limit is one of many small ones: hand over several at once. */
    const int64_t work = g->tiling.tm * g->tiling.tn * (g->k ? g->k : 1);
    job.grain = work < SMALL_WORK ? SMALL_WORK / work : 1;
    slr_cpu_spread(env, (job.tiles + job.grain - 1) / job.grain, run_tiles, &job);
    return SDLORA_OK;
}

static int64_t last_dim(const sdlora_tdesc *t)
{
    return t->dim[t->rank - 1];
}

static int64_t rows_of(const sdlora_tdesc *t)
{
    return last_dim(t) ? slr_cpu_count(t) / last_dim(t) : 0;
}

static bool given(const sdlora_opdesc *op, uint32_t i)
{
    return i < op->n_in && op->in[i].dtype;
}

static int check_dense(const sdlora_opdesc *op, uint32_t min_rank)
{
    for (uint32_t i = 0; i < op->n_in + op->n_out; i++) {
        const sdlora_tdesc *t = i < op->n_in ? &op->in[i] : &op->out[i - op->n_in];
        bool matrix = i < 2 || i >= op->n_in;
        bool stored = i == IN_BIAS && i < op->n_in ? slr_cpu_f32(t) : slr_cpu_stored(t);
        if (t->dtype && (!stored || t->rank < (matrix ? min_rank : 1)))
            return slr_fail(
                SDLORA_ENOTSUP, __func__,
                "a product takes dense f32 or bf16 of rank >= %u, a bias f32; operand %u is type "
                "%u, rank %u",
                (unsigned)min_rank, (unsigned)i, (unsigned)t->dtype, (unsigned)t->rank);
    }
    return SDLORA_OK;
}

/* The blocks that a slot needs for what is not f32; depth is cut where operands are converted. */
static void choose_blocks(gemm_kernel *g, const sdlora_opdesc *op)
{
    const slr_tiling *t = &g->tiling;
    g->a_type = slr_dtype(op->in[IN_A].dtype);
    g->b_type = slr_dtype(op->in[IN_B].dtype);
    g->c_type = slr_dtype(op->out[0].dtype);
    g->add_type = g->has_add ? slr_dtype(op->in[IN_ADD].dtype) : g->c_type;
    const bool a = g->a_type->dtype != SDLORA_F32, b = g->b_type->dtype != SDLORA_F32;
    const bool c = g->c_type->dtype != SDLORA_F32;
    g->depth = a || b ? min64(DEPTH, g->k) : g->k;
    g->a_floats = a ? slr_cpu_lines(min64(t->tm, g->m) * g->depth) : 0;
    g->b_floats = b ? slr_cpu_lines(min64(t->tn, g->n) * g->depth) : 0;
    g->c_floats = c ? slr_cpu_lines(min64(t->tm, g->m) * min64(t->tn, g->n)) : 0;
    g->slot_floats = g->a_floats + g->b_floats + g->c_floats;
}

/* Makes the kernel of batch x [m,n,k]; the descriptor was checked. */
static int make(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                const sdlora_opdesc *op, gemm_kernel want)
{
    if (want.m > INT32_MAX || want.n > INT32_MAX || want.k > INT32_MAX)
        return slr_fail(SDLORA_ENOTSUP, __func__, "a product of more than 2^31 rows or columns");
    gemm_kernel *g = slr_cpu_kernel_new(env, sizeof *g, gemm_launch);
    if (!g)
        return SDLORA_ENOMEM;
    want.head = g->head;
    *g = want;
    g->ta = op->n_int > 0 && op->ints[0];
    g->tb = op->n_int > 1 && op->ints[1];
    g->alpha = op->n_real > 0 ? (float)op->reals[0] : 1.0f;
    g->tiling = slr_gemm_tiling(g->m, g->n, g->k);
    choose_blocks(g, op);
    *scratch = 4 * (uint64_t)(env->slots * g->slot_floats);
    *out = &g->head;
    return SDLORA_OK;
}

int slr_matmul_read(slr_product *p, const sdlora_opdesc *op)
{
    slr_require(op->n_in >= 2 && op->n_out == 1);
    const sdlora_tdesc *a = &op->in[IN_A], *b = &op->in[IN_B], *c = &op->out[0];
    const bool ta = op->n_int > 0 && op->ints[0], tb = op->n_int > 1 && op->ints[1];
    slr_require(a->rank >= 2 && b->rank >= 2 && c->rank >= 2);
    *p = (slr_product){
        .m = ta ? last_dim(a) : rows_of(a),
        .k = ta ? rows_of(a) : last_dim(a),
        .n = tb ? rows_of(b) : last_dim(b),
        .ta = ta,
        .tb = tb,
        .has_bias = given(op, IN_BIAS),
        .has_add = given(op, IN_ADD),
        .alpha = op->n_real > 0 ? (float)op->reals[0] : 1.0f,
    };
    const int64_t bk = tb ? last_dim(b) : rows_of(b);
    if (bk != p->k || slr_cpu_count(c) != p->m * p->n || last_dim(c) != p->n ||
        (p->has_bias && slr_cpu_count(&op->in[IN_BIAS]) != p->n) ||
        (p->has_add && slr_cpu_count(&op->in[IN_ADD]) != p->m * p->n))
        return slr_fail(
            SDLORA_EINVAL, __func__,
            "matmul: [%lld,%lld] by [%lld,%lld] does not give the shapes of its operands",
            (long long)p->m, (long long)p->k, (long long)bk, (long long)p->n);
    return SDLORA_OK;
}

static int matmul_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                          const sdlora_opdesc *op)
{
    slr_product p;
    SLR_TRY(check_dense(op, 2));
    SLR_TRY(slr_matmul_read(&p, op));
    const gemm_kernel g = {
        .batch = 1, .m = p.m, .k = p.k, .n = p.n, .has_bias = p.has_bias, .has_add = p.has_add};
    return make(out, scratch, env, op, g);
}

static int bmm_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                       const sdlora_opdesc *op)
{
    slr_require(op->n_in == 2 && op->n_out == 1);
    SLR_TRY(check_dense(op, 3));
    const sdlora_tdesc *a = &op->in[IN_A], *b = &op->in[IN_B], *c = &op->out[0];
    const bool ta = op->n_int > 0 && op->ints[0], tb = op->n_int > 1 && op->ints[1];
    const uint32_t r = a->rank;
    slr_require(b->rank == r && c->rank == r);
    gemm_kernel g = {.batch = 1,
                     .m = a->dim[r - (ta ? 1 : 2)],
                     .k = a->dim[r - (ta ? 2 : 1)],
                     .n = b->dim[r - (tb ? 2 : 1)]};
    bool same = b->dim[r - (tb ? 1 : 2)] == g.k && c->dim[r - 2] == g.m && c->dim[r - 1] == g.n;
    for (uint32_t i = 0; i + 2 < r; i++) {
        g.batch *= a->dim[i];
        same = same && b->dim[i] == a->dim[i] && c->dim[i] == a->dim[i];
    }
    if (!same)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "bmm: %lld products [%lld,%lld,%lld] do not fit the shapes of the operands",
                        (long long)g.batch, (long long)g.m, (long long)g.k, (long long)g.n);
    return make(out, scratch, env, op, g);
}

const slr_cpu_row slr_cpu_rows_gemm[] = {
    {.op = SDLORA_OP_MATMUL, .prepare = matmul_prepare},
    {.op = SDLORA_OP_BMM, .prepare = bmm_prepare},
    {0},
};
