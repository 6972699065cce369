/* SPDX-License-Identifier: MIT */
/* Inside the room: what the files of the benchmark share. */
#ifndef SLR_API_BENCH_H
#define SLR_API_BENCH_H

#include "api/api.h"
#include "base/str.h"
#include "graph/exec.h"
#include "graph/policy.h"

/* What this machine can do: the best of a few shapes, in operations and bytes a second. */
typedef struct slr_ceilings {
    double gemm[2], conv[2]; /* by storage: f32, bf16 (0: not measured) */
    double copy;             /* bytes read plus bytes written */
} slr_ceilings;

enum { SLR_CEILING_F32 = 0, SLR_CEILING_BF16 = 1 };

typedef struct slr_bench {
    sdlora_context *ctx;
    slr_checkpoint *base;
    slr_opt o;
    slr_policy policy;
    int64_t n, h, w; /* batch and latent size */
    int repeats;
    bool profile;
    slr_ceilings ceiling; /* measured before the parts and, in part, again after each */
    slr_buf *out;
    bool any; /* a part was written already */
    slr_api_watch *watch;
} slr_bench;

/* Reports progress; ECANCELED when the caller wants to stop.  phase: static text. */
int slr_bench_tell(const slr_bench *b, const char *phase, int done, int total);
/* Runs once to warm up, then `repeats` times. */
int slr_bench_time(const slr_bench *b, const char *phase, slr_plan *p, int repeats, double *best,
                   double *median);

/* bench_machine.c: fills b->ceiling and writes the row of the machine. */
int slr_bench_machine(slr_bench *b);
/* Measures one product again: other work on the machine comes and goes. */
int slr_bench_machine_again(slr_bench *b);
/* The rate that shares are taken of: the best product or convolution in the policy's storage. */
double slr_bench_ceiling(const slr_bench *b);

/* bench_profile.c: one profiled run; operations and the slowest nodes, by the time that was lost
 * to the machine's ceilings. */
int slr_bench_profile(slr_bench *b, slr_plan *p);

#endif
