/* SPDX-License-Identifier: MIT */
/* Which option each field of a parameters text is.  One table, in the order in which the fields are
 * written; it also says which fields name resources, which are made anew with every picture, and
 * which ask for what is not done here. */
#include "sample/infotext.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"
#include "sample/solver.h"
#include "sample/styles.h"

/* What a field's value is turned into. */
typedef struct word {
    const char *field, *option;
} word;

typedef struct row {
    const char *key;
    const char *option;  /* NULL: none */
    const char *second;  /* a size's other option */
    const char *neutral; /* this value asks for nothing */
    const word *words;   /* NULL: the value goes over as it is */
    bool text;           /* goes over with its white space */
    bool own;            /* names a resource, or is written anew: neither set nor kept */
} row;

static const word truth[] = {{"True", "true"}, {"False", "false"}, {NULL, NULL}};
static const word modes[] = {
    {"Inpaint masked", "false"}, {"Inpaint not masked", "true"}, {NULL, NULL}};
static const word areas[] = {{"Whole picture", "false"}, {"Only masked", "true"}, {NULL, NULL}};
static const word contents[] = {
    {"fill", "0"}, {"original", "1"}, {"latent noise", "2"}, {"latent nothing", "3"}, {NULL, NULL}};
static const word skips[] = {{"0", "1"}, {NULL, NULL}}; /* as some programs count */

static const word halves[] = {{"full", "true"}, {NULL, NULL}};

