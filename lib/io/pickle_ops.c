/* SPDX-License-Identifier: MIT */
/* The instructions of pickle protocols 2 to 4, as far as torch writes them: constants, containers,
 * the memo, globals and calls, framing.  Each knows its arguments and what it does to the stack;
 * memory, marks and limits are pickle.c's, what a global or a call means is pickle_torch.c's.
 * Others have no row and are refused by number. */
#include <string.h>

#include "base/status.h"
#include "io/pickle.h"
#include "io/source.h"

enum {
    MEMO_MAX = 1 << 20,
    LINE_MAX = 512, /* bytes of a module's or a global's name */
    PROTO_MAX = 5
};

/* ---- constants ---------------------------------------------------------------------------- */

static int push_int(slr_pickle *p, int64_t i)
{
    slr_value *v = slr_py_new(p, SLR_PY_INT);
    if (v)
        v->u.i = i;
    return slr_py_push(p, v);
}

static int op_none(slr_pickle *p)
{
    return slr_py_push(p, slr_py_new(p, SLR_PY_NONE));
}

static int push_bool(slr_pickle *p, bool b)
{
    slr_value *v = slr_py_new(p, SLR_PY_BOOL);
    if (v)
        v->u.i = b;
    return slr_py_push(p, v);
}

static int op_true(slr_pickle *p)
{
    return push_bool(p, true);
}

static int op_false(slr_pickle *p)
{
    return push_bool(p, false);
}

static int op_int4(slr_pickle *p)
{
    const uint8_t *b = slr_py_take(p, 4);
    return b ? push_int(p, (int32_t)slr_le32(b)) : slr_py_ended(p);
}

static int op_int2(slr_pickle *p)
{
    const uint8_t *b = slr_py_take(p, 2);
    return b ? push_int(p, slr_le16(b)) : slr_py_ended(p);
}

static int op_int1(slr_pickle *p)
{
    const uint8_t *b = slr_py_take(p, 1);
    return b ? push_int(p, b[0]) : slr_py_ended(p);
}

static int push_text(slr_pickle *p, int kind, uint64_t n)
{
    const uint8_t *b = slr_py_take(p, n);
    slr_value *v;
    if (!b)
        return slr_py_ended(p);
    if (n > UINT32_MAX)
        return slr_py_bad(p, "a string of more than 4 GiB");
    v = slr_py_new(p, kind);
    if (v) {
        v->u.text = (const char *)b;
        v->n = (uint32_t)n;
    }
    return slr_py_push(p, v);
}

/* Little-endian two's complement of 0 to 255 bytes. */
static int op_long1(slr_pickle *p)
{
    const uint8_t *n = slr_py_take(p, 1), *b;
    uint64_t v = 0;
    if (!n)
        return slr_py_ended(p);
    if (*n > 8)
        return push_text(p, SLR_PY_LONG, *n);
    b = slr_py_take(p, *n);
    if (!b)
        return slr_py_ended(p);
    for (int i = 0; i < *n; i++)
        v |= (uint64_t)b[i] << 8 * i;
    if (*n && *n < 8 && (b[*n - 1] & 0x80))
        v |= UINT64_MAX << 8 * *n;
    return push_int(p, (int64_t)v);
}

/* Eight bytes, big-endian IEEE double. */
static int op_float(slr_pickle *p)
{
    const uint8_t *b = slr_py_take(p, 8);
    slr_value *v;
    uint64_t bits;
    if (!b)
        return slr_py_ended(p);
    bits = (uint64_t)slr_be32(b) << 32 | slr_be32(b + 4);
    v = slr_py_new(p, SLR_PY_FLOAT);
    if (v)
        memcpy(&v->u.f, &bits, sizeof bits);
    return slr_py_push(p, v);
}

static int text1(slr_pickle *p, int kind)
{
    const uint8_t *b = slr_py_take(p, 1);
    return b ? push_text(p, kind, b[0]) : slr_py_ended(p);
}

