#!/usr/bin/env python3
"""Asks `runahead serve` for each feature with OpenAI's own client: tools/server_check.py [PROGRAM] [TEST...]

Installs the client into a virtual environment of its own; exits with 77 where no package index can be reached.
"""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "server-check"


def enter_environment():
    """Goes on in an environment that has the client."""
    python = WORK / "venv" / "bin" / "python"
    if subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True).returncode != 0:
        subprocess.run([ROOT / "tools" / "install_deps.sh", "python3-venv"], check=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", WORK / "venv"], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    if subprocess.run([python, "-c", "import openai"], capture_output=True).returncode != 0:
        if subprocess.run([*pip, "--dry-run", "openai"]).returncode != 0:
            print("server_check.py: skipped, since pip reaches no package index")
            sys.exit(77)
        subprocess.run([*pip, "openai"], check=True)
    os.execv(python, [python, __file__, *sys.argv[1:]])


if __name__ == "__main__" and sys.prefix == sys.base_prefix:
    enter_environment()

import asyncio
import atexit
import contextlib
import json
import re
import signal
import threading
import time
import types
import unittest
import urllib.error
import urllib.request

import openai

from server_answers import every_way
from server_process import PROGRAM, copy_demo

PROMPT = "In came the Velvet Otter, 886 tons, with linen. " * 20
KEY = "a-key-of-this-test"


def lines_of(stream, lines):
    """A thread that collects what a server says."""
    reader = threading.Thread(target=lambda: lines.extend(stream), daemon=True)
    reader.start()
    return reader


class Server:
    """One on a free port: the demo model with a chat template unless told."""

    def __init__(self, *flags, model=None, launcher=()):
        WORK.mkdir(parents=True, exist_ok=True)
        self.model = model or copy_demo(WORK / "demo")
        command = [*launcher, PROGRAM, "serve", "--model", self.model, *flags, "--port", "0", "--log", "json", "--api-keys", WORK / "keys"]
        (WORK / "keys").write_text(KEY + "\n")
        self.process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)
        for line in self.process.stderr:
            if address := re.search(r"listening on (http://[0-9.:]+)", line):
                self.address = address[1]
                break
        else:
            raise RuntimeError("the server did not start")
        self.lines = []
        self.reader = lines_of(self.process.stderr, self.lines)
        self.client = openai.OpenAI(base_url=self.address + "/v1", api_key=KEY, max_retries=0, timeout=120)

    def asynchronous(self):
        return openai.AsyncOpenAI(base_url=self.address + "/v1", api_key=KEY, max_retries=0, timeout=120)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.reader.join()
        return code


class Web:
    """Plain HTTP, for what the client has no words for."""

    def open(self, path, body=None, headers=()):
        fields = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **dict(headers)}
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.urlopen(urllib.request.Request(server.address + path, data, fields), timeout=120)

    def ask(self, path, body=None, headers=()):
        with self.open(path, body, headers) as answer:
            text = answer.read().decode()
            return types.SimpleNamespace(text=text, headers=answer.headers, json=lambda: json.loads(text))


def setUpModule():
    global server, client, web
    server = Server("--devices", "cpu:2")
    client = server.client
    web = Web()


def tearDownModule():
    code = server.stop()
    records = [json.loads(line) for line in server.lines]
    assert code == 0, f"the server ended with {code}"
    completions = [r for r in records if r.get("route") == "/v1/completions" and r["status"] == 200]
    assert all(r["prompt_tokens"] > 0 or r.get("cut") for r in completions if "prompt_tokens" in r)
    assert "Velvet" not in "".join(server.lines), "the log has what was asked"


def complete(**options):
    return client.completions.create(**{"model": "demo", "prompt": PROMPT, "max_tokens": 8, "temperature": 0, **options})


def chat(**options):
    messages = [{"role": "user", "content": "What cargo did the Velvet Otter carry?"}]
    return client.chat.completions.create(**{"model": "demo", "messages": messages, "max_tokens": 8, "temperature": 0, **options})


def generate(*flags, model=None, prompt=("--prompt", PROMPT)):
    """The ids that the command line gives."""
    command = [PROGRAM, "generate", "--model", model or server.model, *prompt, "-n", "8", "--json", "--devices", "cpu:2"]
    return json.loads(subprocess.run([*command, *flags], check=True, capture_output=True).stdout)["ids"]


