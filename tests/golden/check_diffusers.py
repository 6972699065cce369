"""Does a LoRA file of ours mean to others what it means to us?  A developer's tool, run by hand.

    python check_diffusers.py lora.safetensors [tinysd.safetensors [weight]]

Applies a kohya-named file (SD1 names) to the checkpoint in two ways, diffusers' load_lora_weights (which converts the names and
lets peft compute) and a plain merge W + weight * alpha / rank * up @ down, and prints how far text states and UNet output differ.
"""
import sys

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from oracle import TINYSD, arg, load, load_file, text_states, tokenizer


def merge(unet, te, path, weight):
    """Returns the number of modules merged; every key of the file must belong to one."""
    sd = {k: v.float() for k, v in load_file(path).items()}
    modules = {"lora_unet_" + n.replace(".", "_"): m for n, m in unet.named_modules()}
    modules.update({"lora_te_" + n.replace(".", "_"): m for n, m in te.named_modules()})
    names = {k.split(".")[0] for k in sd}
    unknown = sorted(n for n in names if n not in modules)
    if unknown:
        sys.exit(f"{len(unknown)} modules of the file are not in the model, such as {unknown[:3]}")
    for n in names:
        down, up, w = sd[n + ".lora_down.weight"], sd[n + ".lora_up.weight"], modules[n].weight
        alpha = sd.get(n + ".alpha", torch.tensor(float(down.shape[0])))
        w.data += weight * (alpha / down.shape[0]) * (up.flatten(1) @ down.flatten(1)).reshape(w.shape)
    return len(names)


def outputs(unet, te, tok):
    ids = torch.tensor(tok(["red apple, fruit", "penguin, bird"], padding="max_length", max_length=77).input_ids)
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([700, 150])
    ctx = text_states(te, ids)
    return ctx, unet(x, t, ctx).sample


def main():
    path, model, weight = sys.argv[1], arg(2, TINYSD), float(arg(3, "1.0"))
    tok = tokenizer()
    with torch.no_grad():
        unet, vae, te = load(model)
        base = outputs(unet, te, tok)
        count = merge(unet, te, path, weight)
        plain = outputs(unet, te, tok)
        unet, vae, te = load(model)
        pipe = StableDiffusionPipeline(vae, te, tok, unet, DDIMScheduler(), None, None, requires_safety_checker=False)
        pipe.load_lora_weights(path, adapter_name="x")
        pipe.set_adapters("x", weight)
        theirs = outputs(pipe.unet, pipe.text_encoder, tok)
        adapters = [sum(hasattr(m, "lora_A") for m in part.modules()) for part in (pipe.text_encoder, pipe.unet)]
    print(f"{count} modules merged; diffusers made {adapters[0]} + {adapters[1]} adapters (text encoder, UNet)")
    worst = 0.0
    for name, b, p, t in zip(("text states", "unet output"), base, plain, theirs):
        diff, effect = (p - t).abs().max().item(), (p - b).abs().max().item()
        print(f"{name}: network changes it by up to {effect:.4g}; diffusers and the plain merge differ by up to {diff:.3g}")
        worst = max(worst, diff / max(effect, 1e-6))
    sys.exit(0 if worst < 1e-3 and sum(adapters) == count else 1)


if __name__ == "__main__":
    main()