static int text4(slr_pickle *p, int kind)
{
    const uint8_t *b = slr_py_take(p, 4);
    return b ? push_text(p, kind, slr_le32(b)) : slr_py_ended(p);
}

static int op_unicode1(slr_pickle *p)
{
    return text1(p, SLR_PY_STR);
}

static int op_unicode4(slr_pickle *p)
{
    return text4(p, SLR_PY_STR);
}

static int op_bytes1(slr_pickle *p)
{
    return text1(p, SLR_PY_BYTES);
}

static int op_bytes4(slr_pickle *p)
{
    return text4(p, SLR_PY_BYTES);
}

/* ---- containers --------------------------------------------------------------------------- */

static int push_new(slr_pickle *p, int kind)
{
    return slr_py_push(p, slr_py_new(p, kind));
}

static int op_dict(slr_pickle *p)
{
    return push_new(p, SLR_PY_DICT);
}

static int op_list(slr_pickle *p)
{
    return push_new(p, SLR_PY_LIST);
}

static int op_tuple0(slr_pickle *p)
{
    return push_new(p, SLR_PY_TUPLE);
}

/* Sets are never on the way to a tensor that has a name. */
static int op_set(slr_pickle *p)
{
    slr_value *v = slr_py_new(p, SLR_PY_OPAQUE);
    if (v)
        v->u.text = "set";
    return slr_py_push(p, v);
}

static int op_mark(slr_pickle *p)
{
    if (p->marks == (int)(sizeof p->mark / sizeof *p->mark))
        return slr_py_bad(p, "more than %d values are open inside each other", p->marks);
    p->mark[p->marks++] = p->depth;
    return SDLORA_OK;
}

static int make_tuple(slr_pickle *p, slr_value **items, size_t n)
{
    slr_value *v = slr_py_new(p, SLR_PY_TUPLE);
    if (!v)
        return slr_py_failure();
    for (size_t i = 0; i < n; i++)
        SLR_TRY(slr_py_append(p, v, items[i]));
    return slr_py_push(p, v);
}

static int op_tuple(slr_pickle *p)
{
    slr_value **items = NULL;
    size_t n = 0;
    SLR_TRY(slr_py_pop_mark(p, &items, &n));
    return make_tuple(p, items, n);
}

static int tuple_of(slr_pickle *p, size_t n)
{
    if (p->depth - slr_py_floor(p) < n)
        return slr_py_bad(p, "takes a value from an empty stack");
    p->depth -= n;
    return make_tuple(p, p->stack + p->depth, n);
}

static int op_tuple1(slr_pickle *p)
{
    return tuple_of(p, 1);
}

static int op_tuple2(slr_pickle *p)
{
    return tuple_of(p, 2);
}

static int op_tuple3(slr_pickle *p)
{
    return tuple_of(p, 3);
}

/* Items for a list, or for an opaque object that may be any kind of list. */
static int add_items(slr_pickle *p, slr_value **items, size_t n)
{
    slr_value *to = NULL;
    SLR_TRY(slr_py_top(p, &to));
    if (to->kind != SLR_PY_LIST && to->kind != SLR_PY_OPAQUE)
        return slr_py_bad(p, "appends to what is no list");
    for (size_t i = 0; i < n; i++)
        if (to->kind == SLR_PY_OPAQUE)
            to->touches |= items[i]->touches;
        else
            SLR_TRY(slr_py_append(p, to, items[i]));
    return SDLORA_OK;
}

static int op_append(slr_pickle *p)
{
    slr_value *v = NULL;
    SLR_TRY(slr_py_pop(p, &v));
    return add_items(p, &v, 1);
}

static int op_appends(slr_pickle *p)
{
    slr_value **items = NULL;
    size_t n = 0;
    SLR_TRY(slr_py_pop_mark(p, &items, &n));
    return add_items(p, items, n);
}

