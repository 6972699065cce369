"""Freezes what the tools of sd-scripts and LyCORIS make of small networks and of a changed tinysd.

    python make_tools.py SD_SCRIPTS_CHECKOUT

Writes tools/: a.safetensors and b.safetensors, networks of a few modules of tinysd (rank 8, alpha 4; rank 8, alpha 2 and partly
other modules; values are F16 numbers); c.safetensors, the same as b with rank 3; tuned.safetensors, what is different in a "tuned"
tinysd (diffusers' names).  Then, each written by the tool itself:

    resize_*.safetensors   networks/resize_lora.py of a
    merge_*.safetensors    networks/merge_lora.py of a and b (or c), ratios 0.7 and -0.4
    svd_*.safetensors      networks/svd_merge_lora.py of a and c
    extract_*.safetensors  networks/extract_lora_from_models.py of tuned and tinysd, changed modules only
    lycoris_*.safetensors  lycoris.utils.extract_diff of the same; its .half() is made to keep f32

svd_merge_lora.py and extract_lora_from_models.py clamp outliers by a quantile of signed values, which depends on the signs that an
SVD happens to give: with `noclamp` in the name the quantile is 2 by a patch, that is, no clamp.
"""
import argparse
import os
import sys

import torch
from oracle import HERE, TINYSD, load
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SDS = sys.argv[1]
sys.path[:0] = [SDS, os.path.join(SDS, "networks")]
import extract_lora_from_models as extract  # noqa: E402
import merge_lora  # noqa: E402
import resize_lora  # noqa: E402
import svd_merge_lora  # noqa: E402

DIR = os.path.join(HERE, "tools")
T = "text_model.encoder.layers."
U = "down_blocks.0.attentions.0."
LAYERS = ["te:" + T + "0.self_attn.q_proj", "te:" + T + "0.mlp.fc1", "unet:" + U + "proj_in",
          "unet:" + U + "transformer_blocks.0.attn1.to_q", "unet:" + U + "transformer_blocks.0.ff.net.0.proj",
          "unet:down_blocks.0.resnets.0.conv1", "unet:down_blocks.0.downsamplers.0.conv", "unet:mid_block.attentions.0.proj_out",
          "unet:up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"]
MORE = ["unet:time_embedding.linear_1", "unet:conv_in", "unet:down_blocks.0.resnets.0.time_emb_proj"]


def path(name):
    return os.path.join(DIR, name + ".safetensors")


def models():
    unet, vae, te = load(TINYSD)
    return {"te": te, "unet": unet}, vae


def module(parts, layer):
    part, name = layer.split(":")
    found = parts[part]
    for piece in name.split("."):
        found = found[int(piece)] if piece.isdigit() and not hasattr(found, piece) else getattr(found, piece)
    return found


def kohya(layer):
    part, name = layer.split(":")
    return f"lora_{part}_" + name.replace(".", "_")


def network(parts, layers, rank, alpha, seed):
    g = torch.Generator().manual_seed(seed)
    out = {}
    for i, layer in enumerate(layers):
        w = module(parts, layer).weight
        r = rank + (i % 2 if rank == 3 else 0)
        down = torch.randn((r, *w.shape[1:]), generator=g) * (0.8 ** torch.arange(r).float()).reshape(-1, *[1] * (w.dim() - 1))
        up = torch.randn((w.shape[0], r, *[1] * (w.dim() - 2)), generator=g) * 0.1
        name = kohya(layer)
        out |= {name + ".lora_down.weight": down.half(), name + ".lora_up.weight": up.half()}
        if i != 3:  # one module without an alpha
            out[name + ".alpha"] = torch.tensor(float(alpha)).half()
    return out


def make_inputs(parts):
    meta = lambda title, **more: {"ss_base_model_version": "sd_v1", "ss_v2": "False", "ss_network_dim": "8", "ss_network_alpha": "4.0",
                                  "ss_network_module": "networks.lora", "ss_output_name": title} | more
    save_file(network(parts, LAYERS, 8, 4, 1), path("a"), meta("a", ss_training_comment="by hand", **{"modelspec.title": "The A"}))
    save_file(network(parts, LAYERS[2:] + MORE[2:], 8, 2, 2), path("b"), meta("b"))
    save_file(network(parts, LAYERS[2:] + MORE[2:], 3, 2, 3), path("c"), {})


def make_tuned(parts):
    g = torch.Generator().manual_seed(5)
    out = {}
    for layer in LAYERS + MORE:
        w = module(parts, layer).weight
        m = w.reshape(w.shape[0], -1)
        k = min(m.shape)
        u, v = torch.linalg.qr(torch.randn(m.shape[0], k, generator=g))[0], torch.linalg.qr(torch.randn(m.shape[1], k, generator=g))[0]
        d = u @ torch.diag(0.5 * 0.75 ** torch.arange(k).float()) @ v.T
        out[layer] = (m + d).reshape(w.shape).half()
    save_file(out, path("tuned"))
    return out


def tuned_models(change):
    parts, vae = models()
    for layer, w in change.items():
        module(parts, layer).weight.data.copy_(w.float())
    return parts, vae


# --- runs ---

