"""Freezes image resampling: PIL's Lanczos, box and bicubic, OpenCV's area, and sd-scripts' choice between them.

    python make_resize.py SD_SCRIPTS_CHECKOUT

24 random uint8 pictures (noise, gradients, flat areas).  `<n>.src` [H,W,3] U8, `<n>.{lanczos,box,bicubic,area}` [h,w,3] U8 and
`<n>.kohya`, what sd-scripts' resize_image makes of it; metadata `kohya` names its method (area when no side grows, else lanczos).
Channel order is RGB throughout.  OpenCV's area on growing sides is its own bilinear form.
"""
import sys

import cv2
import numpy as np
import torch
from oracle import save, versions
from PIL import Image

sys.path.insert(0, sys.argv[1])
from library.utils import resize_image  # noqa: E402

SIZES = [((8, 8), (16, 16)), ((16, 16), (8, 8)), ((17, 13), (9, 7)), ((9, 7), (17, 13)), ((40, 30), (20, 15)), ((40, 30), (10, 10)), ((31, 37), (24, 16)),
         ((24, 16), (31, 37)), ((40, 40), (39, 39)), ((12, 40), (24, 20)), ((40, 12), (20, 24)), ((33, 33), (32, 16)), ((10, 10), (10, 10)), ((10, 20), (10, 40)),
         ((20, 10), (10, 10)), ((1, 1), (4, 4)), ((2, 3), (5, 7)), ((40, 1), (8, 1)), ((1, 40), (1, 13)), ((36, 24), (12, 8)), ((36, 24), (18, 24)),
         ((5, 40), (40, 5)), ((39, 40), (40, 40)), ((40, 25), (32, 24))]  # (width, height) from, to


def main():
    rng, out, kohya = np.random.default_rng(11), {}, []
    filters = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX, "bicubic": Image.Resampling.BICUBIC}
    for n, ((w, h), (tw, th)) in enumerate(SIZES):
        img = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        if n % 3 == 1:  # smooth, with an edge
            y, x = np.mgrid[0:h, 0:w]
            img = np.stack([x * 255 // max(w - 1, 1), y * 255 // max(h - 1, 1), np.where(x * 2 < w, 0, 255)], 2).astype(np.uint8)
        elif n % 3 == 2:  # hard black and white: overshoot
            img = (img // 128 * 255).astype(np.uint8)
        res = {"src": img, "area": cv2.resize(img, (tw, th), interpolation=cv2.INTER_AREA)}
        res.update({k: np.asarray(Image.fromarray(img).resize((tw, th), f)) for k, f in filters.items()})
        res["kohya"] = resize_image(img, w, h, tw, th)
        same = [k for k in ("area", "lanczos") if np.array_equal(res[k], res["kohya"])]
        kohya.append("area" if w >= tw and h >= th else "lanczos")
        assert kohya[-1] in same, (n, same)
        out.update({f"{n}.{k}": torch.from_numpy(np.ascontiguousarray(v).reshape(v.shape[0], v.shape[1], 3).copy()) for k, v in res.items()})
    save("resize.safetensors", out, oracle=versions("pillow", "opencv-python-headless", "numpy") + ", sd-scripts library/utils.py", kohya=kohya,
         sizes=[[*a, *b] for a, b in SIZES])


if __name__ == "__main__":
    main()
