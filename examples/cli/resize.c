/* SPDX-License-Identifier: MIT */
/* sdlora resize: a network with fewer ranks. */
#include "nets.h"

#include <stdio.h>

static int run(cli_nets *s, const cli_args *a, const char *ckpt, const char *to,
               const char *precision)
{
    sdlora_options *o = cli_options(a, "resize");
    sdlora_network *made = NULL;
    int64_t verbose = 0;
    int rc;

    cli_watch_interrupts();
    rc = cli_nets_open(s, a, ckpt, &a->words);
    if (rc >= 0)
        rc = sdlora_options_get_int(o, "verbose", &verbose);
    if (rc >= 0 && verbose)
        rc = cli_nets_verbose(s->m.ctx);
    if (rc >= 0)
        rc = sdlora_network_resize(&made, s->net[0], o, cli_watch, NULL);
    if (rc >= 0)
        rc = sdlora_network_save(made, to, precision);
    if (rc >= 0)
        printf("%s: %zu modules, dim %s, alpha %s\n", to, sdlora_network_modules(made),
               sdlora_network_metadata(made, "ss_network_dim"),
               sdlora_network_metadata(made, "ss_network_alpha"));
    sdlora_network_unref(made);
    return rc < 0 ? cli_watch_failed(rc) : CLI_OK;
}

int cli_resize(int argc, char **argv)
{
    static const char *const kinds[] = {"resize", "context", NULL};
    const char *ckpt = NULL, *to = NULL, *precision = NULL, *model = NULL;
    cli_nets s = {0};
    const cli_flag flags[] = {
        {"save_to", CLI_FLAG_TEXT, &to, "the file to write"},
        {"save_precision", CLI_FLAG_TEXT, &precision, "float (default), fp16 or bf16"},
        {"model", CLI_FLAG_TEXT, &model, "the network, if it is not named without a flag"},
        {"ckpt", CLI_FLAG_TEXT, &ckpt,
         "the model that it is for; needed only for other architectures than SD 1.5, 2.1 and XL"},
    };
    cli_args a = {.usage = "resize NETWORK --save_to FILE [--new_rank 8 | --dynamic_method sv_fro "
                           "--dynamic_param 0.95 --new_rank 32]",
                  .flags = flags,
                  .n_flags = sizeof flags / sizeof *flags,
                  .kinds = kinds};
    int status = cli_parse(&a, argc, argv);

    if (status < 0 && model && a.words.n == 0)
        a.words.item[a.words.n++] = model;
    if (status < 0 && (a.words.n != 1 || !to))
        status = cli_usage("resize wants one network and --save_to FILE");
    if (status < 0)
        status = run(&s, &a, ckpt, to, precision);
    cli_nets_close(&s);
    cli_args_free(&a);
    return status;
}
