/* SPDX-License-Identifier: MIT */
/* What a run does with its options: length, parts, text, files, the held-out loss, refusals. */
#include <math.h>

#include "trainer_test.h"

/* Floats of a part that differ from a copy; the part must have some. */
static size_t changed(job *j, const float *before, int part)
{
    size_t first, last, n = 0;
    slr_network_part_range(j->net, part, &first, &last);
    assert_true(last > first);
    for (size_t i = first; i < last; i++)
        n += slr_network_params(j->net)[i] != before[i];
    return n;
}

/* --- length --- */

/* kohya's count: buckets of 120 and 80 in batches of 3 make 67 batches, 34 steps. */
static void steps_and_epochs_are_counted_as_kohya_does(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        char name[64];
        snprintf(name, sizeof name, "buckets/10_x/%02d.png", i);
        put_picture(in_scratch(name), i < 12 ? 128 : 64, i < 12 ? 128 : 256, (uint32_t)i);
    }
    const struct {
        const char *option, *value;
        int64_t total, epochs;
    } rows[] = {{"max_train_epochs", "10", 340, 10},
                {"max_train_steps", "340", 340, 10},
                {"max_train_steps", "341", 341, 11}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        job j = job_open(
            &(job_spec){.train = LIST(rows[i].option, rows[i].value),
                        .network = LIST("network_train_unet_only", "true"),
                        .data = LIST("train_data_dir", in_scratch("buckets"), "train_batch_size",
                                     "3", "resolution", "128", "enable_bucket", "true",
                                     "min_bucket_reso", "64", "max_bucket_reso", "256")});
        assert_int_equal(j.t->n_batches, 67);
        assert_int_equal(j.t->total, rows[i].total);
        assert_int_equal(j.t->epochs, rows[i].epochs);
        job_close(&j);
    }
}

/* Three batches and accumulation two: each epoch ends in a step of one batch. */
static void an_epoch_ends_in_a_short_step(void **state)
{
    (void)state;
    job j = job_open(&(job_spec){.train = LIST("max_train_epochs", "2")});
    for (int64_t step = 1; step <= 4; step++) {
        slr_progress p = job_run(&j, step);
        assert_int_equal(p.step, step);
        assert_int_equal(p.total, 4);
        assert_int_equal(p.epoch, (step + 1) / 2);
        assert_int_equal(j.t->run.index, step % 2 ? 2 : 0);
    }
    assert_int_equal(slr_trainer_step(j.t, NULL), SDLORA_DONE);
    job_close(&j);
}

/* --- parts --- */

static void a_rate_of_zero_leaves_the_part_alone(void **state)
{
    (void)state;
    job j = job_open(&(job_spec){.train = LIST("text_encoder_lr", "0")});
    float *before = params_copy(&j);
    job_run(&j, 2);
    assert_int_equal(changed(&j, before, SLR_PART_TE), 0);
    assert_true(changed(&j, before, SLR_PART_UNET) > 100);
    free(before);
    job_close(&j);

    j = job_open(&(job_spec){.train = LIST("unet_lr", "0")});
    before = params_copy(&j);
    job_run(&j, 2);
    assert_true(changed(&j, before, SLR_PART_TE) > 100);
    assert_int_equal(changed(&j, before, SLR_PART_UNET), 0);
    free(before);
    job_close(&j);
}

static void unet_only_has_no_text_part(void **state)
{
    (void)state;
    job j = job_open(&(job_spec){.network = LIST("network_train_unet_only", "true")});
    for (size_t i = 0; i < slr_network_slots(j.net); i++)
        assert_int_equal(slr_network_slot_at(j.net, i)->part, SLR_PART_UNET);
    float *before = params_copy(&j);
    slr_progress p = job_run(&j, 2);
    assert_true(changed(&j, before, SLR_PART_UNET) > 100);
    assert_true(p.text_encoder_lr == 0 && p.unet_lr == 1e-3);
    free(before);
    job_close(&j);
}

/* --- text --- */

/* Cached states and states from inside the graph are the same numbers by other roads: the first
 * loss agrees to f32's last bits in a sum of a few hundred squares. */
