"""Runs sd-scripts' own trainer on tinysd for a few steps and freezes the metadata of the files it writes.

    python make_metadata.py SD_SCRIPTS_CHECKOUT [tinysd.safetensors]

metadata.json: `runs`, one per configuration, each with the command-line arguments, the folders and captions it saw, and every key
and value of the last file ("volatile" lists keys whose values depend on time, machine or checkout); `hashes`: sshs_model_hash and
sshs_legacy_hash by sd-scripts' functions for given tensors, which hash_lora.safetensors holds.
"""
import json
import os
import struct
import sys
import tempfile

import numpy as np
import torch
from oracle import TINYSD, arg, load, save, save_json, tokenizer, versions
from PIL import Image

CHECKOUT = os.path.abspath(sys.argv[1])
sys.path.insert(0, CHECKOUT)
import train_network  # noqa: E402
from library import strategy_base, strategy_sd, train_util  # noqa: E402

MODEL = arg(2, TINYSD)
SETS = {"img": {"3_mochi cat": ["mochi, cat, Sitting", "mochi, cat , grinning", None], "1_style": ["a red apple"]}, "reg": {"1_cat": ["cat", None]}}
VOLATILE = ["ss_session_id", "ss_training_started_at", "ss_training_finished_at", "ss_sd_scripts_commit_hash", "modelspec.date", "modelspec.implementation_version",
            "sshs_model_hash"]


class Trainer(train_network.NetworkTrainer):
    def load_target_model(self, args, weight_dtype, accelerator):
        unet, vae, te = load(MODEL)
        unet.set_use_memory_efficient_attention = lambda *a: None
        return "sd_v1", te, vae, unet

    def get_tokenize_strategy(self, args):
        s = strategy_sd.SdTokenizeStrategy.__new__(strategy_sd.SdTokenizeStrategy)
        s.tokenizer, s.max_length = tokenizer(), 77
        return s


def folders(root):
    rng = np.random.default_rng(3)
    for top, subs in SETS.items():
        for name, captions in subs.items():
            os.makedirs(f"{root}/{top}/{name}")
            for i, c in enumerate(captions):
                h, w = (64, 64) if i % 2 == 0 else (64, 128)
                Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(f"{root}/{top}/{name}/{i}.png")
                if c is not None:
                    open(f"{root}/{top}/{name}/{i}.txt", "w").write(c)


def run(root, name, extra):
    model = os.path.join(root, "tinysd.safetensors")
    if not os.path.exists(model):
        os.symlink(os.path.abspath(MODEL), model)
    base = ["--pretrained_model_name_or_path", model, "--output_dir", f"{root}/out", "--output_name", name, "--save_model_as", "safetensors",
            "--network_module", "networks.lora", "--caption_extension", ".txt", "--train_batch_size", "2", "--max_train_epochs", "2", "--seed", "1",
            "--max_data_loader_n_workers", "0", "--mixed_precision", "no", "--save_precision", "fp16"]
    args = base + extra
    parsed = train_network.setup_parser().parse_args([a.replace("ROOT", root) for a in args])
    parsed = train_util.read_config_from_file(parsed, train_network.setup_parser())
    for s in ("TokenizeStrategy", "TextEncodingStrategy", "LatentsCachingStrategy", "TextEncoderOutputsCachingStrategy"):
        getattr(strategy_base, s)._strategy = None  # sd-scripts expects one run a process
    Trainer().train(parsed)
    with open(f"{root}/out/{name}.safetensors", "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    meta = header.pop("__metadata__")
    return {"name": name, "args": [a.replace(root, "ROOT") for a in args], "tensors": len(header), "metadata": dict(sorted(meta.items()))}


def main():
    with tempfile.TemporaryDirectory() as root:
        folders(root)
        with open(f"{root}/set.toml", "w") as f:
            f.write(f'[general]\nshuffle_caption = true\ncaption_extension = ".txt"\nkeep_tokens = 1\n[[datasets]]\nresolution = 64\nbatch_size = 2\nenable_bucket = true\n'
                    f'min_bucket_reso = 64\nmax_bucket_reso = 128\n[[datasets.subsets]]\nimage_dir = "{root}/img/3_mochi cat"\nclass_tokens = "mochi cat"\nnum_repeats = 2\n')
        dirs = ["--train_data_dir", "ROOT/img", "--resolution", "64"]
        bucket = ["--enable_bucket", "--min_bucket_reso", "64", "--max_bucket_reso", "128"]
        runs = [run(root, "plain", [*dirs, "--random_crop"]),
                run(root, "bare", [*dirs, *bucket, "--no_metadata", "--network_dim", "4", "--network_train_unet_only"]),
                run(root, "toml", ["--dataset_config", "ROOT/set.toml", "--network_dim", "4", "--learning_rate", "1e-4"]),
                # last: conv_dim changes sd-scripts' list of target classes for the rest of the process
                run(root, "full", [*dirs, *bucket, "--reg_data_dir", "ROOT/reg", "--network_dim", "4", "--network_alpha", "2", "--learning_rate", "1e-4", "--unet_lr",
                                   "1e-4", "--text_encoder_lr", "5e-5", "--network_args", "conv_dim=4", "conv_alpha=1", "--lr_scheduler", "cosine_with_restarts",
                                   "--lr_scheduler_num_cycles", "3", "--lr_warmup_steps", "1", "--optimizer_type", "AdamW", "--optimizer_args", "weight_decay=0.05",
                                   "--shuffle_caption", "--keep_tokens", "1", "--clip_skip", "2", "--noise_offset", "0.05", "--min_snr_gamma", "5", "--cache_latents",
                                   "--training_comment", "trigger: mochi", "--metadata_author", "A", "--metadata_tags", "cat, emoji", "--metadata_license", "CC0",
                                   "--network_dropout", "0.1", "--prior_loss_weight", "0.9", "--max_grad_norm", "0.5", "--caption_dropout_rate", "0.1"])]
    g = torch.Generator().manual_seed(8)
    r = lambda *s: torch.randn(*s, generator=g)
    p = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    small = {p + ".lora_up.weight": r(32, 4).half(), p + ".lora_down.weight": r(4, 32).half(), p + ".alpha": torch.tensor(2.0, dtype=torch.float16), "b.weight": r(3, 5)}
    big = {"x": torch.arange(300000, dtype=torch.int32), "y": torch.zeros(7, dtype=torch.float16)}
    meta = {"ss_network_dim": "4", "ss_output_name": "hash", "modelspec.title": "not hashed"}
    save("hash_lora.safetensors", small, **meta)
    hashes = {n: dict(zip(("sshs_model_hash", "sshs_legacy_hash"), train_util.precalculate_safetensors_hashes(t, meta))) for n, t in (("small", small), ("big", big))}
    model = {"old": train_util.model_hash(MODEL), "new": train_util.calculate_sha256(MODEL)}
    save_json("metadata.json", {"oracle": "sd-scripts train_network.py, " + versions("diffusers", "transformers"), "folders": SETS, "volatile": VOLATILE, "runs": runs,
                                "hashes": {"metadata": meta, **hashes, "note": "small = hash_lora.safetensors; big = {x: i32 0..299999, y: 7 f16 zeros}, same metadata"},
                                "tinysd": model})
    print([(x["name"], len(x["metadata"]), x["tensors"]) for x in runs], hashes)


if __name__ == "__main__":
    main()
