"""Pictures with generation parameters as AUTOMATIC1111 and others store them, and what AUTOMATIC1111 reads out of them.

    python make_containers.py WEBUI_CHECKOUT

infotext/*: 8x8 pixels. `a1111.*` are laid out as its save_image_with_geninfo does (Pillow, piexif); the others show encodings that cameras and other
programs use. infotext/expected.json: file -> [parameters or null, {other keyword: text}] by its images.read_info_from_image.
"""
import ast
import json
import os
import sys
import types

import piexif
import piexif.helper
from PIL import Image, PngImagePlugin

HERE = os.path.dirname(os.path.abspath(__file__))
TEXT = "red apple, (fruit:1.2)\nNegative prompt: food\nSteps: 4, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64, Model: tinysd, Version: v1.10.1"
WIDE = TEXT.replace("red apple", "赤い林檎 🍎")
LATIN = TEXT.replace("red apple", "pomme café")
NOVEL = {"Software": "NovelAI", "Source": "Stable Diffusion 1D44365E", "Title": "AI generated image", "Description": "red apple, {fruit}",
         "Comment": json.dumps({"steps": 28, "sampler": "k_euler_ancestral", "seed": 3141592653, "strength": 0.69, "noise": 0.667, "scale": 11.0, "uc": "lowres, food"})}
FORMATS = {".jpg": "JPEG", ".webp": "WEBP", ".png": "PNG"}


def picture():
    return Image.frombytes("RGB", (8, 8), bytes((x * 29 + y * 31 + c * 85) % 256 for y in range(8) for x in range(8) for c in range(3)))


def exif(comment):
    return piexif.dump({"Exif": {piexif.ExifIFD.UserComment: comment}})


def little(block):
    """The same directories in the other byte order, with the comment's bytes as they are."""
    n = int.from_bytes(block[38:42], "big")
    body, at = block[6:], int.from_bytes(block[42:46], "big")
    out = bytearray(b"II*\0" + (8).to_bytes(4, "little"))
    for tag, kind, count, value in ((0x8769, 4, 1, 26), (0x9286, 7, n, 44)):
        out += (1).to_bytes(2, "little") + tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little") + value.to_bytes(4, "little") + bytes(4)
    assert len(out) == 44
    return b"Exif\0\0" + bytes(out) + body[at:at + n]


def save(name, texts=None, comment=None, block=None, packed=(), remark=None, **how):
    path = os.path.join(HERE, "infotext", name)
    info = PngImagePlugin.PngInfo()
    for key, text in (texts or {}).items():
        if key in packed:
            info.add_text(key, text, zip=True)
        else:
            info.add_text(key, text)
    if comment is not None:
        block = exif(comment)
    if name.endswith(".png") and block:
        how["exif"] = block
    if remark:
        how["comment"] = remark
    picture().save(path, format=FORMATS[os.path.splitext(name)[1]], **({"pnginfo": info} if name.endswith(".png") else {}), **how)
    if block and not name.endswith(".png"):
        piexif.insert(block, path)


def reader(checkout):
    """read_info_from_image alone: its module needs half of the program."""
    source = open(os.path.join(checkout, "modules", "images.py")).read()
    tree = ast.parse(source)
    keep = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "read_info_from_image"
            or isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "IGNORED_INFO_KEYS"]
    samplers = types.SimpleNamespace(samplers_map={"k_euler_ancestral": "Euler a", "k_dpmpp_2m": "DPM++ 2M", "ddim": "DDIM"})
    def report(*args, **kwargs):
        raise
    scope = {"Image": Image, "piexif": piexif, "json": json, "sd_samplers": samplers, "errors": types.SimpleNamespace(report=report)}
    exec(compile(ast.Module(keep, []), "images.py", "exec"), scope)
    return scope["read_info_from_image"]


def main():
    os.makedirs(os.path.join(HERE, "infotext"), exist_ok=True)
    utf16 = piexif.helper.UserComment.dump
    save("a1111.png", {"parameters": TEXT})
    save("a1111-wide.png", {"parameters": WIDE})
    save("a1111-latin.png", {"parameters": LATIN})
    save("a1111-extras.png", {"postprocessing": "Postprocess upscale by: 4", "extras": "größer", "workflow": '{"nodes": ["本"]}', "parameters": TEXT})
    for ending in (".jpg", ".webp"):
        save("a1111" + ending, comment=utf16(TEXT, encoding="unicode"), quality=80)
        save("a1111-wide" + ending, comment=utf16(WIDE, encoding="unicode"), quality=80)
    save("a1111-lossless.webp", comment=utf16(LATIN, encoding="unicode"), lossless=True)
    save("packed.png", {"parameters": LATIN}, packed=("parameters",))
    save("exif.png", {"parameters": "old"}, comment=utf16(TEXT, encoding="unicode"))
    save("ascii.jpg", comment=utf16(TEXT, encoding="ascii"))
    save("jis.jpg", comment=utf16(TEXT, encoding="jis"))
    save("plain.jpg", comment=LATIN.encode())
    save("little.jpg", block=little(exif(utf16(TEXT, encoding="unicode"))))
    save("comment.jpg", remark=TEXT)
    save("empty.jpg", comment=b"")
    save("novelai.png", NOVEL)
    save("novelai-broken.png", {**NOVEL, "Comment": "{"})
    save("bare.png")
    save("bare.jpg")
    read = reader(sys.argv[1])
    expected = {}
    for name in sorted(os.listdir(os.path.join(HERE, "infotext"))):
        if os.path.splitext(name)[1] not in FORMATS:
            continue
        image = Image.open(os.path.join(HERE, "infotext", name))
        image.load()
        try:
            text, items = read(image)
        except Exception:
            text, items = None, {}
        expected[name] = [text, {k: v for k, v in items.items() if isinstance(v, str)}]
    with open(os.path.join(HERE, "infotext", "expected.json"), "w") as f:
        json.dump({"oracle": "AUTOMATIC1111 v1.10.1 (82a973c), Pillow, piexif", "files": expected}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
