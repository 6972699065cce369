/* SPDX-License-Identifier: MIT */
/* ATTENTION (f32 and bf16) and ATTENTION_B (bf16) of the oneDNN plugin against the plain version in
 * double precision: odd sizes, thin and strided operands, masks, large scores; and the same bytes
 * for 1, 2 and 3 threads.  Arguments: the plugin's directory, and any other for figures.  77 where
 * it can not run. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/ref.h"
#include "backend/registry.h"
#include "base/cpu.h"
#include "base/status.h"
#include "tensor/dtype.h"

enum {
    SKIP = 77,
    GUARD = 64,
    MAX_OPERANDS = 9,
    SMALL = 1 << 19, /* multiply-adds up to which f32 is left to the built-in kernel */
    TINY = 16 * 16   /* scores of a head up to which both types are */
};

typedef struct attention_case {
    int64_t n, tq, tk, heads, d;
    int causal;
    int64_t row; /* elements from row to row of q, k, v; 0: dense */
    double size; /* of q and k; 0: 1 */
} attention_case;

static const attention_case cases[] = {
    {1, 1, 1, 1, 1, 0, 0, 0},
    {1, 1, 1, 1, 4, 0, 0, 0},
    {2, 9, 9, 3, 7, 0, 0, 0},
    {1, 64, 64, 8, 4, 0, 0, 0},
    {2, 150, 140, 3, 7, 0, 0, 0},
    {3, 33, 35, 5, 33, 0, 0, 0},
    {1, 257, 255, 2, 80, 0, 0, 0},
    {1, 64, 64, 1, 160, 0, 0, 0},
    {1, 70, 33, 1, 512, 0, 0, 0},
    /* few scores and many heads: the last that are declined, and the first that are not */
    {4, 4, 4, 8, 16, 0, 0, 0},
    {4, 16, 16, 8, 16, 0, 0, 0},
    {4, 16, 17, 8, 16, 0, 0, 0},
    {4, 4, 77, 8, 16, 0, 0, 0},
    /* pictures see texts; one query, one key, and one key over a whole block */
    {1, 129, 77, 2, 40, 0, 0, 0},
    {1, 1100, 77, 2, 40, 0, 0, 0},
    {1, 1, 4095, 2, 40, 0, 0, 0},
    {1, 517, 1, 2, 72, 0, 0, 0},
    {1, 77, 513, 1, 40, 0, 0, 0},
    /* two groups of keys */
    {1, 140, 1500, 1, 16, 0, 0, 0},
    /* masks, within blocks and across them */
    {2, 77, 77, 4, 8, .causal = 1},
    {1, 77, 77, 2, 64, .causal = 1},
    {1, 600, 600, 2, 40, .causal = 1},
    /* columns of one tensor */
    {2, 70, 70, 1, 40, .row = 120},
    {2, 131, 131, 3, 21, .causal = 1, .row = 190},
    /* scores of +-1e4 */
    {1, 90, 300, 2, 40, .size = 60},
};

/* An operand: what the plain version sees, and the bytes. */
typedef struct operand {
    sdlora_tdesc desc;
    double *v;
    unsigned char *base, *data; /* guard bytes before and behind */
    size_t bytes;
} operand;

static int64_t place(const sdlora_tdesc *t, int64_t i)
{
    int64_t at = 0;
    for (uint32_t x = t->rank; x-- > 0; i /= t->dim[x])
        at += i % t->dim[x] * t->stride[x];
    return at;
}

static double normal(void)
{
    static uint64_t state = 88172645463325252u;
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        sum += (double)(state >> 11) / 9007199254740992.0;
    }
    return sum - 6;
}

static unsigned char *guarded(size_t bytes)
{
    const size_t whole = (bytes + 2 * GUARD + 63) / 64 * 64;
    unsigned char *p = aligned_alloc(64, whole);
    memset(p, 0xA5, whole);
    memset(p + GUARD, 0xFF, bytes); /* NaNs: what is read without being written shows */
    return p;
}

static bool guards_whole(const unsigned char *base, size_t bytes)
{
    for (size_t i = 0; i < GUARD; i++)
        if (base[i] != 0xA5 || base[GUARD + bytes + i] != 0xA5)
            return false;
    return true;
}

