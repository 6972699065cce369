# SPDX-License-Identifier: MIT
"""Options, errors, lifetimes, pictures, data sets: everything that does not train."""
import gc
import os
import shutil
import unittest

import sdlora
from common import HELD_OUT, MODEL, PICTURES, ROOT, Case

try:
    import numpy
except ImportError:
    numpy = None
try:
    from PIL import Image as PilImage
except ImportError:
    PilImage = None


class OptionSets(Case):
    def test_values(self):
        o = sdlora.Options("train", unet_lr=1e-4, max_train_steps=7, save_state=True,
                           optimizer_args=["weight_decay=0.1", "eps=1e-8"], output_name=None)
        self.assertEqual(o["unet_lr"], "0.0001")
        self.assertEqual(o["max_train_steps"], "7")
        self.assertEqual(o["save_state"], "true")
        self.assertEqual(o["optimizer_args"], "weight_decay=0.1\neps=1e-8")
        self.assertIsNone(o["output_name"])
        self.assertEqual(o["lr_scheduler"], "constant")  # the default
        self.assertEqual(o.kind, "train")

    def test_wrong_values(self):
        o = sdlora.Options("train")
        with self.fails(FileNotFoundError, -7, "unet_lr"):
            o["unet_rl"] = 1  # names the nearest
        with self.fails(ValueError, -3, "lr_scheduler", "cosine"):
            o["lr_scheduler"] = "cosinus"
        with self.fails(ValueError, -3, "max_train_steps"):
            o["max_train_steps"] = 0
        with self.assertRaises(ValueError):
            o["max_train_steps"] = 2**63
        with self.assertRaises(ValueError):
            o["output_name"] = "a\0b"
        with self.fails(FileNotFoundError, -7):
            sdlora.Options("no such kind")

    def test_rows(self):
        rows = {row.name: row for row in sdlora.option_rows("train")}
        self.assertEqual(rows["unet_lr"].type, "real")
        self.assertIn("cosine", rows["lr_scheduler"].choices)
        self.assertEqual(rows["max_train_steps"].default, "1600")
        self.assertGreater(len(sdlora.option_rows()), len(rows))
        with self.fails(FileNotFoundError, -7):
            sdlora.option_rows("no such kind")


