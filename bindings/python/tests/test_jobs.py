# SPDX-License-Identifier: MIT
"""Training and drawing: progress, interrupts, exceptions, files."""
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import unittest
import unittest.mock

import sdlora
from sdlora import _job
from common import MODEL, PICTURES, Case

DRAW = dict(width=64, height=64, steps=4, seed=3)


def tensors(path):
    """A file's bytes behind the header, in which the time of the run stands."""
    with open(path, "rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), os.SEEK_CUR)
        return file.read()


class Training(Case):
    def test_loop(self):
        steps = list(self.trainer(validation=self.dataset(self.few(1))))
        self.assertEqual([now.step for now in steps], [1, 2, 3])
        last = steps[-1]
        self.assertEqual((last.total, last.epoch, last.epochs), (3, 2, 2))
        self.assertEqual((last.unet_lr, last.text_encoder_lr), (1e-3, 5e-4))
        self.assertTrue(all(math.isfinite(now.loss) and now.grad_norm > 0 for now in steps))
        self.assertGreater(last.val_loss, 0)
        self.assertEqual(sorted(os.listdir(self.dir)), ["metrics.jsonl", "t.safetensors"])

    def test_step_after_the_end(self):
        trainer = self.trainer(max_train_steps=1)
        self.assertIsNotNone(trainer.step())
        self.assertIsNone(trainer.step())
        self.assertIsNone(trainer.step())

    def test_run_tells_progress(self):
        seen = []
        self.trainer(progress=lambda now: seen.append((now.phase, now.step)) and None).run()
        self.assertEqual([s for phase, s in seen if phase == "train"], [1, 2, 3])

    def test_state(self):
        whole = self.trainer(output_name="whole")
        whole.run()
        half = self.trainer()
        half.step()
        half.save_state(self.path("state"))
        rest = self.trainer(output_name="rest")
        rest.resume(self.path("state"))
        self.assertEqual([now.step for now in rest], [2, 3])
        self.assertEqual(tensors(self.path("rest.safetensors")),
                         tensors(self.path("whole.safetensors")))

    def test_refiner(self):
        generator = sdlora.Generator(self.ckpt)
        plain = generator.run("pizza, food", **DRAW)[0]
        generator.set_refiner(self.ckpt)
        self.assertEqual(generator.run("pizza, food", **DRAW)[0].text, plain.text)  # the same model
        with sdlora.Checkpoint(self.ctx, "synthetic:tiny") as other:
            generator.set_refiner(other)
        refined = generator.run("pizza, food", **DRAW)[0]
        self.assertIn("Refiner: ", refined.text)
        generator.set_refiner(None)
        self.assertEqual(generator.run("pizza, food", **DRAW)[0].text, plain.text)

    def test_second_pass(self):
        generator = sdlora.Generator(self.ckpt)
        twice = dict(DRAW, enable_hr=True, hr_scale=1)
        plain = generator.run("pizza, food", **twice)[0]
        generator.set_hr_checkpoint(self.ckpt)
        same = generator.run("pizza, food", **twice)[0]
        self.assertEqual(same.data, plain.data)
        self.assertIn("Hires checkpoint: ", same.text)
        generator.set_hr_checkpoint(None)
        generator.add_ckpt_dir(os.path.dirname(MODEL))
        named = generator.run("pizza, food", hr_checkpoint_name="tinysd", **twice)[0]
        self.assertEqual(named.text, same.text)

    def test_exception_in_progress(self):
        def stop(now):
            if now.phase == "train":
                raise LookupError("from the callback")

        trainer = self.trainer(progress=stop)
        with self.assertRaisesRegex(LookupError, "from the callback"):
            trainer.run()
        self.assertEqual(trainer.step().step, 2)  # the trainer can go on

    def test_true_cancels(self):
        trainer = self.trainer(progress=lambda now: now.phase == "train" and now.step == 2)
        with self.fails(KeyboardInterrupt, -8):
            trainer.run()
        trainer.save(self.path("so-far.safetensors"))
        self.assertTrue(os.path.exists(self.path("so-far.safetensors")))

    def test_cancel_from_a_thread(self):
        trainer = self.trainer(max_train_steps=100000)
        timer = threading.Timer(0.3, trainer.cancel)
        timer.start()
        with self.fails(KeyboardInterrupt, -8):
            trainer.run()
        timer.join()

    def test_no_reentry(self):
        trainer = self.trainer(progress=lambda now: now.phase == "train" and trainer.step())
        with self.assertRaisesRegex(RuntimeError, "running"):
            trainer.run()

    def test_close_while_running(self):
        trainer = self.trainer(progress=lambda now: now.phase == "train" and trainer.close())
        with self.assertRaisesRegex(RuntimeError, "running"):
            trainer.run()

    def test_interrupt(self):
        """Ctrl-C in one long C call ends it within a second or so, and files can still be saved."""
        program = textwrap.dedent(f"""
            import sdlora
            ctx = sdlora.Context()
            ckpt = sdlora.Checkpoint(ctx, {MODEL!r})
            data = sdlora.Dataset(ctx, train_data_dir={PICTURES!r}, resolution=64,
                                  caption_extension=".txt")
            trainer = sdlora.Trainer(ckpt, sdlora.Network(ckpt), data, max_train_steps=1000000,
                                     output_dir={self.dir!r})
            print("ready", flush=True)
            try:
                trainer.run()
            except KeyboardInterrupt as error:
                trainer.save()
                print(type(error).__name__)
        """)
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(child.stdout.readline(), "ready\n")
            time.sleep(0.5)
            child.send_signal(signal.SIGINT)
            rest, _ = child.communicate(timeout=20)
        finally:
            child.kill()
            child.stdout.close()
        self.assertEqual((child.returncode, rest), (0, "KeyboardInterrupt\n"))
        self.assertEqual([n for n in os.listdir(self.dir) if n.endswith(".safetensors")],
                         ["last.safetensors"])


class Memory(Case):
    def test_nothing_is_lost(self):
        def everything():
            trainer = self.trainer(max_train_steps=1)
            trainer.run()
            with sdlora.Generator(self.ckpt) as generator:
                generator.set_network(trainer.network)
                generator.run("heart", **DRAW)
            with self.assertRaises(sdlora.Error):
                self.trainer(optimizer_type="no such optimizer")

        everything()  # what the context keeps for good (the tokenizer) is made once
        before = self.ctx.memory_used
        everything()
        self.assertEqual(self.ctx.memory_used, before)


class Interrupts(Case):
    def interrupted(self, call):
        """Runs call() on the helper thread, and an interrupt strikes when it is done."""
        def strike():
            made = call()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.2)  # for the main thread to notice
            return made

        with self.assertRaises(KeyboardInterrupt):
            _job.interruptible(strike, lambda: None)

    def test_result_of_an_interrupted_job_is_given_back(self):
        generator = sdlora.Generator(self.ckpt)
        generator.run("heart", **DRAW)
        before = self.ctx.memory_used
        with unittest.mock.patch("sdlora.generator.interruptible",
                                 lambda call, cancel: self.interrupted(call) or []):
            generator.run("heart", count=2, **DRAW)
        self.assertEqual(self.ctx.memory_used, before)

    def test_evaluation(self):
        data = self.dataset(self.few(1))
        loss = sdlora.evaluate(self.ckpt, data, seed=1)
        timer = threading.Timer(0.01, signal.pthread_kill,
                                [threading.main_thread().ident, signal.SIGINT])
        with self.assertRaises(KeyboardInterrupt):
            timer.start()
            while True:
                sdlora.evaluate(self.ckpt, data, seed=1)
        timer.join()
        self.assertEqual(sdlora.evaluate(self.ckpt, data, seed=1), loss)


