/* SPDX-License-Identifier: MIT */
/* The flags of kohya's train_network.py, each of them a row of the option table, and the handles
 * that they open. */
#include "training.h"

#include <stdio.h>

static int check(const cli_training *t, const cli_args *a, const char *verb)
{
    const char *text;

    if (a->words.n)
        return cli_usage("%s takes flags only; '%s' is none", verb, a->words.item[0]);
    if (!t->ckpt)
        return cli_usage("%s wants --pretrained_model_name_or_path MODEL", verb);
    if (sdlora_options_get_text(cli_options(a, "dataset"), "train_data_dir", &text) != SDLORA_OK)
        return cli_usage("%s wants --train_data_dir DIR", verb);
    if (sdlora_options_get_text(cli_options(a, "train"), "output_dir", &text) != SDLORA_OK)
        return cli_usage("%s wants --output_dir DIR", verb);
    return -1;
}

int cli_training_parse(cli_training *t, cli_args *a, const char *verb, int argc, char **argv)
{
    static const char *const kinds[] = {"checkpoint", "network", "dataset",
                                        "train",      "context", NULL};
    const cli_flag flags[] = {
        {"pretrained_model_name_or_path", CLI_FLAG_TEXT, &t->ckpt,
         "the model: a file or a diffusers folder"},
        {"vae", CLI_FLAG_TEXT, &t->vae, "a VAE file instead of the model's own"},
        {"json", CLI_FLAG_BOOL, &t->json, "print JSON: train one object per step, plan one"},
        {"config_from", CLI_FLAG_TEXT, &t->config_from,
         "take the settings that a network file was trained with; flags go before them"},
        {"config_file", CLI_FLAG_REFUSED, NULL,
         "configuration files are not read; give the settings as flags"},
        {"caption_extention", CLI_FLAG_ALIAS, NULL, "caption_extension"},
    };
    char usage[160];

    snprintf(usage, sizeof usage,
             "%s --pretrained_model_name_or_path MODEL --train_data_dir DIR --output_dir DIR ...",
             verb);
    a->usage = usage;
    a->flags = flags;
    a->n_flags = sizeof flags / sizeof *flags;
    a->kinds = kinds;
    int status = cli_parse(a, argc, argv);
    a->usage = NULL; /* both lived for the parsing */
    a->flags = NULL;
    a->n_flags = 0;
    return status < 0 ? check(t, a, verb) : status;
}

/* What the file tells of each kind of options; what cannot be taken over is told. */
static int take_settings(const cli_training *t, const cli_args *a)
{
    static const char *const kinds[] = {"train", "network", "dataset"};
    int rc = SDLORA_OK;

    for (size_t i = 0; rc >= 0 && i < sizeof kinds / sizeof *kinds; i++) {
        char *notes;

        rc = sdlora_options_from_metadata(cli_options(a, kinds[i]), t->m.ctx, t->config_from,
                                          &notes);
        if (rc >= 0 && *notes)
            fprintf(stderr, "%s: not taken over:\n%s", t->config_from, notes);
        if (rc >= 0)
            sdlora_text_free(t->m.ctx, notes);
    }
    return rc;
}

int cli_training_open(cli_training *t, const cli_args *a)
{
    int64_t seed = 0;
    int rc = cli_open(&t->m, a, t->ckpt, t->vae);

    if (rc >= 0 && t->config_from)
        rc = take_settings(t, a);
    if (rc >= 0)
        sdlora_options_get_int(cli_options(a, "train"), "seed", &seed);
    if (rc >= 0)
        rc = sdlora_dataset_open(&t->data, t->m.ctx, cli_options(a, "dataset"));
    if (rc >= 0)
        rc = sdlora_network_new(&t->net, t->m.ckpt, cli_options(a, "network"), (uint64_t)seed);
    if (rc < 0)
        return rc;
    fprintf(stderr, "%s (%s), %zu pictures, %lld views in %lld batches per epoch, %zu modules\n",
            t->ckpt, sdlora_checkpoint_family(t->m.ckpt), sdlora_dataset_images(t->data),
            (long long)sdlora_dataset_views(t->data),
            (long long)sdlora_dataset_batches_per_epoch(t->data), sdlora_network_modules(t->net));
    return SDLORA_OK;
}

void cli_training_close(cli_training *t, cli_args *a)
{
    sdlora_network_unref(t->net);
    sdlora_dataset_unref(t->data);
    cli_close(&t->m);
    cli_args_free(a);
}
