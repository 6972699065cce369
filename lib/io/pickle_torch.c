/* SPDX-License-Identifier: MIT */
/* What the names in a torch pickle mean: the allow list.  Containers, storages and rebuilt tensors
 * become values; every other global becomes an opaque value that keeps its name, and a few modules
 * that are only named to run code are refused outright.  Nothing here calls anything. */
#include "io/pickle.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "tensor/dtype.h"

typedef int call_fn(slr_pickle *p, slr_value *callee, slr_value *args, slr_value **out);
static call_fn call_opaque, call_dict, call_tuple, call_rebuild, call_parameter, call_from_type;

/* How many arguments a rebuilding call must have, and where a dtype stands among them. */
enum { SIZE_ARG = 2, STRIDE_ARG = 3, ARGS_MIN = 4, DTYPE_ARG = 6 };

#define UNTYPED 0u

/* One row per global that is understood.  dtype and width matter to storages and dtypes only. */
static const struct {
    const char *module, *name;
    call_fn *call;
    bool storage, is_dtype;
    uint32_t dtype, width;
} rows[] = {
    {NULL, NULL, call_opaque, false, false, 0, 0}, /* row 0: anything else */
    {"collections", "OrderedDict", call_dict, false, false, 0, 0},
    {"collections", "defaultdict", call_dict, false, false, 0, 0},
    {"torch.nn.modules.container", "ParameterDict", call_dict, false, false, 0, 0},
    {"torch", "Size", call_tuple, false, false, 0, 0},
    {"torch._utils", "_rebuild_tensor", call_rebuild, false, false, 0, 0},
    {"torch._utils", "_rebuild_tensor_v2", call_rebuild, false, false, 0, 0},
    {"torch._utils", "_rebuild_tensor_v3", call_rebuild, false, false, 0, 0},
    {"torch._utils", "_rebuild_parameter", call_parameter, false, false, 0, 0},
    {"torch._utils", "_rebuild_parameter_with_state", call_parameter, false, false, 0, 0},
    {"torch._tensor", "_rebuild_from_type_v2", call_from_type, false, false, 0, 0},
    {"torch", "FloatStorage", call_opaque, true, false, SDLORA_F32, 4},
    {"torch", "HalfStorage", call_opaque, true, false, SDLORA_F16, 2},
    {"torch", "BFloat16Storage", call_opaque, true, false, SDLORA_BF16, 2},
    {"torch", "DoubleStorage", call_opaque, true, false, SDLORA_F64, 8},
    {"torch", "LongStorage", call_opaque, true, false, SDLORA_I64, 8},
    {"torch", "IntStorage", call_opaque, true, false, SDLORA_I32, 4},
    {"torch", "ShortStorage", call_opaque, true, false, SDLORA_I16, 2},
    {"torch", "CharStorage", call_opaque, true, false, SDLORA_I8, 1},
    {"torch", "ByteStorage", call_opaque, true, false, SDLORA_U8, 1},
    {"torch", "BoolStorage", call_opaque, true, false, SDLORA_BOOL, 1},
    {"torch", "ComplexFloatStorage", call_opaque, true, false, UNTYPED, 8},
    {"torch", "ComplexDoubleStorage", call_opaque, true, false, UNTYPED, 16},
    {"torch", "UntypedStorage", call_opaque, true, false, UNTYPED, 1},
    {"torch.storage", "UntypedStorage", call_opaque, true, false, UNTYPED, 1},
    {"torch", "float32", call_opaque, false, true, SDLORA_F32, 4},
    {"torch", "float16", call_opaque, false, true, SDLORA_F16, 2},
    {"torch", "bfloat16", call_opaque, false, true, SDLORA_BF16, 2},
    {"torch", "float64", call_opaque, false, true, SDLORA_F64, 8},
    {"torch", "int64", call_opaque, false, true, SDLORA_I64, 8},
    {"torch", "int32", call_opaque, false, true, SDLORA_I32, 4},
    {"torch", "int16", call_opaque, false, true, SDLORA_I16, 2},
    {"torch", "int8", call_opaque, false, true, SDLORA_I8, 1},
    {"torch", "uint8", call_opaque, false, true, SDLORA_U8, 1},
    {"torch", "bool", call_opaque, false, true, SDLORA_BOOL, 1},
    {"torch", "float8_e4m3fn", call_opaque, false, true, SDLORA_F8_E4M3, 1},
    {"torch", "float8_e5m2", call_opaque, false, true, SDLORA_F8_E5M2, 1},
};

