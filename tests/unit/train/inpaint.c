/* SPDX-License-Identifier: MIT */
/* The training loop on inpainting models and on SDXL's refiner: whose masks, the same bytes for all
 * thread counts and after a state, a held-out loss that compares, what files say, and what is
 * refused.  What a model is given of a picture and its mask is compared with diffusers
 * (tests/golden/inpaint.safetensors). */
#include "trainer_test.h"

#include <math.h>

#include "golden_test.h"
#include "models/vae.h"
#include "train/forecast.h"
#include "train/metafrom.h"

static slr_checkpoint *inpaint, *refiner, *edit, *plain;

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
    inpaint = made("tiny-inpaint");
    refiner = made("tiny-refiner");
    edit = made("tiny-edit");
    plain = base;
    base = slr_checkpoint_ref(inpaint);
    return 0;
}

static int teardown(void **state)
{
    slr_checkpoint_unref(inpaint);
    slr_checkpoint_unref(refiner);
    slr_checkpoint_unref(edit);
    slr_checkpoint_unref(plain);
    return trainer_teardown(state);
}

static void use(slr_checkpoint *c)
{
    slr_checkpoint_unref(base);
    base = slr_checkpoint_ref(c);
}

static digest trained(const job_spec *spec, int64_t steps)
{
    job j = job_open(spec);
    assert_true(isfinite(job_run(&j, steps).loss));
    digest d = job_digest(&j);
    job_close(&j);
    return d;
}

/* --- bytes --- */

static const struct {
    const char *masks, *crop;
} ways[] = {{"2", "false"}, {"0", "false"}, {NULL, "true"}};

static job_spec way(size_t i)
{
    static const char *train[3][5], *data[3][5];
    train[i][0] = ways[i].masks ? "masks_per_image" : NULL;
    train[i][1] = ways[i].masks;
    data[i][0] = "random_crop";
    data[i][1] = ways[i].crop;
    data[i][2] = "flip_aug";
    data[i][3] = "true";
    return (job_spec){.train = train[i], .data = data[i]};
}

static void the_same_bytes_for_all_threads(void **state)
{
    slr_devices *one = open_devices(1), *three = open_devices(3);
    digest all[3];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        job_spec spec = way(i);
        spec.devices = one;
        all[i] = trained(&spec, 3);
        spec.devices = three;
        assert_string_equal(trained(&spec, 3).text, all[i].text);
    }
    assert_string_not_equal(all[0].text, all[1].text); /* other masks */
    slr_devices_unref(one);
    slr_devices_unref(three);
}

static void a_run_goes_on_where_it_was(void **state)
{
    char dir[512]; /* in_scratch() lends eight names only */
    (void)state;
    snprintf(dir, sizeof dir, "%s", in_scratch("half-state"));
    for (size_t i = 0; i < 3; i++) {
        job_spec spec = way(i);
        digest whole = trained(&spec, 5);
        job j = job_open(&spec);
        job_run(&j, 2);
        assert_ok(slr_trainer_save_state(j.t, dir));
        job_close(&j);
        j = job_open(&spec);
        assert_ok(slr_trainer_resume(j.t, dir));
        job_run(&j, 5);
        assert_string_equal(job_digest(&j).text, whole.text);
        job_close(&j);
    }
    job j = job_open(&(job_spec){.train = LIST("masks_per_image", "3")});
    assert_int_equal(slr_trainer_resume(j.t, dir), SDLORA_EINVAL);
    assert_says("masks_per_image was 8 and is 3");
    job_close(&j);
}

