"""Freezes what LyCORIS' modules compute on layers of full size: make_lycoris.py's layer cases on SD 1.5's widths.

    python make_lycoris_full.py

Weights and the modules' tensors are drawn from their names (synthetic.draws), so that the file holds only what a test cannot make:
`<case>.draw.<key>` has deviation, mean and shape of a tensor that is drawn by the name `<case>.<leaf>`; the layer's own weight is
drawn by `W.<layer>` with deviation 0.03, a norm's by the same name with 0.1 around 1.
"""
import make_lycoris as m
import torch
from oracle import save, versions
from synthetic import draws

IN, OUT, WIDE = 640, 1280, 768
CASES = {
    "lora": {"plain": "linear one conv", "tucker": "conv", "dora": "linear conv", "dora_in": "linear"},
    "loha": {"plain": "linear conv", "tucker": "conv"},
    "lokr": {"plain": "linear conv", "factor4": "linear", "tucker": "conv"},
    "ia3": {"plain": "linear conv"}, "glora": {"plain": "linear conv"},
    "diag-oft": {"plain": "linear conv"}, "boft": {"plain": "linear"},
    "full": {"plain": "linear"}, "norm": {"plain": "groupnorm"},
}


LARGER = {"boft": dict(lora_dim=20)}  # 1280 falls into butterflies of 20


def drawn(name, shape, deviation, mean=0.0):
    return torch.from_numpy(draws(name, tuple(shape), deviation)) + mean


def layer(name):
    made = dict(linear=lambda: torch.nn.Linear(WIDE, OUT, bias=False), one=lambda: torch.nn.Conv2d(IN, OUT, 1),
                conv=lambda: torch.nn.Conv2d(IN, OUT, 3, padding=1), groupnorm=lambda: torch.nn.GroupNorm(32, IN, eps=1e-5))[name]()
    with torch.no_grad():
        for p in made.parameters():
            p.zero_()
        made.weight.copy_(drawn(f"W.{name}", made.weight.shape, *((0.1, 1.0) if name == "groupnorm" else (0.03, 0.0))))
    return made


class Fill:
    """make_lycoris.fill() by name; remembers what it drew."""

    def __init__(self, key, algo):
        self.key, self.leaf, self.drew = key, m.FILE_LEAF.get(algo, {}), {}

    def __call__(self, module):
        size = {"w_norm": 0.1, "b_norm": 0.1, "oft_blocks": 0.2, "weight": 0.1, "bias": 0.1}
        with torch.no_grad():
            for name, p in module.named_parameters():
                leaf = self.leaf.get(name, name)
                spec = (0.2, 1.0) if name in ("dora_scale", "rescale") else (size.get(name, 0.5 if "hada" in name else 0.3), 0.0)
                p.copy_(drawn(f"{self.key}.{leaf}", p.shape, *spec))
                self.drew[leaf] = spec


def main():
    m.fill = lambda module, fill: fill(module)
    m.LAYERS = {k: v.replace("down_blocks.1", "down_blocks.2") for k, v in m.LAYERS.items()}
    out, g = {}, torch.Generator().manual_seed(91)
    org = {name: layer(name) for name in ("linear", "one", "conv", "groupnorm")}
    x = {name: torch.randn((2, 3, WIDE) if name == "linear" else (1, IN, 5, 4), generator=g).half().float() for name in org}
    dy = {name: torch.randn(m.last(org[name](x[name])).shape, generator=g).half().float() for name in org}
    for name in org:
        out[f"x.{name}"], out[f"dy.{name}"] = m.last(x[name]).half(), dy[name].half()
    for algo, variants in CASES.items():
        for variant, where in variants.items():
            for name in where.split():
                key = f"{algo}.{variant}.{name}"
                fill = Fill(key, algo)
                m.layer_case(out, key, algo, name, org[name], x[name], dy[name], fill, **{**m.CASES[algo][variant][1], **LARGER.get(algo, {})})
                for full in [k for k in out if k.startswith(f"{key}.net.")]:
                    leaf = full.split(".net.")[1].split(".", 1)[1]
                    if leaf in fill.drew:
                        v = out.pop(full)
                        out[full.replace(".net.", ".draw.")] = torch.tensor([*fill.drew[leaf], *v.shape])
                print(key)
    save("lycoris_full.safetensors", out, oracle=versions("lycoris-lora"), kept=str(m.KEPT))


if __name__ == "__main__":
    main()
