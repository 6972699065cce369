"""Freezes txt2img on tinysd by every sampler of AUTOMATIC1111, with its random numbers.

    python make_samplers.py WEBUI_CHECKOUT [tinysd.safetensors]

`run.<n>` is the final latents [1,4,8,8] of case n of metadata `cases`: {sampler, schedule, rng, seed, steps} and what differs from
the defaults. Prompts, guidance and size are those of make_sampler.py.
"""
import sys
import types

import torch
from oracle import TINYSD, arg, load, save, tokenizer, versions

from make_sampler import PROMPTS, Model, opts, shared
import webui

webui.rounded("exp", "log", "sqrt", "tan", "arctan")
opts.uni_pc_variant, opts.uni_pc_skip_type, opts.uni_pc_order, opts.uni_pc_lower_order_final = "bh1", "time_uniform", 3, True


def run(cases, out, sampler, seed=1, steps=20, schedule="Automatic", rng="CPU", **how):
    from modules import prompt_parser
    from modules import rng as numbers
    smp = DATA[sampler].constructor(shared.sd_model)
    smp.config = DATA[sampler]
    opts.randn_source, opts.eta_noise_seed_delta = rng, how.get("ensd", 0)
    p = types.SimpleNamespace(steps=steps, cfg_scale=7.0, is_hr_pass=False, scheduler=schedule, sampler_noise_scheduler_override=None,
                              extra_generation_params={}, eta=None, s_min_uncond=0.0, s_churn=0.0, s_tmin=0.0, s_tmax=float("inf"), s_noise=1.0,
                              refiner_switch_at=None, refiner_checkpoint_info=None, scripts=None, all_seeds=[seed], iteration=0, batch_size=1,
                              rng=numbers.ImageRNG((4, 8, 8), [seed], [how.get("subseed", 0)], how.get("subseed_strength", 0),
                                                   how.get("resize_h", 0), how.get("resize_w", 0)))
    if smp.eta_default == 0.0:
        p.eta = 0.0
    prompt, negative = PROMPTS[seed]
    calls = smp.config.total_steps(steps)
    cond = prompt_parser.get_multicond_learned_conditioning(shared.sd_model, prompt_parser.SdConditioning([prompt]), calls)
    uncond = prompt_parser.get_learned_conditioning(shared.sd_model, prompt_parser.SdConditioning([negative]), calls)
    x = p.rng.next()
    latents = smp.sample(p, x, cond, uncond, image_conditioning=x.new_zeros(1, 5, 1, 1))
    out[f"run.{len(cases)}"] = latents.float()
    cases.append(dict(sampler=sampler, seed=seed, steps=steps, schedule=schedule, rng=rng, **how))
    print(cases[-1], f"{latents.std():.3f}")


def main():
    global DATA
    from modules import sd_samplers_kdiffusion as kd, sd_samplers_timesteps as ts, sd_samplers_lcm as lcm
    from modules.sd_schedulers import schedulers
    DATA = {d.name: d for d in kd.samplers_data_k_diffusion + ts.samplers_data_timesteps + lcm.samplers_data_lcm}
    unet, _, te = load(arg(2, TINYSD))
    shared.sd_model = Model(unet, webui.embedder(tokenizer(), te))
    cases, out = [], {}
    for i, name in enumerate(DATA):
        run(cases, out, name, seed=(1, 12345)[i % 2], rng=("CPU", "NV")[i // 2 % 2])
    for i, s in enumerate(s for s in schedulers if s.function):
        run(cases, out, ("DPM++ 2M", "Euler a", "DPM++ 2M SDE")[i % 3], seed=(1, 12345)[i % 2], schedule=s.label, rng=("NV", "CPU")[i % 2])
    run(cases, out, "Euler a", rng="NV", ensd=31337)
    run(cases, out, "Euler a", subseed=5, subseed_strength=0.3)
    run(cases, out, "DPM++ 2M SDE", rng="NV", subseed=5, subseed_strength=0.6, ensd=31337)
    run(cases, out, "Euler", seed=12345, resize_w=96, resize_h=48)
    save("samplers.safetensors", out, oracle="AUTOMATIC1111 v1.10.1 (82a973c), " + versions("k-diffusion", "diffusers", "transformers", "torchsde"),
         prompts={str(k): v for k, v in PROMPTS.items()}, cases=cases)


if __name__ == "__main__":
    with torch.no_grad():
        main()