class EveryFeatureEveryWay(unittest.TestCase):
    """Name, options, and what holds for the answer."""

    BOTH = [
        ("stop", {"stop": ["a", "zz"]}, lambda a: "a" not in a.choices[0].text and a.choices[0].finish == "stop"),
        ("one stop", {"stop": " "}, lambda a: " " not in a.choices[0].text),
        ("n", {"n": 3, "temperature": 1, "seed": 1}, lambda a: len(a.choices) == 3 and len({c.text for c in a.choices}) > 1),
        ("seed", {"temperature": 1, "seed": 9}, lambda a: a.usage[1] == 8),
        ("top_p", {"temperature": 1, "seed": 9, "top_p": 0.5}, None),
        ("top_k", {"temperature": 1, "seed": 9, "extra_body": {"top_k": 2}}, None),
        ("min_p", {"temperature": 1, "seed": 9, "extra_body": {"min_p": 0.3}}, None),
        ("repetition_penalty", {"extra_body": {"repetition_penalty": 1.4}}, None),
        ("presence_penalty", {"presence_penalty": 1.5}, None),
        ("frequency_penalty", {"frequency_penalty": -1.5}, None),
        ("max_tokens", {"max_tokens": 3}, lambda a: a.usage[1] == 3 and a.choices[0].finish == "length"),
        ("max_completion_tokens", {"max_tokens": openai.NOT_GIVEN, "extra_body": {"max_completion_tokens": 4}}, lambda a: a.usage[1] == 4),
        ("logit_bias", {"logit_bias": {"90": 100}, "max_tokens": 4}, lambda a: len(set(a.choices[0].text)) == 1),
        ("stop_token_ids", {"logit_bias": {"90": 100}, "extra_body": {"stop_token_ids": [90]}}, lambda a: a.choices[0].text == ""),
        ("ignore_eos", {"max_tokens": 40, "extra_body": {"ignore_eos": True}}, lambda a: a.usage[1] == 40),
        ("user", {"user": "somebody"}, None),
        ("metadata and unknown", {"extra_body": {"metadata": {"a": "b"}, "a_field_of_tomorrow": 1}}, None),
    ]
    COMPLETIONS = [
        ("logprobs", {"logprobs": 3}, lambda a: len(a.choices[0].tokens) == 8 and all(len(t) >= 3 for t in a.choices[0].tops)),
        ("echo", {"prompt": "Harbour log", "echo": True}, lambda a: a.choices[0].text.startswith("Harbour log")),
        ("ids", {"prompt": [5, 6, 7]}, lambda a: a.usage[0] == 3),
        ("several prompts", {"prompt": ["Harbour", "Log book"], "n": 2, "seed": 4}, lambda a: len(a.choices) == 4),
    ]
    CHAT = [
        ("logprobs", {"logprobs": True, "top_logprobs": 2}, lambda a: len(a.choices[0].tokens) == 8 and all(len(t) == 2 for t in a.choices[0].tops)),
        ("parts", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Which"}, {"type": "text", "text": "ship?"}]}]}, None),
        ("metadata", {"metadata": {"a": "b"}}, None),
        ("max_completion_tokens", {"max_tokens": openai.NOT_GIVEN, "max_completion_tokens": 2}, lambda a: a.usage[1] == 2),
        ("continue_final_message", {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The"}],
                                    "extra_body": {"continue_final_message": True, "add_generation_prompt": False}}, None),
    ]

    def check(self, kind, usual, features):
        for name, options, holds in features:
            with self.subTest(name):
                answers = every_way(server, kind, {"model": "demo", "max_tokens": 8, "temperature": 0, **usual, **options})
                for answer in answers:
                    self.assertEqual(answer.says(), answers[0].says())
                    self.assertGreaterEqual(answer.cached, 0)
                    self.assertTrue(holds is None or holds(answer), vars(answer.choices[0]))

    def test_completions(self):
        self.check("completions", {"prompt": PROMPT}, self.BOTH + self.COMPLETIONS)

    def test_chat(self):
        self.check("chat", {"messages": [{"role": "user", "content": "What cargo did the Velvet Otter carry?"}]}, self.BOTH + self.CHAT)


class TinyModels(unittest.TestCase):
    def test_every_way_and_like_generate(self):
        for name in ["llama-gqa-tied-bf16", "gpt2-f16", "gemma2-caps-f32", "qwen3-moe-f16"]:
            with self.subTest(name):
                tiny = Server("--devices", "cpu:2", "--model-name", "tiny", model=ROOT / "tests" / "model" / "goldens" / name)
                options = {"model": "tiny", "prompt": [3, 4, 5, 6], "max_tokens": 8, "temperature": 0.9, "seed": 3, "logprobs": 0, "extra_body": {"ignore_eos": True}}
                answers = every_way(tiny, "completions", options)
                ids = generate("--temperature", "0.9", "--seed", "3", "--ignore-eos", model=tiny.model, prompt=("--prompt-ids", "3,4,5,6"))
                for answer in answers:
                    self.assertEqual(answer.says(), answers[0].says())
                    self.assertEqual([int(re.search("[0-9]+", token)[0]) for token in answer.choices[0].tokens], ids)
                with self.assertRaises(openai.BadRequestError) as caught:
                    tiny.client.completions.create(model="tiny", prompt="text")
                self.assertIn("tokenizer", str(caught.exception))
                self.assertEqual(tiny.stop(), 0)


class Completions(unittest.TestCase):
    def test_models(self):
        self.assertEqual([m.id for m in client.models.list()], ["demo"])
        self.assertEqual(client.models.retrieve("demo").object, "model")

    def test_ids_like_generate(self):
        def text_of(token):
            return web.ask("/detokenize", {"tokens": [token]}).json()["prompt"]

        drawn = {"temperature": 1.3, "seed": 7}
        for options in [
            {},
            {"temperature": 0.8, "seed": 5},
            {**drawn, "top_p": 0.7},
            {**drawn, "top_k": 3},
            {**drawn, "min_p": 0.2},
            {**drawn, "repetition_penalty": 1.5},
            {**drawn, "presence_penalty": 1.5},
            {**drawn, "frequency_penalty": 1.5},
            {"repetition_penalty": 0.8, "presence_penalty": -2, "frequency_penalty": 2},
            {**drawn, "top_k": 40, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.5},
            {"stop": "e"},
            {**drawn, "stop_token_ids": [90, 91, 92], "ignore_eos": True},
        ]:
            with self.subTest(options):
                flags = []
                for name, value in options.items():
                    flags.append("--stop-id" if name == "stop_token_ids" else "--" + name.replace("_", "-"))
                    if value is not True:
                        flags.append(",".join(map(str, value)) if isinstance(value, list) else str(value))
                ids = generate(*flags)
                answer = web.ask("/v1/completions", {"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "logprobs": 0, **options}).json()
                self.assertEqual(answer["choices"][0]["logprobs"]["tokens"], [text_of(token) for token in ids])

    def test_asynchronous(self):
        async def ask():
            async with openai.AsyncOpenAI(base_url=server.address + "/v1", api_key=KEY) as many:
                common = {"model": "demo", "max_tokens": 8, "temperature": 0}
                answers = await asyncio.gather(*[many.completions.create(prompt=PROMPT + str(i), **common) for i in range(20)])
                stream = await many.completions.create(prompt=PROMPT + "3", stream=True, **common)
                text = "".join([c.text async for x in stream for c in x.choices])
                return answers, text

        answers, text = asyncio.run(ask())
        self.assertEqual(answers[3].choices[0].text, text)
        self.assertTrue(all(a.usage.completion_tokens == 8 for a in answers))

    def test_cached_tokens(self):
        complete()
        usage = complete().usage
        self.assertGreater(usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens // 2)

    def test_logit_bias(self):
        ids = web.ask("/tokenize", {"prompt": " linen", "add_special_tokens": False}).json()["tokens"]
        answer = complete(logit_bias={str(ids[-1]): 100}, max_tokens=4)
        self.assertEqual(web.ask("/tokenize", {"prompt": answer.choices[0].text}).json()["tokens"][-1], ids[-1])

    def test_token_prompts(self):
        ids = web.ask("/tokenize", {"prompt": PROMPT}).json()["tokens"]
        self.assertEqual(complete(prompt=ids).choices[0].text, complete().choices[0].text)
        self.assertIn(PROMPT.strip(), web.ask("/detokenize", {"tokens": ids}).json()["prompt"])



class Chat(unittest.TestCase):
    def test_as_the_template_says(self):
        text = "user: What cargo did the Velvet Otter carry?\nassistant:"
        ids = web.ask("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"]
        self.assertEqual(chat().choices[0].message.content.strip(), complete(prompt=ids).choices[0].text.strip())

    def test_refused_by_name(self):
        image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        for name, options in [
            ("tools", {"tools": [tool]}),
            ("response_format", {"response_format": {"type": "json_object"}}),
            ("image_url", {"messages": image}),
        ]:
            with self.subTest(name), self.assertRaises(openai.BadRequestError) as caught:
                chat(**options)
            self.assertIn(name, str(caught.exception))


class LongPrompts(unittest.TestCase):
    def test_progress(self):
        events = []
        body = {"model": "demo", "prompt": "Something else. " + PROMPT * 4, "max_tokens": 2, "stream": True, "return_progress": True}
        with web.open("/v1/completions", body) as answer:
            for line in answer:
                if line.startswith(b"data: {"):
                    events.append(json.loads(line[6:]))
        progress = [e["prompt_progress"] for e in events if "prompt_progress" in e]
        self.assertTrue(progress)
        self.assertEqual(progress[-1]["processed"], progress[-1]["total"])

    def test_what_it_took(self):
        answer = web.ask("/v1/completions", {"model": "demo", "prompt": PROMPT, "max_tokens": 2}, headers={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
        for name in ["x-runahead-ttft-ms", "x-runahead-ranks", "x-request-id", "traceparent"]:
            self.assertIn(name, answer.headers)
        self.assertGreater(answer.json()["runahead"]["ttft_ms"], 0)

    def test_a_closed_stream_is_cancelled(self):
        def cancelled():
            lines = web.ask("/metrics").text.splitlines()
            return sum(float(x.split()[-1]) for x in lines if x.startswith('runahead_requests_total{finish="cancelled"}'))

        before = cancelled()
        stream = complete(stream=True, max_tokens=4000, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        for _ in range(1000):  # each asks the server, which answers when it can
            if cancelled() > before:
                return
        self.fail("the request goes on")

    def test_a_deadline_that_cannot_be_met_is_refused(self):
        complete(prompt="Measured. " + PROMPT)
        with self.assertRaises(openai.RateLimitError) as caught:
            complete(prompt="Too late. " + PROMPT * 4, extra_headers={"x-runahead-deadline-ms": "0.001"})
        self.assertEqual(caught.exception.code, "deadline")


class Errors(unittest.TestCase):
    def test_keys(self):
        stranger = openai.OpenAI(base_url=server.address + "/v1", api_key="another", max_retries=0)
        with self.assertRaises(openai.AuthenticationError):
            stranger.models.list()

    def test_statuses(self):
        with self.assertRaises(openai.NotFoundError):
            complete(model="another")
        with self.assertRaises(openai.BadRequestError):
            complete(temperature=-1)
        with self.assertRaises(openai.BadRequestError) as caught:
            complete(prompt=PROMPT * 100)
        self.assertIn("8192", str(caught.exception).replace(",", ""))

    def test_state_and_metrics(self):
        self.assertEqual(web.ask("/runahead/state").json()["model"], "demo")
        metrics = web.ask("/metrics").text
        for name in ["ttft_seconds_count", 'pages{rank="1"', "busy_seconds_total", "http_requests_total", "healthy 1"]:
            self.assertIn("runahead_" + name, metrics)


class LostRank(unittest.TestCase):
    """A process of the group is lost, by its death or its silence, while answers run."""

    def lose(self, how):
        group = Server("--threads-per-rank", "1", "--on-failure", "fail", launcher=(PROGRAM, "launch", "--ranks", "2", "--grace", "20", "--"))
        options = {"model": "demo", "prompt": "Harbour log", "max_tokens": 8000, "extra_body": {"ignore_eos": True}}
        stream = iter(group.client.completions.create(**options, stream=True))
        next(stream)
        lost = next(pid for pid in children(group.process.pid) if b"\0RANK=1\0" in pathlib.Path(f"/proc/{pid}/environ").read_bytes())
        begin = time.monotonic()
        os.kill(lost, how)
        with self.assertRaises(openai.APIError) as caught:
            for chunk in stream:
                self.assertFalse(any(c.finish_reason for c in chunk.choices))
        self.assertIn("rank 1 on ", str(caught.exception))
        with self.assertRaises(urllib.error.HTTPError) as health:
            urllib.request.urlopen(group.address + "/health", timeout=60)
        print(f"/health is false {time.monotonic() - begin:.2f} s after rank 1 got signal {int(how)}", file=sys.stderr)
        self.assertEqual(health.exception.code, 503)
        with self.assertRaises(openai.InternalServerError):
            group.client.completions.create(**options)
        with contextlib.suppress(ProcessLookupError):
            os.kill(lost, signal.SIGKILL)
        group.stop()

    def test_killed(self):
        self.lose(signal.SIGKILL)

    def test_stopped(self):
        self.lose(signal.SIGSTOP)


def children(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


if __name__ == "__main__":
    if len(sys.argv) > 1 and pathlib.Path(sys.argv[1]).exists():
        PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve()
    elif not PROGRAM.exists():
        subprocess.run(["make", "-C", ROOT, "build"], check=True)
    unittest.main(verbosity=2)
