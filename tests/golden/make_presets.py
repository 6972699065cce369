"""Freezes which layers of SD 1.5 each preset and each list of block ranks adapts, and how.

    python make_presets.py SD_SCRIPTS_CHECKOUT

presets.json: `names` of modules, and `cases`, each with `module` (network_module), `dim`, `alpha`, `args` (network_args), `preset` (a TOML document, or null) and
`groups`: "kind rank alpha scale rate" -> indices into names; rank is 0 where the kind has none, rate is the block's on the rate of the UNet.

The models are sd-scripts' and transformers', on the meta device.  Of LyCORIS' built-in lists the class TimestepEmbedding is left out: it was added for another
model, and with it LyCORIS 4.1 refuses its own preset `full` on SD 1.5 (one layer twice).  LyCORIS' ia3 picks nothing there; the case `ia3` is its oracle's
list with names that end paths, as a preset file with use_fnmatch.  Where a preset picks the whole model LyCORIS writes names with "__", here with "_".
"""
import logging
import os
import sys
import tempfile

import torch
from oracle import save_json, versions
from transformers import CLIPTextConfig, CLIPTextModel

sys.path.insert(0, sys.argv[1])
logging.disable(logging.WARNING)
from library import model_util  # noqa: E402
from library.original_unet import UNet2DConditionModel  # noqa: E402
from lycoris import kohya  # noqa: E402
from lycoris.config import PRESET  # noqa: E402
from networks import dylora, lora, lora_fa, oft  # noqa: E402

TOML = {
    "mixed": 'unet_target_module = ["Transformer2DModel", "ResnetBlock2D"]\nunet_target_name = ["conv_in", "up_blocks\\\\.[13]\\\\.upsamplers"]\n'
             'text_encoder_target_module = ["CLIPEncoderLayer"]\nenable_conv = false\n[module_algo_map.CrossAttention]\nalgo = "loha"\ndim = 6\n'
             '[module_algo_map.FeedForward]\ndim = 16\nalpha = 8.0\n[module_algo_map.GEGLU]\nalgo = "loha"\n[module_algo_map.ResnetBlock2D]\ndim = 2\nalpha = 1\n'
             '[module_algo_map.CLIPMLP]\nrs_lora = true\n[name_algo_map.conv_in]\ndim = 3\n',
    "names": 'unet_target_module = []\ntext_encoder_target_module = []\nunet_target_name = ["down_blocks\\\\.\\\\d\\\\.attentions\\\\.[01]\\\\..*attn2\\\\.to_(?:k|v)$", "mid_block", "time_emb.+?linear_1"]\n'
             'text_encoder_target_name = [".*self_attn.(q|out)_proj"]\n[name_algo_map."mid_block.attentions"]\nalgo = "loha"\ndim = 5\n[name_algo_map."mid_block.resnets.*conv1"]\ndim = 7\nalpha = 7\n',
    "excluded": 'exclude_name = ["down_blocks\\\\.[0-2]", "up_blocks.*ff", "mid_block.attentions.0.proj_in", ".*layers.1"]\nunet_target_name = []\n',
    "wildcards": 'use_fnmatch = true\nunet_target_module = ["BasicTransformerBlock"]\nunet_target_name = ["*.time_emb_proj", "conv_*", "down_blocks.?.downsamplers.[!0]*"]\n'
                 'exclude_name = ["up_blocks.3.*"]\ntext_encoder_target_module = ["CLIPMLP"]\n',
    "everything": 'unet_target_module = ["UNet2DConditionModel"]\nunet_target_name = []\ntext_encoder_target_module = ["CLIPTextModel"]\n',
    "ia3": 'enable_conv = false\nuse_fnmatch = true\nunet_target_module = []\nunet_target_name = ["*.to_k", "*.to_v", "*.ff.net.2"]\ntext_encoder_target_module = []\n'
           'text_encoder_target_name = ["*.k_proj", "*.v_proj", "*.mlp.fc2"]\n',
}
DIMS = ",".join(str(i % 6) for i in range(25))
ALPHAS = ",".join(str(i % 4) for i in range(25))
CASES = [("lycoris.kohya", 4, 2.0, [f"preset={p}"], None) for p in PRESET if p != "ia3"]
CASES += [("lycoris.kohya", 4, 2.0, args, toml) for args, toml in (
    ([], None), (["conv_dim=8", "conv_alpha=3"], None), (["conv_dim=0"], None), (["train_norm=True"], None), (["rs_lora=True", "algo=locon", "use_tucker=true"], None),
    (["conv_alpha=0", "preset=unet-convblock-only", "algo=LoHa"], None), (["preset=full-lin", "train_norm=1"], None), (["train_norm=True"], "wildcards"),
    ([], "mixed"), ([], "names"), (["conv_dim=2"], "excluded"), ([], "wildcards"), (["train_norm=true"], "everything"), (["algo=ia3"], "ia3"))]
