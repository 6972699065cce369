/* SPDX-License-Identifier: MIT */
/* The text side of a trainer: rates of the encoders, whether captions are encoded in each step or
 * before the first one (cache_text_encoder_outputs), and what of the model a trainer cannot do. */
#include "train/trainer_impl.h"

#include <string.h>

#include "base/status.h"
#include "base/str.h"

static const int encoders[SLR_TEXT_ENCODERS] = {SLR_PART_TE, SLR_PART_TE2};

/* --- rates --- */

/* Numbers apart by commas, blanks or line ends, at most n of them: how many, or an error. */
static int parse_rates(const char *text, double *rate, int n)
{
    int found = 0;
    for (const char *p = text; p && *p;) {
        char number[32];
        size_t length = strcspn(p, ", \t\r\n");
        if (length) {
            if (length >= sizeof number || found == n)
                return slr_fail(SDLORA_EINVAL, __func__,
                                "text_encoder_lr is one number, or one for each of %d text "
                                "encoders, not more",
                                n);
            memcpy(number, p, length);
            number[length] = '\0';
            if (!slr_parse_real(number, &rate[found]) || !(rate[found] >= 0 && rate[found] <= 1e6))
                return slr_fail(SDLORA_EINVAL, __func__,
                                "text_encoder_lr has '%s', which is no number from 0 to 1000000",
                                number);
            found++;
        }
        p += length + (p[length] != '\0');
    }
    return found;
}

/* One spelling of equal values, for metadata and for states. */
static int spell_rates(slr_trainer *t, const double *rate, int n)
{
    char text[80], one[32];
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        slr_real_repr(rate[i], one);
        memcpy(text + at, one, strlen(one) + 1);
        at += strlen(one);
        if (i + 1 < n)
            text[at++] = '\n';
    }
    return slr_options_set_text(t->opts, "text_encoder_lr", text);
}

int slr_trainer_text_rates(slr_trainer *t, double rate[SLR_PART_COUNT])
{
    double given[SLR_TEXT_ENCODERS];
    int n = parse_rates(slr_opt_text(t->o, "text_encoder_lr"), given, SLR_TEXT_ENCODERS);
    if (n < 0)
        return n;
    for (int e = 0; e < SLR_TEXT_ENCODERS; e++)
        rate[encoders[e]] = n ? given[e < n ? e : n - 1] : slr_opt_real(t->o, "learning_rate");
    return n ? spell_rates(t, given, n) : SDLORA_OK;
}

/* --- what fits --- */

static bool trains_text(const slr_trainer *t)
{
    return t->part_mask & (1u << SLR_PART_TE | 1u << SLR_PART_TE2);
}

static int check_family(const slr_trainer *t)
{
    const slr_family *family = slr_checkpoint_family(t->c.base);
    const char *path = slr_checkpoint_path(t->c.base);
    if (slr_opt_given(t->o, "v2") && slr_opt_bool(t->o, "v2") != (family->id == SLR_FAMILY_SD2))
        return slr_fail(SDLORA_EINVAL, __func__, "%s is %s: v2 has to be %s", path, family->title,
                        family->id == SLR_FAMILY_SD2 ? "true" : "false");
    if (!family->text[0].clip_skip && slr_opt_given(t->o, "clip_skip"))
        slr_logf(&t->c.log, SLR_LOG_WARN,
                 "clip_skip is not used: %s fixes the layers of its text encoders", family->title);
    return SDLORA_OK;
}

/* Captions that are other words each time cannot be encoded beforehand. */
static int check_constant(const slr_trainer *t)
{
    static const char *const changing[] = {"shuffle_caption", "enable_wildcard",
                                           "caption_tag_dropout_rate", "token_warmup_step"};
    slr_opt data = {slr_dataset_options(t->c.data), "dataset"};
    for (size_t i = 0; i < sizeof changing / sizeof *changing; i++) {
        const slr_option_row *row = slr_option_find("dataset", changing[i]);
        bool on = row->type == SLR_OPT_BOOL ? slr_opt_bool(data, changing[i])
                                            : slr_opt_real(data, changing[i]) > 0;
        if (on)
            return slr_fail(SDLORA_EINVAL, __func__,
                            "cache_text_encoder_outputs encodes each caption once: it does not go "
                            "with %s",
                            changing[i]);
    }
    return SDLORA_OK;
}

