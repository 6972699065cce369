/* SPDX-License-Identifier: MIT */
/* The pack of a transposed matrix out of the pack of the matrix: a backward product may do so in
 * each launch instead of holding its weights a second time. */
#ifndef DN_TURN_H
#define DN_TURN_H

#include "common.h"
#include "library.h"

/* Whether `to` is the transposed of `from`, and both lie as bf16 in blocks of 32 rows and 64
 * columns, pairs of rows side by side ("BA16a64b2a"). */
bool dn_turn_fits(const dn_layout *from, const dn_layout *to);
/* Over the host's threads. */
void dn_turn_run(const sdlora_dev *dev, const dn_layout *from, const dn_layout *to,
                 const void *packed, void *turned);

#endif
