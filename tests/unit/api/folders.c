/* SPDX-License-Identifier: MIT */
/* Which file a name means: VAEs beside a checkpoint, in directories and in user metadata, upscalers
 * by stem; and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "api/folders.h"
#include "base/status.h"

static char root[64];
static slr_folders vaes;

static const char *at(const char *name)
{
    static char path[2][160];
    static int k;

    k = !k;
    snprintf(path[k], sizeof path[k], "%s/%s", root, name);
    return path[k];
}

static void put(const char *name, const char *text)
{
    assert_int_equal(slr_file_write(NULL, at(name), text, strlen(text)), SDLORA_OK);
}

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "%s", "/tmp/sdlora-folders-XXXXXX");
    if (!mkdtemp(root) || mkdir(at("models"), 0777) || mkdir(at("vae"), 0777) ||
        mkdir(at("vae/deep"), 0777))
        return -1;
    slr_folders_init(&vaes, NULL);
    return slr_folders_add(&vaes, at("vae"));
}

static int teardown(void **state)
{
    (void)state;
    char command[96];

    slr_folders_free(&vaes);
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

/* want NULL: the checkpoint's own. */
static void check(const char *setting, const char *ckpt, const char *want)
{
    char *path;

    assert_int_equal(slr_folders_vae(&vaes, setting, at(ckpt), &path), SDLORA_OK);
    if (want)
        assert_string_equal(path, at(want));
    else
        assert_null(path);
    slr_free(NULL, path);
}

static void automatic(void **state)
{
    (void)state;
    put("models/a.safetensors", "");
    put("models/ab.vae.pt", ""); /* begins alike and belongs to another */
    check("Automatic", "models/a.safetensors", NULL);
    put("vae/deep/a.safetensors", "");
    check("Automatic", "models/a.safetensors", "vae/deep/a.safetensors");
    put("models/a.vae.pt", "");
    check("auto", "models/a.safetensors", "models/a.vae.pt");
    check("None", "models/a.safetensors", NULL);
    put("vae/b.fixed.vae.safetensors", "");
    check("Automatic", "models/b.ckpt", "vae/b.fixed.vae.safetensors");
    put("vae/b.vae.txt", "");
    put("vae/b.vae.safetensors", ""); /* nothing but .vae after the stem comes first */
    check("Automatic", "models/b.ckpt", "vae/b.vae.safetensors");
    put("vae/c.safetensors", "");
    check("Automatic", "vae/c.safetensors", NULL); /* not itself */
}

static void metadata(void **state)
{
    (void)state;
    put("vae/mse.safetensors", "");
    put("models/a.json", "{\"vae\": \"mse.safetensors\"}");
    check("Automatic", "models/a.safetensors", "vae/mse.safetensors");
    put("models/a.json", "{\"vae\": \"None\"}");
    check("Automatic", "models/a.safetensors", NULL);
    put("models/a.json", "{\"vae\": 7}");
    check("Automatic", "models/a.safetensors", "models/a.vae.pt");
    put("models/a.json", "no json");
    check("Automatic", "models/a.safetensors", "models/a.vae.pt");
}

/* A name with folders is one of a certain place, one without is anywhere. */
static void named_with_folders(void **state)
{
    (void)state;
    static const struct {
        const char *name, *file;
    } rows[] = {{"deep/d", "vae/deep/d.safetensors"},
                {"deep/d.safetensors", "vae/deep/d.safetensors"},
                {"deep\\d.safetensors", "vae/deep/d.safetensors"},
                {"d", "vae/d.safetensors"},
                {"d.safetensors", "vae/d.safetensors"},
                {"ep/d", NULL},
                {"deep/", NULL},
                {"vae/deep/d", NULL},
                {"../vae/deep/d", NULL},
                {"/deep/d", NULL},
                {"d.safetensor", NULL}};
    char *path;

    put("vae/deep/d.safetensors", "");
    put("vae/d.safetensors", "");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(slr_folders_named(&vaes, "VAE", rows[i].name, &path),
                         rows[i].file ? SDLORA_OK : SDLORA_ENOTFOUND);
        if (rows[i].file)
            assert_string_equal(path, at(rows[i].file));
        else
            assert_null(path);
        slr_free(NULL, path);
    }
}

static void named(void **state)
{
    (void)state;
    char *path;
    slr_folders none;

    put("vae/x4.pth", "");
    check("mse.safetensors", "models/a.safetensors", "vae/mse.safetensors");
    check("mse", "models/a.safetensors", "vae/mse.safetensors");
    check(at("vae/x4.pth"), "models/a.safetensors", "vae/x4.pth");
    assert_int_equal(slr_folders_named(&vaes, "upscaler", "x4", &path), SDLORA_OK);
    slr_free(NULL, path);
    assert_int_equal(slr_folders_named(&vaes, "upscaler", "x8", &path), SDLORA_ENOTFOUND);
    assert_null(path);
    assert_non_null(strstr(sdlora_last_error()->message, "no upscaler 'x8'"));
    slr_folders_init(&none, NULL);
    assert_int_equal(slr_folders_vae(&none, "x8", at("models/a.safetensors"), &path),
                     SDLORA_ENOTFOUND);
    assert_non_null(strstr(sdlora_last_error()->message, "no directory"));
    assert_int_equal(slr_folders_add(&none, at("nowhere")), SDLORA_ENOTFOUND);
    slr_folders_free(&none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(automatic), cmocka_unit_test(metadata),
                                       cmocka_unit_test(named),
                                       cmocka_unit_test(named_with_folders)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
