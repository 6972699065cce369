/* SPDX-License-Identifier: MIT */
/* The training loop on models of other families: two text encoders with a rate each, sizes,
 * captions encoded beforehand, what is told about the model, and what is refused. */
#include "trainer_test.h"

#include <math.h>

#include "train/forecast.h"

static slr_checkpoint *xl, *two;

static slr_checkpoint *made(const char *arch)
{
    const slr_checkpoint_config config = {.predict = -1};
    slr_checkpoint *c;
    assert_ok(slr_checkpoint_synthetic(&c, arch, SDLORA_F32, 0, &config));
    return c;
}

static int setup(void **state)
{
    if (trainer_setup(state))
        return -1;
    slr_checkpoint_unref(base);
    xl = made("tiny-sdxl");
    two = made("tiny-sd2");
    base = slr_checkpoint_ref(xl);
    return 0;
}

static int teardown(void **state)
{
    slr_checkpoint_unref(xl);
    slr_checkpoint_unref(two);
    return trainer_teardown(state);
}

/* Jobs that follow are on this model. */
static void use(slr_checkpoint *c)
{
    slr_checkpoint_unref(base);
    base = slr_checkpoint_ref(c);
}

static bool slot_changed(const slr_network *net, const slr_network_slot *s, const float *before)
{
    return memcmp(slr_network_params((slr_network *)(uintptr_t)net) + s->offset, before + s->offset,
                  s->count * sizeof(float)) != 0;
}

/* --- parts --- */

static void two_encoders_have_a_rate_each(void **state)
{
    (void)state;
    static const struct {
        const char *rates, *spelt;
        double te, te2;
    } rows[] = {{"5e-4", "0.0005", 5e-4, 5e-4},
                {"5e-4 0", "0.0005\n0.0", 5e-4, 0},
                {"0,1e-3", "0.0\n0.001", 0, 1e-3}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        job j = job_open(&(job_spec){.train = LIST("text_encoder_lr", rows[r].rates)});
        float *before = params_copy(&j);
        size_t changed[SLR_PART_COUNT] = {0}, all[SLR_PART_COUNT] = {0};
        assert_string_equal(slr_opt_text(j.t->o, "text_encoder_lr"), rows[r].spelt);
        slr_progress now = job_run(&j, 3);
        assert_true(now.text_encoder_lr == rows[r].te && now.text_encoder_2_lr == rows[r].te2);
        for (size_t i = 0; i < slr_network_slots(j.net); i++) {
            const slr_network_slot *s = slr_network_slot_at(j.net, i);
            bool is = slot_changed(j.net, s, before);
            /* states are the second last layer's, and the second encoder's last one serves the
             * pooled state: what no state needs is not touched, nor decayed */
            if (s->part == SLR_PART_TE && strstr(s->key, "layers_2_"))
                assert_false(is);
            changed[s->part] += is;
            all[s->part]++;
        }
        assert_int_equal(changed[SLR_PART_UNET], all[SLR_PART_UNET]);
        assert_int_equal(changed[SLR_PART_TE], rows[r].te > 0 ? all[SLR_PART_TE] / 3 * 2 : 0);
        assert_int_equal(changed[SLR_PART_TE2], rows[r].te2 > 0 ? all[SLR_PART_TE2] : 0);
        free(before);
        job_close(&j);
    }
}

static void rates_are_read_with_care(void **state)
{
    (void)state;
    static const char *const bad[] = {"1e-4 1e-4 1e-4", "fast", "-1", "nan", "1e-4,1e7"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        job j;
        assert_int_equal(job_try(&j, &(job_spec){.train = LIST("text_encoder_lr", bad[i])}),
                         SDLORA_EINVAL);
        assert_says("text_encoder_lr ");
        job_close(&j);
    }
}

/* --- what conditions the UNet --- */