CASES += [("lycoris.kohya", 8, 0.0, [], None)]
CASES += [("networks.lora", 4, 2.0, args, None) for args in (
    [], ["conv_dim=3"], ["conv_dim=3", "conv_alpha=0.5"], ["conv_dim=0"], [f"block_dims={DIMS}"], [f"block_dims={DIMS}", f"block_alphas={ALPHAS}", "conv_dim=2"],
    [f"block_dims={DIMS}", f"conv_block_dims={DIMS[::-1]}"], [f"block_dims={DIMS}", f"conv_block_dims={DIMS[::-1]}", f"conv_block_alphas={ALPHAS}"],
    ["down_lr_weight=cosine", "up_lr_weight=sine+.25", "mid_lr_weight=0.5"], ["down_lr_weight=0,0,1,,2", "conv_dim=4"],
    ["up_lr_weight=reverse_linear", "block_lr_zero_threshold=0.3", "conv_dim=4"], ["mid_lr_weight=0"], ["down_lr_weight=zeros+.1", "up_lr_weight=linear"])]
CASES += [("networks.lora", 4, 0.0, ["conv_dim=3", "conv_alpha=0"], None), ("networks.lora_fa", 4, 1.0, ["conv_dim=2"], None), ("networks.dylora", 4, 1.0, [], None),
          ("networks.dylora", 4, 1.0, ["conv_dim=4", "unit=2"], None), ("networks.oft", 4, 0.001, [], None), ("networks.oft", 4, 0.001, ["enable_conv=True"], None),
          ("networks.oft", 4, 0.001, ["enable_all_linear=true"], None), ("networks.oft", 4, 0.001, ["enable_all_linear=true", "enable_conv=true"], None)]
KINDS = {"LoConModule": "lora", "LohaModule": "loha", "IA3Module": "ia3", "NormModule": "norm", "LoRAModule": "lora", "DyLoRAModule": "lora", "OFTModule": "oft"}
FULL = {k: [x for x in v if x != "TimestepEmbedding"] if isinstance(v, list) else v for k, v in PRESET["full"].items()}
DEFAULTS = {**FULL, "module_algo_map": {}, "name_algo_map": {}, "use_fnmatch": False, "exclude_name": []}


def models():
    with torch.device("meta"):
        return UNet2DConditionModel(**model_util.create_unet_diffusers_config(False)), CLIPTextModel(CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, max_position_embeddings=77))


def describe(m, rate):
    kind = KINDS[type(m).__name__]
    if kind in ("ia3", "norm"):
        return f"{kind} 0 0 1 {rate:.6f}"
    if kind == "oft":
        return f"oft {m.num_blocks} {float(m.alpha):.6f} 1 {rate:.6f}"
    return f"{kind} {m.lora_dim} {float(m.alpha):.6f} {float(m.scale):.6f} {rate:.6f}"


def modules(module, dim, alpha, args, toml, unet, te):
    kw = dict(a.split("=", 1) for a in args)
    if module == "lycoris.kohya":
        kohya.LycorisNetworkKohya.apply_preset(DEFAULTS)
        for p in PRESET.values():
            p.update({k: [x for x in v if x != "TimestepEmbedding"] for k, v in p.items() if isinstance(v, list)})
        if toml:
            with tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False) as f:
                f.write(TOML[toml])
            kw["preset"] = f.name
        net = kohya.create_network(1.0, dim, alpha, None, te, unet, warn_on_unmatched=False, **kw)
        if toml:
            os.unlink(f.name)
        return {m.lora_name.replace("__", "_"): describe(m, 1.0) for m in net.text_encoder_loras + net.unet_loras}
    program = {"networks.lora": lora, "networks.lora_fa": lora_fa, "networks.dylora": dylora, "networks.oft": oft}[module]
    for cls in (lora.LoRANetwork, lora_fa.LoRANetwork, dylora.DyLoRANetwork):  # create_network() extends the class's own lists
        cls.UNET_TARGET_REPLACE_MODULE = ["Transformer2DModel"]
    oft.OFTNetwork.UNET_TARGET_REPLACE_MODULE_ATTN_ONLY, oft.OFTNetwork.UNET_TARGET_REPLACE_MODULE_ALL_LINEAR = ["CrossAttention"], ["Transformer2DModel"]
    net = program.create_network(1.0, dim, alpha, None, te, unet, **kw)
    if module == "networks.oft":
        return {m.oft_name.replace("oft_unet", "lora_unet"): describe(m, 1.0) for m in net.unet_ofts}
    rate = (lambda m: net.get_lr_weight(lora.get_block_index(m.lora_name))) if module == "networks.lora" else (lambda m: 1.0)
    return {**{m.lora_name: describe(m, 1.0) for m in net.text_encoder_loras}, **{m.lora_name: describe(m, rate(m)) for m in net.unet_loras}}


def ranges(numbers):
    out = []
    for n in sorted(numbers):
        if out and out[-1][1] == n - 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return out


def main():
    unet, te = models()
    found = [modules(*c, unet, te) for c in CASES]
    names = sorted(set().union(*found))
    index = {n: i for i, n in enumerate(names)}
    cases = []
    for (module, dim, alpha, args, toml), f in zip(CASES, found):
        groups = {}
        for name, text in f.items():
            groups.setdefault(text, []).append(index[name])
        cases.append({"module": module, "dim": dim, "alpha": alpha, "args": args, "preset": toml, "count": len(f), "groups": {k: ranges(v) for k, v in sorted(groups.items())}})
        print(len(f), module, dim, alpha, args, toml)
    save_json("presets.json", {"oracle": "lycoris-lora 4.1.3, sd-scripts networks/*.py, " + versions("torch", "transformers"), "documents": TOML, "names": names, "cases": cases})


if __name__ == "__main__":
    main()
