"""Does a network file of ours mean to LyCORIS what it means to us?  A developer's tool, run by hand.

    sdlora merge net.safetensors --save_to merged.safetensors --sd_model tinysd.safetensors --save_precision float
    python check_lycoris.py net.safetensors merged.safetensors [tinysd.safetensors]

Loads the file (SD1 names) with lycoris' create_network_from_weights, catches the weight that each of its modules adds in a forward
pass, and compares with what `sdlora merge` added; then the outputs of the UNet.  LyCORIS reads files with less care than it writes
them (DoRA by columns, tucker LoKr), so a difference wants a look at its make_module_from_state_dict.
"""
import sys

import torch
from lycoris.kohya import LycorisNetworkKohya, create_network_from_weights
from oracle import TINYSD, arg, load, load_file, text_states, tokenizer


def outputs(unet, te):
    ids = torch.tensor(tokenizer()(["red apple, fruit", "penguin, bird"], padding="max_length", max_length=77).input_ids)
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([700, 150])
    return unet(x, t, text_states(te, ids)).sample


def watch(m):
    op = m.op

    def seen(x, *args, **kw):
        m.seen = (kw["weight"] if "weight" in kw else args[0]).detach()
        return op(x, *args, **kw)
    m.op = seen


def main():
    path, merged_path, base_path = sys.argv[1], sys.argv[2], arg(3, TINYSD)
    names = {k.split(".")[0] for k in load_file(path)}
    with torch.no_grad():
        ours, _, ours_te = load(merged_path)
        unet, _, te = load(base_path)
        plain = outputs(unet, te)
        # its own default targets name a module twice in diffusers' UNet; the file decides anyway
        LycorisNetworkKohya.apply_preset(dict(unet_target_module=[], unet_target_name=[], text_encoder_target_module=[]))
        net, _ = create_network_from_weights(1.0, path, None, te, unet)
        modules = net.unet_loras + net.text_encoder_loras
        after = {"lora_unet_" + n.replace(".", "_"): m for n, m in ours.named_modules()}
        after.update({"lora_te_" + n.replace(".", "_"): m for n, m in ours_te.named_modules()})
        before = {m.lora_name: m.org_module[0].weight.clone() for m in modules}
        net.apply_to(te, unet, True, True)
        for m in modules:
            watch(m)
        theirs, merged = outputs(unet, te), outputs(ours, ours_te)
    worst, where = 0.0, ""
    for m in modules:
        full = not hasattr(m.org_module[0], "weight")  # algo=full takes the weight away and holds it all
        delta = m.seen - before[m.lora_name] if full else m.seen
        got = after[m.lora_name].weight - before[m.lora_name]
        error = ((got - delta).norm() / delta.norm().clamp_min(1e-12)).item()
        worst, where = max((worst, where), (error, m.lora_name))
    effect, diff = (theirs - plain).abs().max().item(), (theirs - merged).abs().max().item()
    print(f"{len(modules)} of {len(names)} modules; worst relative difference of a weight's change {worst:.3g} ({where})")
    print(f"unet output: the network changes it by up to {effect:.4g}; LyCORIS and our merge differ by up to {diff:.3g}")
    sys.exit(0 if len(modules) == len(names) and worst < 1e-4 and diff < 1e-4 * max(1.0, effect) else 1)


if __name__ == "__main__":
    main()
