/* SPDX-License-Identifier: MIT */
/* MATCH: which tokens become one (token merging, Bolya and Hoffman 2023).  The best target of each
 * token by a pass over the scores, then the sources that go by a selection over their best scores,
 * which needs no sorting since their order does not matter. */
#include <math.h>

#include "backend/cpu/cpu.h"
#include "base/status.h"

enum { SCORES_PER_PIECE = 1 << 15, DIGITS = 4, BINS = 256 };

typedef struct match_kernel {
    sdlora_kernel head;
    int64_t n, h, w, r, tokens, targets;
} match_kernel;

typedef struct match_job {
    const match_kernel *k;
    const float *scores;
    int32_t *ids;
    uint32_t *key; /* [n, tokens]: the best score, as a number that rises with it */
    int32_t *best; /* [n, tokens]: the target that has it */
} match_job;

/* The number of a target; -1: token i is a source. */
static int64_t target_of(const match_kernel *k, int64_t i)
{
    int64_t y = i / k->w, x = i % k->w, rows = k->h / 2, columns = k->w / 2;
    return y % 2 || x % 2 || y / 2 >= rows || x / 2 >= columns ? -1 : y / 2 * columns + x / 2;
}

static uint32_t key_of(float score)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? ~bits : bits | UINT32_C(1) << 31;
}

/* Items are tokens of all samples. */
static void best_body(void *arg, int64_t lo, int64_t hi)
{
    const match_job *j = arg;
    for (int64_t i = lo; i < hi; i++) {
        const float *row = j->scores + i * j->k->targets;
        float most = -INFINITY;
        int32_t at = 0;
        for (int64_t d = 0; d < j->k->targets; d++)
            if (row[d] > most) {
                most = row[d];
                at = (int32_t)d;
            }
        j->key[i] = key_of(most);
        j->best[i] = at;
    }
}

/* The r-th largest key of a sample's sources, digit by digit from the highest; *equal: how many that
 * are as large belong to those r. */
static uint32_t threshold(const match_kernel *k, const uint32_t *key, int64_t *equal)
{
    uint32_t found = 0, known = 0;
    int64_t left = k->r;
    for (int digit = DIGITS - 1; digit >= 0; digit--) {
        int64_t count[BINS] = {0};
        int bin = BINS - 1, shift = digit * 8;
        for (int64_t i = 0; i < k->tokens; i++)
            if ((key[i] & known) == found && target_of(k, i) < 0)
                count[key[i] >> shift & (BINS - 1)]++;
        for (; bin > 0 && count[bin] < left; bin--)
            left -= count[bin];
        found |= (uint32_t)bin << shift;
        known |= (uint32_t)(BINS - 1) << shift;
    }
    *equal = left;
    return found;
}

static void assign_body(void *arg, int64_t lo, int64_t hi)
{
    const match_job *j = arg;
    const match_kernel *k = j->k;
    for (int64_t n = lo; n < hi; n++) {
        const uint32_t *key = j->key + n * k->tokens;
        int64_t equal, stay = k->tokens - k->targets - k->r, row = n * (k->tokens - k->r);
        uint32_t least = threshold(k, key, &equal);
        int32_t first = (int32_t)(row + stay); /* of the targets */
        for (int64_t i = 0; i < k->tokens; i++) {
            int64_t at = n * k->tokens + i, target = target_of(k, i);
            bool goes = key[i] > least || (key[i] == least && equal > 0);
            if (target < 0 && key[i] == least)
                equal--;
            j->ids[at] = target >= 0 ? first + (int32_t)target
                         : goes      ? first + j->best[at]
                                     : (int32_t)row++;
        }
    }
}

static int match_launch(sdlora_kernel *kernel, const slr_cpu_env *env, void *const *ptr,
                        void *scratch)
{
    const match_kernel *k = (const match_kernel *)kernel;
    match_job j = {k, ptr[0], ptr[1], scratch, NULL};
    int64_t all = k->n * k->tokens, grain = SCORES_PER_PIECE / k->targets;
    j.best = (int32_t *)(j.key + all);
    slr_cpu_parallel(env, all, grain > 0 ? grain : 1, best_body, &j);
    slr_cpu_parallel(env, k->n, 1, assign_body, &j);
    return SDLORA_OK;
}

static int match_prepare(sdlora_kernel **out, uint64_t *scratch, const slr_cpu_env *env,
                         const sdlora_opdesc *op)
{
    const sdlora_tdesc *x = &op->in[0], *ids = &op->out[0];
    int64_t h = op->ints[0], w = op->ints[1], r = op->ints[2];
    if (!slr_cpu_f32(x) || ids->dtype != SDLORA_I32 || !slr_cpu_dense(ids))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "cpu: MATCH takes dense f32 and gives dense i32");
    if (x->rank != 3 || ids->rank != 2 || ids->dim[0] != x->dim[0] || ids->dim[1] != x->dim[1] ||
        x->dim[1] != h * w || x->dim[2] != (h / 2) * (w / 2) || x->dim[2] < 1 || r < 1 ||
        r > x->dim[1] - x->dim[2])
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cpu: MATCH wants scores[N,h*w,(h/2)*(w/2)] and ids[N,h*w]");
    match_kernel *k = slr_cpu_kernel_new(env, sizeof *k, match_launch);
    if (!k)
        return SDLORA_ENOMEM;
    k->n = x->dim[0];
    k->h = h;
    k->w = w;
    k->r = r;
    k->tokens = x->dim[1];
    k->targets = x->dim[2];
    *scratch = (uint64_t)(k->n * k->tokens) * (sizeof(uint32_t) + sizeof(int32_t));
    *out = &k->head;
    return SDLORA_OK;
}

const slr_cpu_row slr_cpu_rows_match[] = {
    {SDLORA_OP_MATCH, .prepare = match_prepare},
    {0},
};
