/* SPDX-License-Identifier: MIT */
/* The loop against the same run by hand: numbers of samples, shares of accumulation, clipping,
 * rates and AdamW in doubles; and the held-out loss by hand.  That a single step's gradients are
 * right is golden.c's business. */
#include <math.h>

#include "base/rng.h"
#include "trainer_test.h"

/* The library's moments are f32, these are doubles: measured 7e-6 of the update after six steps. */
#define TOL_UPDATE 3e-5
/* The same graph on parameters that differ by what f32 rounds in earlier updates: 1e-6 was seen, of
 * a loss that is a hundredth of the others. */
#define TOL_LOSS 5e-6

enum { STEPS = 6, BATCHES = 3, PER_BATCH = 2, ACCUMULATION = 2, SEED = 3 };
static const double rates[SLR_PART_COUNT] = {[SLR_PART_UNET] = 1e-3, [SLR_PART_TE] = 5e-4};
static const double clip_at = 0.01; /* between the norms that come up */

static const char *const settings[] = {
    "max_train_steps",
    "6",
    "lr_scheduler",
    "cosine",
    "lr_warmup_steps",
    "1",
    "max_grad_norm",
    "0.01",
    "min_snr_gamma",
    "5",
    "noise_offset",
    "0.05",
    NULL,
};

/* Two parts' moments and the network that is trained by hand. */
typedef struct replay {
    slr_network *net;
    slr_step *step[PER_BATCH + 1]; /* by samples */
    slr_noise noise;
    double *m, *v, *grad;
    size_t n;
} replay;

static slr_step *step_for(slr_network *net, int64_t n, unsigned parts, bool text_states)
{
    slr_step *s;
    const slr_step_config config = {.mem = slr_checkpoint_mem(base),
                                    .base = base,
                                    .network = net,
                                    .devices = devices,
                                    .n = n,
                                    .h = 8,
                                    .w = 8,
                                    .n_chunks = 1,
                                    .clip_skip = 1,
                                    .loss_type = SDLORA_LOSS_L2,
                                    .part_mask = parts,
                                    .text_states = text_states};
    assert_ok(slr_step_new(&s, &config));
    return s;
}

static replay replay_open(void)
{
    replay r = {0};
    sdlora_options *network = options_of("network", LIST("network_dim", "2"), NULL);
    sdlora_options *train = options_of("train", settings, NULL);
    assert_ok(slr_network_make(&r.net, base, network, SEED));
    assert_ok(slr_noise_init(&r.noise, (slr_opt){train, "train"}, SLR_PREDICT_EPS));
    for (int n = 1; n <= PER_BATCH; n++)
        r.step[n] = step_for(r.net, n, 1u << SLR_PART_UNET | 1u << SLR_PART_TE, false);
    r.n = slr_network_param_count(r.net);
    double *block = calloc(3 * r.n, sizeof *block);
    assert_non_null(block);
    r.m = block;
    r.v = block + r.n;
    r.grad = block + 2 * r.n;
    slr_options_unref(network);
    slr_options_unref(train);
    return r;
}

static void replay_close(replay *r)
{
    for (int n = 1; n <= PER_BATCH; n++)
        slr_step_free(r->step[n]);
    slr_network_unref(r->net);
    free(r->m);
}

/* The mean loss of a batch; its gradient is added with the accumulation's share. */
static double micro_batch(replay *r, slr_loader *loader, int64_t epoch, int64_t index, int64_t done)
{
    const slr_batch *b;
    double loss = 0;
    assert_ok(slr_loader_get(loader, epoch, index, done, &b));
    const slr_step_io *io = slr_step_io_of(r->step[b->n]);
    uint64_t first = (uint64_t)((epoch * BATCHES + index) * PER_BATCH);
    assert_ok(
        slr_noise_fill(&r->noise, NULL, io, b->latents, b->n, 8, 8, SEED, first, b->loss_weight));
    for (int64_t i = 0; i < b->n; i++)
        assert_ok(slr_clip_caption_ids(NULL, bpe, slr_checkpoint_family(base), b->captions[i], 1,
                                       io->text.ids[0] + i * 77));
    assert_ok(slr_step_run(r->step[b->n], NULL));
    for (int64_t i = 0; i < b->n; i++)
        loss += io->loss[i] / (double)b->n;
    for (size_t i = 0; i < r->n; i++)
        r->grad[i] += io->grad[i] / (double)ACCUMULATION;
    return loss;
}

