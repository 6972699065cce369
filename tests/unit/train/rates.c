/* SPDX-License-Identifier: MIT */
/* What moves, and how far: LoRA+ and rates by block, the frozen half of LoRA-FA, and DyLoRA's
 * ranks, of which each pass trains one block. */
#include <math.h>

#include "trainer_test.h"
#include "networks/kind.h"

enum { UP = 1 }; /* leaf */

/* One update by AdamW with gradients of 1 all over: p' = p (1 - rate decay) - rate. */
static void update_ones(slr_network *n, const double rate[SLR_PART_COUNT], float *before)
{
    slr_optim *o;
    size_t count = slr_network_param_count(n);
    assert_ok(slr_optim_new(&o, NULL, n, devices, (slr_opt){NULL, "train"},
                            1u << SLR_PART_UNET | 1u << SLR_PART_TE, NULL));
    for (size_t i = 0; i < count; i++)
        slr_optim_grad(o)[i] = 1;
    memcpy(before, slr_network_params(n), count * sizeof *before);
    assert_ok(slr_optim_apply(o, 1, rate, 1.0));
    slr_optim_free(o);
}

static void by_slot(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"networks.lora", "loraplus_lr_ratio=16\nloraplus_unet_lr_ratio=4\nmid_lr_weight=0.5"},
        {"networks.lora", "down_lr_weight=sine+.5\nup_lr_weight=cosine+.1\nconv_dim=2"},
        {"networks.lora_fa", "conv_dim=2"},
        {"lycoris.kohya", "loraplus_text_encoder_lr_ratio=2"},
    };
    const double rate[SLR_PART_COUNT] = {[SLR_PART_UNET] = 1e-3, [SLR_PART_TE] = 5e-4};
    for (size_t c = 0; c < sizeof CASES / sizeof *CASES; c++) {
        slr_network *n;
        sdlora_options *o = options_of(
            "network",
            LIST("network_dim", "2", "network_module", CASES[c][0], "network_args", CASES[c][1]),
            NULL);
        assert_ok(slr_network_make(&n, base, o, 1));
        float *before = malloc(slr_network_param_count(n) * sizeof *before);
        update_ones(n, rate, before);
        size_t still = 0;
        for (size_t i = 0; i < slr_network_slots(n); i++) {
            const slr_network_slot *s = slr_network_slot_at(n, i);
            double lr = rate[s->part] * s->lr_scale;
            for (size_t k = s->offset; k < s->offset + s->count; k++) {
                double p = before[k], want = lr > 0 ? p * (1 - lr * 0.01) - lr : p;
                /* f32 rounds a value of at most 1 and a step of it */
                if (fabs(slr_network_params(n)[k] - want) > 2e-7)
                    fail_msg("%s[%d]: %.9g, wanted %.9g", s->key, (int)(k - s->offset),
                             slr_network_params(n)[k], want);
            }
            still += s->lr_scale == 0;
        }
        assert_int_equal(still, c == 2 ? slr_network_modules(n) : 0);
        free(before);
        slr_network_unref(n);
        slr_options_unref(o);
    }
}

/* ---- DyLoRA ---- */

/* The largest change among the elements of one rank of a module. */
static double moved(const slr_network *n, const slr_module *mod, int64_t rank, const float *before)
{
    double peak = 0;
    for (int leaf = 0; leaf <= UP; leaf++) {
        const slr_network_slot *s = slr_module_slot(mod, &n->slot[mod->slot], leaf);
        size_t each = s->count / (size_t)mod->rank;
        for (size_t k = 0; k < each; k++) {
            size_t at = s->offset + (leaf == UP ? k * (size_t)mod->rank + (size_t)rank
                                                : (size_t)rank * each + k);
            peak = fmax(peak, fabs((double)n->params[at] - before[at]));
        }
    }
    return peak;
}

/* After each step of one batch only one block of each module has moved, by draws all are met, and
 * the same seed draws the same. */
