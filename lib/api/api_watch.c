/* SPDX-License-Identifier: MIT */
/* Looking at a generator's run: where it is, how long it will take, and what the picture is
 * becoming. Refuses to know how pictures are made. */
#include "api/generator.h"

#include <math.h>

#include "base/clock.h"
#include "base/status.h"
#include "models/checkpoint.h"
#include "sample/preview.h"

/* Seconds to go: steps at the pace so far, and pictures to decode, of which the first is taken for
 * as long as three steps.  NaN before the first step. */
static double seconds_to_go(const slr_api_draw_watch *w, const slr_run_progress *p)
{
    if (!w->steps)
        return NAN;
    double step = w->seconds[SLR_RUN_SAMPLE] / w->steps;
    double decode = w->pictures ? w->seconds[SLR_RUN_DECODE] / w->pictures : 3 * step;
    double left = (double)(p->n_pictures - 1 - p->picture);

    return step * (left * w->total + (w->total - w->done)) + decode * (left + 1);
}

/* Books the time since the last report to the phase that it was spent in. */
static void take_time(slr_api_draw_watch *w, const slr_run_progress *p, double now)
{
    bool begins = !w->started;

    if (begins)
        w->start = w->last = now;
    w->started = true;
    w->seconds[w->phase] += now - w->last;
    w->last = now;
    if (w->phase == SLR_RUN_SAMPLE && p->phase == SLR_RUN_SAMPLE && p->step > 0)
        w->steps++;
    if (w->phase == SLR_RUN_DECODE && p->phase != SLR_RUN_DECODE)
        w->pictures++;
    w->phase = p->phase;
}

/* Steps of the picture: only a report of steps knows them. */
static void take_steps(slr_api_draw_watch *w, const slr_run_progress *p)
{
    if (p->phase == SLR_RUN_SAMPLE) {
        w->done = p->done;
        w->total = p->total;
    } else if (p->phase == SLR_RUN_PREPARE && p->pass == 0) {
        w->done = 0;
    }
}

void slr_api_watch_begin(sdlora_generator *g)
{
    sdlora_progress_fn fn = g->watch.fn;
    void *user = g->watch.user;

    g->watch = (slr_api_draw_watch){.fn = fn, .user = user};
}

int slr_api_watch_tell(sdlora_generator *g, const slr_run_progress *p)
{
    static const char *const phases[] = {
        [SLR_RUN_PREPARE] = "prepare", [SLR_RUN_SAMPLE] = "sample", [SLR_RUN_DECODE] = "decode"};
    slr_api_draw_watch *w = &g->watch;
    double now = slr_clock();

    take_time(w, p, now);
    take_steps(w, p);
    if (!w->fn)
        return 0;
    const sdlora_progress told = {
        .struct_size = sizeof told,
        .step = (int64_t)p->picture * w->total + w->done,
        .total = (int64_t)p->n_pictures * w->total,
        .val_loss = NAN,
        .elapsed = now - w->start,
        .eta = seconds_to_go(w, p),
        .phase = phases[p->phase],
        .phase_done = w->done,
        .phase_total = w->total,
    };
    w->now = p;
    int answer = w->fn(&told, w->user);
    w->now = NULL;
    return answer;
}

int sdlora_generator_set_watch(sdlora_generator *g, sdlora_progress_fn fn, void *user)
{
    slr_clear();
    SLR_TRY(slr_api_given(g, "g", __func__));
    g->watch.fn = fn;
    g->watch.user = user;
    return SDLORA_OK;
}

int sdlora_generator_preview(sdlora_image **out, sdlora_generator *g)
{
    slr_pixels pixels;

    slr_clear();
    SLR_TRY(slr_api_given(out, "out", __func__));
    *out = NULL;
    SLR_TRY(slr_api_given(g, "g", __func__));
    const slr_run_progress *p = g->watch.now;
    if (!p || !p->x0)
        return slr_fail(
            SDLORA_EINVAL, __func__,
            "there is a picture to look at in the watching function of a run only, after "
            "its first step");
    SLR_TRY(slr_preview_make(&pixels, g->ckpt->ctx->mem, p->x0, p->h, p->w, p->c,
                             p->family->vae_scale));
    return slr_api_image(out, g->ckpt->ctx, pixels, NULL);
}
