/* SPDX-License-Identifier: MIT */
/* Generators of one checkpoint on threads of their own: the pictures of each are those that it
 * makes alone, weights are packed once for all, and a cancel ends the run that it is meant for. The
 * thread sanitizer runs this as well (docs/testing.md). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <sdlora/sdlora.h>

#include "api/api.h"
#include "sample/engine.h"

#define MODEL TEST_ROOT "/../examples/data/tinysd/tinysd.safetensors"

enum { JOBS = 3, PICTURES = 3 };

static const char *const prompts[JOBS] = {"red apple", "penguin, bird", "smiling face"};

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s (%s)", sdlora_last_error()->message, sdlora_last_error()->where);
}

typedef struct job {
    sdlora_generator *g;
    sdlora_options *o;
    int rc;
    int64_t steps;
    sdlora_image *made[PICTURES];
} job;

static int count_step(int64_t step, int64_t total, void *user)
{
    job *j = user;

    (void)step;
    (void)total;
    j->steps++;
    return 0;
}

static void *work(void *user)
{
    job *j = user;

    for (int i = 0; i < PICTURES && j->rc >= 0; i++) {
        j->rc = sdlora_options_set_int(j->o, "seed", 100 + i);
        if (j->rc >= 0)
            j->rc = sdlora_generator_run(j->g, j->o, &j->made[i], 1);
    }
    return NULL;
}

static void start(job *j, sdlora_checkpoint *ckpt, const char *prompt, int64_t steps)
{
    memset(j, 0, sizeof *j);
    ok(sdlora_generator_new(&j->g, ckpt, NULL));
    ok(sdlora_generator_set_progress(j->g, count_step, j));
    ok(sdlora_options_new(&j->o, "generate"));
    ok(sdlora_options_set_text(j->o, "prompt", prompt));
    ok(sdlora_options_set_int(j->o, "width", 64));
    ok(sdlora_options_set_int(j->o, "height", 64));
    ok(sdlora_options_set_int(j->o, "steps", steps));
}

static void end(job *j)
{
    for (int i = 0; i < PICTURES; i++)
        sdlora_image_unref(j->made[i]);
    sdlora_options_unref(j->o);
    sdlora_generator_unref(j->g);
}

static sdlora_checkpoint *open_model(sdlora_context **ctx)
{
    sdlora_checkpoint *ckpt;
    sdlora_options *o;

    ok(sdlora_options_new(&o, "context"));
    ok(sdlora_options_set_int(o, "threads", 2));
    ok(sdlora_context_new(ctx, o, NULL));
    sdlora_options_unref(o);
    ok(sdlora_checkpoint_open(&ckpt, *ctx, MODEL, NULL));
    return ckpt;
}

static void pictures_are_those_of_one_alone(void **state)
{
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt = open_model(&ctx);
    job alone[JOBS], together[JOBS];
    pthread_t t[JOBS];

    (void)state;
    for (int i = 0; i < JOBS; i++)
        start(&together[i], ckpt, prompts[i], 2);
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, work, &together[i]), 0);
    for (int i = 0; i < JOBS; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < JOBS; i++) {
        start(&alone[i], ckpt, prompts[i], 2);
        work(&alone[i]);
        ok(alone[i].rc);
        assert_int_equal(together[i].rc, SDLORA_OK);
        for (int k = 0; k < PICTURES; k++) {
            assert_memory_equal(sdlora_image_data(alone[i].made[k]),
                                sdlora_image_data(together[i].made[k]), 64 * 64 * 3);
            assert_string_equal(sdlora_image_text(alone[i].made[k]),
                                sdlora_image_text(together[i].made[k]));
        }
        end(&alone[i]);
    }
    for (int i = 0; i < JOBS; i++)
        end(&together[i]);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
}

/* A second generator costs what it works in, and not the packed weights again. */
static void weights_are_packed_once(void **state)
{
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt = open_model(&ctx);
    job first, second;
    uint64_t before, one, two;

    (void)state;
    before = sdlora_context_memory_used(ctx);
    start(&first, ckpt, prompts[0], 1);
    work(&first);
    ok(first.rc);
    one = sdlora_context_memory_used(ctx) - before;
    start(&second, ckpt, prompts[1], 1);
    work(&second);
    ok(second.rc);
    two = sdlora_context_memory_used(ctx) - before;
    if (two - one > one / 4) /* tinysd: 42 MB, most of them packs; the second takes 4 */
        fail_msg("%llu bytes for one generator, %llu for two", (unsigned long long)one,
                 (unsigned long long)two);
    end(&first);
    end(&second);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
}

/* Called in the run that is meant, on its thread; the cancel comes from another one. */
static void *cancel_it(void *user)
{
    sdlora_generator_cancel(user);
    return NULL;
}

static int stop_now(int64_t step, int64_t total, void *user)
{
    job *j = user;
    pthread_t t;

    (void)total;
    j->steps = step;
    if (step == 2 && !pthread_create(&t, NULL, cancel_it, j->g))
        pthread_join(t, NULL);
    return 0;
}

static void a_cancel_ends_its_own_run(void **state)
{
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt = open_model(&ctx);
    job meant, other;
    pthread_t t[2];

    (void)state;
    start(&meant, ckpt, prompts[0], 50);
    start(&other, ckpt, prompts[1], 3);
    ok(sdlora_generator_set_progress(meant.g, stop_now, &meant));
    assert_int_equal(pthread_create(&t[0], NULL, work, &meant), 0);
    assert_int_equal(pthread_create(&t[1], NULL, work, &other), 0);
    pthread_join(t[0], NULL);
    pthread_join(t[1], NULL);
    assert_int_equal(meant.rc, SDLORA_ECANCELED);
    assert_int_equal(meant.steps, 2);
    assert_null(meant.made[0]);
    ok(other.rc);
    assert_int_equal(other.steps, 3 * PICTURES);
    end(&meant);
    end(&other);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
}

/* Weights that a LoKr changes are rebuilt when it is set; that ends as well, and nothing is left of
 * it. */
static void rebuilding_ends_on_cancel(void **state)
{
    sdlora_context *ctx;
    sdlora_checkpoint *ckpt = open_model(&ctx);
    sdlora_network *net;
    sdlora_options *o;
    slr_engine *e;
    slr_cancel_flag flag = 1;

    (void)state;
    ok(sdlora_options_new(&o, "network"));
    ok(sdlora_options_set_text(o, "network_module", "lycoris.kohya"));
    ok(sdlora_options_set_text(o, "network_args", "algo=lokr"));
    ok(sdlora_network_new(&net, ckpt, o, 1));
    slr_stack_item item = {.network = net->net, .te = 1, .unet = 1};
    ok(slr_engine_new(&e, ctx->mem, ckpt->base, ctx->devices));
    uint64_t version = slr_engine_version(e), used = sdlora_context_memory_used(ctx);
    assert_int_equal(slr_engine_set_networks(e, &item, 1, &flag), SDLORA_ECANCELED);
    assert_int_equal(slr_engine_version(e), version);
    assert_int_equal(sdlora_context_memory_used(ctx), used);
    flag = 0;
    ok(slr_engine_set_networks(e, &item, 1, &flag));
    assert_true(slr_engine_version(e) > version);
    slr_engine_free(e);
    sdlora_network_unref(net);
    sdlora_options_unref(o);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_are_those_of_one_alone),
        cmocka_unit_test(weights_are_packed_once),
        cmocka_unit_test(a_cancel_ends_its_own_run),
        cmocka_unit_test(rebuilding_ends_on_cancel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
