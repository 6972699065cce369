/* SPDX-License-Identifier: MIT */
/* Broken and foreign network files: mutants of one good file.  Every refusal names file and tensor
 * and leaves the base's bytes alone; what real programs write and looks odd is taken. */
#include "networks/kind.h"
#include "network_test.h"

#define ENTRIES 1024

static slr_checkpoint *base;
static char path[64];
static golden good; /* the file that is bent */
static void *zeros; /* contents of bent tensors */
static const size_t ROOM = 64u << 20;

static const char *const PAIRS[] = {"network_dim", "4",          "conv_dim", "4", "network_alpha",
                                    "2",           "conv_alpha", "2",        NULL};

static int setup(void **state)
{
    (void)state;
    static char from[64];
    slr_meta *meta;
    ok(slr_checkpoint_open(&base, TINYSD, &CONFIG));
    slr_network *n = make(base, PAIRS, 3, 0.1);
    ok(slr_meta_new(&meta, NULL));
    ok(slr_netfile_save(n, temp_file(from), SDLORA_F16, meta));
    slr_meta_free(meta);
    slr_network_unref(n);
    good = golden_open(from);
    unlink(from);
    zeros = slr_calloc(NULL, 1, ROOM);
    temp_file(path);
    return good.file && zeros ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    slr_free(NULL, zeros);
    golden_close(&good);
    slr_checkpoint_unref(base);
    return 0;
}

/* One tensor to bend or to add; numbers as text, see dims_of(). */
typedef struct bend {
    const char *leaf;  /* of the victim; one that the file lacks is added */
    const char *dims;  /* NULL: as they are; "-": the tensor is dropped */
    const char *to;    /* another leaf; NULL: the same */
    uint32_t dtype;    /* 0: F16 */
    const float *fill; /* of a single number */
} bend;

/* r: 4, the rank; R: 5; H: 40000; i and o: of the layer; I and O: one more; k: the kernel; digits.
 */
static void dims_of(slr_tensor *t, const char *dims, const slr_target *x)
{
    t->rank = 0;
    for (; *dims; dims++) {
        const int64_t value = *dims == 'r'   ? 4
                              : *dims == 'R' ? 5
                              : *dims == 'H' ? 40000
                              : *dims == 'i' ? x->in
                              : *dims == 'I' ? x->in + 1
                              : *dims == 'o' ? x->out
                              : *dims == 'O' ? x->out + 1
                              : *dims == 'k' ? x->kh
                                             : *dims - '0';
        t->dim[t->rank++] = value;
    }
}

/* Writes the good file with up to three tensors of one module bent. */
static void write_bent(const slr_target *x, const bend *b)
{
    static slr_st_entry e[ENTRIES];
    static char name[6][320];
    static double numbers[3];
    size_t n = slr_safetensors_count(good.file);
    assert_true(n + 3 < ENTRIES);
    for (size_t i = 0; i < n; i++)
        e[i].name = slr_safetensors_at(good.file, i, &e[i].t);
    for (int k = 0; k < 3 && b[k].leaf; k++) {
        size_t at = 0;
        snprintf(name[k], sizeof name[k], "%s.%s", x->name, b[k].leaf);
        snprintf(name[k + 3], sizeof name[k], "%s.%s", x->name, b[k].to ? b[k].to : b[k].leaf);
        while (at < n && strcmp(e[at].name, name[k]))
            at++;
        if (b[k].dims && *b[k].dims == '-') {
            assert_true(at < n);
            e[at] = e[--n];
            continue;
        }
        if (at == n)
            e[n++].t = (slr_tensor){.dtype = SDLORA_F16};
        e[at].name = name[k + 3];
        slr_tensor *t = &e[at].t;
        if (b[k].dims) {
            t->dtype = b[k].dtype ? b[k].dtype : SDLORA_F16;
            dims_of(t, b[k].dims, x);
            t->data = zeros;
            assert_true(slr_tensor_bytes(t) <= ROOM);
        }
        if (b[k].fill) {
            slr_dtype(t->dtype)->from_f32(&numbers[k], b[k].fill, 1);
            t->data = &numbers[k];
        }
    }
    ok(slr_safetensors_write(NULL, path, e, n, NULL, 0));
}

static const slr_target *target(slr_targets *t, const char *name)
{
    const slr_target *x = target_named(t, name, strlen(name));
    assert_non_null(x);
    return x;
}

