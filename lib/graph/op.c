/* SPDX-License-Identifier: MIT */
/* The table made from ops.def, looked up by number, and the operand names that messages use, read
 * off the contract so that they stand in one place.  Refuses to know what an operation computes. */
#include "graph/op.h"

#include <assert.h>
#include <stddef.h>

#include "graph/autodiff.h"
#include "graph/flops.h"
#include "graph/infer.h"

#define IN(i) (1u << (i))

#define SLR_OP(number, title, ...)                                                                 \
    static_assert((number) == SDLORA_OP_##title, "ops.def and sdlora/ops.h disagree on " #title);
#include "graph/ops.def"
#undef SLR_OP

#define SLR_OP(number, title, ...) [number] = {.op = (number), .name = #title, __VA_ARGS__},
static const slr_op_row rows[] = {
#include "graph/ops.def"
};
#undef SLR_OP

const slr_op_row *slr_op_find(uint32_t op)
{
    return op < sizeof rows / sizeof *rows && rows[op].name ? &rows[op] : NULL;
}

const slr_op_row *slr_op_at(size_t i)
{
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++)
        if (rows[n].name && i-- == 0)
            return &rows[n];
    return NULL;
}

static bool in_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* The i-th word of the contract. */
static const char *word(const slr_op_row *row, int i)
{
    const char *p = row->contract;
    for (; i > 0; i--) {
        while (*p && *p != ' ')
            p++;
        while (*p == ' ')
            p++;
    }
    return p;
}

bool slr_op_optional(const slr_op_row *row, int i)
{
    if (row->max_in == SLR_ANY)
        return false;
    const char *p = word(row, i);
    while (p[0] && p[0] != ' ' && p[0] != '?')
        p++;
    return p[0] == '?';
}

const char *slr_op_operand(const slr_op_row *row, int i, char out[16])
{
    size_t n = 0;
    if (row->max_in == SLR_ANY) { /* "x0 x1 ...": any number of alike operands */
        size_t digits = 1;
        for (int rest = i; rest >= 10; rest /= 10)
            digits++;
        out[n++] = *row->contract;
        for (size_t d = digits; d-- > 0; i /= 10)
            out[n + d] = (char)('0' + i % 10);
        out[n + digits] = 0;
        return out;
    }
    const char *p = word(row, i);
    while (n < 15 && in_name(p[n])) {
        out[n] = p[n];
        n++;
    }
    out[n] = 0;
    return out;
}
