/* SPDX-License-Identifier: MIT */
/* Where the time of a plan goes, operation by operation.  Lost time is what an operation took
 * beyond what the machine's ceilings allow for its arithmetic and its memory, so the top of the
 * list is where there is something to win.  Knows ceilings; refuses to judge. */
#include "api/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "graph/op.h"
#include "io/json.h"

enum { MAX_OPS = 128, MAX_NODES = 16 };

typedef struct op_sum {
    uint32_t op;
    uint64_t calls;
    double seconds, flops, bytes, lost;
} op_sum;

static int by_lost(const void *a, const void *b)
{
    double x = ((const op_sum *)a)->lost, y = ((const op_sum *)b)->lost;

    return (x < y) - (x > y);
}

static int row_by_seconds(const void *a, const void *b)
{
    double x = ((const slr_plan_profile_row *)a)->seconds;
    double y = ((const slr_plan_profile_row *)b)->seconds;

    return (x < y) - (x > y);
}

/* Seconds beyond the floor: arithmetic and memory at once, whichever takes longer. */
static double lost(const slr_bench *b, const slr_plan_profile_row *row)
{
    double calls = (double)row->calls;
    double floor =
        fmax(row->flops * calls / slr_bench_ceiling(b), row->bytes * calls / b->ceiling.copy);

    return fmax(row->seconds - floor, 0);
}

static size_t sum_by_op(const slr_bench *b, const slr_plan_profile_row *row, size_t n, op_sum *sums)
{
    size_t ops = 0;

    for (size_t i = 0; i < n; i++) {
        size_t k = 0;

        while (k < ops && sums[k].op != row[i].op)
            k++;
        if (k == MAX_OPS)
            continue;
        if (k == ops)
            sums[ops++] = (op_sum){.op = row[i].op};
        sums[k].calls += row[i].calls;
        sums[k].seconds += row[i].seconds;
        sums[k].flops += row[i].flops * (double)row[i].calls;
        sums[k].bytes += row[i].bytes * (double)row[i].calls;
        sums[k].lost += lost(b, &row[i]);
    }
    qsort(sums, ops, sizeof *sums, by_lost);
    return ops;
}

static void put_ops(slr_bench *b, const op_sum *sums, size_t n)
{
    slr_buf_puts(b->out, ",\n     \"ops\": [");
    for (size_t i = 0; i < n; i++)
        slr_buf_printf(b->out,
                       "%s\n      {\"op\": \"%s\", \"calls\": %llu, \"seconds\": %.6f, "
                       "\"lost\": %.6f, \"gflops\": %.1f, \"gbytes\": %.1f, \"share\": %.3f}",
                       i ? "," : "", slr_op_find(sums[i].op)->name,
                       (unsigned long long)sums[i].calls, sums[i].seconds, sums[i].lost,
                       sums[i].flops / sums[i].seconds * 1e-9,
                       sums[i].bytes / sums[i].seconds * 1e-9, 1 - sums[i].lost / sums[i].seconds);
    slr_buf_puts(b->out, "]");
}

static void put_nodes(slr_bench *b, const slr_plan_profile_row *row, size_t n)
{
    slr_buf_puts(b->out, ",\n     \"nodes\": [");
    for (size_t i = 0; i < n && i < MAX_NODES; i++) {
        slr_buf_printf(b->out, "%s\n      {\"name\": ", i ? "," : "");
        slr_json_quote(b->out, row[i].what, strlen(row[i].what), false);
        slr_buf_printf(b->out,
                       ", \"op\": \"%s\", \"seconds\": %.6f, \"gflops\": %.1f, "
                       "\"backend\": \"%s\"}",
                       slr_op_find(row[i].op)->name, row[i].seconds,
                       row[i].flops * (double)row[i].calls / row[i].seconds * 1e-9, row[i].backend);
    }
    slr_buf_puts(b->out, "]");
}

int slr_bench_profile(slr_bench *b, slr_plan *p)
{
    op_sum sums[MAX_OPS];
    double inside = 0;

    slr_plan_profile(p, true);
    double start = slr_clock();
    int rc = slr_plan_run(p, NULL);
    double took = slr_clock() - start;
    slr_plan_profile(p, false);
    SLR_TRY(rc);
    size_t n = slr_plan_profile_rows(p, NULL, 0);
    slr_plan_profile_row *row = slr_calloc(b->ctx->mem, n + 1, sizeof *row);
    if (!row)
        return SDLORA_ENOMEM;
    slr_plan_profile_rows(p, row, n);
    for (size_t i = 0; i < n; i++)
        inside += row[i].seconds;
    slr_buf_printf(b->out, ",\n     \"profiled\": %.6f, \"between_ops_us\": %.2f", took,
                   n ? (took - inside) / (double)n * 1e6 : 0);
    put_ops(b, sums, sum_by_op(b, row, n, sums));
    qsort(row, n, sizeof *row, row_by_seconds);
    put_nodes(b, row, n);
    slr_free(b->ctx->mem, row);
    return SDLORA_OK;
}