/* [a,b,c] with rows `row` elements apart, of random values times `size`, rounded to the type. */
static operand make(uint32_t type, int64_t a, int64_t b, int64_t c, int64_t row, double size)
{
    operand o = {.desc = {.dtype = type, .rank = 3, .dim = {a, b, c}}};
    row = row ? row : c;
    o.desc.stride[0] = b * row;
    o.desc.stride[1] = row;
    o.desc.stride[2] = 1;
    const slr_dtype_row *t = slr_dtype(type);
    const int64_t n = a * b * c;
    o.bytes = (size_t)(place(&o.desc, n - 1) + 1) * t->size;
    o.base = guarded(o.bytes);
    o.data = o.base + GUARD;
    o.v = calloc((size_t)n, sizeof *o.v);
    for (int64_t i = 0; i < n; i++) {
        float f = (float)(normal() * size);
        unsigned char *p = o.data + (size_t)place(&o.desc, i) * t->size;
        t->from_f32(p, &f, 1);
        t->to_f32(&f, p, 1);
        o.v[i] = (double)f;
    }
    return o;
}

/* The values, rounded to the type, into the bytes and back. */
static void encode(operand *o)
{
    const slr_dtype_row *t = slr_dtype(o->desc.dtype);
    for (int64_t i = 0; i < slr_ref_count(&o->desc); i++) {
        float f = (float)o->v[i];
        t->from_f32(o->data + (size_t)i * t->size, &f, 1);
        t->to_f32(&f, o->data + (size_t)i * t->size, 1);
        o->v[i] = (double)f;
    }
}

static void drop(operand *o)
{
    free(o->v);
    free(o->base);
}

/* Largest |error| in units of rel * (|wanted| + rms of what is wanted + floor). */
static double error_of(const operand *o, const unsigned char *got, double rel, double floor)
{
    const slr_dtype_row *t = slr_dtype(o->desc.dtype);
    const int64_t n = slr_ref_count(&o->desc);
    double square = 0, worst = 0;
    for (int64_t i = 0; i < n; i++)
        square += o->v[i] * o->v[i] / (double)n;
    for (int64_t i = 0; i < n; i++) {
        float f;
        t->to_f32(&f, got + (size_t)i * t->size, 1);
        const double off =
            fabs((double)f - o->v[i]) / (rel * (fabs(o->v[i]) + sqrt(square) + floor));
        worst = !(off <= worst) ? off : worst; /* a NaN is the worst */
    }
    return worst;
}

/* --- one call --- */

typedef struct call {
    sdlora_opdesc desc;
    operand x[MAX_OPERANDS];
    int64_t ints[2];
    double reals[1];
    bool declined; /* must be */
} call;

static void describe(call *c, sdlora_tdesc *descs, uint32_t op, uint32_t n_in, uint32_t n_out)
{
    for (uint32_t i = 0; i < n_in + n_out; i++)
        descs[i] = c->x[i].desc;
    c->desc = (sdlora_opdesc){.struct_size = sizeof c->desc,
                              .op = op,
                              .flags = SDLORA_OPF_DETERMINISTIC,
                              .n_in = n_in,
                              .n_out = n_out,
                              .n_int = 2,
                              .n_real = 1,
                              .in = descs,
                              .out = descs + n_in,
                              .ints = c->ints,
                              .reals = c->reals};
}

/* The outputs' values become what the plain version gives. */
static void reference(call *c)
{
    const double *in[MAX_OPERANDS];
    double *out[MAX_OPERANDS];
    for (uint32_t i = 0; i < c->desc.n_in; i++)
        in[i] = c->x[i].v;
    for (uint32_t i = 0; i < c->desc.n_out; i++)
        out[i] = c->x[c->desc.n_in + i].v;
    slr_ref_run(&(slr_ref_call){.op = &c->desc, .in = in, .out = out});
}

static size_t plugin_of(const slr_devices *d)
{
    for (size_t i = 0; i < slr_devices_count(d); i++)
        if (!strcmp(slr_devices_backend(d, i)->name, "onednn"))
            return i;
    return SIZE_MAX;
}

/* Runs it into copies of the outputs, twice with one kernel.  Gives 0, or a code. */
static int run_on(slr_devices *d, const call *c, unsigned char *const *out)
{
    const size_t at = plugin_of(d);
    const sdlora_backend *b = slr_devices_backend(d, at);
    const uint32_t n = c->desc.n_in + c->desc.n_out;
    sdlora_arg args[MAX_OPERANDS];
    sdlora_kernel *k = NULL;
    uint64_t bytes = 0;
    int rc = b->prepare(&k, &bytes, slr_devices_dev(d, at), &c->desc);
    if (rc < 0)
        return rc;
    unsigned char *scratch = guarded(bytes);
    for (uint32_t i = 0; i < n; i++)
        args[i] = (sdlora_arg){.mem = (sdlora_mem *)(void *)(i < c->desc.n_in
                                                                 ? c->x[i].data
                                                                 : out[i - c->desc.n_in] + GUARD)};
    for (int run = 0; run < 2 && rc >= 0; run++) {
        for (uint32_t i = c->desc.n_in; i < n; i++)
            memset(out[i - c->desc.n_in] + GUARD, 0xFF, c->x[i].bytes);
        rc = b->launch(slr_devices_queue(d, at), k, args, n,
                       (sdlora_arg){.mem = (sdlora_mem *)(void *)(scratch + GUARD)});
    }
    b->kernel_free(k);
    bool whole = guards_whole(scratch, bytes);
    for (uint32_t i = 0; i < n; i++)
        whole = whole && guards_whole(i < c->desc.n_in ? c->x[i].base : out[i - c->desc.n_in],
                                      c->x[i].bytes);
    free(scratch);
    return rc < 0 ? rc : whole ? SDLORA_OK : SDLORA_EINVAL;
}

