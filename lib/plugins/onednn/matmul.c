/* SPDX-License-Identifier: MIT */
/* MATMUL: c = alpha op(a) op(b) + bias + add in bf16 or f32.  Work is cut into tiles of rows and
 * columns; when both are few and the inner axis is long (gradients by parameters), the inner axis
 * is cut too, and the f32 partial sums are added in order.  Refuses to know how a tile is computed
 * (exec.c) and how weights are laid out (pack.c). */
#include "matmul.h"

#include <stdatomic.h>
#include <string.h>

#include "convert.h"
#include "exec.h"
#include "operands.h"
#include "pack.h"
#include "turn.h"

enum { ROW_STEP = 16, COL_STEP = 64, CHUNK = 512 };

/* Rows and weights from which on a launch turns the weights of the opposite product instead of
 * holding its own: of SDXL's time that is 1 %, and of its memory 4 GB. */
enum { TURN_ROWS = 1024, TURN_WEIGHTS = 1 << 20 };
typedef struct product_kernel {
    sdlora_kernel head;
    dn_product p;
    uint32_t type, a_type, b_type, add_type, c_type;
    uint32_t out_type; /* of what the library computes */
    bool tiled;        /* columns are cut: the library wants dense results, so they are copied */
    bool has_bias, has_add;
    float *bias; /* frozen: its own copy over alpha */
    int64_t tm, tn, rows, cols, tk, chunks;
    /* [0]: addend in c or absent; [1]: elsewhere.  Then by last row, last column, last chunk. */
    dn_exec *exec[2][2][2][2];
    dn_relay relay;
    dn_pack *pack;
    bool turns;            /* the pack is of b transposed: turned in each launch, into scratch */
    dnnl_memory_t *panels; /* of the pack, by column tile */
    uint64_t at_b, at_turned, at_bias, at_parts, at_slots, slot_bytes,
        tile_bytes; /* offsets into scratch */
} product_kernel;

typedef struct product_job {
    const product_kernel *g;
    const unsigned char *a, *b, *add;
    const float *bias;
    unsigned char *c, *scratch;
    int elsewhere;
    _Atomic int status;
} product_job;

/* --- cutting --- */

/* Enough tiles for many threads, while each is worth a call; of such cuts the one that takes
 * least time. */
static void cut(product_kernel *g)
{
    const dn_product *p = &g->p;
    const double flops = 2.0 * (double)p->m * (double)p->n * (double)p->k;
    const int64_t wished = dn_wished_pieces(flops);
    double best = 0;
    /* the library wants a live b and a transposed a whole */
    const int64_t most_cols = g->relay.from ? dn_min(wished, dn_ceil_div(p->n, COL_STEP)) : 1;
    const int64_t most_rows = p->ta ? 1 : wished;
    for (int64_t i = 1; i <= most_cols; i++)
        for (int64_t j = 1; j <= dn_min(most_rows, dn_ceil_div(wished, i)); j++) {
            const int64_t tn = dn_min(p->n, dn_round_up(dn_ceil_div(p->n, i), COL_STEP));
            const int64_t tm = dn_min(p->m, dn_round_up(dn_ceil_div(p->m, j), ROW_STEP));
            const int64_t cols = dn_ceil_div(p->n, tn), rows = dn_ceil_div(p->m, tm);
            const double uneven =
                (double)(tm * rows) / (double)p->m * (double)(tn * cols) / (double)p->n;
            const double cost =
                dn_plan_seconds(flops * uneven, dn_min(rows * cols, wished), (double)(p->m * p->k),
                                cols) +
                dn_plan_seconds(0, 1, (double)(p->k * p->n), rows) +
                dn_plan_seconds(0, 1, cols > 1 ? 4.0 * (double)(p->m * p->n) : 0, 1);
            if (best != 0 && cost >= best)
                continue;
            best = cost;
            g->tm = tm;
            g->tn = tn;
            g->rows = rows;
            g->cols = cols;
        }
    g->tk = p->k;
    g->chunks = 1;
    if (p->ta && p->k >= 2 * CHUNK && flops / (double)(p->k / CHUNK) > DN_PIECE_FLOPS / 4) {
        g->tk = CHUNK;
        g->chunks = dn_ceil_div(p->k, CHUNK);
        g->cols = 1;
        g->tn = p->n;
    }
    g->tiled = g->cols > 1;
    g->out_type = g->chunks > 1 || (g->tiled && g->add_type == SDLORA_F32) ? SDLORA_F32 : g->c_type;
}

