"""Freezes what surrounds a sampler in txt2img on tinysd: guidance, random numbers, schedules' settings, the refiner's switch.

    python make_guidance.py WEBUI_CHECKOUT [tinysd.safetensors]

The metadata `cases` names every case's options as `sdlora generate` spells them (over `common`); `<case>.latents` is what A1111's
own sampler returns for them, [1,4,8,8].  `v` in a case means that the model's output is taken for v, `refiner` that the same
weights, taken for v, are the refiner.  CFG rescale is not A1111's: there diffusers' rescale_noise_cfg() works on the model's
prediction.
"""
import ast
import json
import re
import sys
import types

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from oracle import TINYSD, arg, load, save, sigmas_table, tokenizer, versions

import webui

shared, opts = webui.setup(sys.argv[1])
webui.callbacks()

LONG = "a very detailed photo of a red apple, " * 12  # two chunks
COMMON = {"prompt": "red apple, fruit", "negative": "food", "sampler": "Euler a", "scheduler": "Automatic", "steps": 8, "cfg": 7.0, "seed": 1,
          "width": 64, "height": 64, "count": 1}
CASES = {
    "plain": {},
    "and": {"prompt": "red apple AND penguin, bird :0.6"},
    "and-negative": {"prompt": "red apple :1.1 AND penguin :-0.4 AND bird", "sampler": "DDIM"},
    "and-long": {"prompt": "penguin AND " + LONG, "negative": "food"},
    "separate": {"prompt": LONG},
    "separate-negative": {"negative": LONG},
    "pad": {"prompt": LONG, "pad_cond_uncond": True},
    "pad-negative": {"negative": LONG, "pad_cond_uncond": True},
    "pad-and": {"prompt": "bird AND penguin", "negative": LONG, "pad_cond_uncond": True},
    "v0": {"prompt": LONG, "pad_cond_uncond_v0": True, "sampler": "DDIM"},
    "v0-negative": {"negative": LONG, "pad_cond_uncond_v0": True},
    "ngms": {"s_min_uncond": 3.0, "sampler": "Euler"},
    "ngms-all": {"s_min_uncond": 2.0, "s_min_uncond_all": True, "prompt": "red apple AND bird :0.5"},
    "ngms-ddim": {"s_min_uncond": 15.0, "sampler": "DDIM", "steps": 10},
    "early": {"skip_early_cond": 0.3},
    "rescale": {"cfg_rescale": 0.7},
    "rescale-and": {"cfg_rescale": 0.5, "prompt": "red apple AND bird :0.5", "cfg": 9.5},
    "rescale-v": {"cfg_rescale": 0.7, "v": True},
    "cfg1": {"cfg": 1.0},
    "cfg0": {"cfg": 0.0},
    "edit": {"prompt": "[red apple:penguin:0.5], fruit", "negative": "[food:bird:3]"},
    "alternate": {"prompt": "[red apple|penguin], fruit", "sampler": "DPM++ 2M"},
    "heun": {"prompt": "[red apple:penguin:6]", "sampler": "Heun"},
    "old-editing": {"prompt": "[red apple:penguin:1.5]", "use_old_scheduling": True},
    "subseed": {"subseed": 77, "subseed_strength": 0.4},
    "resize": {"seed_resize_from_w": 96, "seed_resize_from_h": 64},
    "ensd": {"eta_noise_seed_delta": 31337},
    "nv": {"randn_source": "NV"},
    "sde": {"sampler": "DPM++ 2M SDE"},
    "eta": {"eta": 0.5},
    "eta-ddim": {"eta": 0.7, "sampler": "DDIM"},
    "churn": {"sampler": "Euler", "s_churn": 5.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.01},
    "sigmas": {"sampler": "DPM++ 2M", "sigma_min": 0.1, "sigma_max": 12.0, "rho": 5.0},
    "discard": {"sampler": "DPM++ 2M", "always_discard_next_to_last_sigma": True},
    "sgm": {"sgm_noise_multiplier": True},
    "quantize": {"enable_quantization": True, "scheduler": "Karras"},
    "old-karras": {"use_old_karras_scheduler_sigmas": True, "scheduler": "Karras"},
    "downcast": {"use_downcasted_alpha_bar": True},
    "ztsnr": {"sd_noise_schedule": "Zero Terminal SNR", "v": True, "scheduler": "Simple"},
    "v": {"v": True},
    "v-ddim": {"v": True, "sampler": "DDIM"},
    "v-cfgpp": {"v": True, "sampler": "DDIM CFG++"},
    "cfgpp": {"sampler": "DDIM CFG++"},
    "refiner": {"refiner": True, "refiner_switch_at": 0.5},
    "refiner-ddim": {"refiner": True, "refiner_switch_at": 0.6, "sampler": "DDIM"},
    "refiner-steps": {"refiner": True, "refiner_switch_at": 0.5, "refiner_switch_by_sample_steps": True, "sampler": "Heun"},
    "clip-skip": {"clip_skip": 2},
    "comment": {"prompt": "# a line\nred apple # and more\n, fruit"},
}
OF_P = {"steps", "s_min_uncond", "eta", "seed", "subseed", "subseed_strength", "seed_resize_from_w", "seed_resize_from_h", "refiner_switch_at"}