static void sizes_are_those_of_the_picture(void **state)
{
    (void)state;
    job j = job_open(&(job_spec){.data = LIST("resolution", "64,96", "flip_aug", "true")});
    const slr_batch *b;
    slr_step *step;
    double loss;
    bool flipped = false, straight = false;
    for (int64_t i = 0; i < 9; i++) {
        float want[SLR_SAMPLE_SIZES], mirrored[SLR_SAMPLE_SIZES], wave[SLR_SIZE_WIDTH];
        assert_ok(slr_loader_get(j.t->loader, i / 3, i % 3, 0, &b));
        assert_ok(slr_trainer_batch(j.t, b, &loss));
        assert_ok(slr_trainer_graph(j.t, b->n, b->lh, b->lw, &step));
        for (int64_t k = 0; k < b->n; k++) {
            const slr_item *item = slr_dataset_item(j.data, b->items[k]);
            const slr_bucket *of = slr_dataset_bucket(j.data, item->bucket);
            const float *got = b->sizes + k * SLR_SAMPLE_SIZES;
            slr_sample_sizes(item->width, item->height, of, false, want);
            slr_sample_sizes(item->width, item->height, of, true, mirrored);
            assert_int_equal((int)got[0], item->height);
            assert_int_equal((int)got[1], item->width);
            assert_int_equal((int)got[4], 96);
            assert_int_equal((int)got[5], 64);
            straight = straight || !memcmp(got, want, sizeof want);
            flipped = flipped || !memcmp(got, mirrored, sizeof want);
            assert_true(!memcmp(got, want, sizeof want) || !memcmp(got, mirrored, sizeof want));
            for (int s = 0; s < SLR_SAMPLE_SIZES; s++) {
                slr_text_sizes(&got[s], 1, wave);
                assert_memory_equal(slr_step_io_of(step)->sizes +
                                        (k * SLR_SAMPLE_SIZES + s) * SLR_SIZE_WIDTH,
                                    wave, sizeof wave);
            }
        }
    }
    assert_true(straight && flipped);
    job_close(&j);
}

/* The same states by both roads: the loss agrees to f32's last bits. */
static void states_come_by_two_roads(void **state)
{
    (void)state;
    slr_checkpoint *const models[] = {xl, two};
    const char *const *const rows[] = {LIST("unet_lr", "1e-3"), LIST("max_token_length", "225")};
    for (size_t m = 0; m < 2; m++)
        for (size_t r = 0; r < 2; r++) {
            double loss[2];
            use(models[m]);
            for (int k = 0; k < 2; k++) {
                job j = job_open(&(job_spec){
                    .train = LIST(rows[r][0], rows[r][1], "text_encoder_lr", k ? "1e-4" : "0")});
                loss[k] = job_run(&j, 1).loss;
                job_close(&j);
            }
            if (!(fabs(loss[0] / loss[1] - 1) < 1e-6))
                fail_msg("model %zu, row %zu: %.9g and %.9g", m, r, loss[0], loss[1]);
        }
    use(xl);
}

/* --- captions encoded beforehand --- */

static size_t text_files(void)
{
    slr_list list;
    size_t n = 0;
    assert_ok(slr_dir_list(&list, NULL, in_scratch("cats/1_cat")));
    for (size_t i = 0; i < list.n; i++)
        n += strstr(list.item[i], ".text-") != NULL;
    slr_list_free(&list);
    return n;
}

static void remove_text_files(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -f '%s'/cats/1_cat/*.text-*", scratch_dir);
    assert_int_equal(system(command), 0);
}

static digest trained(const char *const *train, const char *const *data, slr_dataset *held_out)
{
    const char *all[12] = {"text_encoder_lr", "0"};
    size_t n = 2;
    for (; *train; train++)
        all[n++] = *train;
    job j = job_open(&(job_spec){.train = all, .data = data, .validation = held_out});
    job_run(&j, 3);
    digest d = job_digest(&j);
    if (held_out)
        assert_true(isfinite(j.t->run.val_loss));
    assert_true(!j.t->cache_text || !j.t->val_text);
    job_close(&j);
    return d;
}

static void captions_are_encoded_once(void **state)
{
    (void)state;
    const char *const *data = LIST("caption_dropout_rate", "0.3", "caption_prefix", "a drawing of");
    slr_dataset *held_out = open_folder(pictures_dir(), NULL);
    digest plain = trained(LIST("max_token_length", "150"), data, held_out);
    digest cached = trained(LIST("max_token_length", "150", "cache_text_encoder_outputs", "true"),
                            data, held_out);
    assert_string_equal(plain.text, cached.text);
    assert_int_equal(text_files(), 0);
    const char *const *disk =
        LIST("max_token_length", "150", "cache_text_encoder_outputs_to_disk", "true");
    for (int i = 0; i < 2; i++) { /* written, then read */
        cached = trained(disk, data, NULL);
        assert_string_equal(plain.text, cached.text);
        assert_int_equal(text_files(), 5);
    }
    /* files of other words are not used, but made anew */
    assert_string_equal(trained(disk, NULL, NULL).text,
                        trained(LIST("max_token_length", "150"), NULL, NULL).text);
    remove_text_files();
    slr_dataset_unref(held_out);
}

