/* SPDX-License-Identifier: MIT */
/* Tells families and predictions apart.  Knows what marks each variant; refuses to guess from
 * widths, since a family is a structure and small models of it exist. */
#include "models/detect.h"

#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "io/file.h"
#include "io/json.h"

/* Tensors whose presence alone names a model that is not handled. */
static const struct {
    const char *suffix;
    const char *what;
} FOREIGN[] = {
    {"x_embedder.proj.weight", "a Stable Diffusion 3 model"},
    {"double_blocks.0.img_attn.norm.key_norm.scale", "a Flux model"},
    {"roberta.embeddings.word_embeddings.weight", "an AltDiffusion model"},
    {"depth_model.model.pretrained.act_postprocess3.0.project.0.bias",
     "a Stable Diffusion 2 depth model"},
    {"embedder.model.ln_final.weight", "an unCLIP model"},
    {"control_model.input_blocks.0.0.weight", "a ControlNet"},
    {".lora_down.weight", "a LoRA network, not a model"},
    {".lora_A.weight", "a LoRA network, not a model"},
    {".hada_w1_a", "a LyCORIS network, not a model"},
    {"edm_mean", "a Playground 2.5 model"},
};

static bool has_suffix(const slr_bag *bag, const char *suffix)
{
    for (size_t i = 0; i < slr_bag_count(bag); i++)
        if (slr_ends(slr_bag_at(bag, i, NULL), suffix))
            return true;
    return false;
}

static int64_t dim_of(const slr_weights *w, const char *name, int axis)
{
    const slr_tensor *t = w ? slr_weights_find(w, name) : NULL;
    return t && axis < t->rank ? t->dim[axis] : 0;
}

/* The rank of the first transformer's proj_in: 4 in SD 1, 2 in later families; 0: no transformer.
 */
static int proj_rank(const slr_weights *unet)
{
    for (size_t i = 0; i < slr_weights_count(unet); i++) {
        const slr_tensor *t;
        if (slr_ends(slr_weights_at(unet, i, &t), ".proj_in.weight"))
            return t->rank;
    }
    return 0;
}

static int unsupported(const char *label, const char *what)
{
    return slr_fail(SDLORA_ENOTSUP, __func__, "%s is %s, which is not supported", label, what);
}

/* Latents, a mask and the latents of what it leaves. */
static bool is_inpaint(const slr_weights *unet)
{
    int64_t in = dim_of(unet, "conv_in.weight", 1), out = dim_of(unet, "conv_out.weight", 0);
    return out > 0 && in == 2 * out + 1;
}

/* Latents, and those of a picture that is edited: instruct-pix2pix. */
static bool is_edit(const slr_weights *unet)
{
    int64_t in = dim_of(unet, "conv_in.weight", 1), out = dim_of(unet, "conv_out.weight", 0);
    return out > 0 && in == 2 * out;
}

static int check_unet(const slr_weights *unet, const char *label)
{
    int64_t in = dim_of(unet, "conv_in.weight", 1), out = dim_of(unet, "conv_out.weight", 0);
    if (in > 0 && out > 0 && in != out && !is_inpaint(unet) && !is_edit(unet))
        return slr_fail(SDLORA_ENOTSUP, __func__,
                        "%s takes %lld channels where it gives %lld: a depth or upscaling model, "
                        "which is not supported",
                        label, (long long)in, (long long)out);
    if (dim_of(unet, "class_embedding.linear_1.weight", 0))
        return unsupported(label, "a class-conditioned model");
    if (dim_of(unet, "time_embedding.cond_proj.weight", 0))
        return unsupported(label, "an LCM-distilled model");
    return SDLORA_OK;
}

/* SDXL's base and its refiner: six sizes or five stand beside the pooled state in the UNet's
 * vector. Without an encoder only the refiner's real width tells. */
static int which_sdxl(const slr_parts *p)
{
    enum { REFINER_VECTOR = 2560 };
    int64_t vector = dim_of(p->part[SLR_PART_UNET], "add_embedding.linear_1.weight", 1);
    static const int WHERE[] = {SLR_PART_TE2, SLR_PART_TE}; /* LDM has the refiner's at number 0 */
    for (size_t i = 0; i < sizeof WHERE / sizeof *WHERE; i++) {
        int64_t pooled = dim_of(p->part[WHERE[i]], "text_projection.weight", 0);
        if (pooled)
            return vector == pooled + 5 * 256 ? SLR_FAMILY_REFINER : SLR_FAMILY_SDXL;
    }
    return vector == REFINER_VECTOR ? SLR_FAMILY_REFINER : SLR_FAMILY_SDXL;
}

