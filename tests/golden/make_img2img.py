"""Freezes img2img, inpainting and hires fix on tinysd by AUTOMATIC1111's own processing, and its operations on pictures alone.

    python make_img2img.py WEBUI_CHECKOUT [tinysd.safetensors]

Pictures are U8 [H,W,C] (masks [H,W]), latents [1,4,h,w].  `src.*` are inputs.  `op.*` are single operations: `op.fit.<mode>.<src>.<w>x<h>`
(resize_image; mode 0..2), `op.blur.<x>.<y>` (cv2), `op.boxes.<radius>` (Pillow, RGBA), `op.fill`, `op.cut`, `op.over`, `op.latmask.<round>`,
`op.latent.<h>x<w>.<name>` (torch.interpolate), `op.colour.*`, `op.upscale.<name>.<w>x<h>`; `boxes` in the metadata are crop regions.
`img.<case>.{init,mask,cond,latents,image}`: one run each, parameters in metadata `cases`; `cond` is what an inpainting model would be given.
`hr.<case>.{latents,image}`: two passes, parameters in `hires`.  `in.<case>.latents`: an inpainting model, parameters in `inpaint`: tinysd whose
first convolution has five more channels, number i of [.,5,3,3] being ((7919 i) mod 2003 - 1001) / 20020.  The VAE's mean stands for its draw.  `blendmodes` is the package of that name.
"""
import sys
import types
from contextlib import nullcontext

import numpy as np
import torch
from oracle import SCALE, TINYSD, arg, load, save, sigmas_table, tokenizer, versions
from PIL import Image

import webui

webui.REAL |= {"images", "masking", "upscaler"}
webui.MOCKED = tuple({*webui.MOCKED, "piexif", "pytz", "pillow_avif"} - {"skimage", "blendmodes"})
shared, opts = webui.setup(sys.argv[1])
webui.callbacks()
import modules.script_callbacks as sc  # noqa: E402
sc.ExtraNoiseParams = lambda noise, x, xi: types.SimpleNamespace(noise=noise, x=x, xi=xi)
PROMPT = ("red apple, fruit", "food")
LATENT = {"Latent": ("bilinear", False), "Latent (antialiased)": ("bilinear", True), "Latent (bicubic)": ("bicubic", False),
          "Latent (bicubic antialiased)": ("bicubic", True), "Latent (nearest)": ("nearest", False),
          "Latent (nearest-exact)": ("nearest-exact", False)}
OUT = {}


class Model:
    """The face of LDM's model that samplers and processing look at."""
    parameterization, cond_stage_key, is_sdxl, is_sdxl_inpaint = "eps", "txt", False, False

    def __init__(self, unet, vae, embed, key="crossattn"):
        self.unet, self.vae, self.embed = unet, vae, embed
        self.model = types.SimpleNamespace(conditioning_key=key)
        self.first_stage_model = vae
        self.alphas_cumprod = sigmas_table().float()
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def apply_model(self, x, t, cond):
        if self.unet.config.in_channels > 4:
            x = torch.cat([x, *cond["c_concat"]], 1)
        return self.unet(x, t, torch.cat(cond["c_crossattn"], 1)).sample

    def get_learned_conditioning(self, texts):
        return self.embed.forward(list(texts))

    def encode_first_stage(self, x):
        return self.vae.encode(x).latent_dist.mean

    def get_first_stage_encoding(self, z):
        return z * SCALE

    def decode_first_stage(self, z):
        return self.vae.decode(z / SCALE).sample


def settings():
    from modules import devices, processing, sd_models, upscaler
    processing.LatentDepth2ImageDiffusion = type("none", (), {})
    opts.img2img_background_color = "#ffffff"
    opts.inpainting_mask_weight = opts.initial_noise_multiplier = 1.0
    opts.overlay_inpaint = True
    opts.upscaler_for_img2img = None
    opts.sd_vae_encode_method = opts.sd_vae_decode_method = "Full"
    devices.dtype = devices.dtype_vae = devices.dtype_unet = torch.float32
    devices.cond_cast_float = lambda x: x
    devices.autocast = devices.without_autocast = lambda *a, **k: nullcontext()
    devices.test_for_nans = lambda *a: None
    sd_models.SkipWritingToConfig = nullcontext
    shared.models_path = "/nowhere"
    shared.latent_upscale_modes = {k: {"mode": m, "antialias": a} for k, (m, a) in LATENT.items()}
    shared.latent_upscale_default_mode = "Latent"
    shared.state.nextjob = lambda: None
    shared.state.job_count, shared.state.processing_has_refined_job_count = 1, False
    shared.sd_upscalers = [u().scalers[0] for u in (upscaler.UpscalerNone, upscaler.UpscalerLanczos, upscaler.UpscalerNearest)]