static const row rows[] = {
    {.key = "Steps", .option = "steps"},
    {.key = "Sampler", .option = "sampler"},
    {.key = "Schedule type", .option = "scheduler"},
    {.key = "CFG scale", .option = "cfg"},
    {.key = "Image CFG scale", .option = "image_cfg_scale", .neutral = "None"},
    {.key = "Seed", .option = "seed"},
    {.key = "Face restoration", .neutral = "None"},
    {.key = "Size", .option = "width", .second = "height"},
    {.key = "Model hash", .own = true},
    {.key = "Model", .own = true},
    {.key = "FP8 weight", .neutral = "Disable"},
    {.key = "Cache FP16 weight for LoRA", .neutral = "False"},
    {.key = "VAE hash", .own = true},
    {.key = "VAE", .own = true},
    {.key = "Variation seed", .option = "subseed"},
    {.key = "Variation seed strength", .option = "subseed_strength"},
    {.key = "Seed resize from", .option = "seed_resize_from_w", .second = "seed_resize_from_h"},
    {.key = "Denoising strength", .option = "denoising_strength"},
    {.key = "Conditional mask weight", .option = "inpainting_mask_weight"},
    {.key = "Clip skip", .option = "clip_skip", .words = skips},
    {.key = "ENSD", .option = "eta_noise_seed_delta"},
    {.key = "Token merging ratio", .option = "token_merging_ratio"},
    {.key = "Token merging ratio hr", .option = "token_merging_ratio_hr"},
    {.key = "Init image hash", .own = true},
    {.key = "RNG", .option = "randn_source"},
    {.key = "Tiling", .neutral = "False"},
    {.key = "Mask mode", .option = "inpainting_mask_invert", .words = modes},
    {.key = "Mask blur", .option = "mask_blur"},
    {.key = "Mask rounding", .option = "mask_round", .words = truth},
    {.key = "Inpaint area", .option = "inpaint_full_res", .words = areas},
    {.key = "Masked area padding", .option = "inpaint_full_res_padding"},
    {.key = "Masked content", .option = "inpainting_fill", .words = contents},
    {.key = "Hires checkpoint", .own = true},
    {.key = "Hires sampler", .option = "hr_sampler_name", .neutral = "Use same sampler"},
    {.key = "Hires prompt", .option = "hr_prompt", .text = true},
    {.key = "Hires negative prompt", .option = "hr_negative_prompt", .text = true},
    {.key = "Hires schedule type", .option = "hr_scheduler", .neutral = "Use same scheduler"},
    {.key = "Hires upscale", .option = "hr_scale"},
    {.key = "Hires resize", .option = "hr_resize_x", .second = "hr_resize_y"},
    {.key = "Hires steps", .option = "hr_second_pass_steps"},
    {.key = "Hires upscaler", .option = "hr_upscaler"},
    {.key = "VAE Encoder", .neutral = "Full"},
    {.key = "Lora hashes", .own = true},
    {.key = "Lyco hashes", .own = true},
    {.key = "Hypernet", .own = true},
    {.key = "Hypernet hash", .own = true},
    {.key = "Hypernet strength", .own = true},
    {.key = "Old prompt editing timelines", .option = "use_old_scheduling", .words = truth},
    {.key = "TI hashes", .own = true},
    {.key = "Emphasis", .option = "emphasis"},
    {.key = "Downcast alphas_cumprod", .option = "use_downcasted_alpha_bar", .words = truth},
    {.key = "Noise Schedule", .option = "sd_noise_schedule"},
    {.key = "Noise multiplier", .option = "initial_noise_multiplier"},
    {.key = "Discard penultimate sigma",
     .option = "always_discard_next_to_last_sigma",
     .words = truth},
    {.key = "Schedule min sigma", .option = "sigma_min"},
    {.key = "Schedule max sigma", .option = "sigma_max"},
    {.key = "Schedule rho", .option = "rho"},
    {.key = "Beta schedule alpha", .option = "beta_dist_alpha"},
    {.key = "Beta schedule beta", .option = "beta_dist_beta"},
    {.key = "SGM noise multiplier", .option = "sgm_noise_multiplier", .words = truth},
    {.key = "Extra noise", .option = "img2img_extra_noise"},
    {.key = "Eta", .option = "eta"},
    {.key = "Eta DDIM", .option = "eta"},
    {.key = "Sigma churn", .option = "s_churn"},
    {.key = "Sigma tmin", .option = "s_tmin"},
    {.key = "Sigma tmax", .option = "s_tmax"},
    {.key = "Sigma noise", .option = "s_noise"},
    {.key = "UniPC variant", .option = "uni_pc_variant"},
    {.key = "UniPC skip type", .option = "uni_pc_skip_type"},
    {.key = "UniPC order", .option = "uni_pc_order"},
    {.key = "UniPC lower order final", .option = "uni_pc_lower_order_final", .words = truth},
    {.key = "Refiner switch by sampling steps",
     .option = "refiner_switch_by_sample_steps",
     .words = truth},
    {.key = "Hires refiner", .option = "hires_fix_refiner_pass"},
    {.key = "Refiner", .own = true},
    {.key = "Refiner switch at", .option = "refiner_switch_at"},
    {.key = "Skip Early CFG", .option = "skip_early_cond"},
    {.key = "NGMS", .option = "s_min_uncond"},
    {.key = "NGMS all steps", .option = "s_min_uncond_all", .words = truth},
    {.key = "CFG rescale", .option = "cfg_rescale"},
    {.key = "Pad conds", .option = "pad_cond_uncond", .words = truth},
    {.key = "Pad conds v0", .option = "pad_cond_uncond_v0", .words = truth},
    {.key = "VAE Decoder", .neutral = "Full"},
    {.key = "Precision", .option = "mixed_precision"},
    {.key = "VAE precision", .option = "no_half_vae", .words = halves},
    {.key = "VAE tiling", .option = "vae_tiling", .words = truth},
    {.key = "Hashes", .own = true},
    {.key = "First pass size", .own = true},
    {.key = "Batch size", .own = true},
    {.key = "Batch pos", .own = true},
    {.key = "Version", .own = true},
};

static const row *find(const char *key)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].key, key))
            return &rows[i];
    return NULL;
}

const char *slr_info_key_at(size_t i, const char **option)
{
    if (i >= sizeof rows / sizeof *rows)
        return NULL;
    *option = rows[i].option;
    return rows[i].key;
}

typedef struct filling {
    const slr_info *info;
    slr_mem *m;
    sdlora_options *o;
    slr_opt given; /* what the caller had set, and what fields before have */
    slr_buf *notes;
} filling;

static void note(filling *f, const slr_info_field *from, const char *why)
{
    slr_buf_printf(f->notes, "%s: %.100s: %s\n", from->key, from->value, why);
}

/* A value that an option refuses is noted, and the option keeps its default. */
static int set(filling *f, const slr_info_field *from, const char *option, const char *value)
{
    if (slr_opt_given(f->given, option))
        return SDLORA_OK;
    int rc = slr_options_set_text(f->o, option, value);
    if (rc >= 0 || rc == SDLORA_ENOMEM)
        return rc;
    note(f, from, sdlora_last_error()->message);
    slr_clear();
    return SDLORA_OK;
}

