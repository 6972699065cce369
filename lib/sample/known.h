/* SPDX-License-Identifier: MIT */
/* The embeddings that prompts may name, and how the parameters text tells of them. */
#ifndef SLR_SAMPLE_KNOWN_H
#define SLR_SAMPLE_KNOWN_H

#include "base/str.h"
#include "networks/network.h"

/* Of two with one name the later one counts. */
typedef struct slr_known {
    slr_mem *m;
    slr_network **at; /* references */
    size_t n, cap;
} slr_known;

int slr_known_add(slr_known *k, slr_network *embedding);
/* What is in a network's file, but for names that are known already. */
int slr_known_add_bundle(slr_known *k, const slr_network *network);
void slr_known_free(slr_known *k);
/* Appends "name: hash12" for one that came from a file, unless its name is in the text. */
void slr_known_hash(const slr_known *k, size_t i, slr_buf *text);

#endif
