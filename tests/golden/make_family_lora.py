"""Freezes LoRA training on the small models of make_families.py as sd-scripts does it: family_lora.safetensors (SD 2 and SDXL) and
kinds_lora.safetensors (inpainting models and the refiner).

    python make_family_lora.py SD_SCRIPTS_CHECKOUT [family_lora | kinds_lora]

The network is sd-scripts' own (networks/lora.py) on diffusers' UNet and transformers' text encoders; states, pooled state, sizes and
losses are joined as in sdxl_train_util.py, strategy_sdxl.py and train_network.py.  Models, network and inputs are made from their
names (synthetic.draws), so that the file holds answers: output, loss and every gradient of one step (each module's in full for one
of each kind and every twelfth, norms of all), and the losses of 20 AdamW steps.  Cases: `sdxl` (noise, one chunk), `sdxl_long` (two
chunks of 75 tokens, v prediction with zero terminal SNR), `sd2` (v prediction); `sd1-inpaint` and `sdxl-inpaint` (a mask and drawn
latents of a masked picture behind the noisy ones, as diffusers' train_dreambooth_inpaint_lora.py joins them), `refiner` (the second
encoder alone, a score in place of the bucket's size).
"""
import sys

import torch
import synthetic
from diffusers import DDPMScheduler, UNet2DConditionModel
from oracle import save, versions
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from make_families import EOS, MODELS, VARIANTS, made
from networks import lora
from library import custom_train_functions, sdxl_train_util

RANK, ALPHA, UP, H, W, STEPS = 2, 1.0, 0.1, 8, 16, 20
RATES = dict(te1=5e-4, te2=2e-4, unet=1e-3)
SCORES = torch.tensor([[6.0], [2.5]])
SIZES = torch.tensor([[1024.0, 768.0, 0.0, 48.0, 1216.0, 832.0], [333.0, 1500.0, 7.0, 0.0, 640.0, 1024.0]])


def draws(name, *shape):
    return torch.from_numpy(synthetic.draws(name, shape))


def load(name):
    config, texts = MODELS[VARIANTS.get(name, name)]
    if name in VARIANTS:
        config = config | dict(in_channels=9)
    unet, _ = made(UNet2DConditionModel, "unet", config)
    encoders = [made(CLIPTextModelWithProjection if f == "text_encoder_2" else CLIPTextModel, f, c)[0] for f, c in texts.items()]
    return unet, encoders


def network(unet, encoders):
    net = lora.create_network(1.0, RANK, ALPHA, None, encoders if len(encoders) > 1 else encoders[0], unet)
    net.apply_to(encoders, unet, True, True)
    with torch.no_grad():
        for key, p in net.named_parameters():
            p.copy_(torch.from_numpy(synthetic.draws(key, p.shape, UP if "lora_up" in key else (len(p) / p.numel()) ** 0.5)))
    net.requires_grad_(True)
    return net


def ids(chunks):
    """Ids [2 * chunks, 77] of each encoder: padding differs behind the ends."""
    g = torch.Generator().manual_seed(11)
    first = torch.randint(1, EOS - 1, (2 * chunks, 77), generator=g)
    first[:, 0], first[:, 76] = EOS - 1, EOS
    first[0, 9:] = EOS
    second = first.clone()
    second[0, 10:] = 0
    return first.int(), second.int()


def join(h, chunks):
    """strategy_sdxl.py: the first BOS, 75 of each chunk, the last end."""
    h = h.reshape(2, -1, h.shape[-1])
    if chunks == 1:
        return h
    return torch.cat([h[:, :1], *(h[:, 77 * c + 1:77 * c + 76] for c in range(chunks)), h[:, -1:]], 1)


def condition(name, encoders, ids, chunks):
    """(states, what the UNet takes besides)"""
    if name == "refiner":
        two = encoders[0](input_ids=ids[0].long(), output_hidden_states=True)
        end = (ids[0] == EOS).int().argmax(1)
        pooled = encoders[0].text_projection(two.last_hidden_state[torch.arange(len(end)), end])
        return two.hidden_states[-2], dict(added_cond_kwargs=dict(text_embeds=pooled, time_ids=torch.cat([SIZES[:, :4], SCORES], 1)))
    if len(encoders) == 1:  # hidden_states[-1] and the final norm
        got = encoders[0](input_ids=ids[0].long())
        return join(got.last_hidden_state, chunks), {}
    one = encoders[0](input_ids=ids[0].long(), output_hidden_states=True)
    two = encoders[1](input_ids=ids[1].long(), output_hidden_states=True)
    end = (ids[1] == EOS).int().argmax(1)
    pooled = encoders[1].text_projection(two.last_hidden_state[torch.arange(len(end)), end])[::chunks]
    states = torch.cat([join(one.hidden_states[-2], chunks), join(two.hidden_states[-2], chunks)], 2)
    sizes = sdxl_train_util.get_size_embeddings(SIZES[:, :2], SIZES[:, 2:4], SIZES[:, 4:], "cpu")
    return states, dict(added_cond_kwargs=dict(text_embeds=pooled, time_ids=SIZES), sizes=sizes)