/* Masks beside pictures are of no account to a run that does not use them. */
static void masks_are_part_of_a_run_that_uses_them(void **state)
{
    char dir[512], mask[512];
    (void)state;
    snprintf(dir, sizeof dir, "%s", in_scratch("masks-state"));
    for (int inpaints = 0; inpaints < 2; inpaints++) {
        use(inpaints ? inpaint : plain);
        job j = job_open(&(job_spec){0});
        const slr_item *item = slr_dataset_item(j.data, 0);
        snprintf(mask, sizeof mask, "%.*s-masklabel.png",
                 (int)(strlen(item->path) - strlen(".png")), item->path);
        put_picture(mask, item->width, item->height, 1);
        job_run(&j, 1);
        assert_ok(slr_trainer_save_state(j.t, dir));
        job_close(&j);
        j = job_open(&(job_spec){0});
        assert_non_null(slr_dataset_item(j.data, 0)->mask);
        if (inpaints) {
            assert_int_equal(slr_trainer_resume(j.t, dir), SDLORA_EINVAL);
            assert_says("the pictures, masks, captions or data set settings changed");
        } else {
            assert_ok(slr_trainer_resume(j.t, dir));
        }
        job_close(&j);
        assert_int_equal(unlink(mask), 0);
    }
    use(inpaint);
}

/* --- what the model is given --- */

enum { W = 96, H = 64 };

typedef struct encoder {
    slr_vae_runner *vae;
} encoder;

static int encode(void *user, const float *image, int64_t n, int64_t h, int64_t w, float *latents)
{
    return slr_vae_encode(((encoder *)user)->vae, image, n, h, w, NULL, latents, NULL);
}

/* The picture and mask of make_inpaint.py. */
static void put_golden_picture(void)
{
    slr_pixels p = {W, H, 3, malloc(W * H * 3)};
    assert_non_null(p.data);
    put_picture(in_scratch("golden/1_x/a.png"), W, H, 5);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            memset(p.data + (y * W + x) * 3, (x * 5 + y * 7) % 256, 3);
    assert_ok(slr_png_write(NULL, in_scratch("golden/1_x/a-masklabel.png"), &p, NULL));
    free(p.data);
}

static void masks_are_those_of_diffusers(void **state)
{
    int factor;
    encoder e;
    slr_loader *l;
    const slr_batch *b;
    slr_weights *vae = slr_checkpoint_part(plain, SLR_PART_VAE);
    (void)state;
    put_golden_picture();
    slr_dataset *d =
        open_folder(in_scratch("golden"), LIST("resolution", "96,64", "train_batch_size", "1"));
    assert_ok(slr_vae_factor(vae, &factor));
    assert_ok(slr_vae_runner_new(&e.vae, vae, slr_checkpoint_family(plain), devices));
    const slr_loader_config config = {.encode = encode,
                                      .encode_user = &e,
                                      .encoder_id = "tinysd",
                                      .factor = 1 << factor,
                                      .channels = 4,
                                      .inpaint = true,
                                      .masks = 1};
    assert_ok(slr_loader_new(&l, d, &config));
    assert_ok(slr_loader_get(l, 0, 0, 0, &b));
    golden g = golden_open(TEST_ROOT "/golden/inpaint.safetensors");
    slr_tensor t;
    float *mask = golden_f32(&g, "mask", &t), *masked = golden_nhwc(&g, "masked", NULL);
    size_t n = (size_t)slr_tensor_count(&t), on = 0;
    assert_int_equal(n, b->lw * b->lh);
    float *own = malloc(n * 4 * sizeof *own);
    assert_non_null(own);
    for (size_t i = 0; i < n; i++) {
        assert_true(b->extra[i * 5] == mask[i]);
        memcpy(own + i * 4, b->extra + i * 5 + 1, 4 * sizeof *own);
        on += mask[i] == 1;
    }
    assert_true(on > n / 4 && on < n * 3 / 4);
    /* as the autoencoder itself: f32 sums in another order; measured 2.1e-6 */
    assert_true(golden_close_to("masked latents", own, masked, n * 4, 1e-5));
    free(own);
    slr_free(NULL, mask);
    slr_free(NULL, masked);
    golden_close(&g);
    slr_loader_free(l);
    slr_vae_runner_free(e.vae);
    slr_dataset_unref(d);
}

