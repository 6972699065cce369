"""Freezes what diffusers' inpainting pipeline makes of a picture and its mask: inpaint.safetensors.

    python make_inpaint.py [tinysd.safetensors]

The mask (binarised at one half, then the first pixel of each block: `mask`) and the latents of the picture with what is masked set to
grey (`masked`: the distribution's mean times the scale), as StableDiffusionInpaintPipeline.prepare_mask_latents hands them to the UNet,
with tinysd's autoencoder.  Picture and mask are made from integers, here and in tests/unit/train/inpaint.c.
"""
import numpy as np
import torch
from diffusers import StableDiffusionInpaintPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from oracle import TINYSD, arg, load, save, versions
from PIL import Image

W, H = 96, 64


def picture():
    """The bytes of put_picture(path, 96, 64, 5) in tests/unit/data/data_test.h."""
    x, seed = np.empty(W * H * 3, np.uint8), 5
    for i in range(x.size):
        seed = (seed * 1664525 + 1013904223) & 0xFFFFFFFF
        x[i] = seed >> 24
    return Image.fromarray(x.reshape(H, W, 3))


def mask():
    y, x = np.meshgrid(np.arange(H), np.arange(W), indexing="ij")
    return Image.fromarray(((x * 5 + y * 7) % 256).astype(np.uint8), "L")


def main():
    _, vae, _ = load(arg(1, TINYSD))
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mode()
    pipe = StableDiffusionInpaintPipeline.__new__(StableDiffusionInpaintPipeline)
    for name, value in dict(vae=vae, vae_scale_factor=factor).items():
        object.__setattr__(pipe, name, value)
    image = VaeImageProcessor(vae_scale_factor=factor).preprocess(picture(), H, W)
    grey = VaeImageProcessor(vae_scale_factor=factor, do_normalize=False, do_binarize=True, do_convert_grayscale=True).preprocess(mask(), H, W)
    with torch.no_grad():
        small, latents = pipe.prepare_mask_latents(grey, image * (grey < 0.5), 1, H, W, torch.float32, "cpu", None, False)
    save("inpaint.safetensors", {"mask": small, "masked": latents}, oracle=versions("diffusers"))
    print(small.shape, f"{small.mean():.3f} masked", latents.shape)


if __name__ == "__main__":
    main()
