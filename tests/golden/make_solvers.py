"""Freezes every sampler and schedule of AUTOMATIC1111 on a model that is a formula.

    python make_solvers.py WEBUI_CHECKOUT

The model's data are two Gaussians at +-MEAN of deviation S, element by element, so that D(x, sigma) is known:
D = (x S^2 + sigma^2 MEAN tanh(MEAN x / (S^2 + sigma^2))) / (S^2 + sigma^2).  The prompt moves MEAN: guidance is real.
Latents are [1,4,4,8], the seed is 7, noise comes from the CPU generator.

`run.<n>` is the final latents of case n of metadata `cases`: {sampler, schedule, steps} and what differs from the defaults.
torch's exp, log, sqrt, tan and arctan are rounded from doubles here, see webui.rounded().
`sched.<schedule>.<n>`: sigmas for n steps; `xl.`, `lcm.`, `zero.` before it: SDXL, LCM's levels, a zero-terminal-SNR table.
"""
import sys
import types

import torch
from oracle import arg, save, sigmas_table, versions

import webui

shared, opts = webui.setup(sys.argv[1])
webui.rounded("exp", "log", "sqrt", "tan", "arctan")
webui.callbacks()
MEAN, EMPTY, S = 0.8, 0.5, 0.3
SHAPE, SEED, CFG = (4, 4, 8), 7, 3.0


class Model:
    """The face of LDM's model that the samplers look at; a condition is a tensor that holds a mean."""
    parameterization, cond_stage_key, is_sdxl = "eps", "txt", False
    model = types.SimpleNamespace(conditioning_key="crossattn")
    device = torch.device("cpu")

    def __init__(self, alphas):
        self.alphas_cumprod = alphas
        self.log_sigmas = (((1 - alphas.double()) / alphas.double()) ** 0.5).log()

    def apply_model(self, x, t, cond):
        t = t.double().clamp(0, 999)
        low = t.floor().long().clamp(max=998)
        w = t - low
        sigma = ((1 - w) * self.log_sigmas[low] + w * self.log_sigmas[low + 1]).exp().view(-1, 1, 1, 1)
        mean = torch.cat(cond["c_crossattn"], 1)[:, 0, 0].double().view(-1, 1, 1, 1)
        y = x.double() * (sigma ** 2 + 1) ** 0.5
        var = S * S + sigma ** 2
        d = (y * S * S + sigma ** 2 * mean * torch.tanh(mean * y / var)) / var
        return ((y - d) / sigma).float()

    def get_learned_conditioning(self, texts):
        return torch.stack([torch.full((77, 2), MEAN if t else EMPTY) for t in texts])


def make(sampler, **how):
    """(sampler object, processing object) with A1111's defaults but for `how`."""
    from modules import rng
    data = DATA[sampler]
    smp = data.constructor(shared.sd_model)
    smp.config = data
    p = types.SimpleNamespace(steps=how.get("steps", 20), cfg_scale=CFG, is_hr_pass=False, scheduler=how.get("schedule", "Automatic"),
                              sampler_noise_scheduler_override=None, extra_generation_params={}, eta=how.get("eta"), s_min_uncond=0.0,
                              s_churn=how.get("s_churn", 0.0), s_tmin=how.get("s_tmin", 0.0), s_tmax=how.get("s_tmax", float("inf")),
                              s_noise=how.get("s_noise", 1.0), refiner_switch_at=None, refiner_checkpoint_info=None, scripts=None, all_seeds=[SEED],
                              iteration=0, batch_size=1, denoising_strength=how.get("strength"), rng=rng.ImageRNG(SHAPE, [SEED]))
    if p.eta is None and smp.eta_default == 0.0:
        p.eta = 0.0  # another option than that of the k-diffusion samplers
    for name in OPTIONS:
        setattr(opts, name, how.get(name, OPTIONS[name]))
    for name in ("s_churn", "s_tmin", "s_tmax", "s_noise"):
        setattr(opts, name, getattr(p, name))
    return smp, p


OPTIONS = dict(sigma_min=0, sigma_max=0, rho=0, always_discard_next_to_last_sigma=False, use_old_karras_scheduler_sigmas=False,
               sgm_noise_multiplier=False, uni_pc_variant="bh1", uni_pc_skip_type="time_uniform", uni_pc_order=3,
               uni_pc_lower_order_final=True, beta_dist_alpha=0.6, beta_dist_beta=0.6, eta_noise_seed_delta=0)


