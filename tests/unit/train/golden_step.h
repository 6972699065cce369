/* SPDX-License-Identifier: MIT */
/* What tests of training steps against an oracle share: networks out of a golden file, a step's
 * graph for two latents of 8 x 8, and its inputs. */
#ifndef GOLDEN_STEP_H
#define GOLDEN_STEP_H

#include "train/noise.h"
#include "train/optim.h"
#include "train/step.h"
#include "unit/networks/network_test.h"

/* The tensors `<which>.net.<key>`, written as a file and opened as any other. */
static inline slr_network *golden_network(const golden *g, slr_checkpoint *base, const char *which)
{
    char prefix[64], path[64];
    snprintf(prefix, sizeof prefix, "%s.net.", which);
    size_t n = 0, count = slr_safetensors_count(g->file);
    slr_st_entry *e = slr_calloc(NULL, count, sizeof *e);
    for (size_t i = 0; i < count; i++) {
        slr_tensor t;
        const char *name = slr_safetensors_at(g->file, i, &t);
        if (!strncmp(name, prefix, strlen(prefix)))
            e[n++] = (slr_st_entry){name + strlen(prefix), t};
    }
    ok(slr_safetensors_write(NULL, temp_file(path), e, n, NULL, 0));
    slr_network *net;
    ok(slr_network_open(&net, slr_checkpoint_mem(base), base, path));
    unlink(path);
    slr_free(NULL, e);
    return net;
}

static inline slr_step *golden_step(slr_checkpoint *base, slr_devices *devices, slr_network *net,
                                    slr_stack *stack, unsigned parts)
{
    slr_step *s;
    slr_step_config config = {.mem = slr_checkpoint_mem(base),
                              .base = base,
                              .network = net,
                              .stack = stack,
                              .devices = devices,
                              .n = 2,
                              .h = 8,
                              .w = 8,
                              .n_chunks = 1,
                              .clip_skip = 1,
                              .loss_type = SDLORA_LOSS_L2,
                              .part_mask = parts};
    ok(slr_step_new(&s, &config));
    return s;
}

/* Fills a step from the oracle's latents, noise, t and ids at `at` of a [20,...] tensor, or of a
 * single one. */
static inline void golden_fill(const golden *g, slr_step *s, const char *prefix, size_t at)
{
    char name[80];
    const slr_step_io *io = slr_step_io_of(s);
    const char *const parts[] = {"latents", "noise"};
    float *x[2], *nhwc[2];
    slr_tensor t;
    const size_t floats = 2 * 4 * 8 * 8;
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s.%s", prefix, parts[i]);
        x[i] = golden_f32(g, name, NULL);
        nhwc[i] = slr_alloc(NULL, floats * sizeof(float));
        slr_nchw_to_nhwc(nhwc[i], x[i] + at * floats, 2, 4, 8, 8);
    }
    slr_noise noise;
    ok(slr_noise_init(&noise, (slr_opt){NULL, "train"}, SLR_PREDICT_EPS));
    snprintf(name, sizeof name, "%s.t", prefix);
    int32_t *time = golden_i32(g, name, &t);
    snprintf(name, sizeof name, "%s.ids", prefix);
    int32_t *ids = golden_i32(g, name, &t);
    for (size_t i = 0; i < 2; i++) {
        int at_t = time[at * 2 + i];
        slr_noise_fixed(&noise, nhwc[0] + i * 256, nhwc[1] + i * 256, 256, at_t, io->x + i * 256,
                        io->target + i * 256);
        io->t[i] = (float)at_t;
        io->weight[i] = 1.0f;
    }
    memcpy(io->text.ids[0], ids + at * 154, 154 * sizeof *ids);
    for (int i = 0; i < 2; i++) {
        slr_free(NULL, x[i]);
        slr_free(NULL, nhwc[i]);
    }
    slr_free(NULL, time);
    slr_free(NULL, ids);
}

static inline double golden_loss(const slr_step *s)
{
    const slr_step_io *io = slr_step_io_of((slr_step *)s);
    return (io->loss[0] + io->loss[1]) / 2;
}

/* 20 steps of AdamW with the rates and the clipping of make_lora.py; opts: Nullable, of `train`.
 * Returns the worst relative error of a loss against `<which>.<loss>`. */
static inline double golden_train(const golden *inputs, const golden *want, const char *loss,
                                  slr_checkpoint *base, slr_devices *devices, slr_network *net,
                                  slr_step *s, const char *prefix, unsigned parts,
                                  const sdlora_options *opts)
{
    slr_optim *optim;
    const double lr[SLR_PART_COUNT] = {[SLR_PART_UNET] = 1e-3, [SLR_PART_TE] = 5e-4};
    float *losses = golden_f32(want, loss, NULL);
    double worst = 0;
    ok(slr_optim_new(&optim, slr_checkpoint_mem(base), net, devices, (slr_opt){opts, "train"},
                     parts, NULL));
    for (int i = 0; i < 20; i++) {
        double norm;
        golden_fill(inputs, s, prefix, (size_t)i);
        ok(slr_step_run(s, NULL));
        worst = fmax(worst, fabs(golden_loss(s) - losses[i]) / losses[i]);
        memcpy(slr_optim_grad(optim), slr_step_io_of(s)->grad,
               slr_network_param_count(net) * sizeof(float));
        ok(slr_optim_norm(optim, &norm));
        ok(slr_optim_apply(optim, i + 1, lr, fmin(1.0, 1.0 / (norm + 1e-6))));
    }
    slr_free(NULL, losses);
    slr_optim_free(optim);
    return worst;
}

#endif