static void damaged_states_are_made_anew(void **state)
{
    (void)state;
    const char *const *disk = LIST("cache_text_encoder_outputs_to_disk", "true");
    char command[256];
    digest first = trained(disk, NULL, NULL);
    snprintf(command, sizeof command,
             "for f in '%s'/cats/1_cat/*.text-*; do printf x | dd of=\"$f\" bs=1 seek=3000 "
             "conv=notrunc 2>/dev/null; done",
             scratch_dir);
    assert_int_equal(system(command), 0);
    digest second = trained(disk, NULL, NULL);
    assert_string_equal(first.text, second.text);
    remove_text_files();
}

static void others_are_not_known_then(void **state)
{
    (void)state;
    slr_caption_states s;
    job j = job_open(
        &(job_spec){.train = LIST("text_encoder_lr", "0", "cache_text_encoder_outputs", "true")});
    assert_int_equal(slr_captions_get(j.t->text, "never seen", NULL, &s), SDLORA_EINVAL);
    assert_says("'never seen' is not among those that were encoded before training");
    job_close(&j);
}

/* What a network with encoder modules that are not trained does, as another start may give them. */
static void change_encoders(job *j)
{
    for (size_t i = 0; i < slr_network_slots(j->net); i++) {
        const slr_network_slot *s = slr_network_slot_at(j->net, i);
        for (size_t k = 0; s->part != SLR_PART_UNET && k < s->count; k++)
            slr_network_params(j->net)[s->offset + k] += 0.5F;
    }
    slr_network_touch(j->net);
}

static void a_state_brings_other_encoders(void **state)
{
    (void)state;
    static const char *const caches[] = {"cache_text_encoder_outputs",
                                         "cache_text_encoder_outputs_to_disk"};
    char dir[512]; /* in_scratch() lends eight names only */
    snprintf(dir, sizeof dir, "%s", in_scratch("other-encoders"));
    job j = job_open(&(job_spec){.train = LIST("text_encoder_lr", "0")});
    change_encoders(&j);
    job_run(&j, 3);
    digest plain = job_digest(&j);
    job_close(&j);
    for (size_t i = 0; i < 2; i++) {
        const char *const *frozen = LIST("text_encoder_lr", "0", caches[i], "true");
        j = job_open(&(job_spec){.train = frozen});
        change_encoders(&j); /* of the state alone: its captions are encoded */
        assert_ok(slr_trainer_save_state(j.t, dir));
        job_close(&j);

        j = job_open(&(job_spec){.train = frozen});
        assert_ok(slr_trainer_resume(j.t, dir));
        job_run(&j, 3);
        assert_string_equal(job_digest(&j).text, plain.text);
        job_close(&j);
        remove_text_files();

        j = job_open(
            &(job_spec){.train = LIST("text_encoder_lr", "0", caches[i], "true", "resume", dir)});
        job_run(&j, 3);
        assert_string_equal(job_digest(&j).text, plain.text);
        job_close(&j);
        remove_text_files();
    }
}

