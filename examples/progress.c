/* SPDX-License-Identifier: MIT */
/* Trains with a line of progress; Ctrl-C stops it cleanly, and the next start goes on from there:
 *     progress CHECKPOINT PICTURES OUTPUT_DIR STEPS [STOP_AFTER] */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <sdlora/sdlora.h>

static sdlora_trainer *running; /* what a signal stops; NULL: nothing */

static void interrupted(int number)
{
    (void)number;
    if (running)
        sdlora_trainer_cancel(running); /* allowed in signal handlers */
}

static int progress(const sdlora_progress *now, void *user)
{
    const long *stop_after = user;
    fprintf(stderr, "\r%-8s %4" PRId64 "/%" PRId64 "  loss %.4f", now->phase, now->step, now->total,
            now->average_loss);
    if (!isnan(now->eta))
        fprintf(stderr, "  %5.1f s to go ", now->eta);
    return *stop_after && now->step >= *stop_after;
}

int main(int argc, char **argv)
{
    sdlora_options *data_opts = NULL, *opts = NULL;
    sdlora_context *ctx = NULL;
    sdlora_checkpoint *ckpt = NULL;
    sdlora_dataset *data = NULL;
    sdlora_network *net = NULL;
    long stop_after = argc > 5 ? strtol(argv[5], NULL, 10) : 0;
    char state[4096];
    FILE *left;
    int rc;
    if (argc < 5)
        return fprintf(stderr, "usage: %s CHECKPOINT PICTURES OUTPUT_DIR STEPS\n", argv[0]), 2;
    snprintf(state, sizeof state, "%s/progress.state", argv[3]);
    if (!(rc = sdlora_options_new(&data_opts, "dataset")) &&
        !(rc = sdlora_options_set_text(data_opts, "train_data_dir", argv[2])) &&
        !(rc = sdlora_options_set_text(data_opts, "caption_extension", ".txt")) &&
        !(rc = sdlora_options_set_int(data_opts, "resolution", 64)) &&
        !(rc = sdlora_options_new(&opts, "train")) &&
        !(rc = sdlora_options_set_text(opts, "output_dir", argv[3])) &&
        !(rc = sdlora_options_set_text(opts, "max_train_steps", argv[4])) &&
        !(rc = sdlora_options_set_real(opts, "learning_rate", 1e-3)) &&
        !(rc = sdlora_context_new(&ctx, NULL, NULL)) &&
        !(rc = sdlora_checkpoint_open(&ckpt, ctx, argv[1], NULL)) &&
        !(rc = sdlora_dataset_open(&data, ctx, data_opts)) &&
        !(rc = sdlora_network_new(&net, ckpt, NULL, 0)))
        rc = sdlora_trainer_new(&running, ckpt, NULL, net, data, NULL, opts, progress, &stop_after);
    if (!rc && (left = fopen(state, "rb")) != NULL) { /* an earlier start was stopped */
        fclose(left);
        rc = sdlora_trainer_resume(running, state);
    }
    signal(SIGINT, interrupted);
    if (!rc && (rc = sdlora_trainer_run(running)) == SDLORA_ECANCELED &&
        !(rc = sdlora_trainer_save_state(running, state)))
        fprintf(stderr, "\nstopped; start again to go on from %s", state);
    fprintf(stderr, "\n%s", rc < 0 ? sdlora_last_error()->message : "");
    signal(SIGINT, SIG_DFL);
    sdlora_trainer_unref(running);
    sdlora_network_unref(net);
    sdlora_dataset_unref(data);
    sdlora_checkpoint_unref(ckpt);
    sdlora_context_unref(ctx);
    sdlora_options_unref(opts);
    sdlora_options_unref(data_opts);
    return rc < 0;
}
