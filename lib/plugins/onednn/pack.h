/* SPDX-License-Identifier: MIT */
/* Frozen weights in the layouts that primitives want: one copy per contents and layout, counted by
 * the kernels that use it; and the same relaying for weights that change between launches. */
#ifndef DN_PACK_H
#define DN_PACK_H

#include "common.h"
#include "library.h"

/* How the bytes of a file become the logical tensor of a primitive. */
typedef struct dn_relay {
    uint32_t from;       /* the type in the file */
    int64_t count;       /* elements */
    int64_t taps;        /* > 1: runs of so many elements are turned round, for rotated filters */
    dnnl_dims_t strides; /* in elements of the file's order, by axis of `to` */
    dn_layout to;        /* the result: bf16 or f32 */
    int axis;            /* along which panels follow each other */
} dn_relay;

/* One reference to the pack of a frozen input; making it lets the pages of a mapped file go. */
int dn_pack_get(dn_pack **out, sdlora_dev *dev, const sdlora_const *c, const dn_relay *relay);
/* A reference to a pack that is there already, of the same contents as they are, or transposed and
 * such that dn_turn_run() takes it; else NULL. */
dn_pack *dn_pack_find(sdlora_dev *dev, const sdlora_const *c, const dn_relay *relay,
                      bool transposed);
void dn_pack_put(sdlora_dev *dev, dn_pack *p); /* NULL does nothing */
void *dn_pack_data(const dn_pack *p);
const dn_layout *dn_pack_layout(const dn_pack *p);

/* A memory object on the panel that lies as `panel` and begins at n0 of a packed block. */
int dn_pack_panel(dnnl_memory_t *out, sdlora_dev *dev, const dn_relay *relay, void *packed,
                  const dn_layout *panel, int64_t n0);

/* Relays in pieces over the host's threads.  `flat` is room for dn_relay_flat() bytes. */
size_t dn_relay_flat(const dn_relay *r);
int dn_relay_run(sdlora_dev *dev, const dn_relay *r, void *packed, const void *src, void *flat);

#endif
