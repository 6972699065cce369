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

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"

static const char *text_of(sdlora_options *o, const char *name)
{
    const char *text = slr_opt_text((slr_opt){o, "generate"}, name);

    return text ? text : "";
}

/* Puts what b holds into the option; ends b. */
static int put_text(sdlora_options *o, const char *name, slr_buf *b)
{
    slr_buf_puts(b, "");
    int rc = slr_buf_ok(b);

    if (rc >= 0)
        rc = slr_options_set_text(o, name, b->data);
    slr_buf_free(b);
    return rc;
}

/* --- the prompt --- */

static int replace(slr_mem *m, sdlora_options *o, const char *name, const char *from,
                   const char *to)
{
    const char *p = text_of(o, name), *hit;
    slr_buf b;

    slr_buf_init(&b, m);
    for (; *from && (hit = strstr(p, from)) != NULL; p = hit + strlen(from)) {
        slr_buf_add(&b, p, (size_t)(hit - p));
        slr_buf_puts(&b, to);
    }
    slr_buf_puts(&b, p);
    return put_text(o, name, &b);
}

static int apply_replace(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                         const slr_grid_values *v, size_t i)
{
    const char *from = v->at[0].text;

    if (!strstr(text_of(o, "prompt"), from) && !strstr(text_of(o, "negative"), from))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s: '%.100s' is neither in the prompt nor in the negative prompt",
                        a->label, from);
    SLR_TRY(replace(m, o, "prompt", from, v->at[i].text));
    return replace(m, o, "negative", from, v->at[i].text);
}

/* The places of all parts in the prompt, first come first; each is looked for behind the one before
 * it, as the script does. */
static int find_parts(const slr_grid_axis *a, const slr_grid_values *v, const char *prompt,
                      size_t *by_place)
{
    const char *place[8];

    for (size_t k = 0; k < v->n_parts; k++) {
        place[k] = strstr(prompt, v->part[k]);
        if (!place[k])
            return slr_fail(SDLORA_EINVAL, __func__, "%s: '%.100s' is not in the prompt", a->label,
                            v->part[k]);
        size_t at = k;
        for (; at > 0 && place[by_place[at - 1]] > place[k]; at--)
            by_place[at] = by_place[at - 1];
        by_place[at] = k;
    }
    return SDLORA_OK;
}

static int apply_order(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                       const slr_grid_values *v, size_t i)
{
    size_t order[8], by_place[8];
    const char *p = text_of(o, "prompt");
    slr_buf b;

    SLR_TRY(find_parts(a, v, p, by_place));
    slr_grid_order(i, v->n_parts, order);
    slr_buf_init(&b, m);
    for (size_t k = 0; k < v->n_parts; k++) {
        const char *part = v->part[by_place[k]], *hit = strstr(p, part);

        if (!hit) { /* it lies inside one that was taken out before it */
            slr_buf_free(&b);
            return slr_fail(SDLORA_EINVAL, __func__, "%s: '%.100s' overlaps another text", a->label,
                            part);
        }
        slr_buf_add(&b, p, (size_t)(hit - p));
        slr_buf_puts(&b, v->part[order[k]]);
        p = hit + strlen(part);
    }
    slr_buf_puts(&b, p);
    return put_text(o, "prompt", &b);
}

/* --- the first <lora:name:weight> of the prompt --- */

typedef struct tag {
    const char *start, *end; /* of all of it */
    slr_str name, rest;      /* rest: what stands behind the name, from ':' on, without '>' */
} tag;

static bool find_tag(const char *prompt, tag *t)
{
    static const char word[] = "<lora:";
    const char *start = strstr(prompt, word), *p, *end;

    if (!start)
        return false;
    p = start + sizeof word - 1;
    end = strchr(p, '>');
    if (!end || end == p)
        return false;
    size_t n = strcspn(p, ":>");
    *t = (tag){start, end + 1, {p, n}, {p + n, (size_t)(end - p) - n}};
    return true;
}

