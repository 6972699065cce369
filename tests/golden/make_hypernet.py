"""Freezes hypernetworks on tinysd: files as torch.save writes them, outputs, gradients, 20 AdamW steps, activations.

    python make_hypernet.py [tinysd.safetensors]

Module is written after what AUTOMATIC1111's hypernetworks do (v1.10.1), from torch.nn's own modules: Linear, activation, LayerNorm
and Dropout in one Sequential, y = x + m * MLP(x), in front of to_k and to_v of every attention layer of diffusers' UNet, picked by the
last axis.  `hypernet/<case>.pt` is the file, `hypernet.safetensors` has what tinysd gives with it; inputs, ids and the 20 steps' draws
are those of `lin` in lora_tinysd.safetensors.
"""
import os
from collections import OrderedDict

import torch
from diffusers import DDPMScheduler
from oracle import HERE, TINYSD, arg, load, save, text_states, versions
from safetensors.torch import load_file

NN = torch.nn
ACTIVATIONS = {c.lower(): getattr(NN, c) for c in (
    "ReLU ELU CELU Tanh Sigmoid SiLU GELU Mish SELU Softplus LogSigmoid Hardsigmoid Hardswish Hardtanh ReLU6 Softsign Tanhshrink "
    "Hardshrink Softshrink LeakyReLU").split()} | {"swish": NN.Hardswish}


class Module(NN.Module):
    def __init__(self, dim, layers, act, norm, dropout, activate_output):
        super().__init__()
        seq = []
        for i, (a, b) in enumerate(zip(layers, layers[1:])):
            seq.append(NN.Linear(int(dim * a), int(dim * b)))
            if act not in (None, "linear") and (activate_output or i < len(layers) - 2):
                seq.append(ACTIVATIONS[act]())
            if norm:
                seq.append(NN.LayerNorm(int(dim * b)))
            if dropout[i + 1] > 0:
                seq.append(NN.Dropout(dropout[i + 1]))
        self.linear = NN.Sequential(*seq)

    def forward(self, x, m):
        return x + self.linear(x) * m


def make(g, dims, layers, act=None, norm=False, dropout=None, activate_output=False):
    """{width: (k, v)}, with weights that are f16 numbers and large enough to matter."""
    dropout = dropout or [0] * len(layers)
    net = {d: tuple(Module(d, layers, act, norm, dropout, activate_output) for _ in "kv") for d in dims}
    with torch.no_grad():
        for pair in net.values():
            for p in (p for m in pair for p in m.parameters()):
                size = 1.5 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.2
                p.copy_((torch.randn(p.shape, generator=g) * size).half().float())
    return net


def state(net):
    return {d: tuple(OrderedDict((k, v.detach().half()) for k, v in m.state_dict().items()) for m in pair) for d, pair in net.items()}


def hook(unet, stack):
    """stack: [(net, multiplier)], in order."""
    def before(value):
        def fn(_, args):
            x = args[0]
            for net, m in stack:
                if x.shape[-1] in net:
                    x = net[x.shape[-1]][value](x, m)
            return (x,)
        return fn
    return [getattr(b, name).register_forward_pre_hook(before(v)) for _, b in unet.named_modules() if hasattr(b, "to_k")
            for v, name in enumerate(("to_k", "to_v"))]


