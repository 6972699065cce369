/* SPDX-License-Identifier: MIT */
/* The files of the torture, which lie below one folder per scenario. */
#ifndef TEST_TORTURE_H
#define TEST_TORTURE_H

#define LAYOUTS TEST_ROOT "/golden/layouts/"
#define CKPT    "torture-model.safetensors"  /* shared by all scenarios */
#define SECOND  "torture-second.safetensors" /* the same in another file */

void torture_die(const char *what); /* ends the process with the library's last sentence */
const char *torture_in(const char *dir, const char *name); /* valid for three calls more */
/* Makes the folder with pictures/, single/ (one picture), loras/, models/ (SECOND)
 * and out/, and CKPT and SECOND if they are not there yet. */
void torture_files(const char *dir);

#endif
