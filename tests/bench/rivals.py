# SPDX-License-Identifier: MIT
"""Other programs beside ours: the same shapes, the same weights, the same machine, in turns (ours, rival, ours, rival).

    oracle/bin/python tests/bench/rivals.py --sdlora BUILD/examples/cli/sdlora --plugins BUILD/lib/plugins/onednn \\
        --scratch DIR --json FILE [--openvino-python PYTHON] [--sdcpp SD-CLI] [--quick]

A developer's tool, run by hand on a machine where nothing else runs; README.md beside it tells what has to be installed and what is
measured.  A rival that is absent or fails is named with the reason, and the rest goes on.  FILE is written anew after each comparison.
"""
import argparse
import json
import os
import platform
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
WORKER = os.path.join(HERE, "rivals_worker.py")
TINYSD = os.path.join(ROOT, "examples", "data", "tinysd", "tinysd.safetensors")
TINY_DATA = os.path.join(ROOT, "examples", "data", "openmoji-style", "train")
TICK = os.sysconf("SC_CLK_TCK")

# work: what our bench calls it, what it is, the ways torch may compute it in each precision; the first of the list `like` chose stands for it
WORKS = {
    "forward": dict(part="forward", batch=1, maths={"f32": ["f32"], "bf16": ["autocast", "bf16"]}, openvino="unet"),
    "forward2": dict(part="forward", batch=2, like="forward", openvino="unet"),
    "step": dict(part="step", batch=1, maths={"f32": ["f32"], "bf16": ["autocast", "mixed", "bf16"]}),
    "vae_decode": dict(part="vae_decode", batch=1, maths={"f32": ["f32"], "bf16": ["autocast", "bf16"]}, openvino="vae"),
    "tiny": dict(part=None, batch=4, maths={"f32": ["f32"], "bf16": ["autocast", "mixed", "bf16"]}),
}
FIRST_TINY = 10  # steps of a run of ours before its clock is believed
SDCPP_FLAGS = [[], ["--diffusion-fa"], ["--diffusion-fa", "--diffusion-conv-direct"]]


class Failed(Exception):
    """A rival did not do it; the text says why."""


def note(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


# ---- what else the machine does ----


def load_average():
    return [float(x) for x in open("/proc/loadavg").read().split()[:3]]


def machine_seconds():
    """Seconds of all cores' work so far, those that a hypervisor took included, idle ones not."""
    user, nice, system, _, _, irq, soft, steal = (int(x) for x in open("/proc/stat").readline().split()[1:9])
    return (user + nice + system + irq + soft + steal) / TICK


def process_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return sum(int(x) for x in fields[11:15]) / TICK  # with children that were waited for


class Others:
    """Cores that other processes kept busy between the making of this and done()."""

    def __init__(self, pid=None):
        self.load, self.at, self.machine, self.pid = load_average(), time.monotonic(), machine_seconds(), pid
        self.own = process_seconds(pid) if pid else 0.0

    def done(self, own=None):
        own = process_seconds(self.pid) - self.own if own is None else own
        span = time.monotonic() - self.at
        return {"load": self.load[0], "others": round(max(0.0, machine_seconds() - self.machine - own) / span, 2)}


def describe(threads):
    info = open("/proc/cpuinfo").read()
    flags = set(re.search(r"^flags\s*: (.*)$", info, re.M)[1].split())
    return {"cpu": re.search(r"^model name\s*: (.*)$", info, re.M)[1], "cores": len(os.sched_getaffinity(0)), "threads": threads,
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2 ** 30, 1), "system": platform.platform(),
            "isa": sorted(f for f in flags if f.startswith(("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx")))}


# ---- programs ----


