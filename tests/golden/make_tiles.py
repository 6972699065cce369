"""Freezes tinysd's VAE in tiles, both ways, as diffusers' AutoencoderKL.enable_tiling computes them.

    python make_tiles.py [tinysd.safetensors]

Tiles of 32 latents over 92x78 (736x624 pixels): four rows and four columns, the last row and the last two columns cut short, and over
20x70, one row of them.  Inputs are made from integers on both sides (`image`, `latents`: tests/unit/models/tiles.c has the same) and
answers kept at every 13th (moments) or 401st (pixels) element of [H,W,C].
"""
import numpy as np
import torch
from oracle import SCALE, TINYSD, arg, load, save, versions

TILE, SIZES = 32, ((92, 78), (20, 70))


def chance(n):
    """n numbers in [0, 1) with 16 bits."""
    return ((np.arange(n, dtype=np.uint64) * np.uint64(2654435761) & np.uint64(0xFFFFFFFF)) >> np.uint64(16)).astype(np.float32) / 65536


def image(h, w):
    y, x, c = np.meshgrid(np.arange(h), np.arange(w), np.arange(3), indexing="ij")
    wave = ((x * (c + 1) + y * 3) // 2 % 256).astype(np.float32) / 128 - 1
    return wave * np.float32(0.75) + (chance(h * w * 3).reshape(h, w, 3) - np.float32(0.5)) * np.float32(0.5)


def latents(h, w):
    y, x, c = np.meshgrid(np.arange(h), np.arange(w), np.arange(4), indexing="ij")
    wave = ((x * 5 + y * (2 * c + 1)) % 64).astype(np.float32) / 32 - 1
    return wave * np.float32(0.5) + chance(h * w * 4).reshape(h, w, 4) - np.float32(0.5)


def nchw(x):
    return torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1)[None].contiguous()


def kept(x, step):
    return x[0].permute(1, 2, 0).reshape(-1)[::step]


def main():
    _, vae, _ = load(arg(1, TINYSD))
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    vae.enable_tiling()
    vae.tile_latent_min_size, vae.tile_sample_min_size = TILE, TILE * factor
    out = {}
    with torch.no_grad():
        for h, w in SIZES:
            dist = vae.encode(nchw(image(h * factor, w * factor))).latent_dist
            out[f"{h}x{w}.mean"] = kept(dist.mean * SCALE, 13)
            out[f"{h}x{w}.noisy"] = kept((dist.mean + dist.std) * SCALE, 13)
            out[f"{h}x{w}.decoded"] = kept(vae.decode(nchw(latents(h, w)) / SCALE).sample, 401)
    save("tiles.safetensors", out, oracle=versions("diffusers"), tile=str(TILE), overlap=str(vae.tile_overlap_factor))


if __name__ == "__main__":
    main()
