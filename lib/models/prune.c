/* SPDX-License-Identifier: MIT */
/* Which tensors of a model file are no weights, and what becomes of them: averages, the buffers of
 * a noise schedule, states of training, markers.  Fills a file under the input's own names, and
 * tells what was left out.  Refuses to know layouts. */
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/json.h"
#include "models/convert.h"
#include "models/keymap.h"
#include "models/outfile.h"

/* ---- what a tensor is that is no weight of a part ---- */

static const char *const CLASS_NAMES[SLR_IS_COUNT] = {
    [SLR_IS_OTHER] = "other tensors",         [SLR_IS_EMA] = "averaged weights",
    [SLR_IS_SCHEDULE] = "noise schedule",     [SLR_IS_MARKER] = "markers",
    [SLR_IS_TRAINING] = "states of training",
};

/* A text that ends in '.' or '_' stands for all names that begin so. */
static const struct {
    const char *text;
    int is;
} NAMES[] = {
    {"model_ema.", SLR_IS_EMA},
    {"betas", SLR_IS_SCHEDULE},
    {"alphas_cumprod", SLR_IS_SCHEDULE},
    {"alphas_cumprod_prev", SLR_IS_SCHEDULE},
    {"sqrt_alphas_cumprod", SLR_IS_SCHEDULE},
    {"sqrt_one_minus_alphas_cumprod", SLR_IS_SCHEDULE},
    {"sqrt_recip_alphas_cumprod", SLR_IS_SCHEDULE},
    {"sqrt_recipm1_alphas_cumprod", SLR_IS_SCHEDULE},
    {"log_one_minus_alphas_cumprod", SLR_IS_SCHEDULE},
    {"posterior_", SLR_IS_SCHEDULE},
    {"lvlb_weights", SLR_IS_SCHEDULE},
    {"logvar", SLR_IS_SCHEDULE},
    {"scale_factor", SLR_IS_SCHEDULE},
    {"denoiser.sigmas", SLR_IS_SCHEDULE},
    {"v_pred", SLR_IS_MARKER},
    {"ztsnr", SLR_IS_MARKER},
    {"edm_mean", SLR_IS_MARKER},
    {"edm_std", SLR_IS_MARKER},
    {"edm_vpred.", SLR_IS_MARKER},
    {"optimizer.", SLR_IS_TRAINING},
    {"optimizer_states.", SLR_IS_TRAINING},
    {"lr_schedulers.", SLR_IS_TRAINING},
    {"callbacks.", SLR_IS_TRAINING},
    {"loops.", SLR_IS_TRAINING},
    {"loss.", SLR_IS_TRAINING},
    {"first_stage_model.loss.", SLR_IS_TRAINING},
    {"global_step", SLR_IS_TRAINING},
    {"epoch", SLR_IS_TRAINING},
};

int slr_tensor_class(const char *name)
{
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        size_t n = strlen(NAMES[i].text);
        char end = NAMES[i].text[n - 1];
        if (strncmp(name, NAMES[i].text, n) == 0 && (end == '.' || end == '_' || name[n] == '\0'))
            return NAMES[i].is;
    }
    return SLR_IS_OTHER;
}

/* Names that belong to a model whether or not a part computes with them ("cond_stage_model.
 * logit_scale"). */
static bool is_of_model(const char *name)
{
    static const char *const HEADS[] = {"model.", "first_stage_model.", "cond_stage_model.",
                                        "conditioner."};
    for (size_t i = 0; i < sizeof HEADS / sizeof *HEADS; i++)
        if (slr_starts(name, HEADS[i]))
            return true;
    return false;
}

static bool is_float(uint32_t dtype)
{
    static const uint32_t FLOATS[] = {SDLORA_F32, SDLORA_F16,     SDLORA_BF16,
                                      SDLORA_F64, SDLORA_F8_E4M3, SDLORA_F8_E5M2};
    for (size_t i = 0; i < sizeof FLOATS / sizeof *FLOATS; i++)
        if (FLOATS[i] == dtype)
            return true;
    return false;
}

uint32_t slr_convert_dtype(const slr_converting *c, int part, const slr_tensor *t)
{
    const slr_convert_config *config = c->config;
    if (!is_float(t->dtype) || (part == SLR_PART_VAE && config->vae_keep))
        return 0;
    return part == SLR_PART_VAE && config->vae_dtype ? config->vae_dtype : config->dtype;
}

/* ---- what the job tells ---- */

static void drop(slr_converted *r, int is, const char *name, const slr_tensor *t)
{
    if (r->dropped[is].n < SLR_DROPPED_NAMES)
        r->dropped[is].name[r->dropped[is].n] = name;
    r->dropped[is].n++;
    r->dropped[is].bytes += slr_dtype(t->dtype) ? slr_tensor_bytes(t) : 0;
}

static void put_text(slr_buf *b, const char *key, const char *text)
{
    slr_buf_printf(b, "  \"%s\": ", key);
    slr_json_quote(b, text, strlen(text), false);
    slr_buf_puts(b, ",\n");
}

