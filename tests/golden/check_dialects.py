"""Do files that `sdlora convert` writes mean to diffusers and peft what the originals meant?  A developer's tool, run by hand.

    python check_dialects.py SDLORA_COMMAND [tinysd.safetensors]

Converts files of dialects/ and loads the results with diffusers' load_lora_weights, or with peft's own from_pretrained; the
metadata that diffusers reads since 0.34 is given to peft's LoraConfig.  Prints how far outputs are from dialects/expected.
"""
import json
import os
import subprocess
import sys
import tempfile

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from oracle import HERE, TINYSD, arg, load, load_file, text_states, tokenizer
from peft import LoraConfig, PeftModel, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open

IN = os.path.join(HERE, "dialects")
WANT = load_file(os.path.join(IN, "expected.safetensors"))
TOK = tokenizer()


def convert(source, target, dialect):
    run = subprocess.run([sys.argv[1], "convert", os.path.join(IN, source), target, "--dialect", dialect, "--save_precision", "float",
                          "--base_model", arg(2, TINYSD)], capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)


def by_pipeline(path):
    unet, vae, te = load(arg(2, TINYSD))
    pipe = StableDiffusionPipeline(vae, te, TOK, unet, DDIMScheduler(), None, None, requires_safety_checker=False)
    pipe.load_lora_weights(path, adapter_name="x")
    return pipe.unet, pipe.text_encoder


def by_metadata(path):
    unet, _, te = load(arg(2, TINYSD))
    with safe_open(path, "pt") as f:
        told = json.loads(f.metadata()["lora_adapter_metadata"])
    for prefix, model in (("unet.", unet), ("text_encoder.", te)):
        config = LoraConfig(**{k.removeprefix(prefix): v for k, v in told.items() if k.startswith(prefix)})
        inject_adapter_in_model(config, model, adapter_name="x")
        part = {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}
        got = set_peft_model_state_dict(model, part, adapter_name="x")
        assert not got.unexpected_keys, got.unexpected_keys[:3]
    return unet, te


def by_peft(path):
    unet, _, te = load(arg(2, TINYSD))
    return PeftModel.from_pretrained(unet, os.path.dirname(path)), te


CASES = [("diffusers.safetensors", "diffusers", "diffusers", by_pipeline),
         ("kohya.pt", "kohya", "diffusers-folded", by_pipeline),
         ("kohya.pt", "kohya", "diffusers-old", by_pipeline),
         ("diffusers_old.bin", "diffusers_old", "kohya", by_pipeline),  # diffusers has no rule for kohya's name of conv_in
         ("diffusers_processor.safetensors", "diffusers_processor", "onetrainer", by_pipeline),
         ("kohya.pt", "kohya", "diffusers", by_metadata),
         ("diffusers_metadata.safetensors", "diffusers_metadata", "diffusers", by_metadata),
         ("diffusers_metadata.safetensors", "diffusers_metadata", "diffusers-folded", by_pipeline),
         ("onetrainer.safetensors", "onetrainer", "diffusers", by_metadata),
         ("onetrainer.safetensors", "onetrainer", "diffusers-folded", by_pipeline),
         ("peft_bias/adapter_model.safetensors", "peft_bias", "diffusers-folded", by_pipeline),
         *((f"{c}/adapter_model.safetensors", c, "peft", by_peft) for c in
           ("peft_lora", "peft_bias", "peft_dora", "peft_loha", "peft_loha_flat", "peft_ia3"))]


def main():
    worst = 0.0
    for source, name, dialect, reader in CASES:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            path = os.path.join(folder, "adapter_model.safetensors")
            convert(source, path, dialect)
            unet, te = reader(path)
            ctx = text_states(te.eval(), WANT["ids"])
            eps = unet.eval()(WANT["latents"], WANT["t"].long(), ctx).sample
        far = (eps - WANT[f"{name}.eps"]).abs().max().item() / WANT[f"{name}.eps"].abs().max().item()
        worst = max(worst, far)
        print(f"{source:40} as {dialect:17} by {reader.__name__:12}: {far:.3g}")
    sys.exit(0 if worst < 1e-5 else 1)


if __name__ == "__main__":
    main()
