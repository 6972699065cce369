#!/bin/sh
# SPDX-License-Identifier: MIT
# cli.sh COMMAND MODEL DATA OUT: what the command says and returns: versions, typos, missing files,
# tokens, a look at a file, a picture, an interrupted run.
set -u
sdlora=$1 model=$2 data=$3 out=$4
failures=0

# expect STATUS PATTERN ARGUMENT...: exit status, and a pattern in what is written
expect() {
    status=$1 pattern=$2
    shift 2
    text=$("$sdlora" "$@" 2>&1)
    got=$?
    if [ $got -ne "$status" ] || ! printf '%s\n' "$text" | grep -qE -e "$pattern"; then
        printf 'sdlora %s: status %s (wanted %s), wanted /%s/ in:\n%s\n' "$*" $got "$status" "$pattern" "$text"
        failures=$((failures + 1))
    fi
}

rm -rf "$out"
mkdir -p "$out"
expect 0 '^sdlora [0-9]+\.[0-9]+\.[0-9]+$' --version
expect 0 'generate .*prompt' help
expect 0 '^  --network_dim INT .*\[4\]$' help train
expect 2 "did you mean 'train'" trian
expect 2 'did you mean --learning_rate' train --learning_rat 1
expect 2 'there is no flag --lr here; see --help' train --lr 1
expect 2 'configuration files are not read' train --config_file x.toml
expect 2 'wanted a whole number from 1' train --network_dim 0
expect 2 'wants --pretrained_model_name_or_path' train --output_dir "$out"
expect 2 'wants a value' generate --ckpt
expect 1 'no-such-file' info "$out/no-such-file"
expect 1 'no-such-model' train --pretrained_model_name_or_path "$out/no-such-model" --train_data_dir "$data" --output_dir "$out/t"
expect 0 'encoder' plan --pretrained_model_name_or_path synthetic:tiny-inpaint --train_data_dir "$data" --resolution 64 \
    --output_dir "$out/t" --max_train_steps 2 --masks_per_image 0
expect 0 '^cpu ' devices
expect 0 '^\[320, 1125, 539, 320, 2368\]$' tokenize --json 'a photo of a cat'
tools=$(dirname "$0")/../golden/tools
expect 2 'merge wants networks' merge --save_to "$out/m.safetensors"
expect 2 '2 --ratio' merge "$tools/a.safetensors" --save_to "$out/m.safetensors" --ratio 1 --ratio 2
expect 0 'm\.safetensors: 10 modules, dim 5' merge "$tools/a.safetensors:0.5" "$tools/b.safetensors" \
    --save_to "$out/m.safetensors" --rank 5
expect 0 '"title": "m"|modelspec.title: m' info "$out/m.safetensors"
expect 0 'r\.safetensors: 9 modules, dim 3, alpha 1.5' resize "$tools/a.safetensors" --save_to "$out/r.safetensors" --new_rank 3
expect 0 'Average Frobenius norm retention: 9' resize --model "$tools/a.safetensors" --save_to "$out/r.safetensors" --verbose
expect 1 '.*' resize "$model" --save_to "$out/r.safetensors"
expect 2 'extract wants' extract --model_org "$model"
expect 0 'x\.safetensors: 120 modules' extract --model_org "$model" --model_tuned "$model" --save_to "$out/x.safetensors"
expect 1 'nothing is left' extract --model_org "$model" --model_tuned "$model" --save_to "$out/y.safetensors" --mode fixed
expect 0 '"family": "sd1"' info "$model" --json
expect 0 '^kind: checkpoint$' info "$model"
expect 0 'p\.png$' generate --ckpt "$model" --prompt cat --steps 2 --width 64 --height 64 --seed 1 --out "$out/p.png"
expect 0 'i\.png$' generate --ckpt "$model" --prompt cat --steps 2 --width 64 --height 64 --seed 1 --init_image "$out/p.png" \
    --mask "$out/p.png" --inpainting_fill 0 --out "$out/i.png"
expect 0 'made of another one' generate --ckpt "$model" --from "$out/i.png" --out "$out/j.png"
expect 0 'j\.png$' generate --ckpt "$model" --from "$out/i.png" --init_image "$out/p.png" --mask "$out/p.png" --out "$out/j.png"
cmp -s "$out/i.png" "$out/j.png" || { echo "--from i.png with its picture and mask made another one"; failures=$((failures + 1)); }
expect 0 'h\.png$' generate --ckpt "$model" --prompt cat --steps 2 --width 64 --height 64 --seed 1 --enable_hr --hr_scale 1.5 --out "$out/h.png"
expect 1 "there is no VAE 'x'" generate --ckpt "$model" --prompt cat --steps 1 --width 64 --height 64 --sd_vae x --out "$out/v.png"
expect 1 'a mask and no picture' generate --ckpt "$model" --prompt cat --steps 1 --width 64 --height 64 --mask "$out/p.png" --out "$out/v.png"
expect 0 'g\.png$' grid --ckpt "$model" --prompt cat --steps 1 --width 64 --height 64 --x_type Seed --x_values 1-2 \
    --y_type 'Prompt S/R' --y_values 'cat, dog' --out "$out/g.png"
