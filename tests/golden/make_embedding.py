"""Freezes textual inversion on tinysd: files of every kind, prompts through AUTOMATIC1111's chunks, and kohya's training steps.

    python make_embedding.py WEBUI_CHECKOUT [tinysd.safetensors]

embedding/: files of two vectors [2,64] called "glow": what AUTOMATIC1111's Embedding.save writes (torch.save, zip and legacy), a
torch 1.11 ParameterDict, diffusers' learned_embeds.bin, safetensors (emb_params, and a diffusers token), cards (PNG text; pixels as
PNG and WebP) made by modules/textual_inversion/image_embedding.py, and an SDXL pair that SD 1 has to refuse.
embedding.safetensors:
- `vec.<name>` the embeddings of the prompts; `ids.<n>` [k,77] with -1 where a row of an embedding stands (its number counts in
  `row.<n>`), `weights.<n>`, `states.<n>` [1,77 k,64]: EmbeddingDatabase's own look-up, sd_hijack_clip's chunks and
  EmbeddingsWithFixes, on transformers' text encoder; metadata `prompts`, `names`.
- `ti.*`: two samples a step for 20 steps: the embedding table is grown and trained whole by AdamW, and all rows but the new ones are put
  back after each step, as train_textual_inversion.py does; `ti.loss`, `ti.grad` and `ti.rows` by step.
"""
import os
import sys
import types
from importlib import import_module

import numpy as np
import torch
from diffusers import DDPMScheduler
from oracle import HERE, TINYSD, arg, load, save, save_file, text_states, tokenizer, versions
from PIL import Image, PngImagePlugin

import webui

webui.REAL |= {"textual_inversion.textual_inversion", "textual_inversion.image_embedding"}
shared, opts = webui.setup(sys.argv[1])
NAMES = {"glow": 2, "ti-one": 1, "Bad_Hands": 6, "big": 70, "red glow": 3, "v75": 75}
TAGS = "1girl, solo, long hair, blue eyes, looking at viewer, smile, red dress, white background, standing, holding umbrella, rain, "
PROMPTS = ["glow", "a glow, (ti-one:1.3) and BAD_hands", "red glow, glow, glowing, glow2", "(red glow:0.7), [glow], ti-one, ti -one", "a " * 74 + "glow",
           "a " * 73 + "glow b", "big, big", "a " * 6 + "big", "a, " * 37 + "bad_hands", "v75", "a v75 b", TAGS * 3 + "(red glow:1.4)", "glow BREAK glow", "unknown word",
           "bad_hands " * 13, "(a glow BREAK b:1.2)"]


class Fixes(torch.nn.Module):
    """What sd_hijack's EmbeddingsWithFixes.forward does, for a single kind of vectors."""

    def __init__(self, wrapped, held):
        super().__init__()
        self.wrapped, self.held = wrapped, [held]

    def forward(self, ids):
        x, fixes, self.held[0].fixes = self.wrapped(ids), self.held[0].fixes, None
        rows = []
        for at, t in zip(fixes or [[]] * len(x), x):
            for offset, e in at:
                n = min(t.shape[0] - offset - 1, e.vec.shape[0])
                t = torch.cat([t[:offset + 1], e.vec[:n], t[offset + 1 + n:]])
            rows.append(t)
        return torch.stack(rows)


def database(ti, embed, g):
    db = ti.EmbeddingDatabase()
    model = types.SimpleNamespace(cond_stage_model=embed)
    for name, n in NAMES.items():
        e = ti.Embedding(torch.randn(n, 64, generator=g) * 0.05, name)
        e.vectors, e.shape = n, 64
        db.register_embedding(e, model)
    return db


def prompts(ti, te, g, out):
    embed = webui.embedder(tokenizer(), te)
    held = embed.hijack
    db = held.embedding_db = database(ti, embed, g)
    inner = getattr(te, "text_model", te)
    inner.embeddings.token_embedding = Fixes(inner.embeddings.token_embedding, held)
    for name, e in db.word_embeddings.items():
        out[f"vec.{name}"] = e.vec
    with torch.no_grad():
        for n, text in enumerate(PROMPTS):
            chunks, _ = embed.tokenize_line(text)
            ids, row = torch.tensor([c.tokens for c in chunks], dtype=torch.int32), torch.zeros(len(chunks), 77, dtype=torch.int32)
            for k, c in enumerate(chunks):
                for offset, e in c.fixes:
                    v = e.vec.shape[0]
                    ids[k, offset + 1:offset + 1 + v] = -1 - list(NAMES).index(e.name)
                    row[k, offset + 1:offset + 1 + v] = torch.arange(v)
            out.update({f"ids.{n}": ids, f"row.{n}": row, f"weights.{n}": torch.tensor([c.multipliers for c in chunks]),
                        f"states.{n}": embed.forward([text])})
    inner.embeddings.token_embedding = inner.embeddings.token_embedding.wrapped


