# SPDX-License-Identifier: MIT
"""Runs the examples on the tiny model.  argv: the build's examples folder, python, lua or ""."""
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BUILD, PYTHON, LUA = sys.argv[1:4]
EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples")
MODEL = os.path.join(EXAMPLES, "data", "tinysd", "tinysd.safetensors")
PICTURES = os.path.join(EXAMPLES, "data", "openmoji-style", "train")
PROMPT = "red apple, fruit"
SETTINGS = ["resolution=64", "caption_extension=.txt", "train_batch_size=2", "network_dim=4",
            "network_alpha=2", "unet_lr=1e-3", "text_encoder_lr=5e-4", "max_train_steps=4",
            "seed=0", "no_metadata=true", "output_name=tiny", "prompt=" + PROMPT, "width=64",
            "height=64", "steps=5"]


def program(name):
    return [os.path.join(BUILD, "example-" + name)]


def digest(data):
    """What is compared: unittest would spend minutes on the difference of megabytes."""
    return hashlib.sha256(data).hexdigest()


def without_date(path):
    """The file with its one clock reading blanked: everything else must be equal."""
    with open(path, "rb") as file:
        data = file.read()
    blank, count = re.subn(rb'("modelspec\.date":")[^"]*', rb"\1", data[:4096])
    assert count == 1, path
    return blank + data[4096:]


class Examples(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)

    def call(self, *args, code=0):
        done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=200)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout + done.stderr

    def train(self, command, name, *settings):
        out = os.path.join(self.dir, name)
        os.mkdir(out)
        text = self.call(*command, MODEL, PICTURES, out, *SETTINGS, *settings)
        self.assertRegex(text, r"step 4/4  loss \d\.\d{4}\n")
        self.assertGreater(os.path.getsize(os.path.join(out, "tiny.safetensors")), 100000)
        with open(os.path.join(out, "sample.png"), "rb") as file:
            return {"lora": digest(without_date(os.path.join(out, "tiny.safetensors"))),
                    "png": digest(file.read())}

    def test_three_languages_write_the_same_files(self):
        c = self.train(program("train"), "c")
        self.assertEqual(self.train([PYTHON, os.path.join(EXAMPLES, "train.py")], "py"), c)
        if LUA:
            self.assertEqual(self.train([LUA, os.path.join(EXAMPLES, "train.lua")], "lua"), c)
        # generate.c finds the file by name, and draws what train.c drew from memory
        out = os.path.join(self.dir, "tag.png")
        self.call(*program("generate"), MODEL, os.path.join(self.dir, "c"),
                  PROMPT + " <lora:tiny:1>", out, "seed=1", "width=64", "height=64", "steps=5")
        with open(out, "rb") as a, open(os.path.join(self.dir, "c", "sample.png"), "rb") as b:
            self.assertEqual(digest(pixels(a.read())), digest(pixels(b.read())))

    def test_a_backend_of_our_own(self):
        text = self.call(*program("open"), "-p", BUILD, MODEL)
        self.assertRegex(text, r"device adder: ")
        self.assertIn('"sd1"', text)
        plain = self.train(program("train"), "plain", "max_train_steps=4")
        adder = self.train(program("train"), "adder", "plugin_path=" + BUILD)
        self.assertEqual(adder, plain)  # sums of two numbers have one right answer

    def test_stop_and_go_on(self):
        whole, parts = os.path.join(self.dir, "whole"), os.path.join(self.dir, "parts")
        for out in whole, parts:
            os.mkdir(out)
        self.call(*program("progress"), MODEL, PICTURES, whole, "4")
        text = self.call(*program("progress"), MODEL, PICTURES, parts, "4", "2")
        self.assertRegex(text, r"train .* 2/4 .*s to go")
        self.assertIn("stopped; start again to go on", text)
        self.assertFalse(os.path.exists(os.path.join(parts, "last.safetensors")))
        self.call(*program("progress"), MODEL, PICTURES, parts, "4")
        ends = [tensors(os.path.join(out, "last.safetensors")) for out in (whole, parts)]
        self.assertEqual(digest(ends[1]), digest(ends[0]))

    def test_interrupt(self):
        child = subprocess.Popen([*program("progress"), MODEL, PICTURES, self.dir, "1000000"],
                                 stderr=subprocess.PIPE, text=True)
        seen = ""
        while "train" not in seen and child.poll() is None:
            seen += child.stderr.read(1)
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        text = child.communicate(timeout=60)[1]
        self.assertEqual(child.returncode, 0)
        self.assertIn("stopped", text)
        self.assertTrue(os.path.exists(os.path.join(self.dir, "progress.state")))

    def test_failures_say_why(self):
        text = self.call(*program("train"), "/nonexistent", PICTURES, self.dir, code=1)
        self.assertIn("/nonexistent", text)
        text = self.call(*program("train"), MODEL, PICTURES, self.dir, "unet_rl=1", code=1)
        self.assertIn("unet_rl", text)
        self.call(*program("train"), code=2)


def tensors(path):
    """A network file's bytes behind the header, in which the time of the run stands."""
    with open(path, "rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), os.SEEK_CUR)
        return file.read()


def pixels(png):
    """The IDAT chunks alone: the parameters text differs by the tag."""
    found, at = b"", 8
    while at < len(png):
        length = int.from_bytes(png[at:at + 4], "big")
        if png[at + 4:at + 8] == b"IDAT":
            found += png[at + 8:at + 8 + length]
        at += 12 + length
    assert found
    return found


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