static double first_loss(const char *const *text, const char *te_lr)
{
    const char *train[12] = {"text_encoder_lr", te_lr};
    size_t n = 2;
    for (; *text; text++)
        train[n++] = *text;
    job j = job_open(
        &(job_spec){.train = train,
                    .data = LIST("caption_prefix",
                                 "cat, dog, bird, fish, tree, house, river, stone, cloud, grass, "
                                 "cat, dog, bird, fish, tree, house, river, stone, cloud, grass, "
                                 "cat, dog, bird, fish, tree, house, river, stone, cloud, grass, "
                                 "cat, dog, bird, fish, tree, house, river, stone, cloud, grass")});
    double loss = job_run(&j, 1).loss;
    assert_true(isfinite(loss));
    job_run(&j, 2);
    job_close(&j);
    return loss;
}

static void text_options_reach_both_roads(void **state)
{
    (void)state;
    const char *const *const rows[] = {
        LIST("clip_skip", "1"),
        LIST("clip_skip", "2"),
        LIST("max_token_length", "150"),
        LIST("max_token_length", "150", "clip_skip", "2"),
    };
    double seen[4];
    for (size_t i = 0; i < 4; i++) {
        seen[i] = first_loss(rows[i], "0");
        assert_true(fabs(first_loss(rows[i], "1e-4") / seen[i] - 1) < 1e-5);
        for (size_t k = 0; k < i; k++)
            assert_true(seen[i] != seen[k]);
    }
}

/* --- max norm --- */

/* || s up down ||_F from the product itself. */
static double norm_of(job *j, size_t slot)
{
    const slr_network_slot *down = slr_network_slot_at(j->net, slot), *up = down + 1;
    const float *p = slr_network_params(j->net);
    int64_t rank = slr_network_rank(j->net, down->module);
    int64_t width = (int64_t)down->count / rank, rows = (int64_t)up->count / rank;
    double sum = 0;
    for (int64_t o = 0; o < rows; o++)
        for (int64_t i = 0; i < width; i++) {
            double w = 0;
            for (int64_t r = 0; r < rank; r++)
                w += (double)p[up->offset + (size_t)(o * rank + r)] *
                     p[down->offset + (size_t)(r * width + i)];
            sum += w * w;
        }
    return slr_network_alpha(j->net, down->module) / (double)rank * sqrt(sum);
}

static void max_norm_holds(void **state)
{
    (void)state;
    job j = job_open(&(job_spec){.train = LIST("scale_weight_norms", "0.05", "unet_lr", "0.02")});
    job_run(&j, 3);
    int at_limit = 0;
    for (size_t i = 0; i < slr_network_slots(j.net); i += 2) {
        double norm = norm_of(&j, i);
        assert_true(norm <= 0.05 * (1 + 1e-5)); /* factors are rounded to f32 */
        at_limit += norm > 0.05 * (1 - 1e-5);
    }
    assert_true(at_limit > 5);
    job_close(&j);
}

/* --- held-out loss --- */

static void held_out_loss_is_that_of_eval(void **state)
{
    (void)state;
    double a, b, c;
    copy_pictures("openmoji-style/heldout/1_openmoji", 3, in_scratch("held/1_x"));
    slr_dataset *held = open_folder(in_scratch("held"), NULL);
    job j = job_open(&(job_spec){.validation = held}), plain = job_open(&(job_spec){0});
    slr_progress p = job_run(&j, 3); /* an epoch ended at step 2 */
    assert_true(isfinite(p.val_loss));
    assert_ok(slr_trainer_validate(j.t, &a));
    assert_ok(slr_trainer_validate(j.t, &b));
    assert_true(a == b);
    assert_true(a != p.val_loss); /* step 3 changed the network */

    /* looking does not change the run */
    job_run(&plain, 3);
    assert_string_equal(job_digest(&plain).text, job_digest(&j).text);
    assert_int_equal(slr_trainer_validate(plain.t, &c), SDLORA_EINVAL);

    slr_network *saved;
    const char *file = in_scratch("eval.safetensors");
    assert_ok(slr_trainer_save(j.t, file));
    assert_ok(slr_network_open(&saved, slr_checkpoint_mem(base), base, file));
    const slr_stack_item item = {saved, 1, 1, 0, {0}};
    const slr_trainer_config config = {.mem = slr_checkpoint_mem(base),
                                       .devices = devices,
                                       .base = base,
                                       .data = held,
                                       .bpe = bpe};
    assert_ok(slr_eval_loss(&b, &config, &item, 1, 0));
    assert_true(fabs(b / a - 1) < 1e-5); /* a stack folds alpha / rank into a factor */
    assert_ok(slr_eval_loss(&c, &config, NULL, 0, 0));
    assert_true(fabs(c / a - 1) > 1e-5);
    slr_network_unref(saved);
    job_close(&j);
    job_close(&plain);
    slr_dataset_unref(held);
}

