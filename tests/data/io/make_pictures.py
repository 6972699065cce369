# SPDX-License-Identifier: MIT
"""Makes pictures/ and pictures.txt: small files of every kind that the image reader must treat as
Pillow does.  Each line: file, RGB or RGBA, width, height, EXIF orientation, SHA-256 of the pixels;
or: file, the status code that reading must give.  Made with Pillow 13.0."""
import hashlib
import io
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
OUT = HERE / "pictures"
ENOTSUP, EFORMAT = -4, -6
lines = []


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(w, h, depth, color, raw, extra=b"", interlace=0):
    head = struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, interlace)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra +
            chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def encode(image, fmt, **options):
    b = io.BytesIO()
    image.save(b, fmt, **options)
    return b.getvalue()


def good(name, data, mode="RGB"):
    (OUT / name).write_bytes(data)
    image = Image.open(io.BytesIO(data))
    orientation = image.getexif().get(0x0112, 1)
    pixels = image.convert(mode).tobytes()
    digest = hashlib.sha256(pixels).hexdigest()
    lines.append(f"{name} {mode} {image.width} {image.height} {orientation} {digest}")


def bad(name, data, code):
    (OUT / name).write_bytes(data)
    lines.append(f"{name} {code}")


def exif(orientation):
    e = Image.Exif()
    e[0x0112] = orientation
    return e.tobytes()


def corrupt(data):
    """Data that the decoder warns of half way: a restart marker of the wrong number."""
    at = data.index(b"\xff\xd0", data.index(b"\xff\xda"))
    return data[:at + 1] + b"\xd5" + data[at + 2:]


def main():
    OUT.mkdir(exist_ok=True)
    rng = np.random.default_rng(7)
    x, y = np.meshgrid(np.arange(43), np.arange(29))
    rgb = np.stack([x * 5, y * 8, (x * y) % 256], -1).astype(np.uint8)
    rgb[8:20, 10:30] = rng.integers(0, 256, (12, 20, 3))
    image, grey = Image.fromarray(rgb), Image.fromarray(rgb[:, :, 2])
    rgba = Image.fromarray(np.dstack([rgb, rgb[:, :, 1]]))

    for i, name in enumerate(("444", "422", "420")):
        good(f"baseline_{name}.jpg", encode(image, "JPEG", subsampling=i, quality=60))
    good("progressive.jpg", encode(image, "JPEG", progressive=True))
    good("restart.jpg", encode(image, "JPEG", restart_marker_blocks=2))
    good("grey.jpg", encode(grey, "JPEG"))
    good("stored_rgb.jpg", encode(image, "JPEG", keep_rgb=True))
    good("upright_6.jpg", encode(image, "JPEG", exif=exif(6)))
    plain = encode(image, "JPEG")
    cut = plain.index(b"\xff\xda")
    good("corrupt.jpg", corrupt(encode(image, "JPEG", restart_marker_blocks=2)))
    good("stray_bytes.jpg", plain[:-2] + b"\x12\x34\x56" + plain[-2:])
    bad("cut.jpg", plain[:cut + (len(plain) - cut) // 2], EFORMAT)
    bad("no_end.jpg", plain[:-2], EFORMAT)
    bad("no_frame.jpg", plain[:20], EFORMAT)
    bad("cmyk.jpg", encode(image.convert("CMYK"), "JPEG"), ENOTSUP)

    good("lossy.webp", encode(image, "WEBP", quality=70))
    good("lossless.webp", encode(image, "WEBP", lossless=True))
    good("alpha.webp", encode(rgba, "WEBP", lossless=True), "RGBA")
    good("alpha_dropped.webp", encode(rgba, "WEBP", quality=80))
    good("upright_8.webp", encode(image, "WEBP", exif=exif(8)))
    bad("cut.webp", encode(image, "WEBP", lossless=True)[:-40], EFORMAT)
    bad("animation.webp", encode(image, "WEBP", save_all=True, append_images=[rgba], duration=9),
        ENOTSUP)

    good("rgb.png", encode(image, "PNG"))
    good("rgba.png", encode(rgba, "PNG"), "RGBA")
    good("rgba_dropped.png", encode(rgba, "PNG"))
    good("grey.png", encode(grey, "PNG"))
    good("upright_3.png", encode(image, "PNG", exif=exif(3)))
    good("grey16.png", png(4, 1, 16, 0, b"\0" + struct.pack(">4H", 0, 255, 256, 65535)))
    good("rgb16.png", png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 257, 514, 771, 1279, 1408, 65535)))
    good("la16.png", png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 257, 754, 1011, 1279)), "RGBA")
    good("grey2.png", png(4, 1, 2, 0, b"\0\x1b"))
    good("bit.png", png(11, 1, 1, 0, b"\0\xa5\x60"))
    colours = chunk(b"PLTE", bytes([9, 8, 7, 6, 5, 4]))
    good("palette.png", png(4, 1, 8, 3, b"\0\0\1\2\xc8", colours))
    good("palette_alpha.png", png(4, 1, 8, 3, b"\0\0\1\2\xc8", colours + chunk(b"tRNS", b"\5")), "RGBA")
    good("key.png", png(4, 1, 8, 0, b"\0\1\2\3\4", chunk(b"tRNS", b"\0\3")), "RGBA")
    # Adam7 of 3x3: passes 1, 4, 5, 6, 7 have pixels.
    good("adam7.png", png(3, 3, 8, 0, b"\0\0" + b"\0\2" + b"\0\6\x08" + b"\0\1" + b"\0\7" +
                          b"\0\3\4\5", interlace=1))
    whole = encode(image, "PNG")
    bad("cut.png", whole[:len(whole) // 2], EFORMAT)
    bad("crc.png", whole[:60] + bytes([whole[60] ^ 1]) + whole[61:], EFORMAT)
    bad("bomb_side.png", png(2**31 - 1, 2**31 - 1, 16, 6, b""), EFORMAT)
    bad("bomb_area.png", png(65535, 65535, 8, 2, b""), EFORMAT)
    bad("bomb_short.png", png(9999, 9999, 16, 6, b"\0" * 99999), EFORMAT)
    bad("zero.png", png(0, 5, 8, 2, b""), EFORMAT)
    bad("depth.png", png(5, 5, 3, 2, b""), EFORMAT)
    bad("no_palette.png", png(4, 1, 8, 3, b"\0\0\1\2\3"), EFORMAT)
    bad("no_header.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""), EFORMAT)

    bad("picture.bmp", encode(image, "BMP"), ENOTSUP)
    bad("picture.gif", encode(image, "GIF"), ENOTSUP)
    bad("text.png", b"not a picture at all", EFORMAT)
    bad("empty.png", b"", EFORMAT)
    (HERE / "pictures.txt").write_text("\n".join(lines) + "\n")


main()