def train(unet, te, g, out):
    tok, inner = tokenizer(), getattr(te, "text_model", te)
    old = inner.embeddings.token_embedding.weight
    rows = torch.randn(3, 64, generator=g) * 0.02
    table = torch.nn.Embedding(old.shape[0] + 3, 64)
    table.weight.data = torch.cat([old, rows])
    inner.embeddings.token_embedding = table.requires_grad_(True)
    frozen = table.weight.data[:-3].clone()
    base = tok("a photo of the cat, red", padding="max_length", max_length=77).input_ids
    bare = tok("penguin", padding="max_length", max_length=77).input_ids
    new = [old.shape[0], old.shape[0] + 1, old.shape[0] + 2]
    lines = [base[:5] + new + base[5:74], base[:2] + new[:1] + base[2:76], bare]
    sched = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False)
    opt = torch.optim.AdamW(table.parameters(), lr=5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)
    log = {k: [] for k in ("latents", "noise", "t", "ids", "loss", "grad", "rows")}
    for _ in range(20):
        b = dict(latents=torch.randn(2, 4, 8, 8, generator=g), noise=torch.randn(2, 4, 8, 8, generator=g),
                 t=torch.randint(0, 1000, (2,), generator=g, dtype=torch.int32),
                 ids=torch.tensor(lines, dtype=torch.int32)[torch.randint(0, 3, (2,), generator=g)])
        b["ids"][0] = torch.tensor(lines[0])
        t = b["t"].long()
        eps = unet(sched.add_noise(b["latents"], b["noise"], t), t, text_states(te, b["ids"])).sample
        loss = torch.nn.functional.mse_loss(eps, b["noise"])
        opt.zero_grad()
        loss.backward()
        b["grad"] = table.weight.grad[-3:].clone()
        opt.step()
        with torch.no_grad():
            table.weight[:-3] = frozen
        b.update(loss=loss.reshape(1), rows=table.weight[-3:].detach().clone())
        for k, v in b.items():
            log[k].append(v)
    out["ti.init"] = rows
    out.update({f"ti.{k}": torch.stack(v) for k, v in log.items()})
    inner.embeddings.token_embedding = torch.nn.Embedding.from_pretrained(old)


class Old(torch.nn.ParameterDict):
    """Pickles as torch 1.11's did: the values in the module's state."""

    def __reduce__(self):
        return torch.nn.ParameterDict, (), {"training": True, "_parameters": dict(self.items())}


def files(ti, g):
    card = import_module("modules.textual_inversion.image_embedding")
    folder = os.path.join(HERE, "embedding")
    os.makedirs(folder, exist_ok=True)
    at = lambda name: os.path.join(folder, name)
    vec = (torch.randn(2, 64, generator=g) * 0.05).half().float()
    e = ti.Embedding(vec, "glow", step=500)
    e.sd_checkpoint, e.sd_checkpoint_name = "abcdef01", "tinysd"
    opts.save_optimizer_state = False
    e.save(at("a1111.pt"))
    data = dict(string_to_token={"*": 265}, string_to_param={"*": vec}, name="glow", step=500, sd_checkpoint="abcdef01", sd_checkpoint_name="tinysd")
    torch.save(data, at("legacy.pt"), _use_new_zipfile_serialization=False)
    torch.save({**data, "string_to_param": Old({"*": torch.nn.Parameter(vec)})}, at("parameterdict.pt"))
    torch.save({"<glow>": vec[0]}, at("learned_embeds.bin"))
    torch.save({"emb_params": vec}, at("kohya.pt"))
    save_file({"emb_params": vec.half()}, at("emb_params.safetensors"), metadata={"modelspec.title": "glow"})
    save_file({"<glow>": vec}, at("token.safetensors"))
    save_file({"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(2, 1280)}, at("sdxl.safetensors"))
    image = Image.fromarray((np.indices((96, 64)).sum(0) % 200 + 20).astype(np.uint8)).convert("RGB")
    info = PngImagePlugin.PngInfo()
    info.add_text("sd-ti-embedding", card.embedding_to_b64(data))
    image.save(at("text.png"), "PNG", pnginfo=info)
    hidden = card.insert_image_data_embed(image, data)
    hidden.save(at("pixels.png"))
    hidden.save(at("pixels.webp"), lossless=True)
    image.save(at("picture.png"))
    assert torch.equal(card.extract_image_data_embed(Image.open(at("pixels.webp")))["string_to_param"]["*"].float(), vec)
    for name in os.listdir(folder):
        os.chmod(at(name), 0o644)
    return vec


def main():
    ti = import_module("modules.textual_inversion.textual_inversion")
    g, out = torch.Generator().manual_seed(99), {}
    unet, _, te = load(arg(2, TINYSD))
    out["vec"] = files(ti, g)
    prompts(ti, te, g, out)
    train(unet, te, g, out)
    save("embedding.safetensors", out, oracle="AUTOMATIC1111 v1.10.1 (82a973c), " + versions("transformers", "diffusers"), prompts=PROMPTS, names=list(NAMES))
    print("loss", [round(v, 3) for v in out["ti.loss"].flatten().tolist()])


if __name__ == "__main__":
    main()
