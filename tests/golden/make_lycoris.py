"""Freezes what LyCORIS' modules compute: single layers of tinysd in every variant, and small networks on the whole of it.

    python make_lycoris.py [tinysd.safetensors]

Layers: case `<algo>.<variant>.<layer>` has the module's saved tensors (`.net.<key>`, F16 where they are exact in it; `.raw.<leaf>`
where the file folds a scalar in), the change of the weight that forward uses (`.dw`, `.db`), the output `.y` and gradients of
sum(y dy) (`.grad.<leaf>`).  x and dy stand in `x.<layer>`, `dy.<layer>`, channels last.  Values have two bits of chance and are exact in F16.
Networks: `<name>.net.*`, `.eps`, `.loss` and `.grad_norm` of 20 AdamW steps, `.dw.<module>` after them; inputs, rates and clipping are
those of `lin` in lora_tinysd.safetensors.  Large tensors are thinned: see thin().
"""
import os

import torch
from diffusers import DDPMScheduler
from lycoris.kohya import LycorisNetworkKohya
from lycoris.modules.full import FullModule
from lycoris.modules.locon import LoConModule
from lycoris.modules.norms import NormModule
from lycoris.wrapper import network_module_dict
from oracle import HERE, TINYSD, arg, load, save, text_states, versions
from safetensors.torch import load_file

KEPT = 240  # numbers of a thinned tensor, at most
LAYERS = dict(linear="down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", one="down_blocks.1.resnets.0.conv_shortcut",
              conv="down_blocks.1.resnets.0.conv1", stride="down_blocks.0.downsamplers.0.conv", small="conv_in",
              groupnorm="down_blocks.1.resnets.0.norm1", layernorm="down_blocks.1.attentions.0.transformer_blocks.0.norm1")
THREE = "linear one conv"
# algo -> variant -> (layers, arguments of the module)
CASES = {
    "lora": {"plain": (THREE + " stride small", {}), "tucker": ("conv stride", dict(use_tucker=True)),
             "dora": (THREE + " stride", dict(weight_decompose=True)), "dora_in": (THREE, dict(weight_decompose=True, wd_on_out=False)),
             "rs": (THREE, dict(rs_lora=True)), "scalar": (THREE, dict(use_scalar=True)),
             "scalar_tucker": ("conv", dict(use_scalar=True, use_tucker=True))},
    "loha": {"plain": (THREE + " stride small", {}), "tucker": ("conv stride", dict(use_tucker=True)),
             "dora": (THREE, dict(weight_decompose=True)), "dora_in": (THREE, dict(weight_decompose=True, wd_on_out=False)),
             "rs": (THREE, dict(rs_lora=True)), "scalar": (THREE, dict(use_scalar=True)),
             "scalar_tucker": ("conv", dict(use_scalar=True, use_tucker=True))},
    "lokr": {"plain": (THREE + " stride small", {}), "tucker": ("conv stride", dict(use_tucker=True)),
             "dora": (THREE, dict(weight_decompose=True)), "dora_in": (THREE, dict(weight_decompose=True, wd_on_out=False)),
             "rs": (THREE, dict(rs_lora=True)), "scalar": (THREE, dict(use_scalar=True)), "factor4": (THREE, dict(factor=4)),
             "both": (THREE, dict(decompose_both=True)), "both_tucker": ("conv", dict(decompose_both=True, use_tucker=True)),
             "both_scalar": ("linear", dict(decompose_both=True, use_scalar=True)),
             "matrix": (THREE, dict(full_matrix=True)), "unbalanced": (THREE, dict(unbalanced_factorization=True)),
             "large": ("linear conv", dict(lora_dim=100000, factor=8))},
    "ia3": {"plain": (THREE, {}), "input": (THREE, dict(train_on_input=True))},
    "dylora": {"plain": (THREE, dict(lora_dim=4, block_size=2))},
    "glora": {"plain": (THREE + " stride", {}), "scalar": (THREE, dict(use_scalar=True))},
    "diag-oft": {"plain": (THREE + " stride", dict(lora_dim=4)), "constraint": (THREE, dict(lora_dim=4, constraint=0.01)),
                 "rescaled": (THREE, dict(lora_dim=4, rescaled=True)), "loose": ("linear", dict(lora_dim=8, constraint=10.0))},
    "boft": {"plain": (THREE + " stride", dict(lora_dim=4)), "constraint": (THREE, dict(lora_dim=4, constraint=0.01)),
             "rescaled": (THREE, dict(lora_dim=4, rescaled=True)), "eight": ("linear", dict(lora_dim=8))},
    "full": {"plain": ("linear one small", {})},
    "norm": {"plain": ("groupnorm layernorm", {})},
}
FILE_LEAF = {"full": {"weight": "diff", "bias": "diff_b"}}


