#!/bin/sh
# SPDX-License-Identifier: MIT
# Trains every kind of network on the bundled style pictures, one after the other, and prints a table: size of the file, time
# of the training, loss on pictures that were never seen.  docs/networks.md has one.
#
#     sh examples/kinds.sh [BUILD [OUT [STEPS]]]
set -eu
cd "$(dirname "$0")/.."
build=${1:-build/quickstart} out=${2:-kinds} steps=${3:-100}
data=examples/data
model=$data/tinysd/tinysd.safetensors
sdlora=$build/examples/cli/sdlora
SDLORA_BACKEND_PATH=${SDLORA_BACKEND_PATH:-$PWD/$build/lib/plugins/onednn}
export SDLORA_BACKEND_PATH
mkdir -p "$out"

# The number in {"loss": 0.525, ...}.
loss() { "$sdlora" eval --ckpt $model --data $data/openmoji-style/heldout \
    --caption_extension .txt --resolution 64 "$@" 2>>"$out/log" | sed 's/.*"loss": \([0-9.]*\).*/\1/'; }

# name unet_lr text_encoder_lr module args...
train() {
    name=$1 unet_lr=$2 te_lr=$3 module=$4
    shift 4
    started=$(date +%s)
    "$sdlora" train --pretrained_model_name_or_path $model --train_data_dir $data/openmoji-style/train \
        --caption_extension .txt --resolution 64 --train_batch_size 4 --max_train_steps "$steps" \
        --network_module "$module" --network_dim 8 --network_alpha 4 --unet_lr "$unet_lr" \
        --text_encoder_lr "$te_lr" --max_grad_norm 1.0 --seed 0 --save_precision fp16 \
        --output_dir "$out" --output_name "$name" "$@" >>"$out/log" 2>&1
    seconds=$(($(date +%s) - started))
    file=$out/$name.safetensors
    printf '| %s | %s | %s | %.4f |\n' "$name" "$(($(wc -c <"$file") / 1024))" "$seconds" \
        "$(loss --lora "$file" --weight 1.0)"
}

: >"$out/log"
echo "base model: held-out loss $(loss)"
echo "| kind | KiB | seconds | held-out loss |"
echo "|---|---|---|---|"
lycoris() { name=$1 lr=$2 te=$3 algo=$4; shift 4
    train "$name" "$lr" "$te" lycoris.kohya --network_args "algo=$algo" "$@"; }
train lora 1e-3 5e-4 networks.lora
train locon 1e-3 5e-4 networks.lora --network_args conv_dim=8 conv_alpha=4
lycoris locon-tucker 1e-3 5e-4 locon use_tucker=True
lycoris dora 1e-3 5e-4 locon dora_wd=True
lycoris loha 1e-3 5e-4 loha
lycoris lokr 1e-3 5e-4 lokr factor=4
lycoris ia3 5e-3 5e-3 ia3 preset=ia3
lycoris dylora 1e-3 5e-4 dylora block_size=4
lycoris glora 1e-3 5e-4 glora
lycoris diag-oft 1e-3 5e-4 diag-oft
lycoris boft 1e-3 5e-4 boft
lycoris tlora 1e-3 5e-4 tlora
lycoris full 1e-4 5e-5 full
lycoris norm 1e-3 5e-4 locon train_norm=True
