"""Freezes what AUTOMATIC1111's text embedders make of batches of prompts: weights over a batch, chunks of unequal number, two encoders.

    python make_conds.py WEBUI_CHECKOUT

conds.safetensors: `<model>.<n>` states [texts,77 k,width], every fifth column from 0; `<model>.<n>.pooled`; metadata `cases`
[[model, [texts], emphasis, clip skip]...].  Models: tinysd, and the random weights of lib/models/synthetic.c (f32) for tiny-sd2,
tiny-sdxl, tiny-refiner.  `vec.clip_l`, `vec.clip_g`: an embedding "pair" of three vectors that SDXL's prompts use.
"""
import sys
import types

import numpy as np
import synthetic
import torch
from oracle import load, save, tokenizer, versions
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import webui

webui.REAL |= {"sd_hijack_open_clip"}
shared, opts = webui.setup(sys.argv[1])
opts.sdxl_clip_l_skip = False
TAGS = "1girl, solo, long hair, blue eyes, looking at viewer, smile, red dress, white background, standing, holding umbrella, rain, "
EDIT = ["a (red:1.4) apple, [tree]", "a (red:1.4) penguin, [tree]", "a (red:1.4) apple, [tree]"]
LONG = [TAGS * 3 + "(red apple:1.5)", "short (x:0.5)", "a BREAK (b:1.3) BREAK c"]
CASES = [("tinysd", EDIT, "Original", 1), ("tinysd", LONG, "Original", 1), ("tinysd", LONG[:2], "No norm", 2), ("tinysd", ["a <|endoftext|> b (c:1.2)"], "Original", 1),
         ("tiny-sd2", EDIT[:2], "Original", 1), ("tiny-sd2", LONG, "Original", 2), ("tiny-sd2", ["a (b:1.5)"], "Ignore", 1),
         ("tiny-sdxl", EDIT, "Original", 1), ("tiny-sdxl", LONG, "Original", 2), ("tiny-sdxl", [""], "Original", 1), ("tiny-sdxl", ["a (pair:1.2), b", "pair pair"], "No norm", 1),
         ("tiny-sdxl", ["(a:1.3)"], "None", 1), ("tiny-refiner", EDIT[:2], "Original", 1)]


def encoder(arch, part, act, projection):
    sd = {name: torch.from_numpy(x) for _, name, x in synthetic.tensors(arch, dtype=np.float32, only=part)}
    width, mlp, layers, pooled = (*synthetic.ARCHS[arch][part], 0)[:4]
    config = CLIPTextConfig(vocab_size=synthetic.VOCAB, hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=width // 64,
                            hidden_act=act, projection_dim=pooled or width, bos_token_id=49406, eos_token_id=49407, attn_implementation="eager")
    model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    lost = model.load_state_dict(sd, strict=False)
    assert not lost.unexpected_keys and not [k for k in lost.missing_keys if "position_ids" not in k], lost
    return model.eval().requires_grad_(False)


class Fixes(torch.nn.Module):
    """What sd_hijack's EmbeddingsWithFixes.forward does, for one key of vectors."""

    def __init__(self, wrapped, held, key):
        super().__init__()
        self.wrapped, self.held, self.key = wrapped, [held], key

    def forward(self, ids):
        x, fixes, self.held[0].fixes = self.wrapped(ids), self.held[0].fixes, None
        rows = []
        for at, t in zip(fixes or [[]] * len(x), x):
            for offset, e in at:
                vec = e.vec[self.key]
                n = min(t.shape[0] - offset - 1, vec.shape[0])
                t = torch.cat([t[:offset + 1], vec[:n], t[offset + 1 + n:]])
            rows.append(t)
        return torch.stack(rows)


class Hijack:
    def __init__(self):
        self.extra_generation_params, self.fixes = {}, None
        self.embedding_db = types.SimpleNamespace(find_embedding_at_position=self.find)
        self.ids = self.embedding = None

    def find(self, tokens, at):
        if self.embedding and tokens[at:at + len(self.ids)] == self.ids:
            return self.embedding, len(self.ids)
        return None, None


def open_clip(model, pooled, hijack, penultimate):
    """FrozenOpenCLIPEmbedder as LDM (SD 2) or sgm (SDXL) has it, over transformers' layers."""
    from modules import sd_hijack_open_clip

    def encode(tokens):
        out = model(input_ids=tokens, output_hidden_states=True)
        if not pooled:
            return model.text_model.final_layer_norm(out.hidden_states[-1])
        last = model.text_model.final_layer_norm(out.hidden_states[-1])
        at = tokens.argmax(dim=-1)
        return {"penultimate": out.hidden_states[-2], "pooled": model.text_projection(last[torch.arange(len(tokens)), at])}

    wrapped = types.SimpleNamespace(encode_with_transformer=encode, layer="penultimate", return_pooled=pooled)
    cls = sd_hijack_open_clip.FrozenOpenCLIPEmbedder2WithCustomWords if pooled else sd_hijack_open_clip.FrozenOpenCLIPEmbedderWithCustomWords
    return cls(wrapped, hijack)


def main():
    from modules import sd_hijack_clip
    tok, g, hijack, out = tokenizer(), torch.Generator().manual_seed(5), Hijack(), {}
    sd2, big, small = encoder("tiny-sd2", "te", "gelu", False), encoder("tiny-sdxl", "te2", "gelu", True), encoder("tiny-sdxl", "te", "quick_gelu", False)
    refiner = encoder("tiny-refiner", "te2", "gelu", True)
    pair = {"clip_l": torch.randn(3, 64, generator=g) * 0.1, "clip_g": torch.randn(3, 128, generator=g) * 0.1}
    out.update({f"vec.{k}": v for k, v in pair.items()})
    held = Hijack()
    held.ids, held.embedding = tok("pair", add_special_tokens=False).input_ids, types.SimpleNamespace(vec=pair, vectors=3, name="pair", shorthash="")
    for model, key in ((small, "clip_l"), (big, "clip_g")):
        e = model.text_model.embeddings
        e.token_embedding = Fixes(e.token_embedding, held, key)
    first = sd_hijack_clip.FrozenCLIPEmbedderForSDXLWithCustomWords(types.SimpleNamespace(tokenizer=tok, transformer=small, layer="hidden", layer_idx=-2), held)
    embedders = {"tinysd": [webui.embedder(tok, load()[2])], "tiny-sd2": [open_clip(sd2, False, hijack, False)], "tiny-sdxl": [first, open_clip(big, True, held, True)],
                 "tiny-refiner": [open_clip(refiner, True, hijack, True)]}
    with torch.no_grad():
        for n, (model, texts, emphasis, skip) in enumerate(CASES):
            opts.emphasis, opts.CLIP_stop_at_last_layers = emphasis, skip
            states = []
            for embed in embedders[model]:
                z = embed.forward(texts)
                if isinstance(z, tuple):
                    z, out[f"{model}.{n}.pooled"] = z
                states.append(z)
            out[f"{model}.{n}"] = torch.cat(states, dim=-1)[..., ::5]
    save("conds.safetensors", out, oracle="AUTOMATIC1111 v1.10.1 (82a973c), " + versions("transformers"), cases=CASES)
    print({k: list(v.shape) for k, v in out.items()})


if __name__ == "__main__":
    main()
