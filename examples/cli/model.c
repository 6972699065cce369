/* SPDX-License-Identifier: MIT */
/* Opening a context and a model as most verbs need them; failures become one line. */
#include "cli.h"

#include <stdio.h>

int cli_failed(void)
{
    cli_progress_end();
    fprintf(stderr, "sdlora: %s\n", sdlora_last_error()->message);
    return CLI_FAILED;
}

static void show(int level, const char *text, void *user)
{
    (void)user;
    cli_progress_end();
    fprintf(stderr, "sdlora: %s%s\n", level == SDLORA_LOG_ERROR ? "error: " : "warning: ", text);
}

int cli_open(cli_model *m, const cli_args *a, const char *ckpt, const char *vae)
{
    int rc = sdlora_context_new(&m->ctx, cli_options(a, "context"), NULL);

    if (rc >= 0)
        rc = sdlora_context_set_log(m->ctx, SDLORA_LOG_WARN, show, NULL);
    if (rc >= 0 && ckpt)
        rc = sdlora_checkpoint_open(&m->ckpt, m->ctx, ckpt, cli_options(a, "checkpoint"));
    if (rc >= 0 && vae)
        rc = sdlora_vae_open(&m->vae, m->ctx, vae);
    return rc;
}

void cli_close(cli_model *m)
{
    sdlora_vae_unref(m->vae);
    sdlora_checkpoint_unref(m->ckpt);
    sdlora_context_unref(m->ctx);
}
