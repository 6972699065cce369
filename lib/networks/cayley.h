/* SPDX-License-Identifier: MIT */
/* What the kinds that rotate weights share (oft.c, boft.c): Cayley's map with LyCORIS' constraint,
 * the gain of rows, and the file's forms of both. */
#ifndef SLR_NETWORKS_CAYLEY_H
#define SLR_NETWORKS_CAYLEY_H

#include "networks/kind.h"

enum { SLR_OFT_BLOCKS = 0, SLR_OFT_RESCALE = 1 };

/* The identity, [n,n]. */
slr_val slr_eye(slr_graph *g, int64_t n);
/* R - 1 of each block raw[B,b,b]: with Q = raw - raw^T, made smaller where the norm of all of it is
 * above `bound` (0: none), R = (1 + Q)(1 - Q)^-1.  Exact where R is near 1. */
slr_val slr_cayley(slr_graph *g, slr_val raw, double bound);
/* What LyCORIS calls alpha: the bound for each output; absent, zero and below are none. */
double slr_oft_bound(const slr_module *mod);
/* d as it is without a leaf "rescale"; else the change of rescale * (w + d). */
slr_val slr_oft_rescale(const slr_apply *a, slr_val d, slr_val w);

/* The numbers of a rotation: no rank, scale 1, alpha is the constraint. */
void slr_oft_numbers(slr_form *form, double constraint);
void slr_oft_add_rescale(const slr_target *t, slr_form *form);
/* The leaf "rescale" holds a number for each output, or is absent. */
int slr_oft_read_rescale(const slr_target *t, const slr_tensor *leaf, const char *label,
                         slr_form *form);
/* Gains start at 1; blocks stay zero, which is no rotation. */
void slr_oft_init(const slr_module *mod, const slr_network_slot *slots, float *params,
                  slr_rng *rng);

#endif