/* The loss depends on mask and masked latents, and each sample gets its own. */
static void the_loss_depends_on_the_mask(void **state)
{
    const slr_batch *b;
    double loss[3];
    (void)state;
    job j = job_open(&(job_spec){0});
    assert_ok(slr_loader_get(j.t->loader, 0, 0, 0, &b));
    assert_non_null(b->extra);
    assert_int_equal(b->n, 2);
    size_t n = (size_t)(b->n * b->lh * b->lw * 5);
    float *other = malloc(n * sizeof *other);
    assert_non_null(other);
    for (int i = 0; i < 3; i++) {
        slr_batch with = *b;
        memcpy(other, b->extra, n * sizeof *other);
        for (size_t k = i == 2 ? n / 2 : 0; i && k < n; k += 5) /* of all, of the second alone */
            other[k] = 1 - other[k];
        with.extra = other;
        assert_ok(slr_trainer_batch(j.t, &with, &loss[i]));
    }
    assert_true(loss[0] != loss[1] && loss[1] != loss[2] && loss[0] != loss[2]);
    free(other);
    job_close(&j);
}

static void a_refiner_is_told_the_score(void **state)
{
    const slr_batch *b;
    slr_step *step;
    double loss;
    float wave[SLR_SIZE_WIDTH];
    (void)state;
    use(refiner);
    job j = job_open(&(job_spec){.train = LIST("aesthetic_score", "4.5")});
    assert_ok(slr_loader_get(j.t->loader, 0, 0, 0, &b));
    assert_ok(slr_trainer_batch(j.t, b, &loss));
    assert_ok(slr_trainer_graph(j.t, b->n, b->lh, b->lw, &step));
    const slr_step_io *io = slr_step_io_of(step);
    assert_int_equal(io->shape.n_sizes, 5);
    for (int64_t i = 0; i < b->n; i++) {
        const slr_item *item = slr_dataset_item(j.data, b->items[i]);
        const float told[5] = {(float)item->height, (float)item->width,
                               b->sizes[i * SLR_SAMPLE_SIZES + 2],
                               b->sizes[i * SLR_SAMPLE_SIZES + 3], 4.5F};
        for (int k = 0; k < 5; k++) {
            slr_text_sizes(&told[k], 1, wave);
            assert_memory_equal(io->sizes + (i * 5 + k) * SLR_SIZE_WIDTH, wave, sizeof wave);
        }
    }
    job_close(&j);
    use(inpaint);
}

/* --- the held-out loss --- */

static double held_out(const char *masks, const char *seed, slr_dataset *set)
{
    double loss;
    job j = job_open(
        &(job_spec){.train = LIST("masks_per_image", masks, "seed", seed, "text_encoder_lr", "0"),
                    .validation = set});
    assert_ok(slr_trainer_validate(j.t, &loss));
    job_close(&j);
    return loss;
}

static double evaluated(slr_dataset *set)
{
    double loss;
    const slr_trainer_config config = {
        .devices = devices, .base = base, .data = set, .bpe = bpe, .mem = slr_checkpoint_mem(base)};
    assert_ok(slr_eval_loss(&loss, &config, NULL, 0, 0));
    return loss;
}

/* The loss of one sample of a batch at ten timesteps, written down once more. */
static double at_times(job *j, slr_step *step, const slr_batch *b, int64_t k, int first, int apart)
{
    enum { TIMES = 10 };
    const slr_step_io *io = slr_step_io_of(step);
    const slr_item *item = slr_dataset_item(j->t->c.validation, b->items[k]);
    int64_t n = b->lh * b->lw * 4;
    double loss = 0;
    float sizes[SLR_SAMPLE_SIZES], *noise = malloc((size_t)n * sizeof *noise);
    assert_non_null(noise);
    slr_sample_sizes(item->width, item->height,
                     slr_dataset_bucket(j->t->c.validation, item->bucket), false, sizes);
    for (int i = 0; i < TIMES; i++) {
        slr_rng rng;
        slr_rng_init(&rng, 0, SLR_STREAM_EVAL, (uint32_t)b->items[k] * TIMES + (uint32_t)i);
        slr_rng_normal(&rng, noise, (size_t)n);
        slr_noise_fixed(&j->t->noise, b->latents + k * n, noise, n, first + i * apart,
                        io->x + i * n, io->target + i * n);
        io->t[i] = (float)(first + i * apart);
        io->weight[i] = 1;
        slr_step_fill_sizes(step, sizes, j->t->score, i);
        slr_step_fill_extra(step, b->extra ? b->extra + k * (n / 4 * 5) : NULL, i);
        assert_ok(slr_captions_put(slr_trainer_held_out_text(j->t), b->captions[k], NULL, io, i));
    }
    assert_ok(slr_step_run(step, NULL));
    for (int i = 0; i < TIMES; i++)
        loss += io->loss[i] / TIMES;
    free(noise);
    return loss;
}

