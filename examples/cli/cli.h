/* SPDX-License-Identifier: MIT */
/* What the verbs of the command `sdlora` share: flags made from the library's option rows, opening
 * a model, progress on the terminal.  A verb is one file with one row in main.c. */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stddef.h>

#include <sdlora/sdlora.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_INTERRUPTED = 130 };

/* --- verbs --- */

typedef struct cli_verb {
    const char *name;
    int (*run)(int argc, char **argv); /* what follows the verb; returns the exit status */
    const char *help;                  /* one line */
} cli_verb;

int cli_train(int argc, char **argv);
int cli_plan(int argc, char **argv);
int cli_generate(int argc, char **argv);
int cli_grid(int argc, char **argv);
int cli_eval(int argc, char **argv);
int cli_sheet(int argc, char **argv);
int cli_info(int argc, char **argv);
int cli_metadata(int argc, char **argv);
int cli_hash(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_convert(int argc, char **argv);
int cli_prune(int argc, char **argv);
int cli_tokenize(int argc, char **argv);
int cli_resize(int argc, char **argv);
int cli_merge(int argc, char **argv);
int cli_extract(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_devices(int argc, char **argv);

/* --- flags (args.c) --- */

/* Texts point into argv. */
typedef struct cli_list {
    const char *item[64];
    size_t n;
} cli_list;

enum {
    CLI_FLAG_TEXT = 1, /* to: const char * */
    CLI_FLAG_BOOL,     /* to: bool */
    CLI_FLAG_LIST,     /* to: cli_list; the flag may be repeated */
    CLI_FLAG_REFUSED,  /* help is the sentence that says why */
    CLI_FLAG_ALIAS     /* help is the option's proper name */
};

/* A flag of the verb's own.  In flags '-' and '_' are the same. */
typedef struct cli_flag {
    const char *name; /* with '_', without "--" */
    int kind;
    void *to;
    const char *help;
} cli_flag;

enum { CLI_SETS = 8 };

typedef struct cli_args {
    const char *usage; /* "train --flag value ..." */
    const cli_flag *flags;
    size_t n_flags;
    const char *const *kinds;       /* NULL-terminated: whose rows are flags too */
    sdlora_options *sets[CLI_SETS]; /* one per kind, filled by cli_parse */
    cli_list words;                 /* what is no flag */
} cli_args;

/* Returns -1 to go on, else the exit status (--help was asked for, or a usage error that was
 * told). */
int cli_parse(cli_args *a, int argc, char **argv);
void cli_args_free(cli_args *a);
sdlora_options *cli_options(const cli_args *a, const char *kind);
/* "sdlora: VERB: ..." to stderr; returns CLI_USAGE. */
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The nearest of n names, or NULL when none is near. */
const char *cli_nearest(const char *name, const char *const *names, size_t n);
bool cli_real(const char *text, double *value);

/* --- the library (model.c) --- */

typedef struct cli_model {
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt;
    sdlora_vae *vae;
} cli_model;

/* ckpt NULL: the context only.  vae Nullable.  Negative after a failure of the library. */
int cli_open(cli_model *m, const cli_args *a, const char *ckpt, const char *vae);
void cli_close(cli_model *m);
/* "sdlora: <text>" to stderr; returns CLI_FAILED. */
int cli_failed(void);

/* What `convert` and `prune` share (convert.c): IN and OUT, flags of one kind, progress, a report.
 */
typedef int (*cli_rewrite_fn)(sdlora_context *ctx, const char *in, const char *out,
                              const sdlora_options *opts, sdlora_progress_fn progress, void *user,
                              char **json);
int cli_rewrite(cli_rewrite_fn run, const char *kind, const char *usage, int argc, char **argv);

/* --- output (output.c) --- */

/* A line that is drawn again and again on a terminal, or now and then a new one in a pipe. */
void cli_progress(const char *what, long long done, long long total, double eta, const char *more);
void cli_progress_end(void); /* leaves the terminal on a fresh line */
/* Progress of a job without a handle, which Ctrl-C ends: catch it, hand cli_watch to the job, and
 * let cli_watch_failed tell of a failure and give the exit status (watch.c). */
void cli_watch_interrupts(void);
int cli_watch(const sdlora_progress *now, void *user);
int cli_watch_failed(int rc);
/* JSON text as indented "key: value" lines; longer values are cut unless `width` is 0. */
void cli_print_json(const char *json, size_t width);
/* A JSON string literal to stdout. */
void cli_quote(const char *text);

#endif
