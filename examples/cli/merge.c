/* SPDX-License-Identifier: MIT */
/* sdlora merge: networks into one, or into a model. */
#include "nets.h"

#include <stdio.h>

typedef struct job {
    const char *ckpt, *to, *precision, *model, *vae;
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

/* The model's file once more, with the networks in it. */
static int into_model(job *j, const cli_args *a)
{
    sdlora_options *o = cli_options(a, "merge");
    int rc = j->precision ? sdlora_options_set_text(o, "save_precision", j->precision) : SDLORA_OK;

    if (rc >= 0 && j->vae)
        rc = sdlora_vae_open(&j->s.m.vae, j->s.m.ctx, j->vae);
    if (rc >= 0)
        rc = sdlora_checkpoint_merge_file(j->s.m.ckpt, j->s.m.vae, j->s.net, j->s.te, j->s.unet,
                                          j->s.n, j->to, o, cli_watch, NULL);
    if (rc >= 0)
        printf("%s: %zu networks merged into %s\n", j->to, j->s.n, j->model);
    return rc;
}

static int run(job *j, const cli_args *a)
{
    sdlora_options *o = cli_options(a, "merge");
    sdlora_network *made = NULL;
    int rc, status;

    cli_watch_interrupts();
    rc = cli_nets_open(&j->s, a, j->model ? j->model : j->ckpt, &a->words);
    if (rc >= 0 && (status = read_ratios(j, a->words.n)) != CLI_OK)
        return status;
    if (rc >= 0)
        rc = cli_nets_title(o, j->to);
    if (j->model) {
        rc = rc < 0 ? rc : into_model(j, a);
        return rc < 0 ? cli_watch_failed(rc) : CLI_OK;
    }
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
    static const char *const kinds[] = {"merge", "checkpoint", "context", NULL};
    job j = {0};
    const cli_flag flags[] = {
        {"save_to", CLI_FLAG_TEXT, &j.to, "the file to write"},
        {"save_precision", CLI_FLAG_TEXT, &j.precision,
         "float, fp16 or bf16; networks: float, models: as they are"},
        {"sd_model", CLI_FLAG_TEXT, &j.model, "merge into this model's file, not into a network"},
        {"vae", CLI_FLAG_TEXT, &j.vae, "with sd_model: an autoencoder instead of the model's own"},
        {"ratio", CLI_FLAG_LIST, &j.weights, "strength of the network of the same place"},
        {"te_ratio", CLI_FLAG_LIST, &j.te_weights, "the same for the text encoder alone"},
        {"ckpt", CLI_FLAG_TEXT, &j.ckpt,
         "the model that they are for; needed for DoRA, OFT and their like"},
        {"rank", CLI_FLAG_ALIAS, NULL, "new_rank"},
    };
    cli_args a = {.usage = "merge NETWORK[:RATIO] ... --save_to FILE [--sd_model MODEL]",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && j.vae && !j.model)
        status = cli_usage("--vae belongs to --sd_model");
    if (status < 0 && (!a.words.n || !j.to))
        status = cli_usage("merge wants networks and --save_to FILE");
    if (status < 0)
        status = run(&j, &a);
    cli_nets_close(&j.s);
    cli_args_free(&a);
    return status;
}