#define DOWN "lora_down.weight"
#define UP   "lora_up.weight"

static const float NUMBER_NAN = NAN, NUMBER_INF = INFINITY, NUMBER_EIGHT = 8;

/* Bends that no layer takes. */
static const struct {
    bend b[3];
    int code;
    const char *word; /* in the sentence besides file and module */
} MUTANTS[] = {
    {{{.leaf = DOWN, "0i"}}, SDLORA_EFORMAT, "[0,"},
    {{{.leaf = DOWN, "0ikk"}, {.leaf = UP, "o011"}}, SDLORA_EFORMAT, "[0,"},
    {{{.leaf = DOWN, "Rikk"}}, SDLORA_EFORMAT, "[5,"},
    {{{.leaf = UP, "oR11"}}, SDLORA_EFORMAT, ",5"},
    {{{.leaf = DOWN, "rIkk"}}, SDLORA_EFORMAT, "inputs"},
    {{{.leaf = UP, "Or11"}}, SDLORA_EFORMAT, "outputs"},
    {{{.leaf = DOWN, "r"}}, SDLORA_EFORMAT, "[4]"},
    {{{.leaf = UP, ""}}, SDLORA_EFORMAT, "[]"},
    {{{.leaf = DOWN, "rik"}}, SDLORA_EFORMAT, "down"},
    {{{.leaf = DOWN, "ri11k"}}, SDLORA_EFORMAT, "down"},
    {{{.leaf = UP, "or1111"}}, SDLORA_EFORMAT, "up"},
    {{{.leaf = DOWN, "ri55"}}, SDLORA_EFORMAT, ",5,5]"},
    {{{.leaf = DOWN, "ri13"}}, SDLORA_EFORMAT, ",1,3]"},
    {{{.leaf = UP, "or33"}}, SDLORA_EFORMAT, ",3,3]"},
    {{{.leaf = UP, "r2"}}, SDLORA_EFORMAT, "up [4,2]"},
    {{{.leaf = DOWN, "Hikk"}}, SDLORA_EFORMAT, "40000"},
    {{{.leaf = DOWN, "Hikk"}, {.leaf = UP, "oH11"}}, SDLORA_EFORMAT, "32768"},
    {{{.leaf = "alpha", NULL, NULL, 0, &NUMBER_NAN}}, SDLORA_EFORMAT, "finite"},
    {{{.leaf = "alpha", NULL, NULL, 0, &NUMBER_INF}}, SDLORA_EFORMAT, "finite"},
    {{{.leaf = "alpha", "4"}}, SDLORA_EFORMAT, "single number"},
    {{{.leaf = "alpha", "0"}}, SDLORA_EFORMAT, "single number"},
    {{{.leaf = DOWN, "-"}}, SDLORA_EFORMAT, DOWN " is missing"},
    {{{.leaf = UP, "-"}}, SDLORA_EFORMAT, UP " is missing"},
    {{{.leaf = DOWN, "-"}, {.leaf = UP, "-"}}, SDLORA_EFORMAT, "alpha and no weights"},
    {{{.leaf = DOWN, "rikk", NULL, SDLORA_I64}}, SDLORA_EFORMAT, "floating-point"},
    {{{.leaf = UP, "or11", NULL, SDLORA_BOOL}}, SDLORA_EFORMAT, "floating-point"},
    {{{.leaf = UP, "or11", NULL, SDLORA_U8}}, SDLORA_EFORMAT, "floating-point"},
    {{{.leaf = DOWN, NULL, "lora_dwn.weight"}}, SDLORA_EFORMAT, "lora_dwn.weight"},
    {{{.leaf = UP, NULL, "lora_up"}}, SDLORA_EFORMAT, "lora_up"},
    {{{.leaf = UP, NULL, ""}}, SDLORA_EFORMAT, "match no layer"},
    {{{.leaf = "bias", "o"}}, SDLORA_EFORMAT, "bias"},
    {{{.leaf = "lora_mid.weight", "r1kk"}}, SDLORA_EFORMAT, " and mid ["},
    {{{.leaf = "dora_scale", "r1"}}, SDLORA_EFORMAT, "dora_scale is ["},
    {{{.leaf = "hada_w1_a", "or"}}, SDLORA_EFORMAT, "hada_w1_a"},
    {{{.leaf = "lokr_w1", "44"}}, SDLORA_EFORMAT, "lokr_w1"},
    {{{.leaf = "lokr_w1_a", "4r"}}, SDLORA_EFORMAT, "lokr_w1_a"},
    {{{.leaf = "on_input", "", NULL, SDLORA_BOOL}}, SDLORA_EFORMAT, "on_input"},
    {{{.leaf = "oft_blocks", "244"}}, SDLORA_EFORMAT, "oft_blocks"},
    {{{.leaf = "oft_diag", "244"}}, SDLORA_EFORMAT, "oft_diag"},
    {{{.leaf = "diff", "oikk"}}, SDLORA_EFORMAT, "diff"},
    {{{.leaf = "diff_b", "r"}}, SDLORA_EFORMAT, "diff_b"},
    {{{.leaf = "diff_b", "oi"}}, SDLORA_EFORMAT, "diff_b"},
    {{{.leaf = "set_weight", "oikk"}}, SDLORA_EFORMAT, "set_weight"},
    {{{.leaf = "reshape_weight", "4"}}, SDLORA_ENOTSUP, "base of another shape"},
    {{{.leaf = "w_norm", "o"}}, SDLORA_EFORMAT, "w_norm"},
    {{{.leaf = "a1.weight", "or"}}, SDLORA_EFORMAT, "a1.weight"},
    {{{.leaf = "lora_A.weight", "rikk"}}, SDLORA_EFORMAT, "one tensor in two spellings"},
    {{{.leaf = "bias_values", "4"}}, SDLORA_EFORMAT, "bias_indices is missing"},
    {{{.leaf = "bias_indices", "24"}}, SDLORA_EFORMAT, "bias_values is missing"},
    {{{.leaf = "bias_size", "2"}}, SDLORA_EFORMAT, "bias_size"},
};

