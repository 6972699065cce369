/* SPDX-License-Identifier: MIT */
/* Trains a LoRA on a folder of tagged pictures, then draws one picture with it:
 *     train CHECKPOINT PICTURES OUTPUT_DIR [option=value ...]
 * train.py and train.lua do the same, to the same bytes. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sdlora/sdlora.h>

enum { CONTEXT, DATASET, NETWORK, TRAIN, GENERATE, KINDS };
static const char *const kinds[KINDS] = {"context", "dataset", "network", "train", "generate"};

/* "name=value" goes to the first kind that has such an option. */
static int set(sdlora_options **opts, const char *text)
{
    char name[64];
    size_t n = strcspn(text, "=");
    int rc = SDLORA_ENOTFOUND;
    snprintf(name, sizeof name, "%.*s", (int)n, text);
    for (int k = 0; k < KINDS && rc == SDLORA_ENOTFOUND; k++)
        rc = sdlora_options_set_text(opts[k], name, text[n] ? text + n + 1 : "");
    return rc;
}

static int train(sdlora_trainer *t)
{
    sdlora_progress now = {.struct_size = sizeof now};
    int rc;
    while ((rc = sdlora_trainer_step(t, &now)) == SDLORA_OK)
        printf("step %" PRId64 "/%" PRId64 "  loss %.4f\n", now.step, now.total, now.average_loss);
    return rc < 0 ? rc : SDLORA_OK;
}

int main(int argc, char **argv)
{
    sdlora_options *opts[KINDS] = {NULL};
    sdlora_context *ctx = NULL;
    sdlora_checkpoint *ckpt = NULL;
    sdlora_dataset *data = NULL;
    sdlora_network *net = NULL;
    sdlora_trainer *t = NULL;
    sdlora_generator *g = NULL;
    sdlora_image *img = NULL;
    char png[4096];
    int rc = SDLORA_OK;
    if (argc < 4)
        return fprintf(stderr, "usage: train CHECKPOINT PICTURES OUTPUT_DIR [option=value]\n"), 2;
    for (int k = 0; k < KINDS && !rc; k++)
        rc = sdlora_options_new(&opts[k], kinds[k]);
    if (!rc && !(rc = sdlora_options_set_text(opts[DATASET], "train_data_dir", argv[2])) &&
        !(rc = sdlora_options_set_text(opts[TRAIN], "output_dir", argv[3])))
        rc = sdlora_options_set_int(opts[GENERATE], "seed", 1);
    for (int i = 4; i < argc && !rc; i++)
        rc = set(opts, argv[i]);

    if (!rc && !(rc = sdlora_context_new(&ctx, opts[CONTEXT], NULL)) &&
        !(rc = sdlora_checkpoint_open(&ckpt, ctx, argv[1], NULL)) &&
        !(rc = sdlora_dataset_open(&data, ctx, opts[DATASET])) &&
        !(rc = sdlora_network_new(&net, ckpt, opts[NETWORK], 0)) &&
        !(rc = sdlora_trainer_new(&t, ckpt, NULL, net, data, NULL, opts[TRAIN], NULL, NULL)) &&
        !(rc = train(t)) && !(rc = sdlora_generator_new(&g, ckpt, NULL)) &&
        !(rc = sdlora_generator_set_network(g, net, 1, 1)) &&
        !(rc = sdlora_generator_run(g, opts[GENERATE], &img, 1))) {
        snprintf(png, sizeof png, "%s/sample.png", argv[3]);
        rc = sdlora_image_save(img, png);
    }
    if (rc)
        fprintf(stderr, "%s\n", sdlora_last_error()->message);
    sdlora_image_unref(img);
    sdlora_generator_unref(g);
    sdlora_trainer_unref(t);
    sdlora_network_unref(net);
    sdlora_dataset_unref(data);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
    for (int k = 0; k < KINDS; k++)
        sdlora_options_unref(opts[k]);
    return rc != SDLORA_OK;
}
