/* SPDX-License-Identifier: MIT */
/* A convolution as a kernel, and how it is cut into pieces. */
#ifndef DN_CONV_H
#define DN_CONV_H

#include "exec.h"
#include "operands.h"
#include "pack.h"

enum { DN_MAX_BANDS = 64 };

/* src is what is read under the filters, dst the result: x and y, or dy and dx. */
typedef struct dn_conv_shape {
    int64_t n, h, w, c; /* src */
    int64_t oh, ow, oc; /* dst */
    int64_t r, s, stride_h, stride_w, top, left, bottom, right;
    bool strided_back; /* dst = dx at another stride than 1: pads are those of the forward pass */
    bool turned;       /* filters are turned round */
} dn_conv_shape;

typedef struct dn_band {
    int64_t src0, dst0, rows; /* rows of dst; where reading begins */
    dn_exec *exec[2];         /* [1]: of the last panel */
} dn_band;

typedef struct dn_conv {
    sdlora_kernel head;
    dn_conv_shape z;
    float alpha;
    uint32_t type, x_type, w_type, add_type, y_type;
    uint32_t out_type; /* of what the library computes: f32 where an addend of f32 goes to bf16 */
    bool tiled;        /* results pass through a block of the slot */
    bool has_bias, has_add, frozen;
    float *bias; /* frozen: its own copy over alpha */
    int64_t tn, panels, th, n_bands;
    dn_band bands[DN_MAX_BANDS];
    dn_relay relay;
    dn_pack *pack;
    dnnl_memory_t *panel; /* by number */
    uint64_t at_flat, at_pack, at_bias, at_slots, slot_bytes, tile_bytes;
} dn_conv;

double dn_conv_flops(const dn_conv_shape *z);

/* From shape, types and what is added: panels, bands with their primitives, and the layout of all
 * filters (relay.to).  SDLORA_ENOTSUP with a sentence where pieces do not agree on that. */
int dn_conv_cut(dn_conv *g);
void dn_conv_put_bands(dn_conv *g); /* gives their primitives back */

#endif
