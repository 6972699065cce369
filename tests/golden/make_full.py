"""Freezes Stable Diffusion 1.5 at full size, with the random weights of lib/models/synthetic.c, as torch computes it in float32.

    python make_full.py SD_SCRIPTS_CHECKOUT

Text states, UNet output at 64x64 and 40x24, VAE both ways at 256x192 pixels, and a training step on LoRA of rank 4: loss, output, and
all gradients of both parts.  Weights and inputs are made from names (synthetic.py), so only answers are stored: whole where they
are small, as synthetic.digest otherwise; gradients always as digests.  `crc.<part>` are the checksums of the weights, in order.
Takes 8 GB and some minutes.
"""
import sys

import numpy as np
import torch
import synthetic
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from oracle import SCALE, save, text_states, tokenizer, versions
from transformers import CLIPTextConfig, CLIPTextModel

sys.path.insert(0, sys.argv[1])
from networks import lora  # noqa: E402

PROMPTS = ["red apple, fruit", "a photograph of an astronaut riding a horse on the moon, highly detailed, sharp focus, 85mm", ""]
RANK, ALPHA, UP = 4, 2.0, 0.1
PICKED = 4093  # elements of a large output that are kept: a prime, so that they fall on all rows and columns


def draws(name, *shape):
    return torch.from_numpy(synthetic.draws(name, shape))


def empty_models():
    """SD 1.5 as its own configuration files say, without memory for weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, cross_attention_dim=768, attention_head_dim=8,
            block_out_channels=(320, 640, 1280, 1280),
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
        vae = AutoencoderKL(
            sample_size=512, in_channels=3, out_channels=3, latent_channels=4, layers_per_block=2, block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=SCALE)
    te = CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, max_position_embeddings=77,
        hidden_act="quick_gelu", projection_dim=768, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        attn_implementation="eager"))
    return {"unet": unet, "vae": vae, "te": te}


def load(out):
    models = empty_models()
    named, crcs = {p: {} for p in models}, {p: [] for p in models}
    for part, name, x in synthetic.tensors("sd15"):
        crcs[part].append(synthetic.crc(name, x))
        named[part][name] = torch.from_numpy(x).float()
    for part, model in models.items():
        model.load_state_dict(named.pop(part), strict=True, assign=True)
        model.eval().requires_grad_(False)
        out[f"crc.{part}"] = torch.from_numpy(np.array(crcs[part], np.uint32).view(np.int32))
    return models["unet"], models["vae"], models["te"]


def keep(out, name, x, elements=PICKED):
    """Whole, or as a digest."""
    x = x.detach()
    print(f"{name:12} {list(x.shape)} mean {x.mean():.3f} deviation {x.std():.3f} largest {x.abs().max():.3f}", flush=True)
    small = x.numel() <= 20000
    out[name if small else f"{name}.digest"] = x if small else torch.from_numpy(synthetic.digest(x.numpy(), elements=elements))


def forward(out, unet, vae, te, ids):
    for skip in (1, 2):
        for i, s in enumerate(text_states(te, ids, skip)):
            keep(out, f"text.{i}.skip{skip}", s)
    for name, h, w, tokens, t in (("unet", 64, 64, 77, 981.0), ("unet_ns", 40, 24, 152, 250.375)):
        x, ctx = draws(f"{name}.x", 1, 4, h, w), draws(f"{name}.ctx", 1, tokens, 768)
        keep(out, f"{name}.eps", unet(x, torch.tensor([t]), ctx).sample)
    # what the text changes, so that the comparison is known to see it
    other = unet(x, torch.tensor([t]), draws("other", 1, tokens, 768)).sample
    print(f"another text changes the output by {(other - out['unet_ns.eps']).norm() / other.norm():.3f} of its norm")
    dist = vae.encode(draws("vae.image", 1, 3, 256, 192) / 3 ** 0.5).latent_dist
    keep(out, "vae.mean", dist.mean)
    keep(out, "vae.logvar", dist.logvar)
    keep(out, "vae.decoded", vae.decode(draws("vae.latents", 1, 4, 32, 24)).sample)


def train(out, unet, vae, te, ids):
    net = lora.create_network(1.0, RANK, ALPHA, vae, te, unet)
    net.apply_to(te, unet, True, True)
    params = dict(net.named_parameters())
    with torch.no_grad():
        for key, p in params.items():
            p.copy_(torch.from_numpy(synthetic.draws(key, p.shape, UP if "lora_up" in key else (len(p) / p.numel()) ** 0.5)))
    net.requires_grad_(True)
    sched = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False)
    latents, noise, t = draws("step.latents", 2, 4, 32, 24), draws("step.noise", 2, 4, 32, 24), torch.tensor([601, 37])
    states = text_states(te, ids[[1, 0]], 1)
    eps = unet(sched.add_noise(latents, noise, t), t, states).sample
    loss = torch.nn.functional.mse_loss(eps, noise)
    loss.backward()
    keep(out, "step.eps", eps)
    out["step.loss"] = loss.detach().reshape(1)
    norms = {}
    for key, p in params.items():
        norms[key] = float(p.grad.norm())
        out[f"grad.{key}"] = torch.from_numpy(synthetic.digest(p.grad.numpy(), elements=32))
    with torch.no_grad():
        net.set_multiplier(0.0)
        plain = unet(sched.add_noise(latents, noise, t), t, text_states(te, ids[[1, 0]], 1)).sample
    print(f"loss {loss:.6f}, {len(params)} gradients, norms {min(norms.values()):.3g} to {max(norms.values()):.3g}; "
          f"the network changes the output by {(plain - eps).norm() / plain.norm():.3f} of its norm")
    return len(params)


def main():
    out = {}
    unet, vae, te = load(out)
    ids = torch.tensor(tokenizer()(PROMPTS, padding="max_length", max_length=77, truncation=True).input_ids, dtype=torch.int32)
    out["ids"] = ids
    with torch.no_grad():
        forward(out, unet, vae, te, ids)
    n = train(out, unet, vae, te, ids)
    save("full.safetensors", out, oracle="sd-scripts networks/lora.py, " + versions("diffusers", "transformers"), prompts=PROMPTS,
         gradients=n)


if __name__ == "__main__":
    main()