class Watched(Case):
    """Jobs without a handle."""

    def test_evaluation(self):
        data, seen = self.dataset(self.few(2)), []
        loss = sdlora.evaluate(self.ckpt, data)
        again = sdlora.evaluate(self.ckpt, data, progress=lambda now: seen.append(now) and None)
        self.assertEqual(again, loss)
        self.assertEqual([(now.phase_done, now.phase_total) for now in seen
                          if now.phase == "validate"], [(0, 2), (1, 2), (2, 2)])
        self.assertTrue(math.isnan(seen[0].val_loss))
        with self.fails(KeyboardInterrupt, -8, "1 of 2 pictures"):
            sdlora.evaluate(self.ckpt, data, progress=lambda now: now.phase == "validate"
                            and now.phase_done == 1)

    def test_plan(self):
        net, data, seen = sdlora.Network(self.ckpt, network_dim=4), self.dataset(self.few(2)), []
        options = dict(max_train_steps=5, output_dir=self.path("none"), unet_lr=1e-3)
        report = sdlora.plan(self.ctx, self.ckpt, net, data, validation=self.dataset(self.few(1)),
                             progress=lambda now: seen.append(now.phase) and None, **options)
        self.assertEqual((report["run"]["steps"], report["run"]["validations"]), (5, 5))
        self.assertGreater(report["memory"]["peak"], report["memory"]["packed"])
        self.assertGreater(report["seconds"]["total"], 5 * report["seconds"]["step"])
        self.assertEqual(set(seen), {"plan"})
        self.assertFalse(os.path.exists(self.path("none")))
        with self.fails(KeyboardInterrupt, -8, "plan was cancelled"):
            sdlora.plan(self.ctx, self.ckpt, net, data, progress=lambda now: True, **options)

    def test_bench(self):
        seen = []
        report = self.ckpt.bench(self.ctx, what="text", repeats=1, width=64, height=64,
                                 progress=lambda now: seen.append((now.phase, now.phase_done,
                                                                   now.phase_total)) and None)
        self.assertEqual([part["part"] for part in report["parts"]], ["text"])
        self.assertEqual([one for one in seen if one[0] != "machine"],
                         [("text", 0, 2), ("text", 1, 2), ("text", 2, 2)])
        with self.fails(KeyboardInterrupt, -8, "run 1 of 6 of machine"):
            self.ckpt.bench(self.ctx, what="text", progress=lambda now: now.phase_done == 1)

    def test_exception(self):
        def stop(now):
            raise LookupError("enough")

        with self.assertRaisesRegex(LookupError, "enough"):
            sdlora.evaluate(self.ckpt, self.dataset(self.few(1)), progress=stop)
        with self.assertRaisesRegex(LookupError, "enough"):
            self.ckpt.bench(self.ctx, progress=stop)


