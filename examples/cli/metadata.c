/* SPDX-License-Identifier: MIT */
/* sdlora metadata get|set|remove|copy: what stands in the header of a safetensors file. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CHANGES = 64, MAX_VALUE = 64 << 20 /* bytes of a value that is read from a file */ };

typedef struct job {
    sdlora_context *ctx;
    const char *const *word; /* behind the action */
    size_t n;
    const char *out, *prefix;
    bool json;
} job;

/* --- get --- */

/* The readable half of the report: everything behind the raw pairs. */
static const char *readable(const char *json)
{
    const char *at = strstr(json, "\n  \"training\": ");

    return at ? at : json;
}

static int get(const job *j)
{
    char *text = NULL;

    if (j->n < 1 || j->n > 2)
        return cli_usage("metadata get wants a file, and perhaps a key");
    if (sdlora_metadata_get(j->ctx, j->word[0], j->n > 1 ? j->word[1] : NULL, &text) < 0)
        return cli_failed();
    if (j->n > 1)
        printf("%s\n", text);
    else if (j->json)
        fputs(text, stdout);
    else
        cli_print_json(readable(text), 100);
    sdlora_text_free(j->ctx, text);
    return CLI_OK;
}

/* --- set, remove, copy --- */

/* What follows '=': itself, or behind '@' what is in that file.  The caller frees. */
static char *value_of(const char *text)
{
    FILE *f = *text == '@' ? fopen(text + 1, "rb") : NULL;
    size_t size = *text == '@' ? MAX_VALUE : strlen(text), n = 0;
    char *value;

    if (*text == '@' && !f)
        return NULL;
    value = malloc(size + 1);
    if (value && f)
        n = fread(value, 1, size, f);
    else if (value)
        memcpy(value, text, n = size);
    if (value)
        value[n] = '\0';
    if (f)
        fclose(f);
    return value;
}

static int apply(const job *j, char *const *keys, char *const *values, size_t n)
{
    int rc = sdlora_metadata_set(j->ctx, j->word[0], j->out, (const char *const *)keys,
                                 (const char *const *)values, n, cli_watch, NULL);

    cli_progress_end();
    return rc < 0 ? cli_watch_failed(rc) : CLI_OK;
}

static int set(const job *j)
{
    char *keys[MAX_CHANGES] = {NULL}, *values[MAX_CHANGES] = {NULL};
    size_t n = 0;
    int status = -1;

    if (j->n < 2)
        return cli_usage("metadata set wants a file and KEY=VALUE ...");
    for (size_t i = 1; status < 0 && i < j->n; i++, n++) {
        size_t name = strcspn(j->word[i], "=");

        if (j->word[i][name] != '=' || name == 0) {
            status = cli_usage("'%s' is not KEY=VALUE", j->word[i]);
            break;
        }
        keys[n] = strdup(j->word[i]);
        values[n] = value_of(j->word[i] + name + 1);
        if (!values[n])
            status = cli_usage("%s can't be read", j->word[i] + name + 2);
        if (keys[n])
            keys[n][name] = '\0';
        else
            status = CLI_FAILED;
    }
    if (status < 0)
        status = apply(j, keys, values, n);
    for (size_t i = 0; i < MAX_CHANGES; i++) {
        free(keys[i]);
        free(values[i]);
    }
    return status;
}

static int remove_keys(const job *j)
{
    static char *const none[MAX_CHANGES];

    if (j->n < 2)
        return cli_usage("metadata remove wants a file and keys");
    return apply(j, (char *const *)(j->word + 1), none, j->n - 1);
}

static int copy(const job *j)
{
    int rc;

    if (j->n != 2)
        return cli_usage("metadata copy wants a file to copy from and one to copy to");
    rc = sdlora_metadata_copy(j->ctx, j->word[0], j->word[1], j->out, j->prefix, cli_watch, NULL);
    cli_progress_end();
    return rc < 0 ? cli_watch_failed(rc) : CLI_OK;
}

static const struct {
    const char *name;
    int (*run)(const job *j);
} actions[] = {{"get", get}, {"set", set}, {"remove", remove_keys}, {"copy", copy}};

enum { N_ACTIONS = sizeof actions / sizeof *actions };

static int act(const char *name, const job *j)
{
    for (size_t i = 0; i < N_ACTIONS; i++)
        if (!strcmp(actions[i].name, name))
            return actions[i].run(j);
    return cli_usage("metadata has get, set, remove and copy, not '%s'", name);
}

int cli_metadata(int argc, char **argv)
{
    static const char *const kinds[] = {"context", NULL};
    job j = {0};
    const cli_flag flags[] = {
        {"json", CLI_FLAG_BOOL, &j.json, "print JSON, with all pairs as they stand"},
        {"out", CLI_FLAG_TEXT, &j.out, "file to write in place of the one that is changed"},
        {"prefix", CLI_FLAG_TEXT, &j.prefix, "copy only keys that begin so (ss_)"},
    };
    cli_args a = {.usage = "metadata get FILE [KEY] | set FILE KEY=VALUE|KEY=@FILE ... | "
                           "remove FILE KEY ... | copy FROM FILE",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    cli_model m = {0};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n < 2)
        status = cli_usage("metadata wants get, set, remove or copy, and a file");
    if (status < 0 && cli_open(&m, &a, NULL, NULL) < 0)
        status = cli_failed();
    if (status < 0) {
        cli_watch_interrupts();
        j.ctx = m.ctx;
        j.word = a.words.item + 1;
        j.n = a.words.n - 1;
        status = act(a.words.item[0], &j);
    }
    cli_close(&m);
    cli_args_free(&a);
    return status;
}
