# SPDX-License-Identifier: MIT
"""Paths and small makers for the tests."""
import contextlib
import glob
import os
import shutil
import tempfile
import unittest

import sdlora

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
DATA = os.path.join(ROOT, "examples", "data")
MODEL = os.path.join(DATA, "tinysd", "tinysd.safetensors")
PICTURES = os.path.join(DATA, "openmoji-style", "train")
HELD_OUT = os.path.join(DATA, "openmoji-style", "heldout")
SETTINGS = dict(unet_lr=1e-3, text_encoder_lr=5e-4, seed=0, no_metadata=True)


class Case(unittest.TestCase):
    """Each test has an empty directory, a context, and one tiny model for the whole class."""

    @classmethod
    def setUpClass(cls):
        cls.ctx = sdlora.Context()
        cls.ckpt = sdlora.Checkpoint(cls.ctx, MODEL)

    @classmethod
    def tearDownClass(cls):
        cls.ckpt.close()
        cls.ctx.close()

    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)

    def few(self, count=4):
        """A folder with the first pictures of PICTURES: what training needs to be tested."""
        where = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, where)
        for name in sorted(glob.glob(os.path.join(PICTURES, "*", "*.txt")))[:count]:
            for path in glob.glob(os.path.splitext(name)[0] + ".*"):
                shutil.copy(path, where)
        return where

    def path(self, name):
        return os.path.join(self.dir, name)

    def dataset(self, where=PICTURES, **options):
        options = {"resolution": 64, "caption_extension": ".txt", "train_batch_size": 2, **options}
        return sdlora.Dataset(self.ctx, train_data_dir=where, **options)

    def trainer(self, **options):
        options = {**SETTINGS, "max_train_steps": 3, "output_dir": self.dir, "output_name": "t",
                   **options}
        net = sdlora.Network(self.ckpt, network_dim=4, network_alpha=1)
        return sdlora.Trainer(self.ckpt, net, self.dataset(self.few()), **options)

    @contextlib.contextmanager
    def fails(self, builtin, code, *words):
        """The block raises sdlora.Error that is also `builtin`, and its text has the words."""
        with self.assertRaises(builtin) as caught:
            yield
        self.assertIsInstance(caught.exception, sdlora.Error)
        self.assertEqual(caught.exception.code, code)
        for word in words:
            self.assertIn(word, str(caught.exception))