def thin(v):
    """Every k-th number, k the smallest of 1 and the primes above 3 that leaves at most KEPT."""
    flat = v.detach().reshape(-1)
    k = 1
    while -(-flat.numel() // k) > KEPT:
        k = next(p for p in range(max(k + 1, 5), 10 ** 9) if all(p % d for d in range(2, int(p ** 0.5) + 1)))
    return flat[::k].clone()


def last(v):
    """Channels last, as the library has activations."""
    return v.permute(0, 2, 3, 1).contiguous() if v.dim() == 4 else v


def exact(v):
    return v.half() if v.is_floating_point() and v.dim() and torch.equal(v.half().to(v.dtype), v) else v


def fill(module, g):
    size = {"scalar": 0, "w_norm": 0.1, "b_norm": 0.1, "oft_blocks": 0.2, "weight": 0.1, "bias": 0.1}
    with torch.no_grad():
        for name, p in module.named_parameters():
            r = torch.randn(p.shape, generator=g)
            if name in ("dora_scale", "rescale"):
                p.mul_(1 + 0.2 * r)
            elif name == "scalar":
                p.fill_(0.5)
            else:
                p.copy_(r * size.get(name, 0.5 if "hada" in name else 0.3))
            p.copy_(p.half().float())


def saved(m):
    """What the file gets.  FullModule's own answer is right only after apply_to(), when it holds W + diff."""
    if isinstance(m, FullModule):
        return {k: p.detach().clone() for k, p in (("diff", m.weight), ("diff_b", m.bias)) if p is not None}
    return {k: v.detach().clone() for k, v in m.state_dict().items()}


def watch(module):
    """Puts what forward convolves with into module.seen: (change of the weight, change of the bias)."""
    op = module.op

    def seen(x, *args, **kw):
        weight = kw["weight"] if "weight" in kw else args[0]
        bias = kw.get("bias", args[1] if len(args) > 1 else None)
        module.seen = weight.detach(), None if bias is None else bias.detach()
        return op(x, *args, **kw)
    module.op = seen


def layer_case(out, key, algo, layer, org, x, dy, g, **kw):
    kw = {"lora_dim": 3, "alpha": 1.5, **kw}
    name = "lora_unet_" + LAYERS[layer].replace(".", "_")
    cls = NormModule if algo == "norm" else network_module_dict[algo]
    m = cls(name, org, 1.0, **({} if algo == "norm" else kw))
    fill(m, g)
    state = saved(m)
    if algo == "dylora":  # the file says nothing of blocks: readers take it for LoCon
        m = LoConModule(name, org, 1.0, kw["lora_dim"], kw["alpha"])
        m.load_state_dict({k: v.reshape(m.state_dict()[k].shape) for k, v in state.items()})
    m.requires_grad_(True)
    watch(m)
    y = m(x)
    (last(y) * dy).sum().backward()
    for k, v in state.items():
        out[f"{key}.net.{name}.{k}"] = exact(v)
    for k, p in m.named_parameters():
        k = FILE_LEAF.get(algo, {}).get(k, k)
        assert p.grad is not None and p.grad.abs().max() > 0, (key, k)
        out[f"{key}.grad.{k}"] = thin(p.grad)
        if "scalar" in dict(m.named_parameters()):
            out[f"{key}.raw.{k}"] = exact(p)
    dw, db = m.seen
    assert dw.abs().max() > 0 and dw.isfinite().all(), key
    out[f"{key}.dw"], out[f"{key}.y"] = thin(dw), thin(last(y))
    if db is not None:
        out[f"{key}.db"] = thin(db)


def layers(out, unet):
    g = torch.Generator().manual_seed(91)
    modules, x, dy = dict(unet.named_modules()), {}, {}
    for layer, path in LAYERS.items():
        org = modules[path]
        if layer in ("linear", "layernorm"):
            x[layer] = torch.randn(2, 3, org.weight.shape[-1], generator=g).half().float()
        else:
            x[layer] = torch.randn(1, org.weight.shape[1] if org.weight.dim() == 4 else org.weight.shape[0], 5, 4, generator=g).half().float()
        dy[layer] = torch.randn(last(org(x[layer])).shape, generator=g).half().float()
        out[f"x.{layer}"], out[f"dy.{layer}"] = last(x[layer]).half(), dy[layer].half()
    n = 0
    for algo, variants in CASES.items():
        for variant, (where, kw) in variants.items():
            for layer in where.split():
                layer_case(out, f"{algo}.{variant}.{layer}", algo, layer, modules[LAYERS[layer]], x[layer], dy[layer], g, **kw)
                n += 1
    print(n, "layer cases")


# --- networks on tinysd ---

T, B = "text_model.encoder.layers", "transformer_blocks.0"
CHOSEN = {"te": [f"{T}.0.self_attn.q_proj", f"{T}.1.mlp.fc1", f"{T}.1.mlp.fc2"],
          "unet": ["conv_in", "time_embedding.linear_1", "down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.0.time_emb_proj",
                   "down_blocks.0.attentions.0.proj_in", f"down_blocks.0.attentions.0.{B}.attn1.to_q",
                   f"down_blocks.0.attentions.0.{B}.attn2.to_k", f"down_blocks.0.attentions.0.{B}.attn2.to_v",
                   f"down_blocks.0.attentions.0.{B}.ff.net.0.proj", f"down_blocks.0.attentions.0.{B}.ff.net.2",
                   "down_blocks.0.downsamplers.0.conv", "down_blocks.1.resnets.0.conv_shortcut",
                   f"mid_block.attentions.0.{B}.attn1.to_out.0", "up_blocks.0.upsamplers.0.conv", "conv_out"]}
FEW = {"te": CHOSEN["te"][:1], "unet": ["conv_in", "down_blocks.0.attentions.0.proj_in", f"down_blocks.0.attentions.0.{B}.attn2.to_k", "conv_out"]}
IA3 = {"te": [f"{T}.0.self_attn.k_proj", f"{T}.0.self_attn.v_proj", f"{T}.1.mlp.fc2"],
       "unet": [f"{b}.attentions.0.{B}.{k}" for b in ("down_blocks.0", "mid_block") for k in ("attn1.to_k", "attn2.to_v", "ff.net.2")]}
NETWORKS = {
    "lora": ("lora", CHOSEN, {}), "tucker": ("lora", CHOSEN, dict(use_tucker=True, use_scalar=True)), "dora": ("lora", CHOSEN, dict(weight_decompose=True)),
    "loha": ("loha", CHOSEN, {}), "lokr": ("lokr", CHOSEN, dict(factor=4)), "ia3": ("ia3", IA3, {}), "glora": ("glora", CHOSEN, {}),
    "diag-oft": ("diag-oft", CHOSEN, dict(lora_dim=4)), "boft": ("boft", CHOSEN, dict(lora_dim=2)), "full": ("full", FEW, dict(train_norm=True)),
}
NORMS = ["down_blocks.0.resnets.0.norm1", f"down_blocks.0.attentions.0.{B}.norm2"]


def create(te, unet, algo, chosen, **kw):
    names = {part: [n.replace(".", "\\.") + "$" for n in v] for part, v in chosen.items()}
    norms = [n.replace(".", "\\.") + "$" for n in NORMS] if kw.get("train_norm") else []
    on_input = {n: dict(algo=algo, train_on_input=True) for p in names for n in names[p] if "ff" in n or "fc2" in n}
    LycorisNetworkKohya.apply_preset(dict(enable_conv=True, unet_target_module=[], unet_target_name=names["unet"] + norms, text_encoder_target_module=[],
                                          text_encoder_target_name=names["te"], name_algo_map=on_input if algo == "ia3" else {}))
    kw = {"lora_dim": 2, **kw}
    dim = kw.pop("lora_dim")
    net = LycorisNetworkKohya(te, unet, 1.0, lora_dim=dim, conv_lora_dim=dim, alpha=1.0, conv_alpha=1.0, network_module=algo, **kw)
    assert len(net.loras) == len(names["te"] + names["unet"] + norms), (algo, len(net.loras))
    return net


def forward(unet, te, sched, b):
    t = b["t"].long()
    eps = unet(sched.add_noise(b["latents"], b["noise"], t), t, text_states(te, b["ids"])).sample
    return eps, torch.nn.functional.mse_loss(eps, b["noise"])


def soften(net):
    """Trained-looking values: the change is some tenth of the weight."""
    with torch.no_grad():
        for m in net.loras:
            for name, p in m.named_parameters():
                if name == "dora_scale":
                    p.copy_((m.org_weight.flatten(1).norm(dim=1).reshape(p.shape)).half().float())
                elif name != "scalar":
                    p.mul_(0.25 if name in ("oft_blocks", "weight", "bias", "w_norm", "b_norm") else 0.4)


def network(out, name, algo, chosen, shared, **kw):
    unet, _, te = load(arg(1, TINYSD))
    sched = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False)
    net = create(te, unet, algo, chosen, **kw)
    g = torch.Generator().manual_seed(17)
    for m in net.loras:
        fill(m, g)
    soften(net)
    with torch.no_grad():
        for p in net.loras:
            for v in p.parameters():
                v.copy_(v.half().float())
    out.update({f"{name}.net.{m.lora_name}.{k}": exact(v) for m in net.loras for k, v in saved(m).items()})
    if kw.get("use_scalar"):  # train what readers see: the scalar folded in, and no more a parameter
        folded = {k: v for m in net.loras for k, v in {f"{m.lora_name}.{q}": p for q, p in m.state_dict().items()}.items()}
        net = create(te, unet, algo, chosen, **{**kw, "use_scalar": False})
        for m in net.loras:
            m.load_state_dict({k.split(".", 1)[1]: v for k, v in folded.items() if k.split(".", 1)[0] == m.lora_name})
    before = {m.lora_name: (m.org_module[0].weight.detach().clone()) for m in net.loras}
    net.apply_to(te, unet, True, True)
    net.requires_grad_(True)
    for m in net.loras:
        watch(m)
    pick = lambda prefix, i=None: {k: shared[f"{prefix}.{k}"] if i is None else shared[f"{prefix}.{k}"][i] for k in ("latents", "noise", "t", "ids")}
    out[f"{name}.eps"] = forward(unet, te, sched, pick("lin"))[0]
    opt = torch.optim.AdamW([{"params": [p for m in net.text_encoder_loras for p in m.parameters()], "lr": 5e-4},
                             {"params": [p for m in net.unet_loras for p in m.parameters()], "lr": 1e-3}],
                            betas=(0.9, 0.999), eps=1e-8, weight_decay=0 if algo == "full" else 1e-2)
    losses, norms = [], []
    for i in range(20):
        opt.zero_grad()
        loss = forward(unet, te, sched, pick("lin.steps", i))[1]
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0))
        opt.step()
        losses.append(loss.detach())
    out[f"{name}.loss"], out[f"{name}.grad_norm"] = torch.stack(losses), torch.stack(norms)
    out[f"{name}.eps_after"] = forward(unet, te, sched, pick("lin"))[0]
    for m in net.loras:
        dw = m.seen[0] - before[m.lora_name] if algo == "full" and m.module_type not in ("groupnorm", "layernorm") else m.seen[0]
        out[f"{name}.dw.{m.lora_name}"] = thin(dw)
    print(name, len(net.loras), "modules, losses", [round(float(v), 4) for v in losses])


def main():
    out = {}
    layers(out, load(arg(1, TINYSD))[0])
    shared = load_file(os.path.join(HERE, "lora_tinysd.safetensors"))
    for name, (algo, chosen, kw) in NETWORKS.items():
        network(out, name, algo, chosen, shared, **kw)
    save("lycoris.safetensors", out, oracle=versions("lycoris-lora", "diffusers", "transformers"), kept=str(KEPT))


if __name__ == "__main__":
    main()