def main():
    unet, _, te = load(arg(1, TINYSD))
    sched = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False)
    lin = {k[4:]: v for k, v in load_file(os.path.join(HERE, "lora_tinysd.safetensors")).items() if k.startswith("lin.")}
    widths = sorted({b.to_k.in_features for _, b in unet.named_modules() if hasattr(b, "to_k")})
    print("widths", widths)
    g = torch.Generator().manual_seed(20221103)
    small, ctx = widths[0], unet.config.cross_attention_dim
    out, meta = {}, {"widths": widths}

    def forward(b, stack):
        hooks = hook(unet, stack)
        t = b["t"].long()
        eps = unet(sched.add_noise(b["latents"], b["noise"], t), t, text_states(te, b["ids"])).sample
        for h in hooks:
            h.remove()
        return eps, NN.functional.mse_loss(eps, b["noise"])

    batch = {k: lin[k] for k in ("latents", "noise", "t", "ids")}
    steps = [{k: lin[f"steps.{k}"][i] for k in batch} for i in range(20)]
    cases = {
        "relu": dict(dims=widths, layers=[1, 0.25, 1], act="relu", norm=True),
        "deep": dict(dims=[small], layers=[1, 2, 1.5, 1], act="mish", dropout=[0, 0.3, 0.3, 0], activate_output=True),
        "nai": dict(dims=[ctx], layers=[1, 0.25, 1]),
    }
    nets = {name: make(g, **c) for name, c in cases.items()}
    os.makedirs(os.path.join(HERE, "hypernet"), exist_ok=True)
    for name, c in cases.items():
        sd = state(nets[name])
        if name == "nai":  # the first files: other names, text width only, nothing said but the structure
            sd = {d: [{k.replace("linear.0", "linear1").replace("linear.1", "linear2"): v for k, v in m.items()} for m in pair]
                  for d, pair in sd.items()} | {"layer_structure": c["layers"]}
        else:
            sd |= dict(step=1500 + len(name), name=name, layer_structure=c["layers"], activation_func=c["act"], is_layer_norm=c.get("norm", False),
                       weight_initialization="Normal", use_dropout="dropout" in c, sd_checkpoint="fe4efff1e1", sd_checkpoint_name="tinysd",
                       activate_output=c.get("activate_output", False), last_layer_dropout=True)
        torch.save(sd, os.path.join(HERE, "hypernet", name + ".pt"), _use_new_zipfile_serialization=name != "nai")
        for pair in nets[name].values():
            for m in pair:
                m.eval()
    with torch.no_grad():
        for m in (1.0, 0.6, -0.5):
            out[f"relu.eps_w{m}"] = forward(batch, [(nets["relu"], m)])[0]
        out["deep.eps_w1.0"] = forward(batch, [(nets["deep"], 1.0)])[0]
        out["nai.eps_w1.0"] = forward(batch, [(nets["nai"], 1.0)])[0]
        out["chain.eps"] = forward(batch, [(nets["deep"], 0.8), (nets["relu"], 0.5), (nets["nai"], 0.7)])[0]

    net = nets["relu"]
    named = {f"{d}.{v}.{k}": p for d, pair in net.items() for v, m in enumerate(pair) for k, p in m.named_parameters()}
    loss = forward(batch, [(net, 1.0)])[1]
    loss.backward()
    out["relu.loss"] = loss.reshape(1)
    thin = lambda v: v.flatten()[::7] if v.numel() > 2000 else v.flatten()
    out.update({f"relu.grad.{k}": thin(p.grad.clone()) for k, p in named.items()})
    opt = torch.optim.AdamW(named.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)
    losses, before = [], {k: p.detach().clone() for k, p in named.items()}
    for b in steps:
        opt.zero_grad()
        loss = forward(b, [(net, 1.0)])[1]
        loss.backward()
        NN.utils.clip_grad_norm_(named.values(), 1.0)
        opt.step()
        losses.append(loss.detach())
    out["relu.steps.loss"] = torch.stack(losses)
    out.update({f"relu.moved.{k}": thin((p.detach() - before[k])) for k, p in named.items()})

    x = torch.linspace(-8, 8, 513)
    out["act.x"] = x
    for name, cls in ACTIVATIONS.items():
        v = x.clone().requires_grad_(True)
        y = cls()(v)
        y.sum().backward()
        out[f"act.{name}"], out[f"slope.{name}"] = y.detach(), v.grad
    print("losses", [round(float(v), 4) for v in losses])
    save("hypernet.safetensors", {k: v.detach().contiguous() for k, v in out.items()}, oracle="torch.nn, " + versions("diffusers", "transformers"), **meta)


if __name__ == "__main__":
    main()
