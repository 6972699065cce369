/* SPDX-License-Identifier: MIT */
/* sdlora tokenize: the token ids of a text. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>

static int print_ids(sdlora_context *ctx, const char *text, bool json)
{
    size_t n, again;

    if (sdlora_tokenize(ctx, text, NULL, 0, &n) < 0)
        return cli_failed();
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    if (!ids)
        return cli_usage("out of memory");
    int rc = sdlora_tokenize(ctx, text, ids, n, &again);
    printf(json ? "[" : "");
    for (size_t i = 0; rc >= 0 && i < n; i++)
        printf("%s%d", i ? (json ? ", " : " ") : "", (int)ids[i]);
    printf(json ? "]\n" : "\n");
    if (!json)
        fprintf(stderr, "%zu tokens\n", n);
    free(ids);
    return rc < 0 ? cli_failed() : CLI_OK;
}

int cli_tokenize(int argc, char **argv)
{
    static const char *const kinds[] = {"context", NULL};
    bool json = false;
    const cli_flag flags[] = {{"json", CLI_FLAG_BOOL, &json, "print a JSON list"}};
    cli_args a = {.usage = "tokenize TEXT [--json]", .flags = flags, .n_flags = 1, .kinds = kinds};
    cli_model m = {0};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n != 1)
        status = cli_usage("tokenize wants one text (quote it)");
    if (status < 0)
        status = cli_open(&m, &a, NULL, NULL) < 0 ? cli_failed()
                                                  : print_ids(m.ctx, a.words.item[0], json);
    cli_close(&m);
    cli_args_free(&a);
    return status;
}
