/* SPDX-License-Identifier: MIT */
/* sdlora check: what is not finite, how large the weights of each block are, which modules of a
 * network change nothing. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number behind "key": in the text from `at` on. */
static double number_of(const char *at, const char *key)
{
    char name[48];

    snprintf(name, sizeof name, "\"%s\": ", key);
    at = strstr(at, name);
    return at ? strtod(at + strlen(name), NULL) : 0;
}

/* One row of the report, from its opening quote on; returns what follows its name. */
static const char *print_name(const char *at, int width)
{
    int n = (int)strcspn(at, "\"");

    printf("%-*.*s", width, n, at);
    return at + n;
}

static void print_sums(const char *at)
{
    printf(" %6.0f %10.4g %10.3g %10.3g %8.0f\n", number_of(at, "tensors"), number_of(at, "norm"),
           number_of(at, "mean"), number_of(at, "max"),
           number_of(at, "nan") + number_of(at, "inf"));
}

static void print_blocks(const char *json)
{
    static const char head[] = "{\"name\": \"";
    const char *at = strstr(json, "\"blocks\": ["), *end = at ? strstr(at, "\n  ]") : NULL;

    printf("%-44s %6s %10s %10s %10s %8s\n", "block", "tensor", "norm", "mean|w|", "max|w|",
           "NaN, Inf");
    while (at && (at = strstr(at, head)) != NULL && at < end) {
        at = print_name(at + strlen(head), 44);
        print_sums(at);
    }
    printf("%-44s", "all");
    print_sums(strstr(json, "\"all\": "));
}

/* The texts of a list, one per line; objects by their name. */
static void print_list(const char *json, const char *key, const char *what)
{
    char name[32];
    const char *at, *end;

    snprintf(name, sizeof name, "\"%s\": [", key);
    at = strstr(json, name);
    end = at ? strstr(at, "\n  ]") : NULL;
    if (!at || !end || strchr(at + strlen(name), ']') < end)
        return;
    printf("\n%s:\n", what);
    for (at = strchr(at, '\n'); at && at < end; at = strchr(at + 1, '\n')) {
        const char *text = at + strspn(at, "\n {");

        if (!strncmp(text, "\"name\": ", 8))
            text += 8;
        if (*text == '"')
            printf("  %.*s\n", (int)strcspn(text + 1, "\""), text + 1);
    }
}

static void print_each(const char *json)
{
    static const char head[] = "{\"name\": \"";
    const char *at = strstr(json, "\"each\": [");

    if (at)
        printf("\n%-84s %10s %10s %10s\n", "tensor", "mean|w|", "min|w|", "max|w|");
    while (at && (at = strstr(at, head)) != NULL) {
        at = print_name(at + strlen(head), 84);
        printf(" %10.3g %10.3g %10.3g\n", number_of(at, "mean"), number_of(at, "min"),
               number_of(at, "max"));
    }
}

static void print_table(const char *json)
{
    double modules = number_of(json, "modules"), dead = number_of(json, "n_dead");

    print_blocks(json);
    print_list(json, "not_finite", "not finite");
    if (modules > 0)
        printf("\n%.0f of %.0f modules change nothing%s\n", dead, modules,
               dead == modules ? ": this network was never trained" : "");
    print_list(json, "dead", "modules that change nothing");
    print_each(json);
}

int cli_check(int argc, char **argv)
{
    static const char *const kinds[] = {"context", NULL};
    bool json = false, each = false;
    const cli_flag flags[] = {
        {"json", CLI_FLAG_BOOL, &json, "print JSON"},
        {"each", CLI_FLAG_BOOL, &each, "a line for every tensor too"},
    };
    cli_args a = {.usage = "check FILE [--each] [--json]",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    cli_model m = {0};
    char *text = NULL;
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n != 1)
        status = cli_usage("check wants one file");
    if (status < 0 && cli_open(&m, &a, NULL, NULL) < 0)
        status = cli_failed();
    if (status < 0) {
        cli_watch_interrupts();
        int rc = sdlora_file_check(m.ctx, a.words.item[0], each, cli_watch, NULL, &text);

        cli_progress_end();
        if (rc < 0) {
            status = cli_watch_failed(rc);
        } else {
            if (json)
                fputs(text, stdout);
            else
                print_table(text);
            status = strstr(text, "\"ok\": true") ? CLI_OK : CLI_FAILED;
        }
    }
    sdlora_text_free(m.ctx, text);
    cli_close(&m);
    cli_args_free(&a);
    return status;
}
