/* SPDX-License-Identifier: MIT */
/* Progress and interrupts of jobs that leave nothing behind when they are stopped: `eval`, `bench`.
 *
 * The first interrupt (Ctrl-C) ends the job at its next report, a second one the process. */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

void cli_watch_interrupts(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESTART | (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int cli_watch(const sdlora_progress *now, void *user)
{
    (void)user;
    cli_progress(now->phase, now->phase_done, now->phase_total, now->eta, "");
    if (now->phase_done >= now->phase_total)
        cli_progress_end();
    return interrupted;
}

int cli_watch_failed(int rc)
{
    cli_progress_end();
    if (rc != SDLORA_ECANCELED || !interrupted)
        return cli_failed();
    fprintf(stderr, "stopped\n");
    return CLI_INTERRUPTED;
}
