-- SPDX-License-Identifier: MIT
-- Trains a LoRA on a folder of tagged pictures, then draws one picture with it:
--     lua5.4 train.lua CHECKPOINT PICTURES OUTPUT_DIR [option=value ...]
-- train.c and train.py do the same, to the same bytes.
local sdlora = require "sdlora"

local kinds = {"context", "dataset", "network", "train", "generate"}
local checkpoint, pictures, output_dir = arg[1], arg[2], arg[3]
if not output_dir then
    io.stderr:write("usage: ", arg[0], " CHECKPOINT PICTURES OUTPUT_DIR [option=value ...]\n")
    os.exit(2)
end

local opts, owner = {}, {}
for i = #kinds, 1, -1 do -- backwards: the first kind that has an option owns its name
    opts[kinds[i]] = {}
    for _, row in ipairs(sdlora.option_rows(kinds[i])) do owner[row.name] = kinds[i] end
end
opts.dataset.train_data_dir = pictures
opts.train.output_dir = output_dir
opts.generate.seed = 1
for i = 4, #arg do
    local name, value = arg[i]:match("^([^=]*)=?(.*)$")
    opts[owner[name] or "train"][name] = value
end

local ctx = sdlora.Context(opts.context)
local ckpt = sdlora.Checkpoint(ctx, checkpoint)
local data = sdlora.Dataset(ctx, opts.dataset)
local net = sdlora.Network(ckpt, opts.network, 0)
local trainer = sdlora.Trainer(ckpt, net, data, opts.train)
for now in trainer:steps() do
    print(string.format("step %d/%d  loss %.4f", now.step, now.total, now.average_loss))
end

local generator = sdlora.Generator(ckpt)
generator:set_network(net)
generator:run(opts.generate)[1]:save(output_dir .. "/sample.png")
