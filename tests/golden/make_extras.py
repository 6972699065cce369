"""Freezes what networks do whose modules hold more than one algorithm: extras.safetensors.

    python make_extras.py A1111_LYCORIS_CHECKOUT

The checkout is KohakuBlueleaf/a1111-sd-webui-lycoris: AUTOMATIC1111's own Lora classes as an extension, and one commit earlier
(OLD) the only program that ever read sparse residuals.  Both are imported with mocks for the user interface.

Case `<case>`: networks `<case>.<i>.net.<key>` in the order of application (metadata `cases`: strength and rank limit of each), and of every
layer that they adapt `<case>.dw.<module>` and `<case>.db.<module>`: what the weight and the bias have more than tinysd's.  Values are exact
in F16.
    residual    LoRA, LoCon and a tucker core with bias_indices, bias_values and bias_size, applied by OLD's rebuild_weight
    beside      LoRA, LoHa, LoKr and a whole weight with diff_b; diff_b alone; set_weight.  A1111 knows the first of each pair; biases get
                ComfyUI's rule, which patches a weight and a bias apart, each times the strength; set_weight is the weight at strength 1
    limit       LoRA with a rank limit beside LoHa, in both orders, and a tucker core, which AUTOMATIC1111 does not limit
"""
import importlib.util
import subprocess
import sys
import types
from unittest.mock import MagicMock

import torch
from oracle import TINYSD, load, save, versions

CHECKOUT, OLD = sys.argv[1], "1e5db39210df4dd3bb6f3667d9e690c447939e71"
LAYERS = dict(linear="down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", out="down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
              one="down_blocks.1.resnets.0.conv_shortcut", conv="down_blocks.1.resnets.0.conv1", small="conv_in",
              norm="down_blocks.1.attentions.0.transformer_blocks.0.norm1")
PIECES = "lyco_helpers l_network l_network_lora l_network_hada l_network_lokr l_network_full"


def source(commit, name):
    return subprocess.run(["git", "-C", CHECKOUT, "show", f"{commit}:{name}.py"], check=True, capture_output=True, text=True).stdout


def imported(commit, name):
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(source(commit, name), name, "exec"), module.__dict__)
    return module


def classes():
    for name in ("lyco_logger", "modules", "modules.sd_models", "modules.cache", "modules.errors", "modules.hashes", "modules.shared", "modules.devices",
                 "modules.scripts", "modules.sd_hijack", "modules.textual_inversion", "modules.textual_inversion.textual_inversion"):
        sys.modules[name] = MagicMock()
    sys.modules["modules"].devices.cpu = torch.device("cpu")
    sys.modules["modules"].devices.dtype = torch.float32
    found = {name: imported("HEAD", name) for name in PIECES.split()}
    found["old"] = imported(OLD, "lycoris")
    return types.SimpleNamespace(**found)


def draw(g, *shape, size=0.1):
    return (torch.randn(shape, generator=g) * size).half().float()


def lora(g, w, rank, alpha, tucker=False):
    out, inputs, *taps = w.shape
    one = [1] * len(taps)
    t = {"lora_down.weight": draw(g, rank, inputs, *(one if tucker else taps)), "lora_up.weight": draw(g, out, rank, *one),
         "alpha": torch.tensor(alpha)}
    return t | ({"lora_mid.weight": draw(g, rank, rank, *taps)} if tucker else {})


def loha(g, w, rank, alpha):
    out, width = w.shape[0], w[0].numel()
    return {"hada_w1_a": draw(g, out, rank), "hada_w1_b": draw(g, rank, width), "hada_w2_a": draw(g, out, rank),
            "hada_w2_b": draw(g, rank, width), "alpha": torch.tensor(alpha)}


