/* SPDX-License-Identifier: MIT */
/* Names to and from LDM, OpenCLIP and NAI spellings; families and schedules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"
#include "models/family.h"
#include "models/keymap.h"
#include "models/schedule.h"

/* SD 1: levels of two residual blocks, attention on the first three; SDXL: three levels, attention
 * on the last two. */
static const slr_unet_map SD1 = {4, 4, {2, 2, 2, 2}, {3, 3, 3, 3}, {false, true, true, true}};
static const slr_unet_map SDXL = {3, 3, {2, 2, 2}, {3, 3, 3}, {true, true, false}};
static const slr_unet_map TINY = {3, 3, {1, 1, 1}, {2, 2, 2}, {true, true, true}};

typedef struct pair {
    const slr_unet_map *map;
    const char *ldm, *ours;
} pair;

static const pair UNET[] = {
    {&SD1, "input_blocks.0.0.weight", "conv_in.weight"},
    {&SD1, "time_embed.0.bias", "time_embedding.linear_1.bias"},
    {&SD1, "time_embed.2.weight", "time_embedding.linear_2.weight"},
    {&SD1, "input_blocks.1.0.in_layers.2.weight", "down_blocks.0.resnets.0.conv1.weight"},
    {&SD1, "input_blocks.2.1.proj_in.weight", "down_blocks.0.attentions.1.proj_in.weight"},
    {&SD1, "input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"},
    {&SD1, "input_blocks.4.0.skip_connection.bias", "down_blocks.1.resnets.0.conv_shortcut.bias"},
    {&SD1, "input_blocks.11.0.out_layers.3.weight", "down_blocks.3.resnets.1.conv2.weight"},
    {&SD1, "middle_block.0.emb_layers.1.weight", "mid_block.resnets.0.time_emb_proj.weight"},
    {&SD1, "middle_block.1.transformer_blocks.0.attn2.to_out.0.bias",
     "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.bias"},
    {&SD1, "middle_block.2.out_layers.0.weight", "mid_block.resnets.1.norm2.weight"},
    {&SD1, "output_blocks.0.0.in_layers.0.weight", "up_blocks.0.resnets.0.norm1.weight"},
    {&SD1, "output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"},
    {&SD1, "output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"},
    {&SD1, "output_blocks.11.1.proj_out.weight", "up_blocks.3.attentions.2.proj_out.weight"},
    {&SD1, "out.0.weight", "conv_norm_out.weight"},
    {&SD1, "out.2", "conv_out"},
    {&SDXL, "label_emb.0.0.weight", "add_embedding.linear_1.weight"},
    {&SDXL, "label_emb.0.2.weight", "add_embedding.linear_2.weight"},
    {&SDXL, "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj",
     "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj"},
    {&SDXL, "output_blocks.2.2.conv", "up_blocks.0.upsamplers.0.conv"},
    {&SDXL, "output_blocks.8.0.in_layers.2", "up_blocks.2.resnets.2.conv1"},
    {&TINY, "input_blocks.2.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"},
    {&TINY, "input_blocks.5.1.norm.weight", "down_blocks.2.attentions.0.norm.weight"},
    {&TINY, "output_blocks.1.2.conv.bias", "up_blocks.0.upsamplers.0.conv.bias"},
    {&TINY, "output_blocks.5.0.skip_connection.weight",
     "up_blocks.2.resnets.1.conv_shortcut.weight"},
};

static void unet_names(void **state)
{
    char out[SLR_NAME];
    for (size_t i = 0; i < sizeof UNET / sizeof *UNET; i++) {
        assert_true(slr_unet_from_ldm(UNET[i].map, UNET[i].ldm, out));
        assert_string_equal(out, UNET[i].ours);
        assert_true(slr_unet_to_ldm(UNET[i].map, UNET[i].ours, out));
        assert_string_equal(out, UNET[i].ldm);
    }
}