/* --- launching --- */

static void run_tile(void *arg, int64_t piece, int slot)
{
    product_job *job = arg;
    const product_kernel *g = job->g;
    const dn_product *p = &g->p;
    const int64_t col = piece % g->cols, row = piece / g->cols % g->rows;
    const int64_t chunk = piece / g->cols / g->rows;
    const int64_t i = row * g->tm, j = col * g->tn, l = chunk * g->tk;
    const int64_t m = dn_min(g->tm, p->m - i), n = dn_min(g->tn, p->n - j);
    const int64_t size = (int64_t)dn_size(g->type);
    const dn_exec *e =
        g->exec[job->elsewhere][row == g->rows - 1][col == g->cols - 1][chunk == g->chunks - 1];
    unsigned char *slot_data = job->scratch + g->at_slots + (uint64_t)slot * g->slot_bytes;
    unsigned char *c = job->c + (i * p->n + j) * (int64_t)dn_size(g->c_type);
    const unsigned char *add =
        job->add ? job->add + (i * p->n + j) * (int64_t)dn_size(g->add_type) : NULL;
    if (g->tiled && add)
        dn_copy_rows(slot_data, g->out_type, n, add, g->add_type, p->n, m, n);
    dn_operands o = {
        .src = job->a + (p->ta ? l * p->m + i : i * p->k + l) * size,
        .packed = g->panels ? g->panels[col] : NULL,
        .plain = job->b ? job->b + (p->tb ? j * p->k + l : l * p->n + j) * size : NULL,
        .bias = job->bias ? job->bias + j : NULL,
        .add = add,
        .dst = g->tiled ? slot_data : c,
        .scratch = slot_data + g->tile_bytes,
    };
    if (g->chunks > 1)
        o.dst = job->scratch + g->at_parts + (uint64_t)(chunk * p->m * p->n) * 4;
    dnnl_status_t rc = dn_exec_run(e, slot, &o);
    if (rc != dnnl_success)
        atomic_store(&job->status, (int)rc);
    if (g->tiled)
        dn_copy_rows(c, g->c_type, p->n, slot_data, g->out_type, n, m, n);
}

/* Adds the partial sums in their order, then bias and addend; a run of c at a time. */
static void join_range(void *arg, int64_t lo, int64_t hi)
{
    enum { RUN = 256 };
    const product_job *job = arg;
    const product_kernel *g = job->g;
    const int64_t all = g->p.m * g->p.n;
    const float *parts = (const float *)(const void *)(job->scratch + g->at_parts);
    float sum[RUN], add[RUN];
    for (int64_t i = lo; i < hi; i += RUN) {
        const int64_t n = dn_min(RUN, hi - i);
        memcpy(sum, parts + i, (size_t)n * sizeof *sum);
        for (int64_t c = 1; c < g->chunks; c++)
            for (int64_t x = 0; x < n; x++)
                sum[x] += parts[c * all + i + x];
        for (int64_t x = 0; job->bias && x < n; x++)
            sum[x] += g->p.alpha * job->bias[(i + x) % g->p.n];
        if (job->add) {
            dn_convert(add, SDLORA_F32, job->add + i * (int64_t)dn_size(g->add_type), g->add_type,
                       n);
            for (int64_t x = 0; x < n; x++)
                sum[x] += add[x];
        }
        dn_convert(job->c + i * (int64_t)dn_size(g->c_type), g->c_type, sum, SDLORA_F32, n);
    }
}

