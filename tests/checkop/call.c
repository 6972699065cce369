/* SPDX-License-Identifier: MIT */
/* Makes calls from cases: reads the notation, fills the operands, asks the reference. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/ref.h"
#include "tensor/dtype.h"

/* --- random numbers: splitmix64 and Box-Muller, so that no part of the library makes its own test
 */

static uint64_t random_state = 1;

static double uniform(void)
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

double check_random(void)
{
    return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform());
}

/* --- the notation */

static void bad_case(const check_case *from, const char *why)
{
    printf("checkop: bad case of operation %u (%s -> %s): %s\n", (unsigned)from->op, from->in,
           from->out, why);
    exit(2);
}

static uint32_t type_of(const char *name)
{
    static const uint32_t types[] = {SDLORA_F32, SDLORA_F16, SDLORA_BF16, SDLORA_I32};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(slr_dtype(types[i])->name, name))
            return types[i];
    return 0;
}

static bool read_word(char *word, sdlora_tdesc *t, bool *frozen)
{
    *t = (sdlora_tdesc){.dtype = SDLORA_F32};
    if (!strcmp(word, "-")) {
        t->dtype = 0;
        return true;
    }
    char *end = word + strlen(word) - 1, *type, *wide;
    if ((*frozen = *end == '!'))
        *end = 0;
    if ((type = strchr(word, ':'))) {
        *type = 0;
        t->dtype = type_of(type + 1);
    }
    if ((wide = strchr(word, '/')))
        *wide++ = 0;
    for (char *p = word; *p && t->rank < SDLORA_MAX_RANK; p += *p == 'x')
        t->dim[t->rank++] = strtoll(p, &p, 10);
    int64_t stride = 1;
    for (uint32_t i = t->rank; i-- > 0; stride *= t->dim[i]) {
        if (wide && i == 1)
            stride = atoll(wide);
        t->stride[i] = stride;
    }
    return t->dtype != 0;
}

static uint32_t read_words(const check_case *from, const char *text, sdlora_tdesc *t, bool *frozen)
{
    char copy[256], *save = NULL;
    uint32_t n = 0;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        bool ice = false;
        if (n == MAX_ARGS || !read_word(w, &t[n], &ice))
            bad_case(from, "cannot read an operand");
        if (frozen)
            frozen[n] = ice;
        n++;
    }
    return n;
}

/* --- contents */

double check_stored(uint32_t dtype, double v)
{
    const slr_dtype_row *row = slr_dtype(dtype);
    unsigned char bytes[8];
    float f = (float)v;
    if (dtype == SDLORA_I32)
        return (double)(int32_t)v;
    row->from_f32(bytes, &f, 1);
    row->to_f32(&f, bytes, 1);
    return f;
}

/* Values that curves are known to bend at. */
static const double corners[] = {0,  -0.0, 1e-30, -1e-30, 0.6249, -0.6251,
                                 20, -20,  88,    -88,    120,    -120};

static double value(const check_call *c, char how, int64_t i)
{
    static const double hyper[] = {1e-3, 0.9, 0.999, 1e-8, 0.01, 0.271, 0.002997001, 0.5};
    double n;
    switch (how) {
    case 'm': /* off centre */
        return 2 + check_random();
    case 'w': /* wide */
        return i < (int64_t)(sizeof corners / sizeof *corners) ? corners[i] : uniform() * 24 - 12;
    case 'p': /* positive */
        return 0.05 + uniform();
    case 's': /* seeds */
        return floor(uniform() * 4294967296.0) - 2147483648.0;
    case 'd': /* square matrices with a heavy diagonal */
        n = (double)c->in[0].dim[2];
        return (i / (int64_t)n % (int64_t)n == i % (int64_t)n ? 2 * sqrt(n) : 0) + check_random();
    case 't': /* time steps */
        return floor(uniform() * 1000);
    case 'i': /* ids into a table that is input 1 or output 0; the first one behind it */
        n = (double)(c->info->op == SDLORA_OP_EMBED ? c->in[1] : c->out[0]).dim[0];
        return c->from->refuse ? n : floor(uniform() * n);
    case 'q': /* quarters, of which many are equal */
        return floor(4 * check_random()) / 4;
    case 'h':
        return hyper[i];
    default:
        return check_random();
    }
}

