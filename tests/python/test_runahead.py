"""The installed package against the demo model: python -m unittest discover -s tests/python"""

from __future__ import annotations

import gc
import importlib.resources
import pathlib
import sys
import tempfile
import threading
import time
import unittest

import numpy

import runahead

DEMO = pathlib.Path(__file__).resolve().parents[2] / "models" / "demo"
TEXT = "Arrived, the Velvet Otter of 886 tons, with linen.\n"
QUESTION = "\nQuestion: What cargo did the Velvet Otter carry?\nAnswer:"


class Package(unittest.TestCase):
    def test_brings_types_and_docstrings(self):
        files = importlib.resources.files(runahead)
        self.assertTrue(files.joinpath("py.typed").is_file())
        stub = files.joinpath("_runahead.pyi").read_text()
        self.assertIn("def prefill(self, tokens: TokenIds, *, strategy: str = 'runahead'", stub)
        for name in runahead.__all__:
            self.assertTrue(getattr(runahead, name).__doc__, name)

    def test_knows_its_version(self):
        info = runahead.build_info()
        self.assertEqual(runahead.__version__, info.version)
        self.assertRegex(info.version, r"^\d+\.\d+\.\d+$")
        self.assertIn("cpu", info.parts)


class Errors(unittest.TestCase):
    def test_are_one_family(self):
        for name in ("ConfigError", "RefusedError", "IoError", "DeviceError", "LinkError"):
            self.assertTrue(issubclass(getattr(runahead, name), runahead.Error), name)

    def test_name_the_thing_and_the_value(self):
        with self.assertRaisesRegex(runahead.IoError, "no/such/folder"):
            runahead.Engine("no/such/folder")
        with self.assertRaisesRegex(runahead.ConfigError, "cpu:0"):
            runahead.Engine(DEMO, devices="cpu:0")
        with self.assertRaisesRegex(runahead.ConfigError, "dtype.*'f8'"):
            runahead.Engine(DEMO, dtype="f8")
        with self.assertRaisesRegex(runahead.ConfigError, "weights.*'int5'"):
            runahead.Engine(DEMO, weights="int5")


class TokenizerTest(unittest.TestCase):
    def test_gives_back_the_text(self):
        tokenizer = runahead.Tokenizer(DEMO)
        ids = tokenizer.encode(TEXT)
        self.assertEqual(tokenizer.decode(ids), TEXT)
        self.assertEqual(tokenizer.decode(numpy.array(ids)), TEXT)
        stream = runahead.StreamDecoder(tokenizer)
        self.assertEqual("".join(stream.feed(id) for id in ids) + stream.flush(), TEXT)
        self.assertLess(max(ids), tokenizer.vocab_size)
        self.assertIsNone(tokenizer.token_id("no such token"))


class SessionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Measurements of this machine's user would change plans.
        cls.tuned = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.tuned.cleanup)
        cls.tokenizer = runahead.Tokenizer(DEMO)
        cls.engine = runahead.Engine(DEMO, devices="cpu:2", dtype="f32", tuned_folder=cls.tuned.name)
        cls.prompt = cls.tokenizer.encode(TEXT * 20 + QUESTION)

    def session(self, more: int = 32) -> runahead.Session:
        return self.engine.session(len(self.prompt) + more)

    def test_takes_lists_and_arrays_of_integers(self):
        session = self.session()
        report = session.prefill(self.prompt)
        self.assertEqual(report.cuts[-1], len(self.prompt))
        self.assertEqual(session.size, len(self.prompt))
        expected = session.logits.copy()
        wide = numpy.zeros(2 * len(self.prompt), numpy.int64)
        wide[::2] = self.prompt
        for same in (tuple(self.prompt), iter(self.prompt), wide[::2], numpy.array(self.prompt, numpy.uint16)):
            session.prefill(same)
            numpy.testing.assert_array_equal(session.logits, expected)

    def test_quantises_weights(self):
        engine = runahead.Engine(DEMO, weights="int8", tuned_folder=self.tuned.name)
        self.assertEqual(engine.facts.weights, "int8")
        self.assertLess(engine.facts.weight_bytes, self.engine.facts.weight_bytes)

    def test_refuses_what_is_no_prompt(self):
        session = self.session()
        for wrong in ("text", b"text", numpy.zeros(3), numpy.zeros((2, 2), numpy.int32), [1.5], None, 7):
            with self.assertRaises(TypeError, msg=repr(wrong)):
                session.prefill(wrong)
        for wrong in ([], [-1], [2**31], numpy.array([1, 2**40]), [self.engine.facts.vocab]):
            with self.assertRaises(runahead.ConfigError, msg=repr(wrong)):
                session.prefill(wrong)
        with self.assertRaisesRegex(runahead.ConfigError, "sideways"):
            session.prefill([1, 2], strategy="sideways")
        with self.assertRaises(runahead.ConfigError):
            self.engine.session(0)

    def test_ranks_and_partitions_give_the_same_tokens(self):
        ids = []
        for keywords in (
            {"strategy": "single"},
            {"partition": [3, 1]},
            {"partition": "even", "topology": "direct"},
            {"strategy": "tsp"},
        ):
            answer = self.session().generate(self.prompt, max_new_tokens=12, **keywords)
            ids.append(answer.ids)
        self.assertEqual(len(ids[0]), 12)
        self.assertEqual(ids, [ids[0]] * len(ids))

    def test_manual_fractions_are_the_cuts(self):
        report = self.session().prefill(self.prompt[:100], partition=[3, 1])
        self.assertEqual((report.cuts, report.partition, report.ranks), ([0, 75, 100], "manual", 2))

    def test_timelines_are_recorded_when_asked_for(self):
        session = self.session()
        self.assertEqual(session.prefill(self.prompt).timeline, [])
        events = session.prefill(self.prompt, partition="even", timeline=True).timeline
        self.assertEqual({event.rank for event in events}, {0, 1})
        self.assertTrue({"compute", "send", "receive"} & {event.activity for event in events})

    def test_logits_are_a_view_that_outlives_its_owners(self):
        session = self.session()
        session.prefill(self.prompt)
        logits = session.logits
        self.assertEqual((logits.shape, logits.dtype), ((self.engine.facts.vocab,), numpy.float32))
        self.assertFalse(logits.flags.writeable)
        self.assertTrue(numpy.shares_memory(logits, session.logits))
        before = logits.copy()
        session.append(int(logits.argmax()))
        self.assertTrue((logits != before).any())
        newest = logits.copy()
        del session
        gc.collect()
        self.session().prefill(self.prompt[:7])
        numpy.testing.assert_array_equal(logits, newest)

    def test_greedy_by_hand_is_generate(self):
        answer = self.session().generate(self.prompt, max_new_tokens=8)
        session = self.session()
        session.prefill(self.prompt)
        ids = [int(session.logits.argmax())]
        while len(ids) < 8:
            ids.append(session.append_greedy(ids[-1]))
        self.assertEqual(ids, answer.ids)

    def test_streams_the_text(self):
        pieces = []
        answer = self.session().generate(
            self.prompt,
            tokenizer=self.tokenizer,
            eos=runahead.end_tokens(DEMO, self.tokenizer),
            stop=["\n"],
            on_text=pieces.append,
        )
        self.assertEqual("".join(pieces), answer.text)
        self.assertTrue(self.tokenizer.decode(answer.ids).startswith(answer.text))
        self.assertIn(answer.finish, ("eos", "stop", "length"))
        self.assertGreater(answer.prefill.ttft_ms, 0)

    def test_ids_stop_and_penalties_change_the_draws(self):
        answer = self.session().generate(self.prompt, max_new_tokens=8)
        stopped = self.session().generate(self.prompt, max_new_tokens=8, stop_ids=[answer.ids[3]])
        self.assertEqual((stopped.ids, stopped.finish), (answer.ids[: answer.ids.index(answer.ids[3])], "stop"))
        whole = self.session().generate(self.prompt, max_new_tokens=48).ids
        self.assertNotEqual(self.session().generate(self.prompt, max_new_tokens=48, repetition_penalty=1e6).ids, whole)
        likeliest = self.session().generate(self.prompt, max_new_tokens=8, temperature=9.0, min_p=1.0, seed=3)
        self.assertEqual(likeliest.ids, answer.ids)
        for name, value in (("repetition_penalty", 0.0), ("presence_penalty", 3.0), ("frequency_penalty", -3.0)):
            with self.assertRaisesRegex(runahead.ConfigError, name.replace("_", ".")):
                self.session().generate(self.prompt, **{name: value})

    def test_a_callbacks_error_ends_the_generation(self):
        session = self.session()

        def fail(text: str) -> None:
            raise KeyError(text)

        with self.assertRaises(KeyError):
            session.generate(self.prompt, tokenizer=self.tokenizer, on_text=fail)
        session.prefill(self.prompt)

    def test_one_call_at_a_time(self):
        session = self.session()
        with self.assertRaisesRegex(runahead.ConfigError, "one call at a time"):
            session.generate(self.prompt, tokenizer=self.tokenizer, on_text=lambda text: session.append(1))

    def test_other_threads_run_meanwhile(self):
        ticks = 0
        end = threading.Event()

        def tick() -> None:
            nonlocal ticks
            while not end.is_set():
                ticks += 1
                time.sleep(0)  # lets go

        session = self.session()
        thread = threading.Thread(target=tick)
        interval = sys.getswitchinterval()
        thread.start()
        try:
            sys.setswitchinterval(1000)  # s; the other thread gets its turn only where this one lets go
            during = 0
            for _ in range(50):
                before = ticks
                session.prefill(self.prompt)
                during += ticks - before
                if during:
                    break
        finally:
            sys.setswitchinterval(interval)
            end.set()
            thread.join()
        self.assertGreater(during, 0)

    def test_progress_of_loading(self):
        shares = []
        runahead.Engine(DEMO, on_load_progress=shares.append)
        self.assertEqual(shares, sorted(shares))
        self.assertEqual(shares[-1], 1)