int slr_converted_json(char **json, const slr_converting *c, const slr_converted *r)
{
    slr_buf b;
    bool comma = false;
    slr_buf_init(&b, c->m);
    slr_buf_puts(&b, "{\n");
    put_text(&b, "in", c->in);
    put_text(&b, "out", c->out);
    put_text(&b, "layout", r->layout);
    if (c->family)
        put_text(&b, "family", c->family->name);
    slr_buf_printf(&b,
                   "  \"bytes_in\": %llu,\n  \"bytes_out\": %llu,\n  \"tensors\": %zu,\n"
                   "  \"averages_used\": %zu,\n  \"overflows\": %llu,\n",
                   (unsigned long long)r->bytes_in, (unsigned long long)r->bytes_out, r->tensors,
                   r->n_ema, (unsigned long long)r->overflows);
    if (r->overflows)
        put_text(&b, "first_overflow", r->first_overflow);
    slr_buf_puts(&b, "  \"dropped\": [");
    for (int is = 0; is < SLR_IS_COUNT; is++) {
        if (!r->dropped[is].n)
            continue;
        slr_buf_printf(&b,
                       "%s\n    {\"what\": \"%s\", \"tensors\": %zu, \"bytes\": %llu, \"names\": [",
                       comma ? "," : "", CLASS_NAMES[is], r->dropped[is].n,
                       (unsigned long long)r->dropped[is].bytes);
        for (size_t i = 0; i < SLR_DROPPED_NAMES && i < r->dropped[is].n; i++) {
            slr_buf_puts(&b, i ? ", " : "");
            slr_json_quote(&b, r->dropped[is].name[i], strlen(r->dropped[is].name[i]), false);
        }
        slr_buf_puts(&b, "]}");
        comma = true;
    }
    slr_buf_printf(&b, "%s],\n  \"verified\": %s\n}\n", comma ? "\n  " : "",
                   c->config->verify ? "true" : "false");
    int rc = slr_buf_ok(&b);
    if (rc == SDLORA_OK)
        *json = slr_buf_take(&b);
    slr_buf_free(&b);
    return rc;
}

/* ---- the file's own names ---- */

/* Garbled by half precision or not, these are 0, 1, 2 ... for whoever reads them strictly. */
static int add_position_ids(slr_outfile *f, const char *name, const slr_tensor *t)
{
    int64_t ids[256], n = slr_tensor_count(t);
    if (t->dtype == SDLORA_I64 || n < 1 || n > (int64_t)(sizeof ids / sizeof *ids))
        return slr_outfile_add(f, name, t, NULL);
    for (int64_t i = 0; i < n; i++)
        ids[i] = i;
    return slr_outfile_add_i64(f, name, t->rank, t->dim, ids);
}

static int add_weight(slr_outfile *f, const slr_converting *c, int part, const char *name,
                      const char *rest, const slr_tensor *t, slr_converted *r)
{
    char average[2 * SLR_NAME];
    slr_tensor ema;
    if (part == SLR_PART_UNET && c->config->ema == SLR_EMA_USE &&
        slr_parts_ema_name(&c->parts, rest, average, sizeof average) &&
        slr_bag_find(c->bag, average, &ema)) {
        if (slr_tensor_count(&ema) != slr_tensor_count(t))
            return slr_fail(SDLORA_EFORMAT, __func__, "%s: %s has another size than %s", c->in,
                            average, name);
        r->n_ema++;
        t = &ema;
    }
    return slr_outfile_add(f, name, t, &(slr_out_how){.dtype = slr_convert_dtype(c, part, t)});
}

/* An embedding's vectors, which torch files keep in a dictionary of their own. */
static const char *name_of(const char *name)
{
    return strcmp(name, "string_to_param.*") == 0 ? "emb_params" : name;
}

/* Whether a tensor that is no part's stays. */
static bool is_kept(const slr_converting *c, int is, const char *name)
{
    if (is == SLR_IS_EMA)
        return c->config->ema == SLR_EMA_KEEP;
    if (!c->config->drop_extras || is == SLR_IS_MARKER)
        return true;
    return is == SLR_IS_OTHER && (!c->parts.part[SLR_PART_UNET] || is_of_model(name));
}

int slr_fill_as_named(slr_outfile *f, const slr_converting *c, slr_converted *r)
{
    for (size_t i = 0; i < slr_bag_count(c->bag); i++) {
        slr_tensor t;
        const char *rest, *name = slr_bag_at(c->bag, i, &t);
        int part = slr_parts_of(&c->parts, name, &rest), is = slr_tensor_class(name);
        if (part == SLR_PART_VAE && c->vae_bag)
            continue;
        if (part < 0 || is != SLR_IS_OTHER) {
            if (!is_kept(c, is, name)) {
                drop(r, is, name, &t);
                continue;
            }
            bool weight = is == SLR_IS_OTHER || is == SLR_IS_EMA;
            SLR_TRY(slr_outfile_add(
                f, name_of(name), &t,
                &(slr_out_how){.dtype = weight ? slr_convert_dtype(c, -1, &t) : 0}));
        } else if (slr_ends(name, ".position_ids")) {
            SLR_TRY(add_position_ids(f, name, &t));
        } else {
            SLR_TRY(add_weight(f, c, part, name, rest, &t, r));
        }
    }
    if (!c->vae_bag)
        return SDLORA_OK;
    const char *prefix =
        c->parts.part[SLR_PART_VAE] ? c->parts.prefix[SLR_PART_VAE] : "first_stage_model.";
    return slr_relayout_vae(f, c, c->vae.part[SLR_PART_VAE], prefix);
}

void slr_note_dropped(const slr_converting *c, slr_converted *r)
{
    for (size_t i = 0; i < slr_bag_count(c->bag); i++) {
        slr_tensor t;
        const char *rest, *name = slr_bag_at(c->bag, i, &t);
        int is = slr_tensor_class(name);
        if (slr_parts_of(&c->parts, name, &rest) < 0 || is != SLR_IS_OTHER)
            drop(r, is, name, &t);
    }
}