static const char *const VICTIMS[] = {
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
    "lora_unet_down_blocks_0_attentions_0_proj_in",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
    "lora_unet_down_blocks_0_resnets_0_conv1",
};

static void refused(int code, const char *module, const char *word)
{
    slr_network *n;
    int rc = slr_network_open(&n, NULL, base, path);
    if (rc != code)
        fail_msg("%s, %s: %d, not %d: %s", module, word, rc, code,
                 rc < 0 ? sdlora_last_error()->message : "taken");
    assert_null(n);
    says(path);
    says(module);
    says(word);
}

static void mutants(void **state)
{
    (void)state;
    char before[65], after[65];
    slr_targets *t;
    size_t count = 0;
    base_hash(base, before);
    ok(slr_targets_new(&t, NULL, base));
    for (size_t v = 0; v < sizeof VICTIMS / sizeof *VICTIMS; v++)
        for (size_t i = 0; i < sizeof MUTANTS / sizeof *MUTANTS; i++, count++) {
            write_bent(target(t, VICTIMS[v]), MUTANTS[i].b);
            refused(MUTANTS[i].code, VICTIMS[v], MUTANTS[i].word);
            base_hash(base, after); /* 27 MB by SHA-256: some 20 ms */
            assert_string_equal(before, after);
        }
    print_message("%zu mutants\n", count);
    slr_targets_free(t);
}