def run(cases, out, sampler, **how):
    from modules import prompt_parser
    smp, p = make(sampler, **how)
    model = shared.sd_model
    calls = smp.config.total_steps(p.steps)
    cond = prompt_parser.get_multicond_learned_conditioning(model, prompt_parser.SdConditioning(["a"]), calls)
    uncond = prompt_parser.get_learned_conditioning(model, prompt_parser.SdConditioning([""]), calls)
    x = p.rng.next()
    extra = x.new_zeros(1, 5, 1, 1)
    if p.denoising_strength is None:
        latents = smp.sample(p, x, cond, uncond, image_conditioning=extra)
    else:
        init = torch.linspace(-1, 1, x.numel()).reshape(x.shape)
        latents = smp.sample_img2img(p, init, x, cond, uncond, image_conditioning=extra)
    out[f"run.{len(cases)}"] = latents.float()
    cases.append({"sampler": sampler, **how})
    print(cases[-1], f"{latents.std():.3f}")


def schedule_tables(out, prefix, wrap, schedulers, lengths):
    for s in schedulers:
        for n in lengths if s.function else ():
            kw = {"inner_model": wrap} if s.need_inner_model else {}
            got = s.function(n=n, sigma_min=wrap.sigmas[0].item(), sigma_max=wrap.sigmas[-1].item(), device=torch.device("cpu"), **kw)
            out[f"{prefix}sched.{s.label}.{n}"] = got.float()


def zero_snr(alphas):
    root = alphas.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    root = (root - last) * (first / (first - last))
    alphas = root ** 2
    alphas[-1] = 4.8973451890853435e-08
    return alphas


def main():
    global DATA
    from modules import sd_samplers_kdiffusion as kd, sd_samplers_timesteps as ts, sd_samplers_lcm as lcm
    from modules.sd_schedulers import schedulers
    DATA = {d.name: d for d in kd.samplers_data_k_diffusion + ts.samplers_data_timesteps + lcm.samplers_data_lcm}
    alphas = sigmas_table().float()
    shared.sd_model = Model(alphas)
    cases, out = [], {}
    steps_only = {d.name for d in ts.samplers_data_timesteps}
    for name in DATA:
        for schedule in ["Automatic"] + [s.label for s in schedulers if s.function and name not in steps_only]:
            run(cases, out, name, schedule=schedule)
        for n in (1, 2, 3, 5, 12, 36, 50):
            if not (name == "UniPC" and n < 3 or name in ("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE") and n == 1):  # these raise there
                run(cases, out, name, steps=n)
        for strength in (0.3, 0.75, 1.0):
            if not (name == "UniPC" and strength < 0.5):
                run(cases, out, name, strength=strength)
        run(cases, out, name, always_discard_next_to_last_sigma=True)
        if name not in ("PLMS", "UniPC", "LCM", "LMS", "Restart", "DPM++ 2M", "Euler", "Heun", "DPM2"):
            run(cases, out, name, eta=0.0)
            run(cases, out, name, eta=0.6, s_noise=1.01)
    for name in ("Euler", "Heun", "DPM2"):
        run(cases, out, name, s_churn=12.0, s_tmin=0.2, s_tmax=8.0, s_noise=1.003)
    for name in ("DPM++ 2M", "DPM++ SDE", "Euler"):
        run(cases, out, name, schedule="Karras", rho=5.0)
        run(cases, out, name, schedule="Polyexponential", rho=1.4)
        run(cases, out, name, schedule="Karras", use_old_karras_scheduler_sigmas=True)
        for schedule in ("Exponential", "Normal", "SGM Uniform", "KL Optimal", "Beta"):
            run(cases, out, name, schedule=schedule, sigma_min=0.05, sigma_max=10.0)
    run(cases, out, "Euler", schedule="Beta", beta_dist_alpha=0.8, beta_dist_beta=0.4)
    for variant in ("bh1", "bh2", "vary_coeff"):
        for order in (1, 2, 3, 4):
            run(cases, out, "UniPC", uni_pc_variant=variant, uni_pc_order=order)
        run(cases, out, "UniPC", uni_pc_variant=variant, uni_pc_lower_order_final=False)
    for skip in ("time_quadratic", "logSNR"):
        run(cases, out, "UniPC", uni_pc_skip_type=skip)

    import k_diffusion.external
    lengths = (1, 2, 3, 5, 10, 11, 20, 30, 50, 150)
    schedule_tables(out, "", k_diffusion.external.CompVisDenoiser(shared.sd_model), schedulers, lengths)
    schedule_tables(out, "lcm.", lcm.LCMCompVisDenoiser(shared.sd_model), schedulers, (4, 8, 20))
    shared.sd_model.is_sdxl = True
    schedule_tables(out, "xl.", k_diffusion.external.CompVisDenoiser(shared.sd_model), [s for s in schedulers if s.label == "Align Your Steps"], lengths)
    shared.sd_model = Model(zero_snr(alphas))
    out["zero.alphas"] = shared.sd_model.alphas_cumprod
    schedule_tables(out, "zero.", k_diffusion.external.CompVisDenoiser(shared.sd_model), schedulers, (10, 20))
    save("solvers.safetensors", out, oracle="AUTOMATIC1111 v1.10.1 (82a973c), " + versions("k-diffusion", "torchsde", "scipy"), cases=cases)


if __name__ == "__main__":
    with torch.no_grad():
        main()
