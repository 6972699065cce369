/* SPDX-License-Identifier: MIT */
/* Checks and benches backends, operation by operation, from one table of cases (cases.c).
 *
 * A case is an operation with its operands in a small notation, one word per operand:
 *     2x8x8x32          a dense f32 tensor          77:i32   another type
 *     2x16x24/72        axis 1 is 72 elements wide  320:f16! frozen
 *     -                 an absent input
 * Each case runs once as it stands and, where its operation has a `stored` pattern, once more with
 * activations in bf16. */
#ifndef CHECKOP_CHECK_H
#define CHECKOP_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include <sdlora/backend.h>

enum { MAX_ARGS = 8, MAX_INTS = 12, MAX_REALS = 2 };

typedef struct check_case {
    uint32_t op;
    const char *in, *out;
    int64_t ints[MAX_INTS];
    double reals[MAX_REALS];
    int alias[3]; /* output i shares memory with input alias[i] - 1; 0: it does not */
    bool big;     /* for --bench only: the reference would take minutes */
    int refuse;   /* the code with which preparing or launching has to fail */
} check_case;

extern const check_case check_cases[]; /* ends with op 0 */

/* How exact an operation has to be: |error| <= rel (|reference| + rms(reference)) + floor, and
 * half a unit in the last place of the reference more where the output is bf16.  What is EXACT has
 * to be the reference rounded to its output's type. */
enum { EXACT, ROUNDED, FUNCTION, SUMMED, PRODUCT, N_CLASSES };
typedef struct check_room {
    double rel, floor;
    double bf16; /* added to rel where activations are bf16 */
} check_room;
extern const check_room check_tolerance[N_CLASSES];

/* What holds for all cases of an operation. */
typedef struct check_op {
    uint32_t op;
    const char *name;
    int class;
    int n_int, n_real; /* n_int -1: the rank of input 0 */
    const char *fill;  /* per input: how it is filled (run.c); missing: 'n' */
    /* Floating-point operations for --bench; NULL: bytes are counted instead. */
    double (*flops)(const sdlora_opdesc *op);
    /* Which operands the second run stores in bf16, per input, then '>', then per output: 'x' moves
     * one unless it is frozen or has a type of its own, 'X' frozen ones too.  The last letter of a
     * side goes for the rest.  NULL: the operation knows f32 only. */
    const char *stored;
} check_op;

const check_op *check_op_of(uint32_t op);

/* A parsed and filled case. */
typedef struct check_call {
    const check_case *from;
    const check_op *info;
    sdlora_opdesc desc;
    sdlora_tdesc in[MAX_ARGS], out[MAX_ARGS];
    bool frozen[MAX_ARGS];
    sdlora_const consts[MAX_ARGS];
    double *in_v[MAX_ARGS], *out_v[MAX_ARGS]; /* dense; out_v: the reference's results */
    bool bf16;                                /* some operand was moved to that type */
} check_call;

/* Parses, fills, and runs the reference unless the case is big or wrong; bf16: as the second run.
 * Ends the program on a bad row. */
void check_call_init(check_call *c, const check_case *from, bool bf16);
void check_call_free(check_call *c);

double check_random(void); /* a normal deviate; the same sequence in each run */

/* Checks and benches go to the backend `name` of a plugin directory instead of the CPU's.  What it
 * declines is not its case.  false: it is not there, or switched off on this processor. */
bool check_use_plugin(const char *name, const char *dir);

/* Number of failures, each with a line on standard output. */
int check_backends(const char *mask, const char *filter);
int check_gradients(const char *filter);
int check_curves(const char *mask);
int check_bench(const char *mask, const char *filter, int threads, bool bf16);

/* What the storage type makes of a value. */
double check_stored(uint32_t dtype, double v);

#endif
