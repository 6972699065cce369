/* SPDX-License-Identifier: MIT */
/* Forecasts against the run that follows: steps, batches and files as the trainer counts them, sums
 * of the parts, a network and a folder that stay as they are.  Seconds are measured and so are not
 * judged here. */
#include <math.h>

#include "trainer_test.h"

#include "train/forecast.h"

/* What the allocator says of a run on the side of the forecast: blocks of less than a graph's lists
 * come and go between. */
#define TOL_MEMORY 0.05

typedef struct outlook {
    slr_network *net;
    slr_dataset *data;
    slr_forecast f;
} outlook;

static slr_mem *mem;

static slr_trainer_config config_of(const outlook *o, const sdlora_options *train,
                                    const job_spec *s)
{
    return (slr_trainer_config){.mem = mem,
                                .devices = devices,
                                .base = base,
                                .network = o->net,
                                .data = o->data,
                                .validation = s->validation,
                                .bpe = bpe,
                                .opts = train,
                                .phase = s->phase,
                                .phase_user = s->phase_user};
}

static sdlora_options *train_options(const job_spec *s)
{
    return options_of("train",
                      LIST("unet_lr", "1e-3", "text_encoder_lr", "5e-4", "seed", "3",
                           "max_train_steps", "12", "gradient_accumulation_steps", "2"),
                      s->train);
}

static int look(outlook *o, const job_spec *s, const slr_forecast_picture *pictures, size_t n)
{
    sdlora_options *train = train_options(s);
    sdlora_options *network = options_of("network", LIST("network_dim", "2"), s->network);
    *o = (outlook){.data = open_folder(pictures_dir(), s->data)};
    assert_ok(slr_network_make(&o->net, base, network, 3));
    const slr_trainer_config config = config_of(o, train, s);
    int rc = slr_forecast_make(&o->f, &config, pictures, n);
    slr_options_unref(train);
    slr_options_unref(network);
    return rc;
}

static void leave(outlook *o)
{
    slr_forecast_clear(&o->f, mem);
    slr_network_unref(o->net);
    slr_dataset_unref(o->data);
}

/* --- counts --- */

