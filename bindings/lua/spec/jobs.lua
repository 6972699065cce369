-- SPDX-License-Identifier: MIT
-- Training and drawing: progress, cancel, errors in callbacks.  Argument: the source tree.
local sdlora = require "sdlora"

local root = arg[1]
local pictures = root .. "/examples/data/openmoji-style/train/10_openmoji/"
local dir = os.tmpname()
os.remove(dir)
local some, one = dir .. "/some", dir .. "/one"
assert(os.execute(("mkdir -p %s %s && cp %s[bc]*.* %s && cp %segg.* %s"):format(some, one, pictures,
                                                                              some, pictures, one)))
local ctx = sdlora.Context()
local ckpt = sdlora.Checkpoint(ctx, root .. "/examples/data/tinysd/tinysd.safetensors")
local settings = {resolution = 64, caption_extension = ".txt", train_batch_size = 2,
                  train_data_dir = some}
local data = sdlora.Dataset(ctx, settings)
settings.train_data_dir = one
local held_out = sdlora.Dataset(ctx, settings)

local function trainer(more)
    local options = {unet_lr = 1e-3, max_train_steps = 3, seed = 0, output_dir = dir}
    for name, value in pairs(more or {}) do options[name] = value end
    local net = sdlora.Network(ckpt, {network_dim = 4})
    return sdlora.Trainer(ckpt, net, data, options), net
end