static bool talk; /* says how far off each result is */

/* rel: per output. */
static int check(slr_devices *const *d, const call *c, const char *name, const double *rel,
                 double floor)
{
    unsigned char *out[3][3] = {{0}};
    const uint32_t n_in = c->desc.n_in, n_out = c->desc.n_out;
    int bad = 0;
    for (int t = 0; t < 3; t++) {
        for (uint32_t i = 0; i < n_out; i++)
            out[t][i] = guarded(c->x[n_in + i].bytes);
        int rc = run_on(d[t], c, out[t]);
        if (c->declined) {
            bad += rc != SDLORA_ENOTSUP;
            if (rc != SDLORA_ENOTSUP)
                printf("FAIL %s: not declined but %d\n", name, rc);
        } else if (rc < 0) {
            printf("FAIL %s: %d threads: %d, %s\n", name, t + 1, rc,
                   rc == SDLORA_EINVAL ? "guard bytes changed, or refused"
                                       : sdlora_last_error()->message);
            bad++;
        }
        for (uint32_t i = 0; t && !c->declined && i < n_out; i++)
            if (memcmp(out[0][i], out[t][i], c->x[n_in + i].bytes + 2 * GUARD) != 0) {
                printf("FAIL %s: output %u has other bytes with %d threads\n", name, i, t + 1);
                bad++;
            }
    }
    for (uint32_t i = 0; !c->declined && i < n_out; i++) {
        const double e = error_of(&c->x[n_in + i], out[0][i] + GUARD, rel[i], floor);
        if (!(e <= 1)) {
            printf("FAIL %s: output %u is off by %.2f of what is allowed\n", name, i, e);
            bad++;
        } else if (talk) {
            printf("%s: output %u is off by %.2f of what is allowed\n", name, i, e);
        }
    }
    for (int t = 0; t < 3; t++)
        for (uint32_t i = 0; i < n_out; i++)
            free(out[t][i]);
    return bad;
}

/* --- cases --- */

static int check_case(slr_devices *const *d, const attention_case *s, uint32_t type)
{
    const int64_t c = s->heads * s->d;
    const double size = s->size > 0 ? s->size : 1;
    const bool bf16 = type == SDLORA_BF16;
    sdlora_tdesc descs[MAX_OPERANDS];
    char name[128];
    call f = {.ints = {s->heads, s->causal},
              .reals = {1 / sqrt((double)s->d)},
              .declined = s->tq * s->tk <= TINY || (!bf16 && s->n * c * s->tq * s->tk <= SMALL)};
    f.x[0] = make(type, s->n, s->tq, c, s->row, size);
    f.x[1] = make(type, s->n, s->tk, c, s->row, size);
    f.x[2] = make(type, s->n, s->tk, c, s->row, 1);
    f.x[3] = make(type, s->n, s->tq, c, 0, 1);
    f.x[4] = make(SDLORA_F32, s->n, s->heads, s->tq, 0, 1);
    describe(&f, descs, SDLORA_OP_ATTENTION, 3, 2);
    reference(&f);
    double top = 0; /* of the scores, nearly */
    for (int64_t i = 0; i < s->n * s->heads * s->tq; i++)
        top = fmax(top, fabs(f.x[4].v[i]));
    /* bf16: probabilities and results are rounded, 2^-9 each, and the first rows of a causal result
     * are larger than the rms; f32: sums of 2^-24 each, and of 2^x.  A score near `top` has an
     * error of a few 2^-24 of that itself. */
    const double near = 8 * 0x1p-24 * top, rel[2] = {(bf16 ? 0x1p-6 : 2e-6) + near, 4e-6};
    snprintf(name, sizeof name, "attention %s [%d,%d,%d,%d] d %d%s row %d", bf16 ? "bf16" : "f32",
             (int)s->n, (int)s->heads, (int)s->tq, (int)s->tk, (int)s->d,
             s->causal ? " causal" : "", (int)s->row);
    int bad = check(d, &f, name, rel, 0);

    call b = {.ints = {f.ints[0], f.ints[1]}, .reals = {f.reals[0]}, .declined = !bf16};
    b.x[0] = make(type, s->n, s->tq, c, 0, 1);
    for (int i = 0; i < 5; i++)
        b.x[1 + i] = f.x[i];
    encode(&b.x[4]);
    encode(&b.x[5]);
    b.x[6] = make(type, s->n, s->tq, c, 0, 1);
    b.x[7] = make(type, s->n, s->tk, c, 0, 1);
    b.x[8] = make(type, s->n, s->tk, c, 0, 1);
    describe(&b, descs, SDLORA_OP_ATTENTION_B, 6, 3);
    reference(&b);
    /* where one key takes all, the gradient is a difference of equal numbers of the operands' size
     */
    const bool one_hot = s->tk == 1 || s->size > 0;
    /* dS is rounded too, and is a difference of two numbers with errors of their own; under a mask
     * the first keys' gradients are larger than the rms */
    const double back = (s->causal ? 0x1p-5 : 0x1p-6) + 4 * near, rels[3] = {back, back, back};
    snprintf(name, sizeof name, "gradient %s [%d,%d,%d,%d] d %d%s row %d", bf16 ? "bf16" : "f32",
             (int)s->n, (int)s->heads, (int)s->tq, (int)s->tk, (int)s->d,
             s->causal ? " causal" : "", (int)s->row);
    bad += check(d, &b, name, rels, one_hot ? size : 0);
    for (int i = 0; i < MAX_OPERANDS; i++)
        drop(&b.x[i]);
    return bad;
}