static int no_tag(const slr_grid_axis *a)
{
    return slr_fail(SDLORA_EINVAL, "slr_grid_axis_apply",
                    "%s: there is no <lora:name:weight> in the prompt", a->label);
}

static void put_tag(slr_buf *b, slr_str name, slr_str rest)
{
    slr_buf_puts(b, "<lora:");
    slr_buf_add(b, name.p, name.n);
    slr_buf_add(b, rest.p, rest.n);
    slr_buf_puts(b, ">");
}

/* The prompt with another tag in the first one's place; name empty: with none. */
static int replace_tag(slr_mem *m, sdlora_options *o, const tag *t, slr_str name, slr_str rest)
{
    const char *prompt = text_of(o, "prompt");
    slr_buf b;

    slr_buf_init(&b, m);
    slr_buf_add(&b, prompt, (size_t)(t->start - prompt));
    if (name.n)
        put_tag(&b, name, rest);
    slr_buf_puts(&b, t->end);
    return put_text(o, "prompt", &b);
}

static bool names_none(const char *name)
{
    return !*name || !strcmp(name, "None") || !strcmp(name, "none");
}

/* "None" takes the tag out: the picture without. */
static int apply_lora(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                      const slr_grid_values *v, size_t i)
{
    slr_str name = slr_str_of(v->at[i].text);
    bool none = names_none(name.p);
    slr_buf b;
    tag t;

    if (memchr(name.p, ':', name.n) || memchr(name.p, '>', name.n))
        return slr_fail(SDLORA_EINVAL, __func__, "%s: '%.100s' is no name for a tag", a->label,
                        name.p);
    if (find_tag(text_of(o, "prompt"), &t))
        return replace_tag(m, o, &t, none ? (slr_str){"", 0} : name, t.rest);
    if (none)
        return SDLORA_OK;
    slr_buf_init(&b, m);
    slr_buf_puts(&b, text_of(o, "prompt"));
    put_tag(&b, name, slr_str_of(":1"));
    return put_text(o, "prompt", &b);
}

/* Weights by position are replaced; those by name would win over them and go; the rest stays. */
static int apply_weight(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                        const slr_grid_values *v, size_t i)
{
    slr_str rest, item;
    int position = 0;
    slr_buf b;
    tag t;

    if (!find_tag(text_of(o, "prompt"), &t))
        return no_tag(a);
    slr_buf_init(&b, m);
    slr_buf_printf(&b, ":%s", v->at[i].text);
    rest = (slr_str){t.rest.p + (t.rest.n > 0), t.rest.n - (t.rest.n > 0)};
    while (slr_str_next(&rest, ':', &item)) {
        bool named = memchr(item.p, '=', item.n) != NULL;

        if (named && (slr_starts(item.p, "te=") || slr_starts(item.p, "unet=")))
            continue;
        position += !named;
        if (!named && position == 1)
            continue;
        slr_buf_puts(&b, ":");
        if (!named && position == 2)
            slr_buf_puts(&b, v->at[i].text);
        else
            slr_buf_add(&b, item.p, item.n);
    }
    int rc = slr_buf_ok(&b);
    if (rc >= 0)
        rc = replace_tag(m, o, &t, t.name, (slr_str){b.data, b.len});
    slr_buf_free(&b);
    return rc;
}