def lokr(g, w):
    return {"lokr_w1": draw(g, 4, 4), "lokr_w2": draw(g, w.shape[0] // 4, w.shape[1] // 4, *w.shape[2:])}


def residual(g, w, n):
    rows, width = w.shape[0], w[0].numel()
    at = torch.randperm(rows * width, generator=g)[:n].sort().values
    return {"bias_indices": torch.stack([at // width, at % width]).to(torch.int16), "bias_values": draw(g, n),
            "bias_size": torch.tensor([rows, width], dtype=torch.int16)}


def of_a1111(c, layer, t, strength, dyn):
    """A1111's classes, asked in its order; (updown, change of the bias)."""
    net = types.SimpleNamespace(te_multiplier=strength, unet_multiplier=strength, dyn_dim=dyn or None)
    weights = c.l_network.NetworkWeights("key", "diffusion_model_key", t, layer)
    for kind in (c.l_network_lora.ModuleTypeLora, c.l_network_hada.ModuleTypeHada, c.l_network_lokr.ModuleTypeLokr, c.l_network_full.ModuleTypeFull):
        module = kind().create_module(net, weights)
        if module is not None:
            return module.calc_updown(layer.weight)
    return None, None


def of_old(c, layer, t, strength):
    """The sparse matrix is built as load_lyco does, in which a module's own convolution is what is tuned."""
    class LycoUpDownModule:
        pass
    m = LycoUpDownModule()
    m.bias = torch.sparse_coo_tensor(t["bias_indices"].int(), t["bias_values"], tuple(t["bias_size"])).to_dense()
    m.up_model, m.down_model = (types.SimpleNamespace(weight=t[f"lora_{x}.weight"]) for x in ("up", "down"))
    m.mid_model = types.SimpleNamespace(weight=t["lora_mid.weight"]) if "lora_mid.weight" in t else None
    m.dim, m.alpha, m.scale = t["lora_down.weight"].shape[0], t["alpha"].item(), None
    return c.old.lyco_calc_updown(types.SimpleNamespace(dyn_dim=None), m, layer.weight, strength), None


def change(c, layer, t, strength, dyn):
    if "bias_values" in t:
        return of_old(c, layer, t, strength)
    if "set_weight" in t:
        return t["set_weight"] - layer.weight, strength * t["diff_b"] if "diff_b" in t else None
    dw, db = of_a1111(c, layer, t, strength, dyn)
    return dw, db if db is not None else strength * t["diff_b"] if "diff_b" in t else None


def run(c, unet, name, nets, out):
    """nets: ({layer: tensors}, strength, dyn) in order."""
    for layer in {x for n in nets for x in n[0]}:
        module = unet.get_submodule(LAYERS[layer])
        w, b = module.weight.data.clone(), None if module.bias is None else module.bias.data.clone()
        kohya = "lora_unet_" + LAYERS[layer].replace(".", "_")
        for i, (tensors, strength, dyn) in enumerate(nets):
            if layer not in tensors:
                continue
            with torch.no_grad():
                dw, db = change(c, module, tensors[layer], strength, dyn)
                if dw is not None:
                    module.weight += dw.reshape(w.shape)
                if db is not None:
                    module.bias = torch.nn.Parameter(db if module.bias is None else module.bias + db)
            for k, v in tensors[layer].items():
                out[f"{name}.{i}.net.{kohya}.{k}"] = v.half() if v.is_floating_point() and v.dim() else v
        out[f"{name}.dw.{kohya}"] = module.weight.data - w
        if module.bias is not None:
            out[f"{name}.db.{kohya}"] = module.bias.data - (0 if b is None else b)
        module.weight.data, module.bias = w, None if b is None else torch.nn.Parameter(b)
    return f"{name} " + " ".join(f"{strength}:{dyn}" for _, strength, dyn in nets)


def main():
    c, (unet, _, _), g, out = classes(), load(TINYSD), torch.Generator().manual_seed(12), {}
    w = {k: unet.get_submodule(v).weight.data for k, v in LAYERS.items()}
    b = {k: draw(g, len(v)) for k, v in w.items()}
    cases = [run(c, unet, "residual", [({"linear": lora(g, w["linear"], 3, 1.5) | residual(g, w["linear"], 40),
                                         "one": lora(g, w["one"], 2, 2.0) | residual(g, w["one"], 9),
                                         "small": lora(g, w["small"], 3, 1.0) | residual(g, w["small"], 31),
                                         "conv": lora(g, w["conv"], 2, 3.0, True) | residual(g, w["conv"], 50)}, 0.7, 0),
                                       ({"linear": lora(g, w["linear"], 2, 1.0)}, -0.5, 0)], out),
             run(c, unet, "live", [({"linear": lora(g, w["linear"], 3, 1.5) | {"diff_b": b["linear"]}, "out": lora(g, w["out"], 3, 1.5) | {"diff_b": b["out"]},
                                     "small": lora(g, w["small"], 2, 1.0) | {"diff_b": b["small"]}}, 0.7, 0),
                                   ({"out": lora(g, w["out"], 2, 1.0) | {"diff_b": draw(g, len(b["out"]))}}, -0.5, 0)], out),
             run(c, unet, "beside", [({"linear": loha(g, w["linear"], 3, 1.5) | {"diff_b": b["linear"]}, "out": lokr(g, w["out"]) | {"diff_b": b["out"]},
                                       "one": {"diff_b": b["one"]}, "norm": {"diff": b["norm"], "diff_b": b["norm"]},
                                       "small": {"diff": draw(g, *w["small"].shape), "diff_b": b["small"]}}, 0.7, 0),
                                     ({"one": {"set_weight": draw(g, *w["one"].shape), "diff_b": b["one"]}}, 1.0, 0)], out),
             run(c, unet, "limit", [({"linear": lora(g, w["linear"], 4, 3.0), "one": loha(g, w["one"], 3, 1.5), "out": lora(g, w["out"], 2, 1.0),
                                      "small": lora(g, w["small"], 4, 3.0, True)}, 0.7, 2),
                                    ({"linear": loha(g, w["linear"], 3, 1.5), "one": lora(g, w["one"], 4, 3.0)}, -0.4, 2)], out)]
    save("extras.safetensors", out, oracle="a1111-sd-webui-lycoris (HEAD and " + OLD[:7] + "), " + versions("torch"), cases=cases)
    print(len(out), "tensors", sum(v.numel() * v.element_size() for v in out.values()), "bytes", cases)


if __name__ == "__main__":
    main()