/* Returns the norm before clipping. */
static double adam(replay *r, int step, double factor)
{
    double square = 0;
    float *p = slr_network_params(r->net);
    for (size_t i = 0; i < r->n; i++)
        square += r->grad[i] * r->grad[i];
    double norm = sqrt(square), scale = fmin(1.0, clip_at / (norm + 1e-6));
    for (int part = 0; part < SLR_PART_COUNT; part++) {
        size_t first, last;
        double lr = rates[part] * factor;
        slr_network_part_range(r->net, part, &first, &last);
        for (size_t i = first; i < last; i++) {
            double g = r->grad[i] * scale;
            r->m[i] = 0.9 * r->m[i] + 0.1 * g;
            r->v[i] = 0.999 * r->v[i] + 0.001 * g * g;
            double m = r->m[i] / (1 - pow(0.9, step)), v = r->v[i] / (1 - pow(0.999, step));
            p[i] = (float)(p[i] * (1 - lr * 0.01) - lr * m / (sqrt(v) + 1e-8));
        }
    }
    memset(r->grad, 0, r->n * sizeof *r->grad);
    return norm;
}

/* One step of warm-up from 0, then half a cosine over the other five. */
static double factor_of(int step)
{
    return step < 1 ? 0 : 0.5 * (1 + cos(3.14159265358979323846 * (step - 1) / (STEPS - 1)));
}

static void check_report(const slr_progress *p, int step, double loss, double norm)
{
    double factor = factor_of(step);
    assert_int_equal(p->step, step + 1);
    assert_int_equal(p->total, STEPS);
    assert_int_equal(p->epoch, step / 2 + 1); /* two steps an epoch: of two batches and of one */
    assert_int_equal(p->epochs, 3);
    assert_true(fabs(p->loss - loss) <= TOL_LOSS * loss);
    assert_true(fabs(p->grad_norm - norm) <= TOL_UPDATE * norm);
    assert_true(fabs(p->unet_lr - rates[SLR_PART_UNET] * factor) < 1e-12);
    assert_true(fabs(p->text_encoder_lr - rates[SLR_PART_TE] * factor) < 1e-12);
}

/* |ours - by hand| / |by hand - start| over one part. */
static void check_update(int part, const float *start, job *j, replay *r)
{
    size_t first, last;
    double diff = 0, moved = 0;
    const float *got = slr_network_params(j->net), *want = slr_network_params(r->net);
    slr_network_part_range(j->net, part, &first, &last);
    assert_true(last > first);
    for (size_t i = first; i < last; i++) {
        diff += pow((double)got[i] - want[i], 2);
        moved += pow((double)want[i] - start[i], 2);
    }
    print_message("%s: update within %.2g\n", slr_part_name(part), sqrt(diff / moved));
    assert_true(sqrt(diff / moved) <= TOL_UPDATE);
}

