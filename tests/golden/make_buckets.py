"""Freezes sd-scripts' aspect-ratio buckets and learning-rate schedules: buckets.json and lr.json.

    python make_buckets.py SD_SCRIPTS_CHECKOUT

buckets.json: `tables` = for each setting (resolution w, h, min, max, step) the predefined buckets in sd-scripts' order, and for each
image size [w, h, bucket w, bucket h, resized w, resized h, ratio error] with upscaling (`fit`) and without (`no_upscale`; null where
sd-scripts raises; a bucket side can be 0 for an image smaller than one step); `sizes` = [w, h, bucket w, bucket h, crop top, crop left,
crop left of the mirrored sample] as its data set tells SDXL.  lr.json: the multiplier of the base rate at steps 0..59, by name, warm-up and option.
"""
import random
import sys
import types

import torch
from oracle import save_json, versions

sys.path.insert(0, sys.argv[1])
from library import train_util  # noqa: E402

SETTINGS = [((512, 512), 256, 1024, 64), ((512, 768), 256, 1024, 64), ((768, 768), 320, 1536, 64), ((1024, 1024), 512, 2048, 64), ((64, 64), 32, 128, 8),
            ((64, 64), 32, 128, 64), ((512, 512), 320, 960, 32), ((640, 448), 256, 1024, 8), ((512, 512), 100, 1000, 64)]


def sizes():
    rnd = random.Random(5)
    fixed = [(512, 512), (511, 513), (1024, 768), (768, 1024), (1920, 1080), (1080, 1920), (64, 64), (63, 65), (100, 1000), (1000, 100), (2000, 200), (300, 300),
             (640, 480), (832, 1216), (1216, 832), (4000, 3000), (3000, 4001), (576, 448), (448, 576), (333, 777)]
    return fixed + [(rnd.randint(64, 1300), rnd.randint(64, 1300)) for _ in range(120)] + [(rnd.randint(8, 300), rnd.randint(8, 300)) for _ in range(60)]


def assign(reso, lo, hi, step, no_upscale):
    rows = []
    for w, h in sizes():
        m = train_util.BucketManager(no_upscale, reso, None if no_upscale else lo, None if no_upscale else hi, step)
        if not no_upscale:
            m.make_buckets()
        try:
            (bw, bh), (rw, rh), err = m.select_bucket(w, h)
            rows.append([w, h, bw, bh, rw, rh, float(err)])
        except (ZeroDivisionError, AssertionError):
            rows.append(None)
    return rows


def crops(rows):
    """The lines of BaseDataset.__getitem__ that are not a function of their own."""
    out = []
    for w, h, bw, bh, *_ in rows:
        left, top, right, _ = train_util.BucketManager.get_crop_ltrb((bw, bh), (w, h))
        out.append([w, h, bw, bh, int(top), int(left), int(bw - right)])
    return out


def buckets():
    tables = []
    for i, (reso, lo, hi, step) in enumerate(SETTINGS):
        m = train_util.BucketManager(False, reso, lo, hi, step)
        m.make_buckets()
        t = {"resolution": reso, "min": lo, "max": hi, "step": step, "buckets": m.predefined_resos}
        if i in (0, 1, 4, 7):
            t["fit"], t["no_upscale"] = (assign(reso, lo, hi, step, flag) for flag in (False, True))
            t["sizes"] = crops(t["fit"])
        tables.append(t)
    save_json("buckets.json", {"oracle": "sd-scripts library/train_util.py BucketManager", "tables": tables})


def lr():
    args = dict(max_train_steps=60, lr_decay_steps=0, lr_scheduler_num_cycles=1, lr_scheduler_power=1.0, lr_scheduler_timescale=None,
                lr_scheduler_min_lr_ratio=None, lr_scheduler_args=None, lr_scheduler_type="", optimizer_type="AdamW", optimizer_schedulefree_wrapper=False)
    cases = [("constant", {}), ("constant_with_warmup", {}), ("linear", {}), ("cosine", {}), ("cosine_with_restarts", {}),
             ("cosine_with_restarts", {"lr_scheduler_num_cycles": 3}), ("polynomial", {}), ("polynomial", {"lr_scheduler_power": 2.0}),
             ("inverse_sqrt", {}), ("cosine_with_min_lr", {"lr_scheduler_min_lr_ratio": 0.1})]
    rows = []
    for name, extra in cases:
        for warm in (0, 6):
            if name == "constant" and warm:
                continue  # sd-scripts refuses a warm-up here
            param = torch.nn.Parameter(torch.zeros(1))
            opt = torch.optim.SGD([param], lr=1e-3)
            try:
                sched = train_util.get_scheduler_fix(types.SimpleNamespace(**{**args, **extra, "lr_scheduler": name, "lr_warmup_steps": warm}), opt, 1)
                values = []
                for _ in range(60):
                    values.append(opt.param_groups[0]["lr"] / 1e-3)
                    opt.step()
                    sched.step()
                rows.append({"name": name, "warmup": warm, **extra, "base_lr": 1e-3, "factor": values})
            except ZeroDivisionError as e:
                print(name, warm, "fails in the oracle:", e)
    save_json("lr.json", {"oracle": "sd-scripts get_scheduler_fix, " + versions("transformers", "diffusers"), "steps": 60, "cases": rows})


if __name__ == "__main__":
    buckets()
    lr()