/* Files whose keys are another program's from the first to the last. */
static void foreign_names(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        int code;
        const char *word;
    } CASES[] = {
        {"base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
         SDLORA_EFORMAT, "q_proj.lora_up.weight is missing (base_model.model."},
        {"unet.down_blocks.0.attentions.0.proj_in.lora_B.weight", SDLORA_EFORMAT,
         "lora_down.weight is missing (unet."},
        {"unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
         SDLORA_EFORMAT, "attn1_to_q.lora_up.weight is missing (unet."},
        {"unet.mid_block.attentions.9.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
         SDLORA_EFORMAT, "match no layer"},
        {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", SDLORA_EFORMAT,
         "lora_te2"},
        {"lora_te_text_model_encoder_layers_99_mlp_fc1.lora_down.weight", SDLORA_EFORMAT, "_99_"},
        {"lora_unet_input_blocks_99_1_proj_in.lora_down.weight", SDLORA_EFORMAT, "input_blocks"},
        {"lora_unet_input_blocks_1_1_proj_in.lora_down.weight", SDLORA_EFORMAT,
         "down_blocks_0_attentions_0_proj_in.lora_up.weight is missing (lora_unet_input"},
        {"lycoris_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", SDLORA_EFORMAT,
         "is missing (lycoris"},
        {"lllite_unet_input_blocks_4_1_attn1_to_q.down.0.weight", SDLORA_ENOTSUP, "ControlNet"},
        {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", SDLORA_ENOTSUP, "Flux"},
        {"oft_unet_down_blocks_0_attentions_0_proj_in.oft_blocks", SDLORA_EFORMAT,
         "oft_blocks is [4,64]"},
        {"lora_unet_down_blocks_0_attentions_0_proj_in", SDLORA_EFORMAT, "match no layer"},
        {"", SDLORA_EFORMAT, "match no layer"},
        {".", SDLORA_EFORMAT, "match no layer"},
        {"lora_unet_.alpha", SDLORA_EFORMAT, "lora_unet_.alpha"},
        {"bundle_emb.cat.string_to_param.*", SDLORA_EFORMAT, "no network module"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const slr_st_entry e = {CASES[i].key,
                                {.dtype = SDLORA_F16, .rank = 2, .dim = {4, 64}, .data = zeros}};
        ok(slr_safetensors_write(NULL, path, &e, 1, NULL, 0));
        refused(CASES[i].code, CASES[i].code == SDLORA_ENOTSUP ? CASES[i].key : "", CASES[i].word);
    }
    ok(slr_safetensors_write(NULL, path, NULL, 0, NULL, 0));
    refused(SDLORA_EFORMAT, "", "no network module");

    /* a good file with very many strangers: the sentence counts them and stays short */
    enum { MANY = 20000 };
    slr_st_entry *e = slr_calloc(NULL, MANY, sizeof *e);
    char(*name)[32] = slr_calloc(NULL, MANY, sizeof *name);
    for (int i = 0; i < MANY; i++) {
        snprintf(name[i], 32, "stranger_%05d.weight", i);
        e[i] = (slr_st_entry){name[i], {.dtype = SDLORA_F16, .data = zeros}};
    }
    ok(slr_safetensors_write(NULL, path, e, MANY, NULL, 0));
    refused(SDLORA_EFORMAT, "stranger_00000.weight", "20000 of 20000");
    assert_true(strlen(sdlora_last_error()->message) < 400);
    slr_free(NULL, e);
    slr_free(NULL, name);

    /* cut short, and absent */
    const slr_target *x = NULL;
    slr_targets *t;
    void *bytes;
    size_t n;
    ok(slr_targets_new(&t, NULL, base));
    x = target(t, VICTIMS[0]);
    write_bent(x, (bend[3]){{.leaf = NULL}});
    ok(slr_file_read(NULL, path, ROOM, &bytes, &n));
    for (int i = 0; i < 8; i++) {
        ok(slr_file_write(NULL, path, bytes, n * (size_t)i / 8));
        refused(SDLORA_EFORMAT, "", "");
    }
    slr_free(NULL, bytes);
    slr_targets_free(t);
    slr_network *none;
    assert_int_equal(slr_network_open(&none, NULL, base, "/nonexistent/a.safetensors"),
                     SDLORA_ENOTFOUND);
    says("/nonexistent/a.safetensors");
}

/* --- mutants of files that LyCORIS wrote --- */

/* A module of the golden; spare: its leaves that a file may lack. */
static const struct {
    const char *key, *kind, *spare;
} ORIGINALS[] = {
    {"lora.tucker.conv", "lora", "alpha"},
    {"lora.dora.one", "lora", "alpha dora_scale"},
    {"loha.plain.linear", "loha", "alpha"},
    {"loha.plain.conv", "loha", "alpha"},
    {"loha.tucker.conv", "loha", "alpha"},
    {"loha.dora_in.one", "loha", "alpha dora_scale"},
    {"lokr.plain.conv", "lokr", "alpha"},
    {"lokr.tucker.stride", "lokr", "alpha"},
    {"lokr.both.linear", "lokr", "alpha"},
    {"lokr.matrix.conv", "lokr", "alpha"},
    {"lokr.dora.one", "lokr", "alpha dora_scale"},
    {"ia3.plain.conv", "ia3", ""},
    {"ia3.input.linear", "ia3", ""},
    {"glora.plain.linear", "glora", "alpha"},
    {"glora.plain.conv", "glora", "alpha"},
    {"diag-oft.rescaled.linear", "diag-oft", "alpha rescale"},
    {"diag-oft.rescaled.conv", "diag-oft", "alpha rescale"},
    {"boft.rescaled.linear", "boft", "alpha rescale"},
    {"boft.rescaled.conv", "boft", "alpha rescale"},
    {"ia3.input.conv", "ia3", ""},
    {"full.plain.small", "full", "diff diff_b"},
    {"full.plain.one", "full", "diff diff_b"},
    {"full.plain.linear", "full", "diff"},
    {"norm.plain.groupnorm", "norm", "w_norm b_norm"},
    {"norm.plain.layernorm", "norm", "w_norm b_norm"},
};

/* What is done to one tensor; false: it cannot be done to this one. */
typedef bool (*mutate_fn)(slr_st_entry *e, int variant);

static bool grow_axis(slr_st_entry *e, int axis)
{
    if (axis >= e->t.rank)
        return false;
    e->t.dim[axis]++;
    e->t.data = zeros;
    return true;
}

static bool shrink_axis(slr_st_entry *e, int axis)
{
    if (axis >= e->t.rank)
        return false;
    e->t.dim[axis] = axis == 0 ? 0 : e->t.dim[axis] * 2;
    e->t.data = zeros;
    return true;
}

/* Another number of axes: none, one, five. */
static bool set_rank(slr_st_entry *e, int variant)
{
    static const int ranks[] = {0, 1, 5};
    if (variant > 2 || e->t.rank == 0)
        return false;
    e->t.rank = ranks[variant];
    for (int i = 0; i < e->t.rank; i++)
        e->t.dim[i] = 2;
    e->t.data = zeros;
    return true;
}

/* A number that is none, or many; a tensor of whole numbers. */
static bool spoil(slr_st_entry *e, int variant)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const uint32_t types[] = {SDLORA_I64, SDLORA_I32, SDLORA_U8, SDLORA_BOOL};
    if (e->t.rank == 0) {
        if (variant > 3)
            return false;
        if (variant == 3)
            e->t = (slr_tensor){.dtype = SDLORA_F32, .rank = 1, .dim = {4}, .data = zeros};
        else
            e->t = (slr_tensor){.dtype = SDLORA_F32, .data = (void *)&bad[variant]};
        return true;
    }
    e->t.dtype = types[variant];
    e->t.data = zeros;
    return true;
}

