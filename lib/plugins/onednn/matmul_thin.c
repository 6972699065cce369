/* SPDX-License-Identifier: MIT */
/* MATMUL of a transposed bf16 factor by another where one of them has few columns: gradients of a
 * network's factors.  Rows are cut into chunks and wide columns into panels, by the shape alone;
 * sums of chunks are added in their order.  Takes f32 results without bias and addend. */
#include <string.h>

#include "operands.h"
#include "thin.h"

enum { CHUNK = 512, PANEL = 64 };

typedef struct thin_kernel {
    sdlora_kernel head;
    dn_thin whole; /* of which a piece is a part; addresses come with a launch */
    uint32_t thin_in;
    int64_t chunks, panels, panel; /* columns of a panel */
    uint64_t at_slots, slot_bytes; /* scratch: [chunks][m,n] sums unless there is one, then slots */
} thin_kernel;

typedef struct thin_job {
    const thin_kernel *k;
    const uint16_t *thin, *wide;
    float *c, *parts;
    unsigned char *slots;
} thin_job;

static void run_piece(void *arg, int64_t piece, int slot)
{
    const thin_job *job = arg;
    const thin_kernel *k = job->k;
    const int64_t chunk = piece / k->panels, j = piece % k->panels * k->panel, t0 = chunk * CHUNK;
    dn_thin t = k->whole;
    t.thin = job->thin + t0 * t.thin_ld;
    t.wide = job->wide + t0 * t.wide_ld + j;
    t.rows = k->chunks > 1 ? dn_min(CHUNK, t.rows - t0) : t.rows;
    t.c = job->parts + chunk * t.r * t.n + (t.turned ? j * t.c_ld : j);
    t.n = dn_min(k->panel, t.n - j);
    dn_thin_run(&t, job->slots + (uint64_t)slot * k->slot_bytes);
}

static void join_range(void *arg, int64_t lo, int64_t hi)
{
    const thin_job *job = arg;
    const int64_t all = job->k->whole.r * job->k->whole.n;
    memcpy(job->c + lo, job->parts + lo, (size_t)(hi - lo) * sizeof *job->c);
    for (int64_t chunk = 1; chunk < job->k->chunks; chunk++)
        for (int64_t i = lo; i < hi; i++)
            job->c[i] += job->parts[chunk * all + i];
}

static int thin_launch(sdlora_kernel *head, void *const *ptr, void *scratch)
{
    const thin_kernel *k = (const thin_kernel *)head;
    thin_job job = {
        .k = k,
        .thin = ptr[k->thin_in],
        .wide = ptr[1 - k->thin_in],
        .c = ptr[head->n_in],
        .parts = k->chunks > 1 ? scratch : ptr[head->n_in],
        .slots = (unsigned char *)scratch + k->at_slots,
    };
    dn_spread(head->dev, k->chunks * k->panels, run_piece, &job);
    if (k->chunks > 1)
        dn_parallel(head->dev, k->whole.r * k->whole.n, 4096, join_range, &job);
    return SDLORA_OK;
}

/* Pieces that are worth a call: chunks of rows first, then panels of columns. */
static void cut(thin_kernel *k)
{
    const dn_thin *t = &k->whole;
    k->chunks = t->rows >= 2 * CHUNK ? dn_ceil_div(t->rows, CHUNK) : 1;
    const double flops = 2.0 * (double)t->r * (double)t->n * (double)t->rows;
    const int64_t wished = dn_ceil_div(dn_wished_pieces(flops), k->chunks);
    k->panel = dn_min(t->n, dn_round_up(dn_ceil_div(t->n, wished), PANEL));
    k->panels = dn_ceil_div(t->n, k->panel);
}

static int decline(const sdlora_dev *dev)
{
    return dn_fail(dev, SDLORA_ENOTSUP, "not a gradient by a thin factor in bf16");
}

static int thin_prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                        const sdlora_opdesc *op)
{
    const sdlora_tdesc *a = &op->in[IN_A], *b = &op->in[IN_B];
    if (op->n_in < 2 || op->n_out != 1 || op->n_int < 2 || !op->ints[0] || op->ints[1] ||
        !(dev->features & DN_CPU_AVX512_BF16) || a->dtype != SDLORA_BF16 ||
        b->dtype != SDLORA_BF16 || op->out[0].dtype != SDLORA_F32 || !dn_dense(a) || !dn_dense(b) ||
        !dn_dense(&op->out[0]) || dn_frozen(op, IN_A) || dn_frozen(op, IN_B))
        return decline(dev);
    for (uint32_t i = 2; i < op->n_in; i++)
        if (dn_given(op, i))
            return decline(dev);
    const int64_t m = dn_last(a), n = dn_last(b), r = dn_min(m, n), rows = m ? dn_count(a) / m : 0;
    if (rows == 0 || r == 0 || r > DN_THIN_MOST || n * rows != dn_count(b) ||
        dn_count(&op->out[0]) != m * n)
        return decline(dev);
    thin_kernel *k = dn_kernel_new(dev, sizeof *k, thin_launch, NULL);
    if (!k)
        return SDLORA_ENOMEM;
    *out = &k->head;
    k->thin_in = m == r ? IN_A : IN_B;
    k->whole = (dn_thin){.thin_ld = r,
                         .wide_ld = m == r ? n : m,
                         .rows = rows,
                         .r = r,
                         .n = m == r ? n : m,
                         .alpha = op->n_real ? (float)op->reals[0] : 1.0f,
                         .turned = m != r,
                         .c_ld = n};
    cut(k);
    k->slot_bytes = (uint64_t)dn_round_up(dn_thin_bytes(r, k->panel), 64);
    dn_reserve(scratch, k->chunks > 1 ? k->chunks * m * n * 4 : 0);
    k->at_slots = dn_reserve(scratch, (int64_t)k->slot_bytes * dev->slots);
    return SDLORA_OK;
}

const dn_row dn_rows_matmul_thin[] = {
    {.op = SDLORA_OP_MATMUL, .prepare = thin_prepare},
    {0},
};
