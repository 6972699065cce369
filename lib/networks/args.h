/* SPDX-License-Identifier: MIT */
/* network_module, network_args and the options that mean the same, read once and checked. */
#ifndef SLR_NETWORKS_ARGS_H
#define SLR_NETWORKS_ARGS_H

#include "networks/kind.h"

typedef struct slr_arguments {
    bool lycoris;         /* network_module lycoris.kohya: other defaults than kohya's own */
    const slr_kind *kind; /* algo */
    slr_settings set;     /* of linear layers and 1x1 convolutions */
    int64_t conv_dim;     /* 0: convolutions with a larger kernel are left alone */
    double conv_alpha;
} slr_arguments;

/* Of n's options and args.  EINVAL/ENOTSUP names the key. */
int slr_arguments_read(slr_arguments *out, slr_network *n);

#endif
