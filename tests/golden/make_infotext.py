"""Freezes AUTOMATIC1111's infotext: what it writes for given parameters and what it reads from given texts.

    python make_infotext.py WEBUI_CHECKOUT

infotext.json: `read` [text, {label: value}] by parse_generation_parameters (all values as A1111 leaves them, defaults included);
`fields` [text, [[label, value]...]] the same grammar before any default; `write` [parameters, text] by create_infotext;
`quote` [value, quoted]; `corpus` [text, {label: value}, [[label, JSON]...], [line...]]: texts of infotext_corpus.py as A1111 reads them without
what its expressions tear apart or take for prompts, which is raw JSON among the items and lines behind them: these stand in the last two columns;
`versions` [version, [[before what, is it]...]].
"""
import json
import random
import re
import sys
import types

from infotext_corpus import CORPUS

from oracle import save_json

import webui

shared, opts = webui.setup(sys.argv[1])
TAIL = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"
READ = ["a cat\nNegative prompt: dog\n" + TAIL, "a cat\n" + TAIL, "a cat", "", TAIL, "Negative prompt: dog\n" + TAIL, "a\nb\nNegative prompt: c\nd\n" + TAIL,
        "a cat\r\nNegative prompt: dog\r\n" + TAIL, "a, Negative prompt: b\nNegative prompt: c\n" + TAIL, "a cat\nNegative prompt:dog\n" + TAIL,
        "colours: red: 1, green: 2, blue: 3", "a\nk: 1, l: 2", "a\nk: 1, l: 2, m: 3", "x\n" + TAIL + ', Model: "a, b: c", Clip skip: 2',
        'x\n' + TAIL + ', Lora hashes: "style: 0123456789ab, mochi: ba9876543210", TI hashes: "EasyNegative: c74b4e810b03"',
        'x <lora:style:0.6>\n' + TAIL + ', Hires prompt: "a\\nb", Hires negative prompt: "say \\"hi\\"", Hires upscale: 2, Hires steps: 10, Hires upscaler: Latent',
        "x\n" + TAIL + ", Denoising strength: 0.5, Mask blur: 4, ENSD: 31337, Version: v1.10.1", "[a:b:0.5]\n" + TAIL + ", Version: v1.5.2",
        "x\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, Hires resize: 1024x1536, RNG: CPU, VAE: kl-f8.pt",
        "x\nSteps: 20, Sampler: DDIM, CFG scale: 7.5, Seed: 1, Size: 640x448, First pass size: 0x0", "x\nSteps: 20, Sampler: DDIM, Seed: 1, Size: 1304x1024, First pass size: 0x0", "x\nSteps: 20,Sampler: Euler,CFG scale:7 , Seed: 1", "  x  \n\n  y\n" + TAIL + "\n\n",
        "x\nSteps: 20, Sampler: Euler, Empty: , Seed: 1, A-b/c d: 5, Quote: \"open, Last: 1", "x\nNegative prompt: a\nNegative prompt: b\n" + TAIL,
        "猫, é\nNegative prompt: 犬\n" + TAIL + ", Hypernet: anime, Hypernet strength: 0.7", "x\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: -1, Size: 512x512x3, Unknown: 1:2"]
BASE = dict(prompt="a cat", negative_prompt="dog", steps=20, sampler_name="Euler a", scheduler="Automatic", cfg_scale=7.0, seed=1, width=512, height=512)
WRITE = [{}, {"negative_prompt": ""}, {"prompt": "a\nb (c:1.2) <lora:x:0.5>"}, {"sampler_name": "DPM++ 2M", "scheduler": "Karras"}, {"cfg_scale": 7.5, "clip_skip": 2},
         {"subseed": 9, "subseed_strength": 0.25}, {"sd_vae_name": "kl-f8, x.pt", "sd_vae_hash": "abcdef0123"}, {"sd_model_name": "my: model"},
         {"extra": {"Lora hashes": "style: 0123456789ab, b: 0", "Denoising strength": 0.5}}, {"extra": {"Hires prompt": "a\nb", "Hires upscale": 2, "Hires upscaler": "Latent"}},
         {"extra": {"Eta": 0.0, "Pad conds": True, "TI hashes": 'say "hi", é'}}, {"seed_resize_from_w": 448, "seed_resize_from_h": 640}, {"tiling": True}, {"cfg_scale": 7}]


