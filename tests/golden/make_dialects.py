"""Network files for tinysd as other programs write them, and what those programs make of them.

    python make_dialects.py SD_SCRIPTS_CHECKOUT [tinysd.safetensors]

Writes dialects/: one small file per dialect and, for each, `<case>.eps` (the UNet's output with the network applied), `<case>.text`
(text states) and `<case>.delta.<part>:<path>` (merged weight minus the base's, of a few layers) in dialects/expected.safetensors.
Writers and readers are the programs' own where they still have them: peft's save_pretrained, diffusers' save_lora_weights and
convert_state_dict_to_kohya, LyCORIS' save_weights.  Spellings that no current program writes any more (diffusers' attention
processors of 2023, its names before PEFT, the metadata of diffusers >= 0.34, OneTrainer's and LDM's names) are made by renaming;
what they mean is then what diffusers' load_lora_weights makes of them, or the network that was renamed.
keys_sdxl.json: names and shapes of an SDXL LoRA and LoCon by sd-scripts, and diffusers' name of each UNet layer.
"""
import copy
import json
import os
import re
import sys

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
from oracle import HERE, TINYSD, arg, load, save, save_json, text_states, tokenizer, unet_config, versions
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

OUT = os.path.join(HERE, "dialects")
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
UNET = [f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn1.to_out.0", f"{BLOCK}.attn2.to_k", "down_blocks.0.attentions.0.proj_in", "conv_in",
        "up_blocks.0.resnets.0.time_emb_proj"]
ATTN = UNET[:3]
TEXT = ["text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.self_attn.out_proj"]
KEPT = {"unet": [UNET[0], "conv_in"], "te": TEXT[:1]}
MODEL = arg(2, TINYSD)
out, meta = {}, {}
TOK = tokenizer()
IDS = torch.tensor(TOK(["red apple, fruit"], padding="max_length", max_length=77).input_ids, dtype=torch.int32)
LATENTS, STEP = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5)), torch.tensor([400])
BASE = load(MODEL)
BASE_WEIGHTS = {p: {n: m.weight.detach().clone() for n, m in model.named_modules() if n in KEPT[p]} for p, model in
                (("unet", BASE[0]), ("te", BASE[2]))}


def fill(params, seed, size=0.1):
    """Values that F16 holds, for every trainable tensor, so that nothing of a network is a no-op."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in sorted(params):
            p.copy_((torch.randn(p.shape, generator=g) * size).half().float())


def expect(case, unet=None, te=None):
    """Records what a pair of adapted models computes; merge=True: their weights after peft merged them."""
    unet, te = unet or BASE[0], te or BASE[2]
    with torch.no_grad():
        ctx = text_states(te, IDS)
        out[f"{case}.eps"] = unet(LATENTS, STEP, ctx).sample
        if te is not BASE[2]:
            out[f"{case}.text"] = ctx


def expect_merged(case, part, model):
    named = {n.removeprefix("base_model.model."): m for n, m in model.named_modules()}
    for path in KEPT[part]:
        m = named.get(path)
        d = (m.base_layer if hasattr(m, "base_layer") else m).weight.detach() - BASE_WEIGHTS[part][path]
        if d.abs().max() > 0:
            out[f"{case}.delta.{part}:{path}"] = d


def fresh():
    return [copy.deepcopy(m) for m in BASE]


def raw_peft(case, config, kind, seed, size=0.1, after=None):
    """A raw adapter of the UNet in a folder of its own."""
    unet = fresh()[0]
    model = get_peft_model(unet, config)
    fill([(n, p) for n, p in model.named_parameters() if p.requires_grad and "magnitude" not in n], seed, size)
    if after:
        after(model)
    model.eval()
    model.save_pretrained(os.path.join(OUT, case))
    os.remove(os.path.join(OUT, case, "README.md"))
    path = os.path.join(OUT, case, "adapter_config.json")
    told = json.load(open(path))  # sets have no order of their own
    json.dump({k: sorted(v) if isinstance(v, list) else v for k, v in told.items()}, open(path, "w"), indent=2, sort_keys=True)
    expect(case, unet=model)
    if getattr(config, "lora_bias", False):  # PEFT merges no bias into a layer that has none
        for m in model.modules():
            if hasattr(m, "lora_bias") and m.get_base_layer().bias is not None:
                m.merge()
    else:
        model.merge_adapter()
    expect_merged(case, "unet", model)
    meta[case] = kind


def stretch(model):
    """Magnitudes other than the norms they start as."""
    g = torch.Generator().manual_seed(77)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "magnitude" in n:
                p.mul_(1 + 0.3 * torch.rand(p.shape, generator=g))


def lora_pair(r, alpha, seed, unet_targets=UNET, text_targets=TEXT, **kw):
    """tinysd with peft's LoRA in both parts, as diffusers adds it."""
    unet, _, te = fresh()
    unet.add_adapter(LoraConfig(r=r, lora_alpha=alpha, target_modules=unet_targets, **kw))
    te.add_adapter(LoraConfig(r=r, lora_alpha=alpha, target_modules=text_targets, **kw))
    for i, m in enumerate((unet, te)):
        fill([(n, p) for n, p in m.named_parameters() if p.requires_grad and "magnitude" not in n], seed + i)
        stretch(m)
        m.eval()
    return unet, te


