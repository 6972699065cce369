#!/bin/sh
# SPDX-License-Identifier: MIT
# sheets.sh [SDLORA [MODEL [OUT]]]: three prompts by every sampler, every sampler by four numbers of
# steps, and every schedule by two samplers, each on one labelled sheet: whoever is out of line is seen
# at a glance.  (LMS, DPM fast and PLMS want more than 20 steps of this small model, in AUTOMATIC1111 as well.)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
sdlora=${1:-$root/build/examples/cli/sdlora} model=${2:-$root/examples/data/tinysd/tinysd.safetensors} out=${3:-sheets}
mkdir -p "$out"

draw() {
    name=$1
    shift
    "$sdlora" grid --ckpt "$model" --prompt 'red apple, fruit' --seed 1 --steps 20 --width 64 --height 64 \
        --out "$out/$name.png" "$@"
}

draw samplers --steps 40 --x_type 'Prompt S/R' --x_values '"red apple, fruit","penguin, bird","smiling face with sunglasses"' \
    --y_type Sampler --y_values '*'
draw steps --x_type Steps --x_values '5,10,20,40' --y_type Sampler --y_values '*'
draw schedules --x_type Sampler --x_values 'Euler,DPM++ 2M' --y_type 'Schedule type' --y_values '*'
