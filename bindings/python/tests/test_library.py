# SPDX-License-Identifier: MIT
"""How the package finds the library, and what it says when it cannot use it."""
import os
import subprocess
import sys
import unittest

from sdlora import _lib


def load_with(library):
    return subprocess.run([sys.executable, "-c", "import sdlora"], capture_output=True, text=True,
                          env={**os.environ, "SDLORA_LIBRARY": library})


class Finding(unittest.TestCase):
    def test_missing(self):
        done = load_with("/nonexistent/libsdlora.so")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("libsdlora was not found (/nonexistent/libsdlora.so", done.stderr)
        self.assertIn("SDLORA_LIBRARY", done.stderr)

    def test_another_library(self):
        done = load_with("libc.so.6")
        self.assertIn("libc.so.6 is not libsdlora", done.stderr)

    def test_versions(self):
        _lib._check_version("0.1.7", "x")  # a patch release changes no name
        for other in ("0.2.0", "1.0.0", "1.1.0"):
            with self.assertRaises(ImportError) as caught:
                _lib._check_version(other, "/lib/x.so")
            self.assertIn(f"/lib/x.so is libsdlora {other}", str(caught.exception))
        self.assertEqual(_lib._series("2.7.1"), ["2"])

    def test_silence(self):
        done = subprocess.run(
            [sys.executable, "-c", "import sdlora; sdlora.Context(plugin_path='/nonexistent')"],
            capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))


if __name__ == "__main__":
    unittest.main()
