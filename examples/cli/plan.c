/* SPDX-License-Identifier: MIT */
/* sdlora plan: what `sdlora train` with the same flags will take, as a table or as JSON. */
#include "training.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What follows "key": behind "section": in the library's text; "" when it is not there. */
static const char *value_of(const char *json, const char *section, const char *key)
{
    char name[64];
    const char *at = json;

    if (section) {
        snprintf(name, sizeof name, "\"%s\": {", section);
        at = strstr(json, name);
    }
    snprintf(name, sizeof name, "\"%s\": ", key);
    at = at ? strstr(at, name) : NULL;
    return at ? at + strlen(name) : "";
}

static double number_of(const char *json, const char *section, const char *key)
{
    return strtod(value_of(json, section, key), NULL);
}

static void print_bytes(const char *left, double bytes)
{
    printf(bytes >= 1e9 ? "%-24s %10.2f GB\n" : "%-24s %10.1f MB\n", left,
           bytes / (bytes >= 1e9 ? 1e9 : 1e6));
}

static void print_seconds(const char *left, double seconds)
{
    long long s = (long long)(seconds + 0.5);

    if (seconds < 60)
        printf("%-24s %10.1f s\n", left, seconds);
    else
        printf("%-24s %4lld:%02lld:%02lld h\n", left, s / 3600, s / 60 % 60, s % 60);
}

typedef struct row {
    const char *key, *text;
} row;

static void print_rows(const char *json, const char *section, const row *rows, size_t n,
                       void (*print)(const char *left, double value))
{
    for (size_t i = 0; i < n; i++) {
        double value = number_of(json, section, rows[i].key);

        if (value > 0 || i == 0)
            print(rows[i].text, value);
    }
}

static void print_shapes(const char *json)
{
    const char *at = json;

    while ((at = strstr(at, "{\"width\": ")) != NULL) {
        printf("  %lldx%lld, %lld at once: %lld batches an epoch, %.2f s each%s\n",
               (long long)number_of(at, NULL, "width"), (long long)number_of(at, NULL, "height"),
               (long long)number_of(at, NULL, "pictures"),
               (long long)number_of(at, NULL, "batches"), number_of(at, NULL, "seconds"),
               strncmp(value_of(at, NULL, "measured"), "true", 4) ? " (scaled)" : "");
        at++;
    }
}

static void print_files(const char *json)
{
    const char *at = strstr(json, "\"files\": ");

    while (at && (at = strstr(at, "{\"kind\": \"")) != NULL) {
        char left[40];
        int n = (int)strcspn(at + 10, "\"");

        snprintf(left, sizeof left, "  %.*s x %lld", n < 20 ? n : 20, at + 10,
                 (long long)number_of(at, NULL, "kept"));
        print_bytes(left, number_of(at, NULL, "kept") * number_of(at, NULL, "bytes"));
        at++;
    }
}

static void print_table(const char *json)
{
    static const row memory[] = {
        {"peak", "memory at its highest"},
        {"process", "  process"},
        {"handles", "  handles"},
        {"packed", "  packed weights"},
        {"graphs", "  graphs"},
        {"workspace", "  activations"},
        {"optimizer", "  optimizer"},
        {"text", "  texts"},
        {"latents", "  latents"},
        {"encoder", "  encoder"},
        {"validation", "  validation"},
        {"samples", "  samples"},
    };
    static const row seconds[] = {
        {"total", "time"},        {"load", "  packing weights"},  {"encode", "  pictures"},
        {"text", "  texts"},      {"steps", "  steps"},           {"optimizer", "  updates"},
        {"samples", "  samples"}, {"validation", "  validation"}, {"save", "  saving"},
    };

    const char *precision = value_of(json, NULL, "precision");

    precision += *precision == '"';
    printf("%lld steps of %.2f s in %lld epochs of %lld batches, mixed_precision %.*s\n",
           (long long)number_of(json, "run", "steps"), number_of(json, "seconds", "step"),
           (long long)number_of(json, "run", "epochs"),
           (long long)number_of(json, "run", "batches_per_epoch"), (int)strcspn(precision, "\""),
           precision);
    print_shapes(json);
    print_rows(json, "memory", memory, sizeof memory / sizeof *memory, print_bytes);
    print_rows(json, "seconds", seconds, sizeof seconds / sizeof *seconds, print_seconds);
    print_bytes("disk", number_of(json, NULL, "disk"));
    print_files(json);
}

int cli_plan(int argc, char **argv)
{
    cli_training t = {0};
    cli_args a = {0};
    char *text = NULL;
    int status = cli_training_parse(&t, &a, "plan", argc, argv);

    if (status < 0) {
        cli_watch_interrupts();
        int rc = cli_training_open(&t, &a);
        if (rc >= 0)
            rc = sdlora_plan(t.m.ckpt, t.m.vae, t.net, t.data, NULL, cli_options(&a, "train"),
                             cli_watch, NULL, &text);
        if (rc < 0)
            status = cli_watch_failed(rc);
        else if (t.json)
            status = fputs(text, stdout) < 0 ? CLI_FAILED : CLI_OK;
        else
            print_table(text);
    }
    sdlora_text_free(t.m.ctx, text);
    cli_training_close(&t, &a);
    return status < 0 ? CLI_OK : status;
}
