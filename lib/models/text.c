/* SPDX-License-Identifier: MIT */
/* How the parts of a text's conditioning lie side by side.  Knows widths, padding and the sinusoids
 * of sizes; refuses to know prompts, captions and where numbers come from. */
#include "models/text.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "models/unet.h"

#define ROW        77
#define VOCABULARY 49408 /* ids from here on are rows of embeddings */

/* Of the longest period, as for timesteps. */
static const float PERIOD = 10000.0F;

static int read_encoder(slr_text_shape *s, const slr_checkpoint *base, int e)
{
    const slr_family *family = slr_checkpoint_family(base);
    const slr_family_text *row = &family->text[e];
    const slr_weights *w = slr_checkpoint_part(base, row->part);
    if (!w)
        return slr_fail(SDLORA_ENOTFOUND, __func__, "%s has no %s", slr_checkpoint_path(base),
                        slr_part_name(row->part));
    SLR_TRY(slr_clip_read(&s->clip[e], family, w));
    s->part[e] = row->part;
    s->at[e] = s->width;
    s->width += s->clip[e].width;
    if (!row->pooled)
        return SDLORA_OK;
    const slr_tensor *projection;
    SLR_TRY(slr_weights_get(w, "text_projection.weight", &projection));
    s->pooled = projection->dim[0];
    return SDLORA_OK;
}

/* Whether the UNet takes what the encoders give. */
static int check_unet(const slr_text_shape *s, const slr_checkpoint *base)
{
    const slr_weights *w = slr_checkpoint_part(base, SLR_PART_UNET);
    slr_unet_shape unet;
    if (!w)
        return SDLORA_OK;
    SLR_TRY(slr_unet_read(&unet, slr_checkpoint_family(base), w));
    if (unet.context > 0 && unet.context != s->width)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: text states are %lld wide and the UNet takes %lld",
                        slr_checkpoint_path(base), (long long)s->width, (long long)unet.context);
    if (unet.vector != s->vector)
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: a pooled state of %lld and %d sizes are %lld numbers, and the UNet "
                        "takes %lld",
                        slr_checkpoint_path(base), (long long)s->pooled, s->n_sizes,
                        (long long)s->vector, (long long)unet.vector);
    return SDLORA_OK;
}

int slr_text_read(slr_text_shape *out, const slr_checkpoint *base)
{
    const slr_family *family = slr_checkpoint_family(base);
    slr_text_shape s = {.n = family->n_text, .n_sizes = family->n_sizes};
    for (int e = 0; e < s.n; e++)
        SLR_TRY(read_encoder(&s, base, e));
    s.vector = s.pooled + (int64_t)s.n_sizes * SLR_SIZE_WIDTH;
    SLR_TRY(check_unet(&s, base));
    *out = s;
    return SDLORA_OK;
}

slr_val slr_text_build(slr_nn *nn, const slr_family *family, const slr_text_shape *s, int e,
                       slr_val ids, int clip_skip, slr_val end, slr_val *pooled)
{
    slr_require(e >= 0 && e < s->n && nn->part == s->part[e]);
    return slr_clip_build_pooled(nn, family, ids, clip_skip, end, pooled);
}

void slr_text_ends(const int32_t *ids, size_t rows, float *end)
{
    memset(end, 0, rows * ROW * sizeof *end);
    for (size_t r = 0; r < rows; r++) {
        const int32_t *id = ids + r * ROW;
        size_t best = 0;
        for (size_t i = 1; i < ROW; i++)
            if (id[i] < VOCABULARY && (id[i] > id[best] || id[best] >= VOCABULARY))
                best = i;
        end[r * ROW + best] = 1;
    }
}

void slr_text_pad(const slr_family *family, int part, int32_t *ids, size_t rows)
{
    const slr_family_text *row = slr_family_text_of(family, part);
    if (!row)
        return;
    for (size_t r = 0; r < rows; r++) {
        int32_t *id = ids + r * ROW;
        bool behind = false;
        for (size_t i = 0; i < ROW; i++) {
            id[i] = behind ? row->pad : id[i];
            behind = behind || id[i] == family->eos;
        }
    }
}

void slr_text_sizes(const float *numbers, int n, float *out)
{
    enum { HALF = SLR_SIZE_WIDTH / 2 };
    for (int k = 0; k < n; k++)
        for (int i = 0; i < HALF; i++) {
            /* in f32, as reference programs compute it: sizes are large and angles with them */
            float angle = numbers[k] * expf(-logf(PERIOD) * (float)i / HALF);
            out[k * SLR_SIZE_WIDTH + i] = cosf(angle);
            out[k * SLR_SIZE_WIDTH + HALF + i] = sinf(angle);
        }
}