def write(change):
    from modules import processing
    v = {**BASE, **change}
    opts.CLIP_stop_at_last_layers = v.get("clip_skip", 1)
    p = types.SimpleNamespace(
        batch_size=1, steps=v["steps"], sampler_name=v["sampler_name"], scheduler=v["scheduler"], cfg_scale=v["cfg_scale"], width=v["width"], height=v["height"],
        restore_faces=False, tiling=v.get("tiling", False), sd_model_hash="45dee52b01", sd_model_name=v.get("sd_model_name", "tinysd"), sd_vae_hash=v.get("sd_vae_hash"),
        sd_vae_name=v.get("sd_vae_name"), subseed_strength=v.get("subseed_strength", 0), seed_resize_from_w=v.get("seed_resize_from_w", 0),
        seed_resize_from_h=v.get("seed_resize_from_h", 0), extra_generation_params=v.get("extra", {}), is_using_inpainting_conditioning=False, user=None,
        get_token_merging_ratio=lambda for_hr=False: 0, all_negative_prompts=[v["negative_prompt"]])
    processing.program_version = lambda: "v1.10.1"
    text = processing.create_infotext(p, [v["prompt"]], [v["seed"]], [v.get("subseed", 0)])
    return [v, text]


def tail_of(iu, text):
    """The lines behind the items, when the last line has none."""
    lines = text.strip().split("\n")
    at = next((i for i in range(len(lines) - 1, -1, -1) if lines[i].startswith("Steps: ") and len(iu.re_param.findall(lines[i])) >= 3), None)
    if at is None or len(iu.re_param.findall(lines[-1])) >= 3:
        return text, []
    return "\n".join(lines[:at + 1]), lines[at + 1:]


def cut_json(text):
    """Items whose value is raw JSON, out of the last line."""
    head, _, line = text.strip().rpartition("\n")
    found = []
    for m in reversed(list(re.finditer(r"(?:^|, )(\w[\w \-/]+): (?=[{\[])", line))):
        try:
            _, end = json.JSONDecoder().raw_decode(line, m.end())
        except ValueError:
            continue
        if line[end:end + 1] in ("", ","):
            found.insert(0, [m.group(1), line[m.end():end]])
            line = line[:m.start()] + line[end:]
    return (head + "\n" + line if "\n" in text.strip() else line), found


def corpus_row(iu, text):
    cut, tail = tail_of(iu, text)
    cut, found = cut_json(cut)
    return [text, {k: str(v) for k, v in iu.parse_generation_parameters(cut, []).items()}, found, tail]


def version_row(text):
    from modules import infotext_versions as iv
    v = iv.parse_version(text)
    return [text, None if v is None else [[name, v < limit] for name, limit in (("1.6.0", iv.v160), ("1.7.0-225", iv.v170_tsnr), ("1.8.0", iv.v180))]]


VERSIONS = ["v1.10.1", "v1.6.0", "1.6.0", "v1.5.99", "1.6", "1", "2", "v1.6.0-RC", "1.6.0rc1", "1.6.0.dev3", "1.6.0a1.post2", "1.6.0-1", "v1.7.0-225", "v1.7.0-224-gabc", "v1.7.0-225-gabc",
            "v1.7.0-226-gabc", "1.7.0.post225.dev1", "1.7.0", "1.8.0-RC", "1.8.0rc", "v1.8.0-RC-5-g1", "f2.0.1v1.10.1-previous-659-gc055f2d4", "baf42fb", "1234567", "ComfyUI", "", "v", "1!1.0", "1.8.0+local.1",
            "1.8.0+", "1.8.0-", "1.7.99-r3", "1.7.0_rev300", "1.7.0post9", "1.5.0.0.0.1", "01.06.00", "libsdlora-0.1.0", "v1.10.1-amd-5-gdeadbee", "1.7.0-alpha-1-x", "1.7.0.alpha.1", "V1.6.0-C-2"]


def main():
    from modules import infotext_utils as iu
    rnd = random.Random(1)
    fields = []
    for t in READ:
        last = t.strip().split("\n")[-1]
        fields.append([t, [[k, iu.unquote(v)] for k, v in iu.re_param.findall(last)] if len(iu.re_param.findall(last)) >= 3 else []])
    values = ["a", "a, b", "a: b", "a\nb", 'say "hi"', 'say "hi", you', "é, 猫", "\\", "a\\, b", "", "5", "tab\t, x"] + ["".join(rnd.choice('ab,:" \\\n') for _ in range(8)) for _ in range(12)]
    read = [[t, iu.parse_generation_parameters(t, [])] for t in READ]
    save_json("infotext.json", {"oracle": "AUTOMATIC1111 v1.10.1 (82a973c)", "read": read, "fields": fields, "write": [write(c) for c in WRITE],
                                "quote": [[v, iu.quote(v)] for v in values], "corpus": [corpus_row(iu, t) for t in CORPUS],
                                "versions": [version_row(v) for v in VERSIONS]})


if __name__ == "__main__":
    main()