/* Each of the five pictures once. */
static double by_hand(slr_dataset *set, int first, int apart)
{
    const slr_batch *b;
    slr_step *step;
    double sum = 0;
    int pictures = 0;
    job j = job_open(&(job_spec){.train = LIST("text_encoder_lr", "0"), .validation = set});
    slr_step_config config = slr_trainer_step_config(j.t, 10, 8, 8);
    config.part_mask = 0;
    config.grad = NULL;
    config.text_states = true;
    assert_ok(slr_step_new(&step, &config));
    for (int64_t i = 0; i < slr_dataset_batches_per_epoch(set); i++) {
        assert_ok(slr_loader_get(j.t->val_feed.loader, 0, i, 0, &b));
        assert_true(b->lh == 8 && b->lw == 8);
        for (int64_t k = 0; k < b->n; k++, pictures++)
            sum += at_times(&j, step, b, k, first, apart);
    }
    assert_int_equal(pictures, 5);
    slr_step_free(step);
    job_close(&j);
    return sum / pictures;
}

static void held_out_losses_compare(void **state)
{
    slr_checkpoint *const models[] = {inpaint, refiner};
    (void)state;
    for (int m = 0; m < 2; m++) {
        use(models[m]);
        slr_dataset *set = open_folder(pictures_dir(), NULL);
        double loss = held_out("2", "1", set);
        assert_true(isfinite(loss) && loss > 0);
        assert_true(held_out("0", "2", set) == loss);
        /* t = 50, 150 ... 950; of a refiner, which works below 200, 10, 30 ... 190 */
        double again = m ? by_hand(set, 10, 20) : by_hand(set, 50, 100);
        assert_true(fabs(again / loss - 1) < 1e-9);          /* the same sums */
        assert_true(fabs(evaluated(set) / loss - 1) < 1e-6); /* a network of zeros adds zeros */
        slr_dataset_unref(set);
    }
    use(inpaint);
}

/* --- files --- */

static void check_facts(const char *const *facts)
{
    slr_safetensors *f;
    char path[512];
    job j = job_open(&(job_spec){0});
    snprintf(path, sizeof path, "%s", in_scratch("facts.safetensors"));
    assert_ok(slr_trainer_save(j.t, path));
    assert_ok(slr_safetensors_open(&f, NULL, path, true));
    for (const char *const *p = facts; *p; p += 2) {
        const char *got = slr_safetensors_meta(f, p[0]);
        assert_string_equal(got ? got : "(absent)", p[1]);
    }
    slr_safetensors_close(f);
    job_close(&j);
}

static void files_say_what_they_are_for(void **state)
{
    (void)state;
    check_facts(LIST("ss_base_model_version", "sd_v1", "modelspec.architecture",
                     "stable-diffusion-v1-inpainting/lora", "ss_train_inpainting", "True",
                     "ss_masks_per_image", "8", "ss_aesthetic_score", "(absent)"));
    use(refiner);
    check_facts(LIST("ss_base_model_version", "sdxl_refiner_v1-0", "modelspec.architecture",
                     "stable-diffusion-xl-v1-refiner/lora", "modelspec.implementation",
                     "https://github.com/Stability-AI/generative-models", "ss_train_inpainting",
                     "(absent)", "ss_aesthetic_score", "6.0"));
    use(plain);
    check_facts(LIST("ss_train_inpainting", "(absent)", "ss_masks_per_image", "(absent)"));
    use(inpaint);
}