def predict(unet, x, t, states, more):
    """diffusers makes the sinusoids of sizes itself; sd-scripts' have to be the same."""
    sizes = more.pop("sizes", None)
    if sizes is not None:
        theirs = unet.add_time_proj(SIZES.flatten()).reshape(2, -1)
        assert (theirs - sizes).abs().max() < 1e-3, (theirs - sizes).abs().max()
    return unet(x, t, states, **more).sample


def image(case, name, noisy):
    """What the UNet takes: of an inpainting model the mask and the latents of the masked picture too."""
    if name not in VARIANTS:
        return noisy
    return torch.cat([noisy, (draws(f"{case}.mask", 2, 1, H, W) > 0).float(), draws(f"{case}.masked", 2, 4, H, W)], 1)


def scheduler(v, ztsnr):
    s = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False)
    custom_train_functions.prepare_scheduler_for_custom_training(s, "cpu")
    if ztsnr:
        custom_train_functions.fix_noise_scheduler_betas_for_zero_terminal_snr(s)
    return s


def step(case, name, unet, encoders, sched, ids, chunks, v, t):
    latents, noise = draws(f"{case}.latents", 2, 4, H, W), draws(f"{case}.noise", 2, 4, H, W)
    states, more = condition(name, encoders, ids, chunks)
    eps = predict(unet, image(case, name, sched.add_noise(latents, noise, t)), t, states, more)
    target = sched.get_velocity(latents, noise, t) if v else noise
    loss = torch.nn.functional.mse_loss(eps, target, reduction="none").mean([1, 2, 3])
    if v:
        loss = custom_train_functions.apply_snr_weight(loss, t, sched, 5.0, True)
    return eps, loss.mean()


def chosen(modules):
    kinds, names = set(), []
    for i, m in enumerate(modules):
        kind = "_".join(p for p in m.lora_name.split("_") if not p.isdigit() and p not in ("down", "mid", "up", "blocks", "block"))
        if i % 12 == 0 or kind not in kinds:
            names.append(m.lora_name)
        kinds.add(kind)
    return names


def case(out, meta, case, name, chunks=1, v=False, ztsnr=False, steps=True):
    unet, encoders = load(name)
    net, sched, i = network(unet, encoders), scheduler(v, ztsnr), ids(chunks)
    i = i[1:] if name == "refiner" else i
    times = torch.randint(0, 1000, (STEPS, 2), generator=torch.Generator().manual_seed(3))
    times[0] = torch.tensor([981, 250])
    eps, loss = step(case, name, unet, encoders, sched, i, chunks, v, times[0])
    loss.backward()
    out |= {f"{case}.eps": eps, f"{case}.loss": loss.reshape(1), f"{case}.t": times.int()}
    out |= {f"{case}.ids{e}": x for e, x in enumerate(i[:len(encoders)])}
    modules = net.text_encoder_loras + net.unet_loras
    some, none = chosen(modules), [k for k, p in net.named_parameters() if p.grad is None]
    grads = {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}
    out |= {f"{case}.grad.{k}": g for k, g in grads.items() if k.split(".")[0] in some}
    out |= {f"{case}.norm.{k}": g.norm().reshape(1) for k, g in grads.items()}
    meta[f"{case}.untouched"] = none
    print(f"{case}: {len(modules)} modules, {len(grads)} gradients, {len(none)} none, loss {loss:.6f}, norms "
          f"{min(g.norm() for g in grads.values()):.3g} to {max(g.norm() for g in grads.values()):.3g}")
    if not steps:
        return
    groups = [(net.unet_loras, RATES["unet"])]
    for e in range(len(encoders)):
        prefix = f"lora_te{e + 1}_" if len(encoders) > 1 else "lora_te_"
        rate = RATES["te2" if name == "refiner" else f"te{e + 1}"]
        groups.append(([m for m in net.text_encoder_loras if m.lora_name.startswith(prefix)], rate))
    opt = torch.optim.AdamW([{"params": [p for m in ms for p in m.parameters()], "lr": lr} for ms, lr in groups],
                            betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)
    losses = []
    for k in range(STEPS):
        opt.zero_grad()
        loss = step(f"{case}.{k}", name, unet, encoders, sched, i, chunks, v, times[k])[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        losses.append(loss.detach())
    out[f"{case}.steps.loss"] = torch.stack(losses)
    # where 20 steps led, and what no step touches
    keep = [*some[::3], *(k.split(".")[0] for k in none[:2])]
    out |= {f"{case}.final.{k}": p.detach().clone() for k, p in net.named_parameters() if k.split(".")[0] in keep}
    print([round(float(x), 4) for x in losses])


def family_lora(out, meta):
    case(out, meta, "sdxl", "sdxl")
    case(out, meta, "sdxl_long", "sdxl", chunks=2, v=True, ztsnr=True, steps=False)
    case(out, meta, "sd2", "sd2", v=True)


def kinds_lora(out, meta):
    for name in ("sd1-inpaint", "sdxl-inpaint", "refiner"):
        case(out, meta, name, name)


def main():
    for make in (family_lora, kinds_lora):
        if len(sys.argv) < 3 or make.__name__ in sys.argv[2:]:
            out, meta = {}, {}
            make(out, meta)
            save(f"{make.__name__}.safetensors", out, oracle="sd-scripts networks/lora.py, " + versions("diffusers", "transformers"), **meta)


if __name__ == "__main__":
    main()