class PlannerTest(unittest.TestCase):
    def test_plans_each_context_and_count(self):
        plans = runahead.plan("4x4090-pcie", contexts=[2048, 8192], ranks=[1, 4])
        self.assertEqual([(plan.context, plan.ranks) for plan in plans], [(2048, 1), (2048, 4), (8192, 1), (8192, 4)])
        single, four = plans[2:]
        self.assertEqual([strategy.scheme for strategy in single.strategies], ["single"])
        self.assertEqual(len(four.strategies), 5)
        self.assertEqual(four.best.ttft_ms, min(strategy.ttft_ms for strategy in four.strategies))
        self.assertAlmostEqual(four.speed_up, single.best.ttft_ms / four.best.ttft_ms)

    def test_simulates_what_was_planned(self):
        best = runahead.plan(contexts=[16384], ranks=[4])[0].best
        played = runahead.simulate(best.scheme, best.cuts, timeline=True)
        self.assertAlmostEqual(played.ttft_ms, best.ttft_ms)
        self.assertEqual(len(played.compute_ms), 4)
        self.assertTrue(played.timeline)
        even = runahead.simulate(best.scheme, [0, 4096, 8192, 12288, 16384])
        self.assertGreater(even.ttft_ms, played.ttft_ms)

    def test_reads_descriptions(self):
        toml = runahead.Planner.description("4x4090-pcie")
        expected = runahead.plan("4x4090-pcie", contexts=[4096], ranks=[2])[0].best
        parsed = runahead.Planner.parse(toml).plan([4096], [2])[0].best
        self.assertEqual((parsed.scheme, parsed.cuts), (expected.scheme, expected.cuts))
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "own.toml"
            path.write_text(toml)
            self.assertEqual(runahead.plan(path, contexts=[4096], ranks=[2])[0].best.cuts, expected.cuts)

    def test_refuses_what_it_does_not_know(self):
        for call, text in (
            (lambda: runahead.plan("9xabacus"), "9xabacus"),
            (lambda: runahead.plan("no/such.toml"), "no/such.toml"),
            (lambda: runahead.plan(model="llama-9t"), "llama-9t"),
            (lambda: runahead.plan(contexts=[0]), "contexts: expected 1 to 4294967296, got 0"),
            (lambda: runahead.plan(ranks=[9]), "ranks: expected 1 to 8, got 9"),
            (lambda: runahead.simulate("sideways", [0, 9]), "sideways"),
            (lambda: runahead.simulate("runahead chain", [0, 5, 5]), "5"),
            (lambda: runahead.simulate("single", [0, 5, 9]), "one chunk"),
            (lambda: runahead.simulate("tsp", [0, 5, 9], devices=[0, 8]), "devices: expected 0 to 7, got 8"),
            (lambda: runahead.simulate("tsp", [0, 5, 9], devices=[1, 1]), "twice"),
            (lambda: runahead.simulate("tsp", list(range(10))), "9 chunks"),
        ):
            with self.assertRaisesRegex(runahead.Error, text):
                call()


if __name__ == "__main__":
    unittest.main()