def record(case, unet, te, what):
    expect(case, unet, te)
    for part, m in (("unet", unet), ("te", te)):
        m = copy.deepcopy(m)
        for layer in m.modules():
            if hasattr(layer, "lora_A") and hasattr(layer, "merge"):
                layer.merge()
        expect_merged(case, part, m)
    meta[case] = what


def record_loaded(case, file, what):
    """What diffusers makes of a file."""
    unet, vae, te = fresh()
    pipe = StableDiffusionPipeline(vae, te, TOK, unet, DDIMScheduler(), None, None, requires_safety_checker=False)
    pipe.load_lora_weights(OUT, weight_name=file, adapter_name="x")
    record(case, pipe.unet, pipe.text_encoder, what)


def states(unet, te):
    return get_peft_model_state_dict(unet, adapter_name="default"), get_peft_model_state_dict(te, adapter_name="default")


def half(sd):
    return {k: v.detach().half().contiguous() if v.dtype == torch.float32 and "magnitude" not in k and "dora" not in k else v.contiguous()
            for k, v in sd.items()}


def diffusers_cases():
    unet, te = lora_pair(4, 4, 10)
    u, t = states(unet, te)
    StableDiffusionPipeline.save_lora_weights(OUT, unet_lora_layers=u, text_encoder_lora_layers=t, weight_name="diffusers.safetensors")
    record("diffusers", unet, te, "save_lora_weights")
    # the same network before PEFT: text encoder by diffusers' own converter, the UNet by its old rule
    unet, te = lora_pair(4, 4, 20, ATTN)
    u, t = states(unet, te)
    old = {f"text_encoder.{k}": v for k, v in convert_state_dict_to_diffusers(t).items()}
    assert all("lora_linear_layer" in k for k in old)
    old |= {"unet." + k.replace("lora_A.weight", "lora.down.weight").replace("lora_B.weight", "lora.up.weight"): v for k, v in u.items()}
    torch.save(half(old), os.path.join(OUT, "diffusers_old.bin"))
    record_loaded("diffusers_old", "diffusers_old.bin", "names of diffusers 0.17 to 0.21, torch.save")
    proc = {}
    for k, v in u.items():
        path, leaf = re.match(r"(.*)\.lora_([AB])\.weight", k).groups()
        path = path.replace(".to_out.0", ".to_out")
        base, _, name = path.rpartition(".")
        proc[f"unet.{base}.processor.{name}_lora.{'down' if leaf == 'A' else 'up'}.weight"] = v
    for k, v in t.items():
        path, leaf = re.match(r"(.*)\.lora_([AB])\.weight", k).groups()
        base, _, name = path.rpartition(".")
        proc[f"text_encoder.{base}.to_{name.removesuffix('_proj')}_lora.{'down' if leaf == 'A' else 'up'}.weight"] = v
    save_file(half(proc), os.path.join(OUT, "diffusers_processor.safetensors"))
    record_loaded("diffusers_processor", "diffusers_processor.safetensors", "attention processors of diffusers 0.11 to 0.16")
    bare = {k.removeprefix("unet."): v for k, v in half(proc).items() if k.startswith("unet.")}
    torch.save(bare, os.path.join(OUT, "processor_bare.ckpt"))
    record_loaded_bare("processor_bare", half(u))


def record_loaded_bare(case, u):
    """The same without "unet.": the UNet's part of the network that was renamed."""
    unet = fresh()[0]
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=ATTN))
    named = dict(unet.named_parameters())
    with torch.no_grad():
        for k, v in u.items():
            named[k.replace(".weight", ".default.weight")].copy_(v.float())
    record(case, unet.eval(), fresh()[2], "attention processors without a prefix")