class Worker:
    """A rival in a process of its own: requests and answers are lines of JSON."""

    def __init__(self, python, args, env, log):
        self.log = open(log, "ab")
        self.p = subprocess.Popen([python, WORKER, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=env)
        self.name = args[0]
        self.answer(600)

    def answer(self, limit):
        line, end = b"", time.monotonic() + limit
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.p.stdout], [], [], max(0.0, end - time.monotonic()))
            got = os.read(self.p.stdout.fileno(), 65536) if ready else None
            if not got:
                self.close()
                raise Failed(f"{self.name}: " + (f"no answer in {limit:.0f} s" if got is None else
                                                 f"its process ended with status {self.p.returncode}; see {self.log.name}"))
            line += got
        told = json.loads(line)
        if "error" in told:
            raise Failed(f"{self.name}: {told['error']}")
        return told

    def ask(self, limit=1800, **request):
        try:
            self.p.stdin.write(json.dumps(request).encode() + b"\n")
            self.p.stdin.flush()
        except BrokenPipeError:
            pass  # it ended; answer() says so
        return self.answer(limit)

    def time(self, repeats):
        others = Others(self.p.pid)
        seconds = self.ask(do="time", repeats=repeats)["seconds"]
        return {"seconds": seconds, **others.done()}

    def close(self):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()
        for f in (self.p.stdin, self.p.stdout, self.log):
            try:
                f.close()
            except BrokenPipeError:
                pass


def revision():
    """The commit of this tree, with a + where it was changed since."""
    try:
        return subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty=+"], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def run_ours(cmd, env):
    """stdout and what else ran."""
    others, before = Others(), os.times()
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    out, err = p.communicate()
    used = os.times()  # of children that ended since, which is this one
    spent = used.children_user + used.children_system - before.children_user - before.children_system
    if p.returncode:
        last = err.decode(errors="replace").strip().splitlines()
        raise Failed(f"sdlora: {last[-1] if last else 'status ' + str(p.returncode)}")
    return out, others.done(spent)