/* A bias that changes between launches: oneDNN scales it with the product, so divide first. */
static const float *live_bias(const product_kernel *g, const float *bias, unsigned char *scratch)
{
    if (!bias || g->p.alpha == 1.0f)
        return bias;
    float *scaled = (float *)(void *)(scratch + g->at_bias);
    for (int64_t i = 0; i < g->p.n; i++)
        scaled[i] = bias[i] / g->p.alpha;
    return scaled;
}

static int turn_b(const product_kernel *g, unsigned char *scratch)
{
    sdlora_dev *dev = g->head.dev;
    unsigned char *turned = scratch + g->at_turned;
    dn_turn_run(dev, dn_pack_layout(g->pack), &g->relay.to, dn_pack_data(g->pack), turned);
    for (int64_t j = 0; j < g->cols; j++) {
        dnnl_status_t rc = dn_memory_place(g->panels[j], dev->stream,
                                           turned + dn_layout_offset(&g->relay.to, 1, j * g->tn));
        if (rc != dnnl_success)
            return dn_fail_dnnl(dev, rc, "placing turned weights");
    }
    return SDLORA_OK;
}

static int product_launch(sdlora_kernel *head, void *const *ptr, void *scratch)
{
    const product_kernel *g = (const product_kernel *)head;
    const dn_product *p = &g->p;
    product_job job = {
        .g = g,
        .a = ptr[IN_A],
        .b = ptr[IN_B],
        .add = g->has_add ? ptr[IN_ADD] : NULL,
        .c = ptr[head->n_in],
        .scratch = scratch,
    };
    job.bias = g->bias ? g->bias : g->has_bias ? live_bias(g, ptr[IN_BIAS], scratch) : NULL;
    job.elsewhere = job.add && job.add != job.c && !g->tiled && g->chunks == 1;
    if (g->a_type != g->type) {
        dn_convert_all(head->dev, scratch, g->type, job.a, g->a_type, p->m * p->k);
        job.a = scratch;
    }
    if (!g->pack && g->b_type != g->type) {
        unsigned char *b = job.scratch + g->at_b;
        dn_convert_all(head->dev, b, g->type, job.b, g->b_type, p->n * p->k);
        job.b = b;
    }
    if (g->turns)
        DN_TRY(turn_b(g, scratch));
    dn_spread(head->dev, g->rows * g->cols * g->chunks, run_tile, &job);
    if (job.status)
        return dn_fail_dnnl(head->dev, (dnnl_status_t)job.status, "running a product");
    if (g->chunks > 1)
        dn_parallel(head->dev, p->m * p->n, 4096, join_range, &job);
    return SDLORA_OK;
}

/* --- preparing --- */

static void product_free(sdlora_kernel *head)
{
    product_kernel *g = (product_kernel *)head;
    for (int64_t i = 0; g->panels && i < g->cols; i++)
        if (g->panels[i])
            dnnl_memory_destroy(g->panels[i]);
    for (int i = 0; i < 16; i++)
        dn_exec_put(head->dev, g->exec[i >> 3][i >> 2 & 1][i >> 1 & 1][i & 1]);
    dn_pack_put(head->dev, g->pack);
    dn_free(head->dev, g->panels);
    dn_free(head->dev, g->bias);
}

static dn_spec spec_of(const product_kernel *g, int elsewhere, int row, int col, int chunk)
{
    const dn_product *p = &g->p;
    dn_spec s;
    memset(&s, 0, sizeof s);
    s.kind = DN_MATMUL;
    s.type = g->type;
    s.out = g->out_type;
    s.alpha = p->alpha;
    s.ta = p->ta;
    s.b = g->pack || g->relay.from ? DN_B_PACKED : p->tb ? DN_B_TRANS : DN_B_PLAIN;
    s.m = row ? p->m - (g->rows - 1) * g->tm : g->tm;
    s.n = col ? p->n - (g->cols - 1) * g->tn : g->tn;
    s.k = chunk ? p->k - (g->chunks - 1) * g->tk : g->tk;
    s.lda = p->ta ? p->m : p->k;
    s.ldb = p->tb ? p->k : p->n;
    s.ldc = s.n; /* always dense */
    if (g->chunks == 1) {
        s.bias = g->has_bias;
        s.add = !g->has_add ? DN_ADD_NONE : elsewhere ? DN_ADD_ELSEWHERE : DN_ADD_IN_PLACE;
        s.add_type = s.add == DN_ADD_ELSEWHERE ? g->add_type : 0;
    }
    return s;
}