/* --- refusals --- */

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    const struct {
        slr_checkpoint *model;
        int code;
        const char *says;
        job_spec spec;
    } rows[] = {
        {xl,
         SDLORA_EINVAL,
         "but it is trained: give network_train_unet_only",
         {.train = LIST("cache_text_encoder_outputs", "true")}},
        {xl,
         SDLORA_EINVAL,
         "does not go with shuffle_caption",
         {.train = LIST("cache_text_encoder_outputs", "true", "text_encoder_lr", "0"),
          .data = LIST("shuffle_caption", "true")}},
        {xl,
         SDLORA_EINVAL,
         "does not go with caption_tag_dropout_rate",
         {.train = LIST("cache_text_encoder_outputs_to_disk", "true", "text_encoder_lr", "0"),
          .data = LIST("caption_tag_dropout_rate", "0.1")}},
        {xl, SDLORA_EINVAL, "v2 has to be false", {.train = LIST("v2", "true")}},
        {two, SDLORA_EINVAL, "v2 has to be true", {.train = LIST("v2", "false")}},
        {two,
         SDLORA_EINVAL,
         "the model predicts v",
         {.train = LIST("v_parameterization", "false")}},
        {xl,
         SDLORA_EINVAL,
         "samples of 48x48 pixels: both sides must be multiples of 32",
         {.data = LIST("resolution", "48")}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        job j;
        use(rows[i].model);
        assert_int_equal(job_try(&j, &rows[i].spec), rows[i].code);
        assert_says(rows[i].says);
        job_close(&j);
    }
    use(xl);
}

/* --- files --- */

static const char *const facts_xl[] = {"ss_v2",
                                       "False",
                                       "ss_base_model_version",
                                       "sdxl_base_v1-0",
                                       "modelspec.architecture",
                                       "stable-diffusion-xl-v1-base/lora",
                                       "modelspec.implementation",
                                       "https://github.com/Stability-AI/generative-models",
                                       "modelspec.prediction_type",
                                       "epsilon",
                                       "ss_text_encoder_lr",
                                       "[0.0005, 0.0001]",
                                       NULL};
static const char *const facts_two[] = {"ss_v2",
                                        "True",
                                        "ss_base_model_version",
                                        "sd_v2_v",
                                        "modelspec.architecture",
                                        "stable-diffusion-v2-768-v/lora",
                                        "modelspec.implementation",
                                        "diffusers",
                                        "modelspec.prediction_type",
                                        "v",
                                        "ss_text_encoder_lr",
                                        "[0.0005, 0.0001]",
                                        NULL};
static const char *const names_xl[] = {
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
    "lora_te2_text_model_encoder_layers_2_self_attn_k_proj.lora_up.weight",
    "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k.alpha",
    "lora_unet_middle_block_1_transformer_blocks_1_ff_net_0_proj.lora_down.weight", NULL};
static const char *const names_two[] = {
    "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2.lora_up.weight", NULL};

static void files_say_what_they_are_for(void **state)
{
    (void)state;
    slr_checkpoint *const models[] = {xl, two};
    const char *const *const facts[] = {facts_xl, facts_two}, *const *const names[] = {names_xl,
                                                                                       names_two};
    for (size_t m = 0; m < 2; m++) {
        slr_safetensors *f;
        slr_tensor t;
        use(models[m]);
        job j = job_open(&(job_spec){.train = LIST("text_encoder_lr", "5e-4\n1e-4")});
        const char *path = in_scratch("facts.safetensors");
        assert_ok(slr_trainer_save(j.t, path));
        assert_ok(slr_safetensors_open(&f, NULL, path, true));
        for (const char *const *p = facts[m]; *p; p += 2) {
            const char *got = slr_safetensors_meta(f, p[0]);
            assert_string_equal(got ? got : "(absent)", p[1]);
        }
        for (const char *const *p = names[m]; *p; p++)
            if (!slr_safetensors_find(f, *p, &t))
                fail_msg("the file has no %s", *p);
        slr_safetensors_close(f);
        job_close(&j);
    }
    use(xl);
}