static void steps_and_batches_are_the_trainers(void **state)
{
    (void)state;
    const char *const *const rows[] = {
        LIST("max_train_steps", "12"),
        LIST("max_train_steps", "5"),
        LIST("max_train_epochs", "3"),
        LIST("max_train_epochs", "2", "gradient_accumulation_steps", "1"),
        LIST("max_train_steps", "7", "gradient_accumulation_steps", "3"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        outlook o;
        int64_t batches = 0;
        job_spec s = {.train = rows[i]};
        assert_ok(look(&o, &s, NULL, 0));
        job j = job_open(&s);
        assert_int_equal(o.f.steps, j.t->total);
        assert_int_equal(o.f.epochs, j.t->epochs);
        assert_int_equal(o.f.batches_per_epoch, j.t->n_batches);
        job_run(&j, j.t->total);
        batches = j.t->run.epoch * j.t->n_batches + j.t->run.index;
        assert_int_equal(o.f.batches, batches);
        job_close(&j);
        batches = 0;
        for (size_t k = 0; k < o.f.n_shapes; k++)
            batches += o.f.shapes[k].batches;
        assert_int_equal(batches, o.f.batches_per_epoch);
        leave(&o);
    }
}

static void shapes_are_those_of_the_buckets(void **state)
{
    (void)state;
    for (int i = 0; i < 7; i++) {
        char name[64];
        snprintf(name, sizeof name, "buckets/2_x/%02d.png", i);
        put_picture(in_scratch(name), i < 4 ? 128 : 64, i < 4 ? 128 : 256, (uint32_t)i);
    }
    outlook o;
    assert_ok(
        look(&o,
             &(job_spec){.network = LIST("network_train_unet_only", "true"),
                         .data = LIST("train_data_dir", in_scratch("buckets"), "train_batch_size",
                                      "4", "resolution", "128", "enable_bucket", "true",
                                      "min_bucket_reso", "64", "max_bucket_reso", "256")},
             NULL, 0));
    int64_t seen[2] = {0}, rest = 0;
    for (size_t i = 0; i < o.f.n_shapes; i++) {
        const slr_forecast_shape *s = &o.f.shapes[i];
        seen[s->width == 128] += s->n * s->batches;
        rest += s->n == 2 ? s->batches : 0;
        assert_true(s->flops > 0 && s->seconds > 0);
    }
    assert_int_equal(o.f.n_shapes, 3); /* 8 of 128x128; 6 of 64x256 are 4 and 2 */
    assert_int_equal(seen[1], 8);
    assert_int_equal(seen[0], 6);
    assert_int_equal(rest, 1);
    assert_int_equal(o.f.encoded, 7);
    leave(&o);
}

/* --- sums --- */

static void parts_add_up(void **state)
{
    (void)state;
    outlook o;
    slr_dataset *held_out = open_folder(pictures_dir(), NULL);
    const slr_forecast_picture picture = {64, 64, 3, true};
    assert_ok(look(&o,
                   &(job_spec){.train = LIST("sample_every_n_epochs", "2"), .validation = held_out},
                   &picture, 1));
    const slr_forecast_seconds *s = &o.f.seconds;
    const slr_forecast_memory *m = &o.f.memory;
    double sum = s->load + s->encode + s->text + s->steps + s->optimizer + s->validation +
                 s->samples + s->save;
    assert_true(fabs(sum - s->total) < 1e-9 * sum);
    assert_true(s->steps > 0 && s->encode > 0 && s->validation > 0 && s->samples > 0);
    assert_true(fabs(s->step * (double)o.f.steps - s->steps - s->optimizer) < 1e-9 * sum);
    uint64_t after = m->packed + m->graphs + m->workspace + m->optimizer + m->text + m->latents +
                     m->validation + m->samples;
    assert_true(m->peak >= m->process + m->handles + after);
    assert_int_equal(m->network, slr_network_param_count(o.net) * sizeof(float));
    assert_int_equal(m->optimizer, 4 * m->network);
    assert_int_equal(m->latents, 5 * 8 * 8 * 4 * sizeof(float));
    assert_int_equal(o.f.validations, 6); /* epochs of two steps */
    assert_int_equal(o.f.samples, 3);
    leave(&o);
    slr_dataset_unref(held_out);
}

/* The run itself, counted by the same allocator. */
static void memory_is_that_of_the_run(void **state)
{
    (void)state;
    const char *const *const rows[] = {LIST("text_encoder_lr", "5e-4"),
                                       LIST("text_encoder_lr", "0")};
    for (size_t i = 0; i < 2; i++) {
        outlook o;
        slr_trainer *t;
        job_spec s = {.train = rows[i]};
        assert_ok(look(&o, &s, NULL, 0));
        const slr_forecast_memory *m = &o.f.memory;
        double want =
            (double)(m->packed + m->graphs + m->workspace + m->optimizer + m->text + m->latents);
        sdlora_options *train = train_options(&s);
        const slr_trainer_config config = config_of(&o, train, &s);
        uint64_t before = slr_mem_used(mem);
        assert_ok(slr_trainer_new(&t, &config));
        for (int k = 0; k < 6; k++)
            assert_ok(slr_trainer_step(t, NULL));
        double took = (double)(slr_mem_used(mem) - before);
        if (!(fabs(took / want - 1) < TOL_MEMORY))
            fail_msg("row %zu: the run took %.0f bytes, not %.0f", i, took, want);
        slr_trainer_free(t);
        slr_options_unref(train);
        leave(&o);
    }
}

/* --- files --- */

static void files_are_counted(void **state)
{
    (void)state;
    outlook o;
    slr_trainer *t;
    job_spec s = {.train = LIST("output_dir", in_scratch("counted"), "save_every_n_epochs", "1",
                                "save_last_n_epochs", "2", "save_every_n_steps", "4", "save_state",
                                "true")};
    assert_ok(look(&o, &s, NULL, 0));
    assert_false(slr_dir_exists(in_scratch("counted")));
    const slr_forecast_file *network = &o.f.file[SLR_FORECAST_NETWORK];
    const slr_forecast_file *file = &o.f.file[SLR_FORECAST_STATE];
    assert_int_equal(network->written, 9); /* steps 4, 8, 12; epochs 1 to 5; the last */
    assert_int_equal(network->kept, 6);    /* epochs 1 to 3 are removed */
    assert_int_equal(file->written, 9);
    assert_int_equal(file->kept, 6);

    sdlora_options *train = train_options(&s);
    const slr_trainer_config config = config_of(&o, train, &s);
    assert_ok(slr_trainer_new(&t, &config));
    while (slr_trainer_step(t, NULL) == SDLORA_OK)
        ;
    uint64_t size;
    const char *const last[] = {"counted/last.safetensors", "counted/last-state/" SLR_STATE_FILE};
    const slr_forecast_file *const sorts[] = {network, file};
    for (int i = 0; i < 2; i++) { /* numbers in the metadata are shorter or longer */
        assert_ok(slr_file_size(in_scratch(last[i]), &size));
        double share = (double)sorts[i]->bytes / (double)size;
        if (!(fabs(share - 1) < 0.02))
            fail_msg("%s: %llu bytes, not %llu", last[i], (unsigned long long)size,
                     (unsigned long long)sorts[i]->bytes);
    }
    const char *const gone[] = {"counted/last-000003.safetensors", "counted/last-000003-state"};
    const char *const there[] = {"counted/last-000004.safetensors",
                                 "counted/last-step00000004.safetensors"};
    for (int i = 0; i < 2; i++) {
        assert_false(slr_file_exists(in_scratch(gone[i])) || slr_dir_exists(in_scratch(gone[i])));
        assert_true(slr_file_exists(in_scratch(there[i])));
    }
    slr_trainer_free(t);
    slr_options_unref(train);
    leave(&o);
}

static void nothing_is_changed(void **state)
{
    (void)state;
    const char *const *const rows[] = {LIST("scale_weight_norms", "1e-3", "max_grad_norm", "1"),
                                       LIST("text_encoder_lr", "0")};
    for (size_t i = 0; i < 2; i++) {
        outlook o;
        job_spec s = {.train = rows[i], .data = LIST("cache_latents_to_disk", "true")};
        assert_ok(look(&o, &s, NULL, 0));
        assert_true(o.f.file[SLR_FORECAST_CACHE].written == 5);
        slr_network *fresh;
        sdlora_options *network = options_of("network", LIST("network_dim", "2"), NULL);
        assert_ok(slr_network_make(&fresh, base, network, 3));
        assert_memory_equal(slr_network_params(o.net), slr_network_params(fresh),
                            slr_network_param_count(fresh) * sizeof(float));
        assert_int_equal(slr_network_version(o.net), slr_network_version(fresh));
        slr_network_unref(fresh);
        slr_options_unref(network);
        leave(&o);
    }
    slr_list list;
    assert_ok(slr_dir_list(&list, NULL, in_scratch("cats/1_cat")));
    assert_int_equal(list.n, 10); /* five pictures, five captions, no latents */
    slr_list_free(&list);
}

static int cancel(void *user, const char *phase, int64_t done, int64_t total)
{
    (void)total;
    assert_string_equal(phase, "plan");
    return done == *(int64_t *)user;
}

static void refusals_and_cancels_leave_nothing(void **state)
{
    (void)state;
    outlook o;
    uint64_t before = slr_mem_used(mem);
    assert_int_equal(look(&o, &(job_spec){.train = LIST("optimizer_type", "Lion")}, NULL, 0),
                     SDLORA_ENOTSUP);
    leave(&o);
    for (int64_t at = 0; at < 5; at++) {
        assert_int_equal(look(&o, &(job_spec){.phase = cancel, .phase_user = &at}, NULL, 0),
                         SDLORA_ECANCELED);
        leave(&o);
    }
    assert_int_equal(slr_mem_used(mem), before);
}

static int setup(void **state)
{
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    if (trainer_setup(state) || slr_mem_new(&mem, NULL, 0) < 0)
        return -1;
    slr_devices_unref(devices); /* ones whose memory is counted */
    slr_devices_config counted = config;
    counted.mem = mem;
    return slr_devices_open(&devices, &counted);
}

static int teardown(void **state)
{
    int rc = trainer_teardown(state);
    slr_mem_unref(mem);
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_and_batches_are_the_trainers),
        cmocka_unit_test(shapes_are_those_of_the_buckets),
        cmocka_unit_test(parts_add_up),
        cmocka_unit_test(memory_is_that_of_the_run),
        cmocka_unit_test(files_are_counted),
        cmocka_unit_test(nothing_is_changed),
        cmocka_unit_test(refusals_and_cancels_leave_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