# A grid takes what generate takes: each cell is the picture of the same flags.
same() {
    cmp -s "$1" "$2" || { echo "$1 and $2 differ"; failures=$((failures + 1)); }
}
small="--ckpt $model --prompt cat --steps 2 --width 64 --height 64 --seed 1"
mkdir -p "$out/models/deep"
cp "$model" "$out/models/other.safetensors"
cp "$model" "$out/models/deep/third.safetensors"
expect 0 'g\.png$' grid $small --init_image "$out/p.png" --mask "$out/p.png" --x_type Denoising --x_values 0.3,0.9 \
    --out "$out/g.png" --cells "$out/denoised"
expect 0 'k\.png$' generate $small --init_image "$out/p.png" --mask "$out/p.png" --denoising_strength 0.9 --out "$out/k.png"
same "$out/k.png" "$out/denoised/z1-y1-x2.png"
expect 0 'g\.jpg$' grid --ckpt "$model" --from "$out/p.png" --x_type Steps --x_values 1,2 --cells "$out/again" --out "$out/g.jpg" --quality 50
same "$out/p.png" "$out/again/z1-y1-x2.png"
expect 0 'g\.png$' grid $small --ckpt_dir "$out/models" --x_type 'Refiner checkpoint' --x_values 'None, other, third' \
    --refiner_switch_at 0.5 --cells "$out/refined" --out "$out/g.png"
expect 0 '^  Refiner: other ' info "$out/refined/z1-y1-x2.png"
expect 0 'k\.png$' generate $small --ckpt_dir "$out/models" --refiner other --refiner_switch_at 0.5 --out "$out/k.png"
same "$out/k.png" "$out/refined/z1-y1-x2.png"
expect 0 'g\.png$' grid $small --ckpt_dir "$out/models" --x_type 'Checkpoint name' --x_values '*' --cells "$out/named" --out "$out/g.png"
expect 0 '^  Model: third$' info "$out/named/z1-y1-x2.png"
expect 2 'grid wants --ckpt MODEL' grid --prompt cat
expect 1 "nearest is 'Seed'" grid --ckpt "$model" --prompt cat --x_type Sead --x_values 1
expect 0 'Sampler: Euler a' info "$out/p.png"
expect 0 'a\.png$' generate --ckpt "$model" --prompt cat --negative_prompt dog --cfg_scale 3 --sampler_name Euler --n_iter 1 --steps 1 \
    --width 64 --height 64 --out "$out/a.png"
expect 0 'negative_prompt: dog' info "$out/a.png"
expect 0 'CFG scale: 3$' info "$out/a.png"
expect 0 'r\.png$' generate --ckpt "$model" --from "$out/p.png" --out "$out/r.png"
cmp -s "$out/p.png" "$out/r.png" || { echo "--from p.png made another picture"; failures=$((failures + 1)); }
expect 0 'r\.jpg$' generate --ckpt "$model" --from "$out/p.png" --steps 1 --out "$out/r.jpg" --quality 90
expect 0 'Steps: 1$' info "$out/r.jpg"
bare=$(find "$data" -name '*.png' -o -name '*.jpg' | head -n 1)
expect 1 'has no generation parameters' generate --ckpt "$model" --from "$bare" --out "$out/x.png"
expect 2 'quality 102 is not from' generate --ckpt "$model" --prompt cat --out "$out/x.jpg" --quality 102
expect 1 'no directory of networks' generate --ckpt "$model" --prompt '<lora:x:1>' --steps 1 --width 64 --height 64 --out "$out/q.png"
expect 2 'too large for --count 2' generate --ckpt "$model" --prompt cat --seed 9223372036854775807 --count 2 --out "$out"
expect 2 'there are 1 --weight for 0 --lora' eval --ckpt "$model" --data "$data" --weight 0.5
expect 2 'sheet wants .*--lora FILE' sheet --ckpt "$model" --prompts "$data"
test ! -e "$out/q.png" || failures=$((failures + 1))

# An interrupt ends the step at hand, saves network and state, and exits with 130; the state goes on.
train="--pretrained_model_name_or_path $model --train_data_dir $data --caption_extension .txt --resolution 64
    --network_dim 1 --network_train_unet_only --seed 1 --output_name n"
