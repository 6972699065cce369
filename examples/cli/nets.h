/* SPDX-License-Identifier: MIT */
/* Networks on the command line of the tools: opened with a model, or by themselves; and the result
 * saved. */
#ifndef CLI_NETS_H
#define CLI_NETS_H

#include "cli.h"

enum { CLI_NETS = 64 };

typedef struct cli_nets {
    cli_model m;
    sdlora_network *net[CLI_NETS];
    double te[CLI_NETS], unet[CLI_NETS];
    size_t n;
} cli_nets;

/* Opens "FILE" or "FILE:WEIGHT" for each of words.  ckpt Nullable: the layers are guessed from the
 * first file. Negative after a failure of the library; else the exit status, CLI_OK to go on. */
int cli_nets_open(cli_nets *s, const cli_args *a, const char *ckpt, const cli_list *words);
void cli_nets_close(cli_nets *s);

/* The file's stem as the option metadata_title, unless that is given. */
int cli_nets_title(sdlora_options *o, const char *path);

/* The log's lines to standard output. */
int cli_nets_verbose(sdlora_context *ctx);

#endif
