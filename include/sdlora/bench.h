/* SPDX-License-Identifier: MIT */
/**
 * @file sdlora/bench.h
 * Timings of a model's parts as shares of what the machine can do in the same run.
 * Return, out and text rules: see sdlora/context.h.
 */
#ifndef SDLORA_BENCH_H
#define SDLORA_BENCH_H

#include <sdlora/trainer.h>
#include <sdlora/types.h>

SDLORA_BEGIN_DECLS

/**
 * Measures and returns JSON text (give it back with sdlora_text_free): the machine's best rates of
 * products, convolutions and copying; then for each part seconds (median and best), counted TFLOP,
 * rate, share of the best rate in the same storage type, peak memory of the process.
 * @param opts  Nullable: defaults.  Kind "bench": what (of forward, step, step_te, vae, text,
 * txt2img; step_te trains the text encoder too), width, height, batch, repeats, network_dim,
 * mixed_precision, gradient_checkpointing, profile (operations by the time lost to the machine's
 * rates, and microseconds between two operations).
 * @param progress  Nullable.  Phases "machine" and the name of each part in the result, before its
 * first run and after each; elapsed and eta (of the phase) are filled.
 * Errors: SDLORA_ECANCELED when progress asked for it.
 */
SDLORA_API int sdlora_bench(sdlora_context *ctx, sdlora_checkpoint *ckpt,
                            const sdlora_options *opts, sdlora_progress_fn progress, void *user,
                            char **json);

SDLORA_END_DECLS
#endif /* SDLORA_BENCH_H */
