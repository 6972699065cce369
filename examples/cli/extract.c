/* SPDX-License-Identifier: MIT */
/* sdlora extract: what training changed between two models, as a network. */
#include "nets.h"

#include <stdio.h>

typedef struct job {
    const char *tuned, *base, *to, *precision;
    cli_model m;
    sdlora_checkpoint *other;
    sdlora_network *made;
} job;

static int run(job *j, const cli_args *a)
{
    sdlora_options *o = cli_options(a, "extract");
    int rc;

    cli_watch_interrupts();
    rc = cli_open(&j->m, a, j->base, NULL);
    if (rc >= 0)
        rc = sdlora_checkpoint_open(&j->other, j->m.ctx, j->tuned, cli_options(a, "checkpoint"));
    if (rc >= 0)
        rc = cli_nets_title(o, j->to);
    if (rc >= 0)
        rc = sdlora_network_extract(&j->made, j->other, j->m.ckpt, o, cli_watch, NULL);
    if (rc >= 0)
        rc = sdlora_network_save(j->made, j->to, j->precision);
    if (rc < 0)
        return cli_watch_failed(rc);
    printf("%s: %zu modules\n", j->to, sdlora_network_modules(j->made));
    return CLI_OK;
}

int cli_extract(int argc, char **argv)
{
    static const char *const kinds[] = {"extract", "checkpoint", "context", NULL};
    job j = {0};
    const cli_flag flags[] = {
        {"model_tuned", CLI_FLAG_TEXT, &j.tuned, "the model that was trained"},
        {"model_org", CLI_FLAG_TEXT, &j.base, "the model that training began from"},
        {"save_to", CLI_FLAG_TEXT, &j.to, "the network file to write"},
        {"save_precision", CLI_FLAG_TEXT, &j.precision, "float (default), fp16 or bf16"},
    };
    cli_args a = {.usage =
                      "extract --model_tuned MODEL --model_org MODEL --save_to FILE [--dim 32]",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && a.words.n)
        status = cli_usage("extract takes flags only; '%s' is none", a.words.item[0]);
    if (status < 0 && (!j.tuned || !j.base || !j.to))
        status = cli_usage("extract wants --model_tuned, --model_org and --save_to");
    if (status < 0)
        status = run(&j, &a);
    sdlora_network_unref(j.made);
    sdlora_checkpoint_unref(j.other);
    cli_close(&j.m);
    cli_args_free(&a);
    return status;
}