/* Whether a run on the model begins with the settings of a file. */
static void check_run(slr_checkpoint *model, const char *path)
{
    sdlora_options *train = options_of("train", NULL, NULL),
                   *data = options_of("dataset", NULL, NULL),
                   *network = options_of("network", LIST("network_dim", "2"), NULL);
    slr_trainer_config config = {
        .mem = slr_checkpoint_mem(model), .devices = devices, .base = model, .bpe = bpe};
    slr_trainer *t;
    assert_ok(slr_options_from_metadata(train, NULL, path, NULL));
    assert_ok(slr_options_from_metadata(data, NULL, path, NULL));
    assert_ok(slr_options_set_text(data, "train_data_dir", pictures_dir()));
    assert_ok(slr_dataset_open(&config.data, NULL, (slr_log){0}, data));
    assert_ok(slr_network_make(&config.network, model, network, 1));
    config.opts = train;
    assert_ok(slr_trainer_make(&t, &config));
    assert_int_equal(slr_opt_bool(t->o, "train_inpainting"), slr_checkpoint_inpaint(model));
    slr_trainer_free(t);
    slr_network_unref(config.network);
    slr_dataset_unref(config.data);
    slr_options_unref(train);
    slr_options_unref(data);
    slr_options_unref(network);
}

/* The file of a run of each way, on the same model and on one that does not inpaint. */
static void settings_are_taken_back(void **state)
{
    static const char *const masks[] = {"2", "0", "(absent)"};
    char path[512];
    (void)state;
    snprintf(path, sizeof path, "%s", in_scratch("settings.safetensors"));
    for (size_t i = 0; i < 3; i++) {
        slr_safetensors *f;
        job_spec spec = way(i);
        job j = job_open(&spec);
        assert_ok(slr_trainer_save(j.t, path));
        assert_ok(slr_safetensors_open(&f, NULL, path, true));
        const char *told = slr_safetensors_meta(f, "ss_masks_per_image");
        assert_string_equal(told ? told : "(absent)", masks[i]);
        slr_safetensors_close(f);
        job_close(&j);
        check_run(inpaint, path);
        check_run(plain, path);
    }
}

