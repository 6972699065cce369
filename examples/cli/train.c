/* SPDX-License-Identifier: MIT */
/* sdlora train: kohya's train_network.py flags, each of them a row of the option table.
 *
 * An interrupt (Ctrl-C) lets the step at hand end, saves the network and the state, and exits with
 * 130; a second one gives up at once.  After a failure what was trained is saved as well. */
#include "training.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

typedef struct job {
    cli_training with;
    sdlora_trainer *trainer;
} job;

/* --- interrupts --- */

static volatile sig_atomic_t interrupts;
static sdlora_trainer *volatile running; /* NULL until it can be cancelled */

static void on_interrupt(int number)
{
    if (++interrupts < 2)
        return;
    signal(number, SIG_DFL); /* a third one ends the process */
    if (running)
        sdlora_trainer_cancel(running);
}

static void catch_interrupts(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* --- progress --- */

static void print_real(const char *name, double v)
{
    if (isfinite(v))
        printf(", \"%s\": %.9g", name, v);
    else
        printf(", \"%s\": null", name);
}

static void print_json(const sdlora_progress *p)
{
    printf("{\"phase\": \"%s\", \"step\": %lld, \"total\": %lld, \"epoch\": %lld", p->phase,
           (long long)p->step, (long long)p->total, (long long)p->epoch);
    print_real("loss", p->loss);
    print_real("average_loss", p->average_loss);
    print_real("val_loss", p->val_loss);
    print_real("unet_lr", p->unet_lr);
    print_real("text_encoder_lr", p->text_encoder_lr);
    print_real("text_encoder_2_lr", p->text_encoder_2_lr);
    print_real("grad_norm", p->grad_norm);
    print_real("elapsed", p->elapsed);
    print_real("eta", p->eta);
    printf("}\n");
    fflush(stdout);
}

static void show_step(const job *j, const sdlora_progress *p)
{
    char more[160], val[40] = "";

    if (j->with.json)
        print_json(p);
    if (isfinite(p->val_loss))
        snprintf(val, sizeof val, " held-out %.4f", p->val_loss);
    snprintf(more, sizeof more, "epoch %lld/%lld loss %.4f average %.4f%s %.2f s/step",
             (long long)p->epoch, (long long)p->epochs, p->loss, p->average_loss, val,
             p->step > 0 ? p->elapsed / (double)p->step : 0.0);
    cli_progress("train", p->step, p->total, p->eta, more);
}

/* Encoding pictures, saving, the held-out loss and samples.  What follows a step that is applied
 * goes on after the first interrupt, as the step itself does. */
static int show_phase(const sdlora_progress *now, void *user)
{
    (void)user;
    cli_progress(now->phase, now->phase_done, now->phase_total, NAN, "");
    if (now->phase_done >= now->phase_total)
        cli_progress_end();
    return interrupts > (strcmp(now->phase, "latents") == 0 ? 0 : 1);
}

/* --- the run --- */

static int open_all(job *j, const cli_args *a)
{
    cli_training *t = &j->with;
    int rc = cli_training_open(t, a);

    if (rc < 0)
        return rc;
    return sdlora_trainer_new(&j->trainer, t->m.ckpt, t->m.vae, t->net, t->data, NULL,
                              cli_options(a, "train"), show_phase, j);
}

/* Network and state, where the options say: everything that a later run needs. */
static int save_all(job *j)
{
    int rc = sdlora_trainer_save(j->trainer, NULL);

    return rc < 0 ? rc : sdlora_trainer_save_state(j->trainer, NULL);
}

static void tell_saved(const sdlora_progress *now, const cli_args *a, const char *why)
{
    const char *dir = "", *name = NULL;

    sdlora_options_get_text(cli_options(a, "train"), "output_dir", &dir);
    sdlora_options_get_text(cli_options(a, "train"), "output_name", &name);
    name = name ? name : "last";
    fprintf(stderr,
            "%s after step %lld of %lld; network and state are saved as %s/%s.safetensors and "
            "%s/%s-state, --resume goes on\n",
            why, (long long)now->step, (long long)now->total, dir, name, dir, name);
}

/* After the first interrupt. */
static int save_interrupted(job *j, const sdlora_progress *now, const cli_args *a)
{
    cli_progress_end();
    if (save_all(j) < 0)
        return cli_failed();
    tell_saved(now, a, "interrupted");
    return CLI_INTERRUPTED;
}

/* After a failure: the steps so far must not be lost.  Its text is told before saving clears it. */
static int save_failed(job *j, const sdlora_progress *now, const cli_args *a)
{
    int status = cli_failed();

    if (now->step < 1)
        return status;
    if (save_all(j) < 0)
        fprintf(stderr, "sdlora: after step %lld of %lld saving failed too: %s\n",
                (long long)now->step, (long long)now->total, sdlora_last_error()->message);
    else
        tell_saved(now, a, "stopped");
    return status;
}

/* An interrupt during the last step is too late: the run is complete but for its final files. */
static bool goes_on(const sdlora_progress *now)
{
    return !interrupts || (now->step > 0 && now->step >= now->total);
}

static int run(job *j, const cli_args *a)
{
    sdlora_progress now = {.struct_size = sizeof now};
    int rc;

    catch_interrupts();
    rc = open_all(j, a);
    running = j->trainer;
    while (rc == SDLORA_OK && goes_on(&now))
        if ((rc = sdlora_trainer_step(j->trainer, &now)) == SDLORA_OK)
            show_step(j, &now);
    running = NULL;
    if (rc == SDLORA_OK)
        return save_interrupted(j, &now, a);
    if (rc == SDLORA_ECANCELED && interrupts) {
        cli_progress_end();
        fprintf(stderr, "stopped\n");
        return CLI_INTERRUPTED;
    }
    if (rc < 0)
        return save_failed(j, &now, a);
    cli_progress_end();
    return CLI_OK;
}

int cli_train(int argc, char **argv)
{
    job j = {0};
    cli_args a = {0};
    int status = cli_training_parse(&j.with, &a, "train", argc, argv);

    if (status < 0)
        status = run(&j, &a);
    sdlora_trainer_unref(j.trainer);
    cli_training_close(&j.with, &a);
    return status;
}
