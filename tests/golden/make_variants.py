"""Freezes what make_img2img.py leaves out: second passes with another checkpoint, token merging, models that edit pictures.

    python make_variants.py WEBUI_CHECKOUT [tinysd.safetensors]

AUTOMATIC1111's own processing on tinysd, with tomesd for token merging; make_img2img.py says how.  `<group>.<case>.latents` are the last
ones, `.image` is what they are decoded to; the metadata `second`, `merge` and `edit` have each case's parameters.  The other checkpoint
has the same weights, taken for v, and a VAE whose decoder's last bias is 0.25 higher and whose encoder's first weights are 0.9 of what they
were.  The editing model is tinysd whose first convolution has four more channels, by make_img2img.py's formula; its init pictures
are `src.*` of img2img.safetensors.
"""
import ast
import copy
import sys
import types

import tomesd
import torch
from diffusers.models.upsampling import Upsample2D
from make_img2img import HIRES, Model, OUT, PROMPT, SCALE, finish, opts, put, settings, shared, sources, start, twice, webui, wider  # noqa: F401
from oracle import TINYSD, arg, cropped, load, save, tokenizer, versions

OUT.clear()
KIND = None  # of jobs, as AUTOMATIC1111 has it
SECOND = {
    "latent": dict(upscaler="Latent", scale=1.5, second="other"),
    "lanczos": dict(upscaler="Lanczos", scale=1.5, second="other", steps=5),
    "ddim": dict(upscaler="Latent (bicubic)", scale=1.5, second="other", sampler="DDIM", strength=0.5),
    "refined": dict(upscaler="Lanczos", scale=1.5, refiner="first pass"),
    "refined_second": dict(upscaler="Latent", scale=1.5, refiner="second pass"),
    "refined_same": dict(upscaler="Lanczos", scale=1.5, refiner="both passes", second="other"),
}
MERGE = {
    "half": dict(merge=0.48), "third": dict(merge=0.3), "most": dict(merge=0.9), "odd": dict(merge=0.5, width=72, height=88),
    "ddim": dict(merge=0.4, sampler="DDIM"), "second": dict(merge=0.2, merge_hr=0.6, upscaler="Latent", scale=1.5),
    "second_only": dict(merge_hr=0.5, upscaler="Lanczos", scale=1.5), "second_same": dict(merge=0.5, upscaler="Latent", scale=1.5),
    "picture": dict(merge=0.5, init="a64"),
}
EDIT = {
    "plain": dict(init="a64", image_cfg=1.5, strength=1.0), "strong": dict(init="a64", image_cfg=2.2, sampler="DPM++ 2M"),
    "off": dict(init="a64", image_cfg=1.0), "ddim": dict(init="wide", mode=1, image_cfg=1.5, sampler="DDIM"),
    "cfgpp": dict(init="a64", image_cfg=1.5, sampler="DDIM CFG++"), "mask": dict(init="a64", mask="m64", content=0, image_cfg=1.5),
    "second": dict(upscaler="Lanczos", scale=1.5, second="edit"),
}


class Editor(Model):
    """Latents of a picture by their distribution, whose mode the condition is."""
    cond_stage_key = "edit"

    def encode_first_stage(self, x):
        mean = self.vae.encode(x).latent_dist.mean
        return types.SimpleNamespace(mode=lambda: mean)

    def get_first_stage_encoding(self, z):
        return z.mode() * SCALE


def function_of(path, name, space):
    """A function of a module that can't be imported whole."""
    tree = ast.parse(open(path, encoding="utf-8").read())
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
    exec(compile(ast.Module(found, []), path, "exec"), space)
    return space[name]


def merging(checkout):
    """apply_token_merging() over our models' faces."""
    shim = types.SimpleNamespace(apply_patch=lambda m, **k: tomesd.apply_patch(m.unet, **k), remove_patch=lambda m: tomesd.remove_patch(m.unet))
    return function_of(f"{checkout}/modules/sd_models.py", "apply_token_merging", {"tomesd": shim})


def named(model, name):
    model.sd_checkpoint_info = types.SimpleNamespace(short_title=name, name=name)
    return model


def run(first, others, c):
    """A case from noise."""
    from modules import processing, sd_models
    global KIND
    KIND = KIND or processing.StableDiffusionProcessingTxt2Img
    shared.sd_model = first
    sd_models.get_closet_checkpoint_match = lambda name: others[name].sd_checkpoint_info

    def reload(sd_model=None, info=None):
        shared.sd_model = others[info.name] if info else first
    sd_models.reload_model_weights = reload

    class Job(KIND):
        def init(p, *args):
            super().init(*args)
            p.refiner_checkpoint_info = others["other"].sd_checkpoint_info if "refiner" in c else None
            p.refiner_switch_at = 0.5 if "refiner" in c else None

        def setup_conds(p):
            pass

        def get_conds(p):
            return p.hr_c, p.hr_uc
    processing.StableDiffusionProcessingTxt2Img = Job
    opts.hires_fix_refiner_pass = c.get("refiner", "second pass")
    sd_models.apply_token_merging(first, c.get("merge", 0))
    p, latents = twice(first, c)
    sd_models.apply_token_merging(shared.sd_model, 0)
    return p, latents


def from_noise(group, cases, first, others, picture=False):
    for name, c in cases.items():
        if "init" in c:
            continue
        p, latents = run(first, others, c)
        OUT[f"{group}.{name}.latents"] = latents
        if picture:
            put(f"{group}.{name}.image", finish(p, shared.sd_model, latents))
        print(group, name, tuple(latents.shape), f"{latents.std():.3f}", {k: v for k, v in p.extra_generation_params.items() if not callable(v)})


def from_picture(group, cases, model, ratio):
    given = sources()
    for name, c in cases.items():
        if "init" not in c:
            continue
        p, conds = start(model, c, given)
        ratio(model, c.get("merge", 0))
        OUT[f"{group}.{name}.latents"] = p.sample(*conds, [1], [0], 0, [PROMPT[0]])
        ratio(model, 0)
        print(group, name, f"{OUT[f'{group}.{name}.latents'].std():.3f}")


def other_vae(vae):
    vae = copy.deepcopy(vae)
    vae.decoder.conv_out.bias.data += 0.25
    vae.encoder.conv_in.weight.data *= 0.9
    return vae


def main():
    from modules import sd_models
    unet, vae, te = load(arg(2, TINYSD))
    embed = webui.embedder(tokenizer(), te)
    settings()
    Upsample2D.forward = cropped
    ratio = sd_models.apply_token_merging = merging(sys.argv[1])
    first, other = named(Model(unet, vae, embed), "first"), named(Model(unet, other_vae(vae), embed), "other")
    other.parameterization = "v"
    with torch.no_grad():
        from_noise("second", SECOND, first, {"other": other}, True)
        from_noise("merge", MERGE, first, {"other": other})
        from_picture("merge", MERGE, first, ratio)
        edit = named(Editor(wider(copy.deepcopy(unet), 4), vae, embed, "hybrid"), "edit")
        from_picture("edit", EDIT, edit, ratio)
        from_noise("edit", EDIT, first, {"edit": edit, "other": other})
    save("variants.safetensors", OUT, oracle="AUTOMATIC1111 v1.10.1 (82a973c), " + versions("tomesd", "pillow", "k-diffusion", "diffusers"),
         second=SECOND, merge=MERGE, edit=EDIT, prompt=list(PROMPT))


if __name__ == "__main__":
    main()
