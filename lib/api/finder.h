/* SPDX-License-Identifier: MIT */
/* Finds the network that a <lora:name> or <hypernet:name> tag names: in directories, by file stem,
 * then by the ss_output_name that files carry; a hypernetwork also as "name(hash)".  What was found
 * is opened once and kept. */
#ifndef SLR_API_FINDER_H
#define SLR_API_FINDER_H

#include "api/byhash.h"
#include "io/file.h"
#include "models/checkpoint.h"
#include "networks/network.h"

typedef struct slr_finder slr_finder;

/* base: borrowed; networks are opened for it. */
int slr_finder_new(slr_finder **out, slr_mem *m, const slr_checkpoint *base);
void slr_finder_free(slr_finder *f);
int slr_finder_add(slr_finder *f, const char *dir);
const slr_list *slr_finder_dirs(const slr_finder *f); /* borrowed, in the order of adding */
slr_byhash *slr_finder_hashes(slr_finder *f);         /* borrowed: what is known of files */
/* Whether tensors of a file that match nothing are skipped; false at first. */
void slr_finder_skip(slr_finder *f, bool skip, const slr_log *log);
/* A slr_find_network_fn: user is the finder; *out is a reference. */
int slr_finder_find(void *user, const char *kind, const char *name, slr_network **out);

#endif
