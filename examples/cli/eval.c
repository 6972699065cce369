/* SPDX-License-Identifier: MIT */
/* sdlora eval: the held-out loss of a model, alone or with networks, as JSON. */
#include "draw.h"

#include <stdio.h>

enum { MAX_NETS = 64 };

typedef struct job {
    const char *ckpt, *vae, *data;
    cli_list loras, weights, embeddings;
    size_t n; /* networks: loras, then embeddings */
    cli_model m;
    sdlora_dataset *set;
    sdlora_network *net[MAX_NETS];
    double weight[MAX_NETS];
} job;

static const char *file_of(const job *j, size_t i)
{
    return i < j->loras.n ? j->loras.item[i] : j->embeddings.item[i - j->loras.n];
}

static int open_all(job *j, const cli_args *a)
{
    sdlora_options *o = cli_options(a, "dataset");
    int rc = cli_open(&j->m, a, j->ckpt, j->vae);

    if (rc >= 0)
        rc = sdlora_options_set_text(o, "train_data_dir", j->data);
    if (rc >= 0)
        rc = sdlora_dataset_open(&j->set, j->m.ctx, o);
    for (size_t i = 0; rc >= 0 && i < j->n; i++)
        rc = cli_open_network(&j->net[i], NULL, &j->m, file_of(j, i), cli_options(a, "eval"));
    return rc;
}

static int run(job *j, const cli_args *a)
{
    int64_t seed = 0;
    double loss = 0;
    int rc;

    if (j->weights.n > j->loras.n)
        return cli_usage("there are %zu --weight for %zu --lora", j->weights.n, j->loras.n);
    j->n = j->loras.n + j->embeddings.n;
    if (j->n > MAX_NETS) {
        j->n = 0;
        return cli_usage("more than %d networks", MAX_NETS);
    }
    for (size_t i = 0; i < j->n; i++) {
        const char *text = i < j->weights.n ? j->weights.item[i] : "1";

        if (!cli_real(text, &j->weight[i]))
            return cli_usage("--weight %s is no number", text);
    }
    cli_watch_interrupts();
    rc = open_all(j, a);
    if (rc >= 0)
        rc = sdlora_evaluate(j->m.ckpt, j->m.vae, j->set, j->net, j->weight, j->weight, j->n,
                             cli_options(a, "eval"), cli_watch, NULL, &loss);
    if (rc < 0)
        return cli_watch_failed(rc);
    sdlora_options_get_int(cli_options(a, "eval"), "seed", &seed);
    printf("{\"loss\": %.9g, \"pictures\": %zu, \"seed\": %lld, \"networks\": [", loss,
           sdlora_dataset_images(j->set), (long long)seed);
    for (size_t i = 0; i < j->n; i++) {
        printf("%s{\"file\": ", i ? ", " : "");
        cli_quote(file_of(j, i));
        printf(", \"weight\": %g}", j->weight[i]);
    }
    printf("]}\n");
    return CLI_OK;
}

int cli_eval(int argc, char **argv)
{
    static const char *const kinds[] = {"eval", "dataset", "checkpoint", "context", NULL};
    job j = {0};
    const cli_flag flags[] = {
        {"ckpt", CLI_FLAG_TEXT, &j.ckpt, "the model"},
        {"vae", CLI_FLAG_TEXT, &j.vae, "a VAE file instead of the model's own"},
        {"data", CLI_FLAG_TEXT, &j.data, "folder of pictures that were not trained on"},
        {"lora", CLI_FLAG_LIST, &j.loras, "a network file"},
        {"weight", CLI_FLAG_LIST, &j.weights, "strength of the network of the same place"},
        {"embeddings", CLI_FLAG_LIST, &j.embeddings, "an embedding that captions name"},
        {"caption_extention", CLI_FLAG_ALIAS, NULL, "caption_extension"},
    };
    cli_args a = {.usage = "eval --ckpt MODEL --data DIR [--lora FILE --weight W] ...",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n)
        status = cli_usage("eval takes flags only; '%s' is none", a.words.item[0]);
    if (status < 0 && (!j.ckpt || !j.data))
        status = cli_usage("eval wants --ckpt MODEL and --data DIR");
    if (status < 0)
        status = run(&j, &a);
    for (size_t i = 0; i < j.n; i++)
        sdlora_network_unref(j.net[i]);
    sdlora_dataset_unref(j.set);
    cli_close(&j.m);
    cli_args_free(&a);
    return status;
}
