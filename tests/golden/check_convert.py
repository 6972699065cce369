"""Holds `sdlora convert` against diffusers; run by hand.

    python check_convert.py path/to/sdlora

1. tinysd as a folder: StableDiffusionPipeline.from_pretrained loads all of it, and its UNet, VAE and text encoder give the bytes
   that diffusers' own converters give from the LDM file; its tokenizer gives the ids that the library gives.
2. The folder as an LDM file again: every tensor as it was.
3. Tiny random SDXL and SD 2 folders that diffusers saved: as LDM files with the names of sd-scripts' converters (in PYTHONPATH),
   and back as folders, every tensor as it was; StableDiffusionXLPipeline loads that one.
"""
import json
import os
import subprocess
import sys
import tempfile

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from oracle import TINYSD, load
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

SDLORA = sys.argv[1]


def run(*args):
    subprocess.run([SDLORA, *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def same(a, b, extra=()):
    missing = [k for k in a if k not in b]
    more = [k for k in b if k not in a and not k.endswith(tuple(extra) or ("\0",))]
    assert not missing and not more, (missing[:4], more[:4])
    for k, v in a.items():
        assert v.dtype == b[k].dtype and torch.equal(v, b[k]), k
    return len(a)


def tiny(base):
    folder = os.path.join(base, "tinysd")
    run("convert", TINYSD, folder, "--layout", "diffusers")
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    unet, vae, te = load(TINYSD)
    ids = torch.tensor([[49406, 320, 1125, 539, 320, 2368] + [49407] * 71])
    text = "a photo of a cat"
    assert pipe.tokenizer(text, padding="max_length", max_length=77)["input_ids"] == ids[0].tolist()
    got = json.loads(subprocess.run([SDLORA, "tokenize", "--json", text + " (naïve) ½ 'll it's 12,5"], check=True, capture_output=True).stdout)
    assert pipe.tokenizer(text + " (naïve) ½ 'll it's 12,5")["input_ids"][1:-1] == got, got
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([37.0, 801.0])
    with torch.no_grad():
        ctx = te(ids)[0]
        # another attention kernel than load()'s: equal up to rounding
        assert (ctx - pipe.text_encoder.float()(ids)[0]).abs().max() < 1e-5 * ctx.abs().max()
        ctx = ctx.repeat(2, 1, 1)
        assert torch.equal(unet(x, t, ctx).sample, pipe.unet.float()(x, t, ctx).sample)
        assert torch.equal(vae.decode(x).sample, pipe.vae.float().decode(x).sample)
    back = os.path.join(base, "tinysd.safetensors")
    run("convert", folder, back, "--layout", "ldm")
    print("tinysd:", same(load_file(TINYSD), load_file(back), extra=["position_ids"]), "tensors, outputs equal")


def models(xl):
    torch.manual_seed(3)
    text = dict(vocab_size=256, intermediate_size=64, max_position_embeddings=77, num_attention_heads=1)
    if xl:
        unet = UNet2DConditionModel(sample_size=16, block_out_channels=(32, 64, 64), layers_per_block=2, cross_attention_dim=128,
                                    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                                    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(1, 1, 1),
                                    transformer_layers_per_block=(1, 2, 3), use_linear_projection=True, addition_embed_type="text_time",
                                    addition_time_embed_dim=8, projection_class_embeddings_input_dim=2816)
        te = CLIPTextModel(CLIPTextConfig(hidden_size=64, num_hidden_layers=2, hidden_act="quick_gelu", **text))
        te2 = CLIPTextModelWithProjection(CLIPTextConfig(hidden_size=64, num_hidden_layers=3, hidden_act="gelu", projection_dim=64, **text))
    else:
        unet = UNet2DConditionModel(sample_size=16, block_out_channels=(64,) * 4, layers_per_block=2, cross_attention_dim=64,
                                    attention_head_dim=(1, 1, 1, 1), use_linear_projection=True)
        te = CLIPTextModel(CLIPTextConfig(hidden_size=64, num_hidden_layers=23, hidden_act="gelu", **text))
        te2 = None
    vae = AutoencoderKL(block_out_channels=(32, 32, 32, 32), layers_per_block=2, latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 4,
                        up_block_types=("UpDecoderBlock2D",) * 4)
    return {"unet": unet, "vae": vae, "text_encoder": te, **({"text_encoder_2": te2} if te2 else {})}


def expected(parts, xl):
    """sd-scripts' names and values of the LDM file."""
    from library import model_util, sdxl_model_util
    sd = {k: {n: v.detach() for n, v in m.state_dict().items()} for k, m in parts.items()}
    put = lambda prefix, d: {prefix + k: v for k, v in d.items()}
    vae = put("first_stage_model.", model_util.convert_vae_state_dict(sd["vae"]))
    if not xl:
        te = model_util.convert_text_encoder_state_dict_to_sd_v2(sd["text_encoder"], True)
        for k in ("text_projection", "logit_scale"):  # placeholders: nothing computes with them
            te.pop(k, None)
        return {**put("model.diffusion_model.", model_util.convert_unet_state_dict_to_sd(True, sd["unet"])), **vae, **put("cond_stage_model.model.", te)}
    te2 = sdxl_model_util.convert_text_encoder_2_state_dict_to_sdxl(sd["text_encoder_2"], torch.tensor(4.6))
    te2.pop("logit_scale", None)
    te2["text_projection"] = te2["text_projection"].T  # used as x @ P: diffusers turns it, sd-scripts does not
    unet = sdxl_model_util.convert_diffusers_unet_state_dict_to_sdxl(sd["unet"])
    return {**put("model.diffusion_model.", unet), **vae, **put("conditioner.embedders.0.transformer.", sd["text_encoder"]),
            **put("conditioner.embedders.1.model.", te2)}


def large(base, xl):
    name = "xl" if xl else "v2"
    folder, ldm, again = (os.path.join(base, name + end) for end in ("", ".safetensors", "-again"))
    parts = models(xl)
    for sub, m in parts.items():
        m.save_pretrained(os.path.join(folder, sub))
    with open(os.path.join(folder, "model_index.json"), "w") as f:
        json.dump({"_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"}, f)
    run("convert", folder, ldm, "--layout", "ldm")
    n = same(expected(parts, xl), load_file(ldm), extra=["position_ids"])
    run("convert", ldm, again, "--layout", "diffusers")
    for sub, m in parts.items():
        file = "model" if sub.startswith("text") else "diffusion_pytorch_model"
        same(load_file(os.path.join(folder, sub, file + ".safetensors")), load_file(os.path.join(again, sub, file + ".safetensors")))
    pipe = (StableDiffusionXLPipeline if xl else StableDiffusionPipeline).from_pretrained(again, **({} if xl else {"safety_checker": None}))
    x, t, ctx = torch.randn(1, 4, 16, 16), torch.tensor([500.0]), torch.randn(1, 77, parts["unet"].config.cross_attention_dim)
    with torch.no_grad():
        if not xl:  # the addition embedding of the tiny XL has other widths than SDXL's own: its weights are compared, not outputs
            assert torch.equal(parts["unet"].eval()(x, t, ctx).sample, pipe.unet(x, t, ctx).sample)
        assert torch.equal(parts["text_encoder"].eval()(torch.arange(77)[None])[0], pipe.text_encoder(torch.arange(77)[None])[0])
    print(f"{name}: {n} tensors as sd-scripts names them, and back")


with tempfile.TemporaryDirectory() as base:
    tiny(base)
    large(base, False)
    large(base, True)