int slr_trainer_read_text(slr_trainer *t)
{
    SLR_TRY(slr_captions_chunks(t->o, &t->n_chunks));
    SLR_TRY(check_family(t));
    t->clip_skip = (int)slr_opt_int(t->o, "clip_skip");
    t->cache_on_disk = slr_opt_bool(t->o, "cache_text_encoder_outputs_to_disk");
    t->cache_text = t->cache_on_disk || slr_opt_bool(t->o, "cache_text_encoder_outputs");
    if (!t->cache_text)
        return SDLORA_OK;
    if (trains_text(t))
        return slr_fail(SDLORA_EINVAL, __func__,
                        "cache_text_encoder_outputs keeps what the text encoder says now, but it "
                        "is trained: give network_train_unet_only, or text_encoder_lr 0");
    return check_constant(t);
}

/* --- parts --- */

static int open_captions(slr_trainer *t, slr_captions **out)
{
    slr_captions_config config = {.mem = t->m,
                                  .log = t->c.log,
                                  .base = t->c.base,
                                  .network = t->c.network,
                                  .words = t->inversion.words,
                                  .devices = t->c.devices,
                                  .policy = t->precision.model,
                                  .bpe = t->bpe,
                                  .n_chunks = t->n_chunks,
                                  .clip_skip = t->clip_skip,
                                  .later = t->cache_text};
    return slr_captions_new(out, &config);
}

int slr_trainer_open_text(slr_trainer *t)
{
    return trains_text(t) ? SDLORA_OK : open_captions(t, &t->text);
}

int slr_trainer_open_held_out_text(slr_trainer *t)
{
    return t->cache_text ? SDLORA_OK : open_captions(t, &t->val_text);
}

slr_captions *slr_trainer_held_out_text(const slr_trainer *t)
{
    return t->val_text ? t->val_text : t->text;
}

static int keep_set(slr_trainer *t, slr_dataset *d, int64_t *done, int64_t total)
{
    slr_opt o = {slr_dataset_options(d), "dataset"};
    for (size_t i = 0; i < slr_dataset_items(d); i++) {
        const slr_item *item = slr_dataset_item(d, i);
        char *caption;
        if (t->c.phase && t->c.phase(t->c.phase_user, "text", *done, total))
            return slr_fail(SDLORA_ECANCELED, __func__, "cancelled while captions were encoded");
        SLR_TRY(slr_dataset_caption(d, t->m, i, &caption));
        int rc = slr_captions_keep(t->text, caption, t->cache_on_disk ? item : NULL, &t->cancel);
        slr_free(t->m, caption);
        SLR_TRY(rc);
        ++*done;
    }
    if (slr_opt_real(o, "caption_dropout_rate") > 0 ||
        slr_opt_int(o, "caption_dropout_every_n_epochs") > 0)
        return slr_captions_keep(t->text, "", NULL, &t->cancel);
    return SDLORA_OK;
}

int slr_trainer_keep_captions(slr_trainer *t)
{
    int64_t done = 0, total = (int64_t)slr_dataset_items(t->c.data);
    if (!t->cache_text)
        return SDLORA_OK;
    if (t->c.validation)
        total += (int64_t)slr_dataset_items(t->c.validation);
    SLR_TRY(keep_set(t, t->c.data, &done, total));
    if (t->c.validation)
        SLR_TRY(keep_set(t, t->c.validation, &done, total));
    slr_captions_close(t->text);
    if (t->c.phase)
        (void)t->c.phase(t->c.phase_user, "text", total, total);
    return SDLORA_OK;
}

uint64_t slr_trainer_text_digest(const slr_trainer *t)
{
    uint64_t h = 0;
    for (int e = 0; e < SLR_TEXT_ENCODERS; e++)
        h = slr_network_digest(t->c.network, encoders[e], h);
    return h;
}

int slr_trainer_renew_captions(slr_trainer *t)
{
    bool kept = t->text && slr_captions_reopen(t->text);
    return kept ? slr_trainer_keep_captions(t) : SDLORA_OK;
}