int slr_detect_family(const slr_family **out, const slr_parts *p, const slr_bag *bag,
                      const char *label)
{
    const slr_weights *unet = p->part[SLR_PART_UNET], *te = p->part[SLR_PART_TE];
    int id = SLR_FAMILY_SD1;
    *out = NULL;
    for (size_t i = 0; i < sizeof FOREIGN / sizeof *FOREIGN; i++)
        if (has_suffix(bag, FOREIGN[i].suffix))
            return unsupported(label, FOREIGN[i].what);
    if (!unet && !te && !p->part[SLR_PART_TE2] && !p->part[SLR_PART_VAE])
        return slr_fail(SDLORA_EFORMAT, __func__,
                        "%s: none of its %zu tensors is of a Stable Diffusion model", label,
                        slr_bag_count(bag));
    if (unet) {
        SLR_TRY(check_unet(unet, label));
        if (slr_weights_any(unet, "add_embedding."))
            id = which_sdxl(p);
        else if (proj_rank(unet) == 2)
            id = SLR_FAMILY_SD2;
    } else if (p->part[SLR_PART_TE2]) {
        id = SLR_FAMILY_SDXL;
    } else if (te && p->spelling[SLR_PART_TE] == SLR_SPELL_OPEN) {
        id = SLR_FAMILY_SD2;
    }
    *out = slr_family_by_id(id);
    return SDLORA_OK;
}

const char *slr_detect_gap(const slr_weights *unet)
{
    bool first = slr_nn_has(unet, "mid_block.resnets.0.conv1"),
         last = slr_nn_has(unet, "mid_block.resnets.1.conv1"),
         attention = slr_weights_any(unet, "mid_block.attentions."),
         attends = proj_rank(unet) > 0, thin = !slr_nn_has(unet, "down_blocks.0.resnets.1.conv1");
    if (!first && !last && !attention)
        return thin ? NULL : "middle block";
    if (!first)
        return "middle block's first residual block";
    if (attention || last)
        return !last                   ? "middle block's last residual block"
               : attention || !attends ? NULL
                                       : "middle block's attention";
    return NULL;
}

void slr_detect_settle(slr_parts *p, const slr_family *family)
{
    int to = family->text[0].part;
    if (family->n_text != 1 || to == SLR_PART_TE || p->part[to] || !p->part[SLR_PART_TE])
        return;
    p->part[to] = p->part[SLR_PART_TE];
    p->spelling[to] = p->spelling[SLR_PART_TE];
    memcpy(p->prefix[to], p->prefix[SLR_PART_TE], sizeof p->prefix[to]);
    p->part[SLR_PART_TE] = NULL;
    p->spelling[SLR_PART_TE] = SLR_SPELL_NONE;
    p->prefix[SLR_PART_TE][0] = '\0';
}

/* ---- prediction ---- */

/* Spellings of the two predictions in metadata and configurations; -1: other. */
static int predict_of(const char *text)
{
    static const struct {
        const char *text;
        int predict;
    } WORDS[] = {
        {"epsilon", SLR_PREDICT_EPS},    {"eps", SLR_PREDICT_EPS},        {"v", SLR_PREDICT_V},
        {"v_prediction", SLR_PREDICT_V}, {"v-prediction", SLR_PREDICT_V},
    };
    for (size_t i = 0; text && i < sizeof WORDS / sizeof *WORDS; i++)
        if (strcmp(WORDS[i].text, text) == 0)
            return WORDS[i].predict;
    return -1;
}

/* told: another has said what it predicts. */
static int from_scheduler(slr_traits *out, slr_mem *m, const char *path, bool told)
{
    slr_buf file;
    json_t *root = NULL;
    slr_buf_init(&file, m);
    slr_buf_printf(&file, "%s/scheduler/scheduler_config.json", path);
    int rc = slr_buf_ok(&file);
    if (rc == SDLORA_OK && slr_file_exists(file.data)) {
        rc = slr_json_read(&root, m, file.data, 1 << 20);
        const json_t *rescale = json_object_get(root, "rescale_betas_zero_snr");
        const char *type = json_string_value(json_object_get(root, "prediction_type"));
        out->ztsnr = out->ztsnr || json_is_true(rescale);
        if (rc == SDLORA_OK && type && (out->predict = predict_of(type)) < 0 && !told)
            rc = slr_fail(SDLORA_ENOTSUP, __func__, "%s: prediction_type \"%s\" is not supported",
                          file.data, type);
        out->source = "the folder's scheduler";
    }
    json_decref(root);
    slr_buf_free(&file);
    return rc;
}