/* A NaN in one query spoils its row and nothing else. */
static int check_nan(slr_devices *const *d, uint32_t type)
{
    enum { T = 90, C = 120, ROW = 17 };
    const slr_dtype_row *row = slr_dtype(type);
    const float nan = NAN;
    sdlora_tdesc descs[MAX_OPERANDS];
    unsigned char *out[2][2];
    call f = {.ints = {1, 0}, .reals = {0.1}};
    int bad = 0;
    for (int i = 0; i < 4; i++)
        f.x[i] = make(type, 1, T, C, 0, 1);
    f.x[4] = make(SDLORA_F32, 1, 1, T, 0, 1);
    describe(&f, descs, SDLORA_OP_ATTENTION, 3, 2);
    for (int run = 0; run < 2; run++) {
        out[run][0] = guarded(f.x[3].bytes);
        out[run][1] = guarded(f.x[4].bytes);
        bad += run_on(d[1], &f, out[run]) < 0;
        row->from_f32(f.x[0].data + (ROW * C + 3) * row->size, &nan, 1);
    }
    for (int64_t i = 0; i < T * C; i++) {
        const size_t at = GUARD + (size_t)i * row->size;
        float o;
        row->to_f32(&o, out[1][0] + at, 1);
        bad += i / C == ROW ? !isnan(o) : memcmp(out[0][0] + at, out[1][0] + at, row->size) != 0;
    }
    if (bad)
        printf("FAIL a NaN in one query: %d values\n", bad);
    for (int i = 0; i < 4; i++)
        free(out[i / 2][i % 2]);
    for (int i = 0; i < 5; i++)
        drop(&f.x[i]);
    return bad;
}

int main(int argc, char **argv)
{
    slr_devices *d[3] = {0};
    int bad = 0;
    talk = argc > 2;
    for (int t = 0; t < 3; t++) {
        slr_devices_config config = {.threads = t + 1,
                                     .cpu_features = slr_cpu_features(),
                                     .backend = "onednn",
                                     .plugin_path = argc > 1 ? argv[1] : NULL};
        if (!(slr_cpu_features() & SLR_CPU_AVX512) || slr_devices_open(&d[t], &config) < 0 ||
            plugin_of(d[t]) == SIZE_MAX) {
            puts("no oneDNN plugin, or no AVX-512");
            return SKIP;
        }
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bad += check_case(d, &cases[i], SDLORA_F32);
        if (slr_cpu_features() & SLR_CPU_AVX512_BF16)
            bad += check_case(d, &cases[i], SDLORA_BF16);
    }
    bad += check_nan(d, SDLORA_F32);
    if (slr_cpu_features() & SLR_CPU_AVX512_BF16)
        bad += check_nan(d, SDLORA_BF16);
    for (int t = 0; t < 3; t++)
        slr_devices_unref(d[t]);
    return bad != 0;
}
