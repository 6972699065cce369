/* SPDX-License-Identifier: MIT */
/* Full-size models without a file: random weights of sensible scale for benchmarks and shape tests.
 * Knows the shapes of the named architectures as rows; numbers come from a counter-based generator,
 * so they do not depend on threads.  tests/golden/synthetic.py makes the same: tensors, their order
 * and numbers change on both sides or not at all. */
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"
#include "base/thread.h"
#include "models/checkpoint_part.h"

typedef struct text_arch {
    int64_t width, mlp, pooled; /* pooled 0: no projection */
    int layers;                 /* 0: no such encoder */
} text_arch;

typedef struct arch {
    const char *name;
    int family;
    int n_levels, resnets; /* UNet */
    int64_t channels[4];
    int depth[4], mid_depth; /* transformer blocks per attention */
    int64_t context, vector;
    int64_t extra; /* channels that the UNet takes beside latents */
    bool linear_proj;
    int64_t vae[4]; /* widths */
    int n_vae, vae_resnets;
    text_arch te, te2;
} arch;

/* Of all real models, and of all small ones. */
#define VAE      .vae = {128, 256, 512, 512}, .n_vae = 4, .vae_resnets = 2
#define TINY_VAE .vae = {32, 64, 64, 128}, .n_vae = 4, .vae_resnets = 1
#define CLIP_L                                                                                     \
    {                                                                                              \
        .width = 768, .mlp = 3072, .layers = 12                                                    \
    }
#define TINY .n_levels = 3, .resnets = 1, .channels = {64, 128, 128}

static const arch ARCHS[] = {
    {
        .name = "sd15",
        .family = SLR_FAMILY_SD1,
        .n_levels = 4,
        .resnets = 2,
        .channels = {320, 640, 1280, 1280},
        .depth = {1, 1, 1, 0},
        .mid_depth = 1,
        .context = 768,
        VAE,
        .te = CLIP_L,
    },
    {
        .name = "sd21",
        .family = SLR_FAMILY_SD2,
        .n_levels = 4,
        .resnets = 2,
        .channels = {320, 640, 1280, 1280},
        .depth = {1, 1, 1, 0},
        .mid_depth = 1,
        .context = 1024,
        .linear_proj = true,
        VAE,
        .te = {.width = 1024, .mlp = 4096, .layers = 23},
    },
    {
        .name = "sdxl",
        .family = SLR_FAMILY_SDXL,
        .n_levels = 3,
        .resnets = 2,
        .channels = {320, 640, 1280},
        .depth = {0, 2, 10},
        .mid_depth = 10,
        .context = 2048,
        .vector = 2816,
        .linear_proj = true,
        VAE,
        .te = CLIP_L,
        .te2 = {.width = 1280, .mlp = 5120, .pooled = 1280, .layers = 32},
    },
    {
        .name = "tiny",
        .family = SLR_FAMILY_SD1,
        TINY,
        .depth = {1, 1, 1},
        .mid_depth = 1,
        .context = 64,
        TINY_VAE,
        .te = {.width = 64, .mlp = 256, .layers = 6},
    },
    {
        .name = "tiny-inpaint",
        .family = SLR_FAMILY_SD1,
        TINY,
        .depth = {1, 1, 1},
        .mid_depth = 1,
        .context = 64,
        .extra = 5,
        TINY_VAE,
        .te = {.width = 64, .mlp = 256, .layers = 6},
    },
    {
        .name = "tiny-edit",
        .family = SLR_FAMILY_SD1,
        TINY,
        .depth = {1, 1, 1},
        .mid_depth = 1,
        .context = 64,
        .extra = 4,
        TINY_VAE,
        .te = {.width = 64, .mlp = 256, .layers = 6},
    },
    {
        .name = "tiny-sd2",
        .family = SLR_FAMILY_SD2,
        TINY,
        .depth = {1, 1, 1},
        .mid_depth = 1,
        .context = 128,
        .linear_proj = true,
        TINY_VAE,
        .te = {.width = 128, .mlp = 512, .layers = 3},
    },
    {
        .name = "tiny-sdxl",
        .family = SLR_FAMILY_SDXL,
        TINY,
        .depth = {0, 1, 2},
        .mid_depth = 2,
        .context = 192,
        .vector = 96 + 6 * 256,
        .linear_proj = true,
        TINY_VAE,
        .te = {.width = 64, .mlp = 256, .layers = 3},
        .te2 = {.width = 128, .mlp = 512, .pooled = 96, .layers = 3},
    },
    {
        .name = "tiny-refiner",
        .family = SLR_FAMILY_REFINER,
        TINY,
        .depth = {0, 1, 0},
        .mid_depth = 1,
        .context = 128,
        .vector = 96 + 5 * 256,
        .linear_proj = true,
        TINY_VAE,
        .te2 = {.width = 128, .mlp = 512, .pooled = 96, .layers = 3},
    },
};

