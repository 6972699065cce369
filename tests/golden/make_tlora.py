"""Freezes what LyCORIS' T-LoRA computes: single layers of tinysd, the mask by timestep, and ten training steps on the whole of it.

    python make_tlora.py [tinysd.safetensors]

Layers: as in make_lycoris.py; variant `principal` begins with the first singular vectors of the weight, as files leave it to readers,
`last` and `middle` and `random` with others, which stand beside it as `.begun.<key>` by the names of the module's buffers.  The mask
stands behind `.mask` and is that of timestep `.t`: y and gradients are of a sample with it.
Steps: network `steps.net.*`, inputs, rates and clipping of `lin` in lora_tinysd.safetensors; `steps.<name>.loss` and `.grad_norm`
without masks (`plain`) and with masks, where every sample has its own and runs alone, since LyCORIS takes one for all
(`masked`: least 1, exponent 2); `.dw.<module>` after them.
"""
import os

import make_lycoris as m
import torch
from diffusers import DDPMScheduler
from lycoris.modules.tlora import TLoraModule, clear_timestep_mask, compute_timestep_mask, set_timestep_mask
from oracle import HERE, TINYSD, arg, load, save, versions
from safetensors.torch import load_file

LAYERS = "linear one"
CASES = {"principal": {}, "last": dict(sig_type="last"), "middle": dict(sig_type="middle"), "random": dict(use_data_init=False),
         "wide": dict(lora_dim=40)}
MASKS = [(t, rank, least, power) for rank, least in ((8, 1), (16, 4), (5, 5), (3, 4)) for power in (1.0, 2.0, 0.5) for t in (0, 1, 250, 499, 500, 801, 999)]
STEPS, LEAST, POWER = 10, 1, 2.0
CHOSEN = {k: [n for n in v if not n.endswith(("conv_in", "conv1", "samplers.0.conv", "conv_out"))] for k, v in m.CHOSEN.items()}
RANK = 4


def move(module, g, size):
    """Away from where it began; exact in F16, as the file has it."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_((p + size * p.abs().mean() * torch.randn(p.shape, generator=g)).half().float())


def layers(out, unet):
    g = torch.Generator().manual_seed(73)
    modules = dict(unet.named_modules())
    for layer in LAYERS.split():
        org = modules[m.LAYERS[layer]]
        x = torch.randn((1, 3, org.weight.shape[-1]) if layer == "linear" else (1, org.weight.shape[1], 5, 4), generator=g).half().float()
        dy = torch.randn(m.last(org(x)).shape, generator=g).half().float()
        out[f"x.{layer}"], out[f"dy.{layer}"] = m.last(x).half(), dy.half()
        for variant, kw in CASES.items():
            name, key = "lora_unet_" + m.LAYERS[layer].replace(".", "_"), f"tlora.{variant}.{layer}"
            torch.manual_seed(5)
            mod = TLoraModule(name, org, 1.0, **{"lora_dim": 3, "alpha": 1.5, **kw})
            for k, v in (("q", mod.base_q), ("p", mod.base_p), ("lambda", mod.base_lambda)):
                out[f"{key}.first.{k}"] = m.thin(v)
            first = (mod.base_p.flatten(1) * mod.base_lambda) @ mod.base_q.flatten(1)
            out[f"{key}.first"] = m.thin(first)
            move(mod, g, 0.3)
            out.update({f"{key}.net.{name}.{k}": m.exact(v) for k, v in mod.state_dict().items()})
            if variant not in ("principal", "wide"):
                out.update({f"{key}.net.{name}.base_{k}": getattr(mod, f"base_{k}").clone() for k in ("q", "p", "lambda")})
            m.watch(mod)
            y = mod(x)
            (m.last(y) * dy).sum().backward()
            out[f"{key}.dw"], out[f"{key}.y"] = m.thin(mod.seen[0]), m.thin(m.last(y))
            for k, p in mod.named_parameters():
                out[f"{key}.grad.{k}"] = m.thin(p.grad)


def masks(out):
    out["masks.of"] = torch.tensor(MASKS)
    out["masks.ranks"] = torch.stack([compute_timestep_mask(t, 1000, r, least, a).sum() for t, r, least, a in MASKS])


def network():
    unet, _, te = load(arg(1, TINYSD))
    net = m.create(te, unet, "tlora", CHOSEN, lora_dim=RANK)
    g = torch.Generator().manual_seed(29)
    for mod in net.loras:
        move(mod, g, 0.2)
    return unet, te, net


def forward(unet, te, sched, b, masked):
    """The mean of the samples' losses; the text encoder runs before there is a timestep, so it has no mask."""
    total = 0
    for i in range(len(b["t"])):
        clear_timestep_mask()
        states = m.text_states(te, b["ids"][i:i + 1])
        t = b["t"][i:i + 1].long()
        if masked:
            set_timestep_mask(compute_timestep_mask(int(t), 1000, RANK, LEAST, POWER))
        eps = unet(sched.add_noise(b["latents"][i:i + 1], b["noise"][i:i + 1], t), t, states).sample
        clear_timestep_mask()
        total = total + torch.nn.functional.mse_loss(eps, b["noise"][i:i + 1]) / len(b["t"])
    return total


def steps(out, name, shared, masked):
    unet, te, net = network()
    sched = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False)
    for mod in net.loras:
        out.update({f"steps.net.{mod.lora_name}.{k}": m.exact(v.detach().clone()) for k, v in mod.state_dict().items()})
    net.apply_to(te, unet, True, True)
    net.requires_grad_(True)
    opt = torch.optim.AdamW([{"params": [p for v in net.text_encoder_loras for p in v.parameters()], "lr": 5e-4},
                             {"params": [p for v in net.unet_loras for p in v.parameters()], "lr": 1e-3}],
                            betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)
    losses, norms = [], []
    for i in range(STEPS):
        opt.zero_grad()
        loss = forward(unet, te, sched, {k: shared[f"lin.steps.{k}"][i] for k in ("latents", "noise", "t", "ids")}, masked)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0))
        opt.step()
        losses.append(loss.detach())
    out[f"steps.{name}.loss"], out[f"steps.{name}.grad_norm"] = torch.stack(losses), torch.stack(norms)
    for mod in net.loras:
        out[f"steps.{name}.dw.{mod.lora_name}"] = m.thin(mod.get_diff_weight()[0])
    print(name, len(net.loras), "modules, losses", [round(float(v), 4) for v in losses])


def main():
    out = {}
    layers(out, load(arg(1, TINYSD))[0])
    masks(out)
    shared = load_file(os.path.join(HERE, "lora_tinysd.safetensors"))
    steps(out, "plain", shared, False)
    steps(out, "masked", shared, True)
    save("tlora.safetensors", out, oracle=versions("lycoris-lora", "diffusers", "transformers"), kept=str(m.KEPT))


if __name__ == "__main__":
    main()
