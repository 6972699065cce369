/* SPDX-License-Identifier: MIT */
/* What the tests of resize, merge and extract share: the tool's surroundings, networks of
 * tests/golden/tools, and comparing a network with one that another program wrote. */
#ifndef TOOLS_TEST_H
#define TOOLS_TEST_H

#include "network_test.h"
#include "networks/tools.h"

#define TOOLS TEST_ROOT "/golden/tools/"

/* Of the change that a module makes, relative: f32 factors on both sides, and singular vectors of
 * f32 there.  Measured 2e-6. */
#define TOL_DELTA 1e-4

static slr_devices *devices;
static slr_checkpoint *base;
static slr_tool tool;

static inline int tools_setup(void **state)
{
    (void)state;
    const slr_devices_config config = {.cpu_features = slr_cpu_features(), .backend = "cpu"};
    ok(slr_devices_open(&devices, &config));
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    tool = (slr_tool){.devices = devices, .base = base};
    return 0;
}

static inline int tools_teardown(void **state)
{
    (void)state;
    slr_checkpoint_unref(base);
    slr_devices_unref(devices);
    return 0;
}

static inline slr_network *opened(const char *name)
{
    char path[512];
    slr_network *n;
    snprintf(path, sizeof path, TOOLS "%s.safetensors", name);
    ok(slr_network_open(&n, NULL, base, path));
    return n;
}

/* "name", "value", ..., NULL */
static inline sdlora_options *tool_options(const char *kind, const char *const *pairs)
{
    sdlora_options *o;
    ok(slr_options_new(&o, NULL, kind));
    for (; pairs && *pairs; pairs += 2)
        ok(slr_options_set_text(o, pairs[0], pairs[1]));
    return o;
}

/* One module with a dora_scale, [out,1], of ones. */
static inline slr_network *with_dora(void)
{
    slr_network *n;
    slr_targets *targets;
    const slr_settings set = {.dim = 2, .alpha = 2, .factor = -1};
    slr_form form = {.rank = 2, .alpha = 2, .scale = 1};
    ok(slr_targets_new(&targets, NULL, base));
    const char *name = "lora_te_text_model_encoder_layers_0_mlp_fc1";
    const slr_target *t = target_named(targets, name, strlen(name));
    ok(slr_kind_lora.make(&set, t, &form));
    slr_form_add(&form, SLR_LEAF_DORA, 2, (int64_t[]){t->out, 1});
    ok(slr_network_new(&n, NULL, base));
    ok(slr_network_add(n, &slr_kind_lora, t, &form, NULL));
    ok(slr_network_layout(n));
    for (size_t i = 0; i < n->n_params; i++)
        n->params[i] = 1.0f + 0.01f * (float)(i % 7);
    slr_targets_free(targets);
    return n;
}

/* What a module changes, [out, in*kh*kw] or [out]. */
static inline float *module_delta(const slr_network *n, const slr_module *mod, size_t *count)
{
    slr_change c;
    int64_t out = mod->target.out, width = mod->target.norm ? 1 : slr_target_fan_in(&mod->target);
    ok(slr_change_read(&c, &tool, n, mod, true));
    float *d = slr_calloc(NULL, (size_t)(out * width), sizeof *d);
    for (int64_t o = 0; o < out; o++)
        for (int64_t j = 0; j < width; j++) {
            double sum = c.dense ? c.dense[o * width + j] : 0;
            for (int64_t p = 0; c.up && p < c.rank; p++)
                sum += (double)c.up[o * c.rank + p] * c.down[p * width + j];
            d[o * width + j] = (float)sum;
        }
    slr_change_free(NULL, &c);
    *count = (size_t)(out * width);
    return d;
}

static inline double delta_error(const slr_network *a, const slr_module *x, const slr_network *b,
                                 const slr_module *y)
{
    size_t n, m;
    float *got = module_delta(a, x, &n), *want = module_delta(b, y, &m);
    assert_int_equal(n, m);
    golden_error e = golden_compare(got, want, n);
    slr_free(NULL, got);
    slr_free(NULL, want);
    return e.l2;
}