static int set_size(filling *f, const slr_info_field *from, const row *r)
{
    char text[24];
    int64_t w, h;
    if (!slr_info_size(f->info, from->key, &w, &h)) {
        note(f, from, "is no size");
        return SDLORA_OK;
    }
    snprintf(text, sizeof text, "%lld", (long long)w);
    SLR_TRY(set(f, from, r->option, text));
    snprintf(text, sizeof text, "%lld", (long long)h);
    return set(f, from, r->second, text);
}

static int set_field(filling *f, const slr_info_field *from, const row *r)
{
    char value[256];
    slr_str trimmed = slr_str_trim(slr_str_of(from->value));
    if (r->own || (r->neutral && slr_str_eq(trimmed, r->neutral)))
        return SDLORA_OK;
    if (!r->option) {
        note(f, from, "is not done here");
        return SDLORA_OK;
    }
    if (r->second)
        return set_size(f, from, r);
    if (trimmed.n >= sizeof value || r->text)
        return set(f, from, r->option, from->value);
    memcpy(value, trimmed.p, trimmed.n);
    value[trimmed.n] = '\0';
    for (const word *w = r->words; w && w->field; w++)
        if (!strcasecmp(w->field, value))
            return set(f, from, r->option, w->option);
    return set(f, from, r->option, value);
}

/* --- what one field does not say alone --- */

static const slr_info_field *field_of(const slr_info *i, const char *key)
{
    for (size_t k = 0; k < i->n; k++)
        if (!strcmp(i->at[k].key, key))
            return &i->at[k];
    return NULL;
}

static bool has_any(const slr_info *i, const char *const *keys)
{
    for (; *keys; keys++) {
        const slr_info_field *at = field_of(i, *keys);
        if (at && !at->implied)
            return true;
    }
    return false;
}

static int set_texts(filling *f, const char *prompt, const char *negative)
{
    const slr_info_field first = {.key = "Prompt", .value = prompt},
                         second = {.key = "Negative prompt", .value = negative};
    SLR_TRY(set(f, &first, "prompt", prompt));
    return set(f, &second, "negative", negative);
}

typedef struct styled {
    char *names, *prompt, *negative;
} styled;

static size_t count_tags(const char *text)
{
    size_t n = 0;
    for (; (text = strchr(text, '<')); text++)
        n++;
    return n;
}

/* Whether styles give the texts again, and took no networks out of them, which are looked up by
 * what the texts say. */
static int is_exact(const slr_styles *styles, const slr_info *info, const styled *s, bool *exact)
{
    char *prompt, *negative;
    SLR_TRY(slr_styles_apply(styles, s->names, s->prompt, s->negative, &prompt, &negative));
    *exact = !strcmp(prompt, info->prompt) && !strcmp(negative, info->negative) &&
             count_tags(s->prompt) == count_tags(info->prompt);
    slr_free(styles->m, prompt);
    slr_free(styles->m, negative);
    return SDLORA_OK;
}

static int set_parts(filling *f, const slr_styles *styles)
{
    const slr_info *info = f->info;
    styled s;
    bool exact = false;
    SLR_TRY(
        slr_styles_extract(styles, info->prompt, info->negative, &s.names, &s.prompt, &s.negative));
    int rc = is_exact(styles, info, &s, &exact);
    const slr_info_field field = {.key = "Styles", .value = s.names};
    if (rc >= 0 && exact && *s.names)
        rc = set(f, &field, "styles", s.names);
    if (rc >= 0)
        rc =
            exact ? set_texts(f, s.prompt, s.negative) : set_texts(f, info->prompt, info->negative);
    slr_free(f->m, s.names);
    slr_free(f->m, s.prompt);
    slr_free(f->m, s.negative);
    return rc;
}

/* Where the caller names files of styles, those in the texts are options again, so that others can
 * take their place.  Texts of a second pass would get them twice. */
