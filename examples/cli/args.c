/* SPDX-License-Identifier: MIT */
/* Flags: a verb's own table first, then the rows of the library's option kinds, each of which is a
 * flag of the same name.  --help is written from both. */
#include "cli.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 128, MAX_NAMES = 512 };

int cli_usage(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "sdlora: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n");
    return CLI_USAGE;
}

bool cli_real(const char *text, double *value)
{
    char *end;

    *value = strtod(text, &end);
    return end != text && *end == '\0';
}

/* Edit distance; names are short. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NAME], n = strlen(b);

    if (n >= NAME)
        return NAME;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t corner = row[0];

        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = corner + (a[i - 1] != b[j - 1]);

            best = row[j] + 1 < best ? row[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            corner = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

const char *cli_nearest(const char *name, const char *const *names, size_t n)
{
    const char *near = NULL;
    size_t best = 1 + strlen(name) / 2;

    for (size_t i = 0; i < n; i++) {
        size_t d = distance(name, names[i]);

        if (d < best) {
            best = d;
            near = names[i];
        }
    }
    return near;
}

/* --- help --- */

static const char *const type_names[] = {
    [SDLORA_OPTION_INT] = " INT",       [SDLORA_OPTION_REAL] = " REAL",
    [SDLORA_OPTION_TEXT] = " TEXT",     [SDLORA_OPTION_BOOL] = "",
    [SDLORA_OPTION_LIST] = " TEXT ...",
};

static void print_row(const sdlora_option_info *row)
{
    char left[NAME];

    snprintf(left, sizeof left, "--%s%s", row->name, type_names[row->type]);
    printf("  %-36s %s", left, row->help);
    if (row->choices)
        printf(" (%s)", row->choices);
    if (row->default_text && *row->default_text && row->type != SDLORA_OPTION_BOOL)
        printf(" [%s]", row->default_text);
    printf("\n");
}

static int print_help(const cli_args *a)
{
    static const char *const after[] = {[CLI_FLAG_TEXT] = " TEXT",
                                        [CLI_FLAG_BOOL] = "",
                                        [CLI_FLAG_LIST] = " TEXT (may be repeated)"};

    printf("usage: sdlora %s\n\n", a->usage);
    for (size_t i = 0; i < a->n_flags; i++) {
        char left[NAME];

        if (a->flags[i].kind == CLI_FLAG_REFUSED || a->flags[i].kind == CLI_FLAG_ALIAS)
            continue;
        snprintf(left, sizeof left, "--%s%s", a->flags[i].name, after[a->flags[i].kind]);
        printf("  %-36s %s\n", left, a->flags[i].help);
    }
    for (size_t k = 0; a->kinds[k]; k++) {
        sdlora_option_info row = {.struct_size = sizeof row};

        printf("\n%s:\n", a->kinds[k]);
        for (size_t i = 0; sdlora_option_at(a->kinds[k], i, &row) == SDLORA_OK; i++)
            print_row(&row);
    }
    printf("\nIn flags, '-' and '_' are the same; --flag=value works too.\n");
    return CLI_OK;
}

/* --- parsing --- */

typedef struct reader {
    cli_args *a;
    int argc, at;
    char **argv;
    char name[NAME];     /* of the flag at hand */
    const char *inlined; /* behind '=', or NULL */
} reader;

/* The value of the flag at hand, or NULL. */
static const char *take_value(reader *r)
{
    if (r->inlined)
        return r->inlined;
    if (r->at + 1 >= r->argc || !strncmp(r->argv[r->at + 1], "--", 2))
        return NULL;
    return r->argv[++r->at];
}

static int own_flag(reader *r, const cli_flag *f)
{
    const char *value;
    cli_list *list = f->to;

    if (f->kind == CLI_FLAG_REFUSED)
        return cli_usage("--%s: %s", f->name, f->help);
    if (f->kind == CLI_FLAG_BOOL) {
        *(bool *)f->to = !r->inlined || !strcmp(r->inlined, "true");
        return -1;
    }
    value = take_value(r);
    if (!value)
        return cli_usage("--%s wants a value", f->name);
    if (f->kind == CLI_FLAG_TEXT) {
        *(const char **)f->to = value;
    } else {
        if (list->n == sizeof list->item / sizeof *list->item)
            return cli_usage("--%s is given too often", f->name);
        list->item[list->n++] = value;
    }
    return -1;
}

/* The row of a name in one kind. */
static bool find_row(const char *kind, const char *name, sdlora_option_info *row)
{
    for (size_t i = 0; sdlora_option_at(kind, i, row) == SDLORA_OK; i++)
        if (!strcmp(row->name, name))
            return true;
    return false;
}

/* All values up to the next flag, one per line. */
static char *take_list(reader *r)
{
    const char *value;
    char *all = NULL, *grown;
    size_t n = 0;

    while ((value = take_value(r)) != NULL) {
        grown = realloc(all, n + strlen(value) + 2);
        if (!grown)
            break;
        all = grown;
        n += (size_t)sprintf(all + n, "%s%s", n ? "\n" : "", value);
        if (r->inlined)
            break;
    }
    return all;
}

