"""Freezes LoRA on tinysd as sd-scripts computes it: output, loss, every gradient, and 20 AdamW steps.

    python make_lora.py SD_SCRIPTS_CHECKOUT [tinysd.safetensors]

The network is sd-scripts' own (networks/lora.py) on diffusers' UNet and transformers' text encoder.  Case `lin`: rank 4,
alpha 2 on linear and 1x1 modules of both parts.  Case `locon`: the same with conv_dim 4, conv_alpha 1 for 3x3 convolutions.
Ups are random, not zero, so that every tensor has a gradient.  `locon.net` is stored as F16 (its values are F16 numbers);
where only some modules are stored, the metadata lists them.
"""
import sys

import torch
from diffusers import DDPMScheduler
from oracle import TINYSD, arg, load, save, text_states, tokenizer, versions

sys.path.insert(0, sys.argv[1])
from networks import lora  # noqa: E402

PROMPTS = ["red apple, fruit", "penguin, bird", "smiling face with sunglasses", "", "pizza, slice, cheese", "mochi, cat"]


def inputs(g, ids_of):
    pick = torch.randint(0, len(PROMPTS), (2,), generator=g)
    return dict(latents=torch.randn(2, 4, 8, 8, generator=g), noise=torch.randn(2, 4, 8, 8, generator=g),
                t=torch.randint(0, 1000, (2,), generator=g, dtype=torch.int32), ids=ids_of[pick])


def forward(unet, te, sched, b):
    t = b["t"].long()
    eps = unet(sched.add_noise(b["latents"], b["noise"], t), t, text_states(te, b["ids"])).sample
    return eps, torch.nn.functional.mse_loss(eps, b["noise"])


def chosen(modules):
    """One module of each kind, and every twelfth."""
    kinds, names = set(), []
    for i, m in enumerate(modules):
        kind = "_".join(p for p in m.lora_name.split("_") if not p.isdigit() and p not in ("down", "mid", "up", "blocks", "block"))
        if i % 12 == 0 or kind not in kinds:
            names.append(m.lora_name)
        kinds.add(kind)
    return names


def case(name, out, meta, **conv):
    unet, vae, te = load(arg(2, TINYSD))
    sched = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False)
    tok = tokenizer()
    ids_of = torch.tensor(tok(PROMPTS, padding="max_length", max_length=77).input_ids, dtype=torch.int32)
    torch.manual_seed(777)
    net = lora.create_network(1.0, 4, 2.0, vae, te, unet, **conv)
    net.apply_to(te, unet, True, True)
    g = torch.Generator().manual_seed(4242)
    with torch.no_grad():
        for m in net.text_encoder_loras + net.unet_loras:
            m.lora_up.weight.copy_(torch.randn(m.lora_up.weight.shape, generator=g) * 0.05)
            for w in (m.lora_up.weight, m.lora_down.weight):
                w.copy_(w.half().float())
    modules = net.text_encoder_loras + net.unet_loras
    some = chosen(modules)
    meta[f"{name}.modules"] = len(modules)
    keep = lambda k: k.split(".")[0] in some
    half = name == "locon"
    out.update({f"{name}.net.{k}": v.half() if half else v.clone() for k, v in net.state_dict().items()})
    net.requires_grad_(True)
    b = inputs(g, ids_of)
    out.update({f"{name}.{k}": v for k, v in b.items()})
    eps, loss = forward(unet, te, sched, b)
    loss.backward()
    out[f"{name}.eps"], out[f"{name}.loss"] = eps, loss.reshape(1)
    grads = {k: p.grad.clone() for k, p in net.named_parameters()}
    assert all(v.abs().max() > 0 for v in grads.values())
    out.update({f"{name}.grad.{k}": v for k, v in grads.items() if not half or keep(k)})
    out[f"{name}.grad_norm"] = torch.stack([v.norm() for v in grads.values()]).norm().reshape(1)
    with torch.no_grad():
        net.set_multiplier(0.6)
        out[f"{name}.eps_w0.6"] = forward(unet, te, sched, b)[0]
        net.set_multiplier(0.0)
        out[f"{name}.eps_w0"] = forward(unet, te, sched, b)[0]
    net.set_multiplier(1.0)
    opt = torch.optim.AdamW([{"params": [p for m in net.text_encoder_loras for p in m.parameters()], "lr": 5e-4},
                             {"params": [p for m in net.unet_loras for p in m.parameters()], "lr": 1e-3}],
                            betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)
    steps, losses, norms = [inputs(g, ids_of) for _ in range(20)], [], []
    for b in steps:
        opt.zero_grad()
        loss = forward(unet, te, sched, b)[1]
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0))
        opt.step()
        losses.append(loss.detach())
    out.update({f"{name}.steps.{k}": torch.stack([s[k] for s in steps]) for k in steps[0]})
    out[f"{name}.steps.loss"], out[f"{name}.steps.grad_norm"] = torch.stack(losses), torch.stack(norms)
    out.update({f"{name}.final.{k}": v.clone() for k, v in net.state_dict().items() if keep(k)})
    meta[f"{name}.grad"] = some if half else "all"
    meta[f"{name}.final"] = some
    print(name, len(modules), "modules,", len(some), "kept, losses", [round(float(v), 4) for v in losses])


def main():
    out, meta = {}, {}
    case("lin", out, meta)
    case("locon", out, meta, conv_dim="4", conv_alpha="1")
    save("lora_tinysd.safetensors", out, oracle="sd-scripts networks/lora.py, " + versions("diffusers", "transformers"), prompts=PROMPTS, **meta)


if __name__ == "__main__":
    main()