/* Inputs that a forward pass would have left: mean and rstd, o and lse. */
static void fill_saved(check_call *c)
{
    static const struct {
        uint32_t op, forward;
        int x[3], out[3]; /* where the forward pass finds its inputs, and where its outputs go */
    } rows[] = {
        {SDLORA_OP_GROUP_NORM_BX, SDLORA_OP_GROUP_NORM, {1, 2, 3}, {-1, 4, 5}},
        {SDLORA_OP_LAYER_NORM_BX, SDLORA_OP_LAYER_NORM, {1, 2, -1}, {-1, 3, 4}},
        {SDLORA_OP_GROUP_NORM_BW, SDLORA_OP_GROUP_NORM, {1, 2, 3}, {-1, 4, 5}},
        {SDLORA_OP_LAYER_NORM_BW, SDLORA_OP_LAYER_NORM, {1, -1, -1}, {-1, 2, 3}},
        {SDLORA_OP_ATTENTION_B, SDLORA_OP_ATTENTION, {1, 2, 3}, {4, 5, -1}},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        if (rows[r].op != c->info->op)
            continue;
        const double *in[3];
        double *out[3], *spare = NULL;
        sdlora_tdesc d[3];
        for (int i = 0; i < 3; i++) {
            in[i] = rows[r].x[i] < 0 ? NULL : c->in_v[rows[r].x[i]];
            d[i] = rows[r].x[i] < 0 ? (sdlora_tdesc){0} : c->in[rows[r].x[i]];
            out[i] = rows[r].out[i] < 0 ? NULL : c->in_v[rows[r].out[i]];
        }
        if (!out[0])
            out[0] = spare = malloc((size_t)slr_ref_count(&d[0]) * sizeof *spare);
        sdlora_opdesc op = c->desc;
        op.op = rows[r].forward;
        op.n_in = 3;
        op.in = d;
        slr_ref_run(&(slr_ref_call){&op, in, out});
        free(spare);
    }
}

/* The type whose values operand x gets: backends may round f32 factors beside one in bf16. */
static uint32_t precision(const check_call *c, uint32_t x)
{
    const uint32_t op = c->info->op;
    bool product = op == SDLORA_OP_MATMUL || op == SDLORA_OP_CONV2D || op == SDLORA_OP_CONV2D_BX;
    bool half = c->in[0].dtype == SDLORA_BF16 || c->out[0].dtype == SDLORA_BF16 ||
                (c->in[1].dtype == SDLORA_BF16 && !c->frozen[1]);
    return product && half && x < 2 ? SDLORA_BF16 : c->in[x].dtype;
}

static void fill(check_call *c)
{
    const char *how = c->info->fill;
    for (uint32_t x = 0; x < c->desc.n_in; x++) {
        if (!c->in[x].dtype)
            continue;
        int64_t n = slr_ref_count(&c->in[x]);
        char h = x < strlen(how) ? how[x] : 'n';
        c->in_v[x] = malloc((size_t)n * sizeof(double));
        for (int64_t i = 0; i < n; i++)
            c->in_v[x][i] = check_stored(precision(c, x), h == 'f' ? 0 : value(c, h, i));
    }
    if (c->from->big || c->from->refuse)
        return;
    fill_saved(c);
    for (uint32_t x = 0; x < c->desc.n_in; x++)
        for (int64_t i = 0; c->in_v[x] && i < slr_ref_count(&c->in[x]); i++)
            c->in_v[x][i] = check_stored(c->in[x].dtype, c->in_v[x][i]);
}

/* Moves one side's operands, as the pattern says. */
static void store_bf16(check_call *c, const char *pattern, sdlora_tdesc *t, const bool *frozen,
                       uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        bool moves = *pattern == 'X' || (*pattern == 'x' && !(frozen && frozen[i]));
        if (moves && t[i].dtype == SDLORA_F32) {
            t[i].dtype = SDLORA_BF16;
            c->bf16 = true;
        }
        if (pattern[1] && pattern[1] != '>')
            pattern++;
    }
}

void check_call_init(check_call *c, const check_case *from, bool bf16)
{
    memset(c, 0, sizeof *c);
    random_state = 1;
    c->from = from;
    c->info = check_op_of(from->op);
    if (!c->info)
        bad_case(from, "the operation is not in the list");
    c->desc = (sdlora_opdesc){.struct_size = sizeof(sdlora_opdesc),
                              .op = from->op,
                              .flags = SDLORA_OPF_DETERMINISTIC,
                              .n_in = read_words(from, from->in, c->in, c->frozen),
                              .n_out = read_words(from, from->out, c->out, NULL),
                              .n_real = (uint32_t)c->info->n_real,
                              .in = c->in,
                              .out = c->out,
                              .ints = from->ints,
                              .reals = from->reals};
    if (bf16 && c->info->stored) {
        store_bf16(c, c->info->stored, c->in, c->frozen, c->desc.n_in);
        store_bf16(c, strchr(c->info->stored, '>') + 1, c->out, NULL, c->desc.n_out);
    }
    c->desc.n_int = c->info->n_int < 0 ? c->in[0].rank : (uint32_t)c->info->n_int;
    fill(c);
    if (from->big || from->refuse)
        return;
    for (uint32_t x = 0; x < c->desc.n_out; x++)
        c->out_v[x] = malloc((size_t)slr_ref_count(&c->out[x]) * sizeof(double));
    if (slr_ref_run(&(slr_ref_call){&c->desc, (const double *const *)c->in_v, c->out_v}) < 0)
        bad_case(from, "the reference does not know it");
}

void check_call_free(check_call *c)
{
    for (int x = 0; x < MAX_ARGS; x++) {
        free(c->in_v[x]);
        free(c->out_v[x]);
    }
}
