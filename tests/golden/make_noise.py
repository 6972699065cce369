"""Freezes AUTOMATIC1111's random numbers of a picture.

    python make_noise.py WEBUI_CHECKOUT

`<case>`: first noise and three further draws, [4,C,H,W], of ImageRNG as metadata `cases` says: source, shape, seed, subseed, strength,
resize (h, w in pixels), ensd.  `tree.<n>`: what k-diffusion's Brownian noise sampler returns over [lo,hi] for the pairs of sigmas in
metadata `trees`, [pairs,C,H,W].  Metadata `words`: NumPy's SeedSequence: [entropy, [spawn key], words].
"""
import sys

import numpy as np
import torch
from oracle import save, versions

import webui

shared, opts = webui.setup(sys.argv[1])
webui.rounded("sqrt")
from modules import rng, sd_samplers_common  # noqa: E402,F401  the second puts A1111's generator under torchsde

SHAPES = {"a": (4, 8, 8), "b": (4, 9, 7), "c": (1, 3, 4)}
# (source, shape, seed, subseed, strength, resize_h, resize_w, ensd)
CASES = [(s, *rest) for s in ("CPU", "NV") for rest in (
    ("a", 0, 0, 0, 0, 0, 0), ("b", 12345, 0, 0, 0, 0, 0), ("c", 4294967295, 0, 0, 0, 0, 0), ("a", 2 ** 40 + 5, 0, 0, 0, 0, 0),
    ("a", 1, 2, 0.2, 0, 0, 0), ("b", 1, 2, 1.0, 0, 0, 0), ("b", 3, 3, 0.3, 0, 0, 0), ("a", 1, 2, 0.2, 96, 40, 0), ("b", 5, 0, 0, 64, 64, 0), ("b", 5, 0, 0, 48, 88, 0),
    ("b", 5, 9, 0.5, 72, 56, 0), ("a", 7, 0, 0, 0, 0, 31337), ("b", 7, 8, 0.4, 64, 0, 31337), ("c", 7, 8, 0.4, 64, 64, 1))]
PAIRS = [[14.6146, 11.7254], [11.7254, 9.3402], [9.3402, 3.25], [3.25, 0.0485], [0.0485, 0.0292], [14.6146, 0.0292], [5.0, 2.0], [1.0, 0.0078125], [20.0, 1.0], [2.0, 5.0]]


def main():
    out, cases, trees, words = {}, [], [], []
    for source, shape, seed, subseed, strength, rh, rw, ensd in CASES:
        opts.randn_source, opts.eta_noise_seed_delta = source, ensd
        r = rng.ImageRNG(SHAPES[shape], [seed], subseeds=[subseed], subseed_strength=strength, seed_resize_from_h=rh, seed_resize_from_w=rw)
        out[f"draw.{len(cases)}"] = torch.cat([r.next() for _ in range(4)]).float()
        cases.append(dict(source=source, shape=SHAPES[shape], seed=seed, subseed=subseed, strength=strength, h=rh // 8, w=rw // 8, ensd=ensd))
    from k_diffusion.sampling import BrownianTreeNoiseSampler
    opts.eta_noise_seed_delta = 0
    for source in ("CPU", "NV"):
        for seed, shape in ((0, "a"), (12345, "b"), (2 ** 33 + 1, "c")):
            opts.randn_source = source
            x = torch.zeros(1, *SHAPES[shape])
            s = BrownianTreeNoiseSampler(x, torch.tensor(0.0292), torch.tensor(14.6146), seed=[seed])
            pairs = [[torch.tensor(v) for v in p] for p in PAIRS]
            out[f"tree.{len(trees)}"] = torch.cat([s(*p) for p in pairs]).float()
            again = BrownianTreeNoiseSampler(x, torch.tensor(0.0292), torch.tensor(14.6146), seed=[seed])
            for k in reversed(range(len(pairs))):  # the order of questions changes nothing
                assert torch.equal(again(*pairs[k])[0], out[f"tree.{len(trees)}"][k]), k
            trees.append(dict(source=source, shape=SHAPES[shape], seed=seed, lo=0.0292, hi=14.6146, pairs=PAIRS))
    for entropy in (0, 1, 12345, 4294967295, 2 ** 32, 2 ** 63 - 1):
        for key in ((), (0, 0), (5, 3), (2 ** 33 + 1, 34), (2 ** 32 - 1, 32)):
            words.append([entropy, list(key), np.random.SeedSequence(entropy, spawn_key=key, pool_size=24).generate_state(4).tolist()])
    save("noise.safetensors", out, oracle="AUTOMATIC1111 v1.10.1 (82a973c), numpy " + np.__version__ + ", " + versions("k-diffusion", "torchsde"),
         cases=cases, trees=trees, words=words)


if __name__ == "__main__":
    with torch.no_grad():
        main()
