/* SPDX-License-Identifier: MIT */
/* Between netread.c, which sorts a file's tensors by layer, and netmodule.c, which makes modules of
 * them: nothing here outlives an opening. */
#ifndef SLR_NETWORKS_NETREAD_H
#define SLR_NETWORKS_NETREAD_H

#include "networks/dialect.h"
#include "networks/peft.h"

enum { SLR_GROUP_LEAVES = 20 };

/* The tensors of one layer, as the file has them. */
typedef struct slr_group {
    const slr_target *target;
    struct {
        const char *leaf; /* as kinds name it */
        const char *key;  /* as the file spells it; borrowed from the file */
        int take;         /* SLR_TAKE_* */
        slr_tensor tensor;
        float *values; /* Nullable: instead of the tensor's own */
    } at[SLR_GROUP_LEAVES];
    size_t n;
    const char *alpha_key, *scale_key; /* NULL: not in the file */
    double alpha, scale;               /* NAN: not in the file */
    bool peft;                         /* the scale stands in PEFT's settings, if anywhere */
    const slr_kind *kind;              /* NULL: the layer is left out */
} slr_group;

typedef struct slr_reading {
    slr_mem *m;
    const char *label;
    const slr_checkpoint *base;
    slr_targets *targets;
    slr_peft *peft; /* Nullable */
    slr_group *at;
    size_t n, cap;
    slr_map *by_name;
    slr_network *network;
    bool skip;        /* what matches nothing is left out, not refused */
    size_t total;     /* tensors of the file */
    size_t n_strange; /* keys that match nothing */
    char strange[256];
} slr_reading;

/* A key that matches nothing: listed, and kept as skipped if that is allowed. */
int slr_reading_strange(slr_reading *r, const char *key);
/* EFORMAT, if there were any that may not be skipped. */
int slr_reading_check(const slr_reading *r);
/* ENOTSUP, if the leaf is one of an algorithm that has no kind here. */
int slr_reading_known(const slr_reading *r, const char *key, const char *leaf);

/* --- netextra.c --- */

bool slr_group_has(const slr_group *g, const char *leaf);
/* A residual of no values is none. */
void slr_group_drop_empty(slr_group *g);
/* The group's tensor i as the places of a residual, and as its size. */
int slr_group_places(slr_reading *r, slr_group *g, size_t i);
int slr_group_size(const slr_reading *r, const slr_group *g, size_t i);
/* Multiplies a bias of PEFT's by the module's scale. */
int slr_group_scale(slr_reading *r, slr_group *g, const slr_form *form);
/* Adds the leaves that are beside the algorithm, of tensors by leaf. */
int slr_group_extras(const slr_reading *r, const slr_group *g, const slr_tensor *tensor,
                     slr_form *form);

/* --- netmodule.c --- */

/* Finds the group's kind, checks all of it against its layer, and adds the module. */
int slr_group_add(slr_reading *r, slr_group *g);
/* Its weights into the network, which has been laid out. */
int slr_group_copy(slr_reading *r, const slr_group *g);

#endif
