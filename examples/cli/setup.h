/* SPDX-License-Identifier: MIT */
/* What `generate` and `grid` draw with: a model, directories of further files, networks, pictures to
 * start from, and the parameters of a picture that was made before. */
#ifndef CLI_SETUP_H
#define CLI_SETUP_H

#include "cli.h"

/* Zeros at first; the texts are those of flags. */
typedef struct cli_setup {
    const char *ckpt, *vae, *refiner, *init_image, *mask, *from, *quality;
    cli_list lora_dirs, loras, embeddings, vae_dirs, upscaler_dirs, ckpt_dirs;
    const cli_args *args;
    cli_model m;
    sdlora_generator *g; /* of that model */
} cli_setup;

#define CLI_SETUP_FLAGS(s)                                                                         \
    {"ckpt", CLI_FLAG_TEXT, &(s).ckpt, "the model: a file or a diffusers folder"},                 \
        {"vae", CLI_FLAG_TEXT, &(s).vae, "a VAE file instead of the model's own"},                 \
        {"refiner", CLI_FLAG_TEXT, &(s).refiner,                                                   \
         "a model that finishes pictures, from --refiner_switch_at on"},                           \
        {"ckpt_dir", CLI_FLAG_LIST, &(s).ckpt_dirs,                                                \
         "where models are looked up: --refiner, --hr_checkpoint_name, those of --from's picture " \
         "and of axes"},                                                                           \
        {"lora_dir", CLI_FLAG_LIST, &(s).lora_dirs,                                                \
         "where <lora:name:1> and <hypernet:name:1> are looked up"},                               \
        {"lora", CLI_FLAG_LIST, &(s).loras, "FILE:WEIGHT: a network for every picture"},           \
        {"embeddings", CLI_FLAG_LIST, &(s).embeddings,                                             \
         "embeddings that prompts may name: a file or a directory"},                               \
        {"init_image", CLI_FLAG_TEXT, &(s).init_image,                                             \
         "a picture to start from (img2img); --width and --height say how large the new one is"},  \
        {"mask", CLI_FLAG_TEXT, &(s).mask,                                                         \
         "what of it changes: white, or what is not transparent"},                                 \
        {"vae_dir", CLI_FLAG_LIST, &(s).vae_dirs, "where --sd_vae is looked up"},                  \
        {"upscaler_dir", CLI_FLAG_LIST, &(s).upscaler_dirs,                                        \
         "where ESRGAN networks for --hr_upscaler are looked up"},                                 \
        {"from", CLI_FLAG_TEXT, &(s).from,                                                         \
         "a picture, or a .txt file, whose parameters count where no flag says otherwise"},        \
        {"quality", CLI_FLAG_TEXT, &(s).quality,                                                   \
         "of .jpg and .webp: 1 to 100, 101 for WebP without loss"},                                \
        {"negative_prompt", CLI_FLAG_ALIAS, NULL, "negative"},                                     \
        {"cfg_scale", CLI_FLAG_ALIAS, NULL, "cfg"},                                                \
        {"sampler_name", CLI_FLAG_ALIAS, NULL, "sampler"}

/* Like cli_parse(), which it calls; a verb without words. */
int cli_setup_parse(cli_setup *s, cli_args *a, int argc, char **argv);
/* Opens all that the flags name, and fills the options of the kind "generate" from --from.
 * Negative after a failure of the library. */
int cli_setup_open(cli_setup *s);
void cli_setup_close(cli_setup *s);
/* A generator of another model, m.ckpt, with everything that the first one has; one reference. */
int cli_setup_generator(sdlora_generator **out, const cli_setup *s, cli_model m);
/* For sdlora_image_save_as(). */
int32_t cli_setup_quality(const cli_setup *s);

#endif
