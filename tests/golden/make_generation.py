"""Freezes txt2img of small models of SD 2, SDXL and its refiner: A1111's samplers around diffusers' UNets and transformers' encoders.

    python make_generation.py WEBUI_CHECKOUT

Weights are the synthetic ones (synthetic.py, seed 0, f32), so the file holds answers only.  The metadata `cases` names each case's
architecture and options as `sdlora generate` spells them, over `common`; `<case>.latents` is what A1111's sampler returns.  Prompts
have no emphasis and one chunk; states, pooled states and sizes are joined here as sd_models_xl.py joins them.
"""
import json
import math
import sys
import types

import synthetic
import torch
from diffusers import UNet2DConditionModel
from make_guidance import Processing, function_of, shared, with_rescale
from oracle import save, sigmas_table, tokenizer, versions
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

COMMON = {"prompt": "red apple, fruit", "negative": "food", "sampler": "Euler a", "steps": 6, "cfg": 5.0, "seed": 3, "width": 64, "height": 64}
CASES = {
    "sd2": {"arch": "tiny-sd2"},
    "sd2-v": {"arch": "tiny-sd2", "v": True},
    "sd2-skip": {"arch": "tiny-sd2", "clip_skip": 2, "v": True, "sampler": "DDIM"},
    "sdxl": {"arch": "tiny-sdxl"},
    "sdxl-empty": {"arch": "tiny-sdxl", "negative": ""},
    "sdxl-space": {"arch": "tiny-sdxl", "negative": " "},
    "sdxl-wide": {"arch": "tiny-sdxl", "width": 96, "sdxl_crop_top": 24, "sdxl_crop_left": 8},
    "sdxl-and": {"arch": "tiny-sdxl", "prompt": "red apple AND penguin :0.5"},
    "sdxl-v": {"arch": "tiny-sdxl", "v": True, "sd_noise_schedule": "Zero Terminal SNR", "scheduler": "Simple", "cfg_rescale": 0.7},
    "sdxl-refined": {"arch": "tiny-sdxl", "refiner": "tiny-refiner", "refiner_switch_at": 0.4},
    "sdxl-scores": {"arch": "tiny-sdxl", "refiner": "tiny-refiner", "refiner_switch_at": 0.2, "sdxl_refiner_high_aesthetic_score": 9.0,
                    "sdxl_refiner_low_aesthetic_score": 1.0, "negative": ""},
}


def weights(arch, part):
    return {n: torch.from_numpy(x.astype("float32")) for _, n, x in synthetic.tensors(arch, dtype=synthetic.np.float32, only=part)}


