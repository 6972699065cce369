/* SPDX-License-Identifier: MIT */
/* Networks and pictures for `generate` and `sheet`. */
#include "draw.h"

#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int cli_open_network(sdlora_network **net, double *weight, cli_model *m, const char *spec,
                     const sdlora_options *o)
{
    const char *policy = NULL;
    sdlora_options *how = NULL;
    const char *colon = strrchr(spec, ':');
    double w = 1;
    char *path;
    int rc;

    if (!weight || !colon || !cli_real(colon + 1, &w))
        colon = spec + strlen(spec);
    path = strndup(spec, (size_t)(colon - spec));
    rc = sdlora_options_new(&how, "network");
    if (rc >= 0)
        rc = sdlora_options_get_text(o, "lora_unmatched", &policy);
    if (rc >= 0)
        rc = sdlora_options_set_text(how, "lora_unmatched", policy);
    if (rc >= 0)
        rc = sdlora_network_open_with(net, m->ckpt, path, how);
    if (rc >= 0 && sdlora_network_skipped(*net))
        fprintf(stderr, "sdlora: %s: %zu tensors were skipped, such as %s\n", path,
                sdlora_network_skipped(*net), sdlora_network_skipped_key(*net, 0));
    sdlora_options_unref(how);
    free(path);
    if (weight)
        *weight = w;
    return rc;
}

int cli_add_embeddings(sdlora_generator *g, const cli_list *paths)
{
    int rc = SDLORA_OK;

    for (size_t i = 0; rc >= 0 && i < paths->n; i++)
        rc = sdlora_generator_add_embeddings(g, paths->item[i]);
    return rc;
}

static int show(const sdlora_progress *now, void *user)
{
    if (now->phase_total > 0)
        cli_progress(user, now->phase_done, now->phase_total, now->eta, "");
    return 0;
}

int cli_draw(sdlora_generator *g, sdlora_options *o, const char *what, sdlora_image **image)
{
    char name[64];
    int rc;

    snprintf(name, sizeof name, "%s", what);
    sdlora_generator_set_watch(g, show, name);
    rc = sdlora_generator_run(g, o, image, 1);
    if (rc >= 0) /* another call would clear the failure's text; g is then not run again */
        rc = sdlora_generator_set_watch(g, NULL, NULL);
    return rc;
}

long long cli_seed(sdlora_options *o)
{
    struct timespec now;
    int64_t seed = -1;

    sdlora_options_get_int(o, "seed", &seed);
    if (seed < 0) {
        clock_gettime(CLOCK_REALTIME, &now);
        seed = (int64_t)(((unsigned long long)now.tv_nsec * 2654435761u ^
                          (unsigned long long)now.tv_sec ^ (unsigned long long)getpid() << 16) &
                         0xffffffffu);
        sdlora_options_set_int(o, "seed", seed);
    }
    return (long long)seed;
}