/* A1111's habit: <stem>.yaml beside the file, of which only `parameterization:` matters here. */
static int from_yaml(slr_traits *out, slr_mem *m, const char *path)
{
    const char *base = slr_path_base(path);
    slr_buf file;
    slr_buf_init(&file, m);
    slr_buf_add(&file, path, (size_t)(base - path) + slr_path_stem(base));
    slr_buf_puts(&file, ".yaml");
    int rc = slr_buf_ok(&file);
    if (rc == SDLORA_OK && slr_file_exists(file.data)) {
        void *bytes = NULL;
        size_t n = 0;
        rc = slr_file_read(m, file.data, 1 << 20, &bytes, &n);
        slr_str rest = {bytes, n}, line;
        while (rc == SDLORA_OK && slr_str_next(&rest, '\n', &line)) {
            slr_str key;
            if (!slr_str_next(&line, ':', &key) ||
                !slr_str_eq(slr_str_trim(key), "parameterization"))
                continue;
            slr_str value = {line.p, 0};
            (void)slr_str_next(&line, '#', &value); /* what is behind it is a comment */
            value = slr_str_trim(value);
            bool quoted = value.n >= 2 && (value.p[0] == '"' || value.p[0] == '\'');
            if (quoted)
                value = (slr_str){value.p + 1, value.n - 2};
            out->predict = slr_str_eq(value, "v") ? SLR_PREDICT_V : SLR_PREDICT_EPS;
            out->source = "the .yaml beside it";
        }
        slr_free(m, bytes);
    }
    slr_buf_free(&file);
    return rc;
}

static void from_metadata(slr_traits *out, const slr_bag *bag)
{
    static const char *const KEYS[] = {"modelspec.predict_key", "modelspec.prediction_type"};
    static const struct {
        const char *key, *end;
        int predict;
    } ROWS[] = {
        {"ss_v_parameterization", "True", SLR_PREDICT_V},
        {"ss_v_parameterization", "False", SLR_PREDICT_EPS},
        {"modelspec.architecture", "-768-v", SLR_PREDICT_V},
        {"modelspec.architecture", "-v2-512", SLR_PREDICT_EPS},
    };
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS && out->predict < 0; i++)
        out->predict = predict_of(slr_bag_meta(bag, KEYS[i]));
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS && out->predict < 0; i++) {
        const char *value = slr_bag_meta(bag, ROWS[i].key);
        if (value && slr_ends(value, ROWS[i].end))
            out->predict = ROWS[i].predict;
    }
    out->source = "metadata";
}

static void from_markers(slr_traits *out, const slr_bag *bag)
{
    slr_tensor marker;
    out->ztsnr = slr_bag_find(bag, "ztsnr", &marker);
    if (slr_bag_find(bag, "v_pred", &marker))
        out->predict = SLR_PREDICT_V;
    out->source = "its marker tensor";
}

/* Of SD 2 only the first release, of 875000 steps, predicts noise: diffusers' rule, which merges
 * break, so that other counts say nothing. */
static void from_steps(slr_traits *out, const slr_family *family, const slr_bag *bag)
{
    enum { EPS_STEPS = 875000 };
    slr_tensor t;
    int64_t steps;
    if (family->id != SLR_FAMILY_SD2 || !slr_bag_find(bag, "global_step", &t) ||
        t.dtype != SDLORA_I64 || slr_tensor_count(&t) != 1)
        return;
    memcpy(&steps, t.data, sizeof steps);
    if (steps == EPS_STEPS)
        out->predict = SLR_PREDICT_EPS;
    out->source = "its count of steps";
}

int slr_detect_traits(slr_traits *out, slr_mem *m, const slr_family *family,
                      const slr_weights *unet, const slr_bag *bag, const char *path, int told)
{
    slr_traits t = {.predict = -1, .inpaint = unet && is_inpaint(unet),
                    .edit = unet && is_edit(unet)};
    from_markers(&t, bag);
    if (t.predict < 0)
        from_metadata(&t, bag);
    if (slr_dir_exists(path)) /* its bag is empty */
        SLR_TRY(from_scheduler(&t, m, path, told >= 0));
    else if (t.predict < 0 && told < 0)
        SLR_TRY(from_yaml(&t, m, path));
    if (t.predict < 0)
        from_steps(&t, family, bag);
    /* of inpainting and editing models only those of noise exist, and only SD 2 was released in
     * both ways */
    if (t.predict < 0 && (t.inpaint || t.edit || family->id != SLR_FAMILY_SD2)) {
        t.predict = SLR_PREDICT_EPS;
        t.source = "its family";
    }
    if (told >= 0) {
        t.predict = told;
        t.source = "the caller";
    }
    *out = t;
    return SDLORA_OK;
}
