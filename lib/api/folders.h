/* SPDX-License-Identifier: MIT */
/* Files that callers name and that lie in directories which they gave: VAEs and upscalers. */
#ifndef SLR_API_FOLDERS_H
#define SLR_API_FOLDERS_H

#include "base/str.h"
#include "io/file.h"

typedef struct slr_folders {
    slr_mem *m;
    slr_list dirs;
} slr_folders;

void slr_folders_init(slr_folders *f, slr_mem *m);
void slr_folders_free(slr_folders *f);
int slr_folders_add(slr_folders *f, const char *dir); /* ENOTFOUND: it is none */

/* Whether a file, by its path below the directory, is the one. */
typedef bool (*slr_folders_fn)(const void *user, const char *inner);
/* The first such file of the directories and those below them, nearer to the top first and then in
 * byte order; *path NULL: there is none.  The caller frees it. */
int slr_folders_find(const slr_folders *f, slr_folders_fn match, const void *user, char **path);

/* Names, without directories, of all files with an ending of weights, each once and by the
 * alphabet; stems: without that ending.  Free with slr_list_free, also after a failure. */
int slr_folders_names(const slr_folders *f, bool stems, slr_list *out);

/* Whether a file of weights has this name or this stem; a name with folders is compared with all of
 * the path below the directory, another with its last part. */
bool slr_folders_means(slr_str name, const char *inner);
/* The file of the directories that a name means so.  ENOTFOUND: "there is no <what> '<name>' ...".
 */
int slr_folders_within(const slr_folders *f, const char *what, slr_str name, char **path);
/* The same, but a file's path is that file.  For names that the caller gave. */
int slr_folders_named(const slr_folders *f, const char *what, const char *name, char **path);

/* The file of the option sd_vae for a checkpoint, by AUTOMATIC1111's rule: "None" and nothing found
 * by "Automatic" give *path NULL, which is the checkpoint's own.  "Automatic" looks at the
 * checkpoint's user metadata (<stem>.json), for <stem>.vae.* beside it, and in the directories for
 * <stem>.*. */
int slr_folders_vae(const slr_folders *f, const char *setting, const char *ckpt, char **path);

#endif
