/* SPDX-License-Identifier: MIT */
/* Says what the library can use here, and what files are (their headers alone are read):
 *     open [-p PLUGIN_DIR] FILE ... */
#include <stdio.h>
#include <string.h>

#include <sdlora/sdlora.h>

static void log_line(int level, const char *text, void *user)
{
    (void)user;
    fprintf(stderr, "%s: %s\n", level == SDLORA_LOG_ERROR ? "error" : "note", text);
}

static int devices(sdlora_context *ctx)
{
    const char *note;
    printf("libsdlora %s\n", sdlora_version());
    for (size_t i = 0; i < sdlora_context_device_count(ctx); i++) {
        sdlora_device_info d = {.struct_size = sizeof d};
        int rc = sdlora_context_device_info(ctx, i, &d);
        if (rc)
            return rc;
        printf("device %s: %s\n", d.backend, d.name);
    }
    for (size_t i = 0; (note = sdlora_context_device_note(ctx, i)) != NULL; i++)
        printf("note: %s\n", note);
    return SDLORA_OK;
}

static int describe(sdlora_context *ctx, const char *path)
{
    char *json = NULL;
    int rc = sdlora_file_info(ctx, path, 0, &json);
    if (!rc)
        printf("%s\n", json);
    sdlora_text_free(ctx, json);
    return rc;
}

int main(int argc, char **argv)
{
    sdlora_options *opts = NULL;
    sdlora_context *ctx = NULL;
    int first = argc > 2 && !strcmp(argv[1], "-p") ? 3 : 1;
    int rc = sdlora_options_new(&opts, "context");
    if (!rc && first == 3)
        rc = sdlora_options_set_text(opts, "plugin_path", argv[2]);
    if (!rc && !(rc = sdlora_context_new(&ctx, opts, NULL)) &&
        !(rc = sdlora_context_set_log(ctx, SDLORA_LOG_WARN, log_line, NULL)))
        rc = devices(ctx);
    for (int i = first; i < argc && !rc; i++)
        rc = describe(ctx, argv[i]);
    if (rc)
        fprintf(stderr, "%s\n", sdlora_last_error()->message);
    sdlora_context_unref(ctx);
    sdlora_options_unref(opts);
    return rc != SDLORA_OK;
}