def metadata_case():
    """diffusers >= 0.34 keeps each part's LoraConfig in one JSON object, names after the part's prefix."""
    unet, te = lora_pair(4, 3, 30, rank_pattern={"attn2.to_k": 2}, alpha_pattern={f"{BLOCK}.attn1.to_q": 5})
    u, t = states(unet, te)
    sd = {f"unet.{k}": v for k, v in u.items()} | {f"text_encoder.{k}": v for k, v in t.items()}
    told = {}
    for prefix, m in (("unet", unet), ("text_encoder", te)):
        told |= {f"{prefix}.{k}": (sorted(v) if isinstance(v, set) else v) for k, v in m.peft_config["default"].to_dict().items()}
    text = json.dumps(told, sort_keys=True, indent=2, default=str)
    save_file(half(sd), os.path.join(OUT, "diffusers_metadata.safetensors"), {"format": "pt", "lora_adapter_metadata": text})
    record("diffusers_metadata", unet, te, "peft; metadata as diffusers 0.34 writes it")


def kohya_cases():
    unet, te = lora_pair(4, 2, 40)
    u, t = states(unet, te)
    sd = {f"unet.{k}": v for k, v in u.items()} | {f"text_encoder.{k}": v for k, v in t.items()}
    kohya = convert_state_dict_to_kohya({k: v for k, v in sd.items()})
    kohya = {k: v for k, v in kohya.items() if not k.endswith(".alpha")}
    kohya |= {k.replace(".lora_down.weight", ".alpha"): torch.tensor(2.0) for k in list(kohya) if k.endswith(".lora_down.weight")}
    kohya = half(kohya)
    torch.save(kohya, os.path.join(OUT, "kohya.pt"))
    record("kohya", unet, te, "convert_state_dict_to_kohya, torch.save")
    # LDM's block names, by diffusers' own conversion of a checkpoint whose weights are numbers
    numbered = load_file(MODEL)
    prefix = "model.diffusion_model."
    names = [k for k in numbered if k.startswith(prefix)]
    fake = {k: torch.tensor([float(i)]) for i, k in enumerate(names)}
    cfg = {**unet_config(numbered), "class_embed_type": None}
    ldm = {k.removesuffix(".weight"): names[int(v)].removeprefix(prefix).removesuffix(".weight")
           for k, v in convert_ldm_unet_checkpoint(dict(fake), cfg).items() if k.endswith(".weight")}
    table = {"lora_unet_" + k.replace(".", "_"): "lora_unet_" + v.replace(".", "_") for k, v in ldm.items()}
    renamed = {}
    for k, v in kohya.items():
        name, _, leaf = k.partition(".")
        renamed[table.get(name, name) + "." + leaf] = v
    renamed["bundle_emb.cat.string_to_param.*"] = torch.zeros(1, 64)
    save_file(renamed, os.path.join(OUT, "ldm.safetensors"), {"ss_output_name": "ldm"})
    record("ldm", unet, te, "the same by LDM's block names, with a bundled embedding")
    native = {}
    for k, v in sd.items():
        part, _, rest = k.partition(".")
        path, leaf = re.match(r"(.*)\.(lora_[AB]\.weight)", rest).groups()
        name = f"diffusion_model.{ldm[path]}" if part == "unet" else f"text_encoders.clip_l.transformer.{path}"
        native[f"{name}.{leaf}"] = v
        native[f"{name}.alpha"] = torch.tensor(2.0)
    save_file(half(native), os.path.join(OUT, "native.safetensors"))
    record("native", unet, te, "the same as ComfyUI names it")


def onetrainer_case():
    """OneTrainer: kohya's names and PEFT-like magnitudes on the output axis, bf16, marked by ot_branch."""
    unet, te = lora_pair(4, 4, 50, use_dora=True)
    sd = {}
    for prefix, model in (("lora_unet_", unet), ("lora_te_", te)):
        for k, v in get_peft_model_state_dict(model, adapter_name="default").items():
            path, leaf = re.match(r"(.*)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector)", k).groups()
            name = prefix + path.replace(".", "_")
            if leaf == "lora_magnitude_vector":
                v = v.reshape(-1, *[1] * (len(sd_shape(model, path)) - 1))
            sd[name + {"lora_A.weight": ".lora_down.weight", "lora_B.weight": ".lora_up.weight"}.get(leaf, ".dora_scale")] = v
            sd[name + ".alpha"] = torch.tensor(4.0)
    save_file(half(sd), os.path.join(OUT, "onetrainer.safetensors"), {"ot_branch": "master"})
    record("onetrainer", unet, te, "peft's DoRA under OneTrainer's names")


def sd_shape(model, path):
    return dict(model.named_modules())[path].base_layer.weight.shape


