/* SPDX-License-Identifier: MIT */
/* One row per setting: which option it comes from, and where it goes.  Ranges and choices have been
 * checked when the option was set. */
#include "sample/settings.h"

#include <string.h>

#include "base/status.h"
#include "sample/steps.h"

/* A variation turns columns of latents, which have no angle when they are one latent high. */
enum { MIN_SIDE = 64, MAX_SIDE = 16384, MIN_VARIED = 16 };
enum { SET_INT, SET_LONG, SET_REAL, SET_BOOL, SET_TEXT, SET_CHOICE };

typedef struct row {
    const char *option;
    int type;
    size_t at;
} row;

#define ROW(type, option, field)                                                                   \
    {                                                                                              \
        option, SET_##type, offsetof(slr_settings, field)                                          \
    }

static const row rows[] = {
    ROW(TEXT, "prompt", prompt),
    ROW(TEXT, "negative", negative),
    ROW(TEXT, "styles", styles),
    ROW(TEXT, "styles_file", styles_file),
    ROW(CHOICE, "emphasis", emphasis),
    ROW(INT, "clip_skip", clip_skip),
    ROW(BOOL, "sdxl_clip_l_skip", clip_l_skip),
    ROW(INT, "comma_padding_backtrack", backtrack),
    ROW(BOOL, "enable_prompt_comments", comments),
    ROW(BOOL, "use_old_scheduling", old_scheduling),
    ROW(TEXT, "sampler", sampler),
    ROW(TEXT, "scheduler", scheduler),
    ROW(INT, "steps", steps),
    ROW(REAL, "eta", eta),
    ROW(REAL, "s_churn", s_churn),
    ROW(REAL, "s_tmin", s_tmin),
    ROW(REAL, "s_tmax", s_tmax),
    ROW(REAL, "s_noise", s_noise),
    ROW(REAL, "sigma_min", sigma_min),
    ROW(REAL, "sigma_max", sigma_max),
    ROW(REAL, "rho", rho),
    ROW(REAL, "beta_dist_alpha", beta_alpha),
    ROW(REAL, "beta_dist_beta", beta_beta),
    ROW(BOOL, "always_discard_next_to_last_sigma", discard),
    ROW(BOOL, "sgm_noise_multiplier", sgm_noise),
    ROW(BOOL, "use_old_karras_scheduler_sigmas", old_karras),
    ROW(BOOL, "enable_quantization", quantize),
    ROW(BOOL, "use_downcasted_alpha_bar", downcast),
    ROW(CHOICE, "sd_noise_schedule", ztsnr),
    ROW(TEXT, "uni_pc_variant", unipc_variant),
    ROW(TEXT, "uni_pc_skip_type", unipc_skip),
    ROW(INT, "uni_pc_order", unipc_order),
    ROW(BOOL, "uni_pc_lower_order_final", unipc_lower_final),
    ROW(REAL, "cfg", cfg),
    ROW(REAL, "cfg_rescale", cfg_rescale),
    ROW(REAL, "image_cfg_scale", image_cfg),
    ROW(REAL, "s_min_uncond", s_min_uncond),
    ROW(BOOL, "s_min_uncond_all", s_min_uncond_all),
    ROW(REAL, "skip_early_cond", skip_early),
    ROW(BOOL, "pad_cond_uncond", pad),
    ROW(BOOL, "pad_cond_uncond_v0", pad_v0),
    ROW(INT, "width", width),
    ROW(INT, "height", height),
    ROW(INT, "count", count),
    ROW(LONG, "seed", seed),
    ROW(LONG, "subseed", subseed),
    ROW(REAL, "subseed_strength", subseed_strength),
    ROW(INT, "seed_resize_from_w", seed_from_w),
    ROW(INT, "seed_resize_from_h", seed_from_h),
    ROW(LONG, "eta_noise_seed_delta", ensd),
    ROW(CHOICE, "randn_source", rng),
    ROW(INT, "sdxl_crop_top", crop_top),
    ROW(INT, "sdxl_crop_left", crop_left),
    ROW(REAL, "sdxl_refiner_high_aesthetic_score", aesthetic_high),
    ROW(REAL, "sdxl_refiner_low_aesthetic_score", aesthetic_low),
    ROW(REAL, "denoising_strength", denoising_strength),
    ROW(INT, "resize_mode", resize_mode),
    ROW(BOOL, "img2img_fix_steps", fix_steps),
    ROW(BOOL, "img2img_color_correction", color_correction),
    ROW(REAL, "initial_noise_multiplier", noise_multiplier),
    ROW(REAL, "img2img_extra_noise", extra_noise),
    ROW(TEXT, "img2img_background_color", background),
    ROW(INT, "mask_blur", mask_blur),
    ROW(INT, "inpainting_fill", fill),
    ROW(BOOL, "inpainting_mask_invert", mask_invert),
    ROW(BOOL, "mask_round", mask_round),
    ROW(BOOL, "inpaint_full_res", full_res),
    ROW(INT, "inpaint_full_res_padding", full_res_padding),
    ROW(REAL, "inpainting_mask_weight", mask_weight),
    ROW(BOOL, "enable_hr", hr),
    ROW(REAL, "hr_scale", hr_scale),
    ROW(INT, "hr_second_pass_steps", hr_steps),
    ROW(INT, "hr_resize_x", hr_width),
    ROW(INT, "hr_resize_y", hr_height),
    ROW(TEXT, "hr_upscaler", hr_upscaler),
    ROW(TEXT, "hr_sampler_name", hr_sampler),
    ROW(TEXT, "hr_scheduler", hr_scheduler),
    ROW(TEXT, "hr_prompt", hr_prompt),
    ROW(TEXT, "hr_negative_prompt", hr_negative),
    ROW(REAL, "refiner_switch_at", refiner_at),
    ROW(BOOL, "refiner_switch_by_sample_steps", refiner_by_steps),
    ROW(CHOICE, "hires_fix_refiner_pass", hr_refine),
    ROW(REAL, "token_merging_ratio", merge),
    ROW(REAL, "token_merging_ratio_img2img", merge_picture),
    ROW(REAL, "token_merging_ratio_hr", merge_second),
    ROW(TEXT, "infotext_extra", extra),
    ROW(TEXT, "mixed_precision", precision),
    ROW(BOOL, "no_half_vae", full_vae),
    ROW(BOOL, "vae_tiling", vae_tiling),
};

