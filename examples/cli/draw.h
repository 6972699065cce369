/* SPDX-License-Identifier: MIT */
/* What `generate`, `grid` and `sheet` share: networks named on the command line, and one picture at a time
 * with progress. */
#ifndef CLI_DRAW_H
#define CLI_DRAW_H

#include "cli.h"

/* Opens "FILE" or "FILE:WEIGHT" (weight NULL: not wanted) as lora_unmatched of the options says.
 * Negative after a library failure. */
int cli_open_network(sdlora_network **net, double *weight, cli_model *m, const char *spec,
                     const sdlora_options *o);

/* Files and directories of --embeddings.  Negative after a library failure. */
int cli_add_embeddings(sdlora_generator *g, const cli_list *paths);

/* Draws one picture with the options as they are; `what` stands before the progress. */
int cli_draw(sdlora_generator *g, sdlora_options *o, const char *what, sdlora_image **image);

/* The seed of the options; -1 is replaced by a random one, so that it can be told. */
long long cli_seed(sdlora_options *o);

#endif