enum { N_ROWS = sizeof rows / sizeof *rows, ROW_UNKNOWN = 0 };

/* Modules that no weight file needs: whoever names them means to run something.  name NULL: all of
 * the module, and what is below it. */
static const struct {
    const char *module, *name;
} refused[] = {
    {"os", NULL},
    {"posix", NULL},
    {"nt", NULL},
    {"sys", NULL},
    {"subprocess", NULL},
    {"commands", NULL},
    {"popen2", NULL},
    {"pty", NULL},
    {"socket", NULL},
    {"shutil", NULL},
    {"runpy", NULL},
    {"importlib", NULL},
    {"imp", NULL},
    {"pkgutil", NULL},
    {"pydoc", NULL},
    {"code", NULL},
    {"codeop", NULL},
    {"timeit", NULL},
    {"cProfile", NULL},
    {"profile", NULL},
    {"pdb", NULL},
    {"bdb", NULL},
    {"trace", NULL},
    {"ctypes", NULL},
    {"operator", NULL},
    {"_operator", NULL},
    {"webbrowser", NULL},
    {"platform", NULL},
    {"asyncio", NULL},
    {"pip", NULL},
    {"ensurepip", NULL},
    {"venv", NULL},
    {"distutils", NULL},
    {"setuptools", NULL},
    {"idlelib", NULL},
    {"lib2to3", NULL},
    {"urllib", NULL},
    {"urllib2", NULL},
    {"requests", NULL},
    {"http", NULL},
    {"httplib", NULL},
    {"ftplib", NULL},
    {"smtplib", NULL},
    {"telnetlib", NULL},
    {"marshal", NULL},
    {"types", NULL},
    {"dill", NULL},
    {"cloudpickle", NULL},
    {"pickle", NULL},
    {"_pickle", NULL},
    {"joblib", NULL},
    {"aiohttp", NULL},
    {"numpy.testing", NULL},
    {"numpy.f2py", NULL},
    {"torch.hub", NULL},
    {"torch.jit", NULL},
    {"torch.utils", NULL},
    {"torch.distributed", NULL},
    {"builtins", "eval"},
    {"builtins", "exec"},
    {"builtins", "compile"},
    {"builtins", "open"},
    {"builtins", "apply"},
    {"builtins", "__import__"},
    {"builtins", "input"},
    {"builtins", "breakpoint"},
    {"builtins", "execfile"},
    {"builtins", "globals"},
    {"builtins", "delattr"},
    {"builtins", "setattr"},
};

static bool is(const char *text, size_t n, const char *want)
{
    return strlen(want) == n && !memcmp(text, want, n);
}

static bool is_refused(const char *module, size_t n_module, const char *name, size_t n_name)
{
    if (is(module, n_module, "__builtin__")) { /* Python 2's spelling */
        module = "builtins";
        n_module = strlen(module);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        size_t n = strlen(refused[i].module);
        if (n_module < n || memcmp(module, refused[i].module, n) != 0)
            continue;
        if (refused[i].name ? n_module == n && is(name, n_name, refused[i].name)
                            : n_module == n || module[n] == '.')
            return true;
    }
    return false;
}

/* "module.name" in the arena, with everything that could confuse a terminal replaced. */
static const char *full_name(slr_pickle *p, const char *module, size_t n_module, const char *name,
                             size_t n_name)
{
    char *text = slr_arena_alloc(p->arena, n_module + n_name + 2, 1);
    if (!text)
        return NULL;
    memcpy(text, module, n_module);
    text[n_module] = '.';
    memcpy(text + n_module + 1, name, n_name);
    for (size_t i = 0; i < n_module + n_name + 1; i++)
        if (text[i] < 0x21 || text[i] > 0x7e)
            text[i] = '?';
    return text;
}