class Model:
    """The face of LDM's model that the samplers look at."""
    cond_stage_key, is_sdxl = "txt", False
    model = types.SimpleNamespace(conditioning_key="crossattn")

    def __init__(self, unet, embed, v, name):
        self.unet, self.embed, self.sd_checkpoint_info = unet, embed, name
        self.parameterization = "v" if v else "eps"
        self.device = torch.device("cpu")
        self.cond_stage_model_empty_prompt = None

    def apply_model(self, x, t, cond):
        return self.unet(x, t, torch.cat(cond["c_crossattn"], 1)).sample

    def get_learned_conditioning(self, texts):
        return self.embed.forward(list(texts))


def function_of(path, name):
    """A function of a module that can't be imported whole."""
    tree = ast.parse(open(path, encoding="utf-8").read())
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
    space = {"torch": torch, "re": re}
    exec(compile(ast.Module(found, []), path, "exec"), space)
    return space[name]


def schedule(case):
    ac = sigmas_table().float()
    if case.get("use_downcasted_alpha_bar"):
        ac = ac.half().float()
    if case.get("sd_noise_schedule") == "Zero Terminal SNR":
        ac = function_of(f"{sys.argv[1]}/modules/sd_models.py", "rescale_zero_terminal_snr_abar")(ac)
    return ac


class Processing:
    is_hr_pass, enable_hr, scripts, all_subseeds, iteration, batch_size = False, False, None, [0], 0, 1
    sampler_noise_scheduler_override = refiner_checkpoint_info = refiner_switch_at = eta = None
    s_min_uncond = s_churn = s_tmin = 0.0
    s_tmax, s_noise = float("inf"), 1.0
    subseed, subseed_strength, seed_resize_from_w, seed_resize_from_h = 0, 0.0, 0, 0

    def __init__(self, case):
        self.extra_generation_params = {}
        self.prompt, self.negative, self.cfg_scale = case["prompt"], case["negative"], case["cfg"]
        self.scheduler = case["scheduler"]
        for k in OF_P & set(case):
            setattr(self, k, case[k])
        self.all_seeds = [self.seed]

    def setup_conds(self):
        from modules import prompt_parser as pp
        cond = pp.SdConditioning([self.prompt])
        uncond = pp.SdConditioning([self.negative], is_negative_prompt=True)
        old = bool(opts.use_old_scheduling)
        self.c = pp.get_multicond_learned_conditioning(shared.sd_model, cond, self.calls, None, old)
        self.uc = pp.get_learned_conditioning(shared.sd_model, uncond, self.calls, None, old)

    def get_conds(self):
        return self.c, self.uc