def unet_of(arch):
    a = synthetic.ARCHS[arch]
    ch, depth = a["channels"], a["depth"]
    more = dict(addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=a["vector"]) if a.get("vector") else {}
    m = UNet2DConditionModel(sample_size=8, block_out_channels=ch, layers_per_block=a["resnets"], cross_attention_dim=a["context"],
                             down_block_types=["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depth],
                             up_block_types=["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in depth[::-1]],
                             transformer_layers_per_block=[max(d, 1) for d in depth], use_linear_projection=bool(a.get("linear")),
                             attention_head_dim=[c // 64 for c in ch], **more)
    m.load_state_dict(weights(arch, "unet"))
    return m.eval()


def text_of(arch, part):
    a = synthetic.ARCHS[arch].get(part)
    if not a:
        return None
    width, mlp, layers, pooled = (*a, 0)[:4]
    quick = part == "te" and arch != "tiny-sd2"
    cls = CLIPTextModelWithProjection if pooled else CLIPTextModel
    m = cls(CLIPTextConfig(hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=width // 64,
                           hidden_act="quick_gelu" if quick else "gelu", projection_dim=pooled or width, vocab_size=49408, bos_token_id=49406,
                           eos_token_id=49407, pad_token_id=1, attn_implementation="eager"))
    m.load_state_dict(weights(arch, part), strict=False)
    return m.eval()


def sinus(x):
    f = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
    a = torch.tensor([float(x)])[:, None] * f
    return torch.cat([a.cos(), a.sin()], -1)


class Model:
    """The face of LDM's model that the samplers look at."""
    cond_stage_key = "txt"
    model = types.SimpleNamespace(conditioning_key="crossattn")

    def __init__(self, arch, case, v):
        self.arch, self.case, self.sd_checkpoint_info = arch, case, arch
        self.unet, self.te, self.te2 = unet_of(arch), text_of(arch, "te"), text_of(arch, "te2")
        self.is_sdxl = self.te2 is not None
        self.parameterization = "v" if v else "eps"
        ac = sigmas_table().float()
        if case.get("sd_noise_schedule"):
            ac = function_of(f"{sys.argv[1]}/modules/sd_models.py", "rescale_zero_terminal_snr_abar")(ac)
        self.alphas_cumprod, self.device = ac, torch.device("cpu")

    def apply_model(self, x, t, cond):
        if not self.is_sdxl:
            return self.unet(x, t, torch.cat(cond["c_crossattn"], 1)).sample
        n = synthetic.ARCHS[self.arch]["te2"][3]
        self.unet.add_time_proj.forward = lambda ids: cond["vector"][:, n:].reshape(ids.shape[0], 256)
        ids = torch.zeros(x.shape[0], (cond["vector"].shape[1] - n) // 256)
        return self.unet(x, t, cond["crossattn"], added_cond_kwargs={"text_embeds": cond["vector"][:, :n], "time_ids": ids}).sample

    def ids(self, text, zeros):
        ids = tokenizer()(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        if zeros:  # everything behind the first end token
            end = (ids == 49407).int().argmax(1)
            ids[torch.arange(77)[None] > end[:, None]] = 0
        return ids

    def get_learned_conditioning(self, batch):
        texts, case = list(batch), self.case
        if not self.is_sdxl:  # SD 2: the state that stands before the real model's last layer, normed; no clip skip
            got = self.te(self.ids(texts, True), output_hidden_states=True)
            return self.te.text_model.final_layer_norm(got.hidden_states[-1])
        two = self.te2(self.ids(texts, True), output_hidden_states=True)
        states, pooled = two.hidden_states[-2], two.text_embeds
        if self.te is not None:
            states = torch.cat([self.te(self.ids(texts, False), output_hidden_states=True).hidden_states[-2], states], -1)
        negative = getattr(batch, "is_negative_prompt", False)
        if negative and all(t == "" for t in texts):
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        h, w = case["height"], case["width"]
        score = case.get("sdxl_refiner_low_aesthetic_score", 2.5) if negative else case.get("sdxl_refiner_high_aesthetic_score", 6.0)
        numbers = [h, w, case.get("sdxl_crop_top", 0), case.get("sdxl_crop_left", 0)] + ([h, w] if self.te is not None else [score])
        vector = torch.cat([pooled] + [sinus(x).repeat(len(texts), 1) for x in numbers], -1)
        return {"crossattn": states, "vector": vector}


def run(name):
    from modules import rng, sd_models
    from modules import sd_samplers_kdiffusion as kd, sd_samplers_timesteps as ts
    case = {"scheduler": "Automatic", **COMMON, **CASES[name]}
    model = Model(case["arch"], case, case.get("v"))
    shared.sd_model = model
    data = {d.name: d for d in kd.samplers_data_k_diffusion + ts.samplers_data_timesteps}[case["sampler"]]
    smp = data.constructor(model)
    smp.config = data
    p = Processing(case)
    if "refiner" in case:
        other = Model(case["refiner"], case, False)
        p.refiner_checkpoint_info = types.SimpleNamespace(short_title="refiner")

        def swap(info=None):
            shared.sd_model = other
            p.refiner_checkpoint_info = other.sd_checkpoint_info
        sd_models.reload_model_weights = swap
    if case["sampler"].startswith("DDIM"):
        p.eta = 0.0
    p.calls = data.total_steps(p.steps)
    p.rng = rng.ImageRNG((4, case["height"] // 8, case["width"] // 8), [p.seed])
    p.setup_conds()
    if "cfg_rescale" in case:
        with_rescale(case["cfg_rescale"], smp.model_wrap_cfg)
    x = p.rng.next()
    return smp.sample(p, x, p.c, p.uc, image_conditioning=x.new_zeros(1, 5, 1, 1))


def main():
    out = {}
    with torch.no_grad():
        for name in CASES:
            out[f"{name}.latents"] = run(name)
            print(f"{name}: {out[f'{name}.latents'].std():.3f}")
    assert len({v.sum().item() for v in out.values()}) == len(out), "two cases with one result"
    save("generation.safetensors", out, oracle="AUTOMATIC1111 v1.10.1, " + versions("k-diffusion", "diffusers", "transformers"),
         common=json.dumps(COMMON), cases=json.dumps(CASES))


if __name__ == "__main__":
    main()