# --- pictures ---

def picture(w, h, seed, alpha=False):
    """Smooth colours, two shapes and some grain; with alpha a transparent corner."""
    y, x = np.mgrid[0:h, 0:w] / np.array([h, w]).reshape(2, 1, 1)
    p = np.stack([0.5 + 0.5 * np.sin(4 * x + seed), 0.9 * y, 0.5 + 0.4 * np.cos(5 * x * y + seed)], 2)
    p[(x - 0.6) ** 2 + (y - 0.4) ** 2 < 0.06] = (0.9, 0.2, 0.1)
    p[(np.abs(x - 0.25) < 0.12) & (np.abs(y - 0.7) < 0.15)] = (0.1, 0.3, 0.8)
    p = np.clip(p * 255 + np.random.default_rng(seed).normal(0, 6, p.shape), 0, 255).astype(np.uint8)
    if alpha:
        p = np.dstack([p, np.clip(600 * (x + y), 0, 255).astype(np.uint8)])
    return Image.fromarray(p)


def mask(w, h, box=(0.35, 0.3, 0.8, 0.65)):
    m = np.zeros((h, w), np.uint8)
    m[int(box[1] * h):int(box[3] * h), int(box[0] * w):int(box[2] * w)] = 255
    m[int(box[1] * h):int(box[3] * h), int(box[0] * w)] = 90  # a grey edge
    return Image.fromarray(m)


def put(key, image):
    OUT[key] = torch.from_numpy(np.array(image).copy())


def operations(checkout):
    import cv2
    from modules import images, masking, processing
    wide, tall, see = picture(61, 40, 1), picture(37, 70, 2), picture(48, 48, 3, alpha=True)
    for name, p in (("wide", wide), ("tall", tall), ("clear", see), ("mask", mask(61, 40))):
        put(f"src.{name}", p)
    for mode in (0, 1, 2):
        for name, p in (("wide", wide), ("tall", tall), ("mask", mask(61, 40))):
            for w, h in ((64, 64), (96, 40), (33, 70)):
                got = images.resize_image(mode, p, w, h)
                put(f"op.fit.{mode}.{name}.{w}x{h}", got if p.mode == "RGB" else got.convert("L"))
    put("op.flat", images.flatten(see, "#30a0f0"))
    put("op.binary.1", processing.create_binary_mask(see))
    put("op.binary.0", processing.create_binary_mask(see, round=False))
    put("op.grey", processing.create_binary_mask(wide))
    for sx, sy in ((4, 4), (1, 7), (30, 0), (0, 12)):
        m = np.array(mask(61, 40))
        for s, k in ((sx, (2 * int(2.5 * sx + 0.5) + 1, 1)), (sy, (1, 2 * int(2.5 * sy + 0.5) + 1))):
            m = cv2.GaussianBlur(m, k, s) if s else m
        put(f"op.blur.{sx}.{sy}", m)
    soft = Image.fromarray(cv2.GaussianBlur(np.array(mask(61, 40)), (21, 1), 4))
    put("src.soft", soft)
    from PIL import ImageFilter, ImageOps
    cut = Image.new("RGBa", wide.size)
    cut.paste(wide.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(soft))
    for radius in (2, 4, 16, 64, 256):
        OUT[f"op.boxes.{radius}"] = torch.frombuffer(bytearray(cut.filter(ImageFilter.GaussianBlur(radius)).tobytes()), dtype=torch.uint8).reshape(40, 61, 4)
    put("op.cut", cut.convert("RGBA"))
    put("op.fill", masking.fill(wide, soft))
    put("src.base", wide.resize((48, 48)))
    base = wide.resize((48, 48)).convert("RGBA")
    base.alpha_composite(see)
    put("op.over", base)
    for rounded in (0, 1):
        m = np.array(soft.convert("RGB").resize((8, 5)), dtype=np.float32)[:, :, 0] / 255
        OUT[f"op.latmask.{rounded}"] = torch.from_numpy(np.around(m) if rounded else m)
    x = torch.randn(1, 4, 8, 10, generator=torch.Generator().manual_seed(3))
    OUT["src.latents"] = x
    for h, w in ((12, 15), (13, 11), (16, 20), (5, 7)):
        for name, (how, smooth) in LATENT.items():
            OUT[f"op.latent.{h}x{w}.{name}"] = torch.nn.functional.interpolate(x, size=(h, w), mode=how, antialias=smooth)
    put("op.colour", processing.apply_color_correction(processing.setup_color_correction(tall), wide))
    for name in ("None", "Lanczos", "Nearest"):
        for w, h in ((122, 80), (90, 61), (61, 44)):
            put(f"op.upscale.{name}.{w}x{h}", images.resize_image(0, wide, w, h, upscaler_name=name))
    boxes = []
    for box in ((0.35, 0.3, 0.8, 0.65), (0, 0, 0.1, 1), (0.9, 0.9, 1, 1), (0.4, 0.1, 0.45, 0.9), (0, 0, 1, 1)):
        for pad in (0, 5, 32):
            for w, h in ((64, 64), (128, 64), (64, 192)):
                m = mask(150, 110, box)
                r = masking.expand_crop_region(masking.get_crop_region_v2(m, pad), w, h, 150, 110)
                boxes.append([*box, pad, w, h, *r])
    return boxes


