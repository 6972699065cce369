/* SPDX-License-Identifier: MIT */
/* sdlora merge: networks into one. */
#include "nets.h"

#include <stdio.h>

typedef struct job {
    const char *ckpt, *to, *precision;
    cli_list weights, te_weights;
    cli_nets s;
} job;

/* --ratio and --te_ratio by place, over what stands behind a file's name. */
static int read_ratios(job *j, size_t n)
{
    if (j->weights.n > n || j->te_weights.n > n)
        return cli_usage("there are %zu --ratio and %zu --te_ratio for %zu networks", j->weights.n,
                         j->te_weights.n, n);
    for (size_t i = 0; i < j->weights.n; i++) {
        if (!cli_real(j->weights.item[i], &j->s.unet[i]))
            return cli_usage("--ratio %s is no number", j->weights.item[i]);
        j->s.te[i] = j->s.unet[i];
    }
    for (size_t i = 0; i < j->te_weights.n; i++)
        if (!cli_real(j->te_weights.item[i], &j->s.te[i]))
            return cli_usage("--te_ratio %s is no number", j->te_weights.item[i]);
    return CLI_OK;
}

static int run(job *j, const cli_args *a)
{
    sdlora_options *o = cli_options(a, "merge");
    sdlora_network *made = NULL;
    int rc, status;

    cli_watch_interrupts();
    rc = cli_nets_open(&j->s, a, j->ckpt, &a->words);
    if (rc >= 0 && (status = read_ratios(j, a->words.n)) != CLI_OK)
        return status;
    if (rc >= 0)
        rc = cli_nets_title(o, j->to);
    if (rc >= 0)
        rc = sdlora_network_merge(&made, j->s.net, j->s.te, j->s.unet, j->s.n, o, cli_watch, NULL);
    if (rc >= 0)
        rc = sdlora_network_save(made, j->to, j->precision);
    if (rc >= 0)
        printf("%s: %zu modules, dim %s, alpha %s\n", j->to, sdlora_network_modules(made),
               sdlora_network_metadata(made, "ss_network_dim"),
               sdlora_network_metadata(made, "ss_network_alpha"));
    sdlora_network_unref(made);
    return rc < 0 ? cli_watch_failed(rc) : CLI_OK;
}

int cli_merge(int argc, char **argv)
{
    static const char *const kinds[] = {"merge", "context", NULL};
    job j = {0};
    const cli_flag flags[] = {
        {"save_to", CLI_FLAG_TEXT, &j.to, "the file to write"},
        {"save_precision", CLI_FLAG_TEXT, &j.precision, "float (default), fp16 or bf16"},
        {"ratio", CLI_FLAG_LIST, &j.weights, "strength of the network of the same place"},
        {"te_ratio", CLI_FLAG_LIST, &j.te_weights, "the same for the text encoder alone"},
        {"ckpt", CLI_FLAG_TEXT, &j.ckpt,
         "the model that they are for; needed for DoRA, OFT and their like"},
        {"rank", CLI_FLAG_ALIAS, NULL, "new_rank"},
    };
    cli_args a = {.usage = "merge NETWORK[:RATIO] ... --save_to FILE",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && (!a.words.n || !j.to))
        status = cli_usage("merge wants networks and --save_to FILE");
    if (status < 0)
        status = run(&j, &a);
    cli_nets_close(&j.s);
    cli_args_free(&a);
    return status;
}
