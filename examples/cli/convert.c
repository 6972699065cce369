/* SPDX-License-Identifier: MIT */
/* sdlora convert: a model as another file; and what `prune` shares with it. */
#include "cli.h"

#include <stdio.h>

int cli_rewrite(cli_rewrite_fn run, const char *kind, const char *usage, int argc, char **argv)
{
    const char *const kinds[] = {kind, "context", NULL};
    bool json = false;
    const cli_flag flags[] = {
        {"json", CLI_FLAG_BOOL, &json, "print JSON"},
    };
    cli_args a = {
        .usage = usage, .flags = flags, .n_flags = sizeof flags / sizeof *flags, .kinds = kinds};
    cli_model m = {0};
    char *text = NULL;
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n != 2)
        status = cli_usage("%s wants a file to read and a file to write", kind);
    if (status < 0 && cli_open(&m, &a, NULL, NULL) < 0)
        status = cli_failed();
    if (status < 0) {
        cli_watch_interrupts();
        int rc = run(m.ctx, a.words.item[0], a.words.item[1], cli_options(&a, kind), cli_watch,
                     NULL, &text);
        cli_progress_end();
        if (rc < 0)
            status = cli_watch_failed(rc);
        else if (json)
            status = fputs(text, stdout) < 0 ? CLI_FAILED : CLI_OK;
        else
            cli_print_json(text, 100);
    }
    sdlora_text_free(m.ctx, text);
    cli_close(&m);
    cli_args_free(&a);
    return status < 0 ? CLI_OK : status;
}

int cli_convert(int argc, char **argv)
{
    return cli_rewrite(sdlora_file_convert, "convert",
                       "convert IN OUT [--layout ldm|diffusers] [--dialect kohya|diffusers|peft] "
                       "[--save_precision fp16]",
                       argc, argv);
}
