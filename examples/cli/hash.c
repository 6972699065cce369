/* SPDX-License-Identifier: MIT */
/* sdlora hash: the digests that sites and programs know a file by. */
#include "cli.h"

#include <stdio.h>

int cli_hash(int argc, char **argv)
{
    static const char *const kinds[] = {"context", NULL};
    bool json = false;
    const cli_flag flags[] = {
        {"json", CLI_FLAG_BOOL, &json, "print JSON"},
    };
    cli_args a = {.usage = "hash FILE ... [--json]",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    cli_model m = {0};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n == 0)
        status = cli_usage("hash wants a file");
    if (status < 0 && cli_open(&m, &a, NULL, NULL) < 0)
        status = cli_failed();
    if (status < 0)
        cli_watch_interrupts();
    for (size_t i = 0; status < 0 && i < a.words.n; i++) {
        char *text = NULL;
        int rc = sdlora_file_hash(m.ctx, a.words.item[i], cli_watch, NULL, &text);

        cli_progress_end();
        if (rc < 0)
            status = cli_watch_failed(rc);
        else if (json)
            fputs(text, stdout);
        else
            cli_print_json(text, 0);
        sdlora_text_free(m.ctx, text);
    }
    cli_close(&m);
    cli_args_free(&a);
    return status < 0 ? CLI_OK : status;
}
