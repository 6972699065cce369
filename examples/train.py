# SPDX-License-Identifier: MIT
"""Trains a LoRA on a folder of tagged pictures, then draws one picture with it:
    python3 train.py CHECKPOINT PICTURES OUTPUT_DIR [option=value ...]
train.c and train.lua do the same, to the same bytes."""
import os
import sys

import sdlora

KINDS = ("context", "dataset", "network", "train", "generate")


def main(checkpoint, pictures, output_dir, *settings):
    opts = {kind: {} for kind in KINDS}
    known = {kind: {row.name for row in sdlora.option_rows(kind)} for kind in KINDS}
    opts["generate"]["seed"] = 1
    for setting in settings:  # "name=value" goes to the first kind that has such an option
        name, _, value = setting.partition("=")
        kind = next((k for k in KINDS if name in known[k]), "train")
        opts[kind][name] = value

    ctx = sdlora.Context(**opts["context"])
    ckpt = sdlora.Checkpoint(ctx, checkpoint)
    data = sdlora.Dataset(ctx, train_data_dir=pictures, **opts["dataset"])
    net = sdlora.Network(ckpt, seed=0, **opts["network"])
    trainer = sdlora.Trainer(ckpt, net, data, output_dir=output_dir, **opts["train"])
    for now in trainer:
        print(f"step {now.step}/{now.total}  loss {now.average_loss:.4f}")

    generator = sdlora.Generator(ckpt)
    generator.set_network(net)
    generator.run(**opts["generate"])[0].save(os.path.join(output_dir, "sample.png"))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(f"usage: {sys.argv[0]} CHECKPOINT PICTURES OUTPUT_DIR [option=value ...]")
    try:
        main(*sys.argv[1:])
    except sdlora.Error as error:
        sys.exit(str(error))