/* A caption of more than 75 tokens, read whole by trainer and eval alike. */
static void long_captions_are_the_same_for_eval(void **state)
{
    (void)state;
    char caption[1200] = "";
    double loss[2], other;
    for (int i = 0; i < 100; i++)
        strcat(caption, i < 75 ? "cat " : "red dog ");
    put_picture(in_scratch("long/1_x/a.png"), 64, 64, 1);
    put_text(in_scratch("long/1_x/a.txt"), caption);
    slr_dataset *held = open_folder(in_scratch("long"), NULL);
    for (int i = 0; i < 2; i++) {
        const char *const tokens[] = {"max_token_length", i ? "225" : "75", NULL};
        sdlora_options *o = options_of("eval", tokens, NULL);
        const slr_trainer_config config = {.mem = slr_checkpoint_mem(base),
                                           .devices = devices,
                                           .base = base,
                                           .data = held,
                                           .bpe = bpe,
                                           .opts = o};
        job j = job_open(&(job_spec){.train = tokens, .validation = held});
        assert_ok(slr_trainer_validate(j.t, &loss[i])); /* a fresh network changes nothing */
        assert_ok(slr_eval_loss(&other, &config, NULL, 0, 0));
        assert_true(fabs(other / loss[i] - 1) < 1e-5); /* as above */
        job_close(&j);
        slr_options_unref(o);
    }
    assert_true(fabs(loss[0] / loss[1] - 1) > 1e-4);
    sdlora_options *o = options_of("eval", LIST("max_token_length", "100"), NULL);
    const slr_trainer_config config = {
        .mem = slr_checkpoint_mem(base), .devices = devices, .base = base, .data = held, .opts = o};
    assert_int_equal(slr_eval_loss(&other, &config, NULL, 0, 0), SDLORA_EINVAL);
    assert_says("max_token_length");
    slr_options_unref(o);
    slr_dataset_unref(held);
}

/* --- phases --- */

/* What was told, "save 0/2" and so on; cancels at the n-th. */
typedef struct told {
    char text[64][32];
    int n, cancel_at;
} told;

static int note(void *user, const char *phase, int64_t done, int64_t total)
{
    told *seen = user;
    assert_true(seen->n < 64);
    snprintf(seen->text[seen->n], sizeof seen->text[0], "%s %d/%d", phase, (int)done, (int)total);
    return ++seen->n == seen->cancel_at;
}

static void expect_told(told *seen, const char *const *want)
{
    int n = 0;
    for (; want[n]; n++)
        assert_string_equal(n < seen->n ? seen->text[n] : "nothing", want[n]);
    assert_int_equal(seen->n, n);
    *seen = (told){0};
}

static void saving_and_validating_are_told(void **state)
{
    (void)state;
    told seen = {0};
    slr_progress p;
    copy_pictures("openmoji-style/heldout/1_openmoji", 3, in_scratch("phases/1_x"));
    slr_dataset *held = open_folder(in_scratch("phases"), NULL);
    const char *dir = in_scratch("phases-out"), *file = in_scratch("phases-out/last.safetensors");
    job j = job_open(&(job_spec){.train = LIST("output_dir", dir, "max_train_steps", "3",
                                               "save_every_n_steps", "1", "save_state_on_train_end",
                                               "true", "max_validation_steps", "2"),
                                 .validation = held,
                                 .phase = note,
                                 .phase_user = &seen});
    expect_told(&seen, LIST("latents 1/5", "latents 2/5", "latents 3/5", "latents 4/5",
                            "latents 5/5", "latents 1/3", "latents 2/3", "latents 3/3"));
    assert_ok(slr_trainer_step(j.t, NULL));
    expect_told(&seen, LIST("save 0/1", "save 1/1"));
    assert_ok(slr_trainer_step(j.t, NULL)); /* the end of an epoch */
    expect_told(&seen,
                LIST("save 0/1", "save 1/1", "validate 0/2", "validate 1/2", "validate 2/2"));

    /* a cancel while saving: the step's files are there, and what is due is done next time */
    seen.cancel_at = 2;
    assert_int_equal(slr_trainer_step(j.t, NULL), SDLORA_ECANCELED);
    assert_says("after step 3");
    expect_told(&seen, LIST("save 0/3", "save 1/3", "save 2/3", "save 3/3"));
    assert_true(slr_file_exists(file));
    slr_trainer_now(j.t, &p);
    assert_int_equal(p.step, 3);
    seen.cancel_at = 6;
    assert_int_equal(slr_trainer_step(j.t, NULL), SDLORA_ECANCELED);
    assert_says("after 1 of 2 pictures");
    assert_int_equal(seen.n, 6);
    seen = (told){0};
    p = (slr_progress){0};
    assert_int_equal(slr_trainer_step(j.t, &p), SDLORA_DONE);
    expect_told(&seen, LIST("save 0/3", "save 1/3", "save 2/3", "save 3/3", "validate 0/2",
                            "validate 1/2", "validate 2/2"));
    assert_int_equal(p.step, 3); /* nobody was told of this step before */
    assert_int_equal(p.total, 3);
    assert_true(p.loss > 0 && p.val_loss > 0);
    job_close(&j);
    slr_dataset_unref(held);
}

