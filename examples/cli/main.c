/* SPDX-License-Identifier: MIT */
/* The command `sdlora`: an ordinary client of the library.  This file knows the verbs' names. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const cli_verb verbs[] = {
    {"train", cli_train, "train a LoRA from a folder of tagged pictures (kohya's flags)"},
    {"plan", cli_plan, "tell what a training run will take: memory, time, disk"},
    {"generate", cli_generate, "draw pictures from a prompt"},
    {"eval", cli_eval, "measure the held-out loss of a model with networks"},
    {"sheet", cli_sheet, "draw prompts at several strengths onto one labelled sheet"},
    {"grid", cli_grid, "draw combinations of settings onto one labelled sheet"},
    {"info", cli_info, "tell what a file is"},
    {"metadata", cli_metadata, "show, set, remove or copy what a safetensors header says"},
    {"hash", cli_hash, "tell the digests that a file is known by"},
    {"check", cli_check, "look for NaN, untrained modules and the size of weights"},
    {"convert", cli_convert, "write a model as another file: container, layout, precision"},
    {"prune", cli_prune, "write a model without what only training needs"},
    {"tokenize", cli_tokenize, "show the token ids of a text"},
    {"merge", cli_merge, "make one network of many"},
    {"resize", cli_resize, "make a network smaller"},
    {"extract", cli_extract, "make a network of what training changed in a model"},
    {"bench", cli_bench, "measure this machine on a model"},
    {"devices", cli_devices, "list the devices that compute"},
};

enum { N_VERBS = sizeof verbs / sizeof *verbs };

static const cli_verb *find(const char *name)
{
    for (size_t i = 0; i < N_VERBS; i++)
        if (!strcmp(verbs[i].name, name))
            return &verbs[i];
    return NULL;
}

static int unknown(const char *name)
{
    const char *names[N_VERBS + 1], *near;

    for (size_t i = 0; i < N_VERBS; i++)
        names[i] = verbs[i].name;
    names[N_VERBS] = "help";
    near = cli_nearest(name, names, N_VERBS + 1);
    if (near)
        return cli_usage("there is no verb '%s'; did you mean '%s'?", name, near);
    return cli_usage("there is no verb '%s'; see: sdlora help", name);
}

static int help(int argc, char **argv)
{
    char flag[] = "--help", *rest[] = {flag, NULL};

    if (argc > 0) {
        const cli_verb *verb = find(argv[0]);

        return verb ? verb->run(1, rest) : unknown(argv[0]);
    }
    printf("usage: sdlora VERB [--flag value ...]\n\n");
    for (size_t i = 0; i < N_VERBS; i++)
        printf("  %-10s %s\n", verbs[i].name, verbs[i].help);
    printf("  %-10s %s\n\n", "help", "this text, or that of a verb: sdlora help train");
    printf("exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted\n");
    return CLI_OK;
}

int main(int argc, char **argv)
{
    const cli_verb *verb;

    if (argc < 2) {
        help(0, NULL);
        return CLI_USAGE;
    }
    if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        return help(argc - 2, argv + 2);
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version")) {
        printf("sdlora %s\n", sdlora_version());
        return CLI_OK;
    }
    verb = find(argv[1]);
    if (!verb)
        return unknown(argv[1]);
    return verb->run(argc - 2, argv + 2);
}
