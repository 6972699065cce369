"""The Python twin of lib/models/synthetic.c: the same weights, tensor by tensor and bit by bit, from numpy alone.

tensors(name) gives (part, name, numpy array) in the order in which the C side makes them; that order numbers the generator's
streams, so it is part of the contract.  Only architectures that a test compares stand here.  draws() are the counter-made
inputs that make_full.py and the C test share.
"""
import math
import zlib

import numpy as np

# channels, depth: per UNet level; vae: widths; *_resnets: residual blocks per down level
VAE = dict(vae=(128, 256, 512, 512), vae_resnets=2)
TINY = dict(channels=(64, 128, 128), resnets=1, vae=(32, 64, 64, 128), vae_resnets=1)
ARCHS = {
    "sd15": dict(channels=(320, 640, 1280, 1280), depth=(1, 1, 1, 0), mid_depth=1, resnets=2, context=768, te=(768, 3072, 12), **VAE),
    "sd21": dict(channels=(320, 640, 1280, 1280), depth=(1, 1, 1, 0), mid_depth=1, resnets=2, context=1024, linear=True, te=(1024, 4096, 23), **VAE),
    "sdxl": dict(channels=(320, 640, 1280), depth=(0, 2, 10), mid_depth=10, resnets=2, context=2048, vector=2816, linear=True,
                 te=(768, 3072, 12), te2=(1280, 5120, 32, 1280), **VAE),
    "tiny": dict(depth=(1, 1, 1), mid_depth=1, context=64, te=(64, 256, 6), **TINY),
    "tiny-inpaint": dict(depth=(1, 1, 1), mid_depth=1, context=64, extra=5, te=(64, 256, 6), **TINY),
    "tiny-sd2": dict(depth=(1, 1, 1), mid_depth=1, context=128, linear=True, te=(128, 512, 3), **TINY),
    "tiny-sdxl": dict(depth=(0, 1, 2), mid_depth=2, context=192, vector=96 + 6 * 256, linear=True, te=(64, 256, 3), te2=(128, 512, 3, 96), **TINY),
    "tiny-refiner": dict(depth=(0, 1, 0), mid_depth=1, context=128, vector=96 + 5 * 256, linear=True, te2=(128, 512, 3, 96), **TINY),
}
LATENTS, VOCAB, ROWS, DRAWS = 4, 49408, 77, 1024
GOLDEN = 0x9E3779B97F4A7C15  # the counter's step
CHUNK = 1 << 20              # mixed words at a time

# ---- shapes: lists of (name, mean, deviation, shape) ----


def linear(path, out, wide, bias=True):
    return [(f"{path}.weight", 0.0, 1 / math.sqrt(wide), (out, wide))] + [(f"{path}.bias", 0.0, 0.02, (out,))] * bias


def conv(path, out, wide, side):
    return [(f"{path}.weight", 0.0, 1 / math.sqrt(wide * side * side), (out, wide, side, side)), (f"{path}.bias", 0.0, 0.02, (out,))]


def norm(path, n):
    return [(f"{path}.weight", 1.0, 0.05, (n,)), (f"{path}.bias", 0.0, 0.02, (n,))]


def resnet(path, wide, out, time):
    return [*norm(f"{path}.norm1", wide), *conv(f"{path}.conv1", out, wide, 3),
            *(linear(f"{path}.time_emb_proj", out, time) if time else []),
            *norm(f"{path}.norm2", out), *conv(f"{path}.conv2", out, out, 3),
            *(conv(f"{path}.conv_shortcut", out, wide, 1) if wide != out else [])]


def attend(path, c, context):
    return [*linear(f"{path}.to_q", c, c, False), *linear(f"{path}.to_k", c, context, False),
            *linear(f"{path}.to_v", c, context, False), *linear(f"{path}.to_out.0", c, c)]