/* --- files --- */

static void files_are_written_and_pruned(void **state)
{
    (void)state;
    static const char *const want[] = {"last-000002-state", "last-000002.safetensors",
                                       "last-000003-state", "last-000003.safetensors",
                                       "last-state",        "last.safetensors",
                                       "metrics.jsonl"};
    slr_list names;
    const char *dir = in_scratch("files");
    job j = job_open(
        &(job_spec){.train = LIST("output_dir", dir, "max_train_epochs", "4", "save_every_n_epochs",
                                  "1", "save_last_n_epochs", "2", "save_state", "true")});
    job_run(&j, 8);
    job_close(&j);
    assert_ok(slr_dir_list(&names, NULL, dir));
    assert_int_equal(names.n, sizeof want / sizeof *want); /* no last-000004: last is that */
    for (size_t i = 0; i < names.n; i++)
        assert_string_equal(names.item[i], want[i]);
    slr_list_free(&names);

    void *text;
    size_t n, lines = 0;
    assert_ok(slr_file_read(NULL, in_scratch("files/metrics.jsonl"), 1 << 20, &text, &n));
    for (size_t i = 0; i < n; i++)
        lines += ((char *)text)[i] == '\n';
    assert_int_equal(lines, 8);
    slr_free(NULL, text);
}

/* --- gradient checkpointing --- */

static void keep_line(int level, const char *text, void *user)
{
    (void)level;
    if (strstr(text, "gradient checkpointing"))
        snprintf(user, 256, "%s", text);
}

static void checkpointing_changes_memory_only(void **state)
{
    (void)state;
    digest d[2];
    uint64_t arena[2];
    char line[2][256] = {"", ""};
    for (int i = 0; i < 2; i++) {
        job j =
            job_open(&(job_spec){.train = LIST("gradient_checkpointing", i ? "true" : "false"),
                                 .network = LIST("network_dropout", "0.2", "rank_dropout", "0.2")});
        slr_plan_stats stats;
        slr_step *step;
        j.t->c.log = (slr_log){.fn = keep_line, .user = line[i], .level = SLR_LOG_INFO};
        job_run(&j, 3);
        assert_ok(slr_trainer_graph(j.t, 2, 8, 8, &step));
        slr_plan_get_stats(slr_step_plan(step), &stats);
        arena[i] = stats.arena_bytes;
        d[i] = job_digest(&j);
        job_close(&j);
    }
    assert_string_equal(d[0].text, d[1].text);
    assert_true(arena[1] < arena[0]);
    assert_string_equal(line[0], "");
    assert_non_null(strstr(line[1], "more arithmetic"));
}

/* --- graphs by shape --- */

static bool has_graph(const slr_trainer *t, int64_t w)
{
    for (int i = 0; i < SLR_MAX_GRAPHS; i++)
        if (t->graph[i].step && t->graph[i].w == w)
            return true;
    return false;
}

/* More shapes than are kept: the one not used for longest goes. */
static void graphs_are_bounded(void **state)
{
    (void)state;
    job j = job_open(&(job_spec){0});
    slr_step *first, *again, *other;
    assert_ok(slr_trainer_graph(j.t, 1, 8, 8, &first));
    for (int64_t i = 2; i <= SLR_MAX_GRAPHS + 3; i++) {
        assert_ok(slr_trainer_graph(j.t, 1, 8, 8 * i, &other));
        assert_ok(slr_trainer_graph(j.t, 1, 8, 8, &again));
        assert_ptr_equal(again, first);
    }
    for (int64_t i = 2; i <= 4; i++)
        assert_false(has_graph(j.t, 8 * i));
    for (int64_t i = 5; i <= SLR_MAX_GRAPHS + 3; i++)
        assert_true(has_graph(j.t, 8 * i));
    job_close(&j);
}