static void a_run_is_the_same_by_hand(void **state)
{
    (void)state;
    job j = job_open(&(job_spec){.train = settings});
    replay r = replay_open();
    float *start = params_copy(&j);
    int clipped = 0;
    double losses[BATCHES] = {0};
    assert_int_equal(j.t->n_batches, BATCHES);
    for (int step = 0; step < STEPS; step++) {
        int64_t epoch = step / 2, index = step % 2 ? 2 : 0, micro = step % 2 ? 1 : 2;
        double loss = 0, average = 0;
        for (int64_t k = 0; k < micro; k++) {
            losses[index + k] = micro_batch(&r, j.t->loader, epoch, index + k, step);
            loss += losses[index + k] / (double)micro;
        }
        double norm = adam(&r, step + 1, factor_of(step));
        clipped += norm > clip_at;
        slr_progress p = job_run(&j, step + 1);
        check_report(&p, step, loss, norm);
        int64_t seen = step ? BATCHES : 2; /* the mean of the last epoch's worth of batches */
        for (int64_t k = 0; k < seen; k++)
            average += losses[k] / (double)seen;
        assert_true(fabs(p.average_loss - average) <= TOL_LOSS * average);
    }
    assert_true(clipped > 1 && clipped < STEPS);
    check_update(SLR_PART_UNET, start, &j, &r);
    check_update(SLR_PART_TE, start, &j, &r);
    free(start);
    replay_close(&r);
    job_close(&j);
}

/* One picture at t = 50, 150 ... 950, noise by its number; every picture counts once. */
static double loss_of_picture(slr_step *s, const slr_batch *b, int64_t k)
{
    double sum = 0;
    slr_schedule schedule;
    enum { FLOATS = 8 * 8 * 4 };
    const slr_step_io *io = slr_step_io_of(s);
    slr_schedule_init(&schedule);
    assert_ok(slr_clip_caption_ids(NULL, bpe, slr_checkpoint_family(base), b->captions[k], 1,
                                   io->text.ids[0]));
    for (int i = 0; i < 10; i++) {
        slr_rng rng;
        int t = 50 + 100 * i;
        double a = schedule.alpha_bar[t];
        slr_rng_init(&rng, 0, SLR_STREAM_EVAL, (uint32_t)(b->items[k] * 10 + (size_t)i));
        slr_rng_normal(&rng, io->target, FLOATS);
        for (int n = 0; n < FLOATS; n++)
            io->x[n] = (float)(sqrt(a) * b->latents[k * FLOATS + n] + sqrt(1 - a) * io->target[n]);
        io->t[0] = (float)t;
        io->weight[0] = 1;
        assert_ok(slr_step_run(s, NULL));
        sum += io->loss[0];
    }
    return sum / 10;
}

static void held_out_loss_is_the_same_by_hand(void **state)
{
    (void)state;
    double got, want = 0;
    bool seen[4] = {false};
    copy_pictures("openmoji-style/heldout/1_openmoji", 3, in_scratch("by-hand/2_x"));
    copy_pictures("openmoji-style/heldout/1_openmoji", 1, in_scratch("by-hand/1_y"));
    slr_dataset *held = open_folder(in_scratch("by-hand"), NULL);
    assert_int_equal(slr_dataset_items(held), 4);
    job j = job_open(&(job_spec){.validation = held});
    slr_step *s = step_for(j.net, 1, 0, false);
    for (int64_t i = 0; i < slr_dataset_batches_per_epoch(held); i++) {
        const slr_batch *b;
        assert_ok(slr_loader_get(j.t->val_feed.loader, 0, i, 0, &b));
        for (int64_t k = 0; k < b->n; k++)
            if (!seen[b->items[k]]) {
                seen[b->items[k]] = true;
                want += loss_of_picture(s, b, k) / 4;
            }
    }
    assert_ok(slr_trainer_validate(j.t, &got));
    print_message("held-out loss %.7f, by hand %.7f\n", got, want);
    assert_true(fabs(got - want) <= 1e-5 * want); /* states from another graph, batches of ten */
    slr_step_free(s);
    job_close(&j);
    slr_dataset_unref(held);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_is_the_same_by_hand),
        cmocka_unit_test(held_out_loss_is_the_same_by_hand),
    };
    return cmocka_run_group_tests(tests, trainer_setup, trainer_teardown);
}