/* Every module of the golden network, with its rank and alpha; returns the worst error. */
static inline double same_network(const slr_network *got, const char *golden_name, bool ranks)
{
    slr_network *want = opened(golden_name);
    double worst = 0;
    for (size_t i = 0; i < want->n_modules; i++) {
        const slr_module *y = &want->module[i],
                         *x = slr_network_find(got, y->target.part, y->target.path);
        if (!x)
            fail_msg("%s: %s is missing", golden_name, y->target.name);
        if (strcmp(x->kind->name, y->kind->name) || (ranks && x->rank != y->rank) ||
            (ranks && (isnan(x->alpha) ? !isnan(y->alpha)
                                       : fabs(x->alpha - y->alpha) > 1e-6 * fabs(y->alpha))))
            fail_msg("%s: %s is %s, rank %lld, alpha %g; wanted %s, %lld, %g", golden_name,
                     y->target.name, x->kind->name, (long long)x->rank, x->alpha, y->kind->name,
                     (long long)y->rank, y->alpha);
        worst = fmax(worst, delta_error(got, x, want, y));
    }
    printf("%-24s %zu modules, delta %.2g\n", golden_name, want->n_modules, worst);
    slr_network_unref(want);
    return worst;
}

/* The metadata that the other program wrote, but for what names programs, times and bytes. */
static inline void same_metadata(const slr_network *got, const char *golden_name)
{
    static const char *const own[] = {"sshs_model_hash", "sshs_legacy_hash", "modelspec.date",
                                      "modelspec.implementation_version", "modules"};
    slr_network *want = opened(golden_name);
    for (size_t i = 0; i < slr_meta_count(want->meta); i++) {
        const char *value, *key = slr_meta_at(want->meta, i, &value), *have;
        bool skip = false;
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            skip = skip || !strcmp(own[k], key);
        have = slr_meta_get(got->meta, key);
        if (!skip && (!have || strcmp(have, value)))
            fail_msg("%s: %s is '%s', wanted '%s'", golden_name, key, have ? have : "(none)",
                     value);
    }
    slr_network_unref(want);
}

/* The other program's own factors, clamped here, are its clamped factors: what a clamp does without
 * the signs that an SVD chooses. */
static inline void clamps_as(const char *plain, const char *clamped, double q)
{
    slr_network *a = opened(plain), *b = opened(clamped);
    size_t n = 0;
    for (size_t i = 0; i < a->n_modules; i++) {
        const slr_module *x = &a->module[i],
                         *y = slr_network_find(b, x->target.part, x->target.path);
        if (!y || x->rank != y->rank)
            continue;
        const slr_network_slot *d = slr_module_slot(x, &a->slot[x->slot], 0),
                               *u = slr_module_slot(x, &a->slot[x->slot], 1);
        const slr_network_slot *e = slr_module_slot(y, &b->slot[y->slot], 0),
                               *v = slr_module_slot(y, &b->slot[y->slot], 1);
        float *down = a->params + d->offset, *up = a->params + u->offset;
        ok(slr_clamp_factors(NULL, up, u->count, down, d->count, q));
        assert_true(golden_compare(down, b->params + e->offset, d->count).max <= 1e-6);
        assert_true(golden_compare(up, b->params + v->offset, u->count).max <= 1e-6);
        n++;
    }
    assert_true(n >= 5);
    slr_network_unref(a);
    slr_network_unref(b);
}

/* Written and read again, it is the same network. */
static inline void survives(const slr_network *n)
{
    char path[64];
    slr_network *again;
    slr_meta *meta;
    ok(slr_meta_new(&meta, NULL));
    ok(slr_netfile_save(n, temp_file(path), SDLORA_F32, meta));
    ok(slr_network_open(&again, NULL, base, path));
    assert_int_equal(again->n_modules, n->n_modules);
    for (size_t i = 0; i < again->n_modules; i++) {
        const slr_module *y = &again->module[i],
                         *x = slr_network_find(n, y->target.part, y->target.path);
        assert_non_null(x);
        assert_int_equal(x->rank, y->rank);
        assert_true(delta_error(n, x, again, y) <= 1e-6); /* alpha may be rounded to f32 */
    }
    slr_network_unref(again);
    slr_meta_free(meta);
    unlink(path);
}

#endif