def resize(name, **more):
    args = argparse.Namespace(model=path("a"), save_to=path("resize_" + name), save_precision="float", new_rank=4, new_conv_rank=None,
                              device=None, verbose=False, dynamic_method=None, dynamic_param=None)
    resize_lora.resize(argparse.Namespace(**(vars(args) | more)))


def merge(name, files, **more):
    args = argparse.Namespace(models=[path(f) for f in files], ratios=[0.7, -0.4], save_to=path("merge_" + name), precision="float",
                              save_precision="float", sd_model=None, no_metadata=False, concat=False, shuffle=False, v2=False)
    merge_lora.merge(argparse.Namespace(**(vars(args) | more)))


def svd(name, quantile, **more):
    args = argparse.Namespace(models=[path("a"), path("c")], ratios=[0.7, -0.4], save_to=path("svd_" + name), precision="float",
                              save_precision="float", lbws=None, new_rank=4, new_conv_rank=None, device=None, no_metadata=False)
    with quantiles(quantile):
        svd_merge_lora.merge(argparse.Namespace(**(vars(args) | more)))


class quantiles:
    """torch.quantile as it is, or so high that nothing is clamped."""

    def __init__(self, on):
        self.on, self.real = on, torch.quantile

    def __enter__(self):
        if not self.on:
            torch.quantile = lambda x, q: torch.tensor(float("inf"))

    def __exit__(self, *what):
        torch.quantile = self.real


def keep(file, layers):
    names = {kohya(x) for x in layers}
    with safe_open(file, "pt") as f:
        meta, all_names = f.metadata(), sorted({k.split(".")[0] for k in f.keys()})
    meta["modules"] = str(len(all_names))
    save_file({k: v for k, v in load_file(file).items() if k.split(".")[0] in names}, file, meta)


def extracted(name, change, quantile, **more):
    loads = iter([models(), tuned_models(change)])

    def load_models(v2, file):
        parts, vae = next(loads)
        return parts["te"], vae, parts["unet"]

    extract.model_util.load_models_from_stable_diffusion_checkpoint = load_models
    extract.args = argparse.Namespace(device=None)
    # sd-scripts adds to this list in place; a run of the program starts with it as it was
    extract.lora.LoRANetwork.UNET_TARGET_REPLACE_MODULE = ["Transformer2DModel"]
    with quantiles(quantile):
        extract.svd(**(dict(model_org="tinysd", model_tuned="tuned", save_to=path("extract_" + name), dim=4, v2=False, sdxl=False,
                            save_precision="float", v_parameterization=None) | more))
    keep(path("extract_" + name), LAYERS)


def lycoris(name, change, layers=LAYERS + MORE, **more):
    from lycoris.utils import extract_diff
    (base, _), (tuned, _) = models(), tuned_models(change)
    half, torch.Tensor.half = torch.Tensor.half, torch.Tensor.float
    try:
        out = extract_diff([base["te"]], [tuned["te"]], base["unet"], tuned["unet"], **more)
    finally:
        torch.Tensor.half = half
    names = {kohya(x) for x in layers}
    save_file({k: v.contiguous().clone() for k, v in out.items() if k.split(".")[0] in names}, path("lycoris_" + name))


def main():
    os.makedirs(DIR, exist_ok=True)
    parts, _ = models()
    make_inputs(parts)
    change = make_tuned(parts)
    resize("fixed")
    resize("conv", new_rank=6, new_conv_rank=3)
    for method, param in (("sv_ratio", 2.5), ("sv_fro", 0.9), ("sv_cumulative", 0.7)):
        resize(method, new_rank=7, dynamic_method=method, dynamic_param=param)
    merge("average", ["a", "b"])
    merge("concat", ["a", "c"], concat=True)
    svd("noclamp", False, new_conv_rank=2)
    svd("clamp", True)
    lbw = [[1.0, 0.5, 0.25, 0, 0.1, 0.2, 0.3, 2.0] + [0.1 * i for i in range(9)], [0.5] * 17]
    svd("lbw", False, lbws=[str(x) for x in lbw])
    extracted("noclamp", change, False, min_diff=0.0)
    extracted("clamp", change, True, min_diff=1.0)
    extracted("conv", change, False, conv_dim=3)
    lycoris("fixed", change, mode="fixed", linear_mode_param=6, conv_mode_param=4, small_conv=False)
    lycoris("small", change, mode="fixed", linear_mode_param=6, conv_mode_param=4, small_conv=True)
    lycoris("sparse", change, LAYERS, mode="fixed", linear_mode_param=6, conv_mode_param=4, small_conv=False, use_bias=True, sparsity=0.97)
    lycoris("whole", change, LAYERS[:3], mode="fixed", linear_mode_param=32, conv_mode_param=2, small_conv=False)
    lycoris("threshold", change, mode="threshold", linear_mode_param=0.05, conv_mode_param=0.1, small_conv=False)
    lycoris("ratio", change, mode="ratio", linear_mode_param=0.2, conv_mode_param=0.3, small_conv=False)
    lycoris("quantile", change, mode="quantile", linear_mode_param=0.8, conv_mode_param=0.6, small_conv=False)
    print(sum(os.path.getsize(os.path.join(DIR, f)) for f in os.listdir(DIR)), "bytes")


if __name__ == "__main__":
    main()