static int set_option(reader *r, const sdlora_option_info *row, const char **value, char **list)
{
    if (*value)
        return -1; /* read for another kind that has the same row */
    if (row->type == SDLORA_OPTION_BOOL)
        *value = r->inlined ? r->inlined : "true";
    else if (row->type == SDLORA_OPTION_LIST)
        *value = *list = take_list(r);
    else
        *value = take_value(r);
    return *value ? -1 : cli_usage("--%s wants a value", row->name);
}

/* A row may stand in several kinds (v_parameterization): all of them get the value. */
static int row_flag(reader *r, bool *found)
{
    cli_args *a = r->a;
    const char *value = NULL;
    char *list = NULL;
    int rc = -1;

    *found = false;
    for (size_t k = 0; rc < 0 && a->kinds[k]; k++) {
        sdlora_option_info row = {.struct_size = sizeof row};

        if (!find_row(a->kinds[k], r->name, &row))
            continue;
        *found = true;
        rc = set_option(r, &row, &value, &list);
        if (rc < 0 && sdlora_options_set_text(a->sets[k], row.name, value) < 0)
            rc = cli_usage("%s", sdlora_last_error()->message);
    }
    free(list);
    return rc;
}

static int unknown_flag(const reader *r)
{
    static const char help[] = "help";
    const char *names[MAX_NAMES], *near;
    size_t n = 0;

    names[n++] = help;
    for (size_t i = 0; i < r->a->n_flags && n < MAX_NAMES; i++)
        if (r->a->flags[i].kind != CLI_FLAG_REFUSED && r->a->flags[i].kind != CLI_FLAG_ALIAS)
            names[n++] = r->a->flags[i].name;
    for (size_t k = 0; r->a->kinds[k]; k++) {
        sdlora_option_info row = {.struct_size = sizeof row};

        for (size_t i = 0; n < MAX_NAMES && sdlora_option_at(r->a->kinds[k], i, &row) == SDLORA_OK;
             i++)
            names[n++] = row.name;
    }
    near = cli_nearest(r->name, names, n);
    if (near)
        return cli_usage("there is no flag --%s here; did you mean --%s?", r->name, near);
    return cli_usage("there is no flag --%s here; see --help", r->name);
}

/* Splits "--some-name=value". */
static int take_name(reader *r, const char *text)
{
    size_t n = strcspn(text, "=");

    if (n == 0 || n >= NAME)
        return cli_usage("'--%s' is no flag", text);
    memcpy(r->name, text, n);
    r->name[n] = '\0';
    for (char *p = r->name; *p; p++)
        *p = *p == '-' ? '_' : *p;
    r->inlined = text[n] == '=' ? text + n + 1 : NULL;
    return -1;
}

static int one_flag(reader *r, const char *text)
{
    bool found;
    int rc = take_name(r, text);

    if (rc >= 0)
        return rc;
    if (!strcmp(r->name, "help")) {
        return print_help(r->a);
    }
    for (size_t i = 0; i < r->a->n_flags; i++) {
        if (strcmp(r->a->flags[i].name, r->name) != 0)
            continue;
        if (r->a->flags[i].kind != CLI_FLAG_ALIAS)
            return own_flag(r, &r->a->flags[i]);
        snprintf(r->name, sizeof r->name, "%s", r->a->flags[i].help);
    }
    rc = row_flag(r, &found);
    return found ? rc : unknown_flag(r);
}

int cli_parse(cli_args *a, int argc, char **argv)
{
    reader r = {.a = a, .argc = argc, .argv = argv};
    bool flags_over = false;
    int rc = -1;

    for (size_t k = 0; a->kinds[k]; k++)
        if (sdlora_options_new(&a->sets[k], a->kinds[k]) < 0)
            return cli_failed();
    for (r.at = 0; rc < 0 && r.at < argc; r.at++) {
        const char *word = argv[r.at];

        if (!flags_over && !strcmp(word, "--")) {
            flags_over = true;
        } else if (!flags_over && !strncmp(word, "--", 2)) {
            rc = one_flag(&r, word + 2);
        } else if (!flags_over && !strcmp(word, "-h")) {
            rc = print_help(a);
        } else if (a->words.n == sizeof a->words.item / sizeof *a->words.item) {
            rc = cli_usage("too many arguments");
        } else {
            a->words.item[a->words.n++] = word;
        }
    }
    return rc;
}

void cli_args_free(cli_args *a)
{
    for (size_t k = 0; k < CLI_SETS; k++)
        sdlora_options_unref(a->sets[k]);
}

sdlora_options *cli_options(const cli_args *a, const char *kind)
{
    for (size_t k = 0; a->kinds[k]; k++)
        if (!strcmp(a->kinds[k], kind))
            return a->sets[k];
    return NULL;
}
