"""A plain torch LoRA trainer for tinysd: the curve that ours is compared with.  A developer's tool, run by hand.

    python train_tinysd.py TRAIN_DIR HELDOUT_DIR [tinysd.safetensors [out.safetensors [epochs]]]

kohya's folders (`<repeats>_<name>` of pictures with .txt captions) at 64x64; latents are VAE means; rank 16, alpha 8 on the linear
and 1x1 modules of UNet and text encoder; AdamW, UNet 1e-3, text 5e-4, weight decay 1e-2, batch 4, norm clipped to 1.0, seed 0.
Prints the held-out loss (epsilon MSE, mean over t = 50, 150, ... 950, fixed noise) at weights 0, 0.3, 0.6 and 1.0.
"""
import glob
import os
import sys
import time

import cv2
import numpy as np
import torch
from diffusers import DDPMScheduler
from oracle import SCALE, TINYSD, arg, load, save_file, text_states, tokenizer

RANK, ALPHA, BATCH = 16, 8.0, 4


class Lora(torch.nn.Module):
    def __init__(self, base):
        super().__init__()
        w = base.weight
        make = (lambda o, i, r: torch.nn.Conv2d(i, o, 1, bias=False)) if w.dim() == 4 else (lambda o, i, r: torch.nn.Linear(i, o, bias=False))
        self.lora_down, self.lora_up = make(RANK, w.shape[1], 0), make(w.shape[0], RANK, 0)
        torch.nn.init.kaiming_uniform_(self.lora_down.weight, a=5 ** 0.5)
        torch.nn.init.zeros_(self.lora_up.weight)
        self.scale, self.plain = ALPHA / RANK, base.forward
        base.forward = self.forward

    def forward(self, x, *args):
        return self.plain(x) + self.lora_up(self.lora_down(x)) * self.scale


def attach(model, prefix, containers):
    """kohya's names and choice: every Linear and 1x1 convolution inside the container classes."""
    found = {}
    for name, m in model.named_modules():
        if type(m).__name__ in containers:
            for sub, leaf in m.named_modules():
                if isinstance(leaf, torch.nn.Linear) or isinstance(leaf, torch.nn.Conv2d) and leaf.kernel_size == (1, 1):
                    found[prefix + f"{name}.{sub}".replace(".", "_")] = Lora(leaf)
    return found


def dataset(root, vae, tok):
    views, latents, ids = [], [], []
    for folder in sorted(glob.glob(os.path.join(root, "*_*"))):
        repeats = int(os.path.basename(folder).split("_")[0])
        for path in sorted(p for e in ("png", "jpg", "webp") for p in glob.glob(os.path.join(folder, "*." + e))):
            img = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
            if img.shape[:2] != (64, 64):
                img = cv2.resize(img, (64, 64), interpolation=cv2.INTER_AREA)
            views += [len(latents)] * repeats
            latents.append(vae.encode(torch.from_numpy(img).permute(2, 0, 1)[None] / 127.5 - 1).latent_dist.mean[0] * SCALE)
            with open(os.path.splitext(path)[0] + ".txt", encoding="utf-8") as f:
                ids.append(tok(f.readline().strip(), padding="max_length", max_length=77, truncation=True).input_ids)
    return np.array(views), torch.stack(latents), torch.tensor(ids)


def heldout(unet, te, sched, latents, ids):
    g, total = torch.Generator().manual_seed(0), []
    with torch.no_grad():
        ctx = text_states(te, ids)
        for t in range(50, 1000, 100):
            noise = torch.randn(latents.shape, generator=g)
            t = torch.full((len(latents),), t)
            total.append(torch.nn.functional.mse_loss(unet(sched.add_noise(latents, noise, t), t, ctx).sample, noise).item())
    return sum(total) / len(total)


def main():
    unet, vae, te = load(arg(3, TINYSD))
    tok, sched = tokenizer(), DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    with torch.no_grad():
        views, latents, ids = dataset(sys.argv[1], vae, tok)
        _, held, held_ids = dataset(sys.argv[2], vae, tok)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    nets = {**attach(te, "lora_te_", ("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP")), **attach(unet, "lora_unet_", ("Transformer2DModel",))}
    part = lambda p: [w for n, m in nets.items() if n.startswith(p) for w in m.parameters()]
    opt = torch.optim.AdamW([{"params": part("lora_te"), "lr": 5e-4}, {"params": part("lora_unet"), "lr": 1e-3}], weight_decay=1e-2)
    every, start, step = part("lora_"), time.time(), 0
    for epoch in range(int(arg(5, "10"))):
        order, losses = rng.permutation(views), []
        for i in range(0, len(order), BATCH):
            pick = order[i:i + BATCH]
            x, noise, t = latents[pick], torch.randn(len(pick), 4, 8, 8), torch.randint(0, 1000, (len(pick),))
            loss = torch.nn.functional.mse_loss(unet(sched.add_noise(x, noise, t), t, text_states(te, ids[pick])).sample, noise)
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(every, 1.0)
            opt.step()
            losses.append(loss.item())
            step += 1
        print(f"epoch {epoch + 1}, step {step}: training loss {np.mean(losses):.4f}, {time.time() - start:.0f} s", flush=True)
    for weight in (0.0, 0.3, 0.6, 1.0):
        for m in nets.values():
            m.scale = weight * ALPHA / RANK
        print(f"weight {weight}: held-out {heldout(unet, te, sched, held, held_ids):.4f}", flush=True)
    if arg(4, None):
        out = {f"{n}.{k}": v.detach().contiguous() for n, m in nets.items() for k, v in m.state_dict().items()}
        save_file({**out, **{f"{n}.alpha": torch.tensor(ALPHA) for n in nets}}, sys.argv[4])
    print(len(nets), "modules,", step, "steps")


if __name__ == "__main__":
    main()