#define LATENTS 4
#define VOCAB   49408
#define ROWS    77
#define DRAWS   1024  /* distinct values per tensor */
#define PIECE   65536 /* elements that one counter range covers */

typedef struct maker {
    slr_mem *m;
    slr_weights *w;
    uint32_t dtype;
    uint64_t seed;
    uint32_t n; /* tensors so far: the generator's stream */
    int threads;
    bool shapes_only; /* zeros that take no memory */
    int rc;           /* sticks */
} maker;

/* ---- numbers ---- */

typedef struct filling {
    void *to;
    int64_t n;
    uint64_t seed;
    uint32_t stream;
    uint64_t table[DRAWS / 2]; /* DRAWS evenly spaced values in the tensor's own type */
} filling;

/* Sixty-four mixed bits of a counter (the finaliser of splitmix64): weaker than Philox and five
 * times faster, which is enough for numbers that nobody trains. */
static inline uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

static inline uint64_t draws_at(const filling *f, int64_t i)
{
    return mixed((f->seed ^ (uint64_t)f->stream << 40) +
                 (uint64_t)i * UINT64_C(0x9E3779B97F4A7C15));
}

/* Four elements of a piece take 10 bits each of one mixed word. */
static void fill2(void *arg, int64_t lo, int64_t hi)
{
    const filling *f = arg;
    uint16_t *to = f->to;
    const uint16_t *table = (const uint16_t *)f->table;
    int64_t end = hi * PIECE < f->n ? hi * PIECE : f->n;
    for (int64_t i = lo * PIECE; i < end; i += 4) {
        uint64_t r = draws_at(f, i);
        for (int64_t j = i; j < i + 4 && j < end; j++, r >>= 16)
            to[j] = table[r & (DRAWS - 1)];
    }
}

static void fill4(void *arg, int64_t lo, int64_t hi)
{
    const filling *f = arg;
    uint32_t *to = f->to;
    const uint32_t *table = (const uint32_t *)f->table;
    int64_t end = hi * PIECE < f->n ? hi * PIECE : f->n;
    for (int64_t i = lo * PIECE; i < end; i += 4) {
        uint64_t r = draws_at(f, i);
        for (int64_t j = i; j < i + 4 && j < end; j++, r >>= 16)
            to[j] = table[r & (DRAWS - 1)];
    }
}

static int numbers(maker *k, slr_tensor *t, double mean, double deviation)
{
    float value[DRAWS];
    filling *f = slr_alloc(k->m, sizeof *f);
    if (!f)
        return SDLORA_ENOMEM;
    int rc = slr_storage_new(&t->storage, k->m, slr_tensor_bytes(t));
    if (rc == SDLORA_OK) {
        for (int i = 0; i < DRAWS; i++)
            value[i] = (float)(mean + deviation * sqrt(3.0) * (2.0 * (i + 0.5) / DRAWS - 1.0));
        slr_dtype(k->dtype)->from_f32(f->table, value, DRAWS);
        f->to = slr_storage_data(t->storage);
        f->n = slr_tensor_count(t);
        f->seed = k->seed;
        f->stream = k->n++;
        slr_parallel(k->threads, (f->n + PIECE - 1) / PIECE, 1,
                     slr_dtype_size(k->dtype) == 2 ? fill2 : fill4, f);
        t->data = f->to;
    }
    slr_free(k->m, f);
    return rc;
}

typedef struct zero_pages {
    slr_mem *m;
    void *data;
    size_t bytes;
} zero_pages;

static void unmap(void *user)
{
    zero_pages *z = user;
    slr_mem *m = z->m;
    munmap(z->data, z->bytes);
    slr_free(m, z);
    slr_mem_unref(m);
}