static const mutate_fn MUTATIONS[] = {grow_axis, shrink_axis, set_rank, spoil};

typedef struct original {
    slr_st_entry e[16];
    size_t n;
    char module[192];
} original;

static original take_original(const golden *g, const char *key)
{
    original o = {.n = 0};
    char prefix[96];
    snprintf(prefix, sizeof prefix, "%s.net.", key);
    for (size_t i = 0; i < slr_safetensors_count(g->file); i++) {
        slr_tensor t;
        const char *name = slr_safetensors_at(g->file, i, &t);
        if (!strncmp(name, prefix, strlen(prefix)))
            o.e[o.n++] = (slr_st_entry){name + strlen(prefix), t};
    }
    assert_true(o.n > 0);
    snprintf(o.module, sizeof o.module, "%.*s", (int)strcspn(o.e[0].name, "."), o.e[0].name);
    return o;
}

/* A tensor that is lost or mistyped can leave one that is known and has no place. */
static void refuse_entries(const original *o, const slr_st_entry *e, size_t n, const char *what)
{
    slr_network *net;
    ok(slr_safetensors_write(NULL, path, e, n, NULL, 0));
    bool known = slr_network_open(&net, NULL, base, path) == SDLORA_ENOTSUP;
    refused(known ? SDLORA_ENOTSUP : SDLORA_EFORMAT, o->module, known ? "" : what);
}

/* Keys that are nearly right: of module and leaf. */
static const char *const MISTYPED[] = {"%s.%sx", "%s.x%s", "%s..%s",
                                       "%s_%s",  "x%s.%s", "%s.%s.1.2"};
enum { N_MISTYPED = sizeof MISTYPED / sizeof *MISTYPED };

