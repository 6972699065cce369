"""Freezes Stable Diffusion 2.1 and SDXL at full size, with the random weights of lib/models/synthetic.c, as torch computes them.

    python make_full_xl.py

Text states and pooled state of each encoder, and the UNet's output for latents of 16x24, in float32.  Weights and inputs are made from
names (synthetic.py); outputs are stored whole where they are small, as synthetic.digest otherwise.  Takes 14 GB and some minutes.
"""
import synthetic
import torch
from diffusers import UNet2DConditionModel
from oracle import save, tokenizer, versions
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

PROMPT = "a photograph of an astronaut riding a horse on the moon, highly detailed"
PICKED = 4093
MODELS = {
    "sd21": dict(channels=(320, 640, 1280, 1280), attention=(1, 1, 1, 0), depth=1, context=1024),
    "sdxl": dict(channels=(320, 640, 1280), attention=(0, 1, 1), depth=[1, 2, 10], context=2048, vector=2816),
}


def draws(name, *shape):
    return torch.from_numpy(synthetic.draws(name, shape))


def unet(channels, attention, depth, context, vector=0):
    more = dict(addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=vector) if vector else {}
    return UNet2DConditionModel(
        sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, cross_attention_dim=context, block_out_channels=channels,
        attention_head_dim=[c // 64 for c in channels], transformer_layers_per_block=depth, use_linear_projection=True,
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attention[::-1]], **more)


def text(width, mlp, layers, pooled=0):
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=width // 64,
        max_position_embeddings=77, hidden_act="quick_gelu" if width == 768 else "gelu", projection_dim=pooled or width, bos_token_id=49406,
        eos_token_id=49407, pad_token_id=0, attn_implementation="eager")
    return (CLIPTextModelWithProjection if pooled else CLIPTextModel)(config)


def load(arch, part, model):
    """Weights one by one, so that they stand there once."""
    named = dict(model.named_parameters())
    for p, name, x in synthetic.tensors(arch, only=part):
        module, leaf = model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        assert tuple(named.pop(name).shape) == x.shape, name
        setattr(module, leaf, torch.nn.Parameter(torch.from_numpy(x).float(), requires_grad=False))
    assert not named, list(named)
    return model.eval()


def keep(out, name, x):
    print(f"{name:20} {list(x.shape)} deviation {x.std():.3f}", flush=True)
    small = x.numel() <= 20000
    out[name if small else f"{name}.digest"] = x if small else torch.from_numpy(synthetic.digest(x.contiguous().numpy(), elements=PICKED))


@torch.no_grad()
def main():
    out, tok = {}, tokenizer()
    ids = torch.tensor([tok(PROMPT, padding="max_length", max_length=77, truncation=True).input_ids])
    out["ids"] = ids.int()
    for arch, c in MODELS.items():
        for part in ("te", "te2"):
            if part not in synthetic.ARCHS[arch]:
                continue
            with torch.device("meta"):
                model = text(*synthetic.ARCHS[arch][part])
            model.text_model.embeddings.position_ids = torch.arange(77)[None]
            model = load(arch, part, model)
            got = model(input_ids=ids, output_hidden_states=True)
            keep(out, f"{arch}.{part}.states", got.last_hidden_state if arch == "sd21" else got.hidden_states[-2])
            if part == "te2":
                keep(out, f"{arch}.{part}.pooled", got.text_embeds)
            del model, got
        with torch.device("meta"):
            model = unet(**c)
        model = load(arch, "unet", model)
        x, ctx, more = draws("x", 1, 4, 16, 24), draws("ctx", 1, 77, c["context"]), {}
        if "vector" in c:
            more = dict(added_cond_kwargs={"text_embeds": draws("pooled", 1, 1280),
                                           "time_ids": torch.tensor([[1024.0, 768.0, 0.0, 48.0, 1216.0, 832.0]])})
        keep(out, f"{arch}.eps", model(x, torch.tensor([601.5]), ctx, **more).sample)
        del model
    save("full_xl.safetensors", out, oracle=versions("diffusers", "transformers"))


main()
