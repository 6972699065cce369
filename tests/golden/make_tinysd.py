"""Freezes one forward pass of every part of tinysd: text states, UNet output, VAE both ways.

    python make_tinysd.py [tinysd.safetensors [reference golden.safetensors]]

With the second argument the models are first compared with an older reference file of the same model.
`unet_ns`, `vae_ns`: shapes that are not square, with a context of two 77-token chunks.
"""
import torch
from oracle import SCALE, TINYSD, arg, load, load_file, save, text_states, versions


def main():
    unet, vae, te = load(arg(1, TINYSD))
    g = torch.Generator().manual_seed(20240)
    randn = lambda *s: torch.randn(*s, generator=g)
    out = {}
    words = [[49406, 736, 3055, 267, 3989, 49407], [49406, 14952, 267, 3329, 267, 1579, 537, 1449, 49407], [49406, 49407]]
    ids = torch.tensor([w + [49407] * (77 - len(w)) for w in words], dtype=torch.int32)
    full = torch.randint(0, 49406, (1, 77), generator=g, dtype=torch.int32)
    full[0, 0], full[0, 76] = 49406, 49407
    ids = torch.cat([ids, full])
    with torch.no_grad():
        out["ids"] = ids
        for skip in (1, 2):
            out[f"text.skip{skip}"] = text_states(te, ids, skip)
        ctx = out["text.skip1"]
        for name, shape, c, t in (("unet", (2, 4, 8, 8), ctx[:2], [981.0, 250.375]),
                                  ("unet_ns", (2, 4, 8, 16), torch.cat([ctx[:2], ctx[2:]], 1), [1.0, 499.5])):
            x, t = randn(*shape), torch.tensor(t)
            out.update({f"{name}.x": x, f"{name}.t": t, f"{name}.ctx": c.clone(), f"{name}.eps": unet(x, t, c).sample})
        for name, h, w in (("vae", 64, 64), ("vae_ns", 64, 128)):
            yy, xx = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
            image = torch.stack([xx, yy, torch.sin(5 * xx * yy)])[None] * 0.8 + 0.1 * randn(1, 3, h, w)
            image = image.clamp(-1, 1)
            dist = vae.encode(image).latent_dist
            latents = dist.mean * SCALE
            out.update({f"{name}.image": image, f"{name}.mean": dist.mean, f"{name}.logvar": dist.logvar,
                        f"{name}.latents": latents, f"{name}.decoded": vae.decode(latents / SCALE).sample})
        if arg(2, None):
            ref = load_file(arg(2, None))
            states = text_states(te, ref["token_ids"], 1)
            dist = vae.encode(ref["vae_image"]).latent_dist
            for name, got in (("text_states", states), ("unet_eps", unet(ref["unet_x"], ref["unet_t"], ref["text_states"]).sample),
                              ("vae_mean", dist.mean), ("vae_logvar", dist.logvar), ("vae_decoded", vae.decode(ref["vae_mean"]).sample)):
                print(f"{name}: largest difference {(got - ref[name]).abs().max():.3g} of {ref[name].abs().max():.3g}")
    save("tinysd.safetensors", out, oracle=versions("diffusers", "transformers"), scale=str(SCALE))


if __name__ == "__main__":
    main()
