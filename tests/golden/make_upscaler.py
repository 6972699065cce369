"""Freezes ESRGAN's network in three spellings, and pictures enlarged by AUTOMATIC1111's own tiles.

    python make_upscaler.py WEBUI_CHECKOUT

`upscaler/old.pth` (names of the first release, 4x), `upscaler/trunk.safetensors` (ESRGAN's later names, 2x: one doubling) and
`upscaler/real.safetensors` (Real-ESRGAN's with `params_ema`, 2x: squares of pixels as channels, then two doublings): random weights, exact in F16.
`upscaler.safetensors`: `<picture>` [H,W,3], `<net>.<picture>`: the enlarged one, of the large picture every 13th number.
"""
import os
import sys

import numpy as np
import torch
from oracle import HERE, save, versions
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import interpolate, leaky_relu, pixel_unshuffle

import webui

webui.REAL |= {"upscaler_utils", "images"}
webui.MOCKED = (*webui.MOCKED, "piexif", "pytz", "pillow_avif")
shared, opts = webui.setup(sys.argv[1])
WIDTH, GROW, BLOCKS = 8, 4, 1


class RRDBNet(nn.Module):
    """Wang et al., ESRGAN (2018), figure 4: dense blocks of five convolutions, three to a block, all residuals times 0.2."""

    def __init__(self, ups, fold):
        super().__init__()
        self.ups, self.fold = ups, fold
        conv = lambda i, o: nn.Conv2d(i, o, 3, 1, 1)  # noqa: E731
        self.conv_first, self.conv_body = conv(3 * fold * fold, WIDTH), conv(WIDTH, WIDTH)
        self.conv_hr, self.conv_last = conv(WIDTH, WIDTH), conv(WIDTH, 3)
        self.body = nn.ModuleList([nn.ModuleDict({f"rdb{r}": nn.ModuleDict({
            f"conv{k}": conv(WIDTH + (k - 1) * GROW, GROW if k < 5 else WIDTH) for k in range(1, 6)}) for r in (1, 2, 3)}) for _ in range(BLOCKS)])
        for i in range(ups):
            setattr(self, f"conv_up{i + 1}", conv(WIDTH, WIDTH))

    def forward(self, x):
        x = self.conv_first(pixel_unshuffle(x, self.fold))
        y = x
        for block in self.body:
            z = y
            for r in (1, 2, 3):
                seen = [z]
                for k in range(1, 5):
                    seen.append(leaky_relu(block[f"rdb{r}"][f"conv{k}"](torch.cat(seen, 1)), 0.2))
                z = z + 0.2 * block[f"rdb{r}"]["conv5"](torch.cat(seen, 1))
            y = y + 0.2 * z
        x = x + self.conv_body(y)
        for i in range(self.ups):
            x = leaky_relu(getattr(self, f"conv_up{i + 1}")(interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(leaky_relu(self.conv_hr(x), 0.2))


def made(seed, ups, fold):
    torch.manual_seed(seed)
    net = RRDBNet(ups, fold).eval()
    for p in net.parameters():
        p.data = (torch.randn_like(p) * (1.2 / max(1, p[0].numel()) ** 0.5 if p.dim() > 1 else 0.1)).half().float()
    net.conv_last.weight.data /= 8  # few numbers outside 0..1
    net.conv_last.bias.data = torch.full((3,), 0.5)
    return net


def old_names(net):
    chain = {"conv_up1": 3, "conv_up2": 6, "conv_hr": 8, "conv_last": 10}
    out = {}
    for k, v in net.state_dict().items():
        head, leaf = k.rsplit(".", 1)
        if head.startswith("body."):
            _, i, r, c = head.split(".")
            out[f"model.1.sub.{i}.{r.upper()}.{c}.0.{leaf}"] = v.half()
        elif head == "conv_body":
            out[f"model.1.sub.{BLOCKS}.{leaf}"] = v.half()
        else:
            out[f"model.{chain.get(head, 0)}.{leaf}"] = v.half()
    return out


def trunk_names(net):
    plain = {"conv_body": "trunk_conv", "conv_hr": "HRconv", "conv_up1": "upconv1"}
    out = {}
    for k, v in net.state_dict().items():
        for a, b in plain.items():
            k = k.replace(a, b)
        out[k.replace("body.", "RRDB_trunk.").replace("rdb", "RDB")] = v.half()
    return out


def picture(w, h):
    y, x = np.mgrid[0:h, 0:w]
    p = np.stack([x * 255 / w, y * 255 / h, 127 + 120 * np.sin(x / 5) * np.cos(y / 7)], 2)
    return Image.fromarray((p + np.random.default_rng(1).normal(0, 5, p.shape)).clip(0, 255).astype(np.uint8))


def main():
    from modules import upscaler_utils
    upscaler_utils.torch_utils.get_param = lambda model: next(model.parameters())
    folder = os.path.join(HERE, "upscaler")
    os.makedirs(folder, exist_ok=True)
    nets = {"old": made(1, 2, 1), "trunk": made(2, 1, 1), "real": made(3, 2, 2)}
    torch.save(old_names(nets["old"]), os.path.join(folder, "old.pth"))
    save_file(trunk_names(nets["trunk"]), os.path.join(folder, "trunk.safetensors"))
    both = {f"{root}.{k}": v.half() * (1 if root == "params_ema" else 2) for k, v in nets["real"].state_dict().items() for root in ("params_ema", "params")}
    save_file(both, os.path.join(folder, "real.safetensors"))
    small, large = picture(30, 22), picture(252, 72)
    out = {"small": torch.from_numpy(np.array(small)), "large": torch.from_numpy(np.array(large))}
    with torch.no_grad():
        for name, net in nets.items():
            got = np.array(upscaler_utils.upscale_with_model(net, small, tile_size=0))
            out[f"{name}.small"] = torch.from_numpy(got.copy())
            print(name, got.shape, got.std())
        got = np.array(tiled(upscaler_utils, nets["trunk"], large))
        out["trunk.large"] = torch.from_numpy(got.reshape(-1)[::13].copy())
    save("upscaler.safetensors", out, oracle="AUTOMATIC1111 v1.10.1 (82a973c), " + versions("pillow"))


def tiled(utils, net, p):
    """upscale_with_model on a picture lower than a tile: its grid with tiles 192 wide and as high as the picture."""
    from modules import images
    grid = images.split_grid(p, 192, p.height, 8)
    rows = [[y, h * 2, [[x * 2, w * 2, utils.upscale_pil_patch(net, t)] for x, w, t in row]] for y, h, row in grid.tiles]
    return images.combine_grid(images.Grid(rows, 384, p.height * 2, p.width * 2, p.height * 2, 16))


if __name__ == "__main__":
    main()
