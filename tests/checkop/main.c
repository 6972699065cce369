/* SPDX-License-Identifier: MIT */
/* checkop [--plugin NAME DIR] [--cpumask generic|avx2|avx512f|avx512] [--gradients] [--curves]
 * [--bench] [--bf16] [--threads n] [OP]; --bf16: what --bench runs is stored in that type */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKIP = 77 };

int main(int argc, char **argv)
{
    const char *mask = "avx512", *filter = NULL;
    bool gradients = false, curves = false, bench = false, bf16 = false;
    int threads = 2, bad;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--cpumask") && i + 1 < argc)
            mask = argv[++i];
        else if (!strcmp(argv[i], "--plugin") && i + 2 < argc) {
            if (!check_use_plugin(argv[i + 1], argv[i + 2]))
                return SKIP;
            i += 2;
        } else if (!strcmp(argv[i], "--threads") && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--gradients"))
            gradients = true;
        else if (!strcmp(argv[i], "--curves"))
            curves = true;
        else if (!strcmp(argv[i], "--bench"))
            bench = true;
        else if (!strcmp(argv[i], "--bf16"))
            bf16 = true;
        else
            filter = argv[i];
    }
    bad = gradients ? check_gradients(filter)
          : curves  ? check_curves(mask)
          : bench   ? check_bench(mask, filter, threads, bf16)
                    : check_backends(mask, filter);
    return bad < 0 ? SKIP : bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
