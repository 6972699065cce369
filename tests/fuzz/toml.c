/* SPDX-License-Identifier: MIT */
/* TOML: any bytes give a tree or a sentence, and a tree can be written as JSON. */
#include "fuzz.h"
#include "io/toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *j = NULL;
    FUZZ_CHECK((slr_toml_parse(&j, (const char *)data, size, "fuzz") == 0) == (j != NULL));
    if (j) {
        char *text = json_dumps(j, 0);
        FUZZ_CHECK(text != NULL);
        free(text);
        json_decref(j);
    }
    return 0;
}
