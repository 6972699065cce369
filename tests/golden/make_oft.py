"""Freezes what programs other than LyCORIS compute with rotations, on single layers of tinysd.

    PYTHONPATH=<sd-scripts> python make_oft.py [tinysd.safetensors]

Case `<form>.<layer>` has the tensors of a file (`.net.<key>`), the change of the weight (`.dw`) and, of kohya's, the gradient of sum(dw c) by
the blocks (`.grad.oft_blocks`, with c[i] = cos(i)).  kohya: networks/oft.py of sd-scripts.  peft: PEFT's OFT on linear layers, which OneTrainer's
OFTv2 has taken over, down to the names; its rotation of a convolution's weight is W R.  diag: R itself, as AUTOMATIC1111 reads it.
Large tensors are thinned as in make_lycoris.py.
"""
import sys
import types

import torch
from make_lycoris import LAYERS, exact, thin
from oracle import TINYSD, arg, load, save, versions
from peft import OFTConfig, get_peft_model
from peft.tuners.oft.layer import OFTRotationModule

for name in ("library", "library.utils"):  # networks/oft.py wants a logger of it, and no more
    sys.modules.setdefault(name, types.ModuleType(name))
sys.modules["library.utils"].setup_logging = lambda *a, **k: None
from networks.oft import OFTModule  # noqa: E402


def kohya(out, key, name, org, g, alpha):
    m = OFTModule(name, org, 1.0, 4, alpha)
    with torch.no_grad():
        m.oft_blocks.copy_((0.2 * torch.randn(m.oft_blocks.shape, generator=g)).half().float())
    w = org.weight.detach()
    dw = torch.einsum("knm,kn...->km...", m.get_weight(), w.reshape(4, m.block_size, *w.shape[1:])).reshape(w.shape) - w
    c = torch.arange(w.numel(), dtype=torch.float64).cos().float().reshape(w.shape)
    (dw * c).sum().backward()
    out.update({f"{key}.net.{name}.oft_blocks": exact(m.oft_blocks.detach()), f"{key}.net.{name}.alpha": torch.tensor(float(alpha)),
                f"{key}.dw": thin(dw), f"{key}.grad.oft_blocks": thin(m.oft_blocks.grad)})


def peft(out, key, name, org, g, size, share):
    net = get_peft_model(torch.nn.Sequential(torch.nn.Linear(*org.weight.shape[::-1], bias=False)),
                         OFTConfig(oft_block_size=size, target_modules=["0"], block_share=share, use_cayley_neumann=True))
    layer = net.base_model.model[0]
    with torch.no_grad():
        layer.base_layer.weight.copy_(org.weight)
        p = layer.oft_R["default"].weight
        p.copy_((0.1 * torch.randn(p.shape, generator=g)).half().float())
        dw = layer(torch.eye(org.weight.shape[1])).T - org.weight
    out.update({f"{key}.net.{name}.oft_R.weight": exact(p.detach()), f"{key}.dw": thin(dw)})


def onetrainer(out, key, name, org, g, size):
    """Scaled, on a convolution."""
    w = org.weight.detach()
    n = w[0].numel() // size
    m = OFTRotationModule(n, size * (size - 1) // 2, size, w[0].numel())
    v = torch.randn(n, size * (size - 1) // 2, generator=g).half().float()
    r = m._cayley_batch(v / (2 * (size - 1) ** 0.5), size)
    dw = torch.einsum("ork,rkc->orc", w.reshape(len(w), n, size), r).reshape(w.shape) - w
    out.update({f"{key}.net.{name}.oft_R.weight": exact(v), f"{key}.net.{name}.oft_R.scaled_oft": torch.tensor(True), f"{key}.dw": thin(dw)})


def diag(out, key, name, org, g):
    w = org.weight.detach()
    r = (torch.eye(8) + 0.1 * torch.randn(len(w) // 8, 8, 8, generator=g)).half().float()
    gain = (1 + 0.1 * torch.randn(len(w), *[1] * (w.dim() - 1), generator=g)).half().float()
    dw = gain * torch.einsum("knm,kn...->km...", r, w.reshape(-1, 8, *w.shape[1:])).reshape(w.shape) - w
    out.update({f"{key}.net.{name}.oft_diag": exact(r), f"{key}.net.{name}.rescale": exact(gain), f"{key}.dw": thin(dw)})


def main():
    modules, g, out = dict(load(arg(1, TINYSD))[0].named_modules()), torch.Generator().manual_seed(5), {}
    for layer in ("linear", "one", "conv"):
        org, name = modules[LAYERS[layer]], "lora_unet_" + LAYERS[layer].replace(".", "_")
        kohya(out, f"kohya.{layer}", name, org, g, 0.01)
        kohya(out, f"kohya_loose.{layer}", name, org, g, 10)
        diag(out, f"diag.{layer}", name, org, g)
        if layer == "linear":
            peft(out, f"peft.{layer}", name, org, g, 8, False)
            peft(out, f"peft_shared.{layer}", name, org, g, 16, True)
        else:
            onetrainer(out, f"onetrainer.{layer}", name, org, g, 8)
    save("oft.safetensors", out, oracle=versions("peft", "diffusers"))


if __name__ == "__main__":
    main()
