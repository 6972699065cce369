/* SPDX-License-Identifier: MIT */
/* What the plugin asks of oneDNN, in words that hold for its versions 2 and 3: layouts as plain
 * values, primitives made straight from their operands, memory objects, relaying.  What one
 * version alone says stands in dialect2.c or dialect3.c; of dnnl.h the other files use what both
 * share.  Refuses to know devices, kernels and how work is cut. */
#ifndef DN_LIBRARY_H
#define DN_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dnnl.h>

/* Returns any other status than success. */
#define DN_ASK(expr)                                                                               \
    do {                                                                                           \
        dnnl_status_t dn_ask_rc_ = (expr);                                                         \
        if (dn_ask_rc_ != dnnl_success)                                                            \
            return dn_ask_rc_;                                                                     \
    } while (0)

/* --- layouts --- */

enum { DN_CUTS = 4 };

/* How a tensor lies in memory: blocks `stride` elements apart; inside a block the axes that are
 * cut follow each other, the outermost first.  Sizes are padded to whole blocks. */
typedef struct dn_layout {
    uint32_t type; /* SDLORA_F32, SDLORA_BF16 or SDLORA_U8 */
    bool open;     /* the sizes alone are fixed: the library chooses the rest */
    int rank, cuts;
    dnnl_dims_t dim, padded, stride;
    int64_t block[DN_CUTS];
    int axis[DN_CUTS];
    int tag; /* of version 3; follows from the rest */
} dn_layout;

dn_layout dn_layout_strided(uint32_t type, int rank, const int64_t *dim, const int64_t *stride);
dn_layout dn_layout_dense(uint32_t type, int rank, const int64_t *dim);
dn_layout dn_layout_open(uint32_t type, int rank, const int64_t *dim);

bool dn_layout_same(const dn_layout *a, const dn_layout *b);
int64_t dn_layout_bytes(const dn_layout *l); /* from the first element to the end of the last */

/* Layouts of weights that are cut along one axis into panels: */
/* ... of n along `axis`, whose panels lie as `panel`; false: they do not follow each other, */
bool dn_layout_widen(dn_layout *out, const dn_layout *panel, int axis, int64_t n);
/* ... of a panel, n wide, of a wide one, */
dn_layout dn_layout_panel(const dn_layout *wide, int axis, int64_t n);
/* ... and the bytes from the start to the panel that begins at n0, or -1 when none can. */
int64_t dn_layout_offset(const dn_layout *l, int axis, int64_t n0);

/* --- primitives --- */

enum { DN_MATMUL, DN_CONV, DN_CONV_BX };

/* dst = alpha (src by weights + bias) + dst or add.  Operands of rank 0 are absent.
 * Convolutions are of rank 4 in the order image, channel, row, column; of DN_CONV_BX src is the
 * gradient by the result and dst that by x, and the filters are those of the forward pass. */
typedef struct dn_want {
    int kind;
    dn_layout src, weights, dst, bias, add;
    bool sum; /* dst is added to */
    float alpha;
    dnnl_dims_t stride, before, after; /* of a convolution: rows, columns */
} dn_want;

typedef struct dn_made {
    dnnl_primitive_t primitive; /* the caller's; dnnl_primitive_destroy() */
    dn_layout weights, scratch; /* as the primitive wants them; scratch.dim[0] may be 0 */
    int src, dst, add;          /* numbers of the arguments: DNNL_ARG_* */
} dn_made;

/* dnnl_unimplemented where only a reference implementation would do it.  Primitives are for the
 * calling thread's team. */
dnnl_status_t dn_library_make(dn_made *out, dnnl_engine_t engine, const dn_want *want);

/* --- memory --- */

/* data NULL: dn_memory_place() follows before use. */
dnnl_status_t dn_memory_new(dnnl_memory_t *out, dnnl_engine_t engine, const dn_layout *l,
                            void *data);
dnnl_status_t dn_memory_place(dnnl_memory_t memory, dnnl_stream_t stream, const void *data);

/* Copies src, which lies as `from`, to [n0, n0 + from->dim[axis]) along `axis` of what lies as
 * `to` in dst, padding included. */
dnnl_status_t dn_library_relay(dnnl_engine_t engine, dnnl_stream_t stream, const dn_layout *from,
                               const void *src, const dn_layout *to, int axis, int64_t n0,
                               void *dst);

#endif