def lycoris_case():
    from lycoris import create_lycoris, LycorisNetwork
    unet = fresh()[0]
    LycorisNetwork.apply_preset({"target_name": [".*" + n.split(".", 3)[-1] + "$" for n in UNET], "target_module": []})
    net = create_lycoris(unet, 1.0, linear_dim=4, linear_alpha=2.0, conv_dim=4, conv_alpha=2.0, algo="lora")
    net.apply_to()
    fill([(n, p) for n, p in net.named_parameters()], 60)
    net.eval()
    net.save_weights(os.path.join(OUT, "lycoris.safetensors"), torch.float16, {})
    print("lycoris:", len(net.loras), "modules", net.loras[0].lora_name)
    expect("lycoris", unet=unet)
    for path in KEPT["unet"]:
        m = next((l for l in net.loras if l.lora_name == "lycoris_" + path.replace(".", "_")), None)
        if m is not None:
            out[f"lycoris.delta.unet:{path}"] = m.get_diff_weight(1.0)[0].detach().reshape(BASE_WEIGHTS["unet"][path].shape)
    meta["lycoris"] = "LyCORIS by itself"


def peft_cases():
    raw_peft("peft_lora", LoraConfig(r=4, lora_alpha=6, target_modules=UNET, rank_pattern={"attn1.to_q": 3},
                                     alpha_pattern={"conv_in": 2, f"{BLOCK}.attn2.to_k": 9}), "LoRA", 1)
    raw_peft("peft_bias", LoraConfig(r=4, lora_alpha=6, lora_bias=True, target_modules=UNET, alpha_pattern={"conv_in": 2}), "LoRA with biases", 9, 0.15)
    raw_peft("peft_dora", LoraConfig(r=4, lora_alpha=3, use_rslora=True, use_dora=True, target_modules=UNET), "DoRA, rslora", 2, after=stretch)
    raw_peft("peft_loha", LoHaConfig(r=3, alpha=5, target_modules=UNET, use_effective_conv2d=True), "LoHa, tucker", 3, 0.3)
    raw_peft("peft_loha_flat", LoHaConfig(r=3, alpha=5, target_modules=UNET), "LoHa", 4, 0.3)
    raw_peft("peft_lokr", LoKrConfig(r=3, alpha=5, target_modules=UNET, use_effective_conv2d=True, decompose_both=True), "LoKr, tucker", 5, 0.3)
    raw_peft("peft_lokr_full", LoKrConfig(r=64, alpha=48, target_modules=UNET, decompose_factor=8), "LoKr without factors, alpha / rank counts", 6)
    raw_peft("peft_ia3", IA3Config(target_modules=[f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_k", f"{BLOCK}.ff.net.2"],
                                   feedforward_modules=[f"{BLOCK}.ff.net.2"]), "(IA)^3", 7, 1.0)
    raw_peft("peft_oft", OFTConfig(r=0, oft_block_size=8, target_modules=UNET[:3]), "OFT of the input", 8, 0.1)


def sdxl_keys():
    sys.path.insert(0, sys.argv[1])
    from library import sdxl_model_util, sdxl_original_unet
    from networks import lora
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
    with torch.device("meta"):
        unet = sdxl_original_unet.SdxlUNet2DConditionModel()
        one = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
        two = CLIPTextModelWithProjection(CLIPTextConfig(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32,
                                                         num_attention_heads=20, projection_dim=1280))
        found = {}
        for name, kw in (("lora", {}), ("locon", dict(conv_dim="1", conv_alpha="1"))):
            net = lora.create_network(1.0, 1, 1.0, None, [one, two], unet, **kw)
            found[name] = {m.lora_name: [list(m.lora_down.weight.shape), list(m.lora_up.weight.shape)]
                           for m in net.text_encoder_loras + net.unet_loras}
    found["locon"] = {k: v for k, v in found["locon"].items() if k not in found["lora"]}
    table = dict(sdxl_model_util.make_unet_conversion_map())  # LDM with a final '.' to diffusers
    heads = sorted(((a.rstrip(".").replace(".", "_"), b.rstrip(".").replace(".", "_")) for a, b in table.items()), key=lambda p: -len(p[0]))

    def other(name):
        path = name.removeprefix("lora_unet_")
        a, b = next((a, b) for a, b in heads if path == a or path.startswith(a + "_"))
        return "lora_unet_" + b + path[len(a):]
    found["diffusers"] = {k: other(k) for k in [*found["lora"], *found["locon"]] if k.startswith("lora_unet_")}
    print({k: len(v) for k, v in found.items()})
    save_json("dialects/keys_sdxl.json", found)


def main():
    os.makedirs(OUT, exist_ok=True)
    torch.manual_seed(0)
    diffusers_cases()
    metadata_case()
    kohya_cases()
    onetrainer_case()
    lycoris_case()
    peft_cases()
    sdxl_keys()
    out.update({"latents": LATENTS, "t": STEP.float(), "ids": IDS})
    save("dialects/expected.safetensors", out, oracle=versions("diffusers", "peft", "transformers", "lycoris-lora"), cases=meta)


if __name__ == "__main__":
    main()