static void foreign_unet_names_are_refused(void **state)
{
    static const char *const BAD[] = {
        "",
        "input_blocks",
        "input_blocks.1",
        "input_blocks.12.0.in_layers.0.weight",
        "input_blocks.3.1.op.weight",
        "input_blocks.3.0.in_layers.0.weight",
        "input_blocks.1.2.proj_in.weight",
        "output_blocks.12.0.in_layers.0",
        "output_blocks.2.2.proj_in.weight",
        "input_blocks.99999.0.op",
        "outer.0.weight",
        "out.0x.weight",
        "input_blocks.1.0.in_layers.9.weight",
        "down_blocks.0.resnets.0.conv1.weight",
    };
    char out[SLR_NAME], longer[400];
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        assert_false(slr_unet_from_ldm(&SD1, BAD[i], out));
    memset(longer, 'x', sizeof longer);
    memcpy(longer, "out.0.", 6);
    longer[sizeof longer - 1] = '\0';
    assert_false(slr_unet_from_ldm(&SD1, longer, out));
    assert_false(slr_unet_to_ldm(&SD1, "down_blocks.4.resnets.0.conv1", out));
    assert_false(slr_unet_to_ldm(&SD1, "down_blocks.0.resnets.2.conv1", out));
}

/* The levels of a model come from its own names. */
static void scans_levels(void **state)
{
    slr_unet_scan scan = {0};
    slr_unet_map map;
    for (size_t i = 0; i < sizeof UNET / sizeof *UNET; i++)
        if (UNET[i].map == &SDXL)
            slr_unet_scan_name(&scan, UNET[i].ldm);
    slr_unet_scan_name(&scan, "input_blocks.3.0.op.weight");
    slr_unet_scan_name(&scan, "input_blocks.6.0.op.weight");
    slr_unet_scan_name(&scan, "output_blocks.5.2.conv.weight");
    slr_unet_scan_name(&scan, "output_blocks.2.1.norm.weight");
    slr_unet_scan_name(&scan, "output_blocks.5.1.norm.weight");
    assert_int_equal(slr_unet_scan_finish(&scan, &map, "test"), SDLORA_OK);
    assert_memory_equal(&map, &SDXL, sizeof map);
}

static void vae_names(void **state)
{
    static const struct {
        const char *ldm, *ours;
    } VAE[] = {
        {"encoder.conv_in.weight", "encoder.conv_in.weight"},
        {"encoder.down.1.block.0.norm1.bias", "encoder.down_blocks.1.resnets.0.norm1.bias"},
        {"encoder.down.2.downsample.conv.weight",
         "encoder.down_blocks.2.downsamplers.0.conv.weight"},
        {"encoder.mid.block_2.conv1.weight", "encoder.mid_block.resnets.1.conv1.weight"},
        {"decoder.mid.attn_1.norm.weight", "decoder.mid_block.attentions.0.group_norm.weight"},
        {"decoder.mid.attn_1.q.weight", "decoder.mid_block.attentions.0.to_q.weight"},
        {"decoder.mid.attn_1.proj_out.bias", "decoder.mid_block.attentions.0.to_out.0.bias"},
        {"decoder.up.3.block.2.conv2.weight", "decoder.up_blocks.0.resnets.2.conv2.weight"},
        {"decoder.up.0.block.0.nin_shortcut.weight",
         "decoder.up_blocks.3.resnets.0.conv_shortcut.weight"},
        {"decoder.up.1.upsample.conv.bias", "decoder.up_blocks.2.upsamplers.0.conv.bias"},
        {"encoder.norm_out.weight", "encoder.conv_norm_out.weight"},
        {"quant_conv.weight", "quant_conv.weight"},
    };
    char out[SLR_NAME];
    int levels = 0;
    for (size_t i = 0; i < sizeof VAE / sizeof *VAE; i++) {
        assert_true(slr_vae_from_ldm(4, VAE[i].ldm, out));
        assert_string_equal(out, VAE[i].ours);
        assert_true(slr_vae_to_ldm(4, VAE[i].ours, out));
        assert_string_equal(out, VAE[i].ldm);
        slr_vae_scan_name(&levels, VAE[i].ldm);
    }
    assert_int_equal(levels, 4);
    assert_false(slr_vae_from_ldm(4, "decoder.up.4.block.0.norm1.weight", out));
    assert_false(slr_vae_from_ldm(4, "loss.logvar", out));
    assert_true(slr_vae_from_old("encoder.mid_block.attentions.0.proj_attn.weight", out));
    assert_string_equal(out, "encoder.mid_block.attentions.0.to_out.0.weight");
}