class Handles(Case):
    def test_closed(self):
        ctx = sdlora.Context(threads=1)
        with ctx:
            self.assertTrue(ctx.devices)
        ctx.close()
        with self.assertRaisesRegex(ValueError, "Context is closed"):
            ctx.devices
        self.assertIn("closed", repr(ctx))

    def test_any_order(self):
        ctx = sdlora.Context()
        ckpt = sdlora.Checkpoint(ctx, MODEL)
        net = sdlora.Network(ckpt, network_dim=2)
        ctx.close()
        ckpt.close()
        self.assertGreater(net.modules, 0)
        net.save(self.path("n.safetensors"))

    def test_wrong_class(self):
        with self.assertRaisesRegex(TypeError, "expected sdlora.Checkpoint, not Context"):
            sdlora.Network(self.ctx)
        with self.assertRaises(TypeError):
            sdlora.Network(None)

    def test_errors(self):
        with self.fails(FileNotFoundError, -7, "/nonexistent.safetensors"):
            sdlora.Checkpoint(self.ctx, "/nonexistent.safetensors")
        broken = self.path("broken.safetensors")
        with open(broken, "wb") as file:
            file.write(b"\xff" * 64)
        with self.fails(ValueError, -6, "broken.safetensors"):
            sdlora.Checkpoint(self.ctx, broken)
        with self.fails(MemoryError, -2):
            sdlora.Checkpoint(sdlora.Context(memory_limit=100000), MODEL)
        with self.fails(NotImplementedError, -4):
            sdlora.Trainer(self.ckpt, sdlora.Network(self.ckpt), self.dataset(), full_fp16=True)

    def test_model(self):
        self.assertEqual(self.ckpt.family, "sd1")
        self.assertEqual(self.ckpt.layout, "ldm")
        self.assertEqual(self.ckpt.path, MODEL)
        info = self.ctx.file_info(MODEL)
        self.assertIsInstance(info, dict)
        self.assertTrue(info)
        self.assertEqual(self.ctx.tokenize("a cat"), [320, 2368])  # CLIP's vocabulary
        self.assertEqual(self.ctx.tokenize(""), [])
        self.assertGreater(self.ctx.memory_peak, 0)

    def test_network_files(self):
        path = self.path("mine.safetensors")
        sdlora.Network(self.ckpt, seed=5, network_dim=4, network_alpha=2).save(path, "fp16")
        net = sdlora.Network.open(self.ckpt, path)
        self.assertEqual(net.name, "mine")
        self.assertIsNone(net.metadata("no such key"))
        merged = self.ckpt.merge([(net, 1.0, 0.5)])
        self.assertEqual(merged.family, "sd1")
        with self.assertRaises(ValueError):
            sdlora.Network(self.ckpt, seed=-1)

    def test_tools(self):
        pruned, folder, net = self.path("pruned.safetensors"), self.path("folder"), self.path("net.safetensors")
        seen = []
        report = sdlora.tools.prune(self.ctx, MODEL, pruned, save_precision="bf16",
                                    progress=lambda now: seen.append(now.phase) and None)
        self.assertTrue(report["verified"])
        self.assertEqual(set(seen), {"write", "verify"})
        self.assertEqual(sdlora.tools.convert(self.ctx, pruned, folder, layout="diffusers")["layout"],
                         "diffusers")
        with self.fails(sdlora.CanceledError, -8):
            sdlora.tools.convert(self.ctx, folder, pruned, layout="ldm", progress=lambda now: True)
        sdlora.Network(self.ckpt, seed=5, network_dim=4).save(net)
        self.assertEqual(len(sdlora.tools.file_hash(self.ctx, net)["sshs_model_hash"]), 64)
        found = sdlora.tools.check(self.ctx, net)
        self.assertEqual(found["n_dead"], found["modules"])  # it was not trained
        self.assertFalse(found["ok"])
        sdlora.tools.set_metadata(self.ctx, net, {"ss_output_name": "mine", "none": None})
        sdlora.tools.copy_metadata(self.ctx, net, pruned, prefix="ss_output")
        self.assertEqual(sdlora.tools.metadata(self.ctx, pruned)["training"]["Name"], "mine")

    def test_dataset(self):
        data = self.dataset()
        self.assertEqual(len(data), 24)
        self.assertEqual(data.views, 240)
        self.assertEqual(data.batches_per_epoch, 120)
        items = list(data)
        self.assertEqual(len(items), 24)
        self.assertEqual(data[-1], items[-1])
        self.assertIn("sunflower, flower, sun", [item.caption for item in items])
        self.assertTrue(all(os.path.exists(i.path) and i.bucket_width == 64 for i in items))
        self.assertEqual(data.notes, [])
        with self.assertRaises(IndexError):
            data[24]
        with self.fails(FileNotFoundError, -7):
            sdlora.Dataset(self.ctx, train_data_dir=self.dir)

    def test_held_out_loss(self):
        data = self.dataset(HELD_OUT)
        plain = sdlora.evaluate(self.ckpt, data)
        self.assertAlmostEqual(plain, 0.525, delta=0.02)  # torch's figure for this model and folder

    def test_held_out_loss_with_networks(self):
        shutil.copy(os.path.join(HELD_OUT, "1_openmoji", "bread.png"), self.dir)
        data = self.dataset(self.dir)
        plain = sdlora.evaluate(self.ckpt, data)
        net = sdlora.Network(self.ckpt)  # not trained: changes nothing
        self.assertEqual(sdlora.evaluate(self.ckpt, data, [(net, 1, 1)]), plain)
        self.assertNotEqual(sdlora.evaluate(self.ckpt, data, seed=1), plain)

    def test_networks_of_networks(self):
        a = os.path.join(ROOT, "tests", "golden", "tools", "a.safetensors")
        alone = sdlora.Checkpoint.for_network(self.ctx, a)
        self.assertEqual(alone.family, "sd1")
        net, seen = sdlora.Network.open(alone, a), []
        small = net.resize(new_rank=3, progress=lambda now: seen.append((now.phase, now.phase_done)))
        self.assertEqual(small.metadata("ss_network_dim"), "3")
        self.assertEqual(seen[0], ("resize", 0))
        self.assertEqual(seen[-1][1], net.modules)
        both = sdlora.Network.merged([(net, 1, 0.5), (small, -1, 2)])
        self.assertEqual((both.modules, both.metadata("ss_network_dim")), (net.modules, "11"))
        with self.fails(ValueError, -3, "new_rank"):
            sdlora.Network.merged([(net, 1, 1)], method="average", new_rank=2)
        fitting = sdlora.Network.open(self.ckpt, a)
        self.ckpt.merge_file([(fitting, 1, 1)], self.path("m.safetensors"), save_precision="float")
        tuned = sdlora.Checkpoint(self.ctx, self.path("m.safetensors"))
        found = sdlora.Network.extract(tuned, self.ckpt, mode="fixed", dim=8)
        self.assertEqual(found.modules, net.modules)
        with self.assertRaises(sdlora.CanceledError):
            sdlora.Network.extract(tuned, self.ckpt, progress=lambda now: True)


