/* SPDX-License-Identifier: MIT */
/* sdlora bench: a model's parts timed beside what the machine can do. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

/* A plain word is an architecture with random weights; files have a dot or a slash. */
static const char *model_path(const char *model, char *buffer, size_t size)
{
    if (strpbrk(model, ":./"))
        return model;
    snprintf(buffer, size, "synthetic:%s", model);
    return buffer;
}

int cli_bench(int argc, char **argv)
{
    static const char *const kinds[] = {"bench", "context", NULL};
    const char *model = "sd15";
    bool json = false;
    const cli_flag flags[] = {
        {"model", CLI_FLAG_TEXT, &model, "a model file, or sd15, sd21, sdxl, tiny: random weights"},
        {"json", CLI_FLAG_BOOL, &json, "print JSON"},
    };
    cli_args a = {.usage = "bench [--model sd15|FILE] [--what forward,step,vae,text] [--json]",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    char path[256], *text = NULL;
    cli_model m = {0};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n)
        status = cli_usage("bench takes flags only; '%s' is none", a.words.item[0]);
    if (status < 0) {
        cli_watch_interrupts();
        int rc = cli_open(&m, &a, model_path(model, path, sizeof path), NULL);
        if (rc >= 0)
            rc = sdlora_bench(m.ctx, m.ckpt, cli_options(&a, "bench"), cli_watch, NULL, &text);
        if (rc < 0)
            status = cli_watch_failed(rc);
        else if (json)
            status = fputs(text, stdout) < 0 ? CLI_FAILED : CLI_OK;
        else
            cli_print_json(text, 0);
    }
    sdlora_text_free(m.ctx, text);
    cli_close(&m);
    cli_args_free(&a);
    return status < 0 ? CLI_OK : status;
}