/* Contents that are never touched cost nothing: untouched pages of the system's zeros. */
static int zeros(maker *k, slr_tensor *t)
{
    zero_pages *z = slr_alloc(k->m, sizeof *z);
    if (!z)
        return SDLORA_ENOMEM;
    *z = (zero_pages){.m = slr_mem_ref(k->m), .bytes = slr_tensor_bytes(t)};
    z->data = mmap(NULL, z->bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (z->data == MAP_FAILED) {
        int rc = slr_nomem(__func__, z->bytes);
        slr_mem_unref(z->m);
        slr_free(k->m, z);
        return rc;
    }
    t->data = z->data;
    int rc = slr_storage_wrap(&t->storage, k->m, z->data, z->bytes, unmap, z);
    if (rc < 0)
        unmap(z);
    return rc;
}

/* Uniform in mean +- sqrt(3) deviation. */
static void add(maker *k, const char *name, double mean, double deviation, int rank,
                const int64_t *dim)
{
    slr_tensor t = {.dtype = k->dtype, .rank = rank};
    if (k->rc < 0)
        return;
    memcpy(t.dim, dim, (size_t)rank * sizeof *dim);
    k->rc = k->shapes_only ? zeros(k, &t) : numbers(k, &t, mean, deviation);
    if (k->rc == SDLORA_OK)
        k->rc = slr_weights_put(k->w, name, &t);
    slr_storage_unref(t.storage);
}

/* ---- shapes ---- */

static void linear(maker *k, const char *path, int64_t out, int64_t in, bool bias)
{
    char name[192];
    add(k, slr_nn_path(name, "%s.weight", path), 0.0, 1.0 / sqrt((double)in), 2,
        (const int64_t[]){out, in});
    if (bias)
        add(k, slr_nn_path(name, "%s.bias", path), 0.0, 0.02, 1, &out);
}

static void conv(maker *k, const char *path, int64_t out, int64_t in, int64_t side)
{
    char name[192];
    const int64_t dim[4] = {out, in, side, side};
    add(k, slr_nn_path(name, "%s.weight", path), 0.0, 1.0 / sqrt((double)(in * side * side)), 4,
        dim);
    add(k, slr_nn_path(name, "%s.bias", path), 0.0, 0.02, 1, &out);
}

static void norm(maker *k, const char *path, int64_t n)
{
    char name[192];
    add(k, slr_nn_path(name, "%s.weight", path), 1.0, 0.05, 1, &n);
    add(k, slr_nn_path(name, "%s.bias", path), 0.0, 0.02, 1, &n);
}

/* time 0: the autoencoder's block */
static void resnet(maker *k, const char *path, int64_t in, int64_t out, int64_t time)
{
    char p[192];
    norm(k, slr_nn_path(p, "%s.norm1", path), in);
    conv(k, slr_nn_path(p, "%s.conv1", path), out, in, 3);
    if (time > 0)
        linear(k, slr_nn_path(p, "%s.time_emb_proj", path), out, time, true);
    norm(k, slr_nn_path(p, "%s.norm2", path), out);
    conv(k, slr_nn_path(p, "%s.conv2", path), out, out, 3);
    if (in != out)
        conv(k, slr_nn_path(p, "%s.conv_shortcut", path), out, in, 1);
}

static void attend(maker *k, const char *path, int64_t c, int64_t context)
{
    char p[192];
    linear(k, slr_nn_path(p, "%s.to_q", path), c, c, false);
    linear(k, slr_nn_path(p, "%s.to_k", path), c, context, false);
    linear(k, slr_nn_path(p, "%s.to_v", path), c, context, false);
    linear(k, slr_nn_path(p, "%s.to_out.0", path), c, c, true);
}

static void transformer(maker *k, const arch *a, const char *path, int64_t c, int depth)
{
    char b[192], p[192];
    norm(k, slr_nn_path(p, "%s.norm", path), c);
    for (int end = 0; end < 2; end++) {
        slr_nn_path(p, "%s.%s", path, end ? "proj_out" : "proj_in");
        if (a->linear_proj)
            linear(k, p, c, c, true);
        else
            conv(k, p, c, c, 1);
    }
    for (int d = 0; d < depth; d++) {
        slr_nn_path(b, "%s.transformer_blocks.%d", path, d);
        for (int i = 1; i <= 3; i++)
            norm(k, slr_nn_path(p, "%s.norm%d", b, i), c);
        attend(k, slr_nn_path(p, "%s.attn1", b), c, c);
        attend(k, slr_nn_path(p, "%s.attn2", b), c, a->context);
        linear(k, slr_nn_path(p, "%s.ff.net.0.proj", b), 8 * c, c, true);
        linear(k, slr_nn_path(p, "%s.ff.net.2", b), c, 4 * c, true);
    }
}

static void res_attn(maker *k, const arch *a, const char *block, int j, int64_t in, int64_t out,
                     int depth)
{
    char p[192];
    resnet(k, slr_nn_path(p, "%s.resnets.%d", block, j), in, out, 4 * a->channels[0]);
    if (depth > 0)
        transformer(k, a, slr_nn_path(p, "%s.attentions.%d", block, j), out, depth);
}

static void unet(maker *k, const arch *a)
{
    char block[192], p[192];
    int64_t skip[64], c = a->channels[0], time = 4 * c;
    int n = 0, last = a->n_levels - 1;
    linear(k, "time_embedding.linear_1", time, c, true);
    linear(k, "time_embedding.linear_2", time, time, true);
    if (a->vector > 0) {
        linear(k, "add_embedding.linear_1", time, a->vector, true);
        linear(k, "add_embedding.linear_2", time, time, true);
    }
    conv(k, "conv_in", c, LATENTS + a->extra, 3);
    skip[n++] = c;
    for (int i = 0; i <= last; i++) {
        slr_nn_path(block, "down_blocks.%d", i);
        for (int j = 0; j < a->resnets; j++) {
            res_attn(k, a, block, j, c, a->channels[i], a->depth[i]);
            skip[n++] = c = a->channels[i];
        }
        if (i < last) {
            conv(k, slr_nn_path(p, "%s.downsamplers.0.conv", block), c, c, 3);
            skip[n++] = c;
        }
    }
    res_attn(k, a, "mid_block", 0, c, c, a->mid_depth);
    resnet(k, "mid_block.resnets.1", c, c, time);
    for (int i = last; i >= 0; i--) {
        slr_nn_path(block, "up_blocks.%d", last - i);
        for (int j = 0; j <= a->resnets; j++) {
            res_attn(k, a, block, j, c + skip[--n], a->channels[i], a->depth[i]);
            c = a->channels[i];
        }
        if (i > 0)
            conv(k, slr_nn_path(p, "%s.upsamplers.0.conv", block), c, c, 3);
    }
    norm(k, "conv_norm_out", c);
    conv(k, "conv_out", LATENTS, c, 3);
}

static void vae_middle(maker *k, const char *half, int64_t c)
{
    static const char *const LINEARS[] = {"to_q", "to_k", "to_v", "to_out.0"};
    char p[192];
    resnet(k, slr_nn_path(p, "%s.mid_block.resnets.0", half), c, c, 0);
    norm(k, slr_nn_path(p, "%s.mid_block.attentions.0.group_norm", half), c);
    for (int i = 0; i < 4; i++)
        linear(k, slr_nn_path(p, "%s.mid_block.attentions.0.%s", half, LINEARS[i]), c, c, true);
    resnet(k, slr_nn_path(p, "%s.mid_block.resnets.1", half), c, c, 0);
}

static void vae(maker *k, const arch *a)
{
    char p[192];
    int last = a->n_vae - 1;
    int64_t c = a->vae[0], top = a->vae[last];
    conv(k, "encoder.conv_in", c, 3, 3);
    for (int i = 0; i <= last; i++) {
        for (int j = 0; j < a->vae_resnets; j++, c = a->vae[i])
            resnet(k, slr_nn_path(p, "encoder.down_blocks.%d.resnets.%d", i, j), c, a->vae[i], 0);
        if (i < last)
            conv(k, slr_nn_path(p, "encoder.down_blocks.%d.downsamplers.0.conv", i), c, c, 3);
    }
    vae_middle(k, "encoder", top);
    norm(k, "encoder.conv_norm_out", top);
    conv(k, "encoder.conv_out", 2 * LATENTS, top, 3);
    conv(k, "quant_conv", 2 * LATENTS, 2 * LATENTS, 1);
    conv(k, "post_quant_conv", LATENTS, LATENTS, 1);
    conv(k, "decoder.conv_in", top, LATENTS, 3);
    vae_middle(k, "decoder", top);
    for (int i = last; i >= 0; i--) {
        for (int j = 0; j <= a->vae_resnets; j++, c = a->vae[i])
            resnet(k, slr_nn_path(p, "decoder.up_blocks.%d.resnets.%d", last - i, j), c, a->vae[i],
                   0);
        if (i > 0)
            conv(k, slr_nn_path(p, "decoder.up_blocks.%d.upsamplers.0.conv", last - i), c, c, 3);
    }
    norm(k, "decoder.conv_norm_out", a->vae[0]);
    conv(k, "decoder.conv_out", 3, a->vae[0], 3);
}

static void text_encoder(maker *k, const text_arch *t)
{
    static const char *const PROJ[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
    char b[192], p[192];
    int64_t w = t->width;
    add(k, "text_model.embeddings.token_embedding.weight", 0.0, 0.1, 2,
        (const int64_t[]){VOCAB, w});
    add(k, "text_model.embeddings.position_embedding.weight", 0.0, 0.1, 2,
        (const int64_t[]){ROWS, w});
    for (int i = 0; i < t->layers; i++) {
        slr_nn_path(b, "text_model.encoder.layers.%d", i);
        norm(k, slr_nn_path(p, "%s.layer_norm1", b), w);
        for (int j = 0; j < 4; j++)
            linear(k, slr_nn_path(p, "%s.self_attn.%s", b, PROJ[j]), w, w, true);
        norm(k, slr_nn_path(p, "%s.layer_norm2", b), w);
        linear(k, slr_nn_path(p, "%s.mlp.fc1", b), t->mlp, w, true);
        linear(k, slr_nn_path(p, "%s.mlp.fc2", b), w, t->mlp, true);
    }
    norm(k, "text_model.final_layer_norm", w);
    if (t->pooled)
        linear(k, "text_projection", t->pooled, w, false);
}

static void first_encoder(maker *k, const arch *a)
{
    text_encoder(k, &a->te);
}

static void second_encoder(maker *k, const arch *a)
{
    text_encoder(k, &a->te2);
}

static const struct {
    int part;
    void (*make)(maker *k, const arch *a);
} PARTS[] = {{SLR_PART_UNET, unet},
             {SLR_PART_VAE, vae},
             {SLR_PART_TE, first_encoder},
             {SLR_PART_TE2, second_encoder}};

static const arch *find(const char *name)
{
    for (size_t i = 0; i < sizeof ARCHS / sizeof *ARCHS; i++)
        if (strcmp(ARCHS[i].name, name) == 0)
            return &ARCHS[i];
    return NULL;
}

static int make(slr_checkpoint **out, const char *name, uint32_t dtype, uint64_t seed,
                bool shapes_only, const slr_checkpoint_config *config)
{
    const arch *a = find(name);
    slr_mem *m = config->mem;
    slr_checkpoint *c = NULL;
    *out = NULL;
    if (!a)
        return slr_fail(SDLORA_EINVAL, __func__,
                        "no architecture is called \"%s\": sd15, sd21, sdxl, tiny, tiny-sd2, "
                        "tiny-sdxl, tiny-refiner, tiny-inpaint and tiny-edit are",
                        name);
    if (dtype != SDLORA_F16 && dtype != SDLORA_F32 && dtype != SDLORA_BF16)
        return slr_fail(SDLORA_EINVAL, __func__, "synthetic weights are f16, bf16 or f32");
    const slr_family *family = slr_family_by_id(a->family);
    const slr_traits traits = {
        .predict = config->predict < 0 ? family->predict : config->predict,
        .source = config->predict < 0 ? "its family" : "the caller",
        .ztsnr = config->ztsnr > 0,
        .inpaint = a->extra == LATENTS + 1,
        .edit = a->extra == LATENTS,
    };
    SLR_TRY(slr_checkpoint_make(&c, m, name, family, &traits, "synthetic"));
    maker k = {.m = m,
               .dtype = dtype,
               .seed = seed,
               .shapes_only = shapes_only,
               .threads = slr_threads_default()};
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS && k.rc == SDLORA_OK; i++) {
        char label[192];
        if ((PARTS[i].part == SLR_PART_TE && a->te.layers == 0) ||
            (PARTS[i].part == SLR_PART_TE2 && a->te2.layers == 0))
            continue;
        k.rc = slr_weights_new(&k.w, m,
                               slr_nn_path(label, "%s: %s", name, slr_part_name(PARTS[i].part)));
        if (k.rc < 0)
            break;
        PARTS[i].make(&k, a);
        slr_checkpoint_set_part(c, PARTS[i].part, k.w);
        slr_weights_unref(k.w);
    }
    if (k.rc < 0) {
        slr_checkpoint_unref(c);
        return k.rc;
    }
    *out = c;
    return SDLORA_OK;
}

int slr_checkpoint_synthetic(slr_checkpoint **out, const char *name, uint32_t dtype, uint64_t seed,
                             const slr_checkpoint_config *config)
{
    return make(out, name, dtype, seed, false, config);
}

int slr_checkpoint_shapes(slr_checkpoint **out, const char *name,
                          const slr_checkpoint_config *config)
{
    return make(out, name, SDLORA_F16, 0, true, config);
}
