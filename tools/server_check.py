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
import json
import shutil
import signal
import threading
import types
import unittest
import urllib.request

import openai

PROGRAM = ROOT / "build" / "release" / "bin" / "runahead"
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
PROMPT = "In came the Velvet Otter, 886 tons, with linen. " * 20
KEY = "a-key-of-this-test"


def lines_of(stream, lines):
    """A thread that collects what a server says."""
    reader = threading.Thread(target=lambda: lines.extend(stream), daemon=True)
    reader.start()
    return reader



class Server:
    """The demo model with a chat template, on a free port."""

    def __init__(self):
        WORK.mkdir(parents=True, exist_ok=True)
        self.model = WORK / "demo"
        shutil.rmtree(self.model, ignore_errors=True)
        shutil.copytree(ROOT / "models" / "demo", self.model)
        (self.model / "chat_template.jinja").write_text(TEMPLATE)
        (WORK / "keys").write_text(KEY + "\n")
        command = [PROGRAM, "serve", "--model", self.model, "--devices", "cpu:2", "--port", "0", "--log", "json"]
        self.process = subprocess.Popen([*command, "--api-keys", WORK / "keys"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        atexit.register(self.process.kill)
        for line in self.process.stderr:
            message = json.loads(line).get("message", "")
            if message.startswith("listening on "):
                self.address = message.removeprefix("listening on ")
                break
        else:
            raise RuntimeError("the server did not start")
        self.lines = []
        self.reader = lines_of(self.process.stderr, self.lines)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


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
    server = Server()
    client = openai.OpenAI(base_url=server.address + "/v1", api_key=KEY, max_retries=0, timeout=120)
    web = Web()


def tearDownModule():
    code = server.stop()
    server.reader.join()
    records = [json.loads(line) for line in server.lines]
    assert code == 0, f"the server ended with {code}"
    completions = [r for r in records if r.get("route") == "/v1/completions" and r["status"] == 200]
    assert all(r["prompt_tokens"] > 0 or r.get("cut") for r in completions if "prompt_tokens" in r)
    assert "Velvet" not in b"".join(server.lines).decode(), "the log has what was asked"


def complete(**options):
    return client.completions.create(**{"model": "demo", "prompt": PROMPT, "max_tokens": 8, "temperature": 0, **options})


def chat(**options):
    messages = [{"role": "user", "content": "What cargo did the Velvet Otter carry?"}]
    return client.chat.completions.create(**{"model": "demo", "messages": messages, "max_tokens": 8, "temperature": 0, **options})


def generate(*flags):
    command = [PROGRAM, "generate", "--model", server.model, "--prompt", PROMPT, "-n", "8", "--json", "--devices", "cpu:2"]
    return json.loads(subprocess.run([*command, *flags], check=True, capture_output=True).stdout)["text"]


class Completions(unittest.TestCase):
    def test_models(self):
        self.assertEqual([m.id for m in client.models.list()], ["demo"])
        self.assertEqual(client.models.retrieve("demo").object, "model")

    def test_like_generate(self):
        self.assertEqual(complete().choices[0].text, generate())
        for sampling, flags in [
            ({"temperature": 0.8, "seed": 5}, ["--temperature", "0.8", "--seed", "5"]),
            ({"temperature": 1, "top_p": 0.7, "seed": 6}, ["--temperature", "1", "--top-p", "0.7", "--seed", "6"]),
            ({"presence_penalty": 1.5}, ["--presence-penalty", "1.5"]),
            ({"frequency_penalty": 1.5}, ["--frequency-penalty", "1.5"]),
            ({"stop": ["e"]}, ["--stop", "e"]),
            ({"extra_body": {"top_k": 3}, "temperature": 1, "seed": 7}, ["--top-k", "3", "--temperature", "1", "--seed", "7"]),
        ]:
            with self.subTest(sampling):
                self.assertEqual(complete(**sampling).choices[0].text, generate(*flags))

    def test_stream(self):
        chunks = list(complete(stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.text for x in chunks for c in x.choices), complete().choices[0].text)
        self.assertEqual(chunks[-1].usage.completion_tokens, 8)
        self.assertEqual([c.finish_reason for x in chunks for c in x.choices][-1], "length")

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

    def test_choices(self):
        answer = complete(n=3, temperature=1, seed=1)
        self.assertEqual([c.index for c in answer.choices], [0, 1, 2])
        again = complete(n=3, temperature=1, seed=1)
        self.assertEqual([c.text for c in answer.choices], [c.text for c in again.choices])

    def test_echo_and_logprobs(self):
        answer = complete(echo=True, prompt="Harbour log")
        self.assertTrue(answer.choices[0].text.startswith("Harbour log"))
        answer = complete(logprobs=3)
        self.assertEqual(len(answer.choices[0].logprobs.tokens), 8)
        self.assertTrue(all(p <= 0 for p in answer.choices[0].logprobs.token_logprobs))
        self.assertTrue(all(len(t) >= 1 for t in answer.choices[0].logprobs.top_logprobs))

    def test_logit_bias(self):
        ids = web.ask("/tokenize", {"prompt": " linen", "add_special_tokens": False}).json()["tokens"]
        answer = complete(logit_bias={str(ids[-1]): 100}, max_tokens=4)
        self.assertEqual(web.ask("/tokenize", {"prompt": answer.choices[0].text}).json()["tokens"][-1], ids[-1])

    def test_token_prompts(self):
        ids = web.ask("/tokenize", {"prompt": PROMPT}).json()["tokens"]
        self.assertEqual(complete(prompt=ids).choices[0].text, complete().choices[0].text)
        self.assertIn(PROMPT.strip(), web.ask("/detokenize", {"tokens": ids}).json()["prompt"])

    def test_ignored_fields(self):
        complete(user="somebody", extra_body={"metadata": {"a": "b"}, "a_field_of_tomorrow": 1})


class Chat(unittest.TestCase):
    def test_whole_and_stream(self):
        answer = chat()
        self.assertEqual(answer.choices[0].message.role, "assistant")
        chunks = list(chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.delta.content or "" for x in chunks for c in x.choices), answer.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.total_tokens, answer.usage.total_tokens)

    def test_as_the_template_says(self):
        text = "user: What cargo did the Velvet Otter carry?\nassistant:"
        ids = web.ask("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"]
        self.assertEqual(chat().choices[0].message.content.strip(), complete(prompt=ids).choices[0].text.strip())

    def test_parts_of_text(self):
        parts = [{"type": "text", "text": "What cargo did "}, {"type": "text", "text": "the Velvet Otter carry?"}]
        chat(messages=[{"role": "user", "content": parts}])

    def test_limits_and_logprobs(self):
        answer = chat(max_tokens=openai.NOT_GIVEN, max_completion_tokens=3, logprobs=True, top_logprobs=2)
        self.assertEqual(answer.usage.completion_tokens, 3)
        self.assertEqual(len(answer.choices[0].logprobs.content), 3)
        self.assertEqual(len(answer.choices[0].logprobs.content[0].top_logprobs), 2)

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


if __name__ == "__main__":
    if len(sys.argv) > 1 and pathlib.Path(sys.argv[1]).exists():
        PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve()
    elif not PROGRAM.exists():
        subprocess.run(["make", "-C", ROOT, "build"], check=True)
    unittest.main(verbosity=2)
