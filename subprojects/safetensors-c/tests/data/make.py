# SPDX-License-Identifier: MIT
"""Makes the files of this folder with the reference writer (pip install safetensors==0.8.0).

Run it in this folder.  Files with one metadata key or none are reproduced byte for byte; the
order of several keys is that of a hash map and changes from run to run.
"""
import ctypes

import safetensors

SIZES = {"bool": 1, "uint8": 1, "int8": 1, "float8_e5m2": 1, "float8_e4m3fn": 1,
         "float8_e8m0fnu": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "int16": 2, "uint16": 2,
         "float16": 2, "bfloat16": 2, "int32": 4, "uint32": 4, "float32": 4,
         "complex64": 8, "float64": 8, "int64": 8, "uint64": 8}


def item(dtype, *shape, seed=0):
    n = SIZES[dtype]
    for dim in shape:
        n *= dim
    data = bytes((seed + 7 * i) % 2 if dtype == "bool" else (seed + 7 * i) % 251 for i in range(n))
    return dtype, list(shape), ctypes.create_string_buffer(data, max(1, n)), n


FILES = {
    "empty": ({}, None),
    "one": ({"a": item("float32", 2, 3)}, {"format": "pt"}),
    "dtypes": ({f"t_{d}": item(d, 3, seed=i) for i, d in enumerate(SIZES)}, None),
    "shapes": ({"scalar": item("float32"), "none": item("float16", 0, 5),
                "b": item("float16", 1, 2, 1, 3), "B": item("float16", 2),
                "b.a": item("float16", 1), "": item("float32", 1)}, {}),
    "escapes": ({'q"b\\s/': item("uint8", 1), "ctl\x01\x08\x09\x0a\x0c\x0d\x1f\x7f": item("uint8", 2),
                 "\u00e9\u4e2d\U0001f600": item("int8", 3)}, {"k\t\"": "v\n\\\u00fc\x1b"}),
    "lora": ({"lora_unet_x.alpha": item("float32"),
              "lora_unet_x.lora_down.weight": item("float16", 2, 4),
              "lora_unet_x.lora_up.weight": item("float16", 3, 2)},
             {"ss_network_dim": "2", "ss_network_alpha": "1", "ss_v2": "False"}),
}

for name, (tensors, metadata) in FILES.items():
    with open(name + ".safetensors", "wb") as out:
        specs = {k: safetensors.TensorSpec(dtype=d, shape=s, data_ptr=ctypes.addressof(b),
                                           data_len=n) for k, (d, s, b, n) in tensors.items()}
        out.write(safetensors.serialize(specs, metadata))