def transformer(a, path, c, depth):
    rows = norm(f"{path}.norm", c)
    for end in ("proj_in", "proj_out"):
        rows += linear(f"{path}.{end}", c, c) if a.get("linear") else conv(f"{path}.{end}", c, c, 1)
    for d in range(depth):
        b = f"{path}.transformer_blocks.{d}"
        for i in (1, 2, 3):
            rows += norm(f"{b}.norm{i}", c)
        rows += [*attend(f"{b}.attn1", c, c), *attend(f"{b}.attn2", c, a["context"]),
                 *linear(f"{b}.ff.net.0.proj", 8 * c, c), *linear(f"{b}.ff.net.2", c, 4 * c)]
    return rows


def unet(a):
    ch, depth, last = a["channels"], a["depth"], len(a["channels"]) - 1
    time = 4 * ch[0]

    def res_attn(block, j, wide, out, d):
        return resnet(f"{block}.resnets.{j}", wide, out, time) + (transformer(a, f"{block}.attentions.{j}", out, d) if d else [])

    rows = [*linear("time_embedding.linear_1", time, ch[0]), *linear("time_embedding.linear_2", time, time)]
    if a.get("vector"):
        rows += [*linear("add_embedding.linear_1", time, a["vector"]), *linear("add_embedding.linear_2", time, time)]
    rows += conv("conv_in", ch[0], LATENTS + a.get("extra", 0), 3)
    c, skip = ch[0], [ch[0]]
    for i in range(last + 1):
        for j in range(a["resnets"]):
            rows += res_attn(f"down_blocks.{i}", j, c, ch[i], depth[i])
            c = ch[i]
            skip.append(c)
        if i < last:
            rows += conv(f"down_blocks.{i}.downsamplers.0.conv", c, c, 3)
            skip.append(c)
    rows += res_attn("mid_block", 0, c, c, a["mid_depth"]) + resnet("mid_block.resnets.1", c, c, time)
    for i in range(last, -1, -1):
        for j in range(a["resnets"] + 1):
            rows += res_attn(f"up_blocks.{last - i}", j, c + skip.pop(), ch[i], depth[i])
            c = ch[i]
        if i > 0:
            rows += conv(f"up_blocks.{last - i}.upsamplers.0.conv", c, c, 3)
    return rows + norm("conv_norm_out", c) + conv("conv_out", LATENTS, c, 3)


def vae_middle(half, c):
    rows = resnet(f"{half}.mid_block.resnets.0", c, c, 0) + norm(f"{half}.mid_block.attentions.0.group_norm", c)
    for leaf in ("to_q", "to_k", "to_v", "to_out.0"):
        rows += linear(f"{half}.mid_block.attentions.0.{leaf}", c, c)
    return rows + resnet(f"{half}.mid_block.resnets.1", c, c, 0)


def vae(a):
    widths, last = a["vae"], len(a["vae"]) - 1
    c, top = widths[0], widths[-1]
    rows = conv("encoder.conv_in", c, 3, 3)
    for i in range(last + 1):
        for j in range(a["vae_resnets"]):
            rows += resnet(f"encoder.down_blocks.{i}.resnets.{j}", c, widths[i], 0)
            c = widths[i]
        if i < last:
            rows += conv(f"encoder.down_blocks.{i}.downsamplers.0.conv", c, c, 3)
    rows += [*vae_middle("encoder", top), *norm("encoder.conv_norm_out", top), *conv("encoder.conv_out", 2 * LATENTS, top, 3),
             *conv("quant_conv", 2 * LATENTS, 2 * LATENTS, 1), *conv("post_quant_conv", LATENTS, LATENTS, 1),
             *conv("decoder.conv_in", top, LATENTS, 3), *vae_middle("decoder", top)]
    for i in range(last, -1, -1):
        for j in range(a["vae_resnets"] + 1):
            rows += resnet(f"decoder.up_blocks.{last - i}.resnets.{j}", c, widths[i], 0)
            c = widths[i]
        if i > 0:
            rows += conv(f"decoder.up_blocks.{last - i}.upsamplers.0.conv", c, c, 3)
    return rows + norm("decoder.conv_norm_out", widths[0]) + conv("decoder.conv_out", 3, widths[0], 3)


