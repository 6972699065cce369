"""Freezes small random models of every family (SD 1, SD 2, SDXL, its refiner, inpainting and pruned variants) as diffusers and
transformers compute them, and the names that their tensors have in LDM files.

    python make_families.py SD_SCRIPTS_CHECKOUT

Widths are small, structures are those of the real models (levels, attentions, linear projections, two encoders, vectors).  Weights
and inputs are made from their names (synthetic.draws), so that files hold answers only: families.safetensors has text states, pooled
states and UNet outputs, families.json the tensors of each model by folder and name with their shapes, and LDM's names of them:
a source, a list of sources that stand below each other, or "T:" and a source that is transposed.  LDM's names are sd-scripts';
diffusers' own reader of LDM files must give the sources back.
"""
import json
import math
import os
import sys

import synthetic
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_open_clip_checkpoint
from diffusers.models.upsampling import Upsample2D
from oracle import HERE, cropped, save, versions
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, sys.argv[1])
from library import model_util, sdxl_model_util  # noqa: E402

VOCAB, EOS = 256, 255
UNET = "model.diffusion_model."
CROSS, PLAIN = "CrossAttn", ""


def unet(widths, attention, depth, context, linear, vector=0, channels=4, heads=None, **more):
    n = len(widths)
    down = [f"{CROSS if a else PLAIN}DownBlock2D" for a in attention]
    up = [f"{CROSS if a else PLAIN}UpBlock2D" for a in attention[::-1]]
    if vector:
        more |= dict(addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=vector)
    return dict(sample_size=16, in_channels=channels, out_channels=4, layers_per_block=2, block_out_channels=widths, down_block_types=down,
                up_block_types=up, transformer_layers_per_block=depth, cross_attention_dim=context, use_linear_projection=linear,
                attention_head_dim=heads or [w // 64 for w in widths], **more)


def text(width, layers, act, projection=None):
    return dict(vocab_size=VOCAB, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=width // 64,
                max_position_embeddings=77, hidden_act=act, projection_dim=projection or width, bos_token_id=EOS - 1, eos_token_id=EOS,
                pad_token_id=0, attn_implementation="eager")


SD = dict(widths=(64, 64, 128, 128), attention=(1, 1, 1, 0), depth=1)
XL = dict(widths=(64, 64, 128), attention=(0, 1, 1), linear=True)
BIG = text(128, 3, "gelu", 96)
BOTH = {"text_encoder": text(64, 3, "quick_gelu"), "text_encoder_2": BIG}
MODELS = {
    "sd1": (unet(**SD, context=64, linear=False, heads=8), {"text_encoder": text(64, 3, "quick_gelu")}),
    "sd2": (unet(**SD, context=128, linear=True), {"text_encoder": text(128, 2, "gelu")}),
    "sdxl": (unet(**XL, depth=[1, 2, 3], context=192, vector=96 + 6 * 256), BOTH),
    "refiner": (unet(widths=(64, 64, 128, 128), attention=(0, 1, 1, 0), depth=2, context=128, linear=True, vector=96 + 5 * 256),
                {"text_encoder_2": BIG}),
    # depths that differ within a level and a middle without attention, as in SSD-1B
    "pruned": (unet(**XL, depth=[1, [2, 1], [1, 2]], context=192, vector=96 + 6 * 256, mid_block_type="UNetMidBlock2D",
                    reverse_transformer_layers_per_block=[[2, 2, 3], [2, 1, 1], 1]), BOTH),
}
VARIANTS = {f"{name}-inpaint": name for name in ("sd1", "sd2", "sdxl")}


def weight(name, shape):
    if len(shape) == 1:
        norm = name.endswith(".weight")
        return torch.from_numpy(synthetic.draws(name, shape, 0.05 if norm else 0.02)) + (1 if norm else 0)
    return torch.from_numpy(synthetic.draws(name, shape, 0.1 if "_embedding." in name and "text_model" in name else 1 / math.sqrt(math.prod(shape[1:]))))


def made(cls, folder, config):
    """A model with drawn weights, and its sources."""
    model = cls(**config) if cls is UNet2DConditionModel else cls(CLIPTextConfig(**config))
    shapes = {f"{folder}/{k}": list(v.shape) for k, v in model.state_dict().items() if not k.endswith("position_ids")}
    model.load_state_dict({k.split("/", 1)[1]: weight(k, v) for k, v in shapes.items()}, strict=False)
    return model.eval().requires_grad_(False), shapes


def open_clip(sources, prefix, extra_layer):
    """LDM's names of an OpenCLIP encoder; SD 2's has one more layer, which stands in no folder: its tensors are the last one's."""
    named = {k.split("/", 1)[1]: k for k in sources}
    last = max(int(k.split(".")[3]) for k in named if ".layers." in k)
    if extra_layer:
        named |= {k.replace(f".layers.{last}.", f".layers.{last + 1}."): v for k, v in named.items() if f".layers.{last}." in k}
    cat, torch.cat = torch.cat, list
    try:
        ldm = sdxl_model_util.convert_text_encoder_2_state_dict_to_sdxl(named, None)
    finally:
        torch.cat = cat
    # sd-scripts does not turn this one; OpenCLIP multiplies from the right
    return {prefix + k: f"T:{v}" if k == "text_projection" else v for k, v in ldm.items()}


def tensor(spec, shapes):
    if isinstance(spec, list):
        return torch.cat([tensor(s, shapes) for s in spec])
    return weight(spec[2:], shapes[spec[2:]]).T if spec.startswith("T:") else weight(spec, shapes[spec])


def ldm_names(name, shapes):
    """LDM's names, checked by diffusers' reader."""
    part = lambda folder: {k: v for k, v in shapes.items() if k.startswith(folder + "/")}
    sources = {k.split("/", 1)[1]: k for k in part("unet")}
    xl = "add_embedding.linear_1.weight" in sources and name != "refiner"
    to = sdxl_model_util.convert_diffusers_unet_state_dict_to_sdxl if xl else lambda sd: model_util.convert_unet_state_dict_to_sd(False, sd)
    rename = lambda k: k.replace("add_embedding.linear_1", "label_emb.0.0").replace("add_embedding.linear_2", "label_emb.0.2")
    ldm = {UNET + rename(k): v for k, v in to(sources).items()}
    config = dict(MODELS[name][0])
    if name == "refiner":  # diffusers has no reader of it; the base's wants the same keys
        config["addition_embed_type"] = "text_time"
    if name != "pruned":
        back = convert_ldm_unet_checkpoint({k: weight(v, shapes[v]) for k, v in ldm.items()}, {**config, "class_embed_type": None,
                                                                                              "addition_embed_type": config.get("addition_embed_type")})
        assert {k: list(v.shape) for k, v in back.items()} == {k: shapes[v] for k, v in sources.items()}
        assert all(torch.equal(v, weight("unet/" + k, v.shape)) for k, v in back.items())
    first = "conditioner.embedders.0." if xl or name == "refiner" else "cond_stage_model."
    if name in ("sd1", "sdxl", "pruned"):
        ldm |= {f"{first}transformer.{k.split('/', 1)[1]}": k for k in part("text_encoder")}
    if name == "sd2":
        ldm |= open_clip(part("text_encoder"), first + "model.", True)
    second = part("text_encoder_2")
    if second:
        prefix = "conditioner.embedders.1.model." if xl else first + "model."
        names = open_clip(second, prefix, False)
        sd = {k: tensor(v, shapes) for k, v in names.items()}
        sd[prefix + "text_projection"] = sd[prefix + "text_projection"].contiguous()
        back = convert_open_clip_checkpoint(CLIPTextModelWithProjection(CLIPTextConfig(**BIG)), dict(sd), prefix=prefix)
        for k in second:
            assert torch.equal(back[k.split("/", 1)[1]], weight(k, shapes[k])), k
        ldm |= names
    return ldm


def draws(name, *shape):
    return torch.from_numpy(synthetic.draws(name, shape))


def forward(out, name, model, config, batch=2, size=(8, 16)):
    x, ctx = draws("x", batch, config["in_channels"], *size), draws("ctx", batch, 77, config["cross_attention_dim"])
    t, more = torch.tensor([981.0, 250.375]), {}
    if config.get("addition_embed_type"):
        n = (config["projection_class_embeddings_input_dim"] - 96) // 256
        numbers = torch.tensor([[1024.0, 768.0, 0.0, 48.0, 1216.0, 832.0][:n], [333.0, 1500.0, 7.0, 0.0, 6.0, 1024.0][:n]])
        out[f"{name}.sizes"] = numbers
        more = dict(added_cond_kwargs={"text_embeds": draws("pooled", batch, 96), "time_ids": numbers})
    eps = model(x, t, ctx, **more).sample
    other = model(x, t, ctx.flip(1) * 0.5, **more).sample
    out[f"{name}.eps"] = eps
    print(f"{name}: deviation {eps.std():.3f}, another text changes {(other - eps).norm() / eps.norm():.3f}")


def states(out, name, folder, model, ids):
    got = model(input_ids=ids, output_hidden_states=True)
    for k in (1, 2, 3):
        h = got.hidden_states[-k]
        if name in ("sd1", "sd2") and k < 3:
            out[f"{name}.{folder}.normed{k}"] = model.text_model.final_layer_norm(h)
        elif name not in ("sd1", "sd2") and (k == 2 or folder == "text_encoder"):
            out[f"{name}.{folder}.hidden{k}"] = h
    if hasattr(got, "text_embeds"):
        out[f"{name}.{folder}.pooled"] = got.text_embeds


@torch.no_grad()
def main():
    out, models = {}, {}
    Upsample2D.forward = cropped
    ids = torch.randint(1, EOS - 1, (2, 77), generator=torch.Generator().manual_seed(5))
    ids[:, 0] = EOS - 1
    ids[0, 9:] = 0  # ends are marked by EOS, and what stands behind differs
    ids[0, 9], ids[1, 76] = EOS, EOS
    out["ids"] = ids.int()
    for name, (u, texts) in MODELS.items():
        model, shapes = made(UNet2DConditionModel, "unet", u)
        forward(out, name, model, u)
        if name in ("sd1", "sdxl"):
            forward(out, f"{name}.odd", model, u, size=(9, 14))
        for folder, c in texts.items():
            encoder, more = made(CLIPTextModelWithProjection if folder == "text_encoder_2" else CLIPTextModel, folder, c)
            shapes |= more
            if name != "pruned":
                states(out, name, folder, encoder, ids)
        models[name] = dict(sources=shapes, ldm=ldm_names(name, shapes))
    for name, of in VARIANTS.items():
        config = MODELS[of][0] | dict(in_channels=9)
        model, _ = made(UNet2DConditionModel, "unet", config)
        forward(out, name, model, config)
    save("families.safetensors", out, oracle=versions("diffusers", "transformers"))
    with open(os.path.join(HERE, "families.json"), "w") as f:
        f.write("{" + ",\n".join(f'"{n}": {json.dumps(m, separators=(",", ":"))}' for n, m in models.items()) + "}\n")


if __name__ == "__main__":
    main()
