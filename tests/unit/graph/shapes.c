/* SPDX-License-Identifier: MIT */
/* The builder: every row's shape rule with operands that fit and operands that do not, and then the
 * whole sentence. */
#include "graph_test.h"

#define NO                                                                                         \
    {                                                                                              \
        0                                                                                          \
    }
#define F(...)                                                                                     \
    {                                                                                              \
        SDLORA_F32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                     \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define I(...)                                                                                     \
    {                                                                                              \
        SDLORA_I32, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                     \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define INTS(...)                                                                                  \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                                     \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

typedef struct shape_case {
    uint32_t op;
    int n_in;
    slr_shape in[6];
    int n_int;
    int64_t ints[10];
    int n_real;
    const char *want; /* the results' shapes, or the sentence */
} shape_case;

#define CONV1 INTS(1, 1, 1, 1, 1, 1, 1)

static const shape_case good[] = {
    {SDLORA_OP_MATMUL, 4, {F(2, 3, 4), F(5, 4), F(5), F(6, 5)}, INTS(0, 1), 1, "[2,3,5]"},
    {SDLORA_OP_MATMUL, 2, {F(2, 3, 4), F(6, 5)}, INTS(1, 0), 1, "[4,5]"},
    {SDLORA_OP_BMM, 2, {F(2, 4, 3), F(2, 5, 4)}, INTS(1, 1), 1, "[2,3,5]"},
    {SDLORA_OP_INVERSE, 1, {F(2, 3, 3)}, 0, {0}, 0, "[2,3,3]"},
    {SDLORA_OP_CONV2D,
     4,
     {F(2, 9, 8, 4), F(6, 2, 3, 3), F(6), F(2, 5, 4, 6)},
     INTS(2, 2, 1, 0, 1, 1, 2),
     1,
     "[2,5,4,6]"},
    {SDLORA_OP_CONV2D_BX,
     2,
     {F(2, 5, 4, 6), F(6, 2, 3, 3)},
     INTS(2, 2, 1, 0, 1, 1, 2, 9, 8),
     1,
     "[2,9,8,4]"},
    {SDLORA_OP_CONV2D_BW,
     2,
     {F(2, 5, 4, 6), F(2, 9, 8, 4)},
     INTS(2, 2, 1, 0, 1, 1, 2, 3, 3),
     1,
     "[6,2,3,3]"},
    {SDLORA_OP_GROUP_NORM, 3, {F(2, 4, 4, 6), F(6), F(6)}, INTS(3, 1), 1, "[2,4,4,6] [2,3] [2,3]"},
    {SDLORA_OP_GROUP_NORM_BX,
     6,
     {F(2, 4, 6), F(2, 4, 6), F(6), NO, F(2, 3), F(2, 3)},
     INTS(3, 1),
     1,
     "[2,4,6]"},
    {SDLORA_OP_LAYER_NORM, 3, {F(2, 4, 6), NO, F(6)}, 0, {0}, 1, "[2,4,6] [8] [8]"},
    {SDLORA_OP_LAYER_NORM_BX, 5, {F(2, 4, 6), F(2, 4, 6), NO, F(8), F(8)}, 0, {0}, 0, "[2,4,6]"},
    {SDLORA_OP_GROUP_NORM_BW,
     6,
     {F(2, 4, 6), F(2, 4, 6), F(6), NO, F(2, 3), F(2, 3)},
     INTS(3, 1),
     0,
     "[6] [6]"},
    {SDLORA_OP_LAYER_NORM_BW, 4, {F(2, 4, 6), F(2, 4, 6), F(8), F(8)}, 0, {0}, 0, "[6] [6]"},
    {SDLORA_OP_ATTENTION,
     3,
     {F(2, 4, 6), F(2, 7, 6), F(2, 7, 6)},
     INTS(3, 0),
     1,
     "[2,4,6] [2,3,4]"},
    {SDLORA_OP_ATTENTION_B,
     6,
     {F(2, 4, 6), F(2, 4, 6), F(2, 7, 6), F(2, 7, 6), F(2, 4, 6), F(2, 3, 4)},
     INTS(3, 0),
     1,
     "[2,4,6] [2,7,6] [2,7,6]"},
    {SDLORA_OP_ADD, 2, {F(2, 3), F(1, 3)}, 0, {0}, 0, "[2,3]"},
    {SDLORA_OP_SUB, 2, {F(2, 3), F(2, 1)}, 0, {0}, 0, "[2,3]"},
    {SDLORA_OP_MUL, 2, {F(2, 3), F(2, 3)}, 0, {0}, 0, "[2,3]"},
    {SDLORA_OP_AFFINE, 1, {F(2, 3)}, 0, {0}, 2, "[2,3]"},
    {SDLORA_OP_POW, 1, {F(2, 3)}, 0, {0}, 1, "[2,3]"},
    {SDLORA_OP_ACT, 1, {F(2, 3)}, INTS(2), 0, "[2,3]"},
    {SDLORA_OP_ACT_BX, 2, {F(2, 3), F(2, 3)}, INTS(2), 0, "[2,3]"},
    {SDLORA_OP_GEGLU, 1, {F(2, 6)}, 0, {0}, 0, "[2,3]"},
    {SDLORA_OP_GEGLU_BX, 2, {F(2, 3), F(2, 6)}, 0, {0}, 0, "[2,6]"},
    {SDLORA_OP_DROPOUT, 2, {F(2, 3), I(2)}, INTS(0, 1), 1, "[2,3]"},
    {SDLORA_OP_RESHAPE, 1, {F(2, 6)}, INTS(3, 4), 0, "[3,4]"},
    {SDLORA_OP_SLICE, 1, {F(2, 6)}, INTS(1, 2, 3), 0, "[2,3]"},
    {SDLORA_OP_SLICE_BX, 1, {F(2, 3)}, INTS(1, 2, 6), 0, "[2,6]"},
    {SDLORA_OP_CONCAT, 3, {F(2, 3), F(2, 1), F(2, 5)}, INTS(1), 0, "[2,9]"},
    {SDLORA_OP_PERMUTE, 1, {F(2, 3, 4)}, INTS(2, 0, 1), 0, "[4,2,3]"},
    {SDLORA_OP_CAST, 1, {I(2, 3)}, INTS(SDLORA_F32), 0, "[2,3]"},
    {SDLORA_OP_FILL, 0, {NO}, INTS(2, 3), 1, "[2,3]"},
    {SDLORA_OP_UPSAMPLE2, 1, {F(1, 2, 3, 4)}, 0, {0}, 0, "[1,4,6,4]"},
    {SDLORA_OP_UPSAMPLE2_BX, 1, {F(1, 4, 6, 4)}, 0, {0}, 0, "[1,2,3,4]"},
    {SDLORA_OP_SUM_TO, 1, {F(2, 3, 4)}, INTS(1, 3, 1), 0, "[1,3,1]"},
    {SDLORA_OP_EMBED, 2, {I(2, 7), F(9, 4)}, 0, {0}, 0, "[2,7,4]"},
    {SDLORA_OP_EMBED_BW, 2, {I(2, 7), F(2, 7, 4)}, INTS(9), 0, "[9,4]"},
    {SDLORA_OP_TIME_EMBED, 1, {F(3)}, INTS(8), 0, "[3,8]"},
    {SDLORA_OP_MATCH, 1, {F(2, 63, 12)}, INTS(9, 7, 30), 0, "[2,63]"},
    {SDLORA_OP_LOSS, 3, {F(2, 3), F(2, 3), F(2)}, INTS(0), 0, "[2]"},
    {SDLORA_OP_LOSS_BX, 5, {F(2), F(2, 3), F(2, 3), F(2), F(2)}, INTS(2), 0, "[2,3]"},
    {SDLORA_OP_SUMSQ, 1, {F(2, 3)}, 0, {0}, 0, "[1]"},
    {SDLORA_OP_ADAMW, 5, {F(6), F(6), F(6), F(6), F(8)}, 0, {0}, 0, "[6] [6] [6]"},
};

static const shape_case bad[] = {
    {SDLORA_OP_MATMUL, 2, {F(2, 4), F(5, 3)}, INTS(0, 1), 1, "MATMUL a [2,4] does not fit b [5,3]"},
    {SDLORA_OP_MATMUL,
     2,
     {F(2, 4), F(1, 4, 3)},
     INTS(0, 0),
     1,
     "MATMUL b [1,4,3] must have 2 axes"},
    {SDLORA_OP_MATMUL,
     3,
     {F(2, 4), F(4, 3), F(4)},
     INTS(0, 0),
     1,
     "MATMUL bias [4] does not fit b [4,3]"},
    {SDLORA_OP_MATMUL,
     4,
     {F(2, 4), F(4, 3), NO, F(3, 3)},
     INTS(0, 0),
     1,
     "MATMUL add [3,3] does not fit a [2,4]"},
    {SDLORA_OP_MATMUL, 2, {F(2, 4), NO}, INTS(0, 0), 1, "MATMUL needs its b"},
    {SDLORA_OP_MATMUL, 1, {F(2, 4)}, INTS(0, 0), 1, "MATMUL was given 1 inputs"},
    {SDLORA_OP_MATMUL, 2, {F(2, 4), F(4, 3)}, INTS(0), 1, "MATMUL was given 1 ints and 1 reals"},
    {SDLORA_OP_MATMUL,
     2,
     {F(2, 4), I(4, 3)},
     INTS(0, 0),
     1,
     "MATMUL b [4,3] must be floating point, not i32"},
    {SDLORA_OP_BMM,
     2,
     {F(2, 4, 3), F(3, 3, 5)},
     INTS(0, 0),
     1,
     "BMM a [2,4,3] does not fit b [3,3,5]"},
    {SDLORA_OP_CONV2D,
     2,
     {F(1, 64, 64, 320), F(640, 640, 3, 3)},
     CONV1,
     1,
     "CONV2D x [1,64,64,320] does not fit w [640,640,3,3]"},
    {SDLORA_OP_CONV2D,
     2,
     {F(1, 2, 2, 3), F(4, 3, 7, 7)},
     CONV1,
     1,
     "CONV2D x [1,2,2,3] does not fit w [4,3,7,7]"},
    {SDLORA_OP_CONV2D,
     3,
     {F(1, 4, 4, 3), F(4, 3, 3, 3), F(3)},
     CONV1,
     1,
     "CONV2D bias [3] does not fit w [4,3,3,3]"},
    {SDLORA_OP_CONV2D,
     4,
     {F(1, 4, 4, 3), F(4, 3, 3, 3), NO, F(1, 4, 4, 3)},
     CONV1,
     1,
     "CONV2D add [1,4,4,3] does not fit x [1,4,4,3]"},
    {SDLORA_OP_CONV2D,
     2,
     {F(1, 4, 4, 3), F(4, 3, 3, 3)},
     INTS(0, 1, 1, 1, 1, 1, 1),
     1,
     "CONV2D has strides 0, 1 and 1 groups"},
    {SDLORA_OP_CONV2D,
     2,
     {F(1, 4, 4, 3), F(4, 3, 3, 3)},
     INTS(1, 1, -1, 1, 1, 1, 1),
     1,
     "CONV2D has a padding of -1"},
    {SDLORA_OP_CONV2D_BX,
     2,
     {F(1, 4, 4, 4), F(4, 3, 3, 3)},
     INTS(1, 1, 1, 1, 1, 1, 1, 5, 4),
     1,
     "CONV2D_BX dy [1,4,4,4] does not fit w [4,3,3,3]"},
    {SDLORA_OP_CONV2D_BW,
     2,
     {F(1, 4, 4, 4), F(2, 4, 4, 3)},
     INTS(1, 1, 1, 1, 1, 1, 1, 3, 3),
     1,
     "CONV2D_BW dy [1,4,4,4] does not fit x [2,4,4,3]"},
    {SDLORA_OP_GROUP_NORM,
     1,
     {F(2, 4, 6)},
     INTS(4, 0),
     1,
     "GROUP_NORM x [2,4,6] cannot be split into 4 groups"},
    {SDLORA_OP_GROUP_NORM,
     2,
     {F(2, 4, 6), F(5)},
     INTS(3, 0),
     1,
     "GROUP_NORM g [5] does not fit x [2,4,6]"},
    {SDLORA_OP_GROUP_NORM,
     1,
     {F(2, 4, 6)},
     INTS(3, 9),
     1,
     "GROUP_NORM has the unknown activation 9"},
    {SDLORA_OP_LAYER_NORM,
     3,
     {F(2, 4), F(4), F(3)},
     0,
     {0},
     1,
     "LAYER_NORM b [3] does not fit x [2,4]"},
    {SDLORA_OP_LAYER_NORM_BX,
     5,
     {F(2, 4), F(2, 4), NO, F(3), F(2)},
     0,
     {0},
     0,
     "LAYER_NORM_BX mean [3] does not fit x [2,4]"},
    {SDLORA_OP_INVERSE, 1, {F(2, 3, 4)}, 0, {0}, 0, "INVERSE x [2,3,4] must hold square matrices"},
    {SDLORA_OP_GROUP_NORM_BW,
     6,
     {F(2, 4, 6), F(2, 4, 6), NO, NO, F(2, 2), F(2, 2)},
     INTS(3, 1),
     0,
     "GROUP_NORM_BW mean [2,2] does not fit x [2,4,6]"},
    {SDLORA_OP_LAYER_NORM_BW,
     4,
     {F(2, 4), F(2, 5), F(2), F(2)},
     0,
     {0},
     0,
     "LAYER_NORM_BW dy [2,4] does not fit x [2,5]"},
    {SDLORA_OP_ATTENTION,
     3,
     {F(2, 4, 6), F(2, 7, 8), F(2, 7, 8)},
     INTS(2, 0),
     1,
     "ATTENTION q [2,4,6] does not fit k [2,7,8]"},
    {SDLORA_OP_ATTENTION,
     3,
     {F(2, 4, 6), F(2, 7, 6), F(2, 6, 6)},
     INTS(2, 0),
     1,
     "ATTENTION v [2,6,6] does not fit k [2,7,6]"},
    {SDLORA_OP_ATTENTION,
     3,
     {F(2, 4, 6), F(2, 7, 6), F(2, 7, 6)},
     INTS(4, 0),
     1,
     "ATTENTION q [2,4,6] cannot be split into 4 heads"},
    {SDLORA_OP_ATTENTION,
     3,
     {F(4, 6), F(2, 7, 6), F(2, 7, 6)},
     INTS(2, 0),
     1,
     "ATTENTION q [4,6] must have 3 axes"},
    {SDLORA_OP_ADD, 2, {F(2, 3), F(3, 3)}, 0, {0}, 0, "ADD a [2,3] does not fit b [3,3]"},
    {SDLORA_OP_MUL, 2, {F(2, 3), F(3)}, 0, {0}, 0, "MUL a [2,3] does not fit b [3]"},
    {SDLORA_OP_ACT, 1, {F(2)}, INTS(-1), 0, "ACT has the unknown activation -1"},
    {SDLORA_OP_GEGLU, 1, {F(2, 5)}, 0, {0}, 0, "GEGLU x [2,5] must have an even last axis"},
    {SDLORA_OP_DROPOUT, 2, {F(2, 3), F(2)}, INTS(0, 1), 1, "DROPOUT seed [2] must be i32, not f32"},
    {SDLORA_OP_DROPOUT, 2, {F(2, 3), I(3)}, INTS(0, 1), 1, "DROPOUT seed [3] does not fit x [2,3]"},
    {SDLORA_OP_DROPOUT, 2, {F(2, 3), I(2)}, INTS(0, 0), 1, "DROPOUT has groups of 0 elements"},
    {SDLORA_OP_RESHAPE, 1, {F(2, 6)}, INTS(5, 2), 0, "RESHAPE x [2,6] does not fit [5,2]"},
    {SDLORA_OP_RESHAPE, 1, {F(2, 6)}, INTS(1, 1, 1, 1, 1, 2, 6), 0, "RESHAPE would give 7 axes"},
    {SDLORA_OP_SLICE,
     1,
     {F(2, 6)},
     INTS(1, 4, 3),
     0,
     "SLICE x [2,6] has no 3 elements from 4 on axis 1"},
    {SDLORA_OP_SLICE, 1, {F(2, 6)}, INTS(2, 0, 1), 0, "SLICE x [2,6] has no axis 2"},
    {SDLORA_OP_SLICE_BX,
     1,
     {F(2, 3)},
     INTS(1, 4, 6),
     0,
     "SLICE_BX dy [2,3] does not fit at 4 of 6 on axis 1"},
    {SDLORA_OP_CONCAT,
     3,
     {F(2, 3), F(2, 1), F(3, 3)},
     INTS(1),
     0,
     "CONCAT x2 [3,3] does not fit x0 [2,3]"},
    {SDLORA_OP_PERMUTE,
     1,
     {F(2, 3)},
     INTS(0, 0),
     0,
     "PERMUTE x [2,3] is not ordered by the axes given"},
    {SDLORA_OP_CAST, 1, {F(2, 3)}, INTS(99), 0, "CAST x [2,3] cannot become type 99"},
    {SDLORA_OP_FILL, 0, {NO}, INTS(2, 0), 1, "FILL would give [2,0]"},
    {SDLORA_OP_FILL,
     0,
     {NO},
     INTS(1 << 30, 1 << 30, 1 << 30),
     1,
     "FILL would give [1073741824,1073741824,1073741824]"},
    {SDLORA_OP_UPSAMPLE2, 1, {F(2, 3)}, 0, {0}, 0, "UPSAMPLE2 x [2,3] must have 4 axes"},
    {SDLORA_OP_UPSAMPLE2_BX,
     1,
     {F(1, 3, 2, 1)},
     0,
     {0},
     0,
     "UPSAMPLE2_BX dy [1,3,2,1] must have an even height and width"},
    {SDLORA_OP_SUM_TO, 1, {F(2, 3)}, INTS(2, 2), 0, "SUM_TO x [2,3] cannot be summed to [2,2]"},
    {SDLORA_OP_EMBED, 2, {F(2, 3), F(4, 5)}, 0, {0}, 0, "EMBED ids [2,3] must be i32, not f32"},
    {SDLORA_OP_EMBED_BW,
     2,
     {I(2, 3), F(2, 4, 5)},
     INTS(4),
     0,
     "EMBED_BW ids [2,3] does not fit dy [2,4,5]"},
    {SDLORA_OP_TIME_EMBED, 1, {F(2)}, INTS(7), 0, "TIME_EMBED needs an even width, not 7"},
    {SDLORA_OP_MATCH,
     1,
     {F(1, 16, 4)},
     INTS(4, 4, 13),
     0,
     "MATCH scores [1,16,4] does not score 4 x 4 tokens of which 13 go"},
    {SDLORA_OP_LOSS,
     3,
     {F(2, 3), F(2, 4), F(2)},
     INTS(0),
     0,
     "LOSS pred [2,3] does not fit target [2,4]"},
    {SDLORA_OP_LOSS,
     3,
     {F(2, 3), F(2, 3), F(3)},
     INTS(0),
     0,
     "LOSS weight [3] does not fit pred [2,3]"},
    {SDLORA_OP_LOSS, 3, {F(2, 3), F(2, 3), F(2)}, INTS(2), 0, "LOSS of kind 2 needs its delta"},
    {SDLORA_OP_LOSS, 3, {F(2, 3), F(2, 3), F(2)}, INTS(4), 0, "LOSS has the unknown kind 4"},
    {SDLORA_OP_ADAMW,
     5,
     {F(6), F(6), F(5), F(6), F(8)},
     0,
     {0},
     0,
     "ADAMW m [5] does not fit p [6]"},
    {SDLORA_OP_ADAMW,
     5,
     {F(6), F(6), F(6), F(6), F(7)},
     0,
     {0},
     0,
     "ADAMW hyper [7] does not fit p [6]"},
    {47, 0, {NO}, 0, {0}, 0, "there is no operation 47"},
};

/* Builds the case in a fresh graph under the name blk.op; outs receives its results. */
static slr_graph *build(const shape_case *c, slr_val outs[SLR_MAX_OUT])
{
    static const double reals[2] = {0.5, 0.25};
    slr_graph *g;
    slr_val in[6];
    assert_ok(slr_graph_new(&g, NULL, (slr_policy){0}));
    slr_graph_push(g, "blk");
    slr_graph_push(g, "op");
    for (int i = 0; i < c->n_in; i++) {
        char name[8];
        snprintf(name, sizeof name, "in%d", i);
        in[i] = c->in[i].dtype ? slr_input(g, name, c->in[i].dtype, c->in[i].rank, c->in[i].dim)
                               : SLR_NONE;
    }
    slr_op(g, c->op, c->n_in, in, c->n_int, c->ints, c->n_real, reals, outs);
    return g;
}

static void shapes_that_fit(void **state)
{
    bool seen[128] = {0};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        slr_val outs[SLR_MAX_OUT];
        char text[300] = "", shape[96];
        slr_graph *g = build(&good[i], outs);
        if (slr_graph_status(g) < 0)
            fail_msg("case %d: %s", (int)i, sdlora_last_error()->message);
        const slr_op_row *row = slr_op_find(good[i].op);
        for (int o = 0; o < row->n_out; o++) {
            slr_shape s = slr_shape_of(g, outs[o]);
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", o ? " " : "",
                     slr_shape_text(s.dim, s.rank, shape));
        }
        assert_string_equal(text, good[i].want);
        seen[good[i].op] = true;
        slr_graph_free(g);
    }
    const slr_op_row *row;
    for (size_t i = 0; (row = slr_op_at(i)) != NULL; i++)
        if (!seen[row->op])
            fail_msg("no case for %s", row->name);
}

static void shapes_that_do_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        slr_val outs[SLR_MAX_OUT];
        char want[300];
        slr_graph *g = build(&bad[i], outs);
        snprintf(want, sizeof want, "%s%s", bad[i].op == 47 ? "" : "blk.op: ", bad[i].want);
        assert_int_equal(slr_graph_status(g), SDLORA_EINVAL);
        assert_string_equal(sdlora_last_error()->message, want);
        assert_true(bad[i].op == 47 || outs[0] == SLR_NONE);
        slr_graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_that_fit),
        cmocka_unit_test(shapes_that_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
