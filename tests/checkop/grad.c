/* SPDX-License-Identifier: MIT */
/* Proves the reference's gradients: each backward operation against central differences of its
 * forward one, both in double. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/ref.h"

enum { ABSENT = -1, NEW = -2, SAMPLES = 24 };

/* Where the forward operation finds its inputs among those of the backward one (NEW: any values of
 * the shape of the backward's output 0), the shapes of its outputs, and which inputs the backward
 * operation's outputs are the gradients of.  dy is input 0, or `dy`. */
static const struct rule {
    uint32_t op, forward;
    int n_in, in[4], out[3], n_grad, wrt[3], dy;
} rules[] = {
    {SDLORA_OP_CONV2D_BX, SDLORA_OP_CONV2D, 2, {NEW, 1}, {0, ABSENT, ABSENT}, 1, {0}, 0},
    {SDLORA_OP_CONV2D_BW, SDLORA_OP_CONV2D, 2, {1, NEW}, {0, ABSENT, ABSENT}, 1, {1}, 0},
    {SDLORA_OP_GROUP_NORM_BX, SDLORA_OP_GROUP_NORM, 3, {1, 2, 3}, {0, 4, 5}, 1, {0}, 0},
    {SDLORA_OP_LAYER_NORM_BX, SDLORA_OP_LAYER_NORM, 3, {1, 2, ABSENT}, {0, 3, 4}, 1, {0}, 0},
    {SDLORA_OP_GROUP_NORM_BW, SDLORA_OP_GROUP_NORM, 3, {1, 2, 3}, {0, 4, 5}, 2, {1, 2}, 0},
    {SDLORA_OP_ATTENTION_B, SDLORA_OP_ATTENTION, 3, {1, 2, 3}, {0, 5, ABSENT}, 3, {0, 1, 2}, 0},
    {SDLORA_OP_ACT_BX, SDLORA_OP_ACT, 1, {1}, {0, ABSENT, ABSENT}, 1, {0}, 0},
    {SDLORA_OP_GEGLU_BX, SDLORA_OP_GEGLU, 1, {1}, {0, ABSENT, ABSENT}, 1, {0}, 0},
    {SDLORA_OP_SLICE_BX, SDLORA_OP_SLICE, 1, {NEW}, {0, ABSENT, ABSENT}, 1, {0}, 0},
    {SDLORA_OP_UPSAMPLE2_BX, SDLORA_OP_UPSAMPLE2, 1, {NEW}, {0, ABSENT, ABSENT}, 1, {0}, 0},
    {SDLORA_OP_EMBED_BW, SDLORA_OP_EMBED, 2, {0, NEW}, {1, ABSENT, ABSENT}, 1, {1}, 1},
    {SDLORA_OP_LOSS_BX, SDLORA_OP_LOSS, 4, {1, 2, 3, 4}, {0, ABSENT, ABSENT}, 1, {0}, 0},
};

typedef struct forward {
    sdlora_opdesc op;
    sdlora_tdesc in[4], out[3];
    double *in_v[4], *out_v[3], *fresh; /* fresh: what NEW made */
    const double *dy;
} forward;

static void forward_init(forward *f, const check_call *c, const struct rule *r)
{
    memset(f, 0, sizeof *f);
    f->op = c->desc;
    f->op.op = r->forward;
    f->op.n_in = (uint32_t)r->n_in;
    f->op.in = f->in;
    f->op.out = f->out;
    f->dy = c->in_v[r->dy];
    for (int i = 0; i < r->n_in; i++) {
        if (r->in[i] == NEW) {
            int64_t n = slr_ref_count(&c->out[0]);
            f->in[i] = c->out[0];
            f->in_v[i] = f->fresh = malloc((size_t)n * sizeof(double));
            for (int64_t k = 0; k < n; k++)
                f->fresh[k] = check_random();
        } else if (r->in[i] != ABSENT) {
            f->in[i] = c->in[r->in[i]];
            f->in_v[i] = c->in_v[r->in[i]];
        }
    }
    f->op.n_out = 0;
    for (int i = 0; i < 3 && r->out[i] != ABSENT; i++, f->op.n_out++) {
        f->out[i] = c->in[r->out[i]];
        f->out_v[i] = malloc((size_t)slr_ref_count(&f->out[i]) * sizeof(double));
    }
}

static void forward_free(forward *f)
{
    free(f->fresh);
    for (int i = 0; i < 3; i++)
        free(f->out_v[i]);
}

/* Sum of dy y. */
static double forward_run(forward *f)
{
    double sum = 0;
    slr_ref_run(&(slr_ref_call){&f->op, (const double *const *)f->in_v, f->out_v});
    for (int64_t i = 0; i < slr_ref_count(&f->out[0]); i++)
        sum += f->dy[i] * f->out_v[0][i];
    return sum;
}

static int check_one(const check_call *c, const struct rule *r, int *n)
{
    forward f;
    int bad = 0;
    forward_init(&f, c, r);
    for (int g = 0; g < r->n_grad; g++) {
        double *x = f.in_v[r->wrt[g]], square = 0;
        if (!x) /* the case leaves it out */
            continue;
        int64_t count = slr_ref_count(&c->out[g]);
        for (int64_t i = 0; i < count; i++)
            square += c->out_v[g][i] * c->out_v[g][i] / (double)count;
        for (int64_t i = 0; i < count; i += 1 + count / SAMPLES) {
            const double h = 1e-5, keep = x[i];
            x[i] = keep + h;
            double up = forward_run(&f);
            x[i] = keep - h;
            double slope = (up - forward_run(&f)) / (2 * h), is = c->out_v[g][i];
            x[i] = keep;
            ++*n;
            /* Differences of sums near 100 lose 1e-14 / h; saved inputs were rounded to f32, which
             * moves exact gradients by up to 1e-6 of their size; kinks of relu and |d| at a corner
             * value give half a slope and are left out. */
            bool kink = fabs(keep) < h;
            if (!kink && !(fabs(slope - is) <= 4e-6 * (fabs(slope) + sqrt(square)) + 1e-8)) {
                printf(
                    "FAIL gradient %s  %s -> %s  output %d at %lld: %.9g, differences give %.9g\n",
                    c->info->name, c->from->in, c->from->out, g, (long long)i, is, slope);
                bad++;
                break;
            }
        }
    }
    forward_free(&f);
    return bad;
}

/* Whether the backward operation has an input that is none of the rule's: what it adds to a
 * gradient, which is no part of the forward operation. */
static bool adds_more(const check_call *c, const struct rule *r)
{
    int last = 0;
    for (int i = 0; i < r->n_in; i++)
        last = r->in[i] > last ? r->in[i] : last;
    for (int i = 0; i < 3; i++)
        last = r->out[i] > last ? r->out[i] : last;
    return (int)c->desc.n_in > last + 1 && c->in[last + 1].dtype;
}

int check_gradients(const char *filter)
{
    int bad = 0, n = 0, cases = 0;
    for (const check_case *from = check_cases; from->op; from++)
        for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) {
            check_call c;
            if (rules[r].op != from->op || from->big || from->refuse ||
                (filter && !strstr(check_op_of(from->op)->name, filter)))
                continue;
            check_call_init(&c, from, false);
            if (!adds_more(&c, &rules[r])) {
                bad += check_one(&c, &rules[r], &n);
                cases++;
            }
            check_call_free(&c);
        }
    printf("gradients of the reference: %d cases, %d differences, %d failures\n", cases, n, bad);
    return bad + (cases == 0);
}
