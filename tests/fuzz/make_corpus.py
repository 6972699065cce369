# SPDX-License-Identifier: MIT
"""Makes the seeds in corpus/ (torch 2.x, Pillow and safetensors are needed).  Inputs that once broke
something are added by hand beside them and stay."""
import collections
import io
import json
import pathlib
import struct
import sys
import zipfile

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save

HERE = pathlib.Path(__file__).parent / "corpus"


def put(target, name, data):
    (HERE / target).mkdir(parents=True, exist_ok=True)
    (HERE / target / name).write_bytes(data)


def torch_bytes(obj, **options):
    b = io.BytesIO()
    torch.save(obj, b, **options)
    return b.getvalue()


def exif():
    for order in "<>":
        for kind, tag in (("short", 3), ("long", 4)):
            value = struct.pack(order + ("HH" if tag == 3 else "I"), *((6, 0) if tag == 3 else (6,)))
            entry = struct.pack(order + "HHI", 0x0112, tag, 1) + value
            other = struct.pack(order + "HHII", 0x8769, 4, 1, 8)  # a directory that leads back
            head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
            name = f"{kind}_{'little' if order == '<' else 'big'}"
            put("exif", name, head + struct.pack(order + "H", 2) + other + entry + b"\0" * 4)
            put("exif", name + "_headed", b"Exif\0\0" + head + struct.pack(order + "H", 1) + entry)


def infotext():
    """Some of each program's words; the goldens have the rest."""
    sys.path.insert(0, str(HERE.parents[1] / "golden"))
    from infotext_corpus import CORPUS
    for i, text in enumerate(CORPUS[::4]):
        put("infotext", f"corpus_{4 * i:02}", text.encode())


def pictures():
    image = Image.fromarray((np.arange(11 * 7 * 3) % 256).astype(np.uint8).reshape(7, 11, 3))
    for name, text in (("latin1", "caf\u00e9"), ("unicode", "\u732b"), ("empty", "")):
        for packed in (False, True):
            info = PngImagePlugin.PngInfo()
            info.add_text("parameters", text, zip=packed)
            b = io.BytesIO()
            image.save(b, "PNG", pnginfo=info)
            put("png", f"text_{name}{'_packed' if packed else ''}", b.getvalue())
    for mode in ("L", "RGB"):
        for progressive in (False, True):
            b = io.BytesIO()
            image.convert(mode).save(b, "JPEG", progressive=progressive, quality=50)
            put("jpeg", f"{mode.lower()}{'_progressive' if progressive else ''}", b.getvalue())
    for lossless in (False, True):
        b = io.BytesIO()
        image.save(b, "WEBP", lossless=lossless, quality=50)
        put("webp", "lossless" if lossless else "lossy", b.getvalue())


def texts():
    put("json", "config", json.dumps({"a": [1, 2.5, None, True, {"b": "\u732b\"\\\n"}], "c": {}}).encode())
    put("json", "tags", '{"1_cat": {"1girl": 12, "caf\u00e9": 3}}'.encode())
    put("json", "deep", b"[" * 70 + b"]" * 70)
    put("json", "twice", b'{"a":1,"\\u0061":2}')
    put("json", "broken", b'["\xff\xed\xa0\x80\xf0\x9f\x98')


