/* SPDX-License-Identifier: MIT */
/* Axes.  Most put their value into one option; a few edit the prompt.  The labels and what is shown
 * of a value are those of AUTOMATIC1111's X/Y/Z script, so that a sheet's parameters read the same;
 * LoRA, LoRA weight and LoRA epoch are our own and edit the prompt's first <lora:...> tag, so that
 * each picture's parameters are those of a prompt that anybody can type.  Refuses to know how
 * pictures are made. */
#include "api/grid_axes.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <sdlora/sampler.h>

#include "api/grid_prompt.h"
#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "sample/latents.h"
#include "sample/upscaler.h"

/* --- options --- */

static int apply_option(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                        const slr_grid_values *v, size_t i)
{
    const slr_grid_value *value = &v->at[i];

    (void)m;
    if (a->type == SLR_GRID_INT)
        return slr_options_set_int(o, a->option, value->i);
    if (a->type == SLR_GRID_REAL)
        return slr_options_set_real(o, a->option, value->real);
    return slr_options_set_text(o, a->option, value->text);
}

/* "True", "False" in any case of letters. */
static int apply_bool(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                      const slr_grid_values *v, size_t i)
{
    char lower[8] = "";

    (void)m;
    for (size_t k = 0; k + 1 < sizeof lower && v->at[i].text[k]; k++)
        lower[k] = (char)tolower((unsigned char)v->at[i].text[k]);
    return slr_options_set_text(o, a->option, lower);
}

/* "512x768" */
static int apply_size(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                      const slr_grid_values *v, size_t i)
{
    const char *text = v->at[i].text, *x = strchr(text, 'x');
    char width[24] = "", height[24] = "";
    int64_t w = 0, h = 0;

    (void)m;
    if (x && (size_t)(x - text) < sizeof width && strlen(x + 1) < sizeof height) {
        slr_str left = slr_str_trim((slr_str){text, (size_t)(x - text)}),
                right = slr_str_trim(slr_str_of(x + 1));

        memcpy(width, left.p, left.n);
        memcpy(height, right.p, right.n);
    }
    if (!slr_parse_i64(width, &w) || !slr_parse_i64(height, &h))
        return slr_fail(SDLORA_EINVAL, __func__, "%s: '%.100s' is not like 512x768", a->label,
                        text);
    SLR_TRY(slr_options_set_int(o, "width", w));
    return slr_options_set_int(o, "height", h);
}

/* A checkpoint besides the one that draws; "None": there is none. */
static int apply_other(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                       const slr_grid_values *v, size_t i)
{
    const char *name = v->at[i].text;

    (void)m;
    return slr_options_set_text(o, a->option, slr_grid_names_none(name) ? "" : name);
}

/* No higher than the steps allow. */
static int apply_unipc(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                       const slr_grid_values *v, size_t i)
{
    int64_t most = slr_opt_int((slr_opt){o, "generate"}, "steps") - 1;

    (void)m;
    return slr_options_set_int(o, a->option, v->at[i].i < most ? v->at[i].i : most);
}

/* --- rows --- */

static const char *upscaler(size_t i)
{
    size_t n;
    const slr_latent_row *row = slr_latent_upscalers(&n);

    return i < n ? row[i].name : slr_upscaler_plain_name(i - n);
}

static const char *vae(size_t i)
{
    static const char *const names[] = {"Automatic", "None", NULL};

    return names[i];
}

static const char *none(size_t i)
{
    return i ? NULL : "None";
}

#define OPTION(label, option, type)                                                                \
    {                                                                                              \
        label, option, type, .apply = apply_option                                                 \
    }