static void dylora(void **state)
{
    (void)state;
    static const struct {
        const char *module, *args;
        int64_t unit;
    } CASES[] = {{"networks.dylora", "unit=2\nconv_dim=4", 2},
                 {"lycoris.kohya", "algo=dylora\nblock_size=1\npreset=attn-mlp", 1}};
    for (size_t c = 0; c < 2; c++) {
        const job_spec spec = {.train = LIST("gradient_accumulation_steps", "1"),
                               .network = LIST("network_dim", "4", "network_module",
                                               CASES[c].module, "network_args", CASES[c].args)};
        job j = job_open(&spec), again = job_open(&spec);
        const slr_network *n = j.net;
        size_t met[4] = {0};
        float *before = malloc(n->n_params * sizeof *before);
        for (int step = 1; step <= 4; step++) {
            memcpy(before, n->params, n->n_params * sizeof *before);
            job_run(&j, step);
            for (size_t i = 0; i < n->n_modules; i++) {
                const slr_module *mod = &n->module[i];
                int64_t blocks = 0;
                for (int64_t r = 0; r < mod->rank; r++) {
                    bool moves = moved(n, mod, r, before) > 0;
                    met[r] += moves;
                    blocks += moves && r % CASES[c].unit == 0;
                    if (moves != (moved(n, mod, r - r % CASES[c].unit, before) > 0))
                        fail_msg("step %d: %s: rank %d and its block", step, mod->target.name,
                                 (int)r);
                }
                if (blocks != 1)
                    fail_msg("step %d: %s: %d blocks moved", step, mod->target.name, (int)blocks);
            }
        }
        for (int64_t r = 0; r < 4; r++) /* of 4 x 200 modules each of 2 or 4 blocks: a quarter */
            assert_true(met[r] > n->n_modules / 2);
        job_run(&again, 4);
        assert_memory_equal(n->params, again.net->params, n->n_params * sizeof(float));
        free(before);
        job_close(&j);
        job_close(&again);
    }
}

/* What a pass with some ranks gives is what a LoRA of these ranks alone gives, weighed. */
static void dylora_weights(void **state)
{
    (void)state;
    slr_network *n;
    for (int kohya = 0; kohya < 2; kohya++) {
        float weight[4096];
        uint8_t touched[4096] = {0};
        sdlora_options *o = options_of(
            "network",
            LIST("network_dim", "8", "network_module", kohya ? "networks.dylora" : "lycoris.kohya",
                 "network_args", kohya ? "unit=4" : "algo=dylora\nblock_size=4"),
            NULL);
        assert_ok(slr_network_make(&n, base, o, 1));
        size_t ranks = slr_network_ranks(n), half = 0;
        assert_int_equal(ranks, 8 * slr_network_modules(n));
        assert_true(ranks <= 4096);
        slr_network_draw_ranks(n, 5, 7, weight);
        for (size_t i = 0; i < ranks; i += 8) {
            bool few = weight[i + 4] == 0;
            float want = few ? (kohya ? sqrtf(2) : 2) : 1;
            half += few;
            for (size_t r = 0; r < 8; r++)
                assert_true(weight[i + r] == (r < (few ? 4u : 8u) ? want : 0));
        }
        assert_true(half > ranks / 8 / 4 && half < ranks / 8 * 3 / 4);
        float *grad = malloc(slr_network_param_count(n) * sizeof *grad);
        for (size_t i = 0; i < slr_network_param_count(n); i++)
            grad[i] = 1;
        slr_network_mask_ranks(n, weight, grad, touched);
        double sum = 0, all = 0;
        for (size_t i = 0; i < slr_network_slots(n); i++) {
            const slr_network_slot *s = slr_network_slot_at(n, i);
            all += (double)s->count;
            for (size_t k = 0; k < s->count; k++)
                sum += grad[s->offset + k];
        }
        assert_true(sum == all / 2);
        for (size_t i = 0; i < ranks; i++)
            assert_int_equal(touched[i], (weight[i - i % 8 + 4] == 0) == (i % 8 < 4));
        free(grad);
        slr_network_unref(n);
        slr_options_unref(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_slot),
        cmocka_unit_test(dylora),
        cmocka_unit_test(dylora_weights),
    };
    return cmocka_run_group_tests(tests, trainer_setup, trainer_teardown);
}
