"""Freezes txt2img on tinysd by AUTOMATIC1111's own samplers and schedules (over k-diffusion's functions).

    python make_sampler.py WEBUI_CHECKOUT [tinysd.safetensors]

Keys `<sampler>|<schedule>|<steps>|<seed>.{sigmas,noise,latents,image}`: batch of one, cfg 7, 64x64, RNG of the CPU.  The seed
names the prompt (metadata `prompts`).  `noise` is the N(0,1) draw before scaling; `latents` what the sampler returns; `image`
the decoded picture as A1111 truncates it, U8 [1,3,64,64].  For DDIM `sigmas` are the time steps, ascending.
`randn.<n>.<seed>`: two draws of n numbers each from one torch generator, [2,n].  `sched.<name>.<n>`: A1111's schedules alone.
"""
import sys
import types

import torch
from oracle import SCALE, TINYSD, arg, load, save, sigmas_table, tokenizer, versions

import webui

shared, opts = webui.setup(sys.argv[1])
webui.callbacks()
PROMPTS = {1: ("red apple, fruit", ""), 12345: ("penguin, bird", "food")}


class Model:
    """The face of LDM's model that the samplers look at."""
    parameterization, cond_stage_key, is_sdxl = "eps", "txt", False
    model = types.SimpleNamespace(conditioning_key="crossattn")

    def __init__(self, unet, embed):
        self.unet, self.embed = unet, embed
        self.alphas_cumprod = sigmas_table().float()
        self.device = torch.device("cpu")

    def apply_model(self, x, t, cond):
        return self.unet(x, t, torch.cat(cond["c_crossattn"], 1)).sample

    def get_learned_conditioning(self, texts):
        return self.embed.forward(list(texts))


# no create_denoiser attribute: the samplers then wrap the model with k-diffusion's own CompVisDenoiser
def run(sampler, schedule, steps, seed, out, model, vae):
    from modules import prompt_parser, rng
    from modules import sd_samplers_kdiffusion as kd, sd_samplers_timesteps as ts
    data = {d.name: d for d in kd.samplers_data_k_diffusion + ts.samplers_data_timesteps}[sampler]
    smp = data.constructor(model)
    smp.config = data
    p = types.SimpleNamespace(steps=steps, cfg_scale=7.0, is_hr_pass=False, scheduler=schedule, sampler_noise_scheduler_override=None,
                              extra_generation_params={}, eta=None, s_min_uncond=0.0, s_churn=0.0, s_tmin=0.0, s_tmax=float("inf"), s_noise=1.0,
                              refiner_switch_at=None, refiner_checkpoint_info=None, scripts=None, all_seeds=[seed], iteration=0, batch_size=1,
                              rng=rng.ImageRNG((4, 8, 8), [seed]))
    prompt, negative = PROMPTS[seed]
    calls = data.total_steps(steps)
    cond = prompt_parser.get_multicond_learned_conditioning(model, prompt_parser.SdConditioning([prompt]), calls)
    uncond = prompt_parser.get_learned_conditioning(model, prompt_parser.SdConditioning([negative]), calls)
    if sampler == "DDIM":  # A1111's eta for the timestep samplers is another option
        p.eta = 0.0
    x = p.rng.next()
    latents = smp.sample(p, x, cond, uncond, image_conditioning=x.new_zeros(1, 5, 1, 1))
    pic = vae.decode(latents / SCALE).sample
    pic = 255.0 * torch.clamp((pic + 1.0) / 2.0, 0.0, 1.0)
    key = f"{sampler}|{schedule}|{steps}|{seed}"
    table = smp.get_timesteps(p, steps).int() if sampler == "DDIM" else smp.get_sigmas(p, steps).float()
    out.update({f"{key}.sigmas": table, f"{key}.noise": x, f"{key}.latents": latents, f"{key}.image": pic.to(torch.uint8)})
    print(key, f"{latents.std():.3f}")


def main():
    unet, vae, te = load(arg(2, TINYSD))
    model = Model(unet, webui.embedder(tokenizer(), te))
    shared.sd_model = model
    out = {}
    with torch.no_grad():
        for steps in (10, 20):
            for seed in PROMPTS:
                for sampler in ("Euler", "Euler a", "DPM++ 2M"):
                    for schedule in ("Uniform", "Karras"):
                        run(sampler, schedule, steps, seed, out, model, vae)
                run("DDIM", "DDIM", steps, seed, out, model, vae)
        from modules.sd_schedulers import schedulers
        import k_diffusion.external
        wrap = k_diffusion.external.CompVisDenoiser(model)
        out["sched.table"] = wrap.sigmas
        for s in schedulers:
            for n in (10, 20, 11) if s.function else ():
                kw = {"inner_model": wrap} if s.need_inner_model else {}
                got = s.function(n=n, sigma_min=wrap.sigmas[0].item(), sigma_max=wrap.sigmas[-1].item(), device=torch.device("cpu"), **kw)
                out[f"sched.{s.label}.{n}"] = got.float()
    for seed in (0, 1, 12345, 4294967295):
        for n in (1, 4, 15, 16, 17, 20, 31, 32, 33, 256):
            g = torch.Generator().manual_seed(seed)
            out[f"randn.{n}.{seed}"] = torch.stack([torch.randn(n, generator=g) for _ in range(2)])
    g = torch.Generator().manual_seed(12345)
    a, b = torch.randn(4, 64, 64, generator=g).flatten(), torch.randn(4, 64, 64, generator=g).flatten()
    out["randn.16384.12345"] = torch.stack([torch.cat([v[:8], v[-8:]]) for v in (a, b)])
    save("sampler.safetensors", out, oracle="AUTOMATIC1111 v1.10.1 (82a973c), " + versions("k-diffusion", "diffusers", "transformers"),
         prompts={str(k): v for k, v in PROMPTS.items()})


if __name__ == "__main__":
    main()