class Pictures(Case):
    def test_bytes(self):
        pixels = bytes(range(18))
        image = sdlora.Image(self.ctx, memoryview(pixels).cast("B", (2, 3, 3)))
        self.assertEqual((image.width, image.height, image.text), (3, 2, ""))
        self.assertEqual(image.data.tobytes(), pixels)
        image.save(self.path("a.png"))
        again = sdlora.Image.open(self.ctx, self.path("a.png"))
        self.assertEqual(again.data.tobytes(), pixels)
        with self.assertRaises(ValueError):
            sdlora.Image(self.ctx, pixels)
        with self.assertRaises(TypeError):
            image.data[0, 0, 0] = 1

    def test_texts(self):
        image = sdlora.Image(self.ctx, memoryview(bytes(192)).cast("B", (8, 8, 3)))
        told = image.with_text("a cat, 猫\nSteps: 5, Sampler: Euler, Seed: 7, Other: 1")
        self.assertEqual((image.text, told.texts), ("", {}))
        for name in ("t.png", "t.jpg", "t.webp"):
            told.save(self.path(name), quality=90)
            self.assertEqual(sdlora.Image.open(self.ctx, self.path(name)).text, told.text)
            self.assertEqual(sdlora.Image.read_text(self.ctx, self.path(name)), told.text)
        with self.assertRaises(sdlora.Error):
            told.save(self.path("t.gif"))
        with self.assertRaises(sdlora.Error):
            sdlora.Image.read_text(self.ctx, self.path("none.png"))
        options = sdlora.Options("generate")
        options["steps"] = 3
        notes = options.from_infotext(self.ctx, told.text + ", Face restoration: GFPGAN")
        self.assertEqual((options["prompt"], options["steps"], options["seed"]),
                         ("a cat, 猫", "3", "7"))
        self.assertEqual(options["infotext_extra"], "Other: 1")
        self.assertEqual(len(notes), 1)
        self.assertIn("GFPGAN", notes[0])

    @unittest.skipUnless(PilImage, "Pillow is not installed")
    def test_texts_as_pillow_reads_them(self):
        image = sdlora.Image(self.ctx, memoryview(bytes(192)).cast("B", (8, 8, 3)))
        image.with_text("café 猫").save(self.path("p.png"))
        with PilImage.open(self.path("p.png")) as picture:
            self.assertEqual(picture.text["parameters"], "café 猫")
        for name in ("p.jpg", "p.webp"):
            image.with_text("café 猫").save(self.path(name))
            with PilImage.open(self.path(name)) as picture:
                comment = picture.getexif().get_ifd(0x8769)[0x9286]
                self.assertEqual(comment, b"UNICODE\0" + "café 猫".encode("utf-16-be"))
                picture.load()

    def test_memory_outlives_the_handle(self):
        image = sdlora.Image(self.ctx, memoryview(bytes(range(12))).cast("B", (2, 2, 3)))
        view = image.data
        image.close()
        del image
        gc.collect()
        self.assertEqual(view.tobytes(), bytes(range(12)))

    def test_sheet(self):
        one = sdlora.Image(self.ctx, memoryview(bytes(64 * 64 * 3)).cast("B", (64, 64, 3)))
        sheet = sdlora.Image.sheet(self.ctx, [[one, one, one], [one, one, one]],
                                   ["row", "other"], ["0", "0.5", "1"])
        self.assertGreaterEqual(sheet.width, 3 * 64)
        self.assertGreaterEqual(sheet.height, 2 * 64)
        with self.assertRaises(ValueError):
            sdlora.Image.sheet(self.ctx, [[one], [one, one]])
        with self.assertRaises(ValueError):
            sdlora.Image.sheet(self.ctx, [[one]], ["a", "b"])

    def test_grid(self):
        generator, seen = sdlora.Generator(self.ckpt), []
        pictures = dict(prompt="cat", width=64, height=64, steps=1)
        grid = sdlora.Grid(generator, {"x_type": "Seed", "x_values": "7, 8"},
                           progress=lambda now: seen.append(now.phase_done), **pictures)
        self.assertEqual(grid.labels(0), ["Seed: 7", "Seed: 8"])
        self.assertIsNone(grid.cell(0))
        grid.run()
        self.assertEqual(seen[-1], 2)
        alone = generator.run(seed=8, **pictures)[0]
        self.assertEqual(grid.cell(1).data.tobytes(), alone.data.tobytes())
        self.assertIn("X Values: \"7, 8\"", grid.sheet().text)
        models = sdlora.Grid(generator, {"x_type": "Checkpoint name", "x_values": "a, b"},
                             models=lambda name: sdlora.Generator(self.ckpt), seed=8, **pictures)
        models.run()
        self.assertEqual(models.cell(1).data.tobytes(), alone.data.tobytes())
        broken = sdlora.Grid(generator, {"x_type": "Checkpoint name", "x_values": "a"},
                             models=lambda name: 1 / 0, **pictures)
        with self.assertRaises(ZeroDivisionError):
            broken.run()
        with self.fails(FileNotFoundError, -7, "Seed"):
            sdlora.Grid(generator, {"x_type": "Sead", "x_values": "1"})
        self.assertIn("Prompt S/R", sdlora.axes())

    def test_from_pictures(self):
        generator = sdlora.Generator(self.ckpt)
        how = dict(prompt="cat", width=64, height=64, steps=2, seed=1)
        plain = generator.run(**how)[0]
        half = bytes(64 * 32 * 3) + b"\xff" * (64 * 32 * 3)
        generator.set_init_image(plain)
        generator.set_mask(sdlora.Image(self.ctx, memoryview(half).cast("B", (64, 64, 3))))
        lower = generator.run(mask_blur=0, **dict(how, seed=2))[0]
        self.assertEqual(lower.data.tobytes()[:64 * 32 * 3], plain.data.tobytes()[:64 * 32 * 3])
        self.assertNotEqual(lower.data.tobytes(), plain.data.tobytes())
        self.assertIn("Denoising strength: 0.75", lower.text)
        generator.set_init_image(None)
        with self.fails(ValueError, -3, "mask"):
            generator.run(**how)
        generator.set_mask(None)
        self.assertEqual(generator.run(**how)[0].data.tobytes(), plain.data.tobytes())
        generator.add_vae_dir(PICTURES)
        generator.add_upscaler_dir(PICTURES)
        with self.fails(FileNotFoundError, -7, "4x"):
            generator.run(enable_hr=True, hr_upscaler="4x", **how)

    def test_preview(self):
        seen = []

        def look(now):
            if now.phase == "sample" and now.phase_done:
                seen.append(generator.preview())

        generator = sdlora.Generator(self.ckpt, watch=look)
        generator.run("cat", width=64, height=64, steps=2)
        self.assertEqual([(i.width, i.height) for i in seen], [(8, 8)] * 2)
        self.assertNotEqual(seen[0].data.tobytes(), seen[1].data.tobytes())
        with self.fails(ValueError, -3):
            generator.preview()

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_numpy(self):
        pixels = numpy.arange(2 * 5 * 3, dtype=numpy.uint8).reshape(2, 5, 3)
        image = sdlora.Image(self.ctx, pixels[:, ::-1])  # any strides
        shared = numpy.asarray(image)
        image.close()
        gc.collect()
        numpy.testing.assert_array_equal(shared, pixels[:, ::-1])
        self.assertFalse(shared.flags.writeable)
        with self.assertRaises(ValueError):
            sdlora.Image(self.ctx, pixels.astype(float))

    @unittest.skipUnless(PilImage, "Pillow is not installed")
    def test_pillow(self):
        path = os.path.join(PICTURES, "10_openmoji", "egg.jpg")
        with PilImage.open(path) as picture:
            image = sdlora.Image(self.ctx, picture)
            self.assertEqual(image.pil().tobytes(), picture.convert("RGB").tobytes())


if __name__ == "__main__":
    unittest.main()