-- steps
local t, net = trainer{validation = held_out}
local seen = {}
for now in t:steps() do
    seen[#seen + 1] = now.step
    assert(now.total == 3 and now.loss == now.loss and now.unet_lr == 1e-3)
end
assert(#seen == 3 and seen[3] == 3 and t:step() == nil)
assert(t:validate() > 0)
assert(t:network():modules() == net:modules())
t:save(dir .. "/saved.safetensors")
assert(sdlora.open_network(ckpt, dir .. "/saved.safetensors"):metadata("ss_network_dim") == "4")

-- run: progress, cancel, errors
seen = {}
t = trainer{progress = function(now) if now.phase == "train" then seen[#seen + 1] = now.step end end}
t:run()
assert(#seen == 3)
t = trainer{progress = function(now) return now.phase == "train" and now.step == 2 end}
local ok, text = pcall(t.run, t)
assert(not ok and text:find("ECANCELED (-8)", 1, true))
assert(t:step().step == 3 and t:step() == nil) -- it goes on from there
local mine = {}
t = trainer{progress = function(now) if now.phase == "train" then error(mine) end end}
ok, text = pcall(t.run, t)
assert(not ok and text == mine) -- the very error, not its text
t = trainer{progress = function(now) if now.phase == "train" then t:step() end end}
ok, text = pcall(t.run, t)
assert(not ok and text:find("running already", 1, true))
t = trainer{progress = function(now) if now.phase == "train" then t:close() end end}
ok, text = pcall(t.run, t)
assert(not ok and text:find("cancel it first", 1, true))

-- phases of a step; jobs without a handle
seen = {}
t = trainer{validation = held_out, max_train_steps = 1, progress = function(now)
    if now.phase ~= "latents" then seen[#seen + 1] = now.phase .. now.phase_done .. now.phase_total end
end}
t:step()
assert(table.concat(seen, " ") == "save01 save11 validate01 validate11")
local loss = sdlora.evaluate(ckpt, held_out)
seen = {}
assert(sdlora.evaluate(ckpt, held_out, nil, {progress = function(now) seen[#seen + 1] = now.phase end})
       == loss)
assert(seen[#seen] == "validate" and seen[#seen - 1] == "validate")
ok, text = pcall(sdlora.evaluate, ckpt, held_out, {}, {progress = function() return true end})
assert(not ok and text:find("ECANCELED (-8)", 1, true))
ok, text = pcall(sdlora.evaluate, ckpt, held_out, {}, {progress = function() error(mine) end})
assert(not ok and text == mine)
seen = {}
ok, text = pcall(ckpt.bench, ckpt, ctx, {what = "text", repeats = 1, progress = function(now)
    seen[#seen + 1] = now.phase
    return now.phase == "text"
end})
assert(not ok and text:find("ECANCELED (-8)", 1, true) and text:find("run 0 of 2 of text", 1, true))
assert(seen[1] == "machine" and seen[#seen] == "text")
seen = {}
local report = sdlora.plan(ctx, ckpt, net, data, {max_train_steps = 7, progress = function(now)
    seen[#seen + 1] = now.phase
end})
assert(report:find('"steps": 7,', 1, true) and report:find('"peak": %d+'))
assert(#seen > 2 and seen[1] == "plan")
ok, text = pcall(sdlora.plan, ctx, ckpt, net, data, {progress = function() error(mine) end})
assert(not ok and text == mine)

-- states
t = trainer()
t:step()
t:save_state(dir .. "/state")
t = trainer()
t:resume(dir .. "/state")
assert(t:step().step == 2)

-- drawing
local calls = 0
local g = sdlora.Generator(ckpt, {progress = function(_, total)
    calls = calls + 1
    assert(total == 4)
end})
local draw = {prompt = "red apple, fruit", width = 64, height = 64, steps = 4, seed = 3}
local plain = g:run(draw)[1]
assert(calls == 4 and plain:width() == 64 and plain:text():find("red apple", 1, true))
draw.count = 2
assert(#g:run(draw) == 2)
local again = sdlora.Options("generate")
assert(again:from_infotext(ctx, plain:text()) == "" and g:match(ctx, again, plain:text()) == "")
local repeated = g:run(again)[1]
assert(repeated:data() == plain:data() and repeated:text() == plain:text())
draw.count = 1
g:set_network(net)
assert(g:run(draw)[1]:data() ~= plain:data())
g:set_network(net, 0, 0)
assert(g:run(draw)[1]:data() == plain:data())
g:set_refiner(sdlora.Checkpoint(ctx, "synthetic:tiny"))
assert(g:run(draw)[1]:text():find("Refiner: ", 1, true))
g:set_refiner(nil)
assert(g:run(draw)[1]:text() == plain:text())
local twice = sdlora.Generator(ckpt)
draw.enable_hr, draw.hr_scale = true, 1
twice:set_hr_checkpoint(ckpt)
local second = twice:run(draw)[1]:text()
assert(second:find("Hires checkpoint: ", 1, true))
twice:set_hr_checkpoint(nil)
twice:add_ckpt_dir(root .. "/examples/data/tinysd")
draw.hr_checkpoint_name = "tinysd"
assert(twice:run(draw)[1]:text() == second)
draw.enable_hr, draw.hr_scale, draw.hr_checkpoint_name = nil, nil, nil
g:add_lora_dir(dir)
draw.prompt = "red apple, fruit <lora:saved:1>"
assert(g:run(draw)[1]:data() ~= plain:data())
sdlora.Network(ckpt, {token_string = "applish", init_word = "apple"}):save(dir .. "/applish.pt")
g:add_embeddings(dir .. "/applish.pt")
draw.prompt = "red applish, fruit"
assert(g:run(draw)[1]:data() == plain:data())
calls = 0
g:set_init_image(plain)
draw.denoising_strength = 0.75
assert(g:run(draw)[1]:data() ~= plain:data() and calls == 4) -- int(0.75 * 4) + 1
g:set_mask(plain)
g:set_init_image(nil)
assert(not pcall(g.run, g, draw)) -- a mask of nothing
g:set_mask()
assert(g:run(draw)[1]:data() == plain:data())
draw.prompt = "heart"
g = sdlora.Generator(ckpt, {progress = function() error("enough") end})
ok, text = pcall(g.run, g, draw)
assert(not ok and text:find("enough", 1, true))

-- callbacks run on the coroutine that made the call
local from = nil
g = sdlora.Generator(ckpt, {progress = function() from = coroutine.running() end})
local thread = coroutine.create(function() return g:run{prompt = "heart", width = 64, height = 64,
                                                        steps = 1, seed = 1} end)
assert(coroutine.resume(thread))
assert(from == thread)

-- log lines: on this thread, when a call returns, and in a long one with its progress
local lines = {}
local function keep(level, text) lines[#lines + 1] = level .. ": " .. text end
local odd = {prompt = "heart <lora:x:abc>", width = 64, height = 64, steps = 1, seed = 1}
g = sdlora.Generator(ckpt)
g:run(odd)
assert(#lines == 0)
ctx:set_log(keep)
g:run(odd)
assert(#lines == 1 and lines[1]:find("^warn: <lora:x> is skipped"), lines[1])
ctx:set_log(keep, "error")
g:run(odd)
assert(#lines == 1)
local warned
ctx:set_log(function() warned = true; error("in the log") end)
assert(#g:run(odd) == 1 and warned) -- no harm to the call
assert(not pcall(ctx.set_log, ctx, keep, "loud") and not pcall(ctx.set_log, ctx, 1))
ctx:set_log(nil)
warned = false
g:run(odd)
assert(not warned)

lines, seen = {}, {}
ctx:set_log(keep, "warn")
local prompts = dir .. "/prompts.txt"
assert(io.open(prompts, "w")):write("heart --w 64 --h 64 --s 1\n"):close()
t = trainer{max_train_steps = 2, sample_prompts = prompts, sample_every_n_steps = 1,
            progress = function(now) if now.phase == "train" then seen[now.step] = #lines end end}
os.remove(prompts)
t:run()
assert(seen[1] == 1 and seen[2] == 2 and lines[1]:find("no samples at step 1", 1, true), lines[1])
ok, text = pcall(sdlora.Checkpoint, ctx, "/nonexistent")
assert(not ok and text:find("ENOTFOUND (-7)", 1, true))
t, g = nil, nil
collectgarbage()

assert(sdlora.samplers()[1] and sdlora.schedulers()[1])
assert(os.execute("rm -r '" .. dir .. "'"))
