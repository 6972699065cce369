/* SPDX-License-Identifier: MIT */
/* Captions of textual inversion.  The phrases are those of the paper's program, which kohya takes:
 * whoever gives the same options trains on the same words.  Refuses to know tokens. */
#include "train/inversion.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "networks/embedding.h"

static const char *const object_phrases[] = {
    "a photo of a {}",           "a rendering of a {}",
    "a cropped photo of the {}", "the photo of a {}",
    "a photo of a clean {}",     "a photo of a dirty {}",
    "a dark photo of the {}",    "a photo of my {}",
    "a photo of the cool {}",    "a close-up photo of a {}",
    "a bright photo of the {}",  "a cropped photo of a {}",
    "a photo of the {}",         "a good photo of the {}",
    "a photo of one {}",         "a close-up photo of the {}",
    "a rendition of the {}",     "a photo of the clean {}",
    "a rendition of a {}",       "a photo of a nice {}",
    "a good photo of a {}",      "a photo of the nice {}",
    "a photo of the small {}",   "a photo of the weird {}",
    "a photo of the large {}",   "a photo of a cool {}",
    "a photo of a small {}",
};

static const char *const style_phrases[] = {
    "a painting in the style of {}",         "a rendering in the style of {}",
    "a cropped painting in the style of {}", "the painting in the style of {}",
    "a clean painting in the style of {}",   "a dirty painting in the style of {}",
    "a dark painting in the style of {}",    "a picture in the style of {}",
    "a cool painting in the style of {}",    "a close-up painting in the style of {}",
    "a bright painting in the style of {}",  "a cropped painting in the style of {}",
    "a good painting in the style of {}",    "a close-up painting in the style of {}",
    "a rendition in the style of {}",        "a nice painting in the style of {}",
    "a small painting in the style of {}",   "a weird painting in the style of {}",
    "a large painting in the style of {}",
};

enum { NAME_MAX_BYTES = 400 }; /* with the longest phrase it fits SLR_INVERSION_TEXT */

static int choose_phrases(slr_inversion *v, slr_opt train)
{
    bool object = slr_opt_bool(train, "use_object_template"),
         style = slr_opt_bool(train, "use_style_template");
    if (!object && !style)
        return SDLORA_OK;
    if (!v->words)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "%s is for training an embedding: give a token_string",
                        object ? "use_object_template" : "use_style_template");
    if (object && style)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "use_object_template and use_style_template: one of them");
    if (strlen(v->name) > NAME_MAX_BYTES)
        return slr_fail(SDLORA_EINVAL, __func__, "token_string is longer than %d bytes",
                        NAME_MAX_BYTES);
    v->phrase = object ? object_phrases : style_phrases;
    v->n_phrases = object ? sizeof object_phrases / sizeof *object_phrases
                          : sizeof style_phrases / sizeof *style_phrases;
    return SDLORA_OK;
}

int slr_inversion_init(slr_inversion *v, slr_mem *m, const slr_bpe *bpe, slr_network *network,
                       slr_opt train)
{
    *v = (slr_inversion){0};
    if (slr_network_is_embedding(network)) {
        v->name = slr_network_name(network);
        SLR_TRY(slr_words_new(&v->words, m, bpe));
        SLR_TRY(slr_words_add(v->words, network));
    }
    return choose_phrases(v, train);
}

void slr_inversion_free(slr_inversion *v)
{
    slr_words_free(v->words);
    v->words = NULL;
}

static int names_it(const slr_inversion *v, const slr_bpe *bpe, slr_mem *m, const char *text,
                    bool *found)
{
    int32_t *ids;
    size_t n;
    if (!text || *found)
        return SDLORA_OK;
    SLR_TRY(slr_words_encode(v->words, bpe, m, text, strlen(text), &ids, &n));
    *found = slr_words_any(ids, n);
    slr_free(m, ids);
    return SDLORA_OK;
}

int slr_inversion_check(const slr_inversion *v, const slr_bpe *bpe, slr_mem *m,
                        const slr_dataset *data)
{
    slr_opt o = {slr_dataset_options(data), "dataset"};
    bool found = false;
    if (!v->words || v->phrase)
        return SDLORA_OK;
    SLR_TRY(names_it(v, bpe, m, slr_opt_text(o, "caption_prefix"), &found));
    SLR_TRY(names_it(v, bpe, m, slr_opt_text(o, "caption_suffix"), &found));
    for (size_t i = 0; !found && i < slr_dataset_items(data); i++)
        SLR_TRY(names_it(v, bpe, m, slr_dataset_item(data, i)->caption, &found));
    return found ? SDLORA_OK
                 : slr_fail(SDLORA_EINVAL, __func__,
                            "no caption has '%s' in it, so nothing would be learned: write it into "
                            "captions, or use use_object_template or use_style_template",
                            v->name);
}

const char *slr_inversion_caption(const slr_inversion *v, const char *caption, uint64_t number,
                                  char text[SLR_INVERSION_TEXT])
{
    if (!v || !v->phrase)
        return caption;
    const char *phrase = v->phrase[number % v->n_phrases], *gap = strstr(phrase, "{}");
    snprintf(text, SLR_INVERSION_TEXT, "%.*s%s%s", (int)(gap - phrase), phrase, v->name, gap + 2);
    return text;
}