class Drawing(Case):
    def test_pictures(self):
        seen = []
        generator = sdlora.Generator(self.ckpt, progress=lambda i, n: seen.append((i, n)) and None)
        two = generator.run("red apple, fruit", count=2, **DRAW)
        self.assertEqual(len(two), 2)
        self.assertEqual(seen[-1], (4, 4))
        self.assertNotEqual(two[0].data, two[1].data)
        self.assertIn("red apple, fruit", two[0].text)
        again = generator.run("red apple, fruit", **{**DRAW, "seed": 4})[0]
        self.assertEqual(again.data, two[1].data)  # picture k has seed + k

    def test_a_text_makes_its_picture_again(self):
        generator = sdlora.Generator(self.ckpt)
        [image] = generator.run("heart, (red:1.2)", sampler="DPM++ 2M", **DRAW)
        settings = sdlora.Options("generate")
        self.assertEqual(settings.from_infotext(self.ctx, image.text), [])
        self.assertEqual(generator.match(self.ctx, settings, image.text), [])
        [again] = generator.run(settings=settings)
        self.assertEqual((again.text, again.data.tobytes()), (image.text, image.data.tobytes()))
        [other] = generator.run(settings=settings, seed=5)
        self.assertNotEqual(other.data.tobytes(), image.data.tobytes())
        text = image.text.replace("Model hash: ", "Model hash: 0")
        self.assertIn("is another", generator.match(self.ctx, settings, text)[0])

    def test_network(self):
        generator = sdlora.Generator(self.ckpt)
        plain = generator.run("pizza, food", **DRAW)[0]
        trainer = self.trainer()
        trainer.run()
        generator.set_network(trainer.network)
        changed = generator.run("pizza, food", **DRAW)[0]
        self.assertNotEqual(changed.data, plain.data)
        generator.set_network(trainer.network, 0, 0)
        self.assertEqual(generator.run("pizza, food", **DRAW)[0].data, plain.data)
        generator.add_lora_dir(self.dir)
        tagged = generator.run("pizza, food <lora:t:1>", **DRAW)[0]
        self.assertEqual(tagged.data, changed.data)
        word = os.path.join(self.dir, "foodish.safetensors")
        sdlora.Network(self.ckpt, token_string="foodish", init_word="food").save(word)
        self.assertNotEqual(generator.run("pizza, foodish", **DRAW)[0].data, plain.data)
        generator.add_embeddings(word)
        # a new embedding is its word until it is trained
        named = generator.run("pizza, foodish", **DRAW)[0]
        self.assertEqual(named.data, plain.data)
        self.assertIn("TI hashes: \"foodish: ", named.text)

    def test_exception_in_progress(self):
        def stop(step, total):
            raise LookupError("enough")

        generator = sdlora.Generator(self.ckpt, progress=stop)
        with self.assertRaisesRegex(LookupError, "enough"):
            generator.run("heart", **DRAW)

    def test_names(self):
        self.assertIn("Euler a", sdlora.samplers())
        self.assertIn("Karras", sdlora.schedulers())
        with self.fails(NotImplementedError, -4, "Eulr"):
            sdlora.Generator(self.ckpt).run("heart", sampler="Eulr", **DRAW)


if __name__ == "__main__":
    unittest.main()
