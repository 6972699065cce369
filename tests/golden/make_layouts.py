"""Writes layouts/: one tiny random SD1-shaped model (f16) in the containers and namings of the wild, and its outputs.

    python make_layouts.py

All files hold (parts of) the same weights; ldm.safetensors is complete and names every tensor the others have.
ldm.safetensors, diffusers/ (complete) · lightning.ckpt: torch zip with `state_dict`, an optimiser-like opaque object, a few EMA
tensors (twice the raw weight), views that share one storage, a transposed one, text encoder and part of the UNet · legacy.pt:
non-zip torch file of the text encoder · nai.safetensors: text encoder without `text_model.` · wrapped.safetensors: UNet under
`model.model.diffusion_model.` · vae.safetensors: VAE without prefix · lightning.vae.pt: the same with `loss.*` and counters.
layouts.safetensors: ids (below 256: the vocabulary is cut), text, UNet and VAE outputs of the f16 weights in f32.
"""
import json
import os
import shutil
import sys
import types

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from oracle import HERE, SCALE, load, load_file, save, save_file, text_states, versions
from transformers import CLIPTextConfig, CLIPTextModel

OUT = os.path.join(HERE, "layouts")
RES = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
       "conv_shortcut": "skip_connection"}


def unet_name(key, per=1):
    """diffusers -> LDM for `per` res blocks a level; checked by loading the result back through diffusers' own converter."""
    for a, b in (("conv_in", "input_blocks.0.0"), ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
                 ("conv_norm_out", "out.0"), ("conv_out", "out.2")):
        if key.startswith(a + "."):
            return b + key[len(a):]
    p = key.split(".")
    i = int(p[1]) if p[1].isdigit() else 0
    kind, j, rest = (p[2], int(p[3]), p[4:]) if p[0] != "mid_block" else (p[1], int(p[2]), p[3:])
    if kind == "resnets":
        rest = [RES[rest[0]], *rest[1:]]
    if p[0] == "mid_block":
        head = f"middle_block.{1 if kind == 'attentions' else 2 * j}"
    elif kind == "downsamplers":
        head, rest = f"input_blocks.{(per + 1) * (i + 1)}.0.op", rest[1:]
    elif kind == "upsamplers":
        head, rest = f"output_blocks.{(per + 1) * (i + 1) - 1}.{1 if i == 0 else 2}.conv", rest[1:]
    elif p[0] == "down_blocks":
        head = f"input_blocks.{(per + 1) * i + j + 1}.{int(kind == 'attentions')}"
    else:
        head = f"output_blocks.{(per + 1) * i + j}.{int(kind == 'attentions')}"
    return ".".join([head, *rest])


def vae_name(key, n=2):
    for a, b in (("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"), ("mid_block.attentions.0", "mid.attn_1"),
                 ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"), ("group_norm", "norm"), ("conv_norm_out", "norm_out"),
                 ("conv_shortcut", "nin_shortcut"), ("downsamplers.0", "downsample"), ("upsamplers.0", "upsample"), ("resnets", "block"), ("down_blocks", "down")):
        key = key.replace(a, b)
    for i in range(n):
        key = key.replace(f"up_blocks.{i}.", f"up.{n - 1 - i}.")
    return key


def models():
    torch.manual_seed(99)
    unet = UNet2DConditionModel(sample_size=8, block_out_channels=(32, 32), layers_per_block=1, cross_attention_dim=64, attention_head_dim=8,
                                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    vae = AutoencoderKL(block_out_channels=(32, 32), layers_per_block=1, latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=SCALE)
    te = CLIPTextModel(CLIPTextConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=1, projection_dim=64,
                                      max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=254, eos_token_id=255, pad_token_id=255))
    with torch.no_grad():
        for m in (unet, vae, te):
            for k, p in m.named_parameters():
                p.add_(torch.randn_like(p) * (0.1 if p.dim() == 1 else 0.02))
    return [m.half() for m in (unet, vae, te)]