/* Which of "a|b|c" a text is. */
static int choice(const char *option, const char *text)
{
    const char *at = slr_option_find("generate", option)->choices;
    size_t n = strlen(text);
    for (int i = 0;; i++) {
        size_t len = strcspn(at, "|");
        if (len == n && !strncmp(at, text, n))
            return i;
        if (!at[len])
            return 0;
        at += len + 1;
    }
}

static void read_row(slr_settings *out, slr_opt o, const row *r)
{
    void *to = (char *)out + r->at;
    switch (r->type) {
    case SET_INT:
        *(int *)to = (int)slr_opt_int(o, r->option);
        break;
    case SET_LONG:
        *(int64_t *)to = slr_opt_int(o, r->option);
        break;
    case SET_REAL:
        *(double *)to = slr_opt_has(o, r->option) ? slr_opt_real(o, r->option) : -1;
        break;
    case SET_BOOL:
        *(bool *)to = slr_opt_bool(o, r->option);
        break;
    case SET_CHOICE:
        *(int *)to = choice(r->option, slr_opt_text(o, r->option));
        break;
    default:
        *(const char **)to = slr_opt_text(o, r->option);
    }
}

void slr_settings_read(slr_settings *out, slr_opt o)
{
    *out = (slr_settings){0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        read_row(out, o, &rows[i]);
}

/* A1111's: what is 0 leaves it to the plain one. */
const char *slr_settings_either(const char *text, const char *other)
{
    return text && *text ? text : other;
}

double slr_settings_merge(const slr_settings *set, bool picture, bool second)
{
    double own = second ? set->merge_second : picture ? set->merge_picture : 0;
    return own > 0 ? own : set->merge;
}

int slr_settings_check(const slr_settings *set)
{
    int unit = 8;
    if (set->width < MIN_SIDE || set->height < MIN_SIDE || set->width > MAX_SIDE ||
        set->height > MAX_SIDE || set->width % unit || set->height % unit)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%dx%d: width and height are multiples of %d from %d to %d", set->width,
                        set->height, unit, MIN_SIDE, MAX_SIDE);
    if (set->steps < 1 || set->steps > SLR_MAX_STEPS)
        return slr_fail(SDLORA_EINVAL, __func__, "steps %d are not between 1 and %d", set->steps,
                        SLR_MAX_STEPS);
    if (set->count < 1)
        return slr_fail(SDLORA_EINVAL, __func__, "count %d is less than 1", set->count);
    if (set->seed > INT64_MAX - set->count || set->subseed > INT64_MAX - set->count)
        return slr_fail(SDLORA_EINVAL, __func__, "seed %lld is too large for %d pictures",
                        (long long)(set->seed > set->subseed ? set->seed : set->subseed),
                        set->count);
    if (set->subseed_strength > 0 && set->seed_from_w > 0 && set->seed_from_h > 0 &&
        (set->seed_from_w < MIN_VARIED || set->seed_from_h < MIN_VARIED))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "seed_resize_from_w and _h are %dx%d: with a variation they are at least "
                        "%d",
                        set->seed_from_w, set->seed_from_h, MIN_VARIED);
    return SDLORA_OK;
}
