/* SPDX-License-Identifier: MIT */
/* The pickle machine: bytes, values, a stack with marks, and the loop over instructions, all with
 * limits.  It knows how values are kept and how a pickle ends; what an instruction does is
 * pickle_ops.c's, what a global or a call means pickle_torch.c's. */
#include "io/pickle.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

enum {
    STACK_MAX = 100000,
    VALUES_MAX = 1 << 22,
};

int slr_py_bad(slr_pickle *p, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return slr_fail(SDLORA_EFORMAT, "slr_pickle", "%s: pickle byte %zu: %s", p->label, p->op_at,
                    text);
}

const uint8_t *slr_py_take(slr_pickle *p, uint64_t n)
{
    const uint8_t *from = p->bytes + p->at;
    if (n > p->n - p->at) {
        p->starved = true;
        return NULL;
    }
    p->at += (size_t)n;
    return from;
}

int slr_py_ended(slr_pickle *p)
{
    return slr_py_bad(p, "the data ends inside an instruction");
}

slr_value *slr_py_new(slr_pickle *p, int kind)
{
    slr_value *v;
    if (p->values >= VALUES_MAX) {
        slr_py_bad(p, "more than %d values", VALUES_MAX);
        return NULL;
    }
    v = slr_arena_alloc(p->arena, 1, sizeof *v);
    if (!v)
        return NULL;
    p->values++;
    v->kind = (uint8_t)kind;
    return v;
}

int slr_py_failure(void)
{
    slr_error_copy e;
    slr_error_take(&e);
    return e.code < 0 ? e.code : SDLORA_ENOMEM;
}

int slr_py_push(slr_pickle *p, slr_value *v)
{
    if (!v)
        return slr_py_failure();
    if (p->depth >= STACK_MAX)
        return slr_py_bad(p, "more than %d values on the stack", STACK_MAX);
    SLR_TRY(slr_grow(p->m, &p->stack, &p->stack_cap, p->depth + 1, sizeof *p->stack));
    p->stack[p->depth++] = v;
    return SDLORA_OK;
}

size_t slr_py_floor(const slr_pickle *p)
{
    return p->marks ? p->mark[p->marks - 1] : 0;
}

int slr_py_pop(slr_pickle *p, slr_value **out)
{
    if (p->depth <= slr_py_floor(p))
        return slr_py_bad(p, "takes a value from an empty stack");
    *out = p->stack[--p->depth];
    return SDLORA_OK;
}

int slr_py_pop_mark(slr_pickle *p, slr_value ***items, size_t *n)
{
    if (!p->marks)
        return slr_py_bad(p, "needs a mark, there is none");
    p->marks--;
    *items = p->stack + p->mark[p->marks];
    *n = p->depth - p->mark[p->marks];
    p->depth = p->mark[p->marks];
    return SDLORA_OK;
}

int slr_py_top(slr_pickle *p, slr_value **out)
{
    if (p->depth <= slr_py_floor(p))
        return slr_py_bad(p, "looks at an empty stack");
    *out = p->stack[p->depth - 1];
    return SDLORA_OK;
}

int slr_py_append(slr_pickle *p, slr_value *list, slr_value *v)
{
    if (list->n == list->cap) {
        uint32_t cap = list->cap ? 2 * list->cap : 4;
        slr_value **more = slr_arena_alloc(p->arena, cap, sizeof *more);
        if (!more)
            return SDLORA_ENOMEM;
        if (list->n)
            memcpy(more, list->u.item, list->n * sizeof *more);
        list->u.item = more;
        list->cap = cap;
    }
    list->u.item[list->n++] = v;
    list->touches |= v->touches;
    return SDLORA_OK;
}

int slr_pickle_run(slr_pickle *p, slr_value **out)
{
    *out = NULL;
    p->depth = 0;
    p->marks = 0;
    p->memo_n = 0;
    for (;;) {
        const uint8_t *op;
        p->op_at = p->at;
        op = slr_py_take(p, 1);
        if (!op)
            return slr_py_bad(p, "the data ends before the pickle does");
        if (*op == '.')
            break;
        if (!slr_pickle_ops[*op])
            return slr_py_bad(p, "instruction 0x%02x is not one that torch writes", *op);
        SLR_TRY(slr_pickle_ops[*op](p));
    }
    if (p->marks || p->depth != 1)
        return slr_py_bad(p, "stops with %zu values, wanted one", p->depth);
    *out = p->stack[0];
    return SDLORA_OK;
}

int slr_pickle_init(slr_pickle *p, slr_mem *m, const void *bytes, size_t n, const char *label)
{
    int rc;
    memset(p, 0, sizeof *p);
    p->m = m;
    p->bytes = bytes;
    p->n = n;
    p->label = label;
    rc = slr_arena_new(&p->arena, m);
    if (rc == SDLORA_OK)
        rc = slr_map_new(&p->storage_index, m);
    if (rc == SDLORA_OK) /* never NULL, so that an empty stack has an address too */
        rc = slr_grow(m, &p->stack, &p->stack_cap, 64, sizeof *p->stack);
    if (rc < 0)
        slr_pickle_free(p);
    return rc;
}

void slr_pickle_free(slr_pickle *p)
{
    if (p->arena)
        slr_arena_free(p->arena);
    if (p->storage_index)
        slr_map_free(p->storage_index);
    slr_free(p->m, p->stack);
    slr_free(p->m, p->memo);
    slr_free(p->m, p->storage);
    memset(p, 0, sizeof *p);
}