class Bench:
    def __init__(self, o):
        self.o, self.env = o, {**os.environ, "OMP_NUM_THREADS": str(o.threads)}
        self.env["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(o.scratch, "inductor")
        self.ours_env = {**self.env, **({"SDLORA_BACKEND_PATH": os.path.abspath(o.plugins)} if o.plugins else {})}
        self.side = 128 if o.quick else 512
        self.ckpt = os.path.join(o.scratch, "sd15.safetensors")
        self.log = os.path.join(o.scratch, "rivals.log")
        self.chosen = {}  # (work, precision): torch's best variant
        self.result = {"format": 1, "quick": o.quick, "started": time.strftime("%Y-%m-%dT%H:%M:%S"), "revision": revision(),
                       "machine": describe(o.threads), "side": self.side, "programs": {}, "sweep": [], "pairs": [], "skipped": []}

    def save(self):
        with open(self.o.json + ".part", "w", encoding="utf-8") as f:
            json.dump(self.result, f, indent=1)
        os.replace(self.o.json + ".part", self.o.json)

    def skip(self, what, why):
        note(f"skipped {what}: {why}")
        self.result["skipped"].append({"what": what, "why": str(why)})
        self.save()

    # -- ours --

    def ours(self, work, precision, repeats):
        return (self.ours_tiny if work == "tiny" else self.ours_part)(work, "no" if precision == "f32" else precision, repeats)

    def ours_part(self, work, mixed, repeats):
        w = WORKS[work]
        out, rest = run_ours(
            [self.o.sdlora, "bench", "--model", "sd15", "--width", str(self.side), "--height", str(self.side), "--batch", str(w["batch"]),
             "--what", "vae" if w["part"] == "vae_decode" else w["part"], "--repeats", str(repeats), "--network_dim", "16",
             "--mixed_precision", mixed, "--threads", str(self.o.threads), "--json"], self.ours_env)
        told = json.loads(out)
        self.result["programs"]["sdlora"] = told["machine"]
        part = next(p for p in told["parts"] if p["part"] == w["part"])
        return {"seconds": [part["median"]], "gflops": part["gflops"], **rest}

    def ours_tiny(self, _, mixed, repeats):
        folder = os.path.join(self.o.scratch, "tiny")
        shutil.rmtree(folder, ignore_errors=True)
        _, rest = run_ours(
            [self.o.sdlora, "train", "--pretrained_model_name_or_path", TINYSD, "--train_data_dir", TINY_DATA, "--caption_extension", ".txt",
             "--resolution", "64", "--train_batch_size", "4", "--max_train_steps", str(FIRST_TINY + 20 * repeats), "--network_dim", "16",
             "--network_alpha", "8", "--unet_lr", "1e-3", "--text_encoder_lr", "5e-4", "--optimizer_args", "weight_decay=1e-2",
             "--max_grad_norm", "1.0", "--seed", "0", "--mixed_precision", mixed, "--threads", str(self.o.threads), "--output_dir", folder,
             "--output_name", "tiny"], self.ours_env)
        at = [json.loads(line)["elapsed"] for line in open(os.path.join(folder, "metrics.jsonl"))][FIRST_TINY - 1:]
        return {"seconds": [(at[-1] - at[0]) / (len(at) - 1)], **rest}  # the mean: what is done now and then counts

    # -- torch --

    def torch_worker(self, work, math, channels_last, compiled):
        w = WORKS[work]
        worker = Worker(self.o.python, ["torch", TINYSD if work == "tiny" else self.ckpt, str(self.o.threads)], self.env, self.log)
        try:
            told = worker.ask(self.o.compile_limit if compiled else 1800, do="prepare", work=work.rstrip("2"), math=math,
                              channels_last=channels_last, compiled=compiled, batch=w["batch"], side=64 if work == "tiny" else self.side)
        except BaseException:
            worker.close()
            raise
        self.result["programs"]["torch"] = told["version"]
        return worker, told["prepared_in"]

    def try_variant(self, work, precision, variant):
        """Seconds, or None; an entry of the sweep in any case."""
        math, channels_last, compiled = variant
        entry = {"work": work, "precision": precision, "rival": "torch", "variant": spell(variant)}
        self.result["sweep"].append(entry)
        try:
            worker, entry["prepared_in"] = self.torch_worker(work, math, channels_last, compiled)
            try:
                entry.update(worker.time(self.count(work, 2)))
            finally:
                worker.close()
        except Failed as e:
            entry["error"] = str(e)
        note(f"{work} {precision}: torch {entry['variant']}: " + (entry.get("error") or f"{min(entry['seconds']):.3f} s"))
        self.save()
        return min(entry["seconds"]) if "seconds" in entry else None

    def choose(self, work, precision):
        """The fastest of torch's ways; compiled only what was fastest uncompiled, because compiling takes minutes."""
        like = WORKS[work].get("like")
        if like:
            if (like, precision) not in self.chosen:
                self.chosen[like, precision] = self.choose(like, precision)
            return self.chosen[like, precision]
        layouts = [True] if self.o.quick else [False, True]
        took = {}
        for variant in [(m, c, False) for m in WORKS[work]["maths"][precision] for c in layouts]:
            seconds = self.try_variant(work, precision, variant)
            if seconds is not None:
                took[variant] = seconds
        if not took:
            raise Failed("no variant ran; see sweep")
        best = min(took, key=took.get)
        if self.o.compile:
            compiled = (*best[:2], True)
            seconds = self.try_variant(work, precision, compiled)
            if seconds is not None and seconds < took[best]:
                best = compiled
        self.chosen[work, precision] = best
        return best

    # -- comparisons --

    def count(self, work, n):
        return 20 * n if work == "tiny" else n

    def pair(self, work, precision, rival, variant, measure):
        """Ours and the rival in turns.  measure() makes one round of the rival."""
        ours, theirs = [], []
        for i in range(self.o.rounds):
            ours.append(self.ours(work, precision, self.o.repeats))
            theirs.append(measure())
            note(f"{work} {precision}, round {i + 1}: ours {statistics.median(ours[-1]['seconds']):.3f} s, {rival} "
                 f"{statistics.median(theirs[-1]['seconds']):.3f} s; others kept {ours[-1]['others']}, {theirs[-1]['others']} cores busy")
        middle = [statistics.median(statistics.median(r["seconds"]) for r in rounds) for rounds in (ours, theirs)]
        self.result["pairs"].append({
            "work": work, "precision": precision, "rival": rival, "variant": variant, "ours_seconds": middle[0], "rival_seconds": middle[1],
            "ratio": middle[1] / middle[0], "load": [r["load"] for r in ours + theirs],
            "others": max(r["others"] for r in ours + theirs), "ours": ours, "theirs": theirs})
        self.save()

    def beside_torch(self, work, precision):
        best = self.choose(work, precision)
        worker, _ = self.torch_worker(work, *best)
        try:
            self.pair(work, precision, "torch", spell(best), lambda: worker.time(self.count(work, self.o.repeats)))
        finally:
            worker.close()

    def beside_openvino(self, work, precision):
        part = WORKS[work]["openvino"]
        xml = os.path.join(self.o.scratch, "openvino", f"{part}.xml")
        if not os.path.exists(xml):
            note(f"converting the {part} for OpenVINO")
            with open(self.log, "ab") as log:
                rc = subprocess.call([self.o.openvino_python, WORKER, "to-openvino", self.ckpt, part, xml], env=self.env, stdout=log, stderr=log)
            if rc:
                raise Failed(f"the {part} could not be converted (status {rc}); see {self.log}")
        worker = Worker(self.o.openvino_python, ["openvino", xml, str(self.o.threads)], self.env, self.log)
        try:
            told = worker.ask(do="prepare", work=work, math=precision, batch=WORKS[work]["batch"], side=self.side)
            self.result["programs"]["openvino"] = told["version"]
            self.pair(work, precision, "OpenVINO", told["precision"], lambda: worker.time(self.o.repeats))
        finally:
            worker.close()

    def sdcpp(self, flags, steps):
        """Seconds of a sampling step with guidance, which is two evaluations of the UNet: between the first step's end and the last's."""
        cmd = [self.o.sdcpp, "-m", self.ckpt, "-p", "red apple, fruit", "-W", str(self.side), "-H", str(self.side), "--steps", str(steps),
               "--cfg-scale", "7", "--sampling-method", "euler", "-s", "1", "-t", str(self.o.threads), "-o",
               os.path.join(self.o.scratch, "sdcpp.png"), *flags]
        others, out, ends = None, b"", {}
        p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.env)
        end = time.monotonic() + self.o.sdcpp_limit
        try:
            while steps not in ends:
                ready, _, _ = select.select([p.stdout], [], [], max(0.0, end - time.monotonic()))
                got = os.read(p.stdout.fileno(), 65536) if ready else None
                if not got:
                    last = out.decode(errors="replace").strip().splitlines() or [""]
                    raise Failed(f"stable-diffusion.cpp: {'it ended' if got == b'' else f'{self.o.sdcpp_limit} s were not enough'}: {last[-1]}")
                out += got
                for m in re.finditer(rb"\| (\d+)/%d - [\d.]+(?:s/it|it/s)" % steps, out):
                    ends.setdefault(int(m[1]), time.monotonic())
                if 1 in ends and not others:
                    others = Others(p.pid)
            return {"seconds": [(ends[steps] - ends[1]) / (steps - 1)], **others.done()}
        finally:  # the picture is not wanted
            if p.poll() is None:
                p.kill()
            p.wait()
            p.stdout.close()

    def beside_sdcpp(self, work, precision):
        self.result["programs"]["stable-diffusion.cpp"] = subprocess.run(
            [self.o.sdcpp, "--help"], stdout=subprocess.PIPE, env=self.env, text=True).stdout.splitlines()[0]
        took = {}
        for i, flags in enumerate(SDCPP_FLAGS[:1] if self.o.quick else SDCPP_FLAGS):
            entry = {"work": work, "precision": "f16 weights", "rival": "stable-diffusion.cpp", "variant": " ".join(flags) or "plain"}
            self.result["sweep"].append(entry)
            try:
                entry.update(self.sdcpp(flags, 2))
                took[i] = entry["seconds"][0]
            except Failed as e:
                entry["error"] = str(e)
            note(f"stable-diffusion.cpp {entry['variant']}: {took.get(i) or entry['error']}")
        if not took:
            raise Failed("no variant ran; see sweep")
        flags = SDCPP_FLAGS[min(took, key=took.get)]
        self.pair(work, precision, "stable-diffusion.cpp", " ".join(["f16 weights", *flags]), lambda: self.sdcpp(flags, 1 + self.o.repeats))

    def run(self):
        o = self.o
        if set(o.only) - {"tiny"} and not os.path.exists(self.ckpt):
            note("writing the checkpoint")
            subprocess.check_call([o.python, WORKER, "checkpoint", self.ckpt])
        for work in o.only:
            for precision in o.precisions:
                rivals = [("torch", True, "", self.beside_torch)]
                if "openvino" in WORKS[work]:
                    rivals.append(("openvino", o.openvino_python, "no --openvino-python was given", self.beside_openvino))
                if work == "forward2" and precision == o.precisions[-1]:
                    rivals.append(("sdcpp", o.sdcpp, "no --sdcpp was given", self.beside_sdcpp))
                for name, there, why, beside in rivals:
                    if name not in o.rivals:
                        continue
                    try:
                        if not there:
                            raise Failed(why)
                        beside(work, precision)
                    except (Failed, OSError, ValueError, LookupError) as e:
                        self.skip(f"{work} {precision} {name}", e)
        self.result["finished"] = time.strftime("%Y-%m-%dT%H:%M:%S")
        self.save()


