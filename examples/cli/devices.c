/* SPDX-License-Identifier: MIT */
/* sdlora devices: what computes, in the order in which operations ask, and which plugins were left
 * out. */
#include "cli.h"

#include <stdio.h>

static int print_devices(sdlora_context *ctx, bool json)
{
    const char *note;

    printf(json ? "{\"devices\": [" : "");
    for (size_t i = 0; i < sdlora_context_device_count(ctx); i++) {
        sdlora_device_info info = {.struct_size = sizeof info};

        if (sdlora_context_device_info(ctx, i, &info) < 0)
            return cli_failed();
        if (!json) {
            printf("%-8s %s (%d threads, %.1f GiB)\n", info.backend, info.name, (int)info.threads,
                   (double)info.mem_total / (1 << 30));
            continue;
        }
        printf("%s{\"backend\": ", i ? ", " : "");
        cli_quote(info.backend);
        printf(", \"name\": ");
        cli_quote(info.name);
        printf(", \"threads\": %d, \"mem_total\": %llu, \"mem_free\": %llu, \"host_memory\": %s}",
               (int)info.threads, (unsigned long long)info.mem_total,
               (unsigned long long)info.mem_free, info.host_memory ? "true" : "false");
    }
    printf(json ? "], \"notes\": [" : "");
    for (size_t i = 0; (note = sdlora_context_device_note(ctx, i)) != NULL; i++) {
        printf(json ? (i ? ", " : "") : "note: ");
        if (json)
            cli_quote(note);
        else
            printf("%s\n", note);
    }
    printf(json ? "]}\n" : "");
    return CLI_OK;
}

int cli_devices(int argc, char **argv)
{
    static const char *const kinds[] = {"context", NULL};
    bool json = false;
    const cli_flag flags[] = {{"json", CLI_FLAG_BOOL, &json, "print JSON"}};
    cli_args a = {.usage = "devices [--json]", .flags = flags, .n_flags = 1, .kinds = kinds};
    cli_model m = {0};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n)
        status = cli_usage("devices takes no arguments");
    if (status < 0)
        status = cli_open(&m, &a, NULL, NULL) < 0 ? cli_failed() : print_devices(m.ctx, json);
    cli_close(&m);
    cli_args_free(&a);
    return status;
}
