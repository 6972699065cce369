/* SPDX-License-Identifier: MIT */
/* Opening the networks that a tool works on. */
#include "nets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "FILE:WEIGHT": the file's name for the caller to free. */
static char *split(const char *spec, double *weight)
{
    const char *colon = strrchr(spec, ':');

    *weight = 1;
    if (!colon || !cli_real(colon + 1, weight))
        colon = spec + strlen(spec);
    return strndup(spec, (size_t)(colon - spec));
}

static int open_one(cli_nets *s, const char *spec)
{
    char *path = split(spec, &s->unet[s->n]);
    int rc = path ? SDLORA_OK : SDLORA_ENOMEM;

    s->te[s->n] = s->unet[s->n];
    if (rc >= 0 && !s->m.ckpt)
        rc = sdlora_checkpoint_for_network(&s->m.ckpt, s->m.ctx, path);
    if (rc >= 0)
        rc = sdlora_network_open(&s->net[s->n], s->m.ckpt, path);
    if (rc >= 0)
        s->n++;
    free(path);
    return rc;
}

int cli_nets_open(cli_nets *s, const cli_args *a, const char *ckpt, const cli_list *words)
{
    int rc = cli_open(&s->m, a, ckpt, NULL);

    for (size_t i = 0; rc >= 0 && i < words->n && i < CLI_NETS; i++)
        rc = open_one(s, words->item[i]);
    return rc < 0 ? rc : CLI_OK;
}

void cli_nets_close(cli_nets *s)
{
    for (size_t i = 0; i < s->n; i++)
        sdlora_network_unref(s->net[i]);
    cli_close(&s->m);
}

int cli_nets_title(sdlora_options *o, const char *path)
{
    const char *base = strrchr(path, '/'), *title, *dot;
    char *stem;
    int rc;

    if (sdlora_options_get_text(o, "metadata_title", &title) == SDLORA_OK)
        return SDLORA_OK;
    base = base ? base + 1 : path;
    dot = strrchr(base, '.');
    stem = strndup(base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
    rc = sdlora_options_set_text(o, "metadata_title", stem ? stem : base);
    free(stem);
    return rc;
}

static void say(int level, const char *text, void *user)
{
    (void)user;
    cli_progress_end();
    if (level <= SDLORA_LOG_WARN)
        fprintf(stderr, "sdlora: %s%s\n",
                level == SDLORA_LOG_ERROR ? "error: " : "warning: ", text);
    else
        printf("%s\n", text);
}

int cli_nets_verbose(sdlora_context *ctx)
{
    return sdlora_context_set_log(ctx, SDLORA_LOG_INFO, say, NULL);
}