int slr_py_global(slr_pickle *p, const char *module, size_t n_module, const char *name,
                  size_t n_name, slr_value **out)
{
    slr_value *v = slr_py_new(p, SLR_PY_GLOBAL);
    const char *text = full_name(p, module, n_module, name, n_name);
    *out = v;
    if (!v || !text)
        return v ? SDLORA_ENOMEM : SDLORA_OK; /* pushing NULL fails with the code that is set */
    v->u.text = text;
    if (is_refused(module, n_module, name, n_name))
        return slr_py_bad(p, "names %.80s, which weights never need: a trap; nothing was run",
                          text);
    for (size_t i = 1; i < N_ROWS; i++)
        if (is(module, n_module, rows[i].module) && is(name, n_name, rows[i].name))
            v->row = (uint16_t)i;
    return SDLORA_OK;
}

/* Something that is kept only as a name; it matters if a tensor went into it. */
static int call_opaque(slr_pickle *p, slr_value *callee, slr_value *args, slr_value **out)
{
    slr_value *v = slr_py_new(p, SLR_PY_OPAQUE);
    *out = v;
    if (!v)
        return SDLORA_OK;
    v->u.text =
        callee->kind == SLR_PY_GLOBAL || callee->kind == SLR_PY_OPAQUE ? callee->u.text : "a call";
    v->touches = callee->touches | args->touches;
    if (!strncmp(v->u.text, "torch._utils._rebuild", 21) ||
        !strncmp(v->u.text, "torch._tensor.", 14))
        v->touches = 1;
    return SDLORA_OK;
}

/* OrderedDict() or, from Python 2, OrderedDict([[key, value], ...]). */
static int call_dict(slr_pickle *p, slr_value *callee, slr_value *args, slr_value **out)
{
    slr_value *v = slr_py_new(p, SLR_PY_DICT), *from = args->n ? args->u.item[0] : NULL;
    *out = v;
    if (!v)
        return SDLORA_OK;
    v->row = callee->row;
    if (!from || (from->kind != SLR_PY_LIST && from->kind != SLR_PY_TUPLE))
        return SDLORA_OK; /* a default factory, say */
    for (uint32_t i = 0; i < from->n; i++) {
        slr_value *pair = from->u.item[i];
        if ((pair->kind != SLR_PY_LIST && pair->kind != SLR_PY_TUPLE) || pair->n != 2)
            return slr_py_bad(p, "a dict is made of what are no pairs");
        SLR_TRY(slr_py_append(p, v, pair->u.item[0]));
        SLR_TRY(slr_py_append(p, v, pair->u.item[1]));
    }
    return SDLORA_OK;
}

static int call_tuple(slr_pickle *p, slr_value *callee, slr_value *args, slr_value **out)
{
    if (args->n == 1 &&
        (args->u.item[0]->kind == SLR_PY_TUPLE || args->u.item[0]->kind == SLR_PY_LIST))
        *out = args->u.item[0];
    else
        *out = args;
    return SDLORA_OK;
}

/* (storage, offset, size, stride, ...): judged when somebody wants the tensor. */
static int call_rebuild(slr_pickle *p, slr_value *callee, slr_value *args, slr_value **out)
{
    slr_value *v = slr_py_new(p, SLR_PY_TENSOR);
    *out = v;
    if (!v)
        return SDLORA_OK;
    v->row = callee->row;
    v->n = v->cap = args->n; /* tuples do not grow: the items may be shared */
    v->u.item = args->u.item;
    v->touches = 1;
    return SDLORA_OK;
}

/* (tensor, requires_grad, hooks) */
static int call_parameter(slr_pickle *p, slr_value *callee, slr_value *args, slr_value **out)
{
    if (args->n && args->u.item[0]->kind == SLR_PY_TENSOR) {
        *out = args->u.item[0];
        return SDLORA_OK;
    }
    return call_opaque(p, callee, args, out);
}