static void a_run_goes_on_where_it_was(void **state)
{
    (void)state;
    job j = job_open(&(job_spec){0});
    job_run(&j, 6);
    digest whole = job_digest(&j);
    job_close(&j);
    j = job_open(&(job_spec){0});
    job_run(&j, 2);
    assert_ok(slr_trainer_save_state(j.t, in_scratch("half-state")));
    job_close(&j);
    j = job_open(&(job_spec){.train = LIST("resume", in_scratch("half-state"))});
    job_run(&j, 6);
    digest both = job_digest(&j);
    assert_string_equal(whole.text, both.text);
    job_close(&j);
}

/* AdamW's first step is the rate where there is a gradient at all; decay alone is a hundredth of it
 * at most. */
static void check_rows_learn(const job *j, const float *before, double rate)
{
    for (size_t i = 0; i < slr_network_slots(j->net); i++) {
        const slr_network_slot *s = slr_network_slot_at(j->net, i);
        const float *now = slr_network_params(j->net) + s->offset, *then = before + s->offset;
        for (int64_t row = 0; row < s->dim[0]; row++) {
            double peak = 0;
            for (int64_t k = row * s->dim[1]; k < (row + 1) * s->dim[1]; k++)
                peak = fmax(peak, fabs((double)now[k] - then[k]));
            if (peak < rate / 2)
                fail_msg("%s: row %d moved by %.3g", s->key, (int)row, peak);
        }
    }
}

/* Textual inversion: rows for every text encoder, which begin as init_word's and all move, also
 * when the run is cut in two; what is saved is for this model. */
static void embeddings_are_trained(void **state)
{
    (void)state;
    static const char table[] = "text_model.embeddings.token_embedding.weight";
    const int64_t cat = 2368;
    slr_checkpoint *const models[] = {xl, two};
    const char *const *word =
        LIST("token_string", "newword", "num_vectors_per_token", "2", "init_word", "cat");
    const job_spec spec = {.train = LIST("use_object_template", "true"), .network = word};
    for (size_t m = 0; m < 2; m++) {
        slr_network *again;
        const char *path = in_scratch("word.safetensors");
        use(models[m]);
        job j = job_open(&spec);
        assert_int_equal(slr_network_slots(j.net), m ? 1 : 2);
        float *before = params_copy(&j);
        for (size_t i = 0; i < slr_network_slots(j.net); i++) {
            const slr_network_slot *s = slr_network_slot_at(j.net, i);
            const slr_tensor *t;
            assert_ok(slr_weights_get(slr_checkpoint_part(base, s->part), table, &t));
            for (int row = 0; row < 2; row++)
                assert_memory_equal(before + s->offset + row * s->dim[1],
                                    (const float *)t->data + cat * s->dim[1],
                                    (size_t)s->dim[1] * sizeof(float));
        }
        assert_true(isfinite(job_run(&j, 4).loss));
        check_rows_learn(&j, before, 5e-4);
        float *whole = params_copy(&j);
        assert_ok(slr_trainer_save(j.t, path));
        assert_ok(slr_network_open(&again, slr_checkpoint_mem(base), base, path));
        assert_int_equal(slr_network_slots(again), slr_network_slots(j.net));
        slr_network_unref(again);
        free(before);
        job_close(&j);

        j = job_open(&spec);
        job_run(&j, 2);
        assert_ok(slr_trainer_save_state(j.t, in_scratch("word-state")));
        job_close(&j);
        j = job_open(&(job_spec){
            .train = LIST("use_object_template", "true", "resume", in_scratch("word-state")),
            .network = word});
        job_run(&j, 4);
        assert_memory_equal(whole, slr_network_params(j.net),
                            slr_network_param_count(j.net) * sizeof(float));
        free(whole);
        job_close(&j);
    }
    use(xl);
}

