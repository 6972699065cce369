/* SPDX-License-Identifier: MIT */
/* sdlora info: what a file is, from its header. */
#include "cli.h"

#include <stdio.h>

int cli_info(int argc, char **argv)
{
    static const char *const kinds[] = {"context", NULL};
    bool json = false, hash = false, full = false;
    const cli_flag flags[] = {
        {"json", CLI_FLAG_BOOL, &json, "print JSON"},
        {"hash", CLI_FLAG_BOOL, &hash, "also hashes, which reads the whole file"},
        {"full", CLI_FLAG_BOOL, &full, "do not cut long values"},
    };
    cli_args a = {.usage = "info FILE [--json] [--hash]",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    cli_model m = {0};
    char *text = NULL;
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n != 1)
        status = cli_usage("info wants one file");
    if (status < 0) {
        if (cli_open(&m, &a, NULL, NULL) < 0 ||
            sdlora_file_info(m.ctx, a.words.item[0], hash, &text) < 0)
            status = cli_failed();
        else if (json)
            status = fputs(text, stdout) < 0 ? CLI_FAILED : CLI_OK;
        else
            cli_print_json(text, full ? 0 : 100);
    }
    sdlora_text_free(m.ctx, text);
    cli_close(&m);
    cli_args_free(&a);
    return status < 0 ? CLI_OK : status;
}
