/* SPDX-License-Identifier: MIT */
/* Ten AdamW steps of T-LoRA on the whole small checkpoint against lycoris-lora under torch
 * (tests/golden/tlora.safetensors), with all ranks and with those of each sample's timestep; and
 * trainers of it: the mask follows their timesteps, and a resumed run is the same bytes. */
#include "golden_step.h"

#include <math.h>

#include "networks/kind.h"
#include "trainer_test.h"

#define TLORA  TEST_ROOT "/golden/tlora.safetensors"
#define INPUTS TEST_ROOT "/golden/lora_tinysd.safetensors"
#define KEPT   240 /* make_lycoris.py */
#define STEPS  10

/* As of other kinds (lycoris.c): Adam divides by the root of tiny second moments. */
#define TOL_LOSS  1e-4 /* measured 4e-7 */
#define TOL_STEPS 1e-2

static slr_weights *wide[SLR_PART_COUNT]; /* f32 */
static golden g, inputs;

static int setup(void **state)
{
    int rc = trainer_setup(state);
    wide[SLR_PART_UNET] = widened(slr_checkpoint_part(base, SLR_PART_UNET));
    wide[SLR_PART_TE] = widened(slr_checkpoint_part(base, SLR_PART_TE));
    g = golden_open(TLORA);
    inputs = golden_open(INPUTS);
    return g.file && inputs.file ? rc : -1;
}

static int teardown(void **state)
{
    golden_close(&g);
    golden_close(&inputs);
    slr_weights_unref(wide[SLR_PART_UNET]);
    slr_weights_unref(wide[SLR_PART_TE]);
    return trainer_teardown(state);
}

/* W' - W of all modules together: relative error of what the golden kept. */
static double change_error(const char *which, slr_network *net)
{
    double sum = 0, norm = 0;
    slr_weights *merged[SLR_PART_COUNT] = {0};
    const slr_stack_item item = {net, 1, 1, 0, {0}};
    for (int p = SLR_PART_UNET; p <= SLR_PART_TE; p++)
        ok(slr_merge_part(&merged[p], NULL, devices, wide[p], p, &item, 1));
    for (size_t i = 0; i < slr_network_modules(net); i++) {
        const slr_target *t = slr_network_target(net, i);
        char name[320], path[192];
        snprintf(name, sizeof name, "steps.%s.dw.%s", which, t->name);
        slr_nn_path(path, "%s.weight", t->path);
        float *want = golden_f32(&g, name, NULL);
        const slr_tensor *after = slr_weights_find(merged[t->part], path),
                         *before = slr_weights_find(wide[t->part], path);
        size_t n = (size_t)slr_tensor_count(after), k = golden_stride(n, KEPT);
        for (size_t j = 0; j * k < n; j++) {
            double d = (double)((const float *)after->data)[j * k] -
                       ((const float *)before->data)[j * k] - want[j];
            sum += d * d;
            norm += (double)want[j] * want[j];
        }
        slr_free(NULL, want);
    }
    slr_weights_unref(merged[SLR_PART_UNET]);
    slr_weights_unref(merged[SLR_PART_TE]);
    return sqrt(sum / norm);
}

/* A new network of the options with the golden's modules and values. */
static slr_network *like_golden(const char *args)
{
    slr_network *from = golden_network(&g, base, "steps"), *n;
    sdlora_options *o = options(LIST("network_module", "lycoris.kohya", "network_args", args));
    ok(slr_network_make_like(&n, base, o, from));
    slr_options_unref(o);
    slr_network_unref(from);
    return n;
}

static void fill_masks(const slr_network *n, const slr_step_io *io)
{
    size_t width = slr_network_mask_width(n);
    assert_true(!io->masks == !width);
    for (size_t i = 0; io->masks && i < 2; i++)
        slr_network_timestep_mask(n, io->t[i], 1000, io->masks + i * width);
}

