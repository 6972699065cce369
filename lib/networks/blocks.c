/* SPDX-License-Identifier: MIT */
/* Block weights, as the extensions of AUTOMATIC1111 write them and svd_merge_lora.py takes them:
 * lists of numbers for the text encoder, the input, middle and output blocks.  Refuses to know what
 * they multiply. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "networks/tools.h"

/* The places of a list of 26: BASE, IN00 to IN11, MID, OUT00 to OUT11. */
enum { BASE = 0, IN = 1, MID = 13, OUT = 14, PLACES = 26 };

/* Shorter lists leave places out: bit i of `has` says that place i is in the list. */
#define PLACE_IN(n)   (1u << (IN + (n)))
#define PLACE_OUT(n)  (1u << (OUT + (n)))
#define ALL_OUT_TO(n) (((1u << ((n) + 1)) - 1) << OUT)
static const struct {
    size_t n;
    uint32_t has;
    bool sdxl; /* the numbers are those of SDXL's blocks */
} lists[] = {
    {12,
     1u << BASE | 1u << MID | PLACE_IN(4) | PLACE_IN(5) | PLACE_IN(7) | PLACE_IN(8) | ALL_OUT_TO(5),
     true},
    {17,
     1u << BASE | 1u << MID | PLACE_IN(1) | PLACE_IN(2) | PLACE_IN(4) | PLACE_IN(5) | PLACE_IN(7) |
         PLACE_IN(8) | (ALL_OUT_TO(11) & ~ALL_OUT_TO(2)),
     false},
    {20, 1u << BASE | 1u << MID | ((1u << 9) - 1) << IN | ALL_OUT_TO(8), true},
    {26, (1u << PLACES) - 1, false},
};

enum { LISTS = sizeof lists / sizeof *lists };

static int list_of(size_t n)
{
    for (int i = 0; i < LISTS; i++)
        if (lists[i].n == n)
            return i;
    return -1;
}

int slr_blocks_parse(slr_blocks *out, const char *text)
{
    slr_str rest = slr_str_trim(slr_str_of(text)), piece;
    *out = (slr_blocks){0};
    if (rest.n >= 2 && rest.p[0] == '[' && rest.p[rest.n - 1] == ']')
        rest = (slr_str){rest.p + 1, rest.n - 2};
    while (slr_str_next(&rest, ',', &piece)) {
        char number[32];
        piece = slr_str_trim(piece);
        bool fits = piece.n < sizeof number && out->n < PLACES;
        if (fits) {
            memcpy(number, piece.p, piece.n);
            number[piece.n] = '\0';
        }
        if (!fits || !slr_parse_real(number, &out->weight[out->n]))
            return slr_fail(SDLORA_EINVAL, __func__,
                            "block weights are 12, 17, 20 or 26 numbers with commas between, not "
                            "'%s'",
                            text);
        out->n++;
    }
    if (list_of(out->n) < 0)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "there are 12, 17, 20 or 26 block weights, not %zu: '%s'", out->n, text);
    return SDLORA_OK;
}

/* sd-scripts counts SD 1 and 2 from diffusers' names, three numbers a level. */
static int place_by_level(const char *path)
{
    static const struct {
        const char *format;
        int first, level, step; /* place = first + 3 level + step of the block in it */
    } rows[] = {
        {"down_blocks.%d.resnets.%d.", IN, 3, 1},      {"down_blocks.%d.attentions.%d.", IN, 3, 1},
        {"down_blocks.%d.downsamplers.%d.", IN, 3, 3}, {"up_blocks.%d.resnets.%d.", OUT, 3, 0},
        {"up_blocks.%d.attentions.%d.", OUT, 3, 0},    {"up_blocks.%d.upsamplers.%d.", OUT, 3, 2},
    };
    if (slr_starts(path, "mid_block."))
        return MID;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int level, block;
        if (sscanf(path, rows[i].format, &level, &block) == 2)
            return rows[i].first + rows[i].level * level + rows[i].step + block;
    }
    return -1;
}

/* SDXL is counted by LDM's own numbers. */
static int place_by_number(const slr_unet_map *map, const char *path)
{
    char ldm[SLR_NAME];
    int number;
    if (!map || !slr_unet_to_ldm(map, path, ldm))
        return -1;
    if (slr_starts(ldm, "time_embed.") || slr_starts(ldm, "label_emb."))
        return IN;
    if (slr_starts(ldm, "middle_block."))
        return MID;
    if (sscanf(ldm, "input_blocks.%d.", &number) == 1)
        return IN + number;
    return sscanf(ldm, "output_blocks.%d.", &number) == 1 ? OUT + number : -1;
}

double slr_blocks_weight(const slr_blocks *b, int part, const char *path)
{
    int list = list_of(b->n), at = BASE;
    if (list < 0)
        return 1.0;
    if (part == SLR_PART_UNET)
        at = lists[list].sdxl ? place_by_number(b->map, path) : place_by_level(path);
    if (at < 0 || at >= PLACES || !(lists[list].has >> at & 1u))
        return 1.0; /* a block that has no number of its own */
    size_t index = 0;
    for (int i = 0; i < at; i++)
        index += lists[list].has >> i & 1u;
    return b->weight[index];
}