def spell(variant):
    math, channels_last, compiled = variant
    return math + ", channels last" * channels_last + ", compiled" * compiled


def table(result):
    lines = ["| work | precision | rival | its best way | rival s | ours s | rival / ours | others' cores |", "|---|---|---|---|---|---|---|---|"]
    for p in result["pairs"]:
        lines.append(f"| {p['work']} | {p['precision']} | {p['rival']} | {p['variant']} | {p['rival_seconds']:.3f} | {p['ours_seconds']:.3f} | "
                     f"{p['ratio']:.2f} | {p['others']:.2f} |")
    lines += [f"not compared: {s['what']}: {s['why']}" for s in result["skipped"]]
    if result["quick"]:
        lines.append("--quick: small shapes, one round; these figures say only that everything runs")
    return "\n".join(lines)


def main():
    a = argparse.ArgumentParser(description="other programs beside ours")
    a.add_argument("--sdlora", required=True, help="our command line tool")
    a.add_argument("--plugins", help="folder of the oneDNN plugin; none: what the tool finds by itself")
    a.add_argument("--scratch", required=True, help="folder for weights and converted models, 8 GB; kept between runs")
    a.add_argument("--json", required=True, help="file for all figures")
    a.add_argument("--python", default=sys.executable, help="interpreter with torch and diffusers [this one]")
    a.add_argument("--openvino-python", help="interpreter with openvino, torch and diffusers")
    a.add_argument("--sdcpp", help="stable-diffusion.cpp's sd-cli")
    a.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    a.add_argument("--rounds", type=int, default=3, help="turns of ours and a rival [3]")
    a.add_argument("--repeats", type=int, default=2, help="measurements in a turn; 20 times as many tiny steps [2]")
    a.add_argument("--only", default=",".join(WORKS), help="works, comma-separated [all]")
    a.add_argument("--precisions", default="f32,bf16")
    a.add_argument("--rivals", default="torch,openvino,sdcpp")
    a.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="try torch.compile too")
    a.add_argument("--compile-limit", type=int, default=1200, help="seconds for one compilation [1200]")
    a.add_argument("--sdcpp-limit", type=int, default=900, help="seconds for one run of stable-diffusion.cpp [900]")
    a.add_argument("--quick", action="store_true", help="128x128, one round, few variants: does it run?")
    o = a.parse_args()
    o.only, o.precisions, o.rivals = (x.split(",") for x in (o.only, o.precisions, o.rivals))
    for given, known in ((o.only, WORKS), (o.precisions, ("f32", "bf16")), (o.rivals, ("torch", "openvino", "sdcpp"))):
        if set(given) - set(known):
            a.error(f"{','.join(given)}: known are {','.join(known)}")
    if o.quick:
        o.rounds = o.repeats = 1
    o.scratch = os.path.abspath(o.scratch)
    os.makedirs(o.scratch, exist_ok=True)
    b = Bench(o)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the table of what was measured is printed all the same
    try:
        b.run()
    finally:
        print(table(b.result))


if __name__ == "__main__":
    main()