/* Only what can be needed: an addend in c has c's type, and a grid of one row has no other row. */
static int make_execs(product_kernel *g)
{
    const bool joined = g->chunks > 1 || g->tiled; /* the addend is copied or added by hand */
    const bool in_place = !g->has_add || joined || g->add_type == g->c_type;
    g->tile_bytes =
        g->tiled ? (uint64_t)dn_round_up(g->tm * g->tn * (int64_t)dn_size(g->out_type), 64) : 0;
    for (int i = 0; i < 16; i++) {
        const int add = i >> 3, row = i >> 2 & 1, col = i >> 1 & 1, chunk = i & 1;
        if ((add && (!g->has_add || joined)) || (!add && !in_place) || (!row && g->rows == 1) ||
            (!col && g->cols == 1) || (!chunk && g->chunks == 1))
            continue;
        const dn_spec s = spec_of(g, add, row, col, chunk);
        dn_exec **e = &g->exec[add][row][col][chunk];
        DN_TRY(dn_exec_get(e, g->head.dev, &s));
        const uint64_t bytes = g->tile_bytes + dn_exec_scratch(*e);
        g->slot_bytes = bytes > g->slot_bytes ? bytes : g->slot_bytes;
    }
    return SDLORA_OK;
}

static const dn_exec *any_exec(const product_kernel *g, int col)
{
    for (int add = 0; add < 2; add++)
        if (g->exec[add][1][col][1])
            return g->exec[add][1][col][1];
    return NULL;
}

static bool widen(product_kernel *g)
{
    const dn_exec *e = any_exec(g, g->cols == 1);
    if (!dn_layout_widen(&g->relay.to, dn_exec_weights(e), 1, g->p.n))
        return false;
    /* all tiles have to agree on the layout */
    for (int i = 0; i < 16; i++) {
        const dn_exec *other = g->exec[i >> 3][i >> 2 & 1][i >> 1 & 1][i & 1];
        if (!other)
            continue;
        const dn_layout panel = dn_layout_panel(&g->relay.to, 1, dn_exec_weights(other)->dim[1]);
        if (!dn_layout_same(&panel, dn_exec_weights(other)))
            return false;
    }
    return true;
}

static int freeze_b(product_kernel *g, const sdlora_opdesc *op)
{
    sdlora_dev *dev = g->head.dev;
    const dn_product *p = &g->p;
    if (!widen(g))
        return dn_fail(dev, SDLORA_ENOTSUP, "the tiles of a product want different layouts");
    g->relay.count = p->k * p->n;
    g->relay.taps = 1;
    g->relay.strides[0] = p->tb ? 1 : p->n;
    g->relay.strides[1] = p->tb ? p->k : 1;
    g->relay.axis = 1;
    g->pack = dn_pack_find(dev, &op->consts[IN_B], &g->relay, false);
    if (!g->pack && p->m >= TURN_ROWS && p->k * p->n >= TURN_WEIGHTS)
        g->turns = (g->pack = dn_pack_find(dev, &op->consts[IN_B], &g->relay, true)) != NULL;
    if (!g->pack)
        DN_TRY(dn_pack_get(&g->pack, dev, &op->consts[IN_B], &g->relay));
    g->panels = dn_alloc(dev, (size_t)g->cols * sizeof *g->panels);
    if (!g->panels)
        return SDLORA_ENOMEM;
    for (int64_t j = 0; j < g->cols; j++)
        DN_TRY(dn_pack_panel(&g->panels[j], dev, &g->relay, dn_pack_data(g->pack),
                             dn_exec_weights(any_exec(g, j == g->cols - 1)), j * g->tn));
    return SDLORA_OK;
}