def ckpt(ldm, path):
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
        sys.modules[name] = module if name == module.__name__ else types.ModuleType(name)
    sd = {k: v.clone() for k, v in ldm.items() if k.startswith("cond_stage_model.") or "input_blocks.0." in k or "input_blocks.1.1." in k}
    q, k, v = (f"cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.{n}_proj.weight" for n in "qkv")
    sd[q], sd[k], sd[v] = torch.cat([sd[q], sd[k], sd[v]]).split(64)  # three views of one storage
    t = "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight"
    sd[t] = sd[t].t().contiguous().t()  # strides (1, rows)
    sd["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    p = "model.diffusion_model.input_blocks.0.0."
    sd.update({"model_ema.diffusion_model" + n.removeprefix("model.diffusion_model").replace(".", ""): 2 * sd[n] for n in (p + "weight", p + "bias")})
    sd["model_ema.decay"], sd["model_ema.num_updates"] = torch.tensor(0.9999), torch.tensor(10, dtype=torch.int32)
    best = module.ModelCheckpoint()
    best.best_model_score, best.dirpath = torch.tensor(0.5), "checkpoints"
    torch.save({"epoch": 1, "global_step": 470000, "pytorch-lightning_version": "1.4.2", "callbacks": {module.ModelCheckpoint: {"best": best}},
                "state_dict": sd, "lr_schedulers": [{"base_lrs": [1e-4]}], "hyper_parameters": {"a": (1, 2.5, None, True)}}, path)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    unet, vae, te = models()
    ldm = {"model.diffusion_model." + unet_name(k): v for k, v in unet.state_dict().items()}
    for k, v in vae.state_dict().items():
        name = vae_name(k)
        ldm["first_stage_model." + name] = v[:, :, None, None] if ".attn_1." in name and v.dim() == 2 else v
    ldm.update({"cond_stage_model.transformer." + k: v for k, v in te.state_dict().items()})
    ldm = {k: v.contiguous() for k, v in ldm.items()}
    for name, m in (("unet", unet), ("vae", vae), ("text_encoder", te)):
        m.save_pretrained(os.path.join(OUT, "diffusers", name))
    with open(os.path.join(OUT, "diffusers", "model_index.json"), "w") as f:
        json.dump({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
                   "text_encoder": ["transformers", "CLIPTextModel"]}, f, indent=1)
    os.makedirs(os.path.join(OUT, "diffusers", "scheduler"))
    with open(os.path.join(OUT, "diffusers", "scheduler", "scheduler_config.json"), "w") as f:
        json.dump({"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}, f)
    put = lambda sd, name: save_file(sd, os.path.join(OUT, name), metadata={"format": "pt"})
    put(ldm, "ldm.safetensors")
    only = lambda p, new: {new + k[len(p):]: v for k, v in ldm.items() if k.startswith(p)}
    t, f = "cond_stage_model.transformer.text_model.", "first_stage_model."
    put(only(t, "cond_stage_model.transformer."), "nai.safetensors")
    put({"model." + k: v for k, v in ldm.items() if "input_blocks" in k or "time_embed" in k}, "wrapped.safetensors")
    put(only(f, ""), "vae.safetensors")
    loss = {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.weight": torch.ones(2, 3, 4, 4), "model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(3)}
    torch.save({"state_dict": {**only(f, ""), **loss}, "epoch": 1}, os.path.join(OUT, "lightning.vae.pt"))
    torch.save(only(t, t), os.path.join(OUT, "legacy.pt"), _use_new_zipfile_serialization=False)
    ckpt(ldm, os.path.join(OUT, "lightning.ckpt"))
    unet, vae, te = load(os.path.join(OUT, "ldm.safetensors"))  # by diffusers' own converters: proves the names
    g = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 254, (1, 77), generator=g, dtype=torch.int32)
    x, time, image = torch.randn(2, 4, 8, 8, generator=g), torch.tensor([37.0, 801.0]), torch.rand(1, 3, 32, 32, generator=g) * 2 - 1
    with torch.no_grad():
        ctx = text_states(te, ids)
        dist = vae.encode(image).latent_dist
        out = {"ids": ids, "text.skip1": ctx, "unet.x": x, "unet.t": time, "unet.ctx": ctx.repeat(2, 1, 1), "unet.eps": unet(x, time, ctx.repeat(2, 1, 1)).sample,
               "vae.image": image, "vae.mean": dist.mean, "vae.logvar": dist.logvar, "vae.decoded": vae.decode(dist.mean).sample}
        folder = UNet2DConditionModel.from_pretrained(os.path.join(OUT, "diffusers", "unet")).float().eval()
        assert torch.equal(folder(x, time, ctx.repeat(2, 1, 1)).sample, out["unet.eps"])
    assert len(load_file(os.path.join(OUT, "ldm.safetensors"))) == len(ldm)
    save("layouts/layouts.safetensors", out, oracle=versions("diffusers", "transformers"), note="vae.decoded decodes vae.mean itself; 2 levels, so f = 2")


if __name__ == "__main__":
    main()