/* Networks of other kinds, on both families: what is saved is opened again, for this model. */
static void every_kind_is_trained(void **state)
{
    (void)state;
    static const char *const kinds[][4] = {
        {"network_module", "networks.lora", "network_args", "conv_dim=2\nconv_alpha=1"},
        {"network_module", "lycoris.kohya", "network_args", "algo=loha\npreset=full"},
        {"network_module", "lycoris.kohya", "network_args", "algo=lokr\nfactor=4\npreset=full"},
        {"network_module", "lycoris.kohya", "network_args", "algo=locon\ndora_wd=True"},
        {"network_module", "lycoris.kohya", "network_args", "algo=ia3\npreset=ia3"},
        {"network_module", "networks.dylora", "network_args", "unit=1"},
    };
    slr_checkpoint *const models[] = {xl, two};
    for (size_t m = 0; m < 2; m++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            slr_network *again;
            const char *path = in_scratch("kind.safetensors");
            use(models[m]);
            job j = job_open(
                &(job_spec){.network = LIST(kinds[k][0], kinds[k][1], kinds[k][2], kinds[k][3])});
            float *before = params_copy(&j);
            assert_true(isfinite(job_run(&j, 2).loss));
            assert_true(memcmp(before, slr_network_params(j.net),
                               slr_network_param_count(j.net) * sizeof(float)) != 0);
            assert_ok(slr_trainer_save(j.t, path));
            assert_ok(slr_network_open(&again, slr_checkpoint_mem(base), base, path));
            assert_int_equal(slr_network_modules(again), slr_network_modules(j.net));
            slr_network_unref(again);
            free(before);
            job_close(&j);
        }
    use(xl);
}

/* --- forecasts --- */

static void a_plan_knows_both_encoders(void **state)
{
    (void)state;
    uint64_t packed[2], before[2];
    slr_mem *mem;
    slr_devices *counted;
    assert_ok(slr_mem_new(&mem, NULL, 0));
    const slr_devices_config own = {
        .mem = mem, .cpu_features = slr_cpu_features(), .backend = "cpu"};
    assert_ok(slr_devices_open(&counted, &own));
    for (int k = 0; k < 2; k++) {
        slr_forecast f;
        slr_network *net;
        slr_dataset *d = open_folder(pictures_dir(), NULL);
        sdlora_options *o =
            options_of("train", LIST("text_encoder_lr", "0", "max_train_steps", "4"),
                       k ? LIST("cache_text_encoder_outputs", "true") : NULL);
        sdlora_options *n = options_of("network", NULL, NULL);
        assert_ok(slr_network_make(&net, base, n, 1));
        const slr_trainer_config config = {.mem = mem,
                                           .devices = counted,
                                           .base = base,
                                           .network = net,
                                           .data = d,
                                           .bpe = bpe,
                                           .opts = o};
        assert_ok(slr_forecast_make(&f, &config, NULL, 0));
        packed[k] = f.memory.packed + f.memory.text;
        before[k] = f.memory.encoder;
        assert_true(f.captions > 0 && f.seconds.text > 0);
        slr_forecast_clear(&f, mem);
        slr_network_unref(net);
        slr_options_unref(o);
        slr_options_unref(n);
        slr_dataset_unref(d);
    }
    slr_devices_unref(counted);
    slr_mem_unref(mem);
    /* a run that has encoded its captions holds neither graph nor weights of the encoders; small
     * f32 weights are taken from the checkpoint as they are */
    print_message("packed: %llu, with captions encoded beforehand %llu (autoencoder %llu, %llu)\n",
                  (unsigned long long)packed[0], (unsigned long long)packed[1],
                  (unsigned long long)before[0], (unsigned long long)before[1]);
    assert_true(packed[1] + 400000 < packed[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_encoders_have_a_rate_each),
        cmocka_unit_test(rates_are_read_with_care),
        cmocka_unit_test(sizes_are_those_of_the_picture),
        cmocka_unit_test(states_come_by_two_roads),
        cmocka_unit_test(captions_are_encoded_once),
        cmocka_unit_test(damaged_states_are_made_anew),
        cmocka_unit_test(others_are_not_known_then),
        cmocka_unit_test(a_state_brings_other_encoders),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(files_say_what_they_are_for),
        cmocka_unit_test(a_run_goes_on_where_it_was),
        cmocka_unit_test(embeddings_are_trained),
        cmocka_unit_test(every_kind_is_trained),
        cmocka_unit_test(a_plan_knows_both_encoders),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