def with_rescale(phi, den):
    """diffusers' formula, on eps or v as the wrapped model predicts them."""
    plain = type(den).combine_denoised

    def combine(x_out, conds_list, uncond, cond_scale):
        d_cfg = plain(den, x_out, conds_list, uncond, cond_scale)
        d_pos = plain(den, x_out, conds_list, uncond, 1.0)
        x, sigma = combine.x, combine.sigma
        if den.inner_model.inner_model.parameterization == "v":
            to = lambda d: (x / (sigma ** 2 + 1) - d) * (sigma ** 2 + 1) ** 0.5 / sigma
            back = lambda v: x / (sigma ** 2 + 1) - v * sigma / (sigma ** 2 + 1) ** 0.5
        else:
            to = lambda d: (x - d) / sigma
            back = lambda e: x - e * sigma
        return back(rescale_noise_cfg(to(d_cfg), to(d_pos), guidance_rescale=phi))

    def forward(x, sigma, *a, **kw):
        combine.x, combine.sigma = x, sigma
        return type(den).forward(den, x, sigma, *a, **kw)

    den.combine_denoised, den.forward = combine, forward


def run(name, unet, embed):
    from modules import rng, sd_models
    from modules import sd_samplers_kdiffusion as kd, sd_samplers_timesteps as ts
    case = {**COMMON, **CASES[name]}
    for k in list(vars(opts)):
        delattr(opts, k)
    for k, v in case.items():
        if k not in OF_P | {"prompt", "negative", "cfg", "sampler", "scheduler"}:
            setattr(opts, k, v)
    opts.CLIP_stop_at_last_layers = case.get("clip_skip", 1)
    model, other = Model(unet, embed, case.get("v"), "base"), Model(unet, embed, True, "refiner")
    for m in (model, other):
        m.alphas_cumprod = schedule(case)
        m.cond_stage_model_empty_prompt = embed.forward([""])
    shared.sd_model = model
    data = {d.name: d for d in kd.samplers_data_k_diffusion + ts.samplers_data_timesteps}[case["sampler"]]
    smp = data.constructor(model)
    smp.config = data
    if name == "comment":
        case["prompt"] = function_of(f"{sys.argv[1]}/modules/processing_scripts/comments.py", "strip_comments")(case["prompt"])
    p = Processing(case)
    if case.get("refiner"):
        p.refiner_checkpoint_info = types.SimpleNamespace(short_title="refiner")

        def swap(info=None):
            shared.sd_model = other
            p.refiner_checkpoint_info = other.sd_checkpoint_info
        sd_models.reload_model_weights = swap
    if case["sampler"].startswith("DDIM") and p.eta is None:  # A1111's eta for the timestep samplers is another option
        p.eta = 0.0
    p.calls = data.total_steps(p.steps)
    p.rng = rng.ImageRNG((4, 8, 8), [p.seed], subseeds=[p.subseed], subseed_strength=p.subseed_strength,
                         seed_resize_from_h=p.seed_resize_from_h, seed_resize_from_w=p.seed_resize_from_w)
    p.setup_conds()
    if "cfg_rescale" in case:
        with_rescale(case["cfg_rescale"], smp.model_wrap_cfg)
    x = p.rng.next()
    return smp.sample(p, x, p.c, p.uc, image_conditioning=x.new_zeros(1, 5, 1, 1))


def main():
    unet, _, te = load(arg(2, TINYSD))
    embed = webui.embedder(tokenizer(), te)
    out = {}
    with torch.no_grad():
        for name in CASES:
            out[f"{name}.latents"] = run(name, unet, embed)
            print(f"{name}: {out[f'{name}.latents'].std():.3f}")
    seen = {}
    for name, x in out.items():
        seen.setdefault(x.sum().item(), []).append(name.split(".")[0])
    assert [v for v in seen.values() if len(v) > 1] == [["plain", "comment"]], seen
    save("guidance.safetensors", out, oracle="AUTOMATIC1111 v1.10.1, " + versions("k-diffusion", "diffusers", "transformers"),
         common=json.dumps(COMMON), cases=json.dumps(CASES))


if __name__ == "__main__":
    main()
