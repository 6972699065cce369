/* SPDX-License-Identifier: MIT */
/* The modelspec.* keys of a trained network: what programs that list models show of it.  Refuses to
 * know how it was trained. */
#include <sdlora/version.h>

#include "base/clock.h"
#include "base/status.h"
#include "networks/embedding.h"
#include "train/metadata_impl.h"

static const struct {
    const char *key, *option;
} card_rows[] = {
    {"modelspec.author", "metadata_author"},
    {"modelspec.description", "metadata_description"},
    {"modelspec.license", "metadata_license"},
    {"modelspec.tags", "metadata_tags"},
    {"modelspec.usage_hint", "metadata_usage_hint"},
    {"modelspec.thumbnail", "metadata_thumbnail"},
    {"modelspec.trigger_phrase", "metadata_trigger_phrase"},
    {"modelspec.merged_from", "metadata_merged_from"},
    {"modelspec.preprocessor", "metadata_preprocessor"},
    {"modelspec.is_negative_embedding", "metadata_is_negative_embedding"},
    {"modelspec.implementation_version", "metadata_implementation_version"},
};

static const char *implementation_of(const slr_family *family, bool embedding)
{
    return family->n_sizes || embedding /* SDXL and its refiner */
               ? "https://github.com/Stability-AI/generative-models"
               : "diffusers";
}

int slr_metadata_modelspec(slr_meta *meta, const slr_run_facts *f)
{
    const slr_family *family = slr_network_family(f->network);
    const char *title = slr_opt_text(f->opts, "metadata_title"),
               *name = slr_opt_text(f->opts, "output_name");
    char date[32];
    long long w, h;
    slr_metadata_resolution(f, &w, &h);
    slr_iso_time(f->now, date);
    SLR_TRY(slr_meta_set(meta, "modelspec.sai_model_spec", "1.0.1"));
    bool embedding = slr_network_is_embedding(f->network);
    SLR_TRY(slr_meta_setf(
        meta, "modelspec.architecture", "%s/%s",
        slr_family_architecture(family, f->v_prediction, slr_checkpoint_inpaint(f->base)),
        embedding ? "textual-inversion" : "lora"));
    SLR_TRY(slr_meta_set(meta, "modelspec.implementation", implementation_of(family, embedding)));
    SLR_TRY(
        slr_meta_set(meta, "modelspec.implementation_version", "libsdlora/" SDLORA_VERSION_STRING));
    SLR_TRY(slr_meta_setf(meta, "modelspec.resolution", "%lldx%lld", w, h));
    SLR_TRY(slr_meta_set(meta, "modelspec.date", date));
    SLR_TRY(slr_meta_set(meta, "modelspec.prediction_type", f->v_prediction ? "v" : "epsilon"));
    if (title || name)
        SLR_TRY(slr_meta_set(meta, "modelspec.title", title ? title : name));
    else
        SLR_TRY(slr_meta_setf(meta, "modelspec.title", "%s@%.0f",
                              embedding ? "TextualInversion" : "LoRA", f->now));
    for (size_t i = 0; i < sizeof card_rows / sizeof *card_rows; i++) {
        const char *value = slr_opt_text(f->opts, card_rows[i].option);
        if (value && *value)
            SLR_TRY(slr_meta_set(meta, card_rows[i].key, value));
    }
    if (slr_opt_given(f->opts, "clip_skip"))
        SLR_TRY(slr_metadata_option(meta, "modelspec.encoder_layer", f->opts, "clip_skip"));
    if (slr_opt_has(f->opts, "min_timestep") || slr_opt_has(f->opts, "max_timestep"))
        SLR_TRY(slr_meta_setf(meta, "modelspec.timestep_range", "%lld,%lld",
                              (long long)slr_opt_int(f->opts, "min_timestep"),
                              slr_opt_has(f->opts, "max_timestep")
                                  ? (long long)slr_opt_int(f->opts, "max_timestep")
                                  : 1000LL));
    return SDLORA_OK;
}