static void text_names(void **state)
{
    char out[SLR_NAME];
    assert_true(slr_clip_from_open("transformer.resblocks.11.mlp.c_fc.weight", out));
    assert_string_equal(out, "text_model.encoder.layers.11.mlp.fc1.weight");
    assert_true(slr_clip_from_open("positional_embedding", out));
    assert_string_equal(out, "text_model.embeddings.position_embedding.weight");
    assert_true(slr_clip_to_open("text_model.encoder.layers.3.self_attn.out_proj.bias", out));
    assert_string_equal(out, "transformer.resblocks.3.attn.out_proj.bias");
    assert_false(slr_clip_from_open("transformer.resblocks.0.attn.in_proj_weight", out));
    assert_false(slr_clip_from_open("logit_scale", out));
    assert_true(slr_clip_from_nai("encoder.layers.0.mlp.fc1.weight", out));
    assert_string_equal(out, "text_model.encoder.layers.0.mlp.fc1.weight");
    assert_false(slr_clip_from_nai("text_model.encoder.layers.0.mlp.fc1.weight", out));
}

static void families(void **state)
{
    assert_string_equal(slr_family_by_id(SLR_FAMILY_SD1)->name, "sd1");
    assert_int_equal(slr_family_by_name("sdxl")->id, SLR_FAMILY_SDXL);
    assert_null(slr_family_by_name("sd3"));
    assert_null(slr_family_by_id(0));
}

/* Known values, to the digits that are compared. */
static void schedule_table(void **state)
{
    static const struct {
        int i;
        double sigma;
    } TABLE[] = {{0, 0.02916753}, {1, 0.04131448}, {100, 0.3439313},
                 {250, 0.695799}, {500, 1.618279}, {750, 4.099164},
                 {900, 8.346597}, {998, 14.52628}, {999, 14.61464}};
    slr_schedule s;
    slr_schedule_init(&s);
    for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++)
        assert_true(fabs(s.sigma[TABLE[i].i] / TABLE[i].sigma - 1) < 1e-6);
    assert_true(fabs(s.alpha_bar[0] - 0.999149978) < 1e-7 &&
                fabs(s.alpha_bar[999] - 0.00466009835) < 1e-9);
    for (int i = 0; i < SLR_TIMESTEPS; i += 37)
        assert_true(fabs(slr_schedule_t(&s, s.sigma[i]) - i) < 1e-3);
    /* 250.375 and back: f32 tables of log sigma carry about 1e-5 of a step */
    assert_true(fabs(slr_schedule_t(&s, slr_schedule_sigma(&s, 250.375)) - 250.375) < 1e-4);
    assert_true(slr_schedule_t(&s, 1e-9) == 0 && slr_schedule_t(&s, 1e9) == 999);
    assert_true(fabs(slr_schedule_sigma(&s, 5000) - s.sigma[999]) < 1e-4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unet_names),     cmocka_unit_test(foreign_unet_names_are_refused),
        cmocka_unit_test(scans_levels),   cmocka_unit_test(vae_names),
        cmocka_unit_test(text_names),     cmocka_unit_test(families),
        cmocka_unit_test(schedule_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
