/* SPDX-License-Identifier: MIT */
/* What every shape rule leans on: the checks that a row's columns imply, and the sentences.  The
 * rules stand in infer_dense.c (what mixes channels) and infer_point.c (all others). */
#include "graph/infer.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/status.h"

static const slr_shape absent;

bool slr_infer_has(const slr_infer *c, int i)
{
    return i < c->n_in && c->in[i] != SLR_NONE;
}

const slr_shape *slr_infer_in(const slr_infer *c, int i)
{
    return slr_infer_has(c, i) ? &c->g->vals[c->in[i]].shape : &absent;
}

/* "w [640,640,3,3]" */
static const char *operand(const slr_infer *c, int i, char out[128])
{
    char name[16], shape[96];
    const slr_shape *s = slr_infer_in(c, i);
    snprintf(out, 128, "%s %s", slr_op_operand(c->row, i, name),
             slr_shape_text(s->dim, s->rank, shape));
    return out;
}

int slr_infer_misfit(const slr_infer *c, int i, int j)
{
    char label[256], a[128], b[128];
    return slr_fail(SDLORA_EINVAL, __func__, "%s %s does not fit %s",
                    slr_label(c->name, c->row, label), operand(c, i, a), operand(c, j, b));
}

int slr_infer_bad(const slr_infer *c, int i, const char *fmt, ...)
{
    char label[256], a[128], text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    slr_label(c->name, c->row, label);
    if (i < 0 || i >= c->n_in)
        return slr_fail(SDLORA_EINVAL, __func__, "%s %s", label, text);
    return slr_fail(SDLORA_EINVAL, __func__, "%s %s %s", label, operand(c, i, a), text);
}

int slr_infer_rank(const slr_infer *c, int i, int rank)
{
    if (slr_infer_in(c, i)->rank != rank)
        return slr_infer_bad(c, i, "must have %d axes", rank);
    return SDLORA_OK;
}

int slr_infer_vector(const slr_infer *c, int i, int64_t n, int j)
{
    const slr_shape *s = slr_infer_in(c, i);
    if (slr_infer_has(c, i) && (s->rank != 1 || s->dim[0] != n))
        return slr_infer_misfit(c, i, j);
    return SDLORA_OK;
}

uint32_t slr_infer_keep(const slr_infer *c, int i)
{
    const slr_value *v = &c->g->vals[c->in[i]];
    bool activation = v->from != SLR_FROM_CONST &&
                      (v->shape.dtype == SDLORA_F32 || v->shape.dtype == SDLORA_BF16);
    return activation ? v->shape.dtype : c->g->policy.storage;
}

void slr_infer_out(slr_infer *c, int o, uint32_t dtype, int rank, const int64_t *dim)
{
    c->out[o] = (slr_shape){.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++)
        c->out[o].dim[i] = dim[i];
}

static bool is_real(uint32_t dtype)
{
    return dtype < SDLORA_I32 || dtype >= SDLORA_F8_E4M3;
}

/* Types: i32 where the row says so, floating point elsewhere unless it does not look. */
static int check_type(const slr_infer *c, int i)
{
    uint32_t dtype = slr_infer_in(c, i)->dtype;
    const char *name = slr_dtype(dtype) ? slr_dtype(dtype)->name : "an unknown type";
    if (c->row->ids >> i & 1)
        return dtype == SDLORA_I32 ? SDLORA_OK : slr_infer_bad(c, i, "must be i32, not %s", name);
    if (!(c->row->flags & SLR_OP_ANY_TYPE) && !is_real(dtype))
        return slr_infer_bad(c, i, "must be floating point, not %s", name);
    return SDLORA_OK;
}

static int check_inputs(const slr_infer *c)
{
    const slr_op_row *row = c->row;
    if (c->n_in < row->min_in || (row->max_in != SLR_ANY && c->n_in > row->max_in))
        return slr_infer_bad(c, -1, "was given %d inputs", c->n_in);
    if ((row->n_int != SLR_ANY && c->n_int != row->n_int) || c->n_real != row->n_real)
        return slr_infer_bad(c, -1, "was given %d ints and %d reals", c->n_int, c->n_real);
    for (int i = 0; i < c->n_in; i++) {
        if (c->in[i] != SLR_NONE && (c->in[i] < 0 || (size_t)c->in[i] >= c->g->n_vals))
            return slr_infer_bad(c, -1, "has an input that is not a value of this graph");
        char what[16];
        if (c->in[i] != SLR_NONE)
            SLR_TRY(check_type(c, i));
        else if (!slr_op_optional(row, i))
            return slr_infer_bad(c, -1, "needs its %s", slr_op_operand(row, i, what));
    }
    return SDLORA_OK;
}

/* Axes of one element or more, and a size in bytes that cannot overflow. */
static int check_result(const slr_infer *c, const slr_shape *s)
{
    char shape[96];
    int64_t n = 8;
    for (int i = 0; i < s->rank; i++)
        if (s->dim[i] < 1 || __builtin_mul_overflow(n, s->dim[i], &n))
            return slr_infer_bad(c, -1, "would give %s", slr_shape_text(s->dim, s->rank, shape));
    return SDLORA_OK;
}

int slr_infer_run(slr_infer *c)
{
    SLR_TRY(check_inputs(c));
    SLR_TRY(c->row->infer(c));
    for (int o = 0; o < c->row->n_out; o++)
        SLR_TRY(check_result(c, &c->out[o]));
    return SDLORA_OK;
}