static int set_styled(filling *f)
{
    static const char *const second[] = {"Hires prompt", "Hires negative prompt", NULL};
    const char *files = slr_opt_text(f->given, "styles_file");
    slr_styles styles;
    if (!files || slr_opt_given(f->given, "prompt") || slr_opt_given(f->given, "negative") ||
        has_any(f->info, second))
        return set_texts(f, f->info->prompt, f->info->negative);
    int rc = slr_styles_read_all(&styles, f->m, files);
    if (rc >= 0)
        rc = set_parts(f, &styles);
    slr_styles_free(&styles);
    return rc;
}

/* A1111 takes the first sampler of its list where it does not know the name. */
static int set_sampler(filling *f)
{
    static const char unknown[] = "DPM++ 2M";
    const slr_info_field *from = field_of(f->info, "Sampler");
    const slr_sampler_row *sampler;
    const slr_scheduler_row *scheduler;
    bool automatic;
    if (!from || slr_sampler_choose(from->value, NULL, &sampler, &scheduler, &automatic) >= 0)
        return SDLORA_OK;
    note(f, from, "there is no such sampler here; DPM++ 2M serves instead");
    slr_clear();
    return set(f, from, "sampler", unknown);
}

/* Two fields are one option here; which of them counts is the sampler's. */
static int set_eta(filling *f)
{
    const slr_info_field *k = field_of(f->info, "Eta"), *ddim = field_of(f->info, "Eta DDIM"),
                         *from = field_of(f->info, "Sampler");
    const slr_sampler_row *sampler = from ? slr_sampler_find(from->value) : NULL;
    if (k && ddim)
        return set(f, k, "eta", sampler && sampler->timesteps ? ddim->value : k->value);
    return SDLORA_OK;
}

bool slr_info_masked(const slr_info *i)
{
    static const char *const keys[] = {"Mask mode",    "Mask blur",      "Masked area padding",
                                       "Inpaint area", "Masked content", NULL};
    return has_any(i, keys);
}

static bool has_hires(const slr_info *i)
{
    int64_t w, h;
    bool resize = slr_info_size(i, "Hires resize", &w, &h) && (w || h);
    return resize || field_of(i, "Hires upscale") || field_of(i, "Hires upscaler");
}

bool slr_info_from_picture(const slr_info *i)
{
    static const char *const keys[] = {"Init image hash", "Noise multiplier", NULL};
    bool strength = field_of(i, "Denoising strength") && !has_hires(i);
    return strength || has_any(i, keys) || slr_info_masked(i);
}

/* A strength belongs to a second pass, or to a picture that was made of another; of those, one
 * whose mask was blurred says so. */
static int set_strength(filling *f)
{
    const slr_info_field *from = field_of(f->info, "Denoising strength");
    if (from && has_hires(f->info))
        return set(f, from, "enable_hr", "true");
    return from && !field_of(f->info, "Mask blur") ? set(f, from, "mask_blur", "0") : SDLORA_OK;
}

static bool is_addnet(const char *key)
{
    return slr_starts(key, "AddNet ");
}

/* Fields of extensions and of other programs, for the next picture's text. */
static int keep_unknown(filling *f)
{
    slr_buf list;
    slr_buf_init(&list, f->m);
    for (size_t k = 0; k < f->info->n; k++) {
        const slr_info_field *at = &f->info->at[k];
        if (at->implied || find(at->key) || is_addnet(at->key))
            continue;
        if (list.len)
            slr_buf_putc(&list, '\n');
        if (*at->key)
            slr_buf_printf(&list, "%s: ", at->key);
        slr_buf_puts(&list, at->raw);
    }
    int rc = slr_buf_ok(&list);
    if (rc >= 0 && list.len && !slr_opt_given(f->given, "infotext_extra"))
        rc = slr_options_set_text(f->o, "infotext_extra", list.data);
    slr_buf_free(&list);
    return rc;
}

int slr_info_options(const slr_info *i, slr_mem *m, sdlora_options *o, slr_buf *notes)
{
    filling f = {i, m, o, {o, "generate"}, notes};
    SLR_TRY(set_styled(&f));
    SLR_TRY(set_sampler(&f));
    SLR_TRY(set_eta(&f));
    SLR_TRY(set_strength(&f));
    for (size_t k = 0; k < i->n; k++) {
        const row *r = find(i->at[k].key);
        if (r)
            SLR_TRY(set_field(&f, &i->at[k], r));
    }
    SLR_TRY(keep_unknown(&f));
    return slr_buf_ok(notes);
}