/* key, value, key, value ... */
static int set_items(slr_pickle *p, slr_value **items, size_t n)
{
    slr_value *to = NULL;
    SLR_TRY(slr_py_top(p, &to));
    if (n % 2)
        return slr_py_bad(p, "a key without a value");
    if (to->kind != SLR_PY_DICT && to->kind != SLR_PY_OPAQUE)
        return slr_py_bad(p, "sets an item of what is no dict");
    for (size_t i = 0; i < n; i++)
        if (to->kind == SLR_PY_OPAQUE)
            to->touches |= items[i]->touches;
        else
            SLR_TRY(slr_py_append(p, to, items[i]));
    return SDLORA_OK;
}

static int op_setitem(slr_pickle *p)
{
    slr_value *pair[2] = {NULL, NULL};
    SLR_TRY(slr_py_pop(p, &pair[1]));
    SLR_TRY(slr_py_pop(p, &pair[0]));
    return set_items(p, pair, 2);
}

static int op_setitems(slr_pickle *p)
{
    slr_value **items = NULL;
    size_t n = 0;
    SLR_TRY(slr_py_pop_mark(p, &items, &n));
    return set_items(p, items, n);
}

/* ---- memo --------------------------------------------------------------------------------- */

static int put(slr_pickle *p, size_t i)
{
    slr_value *v = NULL;
    SLR_TRY(slr_py_top(p, &v));
    if (i >= MEMO_MAX)
        return slr_py_bad(p, "memo slot %zu is above %d", i, MEMO_MAX);
    SLR_TRY(slr_grow(p->m, &p->memo, &p->memo_cap, i + 1, sizeof *p->memo));
    for (; p->memo_n <= i; p->memo_n++)
        p->memo[p->memo_n] = NULL;
    p->memo[i] = v;
    return SDLORA_OK;
}

static int get(slr_pickle *p, size_t i)
{
    if (i >= p->memo_n || !p->memo[i])
        return slr_py_bad(p, "memo slot %zu is empty", i);
    return slr_py_push(p, p->memo[i]);
}

static int op_put1(slr_pickle *p)
{
    const uint8_t *b = slr_py_take(p, 1);
    return b ? put(p, b[0]) : slr_py_ended(p);
}

static int op_put4(slr_pickle *p)
{
    const uint8_t *b = slr_py_take(p, 4);
    return b ? put(p, slr_le32(b)) : slr_py_ended(p);
}

static int op_memoize(slr_pickle *p)
{
    return put(p, p->memo_n);
}

static int op_get1(slr_pickle *p)
{
    const uint8_t *b = slr_py_take(p, 1);
    return b ? get(p, b[0]) : slr_py_ended(p);
}

static int op_get4(slr_pickle *p)
{
    const uint8_t *b = slr_py_take(p, 4);
    return b ? get(p, slr_le32(b)) : slr_py_ended(p);
}

/* ---- globals and objects ------------------------------------------------------------------ */

static int push_global(slr_pickle *p, const char *module, size_t n_module, const char *name,
                       size_t n_name)
{
    slr_value *v = NULL;
    if (n_module > LINE_MAX || n_name > LINE_MAX)
        return slr_py_bad(p, "a global's name is longer than %d bytes", LINE_MAX);
    SLR_TRY(slr_py_global(p, module, n_module, name, n_name, &v));
    return slr_py_push(p, v);
}

static const char *take_line(slr_pickle *p, size_t *n)
{
    const char *line = (const char *)p->bytes + p->at;
    size_t left = p->n - p->at, most = left < LINE_MAX + 1 ? left : LINE_MAX + 1;
    const char *end = memchr(line, '\n', most);
    if (!end) {
        p->starved = most == left;
        return NULL;
    }
    *n = (size_t)(end - line);
    p->at += *n + 1;
    return line;
}

