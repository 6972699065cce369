"""Freezes names and shapes: the SD 1.5 checkpoint in its published (LDM) names, and sd-scripts' LoRA and LoCon files for it.

    python make_keys.py SD_SCRIPTS_CHECKOUT

Models are made on the meta device from the published configurations; the renaming to LDM is sd-scripts' own.  keys_sd15.json:
`checkpoint`, `lora` (rank 8, 264 modules), `locon` (rank 8, conv 8, 350 modules), each a map name -> shape.
"""
import sys

import torch
from diffusers import AutoencoderKL
from oracle import save_json, versions
from transformers import CLIPTextConfig, CLIPTextModel

sys.path.insert(0, sys.argv[1])
from library import model_util  # noqa: E402
from library.original_unet import UNet2DConditionModel  # noqa: E402
from networks import lora  # noqa: E402


def shapes(sd):
    return {k: list(v.shape) for k, v in sorted(sd.items())}


def main():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**model_util.create_unet_diffusers_config(False))
        vae = AutoencoderKL(**model_util.create_vae_diffusers_config())
        te = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                                          max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768))
        nets = {}
        for name, conv in (("lora", {}), ("locon", {"conv_dim": "8", "conv_alpha": "1"})):
            net = lora.create_network(1.0, 8, 4.0, vae, te, unet, **conv)
            net.apply_to(te, unet, True, True)
            nets[name] = (len(net.text_encoder_loras) + len(net.unet_loras), shapes(net.state_dict()))
        unet = UNet2DConditionModel(**model_util.create_unet_diffusers_config(False))
        ckpt = {"model.diffusion_model." + k: v for k, v in model_util.convert_unet_state_dict_to_sd(False, unet.state_dict()).items()}
        ckpt.update({"first_stage_model." + k: v for k, v in model_util.convert_vae_state_dict(vae.state_dict()).items()})
        te = CLIPTextModel(te.config)
        ckpt.update({"cond_stage_model.transformer." + k: v for k, v in te.state_dict().items()})
        ckpt["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.zeros(1, 77, dtype=torch.long)
    count = {k: n for k, (n, _) in nets.items()}
    print(len(ckpt), "checkpoint tensors,", count, sum(v.numel() for v in ckpt.values()), "numbers")
    assert count == {"lora": 264, "locon": 350}
    save_json("keys_sd15.json", {"oracle": "sd-scripts networks/lora.py, library/model_util.py, " + versions("diffusers", "transformers"), "modules": count,
                                 "checkpoint": shapes(ckpt), **{k: s for k, (_, s) in nets.items()}})


if __name__ == "__main__":
    main()
