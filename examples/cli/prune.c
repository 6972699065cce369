/* SPDX-License-Identifier: MIT */
/* sdlora prune: a smaller model file. */
#include "cli.h"

int cli_prune(int argc, char **argv)
{
    return cli_rewrite(sdlora_file_prune, "prune",
                       "prune IN OUT [--ema drop|use|keep] [--save_precision fp16] [--vae FILE]",
                       argc, argv);
}