/* "run", "run-000004" -> "run-000002": how epochs of a run are saved. */
static int apply_epoch(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                       const slr_grid_values *v, size_t i)
{
    enum { DIGITS = 6 };
    slr_buf b;
    tag t;

    if (!find_tag(text_of(o, "prompt"), &t))
        return no_tag(a);
    size_t n = t.name.n, digits = 0;
    while (digits < DIGITS && digits < n && isdigit((unsigned char)t.name.p[n - 1 - digits]))
        digits++;
    if (digits == DIGITS && n > DIGITS + 1 && t.name.p[n - 1 - DIGITS] == '-')
        n -= DIGITS + 1;
    slr_buf_init(&b, m);
    slr_buf_add(&b, t.name.p, n);
    slr_buf_printf(&b, "-%06lld", (long long)v->at[i].i);
    int rc = slr_buf_ok(&b);
    if (rc >= 0)
        rc = replace_tag(m, o, &t, (slr_str){b.data, b.len}, t.rest);
    slr_buf_free(&b);
    return rc;
}

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

/* More styles behind those that are there: "a, b" is two. */
static int apply_styles(const slr_grid_axis *a, slr_mem *m, sdlora_options *o,
                        const slr_grid_values *v, size_t i)
{
    slr_str rest = slr_str_of(v->at[i].text), one;
    const char *had = text_of(o, a->option);
    slr_buf b;

    slr_buf_init(&b, m);
    slr_buf_puts(&b, had);
    while (slr_str_next(&rest, ',', &one)) {
        one = slr_str_trim(one);
        slr_buf_puts(&b, b.len ? "\n" : "");
        slr_buf_add(&b, one.p, one.n);
    }
    return put_text(o, a->option, &b);
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
    {"Prompt S/R", NULL, SLR_GRID_TEXT, .bare = true, .apply = apply_replace},
    {"Prompt order", NULL, SLR_GRID_ORDER, .bare = true, .apply = apply_order},
    {"Sampler", "sampler", SLR_GRID_TEXT, .bare = true, .choice = sdlora_sampler_name,
     .apply = apply_option},
    OPTION("Hires sampler", "hr_sampler_name", SLR_GRID_TEXT),
    {"Checkpoint name", NULL, SLR_GRID_TEXT, .bare = true, .path = true, .model = true, .cost = 1},
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
    OPTION("Hires upscaler", "hr_upscaler", SLR_GRID_TEXT),
    OPTION("Cond. Image Mask Weight", "inpainting_mask_weight", SLR_GRID_REAL),
    {"VAE", "sd_vae", SLR_GRID_TEXT, .cost = 0.7, .apply = apply_option},
    {"Styles", "styles", SLR_GRID_TEXT, .apply = apply_styles},
    {"UniPC Order", "uni_pc_order", SLR_GRID_INT, .cost = 0.5, .apply = apply_unipc},
    {"Always discard next-to-last sigma", "always_discard_next_to_last_sigma", SLR_GRID_TEXT,
     .apply = apply_bool},
    {"SGM noise multiplier", "sgm_noise_multiplier", SLR_GRID_TEXT, .apply = apply_bool},
    OPTION("Refiner switch at", "refiner_switch_at", SLR_GRID_REAL),
    OPTION("RNG source", "randn_source", SLR_GRID_TEXT),
    {"Size", NULL, SLR_GRID_TEXT, .apply = apply_size},
    /* ours */
    {"LoRA", NULL, SLR_GRID_TEXT, .bare = true, .cost = 0.6, .apply = apply_lora},
    {"LoRA weight", NULL, SLR_GRID_REAL, .tag = true, .apply = apply_weight},
    {"LoRA epoch", NULL, SLR_GRID_INT, .tag = true, .cost = 0.6, .apply = apply_epoch},
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
    *own = (slr_grid_axis){.label = row->name,
                           .option = row->name,
                           .type = type_of(row),
                           .seed = !strcmp(row->name, "seed"),
                           .apply = row->type == SLR_OPT_BOOL ? apply_bool : apply_option};
    return own;
}

const slr_grid_axis *slr_grid_axis_at(size_t i)
{
    return i < N_ROWS ? &rows[i] : NULL;
}

bool slr_grid_axis_is_none(const slr_grid_axis *a, const slr_grid_values *v, size_t i)
{
    return a->apply == apply_lora && names_none(v->at[i].text);
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
