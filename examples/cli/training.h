/* SPDX-License-Identifier: MIT */
/* What `train` and `plan` share: the same flags, and the handles that they name. */
#ifndef CLI_TRAINING_H
#define CLI_TRAINING_H

#include "cli.h"

typedef struct cli_training {
    const char *ckpt, *vae, *config_from;
    bool json;
    cli_model m;
    sdlora_dataset *data;
    sdlora_network *net;
} cli_training;

/* Returns -1 to go on, else the exit status. */
int cli_training_parse(cli_training *t, cli_args *a, const char *verb, int argc, char **argv);
/* Opens all handles.  Negative after a failure of the library. */
int cli_training_open(cli_training *t, const cli_args *a);
void cli_training_close(cli_training *t, cli_args *a);

#endif
