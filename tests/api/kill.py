# SPDX-License-Identifier: MIT
"""Kills a training run with SIGKILL at random times and resumes it from its newest state, until 50 kills are done: no file under
a final name is ever torn, and the finished LoRA has the tensors of a run that was never stopped.

    kill.py SDLORA MODEL PICTURES [KILLS]
"""
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

SDLORA, MODEL, PICTURES = sys.argv[1:4]
KILLS = int(sys.argv[4]) if len(sys.argv) > 4 else 50
STEPS = 16


def command(out, state):
    pictures = os.path.join(os.path.dirname(out), "pictures")
    args = [SDLORA, "train", "--pretrained_model_name_or_path", MODEL, "--train_data_dir", pictures,
            "--resolution", "64", "--caption_extension", ".txt", "--output_dir", out,
            "--output_name", "x", "--network_dim", "4", "--network_alpha", "2", "--unet_lr", "1e-3", "--text_encoder_lr",
            "5e-4", "--train_batch_size", "2", "--max_train_steps", str(STEPS), "--save_every_n_steps", "1", "--save_state",
            "--save_last_n_steps", "4", "--seed", "3", "--shuffle_caption", "--cache_latents_to_disk", "--threads", "1"]
    return args + (["--resume", state] if state else [])


def tensors(path):
    """The bytes after the header; fails on a file whose header and size disagree."""
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    end = max(v["data_offsets"][1] for k, v in header.items() if k != "__metadata__")
    assert len(data) == 8 + n + end, f"{path} is torn"
    return data[8 + n:]


def newest_state(out):
    states = sorted(d for d in os.listdir(out) if d.startswith("x-step") and d.endswith("-state")
                    and os.path.exists(f"{out}/{d}/state.safetensors"))
    return f"{out}/{states[-1]}" if states else None


def check_whole(out):
    for root, _, files in os.walk(out):
        for name in files:
            if name.endswith(".safetensors") and not name.startswith("."):
                tensors(os.path.join(root, name))


def run_killed(out, rng, seconds, kills):
    """One run to its end with kills on the way; returns how many there were."""
    done = 0
    while True:
        child = subprocess.Popen(command(out, newest_state(out)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, err = child.communicate(timeout=rng.uniform(0.02, seconds) if done < kills else None)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            done += 1
            check_whole(out)
            continue
        assert child.returncode == 0, err.decode()
        return done


def main():
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as top:
        shutil.copytree(PICTURES, f"{top}/pictures")  # the latent cache is written beside the pictures
        os.mkdir(f"{top}/whole")
        start = time.monotonic()
        run_killed(f"{top}/whole", rng, 0, 0)
        seconds, want, done, runs = time.monotonic() - start, tensors(f"{top}/whole/x.safetensors"), 0, 0
        while done < KILLS:
            out = f"{top}/{runs}"
            os.mkdir(out)
            done += run_killed(out, rng, seconds, min(12, KILLS - done))
            assert tensors(f"{out}/x.safetensors") == want, "a resumed run ended elsewhere"
            runs += 1
    print(f"{done} kills in {runs} runs: no torn file, all ended with the same tensors")


if __name__ == "__main__":
    main()