def prompts():
    put("prompt", "tags", b"a cat <lora:style:0.8> <lora:a:te=1:unet=-2:dyn=4>, <hypernet:b:1.5> <lora:c:x> <lora:c:1:1:-1> <:> <a:> <lora:d")
    put("prompt", "emphasis", b"(a (red:1.3) [cat\\]], \\(sitting\\)] :2) ((mat)) (x: +1.5 ) [[y]:3] (z:-.5) (v:1000) (u")
    put("prompt", "edit", b"a [b:[c|d||e:f]:0.25][:g:-1e1][h::.5 ]] ((i [j:3])()[ # k\n#l\n AND [m|n] :1.5 AND \\[o:p:2\\] [q:r:+2.] \\")
    put("prompt", "blocks", b"<lora:a:1:lbw=1,0,0,0.5,0,0,0,0,0,0,0,-1><lyco:b:lbw=1,2>" b"<lora:c:0.5:lbw=>")
    put("prompt", "break", b"one BREAK two, BREAKthree BREAK, (four BREAK five:1.2) BREAK")
    put("prompt", "long", b", ".join(b"word%d of the prompt" % i for i in range(40)) + b", " + b"x" * 100)
    put("prompt", "unicode", "Caf\u00e9 \u2019s \ufb01ne \uff21\u3000\u732b \u0130\u0316 e\u0301 H\u0331 \U0001f600\u200d \u0345".encode())
    put("prompt", "marks", b"&lt;b&gt; &amp;amp;#65; &eacute;&#x301; \x1b[1mbold\x1b[0m\r\n\t\x7f it's I'LL 've 42 !!!")
    put("prompt", "special", b"a<|endoftext|>b <|STARTOFTEXT|><|startoftext|> <|endoftext")
    put("prompt", "broken", b"caf\xe9 (\xc3\\\xa9:1.1) \xed\xa0\x80 \x00 after")


def weights():
    w = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    put("safetensors", "lora", save({"a.lora_down.weight": w, "a.lora_up.weight": w.half(), "a.alpha": torch.tensor(4.0)},
                                    {"ss_network_dim": "4", "ss_tag_frequency": "{}"}))
    put("safetensors", "empty", save({}))
    put("safetensors", "hole", b'\x40\0\0\0\0\0\0\0{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}'.ljust(72) + b"ab")
    objects = {
        "views": {"a": w, "t": w.t(), "s": w[1:], "e": w[:, :1].expand(2, 4)},
        "state": {"state_dict": collections.OrderedDict(w=torch.nn.Parameter(w)), "epoch": 3, "x": (1.5, None, "y", -2)},
        "embedding": {"string_to_token": {"*": 265}, "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(w)})},
        "hyper": {320: ({"w": w}, {"w": w}), "step": 4},
        "numpy": {"a": w, "n": np.arange(3), "c": torch.zeros(1, dtype=torch.complex64)},
        "f8": {"a": w.to(torch.float8_e4m3fn)},
    }
    for name, obj in objects.items():
        data = torch_bytes(obj)
        put("torchfile", name + "_zip", data)
        with zipfile.ZipFile(io.BytesIO(data)) as z:
            put("torchfile", name + "_pickle", b"P" + z.read(next(n for n in z.namelist() if n.endswith("data.pkl"))))
        if name not in ("f8", "embedding"):
            put("torchfile", name + "_legacy", torch_bytes(obj, _use_new_zipfile_serialization=False))
    put("torchfile", "protocol4_legacy", torch_bytes({"a": w, "s": {1}, "b": b"x"}, _use_new_zipfile_serialization=False,
                                                     pickle_protocol=4))


def toml():
    golden = json.loads((HERE.parent.parent / "golden" / "toml.json").read_text())["documents"]
    put("toml", "lines", "\n".join(d["text"] for d in golden if d["tree"] is not None).encode())
    put("toml", "preset", max((d["text"] for d in golden), key=len).encode())
    put("toml", "broken", "\n".join(d["text"] for d in golden if d["tree"] is None).encode())
    put("toml", "nested", b"a = " + b"[" * 60 + b"{b = 1}" + b"]" * 60)
    put("toml", "dotted", b"[" + b".".join([b"a"] * 64) + b"]\n" + b".".join([b"b"] * 64) + b" = 1")
    for i, d in enumerate(golden):
        if d["tree"] is not None and i % 4 == 0:
            put("toml", f"good_{i}", d["text"].encode())


if __name__ == "__main__":
    exif()
    infotext()
    pictures()
    texts()
    prompts()
    toml()
    weights()
