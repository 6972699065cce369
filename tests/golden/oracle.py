"""What the golden scripts share: the models of an LDM checkpoint as diffusers and transformers build them.

Widths, depths and context size are read off tensor shapes; the renaming LDM -> diffusers is diffusers' own.
Fixed by convention (shapes cannot tell them): 8 UNet heads, text heads = width / 64, quick-GELU, scale 0.18215.
"""
import json
import math
import os
import re
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TINYSD = os.path.join(ROOT, "examples", "data", "tinysd", "tinysd.safetensors")
SCALE = 0.18215
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
torch.backends.cuda.matmul.allow_tf32 = False


def levels(sd, pattern):
    return sorted({int(m.group(1)) for k in sd for m in [re.match(pattern, k)] if m})


def unet_config(sd):
    p = "model.diffusion_model."
    sd = {k[len(p):]: v for k, v in sd.items() if k.startswith(p)}
    blocks = levels(sd, r"input_blocks\.(\d+)\.")
    downs = [i for i in blocks if f"input_blocks.{i}.0.op.weight" in sd]
    per = (downs[0] - 1) if downs else len(blocks) - 1
    firsts = [1] + [d + 1 for d in downs]
    width = [sd[f"input_blocks.{i}.0.in_layers.2.weight"].shape[0] for i in firsts]
    attn = [f"input_blocks.{i}.1.norm.weight" in sd for i in firsts]
    ctx = next(v.shape[1] for k, v in sd.items() if k.endswith("attn2.to_k.weight"))
    return dict(sample_size=64, in_channels=sd["input_blocks.0.0.weight"].shape[1], out_channels=sd["out.2.weight"].shape[0],
                down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attn],
                up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attn[::-1]],
                block_out_channels=width, layers_per_block=per, cross_attention_dim=ctx, attention_head_dim=8,
                use_linear_projection=False)


def vae_config(sd):
    p = "first_stage_model."
    sd = {k[len(p):]: v for k, v in sd.items() if k.startswith(p)}
    n = len(levels(sd, r"encoder\.down\.(\d+)\."))
    return dict(in_channels=3, out_channels=3, latent_channels=sd["post_quant_conv.weight"].shape[0],
                down_block_types=["DownEncoderBlock2D"] * n, up_block_types=["UpDecoderBlock2D"] * n,
                block_out_channels=[sd[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(n)],
                layers_per_block=len(levels(sd, r"encoder\.down\.0\.block\.(\d+)\.")), scaling_factor=SCALE)


def text_config(sd):
    p = "cond_stage_model.transformer.text_model."
    vocab, width = sd[p + "embeddings.token_embedding.weight"].shape
    return dict(vocab_size=vocab, hidden_size=width, num_attention_heads=max(1, width // 64), projection_dim=width,
                intermediate_size=sd[p + "encoder.layers.0.mlp.fc1.weight"].shape[0],
                num_hidden_layers=len(levels(sd, re.escape(p) + r"encoder\.layers\.(\d+)\.")),
                max_position_embeddings=sd[p + "embeddings.position_embedding.weight"].shape[0],
                hidden_act="quick_gelu", bos_token_id=49406, eos_token_id=49407, pad_token_id=49407)


def strict(model, sd, ignore=("position_ids",)):
    got = model.load_state_dict({k: v for k, v in sd.items() if not k.endswith(ignore)}, strict=False)
    lost = [k for k in got.missing_keys if not k.endswith(ignore)]
    assert not lost and not got.unexpected_keys, (lost[:4], got.unexpected_keys[:4])
    return model.float().eval().requires_grad_(False)


def text_model(sd):
    p = "cond_stage_model.transformer."
    model = CLIPTextModel(CLIPTextConfig(attn_implementation="eager", **text_config(sd)))
    named = {k[len(p):]: v.float() for k, v in sd.items() if k.startswith(p)}
    if not any(k.startswith("text_model.") for k in model.state_dict()):  # transformers 5 dropped the inner name
        named = {k.removeprefix("text_model."): v for k, v in named.items()}
    return strict(model, named)


def load(path=TINYSD):
    """(unet, vae, text model), float32, frozen."""
    sd = {k: v.float() for k, v in load_file(path).items()}
    cfg = unet_config(sd)
    unet = strict(UNet2DConditionModel(**cfg), convert_ldm_unet_checkpoint(dict(sd), {**cfg, "class_embed_type": None}))
    cfg = vae_config(sd)
    vae = strict(AutoencoderKL(**cfg), convert_ldm_vae_checkpoint(dict(sd), cfg))
    return unet, vae, text_model(sd)


def text_states(te, ids, skip=1):
    """The states that A1111 and sd-scripts hand to the UNet: skip 1 = last layer, N = N-th from the end, final norm."""
    inner = getattr(te, "text_model", te)
    hidden = inner(input_ids=ids.long(), output_hidden_states=True).hidden_states
    # the last entry is the plain output of the last layer in transformers' CLIP (no final norm)
    return inner.final_layer_norm(hidden[-skip])


def tokenizer():
    """transformers' CLIPTokenizer over the vocabulary that ships inside open_clip_torch."""
    import gzip
    import tempfile
    import open_clip
    from transformers import CLIPTokenizer
    path = os.path.join(os.path.dirname(open_clip.__file__), "bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.open(path).read().decode().split("\n")[1:49152 - 256 - 2 + 1]
    base = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars = [chr(b) for b in base] + [chr(256 + n) for n in range(256 - len(base))]
    vocab = chars + [c + "</w>" for c in chars] + ["".join(m.split()) for m in merges]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    folder = tempfile.mkdtemp()
    json.dump({t: i for i, t in enumerate(vocab)}, open(os.path.join(folder, "vocab.json"), "w"))
    open(os.path.join(folder, "merges.txt"), "w").write("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer(os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt"), model_max_length=77)


def cropped(self, x, output_size=None, *_):
    """A1111's rule for odd sizes: what is over after doubling goes.  diffusers would interpolate before the convolution."""
    y = self.conv(torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
    return y if output_size is None else y[..., :output_size[0], :output_size[1]]


def sigmas_table():
    betas = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


def versions(*names):
    from importlib.metadata import version
    return ", ".join(f"{n} {version(n)}" for n in ("torch", *names))


def save(name, tensors, **meta):
    path = os.path.join(HERE, name)
    tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    save_file(tensors, path, metadata={k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in meta.items()})
    print(f"{name}: {len(tensors)} tensors, {os.path.getsize(path)} bytes")


def save_json(name, value):
    path = os.path.join(HERE, name)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, separators=(",", ":"), ensure_ascii=True)
        f.write("\n")
    print(f"{name}: {os.path.getsize(path)} bytes")


def arg(n, default):
    return sys.argv[n] if len(sys.argv) > n else default
