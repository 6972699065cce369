/* SPDX-License-Identifier: MIT */
/* A machine for the pickles that torch writes.  It builds values and never calls anything: a global
 * is a name, a call is a row of a short table (pickle_torch.c) or an opaque value that keeps the
 * name.  Time and memory are linear in the bytes read. */
#ifndef SLR_IO_PICKLE_H
#define SLR_IO_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/map.h"
#include "base/mem.h"

enum {
    SLR_PY_NONE = 1,
    SLR_PY_BOOL,    /* i */
    SLR_PY_INT,     /* i */
    SLR_PY_LONG,    /* text, n: more than 64 bits, little-endian */
    SLR_PY_FLOAT,   /* f */
    SLR_PY_STR,     /* text, n: as in the file, unchecked */
    SLR_PY_BYTES,   /* text, n */
    SLR_PY_LIST,    /* item[n] */
    SLR_PY_TUPLE,   /* item[n] */
    SLR_PY_DICT,    /* item[n]: key, value, key, value ... in the order of insertion */
    SLR_PY_GLOBAL,  /* text: "module.name"; row: SLR_GLOBAL_* */
    SLR_PY_STORAGE, /* view */
    SLR_PY_TENSOR,  /* item[n]: arguments of the rebuilding call; row: which call */
    SLR_PY_OPAQUE   /* text: the global that made it */
};

/* A torch storage that the pickle names; its bytes lie elsewhere. */
typedef struct slr_py_storage {
    char *key;      /* NUL-terminated, in the arena */
    uint32_t dtype; /* 0: untyped, one byte an element */
    uint32_t width; /* bytes of an element */
    uint64_t numel;
    uint64_t at; /* where its bytes begin, once known */
    bool placed;
} slr_py_storage;

/* Elements [offset, offset + size) of a storage. */
typedef struct slr_py_view {
    slr_py_storage *of;
    uint64_t offset, size;
} slr_py_view;

typedef struct slr_value {
    uint8_t kind;
    uint8_t touches; /* a storage or tensor lies in or below it */
    uint16_t row;
    uint32_t n, cap;
    union {
        int64_t i;
        double f;
        const char *text;
        struct slr_value **item;
        slr_py_view *view;
    } u;
} slr_value;

/* The machine; zeroed but for what slr_pickle_init() sets. */
typedef struct slr_pickle {
    slr_mem *m;
    slr_arena *arena; /* all values */
    const char *label;
    const uint8_t *bytes; /* strings point into them: keep until done with the values */
    size_t n, at;
    size_t op_at;  /* where the running instruction began */
    bool starved;  /* failed since the bytes ended */
    size_t values; /* made so far */
    slr_value **stack;
    size_t depth, stack_cap;
    size_t mark[128];
    int marks;
    slr_value **memo;
    size_t memo_n, memo_cap;
    slr_map *storage_index; /* key -> number */
    slr_py_storage **storage;
    size_t storages, storage_cap;
} slr_pickle;

int slr_pickle_init(slr_pickle *p, slr_mem *m, const void *bytes, size_t n, const char *label);
void slr_pickle_free(slr_pickle *p);
/* Runs one pickle from p->at on, up to and over its STOP; *out is borrowed from the machine. */
int slr_pickle_run(slr_pickle *p, slr_value **out);

/* ---- for pickle_ops.c ---- */
typedef int slr_py_op(slr_pickle *p);
extern slr_py_op *const slr_pickle_ops[256]; /* NULL: refused */

/* n bytes of the instruction's argument; NULL at the end. */
const uint8_t *slr_py_take(slr_pickle *p, uint64_t n);
int slr_py_ended(slr_pickle *p); /* the error of a failed slr_py_take() */
int slr_py_failure(void); /* the code that a failed slr_py_new() left: ENOMEM, or too many values */
/* The lowest place that may be popped: nothing below the last mark. */
size_t slr_py_floor(const slr_pickle *p);
int slr_py_pop(slr_pickle *p, slr_value **out);
/* The items above the last mark, which goes; the stack is cut down to it. */
int slr_py_pop_mark(slr_pickle *p, slr_value ***items, size_t *n);
int slr_py_top(slr_pickle *p, slr_value **out);

/* ---- for pickle_ops.c and pickle_torch.c ---- */
slr_value *slr_py_new(slr_pickle *p, int kind); /* NULL: no memory */
int slr_py_push(slr_pickle *p, slr_value *v);   /* NULL: ENOMEM */
int slr_py_append(slr_pickle *p, slr_value *list, slr_value *v);
int slr_py_bad(slr_pickle *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What a global means.  Refuses the modules that are only named to run code. */
int slr_py_global(slr_pickle *p, const char *module, size_t n_module, const char *name,
                  size_t n_name, slr_value **out);
/* callee(*args): a container, a tensor, or an opaque value. */
int slr_py_call(slr_pickle *p, slr_value *callee, slr_value *args, slr_value **out);
/* object.__setstate__(state) */
int slr_py_build(slr_pickle *p, slr_value *object, slr_value *state);
/* persistent_load(id) */
int slr_py_persistent(slr_pickle *p, slr_value *id, slr_value **out);

/* A rebuilt tensor, its arguments checked for kind but not yet for bounds. */
typedef struct slr_py_tensor {
    slr_py_view *view;
    uint64_t offset;                /* elements of the storage */
    uint32_t dtype, width;          /* of the tensor */
    const slr_value *size, *stride; /* tuples of INT, equally long */
} slr_py_tensor;
/* SDLORA_OK, or a code with *why set to a sentence's end; no error is recorded. */
int slr_py_tensor_of(const slr_value *v, slr_py_tensor *out, const char **why);

#endif