# --- runs ---

def sampler_of(name, model):
    from modules import sd_samplers_kdiffusion as kd, sd_samplers_timesteps as ts
    data = {d.name: d for d in kd.samplers_data_k_diffusion + ts.samplers_data_timesteps}[name]
    made = data.constructor(model)
    made.config = data
    return made


def prepare(p, model, sampler, schedule, steps, seed):
    from modules import prompt_parser, rng, sd_samplers
    sd_samplers.create_sampler = sampler_of
    shared.sd_model = model
    p.scheduler, p.eta, p.s_noise, p.s_tmax = schedule, (0.0 if sampler == "DDIM" else None), 1.0, float("inf")
    p.s_min_uncond = p.s_churn = p.s_tmin = 0.0
    p.all_seeds, p.seeds, p.subseeds, p.all_prompts = [seed], [seed], [0], [PROMPT[0]]
    p.all_negative_prompts = p.all_hr_negative_prompts = [PROMPT[1]]
    p.all_hr_prompts = [PROMPT[0]]
    p.rng = rng.ImageRNG((4, p.height // 8, p.width // 8), [seed], subseeds=[0])
    cond = prompt_parser.get_multicond_learned_conditioning(model, prompt_parser.SdConditioning([PROMPT[0]]), steps)
    uncond = prompt_parser.get_learned_conditioning(model, prompt_parser.SdConditioning([PROMPT[1]]), steps)
    return cond, uncond


def finish(p, model, samples):
    """The pictures' part of process_images_inner."""
    from modules import processing
    x = torch.clamp((processing.decode_latent_batch(model, samples)[0].float() + 1.0) / 2.0, min=0.0, max=1.0)
    image = Image.fromarray((255. * np.moveaxis(x.numpy(), 0, 2)).astype(np.uint8))
    if getattr(p, "color_corrections", None):
        image = processing.apply_color_correction(p.color_corrections[0], image)
    overlays = getattr(p, "overlay_images", None)
    image, _ = processing.apply_overlay(image, p.paste_to, overlays[0] if overlays else None)
    return image


CASES = {
    "plain": dict(init="a64"),
    "weak": dict(init="a64", strength=0.3, sampler="DPM++ 2M"),
    "whole": dict(init="a64", strength=1.0, sampler="Euler"),
    "ddim": dict(init="a64", sampler="DDIM", strength=0.6),
    "fixed": dict(init="a64", strength=0.5, fix=True),
    "fixed_ddim": dict(init="a64", strength=0.5, fix=True, sampler="DDIM"),
    "noise": dict(init="a64", multiplier=1.05, extra=0.1),
    "noise_ddim": dict(init="a64", multiplier=0.95, extra=0.05, sampler="DDIM"),
    "crop": dict(init="wide", mode=1),
    "fill": dict(init="wide", mode=2),
    "latent": dict(init="a96", mode=3),
    "clear": dict(init="clear"),
    "colour": dict(init="a64", correct=True),
    "mask_original": dict(init="a64", mask="m64", content=1),
    "mask_fill": dict(init="a64", mask="m64", content=0),
    "mask_noise": dict(init="a64", mask="m64", content=2),
    "mask_nothing": dict(init="a64", mask="m64", content=3, sampler="Euler"),
    "mask_ddim": dict(init="a64", mask="m64", content=1, sampler="DDIM"),
    "mask_soft": dict(init="a64", mask="m64", content=1, round=False, blur=6),
    "mask_not": dict(init="a64", mask="m64", content=1, invert=True),
    "mask_crop": dict(init="wide", mask="mask", content=1, mode=1),
    "only": dict(init="a150", mask="m150", content=1, full=True, padding=8),
    "only_fill": dict(init="a150", mask="m150", content=0, full=True, padding=0, blur=0, sampler="DDIM"),
    "only_blank": dict(init="a64", mask="black", content=0, full=True),
    "only_colour": dict(init="a150", mask="m150", content=1, full=True, padding=32, correct=True),
}
HIRES = {
    **{f"latent{i}": dict(upscaler=n, scale=1.5) for i, n in enumerate(LATENT)},
    "lanczos": dict(upscaler="Lanczos", scale=2.0, steps=4, strength=0.4),
    "nearest": dict(upscaler="Nearest", x=96, y=0, sampler="Euler"),
    "none": dict(upscaler="None", x=96, y=128),
    "cut": dict(upscaler="Latent", x=128, y=96, steps=5, hr_sampler="DDIM"),
    "ddim": dict(upscaler="Latent (nearest)", scale=1.5, sampler="DDIM", strength=0.5),
}


def sources():
    return {"a64": picture(64, 64, 5), "a96": picture(96, 96, 6), "a150": picture(150, 110, 7), "m64": mask(64, 64),
            "m150": mask(150, 110, (0.55, 0.5, 0.8, 0.9)), "black": Image.new("L", (64, 64)), "wide": picture(61, 40, 1),
            "clear": picture(48, 48, 3, alpha=True), "mask": mask(61, 40)}


def start(model, c, given):
    """An img2img job after its init()."""
    from modules import processing
    shared.sd_model = model
    opts.img2img_fix_steps, opts.img2img_extra_noise = c.get("fix", False), c.get("extra", 0)
    opts.img2img_color_correction, opts.inpainting_mask_weight = c.get("correct", False), c.get("weight", 1.0)
    p = processing.StableDiffusionProcessingImg2Img(
        prompt=PROMPT[0], negative_prompt=PROMPT[1], sampler_name=c.get("sampler", "Euler a"), steps=8, cfg_scale=7.0, width=64, height=64,
        init_images=[given[c["init"]]], mask=given.get(c.get("mask")), denoising_strength=c.get("strength", 0.75),
        resize_mode=c.get("mode", 0), mask_blur=c.get("blur", 4), mask_round=c.get("round", True), inpainting_fill=c.get("content", 1),
        inpaint_full_res=c.get("full", False), inpaint_full_res_padding=c.get("padding", 0), inpainting_mask_invert=c.get("invert", 0),
        initial_noise_multiplier=c.get("multiplier", 1.0), image_cfg_scale=c.get("image_cfg"))
    p.mask_blur_x = p.mask_blur_y = c.get("blur", 4)
    conds = prepare(p, model, p.sampler_name, "Automatic", 8, 1)
    p.init([PROMPT[0]], [1], [0])
    return p, conds


def img2img(model, concat):
    given = sources()
    for name in ("a64", "a96", "a150", "m64", "m150", "black"):
        put(f"src.{name}", given[name])
    for name, c in CASES.items():
        if name != "latent":
            OUT[f"img.{name}.cond"] = start(concat, c, given)[0].image_conditioning
        p, conds = start(model, c, given)
        OUT[f"img.{name}.init"] = p.init_latent
        if p.nmask is not None:
            OUT[f"img.{name}.mask"] = p.nmask[0]
        samples = p.sample(*conds, [1], [0], 0, [PROMPT[0]])
        OUT[f"img.{name}.latents"] = samples
        if {"mask", "mode", "correct"} & c.keys():  # the others are plainly decoded
            put(f"img.{name}.image", finish(p, model, samples))
        print(name, f"{samples.std():.3f}", p.extra_generation_params)


def twice(model, c):
    """The job and its last latents of a picture from noise, with a second pass where there is an upscaler."""
    from modules import processing
    opts.img2img_fix_steps = opts.img2img_extra_noise = opts.img2img_color_correction = 0
    opts.inpainting_mask_weight = c.get("weight", 1.0)
    shared.sd_model = model
    p = processing.StableDiffusionProcessingTxt2Img(
        prompt=PROMPT[0], negative_prompt=PROMPT[1], sampler_name=c.get("sampler", "Euler a"), steps=8, cfg_scale=7.0, width=c.get("width", 64),
        height=c.get("height", 64), hr_checkpoint_name=c.get("second"),
        enable_hr="upscaler" in c, denoising_strength=c.get("strength", 0.7), hr_scale=c.get("scale", 2.0), hr_upscaler=c.get("upscaler"),
        hr_second_pass_steps=c.get("steps", 0), hr_resize_x=c.get("x", 0), hr_resize_y=c.get("y", 0), hr_sampler_name=c.get("hr_sampler"))
    p.hr_negative_prompt, p.token_merging_ratio, p.token_merging_ratio_hr = PROMPT[1], c.get("merge", 0), c.get("merge_hr", 0)
    cond, uncond = prepare(p, model, p.sampler_name, "Automatic", 8, 1)
    p.init([PROMPT[0]], [1], [0])
    p.hr_c, p.hr_uc = cond, uncond
    kept, decode = [], processing.decode_latent_batch
    processing.decode_latent_batch = lambda m, x, **k: kept.append(x) or decode(m, x, **k)
    got = p.sample(cond, uncond, [1], [0], 0, [PROMPT[0]])
    processing.decode_latent_batch = decode
    return p, kept[-1] if kept else got


def hires(model):
    for name, c in HIRES.items():
        p, latents = twice(model, c)
        OUT[f"hr.{name}.latents"] = latents
        if name in ("latent0", "lanczos"):
            put(f"hr.{name}.image", finish(p, model, latents))
        print(name, tuple(latents.shape))


def wider(unet, extra=5):
    """The UNet with as many more channels."""
    old = unet.conv_in
    n = old.out_channels * extra * 9
    more = ((7919 * torch.arange(n) % 2003 - 1001) / 20020).float().reshape(-1, extra, 3, 3)
    unet.conv_in = torch.nn.Conv2d(4 + extra, old.out_channels, 3, padding=1)
    unet.conv_in.weight.data, unet.conv_in.bias.data = torch.cat([old.weight, more], 1), old.bias.data
    unet.register_to_config(in_channels=4 + extra)
    return unet


# "Latent" with the whole weight fails in v1.10.1, which makes the condition at the first pass's size.
INPAINT = {
    "noise": {}, "plain": dict(init="a64"), "mask": dict(init="a64", mask="m64", content=1),
    "weight": dict(init="a64", mask="m64", content=0, weight=0.4, sampler="DDIM"), "soft": dict(init="a64", mask="m64", round=False),
    "latent_weight": dict(upscaler="Latent", scale=1.5, weight=0.5),
    "lanczos": dict(upscaler="Lanczos", scale=1.5), "lanczos_weight": dict(upscaler="Lanczos", scale=1.5, weight=0.5),
}


def inpaint(model):
    given = sources()
    for name, c in INPAINT.items():
        if "init" in c:
            p, conds = start(model, c, given)
            OUT[f"in.{name}.latents"] = p.sample(*conds, [1], [0], 0, [PROMPT[0]])
        else:
            OUT[f"in.{name}.latents"] = twice(model, c)[1]
        print(name, f"{OUT[f'in.{name}.latents'].std():.3f}")


def main():
    unet, vae, te = load(arg(2, TINYSD))
    embed = webui.embedder(tokenizer(), te)
    model, concat = Model(unet, vae, embed), Model(unet, vae, embed, "concat")
    shared.sd_model = model
    settings()
    with torch.no_grad():
        boxes = operations(sys.argv[1])
        img2img(model, concat)
        hires(model)
        inpaint(Model(wider(unet), vae, embed, "concat"))
    save("img2img.safetensors", OUT, oracle="AUTOMATIC1111 v1.10.1 (82a973c), " + versions(
        "pillow", "opencv-python-headless", "scikit-image", "blendmodes", "k-diffusion", "diffusers"), cases=CASES, hires=HIRES, inpaint=INPAINT, boxes=boxes,
        prompt=list(PROMPT))


if __name__ == "__main__":
    main()