static int op_global(slr_pickle *p)
{
    size_t n_module = 0, n_name = 0;
    const char *module = take_line(p, &n_module);
    const char *name = module ? take_line(p, &n_name) : NULL;
    if (!name)
        return slr_py_bad(p, "a global's name does not end");
    return push_global(p, module, n_module, name, n_name);
}

static int op_stack_global(slr_pickle *p)
{
    slr_value *module = NULL, *name = NULL;
    SLR_TRY(slr_py_pop(p, &name));
    SLR_TRY(slr_py_pop(p, &module));
    if (module->kind != SLR_PY_STR || name->kind != SLR_PY_STR)
        return slr_py_bad(p, "a global's name is no text");
    return push_global(p, module->u.text, module->n, name->u.text, name->n);
}

static int op_reduce(slr_pickle *p)
{
    slr_value *callee = NULL, *args = NULL, *out = NULL;
    SLR_TRY(slr_py_pop(p, &args));
    SLR_TRY(slr_py_pop(p, &callee));
    if (args->kind != SLR_PY_TUPLE)
        return slr_py_bad(p, "a call's arguments are no tuple");
    SLR_TRY(slr_py_call(p, callee, args, &out));
    return slr_py_push(p, out);
}

static int op_build(slr_pickle *p)
{
    slr_value *object = NULL, *state = NULL;
    SLR_TRY(slr_py_pop(p, &state));
    SLR_TRY(slr_py_top(p, &object));
    return slr_py_build(p, object, state);
}

static int op_persistent(slr_pickle *p)
{
    slr_value *id = NULL, *out = NULL;
    SLR_TRY(slr_py_pop(p, &id));
    SLR_TRY(slr_py_persistent(p, id, &out));
    return slr_py_push(p, out);
}

/* ---- framing ------------------------------------------------------------------------------ */

static int op_proto(slr_pickle *p)
{
    const uint8_t *b = slr_py_take(p, 1);
    if (!b)
        return slr_py_ended(p);
    return *b <= PROTO_MAX ? SDLORA_OK : slr_py_bad(p, "protocol %d is not known", *b);
}

/* Frames only help readers that buffer; their length must still be true. */
static int op_frame(slr_pickle *p)
{
    const uint8_t *b = slr_py_take(p, 8);
    if (!b)
        return slr_py_ended(p);
    if (slr_le64(b) > p->n - p->at) {
        p->starved = true;
        return slr_py_bad(p, "a frame is longer than the data");
    }
    return SDLORA_OK;
}

/* NEWOBJ is the class called with a tuple: for the few classes known, the same as REDUCE. */
slr_py_op *const slr_pickle_ops[256] = {
    [0x80] = op_proto,        [0x95] = op_frame,   ['N'] = op_none,      [0x88] = op_true,
    [0x89] = op_false,        ['J'] = op_int4,     ['M'] = op_int2,      ['K'] = op_int1,
    [0x8a] = op_long1,        ['G'] = op_float,    [0x8c] = op_unicode1, ['X'] = op_unicode4,
    ['U'] = op_unicode1,      ['T'] = op_unicode4, ['C'] = op_bytes1,    ['B'] = op_bytes4,
    ['}'] = op_dict,          [']'] = op_list,     [')'] = op_tuple0,    [0x8f] = op_set,
    ['('] = op_mark,          ['t'] = op_tuple,    [0x85] = op_tuple1,   [0x86] = op_tuple2,
    [0x87] = op_tuple3,       ['a'] = op_append,   ['e'] = op_appends,   [0x90] = op_appends,
    ['s'] = op_setitem,       ['u'] = op_setitems, ['q'] = op_put1,      ['r'] = op_put4,
    [0x94] = op_memoize,      ['h'] = op_get1,     ['j'] = op_get4,      ['c'] = op_global,
    [0x93] = op_stack_global, ['R'] = op_reduce,   [0x81] = op_reduce,   ['b'] = op_build,
    ['Q'] = op_persistent,
};