/* (function, type, arguments, state): a tensor with attributes. */
static int call_from_type(slr_pickle *p, slr_value *callee, slr_value *args, slr_value **out)
{
    slr_value *fn = args->n >= 3 ? args->u.item[0] : NULL;
    slr_value *inner = args->n >= 3 ? args->u.item[2] : NULL;
    bool known = fn && fn->kind == SLR_PY_GLOBAL && inner->kind == SLR_PY_TUPLE &&
                 (rows[fn->row].call == call_rebuild || rows[fn->row].call == call_parameter);
    return known ? rows[fn->row].call(p, fn, inner, out) : call_opaque(p, callee, args, out);
}

int slr_py_call(slr_pickle *p, slr_value *callee, slr_value *args, slr_value **out)
{
    if (args->kind != SLR_PY_TUPLE)
        return slr_py_bad(p, "a call's arguments are no tuple");
    if (callee->kind != SLR_PY_GLOBAL)
        return call_opaque(p, callee, args, out);
    return rows[callee->row].call(p, callee, args, out);
}

int slr_py_build(slr_pickle *p, slr_value *object, slr_value *state)
{
    if (object->kind == SLR_PY_OPAQUE)
        object->touches |= state->touches;
    /* A dict's attributes (_metadata) are no items, but a ParameterDict keeps its items in one. */
    if (object->kind != SLR_PY_DICT || state->kind != SLR_PY_DICT || object == state ||
        rows[object->row].module == NULL || strcmp(rows[object->row].name, "ParameterDict") != 0)
        return SDLORA_OK;
    for (uint32_t i = 0; i + 1 < state->n; i += 2) {
        slr_value *key = state->u.item[i], *value = state->u.item[i + 1];
        if (key->kind != SLR_PY_STR || !is(key->u.text, key->n, "_parameters") ||
            value->kind != SLR_PY_DICT || value == object)
            continue;
        for (uint32_t k = 0; k < value->n; k++)
            SLR_TRY(slr_py_append(p, object, value->u.item[k]));
    }
    return SDLORA_OK;
}

/* The storage of that key; a new one if the key is new, and the same one only if all agrees. */
static int storage_of(slr_pickle *p, const slr_value *key, uint32_t row, uint64_t numel,
                      slr_py_storage **out)
{
    slr_py_storage *s;
    int64_t i;
    if (memchr(key->u.text, 0, key->n))
        return slr_py_bad(p, "a storage's key has a NUL inside");
    if (slr_map_getn(p->storage_index, key->u.text, key->n, &i)) {
        s = p->storage[i];
        if (s->dtype != rows[row].dtype || s->width != rows[row].width || s->numel != numel)
            return slr_py_bad(p, "storage %.40s is named twice with different types or sizes",
                              s->key);
        *out = s;
        return SDLORA_OK;
    }
    SLR_TRY(slr_grow(p->m, &p->storage, &p->storage_cap, p->storages + 1, sizeof *p->storage));
    s = slr_arena_alloc(p->arena, 1, sizeof *s);
    if (!s || !(s->key = slr_arena_alloc(p->arena, (size_t)key->n + 1, 1)))
        return SDLORA_ENOMEM;
    memcpy(s->key, key->u.text, key->n);
    s->dtype = rows[row].dtype;
    s->width = rows[row].width;
    s->numel = numel;
    SLR_TRY(slr_map_set(p->storage_index, s->key, (int64_t)p->storages));
    p->storage[p->storages++] = s;
    *out = s;
    return SDLORA_OK;
}

/* The older format's (view key, offset, size) of a storage inside a storage. */
static int read_view(slr_pickle *p, const slr_value *v, slr_py_view *view)
{
    if (v->kind == SLR_PY_NONE)
        return SDLORA_OK;
    if (v->kind != SLR_PY_TUPLE || v->n != 3 || v->u.item[1]->kind != SLR_PY_INT ||
        v->u.item[2]->kind != SLR_PY_INT || v->u.item[1]->u.i < 0 || v->u.item[2]->u.i < 0)
        return slr_py_bad(p, "a storage's view is not one");
    view->offset = (uint64_t)v->u.item[1]->u.i;
    view->size = (uint64_t)v->u.item[2]->u.i;
    if (view->offset > view->of->numel || view->size > view->of->numel - view->offset)
        return slr_py_bad(p, "a storage's view reaches past its end");
    return SDLORA_OK;
}

