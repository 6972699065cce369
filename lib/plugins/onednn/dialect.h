/* SPDX-License-Identifier: MIT */
/* What the interfaces of oneDNN 2 and 3 say in different words: Meson builds dialect2.c or
 * dialect3.c.  For library.c alone. */
#ifndef DN_DIALECT_H
#define DN_DIALECT_H

#include "library.h"

/* A memory object on the part [n0, n0 + n) along `axis` of what lies as `l` at data. */
dnnl_status_t dn_say_memory(dnnl_memory_t *out, dnnl_engine_t engine, const dn_layout *l, int axis,
                            int64_t n0, int64_t n, void *data);
dnnl_status_t dn_say_place(dnnl_memory_t memory, dnnl_stream_t stream, void *data);

/* What follows the product: alpha if it is not 1, then the addend. */
dnnl_status_t dn_say_ops(dnnl_post_ops_t ops, const dn_want *want);
dnnl_status_t dn_say_product(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                             const_dnnl_primitive_attr_t attr, const dn_want *want);
dnnl_status_t dn_say_conv(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                          const_dnnl_primitive_attr_t attr, const dn_want *want);
/* The weights as a primitive wants them; dnnl_unimplemented: not in blocks. */
dnnl_status_t dn_say_weights(dn_layout *out, const_dnnl_primitive_desc_t pd);
dnnl_status_t dn_say_reorder(dnnl_primitive_desc_t *out, dnnl_engine_t engine, dnnl_memory_t from,
                             dnnl_memory_t to);

#endif
