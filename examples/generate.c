/* SPDX-License-Identifier: MIT */
/* Draws a picture from a prompt; <lora:NAME:STRENGTH> tags find their files in LORA_DIR:
 *     generate CHECKPOINT LORA_DIR PROMPT OUT.png [option=value ...]
 *     generate sd15.safetensors loras "a cat <lora:ink:0.8>" cat.png seed=7 steps=30 */
#include <stdio.h>
#include <string.h>

#include <sdlora/sdlora.h>

/* One line that is drawn over; a program with windows would move a bar and answer 1 to stop. */
static int progress(int64_t step, int64_t total, void *user)
{
    (void)user;
    fprintf(stderr, "\r%3d %%%s", (int)(100 * step / total), step == total ? "\n" : "");
    return 0;
}

static int settings(sdlora_options *opts, char **arg, int n)
{
    int rc = SDLORA_OK;
    for (int i = 0; i < n && !rc; i++) {
        char name[64];
        size_t length = strcspn(arg[i], "=");
        snprintf(name, sizeof name, "%.*s", (int)length, arg[i]);
        rc = sdlora_options_set_text(opts, name, arg[i][length] ? arg[i] + length + 1 : "");
    }
    return rc;
}

int main(int argc, char **argv)
{
    sdlora_context *ctx = NULL;
    sdlora_checkpoint *ckpt = NULL;
    sdlora_options *opts = NULL;
    sdlora_generator *g = NULL;
    sdlora_image *img = NULL;
    int rc;
    if (argc < 5) {
        fprintf(stderr, "usage: %s CHECKPOINT LORA_DIR PROMPT OUT.png [option=value ...]\n",
                argv[0]);
        return 2;
    }
    if (!(rc = sdlora_options_new(&opts, "generate")) &&
        !(rc = sdlora_options_set_text(opts, "prompt", argv[3])) &&
        !(rc = settings(opts, argv + 5, argc - 5)) &&
        !(rc = sdlora_context_new(&ctx, NULL, NULL)) &&
        !(rc = sdlora_checkpoint_open(&ckpt, ctx, argv[1], NULL)) &&
        !(rc = sdlora_generator_new(&g, ckpt, NULL)) &&
        !(rc = sdlora_generator_add_lora_dir(g, argv[2])) &&
        !(rc = sdlora_generator_set_progress(g, progress, NULL)) &&
        !(rc = sdlora_generator_run(g, opts, &img, 1)) && !(rc = sdlora_image_save(img, argv[4])))
        printf("%s\n", sdlora_image_text(img));
    if (rc)
        fprintf(stderr, "%s\n", sdlora_last_error()->message);
    sdlora_image_unref(img);
    sdlora_generator_unref(g);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
    sdlora_options_unref(opts);
    return rc != SDLORA_OK;
}