/* ("module", class, file, source): how old torch noted the code of a class beside it. */
static bool is_module_id(const slr_value *id)
{
    return id->kind == SLR_PY_TUPLE && id->n == 4 && id->u.item[0]->kind == SLR_PY_STR &&
           is(id->u.item[0]->u.text, id->u.item[0]->n, "module");
}

/* ("storage", class, key, location, elements[, view]) */
int slr_py_persistent(slr_pickle *p, slr_value *id, slr_value **out)
{
    slr_value **item = id->u.item, *v;
    slr_py_view *view;
    if (is_module_id(id)) {
        *out = item[1];
        return SDLORA_OK;
    }
    if (id->kind != SLR_PY_TUPLE || id->n < 5 || id->n > 6 || item[0]->kind != SLR_PY_STR ||
        !is(item[0]->u.text, item[0]->n, "storage") || item[1]->kind != SLR_PY_GLOBAL ||
        item[2]->kind != SLR_PY_STR || item[4]->kind != SLR_PY_INT || item[4]->u.i < 0)
        return slr_py_bad(p, "a persistent id is not that of a storage");
    v = slr_py_new(p, SLR_PY_STORAGE);
    *out = v;
    if (!v)
        return SDLORA_OK;
    v->touches = 1;
    v->u.view = view = slr_arena_alloc(p->arena, 1, sizeof *view);
    if (!view)
        return SDLORA_ENOMEM;
    /* A class that is not known has width 0: an error only once a tensor needs it. */
    SLR_TRY(storage_of(p, item[2], rows[item[1]->row].storage ? item[1]->row : ROW_UNKNOWN,
                       (uint64_t)item[4]->u.i, &view->of));
    view->size = view->of->numel;
    return id->n == 6 ? read_view(p, item[5], view) : SDLORA_OK;
}

static bool all_counts(const slr_value *v)
{
    if (v->kind != SLR_PY_TUPLE && v->kind != SLR_PY_LIST)
        return false;
    for (uint32_t i = 0; i < v->n; i++)
        if (v->u.item[i]->kind != SLR_PY_INT || v->u.item[i]->u.i < 0)
            return false;
    return true;
}

int slr_py_tensor_of(const slr_value *v, slr_py_tensor *out, const char **why)
{
    slr_value **arg = v->u.item;
    const slr_py_storage *s;
    bool v3 = !strcmp(rows[v->row].name, "_rebuild_tensor_v3");
    if (v->n < ARGS_MIN || arg[0]->kind != SLR_PY_STORAGE || arg[1]->kind != SLR_PY_INT ||
        arg[1]->u.i < 0 || !all_counts(arg[SIZE_ARG]) || !all_counts(arg[STRIDE_ARG]) ||
        arg[SIZE_ARG]->n != arg[STRIDE_ARG]->n) {
        *why = "is rebuilt from the wrong arguments";
        return SDLORA_EFORMAT;
    }
    out->view = arg[0]->u.view;
    out->offset = (uint64_t)arg[1]->u.i;
    out->size = arg[SIZE_ARG];
    out->stride = arg[STRIDE_ARG];
    s = out->view->of;
    out->dtype = s->dtype;
    out->width = s->width;
    if (v3 && v->n > DTYPE_ARG && arg[DTYPE_ARG]->kind == SLR_PY_GLOBAL &&
        rows[arg[DTYPE_ARG]->row].is_dtype && s->dtype == UNTYPED && s->width == 1) {
        out->dtype = rows[arg[DTYPE_ARG]->row].dtype;
        out->width = rows[arg[DTYPE_ARG]->row].width;
    }
    if (out->dtype == UNTYPED) {
        *why = "has a type of number that can't be used here";
        return SDLORA_ENOTSUP;
    }
    return SDLORA_OK;
}
