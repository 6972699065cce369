# SPDX-License-Identifier: MIT
"""Makes the seeds of this folder: small files that reach each rule of the reader."""
import struct

U8 = '"dtype":"U8","shape":[%s],"data_offsets":[%d,%d]'
SEEDS = {
    "plain": ('{"__metadata__":{"k":"v","l":""},"a":{%s},"b":{%s}}   ' %
              (U8 % ("2,3", 0, 6), U8 % ("", 6, 7)), 7),
    "order": ('{"b":{%s},"a":{%s},"c":{%s}}' % (U8 % ("1", 2, 3), U8 % ("2", 0, 2),
                                              U8 % ("0", 2, 2)), 3),
    "escapes": ('{"\\u00e9\\ud83d\\ude00\\n\\"\\/\u4e2d":{%s}}' % (U8 % ("0", 0, 0)), 0),
    "opaque": ('{"x":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},"y":{"dtype":"ZZ",'
               '"shape":[1],"data_offsets":[1,2]}}', 3),
    "overflow": ('{"a":{%s}}' % (U8 % ("0,4611686018427387904,4611686018427387904", 0, 0)), 0),
    "twice": ('{"a":{%s},"\\u0061":{%s}}' % (U8 % ("0", 0, 0), U8 % ("0", 0, 0)), 0),
    "number": ('{"a":{"dtype":"F16","shape":[1e3],"data_offsets":[-0,01]}}', 0),
    "deep": ('{"a":' + "[" * 40, 0),
}

for name, (json, n) in SEEDS.items():
    head = json.encode()
    with open(name, "wb") as out:
        out.write(struct.pack("<Q", len(head)) + head + bytes(range(n)))
with open("length", "wb") as out:
    out.write(struct.pack("<Q", 1 << 62) + b"{}")