/* --- precision --- */

/* Losses of three steps; the words that end up in the metadata come back in *said. */
static void losses_in(const char *precision, double loss[3], char said[16])
{
    job j = job_open(&(job_spec){.train = LIST("mixed_precision", precision, "max_train_steps", "3",
                                               "learning_rate", "1e-3")});
    slr_progress p;
    for (int i = 0; i < 3; i++) {
        assert_ok(slr_trainer_step(j.t, &p));
        loss[i] = p.loss;
    }
    snprintf(said, 16, "%s", slr_opt_text(j.t->o, "mixed_precision"));
    job_close(&j);
}

/* bf16 has 8 bits, so the first loss moves by some 1e-3.  AdamW's first steps are the gradient's
 * sign, which turns rounding near zero into whole steps: later losses move by up to 1e-2 (seen:
 * 5e-3), but not by more, and all of them do move. */
static void bf16_trains_like_f32(void **state)
{
    (void)state;
    double f32[3], bf16[3], unsaid[3];
    char said[16];
    losses_in("no", f32, said);
    assert_string_equal(said, "no");
    losses_in("auto", unsaid, said); /* the built-in backend is not fast at bf16 */
    assert_string_equal(said, "no");
    losses_in("bf16", bf16, said);
    assert_string_equal(said, "bf16");
    for (int i = 0; i < 3; i++) {
        assert_true(unsaid[i] == f32[i]);
        if (fabs(bf16[i] / f32[i] - 1) > (i ? 2e-2 : 3e-3) || bf16[i] == f32[i])
            fail_msg("step %d: %.6f in bf16, %.6f in f32", i, bf16[i], f32[i]);
    }
}

/* --- refusals --- */

static void what_is_not_there_is_refused(void **state)
{
    (void)state;
    const struct {
        const char *option, *value;
        int code;
    } rows[] = {
        {"mixed_precision", "fp16", SDLORA_ENOTSUP},
        {"lr_scheduler", "inverse_sqrt", SDLORA_ENOTSUP},
        {"optimizer_type", "Lion", SDLORA_ENOTSUP},
        {"weighted_captions", "true", SDLORA_ENOTSUP},
        {"validation_split", "0.1", SDLORA_ENOTSUP},
        {"max_token_length", "100", SDLORA_EINVAL},
        {"lr_warmup_steps", "5", SDLORA_EINVAL}, /* with constant */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        job j;
        int rc = job_try(&j, &(job_spec){.train = LIST(rows[i].option, rows[i].value)});
        if (rc != rows[i].code)
            fail_msg("%s: %d, not %d", rows[i].option, rc, rows[i].code);
        if (strcmp(rows[i].option, "optimizer_type"))
            assert_says(rows[i].option);
        else
            assert_says("Lion");
        job_close(&j);
    }
    job j;
    assert_int_equal(
        job_try(&j, &(job_spec){.train = LIST("unet_lr", "0", "text_encoder_lr", "0")}),
        SDLORA_EINVAL);
    assert_says("nothing is left to train");
    job_close(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_and_epochs_are_counted_as_kohya_does),
        cmocka_unit_test(an_epoch_ends_in_a_short_step),
        cmocka_unit_test(a_rate_of_zero_leaves_the_part_alone),
        cmocka_unit_test(unet_only_has_no_text_part),
        cmocka_unit_test(text_options_reach_both_roads),
        cmocka_unit_test(max_norm_holds),
        cmocka_unit_test(checkpointing_changes_memory_only),
        cmocka_unit_test(graphs_are_bounded),
        cmocka_unit_test(held_out_loss_is_that_of_eval),
        cmocka_unit_test(long_captions_are_the_same_for_eval),
        cmocka_unit_test(saving_and_validating_are_told),
        cmocka_unit_test(files_are_written_and_pruned),
        cmocka_unit_test(bf16_trains_like_f32),
        cmocka_unit_test(what_is_not_there_is_refused),
    };
    return cmocka_run_group_tests(tests, trainer_setup, trainer_teardown);
}
