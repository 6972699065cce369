# SPDX-License-Identifier: MIT
"""What rivals.py starts in other interpreters: a rival that holds one model and answers on standard input and output.

    rivals_worker.py checkpoint FILE              writes SD 1.5 with the counter-made weights, f16, LDM names, one file
    rivals_worker.py torch CKPT THREADS           answers requests, each a line of JSON, with a line of JSON
    rivals_worker.py to-openvino CKPT PART XML    PART: unet, vae (needs torch, diffusers and openvino in one interpreter)
    rivals_worker.py openvino XML THREADS         answers requests (needs openvino and numpy)

A request is {"do": "prepare", ...} with what the two prepare() below read, or {"do": "time", "repeats": n}.  The answer has "seconds",
a list, or "error", a sentence.  Knows how each rival is asked to be fast; the comparison is made in rivals.py.
"""
import json
import os
import re
import sys
import time

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
PREFIX = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "te": "cond_stage_model.transformer."}
TOKENS = 77

# ---- names: diffusers -> LDM; a number in a pattern is a level or the place of a layer in it ----

UNET_LEAVES = [("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
               ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection")]
VAE_LEAVES = [("conv_shortcut", "nin_shortcut"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
              ("to_out.0", "proj_out"), ("conv_norm_out", "norm_out")]


def unet_name(name, resnets=2):
    down, up = resnets + 1, resnets + 1
    rules = [
        (r"time_embedding\.linear_(\d)", lambda m: f"time_embed.{2 * (int(m[1]) - 1)}"),
        (r"conv_in", lambda m: "input_blocks.0.0"), (r"conv_norm_out", lambda m: "out.0"), (r"conv_out", lambda m: "out.2"),
        (r"down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"input_blocks.{down * int(m[1]) + int(m[2]) + 1}.0"),
        (r"down_blocks\.(\d)\.attentions\.(\d)", lambda m: f"input_blocks.{down * int(m[1]) + int(m[2]) + 1}.1"),
        (r"down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{down * (int(m[1]) + 1)}.0.op"),
        (r"mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
        (r"mid_block\.attentions\.0", lambda m: "middle_block.1"),
        (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"output_blocks.{up * int(m[1]) + int(m[2])}.0"),
        (r"up_blocks\.(\d)\.attentions\.(\d)", lambda m: f"output_blocks.{up * int(m[1]) + int(m[2])}.1"),
        # after the attention where the level has one; the lowest has none
        (r"up_blocks\.(\d)\.upsamplers\.0\.conv", lambda m: f"output_blocks.{up * int(m[1]) + resnets}.{1 if m[1] == '0' else 2}.conv"),
    ]
    for pattern, to in rules:
        m = re.match(pattern + r"(?=\.)", name)
        if m:
            rest = name[m.end():]
            if ".resnets." in m[0]:
                rest = renamed(rest, UNET_LEAVES)
            return to(m) + rest
    raise KeyError(name)


def vae_name(name, levels=4):
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    return renamed(name.replace("mid_block.attentions.0", "mid.attn_1"), VAE_LEAVES)


def renamed(name, table):
    for a, b in table:
        name = re.sub(rf"(^|\.){re.escape(a)}(?=\.)", lambda m, b=b: m[1] + b, name)
    return name


def write_checkpoint(path):
    """The same bits as `sdlora bench --model sd15` computes with."""
    sys.path.insert(0, GOLDEN)
    import synthetic
    from safetensors.numpy import save_file
    to, out = {"unet": unet_name, "vae": vae_name, "te": lambda n: n}, {}
    for part, name, x in synthetic.tensors("sd15"):
        if part == "vae" and re.search(r"attentions\.0\.to_.*weight", name):
            x = x.reshape(*x.shape, 1, 1)  # LDM keeps the autoencoder's attention as 1x1 convolutions
        out[PREFIX[part] + to[part](name)] = x
    save_file(out, path + ".part")
    os.replace(path + ".part", path)


# ---- torch ----


def load(ckpt, part, dtype):
    """One part of an LDM file as diffusers builds it, frozen."""
    import torch
    sys.path.insert(0, GOLDEN)
    import oracle
    from safetensors import safe_open
    with safe_open(ckpt, "pt") as f:
        sd = {k: f.get_tensor(k) for k in f.keys() if k.startswith(PREFIX[part])}
    if part == "te":
        return oracle.text_model(sd)
    make, config, convert = {
        "unet": (oracle.UNet2DConditionModel, oracle.unet_config, oracle.convert_ldm_unet_checkpoint),
        "vae": (oracle.AutoencoderKL, oracle.vae_config, oracle.convert_ldm_vae_checkpoint)}[part]
    config = config(sd)
    named = convert(sd, {**config, "class_embed_type": None})
    with torch.device("meta"):
        model = make(**config)
    model.load_state_dict(named, strict=True, assign=True)
    return model.to(dtype).eval().requires_grad_(False)


class Torch:
    """One workload in one variant.  math: f32; autocast (f32 weights); mixed (bf16 weights, f32 LoRA, autocast); bf16 (all of it)."""

    def __init__(self, ckpt, threads):
        import torch
        self.torch, self.ckpt, self.model = torch, ckpt, {}
        torch.set_num_threads(int(threads))
        torch.manual_seed(0)

    def get(self, part, math):
        dtype = self.torch.float32 if math in ("f32", "autocast") else self.torch.bfloat16
        if (part, dtype) not in self.model:
            self.model[part, dtype] = load(self.ckpt, part, dtype)
        return self.model[part, dtype]

    def prepare(self, work, math, channels_last, compiled, batch, side):
        torch = self.torch
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.dtype = torch.bfloat16 if math == "bf16" else torch.float32
        self.cast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=math in ("autocast", "mixed"))
        self.x = torch.randn(batch, 4, side // 8, side // 8).to(self.dtype).to(memory_format=layout)
        self.t = torch.full((batch,), 500)
        make = torch.compile if compiled else lambda f: f
        if work == "vae_decode":
            model = self.get("vae", math).to(memory_format=layout)
            f = make(lambda x: model.decode(x, return_dict=False)[0])
            self.run = self.infer(lambda: f(self.x))
        elif work in ("forward", "step"):
            unet = self.get("unet", math).to(memory_format=layout)
            ctx = torch.randn(batch, TOKENS, unet.config.cross_attention_dim).to(self.dtype)
            f = make(lambda x, t, c: unet(x, t, c, return_dict=False)[0])
            if work == "forward":
                self.run = self.infer(lambda: f(self.x, self.t, ctx))
            else:
                opt = self.train(self.attach(unet, "lora_unet_", ("Transformer2DModel",)), math)
                self.run = self.step(lambda: f(self.x, self.t, ctx), opt, None)
        else:
            self.run = self.tiny(make, math, layout, batch)
        return {"threads": torch.get_num_threads(), "version": torch.__version__}

    def infer(self, f):
        def run():
            with self.torch.inference_mode(), self.cast():
                f()
        return run

    def attach(self, model, prefix, containers):
        if not hasattr(model, "nets"):  # a second variant of one process trains on
            sys.path.insert(0, GOLDEN)
            import train_tinysd
            model.nets = list(train_tinysd.attach(model, prefix, containers).values())
        return model.nets

    def train(self, nets, math, lr=1e-4):
        for n in nets:
            n.to(self.torch.bfloat16 if math == "bf16" else self.torch.float32)
        return {"params": [p for n in nets for p in n.parameters()], "lr": lr}

    def step(self, f, group, clip):
        torch = self.torch
        groups = group if isinstance(group, list) else [group]
        opt = torch.optim.AdamW(groups, weight_decay=1e-2)
        every = [p for g in groups for p in g["params"]]
        target = torch.randn_like(self.x).float()

        def run():
            with self.cast():
                eps = f()
            torch.nn.functional.mse_loss(eps.float(), target).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(every, clip)
            opt.step()
            opt.zero_grad()
        return run

    def tiny(self, make, math, layout, batch):
        """The quickstart's step with latents at hand: UNet and text encoder are trained, as in tests/golden/train_tinysd.py."""
        sys.path.insert(0, GOLDEN)
        import oracle
        unet, te = self.get("unet", math).to(memory_format=layout), self.get("te", "f32")
        te = te.to(self.torch.bfloat16 if math in ("bf16", "mixed") else self.torch.float32)
        ids = self.torch.randint(0, 49000, (batch, TOKENS))
        groups = [self.train(self.attach(te, "lora_te_", ("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP")), math, 5e-4),
                  self.train(self.attach(unet, "lora_unet_", ("Transformer2DModel",)), math, 1e-3)]
        f = make(lambda x, t, i: unet(x, t, oracle.text_states(te, i).to(self.dtype), return_dict=False)[0])
        return self.step(lambda: f(self.x, self.t, ids), groups, 1.0)


# ---- OpenVINO ----


def to_openvino(ckpt, part, xml):
    import openvino
    import torch
    model = load(ckpt, part, torch.float32)

    class Part(torch.nn.Module):  # positional arguments and a plain tensor, which the tracer wants
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x, *more):
            return self.inner(x, *more, return_dict=False)[0] if part == "unet" else self.inner.decode(x, return_dict=False)[0]

    x = torch.randn(2, 4, 16, 16)  # the tracer keeps sizes open; prepare() sets them
    more = (torch.full((2,), 500.0), torch.randn(2, TOKENS, model.config.cross_attention_dim)) if part == "unet" else ()
    with torch.inference_mode():
        out = openvino.convert_model(Part().eval(), example_input=(x, *more))
    os.makedirs(os.path.dirname(xml), exist_ok=True)
    part_bin, part_xml = (xml.removesuffix(".xml") + ".part" + end for end in (".bin", ".xml"))
    openvino.save_model(out, part_xml, compress_to_fp16=False)
    os.replace(part_bin, part_bin.replace(".part.", "."))
    os.replace(part_xml, xml)  # last, because its presence says that both are there


class OpenVino:
    def __init__(self, xml, threads):
        import openvino
        self.ov, self.xml, self.threads = openvino, xml, int(threads)

    def prepare(self, work, math, batch, side, **_):
        import numpy as np
        core = self.ov.Core()
        model = core.read_model(self.xml)
        shapes = [[batch, 4, side // 8, side // 8], [batch], [batch, TOKENS, 768]][:len(model.inputs)]
        model.reshape({p: s for p, s in zip(model.inputs, shapes)})
        compiled = core.compile_model(model, "CPU", {
            "INFERENCE_PRECISION_HINT": math, "INFERENCE_NUM_THREADS": self.threads, "PERFORMANCE_HINT": "LATENCY"})
        request = compiled.create_infer_request()
        rng = np.random.default_rng(0)
        inputs = [np.full(s, 500, np.float32) if len(s) == 1 else rng.standard_normal(s).astype(np.float32) for s in shapes]
        self.run = lambda: request.infer(inputs)
        return {"version": self.ov.__version__, "threads": compiled.get_property("INFERENCE_NUM_THREADS"),
                "precision": compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()}


# ---- requests ----


def answer(rival, request):
    if request.pop("do") == "prepare":
        start = time.perf_counter()
        told = rival.prepare(**request)
        rival.run()  # warms up, and compiles where that is lazy
        return {**told, "prepared_in": time.perf_counter() - start, "seconds": []}
    took = []
    for _ in range(request["repeats"]):
        start = time.perf_counter()
        rival.run()
        took.append(time.perf_counter() - start)
    return {"seconds": took}


def serve(rival):
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        try:
            told = answer(rival, json.loads(line))
        except Exception as e:  # whatever a library throws is the answer to this request
            told = {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"[:300]}
        print(json.dumps(told), file=out, flush=True)


def main():
    what, *args = sys.argv[1:]
    if what in ("torch", "openvino"):
        serve({"torch": Torch, "openvino": OpenVino}[what](*args))
    else:
        {"checkpoint": write_checkpoint, "to-openvino": to_openvino}[what](*args)


if __name__ == "__main__":
    main()
