/* SPDX-License-Identifier: MIT */
/* img2img's picture and mask before and after sampling.  Knows the order of AUTOMATIC1111's steps:
 * mask, blur, box, cut, fit, fill; refuses to know latents. */
#include "sample/canvas.h"

#include "base/status.h"
#include "sample/blur.h"
#include "sample/colour.h"
#include "sample/compose.h"

/* Takes the place of *p. */
static void replace(slr_mem *m, slr_pixels *p, slr_pixels by)
{
    slr_free(m, p->data);
    *p = by;
}

static int fit_in_place(slr_mem *m, slr_pixels *p, int mode, int32_t w, int32_t h,
                        const slr_enlarge *by)
{
    slr_pixels fitted;
    SLR_TRY(slr_fit(&fitted, m, p, mode, w, h, by));
    replace(m, p, fitted);
    return SDLORA_OK;
}

static int crop_in_place(slr_mem *m, slr_pixels *p, const slr_box *b)
{
    slr_pixels cut;
    SLR_TRY(slr_picture_crop(&cut, m, p, b->x, b->y, b->w, b->h));
    replace(m, p, cut);
    return SDLORA_OK;
}

/* The part that only-masked works on.  c->mask is cut to it; cover receives the whole mask. */
static int cut_mask(slr_canvas *c, const slr_canvas_config *f, slr_pixels *cover)
{
    c->blank = !slr_mask_box(&c->mask, f->padding, &c->paste);
    if (c->blank) {
        replace(c->m, &c->mask, (slr_pixels){0});
        return SDLORA_OK;
    }
    slr_box_shape(&c->paste, f->width, f->height, c->mask.width, c->mask.height);
    SLR_TRY(slr_picture_copy(cover, c->m, &c->mask));
    SLR_TRY(crop_in_place(c->m, &c->mask, &c->paste));
    return fit_in_place(c->m, &c->mask, SLR_FIT_FILL, f->width, f->height, NULL);
}

/* c->mask as the model sees it, and cover: what is not laid over the result. */
static int make_mask(slr_canvas *c, const slr_canvas_config *f, const slr_pixels *mask,
                     slr_pixels *cover)
{
    SLR_TRY(slr_mask_of(&c->mask, c->m, mask, f->sharp));
    if (f->invert)
        slr_mask_invert(&c->mask);
    if (f->blur_x > 0)
        SLR_TRY(slr_blur_axis(&c->mask, c->m, f->blur_x, true));
    if (f->blur_y > 0)
        SLR_TRY(slr_blur_axis(&c->mask, c->m, f->blur_y, false));
    if (f->only_masked)
        return cut_mask(c, f, cover);
    SLR_TRY(fit_in_place(c->m, &c->mask, f->resize_mode, f->width, f->height, NULL));
    SLR_TRY(slr_picture_copy(cover, c->m, &c->mask));
    slr_mask_double(cover);
    return SDLORA_OK;
}

static int make_overlay(slr_canvas *c, const slr_canvas_config *f, slr_pixels *cover)
{
    if (cover->width != c->image.width || cover->height != c->image.height)
        SLR_TRY(fit_in_place(c->m, cover, f->resize_mode, c->image.width, c->image.height, NULL));
    SLR_TRY(slr_picture_unmasked(&c->overlay, c->m, &c->image, cover));
    slr_picture_straight(&c->overlay);
    return SDLORA_OK;
}

static int make_image(slr_canvas *c, const slr_canvas_config *f, const slr_pixels *image,
                      slr_pixels *cover)
{
    bool cut = c->paste.w > 0;
    SLR_TRY(slr_picture_flatten(&c->image, c->m, image, f->background));
    if (!cut && f->resize_mode != SLR_FIT_LATENT)
        SLR_TRY(fit_in_place(c->m, &c->image, f->resize_mode, f->width, f->height, &f->enlarge));
    if (cover->data)
        SLR_TRY(make_overlay(c, f, cover));
    if (cut) {
        SLR_TRY(crop_in_place(c->m, &c->image, &c->paste));
        SLR_TRY(fit_in_place(c->m, &c->image, SLR_FIT_FILL, f->width, f->height, &f->enlarge));
    }
    if (!c->mask.data || f->content == SLR_CONTENT_ORIGINAL)
        return SDLORA_OK;
    if (c->mask.width != c->image.width || c->mask.height != c->image.height)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "the picture is %dx%d and its mask %dx%d after resizing: masked content is "
                        "'original' with latent upscaling",
                        c->image.width, c->image.height, c->mask.width, c->mask.height);
    return slr_mask_fill(&c->image, c->m, &c->mask);
}

int slr_canvas_open(slr_canvas *out, slr_mem *m, const slr_canvas_config *config,
                    const slr_pixels *image, const slr_pixels *mask)
{
    slr_pixels cover = {0};
    int rc = SDLORA_OK;
    *out = (slr_canvas){.m = m, .correct = config->correct};
    slr_require(config->content >= SLR_CONTENT_FILL && config->content <= SLR_CONTENT_NOTHING);
    if (mask)
        rc = make_mask(out, config, mask, &cover);
    if (rc >= 0)
        rc = make_image(out, config, image, &cover);
    slr_free(m, cover.data);
    return rc;
}

void slr_canvas_free(slr_canvas *c)
{
    slr_free(c->m, c->image.data);
    slr_free(c->m, c->mask.data);
    slr_free(c->m, c->overlay.data);
    *c = (slr_canvas){0};
}

int slr_canvas_finish(const slr_canvas *c, slr_pixels *p)
{
    slr_pixels base = {0}, placed;
    if (c->correct)
        SLR_TRY(slr_colour_match(p, c->m, &c->image));
    if (!c->overlay.data)
        return SDLORA_OK;
    bool cut = c->paste.w > 0;
    SLR_TRY(slr_picture_zero(&base, c->m, cut ? c->overlay.width : p->width,
                             cut ? c->overlay.height : p->height, 4));
    int rc = SDLORA_OK;
    if (!cut) {
        slr_picture_paste(&base, p, 0, 0);
    } else {
        rc = slr_fit(&placed, c->m, p, SLR_FIT_CROP, c->paste.w, c->paste.h, NULL);
        if (rc >= 0)
            slr_picture_paste(&base, &placed, c->paste.x, c->paste.y);
        if (rc >= 0)
            slr_free(c->m, placed.data);
    }
    if (rc >= 0) {
        slr_picture_over(&base, &c->overlay);
        rc = slr_picture_rgb(&placed, c->m, &base);
    }
    if (rc >= 0)
        replace(c->m, p, placed);
    slr_free(c->m, base.data);
    return rc;
}