int dn_product_prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                       const sdlora_opdesc *op, const dn_product *p)
{
    uint32_t type;
    DN_TRY(dn_choose_type(&type, dev, op));
    const bool frozen = dn_frozen(op, IN_B);
    if (p->m * p->n * p->k == 0 || p->alpha == 0 || dn_product_small(p, type, frozen))
        return dn_fail(dev, SDLORA_ENOTSUP,
                       "the core is faster at a product of [%lld,%lld] by [%lld,%lld]",
                       (long long)p->m, (long long)p->k, (long long)p->k, (long long)p->n);
    product_kernel *g = dn_kernel_new(dev, sizeof *g, product_launch, product_free);
    if (!g)
        return SDLORA_ENOMEM;
    *out = &g->head;
    g->p = *p;
    g->type = type;
    g->a_type = op->in[IN_A].dtype;
    g->b_type = frozen ? type : op->in[IN_B].dtype;
    g->c_type = op->out[0].dtype;
    g->has_bias = dn_given(op, IN_BIAS);
    g->has_add = dn_given(op, IN_ADD);
    g->add_type = g->has_add ? op->in[IN_ADD].dtype : 0;
    g->relay.from = frozen ? op->in[IN_B].dtype : 0;
    cut(g);
    DN_TRY(dn_bias_get(&g->bias, dev, op, IN_BIAS, 1.0f / p->alpha));
    DN_TRY(make_execs(g));
    if (frozen)
        DN_TRY(freeze_b(g, op));
    const int64_t size = (int64_t)dn_size(type);
    dn_reserve(scratch, g->a_type == type ? 0 : p->m * p->k * size);
    g->at_b = dn_reserve(scratch, g->b_type == type ? 0 : p->k * p->n * size);
    g->at_turned = dn_reserve(scratch, g->turns ? dn_layout_bytes(&g->relay.to) : 0);
    g->at_bias = dn_reserve(scratch, g->has_bias && !g->bias ? p->n * 4 : 0);
    g->at_parts = dn_reserve(scratch, g->chunks > 1 ? g->chunks * p->m * p->n * 4 : 0);
    g->at_slots = dn_reserve(scratch, (int64_t)g->slot_bytes * dev->slots);
    return SDLORA_OK;
}

static int matmul_prepare(sdlora_kernel **out, uint64_t *scratch, sdlora_dev *dev,
                          const sdlora_opdesc *op)
{
    if (op->n_in < 2 || op->n_out != 1 || op->in[IN_A].rank < 2 || op->in[IN_B].rank < 2)
        return dn_fail(dev, SDLORA_EINVAL, "matmul: wants two factors of rank 2 and one result");
    const sdlora_tdesc *a = &op->in[IN_A], *b = &op->in[IN_B], *c = &op->out[0];
    const int64_t ac = dn_last(a), ar = ac ? dn_count(a) / ac : 0;
    const int64_t bc = dn_last(b), br = bc ? dn_count(b) / bc : 0;
    dn_product p = {
        .ta = op->n_int > 0 && op->ints[0],
        .tb = op->n_int > 1 && op->ints[1],
        .alpha = op->n_real > 0 ? (float)op->reals[0] : 1.0f,
    };
    p.m = p.ta ? ac : ar;
    p.k = p.ta ? ar : ac;
    p.n = p.tb ? br : bc;
    if ((p.tb ? bc : br) != p.k || dn_last(c) != p.n || dn_count(c) != p.m * p.n ||
        (dn_given(op, IN_BIAS) && dn_count(&op->in[IN_BIAS]) != p.n) ||
        (dn_given(op, IN_ADD) && dn_count(&op->in[IN_ADD]) != p.m * p.n))
        return dn_fail(
            dev, SDLORA_EINVAL,
            "matmul: [%lld,%lld] by [%lld,%lld] does not give the shapes of its operands",
            (long long)p.m, (long long)p.k, (long long)(p.tb ? bc : br), (long long)p.n);
    return dn_product_prepare(out, scratch, dev, op, &p);
}

const dn_row dn_rows_matmul[] = {
    {.op = SDLORA_OP_MATMUL, .prepare = matmul_prepare},
    {0},
};