static const slr_grid_axis rows[] = {
    {"Nothing", NULL, SLR_GRID_TEXT, .bare = true},
    {"Seed", "seed", SLR_GRID_INT, .seed = true, .apply = apply_option},
    {"Var. seed", "subseed", SLR_GRID_INT, .seed = true, .apply = apply_option},
    OPTION("Var. strength", "subseed_strength", SLR_GRID_REAL),
    OPTION("Steps", "steps", SLR_GRID_INT),
    OPTION("Hires steps", "hr_second_pass_steps", SLR_GRID_INT),
    OPTION("CFG Scale", "cfg", SLR_GRID_REAL),
    OPTION("Image CFG Scale", "image_cfg_scale", SLR_GRID_REAL),
    {"Prompt S/R", NULL, SLR_GRID_TEXT, .bare = true, .apply = slr_grid_replace},
    {"Prompt order", NULL, SLR_GRID_ORDER, .bare = true, .apply = slr_grid_reorder},
    {"Sampler", "sampler", SLR_GRID_TEXT, .bare = true, .choice = sdlora_sampler_name,
     .apply = apply_option},
    {"Hires sampler", "hr_sampler_name", SLR_GRID_TEXT, .choice = sdlora_sampler_name,
     .apply = apply_option},
    /* dearest: its generator has refiner, VAE and networks of its own */
    {"Checkpoint name", NULL, SLR_GRID_TEXT, .bare = true, .path = true, .model = true,
     .files = SLR_GRID_CHECKPOINTS, .cost = 1.1},
    OPTION("Negative Guidance minimum sigma", "s_min_uncond", SLR_GRID_REAL),
    OPTION("Sigma Churn", "s_churn", SLR_GRID_REAL),
    OPTION("Sigma min", "s_tmin", SLR_GRID_REAL),
    OPTION("Sigma max", "s_tmax", SLR_GRID_REAL),
    OPTION("Sigma noise", "s_noise", SLR_GRID_REAL),
    {"Schedule type", "scheduler", SLR_GRID_TEXT, .choice = sdlora_scheduler_name,
     .apply = apply_option},
    OPTION("Schedule min sigma", "sigma_min", SLR_GRID_REAL),
    OPTION("Schedule max sigma", "sigma_max", SLR_GRID_REAL),
    OPTION("Schedule rho", "rho", SLR_GRID_REAL),
    OPTION("Beta schedule alpha", "beta_dist_alpha", SLR_GRID_REAL),
    OPTION("Beta schedule beta", "beta_dist_beta", SLR_GRID_REAL),
    OPTION("Eta", "eta", SLR_GRID_REAL),
    OPTION("Clip skip", "clip_skip", SLR_GRID_INT),
    OPTION("Denoising", "denoising_strength", SLR_GRID_REAL),
    OPTION("Initial noise multiplier", "initial_noise_multiplier", SLR_GRID_REAL),
    OPTION("Extra noise", "img2img_extra_noise", SLR_GRID_REAL),
    {"Hires upscaler", "hr_upscaler", SLR_GRID_TEXT, .choice = upscaler,
     .files = SLR_GRID_UPSCALERS, .apply = apply_option},
    OPTION("Cond. Image Mask Weight", "inpainting_mask_weight", SLR_GRID_REAL),
    {"VAE", "sd_vae", SLR_GRID_TEXT, .choice = vae, .files = SLR_GRID_VAES, .cost = 0.7,
     .apply = apply_option},
    {"Styles", "styles", SLR_GRID_TEXT, .apply = slr_grid_add_styles},
    {"UniPC Order", "uni_pc_order", SLR_GRID_INT, .cost = 0.5, .apply = apply_unipc},
    OPTION("Token merging ratio", "token_merging_ratio", SLR_GRID_REAL),
    OPTION("Token merging ratio high-res", "token_merging_ratio_hr", SLR_GRID_REAL),
    {"Always discard next-to-last sigma", "always_discard_next_to_last_sigma", SLR_GRID_TEXT,
     .apply = apply_bool},
    {"SGM noise multiplier", "sgm_noise_multiplier", SLR_GRID_TEXT, .apply = apply_bool},
    {"Refiner checkpoint", "refiner_checkpoint", SLR_GRID_TEXT, .bare = true, .path = true,
     .choice = none, .files = SLR_GRID_CHECKPOINTS, .cost = 1, .apply = apply_other},
    OPTION("Refiner switch at", "refiner_switch_at", SLR_GRID_REAL),
    OPTION("RNG source", "randn_source", SLR_GRID_TEXT),
    {"Size", NULL, SLR_GRID_TEXT, .apply = apply_size},
    /* ours */
    {"Hires checkpoint", "hr_checkpoint_name", SLR_GRID_TEXT, .bare = true, .path = true,
     .choice = none, .files = SLR_GRID_CHECKPOINTS, .cost = 1, .apply = apply_other},
    {"LoRA", NULL, SLR_GRID_TEXT, .bare = true, .cost = 0.6, .apply = slr_grid_lora},
    {"LoRA weight", NULL, SLR_GRID_REAL, .tag = true, .apply = slr_grid_lora_weight},
    {"LoRA epoch", NULL, SLR_GRID_INT, .tag = true, .cost = 0.6, .apply = slr_grid_lora_epoch},
};

