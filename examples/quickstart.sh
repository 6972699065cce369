#!/bin/sh
# SPDX-License-Identifier: MIT
# From a bare Debian 12 to a trained style: installs what is missing, builds, trains a LoRA of the
# OpenMoji style for a tiny model on this CPU, measures it on pictures it never saw, and draws a sheet
# of prompts at several strengths.  All results are in quickstart/.
set -eu
cd "$(dirname "$0")/.."
data=examples/data
model=$data/tinysd/tinysd.safetensors
out=quickstart
build=build/quickstart
sdlora=$build/examples/cli/sdlora
started=$(date +%s)
PATH=/usr/bin:$PATH # Debian's meson and python3, whatever else is installed
export PATH

say() { printf '\n== %s\n' "$*"; }
# The number in {"loss": 0.525, ...}.
loss() { "$sdlora" eval --ckpt $model --data $data/openmoji-style/heldout \
    --caption_extension .txt --resolution 64 "$@" | sed 's/.*"loss": \([0-9.]*\).*/\1/'; }

# Plugins are looked for where they will be installed; here they are not installed yet.
SDLORA_BACKEND_PATH=$PWD/$build/lib/plugins/onednn
export SDLORA_BACKEND_PATH

say "packages"
sh tools/packages.sh build

say "build (log: $out/build.log)"
mkdir -p "$out"
if ! { [ -f $build/build.ninja ] || meson setup $build -Dtests=false; } >$out/build.log 2>&1 ||
    ! ninja -C $build >>$out/build.log 2>&1; then
    tail -n 30 $out/build.log >&2
    exit 1
fi
built=$(date +%s)
echo "built in $((built - started)) s"

say "held-out loss before training"
base=$(loss)
echo "$base"

say "training on $data/openmoji-style/train"
rm -f $out/metrics.jsonl
"$sdlora" train --pretrained_model_name_or_path $model \
    --train_data_dir $data/openmoji-style/train --validation_data_dir $data/openmoji-style/heldout \
    --caption_extension .txt --resolution 64 --train_batch_size 4 --max_train_epochs 10 \
    --network_dim 16 --network_alpha 8 --unet_lr 1e-3 --text_encoder_lr 5e-4 \
    --optimizer_args weight_decay=1e-2 --max_grad_norm 1.0 --seed 0 \
    --output_dir $out --output_name openmoji

say "held-out loss after training, by strength of the LoRA"
printf '%8s %s\n' weight loss 0 "$base"
for weight in 0.3 0.6 1.0; do
    printf '%8s %s\n' $weight "$(loss --lora $out/openmoji.safetensors --weight $weight)"
done

say "drawing prompts whose subjects are not in the training set"
cat >$out/prompts.txt <<'END'
red apple, fruit
pizza, food
heart
owl, bird, wise
END
"$sdlora" sheet --ckpt $model --lora $out/openmoji.safetensors --prompts $out/prompts.txt \
    --weights 0,0.3,0.6,1.0 --width 64 --height 64 --seed 1 --out $out/sheet.png

finished=$(date +%s)
say "done in $((finished - started)) s ($((finished - built)) s after the build)"
cat <<END
  look at   $out/sheet.png               columns: strength of the style
  use       $out/openmoji.safetensors    in AUTOMATIC1111, ComfyUI or diffusers, with a model of its shape
  read      $out/metrics.jsonl           loss of each step
END
