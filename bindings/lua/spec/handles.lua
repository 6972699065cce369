-- SPDX-License-Identifier: MIT
-- Options, errors, lifetimes, pictures, data sets.  Argument: the source tree.
local sdlora = require "sdlora"

local root = arg[1]
local model = root .. "/examples/data/tinysd/tinysd.safetensors"
local pictures = root .. "/examples/data/openmoji-style/train"

local function fails(words, f, ...)
    local ok, text = pcall(f, ...)
    assert(not ok, "no error")
    for word in words:gmatch("[^|]+") do
        assert(tostring(text):find(word, 1, true), ("%q lacks %q"):format(tostring(text), word))
    end
end

-- options
local o = sdlora.Options("train", {unet_lr = 1e-4, max_train_steps = 7, save_state = true,
                                   optimizer_args = {"weight_decay=0.1", "eps=1e-8"}})
assert(o:kind() == "train")
assert(o:get("unet_lr") == "0.0001" and o:get("max_train_steps") == "7")
assert(o:get("save_state") == "true" and o:get("lr_scheduler") == "constant")
assert(o:get("optimizer_args") == "weight_decay=0.1\neps=1e-8")
assert(o:get("output_name") == nil)
o:set("max_train_steps", 8.0) -- a whole number, whatever Lua calls it
assert(o:get("max_train_steps") == "8")
fails("ENOTFOUND (-7)|unet_rl|unet_lr", o.set, o, "unet_rl", 1)
fails("EINVAL (-3)|lr_scheduler|cosine", o.set, o, "lr_scheduler", "cosinus")
fails("EINVAL (-3)|max_train_steps", o.set, o, "max_train_steps", 1.5)
fails("option unet_lr|function", o.set, o, "unet_lr", print)
fails("ENOTFOUND", sdlora.Options, "no such kind")
fails("key is a number", sdlora.Options, "train", {1, 2})
local rows = {}
for _, row in ipairs(sdlora.option_rows("train")) do rows[row.name] = row end
assert(rows.unet_lr.type == "real" and rows.max_train_steps.default == "1600")
assert(#sdlora.option_rows() > #sdlora.option_rows("train"))
fails("ENOTFOUND", sdlora.option_rows, "no such kind")

-- contexts and models
local ctx = sdlora.Context()

-- networks of networks
do
    local file = root .. "/tests/golden/tools/a.safetensors"
    local net, done = sdlora.open_network(sdlora.checkpoint_for_network(ctx, file), file), -1
    local small = sdlora.resize(net, {new_rank = 3, progress = function(now) done = now.phase_done end})
    assert(small:metadata("ss_network_dim") == "3" and done == net:modules())
    local both = sdlora.merge({{net, 1, 0.5}, {small, -1, 2}}, {new_rank = 5})
    assert(both:metadata("ss_network_dim") == "5" and both:modules() == net:modules())
    fails("EINVAL (-3)|new_rank", sdlora.merge, {{net, 1, 1}}, {method = "average", new_rank = 2})
    local base, out = sdlora.Checkpoint(ctx, model), os.tmpname() .. ".safetensors"
    sdlora.merge_file(base, {{sdlora.open_network(base, file), 1, 1}}, out, {save_precision = "float"})
    local found = sdlora.extract(sdlora.Checkpoint(ctx, out), base, {mode = "fixed", dim = 8})
    assert(found:modules() == net:modules())
    os.remove(out)
end
assert(#ctx:devices() >= 1 and ctx:devices()[1].threads >= 1)
assert(type(ctx:device_notes()) == "table")
assert(sdlora.version():match("^%d+%.%d+%.%d+$"))
local ids = ctx:tokenize("a cat")
assert(#ids == 2 and ids[1] == 320 and ids[2] == 2368) -- CLIP's vocabulary
local ckpt = sdlora.Checkpoint(ctx, model)
assert(ckpt:family() == "sd1" and ckpt:layout() == "ldm" and ckpt:path() == model)
assert(ctx:file_info(model):find('"sd1"', 1, true))

-- tools on files
do
    local name = os.tmpname()
    local pruned = name .. ".safetensors"
    os.remove(name)
    assert(ctx:prune(model, pruned, {save_precision = "bf16"}):find('"verified": true', 1, true))
    assert(ctx:hash(pruned):find('"autov2"', 1, true))
    assert(ctx:check(pruned):find('"ok": true', 1, true))
    ctx:set_metadata(pruned, "ss_output_name", "mine")
    assert(ctx:metadata(pruned, "ss_output_name") == "mine")
    assert(not pcall(ctx.convert, ctx, pruned, pruned, {layout = "no"}))
    os.remove(pruned)
end
assert(ctx:memory_peak() >= ctx:memory_used() and ctx:memory_used() > 0)
fails("ENOTFOUND (-7)|/nonexistent", sdlora.Checkpoint, ctx, "/nonexistent")
fails("sdlora.Context", sdlora.Checkpoint, ckpt, model) -- the wrong class
fails("sdlora.Checkpoint", sdlora.Network, nil)

-- networks
local name = os.tmpname()
os.remove(name)
name = name .. ".safetensors"
local net = sdlora.Network(ckpt, {network_dim = 4, network_alpha = 2}, 5)
assert(net:modules() > 0 and net:name() == "")
net:save(name, "fp16")
local again = sdlora.open_network(ckpt, name)
assert(again:modules() == net:modules() and again:metadata("no such key") == nil)
assert(ckpt:merge{{again, 1, 0.5}}:family() == "sd1")
os.remove(name)
fails("not negative", sdlora.Network, ckpt, {}, -1)

-- data sets
local data = sdlora.Dataset(ctx, {train_data_dir = pictures, resolution = 64,
                                  caption_extension = ".txt", train_batch_size = 4})
assert(#data == 24 and data:images() == 24 and data:views() == 240)
assert(data:batches_per_epoch() == 60 and #data:notes() == 0)
local item = data:item(1)
assert(item.bucket_width == 64 and item.repeats == 10 and #item.caption > 0)
fails("no such picture", data.item, data, 0)
fails("no such picture", data.item, data, 25)

-- pictures
local rgb = ("\1\2\3"):rep(6)
local img = sdlora.Image(ctx, 3, 2, rgb)
assert(img:width() == 3 and img:height() == 2 and img:data() == rgb and img:text() == "")
img:save(name .. ".png")
assert(sdlora.open_image(ctx, name .. ".png"):data() == rgb)
os.remove(name .. ".png")
fails("width * height * 3", sdlora.Image, ctx, 3, 3, rgb)
local told = img:with_text("a cat\nSteps: 5, Sampler: Euler, Seed: 7, Other: 1")
for _, ending in ipairs {".png", ".jpg", ".webp"} do
    told:save(name .. ending, 90)
    assert(sdlora.open_image(ctx, name .. ending):text() == told:text())
    assert(sdlora.read_text(ctx, name .. ending) == told:text())
    os.remove(name .. ending)
end
fails("written as", told.save, told, name .. ".gif")
fails("no quality", told.save, told, name .. ".jpg", 102)
assert(next(told:texts()) == nil)
local from = sdlora.Options("generate")
assert(from:from_infotext(ctx, told:text()) == "")
assert(from:get("prompt") == "a cat" and from:get("steps") == "5" and from:get("seed") == "7")
assert(from:get("infotext_extra") == "Other: 1")
local tile = sdlora.Image(ctx, 64, 64, ("\0"):rep(64 * 64 * 3))
local sheet = sdlora.sheet(ctx, {{tile, tile}, {tile, tile}}, {"a", "b"}, {"0", "1"})
assert(sheet:width() >= 128 and sheet:height() >= 128)
fails("labels", sdlora.sheet, ctx, {{tile}}, {"a", "b"})
fails("different lengths", sdlora.sheet, ctx, {{tile, tile}, {tile}})
fails("no pictures", sdlora.sheet, ctx, {})

-- lifetimes
do
    local early <close> = sdlora.Context{threads = 1}
    assert(#early:devices() == 1)
end
local closed = sdlora.Context()
closed:close()
closed:close()
fails("closed", closed.devices, closed)
fails("not a handle", closed.close, io.stdout)
fails("not a handle", closed.close, 1)
ctx:close() -- what was made from it lives on
assert(sdlora.Network(ckpt):modules() == net:modules())
for _ = 1, 200 do sdlora.Options("train") end
collectgarbage()