enum { N_ROWS = sizeof rows / sizeof *rows };

static bool same_label(const char *a, const char *b)
{
    while (*a && tolower((unsigned char)*a) == tolower((unsigned char)*b)) {
        a++;
        b++;
    }
    return *a == *b;
}

static int type_of(const slr_option_row *row)
{
    return row->type == SLR_OPT_INT    ? SLR_GRID_INT
           : row->type == SLR_OPT_REAL ? SLR_GRID_REAL
                                       : SLR_GRID_TEXT;
}

static int unknown(const char *label)
{
    const char *near = rows[0].label;
    size_t best = SIZE_MAX;

    for (size_t i = 0; i < N_ROWS; i++) {
        size_t d = slr_str_distance(label, rows[i].label, 64);

        if (d < best) {
            best = d;
            near = rows[i].label;
        }
    }
    return slr_fail(SDLORA_ENOTFOUND, "slr_grid_axis_find",
                    "there is no axis called '%.100s'; the nearest is '%s'", label, near);
}

/* An option's own name: it takes any value, and of the axis over the same option what there is to
 * choose from and how dear that is. */
static void name_option(slr_grid_axis *own, const slr_option_row *row)
{
    *own = (slr_grid_axis){.label = row->name,
                           .option = row->name,
                           .type = type_of(row),
                           .seed = !strcmp(row->name, "seed"),
                           .apply = row->type == SLR_OPT_BOOL ? apply_bool : apply_option};
    for (size_t i = 0; i < N_ROWS; i++)
        if (rows[i].option && !strcmp(rows[i].option, row->name)) {
            own->choice = rows[i].choice;
            own->files = rows[i].files;
            own->path = rows[i].path;
            own->cost = rows[i].cost;
        }
}

const slr_grid_axis *slr_grid_axis_find(const char *label, slr_grid_axis *own)
{
    const slr_option_row *row;

    for (size_t i = 0; i < N_ROWS; i++)
        if (same_label(rows[i].label, label))
            return &rows[i];
    row = slr_option_find("generate", label);
    if (!row) {
        unknown(label);
        return NULL;
    }
    name_option(own, row);
    return own;
}

const slr_grid_axis *slr_grid_axis_at(size_t i)
{
    return i < N_ROWS ? &rows[i] : NULL;
}

bool slr_grid_axis_is_none(const slr_grid_axis *a, const slr_grid_values *v, size_t i)
{
    return a->apply == slr_grid_lora && slr_grid_names_none(v->at[i].text);
}

int slr_grid_axis_apply(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                        const slr_grid_values *v, size_t i)
{
    return a->apply ? a->apply(a, m, o, v, i) : SDLORA_OK;
}

char *slr_grid_axis_label(const slr_grid_axis *a, slr_mem *m, const slr_grid_value *v)
{
    const char *text = a->path ? slr_path_base(v->text) : v->text;
    char number[512];
    slr_buf b;

    if (a->type == SLR_GRID_REAL) { /* eight digits, then as few as say the same */
        double rounded = v->real;

        snprintf(number, sizeof number, "%.8f", v->real);
        if (slr_parse_real(number, &rounded))
            slr_real_repr(rounded, number);
        text = number;
    }
    if (a->bare)
        return slr_strdup(m, text);
    slr_buf_init(&b, m);
    slr_buf_printf(&b, "%s: %s", a->label, text);
    return slr_buf_take(&b);
}