static void every_kind_is_trained(void **state)
{
    static const char *const kinds[][4] = {
        {"network_module", "networks.lora", "conv_dim", "2"},
        {"network_module", "lycoris.kohya", "network_args", "algo=lokr\nconv_dim=2"},
        {"network_module", "lycoris.kohya", "network_args", "algo=loha\ndora_wd=True"}};
    slr_checkpoint *const models[] = {inpaint, refiner};
    (void)state;
    for (size_t m = 0; m < 2; m++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            slr_network *again;
            char path[512];
            snprintf(path, sizeof path, "%s", in_scratch("kind.safetensors"));
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
    use(inpaint);
}

/* --- refusals --- */

static void what_does_not_fit_is_refused(void **state)
{
    const struct {
        slr_checkpoint *model;
        int code;
        const char *says;
        job_spec spec;
    } rows[] = {
        {inpaint,
         SDLORA_EINVAL,
         "train_inpainting has to be true",
         {.train = LIST("train_inpainting", "false")}},
        {plain,
         SDLORA_EINVAL,
         "train_inpainting has to be false",
         {.train = LIST("train_inpainting", "true")}},
        {edit, SDLORA_ENOTSUP, "takes 8 channels and gives 4", {0}},
        {inpaint,
         SDLORA_EINVAL,
         "masks_per_image and random_crop exclude each other",
         {.train = LIST("masks_per_image", "2"), .data = LIST("random_crop", "true")}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        job j;
        use(rows[i].model);
        assert_int_equal(job_try(&j, &rows[i].spec), rows[i].code);
        assert_says(rows[i].says);
        job_close(&j);
    }
    use(inpaint);
}

static int count_calls(void *user, const char *phase, int64_t done, int64_t total)
{
    (void)phase, (void)done, (void)total;
    ++*(int *)user;
    return 0;
}

static void an_evaluation_is_refused_before_pictures(void **state)
{
    double loss;
    int calls = 0;
    slr_dataset *set = open_folder(pictures_dir(), NULL);
    slr_trainer_config config = {.devices = devices,
                                 .base = edit,
                                 .data = set,
                                 .bpe = bpe,
                                 .mem = slr_checkpoint_mem(edit),
                                 .phase = count_calls,
                                 .phase_user = &calls};
    (void)state;
    assert_int_equal(slr_eval_loss(&loss, &config, NULL, 0, 0), SDLORA_ENOTSUP);
    assert_says("takes 8 channels and gives 4");
    assert_int_equal(calls, 0);
    config.base = plain;
    assert_ok(slr_eval_loss(&loss, &config, NULL, 0, 0));
    assert_true(calls > 5);
    slr_dataset_unref(set);
}

static void count_hints(int level, const char *text, void *user)
{
    *(int *)user += level == SLR_LOG_WARN && strstr(text, "max_timestep 200 fits it") != NULL;
}

static void a_refiner_works_at_early_timesteps(void **state)
{
    int hints = 0;
    const slr_log log = {count_hints, &hints, SLR_LOG_WARN};
    (void)state;
    for (int m = 0; m < 3; m++) {
        use(m ? refiner : inpaint);
        job j =
            job_open(&(job_spec){.train = m == 2 ? LIST("max_timestep", "200") : NULL, .log = log});
        job_close(&j);
        assert_int_equal(hints, m > 0);
    }
    use(inpaint);
}

/* --- forecasts --- */

static slr_forecast forecast_of(const char *masks, slr_mem *mem, slr_devices *counted)
{
    slr_forecast f;
    slr_network *net;
    slr_dataset *d = open_folder(pictures_dir(), NULL);
    sdlora_options *o =
        options_of("train", LIST("masks_per_image", masks, "max_train_steps", "6"), NULL);
    sdlora_options *n = options_of("network", NULL, NULL);
    assert_ok(slr_network_make(&net, base, n, 1));
    const slr_trainer_config config = {.mem = mem,
                                       .devices = counted,
                                       .base = base,
                                       .network = net,
                                       .data = d,
                                       .validation = d,
                                       .bpe = bpe,
                                       .opts = o};
    assert_ok(slr_forecast_make(&f, &config, NULL, 0));
    slr_network_unref(net);
    slr_options_unref(o);
    slr_options_unref(n);
    slr_dataset_unref(d);
    return f;
}

static void a_plan_counts_masks(void **state)
{
    slr_mem *mem;
    slr_devices *counted;
    (void)state;
    assert_ok(slr_mem_new(&mem, NULL, 0));
    const slr_devices_config own = {
        .mem = mem, .cpu_features = slr_cpu_features(), .backend = "cpu"};
    assert_ok(slr_devices_open(&counted, &own));
    slr_forecast fresh = forecast_of("0", mem, counted), kept = forecast_of("2", mem, counted);
    /* 6 steps of 3 batches an epoch: 2 epochs; 5 pictures, twice with the held-out ones */
    assert_int_equal(kept.encoded, 5 + 5);
    assert_int_equal(fresh.encoded, 5 + 5 + 2 * 5);
    assert_int_equal(kept.memory.latents, fresh.memory.latents / 4 * (4 + 2 * 5));
    assert_true(fresh.memory.encoder > 0 && kept.memory.encoder > 0);
    assert_true(fresh.seconds.encode > 0 && kept.seconds.encode > 0);
    slr_forecast_clear(&fresh, mem);
    slr_forecast_clear(&kept, mem);
    slr_devices_unref(counted);
    assert_int_equal(slr_mem_used(mem), 0); /* also where both sets are one and need encoders */
    slr_mem_unref(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bytes_for_all_threads),
        cmocka_unit_test(a_run_goes_on_where_it_was),
        cmocka_unit_test(masks_are_part_of_a_run_that_uses_them),
        cmocka_unit_test(masks_are_those_of_diffusers),
        cmocka_unit_test(the_loss_depends_on_the_mask),
        cmocka_unit_test(a_refiner_is_told_the_score),
        cmocka_unit_test(held_out_losses_compare),
        cmocka_unit_test(files_say_what_they_are_for),
        cmocka_unit_test(settings_are_taken_back),
        cmocka_unit_test(every_kind_is_trained),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(an_evaluation_is_refused_before_pictures),
        cmocka_unit_test(a_refiner_works_at_early_timesteps),
        cmocka_unit_test(a_plan_counts_masks),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