/* Every mutation of one tensor; returns how many. */
static size_t mutate_leaf(const original *o, size_t at, const char *spare)
{
    size_t count = 0;
    slr_st_entry e[16];
    char name[256];
    const char *leaf = strchr(o->e[at].name, '.') + 1;
    for (size_t m = 0; m < sizeof MUTATIONS / sizeof *MUTATIONS; m++)
        for (int variant = 0; variant < 4; variant++) {
            memcpy(e, o->e, sizeof e);
            if (!MUTATIONS[m](&e[at], variant))
                continue;
            refuse_entries(o, e, o->n, "");
            count++;
        }
    for (int i = 0; i < N_MISTYPED; i++) {
        memcpy(e, o->e, sizeof e);
        snprintf(name, sizeof name, MISTYPED[i], o->module, leaf);
        e[at].name = name;
        refuse_entries(o, e, o->n, "");
    }
    count += N_MISTYPED;
    if (strstr(spare, leaf))
        return count;
    memcpy(e, o->e, sizeof e);
    e[at] = e[o->n - 1]; /* lost */
    refuse_entries(o, e, o->n - 1, "");
    return count + 1;
}

static void lycoris(void **state)
{
    (void)state;
    golden g = golden_open(TEST_ROOT "/golden/lycoris.safetensors");
    char before[65], after[65];
    size_t total = 0;
    base_hash(base, before);
    for (size_t i = 0; i < sizeof ORIGINALS / sizeof *ORIGINALS; i++) {
        if (!slr_kind_named(ORIGINALS[i].kind))
            continue;
        original o = take_original(&g, ORIGINALS[i].key);
        slr_network *n;
        ok(slr_safetensors_write(NULL, path, o.e, o.n, NULL, 0)); /* as it is, it is taken */
        ok(slr_network_open(&n, NULL, base, path));
        slr_network_unref(n);
        size_t count = 0;
        for (size_t at = 0; at < o.n; at++) {
            count += mutate_leaf(&o, at, ORIGINALS[i].spare);
            base_hash(base, after);
            assert_string_equal(before, after);
        }
        print_message("%s: %zu mutants\n", ORIGINALS[i].key, count);
        total += count;
    }
    print_message("%zu mutants of LyCORIS files\n", total);
    assert_true(total >= 1000);
    golden_close(&g);
}

/* What programs write and a layer can take. */
static void taken(void **state)
{
    (void)state;
    static const struct {
        const char *module;
        bend b[3];
        double alpha;
        int64_t rank;
    } CASES[] = {
        {NULL, {{.leaf = NULL}}, 2, 4},
        {NULL, {{.leaf = "alpha", "-"}}, 4, 4}, /* absent: the rank, so that the scale is 1 */
        {NULL, {{.leaf = "alpha", "1", NULL, SDLORA_F32, &NUMBER_EIGHT}}, 8, 4},
        {NULL, {{.leaf = "alpha", "", NULL, SDLORA_I64, &NUMBER_EIGHT}}, 8, 4},
        {NULL, {{.leaf = "alpha", "", NULL, SDLORA_BF16, &NUMBER_EIGHT}}, 8, 4},
        {NULL, {{.leaf = DOWN, "Rikk"}, {.leaf = UP, "oR11"}}, 2, 5}, /* a rank of its own */
        {NULL,
         {{.leaf = DOWN, "rikk", NULL, SDLORA_F64}, {.leaf = UP, "or11", NULL, SDLORA_BF16}},
         2,
         4},
        {NULL, {{.leaf = DOWN, "rikk", NULL, SDLORA_F8_E4M3}}, 2, 4},
        {NULL, {{.leaf = UP, "or"}}, 2, 4},
        {"lora_unet_down_blocks_0_attentions_0_proj_in",
         {{.leaf = DOWN, "ri"}, {.leaf = UP, "or"}},
         2,
         4},
        {"lora_te_text_model_encoder_layers_0_mlp_fc1",
         {{.leaf = DOWN, "ri11"}, {.leaf = UP, "or11"}},
         2,
         4},
    };
    slr_targets *t;
    ok(slr_targets_new(&t, NULL, base));
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (size_t v = 0; v < (CASES[i].module ? 1 : sizeof VICTIMS / sizeof *VICTIMS); v++) {
            const slr_target *x = target(t, CASES[i].module ? CASES[i].module : VICTIMS[v]);
            slr_network *n;
            write_bent(x, CASES[i].b);
            ok(slr_network_open(&n, NULL, base, path));
            size_t k = 0;
            while (strcmp(slr_network_target(n, k)->name, x->name))
                k++;
            assert_true(slr_network_alpha(n, k) == CASES[i].alpha);
            assert_true(slr_network_rank(n, k) == CASES[i].rank);
            slr_network_unref(n);
        }
    slr_targets_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutants),
        cmocka_unit_test(lycoris),
        cmocka_unit_test(foreign_names),
        cmocka_unit_test(taken),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