static void steps(const char *name, const char *args)
{
    const unsigned parts = 1u << SLR_PART_UNET | 1u << SLR_PART_TE;
    const double lr[SLR_PART_COUNT] = {[SLR_PART_UNET] = 1e-3, [SLR_PART_TE] = 5e-4};
    char key[64];
    slr_optim *optim;
    slr_network *net = like_golden(args);
    slr_step *s = golden_step(base, devices, net, NULL, parts);
    const slr_step_io *io = slr_step_io_of(s);
    ok(slr_optim_new(&optim, slr_checkpoint_mem(base), net, devices, (slr_opt){NULL, "train"},
                     parts, NULL));
    snprintf(key, sizeof key, "steps.%s.loss", name);
    float *losses = golden_f32(&g, key, NULL);
    snprintf(key, sizeof key, "steps.%s.grad_norm", name);
    float *norms = golden_f32(&g, key, NULL);
    double loss = 0, grad = 0;
    for (int i = 0; i < STEPS; i++) {
        double norm;
        golden_fill(&inputs, s, "lin.steps", (size_t)i);
        fill_masks(net, io);
        ok(slr_step_run(s, NULL));
        memcpy(slr_optim_grad(optim), io->grad, slr_network_param_count(net) * sizeof(float));
        ok(slr_optim_norm(optim, &norm));
        loss = fmax(loss, fabs(golden_loss(s) - losses[i]) / losses[i]);
        grad = fmax(grad, fabs(norm - norms[i]) / norms[i]);
        ok(slr_optim_apply(optim, i + 1, lr, fmin(1.0, 1.0 / (norm + 1e-6))));
    }
    double change = change_error(name, net);
    print_message("%s: losses %.2g, norms of gradients %.2g, change %.2g\n", name, loss, grad,
                  change);
    assert_true(loss <= TOL_LOSS && grad <= TOL_STEPS && change <= TOL_STEPS);
    slr_free(NULL, losses);
    slr_free(NULL, norms);
    slr_optim_free(optim);
    slr_step_free(s);
    slr_network_unref(net);
}

static void all_ranks(void **state)
{
    (void)state;
    steps("plain", "algo=tlora");
}

static void ranks_by_timestep(void **state)
{
    (void)state;
    steps("masked", "algo=tlora\ntlora_alpha=2");
}

/* ---- trainers ---- */

/* Dropout in bypass_mode, rank_dropout that is unheard, and vectors that stand in the file. */
static const char *const network[] = {
    "network_module",
    "lycoris.kohya",
    "network_args",
    "algo=tlora\nsig_type=last\ntlora_min_rank=1\nbypass_mode=True\ndropout=0.2\n"
    "rank_dropout=0.5\nmodule_dropout=0.1\nrank_dropout_scale=True\npreset=attn-mlp",
    "network_dim",
    "4",
    NULL};
static const job_spec spec = {.network = network};

static void a_trainer_masks(void **state)
{
    (void)state;
    job j = job_open(&spec);
    size_t width = slr_network_mask_width(j.net);
    bool fewer = false;
    assert_int_equal(width, 4);
    for (int64_t i = 1; i <= 3; i++) {
        job_run(&j, i);
        for (int k = 0; k < SLR_MAX_GRAPHS && j.t->graph[k].step; k++) {
            const slr_step_io *io = slr_step_io_of(j.t->graph[k].step);
            for (int64_t b = 0; b < j.t->graph[k].n; b++) {
                float want[4];
                slr_network_timestep_mask(j.net, io->t[b], 1000, want);
                assert_memory_equal(io->masks + b * 4, want, sizeof want);
                fewer = fewer || want[3] == 0;
            }
        }
    }
    assert_true(fewer);
    job_close(&j);
}

static void resumed_the_same_bytes(void **state)
{
    (void)state;
    char dir[128];
    snprintf(dir, sizeof dir, "%s", in_scratch("tlora-state"));
    job whole = job_open(&spec), again = job_open(&spec);
    job_run(&whole, 2);
    assert_ok(slr_trainer_save_state(whole.t, dir));
    job_run(&whole, 5);
    assert_ok(slr_trainer_resume(again.t, dir));
    job_run(&again, 5);
    assert_string_equal(job_digest(&again).text, job_digest(&whole).text);
    job_close(&whole);
    job_close(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_ranks), cmocka_unit_test(ranks_by_timestep),
        cmocka_unit_test(a_trainer_masks), cmocka_unit_test(resumed_the_same_bytes)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