def text(encoder):
    w, mlp, layers, pooled = (*encoder, 0)[:4]
    rows = [("text_model.embeddings.token_embedding.weight", 0.0, 0.1, (VOCAB, w)),
            ("text_model.embeddings.position_embedding.weight", 0.0, 0.1, (ROWS, w))]
    for i in range(layers):
        b = f"text_model.encoder.layers.{i}"
        rows += norm(f"{b}.layer_norm1", w)
        for leaf in ("q_proj", "k_proj", "v_proj", "out_proj"):
            rows += linear(f"{b}.self_attn.{leaf}", w, w)
        rows += [*norm(f"{b}.layer_norm2", w), *linear(f"{b}.mlp.fc1", mlp, w), *linear(f"{b}.mlp.fc2", w, mlp)]
    return rows + norm("text_model.final_layer_norm", w) + (linear("text_projection", pooled, w, False) if pooled else [])


# in the order of the streams
PARTS = (("unet", unet), ("vae", vae), ("te", lambda a: text(a["te"]) if "te" in a else []), ("te2", lambda a: text(a["te2"]) if "te2" in a else []))

# ---- numbers ----


def mixed(x):
    """The finaliser of splitmix64 on an array of uint64, in place."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def numbers(seed, stream, mean, deviation, n, dtype=np.float16):
    """n elements of one tensor: 1024 evenly spaced values; four elements take 10 bits each of one mixed word."""
    i = np.arange(DRAWS, dtype=np.float64)
    table = (mean + deviation * math.sqrt(3.0) * (2.0 * (i + 0.5) / DRAWS - 1.0)).astype(np.float32).astype(dtype)
    out = np.empty((n + 3) // 4 * 4, dtype)
    key, step = np.uint64(seed ^ stream << 40), np.uint64(4 * GOLDEN & (1 << 64) - 1)
    for lo in range(0, len(out) // 4, CHUNK):
        r = mixed(np.arange(lo, min(lo + CHUNK, len(out) // 4), dtype=np.uint64) * step + key)
        fields = r.view("<u2") & (DRAWS - 1)  # 16 bits apart, lowest first
        out[4 * lo:4 * lo + len(fields)] = table[fields]
    return out[:n]


def tensors(arch, seed=0, dtype=np.float16, only=None):
    stream = 0
    for part, rows in PARTS:
        for name, mean, deviation, shape in rows(ARCHS[arch]):
            if only in (None, part):
                yield part, name, numbers(seed, stream, mean, deviation, math.prod(shape), dtype).reshape(shape)
            stream += 1


def crc(name, x):
    """CRC-32 of a tensor's name, its dimensions as little-endian 64-bit numbers, and its bytes."""
    return zlib.crc32(memoryview(x).cast("B"), zlib.crc32(np.array(x.shape, "<i8").tobytes(), zlib.crc32(name.encode())))


# ---- what inputs and digests are made of, addressed by name ----


def words(name, n):
    return mixed(np.arange(n, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(zlib.crc32(name.encode()) << 32))


def draws(name, shape, deviation=1.0):
    """Uniform numbers of mean 0, float32."""
    u = (words(name, math.prod(shape)) >> np.uint64(40)).astype(np.float64)  # 24 bits
    return (((u + 0.5) / (1 << 23) - 1.0) * (deviation * math.sqrt(3.0))).astype(np.float32).reshape(shape)


def digest(x, signs=16, elements=64):
    """What is kept of a large tensor, float32: its norm, its products with `signs` vectors of +-1, and x[k n / elements].

    The vectors' numbers are independent, so the root mean square of the differences of two digests' products is what the
    Euclidean distance of the tensors is expected to be, whatever the difference looks like."""
    x = np.ascontiguousarray(x, np.float32).reshape(-1)
    wide, w = x.astype(np.float64), words("signs", x.size)
    products = [wide.sum() - 2 * wide[(w >> np.uint64(j) & np.uint64(1)).astype(bool)].sum() for j in range(signs)]
    picked = x[np.arange(elements, dtype=np.int64) * x.size // elements]
    return np.concatenate([[np.sqrt((wide * wide).sum())], products, picked]).astype(np.float32)
