/* SPDX-License-Identifier: MIT */
/* Replays files through a fuzz target, where there is no libFuzzer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    int i;
    for (i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        uint8_t *buf = malloc(1 << 20), *exact;
        size_t n, k;
        if (!f || !buf) {
            printf("cannot read %s\n", argv[i]);
            return 1;
        }
        n = fread(buf, 1, 1 << 20, f);
        fclose(f);
        exact = malloc(n ? n : 1);
        if (!exact)
            return 1;
        for (k = 0; k < n; k++)
            exact[k] = buf[k];
        free(buf);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    printf("%d inputs replayed\n", argc - 1);
    return argc < 2;
}