"$sdlora" train $train --output_dir "$out/train" --max_train_steps 100000 --json > "$out/steps" 2> "$out/log" &
pid=$!
tries=0
while [ ! -s "$out/steps" ] && [ $tries -lt 300 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -INT $pid
wait $pid
status=$?
if [ $status -ne 130 ] || [ ! -s "$out/train/n.safetensors" ] || [ ! -s "$out/train/n-state" ]; then
    printf 'interrupted train: status %s, and:\n' $status
    ls "$out/train"
    cat "$out/log"
    failures=$((failures + 1))
fi

grep -q '"text_encoder_lr": 0, "text_encoder_2_lr": 0, "grad_norm": ' "$out/steps" || {
    printf 'lines of train --json have other keys:\n'
    head -n 1 "$out/steps"
    failures=$((failures + 1))
}

# A plan of the same flags writes nothing.
expect 0 '^memory at its highest .* [MG]B$' plan $train --output_dir "$out/planned" --max_train_steps 9
expect 0 '"steps": 9,' plan $train --output_dir "$out/planned" --max_train_steps 9 --json
expect 2 'plan wants --train_data_dir' plan --pretrained_model_name_or_path "$model"
test ! -e "$out/planned" || failures=$((failures + 1))
expect 0 '"kind": "lora"' info --json "$out/train/n.safetensors"

# Tools on files: a model there and back, what pruning says, metadata, hashes, a check that fails.
expect 0 '^family: sd1$' convert "$model" "$out/folder" --layout diffusers
expect 1 'name a folder that does not exist' convert "$model" "$out/folder" --layout diffusers
expect 0 '"verified": true' convert "$out/folder" "$out/ldm.safetensors" --layout=ldm --save-precision fp16 --json
expect 0 '"family": "sd1"' info "$out/ldm.safetensors" --json
expect 0 '^tensors: [0-9]+$' prune "$model" "$out/pruned.safetensors"
expect 1 'has no averaged weights' prune "$model" "$out/none.safetensors" --ema use
expect 2 'did you mean --save_precision' prune "$model" "$out/none.safetensors" --save_precison fp16
expect 2 "ema is .maybe., wanted one of drop" prune "$model" "$out/none.safetensors" --ema maybe
expect 2 'wants a file to read and a file to write' convert "$model"
expect 0 '^autov2: [0-9a-f]{10}$' hash "$model"
expect 0 '^sshs_model_hash: [0-9a-f]{64}$' hash "$out/train/n.safetensors"
expect 0 '' metadata set "$out/train/n.safetensors" 'ss_training_comment=a=b' x=1
expect 0 '^a=b$' metadata get "$out/train/n.safetensors" ss_training_comment
expect 0 '^ *Comment: a=b$' metadata get "$out/train/n.safetensors"
expect 0 '' metadata remove "$out/train/n.safetensors" x
expect 1 'has no metadata "x"' metadata get "$out/train/n.safetensors" x
cp "$out/pruned.safetensors" "$out/copy.safetensors"
expect 0 '' metadata copy "$out/train/n.safetensors" "$out/copy.safetensors" --prefix ss_
expect 0 '^a=b$' metadata get "$out/copy.safetensors" ss_training_comment
expect 2 "not 'put'" metadata put "$out/copy.safetensors" x=1
expect 2 'is not KEY=VALUE' metadata set "$out/copy.safetensors" x
expect 0 '^all +[0-9]+ ' check "$out/pruned.safetensors"
expect 0 '"n_dead": 0,' check "$out/train/n.safetensors" --json
test ! -e "$out/none.safetensors" || failures=$((failures + 1))

# A failure after the first step (the rate throws the values out of the range of floats) loses nothing.
expect 1 'stopped after step [1-8] of 9; .*/fail/n\.safetensors and .*/fail/n-state' \
    train $train --output_dir "$out/fail" --max_train_steps 9 --unet_lr 1e6
test -s "$out/fail/n.safetensors" && test -s "$out/fail/n-state" || failures=$((failures + 1))

# A job that leaves nothing behind ends at its next report, with 130 and without a result.
for verb in 'bench --model tiny --what text --repeats 1000' \
    "eval --ckpt $model --data $data --caption_extension .txt --resolution 256"; do
    rm -f "$out/result" "$out/log"
    "$sdlora" $verb > "$out/result" 2> "$out/log" &
    pid=$!
    tries=0
    while [ ! -s "$out/log" ] && [ $tries -lt 300 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -INT $pid
    wait $pid
    status=$?
    if [ $status -ne 130 ] || [ -s "$out/result" ] || ! grep -q '^stopped$' "$out/log"; then
        printf 'interrupted %s: status %s, and:\n' "$verb" $status
        cat "$out/result" "$out/log"
        failures=$((failures + 1))
    fi
done
expect 0 '"pictures": [0-9]+, "seed": 0' eval --ckpt "$model" --data "$data" --caption_extension .txt --resolution 64 --max_token_length 150
exit $((failures > 0))
